"""Codes of a prefix: rows as bytes, and faiss indexes over them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, cut
from nestling.errors import ArtifactError
from nestling.kernels import StoredRows
from nestling.search.exact.centring import FAR_FOR_CODES, FAR_FOR_COPIES, is_far
from nestling.search.exact.faiss_arrays import Codes, faiss, view, view_lists
from nestling.search.exact.reranker import Fetch
from nestling.search.exact.space import Floats, Ints, Space

if TYPE_CHECKING:
    from nestling.search.stages.coded_scan import CodedScan

Doubles = NDArray[np.float64]

# Quantisation errors along a distant mean matter most for queries near it. A factor of 4 serves these queries
# and others well.
_STRETCH = 4.0


@dataclass(frozen=True, eq=False)
class Code:
    """A trained code; it does not change any more.

    Attributes:
        scan: the kind of code, with its prefix as a number.
        space: metric of comparisons.
        trained: an empty faiss index that encodes and decodes.
        rotation: ``Float[dim, dim]`` applied to prefixes before they are encoded, if any.
        energy: ``Float[dim as built]``, mean square of each entry; longer than ``scan.dim`` for slices.
        centres: ``Float[lists, dim]``, mean of each list, for codes of residuals.
        origin: ``Float64[dim]``, the mean of the rows, subtracted before they are encoded; only if it is far
            from zero, where a common offset would take up the digits in which rows differ.
        stretch: ``Float64[1]``, for inner products by a product quantiser: the factor by which rows are
            stretched along ``origin``, and queries shrunk, so that products stay the same.
    """

    scan: CodedScan
    space: Space
    trained: Any
    rotation: Floats | None = None
    energy: Floats | None = None
    centres: Floats | None = None
    origin: Doubles | None = None
    stretch: Doubles | None = None

    @classmethod
    def train_copy(cls, scan: CodedScan, space: Space, sample: Floats, seed: int) -> Self:
        """A code for copies that re-ranking decodes, of differences from a distant mean."""
        origin = _far_mean(sample, FAR_FOR_COPIES)
        return cls._train_moved(scan, space, sample, seed, origin)

    @classmethod
    def train(
        cls,
        scan: CodedScan,
        space: Space,
        sample: Floats,
        seed: int,
        lists: Ints | None = None,
        count: int = 0,
    ) -> Self:
        """A code learned from a sample of prefixes, of differences from the mean if that is far from zero.

        Args:
            scan: the kind of code.
            space: metric of comparisons.
            sample: ``Float[rows, dim]``, prefixes as ``space`` prepares them.
            seed: of a random rotation; all else is fixed.
            lists: the inverted list of each row of the sample, if there are lists.
            count: the number of lists.

        Raises:
            ConfigError: if the sample has fewer rows than a product quantiser has centroids.
        """
        scan.check_rows(len(sample))
        origin = _far_mean(sample, FAR_FOR_CODES) if scan.moves_mean else None
        return cls._train_moved(scan, space, sample, seed, origin, lists, count)

    @classmethod
    def _train_moved(
        cls,
        scan: CodedScan,
        space: Space,
        sample: Floats,
        seed: int,
        origin: Doubles | None,
        lists: Ints | None = None,
        count: int = 0,
    ) -> Self:
        trained = scan.empty(space.faiss_metric(is_slice_or_moved=origin is not None))
        is_stretched = origin is not None and scan.stretches and not _is_by_distance(trained)
        stretch = np.array([_STRETCH]) if is_stretched else None
        rows = _moved(sample, origin, stretch)
        rotation = scan.rotation(rows, seed, trained)
        rotated = rows if rotation is None else np.ascontiguousarray(rows @ rotation.T)
        trained.train(rotated)
        # Mean square of each entry, from which the length of slices follows.
        energy = np.mean(sample * sample, axis=0) if space.is_normalised and scan.is_scalar else None
        centres = None
        if scan.is_relative and lists is not None:
            centres = _means(rotated, lists, count)
        return cls(scan, space, trained, rotation, energy, centres, origin, stretch)

    @property
    def dim(self) -> int:
        """The prefix that is encoded."""
        return self.scan.size

    @property
    def is_sliced(self) -> bool:
        """Whether the codes are slices of codes of unit vectors, so that rows are shorter than one."""
        return self.energy is not None and len(self.energy) > self.dim

    def cut(self, dim: int) -> Code:
        """The code of a shorter prefix, without training.

        Raises:
            ConfigError: for codes that mix all entries, or a prefix that does not end at a byte.
        """
        if dim == self.dim:
            return self
        scan = replace(self.scan, dim=dim)
        scan.check_cut(self.scan)
        scan.check_size()
        is_sliced = self.space.is_normalised and scan.is_scalar
        trained = scan.empty(self.space.faiss_metric(is_slice_or_moved=is_sliced))
        scan.copy_trained(self.trained, trained)
        trained.is_trained = True
        origin = None if self.origin is None else self.origin[:dim]
        return replace(self, scan=scan, trained=trained, origin=origin)

    def slices(self, codes: Codes) -> Codes:
        """A copy of the part of longer ``codes`` that this code reads."""
        return np.ascontiguousarray(codes[:, : self.trained.sa_code_size()])

    def readable(self, codes: Codes) -> Codes:
        """``codes``, which may be longer, as faiss compares them."""
        return codes

    def rotate(self, x: Floats) -> Floats:
        """Queries or rows as they are compared: rotated where the codes are."""
        return x if self.rotation is None else np.ascontiguousarray(x @ self.rotation.T)

    def query(self, queries: Floats) -> Floats:
        """Queries, as the space prepares them, ready to be compared with codes.

        The squared length of a slice of a unit vector is its share of the energy, and queries are scaled
        likewise. If distances are compared, the origin is subtracted from queries too, which does not change
        the distances.
        """
        if self.is_sliced and self.energy is not None:
            queries = np.asarray(queries * np.sqrt(self.energy[: self.dim].sum()), np.float32)
        if self.origin is not None and _is_by_distance(self.trained):
            queries = _moved(queries, self.origin)
        elif self.origin is not None and self.stretch is not None:
            queries = _stretched(queries, self.origin, 1 / self.stretch[0]).astype(np.float32)
        return self.rotate(queries)

    def scores(self, queries: Floats, distances: Floats) -> Floats:
        """Scores from the distances that faiss returned for whole codes: similarities, or distances.

        Scores of differences from the mean are turned into scores of the rows, which can be compared with
        scores of other codes. Cosines of unit vectors follow from their distances.

        Args:
            queries: ``Float[queries, dim]`` as the space prepares them.
            distances: ``Float[queries, k]``.
        """
        if self.origin is None or self.space.is_rising:
            return self.space.scores(distances)
        if _is_by_distance(self.trained):
            return np.asarray(1 - distances / 2, np.float32)
        return np.asarray(distances + (queries @ self.origin)[:, None], np.float32)

    def encode(self, x: Floats, lists: Ints | None = None) -> Codes:
        """Codes ``UInt8[rows, size]`` of prefixes as the space prepares them."""
        rotated = self.rotate(_moved(x, self.origin, self.stretch))
        if self.centres is None or lists is None:
            return np.asarray(self.trained.sa_encode(rotated))
        quantiser, index = self._inverted(len(self.centres))
        codes = np.empty((len(x), index.code_size), np.uint8)
        numbers = np.ascontiguousarray(lists, np.int64)
        index.encode_vectors(*map(_pointer, (len(x), rotated, numbers, codes)), False)
        del quantiser
        return codes

    def decode(self, codes: Codes) -> NDArray[Any]:
        """The decoded vectors, ``Float[rows, dim]``; longer codes are read up to ``dim``."""
        decoded = np.asarray(
            self.scan.reading(self.trained, codes.shape[1]).sa_decode(np.ascontiguousarray(codes))
        )
        return decoded if self.origin is None else decoded + self.origin

    def fetch(self, codes: Codes, positions: Callable[[Ints], Ints] | None = None) -> Fetch:
        """A function that decodes prefixes of rows; ``positions`` maps rows to their places in ``codes``."""
        where = positions or (lambda rows: rows)
        return lambda rows: self.decode(codes[where(rows)])

    def moved_rows(self, codes: Codes) -> StoredRows | None:
        """Differences from the mean, in half precision, for kernels to score; None if they cannot.

        Unit vectors are compared by distance, from which the cosine follows: the distance keeps more digits
        between near ones.
        """
        if self.is_sliced:
            return None
        by_distance = self.space.is_rising or self.space.is_normalised
        return StoredRows(cut(codes.view(np.float16), self.dim, RAW), None, by_distance)

    def flat(self, codes: Codes, *, is_packed: bool = True) -> Any:
        """A faiss index over all rows, in place; 4-bit and 1-bit codes are packed for speed.

        Args:
            codes: ``UInt8[rows, size]``, kept alive by the caller.
            is_packed: whether to pack; a graph needs rows in place.
        """
        index = faiss.clone_index(self.scan.reading(self.trained, codes.shape[1]))
        index.codes = view(codes.reshape(-1))
        index.ntotal = len(codes)
        return self.scan.packed(index) if is_packed else index

    def lists(self, codes: Codes, rows: Ints, starts: Ints) -> tuple[Any, tuple[Any, ...]]:
        """A faiss index over inverted lists, and the objects that must live as long as it does."""
        quantiser, index = self._inverted(len(starts) - 1, codes.shape[1])
        lists = view_lists(codes, rows, starts)
        index.replace_invlists(lists, False)
        index.ntotal = len(codes)
        index.own_invlists = True  # or a packed index gets no lists of its own
        packed = self.scan.packed_lists(index)
        index.own_invlists = False
        return packed, (quantiser, lists, codes) if packed is index else (quantiser,)

    def _inverted(self, count: int, size: int | None = None) -> tuple[Any, Any]:
        """An empty faiss index with this code, and its quantiser, which only has the centres of the lists."""
        quantiser = faiss.IndexFlatL2(self.dim)
        if self.centres is not None:
            quantiser.add(self.centres)
        index = self.scan.inverted(quantiser, count, self.trained, size or self.trained.code_size)
        index.code_size = size or index.code_size
        index.is_trained = True
        return quantiser, index

    def to_parts(self) -> dict[str, NDArray[Any]]:
        """The arrays to store, by name."""
        parts = {"trained": faiss.serialize_index(self.trained)}
        for name in ("rotation", "energy", "centres", "origin", "stretch"):
            if getattr(self, name) is not None:
                parts[name] = getattr(self, name)
        return parts

    @classmethod
    def from_parts(cls, scan: CodedScan, space: Space, parts: Mapping[str, NDArray[Any]]) -> Self:
        """The code from the arrays of :meth:`to_parts`.

        Raises:
            ArtifactError: if it is not a code of ``scan``, or faiss cannot read it.
        """
        arrays = {name: np.array(part) for name, part in parts.items() if name != "trained"}
        try:
            trained = faiss.deserialize_index(np.array(parts["trained"]))
        except RuntimeError as error:
            raise ArtifactError(
                f"the code {scan} cannot be read by faiss {faiss.__version__}; it may be of a newer one: "
                "pip install -U faiss-cpu"
            ) from error
        if not isinstance(trained, type(scan.empty(space.faiss_metric()))) or trained.d != scan.dim:
            raise ArtifactError(f"the saved code is not {scan}; load it with the plan it was built by")
        if space.is_rising and trained.metric_type != faiss.METRIC_L2:  # as earlier versions wrote them
            if scan.depends_on_metric:
                raise ArtifactError(f"the code {scan} was built for inner products; build the index again")
            trained.metric_type = faiss.METRIC_L2  # other codes do not depend on it
        return cls(scan, space, trained, **arrays)


def _far_mean(sample: Floats, times: float) -> Doubles | None:
    """The mean, if it is longer than ``times`` the distance of the rows from it."""
    mean = sample.mean(axis=0, dtype=np.float64)
    spread = float(np.square(sample - mean).sum(axis=1).mean())
    return mean if is_far(mean, spread, times) else None


def _moved(rows: Floats, origin: Doubles | None, stretch: Doubles | None = None) -> Floats:
    """Rows centred and stretched, as they are encoded."""
    if origin is None:
        return rows
    rest = rows - origin
    return np.asarray(rest if stretch is None else _stretched(rest, origin, stretch[0]), np.float32)


def _stretched(rows: NDArray[Any], mean: Doubles, times: float) -> Doubles:
    """Rows stretched by a factor along the mean, unchanged across it."""
    unit = mean / np.linalg.norm(mean)
    return np.asarray(rows + (times - 1) * np.outer(rows @ unit, unit), np.float64)


def _is_by_distance(index: Any) -> bool:
    return bool(index.metric_type == faiss.METRIC_L2)


def _means(rows: Floats, lists: Ints, count: int) -> Floats:
    """Mean of the rows of each list; lists without a row get the mean of all."""
    sums = np.zeros((count, rows.shape[1]), np.float64)
    np.add.at(sums, lists, rows)
    sizes = np.bincount(lists, minlength=count)
    sums[sizes == 0] = rows.mean(axis=0)
    return np.asarray(sums / np.maximum(sizes, 1)[:, None], np.float32)


def _pointer(value: Any) -> Any:
    return faiss.swig_ptr(value) if isinstance(value, np.ndarray) else value
