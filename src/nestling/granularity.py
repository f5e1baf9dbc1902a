"""Granularities and nestings of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import log2, prod
from typing import Any, Self, TypeAlias, overload

import numpy as np

from nestling.arguments.formatting import shown
from nestling.axes import (
    OF_ONE_EMBEDDING,
    axis_order,
    between,
    chain_sizes,
    check_count,
    doubled,
    note_named,
    ranks_of,
    read_axes,
    refuse_axis,
    size_of,
    written,
)
from nestling.errors import GranularityError

_AXIS_NAME = re.compile(r"[a-z][a-z_0-9]*")
_SIZE_ALONE = re.compile(r"\s*\d{1,18}\s*")


class Granularity(Mapping[str, int]):
    """An immutable point on named axes; an axis that is not named is used in full.

    Granularities are partially ordered: ``g <= h`` when ``g`` keeps no more than ``h`` on any axis.

    >>> g = Granularity(dim=64, layer=4)
    >>> str(g), g["dim"], Granularity.parse("layer=4, dim=64") == g
    ('dim=64,layer=4', 64, True)
    >>> Granularity(dim=32) <= Granularity(dim=64), g <= Granularity(dim=64)
    (True, True)

    Raises:
        GranularityError: for an axis that is not a lower-case name or a size below 1.
    """

    __slots__ = ("_sizes",)
    _sizes: tuple[tuple[str, int], ...]

    def __init__(self, **sizes: int) -> None:
        for axis in sizes:
            if not _AXIS_NAME.fullmatch(axis):
                raise GranularityError(f"{axis!r} is not an axis name; use lower-case letters, as in dim")
        note_named(sizes)
        ordered = sorted(sizes.items(), key=lambda item: axis_order(item[0]))
        object.__setattr__(self, "_sizes", tuple((a, size_of(a, v)) for a, v in ordered))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``"dim=64,layer=4"``; ``"full"`` names no axis.

        Raises:
            GranularityError: for text of another form.
        """
        sizes: dict[str, int] = {}
        for part in [] if text.strip() == "full" else text.split(","):
            match = re.fullmatch(r"\s*(\w+)\s*=\s*(\d{1,18})\s*", part)
            if match is None or match[1] in sizes:
                raise GranularityError(
                    f'{text!r} is not a granularity; write "full", or a size for each axis that is cut, such '
                    'as "dim=64" or "dim=64,layer=4"'
                )
            sizes[match[1]] = int(match[2])
        return cls(**sizes)

    def replace(self, **sizes: int | None) -> Granularity:
        """A copy with some axes changed; ``None`` removes an axis, which then is used in full."""
        merged = {**dict(self._sizes), **sizes}
        return Granularity(**{axis: size for axis, size in merged.items() if size is not None})

    @property
    def rest(self) -> Granularity:
        """All axes but ``dim`` and ``bits``: one embedding is cut on these; the others are computed apart."""
        return self.replace(**dict.fromkeys(OF_ONE_EMBEDDING))

    def __getitem__(self, axis: str) -> int:
        return dict(self._sizes)[axis]

    def __iter__(self) -> Iterator[str]:
        return (axis for axis, _ in self._sizes)

    def __len__(self) -> int:
        return len(self._sizes)

    def __hash__(self) -> int:
        return hash(self._sizes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Granularity) and self._sizes == other._sizes

    def __le__(self, other: Granularity) -> bool:
        return all(axis in self and self[axis] <= size for axis, size in other._sizes)

    def __lt__(self, other: Granularity) -> bool:
        return self != other and self <= other

    def __str__(self) -> str:
        return ",".join(f"{axis}={size}" for axis, size in self._sizes) or "full"

    def __repr__(self) -> str:
        return f"Granularity({', '.join(f'{axis}={size}' for axis, size in self._sizes)})"

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Granularity is immutable; use .replace(axis=size)")

    def __reduce__(self) -> tuple[Any, ...]:
        return (_granularity_from, (self._sizes,))


def _granularity_from(sizes: tuple[tuple[str, int], ...]) -> Granularity:
    return Granularity(**dict(sizes))


def read_at(text: str) -> Granularity | int:
    """The text of an ``at``: a granularity, or a size on the only axis.

    >>> read_at("dim=64"), read_at("64")
    (Granularity(dim=64), 64)

    Raises:
        GranularityError: for text of another form.
    """
    return int(text) if re.fullmatch(_SIZE_ALONE, text) else Granularity.parse(text)


At: TypeAlias = Granularity | str | int | Mapping[str, int] | None
"""Accepted by ``at=``: a granularity, its text, its axes, None, or a size on the only axis besides ``bits``
as a number or as text."""


