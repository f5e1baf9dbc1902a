"""A field of whole numbers becomes one of floats when a float comes; all else is as if it always was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.errors import ConfigError, DataError
from nestling.search.index.index import AdaptiveIndex
from nestling.search.stores.metadata import read_metadata
from nestling.search.stores.migrate import _check_fields, _Source
from nestling.storage.artifact import read_manifest
from nestling.vectors.stored import StoredVectors
from samples import examples

X = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
WHERE = (
    "price>2",
    "price>=2.5 and not price=3",
    "price in (1, 2.5, 7)",
    "not price<0",
    "note=a or price<1.5",
)

_PRICE = st.one_of(st.none(), st.integers(-4, 4), st.integers(-(2**53), 2**53))
_ROWS = st.lists(st.tuples(st.integers(0, 30), _PRICE), max_size=4)
_STEPS = st.lists(
    st.tuples(st.sampled_from(["put", "flush", "delete", "reopen"]), _ROWS, st.integers(0, 30)), max_size=6
)


def _step(index: AdaptiveIndex, change: str, rows: list, number: int) -> None:
    if change == "put" and rows:
        named = dict(rows)
        fields = {"price": list(named.values()), "note": ["ab"[name % 2] for name in named]}
        index.update(X[list(named)], list(named), fields)
    elif change == "flush":
        index.flush()
    elif change == "delete":
        index.delete([number], missing_ok=True)


def _told(index: AdaptiveIndex) -> tuple:
    """All that an index says of its rows and fields."""
    names = np.sort(index.ids())
    fields = [[(name, type(value), value) for name, value in row.items()] for row in index.fields_of(names)]
    found = [index.search(X[:2], 40, where=where) for where in WHERE] if len(names) else []
    return index.fields, names.tolist(), fields, [(f.ids.tolist(), f.fields) for f in found]


def _exported(index: AdaptiveIndex) -> dict:
    """Rows as exported to a database."""
    return {
        name: [(field, repr(value)) for field, value in metadata.items()]
        for batch in _Source.of(index, 7).batches
        for name, metadata in zip(batch.ids.tolist(), batch.metadata, strict=True)
    }


@settings(max_examples=examples(10))
@given(before=_STEPS, value=st.sampled_from([2.5, -0.5, 1e300]), after=_STEPS, row=st.integers(0, 30))
def test_an_index_that_widened_agrees_with_one_that_was_built_with_floats(
    tmp_path_factory, before, value, after, row
):
    folder = tmp_path_factory.mktemp("widening")
    indexes = [
        AdaptiveIndex.create(
            folder / kind, dim=8, nesting="dim=4,8", kinds={"price": kind, "note": "text"}, log_bytes=512
        )
        for kind in ("int", "float")
    ]
    for change, rows, number in [*before, ("float", [], row), *after]:
        for place, index in enumerate(indexes):
            if change == "float":
                index.update(X[[row]], [row], {"price": [value], "note": ["a"]})
            elif change == "reopen":
                index.close()
                indexes[place] = AdaptiveIndex.open(index.folder, log_bytes=512)
            else:
                _step(index, change, rows, number)
    widened, plain = indexes
    assert widened.fields == {"price": "float", "note": "text"}
    assert _told(widened) == _told(plain)
    widened.save(folder / "copy")
    copies = [
        AdaptiveIndex.open(folder / "copy"),
        widened.extract(4),
        AdaptiveIndex.open(folder / "int", read_only=True),
    ]
    for copy in copies:
        assert _told(copy)[:3] == _told(plain)[:3]
        copy.verify()
    assert _exported(widened) == _exported(plain)
    widened.compact()
    assert _told(widened) == _told(plain)
    for index in (*indexes, *copies):
        index.close()


def segments_of(folder: Path) -> list[dict]:
    return list(read_manifest(folder).settings["segments"])


@pytest.fixture
def prices(tmp_path):
    with AdaptiveIndex.create(tmp_path / "i", X[:20], fields={"price": list(range(20))}) as made:
        yield made


def test_segments_stay_as_they_are_until_they_are_merged(prices, tmp_path):
    reader = AdaptiveIndex.open(prices.folder, read_only=True)
    files = sorted(path for path in (prices.folder / "segments").rglob("*") if path.is_file())
    states = [(path, path.stat().st_mtime_ns) for path in files]
    prices.add(X[20:22], fields={"price": [3.5, 4]})
    assert [(path, path.stat().st_mtime_ns) for path in files] == states
    assert [record["whole"] for record in segments_of(prices.folder)] == [["price"], []]
    assert reader.fields == {"price": "int"}
    assert reader.fields_of([3]) == [{"price": 3}]
    assert reader.refresh()
    assert reader.fields == {"price": "float"}
    assert reader.fields_of([3, 20]) == [{"price": 3.0}, {"price": 3.5}]
    assert reader.search(X[:1], 30, where="price>=3.5").ids[0][:18].min() >= 4
    prices.compact()
    assert [record["whole"] for record in segments_of(prices.folder)] == [[]]
    assert reader.refresh()
    assert reader.fields_of([3]) == [{"price": 3.0}]


def test_whole_numbers_that_no_float_holds_stay(tmp_path):
    with AdaptiveIndex.create(tmp_path / "i", X[:2], ["a", "b"], fields={"n": [2**53 + 1, 1]}) as made:
        with pytest.raises(DataError, match=r"9007199254740993 has more digits than a float"):
            made.add(X[2:3], ["c"], {"n": [0.5]})
        assert (made.fields, len(made)) == ({"n": "int"}, 2)
        made.add(X[2:3], ["c"], {"n": [4.0]})  # as data frames write a whole number
        assert made.fields_of(["c"]) == [{"n": 4}]
        made.update(None, ["a"], {"n": [0.5]})  # this replaces the long number
        assert made.fields_of(["a", "b"]) == [{"n": 0.5}, {"n": 1.0}]
        with pytest.raises(DataError, match="row 0: 9007199254740993 has more digits"):
            made.add(X[3:4], ["d"], {"n": [2**53 + 1]})


def test_an_update_of_nothing_is_refused(prices):
    with pytest.raises(DataError, match="changes nothing; give fields="):
        prices.update(None, [1])


def test_what_is_no_number_widens_nothing(prices):
    for wrong in ("much", True, float("inf")):
        with pytest.raises(DataError):
            prices.add(X[20:22], fields={"price": [3.5, wrong]})
    with pytest.raises(DataError, match="zero"):
        prices.add(np.zeros((1, 8)), fields={"price": [3.5]})
    assert (prices.fields, len(prices)) == ({"price": "int"}, 20)


_KILLED = """
import os, sys
import numpy as np
from nestling.search.index import writer
from nestling.search.index.index import AdaptiveIndex
if sys.argv[2] == "before":
    writer.commit_manifest = lambda *_: os._exit(9)
