"""The search against identification one pair at a time, and its estimate against plain nested loops."""

import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import pdist

from nestling.compare.inference.identification import identify
from nestling.compare.inference.threshold_search import search_thresholds
from nestling.compare.rdms.rdms import RDMs
from nestling.compare.transforms.thresholds import threshold_grid
from nestling.compare.transforms.topology import GeoTopological
from nestling.data.sets.dissimilarities import pictures92
from nestling.errors import ConfigError, DataError


def networks(noise: float, seed: int = 0, subjects: int = 5, classes: int = 4, n: int = 14) -> RDMs:
    """Distances between points that each class has in common, seen by each subject with noise."""
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((classes, n, 3))
    points = centres + noise * generator.standard_normal((subjects, classes, n, 3))
    labels = {
        "layer": [place for _ in range(subjects) for place in range(classes)],
        "seed": [f"s{who}" for who in range(subjects) for _ in range(classes)],
    }
    return RDMs(np.array([pdist(each) for each in points.reshape(-1, n, 3)]), labels=labels)


@pytest.mark.parametrize("distance", ["euclidean", "correlation"])
@pytest.mark.parametrize("rank", [True, False])
def test_the_map_is_identification_pair_by_pair(distance: str, rank: bool) -> None:
    rdms = networks(1.0)
    names = {"label": "layer", "subject": "seed", "distance": distance}
    found = search_thresholds(rdms, step=0.2, rank=rank, **names)
    expected = [
        identify(rdms, transform=GeoTopological(*pair, rank=rank), **names).accuracy
        for pair in threshold_grid(0.2)
    ]
    np.testing.assert_allclose(found.accuracies, expected)
    assert len(set(expected)) > 1


def slow_choice(rdms: RDMs, pairs: np.ndarray) -> tuple[float, float]:
    accuracies = [
        identify(rdms, label="layer", subject="seed", transform=GeoTopological(*pair)).accuracy
        for pair in pairs
    ]
    best = [
        tuple(pair) for pair, each in zip(pairs, accuracies, strict=True) if each >= max(accuracies) - 1e-12
    ]
    return max(best, key=lambda pair: (pair[1] - pair[0], -pair[0]))


def test_the_estimate_is_that_of_plain_nested_loops() -> None:
    rdms = networks(1.2)
    pairs = threshold_grid(0.25)
    found = search_thresholds(rdms, label="layer", subject="seed", step=0.25)
    seed = np.array(rdms.labels["seed"])
    predicted = np.empty(len(seed), np.int64)
    for who, choice in zip(("s0", "s1", "s2", "s3", "s4"), found.choices, strict=True):
        chosen = slow_choice(rdms[seed != who], pairs)
        assert (choice.subject, choice.lower, choice.upper) == (who, *chosen)
        transformed = GeoTopological(*chosen)
        of_rest = identify(rdms[seed != who], label="layer", subject="seed", transform=transformed)
        assert choice.inner_accuracy == pytest.approx(of_rest.accuracy)
        own = identify(rdms, label="layer", subject="seed", transform=transformed)
        predicted[seed == who] = own.predicted[seed == who]
        row = own.grouping.subjects.index(who)
        np.testing.assert_allclose(found.identification.ratios[row], own.ratios[row])
        right = own.predicted[seed == who] == own.grouping.class_of[seed == who]
        assert choice.accuracy == pytest.approx(right.mean())
    assert np.array_equal(found.identification.predicted, predicted)
    assert found.accuracy == pytest.approx(np.mean(predicted == np.array(rdms.labels["layer"])))


