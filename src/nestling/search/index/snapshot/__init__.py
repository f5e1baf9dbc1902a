"""Snapshots of an index: segments and the memtable at one moment, searched together."""
