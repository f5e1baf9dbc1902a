"""Values of fields, and the kinds of columns."""

from __future__ import annotations

import datetime
import decimal
import enum
import fractions

import numpy as np
import pandas as pd
import pytest

from nestling.data.tables.fields.kinds import check_kinds, converted, kind_of, read_value
from nestling.data.tables.fields.words import said_by
from nestling.errors import DataError


def test_values_become_plain_ones():
    day = datetime.date(2020, 1, 31)
    for given, value in [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (float("nan"), None),
        (np.float64("nan"), None),
        (pd.NA, None),
        (pd.NaT, None),
        (np.datetime64("NaT"), None),
        (day, "2020-01-31"),
        (np.datetime64("2020-01-31"), "2020-01-31"),
        (pd.Timestamp("2020-01-31 10:00"), "2020-01-31T10:00:00"),
        (decimal.Decimal("1.5"), 1.5),
    ]:
        found = read_value(given)
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    "given", [[1], {"a": 1}, b"x", object(), float("inf"), 2**63, "a\x00", "a\ud83d", {1}]
)
def test_what_no_field_holds_is_refused(given):
    with pytest.raises(DataError, match="a field holds"):
        read_value(given)


@pytest.mark.parametrize(
    ("texts", "kind"),
    [
        (["1", "-2", ""], "int"),
        (["1", "2.5", None], "float"),
        (["1e5"], "float"),
        (["true", "False"], "bool"),
        (["007", "12"], "text"),  # an article number loses its zeros as a number
        (["1", "a"], "text"),
        (["2020-01-31"], "text"),
        (["99999999999999999999"], "text"),  # so are its last digits
        (["", "  "], None),
        (["1", "true"], "text"),
        (["1e999"], "text"),
        (["nan"], None),
        (["1", "NA", "-1.#IND", "<NA>"], "int"),
        (["inf"], "float"),
        ([".5", "-.5", "3."], "float"),
        (["-", "1"], "text"),
        (["+49 30"], "text"),
        (["1_000"], "text"),
        (["\u0663"], "text"),  # digits of other scripts
    ],
)
def test_the_kind_of_a_column_of_texts(texts, kind):
    assert kind_of([None if text is None else said_by(text) for text in texts]) == kind


def test_the_kind_of_a_column_of_values():
    assert kind_of([1, None]) == "int"
    assert kind_of([1, 2.5]) == "float"
    assert kind_of([True, None]) == "bool"
    assert kind_of([1, "a"]) == "text"
    assert kind_of([True, 1]) == "text"
    assert kind_of([None]) is None


def test_values_are_converted_or_named():
    assert converted(["1", "", None, 2.0], "int", "year") == [1, None, None, 2]
    assert converted(["true", False, " "], "bool", "sold") == [True, False, None]
    assert converted([1, 2.5, "3"], "float", "price") == [1.0, 2.5, 3.0]
    assert converted([1, True, "", None], "text", "code") == ["1", "true", "", None]
    wrong = [("a", "int"), (2.5, "int"), (True, "int"), (1, "bool"), ("x", "bool"), ("007", "int")]
    for value, kind in wrong:
        with pytest.raises(DataError, match=r"year holds .* row 1"):
            converted([None, value], kind, "year")


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Word(str):
    def __str__(self) -> str:
        return "another"


def test_subclasses_become_plain_values():
    for given, value in [(Colour.RED, "red"), (Level.HIGH, 3), (Word("a"), "a"), (np.longdouble("0.5"), 0.5)]:
        found = read_value(given)
        assert found == value
        assert type(found) is type(value)
    torch = pytest.importorskip("torch")
    assert read_value(torch.tensor(3)) == 3


@pytest.mark.parametrize(
    "given", [np.longdouble("1e4000"), np.clongdouble(1), 1j, fractions.Fraction(10**400)]
)
def test_numbers_that_no_field_holds_are_refused(given):
    with pytest.raises(DataError, match="a field holds"):
        read_value(given)


@pytest.mark.parametrize("given", [float(2**63), -1e300, np.float64(2**63), decimal.Decimal("1e30")])
def test_floats_beyond_whole_numbers_are_named(given):
    with pytest.raises(DataError, match=r"year holds whole numbers, .* row 1"):
        converted([None, given], "int", "year")
    assert converted([-(2.0**63)], "int", "year") == [-(2**63)]


@pytest.mark.parametrize(
    "kinds", [{"a": "string"}, {"a": int}, ["a"], "int", {"": "int"}, {"a\0": "int"}, {3: "int"}]
)
def test_kinds_that_there_are_not_are_refused(kinds):
    with pytest.raises(DataError, match=r"one of int, float, bool, text|named by texts|null character"):
        check_kinds(kinds)
