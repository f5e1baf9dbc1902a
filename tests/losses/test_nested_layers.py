"""Nested losses over layers and dims: against plain loops in float64, alignment, draws, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional as F

from nestling.cut import RAW, CutRule
from nestling.errors import ConfigError, DataError, GranularityError
from nestling.granularity import Granularity, Nesting
from nestling.losses import (
    AlignScores,
    AlignVectors,
    AnglE,
    Compress,
    CoSENT,
    GradientCache,
    InfoNCE,
    Nested,
)
from nestling.losses.nested import Views
from nestling.schedules import Cross
from samples import examples

BATCH, LAYERS, DIM = 9, 3, 8
GRID = Nesting.parse("layer=1,2,4 x dim=2,4,8")
PAIRS = Nesting.parse("layer=1,2,4 zip dim=2,4,8")
SCORES = torch.linspace(0, 1, BATCH, dtype=torch.float64)


def column(seed: int) -> Tensor:
    """Embeddings of every layer, ``Float64[batch, layers, dim]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, LAYERS, DIM, generator=generator, dtype=torch.float64).requires_grad_()


def views(x: Tensor) -> Views:
    return {rest: x[:, place] for place, rest in enumerate(GRID.rests)}


def at(x: Tensor, g: Granularity) -> Tensor:
    return x[:, GRID.sizes("layer").index(g["layer"]), : g["dim"]]


def gradients(total: Tensor, columns: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(total, columns))


@pytest.mark.parametrize("nesting", [GRID, PAIRS], ids=["grid", "pairs"])
@pytest.mark.parametrize("base", [InfoNCE(), CoSENT()], ids=["infonce", "cosent"])
@pytest.mark.parametrize("deep", [False, True])
def test_the_loss_is_the_plain_sum_over_layers_and_dims(nesting: Nesting, base: Any, deep: bool) -> None:
    base = base.double()
    columns = [column(0), column(1)]
    rest = {"scores": SCORES} if isinstance(base, CoSENT) else {}
    weights = np.linspace(0.5, 2, len(nesting)).tolist()
    parts = Nested(base, nesting, weights=weights, deep_documents=deep).parts(*map(views, columns), **rest)
    plain = {}
    for g in nesting:
        document = g.replace(layer=4) if deep else g
        plain[g] = base(at(columns[0], g), at(columns[1], document), **rest)
    total = sum(weight * loss for weight, loss in zip(weights, plain.values(), strict=True))
    assert list(parts.losses) == list(nesting)
    for g, loss in plain.items():
        torch.testing.assert_close(parts.losses[g], loss.detach())
    torch.testing.assert_close(parts.total, total)
    for found, wanted in zip(gradients(parts.total, columns), gradients(total, columns), strict=True):
        torch.testing.assert_close(found, wanted)


def kl(teacher: Tensor, student: Tensor) -> Tensor:
    p, q = teacher.softmax(dim=1), student.softmax(dim=1)
    return (p * (p.log() - q.log())).sum(dim=1).mean()


def test_scores_are_aligned_with_those_of_the_full_granularity() -> None:
    columns = [column(0), column(1), column(2)]
    temperature, weight = 0.3, 0.7
    align = AlignScores(weight, temperature)
    parts = Nested(InfoNCE().double(), PAIRS, align=align).parts(*map(views, columns))

    def scores(g: Granularity) -> Tensor:
        query, *documents = (F.normalize(at(x, g), dim=1) for x in columns)
        return query @ torch.cat(documents).T / temperature

    teacher = scores(PAIRS.full).detach()
    wanted = weight * sum(kl(teacher, scores(g)) for g in PAIRS[:-1])
    torch.testing.assert_close(parts.terms["align"], wanted.detach())
    alone = Nested(InfoNCE().double(), PAIRS).parts(*map(views, columns)).total + wanted
    for found, plain in zip(gradients(parts.total, columns), gradients(alone, columns), strict=True):
        torch.testing.assert_close(found, plain)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_vectors_are_aligned_with_those_of_the_full_layer(detach: bool, whole: bool) -> None:
    columns = [column(0), column(1)]
    temperature = 0.5
    align = AlignVectors(2.0, temperature, whole=whole, detach=detach)
    found = Nested(InfoNCE().double(), GRID, align=align).parts(*map(views, columns))
    wanted = torch.zeros((), dtype=torch.float64)
    for g in GRID:
        if g["layer"] < 4 and (g["dim"] == DIM or not whole):
            teacher, student = (
                torch.cat([at(x, each) for x in columns]) / temperature for each in (g.replace(layer=4), g)
            )
            wanted = wanted + 2.0 * temperature**2 * kl(teacher.detach() if detach else teacher, student)
    torch.testing.assert_close(found.terms["align"], wanted.detach())
    plain = Nested(InfoNCE().double(), GRID).parts(*map(views, columns)).total + wanted
    for one, other in zip(gradients(found.total, columns), gradients(plain, columns), strict=True):
        torch.testing.assert_close(one, other)


