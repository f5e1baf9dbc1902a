"""Whatever the operating system refuses, only errors of nestling come out: each call fails once, in turn."""

from __future__ import annotations

import builtins
import errno
import io
import mmap
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from nestling.compare.rdms.rdms import RDMs
from nestling.data import TextFile, TextPairs, read_pairs, read_texts
from nestling.domains.text.collection import Collection
from nestling.domains.text.encoding import encoded
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import NestlingError
from nestling.granularity import Nesting
from nestling.search.certified.scan import CertifiedScan
from nestling.search.graph.scan import GraphScan
from nestling.search.index.index import AdaptiveIndex
from nestling.storage import lock as locks
from nestling.storage.resumable import ResumableArrays
from nestling.training.checkpoint import Checkpoint, Checkpoints
from nestling.training.log import LogFiles, LogRow, TrainLog
from nestling.vectors.opening import open_vectors
from nestling.vectors.stored import StoredVectors

X = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
NESTING = Nesting.parse("dim=8,16")
# Calls on paths fail only where they concern the folder of the test, those on descriptors always.
ON_PATHS = [
    (builtins, "open"),
    (io, "open"),
    (os, "open"),
    (os, "mkdir"),
    (os, "replace"),
    (os, "rename"),
    (os, "unlink"),
    (os, "rmdir"),
    (os, "listdir"),
    (os, "scandir"),
    (os, "stat"),
]
ON_DESCRIPTORS = [
    (os, "write"),
    (os, "read"),
    (os, "fsync"),
    (os, "ftruncate"),
    (os, "lseek"),
    (mmap, "mmap"),
    (locks, "_lock"),
]


@dataclass
class Calls:
    """Counts calls of the operating system, and lets one of them fail."""

    folder: Path
    fails: tuple[str, int] | None = None

    def __post_init__(self) -> None:
        self.counts: Counter[str] = Counter()

    @contextmanager
    def watched(self) -> Iterator[Counter[str]]:
        patches = [self._patch(*call, on_path=True) for call in ON_PATHS]
        patches += [self._patch(*call, on_path=False) for call in ON_DESCRIPTORS]
        for each in patches:
            each.start()
        try:
            yield self.counts
        finally:
            for each in reversed(patches):
                each.stop()

    def _patch(self, module: Any, name: str, *, on_path: bool) -> Any:
        original, label = getattr(module, name), f"{module.__name__}.{name}"

        def call(*given: Any, **named: Any) -> Any:
            if not on_path or self._is_ours(given[0] if given else None):
                self.counts[label] += 1
                if self.fails == (label, self.counts[label]):
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
            return original(*given, **named)

        return mock.patch.object(module, name, call)

    def _is_ours(self, path: Any) -> bool:
        return isinstance(path, (str, os.PathLike)) and str(self.folder) in os.fspath(path)


def an_index(folder: Path) -> None:
    with AdaptiveIndex.create(folder, X, nesting="dim=8,16", plan="ivf4@8 > int8@full") as index:
        index.add(X[:2] + 1)
        index.delete([3])
        index.compact()
        index.verify()
    with AdaptiveIndex.open(folder, read_only=True) as index:
        index.refresh()
        index.extract("dim=8").close()
        index.save(folder.with_name("copy"))


def a_collection(folder: Path, encoder: TextEncoder) -> None:
    with Collection.create(folder, encoder, ["a cat", "a ship"], plan="flat@full") as made:
        made.add(["rain"])
        made.delete([1])
    with Collection.open(folder) as made:
        made.search("a boat", k=1)


def an_encoding(folder: Path, encoder: TextEncoder) -> None:
    with encoded(encoder, ["a cat", "a ship"], folder / "v.npy") as found:
        assert len(found) == 2


def stored_vectors(folder: Path, encoder: TextEncoder) -> None:
    StoredVectors(X, NESTING, ids=[str(row) for row in range(64)]).save(folder / "saved")
    for path in (folder / "saved", folder.with_name("x.npy")):
        assert len(open_vectors(path)) == 64


