"""TODO search/graph."""
