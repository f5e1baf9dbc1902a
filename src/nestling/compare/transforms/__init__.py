"""TODO compare/transforms."""
