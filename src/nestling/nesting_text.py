"""Parser for the text of a nesting: the sizes on each axis, as a list, doubling, or in steps."""

from __future__ import annotations

import re

from nestling.errors import GranularityError

_AXIS_SIZES = re.compile(
    r"\s*(?:(?P<axis>\w+)\s*=\s*)?(?:(?P<first>\d{1,9})\s*\.\.\s*(?P<last>\d{1,9})(?:\s*\+\s*(?P<step>\d{1,9}))?"
    r"|(?P<listed>\d{1,9}(?:\s*,\s*\d{1,9})*))\s*"
)


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
        if match["listed"]:
            axes[axis] = [int(size) for size in match["listed"].split(",")]
            continue
        first, last = int(match["first"]), int(match["last"])
        if match["step"] is None:
            axes[axis] = doubled(first, last)
        else:
            axes[axis] = [*range(first, last, max(int(match["step"]), 1)), last]
    return axes
