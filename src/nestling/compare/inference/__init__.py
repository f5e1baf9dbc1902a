"""TODO compare/inference."""
