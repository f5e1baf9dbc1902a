"""A run that is stopped - killed, by Ctrl-C, by a full disk - resumes as if nothing had happened."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nestling.errors import ArtifactError, ConfigError, StorageError
from nestling.granularity import Nesting
from nestling.losses import InfoNCE, Nested, Parts
from nestling.schedules import RandomSome
from nestling.storage.artifact import read_manifest
from nestling.training import TrainConfig, TrainLog, fit

CONFIG = TrainConfig(
    epochs=20,
    batch_size=8,
    gradient_accumulation=2,
    lr=1e-2,
    weight_decay=0.1,
    log_every=7,
    checkpoint_every=5,
)
STEPS = 80  # 64 rows are 8 batches, which are 4 steps an epoch


class Contrast(nn.Module):
    """All that can go wrong: a learned temperature, drawn sizes, and on demand a stop in one step."""

    def __init__(self, pause_s: float = 0.0) -> None:
        super().__init__()
        self.loss = Nested(InfoNCE(learn_temperature=True), Nesting.parse("dim=2..8"), schedule=RandomSome(1))
        self.calls, self.pause_s, self.stop_at, self.stop = 0, pause_s, -1, KeyboardInterrupt()

    def forward(self, encode: nn.Module, batch: tuple[Tensor, Tensor]) -> Parts:
        self.calls += 1
        if self.calls == self.stop_at:
            raise self.stop
        if self.pause_s:
            time.sleep(self.pause_s)
        return self.loss.parts(encode(batch[0]), encode(batch[1]))


def start(pause_s: float = 0.0) -> tuple[nn.Module, Contrast, tuple[Tensor, np.ndarray]]:
    """Model, objective and data as they are before the first step."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 8))
    values = np.random.default_rng(0).normal(size=(64, 6)).astype(np.float32)
    return model, Contrast(pause_s), (torch.from_numpy(values), values + 0.1)


def final_state(model: nn.Module, objective: nn.Module) -> dict[str, Tensor]:
    return {**model.state_dict(), **objective.state_dict()}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The killed child and this process must add up in the same order to be equal to the bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole(one_thread: None) -> tuple[dict[str, Tensor], TrainLog]:
    """Weights and log of an uninterrupted run."""
    model, objective, data = start()
    log = fit(model, objective, data, CONFIG)
    return final_state(model, objective), log


def assert_same_run(
    model: nn.Module, objective: nn.Module, log: TrainLog, whole: tuple[dict[str, Tensor], TrainLog]
) -> None:
    found = final_state(model, objective)
    assert found.keys() == whole[0].keys()
    for name, value in whole[0].items():
        assert torch.equal(found[name], value), name
    assert log.rows == whole[1].rows


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_a_killed_run_goes_on_to_the_same_bits(python: str, tmp_path: Path, whole: Any) -> None:
    """SIGKILL from outside, at another moment each time, perhaps while a checkpoint is written."""
    child = subprocess.Popen([python, __file__, str(tmp_path)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("checkpoints/step-*")):
        assert child.poll() is None, "the child ended before its first checkpoint"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.5))
    child.kill()
    assert child.wait() == -signal.SIGKILL, "the child was not stopped in its run"
    model, objective, data = start()
    log = fit(model, objective, data, CONFIG, folder=tmp_path)
    assert log.resumed_from is not None
    assert log.resumed_from % 5 == 0
    assert 0 < log.resumed_from < STEPS
    assert_same_run(model, objective, log, whole)
    assert names(tmp_path) == ["step-00000075", "step-00000080"]
    assert TrainLog.from_csv((tmp_path / "log.csv").read_text()).rows == log.rows


@pytest.mark.parametrize("stop_at", [3, 47, 160])
def test_a_run_that_failed_in_a_step_goes_on_to_the_same_bits(
    tmp_path: Path, whole: Any, stop_at: int
) -> None:
    model, objective, data = start()
    objective.stop_at, objective.stop = stop_at, MemoryError()
    with pytest.raises(MemoryError):
        fit(model, objective, data, CONFIG, folder=tmp_path)
    model, objective, data = start()
    log = fit(model, objective, data, CONFIG, folder=tmp_path)
    assert log.resumed_from == ((stop_at - 1) // 2 // 5 * 5 or None)
    assert_same_run(model, objective, log, whole)


def test_ctrl_c_in_a_step_ends_it_saves_and_says_how_to_go_on(tmp_path: Path, whole: Any) -> None:
    model, objective, data = start()
    forward = objective.loss.parts

    def pressed(*embeddings: Tensor) -> Parts:
        if objective.calls == 25:  # the first half of step 13
            signal.raise_signal(signal.SIGINT)
        return forward(*embeddings)

    objective.loss.parts = pressed
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"after step 13 of 80\. Step 13 is kept"):
        fit(model, objective, data, CONFIG, folder=tmp_path)
    assert signal.getsignal(signal.SIGINT) is handler
    assert objective.calls == 26
    assert names(tmp_path) == ["step-00000010", "step-00000013"]
    model, objective, data = start()
    log = fit(model, objective, data, CONFIG, folder=tmp_path)
    assert log.resumed_from == 13
    assert_same_run(model, objective, log, whole)


