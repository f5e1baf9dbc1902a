"""The RDMs of 92 images are read as published; other sizes are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from nestling.compare import RDMs
from nestling.data import pictures92
from nestling.errors import ConfigError, DataError


@pytest.mark.parametrize(
    ("part", "count", "labels"),
    [
        ("brains", 8, {"subject": 4, "session": 2}),
        ("judges", 16, {"subject": 16}),
        ("models", 8, {"name": 8}),
        ("species", 2, {"name": 2}),
        ("alexnet", 63, {"layer": 9, "measurement": 12}),
    ],
)
def test_the_real_matrices(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch, part: str, count: int, labels: dict[str, int]
) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    found = pictures92(part)
    assert found.squares.shape == (count, 92, 92)
    assert {name: len(set(values)) for name, values in found.labels.items()} == labels
    assert all(len(values) == count for values in found.labels.values())
    np.testing.assert_array_equal(found.squares, found.squares.swapaxes(1, 2))
    assert not np.diagonal(found.squares, axis1=1, axis2=2).any()
    rdms = RDMs.of(found)
    np.testing.assert_array_equal(rdms.squares(), found.squares)
    assert rdms.labels == found.labels
    if part == "models":  # the docstring gives the order of the pictures
        animacy = rdms.where(name="animacy").squares()[0]
        assert not animacy[:48, :48].any()
        assert not animacy[48:, 48:].any()
        assert animacy[:48, 48:].all()


def made(folder: Path, monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, ...]) -> None:
    (folder / "rsa").mkdir()
    for name in (
        "92_behavRDMs.mat",
        "92_modelRDMs.mat",
        "modelRDMs_A2020.mat",
        "92_brainRDMs.mat",
        "Kriegeskorte_Neuron2008_supplementalData.mat",
    ):
        entries = np.array([({"RDM": np.zeros((size, size)), "name": f"m{size}"}) for size in sizes])
        savemat(folder / "rsa" / name, {"Models": entries})
    monkeypatch.setenv("NESTLING_DATA", str(folder))


def test_matrices_of_other_sizes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path, monkeypatch, (92, 92))
    assert pictures92("models").labels == {"name": ("m92", "m92")}
    with pytest.raises(DataError, match=r"92_behavRDMs\.mat does not hold the dissimilarities it should"):
        pictures92("judges")  # another variable than this file should have
    (tmp_path / "other").mkdir()
    made(tmp_path / "other", monkeypatch, (5, 5))
    with pytest.raises(DataError, match=r"\(5, 5\) is not one of 92 pictures"):
        pictures92("models")
    (tmp_path / "rsa" / "92_modelRDMs.mat").write_bytes(b"MATLAB 5.0 MAT-file" * 20)
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path))
    with pytest.raises(DataError, match="does not hold the dissimilarities"):
        pictures92("models")


def test_an_unknown_part() -> None:
    with pytest.raises(ConfigError, match=r"unknown part 'brain'.*brains"):
        pictures92("brain")
