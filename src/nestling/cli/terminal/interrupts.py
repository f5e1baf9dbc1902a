"""Ctrl-C, and SIGTERM as schedulers send it: a command ends with one line that says what was kept."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from nestling.cli.terminal.output import say

# True also where an earlier run left something that this one would have resumed from.
_NOTHING = "nothing of this run was kept; run it again to start over"


@contextmanager
def interruptible(in_flags: Callable[[str], str]) -> Iterator[None]:
    """End the program with 130 on Ctrl-C and 143 on SIGTERM, as shells do; both stop the work alike.

    Args:
        in_flags: puts a message of the library into the words of the command.
    """
    by = signal.SIGINT

    def terminate(number: int, frame: FrameType | None) -> None:
        nonlocal by
        by = signal.SIGTERM
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        if not callable(on_ctrl_c):  # a shell ignores it for jobs in the background
            raise KeyboardInterrupt
        on_ctrl_c(signal.SIGINT, frame)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as end:
        stopped = _interrupt_behind(end)
        if stopped is None:
            raise
        say(f"interrupted: {in_flags(_in_one_line(stopped))}")
        sys.exit(128 + by)
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def kept_training(folder: Path) -> Iterator[None]:
    """On Ctrl-C after the training steps, say that they are kept; during them the loop says it."""
    try:
        yield
    except KeyboardInterrupt as stopped:
        if not stopped.args and any(folder.glob("checkpoints/step-*")):
            stopped.add_note(f"the trained steps are kept in {folder}; run it again to resume from there")
        raise


def _in_one_line(stopped: KeyboardInterrupt) -> str:
    """The work that was kept, the innermost first."""
    notes = [*map(str, stopped.args), *getattr(stopped, "__notes__", ())]
    return ". ".join(" ".join(note.split()) for note in notes) or _NOTHING


def _interrupt_behind(end: BaseException | None) -> KeyboardInterrupt | None:
    """The interrupt itself: typer turns it into an exit with 130, and keeps it as the cause."""
    if isinstance(end, SystemExit) and end.code != 128 + signal.SIGINT:
        return None
    while end is not None and not isinstance(end, KeyboardInterrupt):
        end = end.__cause__ or end.__context__
    return end