else:
    whole = writer.commit_manifest
    writer.commit_manifest = lambda *given: (whole(*given), os._exit(9))
AdaptiveIndex.open(sys.argv[1]).add(np.ones((1, 8)), fields={"price": [3.5]})
"""


@pytest.mark.parametrize(("moment", "kind", "rows"), [("before", "int", 20), ("after", "float", 21)])
def test_a_writer_that_is_killed_leaves_all_or_nothing(prices, moment, kind, rows):
    prices.close()
    command = [sys.executable, "-c", _KILLED, str(prices.folder), moment]
    assert subprocess.run(command, check=False, timeout=60).returncode == 9
    with AdaptiveIndex.open(prices.folder) as opened:
        assert (opened.fields, len(opened)) == ({"price": kind}, rows)
        opened.verify()
        opened.add(X[30:31], fields={"price": [0.5]})
        assert opened.fields_of([0, 19]) == [{"price": 0.0}, {"price": 19.0}]


def test_tables_of_databases_keep_to_what_they_declare(tmp_path):
    with pytest.raises(DataError, match=r"Layout\(fields=\{'price': 'float'\}\)"):
        read_metadata([{"price": 1}, {"price": 3.5}], 2, {"price": "int"})
    assert read_metadata([{"price": 1}], 1, {"price": "float"}) == [{"price": 1.0}]
    whole = _Source.of(StoredVectors(X[:2], fields={"price": [1, 2]}), 10)
    _check_fields(whole, _Source.of(StoredVectors(X[:2], fields={"price": [1.5, 2]}), 10).layout(None))
    with pytest.raises(ConfigError, match="to a new table"):
        _check_fields(_Source.of(StoredVectors(X[:2], fields={"price": [1.5, 2]}), 10), whole.layout(None))
