"""What a retrieval measure needs: queries, documents, and judgements of which answer which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nestling.errors import DataError


@dataclass(frozen=True)
class RetrievalData:
    """Queries, documents and graded relevance judgements (qrels), all by id.

    Args:
        queries: text of each query by its id.
        documents: text of each document by its id.
        qrels: for each query id the grades by document id; above 0 is relevant, higher is better, and
            what is not named is not relevant.

    Raises:
        DataError: if a part is empty, a judgement names an unknown id, or no document is relevant to a query.
    """

    queries: Mapping[str, str]
    documents: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    def __post_init__(self) -> None:
        for name in ("queries", "documents", "qrels"):
            if not getattr(self, name):
                raise DataError(f"the retrieval data hold no {name}; give at least one")
        _check_ids("query", self.qrels, self.queries)
        judged = {document for grades in self.qrels.values() for document in grades}
        _check_ids("document", judged, self.documents)
        hopeless = [query for query, grades in self.qrels.items() if not any(g > 0 for g in grades.values())]
        if hopeless:
            raise DataError(
                f"no document is relevant (grade above 0) to {_name(hopeless)}, so no search can be scored "
                "on it; remove such queries from the qrels"
            )


def _check_ids(what: str, named: Mapping[str, object] | set[str], known: Mapping[str, str]) -> None:
    strangers = sorted(set(named) - set(known))
    if strangers:
        raise DataError(
            f"the qrels judge {_name(strangers, what)}, which the data do not hold; "
            "check that qrels, queries and documents belong together"
        )


def _name(ids: list[str], what: str = "query") -> str:
    plural = {"query": "queries"}.get(what, f"{what}s")
    shown = ", ".join(map(repr, ids[:3]))
    return f"{what} {shown}" if len(ids) == 1 else f"{len(ids)} {plural} ({shown}{', ...' * (len(ids) > 3)})"
