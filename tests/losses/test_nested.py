"""The nested loss: fast against plain, anybody's base losses, weights, schedules, bad input."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning import losses as metric_learning
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.cut import CutRule
from nestling.errors import ConfigError, GranularityError, UntrainedGranularityWarning
from nestling.granularity import Granularity, Nesting
from nestling.losses import AnglE, CoSENT, CosineRegression, CrossEntropy, InfoNCE, Nested, Triplet
from nestling.losses.prefix import prefix_softmax_losses
from nestling.nn.heads import NestedClassifier
from nestling.schedules import RandomSome
from samples import examples

NESTING = Nesting.parse("dim=2,4,10,16")
BATCH, DIM, CLASSES = 12, 16, 5


def rows(seed: int, count: int = BATCH, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(
        count, DIM, generator=torch.Generator().manual_seed(seed), dtype=dtype
    ).requires_grad_()


def head(tied: bool) -> NestedClassifier:
    torch.manual_seed(0)
    return NestedClassifier(NESTING, CLASSES, tied=tied).double()


SCORES = torch.linspace(-1, 1, BATCH, dtype=torch.float64)
IDS = torch.arange(BATCH) % 7
LABELS = torch.arange(BATCH) % CLASSES
CASES: dict[str, tuple[Callable[[], nn.Module], int, dict[str, Any]]] = {
    "infonce": (InfoNCE, 2, {}),
    "infonce cold": (lambda: InfoNCE(0.005), 2, {}),
    "infonce learned": (lambda: InfoNCE(0.1, learn_temperature=True), 2, {}),
    "infonce two-sided": (lambda: InfoNCE(symmetric=True), 2, {}),
    "infonce hard negatives": (InfoNCE, 4, {}),
    "infonce duplicates": (lambda: InfoNCE(symmetric=True), 3, {"ids": IDS}),
    "cosent": (CoSENT, 2, {"scores": SCORES}),
    "angle": (AnglE, 2, {"scores": SCORES}),
    "triplet": (Triplet, 3, {}),
    "triplet euclidean": (lambda: Triplet(1.0, "euclidean"), 3, {}),
    "cosine regression": (CosineRegression, 2, {"scores": SCORES}),
    "cross-entropy": (lambda: CrossEntropy(head(tied=False)), 1, {"labels": LABELS}),
    "cross-entropy tied": (lambda: CrossEntropy(head(tied=True)), 1, {"labels": LABELS}),
    "cross-entropy smooth": (
        lambda: CrossEntropy(head(tied=True), label_smoothing=0.1),
        1,
        {"labels": LABELS},
    ),
}


def value_and_gradients(
    loss: Nested, embeddings: list[Tensor], rest: dict[str, Any]
) -> tuple[Tensor, dict[Granularity, Tensor], list[Tensor]]:
    parts = loss.parts(*embeddings, **rest)
    wanted = [*embeddings, *loss.parameters()]
    return parts.total, parts.losses, list(torch.autograd.grad(parts.total, wanted))


@pytest.mark.parametrize("name", CASES)
def test_fast_and_plain_agree_in_value_and_gradient(name: str) -> None:
    make, count, rest = CASES[name]
    base, embeddings = make().double(), [rows(seed) for seed in range(count)]
    weights = [3.0, 1.0, 0.0, 2.0]
    fast, plain = (
        value_and_gradients(Nested(base, NESTING, weights=weights, fast=fast), embeddings, rest)
        for fast in (True, False)
    )
    # Float64 with sums of some hundred terms of size 10: errors of 1e-12 are rounding.
    torch.testing.assert_close(fast[0], plain[0], rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(fast[2], plain[2], rtol=1e-10, atol=1e-11)
    for g in NESTING:
        torch.testing.assert_close(fast[1][g], plain[1][g], rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_the_nested_loss_is_the_weighted_sum_of_the_paper(name: str) -> None:
    make, count, rest = CASES[name]
    base, embeddings = make().double(), [rows(seed) for seed in range(count)]
    weights = {2: 4.0, 16: 0.5}
    expected = sum(
        weights.get(m, 1.0) * base(*(x[:, :m] for x in embeddings), **rest) for m in NESTING.sizes("dim")
    )
    torch.testing.assert_close(Nested(base, NESTING, weights=weights)(*embeddings, **rest), expected)
    mean = Nested(base, NESTING, weights=weights, reduction="mean")(*embeddings, **rest)
    torch.testing.assert_close(mean, expected / 6.5)


@settings(max_examples=examples(25))
@given(
    rows_count=st.integers(1, 40),
    columns=st.integers(2, 30),
    dims=st.lists(st.integers(1, DIM), min_size=1, max_size=6, unique=True).map(sorted),
    scale=st.sampled_from([0.5, 20.0, 200.0]),
    seed=st.integers(0, 99),
)
def test_prefix_softmax_agrees_with_one_product_a_size(
    rows_count: int, columns: int, dims: list[int], scale: float, seed: int
) -> None:
    u, v = rows(seed, rows_count), rows(seed + 1, columns)
    targets = torch.arange(rows_count) % columns
    each = [
        F.cross_entropy(scale * F.normalize(u[:, :m], dim=1) @ F.normalize(v[:, :m], dim=1).T, targets)
        for m in dims
    ]
    found = prefix_softmax_losses(u, v, targets, dims, [1.0] * len(dims), scale=scale)
    torch.testing.assert_close(found.each, torch.stack(each).detach(), rtol=1e-10, atol=1e-10)
    expected = torch.autograd.grad(torch.stack(each).sum(), [u, v])
    torch.testing.assert_close(torch.autograd.grad(found.total, [u, v]), expected, rtol=1e-8, atol=1e-9)


def test_many_chunks_agree_with_one(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = value_and_gradients(Nested(InfoNCE(), NESTING).double(), [rows(0), rows(1)], {"ids": IDS})
    monkeypatch.setattr("nestling.losses.prefix._SIMILARITIES_AT_A_TIME", 5 * BATCH)
    chunked = value_and_gradients(Nested(InfoNCE(), NESTING).double(), [rows(0), rows(1)], {"ids": IDS})
    torch.testing.assert_close(whole, chunked)


def test_single_precision_stays_close_to_double() -> None:
    embeddings = [rows(0, 256), rows(1, 256)]
    double = value_and_gradients(Nested(InfoNCE(), NESTING), embeddings, {})
    single = value_and_gradients(
        Nested(InfoNCE(), NESTING), [x.detach().float().requires_grad_() for x in embeddings], {}
    )
    torch.testing.assert_close(single[0].double(), double[0], rtol=1e-6, atol=0)
    torch.testing.assert_close([g.double() for g in single[2]], double[2], rtol=1e-4, atol=1e-7)


def test_a_zero_row_gives_finite_losses_and_gradients() -> None:
    u = rows(0).detach()
    u[3, :4] = 0
    u.requires_grad_()
    total, losses, gradients = value_and_gradients(Nested(InfoNCE(), NESTING), [u, rows(1)], {})
    assert torch.isfinite(total)
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_under_autocast_the_sums_stay_in_single_precision() -> None:
    encoder = nn.Linear(DIM, DIM)
    x = rows(0, dtype=torch.float32).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        u = encoder(x)
        assert u.dtype == torch.bfloat16
        loss = Nested(InfoNCE(), NESTING)(u, u.detach())
    assert loss.dtype == torch.float32
    loss.backward()
    reference = Nested(InfoNCE(), NESTING, fast=False)(u.detach().double(), u.detach().double())
    torch.testing.assert_close(loss.double(), reference, rtol=1e-5, atol=1e-5)
    assert encoder.weight.grad is not None


@pytest.mark.parametrize("base", [InfoNCE(learn_temperature=True), CosineRegression()])
def test_a_compiled_loss_gives_the_same(base: nn.Module) -> None:
    loss, (u, v) = Nested(base, NESTING), (rows(0, dtype=torch.float32), rows(1, dtype=torch.float32))
    rest = {"scores": SCORES.float()} if isinstance(base, CosineRegression) else {}
    with warnings.catch_warnings():
        # torch's own tracing uses interfaces of Python and of itself that are deprecated.
        warnings.simplefilter("ignore")
        compiled = torch.compile(lambda a, b: loss(a, b, **rest), backend="aot_eager")
        found = torch.autograd.grad(compiled(u, v), [u, v])
    torch.testing.assert_close(found, torch.autograd.grad(loss(u, v, **rest), [u, v]))


@pytest.mark.parametrize(
    "base",
    [
        metric_learning.NTXentLoss(),
        metric_learning.TripletMarginLoss(),
        metric_learning.MultiSimilarityLoss(),
        metric_learning.SupConLoss(),
    ],
    ids=lambda base: type(base).__name__,
)
def test_losses_of_pytorch_metric_learning_become_nested(base: nn.Module) -> None:
    x, labels = rows(0, dtype=torch.float32), torch.arange(BATCH) % 3
    expected = torch.stack([base(x[:, :m], labels) for m in NESTING.sizes("dim")]).sum()
    torch.testing.assert_close(Nested(base, NESTING)(x, labels=labels), expected)


def test_any_function_of_tensors_becomes_nested() -> None:
    u, v = rows(0), rows(1)
    expected = sum(F.mse_loss(u[:, :m], v[:, :m]) for m in NESTING.sizes("dim"))
    torch.testing.assert_close(Nested(F.mse_loss, NESTING)(u, v), expected)
    normalised = Nested(F.mse_loss, NESTING, rule=CutRule())(u, v)
    by_hand = sum(
        F.mse_loss(F.normalize(u[:, :m], dim=1), F.normalize(v[:, :m], dim=1)) for m in NESTING.sizes("dim")
    )
    torch.testing.assert_close(normalised, by_hand)


def test_layer_norm_before_the_cut_reaches_the_fast_path_too() -> None:
    rule = CutRule(before="layer_norm", after="none")
    fast, plain = (
        Nested(InfoNCE(), NESTING, rule=rule, fast=fast)(rows(0), rows(1)) for fast in (True, False)
    )
    by_hand = Nested(InfoNCE(), NESTING)(*(F.layer_norm(rows(seed), (DIM,)) for seed in (0, 1)))
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(fast, by_hand)


def test_schedules_draw_anew_and_go_on_where_they_were() -> None:
    def drawn(loss: Nested, steps: int) -> list[tuple[Granularity, ...]]:
        return [tuple(loss.parts(rows(0), rows(1)).losses) for _ in range(steps)]

    loss = Nested(InfoNCE(), NESTING, schedule=RandomSome(1), seed=3)
    first, state = drawn(loss, 8), loss.state_dict()
    assert len(set(first)) > 1
    assert all(step[-1] == NESTING.full and len(step) == 2 for step in first)
    resumed = Nested(InfoNCE(), NESTING, schedule=RandomSome(1), seed=3)
    resumed.load_state_dict(state)
    assert drawn(resumed, 8) == drawn(loss, 8)
    assert list(loss.eval().parts(rows(0), rows(1)).losses) == list(NESTING)


def test_the_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    Nested(InfoNCE(), NESTING, schedule=RandomSome(1))(rows(0), rows(1))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("weights", [[1.0], [1, 1, 1, -1], [1, 1, 1, float("nan")], [0, 0, 0, 0]])
def test_bad_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ConfigError):
        Nested(InfoNCE(), NESTING, weights=weights)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mean'"):
        Nested(InfoNCE(), NESTING, reduction="means")  # type: ignore[arg-type]
    with pytest.raises(GranularityError, match="use a nesting whose last size is 8"):
        Nested(InfoNCE(), NESTING)(torch.ones(4, 8), torch.ones(4, 8))
    with pytest.raises(GranularityError, match="outside the nesting"):
        Nested(InfoNCE(), NESTING, weights={3: 1.0})
    with pytest.warns(UntrainedGranularityWarning, match="are not trained"):
        Nested(InfoNCE(), NESTING)(torch.ones(4, 20), torch.ones(4, 20))
