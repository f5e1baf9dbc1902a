"""Embeddings as codes of few bits hold them, while they are trained (quantisation-aware training)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nestling.arguments.constraints import Flag, Real, Whole, checked
from nestling.axes import FLOAT_BITS
from nestling.bits import BitCode, cell_values, decode_tensor, encode_tensor
from nestling.cut import RAW, SMALLEST_NORM, cut


@dataclass(frozen=True)
@checked(both_sides=Flag(), start=Whole(0), learn_ranges=Flag(), momentum=Real(above=0, most=1))
class Quantisation:
    """Rounding of embeddings in a nested loss over ``bits``.

    Args:
        both_sides: round the first column (the queries) too. By default queries stay floats, as in an
            asymmetric search.
        start: training batches in floats alone, before codes are used.
        learn_ranges: train a factor on the spread of each entry, from 1.
        momentum: share of a batch in the running mean and spread; above 0, at most 1.
    """

    both_sides: bool = False
    start: int = 0
    learn_ranges: bool = False
    momentum: float = 0.1


class RunningCode(nn.Module):
    """A code whose centre and spread follow the unit vectors of the training batches.

    A code that is calibrated after training, on vectors such as these, is nearly the same.

    Args:
        dim: entries of a vector.
        how: the settings.
    """

    centre: Tensor
    spread: Tensor
    seen: Tensor

    def __init__(self, dim: int, how: Quantisation) -> None:
        super().__init__()
        self.momentum = how.momentum
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("spread", torch.zeros(dim))
        self.register_buffer("seen", torch.tensor(0))
        self.log_range = nn.Parameter(torch.zeros(dim)) if how.learn_ranges else None

    def forward(self, unit: Tensor) -> tuple[Tensor, Tensor]:
        """Centre and spread, which follow a batch ``Float[rows, dim]`` in training.

        Before the first training batch they are those of the batch.
        """
        shifted = unit.to(self.centre) - self.centre
        mean, square = _mean_over_processes(torch.stack([shifted.mean(0), shifted.square().mean(0)]))
        spread = (square - mean.square()).clamp_min(0).sqrt()
        if self.training:
            self.seen += 1
        share = (1 / self.seen.clamp_min(1)).clamp_min(self.momentum)
        share = share if self.training else (self.seen == 0).to(share)
        centre, spread = self.centre + share * mean, self.spread.lerp(spread, share)
        if self.training:
            self.centre.copy_(centre)
            self.spread.copy_(spread)
        return centre, self._ranged(spread)

    def _ranged(self, spread: Tensor) -> Tensor:
        return spread if self.log_range is None else spread * self.log_range.exp()

    @torch.no_grad()
    def ranged(self, code: BitCode) -> BitCode:
        """A calibrated code with the learned ranges."""
        if self.log_range is None:
            return code
        return replace(code, spread=code.spread * self.log_range.exp().float().cpu().numpy())

    @torch.no_grad()
    def code(self) -> BitCode:
        """The code as it is now."""
        centre, spread = (x.float().cpu().numpy() for x in (self.centre, self._ranged(self.spread)))
        return BitCode(centre, spread, len(centre))


class Rounded:
    """Columns of a batch at every precision; their codes are made once, when they are needed first.

    Args:
        columns: embeddings ``Float[rows, dim]``.
        code: None if they are used as floats only.
        like: columns whose code is used as it is in this batch, in place of one that follows these.
    """

    def __init__(
        self, columns: Sequence[Tensor], code: RunningCode | None, like: Rounded | None = None
    ) -> None:
        self.columns, self.code, self.like = list(columns), code, like

    def at(self, bits: int) -> list[Tensor]:
        """The columns at one precision; gradients pass straight through the rounding."""
        if bits == max(FLOAT_BITS):
            return self.columns
        if bits in FLOAT_BITS:
            return [each.at(bits) for each in self._units]
        return [column.at(bits) for column in self._encoded]

    @cached_property
    def _units(self) -> list[_Unit]:
        return [_Unit.of(x) for x in self.columns]

    @cached_property
    def _terms(self) -> tuple[Tensor, Tensor]:
        """Centre and spread."""
        if self.like is not None:
            return self.like._terms
        assert self.code is not None
        found: tuple[Tensor, Tensor] = self.code(torch.cat([each.unit for each in self._units]))
        return found

    @cached_property
    def _encoded(self) -> list[_Column]:
        centre, spread = self._terms
        return [
            _Column(*each, encode_tensor(each.unit, centre, spread.detach()), centre, spread)
            for each in self._units
        ]


class _Unit(NamedTuple):
    """Embeddings in float32 or better, their unit vectors and their lengths."""

    x: Tensor
    unit: Tensor
    length: Tensor

    @classmethod
    def of(cls, x: Tensor) -> _Unit:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        with torch.no_grad():
            length = wide.norm(dim=-1, keepdim=True).clamp_min(SMALLEST_NORM)
            return cls(wide, wide / length, length)

    def at(self, bits: int) -> Tensor:
        """The embeddings in floats of fewer bits; the gradient passes straight through."""
        held = cut(self.unit, self.unit.shape[-1], RAW, bits=bits)
        return held * self.length + (self.x - self.x.detach())


class _Column(NamedTuple):
    """Embeddings with the codes of their unit vectors."""

    x: Tensor
    unit: Tensor
    length: Tensor
    codes: Tensor
    centre: Tensor
    spread: Tensor

    def at(self, bits: int) -> Tensor:
        """Rounded embeddings of the original length; the gradient of ``x`` passes straight through."""
        held = decode_tensor(self.codes, bits, self.centre, self.spread)
        if self.spread.requires_grad:
            held = held - (self.spread - self.spread.detach()) * self._places(bits)
        return held * self.length + (self.x - self.x.detach())

    @torch.no_grad()
    def _places(self, bits: int) -> Tensor:
        """Distances from the centre in spreads; 0 beyond the outer values.

        The gradient of a range is the value of a cell minus this (LSQ, arXiv 1902.08153, equation 3).
        """
        values = cell_values(bits)
        place = (self.unit - self.centre) / self.spread.clamp_min(SMALLEST_NORM)
        return place.masked_fill(place.abs() > values[-1] + (values[-1] - values[-2]) / 2, 0)


def _mean_over_processes(values: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(values)
        values /= torch.distributed.get_world_size()
    return values