def test_the_best_of_many_flatters_noise_and_the_estimate_does_not() -> None:
    """Matrices without any signal: the best cell is far above chance, what is reported is not."""
    best, reported = [], []
    for seed in range(20):
        vectors = np.random.default_rng(seed).random((20, 91))
        found = search_thresholds(vectors, label=list(range(4)) * 5, subject=np.arange(20) // 4, step=0.1)
        best.append(found.accuracies.max())
        reported.append(found.accuracy)
    # Chance is 0.25; the mean of 20 estimates of 20 matrices has a standard error of about 0.022.
    assert np.mean(best) > 0.38
    assert np.mean(reported) == pytest.approx(0.25, abs=0.07)


def test_the_whole_grid_takes_little_time() -> None:
    """90 matrices of 62 stimuli, all 210 pairs, and the choice without each of 10 subjects."""
    rdms = networks(1.0, subjects=10, classes=9, n=62)
    start = time.process_time()
    found = search_thresholds(rdms, label="layer", subject="seed")
    assert time.process_time() - start < 5
    assert len(found.rows()) == 210


def test_blocks_do_not_change_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rdms = networks(1.0)
    whole = search_thresholds(rdms, label="layer", subject="seed", step=0.2)
    for limit in ("_ENTRIES_AT_A_TIME", "_PRODUCTS_AT_A_TIME"):
        monkeypatch.setattr(f"nestling.compare.inference.threshold_search.{limit}", 1)
    parts = search_thresholds(rdms, label="layer", subject="seed", step=0.2)
    assert np.array_equal(whole.accuracies, parts.accuracies)
    assert whole.choices == parts.choices


def test_the_table_has_a_row_a_pair() -> None:
    rdms = networks(1.0)
    pairs = [(0.4, 0.6), (0.0, 1.0), (0.0, 0.2)]
    found = search_thresholds(rdms, label="layer", subject="seed", thresholds=pairs)
    rows = found.rows()
    assert [(row["lower"], row["upper"]) for row in rows] == pairs
    assert [row["region"] for row in rows] == ["topology", "geometry", "local"]
    assert found.to_pandas()["accuracy"].tolist() == found.accuracies.tolist()


def test_the_input_is_never_changed() -> None:
    vectors = np.array(networks(1.0).vectors, np.float32)
    before = hashlib.sha256(vectors.tobytes()).hexdigest()
    for rank in (True, False):
        search_thresholds(vectors, label=list("abcd") * 5, subject=np.arange(20) // 4, step=0.5, rank=rank)
    assert hashlib.sha256(vectors.tobytes()).hexdigest() == before


def test_missing_pairs_and_classes_are_said() -> None:
    rdms = networks(0.5)
    vectors = np.array(rdms.vectors)
    vectors[2, 5] = np.nan
    keep = np.arange(20) != 9
    found = search_thresholds(rdms.replace(vectors=vectors)[keep], label="layer", subject="seed", step=0.25)
    assert found.identification.notes == (
        "90 of 91 pairs are used: the others are missing in some matrix",
        "subject 's2' lacks 1 and is scored on what it has",
    )


def test_too_few_subjects_to_choose_and_report_are_refused() -> None:
    with pytest.raises(DataError, match="2 subjects are too few"):
        search_thresholds(networks(1.0, subjects=2), label="layer", subject="seed")
    vectors = np.random.default_rng(0).random((4, 15))
    with pytest.raises(DataError, match="without subject 0 no class is shared"):
        search_thresholds(vectors, label=list("abba"), subject=[0, 0, 1, 2], step=0.5)


def test_arguments_that_are_not_allowed_are_refused() -> None:
    rdms = networks(1.0)
    for options in (
        {"step": 0.3},
        {"thresholds": [(0.8, 0.2)]},
        {"distance": "manhattan"},
        {"label": "layers"},
    ):
        with pytest.raises(ConfigError):
            search_thresholds(rdms, **({"label": "layer", "subject": "seed"} | options))


def test_real_networks_seen_through_measurement_models(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AlexNet's conv1 to conv5 under ten simulated measurements: raw distances fail, ordered ones do not."""
    if not (shared_data / "rsa").is_dir():
        pytest.skip("the data folder has no rsa/")
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    rdms = RDMs.of(pictures92("alexnet"))
    layer, measurement = (np.array(rdms.labels[name]) for name in ("layer", "measurement"))
    rdms = rdms[np.char.startswith(layer, "conv") & np.char.startswith(measurement, "smooth")]
    assert len(rdms) == 50
    raw = identify(rdms, label="layer", subject="measurement")
    ranks = identify(rdms, label="layer", subject="measurement", transform=GeoTopological(0, 1))
    middle = identify(rdms, label="layer", subject="measurement", transform=GeoTopological(0.4, 0.6))
    assert raw.accuracy == pytest.approx(0.44)
    assert ranks.accuracy == pytest.approx(0.92)
    assert middle.accuracy >= ranks.accuracy - 0.02
    found = search_thresholds(rdms, label="layer", subject="measurement", step=0.1)
    assert 0.8 < found.accuracy <= found.accuracies.max()
