"""A searchable collection of texts: an encoder, its vectors at one granularity, and the texts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nestling.artifact import read_folder, write_folder
from nestling.encoders.stored import StoredVectors
from nestling.encoders.text import TextEncoder
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity
from nestling.search.exact import nearest

_RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Record:
    """One text of a collection, and what to call it in a list of answers."""

    title: str
    text: str


@dataclass(frozen=True)
class Hit:
    """One answer: the record, its row and its cosine with the query."""

    row: int
    score: float
    record: Record


@dataclass(frozen=True)
class Collection:
    """Texts that can be searched, exactly, at the granularity that was chosen for them.

    Args:
        encoder: encodes the queries; the same that encoded the texts.
        vectors: one row a record, at the full granularity of what is stored.
        records: the texts.
    """

    encoder: TextEncoder
    vectors: StoredVectors
    records: Sequence[Record]

    def __post_init__(self) -> None:
        if len(self.vectors.values) != len(self.records):
            raise DataError(
                f"{len(self.vectors.values)} vectors do not belong to {len(self.records)} records; "
                "build the collection again"
            )

    @classmethod
    def build(cls, encoder: TextEncoder, records: Sequence[Record], *, at: At = None) -> Self:
        """Encode the records and keep their vectors at ``at`` alone."""
        granularity = encoder.nesting.resolve(at)
        small = encoder if granularity == encoder.nesting.full else encoder.extract(granularity)
        matrix = small.encode([record.text for record in records])
        return cls(small, StoredVectors(matrix, small.nesting, small.rule.again), tuple(records))

    @property
    def granularity(self) -> Granularity:
        """The finest granularity that the collection can be searched at."""
        granularity: Granularity = self.vectors.nesting.full
        return granularity

    def search(self, query: str, *, k: int = 10, at: At = None) -> list[Hit]:
        """The ``k`` records nearest to a query, best first (fewer where the collection is smaller).

        Raises:
            ConfigError: for an empty query or ``k`` below 1.
        """
        if not query.strip():
            raise ConfigError("the query is empty; give some words to search for")
        if k < 1:
            raise ConfigError(f"k={k} answers cannot be given; ask for at least 1")
        granularity = self.vectors.nesting.resolve(at)
        asked = self.encoder.encode([query])
        found = nearest(
            asked,
            self.vectors.values,
            min(k, len(self.records)),
            dim=granularity["dim"],
            rule=self.vectors.rule,
        )
        answers = zip(found.indices[0].tolist(), found.scores[0].tolist(), strict=True)
        return [Hit(row, score, self.records[row]) for row, score in answers]

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder: the encoder, the vectors and the records."""
        with write_folder(folder, "collection", nesting=self.vectors.nesting, rule=self.vectors.rule) as path:
            self.encoder.save(path / "encoder")
            self.vectors.save(path / "vectors")
            lines = (json.dumps([record.title, record.text], ensure_ascii=False) for record in self.records)
            (path / _RECORDS).write_text("\n".join(lines) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what ``save`` wrote; the vectors stay on disk as a memory map."""
        read_folder(folder, "collection")
        root = Path(folder)
        with (root / _RECORDS).open(encoding="utf-8") as lines:
            records = tuple(Record(*json.loads(line)) for line in lines)
        return cls(TextEncoder.load(root / "encoder"), StoredVectors.load(root / "vectors"), records)
