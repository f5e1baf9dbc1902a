"""TODO encoders/text."""
