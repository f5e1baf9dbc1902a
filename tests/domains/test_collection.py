from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestling.cut import CutRule
from nestling.domains.collection import Collection
from nestling.domains.records import Record
from nestling.encoders.text import TextEncoder
from nestling.errors import ArtifactError, ConfigError, DataError, StorageError

RECORDS = [
    Record("cats", "a cat sleeps on the warm roof"),
    Record("ships", "the ship left the harbour at dawn\u2028with the tide"),
    Record("bread", "knead the dough and bake the bread"),
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.open("wordllama")


@pytest.fixture(scope="module")
def saved(encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collection") / "c"
    Collection.create(folder, encoder, RECORDS, at="dim=64").close()
    return folder


def test_the_nearest_record_answers(saved: Path) -> None:
    with Collection.open(saved, read_only=True) as collection:
        hits = collection.search("baking a loaf", k=2)
        assert hits[0].record.title == "bread"
        assert hits[0].score >= hits[1].score
        assert collection.index.dim == 64
        assert {hit.record for hit in collection.search("boats", k=99)} == set(RECORDS)


@pytest.mark.parametrize("before", ["none", "layer_norm"])
def test_scores_are_cosines_at_the_granularity(encoder: TextEncoder, before: Any, tmp_path: Path) -> None:
    encoder = TextEncoder(encoder.model, encoder.nesting, CutRule(before))
    with Collection.create(tmp_path / "c", encoder, RECORDS) as collection:
        for at in ("dim=64", "dim=256"):
            query, texts = (encoder.encode(x, at) for x in (["a cat"], [record.text for record in RECORDS]))
            scores = {hit.record: hit.score for hit in collection.search("a cat", at=at)}
            np.testing.assert_allclose(
                [scores[record] for record in RECORDS], (query @ texts.T)[0], atol=1e-5
            )


def test_texts_come_and_go(encoder: TextEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with Collection.create(folder, encoder, RECORDS, plan="int4@full > rerank@full") as collection:
        ids = collection.add([Record("rain", "heavy rain falls on the hills")])
        assert collection.search("storm and rain", k=1)[0].id == ids[0]
        (ship,) = (hit.id for hit in collection.search("ship", k=1))
        assert collection.delete([ship]) == 1
        with pytest.raises(DataError):
            collection.delete([ship])
    with Collection.open(folder) as collection:
        assert len(collection) == 3
        assert "ships" not in {hit.record.title for hit in collection.search("ship")}
        assert collection.search("storm", k=1, recall=0.9)[0].record.title == "rain"


def test_records_without_a_vector_go_when_it_is_opened_for_writing(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    with Collection.create(tmp_path / "c", encoder, RECORDS) as collection:
        collection.records.add([Record("lost", "the process was killed before its vector was kept")])
    with Collection.open(tmp_path / "c") as collection:
        assert len(collection.records.ids()) == len(collection) == 3


def test_a_failed_add_leaves_no_record(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    with Collection.create(tmp_path / "c", encoder, RECORDS) as collection:
        monkeypatch.setattr(collection.index, "add", full)
        with pytest.raises(StorageError):
            collection.add([Record("rain", "heavy rain")])
        assert len(collection.records.ids()) == 3


def test_bad_requests_are_told(saved: Path, encoder: TextEncoder, tmp_path: Path) -> None:
    with Collection.open(saved, read_only=True) as collection:
        with pytest.raises(ConfigError, match="empty"):
            collection.search("  ")
        with pytest.raises(ConfigError, match="at least 1"):
            collection.search("x", k=0)
        with pytest.raises(ConfigError, match="not both"):
            collection.search("x", point="nprobe=3", recall=0.9)
    with pytest.raises(DataError, match="no text"):
        Collection.create(tmp_path / "c", encoder, [])
    with pytest.raises(ArtifactError):
        Collection.open(tmp_path / "nowhere")


def test_unfinished_or_mixed_folders_are_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    Collection.create(first, encoder, RECORDS).close()
    Collection.create(second, encoder, RECORDS, at="dim=64").close()
    (first / "index").rename(tmp_path / "index")
    with pytest.raises(ArtifactError, match="not finished"):
        Collection.open(first)
    (second / "index").rename(first / "index")
    with pytest.raises(ConfigError, match="holds vectors of the encoder"):
        Collection.open(first)
    (first / "encoder" / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"config\.json"):
        Collection.open(first)
