"""The error of estimates from codes, measured on the vectors themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist
from typing import Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Real

Doubles = NDArray[np.float64]

CONFIDENCE = Real(above=0.5, most=1, hint="1 is exact")

# Share of the measured errors that counts as the tail a normal distribution is laid over.
_TAIL = 0.05


@dataclass(frozen=True)
class Calibration:
    """Gain and spread of the estimates from the high two bits, and from all four.

    ``gain * estimate`` is free of bias. Its error, in radii of the row, stays below ``spread`` times the
    quantile of the standard normal distribution, at every level that could be measured.

    Source: the gain is that of RaBitQ, arXiv 2405.12497, theorem 3.2.
    """

    gains: tuple[float, float]
    spreads: tuple[float, float]

    @classmethod
    def theoretical(cls, dim: int) -> Self:
        """No gain, and the spread of an error that points anywhere in ``dim`` dims."""
        return cls((1.0, 1.0), (dim**-0.5, dim**-0.5))

    @classmethod
    def fit(cls, gains: tuple[float, float], errors: Doubles, dim: int) -> Self:
        """Lay normal distributions over the tails of errors ``Float64[2, pairs]``, in radii."""
        spreads = tuple(max(dim**-0.5, _spread_of_tail(each)) for each in errors)
        return cls(gains, (spreads[0], spreads[1]))

    @cached_property
    def arrays(self) -> tuple[Doubles, Doubles]:
        """Gains and spreads, ``Float64[2]`` each."""
        return np.array(self.gains, np.float64), np.array(self.spreads, np.float64)

    @staticmethod
    def normal(confidence: float) -> float:
        """Spreads at which both bounds hold with this probability; each may take half of the risk."""
        return NormalDist().inv_cdf(1 - (1 - confidence) / 2)

    def to_json(self) -> list[list[float]]:
        """Gains and spreads, in order."""
        return [list(self.gains), list(self.spreads)]


def _spread_of_tail(errors: Doubles) -> float:
    """The least spread whose normal distribution has, at every level of the tail, the larger quantile."""
    falling = np.sort(errors)[::-1][: max(1, int(len(errors) * _TAIL))]
    levels = (np.arange(len(falling)) + 1) / (len(errors) + 1)
    quantiles = np.array([NormalDist().inv_cdf(1 - level) for level in levels])
    return float((falling / np.maximum(quantiles, 1.0)).max(initial=0))
