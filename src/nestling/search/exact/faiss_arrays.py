"""faiss, loaded when first used; arrays of numpy as it reads them, without a copy; its threads."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.process import forks
from nestling.search.exact.threads import count_workers


class _Faiss:
    """The package, imported by the first name that is asked of it: plans are read without it."""

    def __getattr__(self, name: str) -> Any:
        value = getattr(importlib.import_module("faiss"), name)
        setattr(self, name, value)  # found without this call from now on
        return value

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module("faiss"))


faiss: Any = _Faiss()
"""Untyped: the stubs of faiss lack half of what it has."""

Codes = NDArray[np.uint8]


def view(array: NDArray[Any]) -> Any:
    """A faiss vector over the memory of ``array`` (uint8 or int32), which the caller keeps alive.

    faiss copies views as views: an assigned view costs no memory, and memory maps are read only
    where a search touches them.
    """
    kind = faiss.MaybeOwnedVectorUInt8 if array.dtype == np.uint8 else faiss.MaybeOwnedVectorInt32
    vector = kind()
    if array.size:
        vector.is_owned = False
        vector.view_data = vector.c_ptr = faiss.swig_ptr(array)
        vector.view_size = vector.c_size = array.size
    return vector


def view_lists(codes: Codes, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> Any:
    """Inverted lists over codes that are sorted by list; only the row numbers are copied.

    Args:
        codes: ``UInt8[rows, size]``, kept alive by the caller.
        rows: the number of each row.
        starts: first position of each list, and the end of the last.
    """
    lists = faiss.ArrayInvertedLists(len(starts) - 1, 0)  # of size 0, so that it makes no room for codes
    views = []
    for number, (start, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
        numbers = np.ascontiguousarray(rows[start:end])
        if end > start:
            lists.add_entries(number, end - start, faiss.swig_ptr(numbers), faiss.swig_ptr(codes[start:end]))
        views.append(view(codes[start:end].reshape(-1)))
    lists.code_size = codes.shape[1]
    lists.codes.clear()
    for each in views:
        lists.codes.push_back(each)
    return lists


@contextmanager
def faiss_threads(workers: int | None) -> Iterator[None]:
    """Let faiss use so many threads in calls from this thread; other threads keep their own number."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(before if workers is None else min(count_workers(workers), forks.MOST_THREADS))
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
