"""TODO search/exact."""
