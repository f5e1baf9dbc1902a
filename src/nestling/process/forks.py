"""Forked processes compute: the threads of OpenMP, which a fork has none of, end before it."""

from __future__ import annotations

import os
import sys
from typing import Any

MOST_THREADS = sys.maxsize
"""Threads that a call of OpenMP may use in this process; 1 in a fork whose threads could not be ended."""

_SOFTLY = 1  # what OpenMP calls a pause after which everything is as it was but for the threads
_cannot_end: list[Any] = []


def prepare_forks() -> None:
    """Let faiss, torch and scikit-learn compute in forked processes.

    OpenMP keeps threads from one call to the next. A fork has none of them, and the OpenMP of GNU waits for
    them for ever; those of LLVM and Intel see to it themselves. So the threads end before a fork, and both
    processes start new ones when they need some. Versions before that of GCC 9 cannot end them: there forked
    processes compute with a single thread.
    """
    if sys.platform == "linux":
        os.register_at_fork(before=_end_threads, after_in_child=_stay_with_one_thread)


def _end_threads() -> None:
    """End those that this thread started, in every OpenMP that is loaded.

    Several may be: faiss, torch and scikit-learn bring their own, and which of them a library computes with
    is decided by which was loaded first.
    """
    import ctypes  # when it is needed: it would take a part of the time of ``import nestling``

    _cannot_end.clear()
    for path in _loaded():
        try:
            library = ctypes.CDLL(path, os.RTLD_NOLOAD | os.RTLD_LAZY)
        except OSError:  # a file that is mapped, but is no library of this process
            continue
        pause = getattr(library, "omp_pause_resource_all", None)
        if pause is None or pause(_SOFTLY):
            _cannot_end.append(library)


def _loaded() -> set[str]:
    """The files of the OpenMP of GNU in this process."""
    from pathlib import Path

    with Path("/proc/self/maps").open("rb") as maps:
        files = {os.fsdecode(line.split(maxsplit=5)[-1].strip()) for line in maps if b"/libgomp" in line}
    return {file.removesuffix(" (deleted)") for file in files if Path(file).name.startswith("libgomp")}


def _stay_with_one_thread() -> None:
    global MOST_THREADS
    for library in _cannot_end:
        MOST_THREADS = 1
        library.omp_set_num_threads(1)
