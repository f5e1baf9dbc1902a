"""Progress of long work: bars on a terminal, elsewhere lines of the logger ``nestling``.

The work only counts; a thread of its own displays the counts twice a second. So counting costs nothing, and
work that cannot count, such as the training of a library, is seen to run too.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, Self, TypeVar

_SECONDS_UNTIL_A_BAR = 2.0
_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_BETWEEN_LOOKS = 0.5
# Work that begins this soon after other work continues it: lines keep their interval.
_SECONDS_OF_A_PAUSE = 2.0
_SECONDS_UNTIL_THE_THREAD_ENDS = 10.0

_MOST_BARS = 8

_log = logging.getLogger("nestling")
Item = TypeVar("Item")


class Progress:
    """Work inside of ``with``, and how much of it is done.

    On a terminal, a bar with rate and remaining time appears after two seconds. Elsewhere the logger
    ``nestling`` gets a line every ten seconds, at the level ``INFO``.

    Args:
        what: the work, such as ``"encoding"`` or ``"learning the code"``.
        total: amount of work; None if that is unknown or cannot be counted.
        unit: of the counts, in the plural.
        done: amount done before.

    Attributes:
        done: amount done by now.

    >>> with Progress("encoding", 60, "texts") as progress:
    ...     progress.update(12)
    ...     progress.line(seconds=2)
    'encoding 12 of 60 texts (20 %), 6/s, 8 s left'
    """

    def __init__(self, what: str, total: int | None = None, unit: str = "", *, done: int = 0) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, done
        self._before, self._note = done, ""
        self._whole: Progress | None = None  # the work that this is a part of
        self._takes_parts = False
        self.begun = 0.0
        self._bar: Any = None

    def update(self, count: int = 1) -> None:
        """Add to what is done."""
        self.done += count
        if self._whole is not None:
            self._whole.update(count)

    def note(self, text: str) -> None:
        """Show a text beside the counts, such as the loss."""
        self._note = text

    @contextmanager
    def part(self, count: int) -> Iterator[None]:
        """A part of the work that may count by itself: progress of the same unit inside adds to this one."""
        end, self._takes_parts = self.done + count, True
        try:
            yield
        finally:
            self._takes_parts = False
        self.update(end - self.done)

    @property
    def is_uncounted(self) -> bool:
        """Whether nothing is known but that it runs."""
        return not self.done and self.total is None

    @property
    def place(self) -> str:
        """The work done, without a rate."""
        of = "" if self.total is None else f" of {self.total:,}"
        return f"{self.what} {self.done:,}{of} {self.unit}"

    @property
    def place_and_note(self) -> str:
        """The work done, and the note."""
        return f"{self.place}, {self._note}" if self._note else self.place

    def line(self, seconds: float) -> str:
        """The work done after ``seconds``, with rate and remaining time."""
        if self.is_uncounted:
            return f"{self.what}: {_duration(seconds)} so far"
        rate = (self.done - self._before) / max(seconds, 1e-9)
        parts = [self.place]
        if self.total:
            parts[0] += f" ({100 * self.done / self.total:.0f} %)"
        if rate:
            parts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
            if self.total is not None:
                parts.append(f"{_duration((self.total - self.done) / rate)} left")
        return ", ".join([*parts, self._note] if self._note else parts)

    def __enter__(self) -> Self:
        self.begun = time.monotonic()
        _screen.open(self)
        return self

    def __exit__(self, *_: object) -> None:
        _screen.close(self)


def watched(items: Iterable[Item], what: str, unit: str, total: int | None = None) -> Iterator[Item]:
    """Iterate over ``items`` and show progress."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(what, total, unit) as progress:
        for item in items:
            yield item
            progress.update()


class _Screen:
    """Displays all open progress from one thread, which outlives the last of it by some seconds.

    Short work, such as single searches, comes by the thousand and must not start a thread each time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Progress] = []
        self._thread: threading.Thread | None = None
        self._last_line = self._last_close = 0.0

    def open(self, progress: Progress) -> None:
        with self._lock:
            whole = self._open[-1] if self._open else None
            if whole is not None and whole._takes_parts and whole.unit == progress.unit:
                progress._whole = whole
                return
            if not self._open and progress.begun - self._last_close > _SECONDS_OF_A_PAUSE:
                self._last_line = progress.begun
            self._open.append(progress)
            if self._thread is None and (_on_terminal() or _log.isEnabledFor(logging.INFO)):
                self._thread = threading.Thread(target=self._watch, name="nestling progress", daemon=True)
                self._thread.start()

    def close(self, progress: Progress) -> None:
        with self._lock:
            if progress not in self._open:  # it is a part of another, or this is a fork
                return
            self._open.remove(progress)
            self._last_close = time.monotonic()
            if progress._bar is not None:
                progress._bar.close()
                progress._bar = None

    def _watch(self) -> None:
        while True:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
            with self._lock:
                now = time.monotonic()
                if not self._open and now - self._last_close > _SECONDS_UNTIL_THE_THREAD_ENDS:
                    self._thread = None
                    return
                if _on_terminal():
                    self._draw(now)
                    continue
                if not self._open or now - self._last_line < _SECONDS_BETWEEN_LINES:
                    continue
                self._last_line, (*around, newest) = now, self._open
                places = [each.place_and_note for each in around if not each.is_uncounted]
                line = ": ".join([*places, newest.line(now - newest.begun)])
            _log.info("%s", line)  # outside of the lock: whoever handles it may do anything

    def _draw(self, now: float) -> None:
        for progress in self._open:
            if now - progress.begun < _SECONDS_UNTIL_A_BAR or (
                progress.is_uncounted and progress is not self._open[-1]
            ):
                continue
            if progress._bar is None:
                progress._bar = _bar(progress)
            bar = progress._bar
            bar.ncols = _width()
            bar.set_postfix_str(progress._note, refresh=False)
            bar.update(progress.done - bar.n)
            bar.refresh()

    def clear(self) -> None:
        with self._lock:
            for progress in self._open:
                if progress._bar is not None:
                    progress._bar.clear()

    def forget(self) -> None:
        """A fork has no thread, and the open progress is that of its parent."""
        self.__init__()  # type: ignore[misc]


def clear() -> None:
    """Hide the bars, so that something can be printed; they are drawn again soon."""
    _screen.clear()


def _bar(progress: Progress) -> Any:
    from tqdm import tqdm

    bar = tqdm(
        total=progress.total,
        initial=progress._before,
        desc=progress.what,
        unit=f" {progress.unit}",
        leave=False,
        mininterval=0,
        file=sys.stderr,
        ncols=_width(),
        nrows=_MOST_BARS,
        bar_format="{desc}: {elapsed}" if progress.total is None and not progress.unit else None,
    )
    bar.start_t -= time.monotonic() - progress.begun
    bar.last_print_t = bar.start_t  # it begins to count late
    return bar


def _width() -> int:
    """Width of the terminal; 80 columns if it is unknown."""
    try:
        return (os.get_terminal_size(sys.stderr.fileno()).columns or 80) - 1
    except (OSError, ValueError, AttributeError):
        return 79


def _on_terminal() -> bool:
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


def _duration(seconds: float) -> str:
    """A duration in words.

    >>> [_duration(seconds) for seconds in (0.2, 56, 200, 5000)]
    ['1 s', '56 s', '3 min 20 s', '1 h 23 min']
    """
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


_screen = _Screen()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_screen.forget)
