"""TODO measure/curve."""
