"""Matryoshka Representation Learning (Kusupati et al. 2022, arXiv 2205.13147)."""
