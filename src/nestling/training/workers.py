"""Batches prepared ahead by processes of their own; one that dies is noticed at once.

The loader of torch tells of a dead process from a handler of SIGCHLD: in whatever line runs then, even after
the training, or as an error of the connection that breaks first. Here each process has a connection of its
own, and the end of that is the sign.
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

_AHEAD = 2  # batches that each process may have ready or in work
_SECONDS_TO_END = 10.0  # after its connection broke

Make = Callable[[int], Any]


def prepared(make: Make, numbers: Iterable[int], workers: int) -> Generator[Any, None, None]:
    """``make(number)`` of each of ``numbers``, in turn; what it raises is raised here.

    Args:
        make: the batch of a number.
        numbers: of the batches.
        workers: processes that make them.

    Raises:
        WorkerError: if a process was killed or ended by itself.
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
    """A process that makes the batches it is asked for, in that order."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self._process, self._connection = process, connection

    @classmethod
    @contextmanager
    def started(cls, make: Make) -> Iterator[_Worker]:
        """A process that is gone when the block ends."""
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
        """Let a batch be made.

        Raises:
            WorkerError: if the process is gone.
        """
        try:
            self._connection.send(number)
        except OSError:
            self._is_gone()

    def answer(self) -> Any:
        """The first batch that was asked for and not yet given.

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
            "same call goes on from the last checkpoint"
        ) from None


def _serve(make: Make, connection: Connection, other_end: Connection) -> None:
    """Make batches until the connection ends, as it does when whoever asks is gone."""
    other_end.close()  # a fork has it too
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal tells all processes; who asks ends this one
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    with suppress(EOFError, OSError):  # nobody asks any more
        while True:
            connection.send_bytes(_made(make, connection.recv()))


def _made(make: Make, number: int) -> Any:
    """A batch, or why there is none, as bytes; tensors lie in shared memory."""
    try:
        return ForkingPickler.dumps((True, make(number)))
    except Exception as error:  # noqa: BLE001 - it is raised where the batch was asked for
        error.add_note(f"in the process that prepares batches:\n{traceback.format_exc()}")
        try:
            message = ForkingPickler.dumps((False, error))
            ForkingPickler.loads(message)
        except Exception:  # noqa: BLE001 - it cannot travel as it is
            told = RuntimeError(f"{type(error).__name__}: {error}")
            told.add_note(error.__notes__[-1])
            return ForkingPickler.dumps((False, told))
        return message
