"""The tour of tRSA: what its claims are measured on, and that it runs through."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestling.compare import RDMs
from nestling.papers import reproduce
from nestling.papers.problems.representations import AlexNet, Networks, Shapes, Words
from nestling.papers.trsa import STATISTICS, identification, noisy


def classes(noise: float, seed: int = 0) -> RDMs:
    """Four classes as five subjects have them."""
    rng = np.random.default_rng(seed)
    centres = rng.random((4, 190)) + 1
    vectors = np.concatenate([centres + noise * rng.random((4, 190)) for _ in range(5)])
    labels = {"layer": ["a", "b", "c", "d"] * 5, "network": np.repeat(range(5), 4).tolist()}
    return RDMs(vectors, labels=labels)


def test_shapes_differ_where_they_should() -> None:
    shapes = Shapes()
    flat, twisted, flat_apart, twisted_apart = shapes.points(200, 0)
    assert np.abs(flat[:, 2]).max() < 0.05 < np.abs(twisted[:, 2]).max()

    def crossing(points: np.ndarray) -> float:
        """Least distance between the strands that meet in the middle."""
        near = np.linalg.norm(points[:, :2], axis=1) < 0.1
        place = np.flatnonzero(near)
        first, second = place[place < 100], place[place >= 100]
        return float(np.linalg.norm(points[first][:, None] - points[second][None], axis=2).min())

    assert max(crossing(flat), crossing(twisted)) < 0.1
    assert min(crossing(flat_apart), crossing(twisted_apart)) > 0.3
    assert not np.array_equal(shapes.points(50, 0), shapes.points(50, 1))


def test_noise_is_in_proportion_to_each_matrix() -> None:
    rdms = classes(0.1)
    large = rdms.replace(vectors=rdms.vectors * np.where(np.arange(20) % 2, 1000.0, 1.0)[:, None])
    before = large.vectors.copy()
    changed = noisy(large, 0.5, 3)
    assert noisy(large, 0.0, 3) is large
    np.testing.assert_array_equal(large.vectors, before)
    assert changed.vectors.min() >= 0
    moved = (changed.vectors - before).std(axis=1) / before.std(axis=1)
    # 190 normal draws: their deviation is within 20 % of 0.5 with four standard errors to spare
    assert ((moved > 0.4) & (moved < 0.6)).all()


def test_what_is_clear_is_identified_by_every_statistic() -> None:
    found = identification(classes(0.05), "layer", "network", 0)
    assert set(found) == {"raw", "rank", *STATISTICS}
    assert set(found.values()) == {1.0}
    guessed = identification(classes(300.0), "layer", "network", 0)
    assert max(guessed.values()) < 0.7


def test_words_are_drawn_by_seed(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    first, again, other = Words().words(0), Words().words(0), Words().words(1)
    assert first == again != other
    assert len(set(first)) == 107
    assert all(len(word) >= 4 for word in first)


def test_layers_of_alexnet_are_told_as_before(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without noise nothing is drawn but the thresholds: raw and rank are what others measured."""
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    rdms = AlexNet().rdms
    assert len(rdms) == 50
    found = identification(rdms, "layer", "measurement", 0)
    assert (found["raw"], found["rank"]) == (0.44, 0.92)
    assert found["topology"] > 0.93


def test_networks_give_a_matrix_for_each_layer(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    networks = Networks(quick=True)
    clean, again, shaken = networks.rdms(0), networks.rdms(0), networks.rdms(0, noise=1.0)
    assert (len(clean), clean.n) == (18, 62)
    assert set(clean.labels["network"]) == {0, 1}
    np.testing.assert_array_equal(clean.vectors, again.vectors)
    assert not np.allclose(clean.vectors, shaken.vectors)
    assert 0 <= networks.accuracy <= 1


def test_the_tour_is_measured_and_reported(tmp_path: Path) -> None:
    report = reproduce("trsa", claims=["C1", "C1b", "C7"], seeds=2, quick=True, output=tmp_path)
    by_id = {claim.id: claim for claim in report.claims}
    assert list(by_id) == ["C1", "C1b", "C7"]
    assert by_id["C1b"].holds
    assert by_id["C1"].figures["distances, 50 points"] > 3
    assert by_id["C7"].holds is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trsa.json", "trsa.md"]


@pytest.mark.slow
def test_every_claim_runs_on_few_samples(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    claims = ["C3", "C3b", "C3c", "C3d", "C4", "C5", "C6"]
    report = reproduce("trsa", claims=claims, seeds=2, quick=True)
    assert [claim.id for claim in report.claims] == claims
    assert all(claim.figures for claim in report.claims)
