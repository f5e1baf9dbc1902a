"""TODO search/plan."""
