"""Changes to a table by other programs, beyond the laws of every store: clear errors, and old tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pyarrow as pa
import pytest
import qdrant_edge
from qdrant_client import QdrantClient, models

from nestling.errors import NestlingError, StorageError, StoreBusyError, StoreError
from nestling.granularity import Nesting
from nestling.search.stores import DatabaseStore, Layout, create_store, open_store
from nestling.search.stores.qdrant.table import QdrantTable

LAYOUT = Layout(Nesting.chain(dim=(4, 8)), 4)
VECTORS = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)


def unit(row: int, dim: int) -> list[float]:
    vector = VECTORS[row, :dim]
    return (vector / np.linalg.norm(vector)).tolist()


def test_an_insert_without_metadata_is_a_row_of_postgres(postgres: Any) -> None:
    store = postgres.make("bare", nesting=LAYOUT.nesting, shortlist_dim=4)
    conninfo = f"user=postgres dbname=postgres host={postgres.pattern.partition('?host=')[2]}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute("INSERT INTO bare (id, embedding) VALUES ('x', %s)", [str(unit(0, 8))])
        assert store.search(VECTORS[:1], 1)[0].metadata == [{}]
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("INSERT INTO bare (id, embedding) VALUES ('y', %s)", [str([7.0] * 8)])
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("INSERT INTO bare VALUES ('y', %s, '[1]')", [str(unit(1, 8))])
        connection.execute("INSERT INTO bare (id, embedding) VALUES ('', %s)", [str(unit(1, 8))])
    assert sorted(name for batch in store.scan(1) for name in batch.ids.tolist()) == ["", "x"]
    store.drop()


def test_a_name_that_is_no_number_is_told_where_numbers_are_expected(engine: Any) -> None:
    store = engine.make("numbered", nesting=LAYOUT.nesting, shortlist_dim=4, ids="int")
    store.add([1], VECTORS[:1])
    store.close()
    engine.write("numbered", ["007"], {dim: np.array([unit(1, dim)], np.float32) for dim in (4, 8)}, [{}])
    store = engine.reopen("numbered")
    for use in (lambda: store.search(VECTORS[1:2], 1), lambda: list(store.scan())):
        with pytest.raises(StoreError, match="a row called '007', but its ids are whole numbers"):
            use()
    store.drop()


@pytest.mark.filterwarnings("ignore:Local mode:UserWarning", "ignore:Payload indexes:UserWarning")
def test_a_point_of_qdrant_without_our_payload_is_called_by_its_own_id() -> None:
    client, theirs = QdrantClient(":memory:"), str(uuid.uuid4())
    store = DatabaseStore.create(QdrantTable(client, "docs"), LAYOUT)
    vectors = [{f"dim{dim}": unit(row, dim) for dim in (4, 8)} for row in range(2)]
    client.upsert("docs", [models.PointStruct(id=theirs, vector=vectors[0], payload=None)])
    client.upsert("docs", [models.PointStruct(id=7, vector=vectors[1], payload={"colour": "red"})])
    assert [hits.ids for hits in store.search(VECTORS[:2], 1)] == [[theirs], ["7"]]
    assert store.present([theirs, "7", "8"]).tolist() == [True, True, False]
    store.add([theirs], -VECTORS[:1], [{"kind": "ours"}])
    assert store.count() == 2
    assert store.search(-VECTORS[:1], 1)[0].metadata == [{"kind": "ours"}]
    store.delete([theirs, "7"])
    assert store.count() == 0
    client.upsert("docs", [models.PointStruct(id=7, vector=vectors[1], payload={"id": "a", "metadata": [1]})])
    with pytest.raises(StoreError, match="row 'a' whose metadata are list"):
        store.search(VECTORS[:1], 1)
    client.close()


def test_a_point_of_edge_without_our_payload_is_called_by_its_own_id(tmp_path: Path) -> None:
    url = f"qdrant://{tmp_path}/docs"
    create_store(url, LAYOUT).close()
    shard = qdrant_edge.EdgeShard.load(str(tmp_path / "docs"))
    named = {f"dim{dim}": unit(0, dim) for dim in (4, 8)}
    shard.update(qdrant_edge.UpdateOperation.upsert_points([qdrant_edge.Point(7, named, {})]))
    shard.close()
    with open_store(url) as store:
        assert store.search(VECTORS[:1], 1)[0].ids == ["7"]
        store.add(["7"], -VECTORS[:1])
        assert (store.count(), store.search(-VECTORS[:1], 1)[0].ids) == (1, ["7"])
        store.delete(["7"])
        assert (store.count(), store.layout) == (0, LAYOUT)


def test_several_rows_of_one_id_in_lancedb_become_one(lancedb: Any) -> None:
    store = lancedb.make("twice", nesting=LAYOUT.nesting, shortlist_dim=4)
    given = {dim: np.array([unit(0, dim)] * 2, np.float32) for dim in (4, 8)}
    lancedb.write("twice", ["a", "a"], given, [{}, {}])
    assert store.count() == 2
    store.add(["a"], VECTORS[1:2])
    assert (store.count(), store.search(VECTORS[1:2], 5)[0].ids) == (1, ["a"])
    store.drop()


def test_rows_of_lancedb_that_lack_a_vector_are_told(lancedb: Any) -> None:
    store = lancedb.make("halves", nesting=LAYOUT.nesting, shortlist_dim=4)
    lancedb.write("halves", ["a"], {4: np.array([unit(0, 4)], np.float32)}, [{}])
    with pytest.raises(StoreError, match="without dim8"):
        list(store.scan())
    store.drop()


def test_a_shard_that_is_open_is_told_in_our_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nestling.search.stores.retry._FIRST_WAIT_S", 0.001)
    url = f"qdrant://{tmp_path}/docs"
    with create_store(url, LAYOUT) as store:
        with pytest.raises(StoreBusyError, match=r"open already.*close it there.*Qdrant server") as caught:
            open_store(url)
        assert "WouldBlock" not in str(caught.value)
        store.add(["a"], VECTORS[:1])
        store.optimize()
    with open_store(url) as store:
        assert store.count() == 1


def test_a_fork_is_refused_and_harms_nothing(engine: Any) -> None:
    store = engine.make("forked", nesting=LAYOUT.nesting, shortlist_dim=4)
    store.add(["a"], VECTORS[:1])
    child = os.fork()
    if child == 0:
        told = 0
        for use in (
            store.count,
            lambda: store.search(VECTORS[:1], 1),
            lambda: store.add(["b"], VECTORS[1:2]),
        ):
            try:
                use()
            except StorageError as error:
                told += "a fork of it" in str(error)
        store.close()
        os._exit(told)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
    assert (store.count(), store.search(VECTORS[:1], 2)[0].ids) == (1, ["a"])
    store.drop()


def test_a_file_of_milvus_that_is_open_elsewhere_is_told_in_our_words(tmp_path: Path) -> None:
    url = f"milvus://{tmp_path}/all.db/docs"
    with create_store(url, LAYOUT):
        program = f"from nestling.search.stores import open_store\nopen_store({url!r})"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "StoreError: Milvus Lite cannot open" in ended.stderr
    assert "close it there" in ended.stderr


@pytest.mark.parametrize("url", ["lancedb://{}/docs", "qdrant://{}/docs", "milvus://{}/all.db/docs"])
def test_a_folder_that_cannot_be_is_an_error_of_ours(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for use in (open_store, lambda at: create_store(at, LAYOUT)):
        with pytest.raises(NestlingError):
            use(url.format(tmp_path / "file" / "below"))


def test_a_table_that_another_handle_dropped_is_an_error_of_ours(engine: Any) -> None:
    if engine.exclusive:
        pytest.skip("one handle alone may have it open")
    store = engine.make("dropped", nesting=LAYOUT.nesting, shortlist_dim=4)
    store.add(["a"], VECTORS[:1])
    other = engine.reopen("dropped")
    store.drop()
    for use in (
        other.count,
        lambda: other.search(VECTORS[:1], 1),
        lambda: other.add(["b"], VECTORS[:1]),
        lambda: other.delete(["a"]),
        lambda: other.present(["a"]),
        lambda: list(other.scan()),
    ):
        with pytest.raises(StoreError):
            use()
    other.close()


def old_text() -> str:
    record = json.loads(LAYOUT.to_text())
    del record["fields"]
    return json.dumps(record | {"nestling_store": 1})


def test_a_table_of_lancedb_with_labels_gets_columns(lancedb: Any) -> None:
    folder = lancedb.pattern.removeprefix("lancedb://").removesuffix("/{}")
    rows = {
        "id": ["a", "b", "c"],
        "labels": [["year=2020", 'brand="it\'s = 1"'], [], None],
        **{f"dim{dim}": [unit(row, dim) for row in range(3)] for dim in (4, 8)},
    }
    kinds = [("id", pa.string()), ("labels", pa.list_(pa.string()))]
    kinds += [(f"dim{dim}", pa.list_(pa.float32(), dim)) for dim in (4, 8)]
    schema = pa.schema(kinds, metadata={b"nestling": old_text().encode()})
    import lancedb as client

    made = client.connect(folder).create_table("labelled", pa.table(rows, schema=schema))
    made.create_index("labels", config=client.index.LabelList())
    for _ in range(2):
        with open_store(lancedb.url("labelled")) as store:
            found = store.search(VECTORS[:1], 3, where={"year": {"lt": 2021}})[0]
            assert (found.ids, found.metadata) == (["a"], [{"year": 2020, "brand": "it's = 1"}])
            assert store.count() == 3
            store.add(["c"], VECTORS[2:3], [{"year": 2022.5}])
            assert store.search(VECTORS[2:3], 1)[0].metadata == [{"year": 2022.5}]
    open_store(lancedb.url("labelled")).drop()


def test_a_layout_without_fields_is_read() -> None:
    assert Layout.from_text(old_text(), "here") == LAYOUT
