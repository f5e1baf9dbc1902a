"""The tour of M3: its mosaics, a quick run, and the claims that are exact."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nestling.papers import CLAIMS, m3, reproduce
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.mosaic_study import Study
from nestling.papers.m3 import alone, flops_are_those_published, one_encoding_is_exact
from nestling.papers.problems import mosaics
from nestling.storage.resumable import ResumableValues


def write_garments(folder: Path, name: str, rows: int) -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(10, size=rows).astype(np.uint8)
    images = draw.integers(0, 60, size=(rows, 28, 28)).astype(np.uint8) + 10 * labels[:, None, None]
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "fashion-mnist").mkdir()
    for name in ("train", "t10k"):
        write_garments(tmp_path / "fashion-mnist", name, 400)
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path))
    for cached in (mosaics.garments, mosaics._network):
        cached.cache_clear()
    yield tmp_path
    for cached in (mosaics.garments, mosaics._network):
        cached.cache_clear()


def test_the_claims_are_those_of_the_catalogue() -> None:
    assert CLAIMS["m3"] == m3.CLAIMS


def test_answers_of_mosaics_are_right() -> None:
    labels = np.random.default_rng(0).integers(10, size=500)
    made = mosaics.mosaics(labels, 600, 1)
    classes = np.append(labels, -1)[made.cells]
    quadrants = np.array([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3])
    assert (np.bincount(made.kinds) == 200).all()
    counts = (classes >= 0).sum(axis=1)
    assert counts.min() >= 5
    assert counts.max() <= 12
    for row in range(600):
        kind, target = made.kinds[row], made.targets[row]
        inside = [np.arange(16) == target, quadrants == target, np.ones(16, bool)][kind]
        frequency = np.bincount(classes[row][inside & (classes[row] >= 0)], minlength=10)
        assert frequency.argmax() == made.answers[row]
        assert (frequency == frequency.max()).sum() == 1
    again = mosaics.mosaics(labels, 600, 1)
    assert np.array_equal(made.cells, again.cells)
    batch = made.batch(slice(2), answered=True)
    assert batch.ids[:, 0].tolist() == [-1, -1]
    assert batch.labels[:, -1].tolist() == batch.ids[:, -1].tolist()
    assert batch.ids.max() < mosaics.VOCABULARY


def test_a_quick_tour_resumes(generated: Path, tmp_path: Path) -> None:
    report = reproduce("m3", quick=True, seeds=2, output=tmp_path / "out", claims=["M3-6", "M3-9"])
    assert [claim.id for claim in report.claims] == ["M3-6", "M3-9"]
    assert report.claims[-1].holds is None
    assert (tmp_path / "out" / "m3.md").exists()


def test_exact_claims_hold(generated: Path) -> None:
    tour = Tour(("M3-7", "M3-8"), 2, quick=True)
    study = Study(tour, ResumableValues(None, {}), {False: alone(16)})
    for check in (flops_are_those_published, one_encoding_is_exact):
        clearance, figures = check(study, 0)
        assert clearance >= 0, figures
