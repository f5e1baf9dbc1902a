"""Names of stimuli, and labels of matrices."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nestling.errors import ConfigError, DataError, unknown

Label: TypeAlias = str | int | float | bool | None
Labels: TypeAlias = Mapping[str, tuple[Label, ...]]


def check_stimuli(stimuli: Sequence[str | int] | None, count: int) -> tuple[str, ...]:
    """``count`` different names; the numbers from 0 if none are given.

    Raises:
        DataError: for another number of names, or names that occur twice (said which).
    """
    names = tuple(map(str, range(count) if stimuli is None else stimuli))
    if len(names) != count:
        raise DataError(f"{len(names)} names were given for {count} stimuli; give one each")
    if len(set(names)) < count:
        twice = [name for name, times in Counter(names).items() if times > 1]
        raise DataError(f"stimuli must be different, but these occur more than once: {', '.join(twice[:5])}")
    return names


def check_labels(labels: Mapping[str, Label | Sequence[Label]], count: int) -> Labels:
    """For each name one label per matrix; a single label stands for all matrices.

    Raises:
        DataError: for another number of labels, or ones that are no text, number or None.
    """
    return MappingProxyType({str(name): _read(str(name), given, count) for name, given in labels.items()})


def join_labels(parts: Sequence[tuple[Labels, int]]) -> dict[str, tuple[Label, ...]]:
    """The concatenated labels of parts of the given sizes; a name that a part lacks is None there."""
    names = dict.fromkeys(name for labels, _ in parts for name in labels)
    return {
        name: tuple(label for labels, count in parts for label in labels.get(name, (None,) * count))
        for name in names
    }


def labels_for(
    labels: Labels,
    given: str | Sequence[Any],
    count: int,
    what: str,
    otherwise: str = "[...], one value per matrix",
) -> tuple[tuple[Label, ...], NDArray[np.int64]]:
    """The different values of a label, in the order of their first matrix, and whose each matrix is.

    Args:
        labels: of the matrices.
        given: the name of one of them, or one value per matrix.
        count: of the matrices.
        what: the argument, for errors.
        otherwise: alternative that an error suggests where there is no such label.

    Returns:
        Values, and ``Int[count]``, places among them.

    Raises:
        ConfigError: for the name of no label.
        DataError: for another number of values than matrices.
    """
    if isinstance(given, str) and given not in labels:
        carried = unknown("label", given, labels) if labels else "the matrices carry no labels"
        raise ConfigError(f"{what}={given!r} names no label: {carried}; or give {what}={otherwise}")
    values = labels[given] if isinstance(given, str) else _read(what, given, count)
    names = tuple(dict.fromkeys(values))
    place = {name: number for number, name in enumerate(names)}
    return names, np.array([place[value] for value in values], np.int64)


def _read(name: str, given: object, count: int) -> tuple[Label, ...]:
    if isinstance(given, np.ndarray):
        given = given.tolist()
    values: tuple[object, ...] = (given,) * count
    if isinstance(given, Sequence) and not isinstance(given, str):
        values = tuple(given)
    if len(values) != count:
        raise DataError(f"{len(values)} labels {name!r} were given for {count} matrices; give one each")
    return tuple(_plain(name, value) for value in values)


def _plain(name: str, value: object) -> Label:
    """A label that a manifest can hold; numpy's scalars become Python's."""
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise DataError(
        f"a label must be text, a finite number or None, but {name!r} holds {value!r} "
        f"({type(value).__name__}); give its text: str(...)"
    )
