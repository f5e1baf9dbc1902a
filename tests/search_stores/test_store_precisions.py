"""Half precision and codes of one bit in databases, against the local form at equal settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from nestling.cut import RAW, CutRule, cut
from nestling.errors import ConfigError, DataError
from nestling.granularity import Nesting
from nestling.search import AdaptiveIndex, nearest
from nestling.search.stores import DatabaseStore, Layout, create_store, export_index, open_store, read_store
from nestling.search.stores.postgres.table import PostgresTable
from nestling.vectors.stored import StoredVectors

NESTING = Nesting.chain(dim=(16, 32, 64))
ROWS, K = 1200, 10


def nested_vectors(count: int, seed: int) -> np.ndarray:
    """Entries that matter less and less, whose means are not zero."""
    random = np.random.default_rng(seed)
    return (random.normal(size=(count, 64)) * np.linspace(2, 0.2, 64) + 0.3).astype(np.float32)


DOCUMENTS, QUERIES = nested_vectors(ROWS, 0), nested_vectors(10, 1)
STORED = StoredVectors(DOCUMENTS, NESTING).calibrated()
BITS = {"nesting": NESTING, "shortlist_dim": 64, "bits": 16, "shortlist_bits": 1, "rule": STORED.rule}


def test_ids_are_those_of_stored_vectors_in_half_precision(engine: Any) -> None:
    if engine.kind == "milvus":
        with pytest.raises(ConfigError, match="bits=16; here it is one of 32"):
            engine.make("halves", nesting=NESTING, shortlist_dim=16, bits=16)
        return
    store = engine.make("halves", nesting=NESTING, shortlist_dim=16, bits=16, ids="int")
    store.add(np.arange(ROWS), DOCUMENTS)
    local = STORED.extract("dim=64,bits=16")
    expected = nearest(QUERIES, local.matrix(), K)
    found = store.search(QUERIES, K, shortlist=None)
    if engine.kind != "qdrant":  # Qdrant rounds queries too, and may swap two rows
        assert [hits.ids for hits in found] == expected.indices.tolist()
    of_rows = cut(QUERIES, 64) @ local.matrix().T
    scores = np.stack([of_rows[row, hits.ids] for row, hits in enumerate(found)])
    np.testing.assert_allclose(scores, expected.scores, atol=2.0**-11)
    np.testing.assert_allclose([h.scores for h in found], expected.scores, atol=2.0**-11)
    store.drop()


def test_a_shortlist_by_bits_is_that_of_bit_planes(engine: Any) -> None:
    """Rows whose bits are nearer than those at the end of the shortlist are all re-ranked, others none."""
    if engine.kind == "milvus":
        return
    store = engine.make("planes", **BITS, ids="int")
    store.add(np.arange(ROWS), DOCUMENTS)
    planes = STORED.extract("dim=64,bits=1").values.planes[0]
    asked = StoredVectors(QUERIES, NESTING, STORED.rule).extract("dim=64,bits=1").values.planes[0]
    apart = np.unpackbits(asked[:, None] ^ planes[None], axis=2).sum(axis=2)
    for distances, hits in zip(apart, store.search(QUERIES, 40, shortlist=40), strict=True):
        last = np.sort(distances)[39]
        assert set(np.flatnonzero(distances < last)) <= set(hits.ids)
        assert distances[hits.ids].max() == last
    store.optimize()
    exact = [hits.ids for hits in store.search(QUERIES, K, shortlist=None)]
    found = [hits.ids for hits in store.search(QUERIES, K, shortlist=200)]
    local = np.argsort(apart, axis=1, kind="stable")[:, :200].tolist()
    # Graphs are approximate, and other rows of one distance may end the shortlist.
    assert recall(found, exact) >= recall(local, exact) - 0.05
    store.drop()


def recall(found: list[Any], exact: list[Any]) -> float:
    return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(exact, found, strict=True)]))


def test_postgres_holds_halfvec_and_an_index_of_bits(postgres: Any) -> None:
    socket = postgres.pattern.partition("?host=")[2]
    with psycopg.connect(f"user=postgres dbname=postgres host={socket}", autocommit=True) as connection:
        store = DatabaseStore.create(PostgresTable(connection, "natively"), Layout(**BITS, ids="int"))
        store.add(np.arange(ROWS), DOCUMENTS)
        store.optimize()
        kind = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attname = 'embedding' AND "
        kind += "attrelid = 'natively'::regclass"
        assert connection.execute(kind).fetchall() == [("halfvec(64)",)]
        [(made,)] = connection.execute(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'natively_bit_64'"
        ).fetchall()
        assert "bit_hamming_ops" in made
        with pytest.raises(ConfigError, match="needs code='bit', not 'float16'"):
            DatabaseStore.create(PostgresTable(connection, "other", code="float16"), Layout(**BITS))
        # A row that another program inserts gets its bits from the expression of the index.
        row = (DOCUMENTS[:1] / np.linalg.norm(DOCUMENTS[:1])).tolist()[0]
        connection.execute("INSERT INTO natively (id, embedding) VALUES ('77777', %s)", [str(row)])
        assert 77777 in store.search(DOCUMENTS[:1], 2, shortlist=20)[0].ids
        store.drop()


def test_qdrant_and_lancedb_hold_bits(qdrant: Any, lancedb: Any) -> None:
    store = qdrant.make("inside", **BITS, ids="int")
    store.add(np.arange(ROWS), DOCUMENTS)
    store.close()
    folder = Path(qdrant.pattern.removeprefix("qdrant://").removesuffix("/{}")) / "inside"
    config = json.loads((folder / "edge_config.json").read_text()) if folder.is_dir() else {}
    assert "binary" in json.dumps(config["vectors"]["bits"])
    qdrant.reopen("inside").drop()
    store = lancedb.make("inside", **BITS, ids="int")
    import lancedb as client

    table = client.connect(lancedb.pattern.removeprefix("lancedb://").removesuffix("/{}")).open_table(
        "inside"
    )
    kinds = {name: str(table.schema.field(name).type) for name in ("bits", "dim64")}
    assert kinds == {
        "bits": "fixed_size_list<item: uint8>[8]",
        "dim64": "fixed_size_list<item: halffloat>[64]",
    }
    store.drop()


@pytest.mark.parametrize("kind", ["qdrant", "lancedb"])
def test_rows_without_bits_are_found_once_they_are_added_again(
    kind: str, request: pytest.FixtureRequest
) -> None:
    engine, asked = request.getfixturevalue(kind), DOCUMENTS[50:51]
    store = engine.make("foreign", **BITS)
    store.add([str(row) for row in range(50)], DOCUMENTS[:50])
    store.close()
    engine.write("foreign", ["other"], {64: cut(asked, 64)}, [{}])
    store = engine.reopen("foreign")
    assert "other" not in store.search(asked, 10, shortlist=20)[0].ids
    assert store.search(asked, 1, shortlist=None)[0].ids == ["other"]
    (batch,) = store.scan(ids=["other"])
    store.add(batch.ids, batch.vectors, batch.metadata, prepared=True)
    assert store.search(asked, 1, shortlist=20)[0].ids == ["other"]
    store.drop()


def test_an_export_in_few_bits_is_repeated_without_writing_and_comes_back(
    engine: Any, tmp_path: Path
) -> None:
    if engine.kind == "milvus":
        return
    url = engine.url("exported")
    sources = {"vectors": StoredVectors(DOCUMENTS[:400], NESTING, ids=np.arange(400))}
    sources["index"] = AdaptiveIndex.create(tmp_path / "index", sources["vectors"])
    for source in sources.values():
        for added in (400, 0):
            done = export_index(source, url, bits=16, shortlist_bits=1)
            assert (done.added, done.changed) == (added, 0)
        with open_store(url) as store:
            layout = store.layout
            assert (layout.shortlist_dim, layout.bits, layout.shortlist_bits) == (64, 16, 1)
            assert layout.rule.needed_code.rows == 400
            back = read_store(store, tmp_path / f"back{type(source).__name__}")
            assert back.rule.code == layout.rule.code
            store.drop()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bits": 8}, ConfigError, "bits=8 must be one of 16, 32"),
        ({"bits": 1}, ConfigError, "bits=1 must be one of 16, 32"),
        ({"bits": True}, ConfigError, "bits=True must be one of"),
        ({"shortlist_bits": 8}, ConfigError, "shortlist_bits=8 must be one of 1, 16"),
        ({"rule": CutRule()}, DataError, "calibrate it on a sample"),
        ({"rule": CutRule().calibrated(DOCUMENTS[:, :32])}, DataError, "vectors of 32 entries, not 64"),
    ],
)
def test_a_layout_in_bits_that_cannot_be_is_refused(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Layout(**BITS | change)


def test_a_table_in_bits_refuses_another_calibration(folder_url: str) -> None:
    create_store(folder_url, Layout(**BITS)).close()
    open_store(folder_url, rule=CutRule()).close()  # who has no calibration takes that of the table
    other = CutRule().calibrated(DOCUMENTS[:600])
    with pytest.raises(ConfigError, match="holds vectors cut by"):
        open_store(folder_url, rule=other)


def test_values_beyond_half_precision_are_refused_before_anything_is_written(folder_url: str) -> None:
    with create_store(folder_url, Layout(NESTING, 16, rule=RAW, bits=16)) as store:
        with pytest.raises(DataError, match="beyond 65,504"):
            store.add(["a", "b"], np.stack([DOCUMENTS[0], DOCUMENTS[1] * 1e6]))
        assert store.count() == 0


def test_a_layout_in_bits_comes_back_from_its_text_and_an_older_one_has_none() -> None:
    layout = Layout(**BITS)
    assert Layout.from_text(layout.to_text(), "here") == layout
    plain = Layout(NESTING, 16)
    old = {k: v for k, v in json.loads(plain.to_text()).items() if "bits" not in k}
    assert Layout.from_text(json.dumps(old | {"nestling_store": 2}), "here") == plain
    assert replace(layout, shortlist_bits=16).dims == (64,)
