"""The task of finding the documents that are relevant to a query."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.cut import CutRule
from nestling.data.pairs import TextPairs
from nestling.data.retrieval import RetrievalData
from nestling.errors import ConfigError, DataError, unknown
from nestling.measure import metrics as of
from nestling.measure.qrels import Floats, Judgements, Labels, Qrels
from nestling.measure.scores import MeanScores
from nestling.search.exact import nearest, nearest_each

_MEASURES: dict[str, Callable[[Floats, Judgements], Floats]] = {
    "ndcg": lambda found, judged: of.ndcg(found, judged.ideal(found.shape[1])),
    "recall": lambda found, judged: of.recall(found, judged.relevant),
    "mrr": lambda found, _: of.reciprocal_rank(found),
    "map": lambda found, judged: of.average_precision(found, relevant=judged.relevant),
    "mrl_map": lambda found, _: of.average_precision(found),
    "precision": lambda found, _: of.precision(found),
    "success": lambda found, _: of.success(found),
    "top1": lambda found, _: of.success(found, 1),
}


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Exact search of documents by queries, judged by qrels.

    Args:
        queries: whatever is to be encoded: texts, vectors, row numbers.
        documents: the same kind.
        qrels: for each query row its relevant documents: one row, several, or rows with grades (see
            :class:`~nestling.measure.qrels.Qrels`); or any other :class:`~nestling.measure.qrels.Judgements`.
        k: documents to look at for each query.
        measures: some of ``ndcg``, ``recall``, ``mrr``, ``map`` (as in trec_eval), ``mrl_map`` (as in MRL),
            ``precision``, ``success`` (any hit) and ``top1``, the main one first.

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
    measures: tuple[str, ...] = ("ndcg", "recall", "mrr")

    name = "retrieval"
    needs = "vectors"

    def __post_init__(self) -> None:
        if not hasattr(self.qrels, "grades"):
            object.__setattr__(self, "qrels", Qrels(self.qrels))
        object.__setattr__(self, "measures", tuple(self.measures))
        wrong = [measure for measure in self.measures if measure not in _MEASURES]
        if wrong:
            raise ConfigError(unknown("measure", wrong[0], _MEASURES))
        if not self.measures:
            raise ConfigError(f"name at least one measure: {', '.join(_MEASURES)}")
        self.qrels.check(len(self.queries), len(self.documents))
        if not 1 <= self.k <= len(self.documents):
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
        """The judged queries of data by id; those without judgements are left out."""
        queries, documents = list(data.qrels), list(data.documents)
        row = {document: place for place, document in enumerate(documents)}
        qrels = [{row[document]: grade for document, grade in data.qrels[query].items()} for query in queries]
        return cls(
            [data.queries[query] for query in queries],
            [data.documents[document] for document in documents],
            Qrels(qrels),
            k,
            tuple(measures),
        )

    @classmethod
    def from_labels(
        cls,
        queries: Any,
        query_labels: ArrayLike,
        documents: Any,
        labels: ArrayLike,
        *,
        k: int = 10,
        measures: Sequence[str] = ("mrl_map", "precision", "top1"),
    ) -> Self:
        """A document is relevant to the queries of its class (MRL's image retrieval).

        Raises:
            DataError: for labels that are floats, or a query whose class has no document.
        """
        return cls(queries, documents, Labels(labels, query_labels), k, tuple(measures))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of what is measured, such as ``ndcg@10``."""
        return tuple("top1" if measure == "top1" else f"{measure}@{self.k}" for measure in self.measures)

    @property
    def inputs(self) -> dict[str, Any]:
        """What is to be encoded."""
        return {"queries": self.queries, "documents": self.documents}

    def with_inputs(self, inputs: Mapping[str, Any]) -> Self:
        """The same task on other inputs, such as their vectors."""
        return replace(self, **inputs)

    def score(self, encoded: Mapping[str, NDArray[Any]], dims: Sequence[int], rule: CutRule) -> MeanScores:
        """Every measure of every query at every size, from one pass over the coordinates."""
        found = nearest_each(encoded["queries"], encoded["documents"], dims, self.k, rule=rule)
        return MeanScores([self._judge(each.indices) for each in found.values()], self.metrics)

    def _judge(self, indices: NDArray[np.int64]) -> Floats:
        grades = self.qrels.grades(indices)
        return np.stack([_MEASURES[measure](grades, self.qrels) for measure in self.measures], axis=1)

    def answer_one(self, encoded: Mapping[str, NDArray[Any]], dim: int, rule: CutRule) -> None:
        """What one use takes once a query is encoded, for measuring its time: one search."""
        first = encoded["queries"][:1]
        nearest(first, encoded["documents"], self.k, dim=dim, rule=rule, workers=1)
