"""Axes of granularities: their order, the sizes that they take, and the text of those."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice, pairwise

import numpy as np

from nestling.arguments.formatting import shown
from nestling.errors import GranularityError, meant

AXES = ("dim", "bits", "layer", "tokens", "audio", "video", "width")
"""In the order in which they are written. Any other name is an axis too, and follows these."""
_named = set(AXES)
CODE_BITS = (1, 2, 3, 4, 8)
FLOAT_BITS = (16, 32)
OF_TOKENS = ("tokens", "audio", "video")
"""Sizes on these are numbers of tokens, of one stream each."""
OF_ONE_EMBEDDING = ("dim", "bits")
"""One embedding is cut on these; sizes on the other axes are computed apart."""

MOST_SIZES = 10_000
"""A nesting holds no more granularities."""

_PRECISIONS = (*CODE_BITS, *FLOAT_BITS)
_SIZES_IN_STEPS = 12
_AXIS_SIZES = re.compile(
    r"\s*(?:(?P<axis>\w+)\s*=\s*)?(?:(?P<first>\d{1,9})\s*\.\.\s*(?P<last>\d{1,9})(?:\s*\+\s*(?P<step>\d{1,9}))?"
    r"|(?P<listed>\d{1,9}(?:\s*,\s*\d{1,9})*))\s*"
)


def axis_order(axis: str) -> tuple[int, str]:
    """The key by which axes are sorted in text: known ones first."""
    return (AXES.index(axis) if axis in AXES else len(AXES), axis)


def named_axes() -> frozenset[str]:
    """All axes that a granularity of this process has named; messages write their sizes as text."""
    return frozenset(_named)


def note_named(axes: Iterable[str]) -> None:
    """Remember the axes of a granularity."""
    _named.update(axes)


def size_of(axis: str, value: object) -> int:
    """``value`` as a size on ``axis``.

    Raises:
        GranularityError: for anything but a whole number of at least 1, or bits that no precision has.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise GranularityError(f"a size of {axis} is a whole number of at least 1, not {shown(value)}")
    if value < 1:
        raise GranularityError(f"{axis}={value} is not a size; give a whole number of at least 1")
    if axis == "bits" and value not in _PRECISIONS:
        raise GranularityError(
            f"bits={value} is no precision; give one of {', '.join(map(str, _PRECISIONS))} "
            "(16 and 32 are floats)"
        )
    return int(value)


def refuse_axis(axis: str, size: int | None, nesting: str, axes: Sequence[str]) -> None:
    """Refuse a size on an axis that a nesting of these axes does not have.

    32 bits are allowed: they are what all compute that lacks the axis.

    Args:
        axis: the absent one.
        size: on it; None where only the axis is asked for.
        nesting: the sizes that there are, as text.
        axes: the axes that there are.

    Raises:
        GranularityError: for any other.
    """
    if axis == "bits" and size == max(FLOAT_BITS):
        return
    hint = (
        "few bits need vectors that are stored in codes: AdaptiveIndex.create or Collection.create with "
        f'at="bits={size if size in CODE_BITS else max(CODE_BITS)}", or stored.calibrated(); leave bits out '
        "where a model is cut"
    )
    advice = hint if axis == "bits" else meant(axis, axes) or meant(axis, ["bits"])
    has = "the only axis is" if len(axes) == 1 else "the axes are"
    raise GranularityError(
        f"there is no axis {axis!r}; {has} {' and '.join(axes)}, with the sizes {nesting}"
        f"{'; ' if advice else ''}{advice}"
    )


def check_count(count: int, what: str) -> None:
    """Refuse more sizes than a nesting holds.

    Raises:
        GranularityError: for more than 10,000.
    """
    if count > MOST_SIZES:
        raise GranularityError(
            f"{what} has {count:,} sizes, and a nesting at most {MOST_SIZES:,}; name fewer, for example by "
            "larger steps or by doubling"
        )


def chain_sizes(axis: str, sizes: Iterable[int]) -> tuple[int, ...]:
    """Sizes on one axis.

    Raises:
        GranularityError: for none, sizes that repeat or do not increase, or too many.
    """
    if not isinstance(sizes, Iterable):
        raise GranularityError(f"the sizes of axis {axis!r} are a list, such as [1, 4], not {shown(sizes)}")
    values = tuple(size_of(axis, size) for size in islice(sizes, MOST_SIZES + 1))
    check_count(len(values), f"the axis {axis!r}")
    if not values:
        raise GranularityError(f"the nesting names no size on axis {axis!r}; give at least one")
    for small, large in pairwise(values):
        if small >= large:
            raise GranularityError(
                f"the sizes of axis {axis!r} must increase without repeats, but {small} comes before "
                f"{large}; write {sorted(set(values))}"
            )
    return values


