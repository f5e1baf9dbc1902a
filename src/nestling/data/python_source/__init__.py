"""Docstrings extracted from Python source without importing it; standard library only."""
