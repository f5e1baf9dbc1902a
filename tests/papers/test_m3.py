"""The tour of M3: its mosaics, a quick run, and the claims that are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nestling.papers import CLAIMS, m3, reproduce
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.mosaic_study import Study
from nestling.papers.m3 import alone, flops_are_those_published, one_encoding_is_exact
from nestling.papers.problems import mosaics
from nestling.storage.resumable import ResumableValues


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
