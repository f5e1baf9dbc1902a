"""Representational dissimilarity matrices (RDMs) with the names of their stimuli and their labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import ValidationError

from nestling.arguments.arrays import as_array
from nestling.arguments.paths import home_path
from nestling.compare.rdms import conversion
from nestling.compare.rdms.labels import Label, Labels, check_labels, check_stimuli, join_labels
from nestling.compare.rdms.pairs import count_pairs, count_stimuli, first_pairs, pair_positions
from nestling.errors import ArtifactError, DataError, unknown
from nestling.storage.artifact import open_array, read_folder, write_folder
from nestling.storage.npy import write_array
from nestling.storage.schema import SavedFields

if TYPE_CHECKING:
    from nestling.data.sets.dissimilarities import Dissimilarities

Floats: TypeAlias = NDArray[np.floating[Any]]

_KIND = "rdms"
_VECTORS = "vectors.npy"
_FEWEST_STIMULI = 3
_SAME = 1e-6  # rounding difference of entries that should be equal, as a share of the largest


@dataclass(frozen=True, init=False, eq=False, repr=False)
class RDMs:
    """Dissimilarity matrices over the same stimuli, each as the vector of its pairs.

    NaN stands for a pair that is missing, ``inf`` for one that no path of a graph joins; entries may be
    negative, as cross-validated estimates are. Whether all entries may be equal depends on what is done
    with them, and is asked there.

    Args:
        vectors: ``Float[m, n(n-1)/2]`` in the order of scipy's ``squareform``, or one such vector. Half
            precision becomes single, integers become double; float32 and float64 are not copied. Kept
            as a read-only view.
        stimuli: n different names; ``"0"`` to ``"n-1"`` by default.
        labels: by name (``"subject"``, ``"layer"``, ...), one text, number or None for each matrix, or
            one for all.
        metric: the distance, such as ``"correlation"``.

    Raises:
        DataError: for a length that is no number of pairs, fewer than 3 stimuli, no matrix, entries that
            are no real numbers or ``-inf``, stimuli that are not n different ones, labels that are not
            one for each matrix.

    >>> rdms = RDMs([[1.0, 2.0, 3.0]], stimuli=["cat", "dog", "car"], labels={"layer": "conv1"})
    >>> rdms.at(["car", "cat", "dog"]).vectors
    array([[2., 3., 1.]])
    """

    vectors: Floats
    stimuli: tuple[str, ...]
    labels: Labels
    metric: str

    def __init__(
        self,
        vectors: ArrayLike,
        *,
        stimuli: Sequence[str | int] | None = None,
        labels: Mapping[str, Label | Sequence[Label]] | None = None,
        metric: str = "",
    ) -> None:
        values = _read(vectors)
        count = count_stimuli(values.shape[1])
        if count < _FEWEST_STIMULI or not len(values):
            raise DataError(
                f"{len(values)} matrices over {count} stimuli cannot be compared; give at least one over at "
                f"least {_FEWEST_STIMULI}"
            )
        if np.fmin.reduce(values, axis=None) == -np.inf:
            raise DataError("a dissimilarity must not be -inf; use NaN for a missing pair")
        object.__setattr__(self, "vectors", values)
        object.__setattr__(self, "stimuli", check_stimuli(stimuli, count))
        object.__setattr__(self, "labels", check_labels(labels or {}, len(values)))
        object.__setattr__(self, "metric", metric)

    @classmethod
    def from_squares(
        cls,
        squares: ArrayLike,
        *,
        stimuli: Sequence[str | int] | None = None,
        labels: Mapping[str, Label | Sequence[Label]] | None = None,
        metric: str = "",
    ) -> RDMs:
        """From whole matrices, ``Float[m, n, n]`` or one ``Float[n, n]``; the other arguments as above.

        Raises:
            DataError: for matrices that are not square, whose diagonal is not zero, or that are not
                symmetric (both to 1e-6 of their largest entry); the entry is named.
        """
        values = _as_floats(squares)
        values = values[None] if values.ndim == 2 else values
        if values.ndim != 3 or values.shape[1] != values.shape[2]:
            raise DataError(f"dissimilarity matrices must be [m, n, n] or [n, n], not {values.shape}")
        names = check_stimuli(stimuli, values.shape[1])
        return cls(_upper_half(values, names), stimuli=names, labels=labels, metric=metric)

    @classmethod
    def of(cls, found: Dissimilarities) -> RDMs:
        """The matrices of a data set, such as ``pictures92("brains")``, with their labels.

        Raises:
            DataError: for matrices that are not symmetric, or whose diagonal is not zero.
        """
        return cls.from_squares(found.squares, labels=found.labels)

    @property
    def n(self) -> int:
        """Number of stimuli."""
        return len(self.stimuli)

    def __len__(self) -> int:
        return len(self.vectors)

    def __repr__(self) -> str:
        labels = f", labels: {', '.join(self.labels)}" if self.labels else ""
        kind = f"{self.metric} " if self.metric else ""
        return f"RDMs({len(self)} {kind}matrices over {self.n} stimuli{labels})"

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        # Copies, and those that go to other processes, are made as this one was.
        rest: dict[str, Any] = {"stimuli": self.stimuli, "labels": dict(self.labels), "metric": self.metric}
        return partial(RDMs, self.vectors, **rest), ()

    def __getitem__(self, which: int | slice | Sequence[int] | NDArray[Any]) -> RDMs:
        """Some of the matrices: by number, slice, numbers, or a mask; one is kept as one of one."""
        rows: Any = which
        if isinstance(which, int | np.integer):
            if not -len(self) <= which < len(self):
                raise IndexError(f"there is no matrix {which}; they are numbered 0 to {len(self) - 1}")
            rows = slice(which, which + 1 or None)
        kept = np.arange(len(self))[rows]
        labels = {name: tuple(values[i] for i in kept) for name, values in self.labels.items()}
        return RDMs(self.vectors[rows], stimuli=self.stimuli, labels=labels, metric=self.metric)

    def __iter__(self) -> Iterator[RDMs]:
        return (self[i] for i in range(len(self)))

    def squares(self) -> Floats:
        """Whole matrices with a zero diagonal, ``Float[m, n, n]``: twice the memory of the vectors."""
        found = np.zeros((len(self), self.n, self.n), self.vectors.dtype)
        for row, start in enumerate(first_pairs(self.n)[:-1]):
            part = self.vectors[:, start : start + self.n - row - 1]
            found[:, row, row + 1 :] = part
            found[:, row + 1 :, row] = part
        return found

    def at(self, stimuli: Sequence[str | int]) -> RDMs:
        """The same matrices over some of the stimuli, in the order given.

        Raises:
            DataError: for unknown stimuli, or stimuli named twice.
        """
        names = check_stimuli(stimuli, len(stimuli))
        if names == self.stimuli:
            return self
        places = {name: place for place, name in enumerate(self.stimuli)}
        if missing := [name for name in names if name not in places]:
            raise DataError(
                f"there is no stimulus {', '.join(missing[:5])} among the {self.n}, which begin with "
                f"{', '.join(self.stimuli[:5])}"
            )
        chosen = np.array([places[name] for name in names], np.int64)
        vectors = self.vectors[:, pair_positions(self.n, chosen)]
        return RDMs(vectors, stimuli=names, labels=self.labels, metric=self.metric)

    def where(self, **labels: Label) -> RDMs:
        """The matrices that carry all these labels, as in ``rdms.where(layer="conv1", seed=0)``.

        Raises:
            DataError: for a label that no matrix carries; what they carry is named.
        """
        chosen = np.ones(len(self), np.bool_)
        for name, value in labels.items():
            if name not in self.labels:
                raise DataError(unknown("label", name, self.labels))
            carried = self.labels[name]
            if value not in carried:
                raise DataError(unknown(name, value, dict.fromkeys(map(str, carried))))
            chosen &= np.array([each == value for each in carried])
        if not chosen.any():
            raise DataError(f"no matrix carries all of {labels}; choose labels that occur together")
        return self[chosen]

    @classmethod
    def concat(cls, parts: Collection[RDMs]) -> RDMs:
        """All matrices of several objects, over the stimuli of the first, in its order.

        A label that a part lacks is None there. The metric is that of all, or ``""`` if they differ.

        Raises:
            DataError: for no parts, or parts over other stimuli; those that are missing are named.
        """
        if not parts:
            raise DataError("there is nothing to put together; give at least one part")
        first = next(iter(parts))
        for number, part in enumerate(parts):
            if odd := sorted(set(first.stimuli) ^ set(part.stimuli)):
                raise DataError(
                    f"part {number} is over other stimuli than part 0: only one of them has "
                    f"{', '.join(odd[:5])}{', ...' * (len(odd) > 5)}; choose common ones with at()"
                )
        metrics = {part.metric for part in parts}
        return cls(
            np.concatenate([part.at(first.stimuli).vectors for part in parts]),
            stimuli=first.stimuli,
            labels=join_labels([(part.labels, len(part)) for part in parts]),
            metric=first.metric if len(metrics) == 1 else "",
        )

    def replace(
        self,
        vectors: ArrayLike | None = None,
        *,
        labels: Mapping[str, Label | Sequence[Label]] | None = None,
        metric: str | None = None,
    ) -> RDMs:
        """The same with other numbers, labels or metric, over the same stimuli."""
        return RDMs(
            self.vectors if vectors is None else vectors,
            stimuli=self.stimuli,
            labels=self.labels if labels is None else labels,
            metric=self.metric if metric is None else metric,
        )

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder.

        Raises:
            StorageError: if writing fails; nothing half-written remains.
        """
        labels = {name: list(values) for name, values in self.labels.items()}
        settings = {"stimuli": list(self.stimuli), "labels": labels, "metric": self.metric}
        with write_folder(folder, _KIND, settings=settings) as path:
            write_array(path / _VECTORS, self.vectors)

    @classmethod
    def load(cls, folder: str | Path, /) -> RDMs:
        """Read what ``save`` wrote; the vectors stay on disk as a memory map.

        Raises:
            ArtifactError: if it is missing, torn, altered, or holds something else.
        """
        manifest = read_folder(folder, _KIND)
        try:
            settings = _Settings.model_validate(manifest.settings)
            vectors = open_array(home_path(folder) / _VECTORS)
            return cls(vectors, **settings.model_dump())
        except (ValidationError, DataError, OSError, ValueError) as error:
            raise ArtifactError(f"{folder} holds no dissimilarity matrices: {error}") from error

    def to_rsatoolbox(self) -> Any:
        """As ``rsatoolbox.rdm.RDMs``, a copy in float64; see ``conversion.to_rsatoolbox``."""
        return conversion.to_rsatoolbox(self)

    @classmethod
    def from_rsatoolbox(cls, theirs: Any, *, stimuli: str | None = None) -> RDMs:
        """From ``rsatoolbox.rdm.RDMs``; ``stimuli`` is the pattern descriptor that names the stimuli."""
        return cls(**conversion.from_rsatoolbox(theirs, stimuli=stimuli))

    def to_xarray(self) -> Any:
        """As ``xarray.DataArray[matrix, first, second]``, with stimuli and labels as coordinates."""
        return conversion.to_xarray(self)

    @classmethod
    def from_xarray(cls, array: Any) -> RDMs:
        """From the result of :meth:`to_xarray`, or another array of such dims."""
        return cls.from_squares(**conversion.from_xarray(array))

    def to_pandas(self) -> Any:
        """As a tidy data frame: one row per matrix and pair."""
        return conversion.to_pandas(self)

    @classmethod
    def from_pandas(cls, frame: Any) -> RDMs:
        """From the result of :meth:`to_pandas`, or another frame of such columns."""
        return cls(**conversion.from_pandas(frame))


