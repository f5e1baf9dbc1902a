"""MRL's claims: the whole tour on data made on the spot, and checks that can tell good from bad."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import nn

from nestling.granularity import Nesting
from nestling.papers import mrl, reproduce
from nestling.papers.claims.models import Effort, Method, Model, Study
from nestling.papers.claims.qualities import cascade, matching, new_class_accuracy, retrieval, searches
from nestling.papers.mrl import train
from nestling.papers.problems import labelled as mrl_data
from nestling.papers.problems.labelled import LabelledData, PairedData, Pairs, Rows

NESTING = Nesting.parse("dim=2,4,8,16,64")
EFFORT = Effort.of(True, epochs=1, rates=(1e-2,))


@pytest.fixture
def on_the_spot(monkeypatch):
    monkeypatch.delenv("NESTLING_DATA", raising=False)


class Columns(nn.Module):
    """An encoder that puts its inputs into another order."""

    def __init__(self, order) -> None:
        super().__init__()
        self.order = torch.as_tensor(np.array(order))

    def forward(self, x):
        return x[:, self.order]


class KnownHead(nn.Module):
    """Answers with logits that are given, whatever it is asked."""

    def __init__(self, logits) -> None:
        super().__init__()
        self.logits = {key: torch.as_tensor(value, dtype=torch.float32) for key, value in logits.items()}

    def forward_each(self, features):
        return self.logits


def labelled(seed=0, rows=300, classes=6) -> LabelledData:
    """All that tells the classes apart lies in the first two of 64 inputs."""
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(classes) / classes

    def draw(count):
        labels = rng.integers(classes, size=count)
        x = rng.normal(scale=0.05, size=(count, 64))
        x[:, :2] += np.stack([np.cos(angles[labels]), np.sin(angles[labels])], axis=1)
        return Rows(x.astype(np.float32), labels)

    return LabelledData("made", NESTING, draw(rows), draw(100), draw(200))


def study_of(ours: nn.Module, full: nn.Module, data: LabelledData | None = None) -> Study:
    """A study whose two models are given, not trained."""
    study = Study("pictures", data or labelled(), EFFORT, train)
    study._models = {("MRL", 0): Model(ours, None), ("FF-64", 0): Model(full, None)}
    return study


FORWARD, BACKWARD = Columns(range(64)), Columns(range(63, -1, -1))


@pytest.mark.slow
def test_whole_tour_measures_every_claim_where_it_should(on_the_spot):
    report = reproduce("mrl", seeds=2, quick=True)
    found = [(claim.id, claim.data) for claim in report.claims]
    assert [claim for claim, _ in dict.fromkeys(found)] == [c for c, _ in found]
    assert {claim for claim, _ in found} == set(mrl.CLAIMS)
    assert {data for claim, data in found if claim == "C1"} == {
        "made pictures",
        "docstrings by package",
        "docstring search",
        "made similarity",
    }
    for claim in report.claims:
        if claim.holds is None:
            assert claim.id in mrl.NOT_TESTED
            assert claim.statement == mrl.NOT_TESTED[claim.id]
        else:
            low, high = claim.interval
            assert claim.seeds == 2
            assert low <= high
            assert claim.holds == (low >= 0)
            assert claim.figures
            assert all(math.isfinite(value) for value in claim.figures.values())
    rates = report.settings["learning rates"]["made pictures"]
    assert {"MRL", "MRL-E", "FF-2", "FF-64"} <= set(rates)


def test_same_seeds_same_figures_and_only_what_is_asked_for_is_trained(on_the_spot):
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    reports = [reproduce("mrl", seeds=2, claims=["C8"], quick=True) for _ in range(2)]
    assert reports[0].claims == reports[1].claims
    assert reports[0].settings["learning rates"] == {"made pictures": {"MRL": 1e-2}}
    assert torch.equal(torch.random.get_rng_state(), state)


def test_on_real_pictures(shared_data, monkeypatch):
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    data = mrl_data.fashion(quick=True)
    assert data.name == "Fashion-MNIST"
    assert data.train.x.shape == (2_000, 784)
    report = reproduce("mrl", seeds=2, claims=["C9"], quick=True)
    best = next(c for c in report.claims if c.data == "Fashion-MNIST").figures["best size"]
    assert best > 25  # ten classes: a tenth by chance


def test_truncation_claim_tells_ordered_from_disordered_information():
    clearance, figures = mrl.beats_truncation(study_of(FORWARD, BACKWARD), 0)
    assert clearance > 0
    assert figures["gap at 2 (>= 10)"] > 50
    assert mrl.beats_truncation(study_of(BACKWARD, FORWARD), 0)[0] < -50
    # A model against itself has nothing to show, wherever its information lies.
    assert mrl.beats_truncation(study_of(FORWARD, FORWARD), 0)[0] <= -2


def test_pca_finds_what_truncation_loses():
    """The classes make the two largest directions of variance: nothing is left to gain over PCA."""
    clearance, figures = mrl.beats_pca(study_of(FORWARD, BACKWARD), 0)
    assert clearance < 0
    assert abs(figures["gap at 2 (>= 4)"]) < 2


def test_equal_models_retrieve_equally():
    clearance, figures = mrl.retrieves_better(study_of(FORWARD, FORWARD), 0)
    assert clearance == -0.5
    assert figures == {"gap at 64 (>= 0.5)": 0.0}


def test_interpolation_claim_sees_a_hole_between_sizes():
    study = study_of(FORWARD, FORWARD)
    assert mrl.interpolates(study, 0)[0] >= 0
    study.quality = lambda vectors, dims: {dim: 30.0 if dim == 6 else 50.0 + dim for dim in dims}
    clearance, figures = mrl.interpolates(study, 0)
    assert figures["gap at 6 (>= -0.5)"] == 30 - 54
    assert clearance == -23.5


def test_oracle_counts_rows_that_any_size_gets_right():
    data = replace(labelled(), test=Rows(np.zeros((4, 64), np.float32), np.array([0, 1, 0, 1])))
    small, large = np.eye(2)[[0, 0, 1, 0]], np.eye(2)[[0, 1, 1, 0]]
    study = study_of(FORWARD, FORWARD, data)
    granularities = list(Nesting.parse("dim=2,64"))
    head = KnownHead(dict(zip(granularities, (small, large), strict=True)))
    study._models["MRL", 0] = Model(FORWARD, head)
    clearance, figures = mrl.oracle_has_headroom(study, 0)
    assert figures == {
        "best size": 50.0,
        "oracle": 50.0,
        "right only below full": 0.0,
        "share of errors": 0.0,
    }
    assert clearance == -0.2
    head.logits[granularities[0]] = torch.tensor(np.eye(2)[[1, 0, 0, 1]], dtype=torch.float32)
    _, figures = mrl.oracle_has_headroom(study, 0)
    assert figures["oracle"] == 100.0
    assert figures["share of errors"] == 1.0


def test_superclass_accuracy_adds_the_probabilities_of_its_classes():
    data = replace(labelled(classes=3), coarse=np.array([0, 0, 1]))
    data = replace(data, test=Rows(np.zeros((2, 64), np.float32), np.array([0, 2])))
    # Class 2 is the likeliest of row 0, but classes 0 and 1 together are likelier.
    small = np.log([[0.35, 0.25, 0.4], [0.1, 0.1, 0.8]])
    full = np.log([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])
    study = study_of(FORWARD, FORWARD, replace(data, nesting=Nesting.parse("dim=2,64")))
    study._models["MRL", 0] = Model(
        FORWARD, KnownHead(dict(zip(Nesting.parse("dim=2,64"), (small, full), strict=True)))
    )
    _, figures = mrl.coarse_survives(study, 0)
    assert figures == {"kept of superclasses": 1.0, "kept of classes": 0.5}


def test_retrieval_agrees_with_scikit_learn():
    data = labelled(seed=4)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 16)).astype(np.float32)
    found = retrieval(data, lambda x: x @ weights, [4, 16])
    for dim, (top1, score) in found.items():
        q, d = ((rows.x @ weights)[:, :dim] for rows in (data.test, data.train))
        order = NearestNeighbors(n_neighbors=10, metric="cosine").fit(d).kneighbors(q)[1]
        hits = data.train.labels[order] == data.test.labels[:, None]
        slow = np.mean([sum(row[: r + 1].mean() * row[r] for r in range(10)) / 10 for row in hits])
        # Ties and float32 sums may swap two neighbours of 200 queries.
        assert top1 == pytest.approx(100 * hits[:, 0].mean(), abs=0.5)
        assert score == pytest.approx(100 * slow, abs=0.5)


def test_matching_agrees_with_a_plain_loop():
    rng = np.random.default_rng(1)
    first = rng.normal(size=(60, 8)).astype(np.float32)
    second = (first + rng.normal(size=(60, 8))).astype(np.float32)
    wide = first.astype(np.float64), second.astype(np.float64)
    data = PairedData("made", Nesting.parse("dim=4,8"), *[Pairs(first, second)] * 3)
    found = matching(data, lambda x: x, "test", [4, 8])
    for dim in (4, 8):
        a, b = (x[:, :dim] / np.linalg.norm(x[:, :dim], axis=1, keepdims=True) for x in wide)
        products = a @ b.T
        ranks = [(products[row] > products[row, row]).sum() for row in range(60)]
        slow = np.mean([1 / math.log2(rank + 2) if rank < 10 else 0 for rank in ranks])
        assert found[dim] == pytest.approx(100 * slow, abs=1e-3)


def test_cascade_stops_where_the_small_head_is_sure():
    data = labelled()
    data = replace(data, validation=data.test, nesting=Nesting.parse("dim=2,64"))
    truth, half = np.eye(6)[data.test.labels], np.arange(200) % 2 == 0
    # The small head is sure and right on every other row, and knows nothing of the rest.
    logits = dict(zip(data.nesting, (20 * truth * half[:, None], 20 * truth), strict=True))
    found = cascade(data, Model(FORWARD, KnownHead(logits)), [2, 64])
    assert found == {"cascade": 100.0, "expected dims": 33.0, "dims of all heads tried": 34.0}


def test_searches_say_what_they_multiply():
    data = labelled(rows=400)
    found = searches(data, Model(FORWARD, None))
    assert found["reranked: share of products"] == pytest.approx((400 * 4 + 200 * 64) / (400 * 64))
    assert found["single shot"] > 95
    assert found["reranked"] > 95


def test_new_classes_are_known_by_their_mean():
    data = labelled()
    assert new_class_accuracy(data, Model(FORWARD, None), np.array([1, 4]), shots=5, seed=0) > 99
    noise = Columns(range(63, 31, -1))
    assert new_class_accuracy(data, Model(noise, None), np.array([1, 4]), shots=5, seed=0) < 50


def test_model_without_classes_has_no_head_for_them():
    study = Study("pictures", labelled(), EFFORT, train)
    model = study.model_without(study.mrl, 0, np.array([1, 4]))
    assert model.head.num_classes == 4


def test_rate_is_the_one_that_validates_best():
    effort = Effort.of(True, epochs=1, batch_size=64, rates=(1e-2,))
    study = Study("pictures", labelled(), replace(effort, rates=(1e-7, 3e-2)), train)
    assert study.rate(study.mrl) == 3e-2


def test_training_is_a_function_of_the_seed():
    data, config = (
        labelled(),
        replace(Effort.of(True, epochs=1, batch_size=64, rates=(1e-2,)).config, lr=1e-2),
    )
    method = Method("MRL", NESTING)
    vectors = [train(data, method, replace(config, seed=seed)).vectors(data.test.x) for seed in (1, 1, 2)]
    assert np.array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2])


def test_made_pictures_and_their_shifts(on_the_spot):
    data = mrl_data.fashion(quick=True)
    assert data.name == "made pictures"
    assert data.num_classes == 10
    for rows in (data.train, data.validation, data.test):
        assert rows.x.dtype == np.float32
        assert rows.x.min() >= 0
        assert rows.x.max() <= 1
    assert set(data.shifted) == {"noise", "translation", "rotation"}
    for x in data.shifted.values():
        assert x.shape == data.test.x.shape
        assert x.dtype == np.float32
        assert not np.allclose(x, data.test.x)
    moved = data.shifted["translation"].reshape(-1, 28, 28)
    np.testing.assert_array_equal(moved[:, 3:, 3:], data.test.x.reshape(-1, 28, 28)[:, :25, :25])


def test_package_rows_are_in_one_part_only(on_the_spot):
    class Lengths:
        """Stands for a text encoder: a vector that tells the texts apart."""

        def encode(self, texts):
            return np.array([[len(text), sum(map(ord, text)) % 997] for text in texts], np.float32)

    pairs = mrl_data.docstrings(quick=True)
    data = mrl_data.packages(pairs, Lengths(), quick=True)
    counts = np.bincount(np.concatenate([part.labels for part in (data.train, data.validation, data.test)]))
    assert counts.min() >= 30
    assert counts.max() <= 60
    assert list(data.shifted) == ["30% of words dropped", "50% of words dropped"]
    for x in data.shifted.values():
        assert x.shape == data.test.x.shape
    assert data.train.x.mean(0) == pytest.approx(0, abs=1e-4)
