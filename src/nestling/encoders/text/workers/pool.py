"""Encoding in several processes, each with a copy of the model; the death of one is noticed at once.

The processes are plain interpreters that read a saved copy of the model: nothing is pickled, and no
``__main__`` is run again, so this works in scripts without a guard, in notebooks and from standard input.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nestling import errors
from nestling.errors import NestlingError, WorkerError, ending_of
from nestling.process.blocks import blocks
from nestling.process.progress import Progress

_LARGEST_PART = 5000
_PARTS_A_WORKER = 10
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from nestling.encoders.text.workers.worker import main; main(*sys.argv[2:])"
)


def encode_apart(
    save: Callable[[Path], None],
    texts: Sequence[str],
    dim: int,
    devices: Sequence[str],
    batch_size: int,
    prompt: str | None,
    first_row: int = 0,
) -> NDArray[np.float32]:
    """Vectors ``Float32[texts, dim]`` by a process for each of ``devices``.

    Args:
        save: writes the model into a folder, from which each process loads it.
        texts: checked.
        dim: entries of a vector.
        devices: as torch names them.
        batch_size: texts that a model sees at a time.
        prompt: put before every text.
        first_row: the number of the first text in errors.

    Raises:
        WorkerError: if a process cannot start, or ends before its work is done.
    """
    size = max(1, min(math.ceil(len(texts) / len(devices) / _PARTS_A_WORKER), _LARGEST_PART))
    parts = blocks(len(texts), size)
    found = np.empty((len(texts), dim), np.float32)
    with tempfile.TemporaryDirectory(prefix="nestling-workers-") as name, ExitStack() as stack:
        folder = Path(name)
        save(folder / "model")
        threads = stack.enter_context(ThreadPoolExecutor(len(devices)))
        workers = [
            stack.enter_context(_Worker.started(folder, number, device))
            for number, device in enumerate(devices)
        ]
        idle, failures = SimpleQueue[_Worker](), list[BaseException]()
        for worker in workers:
            idle.put(worker)

        def encode(rows: slice) -> None:
            worker = idle.get()
            try:
                request = {"batch_size": batch_size, "prompt": prompt, "first_row": first_row + rows.start}
                found[rows] = worker.ask({"texts": list(texts[rows]), **request}, dim)
            except BaseException as error:
                failures.append(error)
                for each in workers:  # or the other threads would wait for answers that are no longer needed
                    each.kill()
                raise
            finally:
                idle.put(worker)

        progress = stack.enter_context(Progress("encoding", len(texts), "texts"))
        try:
            for rows, _ in zip(parts, threads.map(encode, parts), strict=True):
                progress.update(rows.stop - rows.start)
        except Exception:  # noqa: BLE001 - it is raised again
            raise failures[0] from None  # those of later parts may come first, but are of killed processes
    return found


class _Worker:
    """A process that encodes on request."""

    def __init__(self, process: subprocess.Popen[bytes], device: str, words: Path) -> None:
        self._process, self._device, self._words = process, device, words

    @classmethod
    @contextmanager
    def started(cls, folder: Path, number: int, device: str) -> Iterator[_Worker]:
        """A process that loads the model of ``folder``; it is gone when the block ends."""
        words = folder / f"{number}.txt"
        path = json.dumps([entry or os.getcwd() for entry in sys.path])  # noqa: PTH109 - as Python does
        try:
            with words.open("wb") as stream:
                process = subprocess.Popen(  # noqa: S603
                    [sys.executable or "python", "-c", _START, path, str(folder / "model"), device],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                )
        except OSError as error:
            raise WorkerError(
                f"no process could be started to encode on {device}: {error.strerror or error}; encode "
                "without devices=, in this process"
            ) from error
        worker = cls(process, device, words)
        try:
            yield worker
        finally:
            worker.kill()
            with suppress(BrokenPipeError):
                process.communicate()

    def ask(self, request: dict[str, Any], dim: int) -> NDArray[np.float32]:
        """The vectors of the texts of a request.

        Raises:
            WorkerError: if the process is gone before it answers.
            NestlingError: the error of the process, raised again.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request).encode() + b"\n")
            stdin.flush()
        except OSError:
            self._is_gone()
        answer = stdout.readline()
        if not answer.endswith(b"\n"):
            self._is_gone()
        said = json.loads(answer)
        if "error" in said:
            kind = getattr(errors, said["error"], NestlingError)
            raise kind(said["message"])
        size_bytes = 4 * dim * len(request["texts"])
        data = stdout.read(size_bytes)
        if len(data) < size_bytes:
            self._is_gone()
        return np.frombuffer(data, np.float32).reshape(-1, dim)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def _is_gone(self) -> NoReturn:
        code = self._process.wait()
        last = self._words.read_text(encoding="utf-8", errors="replace").strip().rsplit("\n", 1)[-1]
        advice = "encode with fewer devices, or without devices= to see the error in this process"
        if code < 0:
            advice = "often memory ran out; give fewer devices, a smaller batch_size, or no devices"
        raise WorkerError(
            f"process {self._process.pid}, which encoded on {self._device}, {ending_of(code)} before it was "
            f"done{f' ({last})' if last else ''}; {advice}"
        )
