"""Identification against scikit-learn's nearest centroids, one subject left out at a time in plain loops."""

import hashlib
import itertools
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import confusion_matrix, recall_score
from sklearn.neighbors import NearestCentroid

from nestling.compare.inference.identification import identify
from nestling.compare.rdms.rdms import RDMs
from nestling.compare.transforms.topology import GeoTopological
from nestling.errors import ConfigError, DataError
from samples import examples


@st.composite
def designs(draw: st.DrawFn) -> tuple[np.ndarray, list[str], list[int]]:
    """Matrices of classes that some subjects lack and others have twice."""
    count = draw(st.integers(4, 14))
    label = draw(st.lists(st.sampled_from("abcd"), min_size=count, max_size=count))
    subject = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    centres = generator.random((4, 15))
    return centres[["abcd".index(each) for each in label]] + generator.random((count, 15)), label, subject


def slow_predictions(vectors: np.ndarray, label: np.ndarray, subject: np.ndarray, metric: str) -> list:
    """The nearest of the centroids of the other subjects; None where they lack the true class."""
    found = []
    for vector, own, who in zip(vectors, label, subject, strict=True):
        train, names = vectors[subject != who], label[subject != who]
        classes = sorted(set(names), key=label.tolist().index)
        if own not in classes:
            found.append(None)
            continue
        if metric == "correlation":  # of patterns centred each by itself, as the mean of correlations wants
            train, vector = train - train.mean(axis=1, keepdims=True), vector - vector.mean()
        centroids = [train[names == each].mean(axis=0) for each in classes]
        found.append(classes[cdist([vector], centroids, metric).argmin()])
    return found


@settings(max_examples=examples(150))
@given(designs(), st.sampled_from(["euclidean", "correlation", "cosine"]))
def test_it_is_the_plain_loop(grouping: tuple, metric: str) -> None:
    vectors, label, subject = grouping
    label_array, subject_array = np.array(label), np.array(subject)
    if len(set(label)) < 2 or len(set(subject)) < 2:
        with pytest.raises(DataError):
            identify(vectors, label=label, subject=subject, distance=metric)
        return
    expected = slow_predictions(vectors, label_array, subject_array, metric)
    scored = [each is not None for each in expected]
    if not any(scored):
        with pytest.raises(DataError, match="no class is shared"):
            identify(vectors, label=label, subject=subject, distance=metric)
        return
    found = identify(vectors, label=label, subject=subject, distance=metric)
    names = [None if place < 0 else found.grouping.classes[place] for place in found.predicted]
    assert names == expected
    right = [each == own for each, own in zip(expected, label, strict=True) if each is not None]
    assert found.accuracy == pytest.approx(np.mean(right))
    truth = [own for own, is_scored in zip(label, scored, strict=True) if is_scored]
    called = [each for each in expected if each is not None]
    order = list(found.grouping.classes)
    assert np.array_equal(found.confusion, confusion_matrix(truth, called, labels=order))
    recalls = recall_score(truth, called, labels=order, average=None, zero_division=np.nan)
    np.testing.assert_allclose(found.sensitivity, recalls)
    for place, name in enumerate(order):
        negatives = [each != name for each in truth]
        kept = [each != name for each, is_negative in zip(called, negatives, strict=True) if is_negative]
        expected_share = np.mean(kept) if kept else np.nan
        np.testing.assert_allclose(found.specificity[place], expected_share)


@settings(max_examples=examples(60))
@given(designs(), st.sampled_from(["euclidean", "correlation", "cosine"]))
def test_ratios_are_those_of_the_plain_loop(grouping: tuple, metric: str) -> None:
    vectors, label, subject = grouping
    try:
        found = identify(vectors, label=label, subject=subject, distance=metric)
    except DataError:
        return
    label, subject = np.array(label), np.array(subject)
    for (row, who), (column, name) in itertools.product(
        enumerate(found.grouping.subjects), enumerate(found.grouping.classes)
    ):
        own = vectors[(subject == who) & (label == name)]
        same, others = (vectors[(subject != who) & kept] for kept in (label == name, label != name))
        ratio = found.ratios[row, column]
        if min(map(len, (own, same, others))) == 0:
            assert np.isnan(ratio)
        else:
            assert ratio == pytest.approx(cdist(own, same, metric).mean() / cdist(own, others, metric).mean())


