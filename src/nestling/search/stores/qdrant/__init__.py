"""TODO search/stores/qdrant."""
