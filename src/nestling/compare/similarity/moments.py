"""Second-moment matrices: inner products recovered from distances, whitened and compared.

A vector of squared distances is the linear image of the centred second-moment matrix ``G = -H D H / 2``,
with ``D`` the vector as a square matrix and ``H`` the centring matrix. Noise of covariance ``sigma`` between
stimuli gives distances the covariance ``V[ij, kl] = ((e_i - e_j)' sigma (e_k - e_l))**2``. Its inverse is
never made: with ``W`` the inverse of ``sigma`` among centred patterns, ``v' V^-1 w = tr(D_v W D_w W) / 4``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.compare.rdms.pairs import count_stimuli, first_pairs
from nestling.errors import ConfigError

Floats = NDArray[np.float64]

_LEAST_VARIANCE = 1e-10  # of the largest; smaller variances are not inverted


@dataclass(frozen=True, eq=False)
class Whitening:
    """Removes from dissimilarities the correlations that noise of patterns causes.

    Args:
        n: number of stimuli.
        factor: ``R``, ``Float[n - 1, n]`` with ``R' R = W``; none for centring alone, where ``W = H``.
    """

    n: int
    factor: Floats | None = None

    @classmethod
    def of(cls, n: int, sigma: ArrayLike | None = None) -> Whitening:
        """Whitening by the noise (co)variance between stimuli, ``Float[n, n]`` or ``Float[n]``, up to scale.

        Raises:
            ConfigError: for one of another shape, or that has no inverse among differences of stimuli.
        """
        if sigma is None:
            return cls(n)
        given = np.asarray(sigma, np.float64)
        given = np.diag(given) if given.ndim == 1 else given
        if given.shape != (n, n) or not np.isfinite(given).all() or not np.allclose(given, given.T):
            raise ConfigError(
                f"sigma must be finite and symmetric [{n}, {n}], or variances [{n}], one for each stimulus; "
                f"it is of shape {np.shape(sigma)}"
            )
        basis = np.linalg.eigh(_centring(n))[1][:, 1:]  # of all patterns that sum to zero
        values, vectors = np.linalg.eigh(basis.T @ given @ basis)
        if values[0] <= _LEAST_VARIANCE * abs(values[-1]):
            raise ConfigError(
                "sigma is not positive definite among differences of stimuli, so it cannot whiten; shrink it "
                "towards its diagonal"
            )
        return cls(n, np.asarray((vectors / np.sqrt(values)).T @ basis.T))

    @property
    def weights(self) -> Floats:
        """``W``, ``Float[n, n]``."""
        return _centring(self.n) if self.factor is None else np.asarray(self.factor.T @ self.factor)

    def apply(self, vectors: Floats) -> Floats:
        """``R D R'`` of each vector, ``Float[m, r, r]``: their inner products are 4 times ``v' V^-1 w``."""
        whole = squares(vectors)
        if self.factor is not None:
            return np.asarray(self.factor @ whole @ self.factor.T)
        means = whole.mean(axis=1, keepdims=True)
        return np.asarray(whole - means - means.swapaxes(1, 2) + means.mean(axis=2, keepdims=True))

    def unit(self, vectors: Floats) -> Floats:
        """Whitened vectors of length 1, ``Float[m, r * r]``; NaN where a vector is zero."""
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = vectors / np.abs(vectors).max(axis=1, keepdims=True)
            flat = self.apply(scaled).reshape(len(vectors), -1)
            return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))

    def fill(self, vectors: Floats) -> Floats:
        """Vectors in which missing pairs (NaN) say nothing: they are what the others make most likely.

        Then the whitened inner products of whole vectors are those of the pairs that are there (a Schur
        complement), for vectors that all lack the same pairs.
        """
        missing = np.isnan(vectors).any(axis=0)
        if not missing.any():
            return vectors
        weights = self.weights
        filled = np.where(missing, 0.0, vectors)
        i, j = (side[missing] for side in np.triu_indices(self.n, 1))
        # V^-1 of two pairs, ij and kl, is (W[ik] W[jl] + W[il] W[jk]) / 2; of a vector, half of W D W.
        among = weights[np.ix_(i, i)] * weights[np.ix_(j, j)] + weights[np.ix_(i, j)] * weights[np.ix_(j, i)]
        pulls = (weights @ squares(filled) @ weights)[:, i, j]
        filled[:, missing] = -np.linalg.solve(among, pulls.T).T
        return filled


def squares(vectors: Floats) -> Floats:
    """Whole matrices with a zero diagonal, ``Float[m, n, n]``."""
    n = count_stimuli(vectors.shape[1])
    found = np.zeros((len(vectors), n, n))
    for row, start in enumerate(first_pairs(n)[:-1]):
        part = vectors[:, start : start + n - row - 1]
        found[:, row, row + 1 :] = part
        found[:, row + 1 :, row] = part
    return found


def bures_similarity(a: Floats, b: Floats) -> Floats:
    """Fidelity of second-moment matrices over the root of their traces' product, ``Float[ma, mb]``.

    Of dissimilarities that are no squared Euclidean distances the negative eigenvalues are left out.
    """
    first, second = _roots(a), _roots(b)
    with np.errstate(invalid="ignore"):
        scaled = _fidelities(first, second) / np.sqrt(np.outer(_traces(first), _traces(second)))
    return np.asarray(np.clip(scaled, 0, 1))


def bures_distance(a: Floats, b: Floats) -> Floats:
    """``sqrt(tr A + tr B - 2 fidelity)`` of second-moment matrices, a metric, ``Float[ma, mb]``."""
    first, second = _roots(a), _roots(b)
    gaps = np.add.outer(_traces(first), _traces(second)) - 2 * _fidelities(first, second)
    return np.asarray(np.sqrt(np.maximum(gaps, 0)))


def _centring(n: int) -> Floats:
    return np.eye(n) - 1 / n


def _roots(vectors: Floats) -> list[Floats]:
    """For each vector patterns ``Float[n, rank]`` whose inner products are its second moments."""
    n = count_stimuli(vectors.shape[1])
    found = []
    for centred in Whitening(n).apply(vectors):
        values, directions = np.linalg.eigh(-centred / 2)
        kept = values > n * np.finfo(np.float64).eps * values[-1]
        found.append(directions[:, kept] * np.sqrt(values[kept]))
    return found


def _traces(roots: list[Floats]) -> Floats:
    return np.array([np.sum(root * root) for root in roots])


def _fidelities(first: list[Floats], second: list[Floats]) -> Floats:
    """Sums of singular values of the products of all roots."""
    sums = [[np.linalg.svd(x.T @ y, compute_uv=False).sum() for y in second] for x in first]
    return np.array(sums, np.float64).reshape(len(first), len(second))