def an_encoder(folder: Path, encoder: TextEncoder) -> None:
    encoder.save(folder / "model")
    TextEncoder.open(folder / "model")


def a_build(folder: Path, encoder: TextEncoder) -> None:
    for _ in range(2):
        journal = ResumableArrays(folder / "build", {"of": "a test"})
        journal.once("first", lambda: {"a": np.arange(3)})
        journal.grow({"b": (np.int64, 0)}, 4, 2, lambda span: {"b": np.arange(4)[span]})
        assert journal["b"].tolist() == [0, 1, 2, 3]
        journal.drop("b")
    journal.finish()


def training(folder: Path, encoder: TextEncoder) -> None:
    log = TrainLog([LogRow(1, "loss", "", 0.5)])
    LogFiles(folder / "run", log).append(log.rows)
    written = Checkpoints(folder / "run" / "checkpoints", {"of": "a test"})
    for step in range(4):
        written.write(Checkpoint(step, {}, log))
    written.clear_remains()
    assert written.read_newest() is not None


def scans(folder: Path, encoder: TextEncoder) -> None:
    CertifiedScan.build(X).save(folder / "certified")
    CertifiedScan.load(folder / "certified", X)
    GraphScan.build(X, links=8).save(folder / "graph")
    GraphScan.load(folder / "graph", X)


def tables(folder: Path, encoder: TextEncoder) -> None:
    read_pairs(folder.with_name("p.csv")).save(folder / "pairs")
    TextPairs.load(folder / "pairs")
    assert len(read_texts(folder.with_name("t.txt"))) == len(list(TextFile(folder.with_name("t.txt")))) == 2


def dissimilarities(folder: Path, encoder: TextEncoder) -> None:
    found = RDMs(np.abs(X[:2, :6]))
    found.save(folder / "rdms")
    RDMs.load(folder / "rdms")


def indexes(folder: Path, encoder: TextEncoder) -> None:
    an_index(folder / "index")


def collections(folder: Path, encoder: TextEncoder) -> None:
    a_collection(folder / "texts", encoder)


WORK = [
    indexes,
    collections,
    an_encoding,
    stored_vectors,
    an_encoder,
    a_build,
    training,
    scans,
    tables,
    dissimilarities,
]

SLOW = [collections, an_encoder]


def place_of(error: BaseException) -> str:
    """Place in nestling that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    return [
        f"{Path(each.filename).name}:{each.lineno}" for each in frames if "src/nestling" in each.filename
    ][-1]


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder.open("wordllama").extract("dim=64")


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.__name__)
def test_only_our_errors_come_out(
    work: Callable[[Path, TextEncoder], None], encoder: TextEncoder, tmp_path: Path
) -> None:
    with mock.patch.object(os, "fsync", return_value=None):  # it takes nearly all of the time
        np.save(tmp_path / "x.npy", X)
        (tmp_path / "p.csv").write_text("query,document\na,b\nc,d\n")
        (tmp_path / "t.txt").write_text("a\nb\n")
        first = tmp_path / "first"
        first.mkdir()
        with Calls(first).watched() as counts:
            work(first, encoder)
        failed: dict[str, str] = {}
        for label, count in counts.items():
            # The first, the last and some in between: calls of a kind come mostly in a row.
            chosen = {count // 3 + 1, count} if work in SLOW else {1, 2, count // 2 + 1, count}
            for number in sorted(chosen & set(range(1, count + 1))):
                folder = tmp_path / f"{label}-{number}"
                folder.mkdir()
                try:
                    with Calls(folder, (label, number)).watched():
                        work(folder, encoder)
                except NestlingError:
                    pass
                except Exception as error:  # noqa: BLE001 - whatever came out is what is asked
                    failed[f"{label} {number}"] = f"{error!r} of {place_of(error)}"
    assert failed == {}
