"""Stores, vectors and exact searches that the laws of stores compare with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, CutRule, cut
from nestling.errors import NestlingError
from nestling.granularity import Nesting
from nestling.testing.laws import LawError

NESTING = Nesting.chain(dim=(8, 16, 32))
SMALL, MIDDLE, FULL = NESTING.sizes("dim")
SPACES = ((CutRule(), "dot"), (RAW, "dot"), (RAW, "euclidean"))
HOSTILE = (
    "plain",
    "it's",
    'a "quoted" word',
    "back\\slash",
    "line\nbreak\ttab",
    "'; DROP TABLE docs; --",
    "%s {table} $1",
    "größer 東京 🐦",
    " spaces ",
    "x" * 256,
)

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class StoreExample:
    """A store under test, with functions that create it, open it again and write to it from outside.

    Args:
        make: called with a name and the fields of a layout (``nesting``, ``shortlist_dim``, ``rule``, ...),
            returns a new, empty store.
        reopen: called with the name of an existing store, and perhaps ``encoder=`` and ``rule=``, returns
            another handle of it; None skips the laws that need one.
        rows: number of rows that the laws use.
        recall: the recall that small shortlists must reach, against an exact two-stage search.
        write: ``write(name, ids, vectors, metadata)`` writes rows into the store of that name as another
            program would, with the database's own client: ids as strings, ``Float[n, dim]`` by size, and one
            dict per row. It may raise the errors of that client. None skips the laws about such rows.
        exclusive: only one handle can have a store open; a second one must be refused.
        delay_s: seconds after which other handles see a change, as the store documents.
    """

    make: Callable[..., Any]
    reopen: Callable[..., Any] | None = None
    rows: int = 400
    recall: float = 0.9
    write: Callable[..., Any] | None = None
    exclusive: bool = False
    delay_s: float = 0.0

    def filled(self, name: str, **layout: Any) -> tuple[Any, Vectors]:
        """A store with rows ``row0``, ``row1``, ... and metadata, and the vectors of the rows."""
        store = self.empty(name, **layout)
        vectors = vectors_of(self.rows)
        store.add(
            names_of(self.rows),
            vectors,
            [{"parity": row % 2, "kind": f"k{row % 5}"} for row in range(self.rows)],
        )
        return store, vectors

    def empty(self, name: str, **layout: Any) -> Any:
        """A store without rows."""
        return self.make(name, **({"nesting": NESTING, "shortlist_dim": SMALL} | layout))


def vectors_of(count: int, seed: int = 0) -> Vectors:
    """Random vectors whose entries get smaller, like those of nested embeddings."""
    scales = np.linspace(2, 0.2, FULL)
    return np.asarray(np.random.default_rng(seed).normal(size=(count, FULL)) * scales, np.float32)


def names_of(rows: int | Iterable[Any]) -> list[str]:
    """Ids for so many rows, or for these row numbers."""
    return [f"row{row}" for row in (range(rows) if isinstance(rows, int) else rows)]


def exact(
    queries: Vectors,
    vectors: Vectors,
    k: int,
    dim: int = FULL,
    rule: CutRule = CutRule(),
    metric: str = "dot",
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Exact search in float64: the rows of the ``k`` best of every query, and their scores."""
    asked, offered = (cut(x.astype(np.float64), dim, rule) for x in (queries, vectors))
    if metric == "dot":
        scores = asked @ offered.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    else:
        scores = np.linalg.norm(asked[:, None] - offered[None], axis=2)
        order = np.argsort(scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


def funnel(queries: Vectors, vectors: Vectors, k: int, shortlist: int) -> list[NDArray[np.int64]]:
    """Exact two-stage search: a shortlist by the smallest prefix, then the ``k`` best of it."""
    kept = exact(queries, vectors, shortlist, SMALL)[0]
    return [
        rows[exact(query[None], vectors[rows], k)[0][0]] for query, rows in zip(queries, kept, strict=True)
    ]


def scanned(store: Any) -> list[Any]:
    """The ids that ``scan`` returns."""
    return [name for batch in store.scan(64) for name in batch.ids.tolist()]


def same(law: str, what: str, found: object, expected: object) -> None:
    """Raise unless two values are equal.

    Raises:
        LawError: if they differ.
    """
    if found != expected:
        raise LawError(f"{law}: {what} is {found!r}, not {expected!r}")


def refused(law: str, what: str, action: Callable[[], Any], naming: str = "") -> None:
    """Raise unless an action raises a ``NestlingError`` whose message contains ``naming``.

    Raises:
        LawError: if it is not.
    """
    try:
        action()
    except NestlingError as error:
        if naming not in str(error):
            raise LawError(f"{law}: the error for {what} does not name {naming!r}: {error}") from error
    else:
        raise LawError(f"{law}: {what} was accepted")
