"""An axis that the library has never heard of needs no line of it: laws, nested loss, sweep and choice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.cut import RAW, CutRule, cut
from nestling.elastic import Cost, resolve_each
from nestling.errors import ConfigError, GranularityError
from nestling.granularity import At, Granularity, Nesting
from nestling.losses import AlignScores, AlignVectors, GradientCache, InfoNCE, Nested
from nestling.losses.nested import Views
from nestling.measure.curve.curve import Curve
from nestling.measure.sweep import sweep
from nestling.measure.tasks.tasks import Retrieval
from nestling.schedules import Cross, RandomSome, Sandwich, Schedule
from nestling.storage.artifact import read_folder, write_folder
from nestling.testing import check_elastic
from nestling.training import TrainConfig, fit

IN_DIM, WIDTH, EXPERTS = 6, 8, 4
GRID = Nesting.parse("experts=1,2,4 x dim=2,4,8")
PAIRS = Nesting.parse("experts=1,2,4 zip dim=2,4,8")
ALONE = Nesting.parse("experts=1,2,4")


class Mixture(nn.Module):
    """The mean of the first experts, each a linear map, of whose outputs the first entries are used."""

    rule = CutRule()

    def __init__(self, nesting: Nesting, weights: Tensor) -> None:
        super().__init__()
        self.nesting = nesting.within("a mixture", needs=("experts",), experts=None, dim=WIDTH)
        self.weights = nn.Parameter(weights)  # Float[experts, width, in_dim]

    def forward(self, x: Tensor, /, at: At = None) -> Tensor:
        return next(iter(self.forward_each(x, [at]).values()))

    def forward_each(
        self, x: Tensor, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tensor]:
        wanted = resolve_each(self.nesting, granularities)
        dims = [g.get("dim", self.weights.shape[1]) for g in wanted]
        views = self._mean(x, [g.rest for g in wanted], max(dims))
        return {g: cut(views[g.rest], dim, self.rule) for g, dim in zip(wanted, dims, strict=True)}

    def views(self, x: Tensor, rests: Iterable[Granularity]) -> dict[Granularity, Tensor]:
        return self._mean(x, list(rests), self.weights.shape[1])

    def _mean(self, x: Tensor, rests: Sequence[Granularity], dim: int) -> dict[Granularity, Tensor]:
        most = max(rest["experts"] for rest in rests)
        sums = torch.stack([x @ self.weights[i, :dim].T for i in range(most)]).cumsum(dim=0)
        return {rest: sums[rest["experts"] - 1] / rest["experts"] for rest in rests}

    def extract(self, at: At) -> Mixture:
        g = self.nesting.resolve(at)
        kept = self.weights[: g["experts"], : g.get("dim", self.weights.shape[1])]
        return Mixture(self.nesting.up_to(g), kept.detach().clone())

    def cost(self, at: At = None) -> Cost:
        g = self.nesting.resolve(at)
        dim = g.get("dim", self.weights.shape[1])
        parameters = g["experts"] * dim * self.weights.shape[2]
        return Cost(parameters, parameters, 4 * parameters, 4 * dim)

    def save(self, folder: str | Path, /) -> None:
        with write_folder(folder, "mixture", nesting=self.nesting, rule=self.rule) as path:
            save_file({"weights": self.weights.detach()}, path / "weights.safetensors")

    @classmethod
    def load(cls, folder: str | Path, /) -> Mixture:
        nesting = read_folder(folder, "mixture").read_nesting()
        return cls(nesting, load_file(Path(folder) / "weights.safetensors")["weights"])


def mixture(nesting: Nesting = GRID, seed: int = 0) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    return Mixture(nesting, torch.randn(EXPERTS, WIDTH, IN_DIM, generator=generator))


def inputs(rows: int = 16, seed: int = 1) -> Tensor:
    return torch.randn(rows, IN_DIM, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("nesting", [GRID, PAIRS, ALONE], ids=str)
def test_it_keeps_the_laws(nesting: Nesting) -> None:
    check_elastic(mixture(nesting), inputs())


@pytest.mark.parametrize("nesting", [GRID, PAIRS, ALONE], ids=str)
@pytest.mark.parametrize("fast", [False, True])
def test_a_nested_loss_is_the_plain_sum_over_its_granularities(nesting: Nesting, fast: bool) -> None:
    model, loss = mixture(nesting).double(), InfoNCE().double()
    columns = [inputs(seed=seed).double() for seed in (1, 2)]
    views = [model.views(x, nesting.rests) for x in columns]
    parts = Nested(loss, nesting, fast=fast, align=AlignScores()).parts(*views)
    for g in nesting:
        torch.testing.assert_close(parts.losses[g], loss(*(model(x, at=g) for x in columns)).detach())

    def scores(g: Granularity) -> Tensor:
        return (model(columns[0], at=g) @ model(columns[1], at=g).T / 0.05).log_softmax(dim=1)

    teacher = scores(nesting.full).detach()
    align = sum(
        F.kl_div(scores(g), teacher, log_target=True, reduction="batchmean") for g in list(nesting)[:-1]
    )
    torch.testing.assert_close(parts.terms["align"], torch.as_tensor(align).detach())
    total = align + sum(loss(*(model(x, at=g) for x in columns)) for g in nesting)
    torch.testing.assert_close(parts.total, total)
    (found,), (wanted,) = (torch.autograd.grad(each, [model.weights]) for each in (parts.total, total))
    torch.testing.assert_close(found, wanted)


def test_vectors_are_aligned_along_any_axis() -> None:
    views = mixture(ALONE).views(inputs(), ALONE.rests)
    loss = Nested(InfoNCE(), ALONE, align=AlignVectors(whole=True))
    assert float(loss.parts(views, views).terms["align"]) > 0


def test_documents_can_be_taken_from_all_experts() -> None:
    model = mixture()
    queries, documents = (model.views(inputs(seed=seed), GRID.rests) for seed in (1, 2))
    parts = Nested(InfoNCE(), GRID, deep_documents=True).parts(queries, documents)
    full = documents[GRID.full.rest]
    for g in GRID:
        wanted = InfoNCE()(cut(queries[g.rest], g["dim"], RAW), cut(full, g["dim"], RAW))
        torch.testing.assert_close(parts.losses[g], wanted.detach())


def test_gradient_caching_gives_the_same_gradient() -> None:
    model, loss = mixture().double(), Nested(InfoNCE().double(), GRID)
    columns = [inputs(seed=seed).double() for seed in (1, 2)]
    plain = loss(*(model.views(x, GRID.rests) for x in columns))
    (wanted,) = torch.autograd.grad(plain, [model.weights])
    cached = GradientCache(partial(model.views, rests=GRID.rests), loss, chunk_size=3)(*columns)
    cached.backward()
    torch.testing.assert_close(cached, plain)
    torch.testing.assert_close(model.weights.grad, wanted)


def retrieval(rows: int = 200) -> Retrieval:
    noise = np.random.default_rng(0).normal(size=(rows, IN_DIM)).astype(np.float32)
    documents = np.random.default_rng(1).normal(size=(rows, IN_DIM)).astype(np.float32)
    return Retrieval(documents + 0.4 * noise, documents, range(rows))


def curve_of(model: Mixture, nesting: str | None = None) -> Curve:
    return sweep(_Encoding(model), retrieval(), nesting, bits=32, resamples=50)


class _Encoding:
    """The mixture over arrays, as an encoder has it."""

    def __init__(self, model: Mixture) -> None:
        self.model, self.nesting, self.rule, self.cost = model, model.nesting, model.rule, model.cost

    def encode_each(self, x: Any, granularities: Iterable[At] | None = None, **_: Any) -> dict[Any, Any]:
        with torch.no_grad():
            found = self.model.forward_each(torch.as_tensor(np.asarray(x)), granularities)
        return {g: vectors.numpy() for g, vectors in found.items()}

    forward_each = encode_each

    def __call__(self, x: Any, at: At = None) -> Any:
        return next(iter(self.encode_each(x, [at]).values()))


def test_its_cost_can_be_chosen_by_measuring(tmp_path: Path) -> None:
    curve = curve_of(mixture())
    assert curve.nesting == GRID
    values = {row.granularity: row.value for row in curve.rows if row.metric == curve.metrics[0]}
    for g in GRID:
        by_hand = sweep(lambda vectors: vectors, _encoded(g), [g["dim"]], rule=RAW, resamples=5)
        assert values[g] == pytest.approx(by_hand.rows[0].value)
    chosen = curve.choose(keep=0.9)
    assert values[chosen] >= 0.9 * values[GRID.full]
    assert chosen < GRID.full
    curve.plot(tmp_path / "curve.png")
    curve.heatmap(tmp_path / "grid.png")
    curve.to_html(tmp_path / "report.html")
    curve.save(tmp_path / "curve.json")
    assert Curve.load(tmp_path / "curve.json").rows == curve.rows
    assert "experts=2" in curve.table()


def _encoded(g: Granularity) -> Retrieval:
    """The same data as the vectors of one granularity."""
    model = _Encoding(mixture())
    queries, documents = (model(x, at=g) for x in retrieval().inputs.values())
    return Retrieval(queries, documents, range(len(documents)))


def test_sizes_in_between_are_cut_from_the_same_experts() -> None:
    curve = curve_of(mixture(), "experts=1,2,4 x dim=2,3,8")
    assert {g["dim"] for g in curve.nesting} == {2, 3, 8}
    with pytest.raises(GranularityError, match="nearest"):
        curve_of(mixture(), "experts=1,3 x dim=2,8")


@pytest.mark.parametrize(
    ("nesting", "sizes"), [("dim=2,3,8", "experts=4 x dim=2,3,8"), ("experts=1,4", "experts=1,4 x dim=8")]
)
def test_an_axis_that_is_not_named_is_measured_in_full(nesting: str, sizes: str) -> None:
    part, named = curve_of(mixture(), nesting), curve_of(mixture(), sizes)
    assert part.nesting == Nesting.parse(nesting)
    figures = [
        [(row.value, row.flops, row.vector_bytes, row.model_bytes) for row in curve.rows]
        for curve in (part, named)
    ]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("schedule", [RandomSome(1), Sandwich(1), Cross()], ids=str)
def test_it_is_trained_by_the_usual_loop(schedule: Schedule) -> None:
    model = mixture()
    before = whole_loss(model)
    loss = Nested(InfoNCE(), GRID, schedule=schedule)
    rows = list(zip(inputs(64), inputs(64), strict=True))

    class Objective(nn.Module):
        def forward(self, of: Mixture, batch: list[tuple[Tensor, Tensor]]) -> Any:
            queries, documents = map(torch.stack, zip(*batch, strict=True))
            return loss.parts(of.views(queries, GRID.rests), of.views(documents, GRID.rests))

    fit(model, Objective(), rows, TrainConfig(epochs=10, batch_size=16, lr=0.02), collate=list)
    assert whole_loss(model) < 0.9 * before


def whole_loss(model: Mixture) -> float:
    views = model.views(inputs(64), GRID.rests)
    return float(Nested(InfoNCE(), GRID)(views, views).detach())


def test_what_cannot_be_is_refused_by_name() -> None:
    views: Views = mixture().views(inputs(), GRID.rests)
    with pytest.raises(GranularityError, match=r"at experts=1; experts=2; experts=4, .* at full only"):
        Nested(InfoNCE(), GRID)(inputs(), inputs())
    with pytest.raises(GranularityError, match="a mixture has the axes experts and dim, not layer"):
        mixture(Nesting.parse("layer=1,2 x dim=2,8"))
    with pytest.raises(GranularityError, match="add experts, in full"):
        mixture(Nesting.parse("dim=2,8"))
    with pytest.raises(GranularityError, match="goes up to dim=16, but a mixture has 8; end it at 8"):
        mixture(Nesting.parse("experts=1,2 x dim=2,16"))
    with pytest.raises(ConfigError, match="another axis besides dim"):
        Nested(InfoNCE(), Nesting.parse("dim=2,8"), deep_documents=True)
    with pytest.raises(GranularityError, match="needs embeddings of 16 dims"):
        Nested(InfoNCE(), Nesting.parse("experts=1,2 x dim=2,16"))(views, views)
