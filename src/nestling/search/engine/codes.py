"""Codes of a prefix: how rows are held as bytes, and the faiss indexes that compare them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.cut import RAW, cut
from nestling.errors import ArtifactError, ConfigError
from nestling.search.exact.faiss_arrays import Codes, faiss, view, view_lists
from nestling.search.exact.space import Floats, Ints, Space
from nestling.search.plan.stages import QUANTISERS, Scan

Doubles = NDArray[np.float64]

_SCALAR = {
    "fp16": faiss.ScalarQuantizer.QT_fp16,
    "int8": faiss.ScalarQuantizer.QT_8bit,
    "int4": faiss.ScalarQuantizer.QT_4bit,
}
# Differences from the mean are held where that is longer than this many times the rows' distance from it.
_FAR, _FAR_OF_COPIES = 1.0, 8.0
# Queries near a far mean multiply what codes lose along it. At 4 both these and others are answered well.
_STRETCH = 4.0
# These are compared as they are read, or take off the mean by themselves.
_CENTRED = ("flat", "rabitq")
_OPQ_ROUNDS, _FIRST_STEPS, _LAST_STEPS = 20, 10, 5


@dataclass(frozen=True, eq=False)
class Code:
    """A code that was trained once and is only read from then on.

    Attributes:
        scan: what it is, with its prefix as a number.
        space: how vectors are compared.
        trained: an empty faiss index that encodes and decodes.
        rotation: ``Float[dim, dim]`` applied to prefixes before they are encoded, if any.
        energy: ``Float[dim as built]``, mean square of each entry; longer than ``scan.dim`` for slices.
        centres: ``Float[lists, dim]``, mean of each list, for codes that are relative to it.
        origin: ``Float64[dim]`` that is taken off before rows are encoded, if their mean lies far from zero:
            what all share would take the digits in which they differ.
        stretch: ``Float64[1]``, how many times longer rows are made along ``origin``, and queries shorter,
            where inner products by a product quantiser are asked for: these stay the same.
    """

    scan: Scan
    space: Space
    trained: Any
    rotation: Floats | None = None
    energy: Floats | None = None
    centres: Floats | None = None
    origin: Doubles | None = None
    stretch: Doubles | None = None

    @classmethod
    def train_copy(cls, scan: Scan, space: Space, sample: Floats, seed: int) -> Self:
        """A code for copies that are decoded to be compared, of differences from the mean if that is far."""
        origin = _far_mean(sample, _FAR_OF_COPIES)
        return cls._train_moved(scan, space, sample, seed, origin)

    @classmethod
    def train(
        cls, scan: Scan, space: Space, sample: Floats, seed: int, lists: Ints | None = None, count: int = 0
    ) -> Self:
        """A code for prefixes such as ``sample``, ``Float[rows, dim]``, of their differences from a far mean.

        Args:
            scan: what it is.
            space: how vectors are compared.
            sample: prefixes as ``space`` prepares them.
            seed: of a random rotation; all else is fixed.
            lists: the inverted list of each row of the sample, if there are lists.
            count: the number of lists.

        Raises:
            ConfigError: if the sample has fewer rows than a product quantiser has centroids.
        """
        if scan.bits is not None and len(sample) < 1 << scan.bits:
            raise ConfigError(
                f"{scan} learns {1 << scan.bits} centroids a part, and there are {len(sample)} vectors; "
                "give it more vectors or another code, such as int8"
            )
        origin = None if scan.code in _CENTRED else _far_mean(sample, _FAR)
        return cls._train_moved(scan, space, sample, seed, origin, lists, count)

    @classmethod
    def _train_moved(
        cls,
        scan: Scan,
        space: Space,
        sample: Floats,
        seed: int,
        origin: Doubles | None,
        lists: Ints | None = None,
        count: int = 0,
    ) -> Self:
        trained = _empty(scan, space, is_moved=origin is not None)
        is_stretched = origin is not None and scan.code in QUANTISERS and not _is_by_distance(trained)
        stretch = np.array([_STRETCH]) if is_stretched else None
        rows = _moved(sample, origin, stretch)
        rotation = _rotation(scan, rows, seed, trained)
        rotated = rows if rotation is None else np.ascontiguousarray(rows @ rotation.T)
        trained.train(rotated)
        energy = _energy(scan, space, sample)
        centres = None
        if scan.code == "rabitq" and lists is not None:
            centres = _means(rotated, lists, count)
        return cls(scan, space, trained, rotation, energy, centres, origin, stretch)

    @property
    def dim(self) -> int:
        """The prefix that is encoded."""
        return int(self.scan.dim or 0)

    @property
    def is_sliced(self) -> bool:
        """Whether the codes are slices of those of unit vectors, which have no unit length."""
        return self.energy is not None and len(self.energy) > self.dim

    def cut(self, dim: int) -> Code:
        """The code of a shorter prefix, with nothing trained anew.

        Raises:
            ConfigError: for codes that mix all entries, or a prefix that does not end at a byte.
        """
        if dim == self.dim:
            return self
        if not self.scan.is_sliceable:
            raise ConfigError(
                f"the codes {self.scan} mix all {self.dim} entries and cannot be cut to {dim}; choose a dim "
                f"of {self.dim} or more, or build with a code that can be cut, such as int8@{self.dim}"
            )
        if self.scan.code == "int4" and dim % 2:
            raise ConfigError(f"{self.scan} packs two entries into a byte; choose an even dim, not {dim}")
        scan = replace(self.scan, dim=dim)
        is_sliced = self.space.is_normalised and self.scan.code in _SCALAR
        trained = _empty(scan, self.space, is_sliced=is_sliced)
        if self.scan.code in ("int8", "int4"):
            values = faiss.vector_to_array(self.trained.sq.trained).reshape(2, -1)  # least value, range
            faiss.copy_array_to_vector(cut(values, dim, RAW).ravel(), trained.sq.trained)
        trained.is_trained = True
        origin = None if self.origin is None else self.origin[:dim]
        return replace(self, scan=scan, trained=trained, origin=origin)

    def slices(self, codes: Codes) -> Codes:
        """The part of longer ``codes`` that this code reads, by itself."""
        if self.scan.code != "flat":
            return np.ascontiguousarray(codes[:, : self.trained.sa_code_size()])
        return self.encode(self.space.scaled(cut(codes.view(np.float32), self.dim, RAW)))

    def rotate(self, x: Floats) -> Floats:
        """Queries or rows as they are compared: turned where the codes are."""
        return x if self.rotation is None else np.ascontiguousarray(x @ self.rotation.T)

    def query(self, queries: Floats) -> Floats:
        """Queries as the space prepares them, as they are compared with codes.

        Slices of unit vectors are as long as their share of the energy, and so is the query then. What was
        taken off the rows is taken off queries where distances are compared, which it does not change.
        """
        if self.is_sliced and self.energy is not None:
            queries = np.asarray(queries * np.sqrt(self.energy[: self.dim].sum()), np.float32)
        if self.origin is not None and _is_by_distance(self.trained):
            queries = _moved(queries, self.origin)
        elif self.origin is not None and self.stretch is not None:
            queries = _stretched(queries, self.origin, 1 / self.stretch[0]).astype(np.float32)
        return self.rotate(queries)

    def scores(self, queries: Floats, distances: Floats) -> Floats:
        """Scores of what faiss returned for whole codes: similarities, or distances.

        Scores of differences from the mean become those of the rows themselves, so that they can be put
        beside scores of other codes. Cosines of unit vectors follow from their distances.

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
        if self.scan.code == "flat":
            return np.ascontiguousarray(x).view(np.uint8)
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
        """What the codes say of the vectors, ``Float[rows, dim]``; longer codes are read up to ``dim``."""
        if self.scan.code == "flat":
            return cut(codes.view(np.float32), self.dim, RAW)
        decoded = np.asarray(self._reading(codes.shape[1]).sa_decode(np.ascontiguousarray(codes)))
        return decoded if self.origin is None else decoded + self.origin

    def _reading(self, size: int) -> Any:
        """The trained index, for codes of which ``size`` bytes are a row."""
        if self.scan.code not in _SCALAR or self.trained.sa_code_size() == size:
            return self.trained
        index = faiss.clone_index(self.trained)
        index.code_size = index.sq.code_size = size
        return index

    def flat(self, codes: Codes, *, is_packed: bool = True) -> Any:
        """A faiss index over all rows, in place; 4-bit and 1-bit codes are packed anew for speed.

        Args:
            codes: ``UInt8[rows, size]``, kept alive by the caller.
            is_packed: whether to pack; a graph needs rows where they stand.
        """
        index = faiss.clone_index(self._reading(codes.shape[1]))
        index.codes = view(codes.reshape(-1))
        index.ntotal = len(codes)
        if is_packed and self.scan.bits == 4:
            return faiss.IndexPQFastScan(index)
        if is_packed and self.scan.code == "rabitq":
            return faiss.IndexRaBitQFastScan(index)
        return index

    def lists(self, codes: Codes, rows: Ints, starts: Ints) -> tuple[Any, tuple[Any, ...]]:
        """A faiss index over inverted lists, and what has to live as long as it does."""
        quantiser, index = self._inverted(len(starts) - 1, codes.shape[1])
        lists = view_lists(codes, rows, starts)
        index.replace_invlists(lists, False)
        index.ntotal = len(codes)
        packing = faiss.IndexIVFPQFastScan if self.scan.bits == 4 else faiss.IndexIVFRaBitQFastScan
        if self.scan.bits != 4 and self.scan.code != "rabitq":
            return index, (quantiser, lists, codes)
        index.own_invlists = True  # or the packed index gets no lists of its own
        packed = packing(index)
        index.own_invlists = False
        return packed, (quantiser,)

    def _inverted(self, count: int, size: int | None = None) -> tuple[Any, Any]:
        """An empty faiss index with this code, and its quantiser, which only says the centres of lists."""
        dim, metric = self.dim, self.trained.metric_type
        quantiser = faiss.IndexFlatL2(dim)
        if self.centres is not None:
            quantiser.add(self.centres)
        if self.scan.code == "flat":
            index = faiss.IndexIVFFlat(quantiser, dim, count, metric)
        elif self.scan.code in _SCALAR:
            kind = _SCALAR[self.scan.code]
            index = faiss.IndexIVFScalarQuantizer(quantiser, dim, count, kind, metric, False)
            reading = self._reading(size or self.trained.code_size)  # named, so that it outlives the copy
            index.sq = reading.sq
        elif self.scan.code == "rabitq":
            index = faiss.IndexIVFRaBitQ(quantiser, dim, count, metric)
            index.rabitq = self.trained.rabitq
        else:
            index = faiss.IndexIVFPQ(quantiser, dim, count, self.scan.subspaces, self.scan.bits, metric)
            index.pq, index.by_residual, index.use_precomputed_table = self.trained.pq, False, -1
        index.code_size = size or index.code_size
        index.is_trained = True
        return quantiser, index

    def to_parts(self) -> dict[str, NDArray[Any]]:
        """What has to be stored, by name."""
        parts = {"trained": faiss.serialize_index(self.trained)}
        for name in ("rotation", "energy", "centres", "origin", "stretch"):
            if getattr(self, name) is not None:
                parts[name] = getattr(self, name)
        return parts

    @classmethod
    def from_parts(cls, scan: Scan, space: Space, parts: Mapping[str, NDArray[Any]]) -> Self:
        """Read what :meth:`to_parts` gave.

        Raises:
            ArtifactError: if it is not the code that ``scan`` says, or of a faiss that writes otherwise.
        """
        arrays = {name: np.array(part) for name, part in parts.items() if name != "trained"}
        try:
            trained = faiss.deserialize_index(np.array(parts["trained"]))
        except RuntimeError as error:
            raise ArtifactError(
                f"the code {scan} cannot be read by faiss {faiss.__version__}; it may be of a newer one: "
                "pip install -U faiss-cpu"
            ) from error
        if not isinstance(trained, type(_empty(scan, space))) or trained.d != scan.dim:
            raise ArtifactError(
                f"what was saved is not the code {scan}; load it with the plan it was built by"
            )
        if space.is_rising and trained.metric_type != faiss.METRIC_L2:  # as earlier versions wrote them
            if scan.code == "rabitq":
                raise ArtifactError(f"the code {scan} was built for inner products; build the index again")
            trained.metric_type = faiss.METRIC_L2  # of the others it is no part
        return cls(scan, space, trained, **arrays)


