"""Durable writes: files and folders are flushed to the disk, and files are written with their checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from nestling.storage.artifact import FileRecord, sha256_of

_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)


def write_all(descriptor: int, data: Any) -> None:
    """Write every byte; the operating system may take only some of them at a time."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[os.write(descriptor, rest) :]


def write_new(path: Path, chunks: Iterable[Any]) -> FileRecord:
    """Write a file whole and flush it to the disk; nothing is read again for its checksum."""
    return write_new_together([path], ([chunk] for chunk in chunks))[0]


def write_new_together(paths: Sequence[Path], chunks: Iterable[Sequence[Any]]) -> list[FileRecord]:
    """As :func:`write_new`, several files at once, of which each chunk has a part for each."""
    digests, sizes = [hashlib.sha256() for _ in paths], [0] * len(paths)
    with ExitStack() as opened:
        descriptors = []
        for path in paths:
            descriptors.append(os.open(path, _NEW, 0o644))
            opened.callback(os.close, descriptors[-1])
        for parts in chunks:
            for place, part in enumerate(parts):
                write_all(descriptors[place], part)
                digests[place].update(part)
                sizes[place] += memoryview(part).nbytes
        for descriptor in descriptors:
            os.fsync(descriptor)
    return [
        FileRecord(size_bytes=size, sha256=digest.hexdigest())
        for size, digest in zip(sizes, digests, strict=True)
    ]


def flush_tree(folder: Path) -> dict[str, FileRecord]:
    """Flush what others wrote into ``folder``; size and checksum of each file by its relative name."""
    records = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            flush_folder(path)
            continue
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        name = path.relative_to(folder).as_posix()
        records[name] = FileRecord(size_bytes=path.stat().st_size, sha256=sha256_of(path))
    flush_folder(folder)
    return records


def flush_folder(folder: Path) -> None:
    """Flush the names in a folder, without which a new file may be gone after a power cut."""
    if os.name == "nt":  # it has no such call, and writes names through
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def discard(path: Path) -> None:
    """Remove a file or folder that is no longer in use.

    A file that cannot be removed now, such as one that a reader on Windows has open, does no harm. The next
    writer that opens the index removes it.
    """
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
