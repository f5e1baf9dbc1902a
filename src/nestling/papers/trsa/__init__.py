"""TODO papers/trsa."""
