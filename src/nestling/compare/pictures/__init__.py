"""TODO compare/pictures."""
