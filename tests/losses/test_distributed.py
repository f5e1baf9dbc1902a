"""Two processes with gathered candidates give the gradients of one process with the whole batch."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
from pathlib import Path
from types import ModuleType

import torch

WORKER = Path(__file__).with_name("gloo_worker.py")


def load_worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gloo_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_processes_agree_with_one(python: str, tmp_path: Path) -> None:
    worker = load_worker()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, str(WORKER)]
    processes = [
        subprocess.Popen([*command, str(rank), str(port), str(tmp_path)]) for rank in range(worker.WORLD)
    ]
    try:
        assert [process.wait(timeout=90) for process in processes] == [0] * worker.WORLD
    finally:
        for process in processes:
            process.kill()
    raw = bytearray((tmp_path / "gradients.bin").read_bytes())
    whole, (x, y, ids) = worker.model(), worker.batch()
    worker.loss(fast=False)(whole(x), whole(y), ids=ids).backward()
    expected = torch.cat([p.grad.flatten() for p in whole.parameters()])
    for way in torch.frombuffer(raw, dtype=torch.float64).chunk(3):
        torch.testing.assert_close(way, expected)
