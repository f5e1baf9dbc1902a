"""Example stores for the laws of stores, and what all of these laws compare with."""

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
    """How to get at stores of the kind under test.

    Args:
        make: called with a name and the fields of a layout (``nesting``, ``shortlist_dim``, ``rule``, ...)
            it gives a new, empty store.
        reopen: called with such a name, and perhaps ``encoder=`` and ``rule=``, it gives another handle of
            the store made before; None leaves out the laws that need one.
        rows: how many rows the laws use.
        recall: share of a plain funnel's answers that small shortlists must find once the index is built.
        write: ``write(name, ids, vectors, metadata)`` puts rows into the store of that name as another
            program would, with the database's own client: ids as strings, ``Float[n, dim]`` by size, and one
            dict a row. It may raise what that client raises. None leaves out the laws of foreign rows.
        exclusive: only one handle may have a store open, and further ones must be refused.
        delay_s: how long after a change other handles may not see it, as the store documents.
    """

    make: Callable[..., Any]
    reopen: Callable[..., Any] | None = None
    rows: int = 400
    recall: float = 0.9
    write: Callable[..., Any] | None = None
    exclusive: bool = False
    delay_s: float = 0.0

    def filled(self, name: str, **layout: Any) -> tuple[Any, Vectors]:
        """A store of rows called ``row0``, ``row1``, ... with metadata, and their vectors."""
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
    """Entries that matter less and less, as those of nested vectors do."""
    scales = np.linspace(2, 0.2, FULL)
    return np.asarray(np.random.default_rng(seed).normal(size=(count, FULL)) * scales, np.float32)


def names_of(rows: int | Iterable[Any]) -> list[str]:
    """What rows are called: so many, or these."""
    return [f"row{row}" for row in (range(rows) if isinstance(rows, int) else rows)]


def exact(
    queries: Vectors,
    vectors: Vectors,
    k: int,
    dim: int = FULL,
    rule: CutRule = CutRule(),
    metric: str = "dot",
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every row compared in float64: rows of the ``k`` best of every query, and their scores."""
    asked, offered = (cut(x.astype(np.float64), dim, rule) for x in (queries, vectors))
    if metric == "dot":
        scores = asked @ offered.T
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    else:
        scores = np.linalg.norm(asked[:, None] - offered[None], axis=2)
        order = np.argsort(scores, axis=1, kind="stable")[:, :k]
    return order, np.take_along_axis(scores, order, 1)


def funnel(queries: Vectors, vectors: Vectors, k: int, shortlist: int) -> list[NDArray[np.int64]]:
    """Rows of the ``k`` best of a shortlist by the smallest prefix, for each query."""
    kept = exact(queries, vectors, shortlist, SMALL)[0]
    return [
        rows[exact(query[None], vectors[rows], k)[0][0]] for query, rows in zip(queries, kept, strict=True)
    ]


def scanned(store: Any) -> list[Any]:
    """The ids that a scan gives."""
    return [name for batch in store.scan(64) for name in batch.ids.tolist()]


def same(law: str, what: str, found: object, expected: object) -> None:
    """Hold what was found to what is expected.

    Raises:
        LawError: if they differ.
    """
    if found != expected:
        raise LawError(f"{law}: {what} gives {found!r}, not {expected!r}")


def refused(law: str, what: str, action: Callable[[], Any], naming: str = "") -> None:
    """Hold an action to being refused by an error of ours, one that names something.

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
