"""The query resampler: attention of a few queries to the features of an item, and its frozen form."""
