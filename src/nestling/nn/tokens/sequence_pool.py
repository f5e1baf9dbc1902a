"""Pooling of a sequence in windows of a fixed length, at a rate that is chosen at the moment of use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from nestling.arguments.constraints import OneOf, Whole, check, checked
from nestling.arguments.formatting import shown
from nestling.errors import ConfigError, GranularityError
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.tokens import Count, Tokens, accumulating, check_not_empty

SequenceMode = Literal["mean", "stack", "stride"]
Remainder = Literal["drop", "pad", "partial"]


class SequencePool(Compressor):
    """One token for every ``rate`` vectors of a sequence, such as sound or video.

    It has no weights. Sizes on the axis are the numbers of tokens that an item of ``frames`` vectors gives:
    500 vectors, ten seconds of sound, give ``audio=125`` tokens at rate 4 and ``audio=31`` at rate 16.
    Padding is removed first, wherever it is, so the tokens of an item do not depend on the other items of
    its batch. The output is padded at the end.

    Args:
        width: entries of a vector.
        rates: vectors per token, increasing.
        frames: vectors of the item that sizes and cost refer to.
        axis: name of the axis, such as ``"audio"``.
        mode: ``"mean"`` of each window; ``"stack"``, its vectors one after the other, as one token ``rate``
            times as wide; ``"stride"``, its first vector.
        remainder: the vectors after the last full window: ``"drop"`` them; ``"pad"`` the window with zeros,
            which enter its mean; or use the ``"partial"`` window, a mean of the vectors that it has.

    Raises:
        GranularityError: for rates that repeat, do not increase, exceed ``frames``, or give equal sizes.
        ConfigError: for rates below 1, or for stacking partial windows.

    Source: Llama-MTSK, arXiv 2503.06362, section 3.

    >>> pool = SequencePool(8, rates=[4, 16], frames=500, axis="audio")
    >>> pool.nesting.sizes("audio"), pool.rate(at="audio=31"), pool.lengths(100, at="audio=31")
    ((31, 125), 16, 6)
    """

    kind = "sequence_pool"

    @checked(
        width=Whole(1),
        frames=Whole(1),
        mode=OneOf(get_args(SequenceMode)),
        remainder=OneOf(get_args(Remainder)),
    )
    def __init__(
        self,
        width: int,
        rates: Sequence[int],
        frames: int,
        *,
        axis: str = "tokens",
        mode: SequenceMode = "mean",
        remainder: Remainder = "drop",
    ) -> None:
        super().__init__()
        if mode == "stack" and remainder == "partial":
            raise ConfigError(
                "mode='stack' makes tokens of equal width, and a partial window is narrower; use "
                "remainder='pad' or remainder='drop'"
            )
        self.width, self.inputs, self.axis = width, frames, axis
        self.mode, self.remainder = mode, remainder
        self._rates = _rates_by_size(rates, frames, axis)
        self.nesting = Nesting.chain(**{axis: sorted(self._rates)})

    def rate(self, at: At = None) -> int:
        """Vectors per token at a granularity."""
        return self._rates[self.nesting.resolve(at)[self.axis]]

    def at_rate(self, rate: int) -> Granularity:
        """The granularity of a rate.

        Raises:
            GranularityError: for a rate that the pool is not made for.
        """
        sizes = {each: size for size, each in self._rates.items()}
        if rate not in sizes:
            known = ", ".join(map(str, sorted(sizes)))
            raise GranularityError(
                f"rate={shown(rate)} is not among the rates of this pool, {known}; use one of them"
            )
        return Granularity(**{self.axis: sizes[rate]})

    def each(self, tokens: Tokens, wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        """The tokens at each granularity; padding is removed once."""
        tokens = left_aligned(tokens)
        return {g: self._pooled(tokens, self._rates[g[self.axis]]) for g in wanted}

    def lengths(self, n: Count, at: At = None) -> Count:
        """The exact number of tokens of items of ``n`` vectors."""
        return _windows(n, self.rate(at), self.remainder)

    def out_width(self, at: At = None) -> int:
        """Entries of an output token: more if vectors are stacked."""
        return self.width * (self.rate(at) if self.mode == "stack" else 1)

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        kept = self.nesting.up_to(self.nesting.resolve(at)).sizes(self.axis)
        return {
            "width": self.width,
            "rates": sorted(self._rates[size] for size in kept),
            "frames": self.inputs,
            "axis": self.axis,
            "mode": self.mode,
            "remainder": self.remainder,
        }

    def _pooled(self, tokens: Tokens, rate: int) -> Tokens:
        needed = rate if self.remainder == "drop" else 1
        check_not_empty(
            tokens, needed, f"rate {rate} makes no token of them; use a smaller rate, or remainder='partial'"
        )
        n = tokens.values.shape[1]
        count = _windows(n, rate, self.remainder)
        values = F.pad(tokens.values, (0, 0, 0, max(count * rate - n, 0)))[:, : count * rate]
        windows = values.reshape(len(values), count, rate, self.width)
        lengths = None if tokens.mask is None else tokens.mask.sum(dim=1, keepdim=True)
        places = torch.arange(count, device=values.device)
        mask = None if lengths is None else places < _windows(lengths, rate, self.remainder)
        return Tokens(self._reduced(windows, n if lengths is None else lengths, places, mask), mask)

    def _reduced(self, windows: Tensor, lengths: int | Tensor, places: Tensor, mask: Tensor | None) -> Tensor:
        """One token of each window ``Float[batch, count, rate, width]``; zeros where ``mask`` is False."""
        rate = windows.shape[2]
        if self.mode == "stack":
            found = windows.flatten(2)
        elif self.mode == "stride":
            found = windows[:, :, 0]
        else:
            found = windows.sum(dim=2, dtype=accumulating(windows))
            held = (lengths - places * rate).clamp(1, rate) if self.remainder == "partial" else None
            found = (found / (rate if held is None else held[..., None])).to(windows.dtype)
        return found if mask is None else torch.where(mask[..., None], found, 0)


def left_aligned(tokens: Tokens) -> Tokens:
    """The tokens of each item moved to its start, in their order, and zeros behind them."""
    values, mask, _ = tokens
    if mask is None:
        return Tokens(values)
    order = torch.argsort(mask, dim=1, descending=True, stable=True)
    moved = torch.take_along_dim(mask, order, dim=1)
    found = torch.take_along_dim(values, order[..., None], dim=1)
    return Tokens(torch.where(moved[..., None], found, 0), moved)


def _windows(n: Count, rate: int, remainder: Remainder) -> Count:
    """The number of windows of a sequence of ``n`` vectors."""
    return (n if remainder == "drop" else n + rate - 1) // rate


def _rates_by_size(rates: Sequence[int], frames: int, axis: str) -> dict[int, int]:
    """The rate of each size."""
    given: Any = rates
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise GranularityError(f"rates must be a list, such as [4, 16], not {shown(given)}")
    rates = [check("rates", rate, Whole(1)) for rate in rates]
    if not rates:
        raise GranularityError("rates is empty; give at least one rate, such as 4")
    for small, large in pairwise(rates):
        if small >= large:
            raise GranularityError(
                f"rates must increase without repeats, but {small} comes before {large}; write "
                f"{sorted(set(rates))}"
            )
    if rates[-1] > frames:
        raise GranularityError(
            f"rate {rates[-1]} is more than the {frames} vectors of an item; give rates up to {frames}"
        )
    sizes = {frames // rate: rate for rate in rates}
    if len(sizes) < len(rates):
        raise GranularityError(
            f"some of the rates {', '.join(map(str, rates))} give {frames} vectors equal numbers of {axis}; "
            "leave some out, or refer to a longer item with a larger frames="
        )
    return sizes
