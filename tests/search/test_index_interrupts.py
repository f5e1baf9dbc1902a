"""Ctrl-C, or another exception, at any line of a change: memory and disk agree, and what is said is true."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from nestling.errors import ArtifactError
from nestling.process.interrupts import held_interrupts, on_interrupt
from nestling.search.index import writer
from nestling.search.index.files import wal as log
from nestling.search.index.index import AdaptiveIndex
from nestling.storage.durable import write_all

DIM, ROWS, FILES = 8, 12, (writer.__file__, log.__file__)
DATA = np.random.default_rng(0).normal(size=(ROWS + 40, DIM)).astype(np.float32)
# Calls that change the disk and memory, or repair them; a break elsewhere comes before or after these.
SECTIONS = {
    *("_append", "_commit", "_in_one", "_interrupts_told", "_changing"),  # of the writer
    *("append", "_write_mark", "_restore"),  # of the log
}
CHANGES: dict[str, Callable[[AdaptiveIndex], object]] = {
    "add": lambda index: index.add(DATA[ROWS : ROWS + 2], [100, 101], {"n": [1, 2]}),
    "add of a large batch": lambda index: index.add(DATA[ROWS:], range(200, 240), {"n": [0] * 40}),
    "update": lambda index: index.update(DATA[:1] + 1, [3], {"n": [33]}),
    "delete": lambda index: index.delete([5, 102]),
    "flush": lambda index: index.flush(),
}
NEXT: list[Callable[[AdaptiveIndex], object]] = [
    lambda index: index.flush(),
    lambda index: index.compact(),
    lambda index: index.add(DATA[:1], [900], {"n": [9]}),
    lambda index: index.delete([900], missing_ok=True),
]


def rows_of(index: AdaptiveIndex) -> dict[Any, tuple[bytes, Any]]:
    """All of an index: vector and field of each row."""
    rows = index._state.snapshot.rows()
    vectors = np.concatenate([np.zeros((0, DIM), np.float32), *rows.blocks])
    fields = [record["n"] for part in rows.fields for record in part.records()]
    pairs = zip(vectors, fields, strict=True)
    return {name: (vector.tobytes(), n) for name, (vector, n) in zip(rows.ids.tolist(), pairs, strict=True)}


def on_disk(folder: Path) -> dict[Any, tuple[bytes, Any]]:
    with AdaptiveIndex.open(folder, read_only=True) as index:
        return rows_of(index)


def begun(folder: Path) -> AdaptiveIndex:
    index = AdaptiveIndex.create(
        folder, DATA[:ROWS], fields={"n": list(range(ROWS))}, nesting="dim=4,8", log_bytes=1000
    )
    index.add(DATA[:1], [102], {"n": [102]})
    return index


class Breaking:
    """Raises an exception at the ``at``-th line of what changes an index."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error, self.count = at, error, 0

    def __call__(self, frame: FrameType, event: str, _: object) -> Breaking | None:
        if frame.f_code.co_filename not in FILES:
            return None
        if frame.f_code.co_name not in SECTIONS:
            return self
        if event == "line":
            self.count += 1
            if self.count == self.at + 1:
                raise self.error
        return self


def broken(index: AdaptiveIndex, change: str, at: int, error: BaseException) -> bool:
    """Whether the change was broken off; its exception is then that one."""
    before, on_ctrl_c = sys.gettrace(), signal.getsignal(signal.SIGINT)
    sys.settrace(Breaking(at, error))
    try:
        CHANGES[change](index)
    except BaseException as raised:
        sys.settrace(before)
        if raised is not error:
            raise
        return True
    finally:
        sys.settrace(before)
        signal.signal(signal.SIGINT, on_ctrl_c)
    return False


