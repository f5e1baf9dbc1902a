"""Changes by a fork are refused if only one process may write; the process that opened it keeps working."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestling.domains.text.collection import Collection
from nestling.domains.text.encoding import encoded
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ConfigError, StorageError
from nestling.granularity import Nesting
from nestling.search.index.index import AdaptiveIndex
from nestling.search.stores import Layout, create_store, open_store
from nestling.storage import lock as locks
from nestling.storage.lock import WriterLock
from nestling.storage.resumable import ResumableArrays, ResumableValues
from nestling.training.checkpoint import Checkpoint, Checkpoints
from nestling.training.log import LogFiles, LogRow, TrainLog

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes"),
    # Threads of other tests may run; what is asked here is what a fork does all the same.
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]
SECONDS = 20


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 8)).astype(np.float32)


def open_files() -> int:
    """Number of files that this process has open; 0 where the system does not count them."""
    return len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0


def in_fork(act: Callable[[], Any]) -> str:
    """Type and message of the error of ``act`` in a fork of this process; "" if it raises none."""
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    def child() -> None:
        try:
            act()
            answers.put("")
        except BaseException as error:  # noqa: BLE001 - reported to the parent
            answers.put(f"{type(error).__name__}: {error}")

    process = context.Process(target=child)
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        pytest.fail(f"the fork did not end within {SECONDS} seconds")
    return str(answers.get())


@dataclass(frozen=True)
class Opened:
    """Something that is open: two changes, what closes it, and what stands on the disk afterwards."""

    change: Callable[[], Any]
    close: Callable[[], Any]
    found: Callable[[], Any]


def an_index(folder: Path) -> Opened:
    index = AdaptiveIndex.create(folder, rows(50))

    def found() -> int:
        with AdaptiveIndex.open(folder) as again:
            return len(again)

    return Opened(lambda: index.add(rows(3, seed=len(index))), index.close, found)


def a_compacted_index(folder: Path) -> Opened:
    index = AdaptiveIndex.create(folder, rows(50))
    return Opened(
        index.compact, index.close, lambda: AdaptiveIndex.open(folder, read_only=True).verify().rows
    )


def a_collection(folder: Path) -> Opened:
    texts = ["a cat sleeps", "a ship sails"]
    collection = Collection.create(folder, TextEncoder.open("wordllama"), texts, plan="flat@full")

    def found() -> int:
        with Collection.open(folder) as again:
            return len(again)

    return Opened(lambda: collection.add(["heavy rain"]), collection.close, found)


def a_build(folder: Path) -> Opened:
    journal = ResumableArrays(folder, {"of": "a test"})

    def change() -> None:
        name = f"part{len(journal.groups())}"
        journal.once(name, lambda: {"a": np.arange(3)})

    return Opened(change, lambda: None, lambda: ResumableArrays(folder, {"of": "a test"}).groups())


def a_growing_array(folder: Path) -> Opened:
    journal = ResumableArrays(folder, {"of": "a test"})

    def change() -> None:
        journal.grow({"a": (np.int64, 0)}, 4, 2, lambda span: {"a": np.arange(4)[span]})

    return Opened(change, lambda: None, lambda: ResumableArrays(folder, {"of": "a test"})["a"].tolist())


def checkpoints(folder: Path) -> Opened:
    written, steps = Checkpoints(folder, {"of": "a test"}), iter(range(1, 9))
    return Opened(
        lambda: written.write(Checkpoint(next(steps), {}, TrainLog())),
        lambda: None,
        lambda: [path.name for path in sorted(folder.iterdir())],
    )


def a_training_log(folder: Path) -> Opened:
    folder.mkdir()
    files = LogFiles(folder, TrainLog())
    return Opened(
        lambda: files.append([LogRow(1, "loss", "", 0.5)]),
        files.close,
        lambda: (folder / "log.csv").read_text(encoding="utf-8"),
    )


def figures(folder: Path) -> Opened:
    notes, numbers = ResumableValues(folder / "notes.json", {}), iter(range(9))
    return Opened(
        lambda: notes.once(f"figure {next(numbers)}", lambda: 1),
        lambda: None,
        lambda: (folder / "notes.json").read_text(encoding="utf-8"),
    )


def a_store(folder: Path) -> Opened:
    pytest.importorskip("lancedb")
    url = f"lancedb://{folder}/vectors/items"
    store = create_store(url, Layout(Nesting.chain(dim=(4, 8)), shortlist_dim=4))
    store.add(["a", "b"], rows(2))

    def found() -> int:
        with open_store(url) as again:
            return again.count()

    return Opened(lambda: store.add(["c"], rows(1)), store.close, found)


THINGS = [
    a_store,
    an_index,
    a_compacted_index,
    a_collection,
    a_build,
    a_growing_array,
    checkpoints,
    a_training_log,
    figures,
]


@pytest.mark.parametrize("thing", THINGS)
def test_a_fork_changes_nothing(thing: Callable[[Path], Opened], tmp_path: Path) -> None:
    """The disk is as without the fork, which closes the handles it inherited too."""
    alone, forked = thing(tmp_path / "alone"), thing(tmp_path / "forked")

    def child() -> None:
        try:
            forked.change()
        finally:
            forked.close()

    words = in_fork(child)
    assert words.startswith("StorageError: ")
    assert f"was opened by process {os.getpid()}, and this is process" in words
    assert "open it again in this one" in words
    for opened in (alone, forked):
        opened.change()
        opened.close()
    assert forked.found() == alone.found()


def test_encoding_is_left_to_the_process_that_began(tmp_path: Path) -> None:
    encoder, texts = TextEncoder.open("wordllama"), ["a cat", "a ship", "rain"]
    with encoded(encoder, texts, tmp_path / "out") as vectors:
        leaving = encoded(encoder, texts, tmp_path / "other")
        leaving.__enter__()
        assert in_fork(lambda: leaving.__exit__(None, None, None)) == ""
        assert (tmp_path / ".other.encoding" / "progress.json").exists()
        leaving.__exit__(None, None, None)
        assert not (tmp_path / ".other.encoding").exists()
        assert "is open for writing already" in in_fork(
            lambda: encoded(encoder, texts, tmp_path / "out").__enter__()
        )
        np.testing.assert_allclose(vectors, encoder.encode(texts), atol=1e-6)


def test_a_fork_reads_on(tmp_path: Path) -> None:
    with AdaptiveIndex.create(tmp_path / "index", rows(50)) as index:
        assert in_fork(lambda: index.search(rows(2), 3, workers=1)) == ""


def test_the_lock_goes_with_the_process_that_took_it(tmp_path: Path) -> None:
    """A fork that lives on - a worker of a data loader, say - neither frees it before nor keeps it after."""
    code = (
        "import os, sys, time, numpy as np\n"
        "from nestling.search.index.index import AdaptiveIndex\n"
        f"index = AdaptiveIndex.create({str(tmp_path / 'index')!r}, np.eye(8, dtype='f4'))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    index.close(); time.sleep(60); os._exit(0)\n"
        "print(child, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            time.sleep(0.5)  # for the fork to close it
            with pytest.raises(StorageError, match=f"by process {parent.pid}"):
                AdaptiveIndex.open(tmp_path / "index")
            parent.kill()
            parent.wait()
            AdaptiveIndex.open(tmp_path / "index").close()
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_temporary_copy_outlives_a_fork(tmp_path: Path) -> None:
    with AdaptiveIndex.create(tmp_path / "index", rows(50), nesting="dim=4,8") as index:
        small = index.extract("dim=4")
        assert in_fork(small.close) == ""
        assert small.folder.exists()
        small.add(rows(1, 9)[:, :4])
        small.close()
        assert not small.folder.exists()


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    with AdaptiveIndex.create(tmp_path / "index", rows(50)):
        begun = time.monotonic()
        with pytest.raises(StorageError, match=r"after 0\.3 seconds, by process"):
            AdaptiveIndex.open(tmp_path / "index", wait=0.3)
        assert 0.3 <= time.monotonic() - begun < 5
    code = (
        "import sys, time; from pathlib import Path; from nestling.storage.lock import WriterLock\n"
        f"lock = WriterLock(Path({str(tmp_path / 'index')!r})); print('held', flush=True)\n"
        "time.sleep(1)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        AdaptiveIndex.open(tmp_path / "index", wait=30).close()
    for wait in (-1, float("nan"), float("inf"), "5", True):
        with pytest.raises(ConfigError, match=r"wait=.* must be"):
            AdaptiveIndex.open(tmp_path / "index", wait=wait)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL", "EIO"])
def test_a_file_system_without_locks_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AdaptiveIndex.create(tmp_path / "index", rows(50)).close()
    number = getattr(errno, name)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks, "_lock", fail)
    descriptors = open_files()
    for act in (
        lambda: AdaptiveIndex.open(tmp_path / "index"),
        lambda: AdaptiveIndex.create(tmp_path / "new", rows(5)),
        lambda: encoded(TextEncoder.open("wordllama"), ["a"], tmp_path / "v").__enter__(),
    ):
        with pytest.raises(StorageError, match=r"file system without locks .*another disk"):
            act()
    assert open_files() == descriptors
    assert len(AdaptiveIndex.open(tmp_path / "index", read_only=True)) == 50


@pytest.mark.parametrize("name", ["EAGAIN", "EACCES"])
def test_what_is_held_is_named_so(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a lock is held, some systems report a missing permission."""
    number = getattr(errno, name)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(locks, "_lock", fail)
    with pytest.raises(StorageError, match="open for writing already"):
        WriterLock(tmp_path)
