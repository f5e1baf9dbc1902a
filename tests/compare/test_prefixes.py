"""RDMs at all prefixes in one pass equal those of separate cuts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from nestling.compare.rdms.prefixes import prefix_distances, prefix_rdms
from nestling.cut import RAW, CutRule, cut
from nestling.errors import DataError


@pytest.mark.parametrize("rule", [RAW, CutRule(), CutRule("layer_norm", "l2"), CutRule("layer_norm", "none")])
@given(seed=st.integers(0, 2**32 - 1), sizes=st.sets(st.integers(1, 24), min_size=1, max_size=6))
def test_all_sizes_agree_with_cutting_each_by_itself(rule: CutRule, seed: int, sizes: set[int]) -> None:
    x = np.random.default_rng(seed).normal(size=(9, 24)).astype(np.float32)
    before, dims = x.copy(), sorted(sizes)
    rdms = prefix_rdms(x, dims, rule)
    for dim, found in zip(dims, rdms.vectors, strict=True):
        # The rule before the cut is done in float32, with its rounding; one entry of a unit row is 1 or -1.
        expected = pdist(cut(x, dim, rule).astype(np.float64))
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert rdms.labels["dim"] == tuple(dims)
    assert rdms.metric == "euclidean"
    np.testing.assert_array_equal(x, before)


def test_near_rows_keep_their_digits_and_equal_ones_are_at_zero() -> None:
    """A difference of squared lengths would lose all digits here."""
    rng = np.random.default_rng(0)
    base = 1000 + rng.normal(size=64)
    x = np.stack([base, base, base + 1e-3 * rng.normal(size=64), 2 * base]).astype(np.float32)
    for rule in (RAW, CutRule()):
        for dim, found in zip((16, 64), prefix_distances(x, (16, 64), rule), strict=True):
            expected = pdist(cut(x.astype(np.float64), dim, rule))
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
            assert found[0] == 0


def test_other_numbers_and_memory_maps_are_read() -> None:
    x = np.random.default_rng(0).integers(0, 9, (6, 5))
    whole = prefix_rdms(x.astype(np.float64), [2, 5], RAW)
    np.testing.assert_array_equal(prefix_rdms(x, [2, 5], RAW).vectors, whole.vectors)
    np.testing.assert_array_equal(prefix_rdms(x.astype(np.float16), [2, 5], RAW).vectors, whole.vectors)
    named = prefix_rdms(x, [5], RAW, stimuli=list("abcdef"))
    assert named.stimuli == tuple("abcdef")


def test_what_cannot_be_used_is_named() -> None:
    x = np.ones((4, 3))
    x[2, :2] = 0
    with pytest.raises(DataError, match="first 2 entries of row 2"):
        prefix_rdms(x, [2, 3])
    with pytest.raises(DataError, match="do not fit vectors of 3"):
        prefix_rdms(x, [4])
    x[1, 1] = np.nan
    with pytest.raises(DataError, match="NaN or infinity in row 1"):
        prefix_rdms(x, [3], RAW)
