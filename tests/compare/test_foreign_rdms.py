"""RDMs survive the trip to rsatoolbox, xarray and pandas and back."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from nestling.compare import RDMs, rdm
from nestling.errors import DataError

rsatoolbox = pytest.importorskip("rsatoolbox")
xarray = pytest.importorskip("xarray")


@pytest.fixture
def rdms() -> RDMs:
    x = np.random.default_rng(0).normal(size=(3, 5, 8))
    labels = {"layer": ["conv1", "conv2", "fc"], "seed": [0, 1, None], "noise": [0.5, 1.0, 2.0]}
    found = rdm(x, "correlation", stimuli=["cat", "dog", "car", "bus", "tree"], labels=labels)
    vectors = found.vectors.copy()
    vectors[1, 4] = np.nan
    return found.replace(vectors)


def same(a: RDMs, b: RDMs) -> None:
    np.testing.assert_array_equal(a.vectors, b.vectors)
    assert (a.stimuli, dict(a.labels), a.metric) == (b.stimuli, dict(b.labels), b.metric)


def test_rsatoolbox_and_back(rdms: RDMs) -> None:
    theirs = rdms.to_rsatoolbox()
    assert theirs.n_cond == 5
    assert theirs.pattern_descriptors["stimulus"] == list(rdms.stimuli)
    np.testing.assert_array_equal(theirs.get_matrices()[0], rdms.squares()[0])
    one = theirs.subset("layer", "fc")
    np.testing.assert_array_equal(one.dissimilarities, rdms.where(layer="fc").vectors)
    same(RDMs.from_rsatoolbox(theirs), rdms)


def test_rsatoolbox_gets_a_copy(rdms: RDMs) -> None:
    before = hashlib.sha256(rdms.vectors.tobytes()).hexdigest()
    theirs = rdms.to_rsatoolbox()
    theirs.dissimilarities[:] = 0
    back = RDMs.from_rsatoolbox(theirs)
    theirs.dissimilarities[:] = 1
    assert hashlib.sha256(rdms.vectors.tobytes()).hexdigest() == before
    assert not back.vectors.any()


def test_what_rsatoolbox_computes_comes_over() -> None:
    x = np.random.default_rng(0).normal(size=(6, 8))
    data = rsatoolbox.data.Dataset(
        x,
        descriptors={"subject": "s1"},
        obs_descriptors={"word": list("fedcba"), "class": [0, 0, 0, 1, 1, 1]},
    )
    theirs = rsatoolbox.rdm.calc_rdm(data, method="correlation", descriptor="word")
    found = RDMs.from_rsatoolbox(theirs, stimuli="word")
    np.testing.assert_allclose(found.at("fedcba").vectors, rdm(x, "correlation").vectors, atol=1e-12)
    assert found.labels["subject"] == ("s1",)
    assert RDMs.from_rsatoolbox(theirs).stimuli == tuple("012345")
    with pytest.raises(DataError, match="no pattern descriptor 'words'; choose from"):
        RDMs.from_rsatoolbox(theirs, stimuli="words")


def test_xarray_and_back(rdms: RDMs) -> None:
    array = rdms.to_xarray()
    assert array.dims == ("matrix", "first", "second")
    assert float(array.isel(matrix=2).sel(first="cat", second="bus")) == rdms.squares()[2, 0, 3]
    same(RDMs.from_xarray(array), rdms)


def test_other_arrays_of_xarray() -> None:
    square = np.ones((3, 3)) - np.eye(3)
    found = RDMs.from_xarray(xarray.DataArray(square, dims=("a", "b"), coords={"a": ["x", "y", "z"]}))
    assert (found.stimuli, len(found)) == (("x", "y", "z"), 1)
    named = xarray.DataArray(square, dims=("a", "b"), coords={"a": list("xyz"), "b": list("zyx")})
    with pytest.raises(DataError, match="must name the same stimuli in the same order"):
        RDMs.from_xarray(named)
    with pytest.raises(DataError, match="2 dims, or 3"):
        RDMs.from_xarray(xarray.DataArray(np.ones(3)))


def test_pandas_and_back(rdms: RDMs) -> None:
    frame = rdms.to_pandas()
    assert len(frame) == 3 * 10
    row = frame[(frame["matrix"] == 1) & (frame["first"] == "cat") & (frame["second"] == "bus")]
    assert row["dissimilarity"].item() == rdms.squares()[1, 0, 3]
    assert set(row["layer"]) == {"conv2"}
    same(RDMs.from_pandas(frame), rdms)


def test_other_frames_of_pandas() -> None:
    """Rows in any order, either side first, some missing."""
    frame = pd.DataFrame(
        {"first": ["b", "c", "d"], "second": ["a", "a", "c"], "dissimilarity": [1, 2, 3], "subject": "s1"}
    )
    found = RDMs.from_pandas(frame)
    assert (found.stimuli, found.labels["subject"]) == (("b", "c", "d", "a"), ("s1",))
    np.testing.assert_array_equal(found.vectors, [[np.nan, np.nan, 1, 3, 2, np.nan]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second": ["b", "a", "c"]}, "another pair of two different stimuli"),
        ({"first": ["b", "a", "d"], "second": ["a", "b", "c"]}, "another pair of two different stimuli"),
        ({"subject": ["s1", "s2", "s1"]}, "the column 'subject' differs within a matrix"),
    ],
)
def test_frames_that_are_no_matrices(change: dict[str, list[str]], message: str) -> None:
    frame = pd.DataFrame({"first": ["b", "c", "d"], "second": ["a", "a", "c"], "dissimilarity": [1, 2, 3]})
    with pytest.raises(DataError, match=message):
        RDMs.from_pandas(frame.assign(**change))
    with pytest.raises(DataError, match=r"it lacks \['dissimilarity'\]"):
        RDMs.from_pandas(frame.drop(columns="dissimilarity"))


def test_a_label_called_as_a_column(rdms: RDMs) -> None:
    with pytest.raises(DataError, match="the label 'first' has the name of a column"):
        rdms.replace(labels={"first": 1}).to_pandas()


def test_resampled_matrices_keep_their_numbers() -> None:
    from rsatoolbox.inference.bootstrap import bootstrap_sample_pattern
    from rsatoolbox.rdm import RDMs as Theirs

    from nestling.compare.rdms.conversion_functions import from_rsatoolbox

    theirs = Theirs(
        np.random.default_rng(0).random((2, 28)),
        pattern_descriptors={"stimulus": [f"s{i}" for i in range(8)]},
    )
    np.random.seed(0)
    drawn, _ = bootstrap_sample_pattern(theirs)
    ours = from_rsatoolbox(drawn)
    np.testing.assert_array_equal(ours.vectors, drawn.dissimilarities)
    first = [name.partition(" (")[0] for name in ours.stimuli]
    assert first == list(drawn.pattern_descriptors["stimulus"])
    assert any(name.endswith("(2)") for name in ours.stimuli)
    theirs.pattern_descriptors["kind"] = ["a", "b"] * 4
    with pytest.raises(DataError):
        from_rsatoolbox(theirs, stimuli="kind")
