"""Validation of arguments: ranges and options, arrays, ids of rows, paths."""
