"""Similarity measures between RDMs, computed for many pairs at once."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.constraints import OneOf, check
from nestling.compare.rdms.pairs import count_stimuli
from nestling.compare.rdms.rdms import aligned
from nestling.compare.similarity.moments import Whitening, bures_distance, bures_similarity
from nestling.cut import name_rows
from nestling.errors import ConfigError, DataError, UndefinedSimilarityWarning
from nestling.kernels.concordance import concordance, dense_ranks

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]
Method = Literal[
    "cosine",
    "pearson",
    "spearman",
    "rho_a",
    "kendall",
    "tau_a",
    "cosine_whitened",
    "pearson_whitened",
    "bures",
    "bures_distance",
    "distance_correlation",
]

_WHITENED = ("cosine_whitened", "pearson_whitened")
_BY_ORDER = ("spearman", "rho_a", "kendall", "tau_a")
_FEWEST_PAIRS = 3
_TINY, _HUGE = 1e-280, 1e280


def compare(a: Any, b: Any, method: Method = "cosine", *, sigma: ArrayLike | None = None) -> Floats:
    """Similarity of every matrix of ``a`` to every one of ``b``, ``Float[len(a), len(b)]``.

    | method | what | range |
    |---|---|---|
    | ``"cosine"``, ``"pearson"`` | of the vectors | -1 to 1 |
    | ``"spearman"`` | Pearson of the ranks, ties averaged | -1 to 1 |
    | ``"rho_a"`` | the same, expected over random orders of the ties of both | -1 to 1 |
    | ``"kendall"`` | tau-b, corrected for ties | -1 to 1 |
    | ``"tau_a"`` | concordant less discordant pairs over all pairs | -1 to 1 |
    | ``"cosine_whitened"``, ``"pearson_whitened"`` | whitened as noisy distances covary | -1 to 1 |
    | ``"bures"`` | of second-moment matrices | 0 to 1 |
    | ``"bures_distance"`` | a metric of the same: SMALLER is more alike | from 0 |
    | ``"distance_correlation"`` | Székely et al. 2007, each matrix taken as distances | 0 to 1 |

    If a model predicts ties, use ``"rho_a"`` or ``"tau_a"``; other rank correlations favour it. Of
    squared Euclidean distances ``"cosine_whitened"`` is linear CKA, and ``"bures"`` is Procrustes
    (:mod:`~nestling.compare.similarity.cka_procrustes`).

    Pairs of stimuli that one of two matrices lacks (NaN) are left out for those two; where a method needs
    whole matrices (the last three) that is an error. Where a value is undefined, as scipy has it - a
    correlation with a matrix whose entries are all equal, a cosine with zeros - it is NaN and a warning
    names the matrix. ``inf`` is largest for methods that look at order alone, and an error for others.

    Args:
        a: RDMs, ``Float[m, n(n-1)/2]`` or one such vector; torch tensors are accepted, nothing is changed.
        b: likewise. Of two RDMs the stimuli are aligned by name.
        method: one of the above.
        sigma: ``Float[n, n]`` or ``Float[n]``: (co)variance of the noise of patterns between stimuli, in the
            order of ``a``, up to scale; for the whitened methods. Equal and independent by default.

    Raises:
        ConfigError: for an unknown method, or a ``sigma`` that the method does not use.
        DataError: for matrices that cannot be used, over other stimuli, with too few pairs in common.

    Source: rho-a and tau-a: Schütt et al. 2023; whitening: Diedrichsen et al. 2021, equations 10 to 13;
    Bures: Harvey et al. 2024.

    >>> compare([[1.0, 2.0, 3.0]], [[2.0, 4.0, 6.0], [3.0, 2.0, 1.0]], "pearson")
    array([[ 1., -1.]])
    """
    first, second = aligned(a, b)
    chosen = comparator(method, first.n, sigma)
    x, y = (usable(rdms.vectors, chosen) for rdms in (first, second))
    found = _by_missing(chosen, x, y)
    _warn_undefined(found, x, y, method)
    return found


@dataclass(frozen=True)
class Comparator:
    """A similarity measure in two steps, so that per-matrix work is done once.

    Args:
        method: its name.
        prepare: ``Float[m, pairs]`` to what ``join`` takes, ``[m, pairs]``, row by row. Stimuli may be put in
            another order before or after it.
        join: two prepared ones to ``Float[ma, mb]``.
        pool: ``Float[m, pairs]`` to rows whose mean is the one matrix that is most like all of them; none
            if it is not known.
        whole: whether matrices are needed whole, with their missing pairs as NaN.
    """

    method: Method
    prepare: Callable[[Floats], NDArray[Any]]
    join: Callable[[NDArray[Any], NDArray[Any]], Floats]
    pool: Callable[[Floats], Floats] | None
    whole: bool = False

    @property
    def by_order(self) -> bool:
        """Whether it looks at the order of entries alone."""
        return self.method in _BY_ORDER

    def similarity(self, a: Floats, b: Floats) -> Floats:
        """``Float[ma, mb]`` of vectors without missing pairs, or, if it is ``whole``, of all of them."""
        return self.join(self.prepare(a), self.prepare(b))


def comparator(method: Method, n: int, sigma: ArrayLike | None = None) -> Comparator:
    """The comparator of a method for matrices over ``n`` stimuli.

    Raises:
        ConfigError: for an unknown method, or a ``sigma`` that it does not use or that has no inverse.
    """
    check("method", method, OneOf(get_args(Method)))
    if method not in _WHITENED:
        if sigma is not None:
            raise ConfigError(f"method={method!r} has no use for sigma; {' and '.join(_WHITENED)} have")
        return _PLAIN[method]
    whitening = Whitening.of(n, sigma)
    centre = _centred if method == "pearson_whitened" else _as_given

    def prepare(x: Floats) -> Floats:
        return whitening.fill(centre(x))

    def join(a: Floats, b: Floats) -> Floats:
        return products(whitening.unit(a), whitening.unit(b))

    def pool(x: Floats) -> Floats:
        filled = prepare(x)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(filled / np.linalg.norm(whitening.apply(filled), axis=(1, 2))[:, None])

    return Comparator(method, prepare, join, pool, whole=True)


def usable(vectors: NDArray[np.floating[Any]], chosen: Comparator) -> Floats:
    """The vectors in float64, if the comparator can use them.

    Raises:
        DataError: for infinite entries, or missing ones that cannot be left out (rows are named).
    """
    x = np.asarray(vectors, np.float64)
    if _is_finite(x):
        return x
    infinite = np.isinf(x).any(axis=1)
    if infinite.any() and not chosen.by_order:
        raise DataError(
            f"{name_rows(np.flatnonzero(infinite), 'of the matrices hold')} infinity, which "
            f"{chosen.method!r} cannot use; methods of order can: {', '.join(_BY_ORDER)}"
        )
    missing = np.isnan(x).any(axis=1)
    if missing.any() and chosen.whole and chosen.method not in _WHITENED:
        raise DataError(
            f"{name_rows(np.flatnonzero(missing), 'of the matrices lack')} pairs (NaN), and "
            f"{chosen.method!r} needs whole matrices; choose stimuli that have all pairs, with at()"
        )
    return x


def products(a: Floats, b: Floats) -> Floats:
    """Inner products of unit vectors, which rounding must not take out of -1 to 1; NaN stays."""
    return np.asarray(np.clip(a @ b.T, -1, 1))


def unit(x: Floats) -> Floats:
    """Rows of length 1; those that are zero become NaN. Huge and tiny entries do not overflow."""
    squares = np.einsum("ij,ij->i", x, x)
    if not ((squares > _TINY) & (squares < _HUGE)).all():
        with np.errstate(invalid="ignore", divide="ignore"):
            x = x / np.abs(x).max(axis=1, keepdims=True)
        squares = np.einsum("ij,ij->i", x, x)
    return np.asarray(x / np.sqrt(squares)[:, None])


def average_ranks(x: Floats) -> Floats:
    """Ranks 1 to ``pairs`` of each row, ties averaged."""
    found = np.empty(x.shape)
    for row, ranks in zip(found, dense_ranks(x), strict=True):
        if ranks.max() == len(ranks) - 1:  # no two are equal
            np.add(ranks, 1, out=row)
            continue
        last = np.cumsum(np.bincount(ranks))
        np.take((np.concatenate([[0], last[:-1]]) + last + 1) / 2, ranks, out=row)
    return found


def _is_finite(x: Floats) -> bool:
    """Whether no entry is NaN, infinite, or so huge that a sum overflows; one pass, nothing is stored."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(x.sum(axis=1)).all())


