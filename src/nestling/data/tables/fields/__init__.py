"""Fields of rows: kinds of values, texts that stand for values, typed columns in memory or on disk."""
