"""TODO search/where."""
