"""The log of a run: losses at each granularity, learning rates, evaluations."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Self

from nestling.errors import StorageError
from nestling.storage.artifact import storage_errors, write_file
from nestling.storage.owner import Owner


class LogRow(NamedTuple):
    """One value: ``metric`` at ``granularity`` (empty for none) after ``step`` optimiser steps."""

    step: int
    metric: str
    granularity: str
    value: float


@dataclass
class TrainLog:
    """The log as a tidy table, one value per row.

    Args:
        rows: in the order of logging.
        resumed_from: the step of the checkpoint that the run resumed from, if any.
    """

    rows: list[LogRow] = field(default_factory=list)
    resumed_from: int | None = None

    def series(self, metric: str, granularity: str = "") -> list[tuple[int, float]]:
        """``(step, value)`` of one metric at one granularity."""
        return [
            (row.step, row.value)
            for row in self.rows
            if (row.metric, row.granularity) == (metric, granularity)
        ]

    def to_csv(self) -> str:
        """The table as comma-separated values, with a header."""
        return _csv_lines([LogRow._fields, *self.rows])

    @classmethod
    def from_csv(cls, text: str) -> Self:
        """Read what :meth:`to_csv` wrote."""
        rows = csv.reader(io.StringIO(text))
        next(rows)
        return cls([LogRow(int(step), metric, at, float(value)) for step, metric, at, value in rows])


class Means:
    """Means of named values since the last :meth:`take`."""

    def __init__(self, state: Mapping[str, tuple[float, int]] | None = None) -> None:
        self._sums = dict(state or {})

    def add(self, values: Mapping[str, float]) -> None:
        """Add one value of each name."""
        for name, value in values.items():
            total, count = self._sums.get(name, (0.0, 0))
            self._sums[name] = (total + value, count + 1)

    def take(self) -> dict[str, float]:
        """Return the means and start again."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        self._sums = {}
        return means

    @property
    def state(self) -> dict[str, tuple[float, int]]:
        """Sum and count of each name."""
        return dict(self._sums)


class LogFiles:
    """Writes ``log.csv`` and, if TensorBoard is installed, its event files, row by row.

    Args:
        folder: of the run.
        log: the rows so far. Later rows in ``log.csv`` are dropped: their steps run again.

    Raises:
        StorageError: if writing fails.
    """

    def __init__(self, folder: Path, log: TrainLog) -> None:
        self._path, self._owner = folder / "log.csv", Owner(folder)
        write_file(self._path, log.to_csv())
        self._board: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            after = log.rows[-1].step + 1 if log.rows else None
            with storage_errors(folder):
                self._board = SummaryWriter(folder / "tensorboard", purge_step=after)

    def append(self, rows: list[LogRow]) -> None:
        """Add rows to the files.

        Raises:
            StorageError: if writing fails, or in a fork of the process that began the run.
        """
        self._owner.check()
        try:
            with self._path.open("a", encoding="utf-8", newline="") as stream:
                stream.write(_csv_lines(rows))
        except OSError as error:
            raise StorageError(f"{self._path} could not be written: {error.strerror or error}") from error
        for row in rows if self._board is not None else ():
            self._board.add_scalar("/".join(filter(None, row[1:3])), row.value, row.step)

    def close(self) -> None:
        """Flush and close."""
        if self._board is not None and self._owner.is_here:  # a fork has no thread that writes
            self._board.close()


def _csv_lines(rows: list[Any]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
