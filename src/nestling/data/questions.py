"""Questions about pictures, with their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nestling.data.tables.delimited import header
from nestling.data.tables.files import files_of, role_column
from nestling.data.tables.table import Table, read_table
from nestling.errors import DataError, require

_IMAGES = ("image", "picture", "photo", "file", "path", "file_name")
_QUESTIONS = ("question", "prompt", "query", "text")
_ANSWERS = ("answer", "label", "target", "response")
_BETWEEN = "|"


@dataclass(frozen=True)
class PictureQuestions:
    """Pictures, each with a question and its answer.

    Args:
        files: of the pictures.
        questions: one a picture.
        answers: one a question.
        choices: the answers to choose among, one of them right; empty where answers are free text.

    Raises:
        DataError: for none, different lengths, or an answer that is none of its choices.
    """

    files: tuple[Path, ...]
    questions: tuple[str, ...]
    answers: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        counts = {len(self.files), len(self.questions), len(self.answers)}
        if self.choices:
            counts.add(len(self.choices))
        if len(counts) > 1 or 0 in counts:
            raise DataError("each picture needs a question and an answer, and there must be at least one")
        for row, choices in enumerate(self.choices):
            if self.answers[row] not in choices or len(set(choices)) < max(len(choices), 2):
                raise DataError(
                    f"question {row} has the answer {self.answers[row]!r} and the choices "
                    f"{', '.join(map(repr, choices))}; give at least two different ones with the answer"
                )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice) -> PictureQuestions:
        return PictureQuestions(
            self.files[rows], self.questions[rows], self.answers[rows], self.choices[rows]
        )

    def head(self, count: int | None) -> PictureQuestions:
        """The first ``count`` questions; all, if there are fewer or ``count`` is None."""
        return self[:count]

    def pictures(self, rows: Sequence[int]) -> list[Any]:
        """Pictures of some rows, as ``PIL.Image`` in RGB.

        Raises:
            DataError: for a file that is no picture.
        """
        return [read_picture(self.files[row]) for row in rows]


def read_picture(path: Path) -> Any:
    """A picture of a file, as ``PIL.Image`` in RGB.

    Raises:
        DataError: for a file that is missing, or no picture.
        MissingExtraError: if pillow is not installed.
    """
    image = require("PIL.Image", "plot")
    try:
        with image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:  # pillow raises all of these for damaged files
        raise DataError(f"{path} is missing, or not a picture that can be read: {error}") from error


def read_questions(
    path: str | Path,
    image: str | None = None,
    question: str | None = None,
    answer: str | None = None,
    choices: str | None = None,
) -> PictureQuestions:
    """Questions about pictures, out of a ``.csv``, ``.tsv``, ``.jsonl`` or ``.parquet`` file.

    Columns that are not named are found by their usual names: ``image``, ``question``, ``answer`` and, if
    there is one, ``choices``. Files of pictures are named as seen from the folder of the table. Choices are a
    list, or text with ``|`` between.

    Args:
        path: of the table.
        image: its column of files.
        question: its column of questions.
        answer: its column of answers.
        choices: its column of the answers to choose among.

    Raises:
        DataError: if the file cannot be read, a column is missing, texts are blank, or pictures do not exist.
    """
    table = read_table(path, header(image, question, answer, choices))
    choices = choices or table.find_column(("choices", "options"))
    return PictureQuestions(
        files_of(table, role_column(table, "image", image, _IMAGES)),
        tuple(table.texts(role_column(table, "question", question, _QUESTIONS))),
        tuple(table.texts(role_column(table, "answer", answer, _ANSWERS))),
        () if choices is None else _choices(table, choices),
    )


def _choices(table: Table, column: str) -> tuple[tuple[str, ...], ...]:
    if column in table.columns and all(isinstance(each, list) for each in table.columns[column]):
        return tuple(tuple(map(str, each)) for each in table.columns[column])
    return tuple(tuple(part.strip() for part in text.split(_BETWEEN)) for text in table.texts(column))
