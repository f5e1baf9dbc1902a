"""TODO search/certified."""
