"""Embeddings of text and tokens of items in one padded sequence a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from nestling.nn.tokens.tokens import Tokens


class Filled(NamedTuple):
    """Tokens of the items in some places.

    Args:
        places: ``Int[items]``, of each item in the flattened ids.
        tokens: of these items.
    """

    places: Tensor
    tokens: Tokens


def places_of(ids: Tensor, mask: Tensor, place: int) -> Tensor:
    """``Int[items]``: where a place stands in the flattened ids."""
    return (mask & (ids == place)).flatten().nonzero().flatten()


class Sequences(NamedTuple):
    """What the language model reads.

    Args:
        embeds: ``Float[batch, n, width]``.
        mask: ``Bool[batch, n]``, False for padding.
        last: ``Int[batch, length]``, the column of the last embedding up to each id; below 0, or of padding,
            where there is none.
        lengths: ``Int[batch]``.
    """

    embeds: Tensor
    mask: Tensor
    last: Tensor
    lengths: Tensor

    def positions(self) -> Tensor:
        """``Int[batch, n]``: each embedding's place in its row, padding aside."""
        return (self.mask.cumsum(dim=1) - 1).clamp(min=0)


def assembled(
    ids: Tensor, mask: Tensor, text: Tensor, filled: Sequence[Filled], *, at_end: bool
) -> Sequences:
    """Text and items in the order of the ids.

    Args:
        ids: ``Int[batch, length]``; negative ones are places.
        mask: ``Bool[batch, length]``, False for padding.
        text: ``Float[batch, length, width]``, the embedding of each id that is no place.
        filled: tokens for some of the places; the others are left out.
        at_end: put the end of each row in the last column (padding on the left).
    """
    is_text = mask & (ids >= 0)
    widths = is_text.long().flatten()
    for places, tokens in filled:
        widths = widths.index_copy(0, places, tokens.lengths())
    ends = widths.view_as(ids).cumsum(dim=1)
    lengths = ends[:, -1]
    n = int(lengths.max())
    offsets = n - lengths if at_end else torch.zeros_like(lengths)
    starts = (ends + (offsets + n * torch.arange(len(ids), device=ids.device))[:, None]).flatten() - widths
    rows, values = [starts[is_text.flatten()]], [text[is_text]]
    for places, (given, given_mask, _) in filled:
        real = torch.ones_like(given[..., 0], dtype=torch.bool) if given_mask is None else given_mask
        rows.append((starts[places, None] + real.cumsum(dim=1) - 1)[real])
        values.append(given[real].to(text.dtype))
    embeds = text.new_zeros(len(ids) * n, text.shape[2]).index_copy(0, torch.cat(rows), torch.cat(values))
    columns = torch.arange(n, device=ids.device)
    inside = (columns >= offsets[:, None]) & (columns < (offsets + lengths)[:, None])
    last = ends + offsets[:, None] - 1
    return Sequences(
        embeds.view(len(ids), n, text.shape[2]), inside, torch.where(ends > 0, last, -1), lengths
    )
