"""The batches of a run by number."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from nestling.arguments.formatting import type_of
from nestling.errors import ConfigError, DataError
from nestling.training.config import TrainConfig
from nestling.training.seeding import BATCH, seed_from
from nestling.training.workers import prepared

Rows = NDArray[np.int64]
_NUMERIC = "biufc"


class Batches(Dataset[Any]):
    """The batches of a run, numbered from 0 through all epochs.

    A batch depends only on the data, the settings and its number, so a run can resume at any batch.

    Args:
        data: columns of equal length: a tensor, an array (also a memory map), or a tuple or dict of such or
            of lists, also nested; the rows of a batch are gathered at once. Or a data set with ``len()``
            and ``data[i]``, such as a torch ``Dataset``, whose items are collated.
        config: for ``batch_size``, ``seed``, ``drop_last`` and ``gradient_accumulation``.
        collate: makes a batch of items, for a data set of items; torch's default if None.
        process: rank among ``processes``; each process gets an equal share of every batch.

    Raises:
        ConfigError: if ``batch_size`` is not a multiple of the number of processes.
        DataError: for no rows, columns of different lengths, or fewer rows than processes.
    """

    def __init__(
        self,
        data: Any,
        config: TrainConfig,
        *,
        collate: Callable[[list[Any]], Any] | None = None,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.data, self.config, self.collate = data, config, collate or default_collate
        self.process, self.processes = process, processes
        if config.batch_size % processes:
            raise ConfigError(
                f"batch_size={config.batch_size} cannot be shared equally among {processes} processes; "
                f"use a multiple of {processes}"
            )
        self.rows = _count_rows(data)
        whole, rest = divmod(self.rows, config.batch_size)
        keep_rest = rest >= processes and (whole == 0 or not config.drop_last)
        self.per_epoch = whole + int(keep_rest)
        if self.per_epoch == 0:
            raise DataError(f"{self.rows} rows cannot be shared among {processes} processes; use fewer")
        self._order: tuple[int, Rows] = (-1, np.empty(0, np.int64))

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch; the last one may accumulate fewer batches."""
        return -(-self.per_epoch // self.config.gradient_accumulation)

    def of_step(self, step: int) -> range:
        """The numbers of the batches that optimiser step ``step`` (from 0) accumulates."""
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self.config.gradient_accumulation
        last = min(first + self.config.gradient_accumulation, self.per_epoch)
        return range(epoch * self.per_epoch + first, epoch * self.per_epoch + last)

    def size(self, number: int) -> int:
        """Rows of batch ``number`` over all processes; divisible by their number."""
        start = number % self.per_epoch * self.config.batch_size
        count = min(self.config.batch_size, self.rows - start)
        return count - count % self.processes

    def rows_of(self, number: int) -> Rows:
        """This process's rows of batch ``number``."""
        epoch, place = divmod(number, self.per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.config.seed, epoch]).permutation(self.rows))
        share = self.size(number) // self.processes
        start = place * self.config.batch_size + self.process * share
        return self._order[1][start : start + share]

    def __getitem__(self, number: int) -> Any:
        """Batch ``number``; it also seeds everything random in the data."""
        seed_from(self.config.seed, BATCH, number, self.process)
        rows = self.rows_of(number)
        if _is_columns(self.data):
            return gather(self.data, rows)
        if hasattr(self.data, "__getitems__"):
            return self.collate(self.data.__getitems__(rows.tolist()))
        return self.collate([self.data[row] for row in rows.tolist()])

    def stream(self, numbers: Iterable[int]) -> Generator[Any, None, None]:
        """The batches of ``numbers`` in order, prepared ahead if there are workers.

        Raises:
            WorkerError: if a worker was killed.
        """
        if self.config.workers == 0:
            return (self[number] for number in numbers)
        return prepared(self.__getitem__, numbers, self.config.workers)


def gather(data: Any, rows: Rows) -> Any:
    """The given rows of every column; numbers become tensors."""
    if isinstance(data, Tensor):
        return data[torch.from_numpy(rows).to(data.device)]
    if isinstance(data, np.ndarray):
        picked = np.asarray(data[rows])
        return torch.from_numpy(picked) if picked.dtype.kind in _NUMERIC else picked
    if isinstance(data, dict):
        return {name: gather(column, rows) for name, column in data.items()}
    if isinstance(data, tuple):
        return tuple(gather(column, rows) for column in data)
    return [data[row] for row in rows.tolist()]


def _is_columns(data: Any) -> bool:
    return isinstance(data, (Tensor, np.ndarray, tuple, dict))


def _count_rows(data: Any) -> int:
    if _is_columns(data):
        lengths = dict(_lengths(data, "data"))
    elif hasattr(data, "__len__") and hasattr(data, "__getitem__"):
        lengths = {"data": len(data)}
    else:
        raise DataError(
            f"data must be columns (tensors, arrays, or a tuple or dict of them) or have len() and "
            f"data[i]; {type(data).__name__} has neither"
        )
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(f"all columns must have the same number of rows; got {found}")
    rows = next(iter(lengths.values()), 0)
    if rows == 0:
        raise DataError("the data has no rows; give at least one")
    return rows


def _lengths(data: Any, name: str) -> Iterator[tuple[str, int]]:
    if isinstance(data, (tuple, dict)):
        columns = data.items() if isinstance(data, dict) else enumerate(data)
        for key, column in columns:
            yield from _lengths(column, f"{name}[{key!r}]")
    elif isinstance(data, list) or (isinstance(data, (Tensor, np.ndarray)) and data.ndim):
        yield name, len(data)
    else:
        raise DataError(
            f"{name} is {type_of(data)} without rows; give a tensor, an array or a list, one entry per row"
        )
