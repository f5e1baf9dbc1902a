"""Elastic encoders of texts and images, maps of existing vectors, and activations of any layer."""
