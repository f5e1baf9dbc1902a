"""Interactions: from sequences, columns, frames and files; order, splits, warnings, refusals."""

from __future__ import annotations

import gzip
import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nestling.data import Interactions, leave_one_out, read_interactions, split_by_time
from nestling.data.interactions.interactions import places_of
from nestling.data.sets.amazon import read_purchases
from nestling.errors import ConfigError, DataError, EvaluationWarning

ROWS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(0, 1000)), min_size=1, max_size=60
)


@given(rows=ROWS)
def test_events_of_a_user_are_in_the_order_of_time(rows: list[tuple[int, int, int]]) -> None:
    """Against plain Python; sorting is stable."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EvaluationWarning)
        found = Interactions.from_columns(*zip(*rows, strict=True))
    by_user: dict[int, list[tuple[int, int, int]]] = {}
    for row in rows:
        by_user.setdefault(row[0], []).append(row)
    assert found.user_ids.tolist() == list(by_user)
    assert len(found) == len(rows)
    pairs = ties = 0
    for number, events in enumerate(by_user.values()):
        ordered = sorted(events, key=lambda row: row[2])
        assert found.history(number).tolist() == [item for _, item, _ in ordered]
        pairs += len(ordered) - 1
        ties += sum(a[2] == b[2] for a, b in pairwise(ordered))
    assert found.ties == pytest.approx(ties / pairs if pairs else 0)


def test_sequences_and_columns_agree() -> None:
    one = Interactions.from_sequences([["a", "b"], ["b", "c", "a"]], users=["x", "y"])
    other = Interactions.from_columns(["x", "y", "y", "x", "y"], ["a", "b", "c", "b", "a"])
    for name in ("user_ids", "item_ids", "offsets", "items"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist()
    assert one.positions.tolist() == [0, 1, 0, 1, 2]
    assert [history.tolist() for history in one.first([0, 2]).histories()] == [["b", "c"]]


def test_a_frame_of_pandas_with_dates() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(
        {
            "who": [1, 1, 2],
            "sku": ["b", "a", "a"],
            "day": pandas.to_datetime(["2024-05-02", "2024-05-01", "2024-05-03"]),
        }
    )
    found = Interactions.from_frame(frame, user="who", item="sku", time="day")
    assert found.history(0).tolist() == ["a", "b"]
    assert found.times is not None
    assert found.times[1] - found.times[0] == 86_400
    with pytest.raises(DataError, match="did you mean 'sku'"):
        Interactions.from_frame(frame, user="who", item="skus")


RECBOLE = """user_id:token\titem_id:token\trating:float\ttimestamp:float
u1\ti2\t5\t20
u1\ti1\t4\t10
u2\ti2\t3\t5
"""


def test_files(tmp_path: Path) -> None:
    (tmp_path / "shop.inter").write_text(RECBOLE, encoding="utf-8")
    (tmp_path / "shop.csv").write_text("user,product_id\n7,30\n8,31\n7,31\n", encoding="utf-8")
    (tmp_path / "lines.txt").write_text("1 2 3\n4 2\n", encoding="utf-8")
    with gzip.open(tmp_path / "users.txt.gz", "wt", encoding="utf-8") as stream:
        stream.write("u1 a b\nu2 c\n")
    recbole = read_interactions(tmp_path / "shop.inter")
    assert [each.tolist() for each in recbole.histories()] == [["i1", "i2"], ["i2"]]
    table = read_interactions(tmp_path / "shop.csv")
    assert table.user_ids.tolist() == [7, 8]
    assert table.history(0).tolist() == [30, 31]
    assert read_interactions(tmp_path / "lines.txt").history(1).tolist() == [4, 2]
    named = read_interactions(tmp_path / "users.txt.gz", first_is_user=True)
    assert named.user_ids.tolist() == ["u1", "u2"]
    assert named.history(0).tolist() == ["a", "b"]
    (tmp_path / "odd.csv").write_text("user,thing\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no column of items .* name it with item="):
        read_interactions(tmp_path / "odd.csv")
    assert len(read_interactions(tmp_path / "odd.csv", item="thing")) == 1
    (tmp_path / "short.txt").write_text("u1 a\nu2\n", encoding="utf-8")
    with pytest.raises(DataError, match="a user without items in line 2"):
        read_interactions(tmp_path / "short.txt", first_is_user=True)


def test_leave_one_out() -> None:
    shop = Interactions.from_sequences([[1, 2, 3, 4], [5, 6], [1, 5, 2]])
    split = leave_one_out(shop)
    assert [each.tolist() for each in split.train.histories()] == [[1, 2], [1]]
    assert [each.tolist() for each in split.test.histories.histories()] == [[1, 2, 3], [1, 5]]
    assert split.validation.target_ids.tolist() == [3, 5]
    assert split.test.target_ids.tolist() == [4, 2]
    assert split.test.histories.user_ids.tolist() == [0, 2]
    assert split.dropped == 1
    with pytest.raises(DataError, match="no user has 3 events"):
        leave_one_out(Interactions.from_sequences([[1, 2]]))


def test_leave_one_out_warns_of_later_events_of_others() -> None:
    late = Interactions.from_columns([1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3], [1, 2, 3, 11, 12, 13])
    with pytest.warns(EvaluationWarning, match="50% of the test events are earlier"):
        leave_one_out(late)


@given(rows=ROWS, seed=st.integers(0, 9))
def test_a_split_by_time_never_looks_ahead(rows: list[tuple[int, int, int]], seed: int) -> None:
    users, items, _ = zip(*rows, strict=True)
    times = np.random.default_rng(seed).permutation(len(rows))
    shop = Interactions.from_columns(users, items, times)
    try:
        split = split_by_time(shop, validation=0.3, test=0.3)
    except DataError:  # no user has an event before a period and one in it
        assume(False)
    of_train, of_test = split.train.times, split.test.histories.times
    assert of_train is not None
    assert of_test is not None
    start, middle = np.quantile(times, [0.4, 0.7])
    assert of_train.max() < start
    assert of_test.max() < middle
    for asked, (low, high) in ((split.validation, (start, middle)), (split.test, (middle, np.inf))):
        for number, user in enumerate(asked.histories.user_ids):
            events = sorted((t, item) for (u, item, _), t in zip(rows, times, strict=True) if u == user)
            assert asked.histories.history(number).tolist() == [item for t, item in events if t < low]
            assert next(item for t, item in events if low <= t < high) == asked.target_ids[number]


def test_rows_of_a_catalogue() -> None:
    shop = Interactions.from_sequences([["a", "b"], ["c"]])
    assert shop.rows_in(np.array(["c", "b", "a"])).tolist() == [2, 1, 0]
    with pytest.raises(
        DataError, match=r"1 events are of 1 items that the catalogue does not have, such as 'c'"
    ):
        shop.rows_in(np.array(["a", "b"]))
    assert places_of(np.array([1]), np.array(["1"])).tolist() == [-1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Interactions.from_sequences([]), "there are no users"),
        (lambda: Interactions.from_sequences([[1], []]), "user 1 has no items"),
        (lambda: Interactions.from_sequences([[1], [2]], users=[3, 3]), "different user ids"),
        (lambda: Interactions.from_sequences([[1, None]]), "row 1 has none"),
        (lambda: Interactions.from_columns([1, 2], [1]), "equally many"),
        (lambda: Interactions.from_columns([], []), "at least one"),
        (lambda: Interactions.from_columns([1], [1], [np.nan]), "finite"),
        (lambda: split_by_time(Interactions.from_sequences([[1, 2, 3]])), "needs times"),
    ],
)
def test_bad_data_are_refused(build: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build()


def test_bad_shares_are_refused() -> None:
    shop = Interactions.from_columns([1, 1], [1, 2], [1, 2])
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        split_by_time(shop, 0.5, 0.5)
    with pytest.warns(EvaluationWarning, match="100% of consecutive events of a user have equal times"):
        Interactions.from_columns([1, 1], [1, 2], [1, 1])


def write_purchases(folder: Path, items: str, sequences: str) -> Path:
    for name, text in (("items.jsonl.gz", items), ("sequences.txt.gz", sequences)):
        with gzip.open(folder / name, "wt", encoding="utf-8") as stream:
            stream.write(text)
    np.save(folder / "minilm.npy", np.eye(2, 384, dtype=np.float16))
    return folder


ITEMS = (
    '{"id": 1, "asin": "B1", "title": "Soap", "attributes": ["Acme", "Bath"]}\n'
    '{"id": 2, "asin": "B2", "title": "", "attributes": []}\n'
)


def test_purchases(tmp_path: Path) -> None:
    shop = read_purchases(write_purchases(tmp_path, ITEMS, "1 2\n2\n"))
    assert shop.interactions.history(0).tolist() == [1, 2]
    assert shop.texts[0] == "Title: Soap\nCategories: Acme, Bath"
    assert shop.vectors.dtype == np.float32
    with pytest.raises(DataError, match="the catalogue does not have, such as 3"):
        read_purchases(write_purchases(tmp_path, ITEMS, "1 3\n"))
    with pytest.raises(DataError, match=r"2 items|1 items and vectors"):
        read_purchases(write_purchases(tmp_path, ITEMS.partition("\n")[0], "1\n"))
    with pytest.raises(DataError, match="is damaged"):
        read_purchases(write_purchases(tmp_path, '{"id": 1}\n', "1\n"))
