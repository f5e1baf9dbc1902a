"""Checkpoints of a run: verified folders of safetensors and JSON; the newest two are kept."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from nestling.errors import ArtifactError, ConfigError, StorageError
from nestling.storage.artifact import read_folder, reading_errors, write_folder
from nestling.storage.owner import Owner
from nestling.training.log import TrainLog
from nestling.training.state import pack, unpack

_KIND = "checkpoint"
_KEPT = 2
_TENSORS, _STATE, _LOG = "tensors.safetensors", "state.json", "log.csv"


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` steps: its full state, and the log so far."""

    step: int
    state: dict[str, Any]
    log: TrainLog


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: parent of the folders of the checkpoints.
        run: settings and data of the run; a run with others must not resume from here.
    """

    folder: Path
    run: Mapping[str, Any]
    _owner: Owner = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_owner", Owner(self.folder))

    def newest(self) -> Path | None:
        """The newest checkpoint, if there is any."""
        found = self._all()
        return found[-1] if found else None

    def write(self, checkpoint: Checkpoint) -> Path:
        """Write a checkpoint, then remove all but the newest two.

        Raises:
            StorageError: if writing fails, or in a fork of the process that began the run. Earlier
                checkpoints stay; no partial one does.
        """
        self._owner.check()
        target = self.folder / f"step-{checkpoint.step:08d}"
        value, tensors = pack(checkpoint.state)
        settings = {"step": checkpoint.step, "run": dict(self.run)}
        with write_folder(target, _KIND, settings=settings) as folder:
            try:
                save_file(tensors, folder / _TENSORS)
            except SafetensorError as error:  # it reports a full disk in its own way
                raise StorageError(f"{target} could not be written: {error}. Nothing was changed") from error
            (folder / _STATE).write_text(json.dumps(value), encoding="utf-8")
            (folder / _LOG).write_text(checkpoint.log.to_csv(), encoding="utf-8")
        for old in self._all()[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)  # if one stays, the next call removes it
        return target

    def read_newest(self) -> Checkpoint | None:
        """The newest checkpoint, verified, or None if there is none.

        Raises:
            ArtifactError: if it is damaged.
            ConfigError: if it belongs to a run with other settings or data; the message has the differences.
        """
        path = self.newest()
        if path is None:
            return None
        try:
            settings = read_folder(path, _KIND).settings
        except ArtifactError as error:
            raise ArtifactError(
                f"the newest checkpoint cannot be used: {error}. "
                f"Or remove {path} to resume from the one before"
            ) from error
        self._check_run(path, settings["run"])
        with reading_errors(path):
            value = json.loads((path / _STATE).read_text(encoding="utf-8"))
            log = TrainLog.from_csv((path / _LOG).read_text(encoding="utf-8"))
            return Checkpoint(settings["step"], unpack(value, load_file(path / _TENSORS)), log)

    def clear_remains(self) -> None:
        """Remove partial checkpoints of a run that was killed while writing or removing one."""
        self._owner.check()
        with reading_errors(self.folder):
            for path in self.folder.glob(".step-*"):
                shutil.rmtree(path, ignore_errors=True)

    def _check_run(self, path: Path, then: Mapping[str, Any]) -> None:
        now = json.loads(json.dumps(dict(self.run)))
        differing = [
            f"{name} ({then.get(name)!r} then, {now.get(name)!r} now)"
            for name in sorted(now.keys() | then.keys())
            if now.get(name) != then.get(name)
        ]
        if differing:
            raise ConfigError(
                f"{path} belongs to another run, which differs in {', '.join(differing)}; repeat those "
                "settings to resume it, or give another folder to start a new run"
            )

    def _all(self) -> list[Path]:
        with reading_errors(self.folder):
            found = [path for path in self.folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name)]
        return sorted(found)
