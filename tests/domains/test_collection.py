"""A collection: search by words, filters, updates, fields, refusals."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nestling.cut import CutRule
from nestling.data.tables.description import TableFile
from nestling.domains.text.collection import Collection
from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.text.opening import open_encoder
from nestling.errors import ArtifactError, ConfigError, DataError, NestlingError, StorageError
from nestling.vectors.stored import StoredVectors

TEXTS = [
    "a cat sleeps on the warm roof",
    "the ship left the harbour at dawn\u2028with the tide",
    "knead the dough and bake the bread",
]
FIELDS = {"title": ["cats", "ships", "bread"], "year": [2001, 2010, None]}


@pytest.fixture(scope="module")
def encoder() -> Any:
    return open_encoder("wordllama")


@pytest.fixture(scope="module")
def saved(encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection") / "c"
    Collection.create(folder, encoder, TEXTS, ["c", "s", "b"], fields=FIELDS, at="dim=64").close()
    return folder


def test_the_nearest_text_answers_with_its_id_and_fields(saved: Path) -> None:
    with Collection.open(saved, read_only=True) as collection:
        hits = collection.search("baking a loaf", k=2)
        assert (hits[0].id, hits[0].text, hits[0].fields) == ("b", TEXTS[2], {"title": "bread", "year": None})
        assert hits[0].score >= hits[1].score
        assert collection.index.dim == 64
        assert {hit.text for hit in collection.search("boats", k=99)} == set(TEXTS)


MANY = [f"{text}, {number} times" for text in TEXTS for number in range(100)]


@pytest.mark.parametrize("at", ["dim=256,bits=2", "dim=64,bits=8"])
def test_a_collection_keeps_codes(encoder: Any, tmp_path: Path, at: str) -> None:
    with Collection.create(tmp_path / "c", encoder, MANY, at=at) as collection:
        dim, bits = (int(part.split("=")[1]) for part in at.split(","))
        assert collection.index.cost().output_bytes == dim * bits // 8
        assert not list((tmp_path / "c" / "index").rglob("vectors.npy"))
        collection.add(["a dog in the garden"], ids=[1000])
        before = [hit.id for hit in collection.search("a puppy", k=1)]
    with Collection.open(tmp_path / "c") as collection:
        assert [hit.id for hit in collection.search("a puppy", k=1)] == before == [1000]
        assert "bread" in collection.search("baking a loaf", k=1)[0].text
        assert "bread" in collection.search("baking a loaf", k=1, at="dim=64,bits=1")[0].text


def test_the_code_of_an_encoder_is_that_of_its_collection(encoder: Any, tmp_path: Path) -> None:
    vectors = encoder.encode(MANY)
    trained = open_encoder("wordllama")
    trained.rule = trained.rule.calibrated(vectors[:290] + 0.01)
    with Collection.create(tmp_path / "c", trained, MANY, at="bits=4") as collection:
        assert collection.index.rule.code == trained.rule.code


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"at": "bits=4", "plan": "flat@full"}, "flat@full needs floats"),
        ({"at": "bits=16"}, "floats of 32 bits"),
        ({"at": "dim=64,bits=7"}, "bits=7 is no precision"),
    ],
)
def test_codes_that_no_collection_keeps_are_refused_before_texts_are_encoded(
    encoder: Any, tmp_path: Path, options: Any, message: str
) -> None:
    with pytest.raises(NestlingError, match=message):
        Collection.create(tmp_path / "c", encoder, MANY, **options)
    assert not list(tmp_path.iterdir())


def test_answers_are_filtered(saved: Path) -> None:
    with Collection.open(saved, read_only=True) as collection:
        for where in ("year<=2005", {"year": {"lte": 2005}}):
            assert [hit.id for hit in collection.search("boats", where=where)] == ["c"]
        assert {hit.id for hit in collection.search("x", where="not year=2001")} == {"s", "b"}
        assert [hit.id for hit in collection.search("x", where="title>=d", filter=["c", "s"])] == ["s"]
        assert collection.search("x", where="year>3000") == []
        assert [hit.id for hit in collection.search("x", where=f"text='{TEXTS[0]}'")] == ["c"]


def test_a_closed_collection_is_refused(saved: Path) -> None:
    with Collection.open(saved, read_only=True) as opened:
        assert repr(opened).startswith("Collection(AdaptiveIndex(")
        assert "3 rows of 64 dims" in repr(opened)
    assert "closed" in repr(opened)
    with pytest.raises(StorageError, match="was closed; open it again"):
        opened.search("a bird")


@pytest.mark.parametrize("before", ["none", "layer_norm"])
def test_scores_are_cosines_at_the_granularity(before: Any, tmp_path: Path) -> None:
    plain = TextEncoder.open("wordllama")
    encoder = TextEncoder(plain.model, plain.nesting, CutRule(before))
    with Collection.create(tmp_path / "c", encoder, TEXTS) as collection:
        for at in ("dim=64", "dim=256"):
            query, texts = (encoder.encode(x, at) for x in (["a cat"], TEXTS))
            scores = {hit.text: hit.score for hit in collection.search("a cat", at=at)}
            np.testing.assert_allclose([scores[text] for text in TEXTS], (query @ texts.T)[0], atol=1e-5)


def test_texts_come_change_and_go(encoder: Any, tmp_path: Path) -> None:
    folder, names = tmp_path / "c", ["c", "s", "b"]
    with Collection.create(
        folder, encoder, TEXTS, names, fields=FIELDS, plan="int4@full > rerank@full"
    ) as collection:
        assert collection.add(["heavy rain falls"], ["r"], fields={"year": [1999]}).tolist() == ["r"]
        assert collection.search("storm and rain", k=1)[0].id == "r"
        collection.update(["a submarine dives"], ["s"])
        (sub,) = collection.search("submarine", k=1)
        assert (sub.id, sub.fields) == ("s", {"title": "ships", "year": 2010})  # kept, as they are not given
        assert collection.delete(["c"]) == 1
        assert collection.delete(["c"], missing_ok=True) == 0
        with pytest.raises(DataError, match="not in the index"):
            collection.delete(["c"])
        with pytest.raises(DataError, match="is in the index already"):
            collection.add(["again"], ["r"])
        with pytest.raises(DataError, match="did you mean 'year'"):
            collection.add(["x y"], ["n"], fields={"yaer": [3]})
    with Collection.open(folder) as collection:
        assert len(collection) == 3
        assert "c" not in {hit.id for hit in collection.search("cat")}
        assert collection.search("storm", k=1, recall=0.9)[0].id == "r"


def test_a_float_widens_a_field(encoder: Any, tmp_path: Path) -> None:
    with Collection.create(tmp_path / "c", encoder, TEXTS, ["c", "s", "b"], fields=FIELDS) as collection:
        collection.add(["heavy rain falls"], ["r"], fields={"year": [1999.5]})
        collection.update(None, ["c"], fields={"year": [2.0]})
    with Collection.open(tmp_path / "c", read_only=True) as collection:
        assert collection.index.fields["year"] == "float"
        found = {hit.id: hit.fields["year"] for hit in collection.search("rain", k=4, where="year<=2010")}
        assert found == {"r": 1999.5, "c": 2.0, "s": 2010.0}
        assert all(isinstance(year, float) for year in found.values())


def test_a_failed_add_changes_nothing(encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    with Collection.create(tmp_path / "c", encoder, TEXTS) as collection:
        with monkeypatch.context() as patch:
            patch.setattr("nestling.search.index.writer.LogWriter.append", full)
            with pytest.raises(StorageError):
                collection.add(["heavy rain"])
        assert len(collection) == 3
    with Collection.open(tmp_path / "c") as collection:
        assert len(collection) == len(collection.search("rain", k=9)) == 3


def products(path: Path, rows: int = 60) -> list[dict[str, Any]]:
    kinds = ["chair", "lamp", "boat", "tent"]
    table = [
        {
            "sku": f"{row:04d}",
            "title": f"{kinds[row % 4]} number {row}",
            "year": 2000 + row % 20,
            "brand": "ab"[row % 2],
        }
        for row in range(rows)
    ]
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
    elif path.suffix == ".parquet":
        pd.DataFrame(table).to_parquet(path)
    else:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(table[0]), delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(table)
    return table


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_goes_in_and_its_columns_come_out(encoder: Any, tmp_path: Path, suffix: str) -> None:
    table = products(tmp_path / f"p{suffix}")
    described = TableFile.open(tmp_path / f"p{suffix}", "title", "sku")
    with Collection.create(tmp_path / "c", encoder, described) as collection:
        assert collection.index.columns == {"text": "title", "id": "sku"}
        assert collection.index.fields == {"title": "text", "year": "int", "brand": "text"}
        hits = collection.search("a boat", k=60, where="year>=2010 and brand=a")
        expected = [row for row in table if row["year"] >= 2010 and row["brand"] == "a"]
        assert {hit.id for hit in hits} == {row["sku"] for row in expected}
        by_id = {row["sku"]: row for row in table}
        for hit in hits:
            row = by_id[hit.id]
            assert (hit.text, hit.fields) == (row["title"], {"year": row["year"], "brand": row["brand"]})


def test_bad_requests_are_told(saved: Path, encoder: Any, tmp_path: Path) -> None:
    with Collection.open(saved, read_only=True) as collection:
        with pytest.raises(ConfigError, match="empty"):
            collection.search("  ")
        with pytest.raises(ConfigError, match="not a list"):
            collection.search(["a"])  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="k=0 must be a whole number from 1"):
            collection.search("x", k=0)
        with pytest.raises(ConfigError, match="not both"):
            collection.search("x", point="nprobe=3", recall=0.9)
        with pytest.raises(DataError, match="did you mean 'year'"):
            collection.search("x", where="yaer=3")
    with pytest.raises(DataError, match="no text"):
        Collection.create(tmp_path / "c", encoder, [])
    with pytest.raises(DataError, match="put it in a list"):
        Collection.create(tmp_path / "c", encoder, "one text")
    with pytest.raises(DataError, match="reserved for the texts"):
        Collection.create(tmp_path / "c", encoder, TEXTS, fields={"text": TEXTS})
    with pytest.raises(ArtifactError):
        Collection.open(tmp_path / "nowhere")


def test_unfinished_mixed_or_older_folders_are_refused(encoder: Any, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    Collection.create(first, encoder, TEXTS).close()
    Collection.create(second, encoder, TEXTS, at="dim=64").close()
    (first / "index").rename(tmp_path / "index")
    with pytest.raises(ArtifactError, match="not finished"):
        Collection.open(first)
    (second / "index").rename(first / "index")
    with pytest.raises(ConfigError, match="holds vectors of the encoder"):
        Collection.open(first)
    (first / "records.sqlite").touch()
    with pytest.raises(ArtifactError, match="older nestling"):
        Collection.open(first)
    (first / "records.sqlite").unlink()
    (first / "encoder" / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        Collection.open(first)


def test_a_finished_collection_is_replaced_only_when_told(encoder: Any, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    Collection.create(folder, encoder, TEXTS).close()
    with pytest.raises(ArtifactError, match=r"finished collection, .* pass overwrite=True"):
        Collection.create(folder, encoder, ["another"])
    with Collection.open(folder) as kept:
        assert len(kept) == len(TEXTS)
    with Collection.create(folder, encoder, ["another"], overwrite=True) as made:
        assert len(made) == 1


@pytest.mark.parametrize("place", ["index", "encoder", "vectors"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_collection_takes_the_place_of_nothing_else(
    encoder: Any, tmp_path: Path, place: str, overwrite: bool
) -> None:
    Collection.create(tmp_path / "c", encoder, TEXTS).close()
    StoredVectors(encoder.encode(TEXTS)).save(tmp_path / "c" / "vectors")
    target = tmp_path / "c" / place
    before = {path: path.read_bytes() for path in target.rglob("*") if path.is_file()}
    with pytest.raises(ArtifactError, match="and is not replaced by a collection"):
        Collection.create(target, encoder, TEXTS, overwrite=overwrite)
    assert {path: path.read_bytes() for path in target.rglob("*") if path.is_file()} == before


def test_a_build_that_was_interrupted_while_measuring_goes_on_until_its_index_is_used(
    encoder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "c"
    for _ in range(2):
        monkeypatch.setattr("nestling.search.tuning.planner.retune", stopped)
        with pytest.raises(KeyboardInterrupt):
            Collection.create(folder, encoder, TEXTS, plan="flat@full")
        assert (folder / "index" / "nestling.json").is_file()
    with Collection.open(folder) as used:
        used.add(["a fourth"])
    with pytest.raises(ArtifactError, match="finished collection"):
        Collection.create(folder, encoder, TEXTS, plan="flat@full")
