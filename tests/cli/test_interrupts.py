"""Ctrl-C in each long command: one line that says what was kept, exit code 130, and nothing half-written."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nestling.domains.text.collection import Collection
from nestling.encoders.text.opening import open_encoder
from nestling.search.index.index import AdaptiveIndex

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
SECONDS = 120
NOTHING = "nothing of this run was kept; run it again to start over"

# The commands themselves, with lines of progress every fifth of a second, and parts small enough for a test.
PROGRAM = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.{handler})
from nestling.process import progress
progress._SECONDS_BETWEEN_LINES, progress._SECONDS_BETWEEN_LOOKS = 0.2, 0.05
{more}
from nestling.cli import main
main()
"""
SMALL_PARTS = "from nestling.domains.text import encoding; encoding._TEXTS_AT_A_TIME = 64"
SLOW_TABLE = """
from nestling.search.stores.lance.table import LanceTable
add = LanceTable.upsert
LanceTable.upsert = lambda *given: (time.sleep(0.3), add(*given))
"""

SLOW_EXTRACT = """
from nestling.encoders.text.static.encoder import StaticEncoder
extract = StaticEncoder.extract
StaticEncoder.extract = lambda *given: (time.sleep(1), extract(*given))[1]
"""
SLOW_DELETE = """
from nestling.search.index.index import AdaptiveIndex
delete = AdaptiveIndex.delete
AdaptiveIndex.delete = lambda *given, **more: (time.sleep(9), delete(*given, **more))[1]
"""
SLOW_TUNE = """
from nestling.search.tuning import planner
retune = planner.retune
planner.retune = lambda *given, **more: (time.sleep(9), retune(*given, **more))[1]
"""
SLOW_INDEX = """
from nestling.search.stores.database import DatabaseStore
DatabaseStore.optimize = lambda self: time.sleep(30)
"""


@dataclass(frozen=True)
class Ended:
    """End of a command: its exit code, and the last line of its messages."""

    code: int
    last: str


