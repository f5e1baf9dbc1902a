"""Nested losses over bits: rounded embeddings, straight-through gradients, running statistics."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from nestling.bits import BitCode, cell_values, decode_tensor, encode_tensor
from nestling.cut import CutRule, cut
from nestling.errors import ConfigError, GranularityError
from nestling.granularity import Granularity, Nesting
from nestling.losses import AlignScores, CoSENT, InfoNCE, Nested, Quantisation, SimilarityMatch
from nestling.losses.quantisation import RunningCode
from nestling.losses.similarity import neighbour_targets
from nestling.schedules import Sandwich

NESTING = Nesting.parse("dim=3,8 x bits=1,2,8,16,32")
SCALES = torch.linspace(2, 0.2, 8)


def rows(seed: int, count: int = 64) -> Tensor:
    drawn = torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))
    return ((drawn + 0.3) * SCALES).requires_grad_()


def trained(**how: object) -> Nested:
    """A loss that has seen two batches."""
    loss = Nested(InfoNCE(), NESTING, **how)
    for seed in (1, 2):
        loss(rows(seed), rows(seed + 10))
    return loss.eval()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_tensor_has_the_codes_and_values_of_an_array(dtype: type) -> None:
    draw = np.random.default_rng(0)
    x = (draw.standard_t(3, size=(500, 37)) * draw.uniform(1e-4, 3, 37)).astype(dtype)
    x[:, 5] = 0.25
    code = BitCode.calibrate(x[:300])
    centre, spread = torch.from_numpy(code.centre), torch.from_numpy(code.spread)
    codes = encode_tensor(torch.from_numpy(x), centre, spread)
    assert np.array_equal(codes.numpy(), code.encode(x))
    for bits in (1, 2, 3, 4, 8):
        assert np.array_equal(decode_tensor(codes, bits, centre, spread).numpy(), code.rounded(x, bits))
        assert np.array_equal(code.rounded(torch.from_numpy(x), bits).numpy(), code.rounded(x, bits))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("both_sides", [False, True])
def test_each_loss_is_that_of_embeddings_as_a_store_holds_them(fast: bool, both_sides: bool) -> None:
    loss = trained(quantisation=Quantisation(both_sides=both_sides), fast=fast)
    rule, queries, documents = CutRule(code=loss.code()), rows(3), rows(4)
    for g, found in loss.parts(queries, documents).losses.items():
        dim, bits = g["dim"], g["bits"]
        first = cut(queries, dim, rule, bits=bits if both_sides else 32)
        expected = InfoNCE()(first, cut(documents, dim, rule, bits=bits))
        torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)  # sums of 64 in float32


def test_gradients_pass_straight_through() -> None:
    loss, queries, documents = trained(), rows(3), rows(4)
    whole = cut(documents, 8, CutRule())
    held = loss.code().rounded(whole, 2).detach().requires_grad_()
    (expected,) = torch.autograd.grad(InfoNCE()(queries, held), [held])
    only = Nested(InfoNCE(), "dim=8 x bits=2,32", weights=[1.0, 0.0])
    only.load_state_dict(loss.state_dict())
    (found,) = torch.autograd.grad(only.eval()(queries, whole), [whole])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_the_code_follows_the_batches_and_fits_what_is_calibrated_later() -> None:
    running = RunningCode(8, Quantisation())
    x = [cut(rows(seed, 500).detach(), 8) for seed in range(40)]
    running(x[0])
    alone = BitCode.calibrate(x[0].numpy())
    assert np.allclose(running.code().spread, alone.spread, rtol=1e-4)
    for batch in x[1:]:
        running(batch)
    every = BitCode.calibrate(torch.cat(x).numpy())
    # About 10 batches of 500 rows count: their means and spreads have errors near 0.014 and 0.01 spreads.
    assert np.abs((running.code().centre - every.centre) / every.spread).max() < 0.06
    assert np.allclose(running.code().spread, every.spread, rtol=0.05)
    before = running.code()
    running.eval()(x[0])
    assert running.code() == before


def test_before_training_the_code_is_that_of_the_batch() -> None:
    loss, x = Nested(SimilarityMatch(), "dim=8 x bits=1,32").eval(), rows(0)
    targets = neighbour_targets(rows(1).detach())
    rule = CutRule().calibrated(np.tile(x.detach().numpy(), (4, 1)))
    expected = SimilarityMatch()(cut(x, 8, rule, bits=1), targets=targets)  # one column is rounded
    found = loss.parts(x, targets=targets).losses[Granularity(dim=8, bits=1)]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)


def test_few_bits_can_start_later_and_a_resumed_run_goes_on() -> None:
    loss = Nested(InfoNCE(), NESTING, quantisation=Quantisation(start=2))
    first = [set(loss.parts(rows(1), rows(2)).losses) for _ in range(2)]
    assert first == [{Granularity(dim=dim, bits=32) for dim in (3, 8)}] * 2
    assert len(loss.eval().parts(rows(1), rows(2)).losses) == len(NESTING)
    again = Nested(InfoNCE(), NESTING, quantisation=Quantisation(start=2))
    again.load_state_dict(loss.state_dict())
    assert len(again.parts(rows(1), rows(2)).losses) == len(NESTING)


def test_schedules_draw_precisions_too() -> None:
    loss = Nested(InfoNCE(), NESTING, schedule=Sandwich(2))
    drawn = loss.parts(rows(1), rows(2)).losses
    assert len(drawn) == 4
    assert {NESTING[0], NESTING.full} <= set(drawn)


def test_each_rest_has_a_code_and_deep_documents_one() -> None:
    nesting = Nesting.parse("dim=8 x bits=1,32 x layer=1,2")
    views = [{rest: rows(seed + 5 * rest["layer"]) for rest in nesting.rests} for seed in (1, 2)]
    loss = Nested(InfoNCE(), nesting)
    loss(*views)
    assert loss.code(Granularity(layer=1)) != loss.code(Granularity(layer=2))
    deep = Nested(InfoNCE(), nesting, deep_documents=True)
    deep(*views)
    assert deep.code() == loss.code(Granularity(layer=2))
    assert not deep.code(Granularity(layer=1)).spread.any()


def test_self_distillation_sees_rounded_embeddings() -> None:
    loss = trained(align=AlignScores())
    floats = Nested(InfoNCE(), "dim=8", align=AlignScores()).eval()
    assert float(floats.parts(rows(1), rows(2)).terms["align"]) == 0
    assert float(loss.parts(rows(1), rows(2)).terms["align"]) > 0


def test_ranges_are_learned_from_the_error_of_the_cells() -> None:
    loss = trained(quantisation=Quantisation(learn_ranges=True))
    only = Nested(
        InfoNCE(),
        "dim=8 x bits=2,32",
        weights=[1, 0],
        quantisation=loss.quantisation,
        fast=False,
    )
    only.load_state_dict(loss.state_dict())
    only.eval()
    queries, documents, (log_range,) = rows(3), rows(4), only.parameters()
    (found,) = torch.autograd.grad(only(queries, documents), [log_range])
    code, whole = only.code(), cut(documents, 8).detach()
    held = torch.from_numpy(code.rounded(whole.numpy(), 2)).requires_grad_()
    (slope,) = torch.autograd.grad(InfoNCE()(queries, held), [held])
    place, steps = (whole - torch.tensor(code.centre)) / torch.tensor(code.spread), cell_values(2)
    value = (held.detach() - torch.tensor(code.centre)) / torch.tensor(code.spread)
    outside = place.abs() > float(steps[3] + (steps[3] - steps[2]) / 2)
    expected = (slope * torch.where(outside, value, value - place)).sum(0) * torch.tensor(code.spread)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_half_precision_and_constant_or_zero_rows_are_safe() -> None:
    loss, documents = Nested(InfoNCE(), NESTING), rows(4).detach()
    documents[:, 2], documents[3] = 0, 0
    for x in (documents, documents.bfloat16()):
        given = x.clone().requires_grad_()
        total = loss(rows(3).to(x.dtype), given)
        total.backward()
        assert total.isfinite()
        assert given.grad.isfinite().all()


def test_cosent_takes_bits() -> None:
    loss = Nested(CoSENT(), NESTING)
    assert loss(rows(1), rows(2), scores=torch.linspace(0, 1, 64)).isfinite()
    assert copy.deepcopy(loss).code() == loss.code()


@pytest.mark.parametrize("nesting", ["bits=1,32", "dim=4,8 x bits=1,8", "dim=4,8 x bits=1,16"])
def test_what_is_missing_in_a_nesting_over_bits_is_named(nesting: str) -> None:
    with pytest.raises(GranularityError, match="has to name dim and bits=32"):
        Nested(InfoNCE(), nesting)


def test_a_loss_without_bits_has_no_code() -> None:
    with pytest.raises(ConfigError, match="add bits"):
        Nested(InfoNCE(), "dim=4,8").code()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("learn_ranges", [False, True])
def test_embeddings_of_any_float_type_are_rounded(dtype: torch.dtype, learn_ranges: bool) -> None:
    loss = Nested(InfoNCE(), NESTING, quantisation=Quantisation(learn_ranges=learn_ranges))
    columns = [rows(seed).detach().to(dtype).requires_grad_() for seed in (1, 2)]
    loss(*columns).backward()
    assert all(torch.isfinite(column.grad).all() for column in columns)


def test_half_precision_in_a_loss_does_not_depend_on_the_scale() -> None:
    loss = Nested(InfoNCE(), "dim=3,8 x bits=16,32").eval()
    found = [loss(rows(1).detach() * scale, rows(2).detach() * scale).item() for scale in (1e-7, 1, 1e6)]
    assert found == pytest.approx([found[1]] * 3, rel=1e-4)


def test_settings_of_rounding_are_checked() -> None:
    with pytest.raises(ConfigError, match="quantisation=5 must be a Quantisation"):
        Nested(InfoNCE(), NESTING, quantisation=5)
    for name in ("both_sides", "learn_ranges"):
        with pytest.raises(ConfigError, match=f"{name}='x' must be True or False"):
            Quantisation(**{name: "x"})
