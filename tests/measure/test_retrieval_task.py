"""Retrieval metrics agree with sentence-transformers at every size; graded and label qrels."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.util import cos_sim

from nestling.cut import CutRule, cut
from nestling.data.pairs import TextPairs
from nestling.data.retrieval import RetrievalData
from nestling.errors import ConfigError, DataError
from nestling.measure.tasks.qrels import Labels, Qrels
from nestling.measure.tasks.retrieval import Retrieval

DIMS = [4, 8, 16]


def vectors(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 16), dtype=np.float32)


class Stored:
    """Stands for an encoder of sentence-transformers whose vectors are there already."""

    model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *_: None)

    def __init__(self, by_text: dict[str, np.ndarray]) -> None:
        self.by_text = by_text

    def encode(self, texts: list[str], *, truncate_dim: int, **_: object) -> object:
        import torch

        return torch.from_numpy(np.stack([cut(self.by_text[t][None], truncate_dim)[0] for t in texts]))

    encode_query = encode_document = encode


def test_agrees_with_sentence_transformers_at_every_size() -> None:
    rng = np.random.default_rng(0)
    documents, queries = vectors(400, 0), vectors(60, 1)
    relevant = [sorted(rng.choice(400, size=rng.integers(1, 5), replace=False).tolist()) for _ in queries]
    for row, rows in enumerate(relevant):  # so that something is found
        queries[row] += documents[rows].sum(0)
    task = Retrieval(queries, documents, relevant, measures=("ndcg", "mrr", "recall", "precision", "map"))
    scores = task.score(task.inputs, DIMS, CutRule()).values.mean(axis=1)
    texts = {f"q{i}": v for i, v in enumerate(queries)} | {f"d{i}": v for i, v in enumerate(documents)}
    for size, dim in enumerate(DIMS):
        evaluator = InformationRetrievalEvaluator(
            {f"q{i}": f"q{i}" for i in range(60)},
            {f"d{i}": f"d{i}" for i in range(400)},
            {f"q{i}": {f"d{row}" for row in rows} for i, rows in enumerate(relevant)},
            mrr_at_k=[10], ndcg_at_k=[10], accuracy_at_k=[10], precision_recall_at_k=[10], map_at_k=[10],
            truncate_dim=dim, write_csv=False, score_functions={"cosine": cos_sim},
        )  # fmt: skip
        theirs = evaluator(Stored(texts))
        names = ("ndcg@10", "mrr@10", "recall@10", "precision@10", "map@10")
        expected = [theirs[f"cosine_{name}"] for name in names]
        np.testing.assert_allclose(scores[size], expected, atol=1e-6)


def test_graded_judgements_count_in_ndcg() -> None:
    task = Retrieval(np.eye(2), np.array([[1, 0.5], [1, 0], [0, 1]]), [{0: 1, 1: 3}, {2: 1}], k=2)
    ndcg = task.score(task.inputs, [2], CutRule()).values[0, 0, 0]
    assert ndcg == pytest.approx(1.0)
    swapped = Retrieval(np.eye(2), np.array([[1, 0.5], [1, 0], [0, 1]]), [{0: 3, 1: 1}, {2: 1}], k=2)
    ndcg = swapped.score(swapped.inputs, [2], CutRule()).values[0, 0, 0]
    assert ndcg == pytest.approx((1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3)))


@given(st.integers(0, 10_000))
def test_qrels_look_up_like_a_dictionary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    judged = [
        {int(d): float(rng.integers(0, 4)) for d in rng.choice(30, size=rng.integers(1, 6), replace=False)}
        for _ in range(8)
    ]
    for grades in judged:
        grades[int(rng.integers(30))] = 2.0
    qrels = Qrels(judged)
    found = rng.integers(-1, 40, (8, 12))
    expected = [[judged[q].get(int(d), 0.0) for d in row] for q, row in enumerate(found)]
    np.testing.assert_array_equal(qrels.grades(found), expected)
    ideal = [(sorted(grades.values(), reverse=True) + [0.0] * 4)[:4] for grades in judged]
    np.testing.assert_array_equal(qrels.ideal(4), ideal)
    assert qrels.relevant.tolist() == [sum(grade > 0 for grade in grades.values()) for grades in judged]


def test_labels_judge_as_single_judgements_do() -> None:
    rng = np.random.default_rng(0)
    labels, asked = rng.integers(0, 3, 50), rng.integers(0, 3, 9)
    by_label, by_pair = Labels(labels, asked), Qrels([np.flatnonzero(labels == a) for a in asked])
    found = rng.integers(-1, 50, (9, 20))
    np.testing.assert_array_equal(by_label.grades(found), by_pair.grades(found))
    np.testing.assert_array_equal(by_label.ideal(30), by_pair.ideal(30))
    np.testing.assert_array_equal(by_label.relevant, by_pair.relevant)


def test_map_of_labels_is_that_of_mrl() -> None:
    documents, queries = vectors(80, 0), vectors(20, 1)
    labels, asked = np.arange(80) % 4, np.arange(20) % 4
    task = Retrieval.from_labels(queries, asked, documents, labels, k=5)
    assert task.metrics == ("map@5", "mrl_map@5", "precision@5", "top1")
    values = task.score(task.inputs, [16], CutRule()).values[0, :, 1:]
    order = np.argsort(-(cut(queries, 16) @ cut(documents, 16).T), axis=1)[:, :5]
    hits = labels[order] == asked[:, None]
    slow = [sum(row[: r + 1].mean() for r in range(5) if row[r]) / 5 for row in hits]
    np.testing.assert_allclose(values, np.stack([slow, hits.mean(1), hits[:, 0]], axis=1))


def test_pairs_with_equal_texts_are_merged() -> None:
    pairs = TextPairs(["a", "b", "a", "c"], ["x", "y", "z", "x"])
    task = Retrieval.from_pairs(pairs, k=2)
    assert task.queries == ["a", "b", "c"]
    assert task.documents == ["x", "y", "z"]
    assert task.qrels.relevant.tolist() == [2, 1, 1]


def test_data_by_id_keep_the_judged_queries_alone() -> None:
    data = RetrievalData({"1": "a", "2": "b"}, {"x": "p", "y": "q"}, {"2": {"y": 2, "x": 0}})
    task = Retrieval.from_data(data, k=1)
    assert (task.queries, task.documents) == (["b"], ["p", "q"])
    np.testing.assert_array_equal(task.qrels.grades(np.array([[1, 0]])), [[2.0, 0.0]])


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ([], "0 queries but not query 0"),
        ({1: 0, 2: 0}, "not query 0"),
        ([0, []], "row 1"),
        ([0, {1: 0.0}], "row 1"),
        ([0, -1], "begin at 0"),
        ([0, "d1"], "not by id"),
        ([0, ["d1"]], "not by 'd1'"),
        ([0, 1.5], "whole numbers"),
        ([0, {1: np.nan}], "finite"),
        ([0, {1: -1.0}], "no document is relevant to the query in row 1"),
        ([0, [1, 1]], "twice for the query in row 1"),
        ([0], "judge 1 queries, but 2"),
        ([0, 3], "name document 3, but only 3"),
    ],
)
def test_bad_qrels_are_named(qrels: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Retrieval(np.eye(3)[:2], np.eye(3), qrels, k=2)


def test_bad_tasks_are_refused() -> None:
    with pytest.raises(DataError, match="k=10 documents cannot be found among 3"):
        Retrieval(np.eye(3), np.eye(3), [0, 1, 2])
    with pytest.raises(ConfigError, match="did you mean 'ndcg'"):
        Retrieval(np.eye(3), np.eye(3), [0, 1, 2], k=1, measures=("ndgc",))
    with pytest.raises(ConfigError, match="at least one measure"):
        Retrieval(np.eye(3), np.eye(3), [0, 1, 2], k=1, measures=())
    with pytest.raises(DataError, match="no document has the label of the query in row 1"):
        Retrieval.from_labels(np.eye(2), [0, 9], np.eye(2), [0, 1], k=1)
    with pytest.raises(DataError, match="labels do not belong"):
        Retrieval.from_labels(np.eye(2), [0, 1], np.eye(2), [0, 1, 1], k=1)
    with pytest.raises(DataError, match="not float64"):
        Retrieval.from_labels(np.eye(2), [0.0, 1.0], np.eye(2), [0, 1], k=1)


def test_vectors_are_measured_without_texts() -> None:
    documents, noise = vectors(60, 0), vectors(60, 1)
    task = Retrieval.from_vectors(documents + 0.5 * noise, documents, measures=("map", "mrl_map"))
    plain = Retrieval(documents + 0.5 * noise, documents, range(60), measures=("map", "mrl_map"))
    both = [each.score(each.inputs, DIMS, CutRule()).values for each in (task, plain)]
    np.testing.assert_array_equal(*both)
    perfect = Retrieval.from_vectors(documents, documents, measures=("map", "mrl_map"))
    assert perfect.score(perfect.inputs, [16], CutRule()).values.mean(axis=1)[0] == pytest.approx([1, 0.1])


def test_equal_vectors_are_one_query_or_document() -> None:
    x = vectors(4, 0)
    task = Retrieval.from_vectors(x[[0, 1, 0, 2]], x[[3, 1, 2, 3]], k=2)
    np.testing.assert_array_equal(task.queries, x[[0, 1, 2]])
    np.testing.assert_array_equal(task.documents, x[[3, 1, 2]])
    np.testing.assert_array_equal(
        task.qrels.grades(np.array([[0, 1, 2]] * 3)), [[1, 0, 1], [0, 1, 0], [1, 0, 0]]
    )


def test_judgements_of_vectors_are_by_row() -> None:
    x = vectors(5, 0)
    task = Retrieval.from_vectors(x[:2], x, [{0: 2, 1: 1}, [1]], k=2)
    assert task.score(task.inputs, [16], CutRule()).values[0, 1].tolist()[0] == 1
    with pytest.raises(DataError, match="2 queries do not belong to 5 documents row by row"):
        Retrieval.from_vectors(x[:2], x)
    with pytest.raises(DataError, match="documents have 8 entries"):
        Retrieval.from_vectors(x, x[:, :8])
    with pytest.raises(DataError, match="queries must be a matrix"):
        Retrieval.from_vectors(x[0], x)


def test_a_rank_belongs_to_k_and_one_measure_needs_no_list() -> None:
    with pytest.raises(ConfigError, match="say how many documents with k=10"):
        Retrieval(np.eye(3), np.eye(3), [0, 1, 2], k=1, measures=("map@10",))
    assert Retrieval(np.eye(3), np.eye(3), [0, 1, 2], k=1, measures="map").metrics == ("map@1",)
    assert Retrieval.from_vectors(np.eye(3), np.eye(3), k=1, measures="mrr").metrics == ("mrr@1",)
    labelled = Retrieval.from_labels(np.eye(2), [0, 1], np.eye(2), [0, 1], k=1, measures="top1")
    assert labelled.metrics == ("top1",)
