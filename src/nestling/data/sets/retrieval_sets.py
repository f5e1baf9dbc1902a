"""Small retrieval test collections: Cranfield and XQuAD."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from nestling.arguments.paths import home_path
from nestling.data.retrieval import RetrievalData
from nestling.data.sets.source import locate
from nestling.errors import DataError

_RECORD = re.compile(r"^\.I ", re.MULTILINE)
_FIELD = re.compile(r"^\.([A-Z])\n", re.MULTILINE)
# Cleverdon's codes run from 1, a complete answer, to 4, of minimum interest: the best has the lowest. One
# document of each query has the code -1, which no description explains. These were judged relevant too
# (older copies of the judgements list the same documents without codes), to a degree that is not known.
_GRADE_OF_CODE = {1: 4, 2: 3, 3: 2, 4: 1, -1: 1}


def cranfield() -> RetrievalData:
    """Cranfield: 1,400 abstracts, 225 questions, grades from 1 (minimum interest) to 4 (complete answer).

    The judgements count the questions by their position in the file, not by the numbers in it
    (which run to 365). Two abstracts are empty in the collection and are kept as their number.

    Raises:
        DataError: if the files cannot be found, or are not what they should be.

    Source: Cleverdon 1967, "The Cranfield tests on index language devices".
    """
    folder = locate("cranfield")
    documents = _read_records(folder / "cran.all.1400")
    questions = _read_records(folder / "cran.qry")
    return RetrievalData(
        {str(position): text for position, (_, text) in enumerate(questions, start=1)},
        {number: text or f"(empty abstract {number})" for number, text in documents},
        _read_judgements(folder / "cranqrel"),
    )


def _read_records(path: Path) -> list[tuple[str, str]]:
    """(number, text of field W) of each record."""
    records = []
    for record in _RECORD.split(_read(path))[1:]:
        number, *fields = _FIELD.split("\n".join(line.rstrip() for line in record.splitlines()) + "\n")
        texts = dict(zip(fields[::2], fields[1::2], strict=True))
        if "W" not in texts:
            raise DataError(f"record {number.strip()} of {path} has no text (field .W); get the file again")
        records.append((str(int(number)), " ".join(texts["W"].split())))
    if not records:
        raise DataError(f"{path} holds no records (lines that begin with .I); get the file again")
    return records


def _read_judgements(path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = defaultdict(dict)
    for line, row in enumerate(_read(path).splitlines(), start=1):
        try:
            query, document, code = map(int, row.split())
            qrels[str(query)][str(document)] = _GRADE_OF_CODE[code]
        except (ValueError, KeyError) as error:
            raise DataError(f"line {line} of {path} is not: query, document, code of 1 to 4 or -1") from error
    return dict(qrels)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as the text it should be: {error}") from error


def xquad() -> RetrievalData:
    """XQuAD, English: 1,190 questions, each answered by one of 240 passages of Wikipedia.

    Raises:
        DataError: if the file cannot be found, or is not what it should be.

    Source: Artetxe et al. 2020, arXiv 1910.11856.
    """
    return read_squad(locate("xquad") / "xquad.en.json")


def read_squad(path: str | Path) -> RetrievalData:
    """A file in SQuAD's format: each question's passage is the one relevant document.

    Raises:
        DataError: if the file is missing or of another form.
    """
    queries: dict[str, str] = {}
    documents: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    try:
        articles = json.loads(home_path(path).read_text(encoding="utf-8"))["data"]
        for article_number, article in enumerate(articles):
            for number, paragraph in enumerate(article["paragraphs"]):
                document = f"{article_number}-{number}"
                documents[document] = paragraph["context"]
                for question in paragraph["qas"]:
                    queries[question["id"]] = question["question"]
                    qrels[question["id"]] = {document: 1}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not in SQuAD's format (JSON: data, paragraphs, qas): {error!r}"
        ) from error
    return RetrievalData(queries, documents, qrels)
