"""Fields of rows in an index: durable with the vectors, filtered by, answered with, copied and merged."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.errors import ConfigError, DataError
from nestling.search.index.index import AdaptiveIndex
from nestling.search.where.argument import read_where
from nestling.search.where.condition import meets
from nestling.vectors.opening import open_vectors
from nestling.vectors.stored import StoredVectors
from samples import examples
from samples import gaussian as vectors

_BRANDS = ["acme", "nord", "west", None]


def records(rows: int) -> list[dict]:
    return [
        {"year": 2000 + row % 25, "brand": _BRANDS[row % 4], "price": row / 2, "sold": row % 3 == 0}
        for row in range(rows)
    ]


@pytest.fixture
def index(tmp_path):
    with AdaptiveIndex.create(
        tmp_path / "i", vectors(300), [f"sku{row}" for row in range(300)], fields=records(300)
    ) as made:
        yield made


WHERE = {
    "year>=2020 and brand in (acme, nord)": {"year": {"gte": 2020}, "brand": ["acme", "nord"]},
    "not brand=acme": {"not": {"brand": "acme"}},
    "sold=true and price<50": {"sold": True, "price": {"lt": 50}},
    "brand>=b and brand<x": {"brand": {"gte": "b", "lt": "x"}},
}


def exact(x: np.ndarray, query: np.ndarray, rows: list[int], k: int) -> list[int]:
    scores = {row: float(x[row] @ query / np.linalg.norm(x[row])) for row in rows}
    return sorted(rows, key=lambda row: -scores[row])[:k]


# The point reads every list, so that only the filter decides.
PLANS = {
    "flat@full": None,
    "ivf8@full > flat@full": "nprobe=8",
    "graph8@8 > rerank@full": "ef=200,shortlist=100",
    "hnsw8@full > flat@full": "ef=200",
}


@pytest.mark.parametrize("text", WHERE)
@pytest.mark.parametrize("plan", PLANS)
def test_a_condition_finds_what_exact_search_finds_among_the_rows_that_meet_it(tmp_path, text, plan):
    x, fields, queries = vectors(1500), records(1500), vectors(5, seed=1)
    with AdaptiveIndex.create(tmp_path / "i", x, plan=plan, fields=fields) as made:
        condition = read_where(text, made.fields)
        rows = [row for row in range(1500) if meets(condition, fields[row])]
        hits = made.search(queries, 10, where=text, point=PLANS[plan])
        same = made.search(queries, 10, where=WHERE[text], point=PLANS[plan])
        assert hits.ids.tolist() == same.ids.tolist()
        assert set(hits.ids.ravel().tolist()) <= set(rows)
        expected = [set(exact(x, query, rows, 10)) for query in queries]
        found = sum(len(best & set(ids.tolist())) for best, ids in zip(expected, hits.ids, strict=True))
        assert found >= (45 if "graph" in plan or "hnsw" in plan else 50)
        assert hits.fields == [[fields[int(name)] for name in row] for row in hits.ids]


def test_answers_carry_fields_through_all_that_changes_an_index(index, tmp_path):
    more = vectors(3, seed=2)
    index.add(more, ["a", "b", "c"], fields=[{"year": 1990}, {"brand": "new"}, {}])
    assert index.fields_of(["b", "a"]) == [
        {"year": None, "brand": "new", "price": None, "sold": None},
        {"year": 1990, "brand": None, "price": None, "sold": None},
    ]
    index.update(more[:1], ["a"], fields={"price": [5]})  # an int where floats are
    assert index.fields_of(["a"])[0] == {"year": 1990, "brand": None, "price": 5.0, "sold": None}
    index.update(None, ["sku3"], fields={"year": [1990]})
    assert index.search(more[:1], 3, where="year=1990").ids.tolist()[0][0] == "a"
    assert set(index.search(more[:1], 3, where="year=1990").ids[0]) == {"a", "sku3", ""}
    index.delete(["sku0"])
    names = sorted(index.ids())
    before = index.fields_of(names)
    index.flush()
    assert index.fields_of(names) == before
    index.compact()
    assert index.fields_of(names) == before
    index.save(tmp_path / "copy")
    small = index.extract(at=8, folder=tmp_path / "small")
    for other in (AdaptiveIndex.open(tmp_path / "copy", read_only=True), small):
        assert other.fields == index.fields
        assert other.fields_of(["a", "sku3"]) == index.fields_of(["a", "sku3"])
        assert set(other.search(more[:1], 2, where={"year": 1990}).ids[0]) == {"a", "sku3"}
    small.close()


def test_what_was_acknowledged_is_there_after_opening(tmp_path):
    with AdaptiveIndex.create(tmp_path / "i", vectors(10), fields=records(10)) as made:
        made.add(
            vectors(2, seed=1),
            fields={"brand": ["\u00e9\U0001f426", 'a "quoted" word'], "price": [1e-300, None]},
        )
        made.update(None, [3], fields={"brand": [None]})
        made.delete([4])
        expected = made.fields_of([3, 10, 11])
    with AdaptiveIndex.open(tmp_path / "i", read_only=True) as opened:
        assert opened.fields_of([3, 10, 11]) == expected
        assert opened.verify().rows == 11
        with pytest.raises(DataError, match="id 4 is not in the index"):
            opened.fields_of([4])


def test_the_first_rows_of_an_empty_index_settle_its_fields(tmp_path):
    with AdaptiveIndex.create(tmp_path / "i", dim=16) as made:
        made.add(vectors(2), ["a", "b"], fields={"year": [1, 2]})
        assert made.fields == {"year": "int"}
        with pytest.raises(DataError, match="did you mean 'year'"):
            made.add(vectors(1), ["c"], fields={"yaer": [1]})
        with pytest.raises(DataError, match="whole numbers"):
            made.add(vectors(1), ["c"], fields={"year": ["a"]})
        assert len(made) == 2
    with AdaptiveIndex.create(tmp_path / "j", dim=16, kinds={"price": "float"}) as made:
        made.add(vectors(1), ["a"], fields={"price": [3]})
        assert made.fields_of(["a"]) == [{"price": 3.0}]


def test_an_index_without_fields_says_so(tmp_path):
    with AdaptiveIndex.create(tmp_path / "i", vectors(5)) as made:
        assert made.search(vectors(1)).fields == [[{}] * 10]
        with pytest.raises(DataError, match="no fields to filter by"):
            made.search(vectors(1), where="year>3")
        with pytest.raises(DataError, match="unknown field 'year'"):
            made.add(vectors(1), fields={"year": [3]})


def test_filters_by_id_and_by_field_work_together(index):
    allowed = [f"sku{row}" for row in range(0, 300, 7)]
    hits = index.search(vectors(1, seed=3), 50, filter=allowed, where="sold=true")
    assert {name for name in hits.ids[0] if name} == {f"sku{row}" for row in range(0, 300, 21)}
    assert hits.fields[0][-1] == {}


def test_rows_in_the_log_are_filtered_like_those_in_segments(index):
    index.add(vectors(40, seed=5), [f"new{row}" for row in range(40)], fields=records(40))
    before = index.search(vectors(3, seed=6), 20, where="brand=nord and year<2010")
    index.flush()
    after = index.search(vectors(3, seed=6), 20, where="brand=nord and year<2010")
    assert before.ids.tolist() == after.ids.tolist()
    assert before.fields == after.fields


def test_hits_go_to_another_process_with_their_fields(index):
    hits = index.search(vectors(2, seed=3), 3)
    for other in (pickle.loads(pickle.dumps(hits)), copy.copy(hits)):
        ids, scores = other
        assert ids.tolist() == hits.ids.tolist()
        assert scores.tolist() == hits.scores.tolist()
        assert other.fields == hits.fields


def test_stored_vectors_bring_ids_and_fields_into_an_index(tmp_path):
    frame = pd.DataFrame(records(20))
    StoredVectors(vectors(20), ids=[f"s{row}" for row in range(20)], fields=frame).save(tmp_path / "v")
    stored = open_vectors(tmp_path / "v", nesting="dim=8,16")
    with AdaptiveIndex.create(tmp_path / "i", stored.extract(16, tmp_path / "e")) as made:
        assert made.search(vectors(1), 1).fields[0][0] == stored.fields.records()[0]
    assert stored.extract(8).fields.records() == stored.fields.records()


_ROW = {"n": st.one_of(st.none(), st.integers(-3, 3)), "t": st.sampled_from(["", "a", "b"])}
_KINDS_OF_CHANGE = st.sampled_from(["put", "fields", "delete", "flush", "compact", "reopen"])
_CHANGES = st.lists(
    st.tuples(_KINDS_OF_CHANGE, st.integers(0, 7), st.fixed_dictionaries({}, optional=_ROW)), max_size=12
)


@settings(max_examples=examples(30))
@given(_CHANGES)
def test_an_index_holds_what_a_dict_holds(tmp_path_factory, changes):
    folder, x = tmp_path_factory.mktemp("model") / "i", vectors(8, dim=4)
    index, plain = AdaptiveIndex.create(folder, dim=4, kinds={"n": "int", "t": "text"}), {}
    for change, number, fields in changes:
        name = f"row{number}"
        if change == "put":
            index.update(x[[number]], [name], [fields])
            plain[name] = {"n": None, "t": None, **plain.get(name, {}), **fields}
        elif change == "fields" and name in plain:
            index.update(None, [name], [fields])
            plain[name] |= fields
        elif change == "delete" and name in plain:
            index.delete([name])
            del plain[name]
        elif change in ("flush", "compact"):
            getattr(index, change)()
        elif change == "reopen":
            index.close()
            index = AdaptiveIndex.open(folder)
    names = sorted(plain)
    assert index.fields_of(names) == [plain[name] for name in names]
    if plain:
        hits = index.search(x[:1], 8, where="n>=0 and not t=a")
        met = {name for name in names if (plain[name]["n"] or 0) >= 0 and plain[name]["t"] != "a"}
        assert {str(name) for name in hits.ids[0] if name} == {n for n in met if plain[n]["n"] is not None}
    index.close()


def test_an_update_of_fields_alone_takes_each_id_once(index):
    with pytest.raises(DataError, match="sku1"):
        index.update(None, ["sku1", "sku1"], fields={"year": [1, 2]})
    with pytest.raises(DataError, match="strings"):
        index.update(None, [1], fields={"year": [1]})
    assert len(index) == 300
    assert index.fields_of(["sku1"])[0]["year"] == 2001


@pytest.mark.parametrize("has_vectors", [False, True])
def test_a_row_keeps_the_fields_that_it_does_not_name(index, has_vectors):
    index.update(
        vectors(2) if has_vectors else None,
        ["sku1", "sku2"],
        fields=[{"year": 1}, {"brand": "b", "sold": None}],
    )
    assert index.fields_of(["sku1", "sku2"]) == [
        records(3)[1] | {"year": 1},
        records(3)[2] | {"brand": "b", "sold": None},
    ]
    index.update(vectors(2), ["sku1", "new"], fields=[{"price": 7}, {"year": 3}])
    assert index.fields_of(["sku1", "new"]) == [
        records(3)[1] | {"year": 1, "price": 7.0},
        {"year": 3, "brand": None, "price": None, "sold": None},
    ]


@pytest.mark.parametrize("log_bytes", [1, 1 << 20])
def test_rows_that_are_refused_settle_no_fields(tmp_path, log_bytes):
    with AdaptiveIndex.create(tmp_path / "i", dim=16, log_bytes=log_bytes) as made:
        for wrong in (np.zeros((2, 16), np.float32), np.full((2, 16), 1e300)):
            with pytest.raises(DataError):
                made.add(wrong, ["a", "b"], fields={"wrong": [1, 2]})
        with pytest.raises(DataError, match="not in the index"):
            made.update(None, ["a"], fields={"wrong": [1]})
        assert made.fields == {}
        made.add(vectors(2), ["a", "b"], fields={"year": [1, 2]})
        made.add(vectors(1), ["c"], fields={"year": [3]})
        assert made.fields_of(["a", "b", "c"]) == [{"year": 1}, {"year": 2}, {"year": 3}]
    with AdaptiveIndex.open(tmp_path / "i", read_only=True) as opened:
        assert opened.fields == {"year": "int"}
        assert opened.search(vectors(1), 3, where="year>1").fields[0][0]["year"] in (2, 3)


def test_fields_without_rows_are_refused(tmp_path):
    with pytest.raises(DataError, match="kinds="):
        AdaptiveIndex.create(tmp_path / "i", dim=4, fields={"year": [1]})
    assert not (tmp_path / "i").exists()


def test_hits_that_were_changed_say_that_they_know_no_fields(index):
    hits = index.search(vectors(1), 3)
    changed = hits._replace(scores=hits.scores * 2)
    for other in (changed, pickle.loads(pickle.dumps(changed))):
        with pytest.raises(DataError, match="fields_of"):
            _ = other.fields
    again = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(hits))))
    assert again.fields == hits.fields


@pytest.mark.parametrize("k", [1_000_001, 2**63, 2**80])
def test_more_rows_than_anyone_reads_are_refused(index, k):
    with pytest.raises(ConfigError, match=r"k=.* must be a whole number from 1 to 1000000"):
        index.search(vectors(1), k)


@pytest.mark.parametrize("kinds", [{"a": "string"}, ["a"]])
def test_an_index_of_kinds_that_there_are_not_is_refused(tmp_path, kinds):
    with pytest.raises(DataError, match="one of int, float, bool, text"):
        AdaptiveIndex.create(tmp_path / "i", dim=4, kinds=kinds)
    assert not (tmp_path / "i").exists()
