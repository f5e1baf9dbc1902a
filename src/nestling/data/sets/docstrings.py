"""The embedded default data set: name/docstring pairs of the installed Python packages."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nestling.arguments.constraints import Whole, checked
from nestling.arguments.paths import home_path
from nestling.data.pairs import TextPairs
from nestling.data.python_source.pool import read_in_parallel
from nestling.data.python_source.worker import FileReport
from nestling.data.sets.source import cache_folder
from nestling.data.split import plain_text
from nestling.errors import ArtifactError, DataError, StorageError
from nestling.process.progress import Progress

_LARGEST_FILE_BYTES = 4_000_000
_MOST_NAMES_OF_ONE_TEXT = 3
# Tests, and copies of other packages; what is no identifier (``site-packages``) is no package either.
_PASSED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "idle_test",
    "_vendor",
    "_vendored",
    "vendor",
    "third_party",
    "__pycache__",
}
_TEST_FILE = re.compile(r"test_.*|.*_tests?|conftest")
# Raised whenever what is taken from a file changes, so that older caches are not used.
_VERSION = "1"


@dataclass(frozen=True, order=True)
class SourceFile:
    """A Python file that is read: its path, the top-level package it belongs to, and what tells a change."""

    path: str
    package: str
    size_bytes: int
    modified_ns: int


@checked(workers=Whole(1) | None, limit=Whole(2) | None, seed=Whole(0))
def docstring_pairs(
    roots: str | Path | Iterable[str | Path] | None = None,
    *,
    workers: int | None = None,
    cache: bool = True,
    limit: int | None = None,
    seed: int = 0,
) -> TextPairs:
    """(name and signature, first paragraph) of what the installed Python packages define and describe.

    The packages are read, never imported. Taken are the classes, functions and methods of modules whose
    names are public; the group of a pair is its top-level package, so that a split keeps test packages
    out of training. Left out are: test folders and files, copies of other packages (``_vendor``),
    generated files; texts of fewer than four words, that are not mostly letters, that list parameters,
    refer elsewhere or warn (deprecated, to do, alias); each text and each name but the first that has it;
    and texts that occur under more than three names, which are boilerplate. ``left_out`` counts them.

    Args:
        roots: one or more folders of packages, or packages; by default the standard library and
            site-packages of the running interpreter.
        workers: processes that read; by default one for each core.
        cache: keep the result in the cache folder (``NESTLING_CACHE``) and use it until any of the files
            changes.
        limit: take this many pairs at random, with ``seed``.
        seed: for ``limit``.

    Raises:
        ConfigError: for ``workers`` below 1 or ``limit`` below 2.
        DataError: if a root is missing or nothing is described in any of them.
    """
    if roots is None:
        folders = default_roots()
    else:
        given = [roots] if isinstance(roots, str | Path) else roots
        folders = [home_path(root).resolve() for root in given]
    files = find_files(folders)
    pairs = _cached(folders, files, workers) if cache else _collect(files, workers)
    if limit is None or limit >= len(pairs):
        return pairs
    rows = np.random.default_rng(seed).choice(len(pairs), limit, replace=False)
    return pairs.take(sorted(rows.tolist()))


def default_roots() -> list[Path]:
    """The standard library and site-packages of the running interpreter."""
    paths = sysconfig.get_paths()
    return [Path(path) for path in dict.fromkeys(paths[name] for name in ("stdlib", "purelib", "platlib"))]


def find_files(roots: Sequence[Path]) -> list[SourceFile]:
    """The importable files below ``roots`` that are no tests and no copies of other packages, in order.

    Raises:
        DataError: if a root is not a folder, or none holds a Python file.
    """
    files: dict[str, SourceFile] = {}
    for root in roots:
        if not root.is_dir():
            raise DataError(f"{root} is not a folder; give folders that hold Python packages")
        is_package = (root / "__init__.py").is_file()
        for file in _walk(str(root), root.name if is_package else ""):
            files.setdefault(file.path, file)
    if not files:
        raise DataError(f"there are no Python files in {', '.join(map(str, roots))}")
    return sorted(files.values())


def _walk(folder: str, package: str) -> Iterator[SourceFile]:
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError:  # listed as it is, so that it is counted among what cannot be opened
        yield SourceFile(folder, _group(package), 0, 0)
        return
    for entry in entries:
        name, _, suffix = entry.name.partition(".")
        if suffix == "py" and name.isidentifier() and not _TEST_FILE.fullmatch(name):
            stat = entry.stat(follow_symlinks=False)
            yield SourceFile(entry.path, _group(package or name), stat.st_size, stat.st_mtime_ns)
        elif _is_package_name(entry.name) and entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, package or name)


def _is_package_name(name: str) -> bool:
    return name.isidentifier() and name not in _PASSED_FOLDERS


def _group(package: str) -> str:
    """``_pytest`` is the inside of ``pytest``: both are one group."""
    return package.strip("_") or package


def _cached(folders: Sequence[Path], files: Sequence[SourceFile], workers: int | None) -> TextPairs:
    """The pairs kept for exactly these files, or collected now and kept; one set for each set of roots."""
    home = cache_folder() / "docstrings" / _digest(folders)
    folder = home / _digest(files)
    if folder.exists():
        try:
            return TextPairs.load(folder)
        except ArtifactError:  # damaged: it can be made again, so no error
            shutil.rmtree(folder, ignore_errors=True)
    pairs = _collect(files, workers)
    try:
        pairs.save(folder)
    except StorageError as error:
        warnings.warn(f"the docstring pairs are not kept for next time: {error}", stacklevel=3)
    for other in home.glob("*") if home.is_dir() else ():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return pairs


def _digest(parts: Iterable[object]) -> str:
    return hashlib.sha256(
        "\n".join([_VERSION, *map(str, parts)]).encode("utf-8", "surrogateescape")
    ).hexdigest()[:16]


def _collect(files: Sequence[SourceFile], workers: int | None) -> TextPairs:
    left_out: Counter[str] = Counter()
    readable = [file for file in files if file.size_bytes <= _LARGEST_FILE_BYTES]
    left_out["files: too large"] = len(files) - len(readable)
    reports = read_in_parallel([file.path for file in readable], workers)
    rows = []
    with Progress("reading docstrings", len(readable), "files") as progress:
        for file, report in zip(readable, reports, strict=True):
            progress.update()
            _count(report, left_out)
            rows += [(name, text, file.package) for name, text in report.pairs]
    kept = _distinct(rows, left_out)
    if not kept:
        raise DataError(
            f"the {len(files)} Python files describe nothing that could be paired ({dict(+left_out)})"
        )
    queries, documents, groups = zip(*kept, strict=True)
    return TextPairs(queries, documents, groups, left_out=dict(+left_out))


def _count(report: FileReport, left_out: Counter[str]) -> None:
    left_out["definitions: describe too little"] += report.undescribed
    if report.fault is not None:
        left_out[f"files: {report.fault}"] += 1


def _distinct(rows: Sequence[tuple[str, str, str]], left_out: Counter[str]) -> list[tuple[str, str, str]]:
    """The rows whose name and text are new, without texts that occur under many different names."""
    keys = [plain_text(text) for _, text, _ in rows]
    names_of: dict[str, set[str]] = defaultdict(set)
    for key, (name, _, _) in zip(keys, rows, strict=True):
        names_of[key].add(name.partition("(")[0].rpartition(".")[2])
    kept, texts, names = [], set(), set()
    for key, row in zip(keys, rows, strict=True):
        name = plain_text(row[0])
        if len(names_of[key]) > _MOST_NAMES_OF_ONE_TEXT:
            left_out["pairs: boilerplate"] += 1
        elif key in texts or name in names:
            left_out["pairs: repeated text or name"] += 1
        else:
            kept.append(row)
        texts.add(key)
        names.add(name)
    return kept
