"""TODO compare/similarity."""
