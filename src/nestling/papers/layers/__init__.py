"""TODO papers/layers."""
