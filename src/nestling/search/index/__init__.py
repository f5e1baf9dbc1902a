"""TODO search/index."""
