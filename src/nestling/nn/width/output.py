"""A map from a nested width to an embedding that is cut further, on ``dim``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.cut import RAW, cut
from nestling.elastic import resolve_each
from nestling.errors import ConfigError
from nestling.granularity import AnyNesting, At, Granularity, Nesting
from nestling.nn.part import ElasticPart
from nestling.nn.width.width_part import leading_entries


class NestedOutput(ElasticPart):
    """A linear map of the first ``width`` inputs to the first ``dim`` outputs, for any pair of both.

    It follows layers that are nested on ``width``, such as a rotation to principal axes, which are no
    leading entries of one another.

    Args:
        nesting: sizes on the axes ``width`` and ``dim``.
        bias: add a bias.

    Raises:
        GranularityError: for a nesting on other axes.

    >>> output = NestedOutput("width=8,16 x dim=2,4")
    >>> output(torch.zeros(5, 16), at="width=8,dim=2").shape
    torch.Size([5, 2])
    """

    kind = "nested_output"

    def __init__(self, nesting: AnyNesting, *, bias: bool = True) -> None:
        super().__init__()
        axes = ("width", "dim")
        self.nesting = Nesting.of(nesting).within("a nested output", needs=axes, width=None, dim=None)
        full = self.nesting.full
        self.linear = nn.Linear(full["width"], full["dim"], bias=bias)

    @classmethod
    def from_dense(cls, linear: nn.Linear, nesting: AnyNesting) -> Self:
        """The weights of a trained layer.

        Raises:
            ConfigError: if the full sizes are not those of the layer.
        """
        with torch.device("meta"):
            made = cls(nesting, bias=linear.bias is not None)
        full = made.nesting.full
        if (full["width"], full["dim"]) != (linear.in_features, linear.out_features):
            raise ConfigError(
                f"the layer maps {linear.in_features} entries to {linear.out_features}, but the full "
                f"granularity is {full}; end the nesting at those sizes"
            )
        state = {f"linear.{name}": weight.clone() for name, weight in linear.state_dict().items()}
        made.load_state_dict(state, assign=True)
        return made.train(linear.training)

    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        """The output ``Float[..., dim]`` at one granularity, of an input of full width or cut already."""
        g = self.nesting.resolve(at)
        kept = self.weights(g)
        x = leading_entries(x, g["width"], "a nested output")
        return F.linear(x, kept["linear.weight"], kept.get("linear.bias"))

    def forward_each(
        self, x: Tensor, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """The outputs at several granularities: running sums over the widths, cut on ``dim``."""
        wanted = resolve_each(self.nesting, granularities)
        widths, dim = sorted({g["width"] for g in wanted}), max(g["dim"] for g in wanted)
        x = leading_entries(x, widths[-1], "a nested output")
        sums: dict[int, Tensor] = {}
        total, start, bias = None, 0, self.linear.bias
        for width in widths:
            product = F.linear(x[..., start:width], self.linear.weight[:dim, start:width])
            total = product if total is None else total + product
            sums[width], start = total if bias is None else total + bias[:dim], width
        return {g: cut(sums[g["width"]], g["dim"], RAW) for g in wanted}

    def out_width(self, at: At = None) -> int:
        """Entries of the output."""
        return self.nesting.resolve(at)["dim"]

    def output_bytes(self, at: Granularity) -> int:
        """Bytes of the output of one row."""
        return 4 * at["dim"]

    def flops(self, at: At = None) -> float:
        """Multiply-adds for one row."""
        g = self.nesting.resolve(at)
        return float(g["width"] * g["dim"])

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        kept = self.nesting.up_to(self.nesting.resolve(at))
        return {"nesting": str(kept), "bias": self.linear.bias is not None}

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        g = self.nesting.resolve(at)
        kept: dict[str, Tensor] = {"linear.weight": self.linear.weight[: g["dim"], : g["width"]]}
        if self.linear.bias is not None:
            kept["linear.bias"] = self.linear.bias[: g["dim"]]
        return kept