@dataclass(frozen=True)
class Nesting(Sequence[Granularity]):
    """The finite, ordered set of granularities a thing is made for: coarse to fine, the full one last.

    >>> nesting = Nesting.chain(dim=[8, 16, 32])
    >>> nesting.full, nesting.sizes("dim"), str(nesting)
    (Granularity(dim=32), (8, 16, 32), 'dim=8,16,32')
    >>> Nesting.parse("dim=8..48").sizes("dim")
    (8, 16, 32, 48)
    >>> len(Nesting.grid(layer=[2, 4], dim=[8, 16])), len(Nesting.pairs(layer=[2, 4], dim=[8, 16]))
    (4, 2)

    Raises:
        GranularityError: for no granularities, repeats, mixed axes, or no single largest one.
    """

    granularities: tuple[Granularity, ...]

    def __post_init__(self) -> None:
        if not self.granularities:
            raise GranularityError("a nesting needs at least one granularity; none was given")
        if len(set(self.granularities)) != len(self.granularities):
            raise GranularityError("a nesting names a granularity twice; name each once")
        axes = set(self.granularities[0])
        if not axes:
            raise GranularityError("a nesting needs at least one named axis, such as dim=64")
        if any(set(g) != axes for g in self.granularities):
            raise GranularityError(
                "all granularities of a nesting must name the same axes; got "
                + ", ".join(sorted({"+".join(g) for g in self.granularities}))
            )
        ordered = tuple(sorted(self.granularities, key=ranks_of(self.granularities)))
        object.__setattr__(self, "granularities", ordered)
        if not all(g <= ordered[-1] for g in ordered):
            raise GranularityError(
                f"a nesting needs one full granularity that covers all others; {ordered[-1]} does not"
            )

    @classmethod
    def chain(cls, **axis: Iterable[int]) -> Nesting:
        """Sizes on one axis, increasing: ``Nesting.chain(dim=[64, 128, 256])``."""
        if len(axis) != 1:
            raise GranularityError("a chain has one axis; for several use Nesting.grid or Nesting.pairs")
        return cls.grid(**axis)

    @classmethod
    def doubling(cls, smallest: int, full: int, axis: str = "dim") -> Nesting:
        """``smallest``, twice that, ... below ``full``, then ``full`` (MRL's logarithmic nesting)."""
        sizes = doubled(size_of(axis, smallest), size_of(axis, full))
        return cls.chain(**{axis: between(axis, sizes)})

    @classmethod
    def grid(cls, **axes: Iterable[int]) -> Nesting:
        """Every combination of the sizes on each axis (2DMSE)."""
        sizes = [chain_sizes(axis, values) for axis, values in axes.items()]
        check_count(prod(map(len, sizes)), "the grid")
        return cls(tuple(Granularity(**dict(zip(axes, point, strict=True))) for point in product(*sizes)))

    @classmethod
    def pairs(cls, **axes: Iterable[int]) -> Nesting:
        """The diagonal: the i-th size of every axis together (Starbucks)."""
        columns = {axis: chain_sizes(axis, values) for axis, values in axes.items()}
        if len({len(column) for column in columns.values()}) > 1:
            counts = ", ".join(f"{axis}: {len(column)}" for axis, column in columns.items())
            raise GranularityError(f"pairs need the same number of sizes on each axis; got {counts}")
        points = zip(*columns.values(), strict=True)
        return cls(tuple(Granularity(**dict(zip(columns, point, strict=True))) for point in points))

    @classmethod
    def of(cls, given: AnyNesting) -> Nesting:
        """The nesting that an argument names: itself, its text, or sizes on the axis ``dim``.

        >>> Nesting.of("dim=8,16") == Nesting.of([8, 16]) == Nesting.of(Nesting.parse("dim=8,16"))
        True

        Raises:
            GranularityError: for anything else.
        """
        if isinstance(given, Nesting):
            return given
        if isinstance(given, str):
            return cls.parse(given)
        if isinstance(given, Iterable) and not isinstance(given, (bytes, Mapping)):
            return cls.chain(dim=given)
        raise GranularityError(
            f'{shown(given)} is no nesting; give text such as "dim=8,16,32", a list of dims, or a Nesting'
        )

    @classmethod
    def parse(cls, text: str) -> Nesting:
        """Read a nesting as written on a command line or in TOML.

        ``"dim=8,16,32"`` or ``"8,16,32"`` a chain; ``"dim=8..256"`` doubling;
        ``"dim=16..768+16"`` in steps of 16; ``"layer=2,4 x dim=8,16"`` a grid;
        ``"layer=2,4 zip dim=8,16"`` pairs; ``"dim=8,layer=2; dim=16,layer=4"`` any list.

        Raises:
            GranularityError: for text of another form.
        """
        if ";" in text:
            return cls(tuple(Granularity.parse(part) for part in text.split(";")))
        for word, build in ((" zip ", cls.pairs), (" x ", cls.grid)):
            if word in text:
                return build(**read_axes(text.split(word), text))
        return cls.chain(**read_axes([text], text))

    @property
    def full(self) -> Granularity:
        """The largest granularity, which all others are parts of."""
        return self.granularities[-1]

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that the nesting names."""
        return tuple(self.full)

    def sizes(self, axis: str) -> tuple[int, ...]:
        """The different sizes on ``axis``, increasing."""
        if axis not in self.full:
            refuse_axis(axis, None, str(self), self.axes)
        return tuple(sorted({g[axis] for g in self.granularities}))

    @property
    def rests(self) -> tuple[Granularity, ...]:
        """The rests of the granularities, each once; that of the full one is ``full.rest``."""
        return tuple(dict.fromkeys(g.rest for g in self.granularities))

    def within(self, thing: str, *, needs: Sequence[str] = ("dim",), **limits: int | None) -> Nesting:
        """This nesting, if a model can be cut so.

        Args:
            thing: its name in errors, such as ``"an adapter"``.
            needs: axes that the nesting has to name.
            limits: the axes that the model has, each with its largest size or None.

        Raises:
            GranularityError: for another axis, one that is missing, or a size beyond the limit.
        """
        has = f"{thing} has the {'axis' if len(limits) == 1 else 'axes'} {' and '.join(limits)}"
        for axis in {**self.full, **dict.fromkeys(needs)}:
            size = self.full.get(axis)
            if axis not in limits:
                raise GranularityError(f"{has}, not {axis}; leave {axis} out of the nesting {self}")
            if size is None:
                raise GranularityError(f"{has}; add {axis}, in full if no other size is meant, to {self}")
            if size > (most := limits[axis] or size):
                raise GranularityError(
                    f"the nesting {self} goes up to {axis}={size}, but {thing} has {most}; end it at {most}"
                )
        return self

    def resolve(self, at: At) -> Granularity:
        """The granularity of this nesting that ``at`` names; ``None`` and ``"full"`` are the full one.

        Raises:
            GranularityError: if it lies outside; the message names the nearest valid granularities.
        """
        granularity = self.named(at)
        if granularity not in self.granularities:
            near = " or ".join(str(g) for g in self.nearest(granularity))
            raise GranularityError(
                f"{granularity} is outside the nesting {self}; the nearest valid granularity is {near}. "
                "Use one of those, or a nesting that holds it"
            )
        return granularity

    def named(self, at: At) -> Granularity:
        """The granularity on the axes of this nesting that ``at`` names, whether it is a member or not."""
        return self.full.replace(**self._read(at))

    def _read(self, at: At) -> dict[str, int]:
        if at is None:
            return {}
        if isinstance(at, str):
            at = read_at(at)
        if isinstance(at, (int, np.integer)):
            axes = tuple(axis for axis in self.axes if axis != "bits") or self.axes
            if len(axes) != 1:
                raise GranularityError(
                    f"at={at} does not say which axis is meant; the nesting {self} has "
                    f'{" and ".join(self.axes)}: write at="{self.full}"'
                )
            at = Granularity(**{axes[0]: at})
        elif not isinstance(at, Mapping):
            raise GranularityError(
                f'at must be text such as "{self.full}", a whole number, or a Granularity, not {shown(at)}'
            )
        for axis in at:
            if axis not in self.full:
                refuse_axis(axis, at[axis], str(self), self.axes)
        return {axis: size for axis, size in at.items() if axis in self.full}

    def nearest(self, granularity: Granularity) -> tuple[Granularity, ...]:
        """The members closest to ``granularity``: one, or one on each side of it (by log size)."""

        def distance(member: Granularity) -> float:
            return sum(abs(log2(member[axis] / granularity.get(axis, member[axis]))) for axis in member)

        both = [g for g in self if g <= granularity], [g for g in self if g >= granularity]
        sides = [min(side, key=distance) for side in both if side]
        return tuple(dict.fromkeys(sides)) or (min(self, key=distance),)

    def times(self, **axis: Iterable[int]) -> Nesting:
        """This nesting with one more axis: every granularity at each of the sizes.

        >>> str(Nesting.parse("dim=8,16").times(bits=[2, 32]))
        'dim=8,16 x bits=2,32'
        """
        ((name, sizes),) = ((name, chain_sizes(name, sizes)) for name, sizes in axis.items())
        check_count(len(self) * len(sizes), "the grid")
        return Nesting(tuple(g.replace(**{name: size}) for g in self for size in sizes))

    def without(self, axis: str) -> Nesting:
        """This nesting with ``axis`` left out, which then is used in full."""
        return Nesting(tuple(dict.fromkeys(g.replace(**{axis: None}) for g in self)))

    def up_to(self, granularity: Granularity) -> Nesting:
        """The part of the nesting that ``granularity`` covers, itself included and last."""
        return Nesting(tuple(g for g in self if g <= granularity))

    def __len__(self) -> int:
        return len(self.granularities)

    @overload
    def __getitem__(self, index: int) -> Granularity: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Granularity, ...]: ...
    def __getitem__(self, index: int | slice) -> Granularity | tuple[Granularity, ...]:
        return self.granularities[index]

    def __str__(self) -> str:
        sizes = {axis: self.sizes(axis) for axis in self.axes}
        columns = [written(axis, values) for axis, values in sizes.items()]
        if len(self) == prod(map(len, sizes.values())):
            return " x ".join(columns)
        if all(len(values) == len(self) for values in sizes.values()) and self == Nesting.pairs(**sizes):
            return " zip ".join(columns)
        return "; ".join(map(str, self))

    def __repr__(self) -> str:
        return f"Nesting.parse({str(self)!r})"


AnyNesting: TypeAlias = Nesting | str | Sequence[int]
"""Accepted by ``nesting=``: a nesting, its text, or its sizes on the axis ``dim``."""
