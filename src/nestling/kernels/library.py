"""The compiled library and its C interface. Calls release the interpreter's lock."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import c_int32, c_int64
from functools import cache
from pathlib import Path
from typing import Any

LEVELS = ("plain", "avx2", "avx512", "neon")
"""Instruction sets, numbered as in ``cpp/rows.h``."""
INTERFACE = 4
"""Raised with each change of a call or a structure, here and in ``cpp/search.cpp``."""


@cache
def library() -> ctypes.CDLL | None:
    """The library that was compiled at installation; None if there is none that runs here."""
    found = sorted(Path(__file__).parent.glob("_kernels.*"))
    if not found:
        return None
    try:
        loaded = ctypes.CDLL(str(found[0]))
    except OSError:  # built for another machine
        return None
    interface = getattr(loaded, "nestling_interface", None)
    if interface is None or interface() != INTERFACE:  # built from other sources: install again
        return None
    loaded.nestling_levels.restype = c_int32
    return loaded


def levels() -> tuple[str, ...]:
    """The instruction sets that the library was compiled for and this machine has, the best last."""
    return _levels_of(library())


@cache
def _levels_of(loaded: Any) -> tuple[str, ...]:
    bits = 0 if loaded is None else loaded.nestling_levels()
    return tuple(name for number, name in enumerate(LEVELS) if bits >> number & 1)


def declared(arguments: Mapping[str, list[Any]]) -> Any:
    """The library, once the arguments of some of its functions are declared; they return ``int64``."""
    loaded: Any = library()
    for name, types in arguments.items():
        function = getattr(loaded, f"nestling_{name}")
        function.restype, function.argtypes = c_int64, types
    return loaded


def address(array: Any) -> int | None:
    """The address of an array in memory; None for None."""
    return None if array is None else array.__array_interface__["data"][0]
