"""TODO compare/rdms."""
