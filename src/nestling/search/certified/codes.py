"""The 4-bit codes of a whole matrix: built in a stream, compared with queries, written and read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling import kernels
from nestling.errors import ArtifactError
from nestling.process.blocks import blocks
from nestling.process.progress import watched
from nestling.search.certified.calibration import Calibration
from nestling.search.certified.planes import (
    PlaneWriter,
    Quantiser,
    RotatedQueries,
    planes_of,
    rotate,
    steps_of,
)
from nestling.search.exact.centring import Centring, PreparedQueries

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROWS_AT_A_TIME = 8192
_SAMPLED, _CHECKED = 1024, 64
# With what confidence an exact search looks for its first results, before it proves them.
_SCOUTING = 0.98
_NO_GAIN = np.ones(2)
_WHOLE_RADIUS = np.full(2, 1 + 1e-6)
# Beyond this, products of factors and codes could overflow float32; such a query is compared in full.
_LARGEST_FACTOR = 1e30


@dataclass(frozen=True, eq=False)
class PlaneCodes:
    """Codes of all rows, and what compares queries with them.

    Args:
        quantiser: quantiser of the codes.
        planes: as the kernels read them.
        longest: ``Float64[2]``: length of the longest row of steps, of two bits and of four.
    """

    quantiser: Quantiser
    planes: kernels.TwoPlanes
    longest: Doubles

    @classmethod
    def build(cls, vectors: NDArray[Any], centring: Centring, seed: int) -> Self:
        """Code all vectors, some rows at a time."""
        sample = np.linspace(0, len(vectors) - 1, min(_SAMPLED, len(vectors))).astype(np.int64)
        quantiser = Quantiser.fit(centring.centre(vectors, sample), seed)
        writer = PlaneWriter(*vectors.shape, biased=centring.metric == "euclidean")
        for rows in watched(blocks(len(vectors), _ROWS_AT_A_TIME), "coding", "blocks"):
            codes = quantiser.code(centring.centre(vectors, np.arange(rows.start, rows.stop)))
            writer.write(rows.start, codes)
        return cls(quantiser, writer.planes(), writer.longest)

    @property
    def size_bytes(self) -> int:
        """Bytes of the codes and what belongs to them."""
        planes, coarse = self.planes, self.planes.coarse
        floats = 4 if coarse.bias is None else 5
        return coarse.blocks.nbytes + planes.fine.nbytes + floats * coarse.scale.nbytes

    def probes(
        self, exact: Doubles, prepared: PreparedQueries, calibration: Calibration, confidence: float
    ) -> kernels.Probes:
        """Queries as the kernels take them, with bounds for a confidence; for 1, bounds that always hold."""
        rotated = rotate(prepared.units, self.quantiser.rotation, self.planes.fine.shape[1] * 4)
        normal = calibration.normal(_SCOUTING if confidence == 1 else confidence)
        gains, spreads = calibration.arrays
        likely = self._factors(prepared, rotated, gains, spreads * normal)
        sure = self._factors(prepared, rotated, _NO_GAIN, _WHOLE_RADIUS) if confidence == 1 else None
        sums = rotated.codes.sum(axis=1, dtype=np.int32)
        return kernels.Probes(rotated.codes, sums, likely, sure, exact, prepared.bounds)

    def _factors(
        self, prepared: PreparedQueries, rotated: RotatedQueries, gains: Doubles, radii: Doubles
    ) -> NDArray[np.float32]:
        """Alpha, beta and gamma of both planes: ``Float32[queries, 2, 3]``."""
        factors = np.empty((len(prepared.units), 2, 3), np.float64)
        factors[:, :, 0] = rotated.steps[:, None]
        factors[:, :, 1] = rotated.errors[:, None] * self.longest
        factors[:, :, 2] = radii
        factors *= (prepared.lengths[:, None] * gains)[:, :, None]
        if not np.abs(factors).max() <= _LARGEST_FACTOR:
            factors[(np.abs(factors) > _LARGEST_FACTOR).any(axis=(1, 2))] = np.nan
        return factors.astype(np.float32)

    def calibrate(self, vectors: NDArray[Any], centring: Centring, asked: Ints, answers: Ints) -> Calibration:
        """Compare estimates with the truth for pairs of rows: one as a query, one of its neighbours."""
        dim = vectors.shape[1]
        if not len(asked):
            return Calibration.theoretical(dim)
        parts = np.array_split(np.arange(len(asked)), -(-len(asked) // _ROWS_AT_A_TIME))
        compared = [self._compare(vectors, centring, asked[part], answers[part]) for part in parts]
        shares, truths, estimates, radii = (
            np.concatenate(each, axis=-1) for each in zip(*compared, strict=True)
        )
        gains = (float(shares[0].mean()), float(shares[1].mean()))
        wide = radii * np.array(gains)[:, None]
        errors = (truths - estimates * np.array(gains)[:, None]) / np.maximum(wide, np.finfo(float).tiny)
        return Calibration.fit(gains, errors, dim)

    def _compare(
        self, vectors: NDArray[Any], centring: Centring, asked: Ints, answers: Ints
    ) -> tuple[Doubles, Doubles, Doubles, Doubles]:
        """Per pair: gains and estimates and radii of either code, and the true inner product."""
        queries = vectors[asked].astype(np.float64)
        if centring.inverse_norms is not None:
            queries *= centring.inverse_norms[asked][:, None]
        units = centring.prepare(queries).units
        centred = centring.centre(vectors, answers)
        rotated, coded = rotate(units, self.quantiser.rotation, units.shape[1]), self.quantiser.code(centred)
        products = [np.einsum("ij,ij->i", rotated.codes, each) for each in steps_of(coded.codes)]
        reach = rotated.errors * self.longest[:, None]
        estimates = coded.scales * (np.stack(products) * rotated.steps + reach)
        kept = np.square(coded.lengths) - np.square(coded.radii)
        shares = np.where(kept > 0, np.square(coded.lengths) / np.where(kept > 0, kept, 1), 1)
        return shares, np.einsum("ij,ij->i", units, centred)[None], estimates, coded.radii

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays to store, by name."""
        coarse = self.planes.coarse
        floats = [coarse.scale, coarse.radius, self.planes.fine_scale, self.planes.fine_radius]
        return {
            "coarse": coarse.blocks,
            "fine": self.planes.fine,
            "floats": np.stack(floats if coarse.bias is None else [*floats, coarse.bias]),
            "longest": self.longest,
            "rotation": self.quantiser.rotation,
        }

    @classmethod
    def of_arrays(cls, rows: int, arrays: Mapping[str, NDArray[Any]], step: float) -> Self:
        """The inverse of ``arrays``.

        Raises:
            ValueError: if the arrays do not fit each other or so many rows.
        """
        coarse, fine, floats = (arrays[name] for name in ("coarse", "fine", "floats"))
        rotation, longest = arrays["rotation"], arrays["longest"]
        padded, lines = kernels.padded(rows), kernels.count_lines(len(rotation), 2)
        expected = {
            "coarse": (coarse, (padded // kernels.LANES, lines, 64), np.uint8),
            "fine": (fine, (rows, 4 * lines), np.uint8),
            "floats": (floats, (4 + (len(floats) == 5), padded), np.float32),
            "rotation": (rotation, (len(rotation), len(rotation)), np.float64),
            "longest": (longest, (2,), np.float64),
        }
        for name, (array, shape, dtype) in expected.items():
            if array.shape != shape or array.dtype != dtype or not array.flags.c_contiguous:
                raise ValueError(
                    f"{name} is {array.dtype} of shape {array.shape}, not {dtype.__name__} of {shape}"
                )
        planes = planes_of(rows, coarse, fine, floats)
        return cls(Quantiser(rotation, step), planes, longest)

    def check(self, vectors: NDArray[Any], centring: Centring, where: str) -> None:
        """Compare the codes of some rows with the vectors.

        Raises:
            ArtifactError: if a vector is farther from its codes than they say.
        """
        if len(self.quantiser.rotation) != vectors.shape[1]:
            raise ArtifactError(
                f"the codes in {where} are of {len(self.quantiser.rotation)} dims, the vectors of "
                f"{vectors.shape[1]}"
            )
        rows = np.linspace(0, len(vectors) - 1, min(_CHECKED, len(vectors))).astype(np.int64)
        rotated = centring.centre(vectors, rows) @ self.quantiser.rotation
        blocks = np.unique(rows // kernels.LANES)
        high = kernels.unpack(self.planes.coarse.blocks[blocks], 2).reshape(len(blocks), kernels.LANES, -1)
        codes = high[np.searchsorted(blocks, rows // kernels.LANES), rows % kernels.LANES]
        codes = (codes << np.uint8(2) | kernels.unpack_rows(self.planes.fine[rows]))[:, : rotated.shape[1]]
        both = zip(
            steps_of(codes),
            (self.planes.coarse.scale, self.planes.fine_scale),
            (self.planes.coarse.radius, self.planes.fine_radius),
            strict=True,
        )
        for steps, scale, radius in both:
            apart = np.linalg.norm(rotated - scale[rows][:, None] * steps, axis=1)
            if not (apart <= radius[rows] * (1 + 1e-6) + 1e-30).all():
                raise ArtifactError(f"the codes in {where} are not those of these vectors; build them again")
