"""Comparing rows of a source with those in a store, and batching the ones to write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule, cut
from nestling.data.tables.fields.kinds import Value
from nestling.search.stores.database import DatabaseStore
from nestling.search.stores.layout import Layout
from nestling.search.stores.metadata import read_metadata
from nestling.search.stores.results import Batch, Floats

# Some engines normalise unit vectors again, which moves them by less than this part of their length; in half
# precision an entry may then be rounded to its other neighbour.
_ROUNDING = {32: 1e-5, 16: 2.0**-10}


@dataclass(frozen=True, eq=False)
class Changes:
    """A batch compared with the rows of a store, ``Bool[n]`` each.

    Args:
        new: rows of ids that the store does not have.
        changed: rows whose vector or metadata are others there.
    """

    new: NDArray[np.bool_]
    changed: NDArray[np.bool_]


def changes_of(batch: Batch, store: DatabaseStore, rule: CutRule) -> Changes:
    """Read the rows of these ids from a store and compare them with what ``add`` would write.

    Args:
        batch: rows before ``rule``.
        store: store to look the rows up in.
        rule: steps around a cut that are still to be done.
    """
    count, layout = len(batch.ids), store.layout
    times, same = np.zeros(count, np.int64), np.zeros(count, bool)
    batches = list(store.scan(max(count, 1), ids=batch.ids))
    if batches:
        places = {name: row for row, name in enumerate(batch.ids.tolist())}
        vectors = cut(np.asarray(batch.vectors, np.float32), layout.dim, rule)
        metadata = [_typed(each) for each in read_metadata(batch.metadata, count, layout.fields)]
    for found in batches:
        rows = np.array([places[name] for name in found.ids.tolist()])
        np.add.at(times, rows, 1)
        alike = _alike(found.vectors, vectors[rows], layout)
        tags = [metadata[row] == _typed(each) for row, each in zip(rows, found.metadata, strict=True)]
        same[rows] = alike & np.array(tags, bool)
    # Of one that others wrote several times, only writing it again leaves one.
    return Changes(times == 0, (times > 1) | ((times == 1) & ~same))


def gathered(batches: Iterable[Batch], size: int) -> Iterator[Batch]:
    """The same rows in fewer batches, of ``size`` rows and more: a write costs a database more than a row."""
    waiting: list[Batch] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(each.ids) for each in waiting) >= size:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[Batch]) -> Batch:
    vectors = np.concatenate([batch.vectors for batch in batches])
    return Batch(
        np.concatenate([batch.ids for batch in batches]), vectors, [t for b in batches for t in b.metadata]
    )


def _alike(found: Floats, wanted: Floats, layout: Layout) -> NDArray[np.bool_]:
    if layout.rule.after != "l2":
        held = wanted.astype(np.float16) if layout.bits == 16 else wanted
        return np.asarray((found == held).all(axis=1))
    apart = np.linalg.norm(found - wanted, axis=1)
    return np.asarray(apart <= _ROUNDING[layout.bits] * np.linalg.norm(wanted, axis=1))


def _typed(metadata: Mapping[str, Value]) -> dict[str, tuple[type, Value]]:
    """To Python True is 1 and 2 is 2.0; rows that hold the one are not those that hold the other."""
    return {name: (type(value), value) for name, value in metadata.items()}
