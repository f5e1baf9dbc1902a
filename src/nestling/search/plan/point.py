"""Operating point: search parameters (nprobe, ef, shortlists, confidence) of one call."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Self

from nestling.arguments.constraints import Whole, check
from nestling.arguments.formatting import shown
from nestling.errors import ConfigError, unknown
from nestling.search.certified.calibration import CONFIDENCE


@dataclass(frozen=True)
class Point:
    """Operating point of a search: parameters that each call may choose without building anything.

    Args:
        nprobe: inverted lists that are read, at least 1.
        ef: width of the beam of a graph search, at least 1: rows that it holds.
        shortlists: rows that each re-ranking stage takes from the stage before it, at least 1, not rising.
        confidence: of a certified search, above 0.5 and at most 1. 1 is exact; below, more rows are skipped.

    Raises:
        ConfigError: for values outside their range, or rising shortlists.

    >>> Point.parse("nprobe=16,shortlist=200/50")
    Point(nprobe=16, ef=None, shortlists=(200, 50), confidence=1.0)
    """

    nprobe: int | None = None
    ef: int | None = None
    shortlists: tuple[int, ...] = ()
    confidence: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shortlists", tuple(self.shortlists))
        for name, value in (
            ("nprobe", self.nprobe),
            ("ef", self.ef),
            *(("shortlist", s) for s in self.shortlists),
        ):
            check(name, value, Whole(1) | None)
        if any(long < longer for long, longer in pairwise(self.shortlists)):
            raise ConfigError(f"shortlists must not grow from stage to stage, as {list(self.shortlists)} do")
        check("confidence", self.confidence, CONFIDENCE)

    def __str__(self) -> str:
        parts = [f"{name}={value}" for name, value in (("nprobe", self.nprobe), ("ef", self.ef)) if value]
        if self.shortlists:
            parts.append(f"shortlist={'/'.join(map(str, self.shortlists))}")
        if self.confidence != 1:
            parts.append(f"confidence={self.confidence:g}")
        return ",".join(parts)

    def grown(self, times: float) -> Point:
        """The point with its view and shortlists so many times as long.

        >>> str(Point(ef=64, shortlists=(64, 20)).grown(2.5))
        'ef=160,shortlist=160/50'
        """
        ef = None if self.ef is None else math.ceil(self.ef * times)
        return replace(self, ef=ef, shortlists=tuple(math.ceil(each * times) for each in self.shortlists))

    @classmethod
    def of(cls, given: Any) -> Self:
        """The point that an argument names: itself, or its text.

        Raises:
            ConfigError: for anything else.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            return cls.parse(given)
        raise ConfigError(
            f'point must be a Point, or its text such as "nprobe=16,shortlist=200", not {shown(given)}'
        )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what ``str`` writes.

        Raises:
            ConfigError: for an unknown name or a value that is no number.
        """
        found: dict[str, Any] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            name, _, value = part.partition("=")
            try:
                if name == "shortlist":
                    found["shortlists"] = tuple(int(each) for each in value.split("/"))
                elif name in ("nprobe", "ef"):
                    found[name] = int(value)
                elif name == "confidence":
                    found[name] = float(value)
                else:
                    raise ConfigError(unknown("parameter", name, ["nprobe", "ef", "shortlist", "confidence"]))
            except ValueError as error:
                if isinstance(error, ConfigError):
                    raise
                raise ConfigError(
                    f"{name}={value} is no number; write it such as nprobe=16,shortlist=200"
                ) from error
        return cls(**found)
