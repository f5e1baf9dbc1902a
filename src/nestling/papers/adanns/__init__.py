"""AdANNS, adaptive semantic search (Rege et al. 2023, arXiv 2305.19435)."""
