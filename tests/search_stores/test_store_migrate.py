"""Vectors on their way: between engines, from indexes and files and back, interrupted and taken up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestling.cut import RAW, CutRule, cut
from nestling.errors import ConfigError, DataError, GranularityError, StorageError, StoreBusyError
from nestling.granularity import Nesting
from nestling.search import nearest
from nestling.search.index.index import AdaptiveIndex
from nestling.search.stores import Copied, Layout, copy, create_store, export_index, open_store, read_store
from nestling.vectors.stored import StoredVectors

NESTING = Nesting.chain(dim=(8, 16, 32))
ROWS = 700
VECTORS = (np.random.default_rng(0).normal(size=(ROWS, 32)) * np.linspace(2, 0.2, 32)).astype(np.float32)
NAMES = [f"größe {row}" for row in range(ROWS)]


def stored(rule: CutRule = CutRule()) -> StoredVectors:
    return StoredVectors(VECTORS, NESTING, rule, ids=NAMES, encoder="letters/v1")


def test_an_index_goes_to_a_database_and_comes_back(engine: Any, tmp_path: Path) -> None:
    with AdaptiveIndex.create(tmp_path / "index", stored()) as index:
        index.delete(NAMES[:3])
        before = index.search(VECTORS[3:20], k=5)
        done = export_index(index, engine.url("exported"), shortlist_dim=16)
        assert (done.added, done.unchanged, done.extra) == (ROWS - 3, 0, 0)
    with open_store(engine.url("exported"), encoder="letters/v1", rule=CutRule()) as store:
        assert store.layout == Layout(NESTING, 16, encoder="letters/v1")
        found = store.search(VECTORS[3:20], 5, shortlist=None)
        assert [hits.ids for hits in found] == before.ids.tolist()
        back = read_store(store, tmp_path / "back")
    with AdaptiveIndex.create(tmp_path / "again", back) as index:
        assert index.search(VECTORS[3:20], k=5).ids.tolist() == before.ids.tolist()
        assert index.info().encoder == "letters/v1"
    open_store(engine.url("exported")).drop()


FIELDS = {
    "year": [2000 + row % 25 for row in range(ROWS)],
    "brand": [None if row % 7 == 0 else f"größe {row % 3}" for row in range(ROWS)],
    "price": [row / 4 for row in range(ROWS)],
    "new": [row % 2 == 0 for row in range(ROWS)],
}
KINDS = {"year": "int", "brand": "text", "price": "float", "new": "bool"}


def fields_of(row: int) -> dict[str, Any]:
    return {name: column[row] for name, column in FIELDS.items() if column[row] is not None}


def test_fields_travel_to_a_database_and_back(engine: Any, tmp_path: Path) -> None:
    asked = {"year": {"gte": 2010}, "not": {"brand": "größe 1"}, "new": True}
    with AdaptiveIndex.create(tmp_path / "index", stored(), fields=FIELDS) as index:
        index.delete(NAMES[:3])
        expected = index.search(VECTORS[3:9], k=5, where=asked)
        assert export_index(index, engine.url("fields")).added == ROWS - 3
        again = export_index(index, engine.url("fields"))
        assert (again.added, again.changed, again.unchanged) == (0, 0, ROWS - 3)
    with open_store(engine.url("fields")) as store:
        assert store.layout.fields == KINDS
        found = store.search(VECTORS[3:9], 5, where=asked, shortlist=None)
        assert [hits.ids for hits in found] == expected.ids.tolist()
        for hits in found:
            assert hits.metadata == [fields_of(NAMES.index(name)) for name in hits.ids]
        back = read_store(store, tmp_path / "back")
    assert back.fields.kinds == KINDS
    with AdaptiveIndex.create(tmp_path / "again", back) as index:
        assert index.fields == KINDS
        assert index.search(VECTORS[3:9], k=5, where=asked).ids.tolist() == expected.ids.tolist()
    open_store(engine.url("fields")).drop()


def test_fields_of_a_file_of_vectors_travel_too(folder_url: str) -> None:
    source = StoredVectors(VECTORS, NESTING, ids=NAMES, encoder="letters/v1", fields=FIELDS)
    export_index(source, folder_url)
    with open_store(folder_url) as store:
        assert store.search(VECTORS[8:9], 1)[0].metadata == [fields_of(8)]


def test_metadata_without_declared_kinds_become_fields(folder_url: str, tmp_path: Path) -> None:
    tags = [{"n": 1}, {"n": 2.5, "mixed": 1}, {"mixed": "a", "b": True}]
    with create_store(folder_url, Layout(NESTING, 8)) as store:
        store.add(NAMES[:3], VECTORS[:3], tags)
        back = read_store(store, tmp_path / "back")
    assert back.fields.kinds == {"n": "float", "mixed": "text", "b": "bool"}
    found = dict(zip(back.ids.tolist(), back.fields.records(), strict=True))
    assert found[NAMES[1]] == {"n": 2.5, "mixed": "1", "b": None}


def test_a_table_for_other_fields_is_refused(folder_url: str) -> None:
    export_index(StoredVectors(VECTORS, NESTING, ids=NAMES, fields={"year": FIELDS["year"]}), folder_url)
    with pytest.raises(ConfigError, match=r"fields year \(int\), and not for brand \(text\)"):
        export_index(
            StoredVectors(VECTORS, NESTING, ids=NAMES, fields=FIELDS | {"year": [1] * ROWS}), folder_url
        )
    with create_store(f"{folder_url}2", Layout(NESTING, 8, fields={"year": "text"})) as store:
        with pytest.raises(ConfigError, match="new table"):
            copy(open_store(folder_url), store)
        assert store.count() == 0


@pytest.mark.parametrize("size", [0, -1, True, 2.0, "5"])
def test_a_size_that_is_none_is_refused(folder_url: str, size: Any) -> None:
    with create_store(folder_url, Layout(NESTING, 8, encoder="letters/v1")) as store:
        with pytest.raises(ConfigError, match=r"size=.* must be a whole number from 1"):
            copy(stored(), store, size=size)
        with pytest.raises(ConfigError, match=r"size=.* must be a whole number from 1"):
            list(store.scan(size))


def test_a_folder_that_cannot_be_written_is_an_error_of_ours(folder_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with create_store(folder_url, Layout(NESTING, 8)) as store:
        store.add(NAMES[:3], VECTORS[:3])
        with pytest.raises(StorageError, match="could not be written"):
            read_store(store, tmp_path / "file" / "folder")


def test_from_each_engine_to_another(request: pytest.FixtureRequest, engine: Any) -> None:
    following = {"postgres": "qdrant", "qdrant": "milvus", "milvus": "lancedb", "lancedb": "postgres"}
    other = request.getfixturevalue(following[engine.kind])
    source = engine.make("source", nesting=NESTING, shortlist_dim=8)
    source.add(NAMES[:200], VECTORS[:200], [{"row": row} for row in range(200)])
    target = other.make("target", nesting=NESTING, shortlist_dim=16)
    assert copy(source, target, size=64).rows == 200
    expected = [[NAMES[row] for row in rows] for rows in nearest(VECTORS[:9], VECTORS[:200], 5).indices]
    assert [hits.ids for hits in target.search(VECTORS[:9], 5, shortlist=None)] == expected
    assert target.search(VECTORS[:1], 1, where={"row": 7})[0].ids == [NAMES[7]]
    for store in (source, target):
        store.drop()


@pytest.mark.parametrize("after", ["l2", "none"])
def test_what_comes_before_the_cut_is_done_once(folder_url: str, tmp_path: Path, after: Any) -> None:
    rule = CutRule("layer_norm", after)
    small = VECTORS * 0.003  # a second layer norm would change lengths of entries this small
    layout = Layout(NESTING, 8, rule=rule, encoder="letters/v1")
    first = create_store(folder_url, layout)
    copy(StoredVectors(small, NESTING, rule, ids=NAMES, encoder="letters/v1"), first)
    second = create_store(f"{folder_url}2", layout)
    copy(first, second)
    third = create_store(f"{folder_url}3", layout)
    copy(read_store(second, tmp_path / "read"), third)
    expected = dict(zip(NAMES, cut(small, 32, rule), strict=True))
    for batch in third.scan():
        for name, vector in zip(batch.ids.tolist(), batch.vectors, strict=True):
            np.testing.assert_allclose(vector, expected[name], rtol=1e-4, atol=1e-6)
    for store in (first, second, third):
        store.close()


class Unplugged(Exception):
    """Somebody pulls the plug."""


def test_an_interrupted_copy_goes_on_where_it_was(engine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = engine.make("resumed", nesting=NESTING, shortlist_dim=8, encoder="letters/v1")
    written: list[int] = []
    upsert = type(store._table).upsert

    def failing(table: Any, rows: Any) -> None:
        if sum(written) >= 300:
            raise Unplugged
        upsert(table, rows)
        written.append(len(rows.ids))

    with monkeypatch.context() as patch:
        patch.setattr(type(store._table), "upsert", failing)
        with pytest.raises(Unplugged):
            copy(stored(), store, size=100)
    assert store.count() == 300
    done = copy(stored(), store, size=100)
    assert (done.added, done.changed, done.unchanged, done.rows) == (ROWS - 300, 0, 300, ROWS)
    assert done.seconds > 0
    assert store.count() == ROWS
    assert copy(stored(), store).unchanged == ROWS
    assert store.search(VECTORS[5:6], 1)[0].ids == [NAMES[5]]
    store.drop()


def counts(done: Copied) -> tuple[int, ...]:
    return done.added, done.changed, done.unchanged, done.deleted, done.extra


@pytest.mark.parametrize("rule", [CutRule(), CutRule("layer_norm", "none")], ids=str)
def test_a_second_export_follows_the_index(engine: Any, tmp_path: Path, rule: CutRule) -> None:
    url = engine.url(f"followed_{rule.after}")
    with AdaptiveIndex.create(tmp_path / "index", stored(rule), fields=FIELDS) as index:
        export_index(index, url)
        with open_store(url) as store:
            store.add(["others"], VECTORS[:1])
        index.delete(NAMES[:3])
        index.update(-VECTORS[10:12], NAMES[10:12])  # their vectors alone
        index.update(None, NAMES[22:26], {"brand": ["x", None, "y", "z"]})  # their fields alone
        index.update(VECTORS[30:32], NAMES[30:32])  # the same as before
        index.add(-VECTORS[:5], [f"new {row}" for row in range(5)], {"year": [2] * 5})
        rows = ROWS - 3
        assert counts(export_index(index, url)) == (5, 6, rows - 6, 0, 4)
        assert counts(export_index(index, url)) == (0, 0, rows + 2 + 3, 0, 4)
        assert counts(export_index(index, url, delete_missing=True)) == (0, 0, rows + 5, 4, 0)
        with open_store(url) as store:
            assert sorted(name for ids in store.ids(64) for name in ids.tolist()) == sorted(index.ids())
            found = store.search(-VECTORS[10:12], 5, shortlist=None)
            assert [hits.ids for hits in found] == index.search(-VECTORS[10:12], k=5).ids.tolist()
            [kept] = store.scan(ids=NAMES[22:26])
            brands = {name: tags.get("brand") for name, tags in zip(kept.ids, kept.metadata, strict=True)}
            assert brands == dict(zip(NAMES[22:26], ["x", None, "y", "z"], strict=True))
            store.drop()


def test_a_copy_tells_truth_values_from_numbers_and_writes_changes_at_once(folder_url: str) -> None:
    first, second = (create_store(f"{folder_url}{n}", Layout(NESTING, 8, rule=RAW)) for n in (1, 2))
    first.add(NAMES, VECTORS, [{"n": 1}] * ROWS)
    copy(first, second)
    moved = VECTORS[::70].copy()
    moved[:, 31] = np.nextafter(moved[:, 31], np.inf)  # the smallest change that there is
    first.add(NAMES[::70], moved, [{"n": 1}] * len(moved))
    first.add(NAMES[1::70], VECTORS[1::70], [{"n": True}] * len(moved))
    calls: list[int] = []
    upsert = second._table.upsert
    second._table.upsert = lambda rows: (calls.append(len(rows.ids)), upsert(rows))
    assert counts(copy(first, second, size=100)) == (0, 20, ROWS - 20, 0, 0)
    assert calls == [20]
    for store in (first, second):
        store.close()


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": RAW},
        {"encoder": "other"},
        {"metric": "euclidean"},
        {"nesting": Nesting.chain(dim=(8, 16))},
    ],
)
def test_vectors_of_another_kind_are_refused(folder_url: str, changes: dict[str, Any]) -> None:
    layout = {"nesting": NESTING, "shortlist_dim": 8, "encoder": "letters/v1"} | changes
    with create_store(folder_url, Layout(**layout)) as store:
        with pytest.raises(ConfigError, match="nestling index export"):
            copy(stored(), store)
        assert store.count() == 0


def test_an_export_checks_what_is_there(folder_url: str) -> None:
    with pytest.raises(GranularityError, match="12"):
        export_index(stored(), folder_url, shortlist_dim=12)
    assert export_index(stored(), folder_url).rows == ROWS
    assert open_store(folder_url).layout.shortlist_dim == 8
    assert export_index(stored(), folder_url).unchanged == ROWS
    with pytest.raises(ConfigError, match="letters/v2"):
        export_index(StoredVectors(VECTORS, NESTING, ids=NAMES, encoder="letters/v2"), folder_url)


def test_rows_without_ids_are_called_by_their_numbers(folder_url: str) -> None:
    export_index(StoredVectors(VECTORS[:50], NESTING), folder_url)
    with open_store(folder_url) as store:
        assert [hits.ids for hits in store.search(VECTORS[:3], 1)] == [[0], [1], [2]]


def test_an_empty_store_cannot_be_read_into_a_file(folder_url: str, tmp_path: Path) -> None:
    with create_store(folder_url, Layout(NESTING, 8)) as store, pytest.raises(DataError, match="empty"):
        read_store(store, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_what_may_pass_is_tried_again(folder_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("nestling.search.stores.retry.sleep", waits.append)
    store = create_store(folder_url, Layout(NESTING, 8))
    upsert, failures = store._table.upsert, [3]

    def flaky(rows: Any) -> None:
        if failures[0]:
            failures[0] -= 1
            raise StoreBusyError("the line is bad")
        upsert(rows)

    monkeypatch.setattr(store._table, "upsert", flaky)
    store.add(NAMES[:5], VECTORS[:5])
    assert store.count() == 5
    assert waits == [0.1, 0.2, 0.4]
    failures[0] = 100
    with pytest.raises(StoreBusyError, match="the line is bad"):
        store.add(NAMES[:5], VECTORS[:5])
    assert failures[0] == 95
    store.close()
