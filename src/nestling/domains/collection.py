"""A searchable collection of texts: an encoder, an adaptive index of its vectors, and the texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nestling.artifact import MANIFEST, read_manifest, sha256_of, verify_files, write_folder
from nestling.domains.encoding import encoded
from nestling.domains.records import Record, RecordStore
from nestling.encoders.opening import open_encoder
from nestling.encoders.stored import StoredVectors
from nestling.encoders.texts import Encoder
from nestling.errors import ArtifactError, ConfigError
from nestling.granularity import At
from nestling.search.index import AdaptiveIndex
from nestling.search.plan import Plan, Point
from nestling.search.tune import build

_KIND = "collection"
_ENCODER, _INDEX, _RECORDS = "encoder", "index", "records.sqlite"


@dataclass(frozen=True)
class Hit:
    """One answer: the record, its number and its score, the cosine with the query by default."""

    id: int
    score: float
    record: Record


class Collection:
    """Texts in a folder that are searched by what they mean, and may be added to and deleted from.

    Made by :meth:`create` or :meth:`open`; ``with`` closes it.

    Args:
        encoder: encodes the queries; the same that encoded the texts.
        index: of the texts' vectors; its ids are the numbers of the records.
        records: the texts.
    """

    def __init__(self, encoder: Encoder, index: AdaptiveIndex, records: RecordStore) -> None:
        self.encoder, self.index, self.records = encoder, index, records

    @classmethod
    def create(
        cls,
        folder: str | Path,
        encoder: Encoder,
        records: Iterable[Record],
        *,
        at: At = None,
        plan: Plan | str | None = None,
        recall: float = 0.95,
        queries: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Self:
        """Encode the records and build an index of their vectors in ``folder``; what was there goes.

        An interrupted call goes on where it was when it is repeated; see :func:`~.encoding.encoded`.

        Args:
            folder: where to; a collection that is there already is replaced.
            encoder: of texts and queries.
            records: at least one; gone through three times, so a list, or what makes them anew.
            at: the granularity that is kept; the index may still be searched at less.
            plan: of the index; by default the fastest that reaches ``recall``, found by measuring.
            recall: share of the exact nearest that the index is to find.
            queries: to measure that with, such as people ask; some of the texts by default, which are often
                easier to find the neighbours of.
            seed: of what is drawn while planning and building.

        Raises:
            DataError: for no records, or texts that cannot be encoded (named).
            ConfigError: if an interrupted call was about other texts or another encoder.
        """
        given = list(records) if isinstance(records, Iterator) else records
        granularity = encoder.nesting.resolve(at)
        small = encoder if granularity == encoder.nesting.full else encoder.extract(granularity)
        root = Path(folder)
        with encoded(small, _Texts(given), root) as matrix:
            with write_folder(root, _KIND, nesting=small.nesting, rule=small.rule) as path:
                small.save(path / _ENCODER)
            store = RecordStore.create(root / _RECORDS)
            ids = store.add(given)
            index = build(
                root / _INDEX,
                StoredVectors(matrix, small.nesting, small.rule.again),
                ids,
                plan=plan,
                recall=recall,
                queries=None if queries is None else small.encode(list(queries)),
                encoder=_identity(root),
                seed=seed,
            )
        return cls(small, index, store)

    @classmethod
    def open(cls, folder: str | Path, *, read_only: bool = False, wait: float = 0) -> Self:
        """Read what :meth:`create` made, every file verified but the texts.

        Args:
            folder: of the collection.
            read_only: leave the right to write to others.
            wait: seconds to wait for another writer to close it.

        Raises:
            ArtifactError: if the folder is none, not finished, or anything in it is missing or altered.
        """
        root = Path(folder)
        manifest = read_manifest(root)
        if manifest.kind != _KIND:
            raise ArtifactError(f"{root} holds a {manifest.kind}, but a {_KIND} is needed")
        verify_files(root, manifest.files)
        if not (root / _INDEX).is_dir():
            raise ArtifactError(f"{root} was not finished: it has no index; build the collection again")
        encoder, records = open_encoder(root / _ENCODER), RecordStore(root / _RECORDS)
        index = AdaptiveIndex.open(root / _INDEX, encoder=_identity(root), read_only=read_only, wait=wait)
        if not read_only:
            # Records without a vector: the process was stopped between the two.
            records.delete(sorted(set(records.ids()) - set(index.ids().tolist())))
        return cls(encoder, index, records)

    def __len__(self) -> int:
        return len(self.index)

    def add(self, records: Sequence[Record]) -> list[int]:
        """Add texts; when this returns they are on the disk. Their numbers."""
        self.index.check_writable()  # first: the encoder itself may wait for ever in a fork
        matrix = self.encoder.encode([record.text for record in records])
        ids = self.records.add(records)
        try:
            self.index.add(matrix, ids)
        except BaseException:
            self.records.delete(ids)
            raise
        return ids

    def delete(self, ids: Sequence[int], *, missing_ok: bool = False) -> int:
        """Delete texts by their numbers; how many there were.

        Raises:
            DataError: for numbers of no text (unless ``missing_ok``); nothing was then deleted.
        """
        count = self.index.delete(ids, missing_ok=missing_ok)
        self.records.delete(ids)
        return count

    def search(
        self,
        query: str,
        *,
        k: int = 10,
        at: At = None,
        point: Point | str | None = None,
        recall: float | None = None,
    ) -> list[Hit]:
        """The ``k`` texts nearest to a query, best first (fewer where the collection is smaller).

        Args:
            query: words to search for.
            k: how many.
            at: a smaller granularity to search at.
            point: parameters of the search; see :class:`~nestling.search.plan.Point`.
            recall: take the fastest point that was measured to find this share, in place of ``point``.

        Raises:
            ConfigError: for an empty query or ``k`` below 1.
        """
        if not query.strip():
            raise ConfigError("the query is empty; give some words to search for")
        if k < 1:
            raise ConfigError(f"k={k} answers cannot be given; ask for at least 1")
        found = self.index.search(self.encoder.encode([query]), k, at=at, point=point, recall=recall)
        pairs = [(int(i), float(s)) for i, s in zip(found.ids[0], found.scores[0], strict=True) if i >= 0]
        texts = self.records.get([number for number, _ in pairs])
        return [Hit(number, score, record) for (number, score), record in zip(pairs, texts, strict=True)]

    def close(self) -> None:
        """Let another writer open the collection; everything is on the disk already."""
        self.index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class _Texts:
    """The texts of records, anew each time."""

    records: Iterable[Record]

    def __iter__(self) -> Iterator[str]:
        return (record.text for record in self.records)


def _identity(root: Path) -> str:
    """What names the encoder in the index, so that vectors of another one are never compared with it."""
    return f"sha256:{sha256_of(root / _ENCODER / MANIFEST)}"
