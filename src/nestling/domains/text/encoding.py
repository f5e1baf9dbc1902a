"""Encoding that resumes after an interruption: finished vectors are on the disk, and the same call continues.

.NAME.encoding/vectors.f32     finished rows, one after the other
.NAME.encoding/progress.json   how many rows are finished, of which texts and by which encoder
.NAME.encoding/writer.lock     held by the process that encodes
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from nestling.arguments.paths import home_path
from nestling.encoders.texts import Encoder, check_texts
from nestling.errors import ArtifactError, ConfigError, DataError
from nestling.granularity import At
from nestling.process.blocks import batches
from nestling.process.interrupts import on_interrupt
from nestling.process.progress import Progress
from nestling.storage.artifact import reading_errors, storage_errors, write_file
from nestling.storage.durable import discard, flush_folder
from nestling.storage.lock import WriterLock
from nestling.storage.resumable import append_after
from nestling.storage.schema import SavedFields

_VECTORS, _PROGRESS = "vectors.f32", "progress.json"
_TEXTS_AT_A_TIME = 2048  # lost at most, when the process is killed
_BYTES_AT_A_TIME = 1 << 24


class _Progress(SavedFields):
    """The finished part.

    Args:
        encoder: sha256 of the weights, and of all else that the vectors depend on.
        dim: entries of a vector.
        rows: finished.
        texts: sha256 of the texts of these rows.
        vectors: sha256 of their bytes.
    """

    encoder: str
    dim: int
    rows: int
    texts: str
    vectors: str


@contextmanager
def encoded(
    encoder: Encoder,
    texts: Iterable[str],
    target: str | Path,
    at: At = None,
    *,
    batch_size: int = 64,
    wait: float = 0,
) -> Iterator[NDArray[np.float32]]:
    """The vectors ``Float32[texts, dim]`` of any number of texts, as a memory map.

    Texts are encoded some thousands at a time, and each part is on the disk before the next one begins. If
    the process ends, even by ``kill -9``, the same call resumes after the finished part. Later texts may have
    changed meanwhile. Memory does not grow with the number of texts.

    Args:
        encoder: of the texts.
        texts: read twice, so a list, or an object that reads them again each time, such as
            :class:`~nestling.data.texts.TextFile`.
        target: the file or folder that the caller makes of the vectors; finished parts are beside it, in
            ``.NAME.encoding``, until the caller's block ends without an error.
        at: the granularity.
        batch_size: texts that the encoder sees at a time.
        wait: seconds to wait for another process that encodes for the same target.

    Raises:
        DataError: for no texts, or texts that cannot be encoded (named).
        ConfigError: if the finished part is of other texts or by another encoder.
        ArtifactError: if the finished part was altered.
        StorageError: if writing fails, or another process encodes for the same target.
    """
    place = home_path(target).resolve()
    folder = place.with_name(f".{place.name}.encoding")
    texts = list(texts) if isinstance(texts, Iterator) else texts  # they are read twice
    count, dim = _count(texts), encoder.nesting.resolve(at)["dim"]
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        flush_folder(folder.parent)
    lock = WriterLock(folder, wait=wait, otherwise="or give another target")
    work = _Work(lock, folder, dim)
    try:
        with on_interrupt(lambda: work.kept_of(count)):
            left = iter(texts)
            work.resume(left, encoder.fingerprint())
            with Progress("encoding", count, "texts", done=work.rows) as progress:
                for part in batches(left, _TEXTS_AT_A_TIME):
                    with progress.part(len(part)):
                        rows = encoder.encode(part, at, batch_size=batch_size, first_row=work.rows)
                        work.append(part, rows)
            yield work.vectors()
    except BaseException:
        _leave(lock, folder, is_done=not _is_begun(folder))
        raise
    _leave(lock, folder, is_done=True)


def _is_begun(folder: Path) -> bool:
    try:
        return (folder / _PROGRESS).exists()
    except OSError:  # it cannot be looked at; what may be there is kept
        return True


def _leave(lock: WriterLock, folder: Path, *, is_done: bool) -> None:
    if not lock.is_here:  # a fork leaves the folder to the process that encodes
        return
    lock.release()
    if is_done:
        discard(folder)


class _Work:
    """The folder of finished vectors.

    Args:
        lock: of the folder, held by the caller.
        folder: of the files.
        dim: entries of a vector.

    Attributes:
        rows: finished.
    """

    def __init__(self, lock: WriterLock, folder: Path, dim: int) -> None:
        self._lock = lock
        self.folder, self.encoder, self.dim, self.rows = folder, "", dim, 0
        self._texts, self._vectors = hashlib.sha256(), hashlib.sha256()

    def resume(self, texts: Iterator[str], encoder: str) -> None:
        """Resume after the finished part, and skip its texts in ``texts``.

        Args:
            texts: all of them.
            encoder: the fingerprint of the encoder.

        Raises:
            ConfigError: if these are others, or it was made by another encoder.
            ArtifactError: if it was altered.
        """
        self.encoder = encoder
        with reading_errors(self.folder):
            if not (self.folder / _PROGRESS).exists():
                return
        finished = self._read_progress()
        for text in islice(texts, finished.rows):
            _add_text(self._texts, text)
        same_encoder = (finished.encoder, finished.dim) == (self.encoder, self.dim)
        if not same_encoder or finished.texts != self._texts.hexdigest():
            other = "other texts" if same_encoder else "another encoder or granularity"
            raise ConfigError(
                f"{self.folder} holds {finished.rows:,} vectors of {other}, from a call that was "
                "interrupted; run that call again to resume, or remove the folder to start over"
            )
        self._verify(finished)
        self.rows = finished.rows

    def append(self, texts: list[str], vectors: NDArray[np.float32]) -> None:
        """Put the vectors of the next texts on the disk; when this returns they are finished."""
        self._lock.check()
        path, data = self.folder / _VECTORS, np.ascontiguousarray(vectors, "<f4").view(np.uint8).data
        with storage_errors(path):
            append_after(path, self._size_bytes(self.rows), data)
            for text in texts:
                _add_text(self._texts, text)
            self._vectors.update(data)
            self.rows += len(texts)
            self._write_progress()

    def kept_of(self, count: int) -> str:
        """The part that an interrupted call leaves, in words."""
        if not self.rows:
            return "no text is encoded yet; run it again to start over"
        return (
            f"{self.rows:,} of {count:,} texts are encoded and kept in {self.folder}; run it again to resume"
        )

    def vectors(self) -> NDArray[np.float32]:
        """All that is finished, as a memory map."""
        path = self.folder / _VECTORS
        with reading_errors(path):
            return np.memmap(path, "<f4", "r", shape=(self.rows, self.dim))

    def _size_bytes(self, rows: int) -> int:
        return 4 * self.dim * rows

    def _read_progress(self) -> _Progress:
        path = self.folder / _PROGRESS
        try:
            return _Progress.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise ArtifactError(f"{path} cannot be read or was altered; {self._remedy}") from error

    def _write_progress(self) -> None:
        finished = _Progress(
            encoder=self.encoder,
            dim=self.dim,
            rows=self.rows,
            texts=self._texts.hexdigest(),
            vectors=self._vectors.hexdigest(),
        )
        write_file(self.folder / _PROGRESS, finished.model_dump_json(indent=1))
        flush_folder(self.folder)

    def _verify(self, finished: _Progress) -> None:
        path, left = self.folder / _VECTORS, self._size_bytes(finished.rows)
        try:
            with path.open("rb") as stream:
                while data := stream.read(min(left, _BYTES_AT_A_TIME)):
                    self._vectors.update(data)
                    left -= len(data)
        except OSError as error:
            raise ArtifactError(f"{path} cannot be read; {self._remedy}") from error
        if self._vectors.hexdigest() != finished.vectors:
            raise ArtifactError(f"{path} is truncated or was altered; {self._remedy}")

    @property
    def _remedy(self) -> str:
        return f"remove {self.folder} to encode again"


def _count(texts: Iterable[str]) -> int:
    """Number of texts; each is checked before the first is encoded."""
    count = 0
    with Progress("checking", len(texts) if isinstance(texts, Sized) else None, "texts") as progress:
        for part in batches(texts, _TEXTS_AT_A_TIME):
            check_texts(part, count)
            count += len(part)
            progress.update(len(part))
    if count == 0:
        raise DataError("there is no text to encode; give at least one")
    return count


def _add_text(digest: Any, text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    digest.update(len(data).to_bytes(8, "little"))
    digest.update(data)