def interrupted(
    python: str,
    arguments: list[object],
    when: str,
    *,
    more: str = "",
    by: signal.Signals = signal.SIGINT,
    handler: str = "default_int_handler",
) -> Ended:
    """A command that is sent a signal as soon as a line of its talk matches ``when``."""
    program = PROGRAM.format(more=more, handler=handler)
    command = [python, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        watchdog = threading.Timer(SECONDS, process.kill)
        watchdog.start()
        assert process.stderr is not None
        lines, is_sent = list[str](), False
        for line in process.stderr:
            lines.append(line)
            if re.search(when, line) and not is_sent:
                process.send_signal(by)
                is_sent = True
        watchdog.cancel()
    assert is_sent, f"it ended before it could be interrupted: {''.join(lines)}"
    return Ended(process.returncode, lines[-1].strip())


IMPORTING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from nestling.__main__ import main

class Told:
    def find_spec(name, *_):
        if name in ("nestling.cli", "torch"):
            print(name, flush=True)

sys.meta_path.insert(0, Told)
main()
"""


@pytest.mark.parametrize("step", [80, pytest.param(20, marks=pytest.mark.slow)])
def test_at_any_moment_of_the_imports(step: int, tmp_path: Path) -> None:
    """Of the command line itself, then of torch: in a quarter of a second of each, every ``step`` ms."""
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,document\n" + "\n".join(f"day {n},the day number {n}" for n in range(99)))
    train = ["train", "--pairs", str(pairs), "--encoder", "wordllama", "--max-steps", "1000000000"]
    told = set[str]()
    for begun, moment in itertools.product((1, 2), range(0, 250, step)):
        command = [sys.executable, "-c", IMPORTING, *train, "--folder", str(tmp_path / "run")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(begun):
                process.stdout.readline()
            time.sleep(moment / 1000)
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=SECONDS)[1]
        assert (process.returncode, said.count("\n")) == (130, 1), said
        told.add(said)
    assert told == {f"nestling: interrupted: {words}\n" for words in ("nothing was begun", NOTHING)}


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npy"
    np.save(path, np.random.default_rng(0).normal(size=(30_000, 64)).astype(np.float32))
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(f"the day number {n} of a long year {'la ' * 40}" for n in range(30_000)))
    return path


@pytest.mark.parametrize(
    ("by", "handler", "code"),
    [
        (signal.SIGINT, "default_int_handler", 130),
        (signal.SIGTERM, "SIG_IGN", 143),
    ],
    ids=["ctrl-c", "terminated in the background"],
)
def test_encode(
    python: str,
    by: signal.Signals,
    handler: str,
    code: int,
    texts: Path,
    tiny_bert_folder: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out.npy"
    arguments = ["encode", tiny_bert_folder, texts, "-o", out, "--batch-size", 16]
    ended = interrupted(
        python, arguments, r"encoding .*\([1-9]\d %\)", more=SMALL_PARTS, by=by, handler=handler
    )
    assert ended.code == code
    kept = tmp_path / ".out.npy.encoding"
    assert ended.last.startswith("nestling: interrupted: ")
    assert ended.last.endswith(f" of 30,000 texts are encoded and kept in {kept}; run it again to resume")
    assert (kept / "progress.json").is_file()
    assert not out.exists()


def test_train(python: str, texts: Path, tiny_bert_folder: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("query,document\n" + "\n".join(f"day {n},the day number {n}" for n in range(2000)))
    arguments = ["train", "--pairs", pairs, "--encoder", tiny_bert_folder, "--tune", "encoder", "--nesting"]
    arguments += ["dim=16,32", "--folder", tmp_path / "run", "--batch-size", 8, "--epochs", 50]
    ended = interrupted(python, arguments, "0 of ", more="")
    assert ended.code == 130
    assert "nestling: interrupted: " in ended.last
    assert "run it again to resume from there" in ended.last or "start over" in ended.last


def test_index_build_and_compact(python: str, vectors: Path, tmp_path: Path) -> None:
    plan = ["--plan", "hnsw32@full > int8@full"]
    built = interrupted(python, ["index", "build", vectors, "-o", tmp_path / "index", *plan], "linking")
    assert built.code == 130
    words = f"the finished part of the index is kept in {tmp_path / 'index'}; run it again to resume"
    assert built.last == f"nestling: interrupted: {words}"
    assert not (tmp_path / "index" / "nestling.json").exists()
    AdaptiveIndex.create(
        tmp_path / "other", plan="hnsw32@full > int8@full", dim=64, log_bytes=1 << 30
    ).close()
    with AdaptiveIndex.open(tmp_path / "other", log_bytes=1 << 30) as index:
        index.add(np.load(vectors))
    compacted = interrupted(python, ["index", "compact", tmp_path / "other"], "linking")
    words = f"the index {tmp_path / 'other'} is as it was; run it again to resume"
    assert compacted == Ended(130, f"nestling: interrupted: {words}")
    with AdaptiveIndex.open(tmp_path / "other", read_only=True) as index:
        assert index.verify().rows == 30_000


@dataclass(frozen=True)
class Case:
    """A command, what its talk says when it is interrupted, and what it says and leaves then."""

    command: str
    when: str
    told: str
    left: tuple[str, ...] = ()
    more: str = ""

    def __str__(self) -> str:
        return self.command


DAYS, ROWS = 3000, 40_000
AS_IT_WAS = f"({NOTHING}|the index copy/index is as it was; run it again to .*)"
CASES = [
    Case("bench vectors.npy -o report", "planning on", NOTHING),
    Case("sweep vectors.npy --queries vectors.npy -o report", "scoring", NOTHING),
    Case("compare vectors.npy others.npy --limit 1500 --resamples 2000 -o report", "resampling", NOTHING),
    Case("extract wordllama --at dim=64 -o small", "working", NOTHING, more=SLOW_EXTRACT),
    Case("reproduce trsa --quick -o report", "measuring claims", NOTHING),
    Case(
        "train --scored scored.csv --encoder wordllama --tune encoder --nesting dim=64,256 --folder run",
        "training",
        r"training stopped after step \d+ of \d+\. (No checkpoint was written yet; run it again to start over"
        r"|Step \d+ is kept in run; run it again to resume from there)",
        ("run",),
    ),
    Case(
        "demo --pairs pairs.csv --output made",
        "3 of 5: measuring",
        "the trained steps are kept in made/training; run it again to resume from there",
        ("made",),
        "import nestling.cli.demo; nestling.cli.demo._TRAINING.update(epochs=1)",
    ),
    Case("index add texts more.csv", "encoding", NOTHING),
    Case("index update texts more.csv", "encoding", NOTHING),
    Case(
        "index delete texts --table more.csv",
        "working|comparing ids",
        AS_IT_WAS,
        more=SLOW_DELETE,
    ),
    Case("index tune texts", "working", AS_IT_WAS, more=SLOW_TUNE),
]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with vectors, tables and a collection, in which commands are called."""
    folder = tmp_path_factory.mktemp("desk")
    for seed, name in enumerate(("vectors", "others")):
        values = np.random.default_rng(seed).normal(size=(30_000, 64)).astype(np.float32)
        np.save(folder / f"{name}.npy", values)
    days = [f"day number {n},the day {n} of a long year" for n in range(DAYS)]
    (folder / "pairs.csv").write_text("query,document\n" + "\n".join(days))
    scored = [f"{day},{n % 5}" for n, day in enumerate(days)]
    (folder / "scored.csv").write_text("sentence1,sentence2,score\n" + "\n".join(scored))
    words = [
        "night",
        "morning",
        "river",
        "mountain",
        "window",
        "silver",
        "quiet",
        "music",
        "letter",
        "garden",
        "stone",
        "winter",
    ]
    picked = np.random.default_rng(0).choice(words, (ROWS, 6))
    more = [f"{n},{' '.join(row)} of the year {n}" for n, row in enumerate(picked)]
    (folder / "more.csv").write_text("id,text\n" + "\n".join(more))
    encoder = open_encoder("wordllama").extract("dim=64")
    Collection.create(folder / "texts", encoder, days, list(range(len(days))), plan="flat@full").close()
    return folder


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_command_ends_in_one_line_and_leaves_nothing_half_written(
    python: str, case: Case, desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk)
    before = {path.name for path in desk.iterdir()}
    command: list[object] = list(case.command.split())
    if command[0] == "index":  # the same for each, whatever ends first
        shutil.copytree("texts", "copy")
        command[2] = "copy"
    try:
        ended = interrupted(python, command, case.when, more=case.more)
        left = {path.name for path in desk.iterdir()} - before - {"copy"}
        assert ended.code == 130
        assert re.fullmatch(f"nestling: interrupted: {case.told}", ended.last)
        assert left == set(case.left)
        if command[0] == "index":
            with Collection.open("copy") as texts:
                assert len(texts) == DAYS
                texts.index.verify()
    finally:
        for name in ("copy", *case.left):
            shutil.rmtree(name, ignore_errors=True)


OFTEN_COPIED = """
from nestling.storage import resumable
resumable._SECONDS_BETWEEN_COPIES = 0.0
"""
BEGUN = """
from nestling.search.stages.kinds import graph
grow = graph.grow_links
def grown(*given):
    assert given[6] is not None, "it begins again"
    return grow(*given)
graph.grow_links = grown
"""


def test_a_collection_keeps_the_vectors_and_what_was_built(python: str, desk: Path, tmp_path: Path) -> None:
    build = ["index", "build", desk / "more.csv", "--encoder", "wordllama", "--at", "dim=64", "-o"]
    build += [tmp_path / "made", "--plan", "graph32@full > rerank@full"]
    ended = interrupted(python, build, "linking [1-9]", more=OFTEN_COPIED)
    words = f"the finished part of the index is kept in {tmp_path / 'made' / 'index'}; run it again to resume"
    assert ended.code == 130
    assert ended.last.startswith(
        f"nestling: interrupted: {words}. {ROWS:,} of {ROWS:,} texts are encoded and "
    )
    again = [
        python,
        "-c",
        PROGRAM.format(more=BEGUN, handler="default_int_handler"),
        *map(str, build),
    ]
    done = subprocess.run(again, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert "encoding" not in done.stderr
    with Collection.open(tmp_path / "made") as made:
        assert len(made) == ROWS
        assert made.search(made.index.fields_of([77])[0]["text"], k=1)[0].id == 77


def test_index_export(python: str, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    vectors = np.random.default_rng(0).normal(size=(30_000, 16)).astype(np.float32)
    AdaptiveIndex.create(tmp_path / "index", vectors).close()
    url = f"lancedb://{tmp_path}/vectors/items"
    ended = interrupted(
        python,
        ["index", "export", tmp_path / "index", "--to", url],
        r"000 of 30,000 rows \(",
        more=SLOW_TABLE,
    )
    assert ended.code == 130
    assert ended.last.endswith("of 30,000 rows are copied; run it again to resume")


def test_index_export_while_the_database_builds_its_index(python: str, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    AdaptiveIndex.create(tmp_path / "index", np.eye(400, 16, dtype=np.float32) + 0.1).close()
    url = f"lancedb://{tmp_path}/vectors/items"
    ended = interrupted(
        python, ["index", "export", tmp_path / "index", "--to", url], "building", more=SLOW_INDEX
    )
    assert ended == Ended(130, "nestling: interrupted: 400 of 400 rows are copied; run it again to resume")


def test_a_command_that_ends_by_itself_says_nothing_of_interrupts(python: str, tmp_path: Path) -> None:
    program = PROGRAM.format(more="", handler="default_int_handler")
    done = subprocess.run(
        [python, "-c", program, "index", "info", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert "interrupted" not in done.stderr
