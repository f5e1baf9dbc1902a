"""TODO domains/text."""
