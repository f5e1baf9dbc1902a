"""Torch modules that can be cut; no data, no training."""
