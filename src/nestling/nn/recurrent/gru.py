"""Nested gated recurrent units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from nestling.errors import ConfigError
from nestling.granularity import At
from nestling.nn.recurrent.mixer import Mixer
from nestling.nn.width.linear import NestedLinear

_GATES = 3


class NestedGRU(Mixer):
    """A GRU whose matrices are block lower triangular, so that leading units read leading units alone.

    The gates of a unit stand side by side in the weights, so both matrices are nested maps that scale up by
    3. The state is the last output, in float32 or wider.

    Args:
        sizes: widths, increasing.

    Raises:
        GranularityError: for widths that do not increase.

    >>> mixer = NestedGRU([8, 16])
    >>> mixer(torch.zeros(2, 5, 16), at=8).values.shape
    torch.Size([2, 5, 8])
    """

    kind = "nested_gru"

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__(sizes)
        gates = [_GATES * size for size in self.sizes]
        self.inward = NestedLinear(self.sizes, gates)
        self.hidden = NestedLinear(self.sizes, gates)

    @classmethod
    def from_dense(cls, gru: nn.GRU, sizes: Sequence[int]) -> Self:
        """A trained GRU of one layer without the weights from later units to earlier ones.

        Raises:
            ConfigError: for several layers or directions, no biases, or other widths.
        """
        width = gru.hidden_size
        if gru.num_layers != 1 or gru.bidirectional or not gru.bias or gru.input_size != width:
            raise ConfigError("the GRU must have one layer, one direction, biases, and inputs of its width")
        made = cls.from_arguments({"sizes": list(sizes)})
        for name, part in (("ih", "inward"), ("hh", "hidden")):
            linear = nn.Linear(width, _GATES * width, device="meta")
            linear.weight = nn.Parameter(_side_by_side(getattr(gru, f"weight_{name}_l0")))
            linear.bias = nn.Parameter(_side_by_side(getattr(gru, f"bias_{name}_l0")))
            nested = NestedLinear.from_dense(linear, made.sizes, [_GATES * size for size in made.sizes])
            setattr(made, part, nested)
        return made.train(gru.training)

    def state_width(self, width: int) -> int:
        """The width."""
        return width

    def sequence(self, values: Tensor, state: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """See :class:`Mixer`."""
        weights = [_gate_by_gate(part.dense_weight(width)) for part in (self.inward, self.hidden)]
        biases = [_gate_by_gate(part.weights(width)["bias"]) for part in (self.inward, self.hidden)]
        flat = [weight.to(state.dtype) for weight in (*weights, *biases)]
        with torch.autocast(values.device.type, enabled=False):
            found, _ = torch.gru(
                values.to(state.dtype), state[None], flat, True, 1, 0.0, self.training, False, True
            )
        return found.to(values.dtype), found

    def flops(self, at: At = None) -> float:
        """Multiply-adds of the two maps for one event."""
        return self.inward.flops(at) + self.hidden.flops(at)

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        return {
            f"{name}.{key}": weight
            for name, part in (("inward", self.inward), ("hidden", self.hidden))
            for key, weight in part.weights(self.nesting.resolve(at)).items()
        }


def _gate_by_gate(weight: Tensor) -> Tensor:
    """Rows unit by unit, ordered gate by gate as torch's GRU has them."""
    return weight.reshape(-1, _GATES, *weight.shape[1:]).transpose(0, 1).flatten(0, 1)


def _side_by_side(weight: Tensor) -> Tensor:
    """The inverse of :func:`_gate_by_gate`."""
    return weight.detach().reshape(_GATES, -1, *weight.shape[1:]).transpose(0, 1).flatten(0, 1)
