"""TODO papers/adanns."""
