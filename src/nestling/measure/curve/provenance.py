"""Identity of the data behind a curve, so that curves of different data are not compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from nestling.arguments.arrays import as_array
from nestling.errors import DataError

if TYPE_CHECKING:
    from nestling.measure.curve.curve import Curve
    from nestling.measure.tasks.tasks import Task

_DIGITS = 16
_REMEMBERED = "identity"
_NOT_DATA = ("measures",)  # the metrics shown, which have their names


def identity(task: Task) -> str:
    """A digest of a task's inputs, judgements and settings; that of the texts for a task over their vectors.

    >>> from nestling.measure.tasks.tasks import STS
    >>> a, b, c = (STS(["a", "b"], ["c", "d"], scores) for scores in ([1, 2], [1, 2], [1, 3]))
    >>> identity(a) == identity(b), identity(a) == identity(c)
    (True, False)
    """
    remembered: str | None = getattr(task, _REMEMBERED, None)
    if remembered is not None:
        return remembered
    digest = hashlib.sha256(task.name.encode())
    for part in _parts(task if is_dataclass(task) else [list(task.metrics), dict(task.inputs)]):
        digest.update(part)
    return digest.hexdigest()[:_DIGITS]


def remember(task: Task, of: Task) -> None:
    """Give ``task``, which was made of ``of`` by encoding its inputs, the identity of that."""
    # Tasks are frozen, so that nobody else changes them; this one was just made.
    object.__setattr__(task, _REMEMBERED, identity(of))


def check_same_data(curves: Sequence[Curve], *, mixed: bool) -> None:
    """Refuse to put curves of different data beside each other, unless that is asked for.

    Curves that were saved before they had an identity are compared by task and number of examples.

    Raises:
        DataError: if they were measured on different data; both are named.
    """
    first = curves[0]
    for other in () if mixed else curves[1:]:
        if first.data and other.data:
            same = first.data == other.data
        else:
            same = (first.task, first.examples) == (other.task, other.examples)
        if not same:
            raise DataError(
                f"{_named(first)} and {_named(other)} were measured on different data, so their values do "
                "not compare; measure both on the same, or pass mixed=True"
            )


def _named(curve: Curve) -> str:
    return f"{curve.name!r} ({curve.task}, {curve.examples:,} examples, data {curve.data or 'unknown'})"


def _parts(value: Any) -> Iterator[bytes]:
    """The parts of a value, in order; type and length separate each part from the next."""
    if hasattr(value, "detach"):
        value = as_array(value)
    if isinstance(value, PurePath):
        value = value.name  # the same file may be in another folder elsewhere
    if isinstance(value, np.ndarray):
        yield f"{value.dtype}{value.shape}".encode()
        yield from _array(value)
    elif isinstance(value, Mapping):
        yield f"map {len(value)}".encode()
        for key, each in value.items():
            yield from _parts(key)
            yield from _parts(each)
    elif isinstance(value, (str, bytes, int, float, bool, np.generic, type(None))):
        raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        yield f"{type(value).__name__} {len(raw)} ".encode()
        yield raw
    elif is_dataclass(value):
        held = {each.name: getattr(value, each.name) for each in fields(value)}
        yield from _parts({name: each for name, each in held.items() if name not in _NOT_DATA})
    elif isinstance(value, (Sequence, range, set, frozenset)):
        yield f"rows {len(value)}".encode()
        for each in value:
            yield from _parts(each)
    else:
        # Some object, such as judgements: its plain attributes, and not what those hold in turn.
        yield type(value).__name__.encode()
        held = getattr(value, "__dict__", {})
        yield from _parts({name: each for name, each in held.items() if not hasattr(each, "__dict__")})


def _array(value: np.ndarray[Any, Any]) -> Iterator[bytes]:
    """The bytes of an array, some rows at a time: it may be a memory map."""
    if value.dtype.kind == "O":
        for each in value.tolist():
            yield from _parts(each)
        return
    rows = max(1, (1 << 24) // max(1, value[:1].nbytes)) if value.ndim else 1
    for start in range(0, len(value) if value.ndim else 1, rows):
        yield np.ascontiguousarray(value[start : start + rows] if value.ndim else value).tobytes()
