"""A block of a nested sequence model, and several in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Real, checked
from nestling.errors import ConfigError
from nestling.granularity import At
from nestling.nn.part import part_from
from nestling.nn.recurrent.mixer import Mixer
from nestling.nn.width.linear import NestedLinear
from nestling.nn.width.norm import NestedNorm

_LAYERS = ("mixer_norm", "mixer", "gate_norm", "gate", "up", "down")


class SequenceBlock(Mixer):
    """A mixer and a gated map, each after a norm and added to its input: one block of a sequence model.

    ``x = x + mixer(norm(x))``, then ``x = x + down(silu(gate(z)) * up(z))`` with ``z = norm(x)``. The state
    is that of the mixer.

    Args:
        mixer: of the positions.
        dropout: share of entries that training drops after the mixer, inside of the gated map and after it.

    Raises:
        ConfigError: for blocks of fewer than 4 entries (:class:`~nestling.nn.width.norm.NestedNorm`).

    Source: fMRLRec, arXiv 2409.16627.

    >>> from nestling.nn.recurrent import NestedLRU
    >>> block = SequenceBlock(NestedLRU([8, 16]))
    >>> block(torch.zeros(2, 5, 16), at=8).values.shape
    torch.Size([2, 5, 8])
    """

    kind = "sequence_block"

    @checked(dropout=Real(least=0, below=1))
    def __init__(self, mixer: Mixer, dropout: float = 0.0) -> None:
        sizes = mixer.sizes
        super().__init__(sizes)
        self.mixer, self.dropout = mixer, dropout
        self.mixer_norm, self.gate_norm = NestedNorm(sizes), NestedNorm(sizes)
        self.gate, self.up, self.down = (NestedLinear(sizes) for _ in range(3))

    @property
    def state_dtype(self) -> torch.dtype:
        """That of the mixer."""
        return self.mixer.state_dtype

    def state_width(self, width: int) -> int:
        """That of the mixer."""
        return self.mixer.state_width(width)

    def sequence(self, values: Tensor, state: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """See :class:`Mixer`."""
        mixed, states = self.mixer.sequence(self.mixer_norm(values, at=width), state, width)
        x = values + self._dropped(mixed)
        z = self.gate_norm(x, at=width)
        inner = F.silu(self.gate(z, at=width)) * self._dropped(self.up(z, at=width))
        return x + self._dropped(self.down(inner, at=width)), states

    def flops(self, at: At = None) -> float:
        """Multiply-adds for one event."""
        g = self.nesting.resolve(at)
        return self.mixer.flops(g) + sum(layer.flops(g) for layer in (self.gate, self.up, self.down))

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        g = self.nesting.resolve(at)
        return {"mixer": {"kind": self.mixer.kind, **self.mixer.arguments(g)}, "dropout": self.dropout}

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """See :class:`Part`."""
        with torch.device("meta"):
            return cls(cast(Mixer, part_from(arguments["mixer"])), arguments["dropout"])

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        g = self.nesting.resolve(at)
        return {
            f"{name}.{key}": weight
            for name in _LAYERS
            for key, weight in getattr(self, name).weights(g).items()
        }

    def _dropped(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class SequenceStack(Mixer):
    """Blocks in a row. The state holds that of each block, entry by entry, so that its prefixes are states.

    Args:
        blocks: of the same widths, with states of one kind.

    Raises:
        ConfigError: for no blocks, or blocks of different widths or states.
    """

    kind = "sequence_stack"

    def __init__(self, blocks: Sequence[Mixer]) -> None:
        if not blocks:
            raise ConfigError("blocks is empty; give at least one block")
        kinds = {(block.sizes, block.state_dtype, block.state_width(block.sizes[0])) for block in blocks}
        if len(kinds) > 1:
            raise ConfigError("the blocks must have the same widths and mixers with states of one kind")
        super().__init__(blocks[0].sizes)
        self.blocks = nn.ModuleList(blocks)

    @property
    def state_dtype(self) -> torch.dtype:
        """That of the blocks."""
        return self._block(0).state_dtype

    def state_width(self, width: int) -> int:
        """The sum of those of the blocks."""
        return len(self.blocks) * self._block(0).state_width(width)

    def sequence(self, values: Tensor, state: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """See :class:`Mixer`."""
        before, after = state.reshape(len(state), -1, len(self.blocks)), []
        for number in range(len(self.blocks)):
            values, states = self._block(number).sequence(values, before[..., number], width)
            after.append(states)
        return values, torch.stack(after, dim=-1).flatten(-2)

    def flops(self, at: At = None) -> float:
        """Multiply-adds for one event."""
        return sum(self._block(number).flops(at) for number in range(len(self.blocks)))

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        g, blocks = self.nesting.resolve(at), [self._block(number) for number in range(len(self.blocks))]
        return {"blocks": [{"kind": block.kind, **block.arguments(g)} for block in blocks]}

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """See :class:`Part`."""
        return cls([cast(Mixer, part_from(each)) for each in arguments["blocks"]])

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        g = self.nesting.resolve(at)
        return {
            f"blocks.{number}.{key}": weight
            for number in range(len(self.blocks))
            for key, weight in self._block(number).weights(g).items()
        }

    def _block(self, number: int) -> Mixer:
        return cast(Mixer, self.blocks[number])
