"""Files of an earlier version are opened, and give the results of that version; ``write.py`` made them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
FILES, ANSWERS, QUESTIONS = HERE / "files", HERE / "answers.json", HERE / "files" / "questions.npy"
DIM = 8
TEXTS = ["a red cat", "the dog sleeps"]
# Scores and vectors may differ in the last bits of float32 between processors and versions of libraries.
TOLERANCE = 2e-5


def hits(found):
    fields = {} if not any(map(len, found.fields)) else {"fields": [list(row) for row in found.fields]}
    return {"ids": found.ids.tolist(), "scores": found.scores.tolist(), **fields}


def index(path):
    from nestling.search.index.index import AdaptiveIndex

    with AdaptiveIndex.open(path, read_only=True) as opened:
        info = opened.info()
        told = {name: getattr(info, name) for name in ("rows", "deleted", "in_memory", "plan", "reason")}
        told["segments"] = [[part.name, part.rows, part.plan] for part in info.segments]
        told["ids"], told["fields"] = opened.ids().tolist(), info.fields
        for granularity in opened.nesting:
            queries = np.load(QUESTIONS)
            told[str(granularity)] = hits(opened.search(queries, 4, at=granularity))
        if info.fields:
            told["where"] = hits(opened.search(queries, 4, where="year>=2010 and colour=red"))
        return told


def collection(path):
    from nestling.domains.text.collection import Collection

    with Collection.open(path, read_only=True) as opened:
        return [
            [[hit.id, hit.score, hit.text, dict(hit.fields)] for hit in opened.search(text, k=3)]
            for text in TEXTS
        ]


def text_encoder(path):
    from nestling.encoders.text.opening import open_encoder

    encoder = open_encoder(path)
    return {
        "fingerprint": encoder.fingerprint(),
        **{str(g): encoder.encode(TEXTS, at=g).tolist() for g in encoder.nesting},
    }


def vector_map(kind):
    return {str(g): kind(np.load(QUESTIONS), at=g).tolist() for g in kind.nesting}


def pca(path):
    from nestling.encoders.maps.pca import PCARotation

    return vector_map(PCARotation.load(path))


def adapter(path):
    from nestling.encoders.maps.adapter import NestedAdapter

    return vector_map(NestedAdapter.load(path))


def vectors(path):
    from nestling.vectors.opening import open_vectors

    stored = open_vectors(path)
    return {
        "nesting": str(stored.nesting),
        "rule": stored.rule.to_json(),
        "ids": None if stored.ids is None else stored.ids.tolist(),
        "encoder": stored.encoder,
        "columns": dict(stored.columns),
        "fields": None if stored.fields is None else stored.fields.records(),
        "values": np.asarray(stored.values, np.float64).tolist(),
    }


def curve(path):
    from nestling.measure import Curve

    loaded = Curve.load(path)
    return [[str(row.granularity), row.metric, row.value, row.low, row.high] for row in loaded.rows]


def rdms(path):
    from nestling.compare import RDMs

    return RDMs.load(path).vectors.tolist()


def frontier(path):
    from nestling.search.plan.frontier import Frontier

    loaded = Frontier.from_json(path.read_text())
    return [[str(trial.plan), str(trial.point), trial.recall] for trial in loaded]


def train_plan(path):
    from nestling.domains.text.train_plan import read_plan

    return read_plan(path).to_toml()


OTHERS = {
    "collection": collection,
    "static": text_encoder,
    "text": text_encoder,
    "pca": pca,
    "adapter": adapter,
    "vectors": vectors,
    "vectors.npy": vectors,
    "vectors.parquet": vectors,
    "curve.json": curve,
    "rdms": rdms,
    "frontier.json": frontier,
    "train.toml": train_plan,
}
NAMES = sorted(json.loads(ANSWERS.read_text())) if ANSWERS.exists() else []


def answer(path):
    """Contents and results of a golden file, as JSON values."""
    found = (index if path.name.startswith("index-") else OTHERS[path.name])(path)
    return json.loads(json.dumps(found))


def assert_alike(found, wanted, place=""):
    """The same, but for the last bits of numbers."""
    assert type(found) is type(wanted), place
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys(), place
        for name, value in wanted.items():
            assert_alike(found[name], value, f"{place}.{name}")
    elif isinstance(wanted, list):
        assert len(found) == len(wanted), place
        for number, value in enumerate(wanted):
            assert_alike(found[number], value, f"{place}[{number}]")
    elif isinstance(wanted, float):
        assert found == pytest.approx(wanted, rel=TOLERANCE, abs=TOLERANCE), place
    else:
        assert found == wanted, place


@pytest.mark.parametrize("name", NAMES)
def test_what_was_saved_is_opened_and_answers_as_it_did(name: str) -> None:
    assert_alike(answer(FILES / name), json.loads(ANSWERS.read_text())[name])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("index-")])
def test_an_index_that_was_saved_is_changed(name: str, tmp_path: Path) -> None:
    """A writer takes up the log that is there, and writes files of today."""
    from nestling.search.index.index import AdaptiveIndex

    folder = tmp_path / "index"
    shutil.copytree(FILES / name, folder)
    new = np.load(QUESTIONS)
    with AdaptiveIndex.open(folder) as opened:
        before, ids = len(opened), opened.ids()
        names = [f"golden {row}" for row in range(len(new))] if ids.dtype.kind == "U" else None
        added = opened.add(new, names)
        opened.delete(ids[:3])
        opened.compact()
        nearest = opened.search(new, 1)
        np.testing.assert_array_equal(nearest.ids[:, 0], added)
    with AdaptiveIndex.open(folder, read_only=True) as again:
        assert len(again) == before + len(new) - 3
        again.verify()
