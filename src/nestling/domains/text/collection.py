"""A searchable collection of texts: an encoder, and an index of vectors with the texts among its fields."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.formatting import type_of
from nestling.arguments.paths import home_path
from nestling.axes import CODE_BITS
from nestling.cut import check_vectors
from nestling.data.tables.description import TableFile
from nestling.data.tables.fields.columns import Columns, read_columns, write_columns
from nestling.data.tables.fields.kinds import Value
from nestling.domains.text.encoding import encoded
from nestling.domains.text.source import TEXT, TextSource
from nestling.encoders.reference import digest_of
from nestling.encoders.text.opening import open_encoder
from nestling.errors import ArtifactError, ConfigError, NestlingError
from nestling.granularity import At
from nestling.search.index.files.ids import Ids
from nestling.search.index.index import AdaptiveIndex
from nestling.search.index.spec import check_kept
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
from nestling.vectors.coding import size_and_bits
from nestling.vectors.stored import StoredVectors

if TYPE_CHECKING:
    from nestling.encoders.texts import Encoder

_KIND = "collection"
_ENCODER, _INDEX, _INCOMING = "encoder", "index", "incoming"
_BEFORE_FIELDS = "records.sqlite"


@dataclass(frozen=True)
class Hit:
    """One result of a query.

    Args:
        id: of the text.
        score: similarity to the query, the cosine by default.
        text: the text.
        fields: its other fields.
    """

    id: int | str
    score: float
    text: str
    fields: Mapping[str, Value]


class Collection:
    """Texts in a folder, searched by meaning. Texts can be added, updated and deleted.

    Made by :meth:`create` or :meth:`open`; ``with`` closes it.

    Args:
        encoder: encodes queries and texts.
        index: the vectors of the texts, with the texts among their fields.
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

        The same call resumes after an interruption; see :func:`~.encoding.encoded`.

        Args:
            folder: to write; it must not exist, be empty, or hold an unfinished collection.
            encoder: of texts and queries.
            texts: at least one, as a list or another iterable that can be read three times. A
                :class:`~nestling.data.tables.description.TableFile` has its own ids and fields.
            ids: different integers or strings; by default 0, 1, ...
            fields: of the texts, for filters and results: a mapping of names to columns, a data frame, or a
                list of mappings, one for each text.
            at: the granularity to keep, such as ``"dim=256,bits=2"`` for codes instead of floats; the index
                can still be searched at smaller ones. The code is that of the encoder, or calibrated on the
                vectors of the texts.
            plan: of the index; by default the fastest that reaches ``recall``, chosen by measuring.
            recall: fraction of the exact nearest neighbours that the index must find.
            max_bytes: the most bytes in memory for each text.
            max_ms: the longest median latency of a query, in milliseconds.
            queries: held-out queries to measure with, as texts or as vectors of the encoder; by default some
                of the texts, whose neighbours are often easier to find.
            k: neighbours to find for each query.
            seed: of samples and builds.
            overwrite: replace a finished collection.

        Raises:
            DataError: for no texts, texts that cannot be encoded (named), or ids and fields that do not fit.
            ConfigError: if an interrupted call had other texts or another encoder.
            ArtifactError: if ``folder`` holds anything else.
        """
        root = home_path(folder)
        check_target(root, overwrite=overwrite)
        targets: Any = {"recall": recall, "max_bytes": max_bytes, "max_ms": max_ms}
        check_targets(**targets)
        chosen = Plan.parse(plan) if isinstance(plan, str) else plan
        source = TextSource.of(texts, ids, fields, TEXT)
        granularity, bits = size_and_bits(encoder.nesting, at)
        check_kept(bits, chosen)
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
                at=f"bits={bits}" if bits in CODE_BITS else None,
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
        """Open a collection that :meth:`create` made, and verify its files.

        Args:
            folder: of the collection.
            read_only: open it for reading only, beside another process that writes.
            wait: seconds to wait for another writer to close it.

        Raises:
            ArtifactError: if the folder holds no finished collection, or a file is missing or altered.
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
        if not read_only:  # once rows can be added, an interrupted build counts as finished
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
        """Add texts; they are on disk when this returns.

        Returns:
            Their ids.

        Raises:
            DataError: for texts that cannot be encoded (named), ids that exist already, or fields that the
                collection does not have.
        """
        self.index.check_writable()  # first: in a fork the encoder may hang
        vectors, names, columns = self._read(texts, ids, fields)
        return self.index.add(vectors, names, columns)

    def update(self, texts: TableFile | Iterable[str] | None, ids: Any = None, *, fields: Any = None) -> Ids:
        """Replace texts by their ids, and add new ones; see :meth:`add`.

        Fields that are not given keep their values; with ``texts=None`` so do the texts.
        """
        self.index.check_writable()  # first: in a fork the encoder may hang
        if texts is None:
            return self.index.update(None, ids, fields)
        vectors, names, columns = self._read(texts, ids, fields)
        return self.index.update(vectors, names, columns)

    def delete(self, ids: Any, *, missing_ok: bool = False) -> int:
        """Delete texts by their ids.

        Returns:
            Number of texts deleted.

        Raises:
            DataError: for unknown ids (unless ``missing_ok``); then nothing is deleted.
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
        """The ``k`` nearest texts to a query, best first; fewer if fewer exist or are allowed.

        Args:
            query: the text to search for.
            k: number of results.
            at: a smaller granularity to search at.
            point: search parameters; see :class:`~nestling.search.plan.point.Point`.
            recall: use the fastest measured point that reaches this recall, instead of ``point``.
            filter: allowed ids, or flags; see :meth:`.AdaptiveIndex.search`.
            where: a condition on the fields; see :func:`~nestling.search.where.argument.read_where`.

        Raises:
            ConfigError: for a query that is empty or not a ``str``, or ``k`` outside its range.
            DataError: for a condition that does not fit the fields.
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
        """Let another writer open the collection; everything is on disk already."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hit(self, name: int | str, score: float, fields: dict[str, Value]) -> Hit:
        return Hit(name, score, str(fields.pop(self.text_column)), fields)

    def _read(self, texts: TableFile | Iterable[str], ids: Any, fields: Any) -> tuple[Any, Any, Columns]:
        """Vectors, ids and columns of new texts."""
        source = TextSource.of(texts, ids, fields, self.text_column)
        matrix = self.encoder.encode(list(source.texts))
        names = self.index.ids_like(source.ids) if isinstance(texts, TableFile) else source.ids
        return matrix, names, Columns.joined(list(source.fields()), source.kinds)


def _as_vectors(encoder: Encoder, queries: Sequence[str] | NDArray[Any] | None) -> NDArray[Any] | None:
    """Queries as vectors of the encoder; checked before the texts are encoded."""
    if isinstance(queries, np.ndarray) and queries.dtype.kind not in "OU":
        return check_vectors(queries, "queries", dim=encoder.nesting.full["dim"])
    return None if queries is None else encoder.encode(list(queries))


def check_target(folder: Path, *, overwrite: bool = False) -> None:
    """Refuse a folder for a new collection that holds anything but an unfinished collection.

    Args:
        folder: of the new collection.
        overwrite: also allow a finished collection, to replace it.

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
    """Whether an interrupted call left an index of this encoder's vectors, whose build can resume."""
    try:
        if not (root / _INCOMING).exists() or (root / _INDEX / MANIFEST).exists():
            return False
        verify_files(root, read_manifest(root).files)
        return open_encoder(root / _ENCODER).fingerprint() == encoder.fingerprint()
    except (OSError, NestlingError):  # a folder that cannot be used is written again
        return False


def _identity(root: Path) -> str:
    """Identity of the encoder, kept in the index so that vectors of another encoder are refused."""
    return digest_of(root / _ENCODER)