class _Settings(SavedFields):
    """The metadata of saved matrices in their manifest."""

    stimuli: list[str]
    labels: dict[str, list[bool | int | float | str | None]]
    metric: str


def _as_floats(given: ArrayLike) -> Floats:
    """Real numbers as float32 or float64; those are not copied, nothing is truncated."""
    values = as_array(given, "dissimilarities")
    if values.dtype.kind not in "fiub":
        raise DataError(f"dissimilarities must be real numbers, not {values.dtype}")
    if values.dtype in (np.float32, np.float64):
        return values
    return values.astype(np.float32 if values.dtype == np.float16 else np.float64)


def _read(vectors: ArrayLike) -> Floats:
    values = _as_floats(vectors)
    values = values[None] if values.ndim == 1 else values
    if values.ndim != 2:
        raise DataError(
            f"dissimilarities must be [m, n(n-1)/2], one row per matrix, not {values.shape}; "
            "RDMs.from_squares takes whole matrices"
        )
    view = values.view()
    view.flags.writeable = False
    return view


def _upper_half(squares: Floats, stimuli: tuple[str, ...]) -> Floats:
    """The pairs of whole matrices, row by row, so that no second matrix is made on the way."""
    matrices, n, _ = squares.shape
    vectors = np.empty((matrices, count_pairs(n)), squares.dtype)
    allowed = np.array([[_SAME * _largest(square)] for square in squares])
    for row, start in enumerate(first_pairs(n)):
        across, down = squares[:, row, row:], squares[:, row:, row]
        with np.errstate(invalid="ignore"):  # inf - inf, which are equal
            gap = np.where(across == down, 0, np.abs(across - down))
        # NaN, and inf of one side alone, are no small gap; a pair may be missing on both.
        wrong = ~((gap <= allowed) | (np.isnan(across) & np.isnan(down)))
        wrong[:, 0] = ~(np.abs(across[:, 0]) <= allowed[:, 0])
        if wrong.any():
            matrix, column = np.argwhere(wrong)[0]
            raise DataError(
                _refusal(stimuli[row], stimuli[row + column], across[matrix, column], down[matrix, column])
            )
        vectors[:, start : start + n - row - 1] = across[:, 1:]
    return vectors


