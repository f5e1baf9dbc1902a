"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence


def aligned(lines: Iterable[Sequence[str]], left: int = 1) -> str:
    """Columns two spaces apart, the first ones flush left, the others right.

    >>> print(aligned([["dim", "bytes"], ["8", "32"]]))
    dim  bytes
    8       32
    """
    rows = list(lines)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]

    def padded(row: Sequence[str]) -> Iterator[str]:
        for place, (cell, width) in enumerate(zip(row, widths, strict=True)):
            yield cell.ljust(width) if place < left else cell.rjust(width)

    return "\n".join("  ".join(padded(row)).rstrip() for row in rows)
