"""TODO data/sets."""
