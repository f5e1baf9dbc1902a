"""Definitions and their docstrings out of Python source, never imported; standard library only."""
