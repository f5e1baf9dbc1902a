"""Provenance of a measurement: package versions, processor and date."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from pathlib import Path

import numpy as np

from nestling import __version__

_LIBRARIES = ("torch", "sentence_transformers", "sklearn", "faiss")


def versions() -> dict[str, str]:
    """Versions of Python, nestling, numpy and those libraries that are in use."""
    found = {"python": platform.python_version(), "nestling": __version__, "numpy": np.__version__}
    for name in _LIBRARIES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if version is not None:
            found[name] = str(version)
    return found


def machine() -> str:
    """Processor, cores that this process may use, and operating system, in one line."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{_processor()}, {cores} cores, {platform.system()} {platform.machine()}"


def today() -> str:
    """The date, as in 2026-01-31."""
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()


def _processor() -> str:
    """The name of the processor; ``platform`` knows none on Linux."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"
