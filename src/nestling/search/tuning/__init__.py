"""TODO search/tuning."""
