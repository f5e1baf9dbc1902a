"""What a tour of hours has measured so far, on the disk, so that an interrupted one goes on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from nestling.errors import ConfigError
from nestling.process.interrupts import on_interrupt
from nestling.storage.artifact import write_file
from nestling.storage.owner import Owner

Json = TypeVar("Json")

_log = logging.getLogger(__name__)


class Notes:
    """Figures by name, each measured once.

    Args:
        path: a JSON file, written after each figure and read at the start; None keeps them in memory.
        identity: what tells this run from others, such as settings and versions.

    Raises:
        ConfigError: for a file that holds the figures of another run, or no figures.
    """

    def __init__(self, path: Path | None, identity: Mapping[str, object]) -> None:
        self._path, self._identity, self._owner = path, dict(identity), Owner(path)
        self._known: dict[str, object] = {}
        if path is None or not path.is_file():
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            theirs, self._known = found["identity"], found["figures"]
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} holds no figures of an interrupted run; delete it") from error
        if theirs != self._identity:
            raise ConfigError(
                f"{path} holds the figures of an interrupted run under {theirs}, and this one is under "
                f"{self._identity}; delete the file to start anew, or give another folder"
            )
        _log.info("%s: going on with %s figures of an interrupted run", path, len(self._known))

    def once(self, name: str, measure: Callable[[], Json]) -> Json:
        """What was noted under ``name``, or is measured and noted now: anything that JSON holds."""
        if name not in self._known:
            with on_interrupt(self._kept):
                self._known[name] = json.loads(json.dumps(measure()))
            if self._path is not None:
                self._owner.check()
                write_file(self._path, json.dumps({"identity": self._identity, "figures": self._known}))
        return self._known[name]  # type: ignore[return-value] # as json gives back what it was given

    def _kept(self) -> str:
        if self._path is None:
            return "the figures were kept in memory alone; with an output folder it could go on"
        return f"{len(self._known)} figures are kept in {self._path}; repeat it to go on"

    def remove(self) -> None:
        """Delete the file, as all is measured."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
