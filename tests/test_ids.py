"""One door for ids: whatever people hold them in, they are read alike or refused in our words."""

from __future__ import annotations

import numpy as np
import pandas
import pyarrow
import pytest
import torch

from nestling.arguments.ids import as_ids
from nestling.errors import DataError
from nestling.search.index.files.ids import check_new_ids
from nestling.search.index.index import AdaptiveIndex
from nestling.vectors.stored import StoredVectors

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)


@pytest.mark.parametrize(
    "given",
    [
        [7, 8, 9],
        range(7, 10),
        np.array([7, 8, 9], np.uint8),
        [np.int64(7), np.int32(8), 9],
        torch.tensor([7, 8, 9]),
        pandas.Series([7, 8, 9]),
        pandas.Series([7, 8, 9], dtype="Int64"),
        pandas.Series([7, 8, 9], dtype=object),
        pyarrow.array([7, 8, 9]),
        (number for number in (7, 8, 9)),
    ],
)
def test_numbers(given):
    assert as_ids(given).tolist() == [7, 8, 9]


@pytest.mark.parametrize(
    "given",
    [
        ["a", "bé", "c"],
        np.array(["a", "bé", "c"]),
        pandas.Series(["a", "bé", "c"]),
        pandas.Series(["a", "bé", "c"], dtype=object),
        pyarrow.chunked_array([["a", "bé"], ["c"]]),
    ],
)
def test_strings(given):
    assert as_ids(given).tolist() == ["a", "bé", "c"]


def test_ids_to_pick_from_may_be_a_set(tmp_path):
    with AdaptiveIndex.create(tmp_path / "i", X, [7, 8, 9], plan="flat@full") as index:
        found = index.search(X[:1], 2, filter={7, 9})
        assert set(found.ids.ravel().tolist()) == {7, 9}
        index.delete({7})
        assert len(index) == 2


def of_index(given, tmp_path):
    with AdaptiveIndex.create(tmp_path / "i", X, given, plan="flat@full"):
        pass


ENTRIES = {
    "stored": lambda given, _: StoredVectors(X, ids=given),
    "new": lambda given, _: check_new_ids(given, 3),
    "index": of_index,
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["a", 1, "b"], "not some of each: row 0 has 'a', row 1 has 1"),
        (["a", None, "b"], "row 1 has none"),
        (pandas.Series([1, None, 2]), "row 1 has none"),
        ([1.5, 2.5, 3.5], "not float64"),
        ([True, False, True], "not bool"),
        ([1, True, 2], "not bool, but row 1 has True"),
        ([1, 2**63, 2], r"below 2\*\*63, but row 1 has 9223372036854775808; give those as strings"),
        ([-1, 2**64, 2], r"below 2\*\*63, but row 1"),
        (np.array([1, 2, 2**63], np.uint64), r"below 2\*\*63, but row 2"),
        ({1, 2, 3}, "must have an order, and a set has none; give a list"),
        (["a", "b\ud83d", "c"], "half of a surrogate pair, but row 1"),
        (np.array(["a", "b\udcff", "c"]), "half of a surrogate pair, but row 1"),
        (["a", "b\0", "c"], "null characters"),
        (["a", "b", "a"], "must be different, but id a occurs"),
        ([1, 2], "2 ids are given for 3 rows"),
        ("abc", "not a str"),
        ({"a": 1, "b": 2, "c": 3}, "not a dict"),
        ([["a"], ["b"], ["c"]], r"shape \(3, 1\)"),
    ],
)
def test_what_names_no_rows(entry, given, message, tmp_path):
    with pytest.raises(DataError, match=message):
        ENTRIES[entry](given, tmp_path)
