"""Batches prepared by processes of their own: the same as without, and no wait for a process that is gone."""

from __future__ import annotations

import collections
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from multiprocessing import active_children
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from nestling.errors import DataError, WorkerError
from nestling.training import TrainConfig, fit
from nestling.training.workers import prepared

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
# For a process that is gone; what is measured is that nobody waits for ever, on however busy a machine.
SECONDS = 60


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    assert not active_children()


def as_text(number: int) -> list[str]:
    return [f"text {number} {'of a long document ' * 20_000}"]  # more than a pipe holds


def as_tensors(number: int) -> dict[str, torch.Tensor]:
    return {"rows": torch.full((40, 300), float(number)), "none": torch.empty(0)}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("make", [as_text, as_tensors])
def test_batches_come_in_turn(make: Callable[[int], Any], workers: int) -> None:
    numbers = [5, 3, 9, 0, 1, 2, 8]
    for found, number in zip(prepared(make, numbers, workers), numbers, strict=True):
        torch.testing.assert_close(found, make(number)) if isinstance(found, dict) else None
        assert isinstance(found, dict) or found == make(number)
    assert list(prepared(make, [], workers)) == []


def test_processes_end_with_whoever_asks() -> None:
    with closing(prepared(as_tensors, iter(range(10**9)), 2)) as batches:
        assert [float(batch["rows"][0, 0]) for batch in islice(batches, 5)] == [0, 1, 2, 3, 4]
        assert len(active_children()) == 2


ASKING = """
from itertools import count
from multiprocessing import active_children
from nestling.training.workers import prepared

def make(number):
    return number

if __name__ == "__main__":
    batches = prepared(make, count(), 3)
    next(batches)
    print(*(process.pid for process in active_children()), flush=True)
    for _ in batches:
        pass
"""


def test_processes_end_when_whoever_asks_is_killed(python: str) -> None:
    with subprocess.Popen([python, "-c", ASKING], stdout=subprocess.PIPE, text=True) as asking:
        assert asking.stdout is not None
        workers = list(map(int, asking.stdout.readline().split()))
        asking.kill()
    deadline = time.monotonic() + SECONDS
    while any(map(runs, workers)):
        assert time.monotonic() < deadline, "they wait for ever"
        time.sleep(0.05)


def runs(process: int) -> bool:
    """Whether it is there, and no zombie that nobody asks for."""
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, check=False)
    return told.stdout.strip()[:1] not in (b"", b"Z")


@pytest.mark.parametrize("make", [as_text, as_tensors])
@pytest.mark.parametrize("moment", range(8))
def test_a_killed_process_is_noticed(make: Callable[[int], Any], moment: int) -> None:
    """From outside, as the kernel does where memory runs out: at rest, while it works, while it answers."""
    begun = time.monotonic()
    with closing(prepared(make, iter(range(10**9)), 2)) as batches:
        next(batches)
        killed = active_children()[moment % 2]
        threading.Timer(0.004 * moment, os.kill, (killed.pid, signal.SIGKILL)).start()
        with pytest.raises(WorkerError, match=r"batches, was ended by SIGKILL before .*fewer workers"):
            collections.deque(batches, maxlen=0)
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("moment", range(4))
def test_a_training_notices_it_too(moment: int) -> None:
    class Rows(Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return 16

        def __getitem__(self, row: int) -> torch.Tensor:
            if row == 4 * moment and os.getpid() != owner:
                os.kill(os.getpid(), signal.SIGKILL)
            return torch.full((4,), float(row))

    owner = os.getpid()
    config = TrainConfig(batch_size=4, workers=2, max_steps=8)
    with pytest.raises(WorkerError, match=r"With folder= the same call resumes"):
        fit(nn.Linear(4, 4), lambda model, batch: model(batch).square().mean(), Rows(), config)


class Odd(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parametrize(
    ("error", "kind"), [(DataError("no such row"), DataError), (Odd(1, 2), RuntimeError)]
)
def test_errors_of_the_data_are_raised_where_batches_are_asked_for(
    error: Exception, kind: type[Exception]
) -> None:
    def make(number: int) -> int:
        if number == 2:
            raise error
        return number

    batches = prepared(make, range(5), 2)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(kind, match=r"no such row|Odd: 1 and 2") as raised:
        next(batches)
    assert "raise error" in raised.value.__notes__[0], "the place is named"


def test_what_cannot_travel_is_an_error() -> None:
    with pytest.raises(Exception, match="pickle"):
        next(prepared(lambda number: lambda: number, range(3), 1))
