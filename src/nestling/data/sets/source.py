"""Locates a data set: the user's folder first, then the cache, then a download."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nestling.arguments.paths import home_path
from nestling.data.sets.catalogue import DATA_SETS, DataSet, RemoteFile
from nestling.errors import ConfigError, DataError, unknown
from nestling.process.progress import Progress
from nestling.storage.artifact import open_new

_BLOCK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 30


def data_folder() -> Path | None:
    """The user's own folder of data sets, ``NESTLING_DATA``, if it is set."""
    value = os.environ.get("NESTLING_DATA")
    return home_path(value) if value else None


def cache_folder() -> Path:
    """Folder for downloads and derived data: ``NESTLING_CACHE``, else in the user's cache folder."""
    own = os.environ.get("NESTLING_CACHE")
    if own:
        return home_path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "nestling"


def where(name: str) -> Path | None:
    """The folder in which all files of data set ``name`` lie now, or None; nothing is downloaded.

    Raises:
        ConfigError: for a name that is not in the catalogue.
    """
    data_set = _find(name)
    for root in (data_folder(), cache_folder()):
        if root and data_set.files and all((root / name / file).is_file() for file in data_set.files):
            return root / name
    return None


@dataclass(frozen=True)
class Listing:
    """One line of ``nestling data``.

    Args:
        name: of the data set.
        what: description in one line.
        licence: as its makers state it.
        place: path on this machine, or address that it would be loaded from.
        here: whether it can be used without a network.
        size_bytes: of its files; None for data that are made or bundled.
    """

    name: str
    what: str
    licence: str
    place: str
    here: bool
    size_bytes: int | None


def listing() -> list[Listing]:
    """All data sets that have a loader, and where each is found now."""
    return [_list(data_set) for data_set in DATA_SETS.values()]


def _list(data_set: DataSet) -> Listing:
    folder = where(data_set.name)
    size: int | None = None
    if folder is not None:
        size = sum((folder / file).stat().st_size for file in data_set.files)
    elif all(data_set.files.values()):
        size = sum(remote.size_bytes for remote in data_set.files.values() if remote) or None
    here = folder is not None or not data_set.files
    return Listing(
        data_set.name, data_set.what, data_set.licence, str(folder or data_set.homepage), here, size
    )


def locate(name: str) -> Path:
    """The folder with all files of data set ``name``; those that are nowhere are downloaded into the cache.

    The user's own files (``NESTLING_DATA``) are taken as they are. A downloaded file must have the sha256
    on record and appears under its name only when it is whole; an interrupted download starts again.

    Raises:
        ConfigError: for a name that is not in the catalogue, or a data set that has no files.
        DataError: if a file can neither be found nor downloaded; the message tells where to put it.
        StorageError: if the cache cannot be written.
    """
    data_set = _find(name)
    if not data_set.files:
        raise ConfigError(f"{name} has no files to locate; it comes from: {data_set.homepage}")
    found = where(name)
    if found is not None:
        return found
    folder = cache_folder() / name
    for file, remote in data_set.files.items():
        if not (folder / file).is_file():
            _obtain(data_set, file, remote, folder / file)
    return folder


def download(remote: RemoteFile, target: Path) -> None:
    """Load ``remote`` to ``target``, which appears only when size and sha256 are right.

    Raises:
        DataError: if the address cannot be reached, breaks off, or gives another file.
        StorageError: if ``target`` cannot be written.
    """
    digest = hashlib.sha256()
    with open_new(target) as stream:
        for block in _blocks(remote, target.name):
            digest.update(block)
            stream.write(block)
        size = stream.tell()
        if size < remote.size_bytes:
            raise DataError(
                f"{remote.url} broke off after {size:,} of {remote.size_bytes:,} bytes; try again"
            )
        if digest.hexdigest() != remote.sha256:
            raise DataError(
                f"{remote.url} gives another file than the one on record: "
                f"its sha256 is {digest.hexdigest()}, not {remote.sha256}"
            )


def _find(name: str) -> DataSet:
    if name not in DATA_SETS:
        raise ConfigError(unknown("data set", name, DATA_SETS))
    return DATA_SETS[name]


def _obtain(data_set: DataSet, file: str, remote: RemoteFile | None, target: Path) -> None:
    try:
        if remote is None:
            raise DataError(f"no public address with a checksum is known for {file}")
        download(remote, target)
    except DataError as error:
        own = data_folder()
        place = own / data_set.name if own else f"<folder>/{data_set.name} and set NESTLING_DATA=<folder>"
        raise DataError(
            f"{data_set.name} is not on this machine, and {error}. "
            f"Get it from {data_set.homepage} and put {', '.join(data_set.files)} into {place}"
        ) from error


def _blocks(remote: RemoteFile, name: str) -> Iterator[bytes]:
    """The body at ``remote.url`` piece by piece; whatever the network does becomes a DataError."""
    request = urllib.request.Request(remote.url, headers={"User-Agent": "nestling"})  # noqa: S310
    progress = Progress(f"loading {name}", remote.size_bytes, "bytes")
    try:
        with progress, urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            while block := response.read(_BLOCK_BYTES):
                progress.update(len(block))
                yield block
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is also the answer, with an open connection
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        raise DataError(f"{remote.url} could not be loaded: {cause}") from error