def _as_given(x: Floats) -> Floats:
    return x


def _centred(x: Floats) -> Floats:
    """Rows less their means over what is not missing; a row of equal entries becomes zero to the last bit."""
    mean = np.mean if _is_finite(x) else np.nanmean
    centred = x - mean(x, axis=1, keepdims=True)
    centred[np.fmin.reduce(x, axis=1) == np.fmax.reduce(x, axis=1)] *= 0  # NaN stays
    return np.asarray(centred)


def _unit_centred(x: Floats) -> Floats:
    return unit(_centred(x))


def _unit_ranks(x: Floats) -> Floats:
    return unit(_centred(average_ranks(x)))


def _rho_a_ranks(x: Floats) -> Floats:
    """Ranks about their mean, by the length they would have without ties."""
    size = x.shape[1]
    return np.asarray((average_ranks(x) - (size + 1) / 2) * np.sqrt(12 / (size**3 - size)))


def _tau_a(a: NDArray[np.int32], b: NDArray[np.int32]) -> Floats:
    return np.asarray(concordance(a, b) / (a.shape[1] * (a.shape[1] - 1) / 2))


def _tau_b(a: NDArray[np.int32], b: NDArray[np.int32]) -> Floats:
    with np.errstate(invalid="ignore"):
        found = concordance(a, b) / np.sqrt(_untied(a))[:, None] / np.sqrt(_untied(b))
        return np.asarray(np.clip(found, -1, 1))