def _largest(square: Floats) -> float:
    """The largest entry by size, of those that are finite."""
    sizes = np.abs(square)
    return float(np.max(sizes, where=np.isfinite(sizes), initial=0))


def _refusal(first: str, second: str, value: float, mirrored: float) -> str:
    if first == second:
        return f"the dissimilarity of {first} to itself must be 0, not {value}"
    return (
        f"the matrix is not symmetric: {value} from {first} to {second}, but {mirrored} back; "
        "average it with its transpose if that is what you mean"
    )


def aligned(a: Any, b: Any) -> tuple[RDMs, RDMs]:
    """Both as RDMs over the same stimuli in the same order, that of ``a``.

    Raises:
        DataError: for anything but RDMs, or for other stimuli; the missing ones are named.
    """
    first, second = as_rdms(a), as_rdms(b)
    if first.n != second.n:
        raise DataError(
            f"matrices over {first.n} and {second.n} stimuli cannot be compared; choose common ones with at()"
        )
    if not (isinstance(a, RDMs) and isinstance(b, RDMs)) or first.stimuli == second.stimuli:
        return first, second
    if lacking := [name for name in first.stimuli if name not in set(second.stimuli)]:
        raise DataError(
            f"the second matrices have no stimulus {', '.join(lacking[:5])}{', ...' * (len(lacking) > 5)}, "
            "which the first have; choose common ones, with at()"
        )
    return first, second.at(first.stimuli)


def as_rdms(x: Any) -> RDMs:
    """Matrices as RDMs: those themselves, or vectors, numpy or torch."""
    return x if isinstance(x, RDMs) else RDMs(x)
