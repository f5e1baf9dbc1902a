"""Readers of BEIR folders and of TREC qrels and run files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from nestling.arguments.paths import home_path
from nestling.data.retrieval import RetrievalData
from nestling.data.tables.input_file import PACKED, InputFile, find_file
from nestling.data.tables.table import Table, plain_name, read_json_lines, read_table
from nestling.errors import DataError, unknown
from nestling.process.progress import watched


def read_beir(folder: str | Path, split: str = "test") -> RetrievalData:
    """A folder in BEIR's format: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

    A document is its title, then its text. Of the queries, which serve all splits, those judged in
    ``split`` are taken. All files may be packed (``corpus.jsonl.gz``, ``qrels/test.tsv.gz``).
    See :class:`~nestling.data.retrieval.RetrievalData` for empty texts and for judgements that
    do not fit;
    its ``left_out`` counts them.

    Raises:
        DataError: if a file is missing or malformed (the line is named), the split is unknown, or no
            query can be scored.

    Source: Thakur et al. 2021, arXiv 2104.08663.
    """
    root = home_path(folder)
    files = {name: _beside(root, name) for name in ("corpus.jsonl", "queries.jsonl", "qrels")}
    missing = [name for name, path in files.items() if path is None]
    if missing:
        raise DataError(
            f"{root} is not a folder in BEIR's format: it lacks {', '.join(missing)} "
            "(it should hold corpus.jsonl, queries.jsonl and qrels/<split>.tsv)"
        )
    splits = sorted(
        {
            path.name.removesuffix(f".tsv{end}")
            for end in ("", *PACKED)
            for path in (root / "qrels").glob(f"*.tsv{end}")
        }
    )
    if split not in splits:
        raise DataError(f"{root / 'qrels'}: {unknown('split', split, splits)}")
    qrels = read_qrels(_beside(root / "qrels", f"{split}.tsv") or root / "qrels" / f"{split}.tsv")
    queries, documents = (
        _read_texts(find_file(str(files[name]))) for name in ("queries.jsonl", "corpus.jsonl")
    )
    return RetrievalData({key: text for key, text in queries.items() if key in qrels}, documents, qrels)


def _beside(root: Path, name: str) -> Path | None:
    """The file of this name, as it is or packed."""
    return next((path for end in ("", *PACKED) if (path := root / f"{name}{end}").exists()), None)


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Judgements: grades of documents for each query.

    Plain files have TREC's four columns (query, iteration, document, grade) or BEIR's three (query, document,
    grade), divided by tabs or blanks, with or without a line of names. CSV is read in the same order; it and
    TSV may name the columns in any order, and JSON lines and parquet do: ``query-id``, ``corpus-id`` (or
    ``document-id``, ``doc_id``) and ``score`` (or ``grade``, ``relevance``). All may be packed.

    Grades are whole numbers; 0 and below mean not relevant. Blanks around ids do
    not count.

    Raises:
        DataError: for a file that is missing, empty or malformed, has a grade that is no whole number, or
            judges one document twice (line named).
    """
    source = find_file(path)
    kind = _kind_of_table(source)
    rows = (
        _judgements(source) if kind is None else _table_judgements(read_table(path, _names_query, kind=kind))
    )
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for place, query, document, grade in rows:
        value = _whole(grade)
        if value is None:
            raise DataError(
                f"{place} of {source.path}: the grade {grade!r} is not a whole number; give grades such as "
                "0, 1 and 2 (multiply fractions)"
            )
        if qrels[query].setdefault(document, value) != value:
            raise DataError(
                f"{place} of {source.path} judges document {document!r} of query {query!r} a second time"
            )
    if not qrels:
        raise DataError(f"{source.path} holds no judgements; each line has {_QRELS}")
    return dict(qrels)


Judgement = tuple[str, str, str, Any]
"""Line, query, document, grade."""


def _kind_of_table(source: InputFile) -> str | None:
    """The table format of a file of judgements; None for TREC's columns."""
    if source.suffix in _TABLES:
        return source.suffix
    head = source.head()
    if head.startswith(b"PAR1") or head.lstrip().startswith(b"{"):
        return ".parquet" if head.startswith(b"PAR1") else ".jsonl"
    with source.open_text(newline="") as stream:
        lines = [line.strip() for line in islice(filter(str.strip, stream), 2)]
    divider = next((mark for mark in "\t,;" if lines and all(mark in line for line in lines)), None)
    if divider is None or (len(lines) == 1 and _names_query(lines[0].split(divider))):
        return None
    has_names = _names_query(lines[0].split(divider))
    return ".csv" if has_names or len(lines[0].split()) == 1 else None


