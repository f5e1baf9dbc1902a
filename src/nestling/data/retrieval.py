"""Retrieval data: queries, documents and relevance judgements."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from nestling.arguments.formatting import shown, type_of
from nestling.data.tables.text_checks import is_torn
from nestling.errors import DataError


@dataclass(frozen=True)
class RetrievalData:
    """Queries, documents and graded relevance judgements (qrels), all by id.

    Published collections are taken as they are; what cannot be searched or scored is counted in ``left_out``:

    - a document without a text (blank, None or no whole Unicode) is never found;
    - a judged document that is not there is never found either: both count in recall and in the ideal of
      nDCG, as in trec_eval;
    - a judged query without a text, and one without a relevant document, are not in ``qrels``.

    Args:
        queries: text of each query by its id.
        documents: text of each document by its id.
        qrels: for each query id the grades by document id; above 0 is relevant, higher is better, and
            grades below 0 and documents not named are not relevant.
        left_out: counts of what was left out before, by reason.

    Raises:
        DataError: if a part is empty, a text is another thing, a grade is no finite number (ids are named),
            or no query can be scored.

    >>> data = RetrievalData({"q": "a"}, {"d": "x", "e": ""}, {"q": {"d": 1, "e": -2}})
    >>> data.left_out
    {'documents without a text': 1}
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    left_out: Mapping[str, int] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("queries", "documents", "qrels"):
            if not isinstance(getattr(self, name), Mapping):
                kind = type_of(getattr(self, name))
                raise DataError(f"the {name} of retrieval data must be a mapping by id, not {kind}")
            if not getattr(self, name):
                raise DataError(f"the retrieval data hold no {name}; give at least one")
        for name in ("queries", "documents"):
            object.__setattr__(self, name, _texts(getattr(self, name), name))
        _check_grades(self.qrels)
        mute = [query for query in self.qrels if not _says_something(self.queries.get(query, ""))]
        answered = [query for query, each in self.qrels.items() if any(grade > 0 for grade in each.values())]
        hopeless = list(self.qrels.keys() - {*mute, *answered})
        kept = {query: self.qrels[query] for query in answered}
        for query in mute:
            kept.pop(query, None)
        judged = {document for grades in kept.values() for document in grades}
        _check_left({"without a text": mute, "without a relevant document": hopeless}, kept)
        if judged.isdisjoint(self.documents):
            raise DataError(
                f"none of the {len(judged)} judged documents is there, such as {min(judged, key=str)!r}; "
                "check that qrels and documents belong together"
            )
        counts = {
            "judged queries without a text": len(mute),
            "queries without a relevant document": len(hopeless),
            "documents without a text": len(self.documents) - len(self.searchable),
            "judged documents that are not there": len(judged - self.documents.keys()),
        }
        object.__setattr__(self, "qrels", kept)
        object.__setattr__(self, "left_out", {**self.left_out, **{why: n for why, n in counts.items() if n}})

    @property
    def searchable(self) -> dict[str, str]:
        """The documents that have a text."""
        return {name: text for name, text in self.documents.items() if _says_something(text)}


def _says_something(text: str) -> bool:
    return bool(text) and not text.isspace() and not is_torn(text)


def _check_left(out: Mapping[str, Sequence[str]], kept: Mapping[str, object]) -> None:
    if not kept:
        reasons = [f"{_name(queries)} {reason}" for reason, queries in out.items() if queries]
        raise DataError(
            f"no query can be scored: {' and '.join(reasons)}; check that qrels, queries and documents belong"
            " together"
        )


def _texts(given: Mapping[str, Any], what: str) -> dict[str, str]:
    wrong = [name for name, text in given.items() if not isinstance(text, str | None)]
    if wrong:
        kind = type_of(given[wrong[0]])
        raise DataError(f"{what} must be texts, not {kind} as in {_name(wrong, what)}; convert those")
    return {name: text or "" for name, text in given.items()}


def _check_grades(qrels: Mapping[str, Mapping[str, Any]]) -> None:
    for query, grades in qrels.items():
        if not isinstance(grades, Mapping):
            raise DataError(
                f"the qrels of query {query!r} must be grades by document id, not {type_of(grades)}"
            )
        for document, grade in grades.items():
            if not (isinstance(grade, numbers.Real) and math.isfinite(grade)):
                raise DataError(
                    f"the grade of document {document!r} for query {query!r} is {shown(grade)}; give a "
                    "finite number"
                )


def _name(ids: Sequence[str], what: str = "queries") -> str:
    single = {"queries": "query", "documents": "document"}[what]
    shown = ", ".join(map(repr, ids[:3]))
    return f"{single} {shown}" if len(ids) == 1 else f"{len(ids)} {what} ({shown}{', ...' * (len(ids) > 3)})"