@pytest.mark.parametrize(
    ("change", "kind"),
    [*((change, KeyboardInterrupt) for change in CHANGES), ("add", MemoryError)],
)
@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)], ids=["some", "all"])
def test_a_change_broken_off_at_any_line_is_there_whole_or_not_at_all(
    tmp_path: Path, change: str, kind: type[BaseException], every: int
) -> None:
    """At one line of ``every``; what is done with the index afterwards varies from line to line."""
    template = tmp_path / "template"
    begun(template).close()
    before = on_disk(template)
    with AdaptiveIndex.open(shutil.copytree(template, tmp_path / "whole"), log_bytes=1000) as index:
        CHANGES[change](index)
        after = rows_of(index)
    at, seen = 0, set[bool]()
    while True:
        folder = shutil.copytree(template, tmp_path / str(at))
        error = kind()
        with AdaptiveIndex.open(folder, log_bytes=1000) as index:
            if not broken(index, change, at, error):
                break
            there = on_disk(folder)
            assert there in (before, after), at
            seen.add(there == after)
            if before != after:
                notes = " ".join(getattr(error, "__notes__", ()))
                assert ("as it was" not in notes) or there == before, at
                assert ("is in the index" not in notes) or there == after, at
            NEXT[at % len(NEXT)](index)
            there.update({900: (DATA[0].tobytes(), 9)} if at % len(NEXT) == 2 else {})
            assert rows_of(index) == on_disk(folder) == there, at
        assert on_disk(folder) == there, at
        shutil.rmtree(folder)
        at += every
    assert at > 20
    assert seen == {True, False} or before == after


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent in another way there")
@pytest.mark.parametrize(
    ("change", "function"),
    [
        ("add", "write_all"),
        ("update", "write_all"),
        ("delete", "write_all"),
        ("add of a large batch", "commit_manifest"),
    ],
)
def test_ctrl_c_waits_for_the_change_and_says_that_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, function: str
) -> None:
    index = begun(tmp_path / "index")
    module, real = (log, write_all) if function == "write_all" else (writer, writer.commit_manifest)

    presses = iter([signal.SIGINT])

    def pressed(*given: Any) -> None:
        for press in presses:
            signal.raise_signal(press)
        real(*given)

    monkeypatch.setattr(module, function, pressed)
    with pytest.raises(KeyboardInterrupt) as stopped:
        CHANGES[change](index)
    monkeypatch.undo()
    assert stopped.value.__notes__ == [
        f"the change is in the index {index.folder}; there is nothing to repeat"
    ]
    held = rows_of(index)
    assert held == on_disk(index.folder)
    index.compact()
    index.close()
    assert on_disk(tmp_path / "index") == held


def test_a_folder_that_cannot_be_read_is_said_and_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = begun(tmp_path / "index")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def unreadable(*_: object) -> None:
        raise ArtifactError("a cable is out")

    monkeypatch.setattr(writer, "apply", interrupted)
    monkeypatch.setattr(writer, "load", unreadable)
    with pytest.raises(KeyboardInterrupt) as stopped:
        CHANGES["add"](index)
    assert stopped.value.__notes__ == [
        f"whether the change is in the index {index.folder} cannot be read now: a cable is out"
    ]
    with pytest.raises(ArtifactError, match="a cable is out"):
        index.flush()
    monkeypatch.undo()
    index.flush()
    assert 100 in index
    assert rows_of(index) == on_disk(index.folder)


def test_held_interrupts_come_at_the_end_or_at_the_second_press() -> None:
    done: list[int] = []

    def press(times: int, then: BaseException | None = None) -> None:
        with held_interrupts():
            for time in range(times):
                signal.raise_signal(signal.SIGINT)
                done.append(time)
            if then is not None:
                raise then

    with pytest.raises(KeyboardInterrupt):
        press(1)
    with pytest.raises(KeyboardInterrupt):
        press(2)
    with pytest.raises(KeyboardInterrupt):
        press(1, ValueError("a failure does not swallow it"))
    assert done == [0, 0, 0]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_press_does_not_keep_the_first_from_being_told() -> None:
    def told() -> str:
        signal.raise_signal(signal.SIGINT)
        return "kept"

    with pytest.raises(KeyboardInterrupt) as stopped, on_interrupt(told):
        raise KeyboardInterrupt
    assert stopped.value.__notes__ == ["kept"]
