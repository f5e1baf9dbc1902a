"""Snapshots of an index: segments and the memtable at one moment, searched together."""

from nestling._exports import old_names

_HOME = "nestling.search.index.snapshot.snapshot"
__getattr__ = old_names(
    __name__, {name: f"{_HOME}.{name}" for name in ("Filter", "Hits", "LiveSegment", "Snapshot")}
)
