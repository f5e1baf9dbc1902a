"""TODO vectors."""
