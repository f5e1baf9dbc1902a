from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestling.cut import CutRule
from nestling.domains.collection import Collection, Record
from nestling.encoders.stored import StoredVectors
from nestling.encoders.text import TextEncoder
from nestling.errors import ArtifactError, ConfigError, DataError

RECORDS = [
    Record("cats", "a cat sleeps on the warm roof"),
    Record("ships", "the ship left the harbour at dawn\u2028with the tide"),
    Record("bread", "knead the dough and bake the bread"),
]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.open("wordllama")


def test_the_nearest_record_answers(encoder: TextEncoder) -> None:
    collection = Collection.build(encoder, RECORDS, at="dim=64")
    hits = collection.search("baking a loaf", k=2)
    assert hits[0].record.title == "bread"
    assert hits[0].score >= hits[1].score
    assert collection.vectors.values.shape == (3, 64)
    assert len(collection.search("boats", k=99)) == 3


@pytest.mark.parametrize("before", ["none", "layer_norm"])
def test_scores_are_cosines_at_the_granularity(encoder: TextEncoder, before: Any) -> None:
    encoder = TextEncoder(encoder.model, encoder.nesting, CutRule(before))
    collection = Collection.build(encoder, RECORDS)
    for at in ("dim=64", "dim=256"):
        query, texts = (encoder.encode(x, at) for x in (["a cat"], [record.text for record in RECORDS]))
        scores = {hit.row: hit.score for hit in collection.search("a cat", at=at)}
        np.testing.assert_allclose([scores[row] for row in range(3)], (query @ texts.T)[0], atol=1e-5)


def test_a_saved_collection_answers_the_same(encoder: TextEncoder, tmp_path: Path) -> None:
    collection = Collection.build(encoder, RECORDS, at="dim=128")
    collection.save(tmp_path / "c")
    loaded = Collection.load(tmp_path / "c")
    assert loaded.records == tuple(RECORDS)
    assert loaded.granularity == collection.granularity
    for at in ("dim=64", "dim=128"):
        before, after = (c.search("at sea", at=at) for c in (collection, loaded))
        assert [hit.row for hit in before] == [hit.row for hit in after]


def test_a_torn_collection_is_refused(encoder: TextEncoder, tmp_path: Path) -> None:
    Collection.build(encoder, RECORDS, at="dim=64").save(tmp_path / "c")
    (tmp_path / "c" / "records.jsonl").write_text("[]")
    with pytest.raises(ArtifactError, match="truncated or altered"):
        Collection.load(tmp_path / "c")


def test_bad_requests_are_refused(encoder: TextEncoder) -> None:
    collection = Collection.build(encoder, RECORDS, at="dim=64")
    with pytest.raises(ConfigError, match="empty"):
        collection.search("  ")
    with pytest.raises(ConfigError, match="at least 1"):
        collection.search("x", k=0)
    with pytest.raises(ValueError, match="nearest"):
        collection.search("x", at="dim=128")
    with pytest.raises(DataError, match="build the collection again"):
        Collection(
            encoder, StoredVectors(np.eye(2, 256, dtype=np.float32), encoder.nesting, encoder.rule), RECORDS
        )
