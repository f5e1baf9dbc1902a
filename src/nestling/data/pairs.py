"""Text pairs, and train/test splits of them without leaks."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nestling.arguments.paths import home_path
from nestling.data.retrieval import RetrievalData
from nestling.data.split import deal, groups_by_text, plain_text
from nestling.data.tables.delimited import header
from nestling.data.tables.table import Table, read_table
from nestling.data.tables.text_checks import check_texts
from nestling.errors import ArtifactError, DataError
from nestling.storage.artifact import read_folder, write_folder

KIND = "text-pairs"
_FILE = "pairs.jsonl"


@dataclass(frozen=True)
class TextPairs:
    """Queries and the document that answers each; rows of one group stay together when they are split.

    Args:
        queries: one text per row, none of them blank.
        documents: the partner of each query, in the same order.
        groups: one name per pair (a package, a web site, a user). By default rows that share a text, be it
            through others, are one group, so that no text can fall in two parts.
        left_out: counts of rows left out when the pairs were read, by reason.

    Raises:
        DataError: for no rows, different lengths, or texts that are blank or not Unicode (named).

    >>> pairs = TextPairs(["a cat", "a dog"], ["it purrs", "it barks"])
    >>> len(pairs), pairs.groups
    (2, ('0', '1'))
    """

    queries: Sequence[str]
    documents: Sequence[str]
    groups: Sequence[str] = ()
    left_out: Mapping[str, int] = field(default_factory=dict, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("queries", "documents"):
            object.__setattr__(self, name, tuple(check_texts(getattr(self, name), name)))
        if not self.queries:
            raise DataError("there are no pairs; give at least one query with its document")
        groups = tuple(self.groups) or groups_by_text(self.queries, self.documents)
        object.__setattr__(self, "groups", tuple(check_texts(groups, "groups")))
        object.__setattr__(self, "left_out", dict(self.left_out))
        lengths = [len(column) for column in (self.queries, self.documents, self.groups)]
        if len(set(lengths)) > 1:
            raise DataError(
                "queries, documents and groups must be as many as each other, not {}, {} and {}".format(
                    *lengths
                )
            )

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, rows: Iterable[int]) -> TextPairs:
        """The pairs of these rows, in this order."""
        chosen = list(rows)
        columns = (self.queries, self.documents, self.groups)
        return TextPairs(*(tuple(column[row] for row in chosen) for column in columns))

    def head(self, count: int | None) -> TextPairs:
        """The first ``count`` pairs; all, if there are fewer or ``count`` is None."""
        return self.take(range(len(self))[:count])

    def split(self, fractions: Sequence[float] = (0.8, 0.1, 0.1), *, seed: int = 0) -> tuple[TextPairs, ...]:
        """Divide the rows into parts (train, validation, test by default); no group is in two of them.

        Parts come near their fractions as far as the groups allow, none is empty, and a small part does
        not consist of one large group (see :func:`~nestling.data.split.place`).

        Args:
            fractions: share of the rows of each part, above 0, in sum 1.
            seed: the same seed gives the same parts.

        Raises:
            ConfigError: for fractions that are not above 0 or do not sum to 1.
            DataError: if there are fewer groups than parts.
        """
        return tuple(self.take(rows) for rows in deal(self.groups, fractions, seed))

    def retrieval(self) -> RetrievalData:
        """Each distinct query with all its documents as relevant, among all distinct documents."""
        query_ids = {text: f"q{i}" for i, text in enumerate(dict.fromkeys(self.queries))}
        document_ids = {text: f"d{i}" for i, text in enumerate(dict.fromkeys(self.documents))}
        qrels: dict[str, dict[str, int]] = defaultdict(dict)
        for query, document in zip(self.queries, self.documents, strict=True):
            qrels[query_ids[query]][document_ids[document]] = 1
        return RetrievalData(
            {key: text for text, key in query_ids.items()},
            {key: text for text, key in document_ids.items()},
            dict(qrels),
        )

    def save(self, folder: str | Path) -> None:
        """Write a verified folder (:mod:`nestling.storage.artifact`) of JSON lines."""
        names = ("query", "document", "group")
        rows = zip(self.queries, self.documents, self.groups, strict=True)
        lines = (json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows)
        with write_folder(folder, KIND, settings={"left_out": dict(self.left_out)}) as path:
            (path / _FILE).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> TextPairs:
        """Read what :meth:`save` wrote.

        Raises:
            ArtifactError: if the folder is missing, altered, of another kind or too new.
        """
        manifest = read_folder(folder, KIND)
        try:
            with (home_path(folder) / _FILE).open(encoding="utf-8") as stream:
                rows = [json.loads(line) for line in stream]
            columns = [[row[name] for row in rows] for name in ("query", "document", "group")]
            return cls(*columns, left_out=manifest.settings["left_out"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(f"{folder} does not hold pairs as its manifest says: {error}") from error


def read_pairs(
    path: str | Path, query: str | None = None, document: str | None = None, group: str | None = None
) -> TextPairs:
    """Pairs out of a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file, each row taken once.

    Columns that are not named are found by their usual names, without regard to case: ``query``,
    ``question``, ``anchor``, ``title`` ... with ``document``, ``answer``, ``positive``, ``text`` ..., and
    ``group``. A file of two columns is taken in its order: query, document.

    Args:
        path: the file, read as by :func:`~nestling.data.tables.table.read_table`; ``-``: standard
            input.
        query: its column of queries.
        document: its column of documents.
        group: its column of groups, which stay together in :meth:`TextPairs.split`.

    Raises:
        DataError: if the file cannot be read, is empty or holds one pair only, a column is missing (the
            nearest names are listed), or texts are blank (their lines are named).
    """
    table = read_table(path, header(query, document, group))
    query, document = _choose_columns(table, query, document)
    group = group or table.find_column(("group",))
    columns = [table.texts(name) for name in (query, document, group) if name is not None]
    distinct: dict[tuple[str, ...], tuple[str, ...]] = {}
    for row in zip(*columns, strict=True):
        distinct.setdefault(tuple(map(plain_text, row[:2])), row)
    if len(distinct) < 2:
        raise DataError(f"{path} holds one pair only; at least two different ones are needed")
    repeated = len(columns[0]) - len(distinct)
    left_out = {"repeated rows": repeated} if repeated else {}
    return TextPairs(*zip(*distinct.values(), strict=True), left_out=left_out)


QUERY_COLUMNS = (
    "query", "queries", "question", "anchor", "title", "name", "headline", "sentence1", "text1", "source",
    "input",
)  # fmt: skip
DOCUMENT_COLUMNS = (
    "document", "documents", "answer", "positive", "passage", "text", "body", "content", "abstract",
    "description", "summary", "sentence2", "text2", "target", "output", "context",
)  # fmt: skip


def _choose_columns(table: Table, query: str | None, document: str | None) -> tuple[str, str]:
    query = query or table.find_column(name for name in QUERY_COLUMNS if name != document)
    document = document or table.find_column(name for name in DOCUMENT_COLUMNS if name != query)
    if len(table.columns) == 2:
        first, second = table.columns
        query = query or (second if document == first else first)
        document = document or (second if query == first else first)
    for role, column in (("query", query), ("document", document)):
        if column is None:
            raise DataError(
                f"{table.path} has no column known to hold a {role}, but: {', '.join(table.columns)}; "
                f"name it with {role}=, or name it with columns='query=NAME,document=NAME', or call it "
                f"{role!r} in the file"
            )
    assert query is not None
    assert document is not None
    return query, document
