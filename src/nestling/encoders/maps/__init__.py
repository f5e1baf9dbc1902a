"""TODO encoders/maps."""
