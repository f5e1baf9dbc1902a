"""The contract of everything that can be cut: one nesting, use at any granularity, extract, cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from nestling.granularity import At, Granularity, Nesting


@dataclass(frozen=True)
class Cost:
    """What using a thing at one granularity takes; every field is monotone in the granularity.

    Args:
        flops: multiply-adds for one item (one text, picture, row, query).
        parameters: weights that have to be held.
        size_bytes: bytes of those weights, or of an index.
        output_bytes: bytes of one answer, such as one stored vector.
    """

    flops: float = 0.0
    parameters: int = 0
    size_bytes: int = 0
    output_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Cost of one part after the other: the answer is the other's."""
        return Cost(
            self.flops + other.flops,
            self.parameters + other.parameters,
            self.size_bytes + other.size_bytes,
            other.output_bytes,
        )

    def to_json(self) -> dict[str, float]:
        """The fields by name."""
        return asdict(self)


@runtime_checkable
class Elastic(Protocol):
    """A thing that can be cut. The laws it keeps are asked by ``nestling.testing.check_elastic``.

    ``thing(x, at=g)`` uses it at granularity ``g``; ``at=None`` is the full one; an ``at`` outside
    ``nesting`` raises :class:`~nestling.errors.GranularityError` (``nesting.resolve`` does that).
    """

    nesting: Nesting

    def __call__(self, x: Any, /, at: At = None) -> Any:
        """The answer for ``x`` at one granularity."""
        ...

    def forward_each(self, x: Any, /, granularities: Iterable[At] | None = None) -> dict[Granularity, Any]:
        """The answers at several granularities (all by default), with the common work done once."""
        ...

    def extract(self, at: At) -> Elastic:
        """A standalone, smaller thing whose full granularity is ``at``; it shares nothing with this one."""
        ...

    def cost(self, at: At = None) -> Cost:
        """What one use at ``at`` takes."""
        ...

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder (:mod:`nestling.storage.artifact`)."""
        ...

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what ``save`` wrote."""
        ...


@dataclass(frozen=True)
class Origin:
    """What a thing was trained from, so that the plain truncation of that can stand beside it.

    Args:
        thing: elastic, or a callable from the same inputs to vectors; None where there is nothing to put
            beside.
        lift: turns full vectors of ``thing`` into the full answers of what was trained from it, where that
            saves encoding twice.
        note: where ``thing`` is None, why.
    """

    thing: Any = None
    lift: Callable[[Any], Any] | None = None
    note: str = ""


def origin_of(thing: Any) -> Origin:
    """What ``thing`` says that it was trained from by a method ``origin``; nothing if it has none."""
    method = getattr(thing, "origin", None)
    return method() if callable(method) else Origin()


def resolve_each(nesting: Nesting, granularities: Iterable[At] | None) -> tuple[Granularity, ...]:
    """The granularities a ``forward_each`` is asked for: all of the nesting by default."""
    return tuple(nesting) if granularities is None else tuple(nesting.resolve(g) for g in granularities)
