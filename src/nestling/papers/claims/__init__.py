"""TODO papers/claims."""
