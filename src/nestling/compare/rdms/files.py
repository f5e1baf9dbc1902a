"""RDMs of vector files: the same stimuli as represented by several models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Whole, checked
from nestling.arguments.paths import home_path
from nestling.compare.rdms.from_patterns import Metric, rdm
from nestling.compare.rdms.rdms import RDMs
from nestling.cut import RAW
from nestling.errors import ConfigError, DataError
from nestling.vectors.opening import open_vectors
from nestling.vectors.stored import StoredVectors

_FEWEST_STIMULI = 3


@checked(limit=Whole(_FEWEST_STIMULI), seed=Whole(0))
def rdms_of_files(
    paths: Sequence[str | Path], metric: Metric = "cosine", *, limit: int = 500, seed: int = 0
) -> RDMs:
    """One matrix a file, over the stimuli that its rows are of, labelled by ``name``.

    Where all files name their rows (ids), rows belong together by name, and else by place.

    Args:
        paths: files or folders as :func:`~nestling.vectors.opening.open_vectors` reads them. A folder's cut
            rule is followed; a file is taken as it is.
        metric: see :func:`~nestling.compare.rdms.from_patterns.rdm`.
        limit: larger files are sampled down to this number of rows, the same in all files.
        seed: draws it.

    Raises:
        DataError: for files that cannot be read, other numbers of rows, or rows that a file lacks.
        ConfigError: for no files, or a limit below 3.
    """
    files = [home_path(path) for path in paths]
    if not files:
        raise ConfigError("give at least one file to compare")
    stored = [open_vectors(file, rule=None if file.is_dir() else RAW) for file in files]
    rows = _rows_in_common(stored, files)
    if len(rows[0]) > limit:
        drawn = np.sort(np.random.default_rng(seed).choice(len(rows[0]), limit, replace=False))
        rows = [each[drawn] for each in rows]
    ids = stored[0].ids
    stimuli = [str(name) for name in (rows[0] if ids is None else ids[rows[0]])]
    patterns = {name: each(places) for name, each, places in zip(_names(files), stored, rows, strict=True)}
    return rdm(patterns, metric, stimuli=stimuli)


def _rows_in_common(stored: Sequence[StoredVectors], files: Sequence[Path]) -> list[NDArray[np.int64]]:
    """For each file the rows of the stimuli, in the order of the first file."""
    first = stored[0]
    for each, file in zip(stored, files, strict=True):
        if len(each) != len(first):
            raise DataError(
                f"{file} has {len(each):,} rows and {files[0]} has {len(first):,}; compare vectors of the "
                "same things, one row each"
            )
    if any(each.ids is None for each in stored):
        return [np.arange(len(first))] * len(stored)
    found = []
    for each, file in zip(stored, files, strict=True):
        places = {str(name): place for place, name in enumerate(_ids(each))}
        missing = [str(name) for name in _ids(first) if str(name) not in places]
        if missing:
            raise DataError(
                f"{file} lacks {len(missing)} rows that {files[0]} has, such as {', '.join(missing[:5])}"
            )
        found.append(np.array([places[str(name)] for name in _ids(first)], np.int64))
    return found


def _ids(stored: StoredVectors) -> list[object]:
    return [] if stored.ids is None else stored.ids.tolist()


def _names(files: Sequence[Path]) -> list[str]:
    """The files' names, or their paths where those are equal."""
    names = [file.stem for file in files]
    if len(set(names)) == len(names):
        return names
    paths = list(map(str, files))
    if len(set(paths)) < len(paths):
        raise ConfigError("a file is named twice; compare it with others")
    return paths
