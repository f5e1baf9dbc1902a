"""Encoding on several devices at once, by one process each."""
