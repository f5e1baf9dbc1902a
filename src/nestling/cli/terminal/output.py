"""Output of the command line: results on stdout, messages on stderr."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import typer

from nestling.errors import StorageError, reason_of
from nestling.process.extras import check_packages
from nestling.process.progress import clear

_BREAK = re.compile(r"[\t-\r\x1c-\x1e\x85\u2028\u2029]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_PIPE_CLOSED = 141  # 128 and the number of SIGPIPE, as shells say it


def show_all_letters() -> None:
    """Write letters that stdout or stderr cannot encode as escapes, such as a backslash and ``u2615``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str) -> None:
    """Write a message to stderr; if that is closed, the work continues."""
    clear()
    with suppress(OSError):
        typer.echo(f"nestling: {text}", err=True)
        return
    _silence(sys.stderr)


@contextmanager
def saying_all(in_flags: Callable[[object], str]) -> Iterator[None]:
    """Write warnings and the log to stderr, such as progress where there is no terminal.

    A caller of the command line in its own process has its warnings and its log as before afterwards.
    """
    log, handler = logging.getLogger("nestling"), _Repeating()
    level = log.level
    log.setLevel(logging.INFO)
    log.addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: say(f"warning: {in_flags(message)}")
            yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)


class _Repeating(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def say_left_out(counts: Mapping[str, int]) -> None:
    """Say how many rows of the data were left out, and why."""
    for reason, count in counts.items():
        say(f"left out: {count:,} {reason}")


def show(text: str) -> None:
    """Write a result to stdout.

    Raises:
        StorageError: if it cannot be written, as on a full disk.
        SystemExit: if the reader has closed the pipe.
    """
    clear()
    try:
        typer.echo(text)
    except OSError as error:
        _silence(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise SystemExit(_PIPE_CLOSED) from error
        raise StorageError(f"the result could not be written to stdout: {reason_of(error)}") from error


def show_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a result to stdout as JSON."""
    # show_all_letters writes escapes of more than four digits, which are not JSON.
    is_utf = str(getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    show(json.dumps(value, indent=2, ensure_ascii=not is_utf))


def check_results(folder: Path | None, *names: str) -> None:
    """Refuse an output folder before the work begins.

    Args:
        folder: to write to; None writes nothing.
        names: of the files.

    Raises:
        ArtifactError: if one of the files exists and nestling did not write it.
        StorageError: if the folder cannot be written.
        MissingExtraError: for pictures, if matplotlib is not installed.
    """
    if folder is None:
        return
    from nestling.storage.artifact import check_file_target

    for name in names:
        check_file_target(folder / name)
    if any(name.endswith(".png") for name in names):
        check_packages("matplotlib")


def one_line(value: Any) -> str:
    r"""A value within one line of a listing: breaks and tabs become spaces, control characters are escaped.

    >>> print(one_line("two\nlines\x1b[31m"))
    two lines\x1b[31m
    """
    text = str(value).lower() if isinstance(value, bool) else str(value)
    words = " ".join(text.split()) if _BREAK.search(text) else text
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], words)


def _silence(stream: TextIO) -> None:
    """Discard what is left in a stream, so that Python does not try to write it at exit."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def readable_bytes(size: float) -> str:
    """A size with a unit.

    >>> readable_bytes(256_000_000)
    '256.0 MB'
    """
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
