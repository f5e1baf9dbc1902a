"""Safe forks: the threads of OpenMP are ended before a fork, in which waiting for them would never end."""

from __future__ import annotations

import os
import sys
from typing import Any

MOST_THREADS = sys.maxsize
"""Threads that a call of OpenMP may use; 1 in a fork if the threads could not be ended before it."""

_SOFTLY = 1  # omp_pause_soft: ends the threads and keeps all other state
_cannot_end: list[Any] = []


def prepare_forks() -> None:
    """Let faiss, torch and scikit-learn compute in forked processes.

    OpenMP keeps its threads between calls. A forked process has none of them, and the OpenMP of GNU then
    waits for ever (those of LLVM and Intel handle forks). So the threads are ended before a fork, and both
    processes start new ones when they need them. Versions before GCC 9 cannot end their threads; there a
    forked process computes with a single thread.
    """
    if sys.platform == "linux":
        os.register_at_fork(before=_end_threads, after_in_child=_stay_with_one_thread)


def _end_threads() -> None:
    """End the threads that this thread started, in every OpenMP that is loaded.

    There may be several: faiss, torch and scikit-learn each ship one, and the first one loaded is used.
    """
    import ctypes  # imported here because it would slow down ``import nestling``

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
    """Files of GNU OpenMP that are loaded in this process."""
    from pathlib import Path

    with Path("/proc/self/maps").open("rb") as maps:
        files = {os.fsdecode(line.split(maxsplit=5)[-1].strip()) for line in maps if b"/libgomp" in line}
    return {file.removesuffix(" (deleted)") for file in files if Path(file).name.startswith("libgomp")}


def _stay_with_one_thread() -> None:
    global MOST_THREADS
    for library in _cannot_end:
        MOST_THREADS = 1
        library.omp_set_num_threads(1)
    if _cannot_end and "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # its MKL has a count of its own
