"""A searchable collection of texts: an encoder, and an index of their vectors that keeps texts and fields."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.numbers import type_of
from nestling.arguments.paths import home_path
from nestling.cut import check_vectors
from nestling.data.tables.columns import Columns, read_columns, write_columns
from nestling.data.tables.description import TableFile
from nestling.data.tables.fields import Value
from nestling.domains.text.encoding import encoded
from nestling.domains.text.source import TEXT, TextSource
from nestling.encoders.reference import digest_of
from nestling.encoders.text.opening import open_encoder
from nestling.errors import ArtifactError, ConfigError, NestlingError
from nestling.granularity import At
from nestling.search.index.files.ids import Ids
from nestling.search.index.index import AdaptiveIndex
from nestling.search.plan.frontier import check_targets
from nestling.search.plan.plan import Plan, Point
from nestling.search.tuning.planner import build
from nestling.storage.artifact import (
    MANIFEST,
    check_folder_target,
    read_manifest,
    storage_errors,
    verify_files,
    write_folder,
)
from nestling.storage.kinds import check_kind
from nestling.vectors.stored import StoredVectors

if TYPE_CHECKING:
    from nestling.encoders.texts import Encoder

_KIND = "collection"
_ENCODER, _INDEX, _INCOMING = "encoder", "index", "incoming"
_BEFORE_FIELDS = "records.sqlite"


@dataclass(frozen=True)
class Hit:
    """One answer.

    Args:
        id: what the row is called.
        score: the cosine with the query by default.
        text: of the row.
        fields: the other columns of the row.
    """

    id: int | str
    score: float
    text: str
    fields: Mapping[str, Value]


class Collection:
    """Texts in a folder that are searched by what they mean, and may be added to, changed and deleted.

    Made by :meth:`create` or :meth:`open`; ``with`` closes it.

    Args:
        encoder: encodes the queries; the same that encoded the texts.
        index: of the texts' vectors, with the texts among its fields.
    """

    def __init__(self, encoder: Encoder, index: AdaptiveIndex) -> None:
        self.encoder, self.index = encoder, index

    @classmethod
    def create(
        cls,
        folder: str | Path,
        encoder: Encoder,
        texts: TableFile | Iterable[str],
        ids: Any = None,
        *,
        fields: Any = None,
        at: At = None,
        plan: Plan | str | None = None,
        recall: float = 0.95,
        max_bytes: float | None = None,
        max_ms: float | None = None,
        queries: Sequence[str] | NDArray[Any] | None = None,
        k: int = 10,
        seed: int = 0,
        overwrite: bool = False,
    ) -> Self:
        """Encode the texts and build an index of their vectors in ``folder``.

        An interrupted call goes on where it was when it is repeated; see :func:`~.encoding.encoded`.

        Args:
            folder: where to; it must not exist, be empty, or hold a collection that was not finished.
            encoder: of texts and queries.
            texts: at least one; gone through three times, so a list, or what makes them anew. A
                :class:`~nestling.data.tables.description.TableFile` brings its ids and fields.
            ids: of the texts: different numbers or strings; counted from 0 by default.
            fields: of the texts, to be filtered by and answered with: a mapping of names to columns, a data
                frame, or a list of one mapping a text.
            at: the granularity that is kept; the index may still be searched at less.
            plan: of the index; by default the fastest that reaches ``recall``, found by measuring.
            recall: share of the exact nearest that the index is to find.
            max_bytes: the most bytes in memory for each text.
            max_ms: the longest median latency of a query.
            queries: to measure that with: texts such as people ask, or vectors of them by the encoder; some
                of the texts themselves by default, which are often easier to find the neighbours of.
            k: neighbours to find for each.
            seed: of what is drawn while planning and building.
            overwrite: replace a finished collection.

        Raises:
            DataError: for no texts, texts that cannot be encoded (named), or ids and fields that do not fit.
            ConfigError: if an interrupted call was about other texts or another encoder.
            ArtifactError: if ``folder`` holds anything else.
        """
        root = home_path(folder)
        check_target(root, overwrite=overwrite)
        targets: Any = {"recall": recall, "max_bytes": max_bytes, "max_ms": max_ms}
        check_targets(**targets)
        chosen = Plan.parse(plan) if isinstance(plan, str) else plan
        source = TextSource.of(texts, ids, fields, TEXT)
        granularity = encoder.nesting.resolve(at)
        small = encoder if granularity == encoder.nesting.full else encoder.extract(granularity)
        asked = _as_vectors(small, queries)
        with encoded(small, source.texts, root) as matrix:
            if not _is_begun(root, small):
                with write_folder(root, _KIND, nesting=small.nesting, rule=small.rule) as path:
                    small.save(path / _ENCODER)
            with storage_errors(root):
                shutil.rmtree(root / _INCOMING, ignore_errors=True)
                write_columns(root / _INCOMING, source.fields(), source.kinds)
            vectors = StoredVectors(
                matrix,
                small.nesting,
                small.rule.again,
                ids=source.ids,
                fields=read_columns(root / _INCOMING, source.kinds, len(matrix)),
                columns=source.columns,
            )
            index = build(
                root / _INDEX,
                vectors,
                plan=chosen,
                queries=asked,
                k=k,
                **targets,
                encoder=_identity(root),
                seed=seed,
            )
            shutil.rmtree(root / _INCOMING, ignore_errors=True)
        return cls(small, index)

    @classmethod
    def open(cls, folder: str | Path, *, read_only: bool = False, wait: float = 0) -> Self:
        """Read what :meth:`create` made, every file verified.

        Args:
            folder: of the collection.
            read_only: leave the right to write to others.
            wait: seconds to wait for another writer to close it.

        Raises:
            ArtifactError: if the folder is none, not finished, or anything in it is missing or altered.
            StorageError: if another writer has it open.
        """
        root = home_path(folder)
        manifest = read_manifest(root)
        check_kind(root, manifest.kind, _KIND)
        if (root / _BEFORE_FIELDS).exists():
            raise ArtifactError(
                f"{root} was made by an older nestling, which kept texts in {_BEFORE_FIELDS}; build it again "
                "with: nestling index build FILE --encoder NAME -o FOLDER"
            )
        verify_files(root, manifest.files)
        if not (root / _INDEX).is_dir():
            raise ArtifactError(f"{root} was not finished: it has no index; build the collection again")
        encoder = open_encoder(root / _ENCODER)
        index = AdaptiveIndex.open(root / _INDEX, encoder=_identity(root), read_only=read_only, wait=wait)
        if not read_only:  # rows may come from now on, so that an interrupted build counts as finished
            shutil.rmtree(root / _INCOMING, ignore_errors=True)
        return cls(encoder, index)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        return f"Collection({self.index!r})"

    @property
    def text_column(self) -> str:
        """The field that holds the texts."""
        return self.index.columns.get("text", TEXT)

    def add(self, texts: TableFile | Iterable[str], ids: Any = None, *, fields: Any = None) -> Ids:
        """Add texts; when this returns they are on the disk. Their ids.

        Raises:
            DataError: for texts that cannot be encoded (named), ids that are taken, or fields that the first
                texts did not have.
        """
        self.index.check_writable()  # first: in a fork the encoder itself may wait for ever
        vectors, names, columns = self._read(texts, ids, fields)
        return self.index.add(vectors, names, columns)

    def update(self, texts: TableFile | Iterable[str] | None, ids: Any = None, *, fields: Any = None) -> Ids:
        """Put texts in the place of those of the same ids, and add those that are new; see :meth:`add`.

        Fields that are not given are kept, and with ``texts=None`` the texts too.
        """
        self.index.check_writable()  # first: in a fork the encoder itself may wait for ever
        if texts is None:
            return self.index.update(None, ids, fields)
        vectors, names, columns = self._read(texts, ids, fields)
        return self.index.update(vectors, names, columns)

    def delete(self, ids: Any, *, missing_ok: bool = False) -> int:
        """Delete texts by their ids; how many there were.

        Raises:
            DataError: for ids of no text (unless ``missing_ok``); nothing was then deleted.
        """
        return self.index.delete(ids, missing_ok=missing_ok)

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        at: At = None,
        point: Point | str | None = None,
        recall: float | None = None,
        filter: Any = None,  # noqa: A002 - the word of the field
        where: Any = None,
    ) -> list[Hit]:
        """The ``k`` texts nearest to a query, best first; fewer where fewer exist or are allowed.

        Args:
            query: words to search for.
            k: how many.
            at: a smaller granularity to search at.
            point: parameters of the search; see :class:`~nestling.search.plan.point.Point`.
            recall: take the fastest point that was measured to find this share, in place of ``point``.
            filter: ids that may be found, or flags; see :meth:`.AdaptiveIndex.search`.
            where: a condition on the fields; see :func:`~nestling.search.where.argument.read_where`.

        Raises:
            ConfigError: for an empty query, or one that is no text.
            DataError: for ``k`` below 1, or a condition that does not fit the fields.
        """
        if not isinstance(query, str):
            raise ConfigError(f"the query must be one text, not {type_of(query)}; give a str")
        if not query.strip():
            raise ConfigError("the query is empty; give some words to search for")
        found = self.index.search(
            self.encoder.encode([query]), k, at=at, point=point, recall=recall, filter=filter, where=where
        )
        rows = zip(found.ids[0].tolist(), found.scores[0].tolist(), found.fields[0], strict=True)
        return [self._hit(name, score, fields) for name, score, fields in rows if fields]

    def close(self) -> None:
        """Let another writer open the collection; everything is on the disk already."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hit(self, name: int | str, score: float, fields: dict[str, Value]) -> Hit:
        return Hit(name, score, str(fields.pop(self.text_column)), fields)

    def _read(self, texts: TableFile | Iterable[str], ids: Any, fields: Any) -> tuple[Any, Any, Columns]:
        """Vectors, ids and columns of texts that come to those that are there."""
        source = TextSource.of(texts, ids, fields, self.text_column)
        matrix = self.encoder.encode(list(source.texts))
        names = self.index.ids_like(source.ids) if isinstance(texts, TableFile) else source.ids
        return matrix, names, Columns.joined(list(source.fields()), source.kinds)


