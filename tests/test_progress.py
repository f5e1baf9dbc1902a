"""Long work is seen: by bars on a terminal, by a log elsewhere, and not at all where nobody listens."""

from __future__ import annotations

import logging
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nestling
from nestling.process import progress
from nestling.process.progress import Progress, watched


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of hundredths of a second in place of seconds."""
    for name, seconds in (("UNTIL_A_BAR", 0.05), ("BETWEEN_LINES", 0.1), ("BETWEEN_LOOKS", 0.01)):
        monkeypatch.setattr(progress, f"_SECONDS_{name}", seconds)
    monkeypatch.setattr(progress, "_screen", progress._Screen())


@pytest.fixture
def lines(fast: None, caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Lines of the log."""
    with caplog.at_level(logging.INFO, logger="nestling"):
        yield caplog.messages


def test_counted_work_tells_rate_and_remaining_time(
    lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Progress("encoding", 60_000, "texts") as shown:
        shown.update(12_000)
        time.sleep(0.35)
    first = caplog.messages[0]
    assert re.fullmatch(r"encoding 12,000 of 60,000 texts \(20 %\), [\d,]+/s, \d+ s left", first)
    assert 2 <= len(caplog.messages) <= 4


def test_work_that_cannot_count_is_seen_too(lines: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with Progress("learning the code"):
        time.sleep(0.25)
    assert caplog.messages[0] == "learning the code: 1 s so far"


def test_inner_work_is_told_with_where_the_outer_stands(
    lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with Progress("working"), Progress("planning", 3, "plans") as outer:
        outer.update()
        outer.note("flat@full")
        for _ in watched(range(4), "coding", "blocks"):
            time.sleep(0.1)
    assert caplog.messages[-1].startswith("planning 1 of 3 plans, flat@full: coding ")


def test_short_stages_in_a_row_are_told_in_one_rhythm(
    lines: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Each is shorter than the time between lines; all of them are not."""
    for stage in range(20):
        with Progress(f"stage {stage}"):
            time.sleep(0.02)
    assert caplog.messages


def test_short_work_says_nothing(lines: list[str], caplog: pytest.LogCaptureFixture) -> None:
    for _ in watched(range(3), "searching", "blocks"):
        pass
    time.sleep(0.2)
    assert caplog.messages == []


def test_parts_count_for_the_whole() -> None:
    with Progress("encoding", 10, "texts") as whole:
        with whole.part(4), Progress("encoding", 4, "texts") as part:
            part.update(3)
            assert (part.done, whole.done) == (3, 3)
        assert whole.done == 4
        with whole.part(6), Progress("reading", 100, "bytes") as other:
            other.update(50)
            assert whole.done == 4, "bytes are no texts"
        assert whole.done == 10
        with Progress("encoding", 5, "texts") as apart:
            apart.update(5)
        assert whole.done == 10


@pytest.mark.usefixtures("fast")
def test_nobody_listens_and_nothing_runs(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="nestling"), Progress("encoding", 10, "texts"):
        assert progress._screen._thread is None


def test_the_thread_ends_when_nothing_is_left(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SECONDS_UNTIL_THE_THREAD_ENDS", 0.05)
    with Progress("encoding"):
        watching = progress._screen._thread
        assert watching is not None
    watching.join(5)
    assert not watching.is_alive()
    with Progress("encoding"):
        assert progress._screen._thread is not None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_shows_nothing_of_its_parent(lines: list[str]) -> None:
    with Progress("encoding", 10, "texts") as shown:
        child = os.fork()
        if child == 0:
            shown.__exit__()
            os._exit(0 if progress._screen._open == [] else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert progress._screen._open == [shown]


ENCODING = """
import sys, time
from nestling.process import progress
progress._SECONDS_UNTIL_A_BAR, progress._SECONDS_BETWEEN_LOOKS = 0.2, 0.05
with progress.Progress("encoding", 40, "texts") as shown:
    for place in range(40):
        time.sleep(0.03)
        shown.update()
        if place == 20:
            progress.clear()
            print("in between", file=sys.stderr, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pty is of Unix")
def test_a_terminal_shows_a_bar_and_is_clean_afterwards() -> None:
    import pty

    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", ENCODING], stderr=theirs, stdout=theirs, stdin=theirs):
        os.close(theirs)
        shown = b""
        while select.select([ours], [], [], 30)[0]:
            try:
                read = os.read(ours, 4096)
            except OSError:  # Linux says so when the other end is closed
                break
            if not read:
                break
            shown += read
    os.close(ours)
    text = shown.decode()
    assert re.search(r"encoding: +\d+%.*\d+/40 \[.*<.*texts/s\]", text)
    assert re.search(r"\r +\rin between", text), "the bar gives way to what is printed"
    last = text.rsplit("\r", 2)
    assert last[-1].strip() == "", "nothing of the bar is left"


def test_no_room_shows_progress_in_another_way() -> None:
    sources = Path(nestling.__file__).parent.rglob("*.py")
    users = [path.name for path in sources if "tqdm" in path.read_text(encoding="utf-8")]
    assert users == ["progress.py"]
