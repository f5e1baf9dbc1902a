"""Types of columns: found from the texts in CSV, declared in JSON and parquet."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES

from nestling.data.tables.description import TableFile
from nestling.data.tables.fields.columns import Columns
from nestling.data.tables.fields.words import MISSING_WORDS
from nestling.errors import DataError
from samples import examples

IN_FOLDER = settings(max_examples=examples(50), suppress_health_check=[HealthCheck.function_scoped_fixture])


def csv_of(folder: Path, values: list[str], name: str = "a.csv") -> Path:
    lines = "".join(f'{row},"{value}"\n' for row, value in enumerate(values))
    (folder / name).write_text("key,price\n" + lines, encoding="utf-8")
    return folder / name


def opened(path: Path, **arguments) -> TableFile:
    return TableFile.open(path, id_column="", has_texts=False, **arguments)


def column(path: Path, name: str = "price", **arguments) -> tuple[str, list]:
    found = opened(path, **arguments).all_fields().by_name[name]
    return found.kind, found.tolist()


# Missing values, and numbers


def test_the_words_for_missing_values_are_those_of_pandas():
    assert STR_NA_VALUES - {""} == MISSING_WORDS


_NUMBERS = st.one_of(
    st.integers(-(2**53), 2**53).map(str), st.floats(allow_nan=False, allow_infinity=False).map(repr)
)


@IN_FOLDER
@given(
    numbers=st.lists(_NUMBERS, min_size=1, max_size=8), holes=st.lists(st.sampled_from(sorted(STR_NA_VALUES)))
)
def test_columns_of_numbers_are_read_as_pandas_reads_them(numbers, holes, tmp_path):
    path = csv_of(tmp_path, [*holes, *numbers])
    kind, values = column(path)
    expected = pd.read_csv(path)["price"].astype("float64")
    assert kind == ("int" if all(number.lstrip("-").isdecimal() for number in numbers) else "float")
    assert [np.nan if value is None else value for value in values] == pytest.approx(
        expected.tolist(),
        rel=1e-15,
        abs=0,
        nan_ok=True,  # pandas before 3 rounds the last digit
    )
    assert opened(path).remarks == {}


def test_a_word_for_a_missing_value_is_a_text_among_texts(tmp_path):
    path = csv_of(tmp_path, ["NA", "DE", "", "FR"])  # Namibia
    assert column(path) == ("text", ["NA", "DE", None, "FR"])
    assert column(csv_of(tmp_path, ["NA", "NA"])) == ("text", ["NA", "NA"])
    assert column(csv_of(tmp_path, ["true", "n/a", "False"])) == ("bool", [True, None, False])
    (tmp_path / "a.csv").write_text("key;price\n1;3,5\n2;n/a\n", encoding="utf-8")
    assert column(tmp_path / "a.csv") == ("float", [3.5, None])


def test_nan_is_missing_in_all_files(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"key": 1, "price": 1.5}\n{"key": 2, "price": NaN}\n', encoding="utf-8"
    )
    frame = pd.DataFrame({"key": [1, 2], "price": [1.5, np.nan]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_csv(tmp_path / "a.csv", index=False, na_rep="NaN")
    for suffix in ("jsonl", "parquet", "csv"):
        assert column(tmp_path / f"a.{suffix}") == ("float", [1.5, None])
    assert Columns.read(frame, 2).by_name["price"].tolist() == [1.5, None]


@pytest.mark.parametrize("word", ["inf", "-Infinity", "+INF"])
def test_infinite_numbers_are_refused_in_all_files(word, tmp_path):
    csv_of(tmp_path, ["1.5", word])
    (tmp_path / "a.jsonl").write_text('{"price": 1.5}\n{"price": Infinity}\n', encoding="utf-8")
    pd.DataFrame({"price": [1.5, np.inf]}).to_parquet(tmp_path / "a.parquet")
    for suffix in ("jsonl", "parquet", "csv"):
        path = tmp_path / f"a.{suffix}"
        assert "infinite" in opened(path).left_out["price"]
        assert "price" not in opened(path).kinds
        for fields in (["price"], {"price": "float"}):
            with pytest.raises(DataError, match=r"(line 3|line 2|row 2).*infinite"):
                opened(path, fields=fields)
    assert column(csv_of(tmp_path, ["a", "inf"])) == ("text", ["a", "inf"])


def test_a_column_that_is_text_because_of_few_values_is_told(tmp_path):
    path = csv_of(tmp_path, ["1", "2.5", "abc", "4", "-"])
    assert column(path) == ("text", ["1", "2.5", "abc", "4", "-"])
    assert opened(path).remarks == {"price": "line 4 holds 'abc' (2 of 5 values say no number)"}
    assert opened(path, fields={"price": "text"}).remarks == {}
    assert opened(csv_of(tmp_path, ["x1", "2", "x3"])).remarks == {}
    lines = [{"price": 1}, {"price": "2"}, {"price": 3.5}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert opened(tmp_path / "a.jsonl").remarks == {"price": "line 2 holds '2' (1 of 3 values say no number)"}


@pytest.mark.parametrize("order", [["9007199254740993", "1.5"], ["1.5", "9007199254740993"]])
def test_whole_numbers_that_no_float_holds_are_not_rounded_in_texts(order, tmp_path):
    """In a column of floats they are refused, by the same rule as numbers of files with types."""
    path = csv_of(tmp_path, order)
    line = 2 + order.index("9007199254740993")
    (tmp_path / "a.tsv").write_text(path.read_text().replace(",", "\t"), encoding="utf-8")
    for each in (path, tmp_path / "a.tsv"):
        assert "price" not in opened(each).kinds
        assert f"line {line}: column 'price' holds 9007199254740993" in opened(each).left_out["price"]
        for fields in (["price"], {"price": "float"}):
            with pytest.raises(
                DataError, match=rf"line {line}: .*9007199254740993,? (which )?has more digits"
            ):
                opened(each, fields=fields)
        for kind in ("int", "float"):
            with pytest.raises(DataError, match=rf"line {line}: .*has more digits"):
                TableFile.like(each, {"price": kind}, {"id": "key"}, has_texts=False)
        assert column(each, fields={"price": "text"}) == ("text", order)
    assert column(csv_of(tmp_path, ["9007199254740992", "9007199254740994", "1.5"]))[0] == "float"
    assert column(csv_of(tmp_path, ["9007199254740993", "1"])) == ("int", [2**53 + 1, 1])


def test_digits_are_not_lost(tmp_path):
    long = "12345678901234567890"
    assert column(csv_of(tmp_path, [long])) == ("text", [long])
    lines = [{"price": 2**53 + 1}, {"price": 0.5}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert (
        "line 1: column 'price' holds 9007199254740993, which has more"
        in opened(tmp_path / "a.jsonl").left_out["price"]
    )
    assert column(tmp_path / "a.jsonl", fields={"price": "text"}) == ("text", ["9007199254740993", "0.5"])


# Types of parquet and JSON


def test_texts_of_files_with_types_stay_texts(tmp_path):
    frame = pd.DataFrame({"id": ["1", "2"], "price": ["3", "4"]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for suffix in ("parquet", "jsonl"):
        table = TableFile.open(tmp_path / f"a.{suffix}", has_texts=False)
        assert table.ids.tolist() == ["1", "2"]
        assert table.all_fields().by_name["price"].tolist() == ["3", "4"]


NANOSECONDS = pa.array([0, 1_700_000_000_000_000_001, None], pa.timestamp("ns"))
DAY, NOON = datetime.datetime(2024, 1, 31), datetime.datetime(2024, 1, 31, 12, 30)
BERLIN = pa.timestamp("us", "Europe/Berlin")
PARQUET = [
    (pa.array([DAY.date(), None]), ["2024-01-31", None]),
    (pa.array([DAY.date()], pa.date64()), ["2024-01-31"]),
    (pa.array([DAY, None]), ["2024-01-31", None]),
    (pa.array([DAY, NOON]), ["2024-01-31T00:00:00", "2024-01-31T12:30:00"]),
    (pa.array([DAY, NOON], pa.timestamp("s")), ["2024-01-31T00:00:00", "2024-01-31T12:30:00"]),
    (NANOSECONDS, ["1970-01-01T00:00:00", "2023-11-14T22:13:20.000000001", None]),
    (pa.array([1_729_989_000_000_000], BERLIN), ["2024-10-27T00:30:00+00:00"]),
    (pa.array([datetime.time(9, 5), datetime.time(9, 5, 0, 500_000)]), ["09:05:00", "09:05:00.500000"]),
    (pa.array([60_000_000_000, 1, None], pa.time64("ns")), ["00:01:00", "00:00:00.000000001", None]),
    (pa.array([decimal.Decimal("1.50"), None]), [1.5, None]),
    (pa.array([decimal.Decimal("7")], pa.decimal128(38, 0)), [7]),
    (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", None]),
    (pa.array([DAY]).dictionary_encode(), ["2024-01-31"]),
    (pa.array(["a"], pa.large_string()), ["a"]),
    (pa.array(["a"], pa.string_view()), ["a"]),
    (pa.nulls(2), [None, None]),
    (pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
    (pa.array([np.float16(1.5)], pa.float16()), [1.5]),
    (pa.array([True, None]), [True, None]),
]


@pytest.mark.parametrize(("values", "expected"), PARQUET, ids=lambda given: str(getattr(given, "type", "")))
def test_parquet_types(values, expected, tmp_path):
    table = pa.table({"price": values})
    read = Columns.read(table, len(table))
    assert read.by_name["price"].tolist() == expected
    try:
        pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    except pa.ArrowNotImplementedError:  # pyarrow 16 writes no string views
        assert pa.types.is_string_view(values.type)
        return
    kind, found = column(tmp_path / "a.parquet")
    assert [type(value) for value in found] == [type(value) for value in expected]
    assert found == expected
    assert read.kinds == {"price": kind}


REFUSED = [
    (pa.array([[1, 2]]), "a list"),
    (pa.array([{"a": 1}]), "a dict"),
    (pa.array([b"x"]), "a bytes"),
    (pa.array([2**64 - 1], pa.uint64()), "more than 64 bits"),
    (pa.array([1], pa.duration("ns")), "timedelta"),
    (pa.array([2**62], pa.timestamp("us")), "year is not from 1 to 9999"),
    (pa.array([float("inf")]), "infinite"),
]


@pytest.mark.parametrize(("values", "words"), REFUSED, ids=lambda given: str(getattr(given, "type", "")))
def test_parquet_columns_that_no_field_holds_are_left_out(values, words, tmp_path):
    pyarrow.parquet.write_table(pa.table({"key": [1], "price": values}), tmp_path / "a.parquet")
    table = opened(tmp_path / "a.parquet")
    assert list(table.kinds) == ["key"]
    assert words in table.left_out["price"]
    with pytest.raises(DataError, match="row 1"):
        opened(tmp_path / "a.parquet", fields=["price"])


def test_numbers_beyond_64_bits_are_kept_as_texts_if_that_is_asked_for(tmp_path):
    pyarrow.parquet.write_table(
        pa.table({"price": pa.array([2**64 - 1], pa.uint64())}), tmp_path / "a.parquet"
    )
    assert column(tmp_path / "a.parquet", fields={"price": "text"}) == ("text", [str(2**64 - 1)])


@IN_FOLDER
@given(times=st.lists(st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1)), min_size=2))
def test_texts_of_times_sort_as_they_do_and_are_alike_however_they_come(times, tmp_path):
    frame = pd.DataFrame({"price": pd.Series(times, dtype="datetime64[us]")})
    frame.to_parquet(tmp_path / "a.parquet")
    _, texts = column(tmp_path / "a.parquet")
    assert sorted(range(len(times)), key=times.__getitem__) == sorted(
        range(len(times)), key=texts.__getitem__
    )
    for given_ in (frame, {"price": frame["price"].to_numpy()}, pa.Table.from_pandas(frame)):
        assert Columns.read(given_, len(times)).by_name["price"].tolist() == texts
    if any(time != DAY.replace(time.year, time.month, time.day) for time in times):
        assert Columns.read({"price": times}, len(times)).by_name["price"].tolist() == texts
    zoned = frame["price"].dt.tz_localize("UTC").dt.tz_convert("Europe/Berlin")
    utc = Columns.read({"price": zoned}, len(times)).by_name["price"].tolist()
    pd.DataFrame({"price": zoned}).to_parquet(tmp_path / "b.parquet")
    assert column(tmp_path / "b.parquet")[1] == utc == [f"{time.isoformat()}+00:00" for time in times]


# Ids


def test_ids_are_texts_if_that_is_said(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("sku,price\n8,1\n9,2\n", encoding="utf-8")
    named = {"id_column": "sku", "has_texts": False}
    assert TableFile.open(path, **named).ids.tolist() == [8, 9]
    assert TableFile.open(path, **named, id_kind="text").ids.tolist() == ["8", "9"]
    path.write_text("sku,price\n007,1\n9,2\n", encoding="utf-8")
    assert TableFile.open(path, **named).ids.tolist() == ["007", "9"]
    with pytest.raises(DataError, match=r"'007' in line 2, which is no whole number"):
        TableFile.open(path, **named, id_kind="int")


@pytest.mark.parametrize(("name", "words"), [("x" * 300, "300 characters"), ("a\0b", "null character")])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_ids_that_no_index_takes_are_named_where_they_stand(name, words, suffix, tmp_path):
    frame = pd.DataFrame({"id": ["a", name], "price": [1, 2]})
    stream = io.BytesIO()
    if suffix == "csv":
        stream.write(f"id,price\na,1\n{name},2\n".encode())
    elif suffix == "jsonl":
        frame.to_json(stream, orient="records", lines=True)
    else:
        frame.to_parquet(stream)
    (tmp_path / f"a.{suffix}").write_bytes(stream.getvalue())
    if suffix == "csv" and "\0" in name:
        words = "null"
    with pytest.raises(DataError, match=words):
        TableFile.open(tmp_path / f"a.{suffix}", has_texts=False)


# Tables that follow the first


def test_a_further_table_has_the_fields_of_the_index(tmp_path):
    lines = [{"id": row, "year": row} for row in range(9000)] + [
        {"id": 9000, "year": 1.5, "note": "late", "x": 1}
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    fields = {"year": "int", "note": "text", "other": "bool"}
    table = TableFile.like(tmp_path / "a.jsonl", fields, {"id": "id"}, has_texts=False)
    assert dict(table.kinds) == {"year": "float", "note": "text"}
    assert table.left_out == {"x": "the index has no such field"}
    assert table.all_fields().records()[-1] == {"year": 1.5, "note": "late"}
    with pytest.raises(DataError, match=r"column 'year' holds true or false, but 0 is in 8.* lines \(1, 2"):
        TableFile.like(tmp_path / "a.jsonl", {"year": "bool"}, {"id": "id"}, has_texts=False)
