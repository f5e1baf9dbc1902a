"""Similarity of two sets of patterns without RDMs: CKA and Procrustes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nestling.compare.rdms.estimation.design import read_patterns
from nestling.errors import DataError

Floats = NDArray[np.float64]

_NAMES = ("the first patterns", "the second patterns")
_FEWEST_STIMULI = 3
_FEWEST_DEBIASED = 4
_FLAT = 1e-12  # channels that vary less than this share of the largest entry vary by rounding alone


def linear_cka(x: Any, y: Any, *, debiased: bool = False) -> float:
    """Centred kernel alignment of two sets of patterns, with linear kernels.

    Invariant to rotations and scale of the channels of each. The plain form is biased upwards where there are
    few stimuli for many channels; the debiased one is 0 on average for unrelated patterns, and may be
    negative. The plain form equals ``compare(rdm(x, "sqeuclidean"), rdm(y, "sqeuclidean"),
    "cosine_whitened")``.

    Args:
        x: ``Real[n, p]``, one row per stimulus; numpy or torch, never changed.
        y: ``Real[n, q]``, the same stimuli.
        debiased: with the unbiased estimate of HSIC.

    Returns:
        0 to 1, or with ``debiased`` at most 1.

    Raises:
        DataError: for patterns that cannot be used, of other numbers of stimuli, fewer than 3 of them (4 for
            ``debiased``), or that are the same for all stimuli (for ``debiased``: equally far).

    Source: Kornblith et al. 2019; unbiased HSIC: Song et al. 2012, equation 5.

    >>> x = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(linear_cka(x, x @ [[0.0, 2.0], [-2.0, 0.0]]), 6)
    1.0
    """
    first, second = _read(x, y, _FEWEST_DEBIASED if debiased else _FEWEST_STIMULI)
    hsic = _unbiased_hsic if debiased else _squared_product
    own = [hsic(patterns, patterns) for patterns in (first, second)]
    for patterns, what, size in zip((first, second), _NAMES, own, strict=True):
        if size <= _FLAT * _squared_product(patterns, patterns):
            raise DataError(f"{what} are equally far from each other, so debiased CKA is undefined for them")
    return float(min(hsic(first, second) / np.sqrt(own[0]) / np.sqrt(own[1]), 1.0))


def procrustes(x: Any, y: Any) -> float:
    """Fit of one set of patterns to another after the best rotation, reflection, shift and scaling.

    The nuclear norm of the product of both, centred and of Frobenius norm 1: 1 if they are the same but for
    those. With the value ``s``, the Procrustes distance of the normalised patterns is ``sqrt(2 - 2 * s)``,
    their angular distance ``arccos(s)``, scipy's ``disparity`` ``1 - s**2``. It equals
    ``compare(rdm(x, "sqeuclidean"), rdm(y, "sqeuclidean"), "bures")``.

    Args:
        x: ``Real[n, p]``, one row per stimulus; numpy or torch, never changed.
        y: ``Real[n, q]``, the same stimuli; the numbers of channels may differ.

    Returns:
        0 to 1.

    Raises:
        DataError: for patterns that cannot be used, of other numbers of stimuli, fewer than 3 of them, or
            that are the same for all stimuli.

    Source: Williams et al. 2021, equation 6; its identity with Bures: Harvey et al. 2024.
    """
    first, second = (patterns / np.linalg.norm(patterns) for patterns in _read(x, y, _FEWEST_STIMULI))
    if min(first.shape[1], second.shape[1]) > len(first):
        # Inner products of channels are those of as many coordinates as there are stimuli.
        first, second = (np.asarray(np.linalg.qr(patterns.T, mode="r")).T for patterns in (first, second))
    return float(min(np.linalg.svd(first.T @ second, compute_uv=False).sum(), 1.0))


def _read(x: Any, y: Any, fewest: int) -> tuple[Floats, Floats]:
    """Both centred, of entries up to 1."""
    first, second = _centred(x, _NAMES[0]), _centred(y, _NAMES[1])
    if len(first) != len(second):
        raise DataError(
            f"patterns of {len(first)} and {len(second)} stimuli cannot be compared; give one row for each, "
            "the same ones in the same order"
        )
    if len(first) < fewest:
        raise DataError(f"{len(first)} stimuli are too few; give at least {fewest}")
    return first, second


def _centred(given: Any, what: str) -> Floats:
    values = read_patterns(given, what)
    if values.ndim != 2:
        raise DataError(f"{what} must be [stimuli, channels], not of shape {values.shape}")
    wide = values.astype(np.float64)
    largest = np.abs(wide).max() or 1.0
    wide -= wide.mean(axis=0)
    spread = np.abs(wide).max()
    if spread <= _FLAT * largest:
        raise DataError(f"{what} are the same for all stimuli; choose channels that vary")
    return np.asarray(wide / spread)


def _squared_product(x: Floats, y: Floats) -> float:
    """``tr(X X' Y Y')``, by whichever of both products is smaller."""
    if x.shape[1] * y.shape[1] <= len(x) ** 2:
        return float(np.square(x.T @ y).sum())
    return float(np.vdot(x @ x.T, y @ y.T))


def _unbiased_hsic(x: Floats, y: Floats) -> float:
    """HSIC of kernels without their diagonals, which are never made (Song et al. 2012, equation 5)."""
    n = len(x)
    own = [np.square(patterns).sum(axis=1) for patterns in (x, y)]
    # Patterns are centred: a row of their kernel sums to 0, less the diagonal.
    product = _squared_product(x, y) - own[0] @ own[1]
    totals = own[0].sum() * own[1].sum() / ((n - 1) * (n - 2))
    return float((product + totals - 2 / (n - 2) * (own[0] @ own[1])) / (n * (n - 3)))
