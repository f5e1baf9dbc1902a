"""RDMs from patterns, with every common distance estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.compare.rdms.estimation import estimators
from nestling.compare.rdms.estimation.crossvalidation import write_crossnobis, write_poisson_cv
from nestling.compare.rdms.estimation.design import Design, Names, read_patterns
from nestling.compare.rdms.estimation.estimators import Form, RatePrior, check_counts
from nestling.compare.rdms.estimation.noise import whitened, whitener
from nestling.compare.rdms.estimation.products import write_pairs
from nestling.compare.rdms.labels import Label
from nestling.compare.rdms.pairs import count_pairs
from nestling.compare.rdms.rdms import RDMs
from nestling.errors import ConfigError, DataError

Metric = Literal[
    "euclidean", "sqeuclidean", "correlation", "cosine", "mahalanobis", "crossnobis", "poisson", "poisson_cv"
]

_CROSS_VALIDATED = ("crossnobis", "poisson_cv")
_WITH_NOISE = ("mahalanobis", "crossnobis")


@checked(metric=OneOf(get_args(Metric)), block=Whole(1) | None)
def rdm(
    x: Any,
    metric: Metric = "euclidean",
    *,
    stimuli: Names | None = None,
    labels: Mapping[str, Label | Sequence[Label]] | None = None,
    noise: Any = None,
    folds: Names | None = None,
    prior: RatePrior = RatePrior(),
    dtype: DTypeLike | None = None,
    block: int | None = None,
) -> RDMs:
    """The dissimilarities of all pairs of patterns; one matrix, or one for each of several.

    | metric | scipy's ``pdist`` | rsatoolbox's ``calc_rdm`` |
    |---|---|---|
    | ``"euclidean"`` | ``"euclidean"`` | root of p times ``"euclidean"`` |
    | ``"sqeuclidean"`` | ``"sqeuclidean"`` | p times ``"euclidean"`` |
    | ``"correlation"`` | ``"correlation"`` | ``"correlation"`` |
    | ``"cosine"`` | ``"cosine"`` | - |
    | ``"mahalanobis"`` | square of ``"mahalanobis"``, over p | ``"mahalanobis"`` |
    | ``"crossnobis"`` | - | ``"crossnobis"`` |
    | ``"poisson"`` | - | ``"poisson"`` |
    | ``"poisson_cv"`` | - | ``"poisson_cv"`` of each fold, averaged; it keeps that of the last |

    With p channels, the last four are per channel. ``"crossnobis"`` (Walther et al. 2016) is
    ``"mahalanobis"`` cross-validated: without bias, 0 on average for patterns that do not differ, and so
    negative at times; each two folds that show both stimuli count alike. ``"poisson"`` is the symmetrised
    Kullback-Leibler divergence of rates.

    Rows of one stimulus are repeats. Their mean is taken, by folds where there are folds, however many
    each has. A pair of stimuli that no two folds have in common is NaN.

    Products are summed in the precision of the result. In float64 distances keep seven digits, however near
    the patterns are. In float32 they err by about 1e-6 of the largest, and near ones, whose lengths
    would cancel, are computed in float64. Equal patterns are at 0; equal distances of whole numbers are
    equal.

    Memory beside the result, which is n(n-1)/2 numbers per matrix (0.8 GB in float32 for n = 20,000): copies
    of up to 2^25 entries of ``x`` at a time, in float64 and in the precision of the result (for repeats,
    noise and folds of all its entries), and a strip of ``block`` times n numbers. No n x n matrix is made.

    Args:
        x: ``Real[n, p]``, ``Real[m, n, p]`` (m subjects, layers, or points in time), or a mapping from
            names to ``Real[n, p]`` with any p each, which become the label ``"name"``. Arrays, memory maps
            and tensors; never changed.
        metric: one of the above.
        stimuli: name of the stimulus of each row; ``"0"`` to ``"n-1"`` by default. The matrix has them in the
            order in which they first occur.
        labels: of the matrices; see :class:`~nestling.compare.rdms.rdms.RDMs`.
        noise: for ``"mahalanobis"`` and ``"crossnobis"``, the precision of the noise ``Float[p, p]``, or
            ``Float[p]`` without covariances; a mapping with the names of ``x`` gives each its own. See
            :func:`~nestling.compare.rdms.estimation.noise.noise_precision`. None is the identity, with which
            ``"mahalanobis"`` is ``"sqeuclidean"`` over p.
        folds: for ``"crossnobis"`` and ``"poisson_cv"``, which independent measurement (run, session)
            each row is of.
        prior: of Poisson rates.
        dtype: float32 or float64; by default float32 for half and single precision, else float64.
        block: rows computed at a time; by default as many as make a million numbers. It changes no result
            beyond rounding.

    Raises:
        DataError: for patterns that cannot be used: NaN or infinity, rows without variation under
            ``"correlation"`` or of zeros under ``"cosine"``, negative counts (rows named), fewer than 3
            stimuli, other numbers of rows; a precision that does not fit.
        ConfigError: for an unknown metric, or arguments that the metric does not take or lacks.

    >>> rdm([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], stimuli=["a", "b", "c"]).vectors.round(3)
    array([[5.   , 1.   , 4.243]])
    """
    _check_arguments(metric, noise, folds, block)
    names, matrices = _read_matrices(x)
    rows = {len(matrix) for matrix in matrices}
    if len(rows) > 1:
        raise DataError(f"all patterns must be of the same stimuli, but have {sorted(rows)} rows")
    design = Design.read(rows.pop(), stimuli, folds)
    kind = _result_type(matrices, dtype)
    vectors = np.empty((len(matrices), count_pairs(len(design.stimuli))), kind)
    for number, (matrix, out) in enumerate(zip(matrices, vectors, strict=True)):
        own = _noise_of(noise, names, number)
        _Estimate(metric, design, own, prior, block).write(matrix, out)
    if names:
        labels = {"name": names, **(labels or {})}
    return RDMs(vectors, stimuli=design.stimuli, labels=labels, metric=metric)


@dataclass(frozen=True, eq=False)
class _Estimate:
    """The estimator of each matrix."""

    metric: Metric
    design: Design
    noise: Any
    prior: RatePrior
    block: int | None

    def write(self, x: NDArray[Any], out: NDArray[Any]) -> None:
        if self.metric == "crossnobis":
            cells = self.design.cells(x)
            cells = cells if self.noise is None else whitened(cells, whitener(self.noise, x.shape[1]))
            write_crossnobis(cells, out, self.block)
        elif self.metric == "poisson_cv":
            check_counts(x)
            write_poisson_cv(self.design.cells(x), self.prior, out, self.block)
        else:
            form = self._form(self.design.means(x))
            write_pairs(form.chunks, form.scale, out, self.block)
            if form.root:
                np.sqrt(out, out=out)

    def _form(self, x: NDArray[Any]) -> Form:
        match self.metric:
            case "euclidean" | "sqeuclidean":
                return estimators.euclidean(x, root=self.metric == "euclidean")
            case "correlation":
                return estimators.correlation(x)
            case "cosine":
                return estimators.cosine(x)
            case "mahalanobis":
                precision = np.ones(x.shape[1]) if self.noise is None else self.noise
                return estimators.mahalanobis(x, whitener(precision, x.shape[1]))
            case _:
                return estimators.poisson(x, self.prior)


def _check_arguments(metric: str, noise: Any, folds: object, block: int | None) -> None:
    if (folds is not None) != (metric in _CROSS_VALIDATED):
        raise ConfigError(
            f'"{metric}" takes no folds=; {" and ".join(_CROSS_VALIDATED)} do'
            if folds is not None
            else f'"{metric}" is cross-validated and needs folds=, the fold of each row'
        )
    if noise is not None and metric not in _WITH_NOISE:
        raise ConfigError(f'"{metric}" takes no noise=; {" and ".join(_WITH_NOISE)} do')


def _read_matrices(x: Any) -> tuple[tuple[str, ...], list[NDArray[Any]]]:
    """Matrices ``Real[n, p]``, and their names if they have some."""
    if isinstance(x, Mapping):
        matrices = [read_patterns(each, f"the patterns of {name!r}") for name, each in x.items()]
        if not matrices or any(each.ndim != 2 for each in matrices):
            raise DataError("a mapping must hold at least one matrix [stimuli, channels], and nothing else")
        return tuple(map(str, x)), matrices
    values = read_patterns(x)
    return (), [values] if values.ndim == 2 else list(values)


def _noise_of(noise: Any, names: tuple[str, ...], number: int) -> Any:
    """The noise of one matrix: its own by name, or that of all."""
    if not isinstance(noise, Mapping):
        return noise
    name = names[number] if names else ""
    if name not in noise:
        raise DataError(f"noise= lacks {name!r}; give a precision for each name of the patterns")
    return noise[name]


def _result_type(matrices: Sequence[NDArray[Any]], asked: DTypeLike | None) -> np.dtype[Any]:
    if asked is None:
        single = all(each.dtype.kind == "f" and each.dtype.itemsize <= 4 for each in matrices)
        return np.dtype(np.float32 if single else np.float64)
    kind = np.dtype(asked)
    if kind not in (np.float32, np.float64):
        raise ConfigError(f"dtype={kind} cannot hold dissimilarities; choose float32 or float64")
    return kind
