"""Shared by all tours: claims and their report, studies of trained models, qualities, indexes."""
