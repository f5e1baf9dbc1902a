"""Conditions in all their forms on the four engines, and what tells what cannot be asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nestling.errors import DataError, NestlingError
from nestling.granularity import Nesting
from nestling.search.where.argument import read_where
from nestling.search.where.condition import Compare, Either, Not, meets

NESTING = Nesting.chain(dim=(8, 16))
ROWS = 300
VECTORS = np.random.default_rng(0).normal(size=(ROWS, 16)).astype(np.float32)
TABLE = [
    {"sku": f"{row:03d}", "year": 2000 + row % 25, "brand": ["acme", "big corp", "it's", None][row % 4]}
    | {"price": row * 0.25, "popular": row % 3 == 0, "released": f"20{row % 24:02d}-0{1 + row % 9}-15"}
    for row in range(ROWS)
]
KINDS = {
    "sku": "text",
    "year": "int",
    "brand": "text",
    "price": "float",
    "popular": "bool",
    "released": "text",
}
CASES: list[Any] = [
    "year>=2020 and brand=acme",
    'year>=2020 and brand in (acme, "big corp") and not popular=true',
    "not (brand=acme or price<10.5)",
    "brand!=acme",
    "released>=2010-03 and released<2020-01",
    "sku=007",
    {"year": {"gte": 2020, "lt": 2024}, "brand": ["acme", "it's"]},
    {"or": [{"year": 2003}, {"price": {"lte": 3}}, {"not": {"popular": True}}]},
    {"year": np.int64(2001)},
    {"price": np.float32(2.5)},
    {"popular": np.bool_(False), "year": [np.int16(2001), 2002.0]},
    {"released": {"gt": "2020-01-15", "lte": "2023-09-15"}},
    {"year": {"not_in": [2001, 2002, 2003]}},
    {"year": []},
    Either((Compare("year", "eq", (2001,)), Not(Compare("price", "gt", (1,))))),
]


@pytest.mark.parametrize("declared", [False, True], ids=["open", "declared"])
def test_conditions_find_what_the_plain_form_does(engine: Any, declared: bool) -> None:
    fields = KINDS if declared else {}
    store = engine.make(f"where_{declared}", nesting=NESTING, shortlist_dim=8, ids="int", fields=fields)
    store.add(np.arange(ROWS), VECTORS, TABLE)
    for state in ("before", "after"):
        for given in CASES:
            condition = read_where(given, KINDS)
            expected = [row for row in range(ROWS) if meets(condition, TABLE[row])]
            asked = given if declared or not isinstance(given, str) else condition
            for shortlist in (None, ROWS - 1):
                found = store.search(VECTORS[:1], ROWS - 1, shortlist=shortlist, where=asked)[0]
                assert sorted(found.ids) == expected, (state, given, shortlist)
        store.optimize()
    store.drop()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"yeer": 1}, "did you mean 'year'"),
        ("year>=new", "year"),
        ({"popular": {"gt": True}}, "popular"),
        ({"year": {"near": 3}}, "operator"),
        ({"year": None}, "missing"),
        ("year >=", "year"),
        (["year"], "mapping or a text"),
    ],
)
def test_what_cannot_be_asked_is_told(engine: Any, given: Any, message: str) -> None:
    with engine.make("refusing", nesting=NESTING, shortlist_dim=8, fields=KINDS) as store:
        with pytest.raises(DataError, match=message):
            store.search(VECTORS[:1], where=given)
        store.drop()


def test_many_values_are_one_condition(engine: Any) -> None:
    store = engine.make("many", nesting=NESTING, shortlist_dim=8, ids="int")
    store.add(np.arange(ROWS), VECTORS, TABLE)
    wanted = [f"{row:03d}" for row in range(0, 3 * ROWS, 3)]
    found = store.search(VECTORS[:1], ROWS, shortlist=None, where={"sku": wanted})[0].ids
    assert sorted(found) == list(range(0, ROWS, 3))
    others = store.search(VECTORS[:1], ROWS, shortlist=None, where={"not": {"sku": wanted}})[0].ids
    assert sorted(others) == [row for row in range(ROWS) if row % 3]
    store.drop()


def test_a_field_may_change_its_type_from_row_to_row(engine: Any) -> None:
    store = engine.make("mixed", nesting=NESTING, shortlist_dim=8, ids="int")
    values = [1, 1.5, "1", True, None]
    for row, value in enumerate(values):  # one after the other, so that columns are made when they are there
        store.add([row], VECTORS[row : row + 1], [{"any": value}])
    found = [sorted(store.search(VECTORS[:1], 9, where={"any": v})[0].ids) for v in values if v is not None]
    assert found == [[0], [1], [2], [3]]
    assert sorted(store.search(VECTORS[:1], 9, where={"any": {"gte": 0}})[0].ids) == [0, 1]
    assert sorted(store.search(VECTORS[:1], 9, where={"not": {"any": {"gte": 0}}})[0].ids) == [2, 3, 4]
    store.add([0], VECTORS[:1], [{"any": "now a text"}])
    assert store.search(VECTORS[:1], 1)[0].metadata == [{"any": "now a text"}]
    store.drop()


def test_metadata_that_cannot_be_kept_are_told_with_their_row(engine: Any) -> None:
    with engine.make("untold", nesting=NESTING, shortlist_dim=8) as store:
        for tags, message in (
            ([{"a": 1}, {"a": [1]}], "row 1: a field holds a list"),
            ([{"a": 1}, {"a": 2**64}], "more than 64 bits"),
            ([{"a": 1}, {"": 1}], "cannot be called"),
            ([{"a": 1}, {"x" * 257: 1}], "cannot be called"),
            ([{"a": 1}, ["a"]], "the metadata of row 1"),
            ({"a": 1}, "one dict for each row"),
        ):
            with pytest.raises(NestlingError, match=message):
                store.add(["a", "b"], VECTORS[:2], tags)
        assert store.count() == 0
        store.drop()
