"""Conversion of RDMs to and from rsatoolbox, xarray and pandas.

Readers return the arguments of :class:`~nestling.compare.rdms.rdms.RDMs`, which calls them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nestling.compare.rdms.pairs import count_pairs, first_pairs
from nestling.errors import DataError, require

if TYPE_CHECKING:
    from nestling.compare.rdms.rdms import RDMs

_STIMULUS = "stimulus"
_DIMS = ("matrix", "first", "second")
_VALUE = "dissimilarity"


def to_rsatoolbox(rdms: RDMs) -> Any:
    """As ``rsatoolbox.rdm.RDMs``: labels are its ``rdm_descriptors``, stimuli the descriptor of that name.

    It gets a copy in float64, because its transforms change their input. The numbers stay as they are; its
    ``dissimilarity_measure`` is our ``metric``.

    Raises:
        MissingExtraError: if rsatoolbox is not installed.
    """
    theirs = require("rsatoolbox.rdm", "rsatoolbox")
    return theirs.RDMs(
        np.array(rdms.vectors, np.float64),
        dissimilarity_measure=rdms.metric,
        rdm_descriptors={name: list(values) for name, values in rdms.labels.items()},
        pattern_descriptors={_STIMULUS: list(rdms.stimuli)},
    )


def from_rsatoolbox(theirs: Any, *, stimuli: str | None = None) -> dict[str, Any]:
    """From ``rsatoolbox.rdm.RDMs``, with a copy of its numbers.

    Its ``rdm_descriptors`` become labels, and of the descriptors of the whole those that are text or
    numbers; one pattern descriptor names the stimuli. The rest is not taken over. Resampled matrices show a
    stimulus several times: further ones are called ``"cat (2)"``, ``"cat (3)"``.

    Args:
        theirs: the object.
        stimuli: the pattern descriptor that names the stimuli; by default ``"stimulus"``, or the numbers.

    Raises:
        DataError: if there is no such descriptor, or it does not tell the stimuli apart.
    """
    names = theirs.pattern_descriptors
    chosen = stimuli or (_STIMULUS if _STIMULUS in names else "index")
    if chosen not in names:
        raise DataError(f"there is no pattern descriptor {chosen!r}; choose from {', '.join(names)}")
    whole = {
        name: value for name, value in theirs.descriptors.items() if isinstance(value, str | int | float)
    }
    each = {name: list(values) for name, values in theirs.rdm_descriptors.items() if name != "index"}
    return {
        "vectors": np.array(theirs.dissimilarities),
        "stimuli": _distinct([str(name) for name in names[chosen]], names["index"]),
        "labels": {**whole, **each},
        "metric": theirs.dissimilarity_measure or "",
    }


def _distinct(stimuli: list[str], index: Any) -> list[str]:
    """Names of stimuli, those of resampled ones numbered: ``index`` says which are the same."""
    pairs = {*zip(stimuli, index, strict=True)}
    same = len(pairs) == len({*index}) == len({*stimuli})  # each name is one stimulus: a resample
    seen: dict[str, int] = {}
    for place, name in enumerate(stimuli if same else ()):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            stimuli[place] = f"{name} ({seen[name]})"
    return stimuli


def to_xarray(rdms: RDMs) -> Any:
    """As ``xarray.DataArray`` of whole matrices, with dims ``matrix``, ``first`` and ``second``.

    Stimuli are the coordinates of the last two, labels those of the first; ``name`` is the metric.

    Raises:
        MissingExtraError: if xarray is not installed.
    """
    xarray = require("xarray", "xarray")
    labels = {name: (_DIMS[0], list(values)) for name, values in rdms.labels.items()}
    stimuli = {name: list(rdms.stimuli) for name in _DIMS[1:]}
    return xarray.DataArray(
        rdms.squares(), dims=_DIMS, coords={**stimuli, **labels}, name=rdms.metric or None
    )


def from_xarray(array: Any) -> dict[str, Any]:
    """Arguments of ``RDMs.from_squares`` from an ``xarray.DataArray``.

    Its last two dims are stimuli; a dim before them, if any, is the matrices.

    Raises:
        DataError: for other dims, or matrices that are none of dissimilarities.
    """
    if array.ndim not in (2, 3):
        raise DataError(f"dissimilarity matrices have 2 dims, or 3 if there are several, not {array.dims}")
    first, second = array.dims[-2:]
    stimuli = array.coords[first].values.tolist() if first in array.coords else None
    if stimuli and second in array.coords and array.coords[second].values.tolist() != stimuli:
        raise DataError(f"{first} and {second} must name the same stimuli in the same order")
    labels: Mapping[str, Any] = {}
    if array.ndim == 3:
        of_matrices = {name: each for name, each in array.coords.items() if each.dims == array.dims[:1]}
        labels = {str(name): each.values.tolist() for name, each in of_matrices.items()}
    return {
        "squares": array.values,
        "stimuli": stimuli,
        "labels": labels,
        "metric": str(array.name or ""),
    }


def to_pandas(rdms: RDMs) -> Any:
    """As a tidy ``pandas.DataFrame``: one row per matrix and pair.

    Columns are ``matrix`` (its number), the labels, ``first`` and ``second`` (stimuli, as categories) and
    ``dissimilarity``; ``attrs["metric"]`` names the metric.

    Raises:
        DataError: if a label has the name of a column.
        MissingExtraError: if pandas is not installed.
    """
    pandas = require("pandas", "pandas")
    if taken := {*_DIMS, _VALUE} & set(rdms.labels):
        raise DataError(f"the label {taken.pop()!r} has the name of a column; name it otherwise")
    count = rdms.vectors.shape[1]
    first, second = np.triu_indices(rdms.n, 1)
    columns = {
        _DIMS[0]: np.repeat(np.arange(len(rdms)), count),
        **{name: pandas.Series(values).repeat(count).array for name, values in rdms.labels.items()},
        **{
            name: pandas.Categorical.from_codes(np.tile(codes, len(rdms)), list(rdms.stimuli))
            for name, codes in zip(_DIMS[1:], (first, second), strict=True)
        },
        _VALUE: rdms.vectors.ravel(),
    }
    frame = pandas.DataFrame(columns)
    frame.attrs["metric"] = rdms.metric
    return frame


def from_pandas(frame: Any) -> dict[str, Any]:
    """From a tidy ``pandas.DataFrame`` with the columns that :func:`to_pandas` writes.

    A pair that is not there is NaN; without the column ``matrix`` all rows are of one. Other columns are
    labels.

    Raises:
        DataError: for missing columns, a pair that occurs twice in a matrix or names one stimulus twice,
            or labels that differ within a matrix.
    """
    if missing := [name for name in (*_DIMS[1:], _VALUE) if name not in frame]:
        raise DataError(f"the frame must have columns first, second and dissimilarity; it lacks {missing}")
    pandas = require("pandas", "pandas")
    pairs = [frame[name].astype(str) for name in _DIMS[1:]]
    stimuli = list(dict.fromkeys(pandas.concat(pairs)))
    places = {name: place for place, name in enumerate(stimuli)}
    first, second = (side.map(places).to_numpy(np.int64) for side in pairs)
    matrix = pandas.factorize(frame[_DIMS[0]])[0] if _DIMS[0] in frame else np.zeros(len(frame), np.int64)
    low, high = np.minimum(first, second), np.maximum(first, second)
    place = matrix * count_pairs(len(stimuli)) + first_pairs(len(stimuli))[low] + high - low - 1
    if (low == high).any() or len(np.unique(place)) < len(place):
        raise DataError("every row must be another pair of two different stimuli; some pairs are repeated")
    vectors = np.full((matrix.max(initial=0) + 1, count_pairs(len(stimuli))), np.nan)
    vectors.ravel()[place] = frame[_VALUE].to_numpy(np.float64)
    others = [name for name in frame if name not in (*_DIMS, _VALUE)]
    labels = {str(name): _label_of_each(frame[name], matrix) for name in others}
    return {
        "vectors": vectors,
        "stimuli": stimuli,
        "labels": labels,
        "metric": frame.attrs.get("metric", ""),
    }


def _label_of_each(column: Any, matrix: NDArray[np.integer[Any]]) -> list[Any]:
    """The one value that a column has in all rows of a matrix, for each matrix."""
    pandas = require("pandas", "pandas")
    rows = np.unique(matrix, return_index=True)[1]
    codes, _ = pandas.factorize(column)
    if (codes != codes[rows][matrix]).any():
        raise DataError(
            f"the column {column.name!r} differs within a matrix, so it is no label; leave it out"
        )
    return [None if pandas.isna(value) else value for value in column.iloc[rows].tolist()]