def between(axis: str, sizes: Sequence[int]) -> list[int]:
    """The sizes of a range with its ends, of which those between that are no precision are left out.

    >>> between("bits", [3, 6, 8]), between("dim", [3, 6, 8])
    ([3, 8], [3, 6, 8])
    """
    kept = (*_PRECISIONS, sizes[0], sizes[-1])
    return [size for size in sizes if axis != "bits" or size in kept]


def doubled(smallest: int, full: int) -> list[int]:
    """The sizes ``smallest``, twice that, and so on below ``full``, then ``full``.

    Raises:
        GranularityError: if ``smallest`` is larger.
    """
    if smallest > full:
        raise GranularityError(f"the smallest size {smallest} is larger than the full size {full}")
    sizes = []
    while 0 < smallest < full:
        sizes.append(smallest)
        smallest *= 2
    return [*sizes, full] if smallest else [smallest, full]


def ranks_of(
    granularities: Sequence[Mapping[str, int]],
) -> Callable[[Mapping[str, int]], tuple[int, tuple[int, ...]]]:
    """The key that sorts by the sum of the ranks on each axis: a linear extension of the partial order."""
    check_count(len(granularities), "the nesting")
    places = {
        axis: {size: place for place, size in enumerate(sorted({g[axis] for g in granularities}))}
        for axis in granularities[0]
    }

    def key(granularity: Mapping[str, int]) -> tuple[int, tuple[int, ...]]:
        ranks = tuple(places[axis][size] for axis, size in granularity.items())
        return sum(ranks), ranks

    return key


def written(axis: str, sizes: Sequence[int]) -> str:
    """The text of sizes on an axis; many in equal steps are written as such.

    >>> written("dim", [8, 16, 32]), written("tokens", range(1, 257))
    ('dim=8,16,32', 'tokens=1..256+1')
    """
    steps = {large - small for small, large in pairwise(sizes)}
    if len(sizes) >= _SIZES_IN_STEPS and len(steps) == 1:
        return f"{axis}={sizes[0]}..{sizes[-1]}+{steps.pop()}"
    return f"{axis}={','.join(map(str, sizes))}"


def read_axes(parts: list[str], whole: str) -> dict[str, list[int]]:
    """The sizes on each axis from text such as ``"dim=8,16"``, ``"dim=8..256"`` or ``"dim=16..768+16"``.

    Raises:
        GranularityError: for text of another form; ``whole`` is the full text.

    >>> read_axes(["layer=2,4", "dim=8..32"], "layer=2,4 x dim=8..32")
    {'layer': [2, 4], 'dim': [8, 16, 32]}
    """
    axes: dict[str, list[int]] = {}
    for part in parts:
        match = _AXIS_SIZES.fullmatch(part)
        axis = match and (match["axis"] or ("dim" if len(parts) == 1 else None))
        if match is None or axis is None or axis in axes:
            raise GranularityError(
                f'{whole!r} is not a nesting; write for example "dim=8,16,32", "dim=8..256" (doubling), '
                '"dim=16..768+16" (steps), "layer=2,4 x dim=8,16" (grid) or "layer=2,4 zip dim=8,16" (pairs)'
            )
        note_named([axis])  # an error about its sizes may follow
        if match["listed"]:
            axes[axis] = [int(size) for size in match["listed"].split(",")]
            continue
        first, last = int(match["first"]), int(match["last"])
        axes[axis] = between(axis, _ranged(first, last, match["step"], whole))
    return axes


def _ranged(first: int, last: int, step: str | None, whole: str) -> list[int]:
    if step is None:
        return doubled(first, last)
    if not int(step):
        raise GranularityError(f"the steps of {whole!r} are 0; write for example {first}..{last}+16")
    sizes = range(first, last, int(step))
    check_count(len(sizes) + 1, repr(whole))
    return [*sizes, last]


def read_bits(given: object) -> tuple[int, ...]:
    """The precisions that an argument ``bits=`` names, increasing and each once.

    Args:
        given: a number, several, or their text.

    Raises:
        GranularityError: for anything else, nothing, or bits that no precision has.

    >>> read_bits("8,1"), read_bits([2, 2]), read_bits(16), read_bits("1..8")
    ((1, 8), (2,), (16,), (1, 2, 4, 8))
    """
    try:
        if isinstance(given, str):
            sizes: list[object] = [*read_axes([f"bits={given}"], given)["bits"]]
        else:
            sizes = [*given] if isinstance(given, Iterable) else [given]
        found = {size_of("bits", size) for size in sizes}
        if found:
            return tuple(sorted(found))
    except (GranularityError, TypeError):  # an array of no dims is iterable in name only
        pass
    raise GranularityError(
        f"bits= must be one or more of {', '.join(map(str, _PRECISIONS))}, such as 1,8, not {shown(given)}"
    )