def balanced(noise: float, seed: int = 0, subjects: int = 6, classes: int = 4) -> RDMs:
    generator = np.random.default_rng(seed)
    centres = generator.random((classes, 45))
    values = centres + noise * generator.standard_normal((subjects, classes, 45))
    labels = {
        "layer": [f"conv{place}" for _ in range(subjects) for place in range(classes)],
        "seed": [who for who in range(subjects) for _ in range(classes)],
    }
    return RDMs(values.reshape(-1, 45), labels=labels)


def test_it_is_scikit_learns_nearest_centroid() -> None:
    rdms = balanced(0.6)
    found = identify(rdms, label="layer", subject="seed")
    label, seed = (np.array(rdms.labels[name]) for name in ("layer", "seed"))
    right = [
        NearestCentroid()
        .fit(rdms.vectors[seed != who], label[seed != who])
        .predict(rdms.vectors[seed == who])
        == label[seed == who]
        for who in range(6)
    ]
    assert 0.4 < found.accuracy < 1
    assert found.accuracy == pytest.approx(np.mean(right))
    assert found.chance == 0.25
    assert found.notes == ()


def test_a_transform_comes_first() -> None:
    rdms = balanced(0.6)
    transformed = GeoTopological(0.1, 0.5).transform(rdms)
    expected = identify(transformed, label="layer", subject="seed")
    for transform in (GeoTopological(0.1, 0.5), GeoTopological(0.1, 0.5).transform):
        found = identify(rdms, label="layer", subject="seed", transform=transform)
        assert np.array_equal(found.distances, expected.distances)
    with pytest.raises(DataError, match=r"\(3, 45\) for 24 matrices"):
        identify(rdms, label="layer", subject="seed", transform=lambda given: given.vectors[:3])


def test_a_scale_common_to_all_does_not_matter() -> None:
    rdms = balanced(0.6)
    expected = identify(rdms, label="layer", subject="seed")
    far = identify(rdms.vectors + 1e6, label=rdms.labels["layer"], subject=rdms.labels["seed"])
    assert np.array_equal(far.predicted, expected.predicted)
    np.testing.assert_allclose(far.distances, expected.distances, rtol=1e-6)


