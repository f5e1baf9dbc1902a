"""Worker process: reads file names as lines of JSON and answers with their docstrings."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import NamedTuple

from nestling.data.python_source.definitions import UnreadableSourceError, read_source
from nestling.data.python_source.prose import describe
from nestling.data.python_source.scan import definitions_by_scan


class FileReport(NamedTuple):
    """The docstrings of one file, or the reason there are none.

    Args:
        pairs: (name and signature, first paragraph) of what it documents.
        undescribed: documented definitions that were left out because they describe too little.
        fault: reason that the whole file was left out, or None.
    """

    pairs: list[tuple[str, str]]
    undescribed: int = 0
    fault: str | None = None


def read_files(paths: Sequence[str]) -> list[FileReport]:
    """One report for each file, in order."""
    return [_read_file(path) for path in paths]


def _read_file(path: str) -> FileReport:
    try:
        source = read_source(path)
        if b"do not edit" in source[:2000].lower():
            return FileReport([], fault="generated")
        definitions = definitions_by_scan(source)
    except UnreadableSourceError as error:
        return FileReport([], fault=error.reason)
    pairs = [pair for pair in map(describe, definitions) if pair is not None]
    return FileReport(pairs, undescribed=len(definitions) - len(pairs))


def main() -> None:
    """Answer lines of JSON (a list of paths) with lines of JSON (their reports) until the input ends."""
    try:
        for line in sys.stdin:
            sys.stdout.write(json.dumps(read_files(json.loads(line))) + "\n")
            sys.stdout.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)
