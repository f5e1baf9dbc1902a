"""TODO data/tables."""
