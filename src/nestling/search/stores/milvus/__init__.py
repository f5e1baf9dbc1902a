"""TODO search/stores/milvus."""
