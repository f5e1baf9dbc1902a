"""The retrieval task: rank documents by their relevance to each query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.constraints import Whole, checked
from nestling.cut import CutRule, check_vectors
from nestling.data.pairs import TextPairs
from nestling.data.retrieval import RetrievalData
from nestling.errors import ConfigError, DataError, unknown
from nestling.measure.tasks import metrics as of
from nestling.measure.tasks.qrels import Floats, Judgements, Labels, Qrels
from nestling.measure.tasks.scores import MeanScores
from nestling.search.exact.neighbours import nearest, nearest_each
from nestling.search.max_sim import nearest_by_max_sim
from nestling.vectors.token_vectors import TokenVectors

MEASURES: dict[str, Callable[[Floats, Judgements], Floats]] = {
    "ndcg": lambda found, judged: of.ndcg(found, judged.ideal(found.shape[1])),
    "recall": lambda found, judged: of.recall(found, judged.relevant),
    "mrr": lambda found, _: of.reciprocal_rank(found),
    "map": lambda found, judged: of.average_precision(
        found, relevant=np.minimum(judged.relevant, found.shape[1])
    ),
    "trec_map": lambda found, judged: of.average_precision(found, relevant=judged.relevant),
    "mrl_map": lambda found, _: of.average_precision(found),
    "precision": lambda found, _: of.precision(found),
    "success": lambda found, _: of.success(found),
    "top1": lambda found, _: of.success(found, 1),
}


@dataclass(frozen=True, eq=False)
@checked(k=Whole(1))
class Retrieval:
    """Exact search of documents by queries, judged by qrels.

    Documents of several vectors each (late interaction) are scored by MaxSim.

    Args:
        queries: whatever is to be encoded: texts, vectors, row numbers.
        documents: the same kind.
        qrels: for each query row its relevant documents: one row, several, or rows with grades (see
            :class:`~nestling.measure.tasks.qrels.Qrels`); or any other
            :class:`~nestling.measure.tasks.qrels.Judgements`.
        k: documents to look at for each query.
        measures: some of those below, the main one first.

    Of the first k documents found for a query:

    | measure | is |
    |---|---|
    | ``ndcg`` | the discounted gain of their grades over that of the best order, as in trec_eval |
    | ``recall`` | the share of all relevant documents that is among them |
    | ``mrr`` | 1 / rank of the first relevant one |
    | ``map`` | the precision at each relevant one, summed, over min(k, relevant documents) |
    | ``trec_map`` | the same over all relevant documents |
    | ``mrl_map`` | the same over k |
    | ``precision`` | the share of them that is relevant |
    | ``success`` | 1 if any is relevant (hit rate, accuracy@k) |
    | ``top1`` | 1 if the first is relevant |

    Of equally similar documents the first one is found. Codes of four bytes a vector and more make hardly
    any; where smaller codes are compared, give the documents in random order.

    A perfect search scores 1 by ``map``, as in sentence-transformers. ``trec_map`` is ``map_cut`` of
    trec_eval, which BEIR and MTEB report; the two differ only where more than k documents are relevant.
    ``mrl_map`` is the code of the MRL paper: a query with fewer than k relevant documents stays below 1.

    Raises:
        DataError: if the qrels name other queries or documents, or ``k`` exceeds the documents.
        ConfigError: for no or an unknown measure.

    >>> task = Retrieval(np.eye(3), np.eye(3), [0, 1, 2], k=2)
    >>> task.metrics
    ('ndcg@2', 'recall@2', 'mrr@2')
    """

    queries: Any
    documents: Any
    qrels: Any
    k: int = 10
    measures: Sequence[str] = ("ndcg", "recall", "mrr")

    name = "retrieval"
    needs = "vectors"
    stored = ("documents",)
    searched = ("queries", "documents")

    def __post_init__(self) -> None:
        if not hasattr(self.qrels, "grades"):
            object.__setattr__(self, "qrels", Qrels(self.qrels))
        object.__setattr__(self, "measures", _read_measures(self.measures))
        self.qrels.check(len(self.queries), len(self.documents))
        if self.k > len(self.documents):
            raise DataError(
                f"k={self.k} documents cannot be found among {len(self.documents)}; "
                f"choose k from 1 to {len(self.documents)}"
            )

    @classmethod
    def from_pairs(cls, pairs: TextPairs, *, k: int = 10, measures: Sequence[str] = measures) -> Self:
        """Each query looks for its document among all; equal texts are one query or one document."""
        return cls.from_data(pairs.retrieval(), k=k, measures=measures)

    @classmethod
    def from_data(cls, data: RetrievalData, *, k: int = 10, measures: Sequence[str] = measures) -> Self:
        """The judged queries of data by id; those without judgements are left out.

        Judged documents without a text, or that are not there, are relevant but never found.
        """
        queries = [data.queries[query] for query in data.qrels]
        return cls(queries, list(data.searchable.values()), Qrels.of(data), k, measures)

    @classmethod
    def from_vectors(
        cls,
        queries: ArrayLike,
        documents: ArrayLike,
        relevant: Any = None,
        *,
        k: int = 10,
        measures: Sequence[str] = measures,
    ) -> Self:
        """Vectors of queries look for vectors of documents; no texts are needed.

        Args:
            queries: ``Float[n, dim]``.
            documents: ``Float[m, dim]``.
            relevant: row numbers of the documents that answer each query, as :class:`Retrieval` takes it. By
                default row i belongs with row i; equal rows are then one query or one document.
            k: documents to look at for each query.
            measures: see :class:`Retrieval`.

        Raises:
            DataError: for vectors that cannot be used or are of different sizes, or other numbers of queries
                than of documents where row i belongs with row i.

        >>> x = np.random.default_rng(0).normal(size=(50, 16))
        >>> Retrieval.from_vectors(x + 0.1, x).metrics
        ('ndcg@10', 'recall@10', 'mrr@10')
        """
        asked = check_vectors(queries, "queries")
        known = check_vectors(documents, "documents", dim=asked.shape[1])
        if relevant is not None:
            return cls(asked, known, relevant, k, measures)
        if len(asked) != len(known):
            raise DataError(
                f"{len(asked)} queries do not belong to {len(known)} documents row by row; give the "
                "relevant documents of each query with relevant="
            )
        (first_asked, query), (first_known, document) = map(_distinct, (asked, known))
        pairs: list[dict[int, float]] = [{} for _ in first_asked]
        for row, answer in zip(query.tolist(), document.tolist(), strict=True):
            pairs[row][answer] = 1.0
        return cls(asked[first_asked], known[first_known], Qrels(pairs), k, measures)

    @classmethod
    def from_labels(
        cls,
        queries: Any,
        query_labels: ArrayLike,
        documents: Any,
        labels: ArrayLike,
        *,
        k: int = 10,
        measures: Sequence[str] = ("map", "mrl_map", "precision", "top1"),
    ) -> Self:
        """A document is relevant to the queries of its class (MRL's image retrieval).

        Args:
            queries: whatever is to be encoded.
            query_labels: ``Int[queries]`` or texts, their classes.
            documents: the same kind; a query that is among them finds itself, so hold queries out.
            labels: ``Int[documents]`` or texts, their classes.
            k: documents to look at for each query.
            measures: see :class:`Retrieval`. ``mrl_map`` is the figure of the MRL paper, and equals ``map``
                where every class has at least k documents.

        Raises:
            DataError: for labels that are floats, or a query whose class has no document.
        """
        return cls(queries, documents, Labels(labels, query_labels), k, measures)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics, such as ``ndcg@10``."""
        return tuple("top1" if measure == "top1" else f"{measure}@{self.k}" for measure in self.measures)

    @property
    def inputs(self) -> dict[str, Any]:
        """The inputs to encode."""
        return {"queries": self.queries, "documents": self.documents}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Self:
        """The same task on other inputs, such as their vectors."""
        return replace(self, **inputs)

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> MeanScores:
        """Every measure of every query at every size, from one pass over the coordinates."""
        queries, documents = _pair(encoded)
        if isinstance(documents, TokenVectors):
            found = nearest_by_max_sim(queries, documents, dims, self.k, rule=rule)
        else:
            found = nearest_each(queries, documents, dims, self.k, rule=rule)
        return self.judge([each.indices for each in found.values()])

    def judge(self, found: Sequence[NDArray[np.int64]]) -> MeanScores:
        """Every measure of every query, from the documents ``Int[queries, k]`` found at each size."""
        return MeanScores([self._judge(indices) for indices in found], self.metrics)

    def _judge(self, indices: NDArray[np.int64]) -> Floats:
        grades = self.qrels.grades(indices)
        return np.stack([MEASURES[measure](grades, self.qrels) for measure in self.measures], axis=1)

    def answer_one(self, encoded: Mapping[str, NDArray[Any]], dim: int, rule: CutRule) -> None:
        """One search with an encoded query, to time it."""
        queries, documents = _pair(encoded)
        if isinstance(documents, TokenVectors):
            nearest_by_max_sim(queries[:1], documents, [dim], self.k, rule=rule)
        else:
            nearest(queries[:1], documents, self.k, dim=dim, rule=rule, workers=1)


def _pair(encoded: Mapping[str, Any]) -> tuple[Any, Any]:
    """The encoded queries and documents: matrices, or vectors of tokens."""
    return encoded["queries"], encoded["documents"]


def _read_measures(given: Sequence[str]) -> tuple[str, ...]:
    """Names of measures; one alone needs no list."""
    measures = (given,) if isinstance(given, str) else tuple(given)
    for measure in measures:
        if measure not in MEASURES:
            name, _, rank = str(measure).partition("@")
            hint = f"; say how many documents with k={rank}" if rank and name in MEASURES else ""
            raise ConfigError(unknown("measure", measure, MEASURES) + hint)
    if not measures:
        raise ConfigError(f"name at least one measure: {', '.join(MEASURES)}")
    return measures


def _distinct(vectors: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that differ, by where each occurs first, and which of them every row is."""
    whole_rows = np.dtype((np.void, vectors.dtype.itemsize * vectors.shape[1]))
    keys = np.ascontiguousarray(vectors).view(whole_rows).ravel()
    _, first, place = np.unique(keys, return_index=True, return_inverse=True)
    order = np.argsort(first)
    return first[order], np.argsort(order)[place.ravel()]