def test_a_detached_teacher_learns_nothing_from_the_term() -> None:
    columns = [column(0), column(1)]
    for align in (AlignScores(), AlignVectors()):

        def vectors(g: Granularity) -> list[Tensor]:
            return [at(x, g) for x in columns]

        term = align(vectors, dict.fromkeys(GRID, 1.0), GRID.full)
        # At the full layer small dims are students too, but only by their scores.
        at_full = [gradient[:, -1] for gradient in gradients(term, columns)]
        assert all(bool((each == 0).all()) for each in at_full) == isinstance(align, AlignVectors)


def test_alignment_of_dims_alone() -> None:
    flat = [column(0)[:, 0], column(1)[:, 0]]
    nesting = Nesting.parse("dim=2,8")
    parts = Nested(InfoNCE().double(), nesting, align=AlignScores()).parts(*flat)
    assert float(parts.terms["align"]) > 0
    assert float(Nested(InfoNCE().double(), nesting, align=AlignVectors()).parts(*flat).terms["align"]) == 0


def test_compressing_draws_the_first_entries_to_the_main_components() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator, dtype=torch.float64).requires_grad_()
    full, small = Granularity(dim=8), Granularity(dim=3)
    for form in ("pca", "published"):
        values = [
            Compress(3, form=form)(lambda g: [x[:, : g["dim"]]], {small: 1.0, full: 1.0}, full)
            for _ in range(2)
        ]
        (gradient,) = torch.autograd.grad(values[0], x)
        assert torch.equal(*values)
        assert float(values[0].detach()) > 0
        assert bool((gradient[:, 3:] == 0).all())
        assert bool((gradient[:, :3] != 0).any())
    # Of data that lies along its axes already the true components are the entries.
    square = torch.diag(torch.tensor([4.0, 3, 2, 1])).double()
    along = Compress(2)(lambda g: [square[:, : g["dim"]]], {Granularity(dim=2): 1.0}, Granularity(dim=4))
    assert float(along) < 1e-12


def test_components_are_turned_and_scaled_to_lie_nearest_to_the_first_entries() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 6, generator=generator, dtype=torch.float64) * torch.tensor([1, 2, 1, 5, 3, 2])
    x = x / x.square().mean().sqrt()
    components = PCA(2).fit(np.concatenate([x, -x])).transform(x)  # both signs: about no mean but 0
    turn, _ = orthogonal_procrustes(components, x[:, :2].numpy())
    turned = components @ turn
    wanted = torch.from_numpy(turned * (turned * x[:, :2].numpy()).sum() / (turned**2).sum())
    term = Compress(2)(lambda g: [x[:, : g["dim"]]], {Granularity(dim=2): 1.0}, Granularity(dim=6))
    torch.testing.assert_close(term, F.mse_loss(x[:, :2], wanted) + kl(wanted, x[:, :2]))


