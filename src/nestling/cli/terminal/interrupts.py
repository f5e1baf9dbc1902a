"""Ctrl-C, and SIGTERM as schedulers send it: a command ends with one line that says what was kept."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nestling.cli.terminal.output import say

# True also where an earlier run left something that this one would have gone on with.
_NOTHING = "nothing of this run was kept; repeat it to begin it again"


@contextmanager
def interruptible(in_flags: Callable[[str], str]) -> Iterator[None]:
    """Ends the program with 130 on Ctrl-C, and 143 on SIGTERM, as shells do; work stops as on Ctrl-C.

    Args:
        in_flags: puts what the library says into the words of the command.
    """
    by = signal.SIGINT

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal by
        by = signal.SIGTERM
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(on_ctrl_c):  # a shell starts what runs in the background without it
            raise KeyboardInterrupt
        on_ctrl_c(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        stopped = _interrupt_behind(end)
        if stopped is None:
            raise
        say(f"interrupted: {in_flags(told(stopped))}")
        sys.exit(128 + by)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def kept_training(folder: Path) -> Iterator[None]:
    """Ctrl-C around the steps of a training says what is kept of them; in the steps it tells itself."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if not stopped.args and any(folder.glob("checkpoints/step-*")):
            stopped.add_note(f"what was trained is kept in {folder}; repeat it to go on from there")
        raise


def told(stopped: KeyboardInterrupt) -> str:
    """What was kept, in one line, the innermost work first."""
    notes = [*map(str, stopped.args), *getattr(stopped, "__notes__", ())]
    return ". ".join(" ".join(note.split()) for note in notes) or _NOTHING


def _interrupt_behind(end: BaseException | None) -> KeyboardInterrupt | None:
    """Typer ends the program with 130 itself, and keeps the interrupt as the cause."""
    if isinstance(end, SystemExit) and end.code != 128 + signal.SIGINT:
        return None
    while end is not None and not isinstance(end, KeyboardInterrupt):
        end = end.__cause__ or end.__context__
    return end
