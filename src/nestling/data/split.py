"""Groups rows that share a text, and assigns whole groups to splits."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from nestling.errors import ConfigError, DataError


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


def deal(groups: Sequence[str], fractions: Sequence[float], seed: int) -> list[list[int]]:
    """The rows of each part, in their order; no group is in two parts.

    Args:
        groups: the group of each row.
        fractions: share of the rows of each part, above 0, in sum 1.
        seed: the same seed gives the same parts.

    Raises:
        ConfigError: for fractions that are not above 0 or do not sum to 1.
        DataError: if there are fewer groups than parts.
    """
    if not fractions or min(fractions) <= 0 or not math.isclose(sum(fractions), 1, abs_tol=1e-6):
        raise ConfigError(
            f"fractions must be above 0 and sum to 1, not {tuple(fractions)}; (0.8, 0.1, 0.1) is usual"
        )
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        rows_of[group].append(row)
    if len(rows_of) < len(fractions):
        raise DataError(
            f"{len(fractions)} parts need at least as many groups, but the {len(groups)} pairs are in "
            f"{len(rows_of)} ({', '.join(sorted(rows_of)[:3])}); give a finer group column, or more data"
        )
    rows_in: list[list[int]] = [[] for _ in fractions]
    part_of = place([len(rows) for rows in rows_of.values()], fractions, seed)
    for part, rows in zip(part_of, rows_of.values(), strict=True):
        rows_in[part] += rows
    return [sorted(rows) for rows in rows_in]


def place(sizes: Sequence[int], fractions: Sequence[float], seed: int) -> list[int]:
    """The part of each group, so that the parts come near ``fractions`` of all rows and none is empty.

    The largest groups come first, each into a part drawn with the chance of the room that is left in it;
    a group that would fill more than half of the room everywhere goes where most is.
    """
    rng = np.random.default_rng(seed)
    ties, draws = rng.random((2, len(sizes)))
    order = sorted(range(len(sizes)), key=lambda group: (-sizes[group], ties[group]))
    room = [fraction * sum(sizes) for fraction in fractions]
    empty = set(range(len(fractions)))
    part_of = [0] * len(sizes)
    for left, group in zip(range(len(order), 0, -1), order, strict=True):
        open_to = sorted(empty) if left <= len(empty) else range(len(room))
        fitting = [part for part in open_to if room[part] >= 2 * sizes[group]]
        part = _draw(fitting, room, draws[group]) if fitting else max(open_to, key=room.__getitem__)
        part_of[group] = part
        room[part] -= sizes[group]
        empty.discard(part)
    return part_of


def _draw(parts: Sequence[int], room: Sequence[float], draw: float) -> int:
    """One of ``parts``, with the chance of its room."""
    mark = draw * sum(room[part] for part in parts)
    for part in parts:
        mark -= room[part]
        if mark < 0:
            return part
    return parts[-1]