def test_compressing_asks_the_same_of_vectors_in_other_units_and_of_each_half_of_a_batch() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(512, 6, generator=generator, dtype=torch.float64) * torch.tensor([1, 2, 1, 5, 3, 2])

    def pull(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone().requires_grad_()
        term = Compress(2)(lambda g: [x[:, : g["dim"]]], {Granularity(dim=2): 1.0}, Granularity(dim=6))
        return term.detach(), torch.autograd.grad(term, x)[0][:, :2]

    whole, pulled = pull(x)
    torch.testing.assert_close(pull(100 * x)[0], whole)
    for half in (slice(0, 256), slice(256, 512)):
        assert float(F.cosine_similarity(pull(x[half])[1].flatten(), pulled[half].flatten(), dim=0)) > 0.95
    assert float(pull(torch.zeros(8, 6))[0]) == 0


def test_published_draws_count_four_granularities_once() -> None:
    nesting = Nesting.parse("layer=1,2,3,4 x dim=2,4,8")
    generator = np.random.default_rng(0)
    drawn: set[Granularity] = set()
    for _ in range(200):
        draw = Cross().draw(nesting, generator)
        small = min(draw, key=lambda g: (g["layer"], g["dim"]))
        assert set(draw) == {
            nesting.full,
            small,
            Granularity(layer=4, dim=small["dim"]),
            Granularity(layer=small["layer"], dim=8),
        }
        assert set(draw.values()) == {1.0}
        assert list(draw) == [g for g in nesting if g in draw]
        drawn |= set(draw)
    assert drawn == set(nesting)
    assert len(Cross().draw(Nesting.parse("dim=2,8"), generator)) == 2
    assert len(Cross().draw(Nesting.parse("dim=8"), generator)) == 1


def test_gradient_caching_works_with_layers() -> None:
    torch.manual_seed(0)
    weight = torch.randn(5, LAYERS * DIM, dtype=torch.float64, requires_grad=True)
    inputs = torch.randn(2, BATCH, 5, dtype=torch.float64)
    loss = Nested(InfoNCE().double(), PAIRS, align=AlignScores())

    def encode(chunk: Tensor) -> Views:
        return views((chunk @ weight).tanh().reshape(len(chunk), LAYERS, DIM))

    plain = loss(encode(inputs[0]), encode(inputs[1]))
    (wanted,) = torch.autograd.grad(plain, weight)
    cached = GradientCache(encode, loss, chunk_size=2)(inputs[0], inputs[1])
    cached.backward()
    torch.testing.assert_close(cached, plain)
    torch.testing.assert_close(weight.grad, wanted)


@settings(max_examples=examples(25))
@given(
    weight=st.floats(0, 10),
    temperature=st.floats(0.01, 10),
    rows=st.integers(2, 6),
    seed=st.integers(0, 99),
)
def test_aligned_scores_are_never_negative_and_nothing_for_equals(
    weight: float, temperature: float, rows: int, seed: int
) -> None:
    x = torch.randn(rows, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    full, small = Granularity(dim=4, layer=2), Granularity(dim=4, layer=1)
    align = AlignScores(weight, temperature, rule=RAW)
    draw = {small: 1.0, full: 1.0}
    assert abs(float(align(lambda _: [x, x], draw, full))) < 1e-9
    assert float(align(lambda g: [x, x * g["layer"]], draw, full)) >= -1e-12


def test_what_cannot_be_is_refused() -> None:
    flat = column(0)[:, 0]
    with pytest.raises(GranularityError, match=r"at layer=1; layer=2; layer=4, .* at full only"):
        Nested(InfoNCE(), GRID)(flat, flat)
    with pytest.raises(GranularityError, match="at layer=4, but got them at layer=1; layer=2 only"):
        Nested(InfoNCE(), GRID)(*[dict(list(views(column(seed)).items())[:2]) for seed in (0, 1)])
    with pytest.raises(ConfigError, match="deep_documents"):
        Nested(InfoNCE(), Nesting.parse("dim=2,8"), deep_documents=True)
    with pytest.raises(ConfigError, match="temperature=0 must be a finite number above 0"):
        AlignScores(temperature=0)
    with pytest.raises(ConfigError, match="at least 0"):
        AlignVectors(-1.0)
    with pytest.raises(ConfigError, match="published"):
        Compress(2, form="svd")
    with pytest.raises(ConfigError, match="k=0 must be"):
        Compress(0)
    with pytest.raises(DataError, match="do not fit in vectors of 4 entries"):
        Compress(8)(lambda g: [torch.ones(9, g["dim"])], {Granularity(dim=4): 1.0}, Granularity(dim=4))
    with pytest.raises(DataError, match="needs an even size, not 3"):
        Nested(AnglE(), Nesting.pairs(layer=[1, 2], dim=[3, 8]))(
            views(column(0)), views(column(1)), scores=torch.arange(len(flat))
        )
    with pytest.raises(DataError, match="at least 8 vectors"):
        Compress(8)(lambda g: [torch.ones(3, g["dim"])], {Granularity(dim=8): 1.0}, Granularity(dim=8))


def test_the_rule_of_the_loss_is_that_of_the_aligned_vectors() -> None:
    columns = [column(0), column(1)]
    raw, unit = (
        Nested(InfoNCE().double(), GRID, rule=rule, align=AlignVectors())
        .parts(*map(views, columns))
        .terms["align"]
        for rule in (RAW, CutRule())
    )
    # Of unit vectors the softmax over entries is flatter, the more so the more entries there are.
    assert float(unit) < 0.5 * float(raw)
