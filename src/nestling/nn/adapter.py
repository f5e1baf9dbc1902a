"""A learned map of vectors that can compute its leading outputs alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Whole, checked
from nestling.arguments.paths import home_path
from nestling.cut import RAW, cut_each
from nestling.elastic import Cost, resolve_each
from nestling.errors import DataError
from nestling.granularity import AnyNesting, At, Granularity, Nesting
from nestling.storage.artifact import read_folder, write_folder

_KIND = "adapter"
_WEIGHTS = "model.safetensors"
_CUT = {"linear.weight", "correction.weight"}


class AffineLayer(NamedTuple):
    """``activation(x @ weight.T + bias)``, as a stock Dense of sentence-transformers computes it."""

    weight: Tensor
    bias: Tensor | None
    activation: nn.Module | None


class Adapter(nn.Module):
    """``W x``, or ``W x + V gelu(U x + b)`` with a hidden layer; cut by using the leading rows alone.

    ``V`` starts at zero, so the module starts as the linear map.

    Args:
        nesting: sizes on the axis ``dim``; the full one is the width of the output.
        input_dim: width of the input.
        hidden: width of the hidden layer; None for a linear map.

    Raises:
        GranularityError: for a nesting on other axes.
        ConfigError: for widths below 1.

    >>> adapter = Adapter(Nesting.parse("dim=2,4"), input_dim=6)
    >>> adapter(torch.zeros(5, 6), at="dim=2").shape
    torch.Size([5, 2])
    """

    @checked(input_dim=Whole(1), hidden=Whole(1) | None)
    def __init__(self, nesting: AnyNesting, input_dim: int, *, hidden: int | None = None) -> None:
        super().__init__()
        nesting = Nesting.of(nesting).within("an adapter", dim=None)
        self.nesting, self.input_dim, self.hidden_dim = nesting, input_dim, hidden
        full = nesting.full["dim"]
        self.linear = nn.Linear(input_dim, full, bias=False)
        self.hidden = None if hidden is None else nn.Linear(input_dim, hidden)
        self.correction = None if hidden is None else nn.Linear(hidden, full, bias=False)
        if self.correction is not None:
            nn.init.zeros_(self.correction.weight)

    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        """``Float[..., dim]`` of ``Float[..., input_dim]``; rows beyond ``dim`` are not multiplied."""
        return self._leading(x, self.nesting.resolve(at)["dim"])

    def forward_each(
        self, x: Tensor, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """The outputs at several sizes, cut from those at the largest of them."""
        wanted = resolve_each(self.nesting, granularities)
        dims = [g["dim"] for g in wanted]
        found = cut_each(self._leading(x, max(dims)), dims, RAW)
        return {g: found[g["dim"]] for g in wanted}

    def extract(self, at: At) -> Adapter:
        """The adapter that computes only the leading outputs."""
        granularity = self.nesting.resolve(at)
        state = self.state_dict()
        for name in _CUT & state.keys():
            state[name] = state[name][: granularity["dim"]]
        with torch.device("meta"):
            small = Adapter(self.nesting.up_to(granularity), self.input_dim, hidden=self.hidden_dim)
        small.load_state_dict({name: value.clone() for name, value in state.items()}, assign=True)
        return small.train(self.training)

    def cost(self, at: At = None) -> Cost:
        """Cost of one row at one size; the weights are those that this size reads."""
        dim = self.nesting.resolve(at)["dim"]
        products = dim * self.input_dim
        if self.hidden_dim is not None:
            products += self.hidden_dim * (self.input_dim + dim)
        parameters = products + (self.hidden_dim or 0)
        width = self.linear.weight.element_size()
        return Cost(products, parameters, parameters * width, dim * width)

    def affine_layers(self) -> list[AffineLayer]:
        """The same map as a chain of plain layers, for runtimes without residual connections.

        With a hidden layer the input also passes through the activation, since
        ``gelu(x) - gelu(-x) = x``; the chain has ``2 * input_dim`` more hidden units.
        """
        if self.hidden is None or self.correction is None:
            return [AffineLayer(self.linear.weight.detach(), None, None)]
        identity = torch.eye(self.input_dim).to(self.linear.weight)
        up = torch.cat([self.hidden.weight, identity, -identity])
        bias = F.pad(self.hidden.bias, (0, 2 * self.input_dim))
        down = torch.cat([self.correction.weight, self.linear.weight, -self.linear.weight], dim=1)
        return [
            AffineLayer(up.detach(), bias.detach(), nn.GELU()),
            AffineLayer(down.detach(), None, None),
        ]

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder."""
        settings = {"input_dim": self.input_dim, "hidden": self.hidden_dim}
        with write_folder(folder, _KIND, nesting=self.nesting, rule=RAW, settings=settings) as path:
            save_file({name: w.contiguous().cpu() for name, w in self.state_dict().items()}, path / _WEIGHTS)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what ``save`` wrote."""
        manifest = read_folder(folder, _KIND)
        with torch.device("meta"):
            adapter = cls(manifest.read_nesting(), **manifest.settings)
        adapter.load_state_dict(load_file(home_path(folder) / _WEIGHTS), assign=True)
        return adapter

    def _leading(self, x: Tensor, dim: int) -> Tensor:
        if x.ndim < 1 or x.shape[-1] != self.input_dim:
            raise DataError(
                f"the adapter takes vectors of {self.input_dim} entries, not of shape {tuple(x.shape)}"
            )
        y = F.linear(x, self.linear.weight[:dim])
        if self.hidden is None or self.correction is None:
            return y
        return y + F.linear(F.gelu(self.hidden(x)), self.correction.weight[:dim])