def _untied(ranks: NDArray[np.int32]) -> Floats:
    """Number of pairs of entries that differ, in each row."""
    size = ranks.shape[1]
    untied = np.full(len(ranks), size * (size - 1) / 2)
    for row in np.flatnonzero(ranks.max(axis=1) < size - 1):  # otherwise no two share a rank
        counts = np.bincount(ranks[row])
        untied[row] -= (counts * (counts - 1) // 2).sum()
    return untied


def _distance_correlation(a: Floats, b: Floats) -> Floats:
    whitening = Whitening(count_stimuli(a.shape[1]))
    return np.asarray(np.sqrt(np.abs(products(whitening.unit(a), whitening.unit(b)))))


_PLAIN: dict[Method, Comparator] = {
    "cosine": Comparator("cosine", unit, products, unit),
    "pearson": Comparator("pearson", _unit_centred, products, _unit_centred),
    "spearman": Comparator("spearman", _unit_ranks, products, average_ranks),
    "rho_a": Comparator("rho_a", _rho_a_ranks, products, average_ranks),
    "kendall": Comparator("kendall", dense_ranks, _tau_b, average_ranks),
    "tau_a": Comparator("tau_a", dense_ranks, _tau_a, average_ranks),
    "bures": Comparator("bures", _as_given, bures_similarity, None, whole=True),
    "bures_distance": Comparator("bures_distance", _as_given, bures_distance, None, whole=True),
    "distance_correlation": Comparator(
        "distance_correlation", _as_given, _distance_correlation, None, whole=True
    ),
}


def _by_missing(chosen: Comparator, a: Floats, b: Floats) -> Floats:
    """Similarities of matrices that lack pairs: those that lack the same ones are compared at once."""
    if not (np.isnan(a).any() or np.isnan(b).any()):
        return chosen.similarity(a, b)
    found = np.empty((len(a), len(b)))
    for rows, has in _alike(a):
        for columns, others_have in _alike(b):
            both = has & others_have
            if both.sum() < _FEWEST_PAIRS:
                raise DataError(
                    f"matrix {rows[0]} of the first and {columns[0]} of the second have {both.sum()} pairs "
                    f"of stimuli in common; {_FEWEST_PAIRS} are needed"
                )
            x, y = (_only(values, both, chosen.whole) for values in (a[rows], b[columns]))
            found[np.ix_(rows, columns)] = chosen.similarity(x, y)
    return found


def _alike(x: Floats) -> Iterator[tuple[NDArray[np.int64], Flags]]:
    """Rows that have the same pairs, and which pairs those are."""
    present = ~np.isnan(x)
    patterns, pattern_of = np.unique(np.packbits(present, axis=1), axis=0, return_inverse=True)
    for number in range(len(patterns)):
        rows = np.flatnonzero(pattern_of.ravel() == number)
        yield rows, present[rows[0]]


def _only(x: Floats, kept: Flags, whole: bool) -> Floats:
    if kept.all():
        return x
    return np.where(kept, x, np.nan) if whole else x[:, kept]


def _warn_undefined(found: Floats, a: Floats, b: Floats, method: str) -> None:
    undefined = np.isnan(found)
    if not undefined.any():
        return
    parts = []
    for which, vectors, axis in (("first", a, 1), ("second", b, 0)):
        flat = np.fmin.reduce(vectors, axis=1) == np.fmax.reduce(vectors, axis=1)
        if (named := flat & undefined.any(axis=axis)).any():
            parts.append(f"{name_rows(np.flatnonzero(named))} of the {which} matrices")
    warnings.warn(
        f"{method!r} is undefined (NaN) for {' and '.join(parts) or 'some matrices'}: where compared, all "
        "entries are equal",
        UndefinedSimilarityWarning,
        stacklevel=3,
    )
