"""Classification heads over nested prefixes of a feature vector."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Self, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Whole, checked
from nestling.arguments.paths import home_path
from nestling.cut import RAW, cut
from nestling.elastic import Cost, resolve_each
from nestling.errors import DataError
from nestling.granularity import AnyNesting, At, Granularity, Nesting
from nestling.storage.artifact import read_folder, write_folder

_WEIGHTS = "model.safetensors"


class NestedClassifier(nn.Module):
    """Logits from any nested prefix of the features, one matrix per size (MRL) or one for all (MRL-E).

    Args:
        nesting: sizes on the axis ``dim``; the full one is the width of the features.
        num_classes: at least 2.
        tied: one matrix, whose leading columns serve the smaller sizes (MRL-E): ``num_classes * dim``
            weights; one matrix per size has about twice as many.
        bias: add a bias (with ``tied`` the same at every size).

    Raises:
        GranularityError: for a nesting on other axes.
        ConfigError: for fewer than two classes.

    Source: MRL, arXiv 2205.13147, section 3 and equation 1. With a nesting of one size this is the
    ordinary classifier, the paper's fixed-feature baseline.

    >>> head = NestedClassifier(Nesting.parse("dim=2,4"), num_classes=3)
    >>> head(torch.zeros(5, 4), at="dim=2").shape
    torch.Size([5, 3])
    """

    @checked(num_classes=Whole(2))
    def __init__(
        self, nesting: AnyNesting, num_classes: int, *, tied: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        nesting = Nesting.of(nesting).within("a classification head", dim=None)
        self.nesting, self.num_classes, self.tied = nesting, num_classes, tied
        dims = nesting.sizes("dim")
        self.linears = nn.ModuleList(
            nn.Linear(dim, num_classes, bias=bias) for dim in (dims[-1:] if tied else dims)
        )

    def forward(self, features: Tensor, /, at: At = None) -> Tensor:
        """Logits ``Float[batch, classes]`` of ``Float[batch, dim]``, of full width or cut already."""
        granularity = self.nesting.resolve(at)
        dim = granularity["dim"]
        prefix = cut(self._checked(features, dim), dim, RAW)
        linear = self.linear(granularity)
        return F.linear(prefix, linear.weight[:, :dim], linear.bias)

    def forward_each(
        self, features: Tensor, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        """Logits at several sizes; tied ones are running sums over the blocks of one product."""
        wanted = resolve_each(self.nesting, granularities)
        if not self.tied:
            return {g: self(features, at=g) for g in wanted}
        linear = self.linear()
        features = self._checked(features, max(g["dim"] for g in wanted))
        logits, start, found = self._start(features, linear), 0, {}
        for g in sorted(set(wanted), key=lambda g: g["dim"]):
            block = slice(start, g["dim"])
            logits = logits + features[:, block] @ linear.weight[:, block].T
            found[g], start = logits, g["dim"]
        return {g: found[g] for g in wanted}

    def extract(self, at: At) -> NestedClassifier:
        """The ordinary classifier of one size."""
        granularity = self.nesting.resolve(at)
        linear, dim = self.linear(granularity), granularity["dim"]
        state = {"linears.0.weight": linear.weight[:, :dim]}
        if linear.bias is not None:
            state["linears.0.bias"] = linear.bias
        # Built on the meta device: initial weights would use the global random state for nothing.
        with torch.device("meta"):
            small = NestedClassifier(
                Nesting((granularity,)), self.num_classes, tied=self.tied, bias=linear.bias is not None
            )
        small.load_state_dict({name: value.detach().clone() for name, value in state.items()}, assign=True)
        return small.train(self.training)

    def cost(self, at: At = None) -> Cost:
        """Cost of one row of features at one size; the weights are those that this size reads."""
        linear, dim = self.linear(at), self.nesting.resolve(at)["dim"]
        parameters = self.num_classes * (dim + (linear.bias is not None))
        width = linear.weight.element_size()
        return Cost(self.num_classes * dim, parameters, parameters * width, self.num_classes * width)

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder."""
        settings = {
            "num_classes": self.num_classes,
            "tied": self.tied,
            "bias": self.linears[0].bias is not None,
        }
        with write_folder(folder, "classifier", nesting=self.nesting, rule=RAW, settings=settings) as path:
            save_file(
                {name: value.contiguous() for name, value in self.state_dict().items()}, path / _WEIGHTS
            )

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what ``save`` wrote."""
        manifest = read_folder(folder, "classifier")
        with torch.device("meta"):
            head = cls(manifest.read_nesting(), **manifest.settings)
        head.load_state_dict(load_file(home_path(folder) / _WEIGHTS), assign=True)
        return head

    def linear(self, at: At = None) -> nn.Linear:
        """The matrix of a size (with ``tied`` the same for all)."""
        layer = self.linears[0 if self.tied else self.nesting.index(self.nesting.resolve(at))]
        return cast("nn.Linear", layer)

    def _start(self, features: Tensor, linear: nn.Linear) -> Tensor:
        start = features.new_zeros(len(features), self.num_classes)
        return start if linear.bias is None else start + linear.bias

    def _checked(self, features: Tensor, dim: int) -> Tensor:
        if features.ndim != 2 or features.shape[1] < dim:
            raise DataError(
                f"the head needs features of shape [batch, {dim} or more], not {tuple(features.shape)}"
            )
        return features
