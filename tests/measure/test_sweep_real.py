"""The sweep with real encoders, real texts and vectors on disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sentence_transformers.sentence_transformer.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
)
from sentence_transformers.util import cos_sim

from nestling.data import RetrievalData, stsb, xquad
from nestling.encoders.text.encoder import TextEncoder
from nestling.measure import STS, Retrieval, encode_task, sweep
from nestling.vectors.stored import StoredVectors


@pytest.fixture(scope="module")
def wordllama() -> TextEncoder:
    return TextEncoder.open("wordllama", device="cpu")


@pytest.fixture
def public_data(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))


def stock_retrieval(encoder: TextEncoder, data: RetrievalData, dim: int) -> dict[str, float]:
    """The same measured by sentence-transformers at one size."""
    evaluator = InformationRetrievalEvaluator(
        dict(data.queries), dict(data.documents), {q: set(grades) for q, grades in data.qrels.items()},
        mrr_at_k=[10], ndcg_at_k=[10], accuracy_at_k=[10], precision_recall_at_k=[10], map_at_k=[10],
        score_functions={"cosine": cos_sim}, truncate_dim=dim, write_csv=False,
    )  # fmt: skip
    return evaluator(encoder.model)  # type: ignore[no-any-return]


def check_retrieval(encoder: TextEncoder, data: RetrievalData) -> None:
    curve = sweep(encoder, Retrieval.from_data(data), bits=32)
    for g in encoder.nesting:
        theirs = stock_retrieval(encoder, data, g["dim"])
        for metric in curve.metrics:
            # Near-ties may fall the other way, for a query or two.
            assert curve.row(g, metric).value == pytest.approx(theirs[f"cosine_{metric}"], abs=2e-3)


def test_retrieval_of_docstrings_agrees_with_sentence_transformers(wordllama: TextEncoder) -> None:
    """On data made on the spot: does the first sentence of a docstring find the rest?"""
    documented = {
        f"{name}.{key}": value.__doc__.strip().split("\n", 1)
        for name, module in {"numpy": np, "pytest": pytest}.items()
        for key, value in vars(module).items()
        if "\n" in (getattr(value, "__doc__", None) or "").strip() and isinstance(value, type(sweep))
    }
    parts = {key: part for key, part in documented.items() if part[1].strip()}
    data = RetrievalData(
        {key: first for key, (first, _) in parts.items()},
        {key: rest for key, (_, rest) in parts.items()},
        {key: {key: 1} for key in parts},
    )
    assert len(parts) > 50
    check_retrieval(wordllama, data)


@pytest.mark.usefixtures("public_data")
def test_retrieval_of_questions_agrees_with_sentence_transformers(wordllama: TextEncoder) -> None:
    check_retrieval(wordllama, xquad())


@pytest.mark.usefixtures("public_data")
def test_similarity_of_sentences_agrees_with_sentence_transformers(wordllama: TextEncoder) -> None:
    pairs = stsb("test")
    curve = sweep(wordllama, STS(pairs.first, pairs.second, pairs.scores), bits=32)
    for g in wordllama.nesting:
        evaluator = EmbeddingSimilarityEvaluator(
            list(pairs.first), list(pairs.second), list(pairs.scores), truncate_dim=g["dim"],
            similarity_fn_names=["cosine"], main_similarity="cosine", write_csv=False,
        )  # fmt: skip
        theirs = evaluator(wordllama.model)["spearman_cosine"]
        assert curve.row(g).value == pytest.approx(theirs, abs=1e-3)
    assert curve.row().low > 0.7


def test_vectors_on_disk_are_swept_by_their_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    documents = rng.normal(size=(300, 32)).astype(np.float32)
    queries = documents[:90] + rng.normal(size=(90, 32)).astype(np.float32)
    StoredVectors(np.concatenate([queries, documents]), "dim=8,16,32").save(tmp_path / "vectors")
    stored = StoredVectors.load(tmp_path / "vectors")
    by_row = Retrieval(np.arange(90), np.arange(90, 390), np.arange(90))
    plain = Retrieval(queries, documents, np.arange(90))
    by_vector = sweep(SimpleNamespace(encode=np.asarray), plain, stored.nesting)
    curve = sweep(stored, by_row, bits=32)
    assert [row.value for row in curve.column()] == pytest.approx([row.value for row in by_vector.column()])
    assert [row.vector_bytes for row in curve.column()] == [32, 64, 128]
    assert encode_task(stored, by_row).inputs["documents"].shape == (300, 32)
