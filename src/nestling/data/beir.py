"""Retrieval data from the files of the field: BEIR folders, TREC judgements and runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from nestling.data.input_file import InputFile, find_file, home_path
from nestling.data.retrieval import RetrievalData
from nestling.data.table import read_json_lines
from nestling.errors import DataError, unknown


def read_beir(folder: str | Path, split: str = "test") -> RetrievalData:
    """A folder in BEIR's format: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

    A document is its title, then its text. Of the queries, which serve all splits, those judged in
    ``split`` are taken. Both files may be packed (``corpus.jsonl.gz``).
    :class:`~nestling.data.RetrievalData` says what becomes of empty texts and of judgements that do not fit;
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
    splits = sorted(path.stem for path in (root / "qrels").glob("*.tsv"))
    if split not in splits:
        raise DataError(f"{root / 'qrels'}: {unknown('split', split, splits)}")
    qrels = read_qrels(root / "qrels" / f"{split}.tsv")
    queries, documents = (
        _read_texts(find_file(str(files[name]))) for name in ("queries.jsonl", "corpus.jsonl")
    )
    return RetrievalData({key: text for key, text in queries.items() if key in qrels}, documents, qrels)


def _beside(root: Path, name: str) -> Path | None:
    """The file of this name, as it is or packed."""
    return next((path for path in (root / name, root / f"{name}.gz") if path.exists()), None)


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Judgements: TREC's four columns (query, iteration, document, grade) or BEIR's three, tab-separated.

    Grades are whole numbers; those of 0 and below say that a document is not relevant.

    Raises:
        DataError: for a file that is missing, empty or malformed, or judges one document twice (line named).
    """
    source = find_file(path)
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for number, fields in _rows(source):
        if not qrels and fields[0].lower() in _QUERY_NAMES:
            continue
        if len(fields) not in (3, 4):
            raise DataError(
                f"line {number} of {source.path} has {len(fields)} columns; judgements have {_QRELS}"
            )
        query, document, grade = fields[0], fields[-2], fields[-1]
        value = _whole(grade)
        if value is None:
            raise DataError(f"line {number} of {source.path}: the grade {grade!r} is not a whole number")
        if qrels[query].setdefault(document, value) != value:
            raise DataError(
                f"line {number} of {source.path} judges document {document!r} of query {query!r} anew"
            )
    if not qrels:
        raise DataError(f"{source.path} holds no judgements; each line has {_QRELS}")
    return dict(qrels)


def _whole(grade: str) -> int | None:
    """``2`` and ``2.0`` as 2; None for what is no whole number."""
    try:
        value = float(grade)
        return int(value) if value.is_integer() else None
    except ValueError:
        return None


_QUERY_NAMES = ("query-id", "query_id", "queryid", "query", "qid", "topic")
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
    with source.open_text(newline="\n") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line.strip().split("\t") if line.count("\t") in (2, 3) else line.split()


def _read_texts(source: InputFile) -> dict[str, str]:
    """Title and text by id; a text that is missing is blank."""
    texts: dict[str, str] = {}
    for number, record in read_json_lines(source):
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
