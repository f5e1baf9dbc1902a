"""2-bit codes for beam search over a graph: rows and queries are rotated onto their principal axes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.kernels import pack_rows, unpack_rows
from nestling.kernels.graph import LINE_BYTES, QueryEncoder, Residuals, WholeRows, aligned
from nestling.process.progress import watched
from nestling.search.exact.centring import FAR_FOR_GRAPH, Centring, is_far, spans

Doubles = NDArray[np.float64]

_SAMPLED = 50_000
_MOST_LINES = 4
# Share of the variance that the coded directions must hold before another line of codes stops to pay: of
# sentence vectors of 384 dims one line that holds 0.95 is 1.6 times as fast as two at the same recall.
_VARIANCE = 0.85
_WIDTHS = (0.85, 1.0, 1.15)  # of a step, in root mean squares of a row
_LARGEST = 127
_TINY, _SMALL = np.finfo(np.float64).tiny, np.finfo(np.float32).tiny


@dataclass(frozen=True, eq=False)
class Codec:
    """Rotates and codes centred rows.

    Inner products become distances by one more entry, which gives all rows the same
    length (Bachrach et al., 2014), so that one rule chooses the links for all metrics.

    Args:
        basis: ``Float64[entries, entries]``, orthogonal: main directions first, mixed at random.
        coded: number of directions with codes.
        lines: of 64 bytes that a row's code takes.
        metric: ``"cosine"``, ``"dot"`` or ``"euclidean"``.
        longest: squared length that all rows get (``"dot"`` only).
        mean: ``Float64[dim]`` of the rows, if queries are taken relative to it though inner products are
            compared: the mean would take the levels of a query's code. Its part of the estimate of a row
            is then kept with the code.
    """

    basis: Doubles
    coded: int
    lines: int
    metric: str
    longest: float
    mean: Doubles | None = None

    @classmethod
    def fit(cls, vectors: NDArray[Any], centring: Centring, seed: int) -> Self:
        """Main directions of a sample, and as few lines as hold nearly all of the variance."""
        rng = np.random.default_rng(seed)
        longest = _longest(vectors, centring) if centring.metric == "dot" else 0.0
        rows = np.sort(rng.permutation(len(vectors))[:_SAMPLED])
        centred = centring.centre(vectors, rows)
        spread = float(np.square(centred).sum(axis=1).mean())
        is_moved = centring.metric != "euclidean" and is_far(centring.mean, spread, FAR_FOR_GRAPH)
        sample = _lift(centred, centring.metric, longest)
        sample -= sample.mean(axis=0)
        values, directions = np.linalg.eigh(sample.T @ sample)
        values, directions = np.maximum(values[::-1], 0), directions[:, ::-1]
        ends = 8 if centring.metric == "euclidean" or is_moved else 4
        room = [min(4 * (lines * LINE_BYTES - ends), len(values)) for lines in range(1, _MOST_LINES + 1)]
        held = [values[slice(each)].sum() >= _VARIANCE * values.sum() for each in room]
        lines = held.index(True) + 1 if True in held else _MOST_LINES
        coded = room[lines - 1]
        parts = np.split(directions, [coded], axis=1)
        basis = np.concatenate([part @ _rotation(rng, part.shape[1]) for part in parts], axis=1)
        return cls(basis, coded, lines, centring.metric, longest, centring.mean if is_moved else None)

    @property
    def stride(self) -> int:
        """Bytes of a row's code."""
        return self.lines * LINE_BYTES

    @property
    def biased(self) -> bool:
        """Whether estimates depend on a number of the row."""
        return self.metric == "euclidean" or self.mean is not None

    @property
    def columns(self) -> int:
        """Entries of a row of residuals."""
        last = max(4 * self.stride, int(self._places.max()) + 1)
        return -(-last // LINE_BYTES) * LINE_BYTES

    def rotate(self, centred: Doubles) -> Doubles:
        """Centred rows in all directions, of which inner products need one more."""
        return _lift(centred, self.metric, self.longest) @ self.basis

    def towards(
        self, centring: Centring, vectors: NDArray[Any], rows: NDArray[np.int32]
    ) -> tuple[Doubles, Doubles]:
        """Search targets that lead to the neighbours of rows, and the weight of biases for each."""
        lifted = _lift(centring.centre(vectors, rows.astype(np.int64)), self.metric, self.longest)
        if self.metric == "cosine" and not self.biased:  # of length one: the product orders as distances do
            lifted += centring.mean
        # Lifted rows are of one length: their product with all entries orders them, without biases.
        return lifted, np.full(len(rows), self.metric != "dot", np.float64)

    def code(self, rotated: Doubles, out: NDArray[np.uint8]) -> None:
        """Write the codes of rotated rows, with the factor that makes estimates unbiased (RaBitQ, 2024)."""
        main = rotated[:, : self.coded]
        squares = np.einsum("ij,ij->i", main, main)
        best, levels, product = (
            np.full(len(main), -np.inf),
            np.zeros(main.shape, np.uint8),
            np.ones(len(main)),
        )
        for width in _WIDTHS:
            step = np.sqrt(squares / self.coded + _TINY) * width
            tried = np.clip(np.floor(main / step[:, None]) + 2, 0, 3)
            odd = 2 * tried - 3
            along = np.einsum("ij,ij->i", main, odd)
            cosine = along / np.sqrt(np.einsum("ij,ij->i", odd, odd))
            better = cosine > best
            best[better], product[better] = cosine[better], along[better]
            levels[better] = tried[better]
        out[:] = pack_rows(self._placed(levels, 4 * self.stride))
        ends = np.empty((len(main), 2), np.float32)
        ends[:, 1] = np.where(product > 0, squares / np.maximum(product, _TINY), 0)
        ends[:, 0] = self._biases(rotated)
        size = 8 if self.biased else 4
        out[:, -size:] = ends.view(np.uint8)[:, -size:]

    def code_all(
        self, vectors: NDArray[Any], centring: Centring, *, with_residuals: bool
    ) -> tuple[NDArray[np.uint8], WholeRows, Residuals | None]:
        """All rows: codes to search by, codes to choose links by, and the residuals of the former."""
        codes, whole = aligned(len(vectors), self.stride), whole_rows(len(vectors), len(self.basis))
        parts, every = [], np.arange(len(vectors))
        for rows in watched(spans(vectors), "coding", "blocks"):
            rotated = self.rotate(centring.centre(vectors, every[rows]))
            self.code(rotated, codes[rows])
            write_whole(whole, rows, rotated)
            if with_residuals:
                parts.append(self.residuals(rotated, codes[rows]))
        return codes, whole, Residuals.joined(parts) if parts else None

    def fits(self, centring: Centring, vectors: NDArray[Any], codes: NDArray[np.uint8]) -> bool:
        """Whether some of these codes are those of the vectors."""
        rows = np.linspace(0, len(vectors) - 1, min(64, len(vectors))).astype(np.int64)
        again = np.empty((len(rows), self.stride), np.uint8)
        self.code(self.rotate(centring.centre(vectors, rows)), again)
        # Products of matrices may round another way on another machine: a few levels in a thousand.
        return float(np.mean(again == codes[rows])) > 0.9

    def residuals(self, rotated: Doubles, codes: NDArray[np.uint8]) -> Residuals:
        """8-bit codes of what the codes of rotated rows leave out."""
        factors = np.ascontiguousarray(codes[:, -4:]).view(np.float32).astype(np.float64)
        rest = self._placed(rotated, self.columns)
        levels = unpack_rows(codes)[:, self._places[: self.coded]]
        rest[:, self._places[: self.coded]] -= factors * (2.0 * levels - 3)
        steps = (np.maximum(np.abs(rest).max(axis=1), _TINY) / _LARGEST).astype(np.float32)
        divisors = np.maximum(steps, _SMALL)[:, None]
        values = np.clip(np.rint(rest / divisors), -_LARGEST, _LARGEST).astype(np.int8)
        return Residuals(values, steps)

    def query_encoder(self, centring: Centring, *, whole: bool = False) -> QueryEncoder:
        """The encoder of queries; if ``whole``, in all directions, as residuals need them."""
        shown = (len(self.basis), self.columns) if whole else (self.coded, 4 * self.stride)
        basis = self._placed(self.basis[:, : shown[0]].astype(np.float32), shown[1])
        mean = np.ascontiguousarray(centring.mean)
        is_cosine, products = self.metric == "cosine", self.mean is not None
        return QueryEncoder(
            len(mean), 4 * self.stride, basis, mean, centring.scale, is_cosine, self.biased, products
        )

    def _biases(self, rotated: Doubles) -> Doubles:
        """Terms added to estimates of distances, and of inner products with a shifted query."""
        if self.mean is not None:
            return np.asarray(rotated @ (self.mean @ self.basis[: len(self.mean)]))
        return np.asarray(-np.einsum("ij,ij->i", rotated, rotated) / 2)

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Positions of directions in a code: coded ones at their codes, others in the gaps.

        The four parts of a code end with bytes that hold numbers; they hold entries of other directions.
        """
        ends = 8 if self.biased else 4
        parts = np.arange(4 * self.stride).reshape(4, -1)
        behind = np.arange(4 * self.stride, 4 * self.stride + len(self.basis))
        others = np.concatenate([parts[:, -ends:].ravel(), behind])
        inner = parts[:, :-ends].ravel()[: self.coded]
        return np.concatenate([inner, others[: len(self.basis) - self.coded]])

    def _placed(self, entries: NDArray[Any], width: int) -> NDArray[Any]:
        """Entries of the first directions in their places."""
        placed = np.zeros((len(entries), width), entries.dtype)
        placed[:, self._places[: entries.shape[1]]] = entries
        return placed


def whole_rows(rows: int, entries: int) -> WholeRows:
    """Room for 8-bit codes of rotated rows."""
    width = -(-entries // LINE_BYTES) * LINE_BYTES
    return WholeRows(np.zeros((rows, width), np.int8), np.zeros(rows, np.float32), np.zeros(rows, np.float32))


def write_whole(whole: WholeRows, rows: slice, rotated: Doubles) -> None:
    """Write the 8-bit codes of rotated rows."""
    scales = (np.maximum(np.abs(rotated).max(axis=1), _TINY) / _LARGEST).astype(np.float32)
    divisors = np.maximum(scales, _SMALL)[:, None]
    steps = np.clip(np.rint(rotated / divisors), -_LARGEST, _LARGEST)
    whole.values[rows, : rotated.shape[1]] = steps
    whole.scales[rows] = scales
    whole.norms[rows] = np.square(steps).sum(axis=1) * scales.astype(np.float64) ** 2


def _rotation(rng: np.random.Generator, size: int) -> Doubles:
    return np.asarray(np.linalg.qr(rng.standard_normal((size, size)))[0])


def _lift(centred: Doubles, metric: str, longest: float) -> Doubles:
    if metric != "dot":
        return centred
    rest = longest - np.einsum("ij,ij->i", centred, centred)
    return np.column_stack([centred, np.sqrt(np.maximum(rest, 0))])


def _longest(vectors: NDArray[Any], centring: Centring) -> float:
    every = np.arange(len(vectors))
    blocks = (centring.centre(vectors, every[rows]) for rows in spans(vectors))
    return max(float(np.square(block).sum(axis=1).max()) for block in blocks)
