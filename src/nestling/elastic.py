"""The interface of everything that can be cut: a nesting, use at any granularity, extract, cost."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from nestling.errors import GranularityError, UntrainedGranularityWarning
from nestling.granularity import At, Granularity, Nesting


@dataclass(frozen=True)
class Cost:
    """The cost of one use at one granularity; no field falls as the granularity grows.

    Args:
        flops: multiply-adds for one item (a text, an image, a row, a query).
        parameters: number of weights in memory.
        size_bytes: bytes of those weights, or of an index.
        output_bytes: bytes of one output, such as one stored vector.
    """

    flops: float = 0.0
    parameters: int = 0
    size_bytes: int = 0
    output_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """Cost of two parts in sequence; the output is that of the second."""
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
    """A model that can be used at every granularity of its nesting; ``check_elastic`` checks its laws.

    ``model(x, at=g)`` uses it at granularity ``g``; ``at=None`` is the full one. An ``at`` outside
    ``nesting`` raises :class:`~nestling.errors.GranularityError` (``nesting.resolve`` does that).
    """

    nesting: Nesting

    def __call__(self, x: Any, /, at: At = None) -> Any:
        """The output for ``x`` at one granularity."""
        ...

    def forward_each(self, x: Any, /, granularities: Iterable[At] | None = None) -> dict[Granularity, Any]:
        """The outputs at several granularities (all by default); shared work is done once."""
        ...

    def extract(self, at: At) -> Elastic:
        """A standalone, smaller model whose full granularity is ``at``; it shares no memory with this one."""
        ...

    def cost(self, at: At = None) -> Cost:
        """The cost of one use at ``at``."""
        ...

    def save(self, folder: str | Path, /) -> None:
        """Write a folder with checksums (:mod:`nestling.storage.artifact`)."""
        ...

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read a folder that ``save`` wrote, after verifying its checksums."""
        ...


@dataclass(frozen=True)
class Origin:
    """The model that another one was trained from; its plain truncation is the baseline of a sweep.

    Args:
        thing: elastic, or a callable from the same inputs to vectors; None if there is no baseline.
        lift: maps full vectors of ``thing`` to full outputs of the trained model, if that saves encoding
            twice.
        note: reason that ``thing`` is None.
    """

    thing: Any = None
    lift: Callable[[Any], Any] | None = None
    note: str = ""


def origin_of(thing: Any) -> Origin:
    """The result of ``thing.origin()``, or an empty origin if it has no such method."""
    method = getattr(thing, "origin", None)
    return method() if callable(method) else Origin()


def resolve_each(nesting: Nesting, granularities: Iterable[At] | At) -> tuple[Granularity, ...]:
    """The granularities that ``forward_each`` has to return: all of the nesting by default.

    >>> resolve_each(Nesting.parse("dim=8,16"), "dim=8") == resolve_each(Nesting.parse("dim=8,16"), [8])
    True

    Raises:
        GranularityError: for one outside the nesting.
    """
    if granularities is None:
        return tuple(nesting)
    is_one = isinstance(granularities, str | Mapping) or not isinstance(granularities, Iterable)
    given: Any = [granularities] if is_one else granularities
    return tuple(nesting.resolve(each) for each in given)


@dataclass
class Trained:
    """The granularities that a model is trained at, where it can be used at more; warns once of those.

    Args:
        nesting: those that are trained.
    """

    nesting: Nesting
    _has_warned: bool = False

    def resolve(self, at: At, attainable: Callable[[At], Granularity], *, strict: bool) -> Granularity:
        """The granularity that ``at`` names.

        Args:
            at: of the nesting, or one that was not trained.
            attainable: returns the granularity of any ``at`` at which the model can be used, or raises
                :class:`~nestling.errors.GranularityError`.
            strict: refuse granularities that were not trained; else warn once.

        Raises:
            GranularityError: if the model cannot be used at it, or it was not trained and ``strict``.
        """
        named = self.nesting.named(at)
        if named in self.nesting:
            return named
        try:
            found = attainable(at)
        except GranularityError:
            if strict:
                self.nesting.resolve(at)  # whose error names those that are allowed
            raise
        if strict:
            near = " or ".join(str(g) for g in self.nesting.nearest(found))
            raise GranularityError(
                f"{found} was not trained; trained are {self.nesting}. Use {near}, or strict=False to use "
                "it all the same"
            )
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"{found} was not trained; trained are {self.nesting}. Further sizes give no warning",
                UntrainedGranularityWarning,
                stacklevel=5,
            )
        return found


def check_whole(rests: Iterable[Granularity], thing: str) -> tuple[Granularity, ...]:
    """``rests``, asked of an encoder that is cut in dims alone: it has one view, the whole of it.

    Raises:
        GranularityError: for a rest that names an axis.
    """
    wanted = tuple(rests)
    for rest in wanted:
        if rest:
            raise GranularityError(
                f"{thing} has no axis {', '.join(rest)}, so it has no view at {rest}; leave out rests="
            )
    return wanted
