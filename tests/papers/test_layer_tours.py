"""The tours of 2DMSE and Starbucks run through on a few pairs: what they train, report and note."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nestling.papers import layer_study, reproduce
from nestling.papers.checks import Tour
from nestling.papers.layer_study import GRID, PAIRS, Study, mrl, plain, separate, starbucks
from nestling.papers.notes import Notes

PEOPLE, DEEDS = ("a man", "a woman", "two boys", "a dog"), ("plays", "sleeps", "eats fish", "runs home")


@pytest.fixture(autouse=True)
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pairs of sentences that are alike as far as their words are."""
    folder = tmp_path / "data" / "sts"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split in ("train", "dev", "test"):
        drawn = rng.integers(4, size=(64, 4))
        rows = [
            (f"{PEOPLE[a]} {DEEDS[b]}", f"{PEOPLE[c]} {DEEDS[d]}", 2.5 * (a == c) + 2.5 * (b == d))
            for a, b, c, d in drawn
        ]
        with (folder / f"stsb-en-{split}.csv").open("w", newline="", encoding="utf-8") as stream:
            csv.writer(stream).writerows(rows)
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path / "data"))
    layer_study._pairs.cache_clear()
    yield
    layer_study._pairs.cache_clear()


def test_2dmse_is_measured_and_reported(tmp_path: Path) -> None:
    report = reproduce("2dmse", claims=["D1", "D4", "D8"], seeds=2, quick=True, output=tmp_path / "out")
    by_id = {claim.id: claim for claim in report.claims}
    assert list(by_id) == ["D1", "D4", "D8"]
    assert by_id["D1"].holds
    assert by_id["D8"].holds is None
    assert set(by_id["D4"].figures) == {"2DMSE", "plain", "MRL"}
    assert set(report.settings["learning rates"]) == {"2DMSE", "plain", "MRL"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2dmse.json", "2dmse.md"]


def test_each_method_is_trained_once_and_an_interrupted_study_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[str, int]] = []
    train = Study._train

    def count(self: Study, method: object, config: object, start: object = None) -> object:
        trained.append((method.name, config.seed))  # type: ignore[attr-defined]
        return train(self, method, config, start)  # type: ignore[arg-type]

    monkeypatch.setattr(Study, "_train", count)
    path, tour = tmp_path / "notes.json", Tour(("S2",), 2, quick=True)
    study = Study(tour, Notes(path, {}))
    cells = {seed: study.cells(starbucks(), seed) for seed in (0, 1)}
    assert trained == [("Starbucks", 0), ("Starbucks", 1)]
    assert set(cells[0]) == set(GRID)
    assert cells[0] != cells[1]
    again = Study(tour, Notes(path, {}))
    assert {seed: again.cells(starbucks(), seed) for seed in (0, 1)} == cells
    assert again.rates == study.rates
    assert len(trained) == 2
    assert separate(GRID.full).name == plain().name
    shallow = again.cells(separate(PAIRS.granularities[1]), 0)
    assert {g["layer"] for g in shallow} == {1, 2}
    assert again.cells(mrl(), 0) != again.cells(plain(), 0)
