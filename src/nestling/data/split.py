"""How rows are grouped by the texts they share, and how groups are dealt to parts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def groups_by_text(queries: Sequence[str], documents: Sequence[str]) -> tuple[str, ...]:
    """The first row of each set of rows that hang together through equal texts, as its name."""
    parent = list(range(len(queries)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    first: dict[str, int] = {}
    for row, texts in enumerate(zip(queries, documents, strict=False)):
        for text in texts:
            one, other = sorted((root(first.setdefault(plain_text(text), row)), root(row)))
            parent[other] = one
    return tuple(str(root(row)) for row in range(len(parent)))


def plain_text(text: str) -> str:
    """``text`` as it is compared: without case and with single spaces."""
    return " ".join(text.casefold().split())


def place(sizes: Sequence[int], fractions: Sequence[float], seed: int) -> list[int]:
    """The part that each group goes to."""
    rng = np.random.default_rng(seed)
    room = np.asarray(fractions) * sum(sizes)
    parts = np.zeros(len(sizes), dtype=np.int64)
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-np.asarray(sizes)[shuffled], kind="stable")]
    empty = set(range(len(fractions)))
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        fitting = np.where(room >= 2 * sizes[group], room, 0.0)
        if left <= len(empty):  # the last groups, one for each part that has none
            part = min(empty, key=lambda one: -room[one])
        elif fitting.any():
            part = int(rng.choice(len(room), p=fitting / fitting.sum()))
        else:
            part = int(room.argmax())
        parts[group] = part
        room[part] -= sizes[group]
        empty.discard(part)
    return [int(part) for part in parts]