def _names_query(fields: Sequence[str]) -> bool:
    """Whether the fields of a first line are names: one is a usual one of the query."""
    return not {plain_name(field) for field in fields}.isdisjoint(map(plain_name, _QUERY_NAMES))


def _judgements(source: InputFile) -> Iterator[Judgement]:
    """Judgements in TREC's or BEIR's columns."""
    is_first = True
    for number, fields in _rows(source):
        if is_first and _names_query(fields[:1]):
            is_first = False
            continue
        is_first = False
        if len(fields) not in (3, 4):
            raise DataError(
                f"line {number} of {source.path} has {len(fields)} columns; judgements have {_QRELS}"
            )
        yield f"line {number}", fields[0], fields[-2], fields[-1]


def _table_judgements(table: Table) -> Iterator[Judgement]:
    """Judgements in named columns, or in TREC's or BEIR's order."""
    found = [table.find_column(names) for names in (_QUERY_NAMES, _DOCUMENT_NAMES, _GRADE_NAMES)]
    names = list(table.columns)
    if None in found and len(names) in (3, 4) and (found[0] == names[0] or names[0] == "1"):
        found = [names[0], names[-2], names[-1]]
    if None in found:
        raise DataError(
            f"{table.path} has the columns {', '.join(names)}; judgements have {_QRELS}, named such as "
            "query-id, corpus-id, score"
        )
    queries, documents, grades = (table.columns[str(name)] for name in found)
    for row, (query, document, grade) in enumerate(zip(queries, documents, grades, strict=True)):
        place = table.name_rows([row])
        yield place, _id(table, place, query), _id(table, place, document), grade


def _id(table: Table, place: str, value: Any) -> str:
    name = str(value).strip() if isinstance(value, str) or type(value) is int else ""
    if not name:
        raise DataError(f"{place} of {table.path}: {value!r} is no id; give a text or a whole number")
    return name


def _whole(grade: Any) -> int | None:
    """``2`` and ``2.0`` as 2; None for what is no whole number."""
    try:
        value = float(grade)
        return int(value) if value.is_integer() else None
    except (TypeError, ValueError):
        return None


_TABLES = (".csv", ".jsonl", ".ndjson", ".parquet")
_QUERY_NAMES = ("query-id", "query", "qid", "topic", "topic-id")
_DOCUMENT_NAMES = ("corpus-id", "document-id", "doc-id", "document", "doc", "docno", "docid", "did", "pid")
_GRADE_NAMES = ("score", "grade", "relevance", "rel", "label", "judgement", "judgment")
_RUN = "query, Q0, document, rank, score, tag"
_QRELS = "query, iteration, document, grade (TREC) or query, document, grade (BEIR)"


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """A TREC run (query, ``Q0``, document, rank, score, tag): scores by query and document, best first.

    Raises:
        DataError: for a file that is missing, empty or malformed, or ranks one document twice (line named).
    """
    source = find_file(path)
    run: dict[str, dict[str, float]] = defaultdict(dict)
    for number, fields in _rows(source):
        if len(fields) != 6:
            raise DataError(f"line {number} of {source.path} has {len(fields)} columns; a run has 6: {_RUN}")
        query, document, score = fields[0], fields[2], fields[4]
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"line {number} of {source.path}: the score {score!r} is not a finite number")
        if document in run[query]:
            raise DataError(
                f"line {number} of {source.path} ranks document {document!r} of query {query!r} twice"
            )
        run[query][document] = value
    if not run:
        raise DataError(f"{source.path} holds no run; each line has: {_RUN}")
    return {query: dict(sorted(scores.items(), key=lambda item: -item[1])) for query, scores in run.items()}


def _rows(source: InputFile) -> Iterator[tuple[int, list[str]]]:
    with source.open_text(newline="") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                fields = line.split("\t") if line.count("\t") in (2, 3) else line.split()
                yield number, [field.strip() for field in fields]


def _read_texts(source: InputFile) -> dict[str, str]:
    """Title and text by id; a text that is missing is blank."""
    texts: dict[str, str] = {}
    for number, record in watched(read_json_lines(source), f"reading {source.path.name}", "texts"):
        key, title, text = record.get("_id"), record.get("title"), record.get("text")
        if key is None:
            raise DataError(f'line {number} of {source.path} has no "_id", which names it; give it one')
        if not (isinstance(text, str | None) and isinstance(title, str | None)):
            raise DataError(
                f'line {number} of {source.path}: "title" and "text" of {key!r} must be texts or null'
            )
        whole = f"{title or ''}\n{text or ''}".strip()
        if texts.setdefault(str(key), whole) != whole:
            raise DataError(f"line {number} of {source.path} repeats the id {key!r} with another text")
    return texts
