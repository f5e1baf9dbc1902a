"""Tokens of pictures, clips, utterances or texts: vectors, with a mask and a grid."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor

from nestling.arguments.formatting import shown, type_of
from nestling.cut import name_rows
from nestling.errors import DataError


class Tokens(NamedTuple):
    """The tokens of a batch of items.

    Args:
        values: ``Float[batch, n, width]``.
        mask: ``Bool[batch, n]``, True for a token and False for padding; None if all are tokens.
        grid: rows and columns of a picture, in raster order (``n == rows * columns``); None for a sequence.
    """

    values: Tensor
    mask: Tensor | None = None
    grid: tuple[int, int] | None = None

    def lengths(self) -> Tensor:
        """The number of tokens of each item, ``Int[batch]``."""
        if self.mask is None:
            batch, n = self.values.shape[:2]
            return torch.full((batch,), n, device=self.values.device)
        return self.mask.sum(dim=1)


AnyTokens: TypeAlias = Tokens | Tensor
"""Accepted wherever tokens are: a tensor ``Float[batch, n, width]`` is ``Tokens(values)``."""

Count = TypeVar("Count", int, Tensor)
"""A number of tokens, or ``Int[batch]``, one for each item."""


def as_tokens(given: AnyTokens, width: int | None = None) -> Tokens:
    """``given`` as tokens whose shapes fit together.

    Args:
        given: tokens, or their values.
        width: entries that a token must have, if that is known.

    Raises:
        DataError: for another type or shape, no tokens, or a mask or a grid that does not fit.
    """
    tokens = given if isinstance(given, Tokens) else Tokens(given)
    values, mask, grid = tokens
    if not isinstance(values, Tensor):
        raise DataError(f"tokens must be a tensor or Tokens, not {type_of(given)}")
    if values.ndim != 3 or 0 in values.shape or not values.is_floating_point():
        raise DataError(
            "tokens must be floats of shape [batch, n, width], with at least one token, not "
            f"{values.dtype} of shape {tuple(values.shape)}"
        )
    if width is not None and values.shape[2] != width:
        raise DataError(f"tokens of {width} entries are expected, not of {values.shape[2]}")
    if mask is not None and (mask.dtype != torch.bool or mask.shape != values.shape[:2]):
        raise DataError(
            f"the mask must be bool of shape {tuple(values.shape[:2])}, True for a token, not {mask.dtype} "
            f"of shape {tuple(mask.shape)}"
        )
    if grid is not None:
        check_grid(values.shape[1], grid)
    return tokens


def check_grid(n: int, grid: tuple[int, int]) -> None:
    """Refuse a number of tokens that does not fill a grid.

    Raises:
        DataError: naming both, and the class token if there is one token too many; also for a grid that is
            none.
    """
    if not isinstance(grid, tuple) or len(grid) != 2 or not all(isinstance(side, int) for side in grid):
        raise DataError(f"the grid of tokens is a tuple (rows, columns), not {shown(grid)}")
    rows, columns = grid
    if n != rows * columns:
        hint = "drop the class token first" if n == rows * columns + 1 else "give tokens of that grid"
        raise DataError(
            f"{n} tokens do not fill a grid of {rows} x {columns} = {rows * columns} tokens; {hint}"
        )


def check_not_empty(tokens: Tokens, needed: int = 1, why: str = "") -> None:
    """Refuse items with fewer than ``needed`` tokens.

    Raises:
        DataError: naming those items; ``why`` says what needs the tokens and what to do.
    """
    if tokens.mask is None and tokens.values.shape[1] >= needed:
        return
    lengths = tokens.lengths()
    short = torch.nonzero(lengths < needed).flatten().tolist()
    if short:
        what = "holds no token" if needed == 1 else f"holds fewer than {needed} tokens"
        raise DataError(
            f"{name_rows(short)} of the batch {what if len(short) == 1 else what.replace('holds', 'hold')}; "
            f"{why or 'leave such items out, or mend their mask'}"
        )


def accumulating(values: Tensor) -> torch.dtype:
    """The dtype in which ``values`` are summed: float32, or wider if they are."""
    return torch.promote_types(values.dtype, torch.float32)
