"""RDMs of vector files: the saved cut rule applies, the same rows are sampled from all files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestling.compare.rdms.files import rdms_of_files
from nestling.compare.rdms.from_patterns import rdm
from nestling.cut import CutRule
from nestling.errors import ConfigError
from nestling.vectors.stored import StoredVectors

X = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)


def test_a_file_is_taken_as_it_stands_and_a_folder_by_its_rule(tmp_path: Path) -> None:
    raw = 3 * X
    raw[0] = 0  # cosines could not use it
    np.save(tmp_path / "raw.npy", raw)
    StoredVectors(3 * X, rule=CutRule()).save(tmp_path / "unit")
    found = rdms_of_files([tmp_path / "raw.npy", tmp_path / "unit"], "euclidean")
    assert found.labels["name"] == ("raw", "unit")
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    np.testing.assert_allclose(found.vectors, rdm({"a": raw, "b": unit}).vectors, rtol=1e-5)


def test_the_same_rows_are_sampled_of_all(tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", X)
    found = rdms_of_files([tmp_path / "a.npy", tmp_path / "b.npy"], limit=10, seed=3)
    assert found.n == 10
    np.testing.assert_array_equal(found.vectors[0], found.vectors[1])
    rows = list(map(int, found.stimuli))
    assert rows == sorted(rows)
    np.testing.assert_allclose(found.vectors[0], rdm(X[rows], "cosine").vectors[0])


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "x.npy" for folder in "ab"]
    for path in paths:
        path.parent.mkdir()
        np.save(path, X)
    assert rdms_of_files(paths).labels["name"] == tuple(map(str, paths))
    with pytest.raises(ConfigError, match="named twice"):
        rdms_of_files([paths[0], paths[0]])
    with pytest.raises(ConfigError, match="at least one file"):
        rdms_of_files([])
