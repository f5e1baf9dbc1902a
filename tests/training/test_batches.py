"""Batches: every row once per epoch, order by seed and number alone, data of any form."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, TensorDataset

from nestling.errors import ConfigError, DataError
from nestling.training.batches import Batches
from nestling.training.config import TrainConfig


def all_rows(data: Any, config: TrainConfig, processes: int, epochs: int = 1) -> list[np.ndarray]:
    shares = [Batches(data, config, process=p, processes=processes) for p in range(processes)]
    numbers = range(epochs * shares[0].per_epoch)
    return [np.concatenate([share.rows_of(number) for share in shares]) for number in numbers]


@given(
    rows=st.integers(1, 60),
    batch_size=st.integers(1, 20),
    processes=st.integers(1, 4),
    drop_last=st.booleans(),
    seed=st.integers(0, 5),
)
def test_an_epoch_visits_rows_once_in_equal_shares(
    rows: int, batch_size: int, processes: int, drop_last: bool, seed: int
) -> None:
    config = TrainConfig(batch_size=batch_size, drop_last=drop_last, seed=seed)
    data = np.arange(rows)
    if batch_size % processes:
        with pytest.raises(ConfigError, match="cannot be shared equally"):
            Batches(data, config, processes=processes)
        return
    if rows < processes:
        with pytest.raises(DataError, match="cannot be shared"):
            Batches(data, config, processes=processes)
        return
    batches = all_rows(data, config, processes)
    seen = np.concatenate(batches)
    assert len(set(seen.tolist())) == len(seen) <= rows
    sizes = [len(batch) for batch in batches]
    assert all(size % processes == 0 for size in sizes)
    if drop_last:
        assert len(set(sizes)) == 1
    elif processes == 1:
        assert len(seen) == rows


def test_epochs_are_shuffled_anew_and_by_the_seed_alone() -> None:
    data = np.arange(50)
    config = TrainConfig(batch_size=50)
    first, second = all_rows(data, config, 1, epochs=2)
    assert sorted(first) == sorted(second) == list(range(50))
    assert (first != second).any()
    assert (first != np.arange(50)).any()
    assert (all_rows(data, config, 2)[0] == first).all(), "two processes share the batch of one"
    assert (all_rows(data, TrainConfig(batch_size=50, seed=1), 1)[0] != first).any()


@given(rows=st.integers(1, 40), batch_size=st.integers(1, 9), accumulation=st.integers(1, 5))
def test_the_steps_of_a_run_take_every_batch_in_turn(rows: int, batch_size: int, accumulation: int) -> None:
    config = TrainConfig(batch_size=batch_size, gradient_accumulation=accumulation, drop_last=False)
    batches = Batches(np.arange(rows), config)
    steps = [batches.of_step(step) for step in range(3 * batches.steps_per_epoch)]
    assert [n for step in steps for n in step] == list(range(3 * batches.per_epoch))
    assert all(1 <= len(step) <= accumulation for step in steps)
    assert all(step[0] // batches.per_epoch == step[-1] // batches.per_epoch for step in steps)


def test_columns_of_every_kind_are_gathered_alike(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    np.save(tmp_path / "values.npy", values)
    memory_map = np.load(tmp_path / "values.npy", mmap_mode="r")
    texts = [f"text {row}" for row in range(30)]
    data = {"map": memory_map, "pair": (torch.from_numpy(values), texts), "names": np.array(texts)}
    batches = Batches(data, TrainConfig(batch_size=7))
    batch, rows = batches[3], batches.rows_of(3)
    assert isinstance(batch["map"], torch.Tensor)
    np.testing.assert_array_equal(batch["map"], values[rows])
    np.testing.assert_array_equal(batch["pair"][0], values[rows])
    assert batch["pair"][1] == [texts[row] for row in rows] == batch["names"].tolist()
    np.testing.assert_array_equal(Batches(memory_map, TrainConfig(batch_size=7))[3], values[rows])


class Noisy(Dataset[torch.Tensor]):
    """Items that draw from the global generators, as augmentations do."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.tensor([float(row), float(np.random.rand()), float(torch.rand(()))])


def test_a_batch_depends_on_its_number_alone_with_workers_too() -> None:
    config = TrainConfig(batch_size=4)
    batches = Batches(Noisy(), config)
    expected = {number: batches[number] for number in reversed(range(5))}
    for workers in (0, 2):
        ahead = Batches(Noisy(), TrainConfig(batch_size=4, workers=workers))
        for number, batch in zip(range(1, 5), ahead.stream(range(1, 5)), strict=True):
            torch.testing.assert_close(batch, expected[number], rtol=0, atol=0)


def test_items_are_collated_and_batched_fetches_used() -> None:
    fetched = collections.Counter[str]()

    class Table:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, row: int) -> int:
            fetched["one"] += 1
            return row

        def __getitems__(self, rows: list[int]) -> list[int]:
            fetched["many"] += 1
            return rows

    batches = Batches(Table(), TrainConfig(batch_size=4), collate=lambda items: sorted(items))
    assert batches[0] == sorted(batches.rows_of(0).tolist())
    assert fetched == {"many": 1}
    items = TensorDataset(torch.arange(8), torch.arange(8) * 2)
    x, y = Batches(items, TrainConfig(batch_size=4))[1]
    assert (y == 2 * x).all()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((torch.zeros(3, 2), np.zeros(4)), r"data\[0\]: 3, data\[1\]: 4"),
        ({"a": torch.zeros(3), "b": {"c": ["x"]}}, r"data\['b'\]\['c'\]: 1"),
        ((), "no rows"),
        (torch.zeros(0, 4), "no rows"),
        ([], "no rows"),
        ((torch.tensor(1.0),), r"data\[0\] is a Tensor without rows"),
        (("abc", "def"), r"data\[0\] is a str without rows"),
        (iter([1, 2]), "must be columns"),
        (None, "must be columns"),
    ],
)
def test_data_that_cannot_be_batched_is_explained(data: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        Batches(data, TrainConfig())
