"""The write-ahead log of an index: an update is acknowledged once its record is on the disk.

A log has two files. ``log-<generation>`` holds a header and records, each with its length, a checksum and a
sequence number. ``mark-<generation>`` holds the commit offset, the number of acknowledged bytes. It is
written after the record was flushed, and is not flushed itself, so it may lag behind the log but is never
ahead of it. A bad record before the commit offset is corruption (an error); after it, a torn write (dropped).
"""

from __future__ import annotations

import json
import os
import struct
import uuid
import weakref
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from nestling.data.tables.fields.columns import Columns, Kinds
from nestling.errors import ArtifactError, StorageError
from nestling.search.index.files.ids import Ids, kind_of
from nestling.search.index.files.row_format import Held, RowFormat
from nestling.storage.artifact import reason_of, storage_errors
from nestling.storage.durable import write_all, write_new

Kind: TypeAlias = Literal["put", "delete"]

_CODES: dict[Kind, int] = {"put": 1, "delete": 2}
_KINDS: dict[int, Kind] = {code: kind for kind, code in _CODES.items()}
_MAGIC = b"nestling log 1\n\0"
_CHECK = struct.Struct("<I")
_HEADER = struct.Struct("<16s16sQ")  # magic, index, generation
_OFFSET = struct.Struct("<16sQQ")  # index, generation, bytes acknowledged
_RECORD = struct.Struct("<QBBII")  # number, kind, whether ids are strings, rows, bytes of the ids
_FRAME = struct.Struct("<II")  # bytes of record and content, and their checksum
_RESTORE = "restore a backup of the folder, and repeat the changes made since"
HEADER_BYTES = _HEADER.size + _CHECK.size


@dataclass(frozen=True)
class Record:
    """One update: rows that are added or replace those of the same ids, or ids that are deleted.

    Args:
        kind: ``put`` or ``delete``.
        ids: of the rows.
        vectors: of the rows, as the index holds them; of no rows where ids are deleted.
        fields: of the rows; of none where ids are deleted.
    """

    kind: Kind
    ids: Ids
    vectors: Held
    fields: Columns

    def encode(self, number: int) -> bytes:
        """The bytes of the record with this number in its log."""
        is_text = kind_of(self.ids) == "str"
        names = "\0".join(self.ids.tolist()).encode() if is_text else self.ids.astype("<i8").tobytes()
        head = _RECORD.pack(number, _CODES[self.kind], is_text, len(self.ids), len(names))
        columns = {name: column.tolist() for name, column in self.fields.by_name.items()}
        fields = json.dumps(columns, ensure_ascii=False).encode() if columns else b""
        body = b"".join((head, names, _little(self.vectors).tobytes(), fields))
        return _FRAME.pack(len(body), zlib.crc32(body)) + body


@dataclass(frozen=True)
class LogFiles:
    """The two files of a log; both name the index and the manifest they belong to."""

    folder: Path
    index: uuid.UUID
    generation: int

    @property
    def path(self) -> Path:
        """The file of the records."""
        return self.folder / f"log-{self.generation:08d}"

    @property
    def offset_path(self) -> Path:
        """The file of the commit offset."""
        return self.folder / f"mark-{self.generation:08d}"

    def header(self) -> bytes:
        """The header of the file of the records."""
        return _checked(_HEADER.pack(_MAGIC, self.index.bytes, self.generation))

    def offset_record(self, length: int) -> bytes:
        """The content of the file of the commit offset after ``length`` acknowledged bytes."""
        return _checked(_OFFSET.pack(self.index.bytes, self.generation, length))


@dataclass(frozen=True)
class LogContent:
    """The content of a log.

    Args:
        records: in the order in which they were written.
        length: bytes up to the end of the last whole record.
        torn_bytes: after that, of a torn write that was never acknowledged.
    """

    records: tuple[Record, ...]
    length: int
    torn_bytes: int


def create_log(name: LogFiles) -> None:
    """Write an empty log and flush it; the caller flushes the folder."""
    write_new(name.path, [name.header()])
    write_new(name.offset_path, [name.offset_record(HEADER_BYTES)])


def read_log(name: LogFiles, held: RowFormat, kinds: Kinds) -> LogContent:
    """Read every whole record, of rows that are held so and have these fields.

    Raises:
        ArtifactError: if the log is missing, of another index or generation, or damaged where it was
            acknowledged.
    """
    acknowledged = _read_commit_offset(name)  # first: a writer at work only makes the log longer
    data = _read(name.path)
    header = name.header()
    if data[: len(header)] != header:
        raise ArtifactError(
            f"{name.path} is not the log of this index and generation, or its header is damaged; {_RESTORE}"
        )
    records: list[Record] = []
    position = len(header)
    while (body := _whole_record(data, position)) is not None:
        record = _decode(body, len(records), held, kinds)
        if record is None:
            break
        records.append(record)
        position += _FRAME.size + len(body)
    if position < acknowledged:
        raise ArtifactError(
            f"{name.path} is damaged at byte {position}: {acknowledged} bytes were acknowledged, and only "
            f"the first {position} can be read ({len(records)} updates); {_RESTORE}"
        )
    return LogContent(tuple(records), position, len(data) - position)


