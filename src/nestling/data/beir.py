"""Retrieval data from the files of the field: BEIR folders, TREC judgements and runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from nestling.data.retrieval import RetrievalData
from nestling.data.table import read_json_lines, read_text
from nestling.errors import DataError, unknown


def read_beir(folder: str | Path, split: str = "test") -> RetrievalData:
    """A folder in BEIR's format: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/<split>.tsv``.

    A document is its title, then its text. Of the queries, which serve all splits, those judged in
    ``split`` are taken.

    Raises:
        DataError: if a file is missing or malformed (the line is named), the split is unknown, or ids do
            not fit together.

    Source: Thakur et al. 2021, arXiv 2104.08663.
    """
    root = Path(folder)
    missing = [name for name in ("corpus.jsonl", "queries.jsonl", "qrels") if not (root / name).exists()]
    if missing:
        raise DataError(
            f"{root} is not a folder in BEIR's format: it lacks {', '.join(missing)} "
            "(it should hold corpus.jsonl, queries.jsonl and qrels/<split>.tsv)"
        )
    splits = sorted(path.stem for path in (root / "qrels").glob("*.tsv"))
    if split not in splits:
        raise DataError(f"{root / 'qrels'}: {unknown('split', split, splits)}")
    qrels = read_qrels(root / "qrels" / f"{split}.tsv")
    queries = _read_texts(root / "queries.jsonl")
    return RetrievalData(
        {key: text for key, text in queries.items() if key in qrels},
        _read_texts(root / "corpus.jsonl"),
        qrels,
    )


def read_qrels(path: str | Path) -> dict[str, dict[str, int]]:
    """Judgements: TREC's four columns (query, iteration, document, grade) or BEIR's three, tab-separated.

    Raises:
        DataError: for a file that is missing, empty or malformed, or judges one document twice (line named).
    """
    source = Path(path)
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for number, fields in _rows(source):
        if number == 1 and [name.lower() for name in fields[:2]] == ["query-id", "corpus-id"]:
            continue
        if len(fields) not in (3, 4):
            raise DataError(f"line {number} of {source} has {len(fields)} columns; judgements have {_QRELS}")
        query, document, grade = fields[0], fields[-2], fields[-1]
        try:
            value = int(grade)
        except ValueError as error:
            raise DataError(
                f"line {number} of {source}: the grade {grade!r} is not a whole number"
            ) from error
        if qrels[query].setdefault(document, value) != value:
            raise DataError(f"line {number} of {source} judges document {document!r} of query {query!r} anew")
    if not qrels:
        raise DataError(f"{source} holds no judgements; each line has {_QRELS}")
    return dict(qrels)


_RUN = "query, Q0, document, rank, score, tag"
_QRELS = "query, iteration, document, grade (TREC) or query, document, grade (BEIR)"


def read_run(path: str | Path) -> dict[str, dict[str, float]]:
    """A TREC run (query, ``Q0``, document, rank, score, tag): scores by query and document, best first.

    Raises:
        DataError: for a file that is missing, empty or malformed, or ranks one document twice (line named).
    """
    source = Path(path)
    run: dict[str, dict[str, float]] = defaultdict(dict)
    for number, fields in _rows(source):
        if len(fields) != 6:
            raise DataError(f"line {number} of {source} has {len(fields)} columns; a run has 6: {_RUN}")
        query, document, score = fields[0], fields[2], fields[4]
        try:
            value = float(score)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"line {number} of {source}: the score {score!r} is not a finite number")
        if document in run[query]:
            raise DataError(f"line {number} of {source} ranks document {document!r} of query {query!r} twice")
        run[query][document] = value
    if not run:
        raise DataError(f"{source} holds no run; each line has: {_RUN}")
    return {query: dict(sorted(scores.items(), key=lambda item: -item[1])) for query, scores in run.items()}


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield number, line.strip().split("\t") if line.count("\t") in (2, 3) else line.split()


def _read_texts(path: Path) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, record in read_json_lines(path):
        if "_id" not in record or not isinstance(record.get("text"), str):
            raise DataError(f'line {number} of {path} has no "_id" or no "text"; both are needed')
        key = str(record["_id"])
        if key in texts:
            raise DataError(f"line {number} of {path} repeats the id {key!r}")
        texts[key] = f"{record.get('title') or ''}\n{record['text']}".strip()
    return texts