def _as_vectors(encoder: Encoder, queries: Sequence[str] | NDArray[Any] | None) -> NDArray[Any] | None:
    """Queries as vectors of the encoder, before its texts are encoded; they are refused where they cannot."""
    if isinstance(queries, np.ndarray) and queries.dtype.kind not in "OU":
        return check_vectors(queries, "queries", dim=encoder.nesting.full["dim"])
    return None if queries is None else encoder.encode(list(queries))


def check_target(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a place for a collection where anything lies but a collection that was not finished.

    Args:
        folder: of the collection that is to be.
        overwrite: allow a finished one, to be replaced.

    Raises:
        ArtifactError: if ``folder`` holds anything else.
        StorageError: if nothing can be written there.
    """
    check_folder_target(folder, _KIND)
    with storage_errors(folder):
        is_finished = (folder / _INDEX / MANIFEST).is_file() and not (folder / _INCOMING).exists()
    if is_finished and not overwrite:
        raise ArtifactError(
            f"{folder} holds a finished collection, which is not replaced; "
            "pass overwrite=True to replace it, or choose another folder"
        )


def _is_begun(root: Path, encoder: Encoder) -> bool:
    """Whether an interrupted call left an index of this encoder's vectors, whose build can go on."""
    try:
        if not (root / _INCOMING).exists() or (root / _INDEX / MANIFEST).exists():
            return False
        verify_files(root, read_manifest(root).files)
        return open_encoder(root / _ENCODER).fingerprint() == encoder.fingerprint()
    except (OSError, NestlingError):  # what cannot be used is written anew
        return False


def _identity(root: Path) -> str:
    """What names the encoder in the index, so that vectors of another one are never compared with it."""
    return digest_of(root / _ENCODER)
