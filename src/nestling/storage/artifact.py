"""Saved folders: a manifest with the sha256 of every file, written atomically, verified before use."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from nestling import __version__
from nestling.arguments.paths import home_path
from nestling.cut import CutRule
from nestling.errors import ArtifactError, GranularityError, NestlingError, StorageError
from nestling.errors import reason_of as reason_of
from nestling.granularity import Nesting
from nestling.process.progress import watched
from nestling.storage.kinds import check_kind, in_words
from nestling.storage.schema import SavedFields, check_schema
from nestling.storage.temporary import beside, held, remove_torn

MANIFEST = "nestling.json"
SCHEMA_VERSION = 1
_UNKNOWN = "this nestling knows no such name; if a newer one wrote it: pip install -U nestling"
_MARKS: dict[str, tuple[bytes, ...]] = {
    ".json": (b'"nestling":', b'"kind": "curve"'),  # versions, unless a curve was made by hand
    ".html": (b'name="generator" content="nestling"',),
    ".png": (b"Software\0nestling",),
    ".svg": (b">nestling<",),
    ".pdf": (b"/Creator (nestling)",),
    ".md": (b"nestling",),
    ".toml": (b"# nestling",),
}
"""Contents of the result files of nestling, by their kind."""


class FileRecord(SavedFields):
    """Size and checksum of one file of a saved folder."""

    size_bytes: int
    sha256: str


class Manifest(SavedFields):
    """The contents of a saved folder. ``settings`` depends on the kind; all else is common."""

    schema_version: int
    kind: str
    nestling_version: str
    nesting: str | None
    cut: dict[str, Any] | None
    settings: dict[str, Any]
    files: dict[str, FileRecord]

    def read_nesting(self) -> Nesting:
        """The nesting written in the manifest."""
        if self.nesting is None:
            raise ArtifactError(f"the manifest of {in_words(self.kind)} names no nesting; save it again")
        try:
            return Nesting.parse(self.nesting)
        except GranularityError as error:
            raise ArtifactError(f"the manifest of {in_words(self.kind)} is malformed: {error}") from error

    def read_cut(self) -> CutRule:
        """The cut rule written in the manifest."""
        return CutRule.from_json({} if self.cut is None else self.cut)


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn failed writes into errors of ours that name the target and the reason.

    Raises:
        StorageError: for any error of the operating system.
    """
    try:
        yield
    except NestlingError:
        raise
    except OSError as error:
        raise StorageError(
            f"{target} could not be written: {reason_of(error)}. Nothing was changed"
        ) from error


@contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn failed reads of files that nestling wrote into errors of ours.

    Raises:
        ArtifactError: for any error of the operating system.
    """
    try:
        yield
    except NestlingError:
        raise
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {reason_of(error)}") from error


def open_array(path: Path) -> NDArray[Any]:
    """A ``.npy`` file as a read-only memory map.

    Raises:
        ArtifactError: if it cannot be read.
    """
    with reading_errors(path):
        return np.asanyarray(np.load(path, mmap_mode="r", allow_pickle=False))


@contextmanager
def write_folder(
    folder: str | Path,
    kind: str,
    *,
    nesting: Nesting | None = None,
    rule: CutRule | None = None,
    settings: dict[str, Any] | None = None,
) -> Iterator[Path]:
    """Fill the folder that this yields; it takes the place of ``folder`` only when all went well.

    The files are written beside ``folder`` first, then flushed and renamed, so that a crash leaves the
    old folder or the new one and nothing between. The next write to ``folder`` removes what a killed process
    left beside it. Only a saved folder of the same kind is replaced.

    Raises:
        ArtifactError: if ``folder`` holds anything else; see :func:`check_folder_target`.
        StorageError: if writing fails (disk full, no permission); nothing half-written remains.
    """
    target = home_path(folder)
    temporary = beside(target)
    try:
        with storage_errors(target):
            check_folder_target(target, kind)
            remove_torn(target)
            temporary.mkdir(parents=True)
            with held(temporary):
                yield temporary
                _write_manifest(temporary, kind, nesting, rule, settings or {})
                _replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_folder(folder: str | Path, kind: str | tuple[str, ...]) -> Manifest:
    """Verify a saved folder whole - schema, kind, size and sha256 of each file - and return its manifest.

    Raises:
        ArtifactError: if anything is missing, added by name, altered, of another kind or too new.
    """
    root = home_path(folder)
    manifest = read_manifest(root)
    check_kind(root, manifest.kind, *((kind,) if isinstance(kind, str) else kind))
    verify_files(root, manifest.files)
    with reading_errors(root):
        strangers = sorted({_relative(path, root) for path in _files_of(root)} - set(manifest.files))
    if strangers:
        raise ArtifactError(
            f"{root} holds {', '.join(strangers[:3])}, which its manifest does not list; "
            "remove what was added, or copy the folder again from where it was made"
        )
    return manifest


def read_manifest(folder: str | Path) -> Manifest:
    """The manifest alone, checked against the schema, without verifying the files it lists."""
    path = home_path(folder) / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except NotADirectoryError as error:
        raise ArtifactError(f"{folder} is a file, and not a folder saved by nestling") from error
    except FileNotFoundError as error:
        if not path.parent.exists():
            raise ArtifactError(f"{folder} does not exist; give a folder saved by nestling") from error
        raise ArtifactError(f"{folder} is not a folder saved by nestling: it holds no {MANIFEST}") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}") from error
    check_schema(raw, "schema_version", SCHEMA_VERSION, f"{folder} was written")
    try:
        return Manifest.model_validate(raw)
    except ValidationError as error:
        raise malformed(path, error) from error


def malformed(path: Path, error: ValidationError, *above: str) -> ArtifactError:
    """The error for a saved file, of which ``error`` is found in the part that is named by ``above``."""
    first = error.errors()[0]
    place = ".".join(map(str, (*above, *first["loc"]))) or "manifest"
    why = _UNKNOWN if first["type"] == "extra_forbidden" else first["msg"]
    return ArtifactError(f"{path} is malformed at {place}: {why}")


def check_folder_target(folder: Path, kind: str) -> None:
    """Refuse a place for a folder that cannot be written, or that holds anything but one of ``kind``.

    Asked before long work whose result goes there, so that it is not done in vain.

    Raises:
        ArtifactError: if ``folder`` is not empty, and holds another kind or was not written by nestling.
        StorageError: if nothing can be written there.
    """
    with storage_errors(folder):
        is_saved = (folder / MANIFEST).is_file()
        is_free = not folder.exists() or _is_empty_folder(folder)
    if is_saved and (found := read_manifest(folder).kind) != kind:
        raise ArtifactError(
            f"{folder} holds {in_words(found)} and is not replaced by {in_words(kind)}; "
            "choose another folder or remove it yourself"
        )
    if not (is_saved or is_free):
        raise ArtifactError(
            f"{folder} exists and was not written by nestling, so it is not replaced; "
            "choose another folder or remove it yourself"
        )
    _check_parent(folder)


def check_file_target(path: str | Path, *, overwrite: bool = False) -> None:
    """Refuse a place for a file that cannot be written, or where a file lies that nestling did not write.

    Pictures, pages, tables and plans say in themselves that nestling wrote them; a ``.npy`` file cannot.

    Args:
        path: of the file.
        overwrite: take the place of any file.

    Raises:
        ArtifactError: if a file is there that does not say so.
        StorageError: if nothing can be written there.
    """
    target = home_path(path)
    with storage_errors(target):
        is_folder, is_free = target.is_dir(), not target.exists()
    if is_folder:
        raise StorageError(f"{target} is a folder, where a file is to be written; give the name of a file")
    _check_parent(target)
    if is_free or overwrite:
        return
    with storage_errors(target):
        marks = _MARKS.get(target.suffix, ())
        is_ours = any(mark in target.read_bytes() for mark in marks)
    if not is_ours:
        raise ArtifactError(
            f"{target} exists and was not written by nestling, as far as it says, so it is not replaced; "
            f"{'' if marks else 'give overwrite=True, '}choose another name, or remove it yourself"
        )


def write_result(path: str | Path, data: str | bytes, *, overwrite: bool = False) -> None:
    """Write one file of results atomically, in the place of none or of one that nestling wrote.

    Raises:
        ArtifactError: if a file is there that nestling did not write, unless ``overwrite``.
        StorageError: if writing fails; the old content, if any, stays.
    """
    check_file_target(path, overwrite=overwrite)
    write_file(path, data)


def write_file(path: str | Path, data: str | bytes) -> None:
    """Write one file atomically (beside it first, then renamed).

    Raises:
        StorageError: if writing fails; the old content, if any, stays.
    """
    with open_new(path) as stream:
        stream.write(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def open_new(path: str | Path) -> Iterator[BinaryIO]:
    """A stream into a file beside ``path``, which takes its place only when the block ends well.

    Raises:
        StorageError: if writing fails; the old content, if any, stays.
    """
    target = home_path(path)
    temporary = beside(target)
    try:
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_torn(target)
            with temporary.open("wb") as stream, held(temporary):
                yield stream
            _flush(temporary)
            temporary.replace(target)
    finally:
        with suppress(OSError):  # nothing was made, or its folder is none: the error above says why
            temporary.unlink()


def verify_files(root: Path, files: Mapping[str, FileRecord]) -> None:
    """Check files that the manifest of ``root`` lists.

    Raises:
        ArtifactError: for the first that is missing, altered, or lies outside of the folder.
    """
    for name in watched(files, f"checking the files of {root.name}", "files"):
        with reading_errors(root / name):
            verify_file(root, name, files[name])


def verify_file(root: Path, name: str, record: FileRecord) -> None:
    """Check one file that the manifest of ``root`` lists.

    Raises:
        ArtifactError: if it is missing, altered, or lies outside of the folder.
    """
    path = root / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ArtifactError(f"the manifest of {root} names {name!r}, which is outside the folder")
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; copy the folder again from where it was made")
    if path.stat().st_size != record.size_bytes or sha256_of(path) != record.sha256:
        raise ArtifactError(
            f"{path} is not the file that was saved (size or sha256 differs): truncated or altered; "
            "copy the folder again from where it was made"
        )


def _files_of(root: Path) -> Iterator[Path]:
    """Files a reader could open: not the manifest, nor what model hubs and people put beside."""
    for path in root.rglob("*"):
        name = path.relative_to(root)
        if path.is_file() and not name.parts[0].startswith(".") and str(name) not in (MANIFEST, "README.md"):
            yield path


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_manifest(
    root: Path, kind: str, nesting: Nesting | None, rule: CutRule | None, settings: dict[str, Any]
) -> None:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    for path in paths:
        _flush(path)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        kind=kind,
        nestling_version=__version__,
        nesting=None if nesting is None else str(nesting),
        cut=None if rule is None else rule.to_json(),
        settings=settings,
        files={
            _relative(path, root): FileRecord(size_bytes=path.stat().st_size, sha256=sha256_of(path))
            for path in paths
        },
    )
    (root / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    _flush(root / MANIFEST)


def _replace(temporary: Path, target: Path) -> None:
    """Put ``temporary`` in the place of ``target``; a folder cannot be swapped in one call everywhere."""
    old = beside(target, "old")
    if target.exists():
        target.rename(old)
    try:
        temporary.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _check_parent(target: Path) -> None:
    """Refuse a target below a file, or in a folder that may not be written."""
    above = next((parent for parent in target.absolute().parents if parent.exists()), None)
    if above is None or not above.is_dir():
        raise StorageError(f"{target} could not be written: {above or target} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise StorageError(f"{target} could not be written: writing in {above} is not allowed")


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
