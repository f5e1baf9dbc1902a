"""Conditions on fields: what the text and the mapping form say, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.errors import DataError
from nestling.search.where.argument import read_where
from nestling.search.where.condition import All, Compare, Either, Not, meets

_FIELDS = {"year": "int", "price": "float", "brand": "text", "sold": "bool"}


def test_a_text_and_a_mapping_say_the_same():
    text = read_where("year>=2020 and year<2024 and brand in (acme, 'big corp') and not sold=true", _FIELDS)
    mapping = read_where(
        {
            "and": [
                {"year": {"gte": 2020}},
                {"year": {"lt": 2024}},
                {"brand": ["acme", "big corp"]},
                {"not": {"sold": True}},
            ]
        },
        _FIELDS,
    )
    assert text == mapping
    assert read_where("a=1 or b=2 and c=3") == read_where({"or": [{"a": 1}, {"and": [{"b": 2}, {"c": 3}]}]})
    assert read_where("(a=1 or b=2) and c=3") == read_where({"and": [{"or": [{"a": 1}, {"b": 2}]}, {"c": 3}]})
    assert (
        read_where("a!=1")
        == read_where("not a=1")
        == read_where({"a": {"ne": 1}})
        == Not(Compare("a", "eq", (1,)))
    )
    assert (
        read_where("a not in (1, 2)")
        == read_where({"a": {"not_in": [1, 2]}})
        == read_where({"a": {"not": [1, 2]}})
    )


def test_words_become_what_their_field_holds():
    assert read_where("brand=2020", _FIELDS) == Compare("brand", "eq", ("2020",))
    assert read_where("price>3", _FIELDS) == Compare("price", "gt", (3.0,))
    assert read_where("sku=007") == Compare("sku", "eq", ("007",))
    assert read_where("sku=7") == Compare("sku", "eq", (7,))
    assert read_where('sku="7"') == Compare("sku", "eq", ("7",))
    assert read_where("day>=2020-01-31") == Compare("day", "gte", ("2020-01-31",))
    assert read_where("\"two words\"='it\\'s'") == Compare("two words", "eq", ("it's",))


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("2019.5", 2019.5),
        ("2019.0", 2019),
        ("+2019", 2019),
        ("007", 7),
        (".5", 0.5),
        ("5.", 5),
        ("-.5e1", -5),
        ("1e3", 1000),
        (str(2**70 + 1), 2**70 + 1),
        (str(2**53 + 1), 2**53 + 1),
    ],
)
@pytest.mark.parametrize("field", ["year", "price"])
def test_a_text_says_numbers_as_a_mapping_does(field, word, number):
    for sign, op in {"=": "eq", ">=": "gte", "<": "lt"}.items():
        found = read_where(f"{field}{sign}{word}", _FIELDS)
        assert found == read_where({field: {op: number}}, _FIELDS) == Compare(field, op, (number,))
    for wrong in (f"{field}='{word}'", {field: word}):
        with pytest.raises(DataError, match="holds numbers"):
            read_where(wrong, _FIELDS)


@pytest.mark.parametrize("word", ["1_000", "nan", "inf", "1e999", "\u0663", "0x10", "true", "2020-01-31"])
def test_words_that_say_no_number_are_refused_for_numbers(word):
    with pytest.raises(DataError, match="holds numbers"):
        read_where(f"price={word}", _FIELDS)


def _nested(levels):
    found = {"year": 1}
    for level in range(levels):
        found = {"not": found} if level % 2 else {"and": [found, {"year": 2}]}
    return found


def test_parts_in_parts_end_somewhere():
    assert read_where(_nested(64), _FIELDS) is not None
    deep = Compare("year", "eq", (1,))
    for _ in range(3000):
        deep = Not(deep)
    for wrong in (
        _nested(65),
        _nested(3000),
        "(" * 3000 + "year=1" + ")" * 3000,
        "not " * 3000 + "year=1",
        deep,
    ):
        for fields in (None, _FIELDS):
            with pytest.raises(DataError, match="64 levels"):
                read_where(wrong, fields)


def test_a_text_within_a_mapping_reads_words_as_its_fields_do():
    assert read_where({"not": "brand=7"}, _FIELDS) == Not(Compare("brand", "eq", ("7",)))


def test_numbers_of_numpy_are_numbers():
    assert read_where({"year": np.int64(2001)}) == Compare("year", "eq", (2001,))
    assert read_where({"year": np.array([1, 2])}) == Compare("year", "in", (1, 2))
    assert read_where({"price": {"lte": np.float32(0.5)}}) == Compare("price", "lte", (0.5,))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ({}, "is empty"),
        ("year", "one of ="),
        ("year=", "a value is expected"),
        ("brand=big corp", "put a value of several words in quotes"),
        ("year in 3", r"\( is expected"),
        ("brand='x", "quote not closed"),
        ("(year=1", r"\) is expected"),
        ({"year": {"gtx": 1}}, "did you mean 'gt'"),
        ({"year": {}}, "says nothing of the field 'year'"),
        ({"year": None}, "missing value"),
        ({"year": {"gt": [1]}}, "holds a list"),
        ({"year": object()}, "holds an object"),
        ({"or": {"year": 1}}, "takes a list of mappings"),
        ({"or": []}, "has no parts"),
        ({"not": None}, "is None"),
        ({3: 1}, "by their names"),
        (5, "a mapping or a text"),
        ("yaer>3", "did you mean 'year'"),
        ("year=abc", "holds numbers"),
        ({"year": "2020"}, "holds numbers"),
        ({"brand": 5}, "holds texts"),
        ({"sold": 1}, "holds true or false"),
        ("sold>true", "no order|cannot be ordered"),
    ],
)
def test_what_says_nothing_is_refused(given, words):
    with pytest.raises(DataError, match=words):
        read_where(given, _FIELDS)


def test_a_missing_value_meets_nothing_but_a_negation():
    row = {"year": None}
    for text in ("year=1", "year!=1", "year>0", "year<0", "year in (1, 2)", "year not in (1, 2)"):
        assert meets(read_where(text, _FIELDS), row) == ("!" in text or "not" in text)


_VALUES = st.one_of(st.integers(-5, 5), st.sampled_from(["a", "b", "b c"]), st.booleans(), st.floats(-2, 2))
_TESTS = st.builds(
    lambda field, op, values: Compare(field, op, tuple(values) if op == "in" else tuple(values[:1])),
    st.sampled_from("xyz"),
    st.sampled_from(["eq", "in", "gt", "gte", "lt", "lte"]),
    st.lists(_VALUES, min_size=1, max_size=3),
)
_CONDITIONS = st.recursive(
    _TESTS,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(lambda parts: All(tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda parts: Either(tuple(parts)), st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=6,
)


@given(_CONDITIONS, st.dictionaries(st.sampled_from("xyz"), st.one_of(st.none(), _VALUES)))
def test_a_negation_is_the_rest(condition, row):
    assert meets(condition, row) != meets(Not(condition), row)
    assert meets(All((condition, Not(condition))), row) is False
    assert meets(Either((condition, Not(condition))), row) is True
