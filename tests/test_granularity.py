"""Granularities and nestings: text forms, partial order, immutability, refusals."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.errors import ConfigError, GranularityError
from nestling.granularity import Granularity, Nesting
from nestling.schedules import Every, RandomPrefix, RandomSome, Sandwich

sizes = st.integers(1, 10_000)
granularities = st.dictionaries(st.sampled_from(["dim", "layer", "width", "own_axis"]), sizes).map(
    lambda axes: Granularity(**axes)
)
increasing = st.lists(sizes, min_size=1, max_size=6, unique=True).map(sorted)


@given(granularities)
def test_a_granularity_reads_what_it_prints(g: Granularity) -> None:
    assert Granularity.parse(str(g)) == g
    assert eval(repr(g)) == g
    assert copy.deepcopy(g) == g
    assert hash(Granularity(**dict(reversed(list(g.items()))))) == hash(g)


@given(granularities, granularities, granularities)
def test_the_order_is_a_partial_order(a: Granularity, b: Granularity, c: Granularity) -> None:
    assert a <= a
    assert not (a <= b and b <= a) or a == b
    assert not (a <= b and b <= c) or a <= c
    assert a <= Granularity()
    assert (a < b) == (b > a)


def test_an_unnamed_axis_is_used_in_full() -> None:
    assert Granularity(dim=8, layer=2) <= Granularity(dim=8)
    assert not Granularity(dim=8) <= Granularity(dim=8, layer=2)


def test_a_granularity_is_immutable() -> None:
    g = Granularity(dim=8)
    with pytest.raises(AttributeError, match="immutable"):
        g.dim = 9  # type: ignore[attr-defined]
    assert g.replace(layer=2, dim=None) == Granularity(layer=2)
    assert pickle.loads(pickle.dumps(g)) == g  # worker processes need it


@pytest.mark.parametrize(
    "text", ["", "dim", "dim=", "dim=0", "dim=-1", "dim=8,dim=9", "dim=1.5", "8", "dim:8"]
)
def test_malformed_granularities_are_refused(text: str) -> None:
    with pytest.raises(GranularityError):
        Granularity.parse(text)


@pytest.mark.parametrize("size", [0, -3, 2.0, True, "8", None, float("nan")])
def test_a_size_is_a_whole_number_of_at_least_one(size: object) -> None:
    with pytest.raises(GranularityError, match="whole number"):
        Granularity(dim=size)  # type: ignore[arg-type]


def test_numpy_integers_are_sizes() -> None:
    assert Granularity(dim=np.int64(8)) == Granularity(dim=8)


@given(increasing, increasing)
def test_nestings_read_what_they_print(dims: list[int], layers: list[int]) -> None:
    common = min(len(dims), len(layers))
    for nesting in (
        Nesting.chain(dim=dims),
        Nesting.grid(dim=dims, layer=layers),
        Nesting.pairs(dim=dims[:common], layer=layers[:common]),
    ):
        assert Nesting.parse(str(nesting)) == nesting
        assert eval(repr(nesting)) == nesting


@given(increasing, increasing)
def test_a_nesting_runs_from_coarse_to_fine(dims: list[int], layers: list[int]) -> None:
    nesting = Nesting.grid(dim=dims, layer=layers)
    for i, g in enumerate(nesting):
        assert g <= nesting.full
        assert not any(later < g for later in nesting[i + 1 :])
        part = nesting.up_to(g)
        assert part.full == g
        assert all(h in nesting for h in part)


def test_any_list_of_granularities_can_be_a_nesting() -> None:
    text = "dim=8,layer=2; dim=8,layer=4; dim=16,layer=4"
    assert str(Nesting.parse(text)) == text
    crossing = Nesting.parse("dim=2,layer=16; dim=4,layer=8; dim=8,layer=32")
    assert Nesting.parse(str(crossing)) == crossing


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dim=8..64", (8, 16, 32, 64)),
        ("dim=8..48", (8, 16, 32, 48)),
        ("dim=16..64+16", (16, 32, 48, 64)),
        (" dim = 8, 16 ", (8, 16)),
        ("dim=8", (8,)),
    ],
)
def test_ways_to_write_a_chain(text: str, expected: tuple[int, ...]) -> None:
    assert Nesting.parse(text).sizes("dim") == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dim=",
        "dim=16,8",
        "dim=8,8",
        "dim=0,8",
        "dim=8..4",
        "dim=8 x dim=16",
        "layer=1,2 zip dim=8",
        "dim=8;",
    ],
)
def test_malformed_nestings_are_refused(text: str) -> None:
    with pytest.raises(GranularityError):
        Nesting.parse(text)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Nesting.chain(dim=[]), "at least one"),
        (lambda: Nesting.chain(dim=8), r"the sizes of axis 'dim' are a list, such as \[1, 4\], not 8"),
        (lambda: Nesting.chain(dim=[16, 8]), r"write \[8, 16\]"),
        (lambda: Nesting.chain(dim=[8, 8, 16]), r"write \[8, 16\]"),
        (lambda: Nesting.chain(dim=[8, 16.5]), "whole number"),
        (lambda: Nesting.chain(dim=[8], layer=[1]), "grid or Nesting.pairs"),
        (lambda: Nesting(()), "at least one"),
        (lambda: Nesting((Granularity(dim=8), Granularity(layer=2))), "same axes"),
        (lambda: Nesting((Granularity(dim=8, layer=4), Granularity(dim=16, layer=2))), "one full"),
        (lambda: Nesting((Granularity(dim=8), Granularity(dim=8))), "twice"),
    ],
)
def test_errors_of_nestings_say_what_to_do(build: object, message: str) -> None:
    with pytest.raises(GranularityError, match=message):
        build()  # type: ignore[operator]


def test_what_at_may_be() -> None:
    chain, grid = Nesting.parse("dim=8,16,32"), Nesting.parse("layer=2,4 x dim=8,16")
    for at in (16, "dim=16", Granularity(dim=16), {"dim": 16}, np.int64(16)):
        assert chain.resolve(at) == Granularity(dim=16)
    assert chain.resolve(None) == chain.resolve("full") == chain.full
    assert grid.resolve("dim=8") == Granularity(dim=8, layer=4)
    with pytest.raises(GranularityError, match="does not say which axis"):
        grid.resolve(8)
    with pytest.raises(GranularityError, match="no axis 'layer'"):
        chain.resolve("layer=2")


@pytest.mark.parametrize(("at", "nearest"), [(20, "dim=16 or dim=32"), (4, "dim=8"), (99, "dim=32")])
def test_refusals_name_the_nearest(at: int, nearest: str) -> None:
    with pytest.raises(GranularityError, match=f"nearest valid granularity is {nearest}"):
        Nesting.parse("dim=8,16,32").resolve(at)


@pytest.mark.parametrize("schedule", [Every(), RandomSome(2), Sandwich(1), RandomPrefix(), RandomSome(99)])
def test_a_schedule_keeps_the_expected_loss(schedule: object) -> None:
    nesting = Nesting.parse("dim=2,4,8,16,32")
    generator = np.random.default_rng(0)
    loss = {g: float(i + 1) for i, g in enumerate(nesting)}
    draws = [schedule.draw(nesting, generator) for _ in range(4000)]  # type: ignore[attr-defined]
    mean = np.mean([sum(factor * loss[g] for g, factor in draw.items()) for draw in draws])
    # The widest schedule draws one of five with a standard deviation of 7: 3 errors of the mean are 0.35.
    assert mean == pytest.approx(sum(loss.values()), abs=0.35)
    assert all(list(draw) == sorted(draw, key=nesting.index) for draw in draws)


def test_schedules_keep_the_ends() -> None:
    nesting = Nesting.parse("dim=2,4,8,16,32")
    generator = np.random.default_rng(0)
    for _ in range(20):
        assert nesting.full in RandomSome(1).draw(nesting, generator)
        assert {nesting[0], nesting.full} <= set(Sandwich(1).draw(nesting, generator))
    with pytest.raises(ConfigError, match="k=-1 must be a whole number of at least 0"):
        RandomSome(-1)


@pytest.mark.parametrize("at", [1.5, b"dim=8", object(), [8]])
def test_what_at_may_not_be(at: object) -> None:
    with pytest.raises(GranularityError, match=r"at must be text such as .dim=16"):
        Nesting.parse("dim=8,16").resolve(at)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["dim=1..999999999+1", "dim=1..200+1 x layer=1..200+1", "dim=1..20000+1", "layer=1..99+1 x dim=1..999+1"],
)
def test_a_nesting_holds_at_most_ten_thousand_granularities(text: str) -> None:
    with pytest.raises(GranularityError, match="at most 10,000"):
        Nesting.parse(text)


def test_a_nesting_made_of_numbers_holds_no_more() -> None:
    many = Nesting.parse("dim=1..10000+1")
    assert len(many) == 10_000
    with pytest.raises(GranularityError, match="at most 10,000"):
        Nesting.chain(dim=range(1, 10**9))
    with pytest.raises(GranularityError, match="at most 10,000"):
        many.times(bits=(1, 32))


def test_steps_of_nothing_are_refused() -> None:
    with pytest.raises(GranularityError, match=r"the steps of 'dim=16\.\.48\+0' are 0"):
        Nesting.parse("dim=16..48+0")


def test_a_range_of_bits_leaves_out_what_is_no_precision() -> None:
    assert Nesting.parse("bits=3..8").sizes("bits") == (3, 8)
    assert Nesting.parse("dim=8 x bits=1..8+1").sizes("bits") == (1, 2, 3, 4, 8)
    assert Nesting.doubling(3, 16, axis="bits").sizes("bits") == (3, 16)
    for text in ("bits=5..8", "bits=4..9"):
        with pytest.raises(GranularityError, match="is no precision"):
            Nesting.parse(text)
