"""Vectors of many tokens an item: items, slices, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestling.errors import ArtifactError, DataError
from nestling.search.max_sim import max_sim
from nestling.vectors import StoredVectors
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


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_saved_vectors_come_back_as_memory_maps(tmp_path: Path, dtype: Any) -> None:
    draw = np.random.default_rng(0)
    held = TokenVectors.of([draw.normal(size=(n, 8)).astype(dtype) for n in (3, 1, 5)])
    held[1:].save(tmp_path / "some")
    for _ in range(2):  # the second replaces the first
        held.save(tmp_path / "all")
    loaded = TokenVectors.load(tmp_path / "all")
    assert loaded.values.dtype == dtype
    assert isinstance(loaded.values, np.memmap)
    assert not loaded.values.flags.writeable
    for one, other in zip(loaded.items(), held.items(), strict=True):
        assert np.array_equal(one, other)
    assert TokenVectors.load(tmp_path / "some").counts.tolist() == [1, 5]
    assert np.array_equal(max_sim(held, loaded), max_sim(held, held))


@pytest.mark.parametrize("name", ["vectors.npy", "starts.npy"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damaged_folders_are_refused(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "held"
    TokenVectors.of(ITEMS).save(folder)
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    if damage == "remove":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(data if damage == "flip" else data[:-1])
    with pytest.raises(ArtifactError, match=f"{name} is "):
        TokenVectors.load(folder)


def test_other_folders_are_neither_read_nor_replaced(tmp_path: Path) -> None:
    held = TokenVectors.of(ITEMS)
    with pytest.raises(ArtifactError, match="absent"):
        TokenVectors.load(tmp_path / "absent")
    StoredVectors(np.ones((2, 4), np.float32)).save(tmp_path / "stored")
    with pytest.raises(ArtifactError, match="holds stored vectors, not token vectors"):
        TokenVectors.load(tmp_path / "stored")
    with pytest.raises(ArtifactError, match="not replaced"):
        held.save(tmp_path / "stored")
    held.save(tmp_path / "held")
    with pytest.raises(ArtifactError, match="holds token vectors, not stored vectors"):
        StoredVectors.load(tmp_path / "held")


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