def test_ctrl_c_twice_breaks_in_at_once_and_saves_nothing_torn(tmp_path: Path) -> None:
    model, objective, data = start()
    objective.stop_at = 14  # the second half of step 7: what a second Ctrl-C raises
    with pytest.raises(KeyboardInterrupt, match=r"after step 6 of 80\. Step 5 is kept"):
        fit(model, objective, data, CONFIG, folder=tmp_path)
    assert names(tmp_path) == ["step-00000005"]


def test_ctrl_c_in_an_evaluation_repeats_it_when_the_run_goes_on(tmp_path: Path) -> None:
    config = TrainConfig(epochs=2, batch_size=8, evaluate_every=6, log_every=4)

    def stopped(step: int) -> dict[str, float]:
        raise KeyboardInterrupt

    model, objective, data = start()
    with pytest.raises(KeyboardInterrupt, match="after step 6 of 16"):
        fit(model, objective, data, config, folder=tmp_path, evaluate=stopped)
    called: list[int] = []
    logs = []
    for folder in (tmp_path, tmp_path / "whole"):
        model, objective, data = start()
        logs.append(
            fit(
                model, objective, data, config, folder=folder, evaluate=lambda s: {"s": called.append(s) or s}
            )
        )
    assert called == [6, 12, 16] * 2
    assert logs[0].rows == logs[1].rows


def test_ctrl_c_without_a_folder_says_that_nothing_was_saved() -> None:
    model, objective, data = start()
    objective.stop_at = 3
    with pytest.raises(KeyboardInterrupt, match="Nothing was saved; give folder="):
        fit(model, objective, data, CONFIG)


def test_a_finished_run_is_only_read(tmp_path: Path) -> None:
    model, objective, data = start()
    first = fit(model, objective, data, CONFIG, folder=tmp_path)
    expected = final_state(model, objective)
    model, objective, data = start()
    again = fit(model, objective, data, CONFIG, folder=tmp_path)
    assert objective.calls == 0
    assert (again.rows, again.resumed_from) == (first.rows, STEPS)
    assert all(torch.equal(value, expected[name]) for name, value in final_state(model, objective).items())


def short_run(
    folder: Path, config: TrainConfig = TrainConfig(max_steps=4, batch_size=8, checkpoint_every=1)
) -> None:
    model, objective, data = start()
    fit(model, objective, data, config, folder=folder)


def test_another_run_is_not_gone_on_with(tmp_path: Path) -> None:
    short_run(tmp_path)
    with pytest.raises(
        ConfigError, match=r"differs in batch_size \(8 then, 16 now\), lr \(0.001 then, 0.1 now\)"
    ):
        short_run(tmp_path, TrainConfig(max_steps=4, batch_size=16, lr=0.1))
    model, objective, (x, y) = start()
    config = TrainConfig(max_steps=4, batch_size=8)
    with pytest.raises(ConfigError, match=r"rows of data \(64 then, 40 now\)"):
        fit(model, objective, (x[:40], y[:40]), config, folder=tmp_path)
    with pytest.raises(ArtifactError, match="another model or objective"):
        fit(nn.Linear(6, 8), objective, (x, y), config, folder=tmp_path)
    short_run(
        tmp_path, TrainConfig(max_steps=4, batch_size=8, log_every=1, checkpoint_every=3)
    )  # watched differently


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "log.csv"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "missing"])
def test_a_damaged_checkpoint_is_a_clear_error(tmp_path: Path, name: str, damage: str) -> None:
    short_run(tmp_path)
    path = tmp_path / "checkpoints" / "step-00000004" / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(content if damage == "altered" else content[:-1])
    with pytest.raises(
        ArtifactError, match=r"newest checkpoint cannot be used: .*remove .*step-00000004 to resume"
    ):
        short_run(tmp_path)
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    short_run(tmp_path)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_a_full_disk_keeps_the_checkpoints_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush, flushed = os.fsync, []

    def full(descriptor: int) -> None:
        flushed.append(descriptor)
        if len(flushed) > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match=r"step-0000000\d could not be written: the disk is full"):
            short_run(tmp_path)
    kept = names(tmp_path)
    assert kept
    assert all(name.startswith("step-") for name in kept), "nothing half-written remains"
    short_run(tmp_path)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_a_file_that_safetensors_cannot_write_is_our_error(tmp_path: Path) -> None:
    """A limit on the size of files stops it inside that library, as a full disk does."""
    resource = pytest.importorskip("resource", reason="limits on file sizes are a matter of Unix")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        with pytest.raises(StorageError, match="step-00000001 could not be written"):
            short_run(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert names(tmp_path) == []
    short_run(tmp_path)


def test_remains_of_a_killed_write_are_removed_and_never_read(tmp_path: Path) -> None:
    short_run(tmp_path)
    remains = tmp_path / "checkpoints" / ".step-00000009.abc.tmp"
    remains.mkdir()
    (remains / "tensors.safetensors").write_bytes(b"half")
    short_run(tmp_path)
    assert names(tmp_path) == ["step-00000003", "step-00000004"]


def test_a_checkpoint_is_safetensors_json_and_csv(tmp_path: Path) -> None:
    short_run(tmp_path)
    folder = tmp_path / "checkpoints" / "step-00000004"
    assert {path.name for path in folder.iterdir()} == {
        "nestling.json",
        "tensors.safetensors",
        "state.json",
        "log.csv",
    }
    settings = read_manifest(folder).settings
    assert settings["step"] == 4
    assert settings["run"]["rows of data"] == 64


if __name__ == "__main__":
    fit(*start(pause_s=0.005), CONFIG, folder=sys.argv[1])
