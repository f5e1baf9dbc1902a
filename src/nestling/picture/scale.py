"""Value axes that start at 0, or show that they do not."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

_STEPS = 5
_MOST_DIGITS = 6
_FLAT = 0.25  # share of an axis from 0 that values must fill; below it, the axis is cut
_NOTHING = 1e-300
_SAME = 1e-6  # a spread below this share of the values is rounding


@dataclass(frozen=True)
class Scale:
    """Round places along an axis, its ends among them.

    Args:
        ticks: rising; the first and the last are the ends of the axis.
    """

    ticks: tuple[float, ...]

    @classmethod
    def of(cls, values: Iterable[float]) -> Scale:
        """The scale of some values: from 0, unless they would fill less than a quarter of it.

        >>> Scale.of([0.1, 0.38]).ticks
        (0.0, 0.1, 0.2, 0.3, 0.4)
        >>> Scale.of([0.81, 0.86]).cut
        True
        """
        finite = [float(value) for value in values if math.isfinite(value)]
        low, high = min(finite, default=0.0), max(finite, default=1.0)
        largest = max(abs(low), abs(high))
        if largest < _NOTHING:
            return cls.of((0.0, 1.0))
        if not _SAME * largest < high - low < _FLAT * largest:
            low, high = min(low, 0.0), max(high, 0.0)
        return cls(_round_steps(low, high))

    @property
    def low(self) -> float:
        """Start of the axis."""
        return self.ticks[0]

    @property
    def high(self) -> float:
        """End of the axis."""
        return self.ticks[-1]

    @property
    def cut(self) -> bool:
        """Whether 0 is left out; the picture then marks the cut."""
        return not self.low <= 0 <= self.high

    @property
    def labels(self) -> list[str]:
        """The ticks as text, all with as many digits as they need."""
        digits = max(0, -math.floor(math.log10(self.ticks[1] - self.ticks[0]) + 1e-9))
        return [f"{tick:,.{digits}f}" if digits < _MOST_DIGITS else f"{tick:.3g}" for tick in self.ticks]

    @property
    def note(self) -> str:
        """The note on a cut axis; empty if it starts at 0."""
        return f"axis starts at {self.labels[0]}" if self.cut else ""


def _round_steps(low: float, high: float) -> tuple[float, ...]:
    """About five steps of 1, 2 or 5 times a power of ten that span ``low`` to ``high``."""
    rough = (high - low) / _STEPS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = 2 - math.floor(math.log10(step))  # rounding beyond them is not shown
    return tuple(round(step * count, digits) for count in range(first, max(last, first + 1) + 1))
