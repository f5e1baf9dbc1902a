"""Metadata fields of rows: value kinds, parsing, typed columns in memory or on disk."""
