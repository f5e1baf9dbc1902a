"""Principal axes of existing vectors: a rotation whose every prefix is the best linear one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from nestling.arguments.paths import home_path
from nestling.cut import CutRule
from nestling.elastic import Cost
from nestling.encoders.maps.fit_report import FitReport, compare_with_truncation
from nestling.encoders.maps.held_out import FEWEST, MOST, SHARE, HeldOut
from nestling.encoders.maps.vector_map import VectorMap, check_is_fitted, check_rule
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Nesting
from nestling.storage.artifact import read_folder, write_folder
from nestling.vectors.matrix import Sizes, Vectors, blocks_of, read_sizes

if TYPE_CHECKING:
    from nestling.nn.adapter import AffineLayer

_KIND = "pca_rotation"
_WEIGHTS = "rotation.safetensors"
_ARRAYS = ("components", "mean", "energy", "energy_ratio")

Floats = NDArray[np.float64]


@dataclass
class Moments:
    """Count, mean and scatter about the mean of all rows seen, in float64.

    Blocks are merged by the update of Chan et al. 1979, which loses no digits where the mean is large.
    """

    count: int
    mean: Floats
    scatter: Floats

    @classmethod
    def empty(cls, dim: int) -> Self:
        """Moments of no rows."""
        return cls(0, np.zeros(dim), np.zeros((dim, dim)))

    def update(self, block: Vectors) -> None:
        """Count the rows of a block ``Float[rows, dim]``."""
        wide = block.astype(np.float64)
        count, mean = len(wide), wide.mean(axis=0)
        wide -= mean
        step, total = mean - self.mean, self.count + count
        # Overflow here is reported as an error of the data, before the axes are computed.
        with np.errstate(over="ignore", invalid="ignore"):
            self.scatter += wide.T @ wide + np.outer(step, step) * (self.count * count / total)
        self.mean += step * (count / total)
        self.count = total

    def without(self, part: Moments) -> Moments:
        """Moments of the rows that are not in ``part``: the update, undone."""
        count = self.count - part.count
        mean = (self.mean * self.count - part.mean * part.count) / count
        step = part.mean - mean
        apart = np.outer(step, step) * (count * part.count / self.count)
        return Moments(count, mean, self.scatter - part.scatter - apart)

    def second(self, *, centred: bool) -> Floats:
        """The covariance, or the second moment about zero."""
        about_mean = self.scatter / self.count
        with np.errstate(over="ignore"):
            return about_mean if centred else about_mean + np.outer(self.mean, self.mean)


class _Sample:
    """Rows drawn from blocks that come one by one: of all rows alike, however they are divided into blocks.

    Each row draws a number, and those with the smallest are kept.
    """

    def __init__(self) -> None:
        self._seen, self._generator = 0, np.random.default_rng(0)
        self._numbers = np.empty(0)
        self._sides: list[Vectors] = []

    def see(self, *sides: Vectors) -> None:
        """Draw among the rows of a block; the same rows of each side."""
        drawn = self._generator.random(len(sides[0]))
        self._seen += len(drawn)
        largest = self._numbers[-1] if len(self._numbers) == MOST else 1.0
        new = np.sort(np.argpartition(drawn, min(MOST, len(drawn)) - 1)[:MOST])
        new = new[drawn[new] < largest]
        if not len(new):
            return
        numbers = np.concatenate([self._numbers, drawn[new]])
        order = np.argsort(numbers)[:MOST]
        rows = [np.asarray(side[new]) for side in sides]
        if self._sides:
            rows = [np.concatenate(both) for both in zip(self._sides, rows, strict=True)]
        self._numbers, self._sides = numbers[order], [side[order] for side in rows]

    def held_out(self) -> HeldOut:
        """A tenth of the rows that were seen, at most as many as were kept."""
        count = min(self._seen // SHARE, MOST)
        x, *pairs = (side[:count] for side in self._sides)
        return HeldOut(x, pairs[0] if pairs else None)


class PCARotation(VectorMap):
    """Turns vectors into their principal axes, ordered by energy: the baseline of nested embeddings.

    A rotation at full size keeps every inner product, distance and cosine, and of all linear maps to d
    outputs the first d lose the least squared length. It is fitted in one pass, block by block in
    float64, so the data may be larger than memory.

    Args:
        nesting: sizes on the axis ``dim``; by default 8, 16, ... up to the full size.
        n_components: the full size, where no nesting says it; by default that of the vectors.
        center: subtract the mean first, as scikit-learn's ``PCA`` does. That keeps distances but changes
            inner products and cosines, so the default does not: energy is then about zero, not about the
            mean.
        rule: applied to vectors after a cut; None is L2 normalisation, for cosines.

    Attributes:
        report_: after ``fit``, the axes against plain truncation at every size: a tenth of the rows (at most
            800) is compared under the axes of the others, see
            :class:`~nestling.encoders.maps.fit_report.FitReport`. A warning names the sizes where the axes
            are not shown to be better.
        components_: ``Float[dim, features]``, orthonormal rows.
        mean_: ``Float[features]``, subtracted from vectors (zero unless ``center``).
        energy_: ``Float[dim]``, the mean square of each output over the rows fitted.
        energy_ratio_: ``Float[dim]``, the same as share of the whole.
        n_samples_seen_: rows fitted.

    Raises:
        GranularityError: in ``fit``, for sizes that the vectors do not have.
        ConfigError: in ``fit``, for a rule that does something before the cut, or sizes that disagree.

    Source: Pearson 1901; Eckart and Young 1936 for the optimality of every prefix.

    >>> x = np.random.default_rng(0).standard_normal((100, 16)) * np.arange(16)
    >>> rotation = PCARotation("dim=4,16").fit(x)
    >>> rotated = rotation.transform(x)
    >>> bool(np.allclose(rotated @ rotated.T, x @ x.T)), rotation(x, at="dim=4").shape
    (True, (100, 4))
    """

    def __init__(
        self,
        nesting: Sizes = None,
        *,
        n_components: int | None = None,
        center: bool = False,
        rule: CutRule | None = None,
    ) -> None:
        self.nesting = nesting
        self.n_components = n_components
        self.center = center
        self.rule = rule

    def fit(self, X: Any, y: object = None, *, pairs: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Find the axes of ``Float[n, features]``: an array, a memory map, or an iterator of blocks.

        Args:
            X: the vectors.
            y: not used.
            pairs: ``Float[n, features]``, row i belongs with row i of the array ``X``. The axes are then
                those of both, and whether they pay is measured by finding the other of a pair.

        Raises:
            DataError: for another shape or type, or NaN and infinity (rows are named), or another number of
                pairs.
        """
        moments, sample = None, _Sample()
        for block in X if isinstance(X, Iterator) else (X,):
            x = self._read(block, reset=moments is None)
            if pairs is None:
                sides = [x]
            else:
                sides = [x, self._read(pairs, reset=False, what="pairs")]
                if len(x) != len(sides[1]):
                    raise DataError(f"{len(sides[1])} pairs do not belong to {len(x)} rows of X")
            for side in sides:
                moments = _counted(side, moments)
            sample.see(*sides)
        if moments is None:
            raise DataError("the iterator gave no blocks; give at least one, of at least one row")
        self._solve(moments)
        self.report_ = self._compared(moments, sample.held_out())
        self.report_.warn(type(self).__name__, self.n_features_in_)
        return self

    def partial_fit(self, X: Any, y: object = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Add vectors and recompute the axes.

        Raises:
            ConfigError: for a rotation that was loaded or extracted, which keeps no moments.
        """
        if hasattr(self, "components_") and not hasattr(self, "_moments"):
            raise ConfigError(
                "a rotation that was loaded or extracted keeps only its axes and cannot learn further; "
                "fit a new one"
            )
        moments = getattr(self, "_moments", None)
        return self._solve(_counted(self._read(X, reset=moments is None), moments))

    def extract(self, at: At) -> PCARotation:
        """The rotation onto the leading axes alone."""
        granularity = self.nesting.resolve(at)
        part = slice(granularity["dim"])
        small_nesting = self.nesting.up_to(granularity)
        small = PCARotation(small_nesting, center=self.center, rule=self.rule)
        small.components_, small.mean_ = self.components_[part].copy(), self.mean_.copy()
        small.energy_, small.energy_ratio_ = self.energy_[part].copy(), self.energy_ratio_[part].copy()
        small.n_samples_seen_, small.report_ = self.n_samples_seen_, self.report_.up_to(small_nesting)
        return small._fitted_at(small_nesting, self)

    def cost(self, at: At = None) -> Cost:
        """Cost of one vector at one size, given as float32."""
        dim = self.nesting.resolve(at)["dim"]
        parameters = dim * (self.n_features_in_ + bool(self.center))
        return Cost(dim * self.n_features_in_, parameters, parameters * 8, dim * 4)

    def affine_layers(self) -> list[AffineLayer]:
        """The map as a plain layer of torch, in float32."""
        import torch  # a rotation needs none, but to become a module

        from nestling.nn.adapter import AffineLayer

        check_is_fitted(self)
        bias = torch.from_numpy(-self.components_ @ self.mean_).float() if self.center else None
        return [AffineLayer(torch.from_numpy(self.components_).float(), bias, None)]

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder."""
        check_is_fitted(self)
        settings = {
            "center": self.center,
            "n_samples_seen": self.n_samples_seen_,
            "report": self.report_.to_json(),
        }
        arrays = {name: np.ascontiguousarray(getattr(self, f"{name}_")) for name in _ARRAYS}
        with write_folder(folder, _KIND, nesting=self.nesting, rule=self.rule, settings=settings) as path:
            save_file(arrays, path / _WEIGHTS)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Load a saved rotation."""
        manifest = read_folder(folder, _KIND)
        nesting, settings = manifest.read_nesting(), manifest.settings
        rotation = cls(nesting, center=settings["center"], rule=manifest.read_cut())
        for name, value in load_file(home_path(folder) / _WEIGHTS).items():
            setattr(rotation, f"{name}_", value)
        rotation.n_samples_seen_, rotation.nesting_ = settings["n_samples_seen"], nesting
        rotation.n_features_in_ = rotation.components_.shape[1]
        rotation.report_ = FitReport.from_json(settings.get("report"))
        return rotation

    def _solve(self, moments: Moments) -> Self:
        check_rule(self.rule)
        nesting = self._read_nesting()
        second = moments.second(centred=self.center)
        if not np.isfinite(second).all():
            raise DataError("the squares of these vectors are too large for float64; scale the vectors down")
        energy, axes = _principal(second)
        part = slice(nesting.full["dim"])
        self.components_, self.energy_ = axes[part].copy(), energy[part].copy()
        self.energy_ratio_ = self.energy_ / (energy.sum() or 1.0)
        self.mean_ = moments.mean.copy() if self.center else np.zeros_like(moments.mean)
        self.n_samples_seen_, self.nesting_, self._moments = moments.count, nesting, moments
        self.report_ = FitReport()
        return self

    def _compared(self, moments: Moments, held: HeldOut) -> FitReport:
        """The axes of all other rows on those that are held out, beside plain truncation."""
        if len(held.x) < FEWEST or len(self.nesting) == 1:
            return FitReport()
        part = Moments.empty(held.x.shape[1])
        for side in (held.x, held.pairs):
            if side is not None:
                part.update(side)
        rest = moments.without(part)
        _, axes = _principal(rest.second(centred=self.center))
        axes = axes[: self.nesting.full["dim"]].T.astype(np.float32)
        mean = (rest.mean if self.center else np.zeros_like(rest.mean)).astype(np.float32)

        def transform(x: Vectors) -> Vectors:
            return (x.astype(np.float32) - mean) @ axes

        return compare_with_truncation(transform, held, self.nesting, self.rule)

    def _read_nesting(self) -> Nesting:
        given, full = self.__dict__["nesting"], self.n_features_in_
        if self.n_components is None:
            return read_sizes(given, full)
        if not 1 <= self.n_components <= full:
            raise ConfigError(
                f"n_components={self.n_components} does not fit vectors of {full} entries; choose 1 to {full}"
            )
        nesting = read_sizes(given, full if given is not None else self.n_components)
        if nesting.full["dim"] != self.n_components:
            raise ConfigError(
                f"n_components={self.n_components} and the nesting {nesting} name different full sizes; "
                "give one of them"
            )
        return nesting

    def _map(self, x: Vectors, dim: int) -> Vectors:
        wide = x.astype(np.float32) if x.dtype.itemsize < 4 else x
        found: Vectors = (wide - self.mean_.astype(wide.dtype)) @ self.components_[:dim].T.astype(wide.dtype)
        return found


def _counted(x: Vectors, moments: Moments | None) -> Moments:
    """The moments with the rows of a matrix."""
    moments = moments or Moments.empty(x.shape[1])
    for rows in blocks_of(x):
        moments.update(x[rows])
    return moments


def _principal(second: Floats) -> tuple[Floats, Floats]:
    """Energies and axes, the largest first; the largest entry of each axis is above 0."""
    energy, axes = np.linalg.eigh(second)
    energy, axes = energy[::-1].clip(0), axes[:, ::-1].T
    axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    return energy, axes
