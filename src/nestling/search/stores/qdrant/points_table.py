"""Code that both clients of Qdrant share: conditions of a search, and reading points page by page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from nestling.search.stores.adapter import Request, Rows, known
from nestling.search.stores.layout import Layout
from nestling.search.stores.qdrant.points import name_of, rows_of, vector_name
from nestling.search.stores.qdrant.where import Where, Words, called, index_paths

Page = tuple[list[Any], Any]
"""Points, and the offset of the next page; None after the last."""


class PointsTable(ABC):
    """A table whose rows are points of Qdrant.

    Args:
        words: conditions as the client writes them.
        where: the table for messages.
    """

    def __init__(self, words: Words, where: str) -> None:
        self._words, self.where, self.precisions = words, where, (1, 16, 32)
        self._layout: Layout | None = None

    def present(self, ids: list[str]) -> set[str]:
        """Whether each of these ids exists."""
        return {name for page in self._pages(len(ids), ids) for name in map(name_of, page)} if ids else set()

    @abstractmethod
    def count(self) -> int:
        """Number of rows."""

    def fits(self, most: int) -> bool:
        """Whether there are at most so many rows; Qdrant counts from what it holds in memory."""
        return self.count() <= most

    def scan(self, size: int, ids: list[str] | None = None) -> Iterator[Rows]:
        """All points, or those of these ids, in the order of their UUIDs."""
        layout = self._known
        for page in self._pages(size, ids, vectors=[vector_name(layout.dim)], payload=True):
            yield rows_of(page, layout, self.where)

    @property
    def _known(self) -> Layout:
        return known(self._layout, self.where)

    def names(self, size: int) -> Iterator[list[str]]:
        """The ids of all points, in the order of their UUIDs."""
        for page in self._pages(size):
            yield list(map(name_of, page))

    def _pages(
        self, size: int, ids: list[str] | None = None, *, vectors: Any = False, payload: Any = ("id",)
    ) -> Iterator[list[Any]]:
        offset: Any = None
        while True:
            with self._errors():
                page, offset = self._scroll(size, ids, offset, vectors, payload)
            if page:
                yield page
            if offset is None:
                return

    def _filter(self, request: Request) -> Any:
        """The condition of a search; None allows all rows."""
        must = [Where(self._words, self._texts).filter(request.where)] if request.where is not None else []
        must += [called(self._words, request.ids)] if request.ids is not None else []
        return self._words.every(must) if must else None

    def _index_fields(self) -> None:
        for path, kind in index_paths(self._layout).items():
            self._index(path, kind)

    @abstractmethod
    def _scroll(self, size: int, ids: list[str] | None, offset: Any, vectors: Any, payload: Any) -> Page:
        """One page of points, from an offset on."""

    @abstractmethod
    def _texts(self, path: str) -> list[str]:
        """All different texts of a field, from the index that gives them."""

    @abstractmethod
    def _index(self, path: str, kind: str) -> None:
        """Index a field, once."""

    @abstractmethod
    def _errors(self) -> AbstractContextManager[None]:
        """Turns errors of the client into ours."""
