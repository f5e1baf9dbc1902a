"""Pair scores at a prefix equal those of cut vectors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule, cut_each
from nestling.errors import DataError
from nestling.vectors.prefix import prefix_pair_scores
from samples import examples


@given(st.integers(0, 1000), st.sets(st.integers(1, 20), min_size=1), st.sampled_from(["none", "layer_norm"]))
@settings(max_examples=examples(40))
def test_pair_scores_are_those_of_single_cuts(seed: int, dims: set[int], before: str) -> None:
    first, second = np.random.default_rng(seed).standard_normal((2, 9, 20))
    for after in ("l2", "none"):
        rule = CutRule(before, after)
        a, b = (cut_each(x, sorted(dims), rule) for x in (first, second))
        expected = [(a[dim] * b[dim]).sum(1) for dim in sorted(dims)]
        np.testing.assert_allclose(prefix_pair_scores(first, second, sorted(dims), rule), expected, atol=1e-5)


def test_bad_pairs_are_named() -> None:
    with pytest.raises(DataError, match="not 2 and 3"):
        prefix_pair_scores(np.ones((2, 4)), np.ones((3, 4)), [4])
    with pytest.raises(DataError, match="the second vectors have 3 entries a row, but 4"):
        prefix_pair_scores(np.ones((2, 4)), np.ones((2, 3)), [3])
    zero = np.ones((3, 4))
    zero[1, :2] = 0
    with pytest.raises(DataError, match="first 2 entries of row 1 of the second vectors"):
        prefix_pair_scores(np.ones((3, 4)), zero, [2, 4])
    assert prefix_pair_scores(np.ones((3, 4)), zero, [2, 4], RAW)[0, 1] == 0
