"""tRSA, topology and geometry of neural representations (Lin and Kriegeskorte, arXiv 2309.11028)."""
