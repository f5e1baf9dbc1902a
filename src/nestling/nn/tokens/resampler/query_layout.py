"""The places of queries and of features on a grid or a line, and codes of places."""

from __future__ import annotations

from math import isqrt, log
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from nestling.errors import ConfigError
from nestling.nn.tokens.grid_pool import Shape

Order = Literal["raster", "pyramid"]
Grid = Shape | int
"""Rows and columns of a picture, or the length of a sequence."""

_BASE = 10000.0
"""The longest wavelength of the codes of places, divided by 2 pi."""


def regions_of(count: int, order: Order, axes: int) -> Tensor:
    """The region of each query, ``Float[count, axes, 2]`` from 0 to 1.

    Args:
        count: of queries.
        order: ``"raster"``, the cells of a square grid, or of a line; ``"pyramid"``, the whole, its quarters
            (halves), their quarters and so on.
        axes: 2 for a picture, 1 for a sequence.

    Raises:
        ConfigError: for a number of queries that fills no such layout.
    """
    if order == "raster":
        side = count if axes == 1 else isqrt(count)
        if side**axes != count:
            raise ConfigError(
                f"max_tokens={count} is no square, and queries of a picture lie on a square grid; use "
                f"{side * side} or {(side + 1) ** 2}, order='pyramid' with 5, 21 or 85, or for a sequence "
                "grid= as one number"
            )
        return _cells(side, axes)
    levels = [_cells(1, axes)]
    while sum(map(len, levels)) < count:
        levels.append(_cells(2 ** len(levels), axes))
    found = torch.cat(levels)
    if len(found) != count:
        totals = [sum(2 ** (axes * level) for level in range(depth)) for depth in (1, 2, 3, 4, 5)]
        raise ConfigError(
            f"max_tokens={count} fills no pyramid; use a sum of its levels: {', '.join(map(str, totals))}"
        )
    return found


def places_of(grid: Grid) -> Tensor:
    """The centres of the features of a grid, ``Float[n, axes]`` from 0 to 1, in raster order."""
    sides = (grid,) if isinstance(grid, int) else grid
    centres = [(torch.arange(side, dtype=torch.float32) + 0.5) / side for side in sides]
    return torch.cartesian_prod(*centres).reshape(-1, len(sides))


def overlaps(regions: Tensor, grid: Grid) -> Tensor:
    """The share of each region that each feature covers, ``Float[queries, n]``; rows sum to one."""
    sides = (grid,) if isinstance(grid, int) else grid
    shares = []
    for axis, side in enumerate(sides):
        edges = torch.arange(side + 1, dtype=torch.float32) / side
        start, end = regions[:, axis, 0, None], regions[:, axis, 1, None]
        shared = (torch.minimum(end, edges[1:]) - torch.maximum(start, edges[:-1])).clamp(min=0)
        # Differences of rounding are no overlap.
        shared = torch.where(shared > 1e-4 / side, shared, 0)
        shares.append(shared / shared.sum(dim=1, keepdim=True))
    if len(shares) == 1:
        return shares[0]
    return (shares[0][:, :, None] * shares[1][:, None, :]).flatten(1)


def sincos(places: Tensor, width: int) -> Tensor:
    """Sines and cosines of places, ``Float[n, width]``; each axis has an equal part of the entries.

    Args:
        places: ``Float[n, axes]``.
        width: a multiple of twice the number of axes.
    """
    axes = places.shape[1]
    count = width // axes // 2
    rates = _BASE ** -(torch.arange(count, dtype=torch.float64) / count)
    angles = places.double()[:, :, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1).float()


def finest(regions: Tensor) -> float:
    """The number of the smallest regions along one axis, in whose widths places are coded."""
    return 1 / float(regions[-1, 0, 1] - regions[-1, 0, 0])


def place_entries(width: int, heads: int, regions: Tensor) -> tuple[Tensor, Tensor, int]:
    """Entries of the codes of :func:`sincos` whose products, for each head, are largest at equal places.

    Sines and cosines of one rate have the product ``cos(rate * distance)``. A head has rates from one
    radian a region down to half a turn along the whole axis.

    Args:
        width: of the codes.
        heads: of the attention; each has ``width / heads`` rows of the projection.
        regions: as :func:`regions_of` gives them.

    Returns:
        ``Int[k]``, rows of the projection; ``Int[k]``, the entry for each; and an entry that is about zero
        everywhere.
    """
    axes, size = regions.shape[1], width // heads
    count, rates = width // axes // 2, size // (2 * axes)
    slowest = min(torch.pi / finest(regions), 1.0)
    wanted = slowest ** (torch.arange(rates, dtype=torch.float64) / max(rates - 1, 1))
    numbers = (-wanted.log() / log(_BASE) * count).round().long().clamp(max=count - 1)
    starts = torch.arange(axes)[:, None] * 2 * count
    entries = torch.cat([starts + numbers, starts + count + numbers]).flatten()
    rows = torch.arange(heads)[:, None] * size + torch.arange(len(entries))
    return rows.flatten(), entries.repeat(heads), count - 1


def resized(table: Tensor, grid: Grid) -> Tensor:
    """A table of codes on a square grid (or a line), interpolated to another grid, ``Float[n, width]``."""
    count, width = table.shape
    if isinstance(grid, int):
        line = F.interpolate(table.T[None], size=grid, mode="linear", align_corners=False)
        return line[0].T
    side = isqrt(count)
    square = table.T.reshape(1, width, side, side)
    return F.interpolate(square, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T


def _cells(side: int, axes: int) -> Tensor:
    """The cells of a grid with ``side`` cells along each axis, ``Float[side ** axes, axes, 2]``."""
    centres = places_of(side if axes == 1 else (side, side))
    return torch.stack([centres - 0.5 / side, centres + 0.5 / side], dim=2)
