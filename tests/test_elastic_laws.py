"""Each law finds the thing that breaks it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nestling.cut import cut
from nestling.elastic import Cost, Elastic, resolve_each
from nestling.granularity import At, Granularity, Nesting
from nestling.storage.artifact import read_folder, write_folder
from nestling.testing import LawError, check_elastic


class Honest(nn.Module):
    """A linear map whose leading outputs can be used alone."""

    def __init__(self, nesting: Nesting, inner: nn.Linear) -> None:
        super().__init__()
        self.nesting, self.inner = nesting, inner

    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        dim = self.nesting.resolve(at)["dim"]
        return cut(nn.functional.linear(x, self.inner.weight[:dim]), dim)

    def forward_each(
        self, x: Tensor, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        y = self.inner(x)
        return {g: cut(y, g["dim"]) for g in resolve_each(self.nesting, granularities)}

    def extract(self, at: At) -> Honest:
        g = self.nesting.resolve(at)
        with torch.device("meta"):
            inner = nn.Linear(self.inner.in_features, g["dim"], bias=False)
        inner.load_state_dict({"weight": self.inner.weight[: g["dim"]].detach().clone()}, assign=True)
        return type(self)(self.nesting.up_to(g), inner)

    def cost(self, at: At = None) -> Cost:
        dim = self.nesting.resolve(at)["dim"]
        return Cost(dim * self.inner.in_features, dim * self.inner.in_features, 4 * dim, 4 * dim)

    def save(self, folder: str | Path, /) -> None:
        with write_folder(folder, "honest", nesting=self.nesting) as path:
            np.save(path / "weight.npy", self.inner.weight.detach().numpy())

    @classmethod
    def load(cls, folder: str | Path, /) -> Honest:
        nesting = read_folder(folder, "honest").read_nesting()
        weight = torch.from_numpy(np.load(Path(folder) / "weight.npy", allow_pickle=False))
        with torch.device("meta"):
            inner = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        inner.load_state_dict({"weight": weight}, assign=True)
        return cls(nesting, inner)


class NotSmaller(Honest):
    def cost(self, at: At = None) -> Cost:
        return Cost(parameters=10)


class ExtractsAnother(Honest):
    def extract(self, at: At) -> Honest:
        small = super().extract(at)
        with torch.no_grad():
            small.inner.weight.neg_()
        return small


class KeepsNesting(Honest):
    def extract(self, at: At) -> Honest:
        small = super().extract(at)
        small.nesting = self.nesting
        return small


class NotFull(Honest):
    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        return super().forward(x, at=at) if at is not None else super().forward(x) + 1

    def extract(self, at: At) -> Honest:
        return Honest(self.nesting, self.inner).extract(at)


class WorksTwice(Honest):
    def forward_each(
        self, x: Tensor, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        return {g: cut(self.inner(x), g["dim"]) for g in resolve_each(self.nesting, granularities)}


class WrongTogether(Honest):
    def forward_each(
        self, x: Tensor, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        return {g: y * 2 for g, y in super().forward_each(x, granularities).items()}


class CheaperInFull(Honest):
    def cost(self, at: At = None) -> Cost:
        cost = super().cost(at)
        return Cost(1000 - cost.flops, cost.parameters, cost.size_bytes, cost.output_bytes)


class Masks(Honest):
    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        return cut(self.inner(x), self.nesting.resolve(at)["dim"])


class Forgets(Honest):
    @classmethod
    def load(cls, folder: str | Path, /) -> Honest:
        thing = super().load(folder)
        with torch.no_grad():
            thing.inner.weight.mul_(-1)
        return thing


class AcceptsAll(Honest):
    def cost(self, at: At = None) -> Cost:
        try:
            return super().cost(at)
        except ValueError:
            return super().cost()


class ChangesInput(Honest):
    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        y = super().forward(x, at=at)
        x.add_(1e-9)
        return y


class ChangesWeights(Honest):
    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        with torch.no_grad():
            self.inner.weight[0, 0] += 1e-7
        return super().forward(x, at=at)


class RollsDice(Honest):
    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        torch.rand(1)
        return super().forward(x, at=at)


def make(kind: type[Honest]) -> Any:
    generator = torch.Generator().manual_seed(0)
    inner = nn.Linear(6, 8, bias=False)
    with torch.no_grad():
        inner.weight.copy_(torch.randn(8, 6, generator=generator))
    return kind(Nesting.parse("dim=2,4,8"), inner)


def example() -> Tensor:
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1))


def test_an_honest_thing_passes() -> None:
    thing = make(Honest)
    assert isinstance(thing, Elastic)
    check_elastic(thing, example())


@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (NotSmaller, "extraction"),
        (ExtractsAnother, "extraction"),
        (KeepsNesting, "extraction"),
        (NotFull, "extraction|fullness"),
        (WorksTwice, "sharing"),
        (WrongTogether, "sharing"),
        (CheaperInFull, "order"),
        (Masks, "order"),
        (Forgets, "round trip"),
        (AcceptsAll, "refusal"),
        (ChangesInput, "innocence"),
        (ChangesWeights, "innocence"),
        (RollsDice, "innocence"),
    ],
)
def test_a_broken_thing_is_found_by_its_law(kind: type[Honest], law: str) -> None:
    with pytest.raises(LawError, match=f"^({law}): "):
        check_elastic(make(kind), example())


def test_what_is_missing_is_named() -> None:
    with pytest.raises(LawError, match="it lacks nesting, forward_each, extract"):
        check_elastic(lambda x, at=None: x, example())


def test_methods_that_the_caller_names_are_counted() -> None:
    class Plain:
        """A thing of numpy whose common work is its method ``project``."""

        def __init__(self, inner: Honest, times: int) -> None:
            self.inner, self.times, self.nesting = inner, times, inner.nesting

        def project(self, x: Tensor) -> Tensor:
            return x

        def __call__(self, x: Tensor, /, at: At = None) -> Tensor:
            return self.inner(self.project(x), at=at).detach()

        def forward_each(self, x: Tensor, /, granularities: Iterable[At] | None = None) -> Any:
            for _ in range(self.times):
                self.project(x)
            return self.inner.forward_each(x, granularities)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

    honest, wasteful = Plain(make(Honest), 1), Plain(make(Honest), 2)
    check_elastic(honest, example(), counted=[(honest, "project")], load=Honest.load)
    with pytest.raises(LawError, match="sharing: forward_each calls project 2 times"):
        check_elastic(wasteful, example(), counted=[(wasteful, "project")], load=Honest.load)
