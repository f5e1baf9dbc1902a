"""TODO papers/mrl."""
