"""Static text encoders: a lookup of token vectors and a mean, without torch."""
