"""The base class of layers that are cut on the axis ``width``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from itertools import pairwise

from torch import Tensor

from nestling.arguments.constraints import Whole, check
from nestling.arguments.formatting import type_of
from nestling.cut import RAW, cut
from nestling.elastic import resolve_each
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity
from nestling.nn.part import ElasticPart


class WidthPart(ElasticPart):
    """Base class of layers that compute, at each width, the leading entries of their full output.

    ``layer(x)[..., :n]`` equals ``layer(x, at=m)`` exactly, where ``n`` is the size of the output at width
    ``m``. So one pass at full width gives the outputs of all widths.

    Attributes:
        nesting: sizes on the axis ``width``.
        out_sizes: the size of the output at each width.
    """

    out_sizes: tuple[int, ...]

    @abstractmethod
    def leading(self, x: Tensor, place: int) -> Tensor:
        """The output at the width that is number ``place`` of the nesting."""

    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        """The output ``Float[..., n]`` at one width, of an input of full width or cut already."""
        return self.leading(x, self.place(at))

    def forward_each(
        self, x: Tensor, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """The outputs at several widths: prefixes of that at the largest of them."""
        places = {g: self.place(g) for g in resolve_each(self.nesting, granularities)}
        whole = self.leading(x, max(places.values()))
        return {g: cut(whole, self.out_sizes[place], RAW) for g, place in places.items()}

    def place(self, at: At = None) -> int:
        """The number of a width in the nesting."""
        return self.nesting.index(self.nesting.resolve(at))

    def out_width(self, at: At = None) -> int:
        """Entries of the output at a width."""
        return self.out_sizes[self.place(at)]

    def output_bytes(self, at: Granularity) -> int:
        """Bytes of the output of one row."""
        return 4 * self.out_width(at)


def leading_entries(x: Tensor, size: int, what: str) -> Tensor:
    """The first ``size`` entries of each vector.

    Raises:
        DataError: for vectors with fewer entries, or something else.
    """
    if not isinstance(x, Tensor):
        raise DataError(f"{what} takes a tensor of shape [..., {size} or more], not {type_of(x)}")
    if x.ndim < 1 or x.shape[-1] < size or not (x.is_floating_point() or x.is_complex()):
        raise DataError(
            f"{what} takes floats of shape [..., {size} or more] at this width, not {x.dtype} of shape "
            f"{tuple(x.shape)}"
        )
    return cut(x, size, RAW)


def read_out_sizes(
    out_sizes: Iterable[int], widths: Sequence[int], name: str = "out_sizes"
) -> tuple[int, ...]:
    """Sizes of the output, one for each width, increasing.

    Raises:
        ConfigError: for another number of sizes, or sizes that do not increase.
    """
    sizes = tuple(check(name, size, Whole(1)) for size in out_sizes)
    if len(sizes) != len(widths):
        raise ConfigError(
            f"{name}={list(sizes)} has {len(sizes)} sizes and there are {len(widths)} widths, "
            f"{list(widths)}; give one size for each width"
        )
    for small, large in pairwise(sizes):
        if small >= large:
            raise ConfigError(
                f"{name}={list(sizes)} must increase without repeats, but {small} comes before {large}"
            )
    return sizes
