"""Pooling of grids: the laws, plain loops, composition, masks, half precision, refusals."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nestling.errors import ConfigError, DataError, GranularityError
from nestling.granularity import Nesting
from nestling.nn.tokens import GridPool, Tokens
from nestling.testing import check_elastic

MODES = ("mean", "spatial", "sequential")


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_loops(tokens: Tokens, shape: tuple[int, int], mode: str) -> list[list[Tensor | None]]:
    """The token of each window of each item, one at a time; None for padding."""
    assert tokens.grid is not None
    (rows, columns), (high, wide) = shape, tokens.grid
    found: list[list[Tensor | None]] = []
    for item, vectors in enumerate(tokens.values):
        windows: list[list[int]] = [[] for _ in range(rows * columns)]
        for place in range(high * wide):
            row, column = divmod(place, wide)
            windows[(row * rows // high) * columns + column * columns // wide].append(place)
        if mode == "sequential":
            windows = [[place] for place in range(rows * columns)]
        if mode == "spatial":
            windows = [window[:1] for window in windows]
        kept = [[p for p in window if tokens.mask is None or tokens.mask[item, p]] for window in windows]
        found.append([sum(vectors[p] for p in window) / len(window) if window else None for window in kept])
    return found


def agree(found: Tokens, expected: list[list[Tensor | None]]) -> None:
    for item, tokens in enumerate(expected):
        for place, token in enumerate(tokens):
            real = found.mask is None or bool(found.mask[item, place])
            assert real == (token is not None)
            if token is not None:
                torch.testing.assert_close(found.values[item, place], token)


@pytest.mark.parametrize("mode", MODES)
def test_the_laws(mode: Any) -> None:
    check_elastic(GridPool((4, 4), [1, 4, 16], 3, mode=mode), draw(2, 16, 3))


def test_the_laws_on_a_grid_that_is_no_square_with_a_mask() -> None:
    mask = torch.ones(2, 24, dtype=torch.bool)
    mask[1, 10:] = False
    pool = GridPool((4, 6), [(1, 1), (2, 3), (4, 6)], 3)
    check_elastic(pool, Tokens(draw(2, 24, 3), mask, (4, 6)))


@settings(max_examples=40)
@given(
    windows=st.tuples(*[st.integers(1, 3)] * 4),
    mode=st.sampled_from(MODES),
    masked=st.booleans(),
    seed=st.integers(0, 99),
)
def test_it_is_what_plain_loops_give(
    windows: tuple[int, int, int, int], mode: Any, masked: bool, seed: int
) -> None:
    rows, high, columns, wide = windows
    grid = (rows * high, columns * wide)
    values = draw(2, grid[0] * grid[1], 2, seed=seed)
    mask = None
    if masked:
        mask = torch.rand(values.shape[:2], generator=torch.Generator().manual_seed(seed)) < 0.6
        mask[:, 0] = True
        values = torch.where(mask[..., None], values, torch.nan)  # padding may hold anything
    pool = GridPool(grid, [(rows, columns)], 2, mode=mode)
    tokens = Tokens(values, mask, grid)
    agree(pool(tokens), by_loops(tokens, (rows, columns), mode))


@pytest.mark.parametrize("mode", MODES)
def test_pooling_step_by_step_is_pooling_at_once(mode: Any) -> None:
    sides = [24, 12, 6, 3, 1]
    tokens = Tokens(draw(2, 576, 3), None, (24, 24))
    direct = GridPool((24, 24), [side * side for side in reversed(sides)], 3, mode=mode)
    for before, side in pairwise(sides):
        step = GridPool(
            (before, before), [side * side, before * before] if side < before else [1], 3, mode=mode
        )
        tokens = step(tokens, at=side * side)
        torch.testing.assert_close(tokens.values, direct(Tokens(draw(2, 576, 3)), at=side * side).values)


def test_a_mean_composes_with_masks_of_whole_windows_only() -> None:
    """A mean of means of unequal counts is another mean, so the pool always starts from the tokens."""
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, [2, 3, 6, 7]] = False  # the upper right quarter
    tokens = Tokens(draw(1, 16, 2), mask, (4, 4))
    pool = GridPool((4, 4), [1, 4, 16], 2)
    quarters = pool(tokens, at=4)
    assert quarters.mask is not None
    assert quarters.mask.tolist() == [[True, False, True, True]]
    again = GridPool((2, 2), [1, 4], 2)(quarters, at=1)
    torch.testing.assert_close(again.values, pool(tokens, at=1).values)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("masked", [False, True])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype, masked: bool) -> None:
    """576 values near 1000 overflow a float16 sum, and a bfloat16 sum keeps 8 bits."""
    values = (1000 + draw(1, 576, 2)).to(dtype)
    mask = torch.ones(1, 576, dtype=torch.bool) if masked else None
    found = GridPool((24, 24), [1, 576], 2)(Tokens(values, mask), at=1).values
    assert found.dtype == dtype
    assert torch.equal(found, values.double().mean(dim=1, keepdim=True).to(dtype))


def test_gradients_reach_each_token_once() -> None:
    values = draw(1, 16, 2).requires_grad_()
    GridPool((4, 4), [4, 16], 2)(values, at=4).values.sum().backward()
    assert values.grad is not None
    torch.testing.assert_close(values.grad, torch.full_like(values, 0.25))


@pytest.mark.parametrize("mode", MODES)
def test_an_item_of_padding_alone_stays_one(mode: Any) -> None:
    mask = torch.tensor([[True] * 16, [False] * 16])
    found = GridPool((4, 4), [4, 16], 2, mode=mode)(Tokens(draw(2, 16, 2), mask), at=4)
    assert found.lengths().tolist() == [4, 0]
    assert found.values.isfinite().all()


def test_counts_shapes_and_texts() -> None:
    pool = GridPool((24, 24), "tokens=1,9,36,144,576", 3)
    assert [pool.lengths(576, at=g) for g in pool.nesting] == [1, 9, 36, 144, 576]
    assert pool.lengths(torch.tensor([576, 576]), at=9).tolist() == [9, 9]
    assert pool.shape(at=9) == (3, 3)
    assert pool(draw(1, 576, 3), at=9).grid == (3, 3)
    assert GridPool((4, 4), Nesting.parse("tokens=1,4"), 3).nesting.full["tokens"] == 4
    assert GridPool((4, 4), [3, 7], 2, mode="sequential")(draw(1, 16, 2), at=3).grid is None
    assert GridPool((4, 4), [1, 4], 2, axis="video").nesting.axes == ("video",)


@pytest.mark.parametrize(
    ("grid", "sizes", "message"),
    [
        ((24, 24), [100], r"tokens=100 cannot be had from a grid of 24 x 24 .*1, 4, 9, 16, 36, 64, 144, 576"),
        ((24, 24), [25], "tokens=25 cannot be had"),
        ((4, 4), [], "names no size"),
        ((4, 4), [4, 1], r"must increase without repeats.*\[1, 4\]"),
        ((4, 4), [1, 1], "must increase without repeats"),
        ((4, 4), [0], "tokens=0 is not a size"),
        ((4, 4), [2.5], "whole number"),
        ((4, 6), [6], r"write each size as \(rows, columns\); square windows give \(2, 3\), \(4, 6\)"),
        ((4, 6), [(3, 2)], "does not divide the grid of 4 x 6"),
        ((4, 6), [(2, 2), (4, 1)], "must increase without repeats"),
        ((4, 4), [(1, 0)], "two whole numbers of at least 1"),
        ((4,), [1], r"grid is \(rows, columns\)"),
        ((True, 1), [1], r"grid is \(rows, columns\)"),
        ((4, 4), 4, r"tokens must be a list of sizes, such as \[1, 4\], not 4"),
        ((4, 4), None, "tokens must be a list of sizes"),
        ((4, 4), "dim=1,4", "the axis tokens, not dim"),
    ],
)
def test_sizes_that_a_grid_does_not_allow(grid: Any, sizes: Any, message: str) -> None:
    with pytest.raises(GranularityError, match=message):
        GridPool(grid, sizes, 2)


def test_other_bad_input_is_refused() -> None:
    pool = GridPool((4, 4), [1, 4, 16], 2)
    for wrong, message in (
        (torch.zeros(1, 17, 2), "17 tokens do not fill a grid of 4 x 4 = 16 tokens; drop the class token"),
        (torch.zeros(1, 15, 2), "give tokens of that grid"),
        (torch.zeros(1, 16, 3), "tokens of 2 entries are expected, not of 3"),
        (torch.zeros(16, 2), "shape"),
        (torch.zeros(0, 16, 2), "at least one token"),
        (torch.zeros(1, 16, 2, dtype=torch.long), "floats"),
        ([[1.0]], "not a list"),
        (Tokens(torch.zeros(1, 16, 2), torch.ones(1, 16)), "the mask must be bool"),
        (Tokens(torch.zeros(1, 16, 2), None, (2, 8)), "make a GridPool for that grid"),
        (Tokens(torch.zeros(1, 16, 2), None, 4), r"the grid of tokens is a tuple \(rows, columns\), not 4"),
        (Tokens(torch.zeros(1, 16, 2), None, (2, 2, 4)), "the grid of tokens is a tuple"),
    ):
        with pytest.raises(DataError, match=message):
            pool(wrong)
    for at, message in ((5, "nearest valid granularity is tokens=4 or tokens=16"), (2.5, "whole number")):
        with pytest.raises(GranularityError, match=message):
            pool(torch.zeros(1, 16, 2), at=at)
    with pytest.raises(GranularityError, match="more than the 16"):
        GridPool((4, 4), [17], 2, mode="sequential")
    with pytest.raises(ConfigError, match="mode='max' must be one of"):
        GridPool((4, 4), [1], 2, mode="max")
