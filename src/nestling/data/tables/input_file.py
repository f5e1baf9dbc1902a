"""Input bytes of a table (a file, a compressed file, a pipe) and their text encoding."""

from __future__ import annotations

import atexit
import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, TextIO, cast

from nestling.arguments.paths import home_path
from nestling.errors import DataError

_STDIN = ("-", "/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
_DESCRIPTORS = ("/dev/fd/", "/proc/self/fd/")
_STDIN_NAME = Path("standard input")
_HEAD_BYTES = 1 << 12
_PACKERS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh91AY&SY": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
PACKED = (".gz", ".bz2", ".xz")
_OTHERS = {
    b"PK\x03\x04": "a zip archive or a workbook; save it as CSV, or unpack it",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it, or compress it with gzip",
}
# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = {
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_COPIES: dict[Hashable, IO[bytes]] = {}
"""Copies of piped data, which can be read only once; the files go with the process."""


@dataclass(frozen=True)
class InputFile:
    """A file that can be read any number of times.

    Args:
        path: name of the file in errors.
        place: file to read; a temporary copy, if the bytes came through a pipe.
        suffix: such as ``.csv``, in lower case and without that of a compression; ``""`` for a pipe.
    """

    path: Path
    place: Path
    suffix: str

    def open_bytes(self) -> BinaryIO:
        """Its bytes, unpacked.

        Raises:
            DataError: if it cannot be opened, or is packed in a way that cannot be read here.
        """
        with self.errors():
            with self.place.open("rb") as stream:
                head = stream.read(16)
            for mark, what in _OTHERS.items():
                if head.startswith(mark):
                    raise DataError(f"{self.path} is {what}")
            opener = next((opener for mark, opener in _PACKERS.items() if head.startswith(mark)), None)
            return cast(BinaryIO, self.place.open("rb") if opener is None else opener(self.place))

    def head(self) -> bytes:
        """The first bytes, unpacked."""
        with self.errors(), self.open_bytes() as stream:
            return stream.read(_HEAD_BYTES)

    @contextmanager
    def open_text(self, newline: str) -> Iterator[TextIO]:
        """Its text: UTF-8, or what a byte order mark at its beginning says; the mark is left out.

        Args:
            newline: as of :func:`open`.

        Raises:
            DataError: if it cannot be read or is in another encoding; the line is named.
        """
        encoding = self._encoding()
        try:
            with self.errors(), self.open_bytes() as stream:
                yield io.TextIOWrapper(stream, encoding, newline=newline)
        except UnicodeDecodeError as error:
            raise DataError(self._explain(error, encoding)) from error

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors of reading as ours."""
        try:
            yield
        except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
            raise DataError(
                f"{self.path} is damaged and cannot be unpacked: {error}; copy it again"
            ) from error
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from error

    def _encoding(self) -> str:
        head = self.head()
        for mark, encoding in _MARKS.items():
            if head.startswith(mark):
                return encoding
        evens, odds = (head[start::2].count(0) for start in (0, 1))
        if max(evens, odds) > len(head) // 4:
            likely = "UTF-16LE" if odds > evens else "UTF-16BE"
            raise DataError(
                f"{self.path} holds null bytes, as UTF-16 does, without a byte order mark; save it as UTF-8, "
                f"for instance with: iconv -f {likely} -t UTF-8 {self.path.name} > new{self.suffix}"
            )
        return "utf-8-sig"

    def _explain(self, error: UnicodeDecodeError, encoding: str) -> str:
        if encoding != "utf-8-sig":
            return f"{self.path} is not whole {encoding.upper()} ({error.reason}); copy it again"
        number, byte = self._first_foreign()
        return (
            f"{self.path} is not UTF-8 (line {number} holds the byte 0x{byte:02x}); save it as UTF-8, for "
            f"instance with: iconv -f WINDOWS-1252 -t UTF-8 {self.path.name} > new{self.suffix}"
        )

    def _first_foreign(self) -> tuple[int, int]:
        """The first line that is not UTF-8, and the byte that is not."""
        with self.errors(), self.open_bytes() as stream:
            for number, line in enumerate(stream, start=1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError as error:
                    return number, line[error.start]
        raise DataError(f"{self.path} was changed while it was read; read it again")


def find_file(path: str | Path) -> InputFile:
    """The file at ``path``; ``~`` is a home, and ``-`` (or ``/dev/stdin``) is standard input.

    A pipe is read once, into a temporary file that goes with the process. ``/dev/fd/3`` is the file or the
    pipe that the shell opened.

    Raises:
        DataError: if it does not exist, is a folder, or cannot be read.
    """
    source = home_path(path)
    if str(path) in _STDIN:
        return InputFile(_STDIN_NAME, _copy_of(sys.stdin, _STDIN_NAME, _standard_input), "")
    try:
        mode = source.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise DataError(f"{source} does not exist") from error
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}") from error
    if stat.S_ISDIR(mode.st_mode):
        raise DataError(f"{source} is a folder; name the file in it")
    if str(source).startswith(_DESCRIPTORS) and stat.S_ISREG(mode.st_mode):
        named = source.resolve()  # the file that the shell opened, whose name shows its kind
        if named.is_file() and named.samefile(source):
            return find_file(named)
    if not stat.S_ISREG(mode.st_mode) or str(source).startswith(_DESCRIPTORS):
        pipe = (mode.st_dev, mode.st_ino)
        return InputFile(source, _copy_of(pipe, source, lambda: source.open("rb")), "")
    packed = source.suffix.lower() in PACKED
    return InputFile(source, source, Path(source.stem if packed else source.name).suffix.lower())


def _copy_of(pipe: Hashable, name: Path, source: Callable[[], AbstractContextManager[BinaryIO]]) -> Path:
    if pipe not in _COPIES:
        try:
            copy = tempfile.NamedTemporaryFile(prefix="nestling-")  # noqa: SIM115 - it goes with the process
            atexit.register(_remove, copy, os.getpid())  # Python may not finalise what a module holds
            with source() as stream:
                shutil.copyfileobj(stream, copy)
            copy.flush()
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error.strerror or error}") from error
        _COPIES[pipe] = copy
    return Path(_COPIES[pipe].name)


def _remove(copy: IO[bytes], process: int) -> None:
    if os.getpid() == process:  # a fork reads the copy of its parent
        copy.close()


def _standard_input() -> AbstractContextManager[BinaryIO]:
    stream = getattr(sys.stdin, "buffer", None)
    if stream is None:
        raise DataError("standard input is closed; name a file, or pipe one in")
    return nullcontext(stream)  # it stays open: it is not ours
