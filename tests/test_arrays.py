"""One door for numbers: whatever people hold them in, they are read alike or refused in our words."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal

import numpy as np
import pandas
import pyarrow
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nestling.arguments.arrays import as_array
from nestling.compare import rdm
from nestling.cut import RAW, check_vectors, cut
from nestling.encoders.maps import NestedAdapter, PCARotation
from nestling.errors import DataError
from nestling.measure.tasks.tasks import STS, NearestClassMean
from nestling.search.certified.scan import CertifiedScan
from nestling.search.exact.neighbours import nearest
from nestling.search.index.index import AdaptiveIndex
from nestling.vectors.stored import StoredVectors

# Whole numbers up to 8, which every float below holds exactly.
X = np.random.default_rng(0).integers(-8, 9, (48, 16)).astype(np.float32) + (np.arange(16) == 0) * 0.5
X[:, 1] += X[:, 1] == 0

FORMS = {
    "bfloat16": lambda x: torch.tensor(x).bfloat16(),
    "float16": lambda x: torch.tensor(x).half(),
    "gradient": lambda x: torch.tensor(x).requires_grad_(),
    "parameter": lambda x: torch.nn.Parameter(torch.tensor(x)),
    "lists": lambda x: x.tolist(),
    "list of arrays": list,
    "list of tensors": lambda x: list(torch.tensor(x).bfloat16()),
    "frame": pandas.DataFrame,
    "column of a frame": lambda x: pandas.Series(list(x)),
    "column of tensors": lambda x: pandas.Series(list(torch.tensor(x))),
    "arrow": lambda x: pyarrow.array(list(x)),
    "arrow table": lambda x: pyarrow.table({f"v{i}": column for i, column in enumerate(x.T)}),
    "decimals": lambda x: [[Decimal(float(value)) for value in row] for row in x],
    "nothing masked": np.ma.masked_invalid,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_matrix(form):
    found = check_vectors(FORMS[form](X))
    np.testing.assert_array_equal(found, X)
    np.testing.assert_array_equal(cut(FORMS["lists"](X), 4, RAW), X[:, :4])


def of_index(folder, x):
    with AdaptiveIndex.create(folder / "index", X, plan="flat@full") as index:
        index.add(x, range(100, 100 + len(x)))
        return index.search(x, 3).ids


ENTRIES = {
    "stored": lambda _, x: StoredVectors(x).values,
    "index": of_index,
    "rotation": lambda _, x: PCARotation().fit(x).transform(x),
    "adapter": lambda _, x: NestedAdapter(epochs=1).fit(X, pairs=x)(x),
    "queries": lambda _, x: nearest(x, X, 3).indices,
    "documents": lambda _, x: nearest(X, x, 3).indices,
    "certified": lambda _, x: CertifiedScan.build(x).search(x, 3).indices,
    "dissimilarities": lambda _, x: rdm(x).vectors,
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("form", ["bfloat16", "gradient", "lists", "column of a frame"])
def test_every_entry_takes_every_form(form, entry, tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "plain").mkdir()
    found = ENTRIES[entry](tmp_path / "given", FORMS[form](X))
    np.testing.assert_allclose(found, ENTRIES[entry](tmp_path / "plain", X), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([[1.0] * 16, [2.0] * 15], "row 0 has 16 entries and row 1 has 15"),
        ([[1.0] * 16, None], "row 1 is a NoneType"),
        ([[1.0] * 16, "a vector"], "row 1 is a str"),
        ([[1.0] * 16, [*[1.0] * 15, object()]], "row 1 holds an object"),
        (torch.eye(16).to_sparse(), "without plain numbers"),
        (torch.zeros(16, 16, device="meta"), "no data"),
    ],
)
def test_what_is_no_matrix_is_refused_in_our_words(entry, given, message, tmp_path):
    with pytest.raises(DataError, match=message):
        ENTRIES[entry](tmp_path, given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((row for row in X), "not a generator"),
        ({0: X[0]}, "not a dict"),
        (X[0], r"shape \(16,\); write \[vector\] for a single one"),
        ([["a"]], "must be floats"),
        (np.ma.masked_greater(X, 7), "NaN or infinity in"),
        ([[1.0, None], [2.0, 3.0]], "NaN or infinity in row 0"),
        (pandas.DataFrame({"a": [1, None], "b": [1, 2]}, dtype="Float32"), "NaN or infinity in row 1"),
        ([[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0]]], "of one shape"),
    ],
)
def test_other_things_that_are_no_matrix(given, message):
    with pytest.raises(DataError, match=message):
        check_vectors(given)


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), max_size=3), min_size=1, max_size=5))
def test_lists_are_a_matrix_or_the_first_other_length_is_named(rows):
    other = [row for row, values in enumerate(rows) if len(values) != len(rows[0])]
    if not other:
        assert as_array(rows).tolist() == rows
        return
    with pytest.raises(DataError, match=rf"row {other[0]} has {len(rows[other[0]])}"):
        as_array(rows)


def test_labels_and_scores_pass_the_same_door():
    words = pandas.Series(["a", "b"] * 24, dtype=object)
    assert NearestClassMean(X, words, X, words[::-1]).metrics == ("accuracy",)
    assert STS(X, X, torch.arange(48.0).bfloat16().requires_grad_()).metrics == ("spearman",)
    with pytest.raises(DataError, match="train labels must be rows of numbers, but row 1 is a NoneType"):
        NearestClassMean(X, [["a"], None] * 24, X, [0, 1] * 24)


def test_whole_numbers_are_normalised_as_floats():
    np.testing.assert_allclose(cut(np.array([[3, 4, 12]]), 2), [[0.6, 0.8]])


def test_no_tensor_no_torch():
    code = (
        "import sys; from nestling.arguments.arrays import as_array; from nestling.cut import check_vectors\n"
        "check_vectors([[1, 2]]); as_array('ab'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