def _energy(scan: Scan, space: Space, sample: Floats) -> Floats | None:
    """Mean square of each entry, of which the length of slices follows."""
    return np.mean(sample * sample, axis=0) if space.is_normalised and scan.code in _SCALAR else None


def _far_mean(sample: Floats, times: float) -> Doubles | None:
    """The mean, if it is longer than so many times the rows' distance from it."""
    mean = sample.mean(axis=0, dtype=np.float64)
    spread = float(np.square(sample - mean).sum(axis=1).mean())
    return mean if float(mean @ mean) > times**2 * spread else None


def _moved(rows: Floats, origin: Doubles | None, stretch: Doubles | None = None) -> Floats:
    """Rows as they are encoded."""
    if origin is None:
        return rows
    rest = rows - origin
    return np.asarray(rest if stretch is None else _stretched(rest, origin, stretch[0]), np.float32)


def _stretched(rows: NDArray[Any], mean: Doubles, times: float) -> Doubles:
    """Rows that are so many times longer along the mean, and the same across it."""
    unit = mean / np.linalg.norm(mean)
    return np.asarray(rows + (times - 1) * np.outer(rows @ unit, unit), np.float64)


def _is_by_distance(index: Any) -> bool:
    return bool(index.metric_type == faiss.METRIC_L2)


