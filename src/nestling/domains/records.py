"""The texts of a collection by number, in one SQLite file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from nestling.errors import ArtifactError, StorageError

_LONGEST_TITLE = 80
_TABLE = "CREATE TABLE record (id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, text TEXT NOT NULL)"


@dataclass(frozen=True)
class Record:
    """One text of a collection, and what to call it in a list of answers."""

    title: str
    text: str

    @classmethod
    def untitled(cls, text: str) -> Record:
        """A text that is called by its beginning."""
        return cls(text[:_LONGEST_TITLE], text)


@dataclass(frozen=True)
class Untitled:
    """Records of texts that have no titles, made anew each time they are gone through."""

    texts: Iterable[str]

    def __iter__(self) -> Iterator[Record]:
        return map(Record.untitled, self.texts)


class RecordStore:
    """Records by number. A number is never given twice, so that an old answer names no new text.

    Each call opens the file anew, so any number of threads and processes may use it.

    Args:
        path: of the file; made by :meth:`create`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ArtifactError(f"{self.path} is missing: the collection was not finished; build it again")

    @classmethod
    def create(cls, path: str | Path) -> RecordStore:
        """Make an empty file."""
        target = Path(path)
        try:
            with closing(sqlite3.connect(target)) as connection, connection:
                connection.execute(_TABLE)
        except sqlite3.Error as error:
            raise StorageError(f"{target} could not be written: {error}") from error
        return cls(target)

    def add(self, records: Iterable[Record]) -> list[int]:
        """Keep records, all or none; their numbers."""
        try:
            with closing(self._connect()) as connection, connection:
                insert = "INSERT INTO record (title, text) VALUES (?, ?) RETURNING id"
                return [
                    connection.execute(insert, (record.title, record.text)).fetchone()[0]
                    for record in records
                ]
        except sqlite3.Error as error:
            raise StorageError(f"{self.path} could not be written: {error}. Nothing was added") from error

    def delete(self, ids: Sequence[int]) -> None:
        """Remove the records of these numbers; numbers without one are none."""
        try:
            with closing(self._connect()) as connection, connection:
                connection.executemany("DELETE FROM record WHERE id = ?", ((number,) for number in ids))
        except sqlite3.Error as error:
            raise StorageError(f"{self.path} could not be written: {error}. Nothing was deleted") from error

    def get(self, ids: Sequence[int]) -> list[Record]:
        """The records of these numbers, in that order.

        Raises:
            ArtifactError: if one is not there, or the file cannot be read.
        """
        wanted = "SELECT title, text FROM record WHERE id = ?"
        try:
            with closing(self._connect()) as connection:
                return [Record(*connection.execute(wanted, (number,)).fetchone()) for number in ids]
        except (sqlite3.Error, TypeError) as error:
            raise ArtifactError(f"{self.path} is damaged ({error!r}); build the collection again") from error

    def ids(self) -> list[int]:
        """All numbers, rising."""
        try:
            with closing(self._connect()) as connection:
                return [number for (number,) in connection.execute("SELECT id FROM record ORDER BY id")]
        except sqlite3.Error as error:
            raise ArtifactError(f"{self.path} is damaged ({error}); build the collection again") from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=30)
