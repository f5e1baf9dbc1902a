"""The tours of 2DMSE and Starbucks run through on a few pairs: what they train, report and note."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nestling.data.sets.sts import ScoredPairs
from nestling.encoders.text.encoder import TextEncoder
from nestling.granularity import Granularity
from nestling.papers import reproduce
from nestling.papers.claims import layer_study
from nestling.papers.claims.checks import Tour
from nestling.papers.claims.layer_study import GRID, PAIRS, Method, Study
from nestling.papers.starbucks import separate, starbucks, starbucks_for_full
from nestling.papers.two_d_mse import mrl, plain
from nestling.papers.two_d_mse import train as train_model
from nestling.storage.resumable import ResumableValues
from nestling.training import TrainConfig

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


@pytest.mark.slow
def test_2dmse_is_measured_and_reported(tmp_path: Path) -> None:
    report = reproduce(
        "2dmse", claims=["D1", "D4", "D5b", "D8"], seeds=2, quick=True, output=tmp_path / "out"
    )
    by_id = {claim.id: claim for claim in report.claims}
    assert list(by_id) == ["D1", "D4", "D5b", "D8"]
    assert len(by_id["D5b"].figures) == 12
    assert by_id["D5b"].figures["short, 6 layers: speed-up over 6/6"] == 1
    assert by_id["D1"].holds
    assert by_id["D8"].holds is None
    assert set(by_id["D4"].figures) == {"2DMSE", "plain", "MRL"}
    assert set(report.settings["learning rates"]) == {"2DMSE", "plain", "MRL"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["2dmse.json", "2dmse.md"]


@pytest.mark.slow
def test_each_method_is_trained_once_and_an_interrupted_study_resumes(tmp_path: Path) -> None:
    trained: list[tuple[str, int]] = []

    def train(model: TextEncoder, method: Method, pairs: ScoredPairs, config: TrainConfig) -> TextEncoder:
        trained.append((method.name, config.seed))
        return train_model(model, method, pairs, config)

    path, tour = tmp_path / "notes.json", Tour(("S2",), 2, quick=True)
    study = Study(tour, ResumableValues(path, {}), train, plain())
    cells = {seed: study.cells(starbucks(), seed) for seed in (0, 1)}
    assert trained == [("Starbucks", 0), ("Starbucks", 1)]
    assert set(cells[0]) == set(GRID)
    assert cells[0] != cells[1]
    again = Study(tour, ResumableValues(path, {}), train, plain())
    assert {seed: again.cells(starbucks(), seed) for seed in (0, 1)} == cells
    assert again.tuned.rates == study.tuned.rates
    assert len(trained) == 2
    assert separate(GRID.full).name == plain().name
    shallow = again.cells(separate(PAIRS.granularities[1]), 0)
    assert {g["layer"] for g in shallow} == {1, 2}
    assert again.cells(mrl(), 0) != again.cells(plain(), 0)


def test_a_rate_is_picked_by_the_pairs_unless_it_costs_too_much_of_the_full_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pairs gain up to a rate of 8e-4, while each doubling costs nested models a point of the full size."""

    def train(self: Study, method: Method, config: TrainConfig, start: object = None) -> SimpleNamespace:
        return SimpleNamespace(nesting=GRID, method=method, rate=config.lr)

    def measure(self: Study, model: SimpleNamespace, split: str) -> dict[Granularity, float]:
        doublings = np.log2(model.rate / 1e-4)
        pairs = 80 - abs(doublings - 3)
        full = 88 - abs(doublings - 1) if model.method.name == "plain" else 89 - doublings
        return dict.fromkeys(GRID, pairs) | {GRID.full: full}

    monkeypatch.setattr(Study, "_train", train)
    monkeypatch.setattr(Study, "_measure", measure)
    study = Study(Tour((), 1, quick=False), ResumableValues(None, {}), train_model, plain())
    dear = replace(starbucks_for_full(), name="within no rate near", full_loss=-2.0)
    for method in (plain(), starbucks(), starbucks_for_full(), dear):
        study.cells(method, 0)
    assert list(study.tuned.rates.values()) == [2e-4, 8e-4, 4e-4, 5e-5]
