"""Folders that hold an index of vectors, or a collection of texts: opening and display."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nestling.cli.terminal.output import readable_bytes, say, show, show_json

if TYPE_CHECKING:
    from nestling.search.index.index import AdaptiveIndex
    from nestling.search.plan.frontier import Frontier, Trial


def is_collection(folder: Path) -> bool:
    """Whether a folder holds texts with their encoder, not vectors alone."""
    from nestling.storage.artifact import read_manifest

    return read_manifest(folder).kind == "collection"


def writable(folder: Path, encoder: str = "", *, wait: float = 0) -> AdaptiveIndex:
    """An index opened for changes; ``encoder`` is checked against the one that made its vectors."""
    from nestling.search.index.index import AdaptiveIndex

    return AdaptiveIndex.open(_vectors_of(folder), encoder=encoder or None, wait=wait)


def readable(folder: Path) -> AdaptiveIndex:
    """An index opened for reading."""
    from nestling.search.index.index import AdaptiveIndex

    return AdaptiveIndex.open(_vectors_of(folder), read_only=True)


def show_index(opened: AdaptiveIndex, as_json: bool) -> None:
    """Show what an index holds and how it is searched."""
    found = opened.info()
    if as_json:
        show_json(found.to_json())
        return
    size = f"{found.dim} dims" + (f" in {found.bits} bits" if found.bits else "")
    show(f"{found.rows:,} vectors of {size}, {readable_bytes(found.size_bytes)}: {found.plan}")
    show(f"searched at {found.nesting}, {readable_bytes(found.kept_bytes)} in memory")
    segments, waiting = len(found.segments), found.in_memory
    show(
        f"{segments} segment{'s' * (segments != 1)}, {waiting:,} row{'s' * (waiting != 1)} in no segment yet"
    )
    if found.fields:
        show("fields: " + ", ".join(f"{name} ({kind})" for name, kind in found.fields.items()))
    if found.reason:
        show(f"the plan is {found.reason}")
    if found.table and found.sampled:
        show("recall was measured with rows of the index; on real queries it may be lower (see --queries)")
    for row in found.table:
        mark = "*" if row["point"] == found.default_point else " "
        show(f"{mark} recall {row['recall']:.4f} in {row['latency_ms']:.3g} ms {row['point']}".rstrip())


def show_frontier(chosen: Trial, frontier: Frontier, k: int, as_json: bool) -> None:
    """Show the plans measured for ``k`` neighbours, and the chosen one."""
    if frontier.k < k:
        say(f"each vector has {frontier.k} others, so --k {frontier.k} is measured, not --k {k}")
    if as_json:
        show_json({"chosen": chosen.to_json(), "trials": [trial.to_json() for trial in frontier]})
        return
    show(frontier.table())
    show(f"\nChosen: {chosen.plan} {chosen.point}".rstrip())


def _vectors_of(folder: Path) -> Path:
    return folder / "index" if is_collection(folder) else folder
