"""TODO search/stores/postgres."""
