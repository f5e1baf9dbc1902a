"""Batches prepared ahead by worker processes; the death of a worker is noticed at once.

The DataLoader of torch reports a dead worker from a SIGCHLD handler, in whatever line runs at that time, even
after the training. Here each worker has its own connection, and its end is the signal.
"""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle, islice
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

import torch

from nestling.errors import WorkerError, ending_of

_AHEAD = 2  # batches per worker that are ready or in progress
_SECONDS_TO_END = 10.0  # after its connection broke

Make = Callable[[int], Any]


def prepared(make: Make, numbers: Iterable[int], workers: int) -> Generator[Any, None, None]:
    """``make(number)`` for each of ``numbers``, in order; its exceptions are raised here.

    Args:
        make: makes the batch of a number.
        numbers: of the batches.
        workers: number of processes.

    Raises:
        WorkerError: if a process was killed or exited.
    """
    with ExitStack() as stack:
        turns = cycle([stack.enter_context(_Worker.started(make)) for _ in range(workers)])
        left, asked = iter(numbers), deque[_Worker]()

        def ask(count: int) -> None:
            for number, worker in zip(islice(left, count), turns, strict=False):
                worker.ask(number)
                asked.append(worker)

        ask(_AHEAD * workers)
        while asked:
            batch = asked.popleft().answer()
            ask(1)
            yield batch


class _Worker:
    """A process that makes the requested batches, in order."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self._process, self._connection = process, connection

    @classmethod
    @contextmanager
    def started(cls, make: Make) -> Iterator[_Worker]:
        """A process that is stopped at the end of the block."""
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=_serve, args=(make, theirs, ours), daemon=True)
        with ours, theirs:
            process.start()
            theirs.close()  # so that ours ends when the process does
            try:
                yield cls(process, ours)
            finally:
                process.kill()
                process.join()

    def ask(self, number: int) -> None:
        """Request a batch.

        Raises:
            WorkerError: if the process is gone.
        """
        try:
            self._connection.send(number)
        except OSError:
            self._is_gone()

    def answer(self) -> Any:
        """The first requested batch that was not yet returned.

        Raises:
            WorkerError: if the process is gone.
        """
        try:
            is_made, batch = self._connection.recv()
        except (EOFError, OSError):
            self._is_gone()
        if not is_made:
            raise batch
        return batch

    def _is_gone(self) -> NoReturn:
        self._process.join(_SECONDS_TO_END)
        code = self._process.exitcode
        how = "closed its connection" if code is None else ending_of(code)
        raise WorkerError(
            f"process {self._process.pid}, which prepared batches, {how} before it was done; often memory "
            "ran out: give fewer workers, or workers=0 to prepare batches in this process. With folder= the "
            "same call resumes from the last checkpoint"
        ) from None


def _serve(make: Make, connection: Connection, other_end: Connection) -> None:
    """Make batches until the connection ends."""
    other_end.close()  # a fork has it too
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent gets it too, and stops this process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            connection.send_bytes(_made(make, connection.recv()))


def _made(make: Make, number: int) -> Any:
    """A batch, or the exception, pickled; tensors are in shared memory."""
    try:
        return ForkingPickler.dumps((True, make(number)))
    except Exception as error:  # noqa: BLE001 - it is raised again in the parent
        error.add_note(f"in the process that prepares batches:\n{traceback.format_exc()}")
        try:
            message = ForkingPickler.dumps((False, error))
            ForkingPickler.loads(message)
        except Exception:  # noqa: BLE001 - it cannot be pickled
            plain = RuntimeError(f"{type(error).__name__}: {error}")
            plain.add_note(error.__notes__[-1])
            return ForkingPickler.dumps((False, plain))
        return message
