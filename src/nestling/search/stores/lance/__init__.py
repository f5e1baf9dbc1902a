"""TODO search/stores/lance."""
