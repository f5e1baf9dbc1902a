"""Pooling of sequences: the laws, plain loops, masks anywhere, remainders, counts, refusals."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nestling.errors import ConfigError, DataError, GranularityError
from nestling.nn.tokens import BudgetPool, SequencePool, Tokens
from nestling.testing import check_elastic

ROWS_SHORT = "row 0 of the batch holds fewer than 4 tokens; rate 4 makes no token of them"


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@st.composite
def ragged(draws: st.DrawFn) -> Tokens:
    """Items of several lengths, with padding anywhere that holds NaN."""
    mask = torch.tensor(
        draws(st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=3))
    )
    mask[:, 4] = True
    values = draw(*mask.shape, 2, seed=draws(st.integers(0, 99)))
    return Tokens(torch.where(mask[..., None], values, torch.nan), mask)


def items(tokens: Tokens) -> list[Tensor]:
    """The tokens of each item without padding."""
    if tokens.mask is None:
        return list(tokens.values)
    return [values[mask] for values, mask in zip(tokens.values, tokens.mask, strict=True)]


def pooled_by_loop(vectors: Tensor, rate: int, mode: str, remainder: str) -> list[Tensor]:
    found = []
    for start in range(0, len(vectors), rate):
        window = vectors[start : start + rate]
        if len(window) < rate and remainder == "drop":
            break
        if len(window) < rate and remainder == "pad":
            window = torch.cat([window, window.new_zeros(rate - len(window), 2)])
        found.append({"mean": window.mean(dim=0), "stack": window.flatten(), "stride": window[0]}[mode])
    return found


def budgeted_by_loop(vectors: Tensor, size: int, mode: str) -> list[Tensor]:
    count = min(size, len(vectors))
    edges = [j * len(vectors) // count for j in range(count + 1)]
    runs = [vectors[a:b] for a, b in pairwise(edges)]
    return [run.mean(dim=0) if mode == "mean" else run[0] for run in runs]


@pytest.mark.parametrize("mode", ["mean", "stride"])
@pytest.mark.parametrize("remainder", ["drop", "pad", "partial"])
def test_the_laws(mode: Any, remainder: Any) -> None:
    pool = SequencePool(3, [1, 2, 4], 10, axis="audio", mode=mode, remainder=remainder)
    mask = torch.arange(10) < torch.tensor([[10], [7]])
    check_elastic(pool, Tokens(draw(2, 10, 3), mask))


@pytest.mark.parametrize("mode", ["mean", "stride", "cluster"])
def test_the_laws_of_budgets(mode: Any) -> None:
    mask = torch.arange(10) < torch.tensor([[10], [7]])
    check_elastic(BudgetPool(3, [1, 2, 8], mode=mode), Tokens(draw(2, 10, 3), mask))


@settings(max_examples=60)
@given(
    tokens=ragged(),
    rate=st.integers(1, 5),
    mode=st.sampled_from(["mean", "stack", "stride"]),
    remainder=st.sampled_from(["drop", "pad", "partial"]),
)
def test_rates_are_what_plain_loops_give(tokens: Tokens, rate: int, mode: Any, remainder: Any) -> None:
    if mode == "stack" and remainder == "partial":
        return
    pool = SequencePool(2, [rate], 9, mode=mode, remainder=remainder)
    expected = [pooled_by_loop(item, rate, mode, remainder) for item in items(tokens)]
    if not all(expected):
        with pytest.raises(DataError, match="makes no token"):
            pool(tokens)
        return
    found = pool(tokens)
    assert pool.lengths(tokens.lengths()).tolist() == found.lengths().tolist() == [*map(len, expected)]
    for one, other in zip(items(found), expected, strict=True):
        torch.testing.assert_close(one, torch.stack(other))
    assert found.values.isfinite().all()
    alone = pool(items(tokens)[0][None])
    torch.testing.assert_close(alone.values[0], torch.stack(expected[0]))


@settings(max_examples=60)
@given(tokens=ragged(), size=st.integers(1, 11), mode=st.sampled_from(["mean", "stride"]))
def test_budgets_are_what_plain_loops_give(tokens: Tokens, size: int, mode: Any) -> None:
    pool = BudgetPool(2, [size], mode=mode)
    expected = [budgeted_by_loop(item, size, mode) for item in items(tokens)]
    found = pool(tokens)
    assert pool.lengths(tokens.lengths()).tolist() == found.lengths().tolist() == [*map(len, expected)]
    for one, other in zip(items(found), expected, strict=True):
        torch.testing.assert_close(one, torch.stack(other))
    assert found.values.isfinite().all()


@settings(max_examples=20)
@given(first=st.integers(1, 4), second=st.integers(1, 4), mode=st.sampled_from(["mean", "stride", "stack"]))
def test_pooling_twice_is_pooling_at_the_product(first: int, second: int, mode: Any) -> None:
    n = first * second * 2
    values = draw(2, n, 3)
    once = SequencePool(3, [first * second], n, mode=mode)(values)
    half = SequencePool(3, [first], n, mode=mode)
    twice = SequencePool(half.out_width(), [second], n // first, mode=mode)(half(values))
    torch.testing.assert_close(twice.values, once.values)
    if mode != "stack":
        budgets = BudgetPool(3, [2], mode=mode)(BudgetPool(3, [2 * second], mode=mode)(values))
        torch.testing.assert_close(budgets.values, once.values)


@pytest.mark.parametrize("pool", [SequencePool(2, [500], 500), BudgetPool(2, [1])])
def test_half_precision_is_summed_in_float32(pool: Any) -> None:
    values = (1000 + draw(1, 500, 2)).half()
    assert torch.equal(pool(values).values, values.double().mean(dim=1, keepdim=True).half())


def test_sizes_are_tokens_in_ten_seconds() -> None:
    """The numbers of the cost table of Llama-MTSK: floor(500 / a) + floor(250 / v)."""
    audio = SequencePool(2, [1, 4, 16], 500, axis="audio")
    video = SequencePool(2, [1, 2, 5], 250, axis="video")
    assert (audio.nesting.sizes("audio"), video.nesting.sizes("video")) == ((31, 125, 500), (50, 125, 250))
    totals = [
        audio.lengths(500, audio.at_rate(a)) + video.lengths(250, video.at_rate(v)) + 7
        for a, v in ((1, 1), (4, 2), (4, 5), (16, 2), (16, 5))
    ]
    assert totals == [757, 257, 182, 163, 88]
    assert str(audio.at_rate(16)) == "audio=31"
    assert audio.rate("audio=31") == 16
    assert audio.extract("audio=125").nesting.sizes("audio") == (31, 125)
    assert SequencePool(2, [4], 500, mode="stack").out_width() == 8


@pytest.mark.parametrize(
    ("rates", "error", "message"),
    [
        ([], GranularityError, "rates is empty"),
        ([4, 4], GranularityError, "must increase without repeats"),
        ([16, 4], GranularityError, r"write \[4, 16\]"),
        ([0], ConfigError, "rates=0 must be a whole number of at least 1"),
        ([-4], ConfigError, "at least 1"),
        ([2.5], ConfigError, "whole number"),
        (4, GranularityError, r"rates must be a list, such as \[4, 16\], not 4"),
        ("4,16", GranularityError, "rates must be a list"),
        ([4, 501], GranularityError, "rate 501 is more than the 500 vectors"),
        ([300, 400], GranularityError, "equal numbers of tokens"),
    ],
)
def test_rates_that_cannot_be(rates: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        SequencePool(2, rates, 500)


def test_other_bad_input_is_refused() -> None:
    pool = SequencePool(2, [4], 100)
    with pytest.raises(GranularityError, match="rate=8 is not among the rates of this pool, 4"):
        pool.at_rate(8)
    with pytest.raises(GranularityError, match="nearest"):
        pool(torch.zeros(1, 8, 2), at="tokens=50")
    with pytest.raises(DataError, match=ROWS_SHORT):
        pool(torch.zeros(1, 3, 2))
    mask = torch.arange(8) < torch.tensor([[8], [3], [2]])
    with pytest.raises(DataError, match=r"2 rows \(1, 2\) of the batch hold fewer"):
        pool(Tokens(torch.zeros(3, 8, 2), mask))
    empty = Tokens(torch.zeros(1, 8, 2), torch.zeros(1, 8, dtype=torch.bool))
    for each in (SequencePool(2, [4], 100, remainder="partial"), BudgetPool(2, [4])):
        with pytest.raises(DataError, match="row 0 of the batch holds no token"):
            each(empty)
    with pytest.raises(ConfigError, match="remainder='pad' or remainder='drop'"):
        SequencePool(2, [4], 100, mode="stack", remainder="partial")
    with pytest.raises(ConfigError, match="mode='max' must be one of"):
        SequencePool(2, [4], 100, mode="max")
    with pytest.raises(GranularityError, match="increase"):
        BudgetPool(2, [4, 2])
    with pytest.raises(GranularityError, match="the axis tokens, not dim"):
        BudgetPool(2, "dim=2,4")
