"""``nestling index``: build, change, inspect and export an index on the disk."""
