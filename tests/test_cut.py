"""The cut rule: numpy and torch agree, normalisation follows the cut, refusals."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import normalize

from nestling.cut import RAW, CutRule, check_vectors, cut, cut_each, name_rows
from nestling.errors import ConfigError, DataError, UntrainedGranularityWarning
from nestling.granularity import Nesting

# Entries of at least 0.01 keep the norms away from the threshold at which a row counts as zero.
matrices = arrays(np.float64, (5, 12), elements=st.floats(0.01, 10) | st.floats(-10, -0.01))


@given(matrices, st.integers(1, 12))
def test_each_prefix_is_normalised_on_its_own(x: np.ndarray, dim: int) -> None:
    np.testing.assert_allclose(cut(x, dim), normalize(x[:, :dim]), atol=1e-12)


@given(matrices, st.integers(1, 12), st.sampled_from(["none", "layer_norm"]), st.sampled_from(["none", "l2"]))
def test_numpy_and_torch_cut_alike(x: np.ndarray, dim: int, before: str, after: str) -> None:
    rule = CutRule(before, after)  # type: ignore[arg-type]
    spread = np.ptp(x, axis=1)
    assume(before == "none" or ((spread == 0) | (spread > 1e-3)).all())  # else rounding is what remains
    kept = x.copy()
    try:
        ours = cut(x, dim, rule)
    except DataError:
        # A row of equal entries has nothing left after layer normalisation.
        assert before == "layer_norm"
        return
    np.testing.assert_allclose(ours, cut(torch.from_numpy(x), dim, rule).numpy(), rtol=1e-6, atol=1e-8)
    np.testing.assert_array_equal(x, kept)


@given(matrices, st.sampled_from(["none", "layer_norm"]), st.sampled_from(["none", "l2"]))
def test_what_was_cut_can_be_cut_further(x: np.ndarray, before: str, after: str) -> None:
    assume((np.ptp(x, axis=1) > 0.01).all())
    rule = CutRule(before, after)  # type: ignore[arg-type]
    try:
        expected = cut(x, 3, rule)
    except DataError:  # entries that equal the mean are zero after layer normalisation
        assume(False)
    np.testing.assert_allclose(cut(cut(x, 8, rule), 3, rule.again), expected, rtol=1e-6, atol=1e-9)


def test_equal_entries_have_no_direction_after_layer_norm() -> None:
    x = np.full((2, 12), -8.06045837)  # its mean is off by a rounding
    x[1] = np.arange(12)
    with pytest.raises(DataError, match="row 0 are all zero"):
        cut(x, 4, CutRule(before="layer_norm"))


def test_layer_norm_comes_before_the_cut() -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.normalize(torch.nn.functional.layer_norm(x, (8,))[:, :4], dim=1)
    torch.testing.assert_close(cut(x, 4, CutRule(before="layer_norm")), expected)


def test_cuts_at_several_sizes_agree_with_single_cuts() -> None:
    x = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    for dim, prefix in cut_each(x, [2, 8, 16]).items():
        np.testing.assert_array_equal(prefix, cut(x, dim))


def test_half_precision_is_normalised_in_single() -> None:
    x = np.full((1, 64), 60_000, dtype=np.float16)  # its squares overflow half precision
    assert cut(x, 64).dtype == np.float16
    np.testing.assert_allclose(cut(x, 64), 1 / 8, rtol=1e-3)


@pytest.mark.parametrize("dim", [0, -1, 13])
def test_sizes_that_do_not_fit_are_refused(dim: int) -> None:
    with pytest.raises(DataError, match=r"choose 1 to 12"):
        cut(np.ones((2, 12)), dim)


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_rows_that_cannot_be_normalised_are_named(bad: float) -> None:
    x = np.ones((6, 4))
    x[4, :2] = bad
    with pytest.raises(DataError, match="row 4"):
        cut(x, 2)
    assert cut(x, 2, RAW).shape == (6, 2)


def test_a_torch_row_of_zeros_stays_zero_with_a_finite_gradient() -> None:
    x = torch.zeros(1, 4, requires_grad=True)
    cut(x, 2).sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()
    assert not cut(x, 2).any()


def test_untrained_sizes_warn_and_name_the_trained() -> None:
    with pytest.warns(UntrainedGranularityWarning, match=r"dim 12 was not trained.*8, 16"):
        cut(np.ones((1, 16)), 12, trained=Nesting.parse("dim=8,16"))


def test_unknown_rules_name_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'layer_norm'"):
        CutRule(before="layernorm")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.array([["a"]]), "floats"),
        (np.ones(3), "matrix"),
        (np.ones((0, 3)), "empty"),
        (np.ones((3, 0)), "empty"),
        (np.array([[1.0], [np.nan], [np.inf]]), r"2 rows \(1, 2\)"),
        (np.ones((2, 2), dtype=complex), "floats"),
    ],
)
def test_vectors_are_checked(x: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        check_vectors(x)


def test_checked_vectors_of_another_width_are_refused() -> None:
    with pytest.raises(DataError, match="3 entries a row, but 4 are expected"):
        check_vectors(np.ones((2, 3)), dim=4)
    assert check_vectors([[1, 2], [3, 4]]).dtype == np.float32


def test_many_rows_are_named_shortly() -> None:
    assert name_rows([3]) == "row 3"
    assert name_rows(list(range(9))) == "9 rows (0, 1, 2, 3, 4, ...)"


def test_nothing_else_in_the_package_slices_embeddings() -> None:
    """A leading slice to some ``dim`` on the last axis stands in cut.py alone."""
    pattern = re.compile(r"(?<!weight)\[(\.\.\.|:), ?:\w*dims?\b")
    package = Path(inspect.getfile(cut)).parent
    assert pattern.search("x[:, :dim]")
    for path in package.rglob("*.py"):
        assert path.name == "cut.py" or not pattern.search(path.read_text()), path
