"""Relevance judgements (qrels): graded, or by equal labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.formatting import shown
from nestling.cut import name_rows
from nestling.data.retrieval import RetrievalData
from nestling.errors import DataError
from nestling.measure.tasks.metrics import check_labels, label_hits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Judgements(Protocol):
    """Says how relevant a document is to a query; both are named by their row."""

    @property
    def relevant(self) -> Ints:
        """``Int[queries]``, the number of documents that are relevant to each query."""
        ...

    def grades(self, indices: Ints) -> Floats:
        """``Float[queries, k]``: the grade of each document found, 0 for -1."""
        ...

    def ideal(self, k: int) -> Floats:
        """``Float[queries, k]``: the k highest grades of each query, highest first."""
        ...

    def check(self, queries: int, documents: int) -> None:
        """Refuse numbers of queries and documents that do not belong to these judgements."""
        ...


class Qrels:
    """Graded judgements of single pairs; unjudged documents count as not relevant.

    Args:
        judged: for each query its relevant documents: a mapping of query rows, or a sequence of one entry
            a query; an entry is one document row, several of them, or a mapping of rows to grades. Grades
            0 and below mean not relevant.
        beyond: so many documents, those of the highest rows, are judged but not in the collection. They are
            never found, and count in recall and in the ideal of nDCG, as in trec_eval.

    Raises:
        DataError: for no queries, a query without a relevant document, rows that are not whole numbers of
            at least 0, or grades that are not finite.

    >>> Qrels([[3], {0: 2.0, 1: 1.0}]).grades(np.array([[3, 0], [0, 1]]))
    array([[1., 0.],
           [2., 1.]])
    """

    def __init__(self, judged: Mapping[int, Any] | Sequence[Any] | NDArray[Any], *, beyond: int = 0) -> None:
        if not isinstance(judged, Mapping):
            judged = dict(enumerate(judged))
        missing = [query for query in range(max(len(judged), 1)) if query not in judged]
        if missing:
            raise DataError(
                f"the qrels judge {len(judged)} queries but not query {missing[0]}; they must judge every "
                "row from 0 on (Retrieval.from_data takes judgements by id)"
            )
        entries = [_read_entry(judged[query]) for query in range(len(judged))]
        lengths = [len(rows) for rows, _ in entries]
        queries = np.repeat(np.arange(len(entries)), lengths)
        documents = np.concatenate([rows for rows, _ in entries])
        values = np.concatenate([grades for _, grades in entries])
        _check_pairs(documents, values)
        values = np.maximum(values, 0)
        self.relevant: Ints = np.bincount(queries[values > 0], minlength=len(entries))
        hopeless = np.flatnonzero(self.relevant == 0)
        if len(hopeless):
            raise DataError(
                f"no document is relevant to the query in {name_rows(hopeless)}; remove such queries"
            )
        self._documents, self._beyond = int(documents.max()) + 1, beyond
        # One sorted column of pairs makes looking up a table of neighbours a single search.
        keys = queries * self._documents + documents
        order = np.argsort(keys, kind="stable")
        self._keys, self._grades = keys[order], values[order]
        if (np.diff(self._keys) == 0).any():
            twice = int(self._keys[np.flatnonzero(np.diff(self._keys) == 0)[0]] // self._documents)
            raise DataError(f"the qrels judge a document twice for the query in row {twice}; keep one grade")

    @classmethod
    def of(cls, data: RetrievalData) -> Self:
        """Judgements by id as those of rows: of the judged queries, and of the documents that have a text."""
        rows = {document: row for row, document in enumerate(data.searchable)}
        there = len(rows)
        for grades in data.qrels.values():
            for document in grades:
                rows.setdefault(document, len(rows))
        judged = [{rows[name]: grade for name, grade in grades.items()} for grades in data.qrels.values()]
        return cls(judged, beyond=len(rows) - there)

    def grades(self, indices: Ints) -> Floats:
        """``Float[queries, k]``: the grade of each document found, 0 for -1."""
        keys = np.arange(len(indices))[:, None] * self._documents + indices
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        known = (self._keys[places] == keys) & (indices >= 0) & (indices < self._documents)
        return np.where(known, self._grades[places], 0.0)

    def ideal(self, k: int) -> Floats:
        """``Float[queries, k]``: the k highest grades of each query, highest first."""
        queries = self._keys // self._documents
        order = np.lexsort((-self._grades, queries))
        ranks = np.arange(len(order)) - np.searchsorted(queries, queries)
        first = ranks < k
        best = np.zeros((len(self.relevant), k))
        best[queries[first], ranks[first]] = self._grades[order][first]
        return best

    def check(self, queries: int, documents: int) -> None:
        """Refuse numbers of queries and documents that do not belong to these judgements."""
        if queries != len(self.relevant):
            raise DataError(f"the qrels judge {len(self.relevant)} queries, but {queries} are given")
        there = self._documents - self._beyond
        if documents < there or (self._beyond and documents > there):
            raise DataError(
                f"the qrels name document {there - 1}, but only {documents} documents are given"
                if documents < there
                else f"the qrels are of {there} documents, but {documents} documents are given"
            )


def _read_entry(entry: Any) -> tuple[Ints, Floats]:
    """Document rows and grades of one query."""
    if isinstance(entry, Mapping):
        rows, grades = list(entry), np.asarray(list(entry.values()), np.float64)
    elif isinstance(entry, (str, bytes)):
        raise DataError(f"the qrels name documents by row, not by id; {shown(entry)} is not a row")
    else:
        rows = list(entry) if isinstance(entry, Iterable) else [entry]
        grades = np.ones(len(rows))
    column = np.asarray(rows) if rows else np.empty(0, np.int64)
    if column.dtype.kind not in "iu" or column.ndim != 1:
        raise DataError(f"the qrels name documents by row, as whole numbers, not by {rows[0]!r}")
    return column.astype(np.int64), grades


def _check_pairs(documents: Ints, grades: Floats) -> None:
    if len(documents) and documents.min() < 0:
        raise DataError(f"the qrels name document {documents.min()}; rows begin at 0")
    if not np.isfinite(grades).all():
        raise DataError("the grades of the qrels must be finite numbers, where 0 and below are not relevant")


class Labels:
    """A document is relevant to the queries that have its label.

    Args:
        documents: ``Int[documents]``.
        queries: ``Int[queries]``.

    Raises:
        DataError: for labels that are floats, or a query whose label no document has.
    """

    def __init__(self, documents: ArrayLike, queries: ArrayLike) -> None:
        self._documents = check_labels(documents, "labels of the documents")
        self._queries = check_labels(queries, "labels of the queries")
        kinds, counts = np.unique(self._documents, return_counts=True)
        places = np.minimum(np.searchsorted(kinds, self._queries), len(kinds) - 1)
        known = kinds[places] == self._queries
        if not known.all():
            raise DataError(
                f"no document has the label of the query in {name_rows(np.flatnonzero(~known))}; "
                "remove such queries"
            )
        self.relevant: Ints = counts[places]

    def grades(self, indices: Ints) -> Floats:
        """``Float[queries, k]``: 1 for a document of the query's label, else 0."""
        return label_hits(indices, self._documents, self._queries).astype(np.float64)

    def ideal(self, k: int) -> Floats:
        """``Float[queries, k]``: one for each document of the label."""
        return (np.arange(k) < self.relevant[:, None]).astype(np.float64)

    def check(self, queries: int, documents: int) -> None:
        """Refuse numbers of queries and documents that do not belong to these labels."""
        if (queries, documents) != (len(self._queries), len(self._documents)):
            raise DataError(
                f"{len(self._queries)} and {len(self._documents)} labels do not belong to {queries} queries "
                f"and {documents} documents"
            )
