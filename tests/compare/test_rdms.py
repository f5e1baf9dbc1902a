"""RDMs: squares, chosen stimuli, labels, saving, refusals."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import squareform

from nestling.compare import RDMs
from nestling.compare.rdms.pairs import count_pairs, count_stimuli, pair_positions
from nestling.errors import ArtifactError, DataError, StorageError

vectors = arrays(np.float64, (3, 15), elements=st.floats(-100, 100))  # 3 matrices over 6 stimuli


def some(m: int = 4, n: int = 7, **rest: object) -> RDMs:
    return RDMs(np.random.default_rng(0).random((m, count_pairs(n))), **rest)


@given(vectors)
def test_squares_are_those_of_scipy(values: np.ndarray) -> None:
    squares = RDMs(values).squares()
    np.testing.assert_array_equal(squares, [squareform(row) for row in values])
    np.testing.assert_array_equal(RDMs.from_squares(squares).vectors, values)


@given(vectors, st.permutations(range(6)), st.integers(3, 6))
def test_chosen_stimuli_are_rows_and_columns_of_the_squares(
    values: np.ndarray, order: list[int], count: int
) -> None:
    chosen = order[:count]
    found = RDMs(values).at(chosen)
    assert found.stimuli == tuple(map(str, chosen))
    np.testing.assert_array_equal(found.squares(), RDMs(values).squares()[:, chosen][:, :, chosen])


@given(st.integers(3, 40), st.data())
def test_positions_of_pairs(n: int, data: st.DataObject) -> None:
    chosen = np.array(data.draw(st.permutations(range(n))))
    square = squareform(np.arange(count_pairs(n)) + 1)
    np.testing.assert_array_equal(
        pair_positions(n, chosen) + 1, squareform(square[np.ix_(chosen, chosen)], checks=False)
    )


@pytest.mark.parametrize("n", [1, 2, 3, 92, 20_000, 3_000_000_000])
def test_stimuli_are_counted_without_rounding(n: int) -> None:
    assert count_stimuli(count_pairs(n)) == n
    if n > 2:
        with pytest.raises(DataError, match=f"{n - 1} stimuli have"):
            count_stimuli(count_pairs(n) - 1)


@pytest.mark.parametrize(
    ("which", "rows"),
    [
        (1, [1]),
        (-1, [3]),
        (np.int64(2), [2]),
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ([3, 0], [3, 0]),
        (np.array([True, False, False, True]), [0, 3]),
        ([False, True, False, False], [1]),
    ],
)
def test_some_matrices_keep_their_labels(which: object, rows: list[int]) -> None:
    rdms = some(labels={"layer": ["a", "b", "c", "d"], "subject": 7})
    found = rdms[which]
    np.testing.assert_array_equal(found.vectors, rdms.vectors[rows])
    assert found.labels == {"layer": tuple("abcd"[row] for row in rows), "subject": (7,) * len(rows)}


def test_it_is_iterated_one_by_one() -> None:
    rdms = some(labels={"layer": list("abcd")})
    assert [one.labels["layer"] for one in rdms] == [("a",), ("b",), ("c",), ("d",)]
    assert all(len(one) == 1 for one in rdms)


@pytest.mark.parametrize("which", [4, -5, [9]])
def test_a_matrix_that_is_not_there(which: object) -> None:
    with pytest.raises(IndexError):
        some()[which]


def test_labels_choose() -> None:
    rdms = some(labels={"layer": ["a", "b", "a", "b"], "seed": np.array([0, 0, 1, 1]), "best": None})
    np.testing.assert_array_equal(rdms.where(layer="a", seed=1).vectors, rdms.vectors[[2]])
    assert len(rdms.where(best=None)) == 4
    assert isinstance(rdms.labels["seed"][0], int)
    with pytest.raises(DataError, match="unknown label 'layers'; did you mean 'layer'"):
        rdms.where(layers="a")
    with pytest.raises(DataError, match=r"unknown layer 'c'\. Allowed: a, b"):
        rdms.where(layer="c")
    with pytest.raises(DataError, match="no matrix carries all of"):
        some(2, labels={"layer": ["a", "b"], "seed": [0, 1]}).where(layer="a", seed=1)


def test_text_is_one_label_not_its_letters() -> None:
    assert some(4, labels={"layer": "conv"}).labels["layer"] == ("conv",) * 4


def test_parts_are_put_together_by_the_names_of_their_stimuli() -> None:
    names = ["cat", "dog", "car", "bus"]
    one = some(2, 4, stimuli=names, labels={"subject": ["s1", "s2"]}, metric="correlation")
    other = some(1, 4, stimuli=names[::-1], labels={"layer": "conv1"}, metric="correlation")
    both = RDMs.concat([one, other])
    assert both.stimuli == tuple(names)
    assert both.metric == "correlation"
    assert both.labels == {"subject": ("s1", "s2", None), "layer": (None, None, "conv1")}
    np.testing.assert_array_equal(both.squares()[2], other.squares()[0, ::-1, ::-1])
    assert RDMs.concat([one, other.replace(metric="euclidean")]).metric == ""
    with pytest.raises(DataError, match="part 1 is over other stimuli than part 0: only one of them has bus"):
        RDMs.concat([one, other.at(["cat", "dog", "car"])])
    with pytest.raises(DataError, match="nothing to put together"):
        RDMs.concat([])


def test_new_numbers_keep_the_rest() -> None:
    rdms = some(labels={"layer": list("abcd")}, metric="euclidean")
    ranked = rdms.replace(rdms.vectors.argsort(axis=1), metric="ranks")
    assert (ranked.labels, ranked.stimuli, ranked.metric) == (rdms.labels, rdms.stimuli, "ranks")
    with pytest.raises(DataError, match="4 labels 'layer' were given for 1 matrices"):
        rdms.replace(rdms.vectors[:1])


def test_a_copy_is_equal() -> None:
    rdms = some(labels={"layer": list("abcd")}, metric="euclidean")
    twin = copy.deepcopy(rdms)
    assert (twin.labels, twin.stimuli, twin.metric) == (rdms.labels, rdms.stimuli, rdms.metric)
    np.testing.assert_array_equal(twin.vectors, rdms.vectors)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (np.float64, np.float64),
        (np.float32, np.float32),
        (np.float16, np.float32),
        (np.int64, np.float64),
        (np.uint8, np.float64),
        (np.bool_, np.float64),
    ],
)
def test_numbers_keep_their_value(dtype: type, kept: type) -> None:
    values = np.array([[0, 1, 1]], dtype)
    rdms = RDMs(values)
    assert rdms.vectors.dtype == kept
    np.testing.assert_array_equal(rdms.vectors, values)
    np.testing.assert_array_equal(RDMs([[16_777_217, 2, 3]]).vectors, [[16_777_217, 2, 3]])


def test_the_vectors_are_read_only_and_their_owner_is_left_alone() -> None:
    values = np.random.default_rng(0).random((2, 10))
    before = hashlib.sha256(values.tobytes()).hexdigest()
    rdms = RDMs(values)
    with pytest.raises(ValueError, match="read-only"):
        rdms.vectors[0, 0] = 1
    with pytest.raises(AttributeError):
        rdms.metric = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        rdms.labels["x"] = ("a",)  # type: ignore[index]
    rdms.squares(), rdms.at([4, 2, 0]), RDMs.from_squares(rdms.squares())
    assert np.shares_memory(values, rdms.vectors)
    assert values.flags.writeable
    assert hashlib.sha256(values.tobytes()).hexdigest() == before


def test_missing_pairs_negative_and_unjoined_ones_are_dissimilarities() -> None:
    rdms = RDMs([[np.nan, -1.0, np.inf]])
    np.testing.assert_array_equal(RDMs.from_squares(rdms.squares()).vectors, rdms.vectors)
    with pytest.raises(DataError, match="must not be -inf"):
        RDMs([[np.nan, 1.0, -np.inf]])


def test_a_constant_matrix_is_one() -> None:
    assert RDMs(np.ones((1, 3))).squares().sum() == 6


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones((1, 4)), "4 dissimilarities are no whole matrix: 3 stimuli have 3 pairs, 4 have 6"),
        (np.ones((1, 1)), "1 matrices over 2 stimuli cannot be compared"),
        (np.ones((1, 0)), "over 1 stimuli cannot be compared"),
        (np.ones((0, 3)), "0 matrices over 3 stimuli"),
        (np.ones((1, 3, 3)), "RDMs.from_squares takes whole matrices"),
        (np.array(1.0), r"not \(\)"),
        ([["a", "b", "c"]], "must be real numbers, not <U1"),
        ([[1j, 2, 3]], "must be real numbers, not complex128"),
    ],
)
def test_what_is_no_vector_of_pairs(given: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        RDMs(given)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((0, 1, 2), 9.0, "not symmetric: 9.0 from dog to car, but 2.0 back"),
        ((0, 1, 1), 0.5, "the dissimilarity of dog to itself must be 0, not 0.5"),
        ((0, 2, 2), np.nan, "of car to itself must be 0, not nan"),
        ((0, 2, 0), np.nan, "not symmetric: 2.0 from cat to car, but nan back"),
        ((0, 0, 2), np.inf, "not symmetric: inf from cat to car"),
    ],
)
def test_the_wrong_entry_of_a_square_is_named(place: tuple[int, ...], value: float, message: str) -> None:
    squares = np.full((1, 3, 3), 2.0)
    squares[:, range(3), range(3)] = 0
    squares[place] = value
    with pytest.raises(DataError, match=message):
        RDMs.from_squares(squares, stimuli=["cat", "dog", "car"])


def test_rounding_does_not_make_a_square_asymmetric() -> None:
    x = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    squares = 1 - np.corrcoef(x).astype(np.float32)
    squares[3, 4] += 1e-7
    assert RDMs.from_squares(squares).vectors.dtype == np.float32
    with pytest.raises(DataError, match="not symmetric"):
        RDMs.from_squares(squares + np.triu(np.full((20, 20), 1e-5, np.float32), 1))


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (3,), (1, 1, 3, 3)])
def test_what_is_no_square(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"must be \[m, n, n\] or \[n, n\]"):
        RDMs.from_squares(np.zeros(shape))


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ({"stimuli": ["a", "b"]}, "2 names were given for 3 stimuli"),
        ({"stimuli": ["a", "b", "a"]}, "stimuli must be different, but these occur more than once: a"),
        ({"labels": {"layer": ["a", "b"]}}, "2 labels 'layer' were given for 1 matrices"),
        ({"labels": {"layer": [object()]}}, "a label must be text, a finite number or None"),
        ({"labels": {"noise": float("nan")}}, "a label must be text, a finite number or None"),
    ],
)
def test_names_and_labels_that_do_not_fit(rest: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        RDMs([[1.0, 2.0, 3.0]], **rest)


def test_stimuli_that_are_not_there() -> None:
    with pytest.raises(DataError, match="there is no stimulus fox among the 7, which begin with 0, 1"):
        some().at(["0", "fox", "1"])
    with pytest.raises(DataError, match="must be different"):
        some().at(["0", "1", "1"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, dtype: type) -> None:
    labels = {"layer": ["a", "b", "c", "d"], "seed": [1, 2, 3, None], "noise": [0.5, 1, 2, 3], "new": True}
    values = np.random.default_rng(0).random((4, 21)).astype(dtype)
    values[1, 2] = np.nan
    rdms = RDMs(values, stimuli=list("abcdefg"), labels=labels, metric="correlation")
    rdms[::-1].save(tmp_path / "rdms")
    found = RDMs.load(tmp_path / "rdms")
    np.testing.assert_array_equal(found.vectors, values[::-1])
    assert found.vectors.dtype == dtype
    assert (found.labels, found.stimuli, found.metric) == (rdms[::-1].labels, rdms.stimuli, rdms.metric)
    assert [type(value) for value in found.labels["new"]] == [bool] * 4
    found.save(tmp_path / "rdms")  # over the file that it is mapped from
    np.testing.assert_array_equal(RDMs.load(tmp_path / "rdms").vectors, values[::-1])


def test_a_torn_or_foreign_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rdms"
    some().save(folder)
    file = folder / "vectors.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-8])
    with pytest.raises(ArtifactError, match="size or sha256 differs"):
        RDMs.load(folder)
    file.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        RDMs.load(folder)
    file.write_bytes(whole)
    manifest = json.loads((folder / "nestling.json").read_text())
    manifest["settings"]["stimuli"].pop()
    (folder / "nestling.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="6 names were given for 7 stimuli"):
        RDMs.load(folder)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        some().save(tmp_path / "file" / "below")
