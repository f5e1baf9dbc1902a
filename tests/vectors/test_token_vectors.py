"""Vectors of many tokens an item: items, slices, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nestling.errors import DataError
from nestling.vectors.token_vectors import TokenVectors, grouped_as, rows_of

ITEMS = [np.full((n, 2), n, np.float32) for n in (2, 1, 3)]


def test_items_come_back() -> None:
    held = TokenVectors.of(ITEMS)
    assert held.shape == (3, 2)
    assert held.counts.tolist() == [2, 1, 3]
    for one, other in zip(held.items(), ITEMS, strict=True):
        assert (one == other).all()
    some = held[1:]
    assert some.counts.tolist() == [1, 3]
    assert np.shares_memory(some.values, held.values)
    doubled = grouped_as(held, 2 * rows_of(held))
    assert (doubled.items()[1] == 2).all()
    assert grouped_as(ITEMS[0], rows_of(ITEMS[0])) is ITEMS[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenVectors.of([]), "no items"),
        (lambda: TokenVectors.of([np.zeros((1, 2)), np.zeros((1, 3))]), "one dim"),
        (lambda: TokenVectors(np.zeros((3, 2)), np.array([0, 2])), "from 0 to 3"),
        (
            lambda: TokenVectors(np.zeros((3, 2)), np.array([0, 2, 2, 3])),
            "row 1",
        ),
        (lambda: TokenVectors(np.zeros((3, 2)), np.array([0.0, 3.0])), "whole numbers"),
        (lambda: TokenVectors(np.full((3, 2), np.nan), np.array([0, 3])), "NaN"),
        (lambda: TokenVectors.of(ITEMS)[::2], "steps of 1"),
        (lambda: TokenVectors.of(ITEMS)[2:2], "at least one item"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()
