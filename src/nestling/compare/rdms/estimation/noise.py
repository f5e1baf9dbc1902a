"""Noise normalisation: the precision of channel noise from residuals, and whitened patterns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.arrays import as_array
from nestling.arguments.constraints import OneOf, checked
from nestling.compare.rdms.estimation.design import Design, Names, read_patterns
from nestling.errors import ConfigError, DataError, require

Floats: TypeAlias = NDArray[np.float64]
Shrinkage = Literal["ledoit_wolf", "oas", "schaefer_strimmer", "diagonal", "none"]

_SYMMETRIC = 1e-6  # share of the largest entry by which rounding may part two that should be equal


@checked(shrinkage=OneOf(get_args(Shrinkage)))
def noise_precision(
    residuals: Any,
    shrinkage: Shrinkage = "ledoit_wolf",
    *,
    stimuli: Names | None = None,
    dof: int | None = None,
) -> Floats:
    """The precision (inverse covariance) of noise between channels, for Mahalanobis and crossnobis.

    Memory is that of the residuals and four ``Float[p, p]`` in float64, however many residuals there are:
    1.6 GB for 7,000 channels; ``"diagonal"`` needs none of the latter.

    Args:
        residuals: ``Float[t, p]``, such as those of a regression; with ``stimuli`` the patterns of single
            trials, from which the mean of their stimulus is taken away.
        shrinkage: ``"ledoit_wolf"`` (Ledoit & Wolf 2004) and ``"oas"`` (Chen et al. 2010) towards a
            multiple of the identity, from scikit-learn; ``"schaefer_strimmer"`` (Schäfer & Strimmer 2005)
            towards the variances; ``"diagonal"`` the variances alone; ``"none"`` the plain estimate,
            which needs more residuals than channels. rsatoolbox calls the first ``shrinkage_eye``, the
            third ``shrinkage_diag``, the last two ``diag`` and ``full``.
        stimuli: name of the stimulus of each row.
        dof: degrees of freedom, by default t - 1, or t - n with n ``stimuli``; take off those that a
            regression used.

    Returns:
        ``Float[p, p]``; for ``"diagonal"`` ``Float[p]``, the precision of each channel.

    Raises:
        DataError: for residuals that cannot be used, channels that do not vary (named), or too few
            residuals for the estimate asked for.
        ConfigError: for an unknown shrinkage, or degrees of freedom below 1.
        MissingExtraError: if scikit-learn is needed and not installed.
    """
    centred, natural = _centred(residuals, stimuli)
    freedom = natural if dof is None else dof
    if freedom < 1:
        raise ConfigError(f"{freedom} degrees of freedom are left; give more residuals than means")
    if len(flat := np.flatnonzero(~centred.any(axis=0))):
        channels = ", ".join(map(str, flat[:5]))
        raise DataError(f"the residuals do not vary in channel {channels}; leave such channels out")
    if shrinkage == "diagonal":
        return np.asarray(freedom / np.einsum("ij,ij->j", centred, centred))
    if shrinkage == "none" and freedom < centred.shape[1]:
        raise DataError(
            f"{freedom} degrees of freedom do not suffice for {centred.shape[1]} channels without "
            'shrinkage; use "ledoit_wolf"'
        )
    covariance = _COVARIANCES[shrinkage](centred, freedom)
    try:
        precision = np.linalg.inv(covariance)
    except np.linalg.LinAlgError as error:
        raise DataError("the covariance of the residuals has no inverse; shrink it") from error
    return np.asarray((precision + precision.T) / 2)


def whitener(noise: Any, channels: int) -> Floats:
    """A factor of a precision: ``x * w`` of one for each channel, ``x @ w`` of a matrix.

    Raises:
        DataError: for another shape than ``Float[p, p]`` or ``Float[p]``, or one that is not finite,
            symmetric and positive definite.
    """
    given = as_array(noise, "noise=")
    if given.shape not in ((channels,), (channels, channels)) or given.dtype.kind not in "fiu":
        raise DataError(
            f"noise= must be a precision [{channels}, {channels}], or [{channels}] without covariances, not "
            f"{given.dtype} of shape {given.shape}; noise_precision() estimates one"
        )
    precision = given.astype(np.float64)
    wrong = (
        "the precision of noise= must be positive definite, without NaN; noise_precision() gives such ones"
    )
    if not np.isfinite(precision).all() or (precision.ndim == 1 and (precision <= 0).any()):
        raise DataError(wrong)
    if precision.ndim == 1:
        return np.sqrt(precision)
    if np.abs(precision - precision.T).max() > _SYMMETRIC * np.abs(precision).max():
        raise DataError("the precision of noise= must be symmetric")
    try:
        return np.asarray(np.linalg.cholesky(precision), np.float64)
    except np.linalg.LinAlgError as error:
        raise DataError(wrong) from error


def whitened(x: NDArray[Any], factor: Floats) -> Floats:
    """``x[..., p]`` in coordinates in which the noise is the same in all directions."""
    return np.asarray(x * factor if factor.ndim == 1 else x @ factor, np.float64)


def _centred(residuals: Any, stimuli: Names | None) -> tuple[Floats, int]:
    """Residuals without their means, and the degrees of freedom that are left."""
    given = read_patterns(residuals, "the residuals")
    if given.ndim != 2:
        raise DataError(f"the residuals must be a matrix, one row each, not of shape {given.shape}")
    values = np.array(given, np.float64)
    if stimuli is None:
        values -= values.mean(axis=0)
        return values, len(values) - 1
    design = Design.read(len(given), stimuli, None)
    values -= design.means(given)[design.rows]
    return values, len(given) - len(design.stimuli)


def _from_sklearn(name: str) -> Callable[[Floats, int], Floats]:
    def estimate(centred: Floats, dof: int) -> Floats:
        covariance = require("sklearn.covariance", "sklearn")
        fitted = getattr(covariance, name)(store_precision=False, assume_centered=True).fit(centred)
        return np.asarray(fitted.covariance_ * (len(centred) / dof))

    return estimate


def _schaefer_strimmer(centred: Floats, dof: int) -> Floats:
    """Covariances shrunk by the share of the squared correlations that sampling alone explains."""
    covariance = centred.T @ centred / dof
    variances = np.diag(covariance).copy()
    unit = centred / np.sqrt(variances)
    correlations = covariance / np.sqrt(np.outer(variances, variances))
    squared = np.einsum("ij,ij->", correlations, correlations) - len(variances)
    # Of the products u_i u_j of every residual, the squares off the diagonal: no product is formed.
    products = (unit**2).sum(axis=1) @ (unit**2).sum(axis=1) - (unit**4).sum()
    sampling = len(centred) / dof**2 * (products / dof - squared)
    covariance *= 1 - (min(max(sampling / squared, 0.0), 1.0) if squared > 0 else 1.0)
    np.fill_diagonal(covariance, variances)
    return np.asarray(covariance)


_COVARIANCES: dict[str, Callable[[Floats, int], Floats]] = {
    "ledoit_wolf": _from_sklearn("LedoitWolf"),
    "oas": _from_sklearn("OAS"),
    "schaefer_strimmer": _schaefer_strimmer,
    "none": lambda centred, dof: np.asarray(centred.T @ centred / dof),
}