def _empty(scan: Scan, space: Space, *, is_sliced: bool = False, is_moved: bool = False) -> Any:
    dim, metric = scan.dim, space.faiss_metric(is_slice_or_moved=is_sliced or is_moved)
    if scan.code == "flat":
        return faiss.IndexFlat(dim, metric)
    if scan.code in _SCALAR:
        index = faiss.IndexScalarQuantizer(dim, _SCALAR[scan.code], metric)
        if scan.code == "int4":  # whose 16 steps are too few to reach to the outliers
            index.sq.rangestat = faiss.ScalarQuantizer.RS_optim
        return index
    if scan.code == "rabitq":
        return faiss.IndexRaBitQ(dim, metric)
    index = faiss.IndexPQ(dim, scan.subspaces, scan.bits, metric)
    index.pq.cp.min_points_per_centroid = 1  # or faiss prints a warning; too few are refused before
    return index


def _rotation(scan: Scan, sample: Floats, seed: int, trained: Any) -> Floats | None:
    """Learned for OPQ, random for one-bit codes, whose error bound rests on it (RaBitQ, section 3).

    OPQ learns rotation and centroids in turn (Ge et al. 2013, algorithm 1), one step of k-means for each
    rotation: the four of faiss give no smaller errors. ``trained`` goes on from the centroids learned so.
    """
    dim = int(scan.dim or 0)
    if scan.code == "rabitq":
        orthogonal, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(dim, dim)))
        return np.ascontiguousarray(orthogonal, np.float32)
    if scan.code != "opq":
        return None
    matrix, parts = faiss.OPQMatrix(dim, scan.subspaces), trained.pq
    matrix.pq, matrix.niter, matrix.niter_pq, matrix.niter_pq_0 = parts, _OPQ_ROUNDS, 1, _FIRST_STEPS
    matrix.train(sample)
    parts.train_type, parts.cp.niter = faiss.ProductQuantizer.Train_hot_start, _LAST_STEPS
    return np.asarray(faiss.vector_to_array(matrix.A).reshape(dim, dim))


def _means(rows: Floats, lists: Ints, count: int) -> Floats:
    """Mean of the rows of each list; lists without a row get the mean of all."""
    sums = np.zeros((count, rows.shape[1]), np.float64)
    np.add.at(sums, lists, rows)
    sizes = np.bincount(lists, minlength=count)
    sums[sizes == 0] = rows.mean(axis=0)
    return np.asarray(sums / np.maximum(sizes, 1)[:, None], np.float32)


def _pointer(value: Any) -> Any:
    return faiss.swig_ptr(value) if isinstance(value, np.ndarray) else value
