"""Reads many files with several worker processes, in input order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

import nestling
from nestling.data.python_source.worker import FileReport, read_files
from nestling.process.blocks import batches

_CHUNK = 64
_FEWEST_FILES = 4 * _CHUNK  # below this, starting processes costs more than it saves
_Worker: TypeAlias = "subprocess.Popen[str] | None"


def read_in_parallel(paths: Sequence[str], workers: int | None = None) -> Iterator[FileReport]:
    """The report of each file, in order, from ``workers`` processes (all cores by default).

    The processes are plain interpreters that see nothing of the caller (no ``__main__`` is run again,
    nothing is pickled), so this is safe in scripts, notebooks and beside threads. Where they cannot be
    started, and for the files of one that dies, the work is done in this process.
    """
    chunks = list(batches(paths, _CHUNK))
    count = min(workers or _core_count(), len(chunks))
    if count < 2 or len(paths) < _FEWEST_FILES:
        for chunk in chunks:
            yield from read_files(chunk)
        return
    with ExitStack() as stack:
        idle: SimpleQueue[_Worker] = SimpleQueue()
        for _ in range(count):
            idle.put(stack.enter_context(_worker()))
        threads = ThreadPoolExecutor(count)
        stack.callback(threads.shutdown, cancel_futures=True)
        for reports in threads.map(lambda chunk: _read(chunk, idle), chunks):
            yield from reports


def _read(paths: Sequence[str], idle: SimpleQueue[_Worker]) -> list[FileReport]:
    worker = idle.get()
    try:
        if worker is not None:
            return _ask(worker, paths)
    except (OSError, ValueError):  # it died; from now on this process reads in its place
        worker = None
    finally:
        idle.put(worker)
    return read_files(paths)


def _ask(worker: subprocess.Popen[str], paths: Sequence[str]) -> list[FileReport]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(paths) + "\n")
    worker.stdin.flush()
    answer = json.loads(worker.stdout.readline())
    return [FileReport([(name, text) for name, text in pairs], *rest) for pairs, *rest in answer]


@contextmanager
def _worker() -> Iterator[_Worker]:
    """A process that answers :func:`_ask`, or None where this interpreter cannot start another."""
    if not sys.executable or getattr(sys, "frozen", False):
        yield None
        return
    home = str(Path(nestling.__file__).parents[1])
    start = (
        f"import sys; sys.path.append({home!r}); from nestling.data.python_source.worker import main; main()"
    )
    try:
        # -I -S: neither the caller's folder nor site-packages can change what the worker imports.
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
    except OSError:
        yield None
        return
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _core_count() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