def test_the_input_is_never_changed() -> None:
    vectors = np.array(balanced(0.5).vectors)
    before = hashlib.sha256(vectors.tobytes()).hexdigest()
    for metric in ("euclidean", "correlation", "cosine"):
        identify(vectors, label=list("abcd") * 6, subject=np.arange(24) // 4, distance=metric, permutations=5)
    assert hashlib.sha256(vectors.tobytes()).hexdigest() == before


def test_permutations_are_all_orders_within_subjects_evenly() -> None:
    """Three subjects of two classes have eight orders; their accuracies are found one by one."""
    rdms = balanced(1.5, subjects=3, classes=2)
    counted: Counter[float] = Counter()
    for flips in itertools.product([False, True], repeat=3):
        label = [name for flip in flips for name in ("ba" if flip else "ab")]
        counted[identify(rdms, label=label, subject="seed").accuracy] += 1
    found = identify(rdms, label="layer", subject="seed", permutations=4000, seed=1)
    accuracies, counts = np.unique(found.null.round(9), return_counts=True)
    assert set(accuracies) == {round(accuracy, 9) for accuracy in counted}
    for accuracy, count in zip(accuracies, counts, strict=True):
        expected = sum(number for each, number in counted.items() if round(each, 9) == accuracy) / 8
        assert count / 4000 == pytest.approx(expected, abs=0.04)


def test_p_values_tell_signal_from_none() -> None:
    signal = identify(balanced(0.3), label="layer", subject="seed", permutations=199)
    assert signal.p_value == pytest.approx(1 / 200)
    assert signal.null.mean() == pytest.approx(0.25, abs=0.03)
    none = [
        identify(balanced(100, seed), label="layer", subject="seed", permutations=99, seed=seed).p_value
        for seed in range(40)
    ]
    assert 0.3 < np.mean(none) < 0.75
    assert np.mean(np.array(none) <= 0.1) < 0.25
    assert np.isnan(identify(balanced(0.3), label="layer", subject="seed").p_value)


def test_permutations_follow_the_seed_whatever_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    rdms = balanced(1.0)
    nulls = []
    for block in (1, 500, 1 << 21):
        monkeypatch.setattr(
            sys.modules["nestling.compare.inference.identification"], "_MEMBERS_AT_A_TIME", block
        )
        nulls.append(identify(rdms, label="layer", subject="seed", permutations=50, seed=7).null)
    assert np.array_equal(nulls[0], nulls[1])
    assert np.array_equal(nulls[0], nulls[2])
    other = identify(rdms, label="layer", subject="seed", permutations=50, seed=8).null
    assert not np.array_equal(nulls[0], other)


def test_classes_that_subjects_lack_are_said() -> None:
    rdms = balanced(0.1)
    keep = np.ones(24, np.bool_)
    keep[[1, 4]] = False  # conv1 of seed 0, conv0 of seed 1
    rdms = rdms[keep]
    rare = RDMs(np.random.default_rng(1).random((1, 45)), labels={"layer": "pool", "seed": 3})
    found = identify(RDMs.concat([rdms, rare]), label="layer", subject="seed")
    assert found.accuracy == 1
    assert np.count_nonzero(found.predicted < 0) == 1
    assert found.notes == (
        "subject 0 lacks 'conv1' and is scored on what it has",
        "subject 1 lacks 'conv0' and is scored on what it has",
        "only one subject has 'pool', so its matrices are not scored",
    )
    # Without seed 3 nobody has 'pool': its matrices choose among 4, those of others among 5.
    assert found.chance == pytest.approx((4 / 4 + 18 / 5) / 22)
    column = found.grouping.classes.index("conv1")
    assert np.isnan(found.ratios[:, column]).tolist() == [True, False, False, False, False, False]


def test_missing_pairs_are_left_out_and_said() -> None:
    rdms = balanced(0.6)
    vectors = np.array(rdms.vectors)
    vectors[3, 7] = vectors[5, 11] = np.nan
    left = [place for place in range(45) if place not in (7, 11)]
    found = identify(rdms.replace(vectors=vectors), label="layer", subject="seed")
    expected = slow_predictions(
        rdms.vectors[:, left], np.array(rdms.labels["layer"]), np.array(rdms.labels["seed"]), "euclidean"
    )
    assert [found.grouping.classes[place] for place in found.predicted] == expected
    assert found.notes == ("43 of 45 pairs are used: the others are missing in some matrix",)


def test_the_table_has_a_row_a_class() -> None:
    found = identify(balanced(0.6), label="layer", subject="seed")
    rows = found.rows()
    assert [row["class"] for row in rows] == ["conv0", "conv1", "conv2", "conv3"]
    assert {row["matrices"] for row in rows} == {6}
    assert [row["within_over_across"] for row in rows] == pytest.approx(found.ratios.mean(axis=0).tolist())
    assert found.to_pandas()["sensitivity"].mean() == pytest.approx(found.accuracy)


VECTORS = np.random.default_rng(0).random((4, 15))


@pytest.mark.parametrize(
    ("vectors", "options", "says"),
    [
        (VECTORS, {"subject": [1, 1, 1, 1]}, "one subject, 1; leaving one subject out"),
        (VECTORS, {"label": list("aaaa")}, "one class, 'a'"),
        (VECTORS, {"label": list("abcd")}, "no class is shared"),
        (VECTORS, {"label": list("aba")}, "3 labels"),
        (np.where(np.eye(4, 15), np.inf, VECTORS), {}, "infinity"),
        (np.full((4, 15), np.nan), {}, "every pair"),
        (VECTORS, {"label": list("abab"), "subject": [0, 1, 0, 2], "permutations": 9}, "single class"),
    ],
)
def test_what_cannot_be_identified_is_refused(vectors: np.ndarray, options: dict, says: str) -> None:
    given = {"label": list("abab"), "subject": [0, 0, 1, 1]} | options
    with pytest.raises(DataError, match=says):
        identify(vectors, **given)


def test_unknown_names_are_refused() -> None:
    rdms = balanced(0.5)
    with pytest.raises(
        ConfigError, match="label='layers' names no label: unknown label 'layers'; did you mean 'layer'"
    ):
        identify(rdms, label="layers", subject="seed")
    with pytest.raises(ConfigError, match="did you mean 'euclidean'"):
        identify(rdms, label="layer", subject="seed", distance="euclid")
    with pytest.raises(ConfigError, match="at least 0"):
        identify(rdms, label="layer", subject="seed", permutations=-1)


def test_a_matrix_without_direction_is_at_one_from_all() -> None:
    vectors = np.array(balanced(0.5, subjects=2, classes=2).vectors)
    vectors[0] = 3.0
    found = identify(vectors, label=list("abab"), subject=[0, 0, 1, 1], distance="correlation")
    assert found.distances[0].tolist() == [1, 1]
