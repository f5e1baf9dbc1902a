"""Encoding by several processes: the same vectors, no guard needed, and no wait for one that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.text.workers import pool
from nestling.errors import ConfigError, DataError, WorkerError
from nestling.granularity import Nesting

TEXTS = [f"text number {number} tells of day {number**2}" for number in range(60)]
# For one that is gone; what is measured is that nobody waits for ever, on however busy a machine.
SECONDS = 60


@pytest.fixture
def quick_workers(python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that have imported torch before they are started."""
    monkeypatch.setattr(sys, "executable", python)


@pytest.fixture(scope="module")
def encoder(tiny_bert_folder: Path) -> TextEncoder:
    return TextEncoder.open(tiny_bert_folder, Nesting.parse("layer=1,2 x dim=16,32"))


@pytest.mark.usefixtures("quick_workers")
def test_vectors_are_those_of_one_process(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    at, named, before = "layer=1, dim=16", {"prompt": "query: ", "batch_size": 7}, threading.active_count()
    apart = encoder.encode(TEXTS, at, devices=["cpu", "cpu"], **named)
    np.testing.assert_allclose(apart, encoder.encode(TEXTS, at, **named), atol=1e-6)
    assert list(tmp_path.iterdir()) == []
    assert threading.active_count() <= before


def test_a_script_from_standard_input_needs_no_guard() -> None:
    code = (
        "from nestling import TextEncoder\n"
        "print(TextEncoder.open('wordllama').encode(['a b', 'c d'], devices=['cpu', 'cpu']).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, timeout=3 * SECONDS, check=False
    )
    assert done.stdout.strip() == "(2, 256)", done.stderr


@pytest.mark.usefixtures("quick_workers")
@pytest.mark.parametrize("when", ["while it starts", "while it works"])
def test_a_killed_process_is_noticed(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    asked = pool._Worker.ask
    started: list[subprocess.Popen[bytes]] = []
    count = {"asked": 0}

    def ask(self: Any, request: dict[str, Any], dim: int) -> Any:
        count["asked"] += 1
        if count["asked"] == (1 if when == "while it starts" else 8):
            started.append(self._process)
            threading.Timer(0.05, os.kill, (self._process.pid, signal.SIGKILL)).start()
        return asked(self, request, dim)

    monkeypatch.setattr(pool._Worker, "ask", ask)
    begun = time.monotonic()
    with pytest.raises(WorkerError, match=r"encoded on cpu, was ended by SIGKILL before it was done.*memory"):
        encoder.encode(TEXTS * 40, devices=["cpu", "cpu"], batch_size=2)
    assert time.monotonic() - begun < SECONDS
    assert started[0].returncode == -signal.SIGKILL


def test_a_process_that_cannot_start_says_why(encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_START", "raise SystemExit('no such thing')")
    with pytest.raises(WorkerError, match=r"ended with exit code 1 before it was done \(no such thing\)"):
        encoder.encode(TEXTS, devices=["cpu"])
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(WorkerError, match="no process could be started to encode on cpu"):
        encoder.encode(TEXTS, devices=["cpu"])


@pytest.mark.usefixtures("quick_workers")
def test_errors_of_the_processes_are_ours(encoder: TextEncoder) -> None:
    with pytest.raises(ConfigError, match="device='cuda:99' cannot be used on this machine"):
        encoder.encode(TEXTS, devices=["cuda:99"])
    silence = TextEncoder.open("wordllama").extract("dim=64")
    next(silence.parameters()).data[silence.model.preprocess(["\u2060"])["input_ids"]] = 0
    with pytest.raises(DataError, match="row 117 of the texts"):
        silence.encode([*TEXTS[:17], "\u2060", *TEXTS], devices=["cpu"], first_row=100)
