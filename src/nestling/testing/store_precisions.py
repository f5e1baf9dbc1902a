"""The law about precisions of a store: half precision, and codes of one bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import CutRule, cut
from nestling.errors import ConfigError
from nestling.kernels.planes import packed
from nestling.testing.laws import LawError
from nestling.testing.store_example import (
    FULL,
    SMALL,
    StoreExample,
    Vectors,
    exact,
    names_of,
    same,
    vectors_of,
)

_K, _SHORTLIST = 10, 60
# Of a product of unit vectors of which one is rounded to half precision (half a unit in the last place each).
_ROUNDING = {32: 1e-5, 16: 2.0**-11}


def precisions(example: StoreExample) -> None:
    """A store refuses a precision, or finds with it what the same codes in memory find; ties are allowed."""
    vectors, queries = _vectors(example.rows), _vectors(20, seed=1)
    rule = CutRule().calibrated(_vectors(400, seed=2))
    for bits, first, dim in ((16, 16, SMALL), (32, 1, FULL), (16, 1, FULL)):
        name, case = f"precisions{bits}_{first}", f"bits={bits}, shortlist_bits={first}"
        wanted = {"shortlist_dim": dim, "bits": bits, "shortlist_bits": first, "rule": rule}
        try:
            store = example.empty(name, **wanted)
        except ConfigError:
            continue
        store.add(names_of(example.rows), vectors)
        _held(store, cut(vectors, FULL), _ROUNDING[bits], case)
        rows, scores = exact(queries, vectors, example.rows)
        true = np.zeros_like(scores)
        np.put_along_axis(true, rows, scores, axis=1)
        _alike(store.search(queries, _K, shortlist=None), true, _ROUNDING[bits], case)
        if first == 1:
            apart = hamming(queries, vectors, rule)
            for hits, of_query, distances in zip(
                store.search(queries, _K, shortlist=_SHORTLIST), true, apart, strict=True
            ):
                _from_shortlist(hits, of_query, distances, _ROUNDING[bits], case)
        if example.reopen is not None:
            store.close()
            again = example.reopen(name)
            same("precisions", f"the layout, with {case}", again.layout, store.layout)
            store = again
        store.optimize()
        found = store.search(queries, _K, shortlist=example.rows - 1)
        shares = [len(set(h.ids) & set(names_of(r[:_K]))) / _K for h, r in zip(found, rows, strict=True)]
        if np.mean(shares) < example.recall:
            raise LawError(f"precisions: recall {np.mean(shares):.3f} after optimize(), with {case}")
        store.drop()


def hamming(queries: Vectors, vectors: Vectors, rule: CutRule) -> NDArray[np.int64]:
    """Bits in which the codes of one bit differ, ``Int64[queries, rows]``."""
    asked, offered = (np.unpackbits(packed(rule.encode(x), 1)[0], axis=1) for x in (queries, vectors))
    return np.asarray((asked[:, None] != offered[None]).sum(axis=2), np.int64)


def _vectors(count: int, seed: int = 0) -> Vectors:
    """Random vectors whose entries have means other than zero, so that signs are not sides of the mean."""
    return vectors_of(count, seed) + np.linspace(-0.5, 0.5, FULL, dtype=np.float32)


def _rows(hits: Any) -> list[int]:
    return [int(name.removeprefix("row")) for name in hits.ids]


def _held(store: Any, expected: Vectors, rounding: float, case: str) -> None:
    """Stored vectors are those given, rounded."""
    for batch in store.scan(100):
        given = expected[[int(name.removeprefix("row")) for name in batch.ids.tolist()]]
        if np.linalg.norm(batch.vectors - given, axis=1).max() > 2 * rounding:
            raise LawError(f"precisions: scan() returns other vectors than were added, with {case}")


def _alike(found: Sequence[Any], true: NDArray[np.float64], rounding: float, case: str) -> None:
    """Hits have the scores of their rows, and no row that is not a hit has a higher one."""
    for hits, scores in zip(found, true, strict=True):
        rows = _rows(hits)
        if len(rows) != _K or np.abs(hits.scores - scores[rows]).max() > 2 * rounding:
            raise LawError(f"precisions: scores are not those of the vectors, with {case}")
        if np.delete(scores, rows).max() > scores[rows].min() + 2 * rounding:
            raise LawError(f"precisions: an exact search misses a row, with {case}")


def _from_shortlist(
    hits: Any, scores: NDArray[np.float64], apart: NDArray[np.int64], rounding: float, case: str
) -> None:
    """Hits are the best of some shortlist by Hamming distance; at its end it may hold any of equal rows."""
    rows, last = _rows(hits), np.sort(apart)[_SHORTLIST - 1]
    if apart[rows].max() > last:
        raise LawError(f"precisions: a row is found that no shortlist by its bits holds, with {case}")
    certain = np.setdiff1d(np.flatnonzero(apart < last), rows)
    if len(certain) and scores[certain].max() > scores[rows].min() + 2 * rounding:
        raise LawError(f"precisions: a row of the shortlist by bits is missing, with {case}")
    if np.abs(hits.scores - scores[rows]).max() > 2 * rounding:
        raise LawError(f"precisions: scores are not those of the vectors, with {case}")
