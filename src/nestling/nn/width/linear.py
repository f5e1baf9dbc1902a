"""Nested linear maps: block lower triangular matrices, one parameter a block."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Whole, check
from nestling.cut import prefix_blocks
from nestling.errors import ConfigError
from nestling.granularity import At, Nesting
from nestling.nn.width.width_part import WidthPart, leading_entries, read_out_sizes

_ASSEMBLED_UP_TO = 256
"""Up to this input width one product with the zeros takes less time than one product a block."""


class NestedLinear(WidthPart):
    """A linear map whose first outputs depend on the first inputs alone.

    Block ``j`` of the output, the entries ``out_sizes[j-1]:out_sizes[j]``, reads the inputs ``:sizes[j]``.
    The weight is block lower triangular, and its zeros are not stored: each block is one parameter.

    Args:
        sizes: widths of the input, increasing; or one width that is read whole at every size.
        out_sizes: widths of the output, as many; the same as ``sizes`` by default. ``out_sizes`` of twice
            ``sizes`` scale up by 2, of half down by 2.
        bias: add a bias.
        dtype: of the weights; a complex one makes a complex map.

    The nesting names the widths of the input, or those of the output if the input is read whole.

    Raises:
        GranularityError: for widths that do not increase.
        ConfigError: for ``out_sizes`` of another number, or that do not increase.

    Source: fMRLRec, arXiv 2409.16627, section 3; stored as in the released code, which has no scaling.

    >>> layer = NestedLinear([8, 16], out_sizes=[16, 32])
    >>> x = torch.zeros(5, 16)
    >>> layer(x, at=8).shape, torch.equal(layer(x)[:, :16], layer(x, at="width=8"))
    (torch.Size([5, 16]), True)
    """

    kind = "nested_linear"

    def __init__(
        self,
        sizes: Sequence[int] | int,
        out_sizes: Sequence[int] | None = None,
        *,
        bias: bool = True,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self._whole = isinstance(sizes, int)
        if isinstance(sizes, int):
            if out_sizes is None:
                raise ConfigError(f"sizes={sizes} is one width, so out_sizes= must name those of the output")
            self.nesting = Nesting.chain(width=out_sizes)
            self.in_sizes = (check("sizes", sizes, Whole(1)),) * len(self.nesting)
        else:
            self.nesting = Nesting.chain(width=sizes)
            self.in_sizes = self.nesting.sizes("width")
        widths = self.nesting.sizes("width")
        self.out_sizes = widths if out_sizes is None else read_out_sizes(out_sizes, widths)
        self._rows = prefix_blocks(self.out_sizes)
        self.blocks = nn.ParameterList(
            nn.Parameter(_drawn(rows.stop - rows.start, columns, columns, dtype))
            for rows, columns in zip(self._rows, self.in_sizes, strict=True)
        )
        self.bias = nn.Parameter(self._drawn_bias(dtype)) if bias else None

    @classmethod
    def from_dense(
        cls, linear: nn.Linear, sizes: Sequence[int] | int, out_sizes: Sequence[int] | None = None
    ) -> Self:
        """A trained layer without the weights from later inputs to earlier outputs.

        Raises:
            ConfigError: if the full sizes are not those of the layer.
        """
        with torch.device("meta"):
            made = cls(sizes, out_sizes, bias=linear.bias is not None)
        if (made.in_sizes[-1], made.out_sizes[-1]) != (linear.in_features, linear.out_features):
            raise ConfigError(
                f"the layer maps {linear.in_features} entries to {linear.out_features}, but the full sizes "
                f"are {made.in_sizes[-1]} and {made.out_sizes[-1]}; end the sizes at those of the layer"
            )
        state = {
            f"blocks.{number}": linear.weight[rows, :columns].detach().clone()
            for number, (rows, columns) in enumerate(zip(made._rows, made.in_sizes, strict=True))
        }
        if linear.bias is not None:
            state["bias"] = linear.bias.detach().clone()
        made.load_state_dict(state, assign=True)
        return made.train(linear.training)

    def leading(self, x: Tensor, place: int) -> Tensor:
        """See :class:`WidthPart`."""
        columns, rows = self.in_sizes[place], self.out_sizes[place]
        x = leading_entries(x, columns, "a nested linear map")
        if columns <= _ASSEMBLED_UP_TO:
            bias = None if self.bias is None else self.bias[:rows]
            return F.linear(x, self.dense_weight(self.nesting[place]), bias)
        flat = x.reshape(-1, columns)
        found = [self._block(flat, number) for number in range(place + 1)]
        return torch.cat(found, dim=-1).reshape(*x.shape[:-1], rows)

    def dense_weight(self, at: At = None) -> Tensor:
        """The weight ``[out, in]`` at a width as one matrix, with its zeros."""
        place = self.place(at)
        columns = self.in_sizes[place]
        if not place:
            return self._kept(0)[0]
        return torch.cat([F.pad(block, (0, columns - block.shape[1])) for block in self._kept(place)])

    def flops(self, at: At = None) -> float:
        """Multiply-adds for one row; those of zeros do not count."""
        return float(sum(block.numel() for block in self._kept(self.place(at))))

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        kept = self.place(at) + 1
        return {
            "sizes": self.in_sizes[0] if self._whole else list(self.in_sizes[:kept]),
            "out_sizes": list(self.out_sizes[:kept]),
            "bias": self.bias is not None,
        }

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        place = self.place(at)
        kept: dict[str, Tensor] = {f"blocks.{n}": block for n, block in enumerate(self._kept(place))}
        return kept if self.bias is None else {**kept, "bias": self.bias[: self.out_sizes[place]]}

    def _kept(self, place: int) -> list[Tensor]:
        return [self.blocks[number] for number in range(place + 1)]

    def _block(self, x: Tensor, number: int) -> Tensor:
        bias = None if self.bias is None else self.bias[self._rows[number]]
        return F.linear(x[:, : self.in_sizes[number]], self.blocks[number], bias)

    def _drawn_bias(self, dtype: torch.dtype | None) -> Tensor:
        return torch.cat(
            [
                _drawn(1, rows.stop - rows.start, columns, dtype)[0]
                for rows, columns in zip(self._rows, self.in_sizes, strict=True)
            ]
        )


def _drawn(rows: int, columns: int, fan_in: int, dtype: torch.dtype | None) -> Tensor:
    """Initial values as ``nn.Linear`` draws them, of each block by itself."""
    made = torch.empty(rows, columns, dtype=dtype)
    parts = torch.view_as_real(made) if made.is_complex() else made
    nn.init.uniform_(parts, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
    return made