def _checked(data: bytes) -> bytes:
    return data + _CHECK.pack(zlib.crc32(data))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{path} is missing or cannot be read ({error.strerror}); {_RESTORE}") from error


def _read_commit_offset(name: LogFiles) -> int:
    data = _read(name.offset_path)
    length: int = _OFFSET.unpack_from(data)[2] if len(data) == _OFFSET.size + _CHECK.size else -1
    if length < HEADER_BYTES or data != name.offset_record(length):
        raise ArtifactError(f"{name.offset_path} is damaged or not of this index and generation; {_RESTORE}")
    return length


def _whole_record(data: bytes, position: int) -> bytes | None:
    """The record that begins at ``position``, if all of it is there and its checksum is right."""
    if position + _FRAME.size > len(data):
        return None
    length, checksum = _FRAME.unpack_from(data, position)
    body = data[position + _FRAME.size : position + _FRAME.size + length]
    return body if len(body) == length >= _RECORD.size and zlib.crc32(body) == checksum else None


def _decode(body: bytes, number: int, held: RowFormat, kinds: Kinds) -> Record | None:
    """The record; None where its parts do not fit each other, or its sequence number is wrong."""
    found, code, is_text, rows, id_bytes = _RECORD.unpack_from(body)
    kind = _KINDS.get(code)
    end = _RECORD.size + id_bytes
    vector_bytes = rows * held.row_bytes if kind == "put" else 0
    if found != number or kind is None or len(body) < end + vector_bytes:
        return None
    names = body[_RECORD.size : end]
    try:
        ids = np.array(names.decode().split("\0"), np.str_) if is_text else np.frombuffer(names, "<i8")
        rest = body[end + vector_bytes :]
        fields = Columns.read(json.loads(rest) if rest else None, rows if kind == "put" else 0, kinds)
        fields = fields.with_kinds(kinds) if kind == "put" else fields
    except ValueError:  # of json, or a DataError
        return None
    if len(ids) != rows:
        return None
    vectors = np.frombuffer(body[end : end + vector_bytes], held.dtype.newbyteorder("<"))
    rows_held = vectors.reshape(-1, held.width).astype(held.dtype)
    return Record(kind, ids if is_text else ids.astype(np.int64), rows_held, fields)


def _little(rows: Held) -> Held:
    """Rows with their bytes in the order of the log, on any machine."""
    return np.ascontiguousarray(rows, rows.dtype.newbyteorder("<"))


class LogWriter:
    """Appends to a log, and rolls back a write that fails.

    Args:
        name: of the log, whose files exist.
        content: as it was read; a torn record at its end is cut off.
    """

    def __init__(self, name: LogFiles, content: LogContent) -> None:
        self.name, self.length, self._number = name, content.length, len(content.records)
        binary = getattr(os, "O_BINARY", 0)
        with storage_errors(name.path):
            self._log = os.open(name.path, os.O_WRONLY | binary)
            self._offset = os.open(name.offset_path, os.O_WRONLY | binary)
            # Not os.close by number at the end of the process alone: the numbers are used again.
            self.close = weakref.finalize(self, _close, (self._log, self._offset))
            if content.torn_bytes:
                os.ftruncate(self._log, self.length)
            # A whole record may lie behind the commit offset; from here on it is acknowledged.
            os.fsync(self._log)
            self._write_commit_offset(self.length)

    def append(self, record: Record) -> None:
        """Write one record; when this returns, it survives anything that leaves the disk whole.

        Raises:
            StorageError: if it could not be written; the log is then as before, or the error says that it
                may not be. After any other exception the log is read again, as it may hold the record.
        """
        data = record.encode(self._number)
        end = self.length + len(data)
        with storage_errors(self.name.path):
            try:
                os.lseek(self._log, self.length, os.SEEK_SET)
                write_all(self._log, data)
                os.fsync(self._log)
                self._write_commit_offset(end)
            except BaseException as error:
                self._restore(error)
                raise
        self.length, self._number = end, self._number + 1

    def _write_commit_offset(self, length: int) -> None:
        os.lseek(self._offset, 0, os.SEEK_SET)
        write_all(self._offset, self.name.offset_record(length))

    def _restore(self, cause: BaseException) -> None:
        try:
            os.ftruncate(self._log, self.length)
            os.fsync(self._log)
            self._write_commit_offset(self.length)
        except OSError as error:
            raise StorageError(
                f"{self.name.path} could not be written ({reason_of(error)}), nor be put back as it was: "
                "look whether the change is in the index before you make it again"
            ) from cause


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
