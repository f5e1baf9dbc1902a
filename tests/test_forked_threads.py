"""Searches, builds and encoders compute in forked processes, whatever threads computed before the fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

PLANS = (
    "flat@full",
    "int8@full > rerank:int8@full > rerank@full",
    "pq8x8@full",
    "pq8x4@full > rerank@full",
    "rabitq@full",
    "ivf16@full > flat@full",
    "ivf16@16 > pq8x4@full > rerank:fp16@full",
    "ivf16@16 > rabitq@full > rerank@full",
    "hnsw8@full > flat@full",
    "hnsw8@16 > int8@full > rerank@full",
    "graph16@full > rerank@full",
    "graph16@16 > rerank:int8@24 > rerank@full",
    "int4@full > certify@full",
)
PRELUDE = """
import multiprocessing, sys, threading
import numpy as np
from nestling.search.engine.engine import build
draw = np.random.default_rng(0)
x = draw.normal(size=(3000, 32)).astype(np.float32)
fork = multiprocessing.get_context("fork")
def in_children(function, tasks):
    with fork.Pool(2) as pool:
        return pool.map_async(function, tasks).get(30)
"""
SEARCHES = """
def ask(start):
    found = engine.search(x[start : start + 100], 10, workers=[None, 1, 4][start // 100 % 3])
    return (found.indices == wanted[start : start + 100]).mean()
for plan in sys.argv[1:]:
    engine = build(plan, x, workers=4)
    wanted = engine.search(x[:400], 10, workers=4).indices
    # Codes of 4 bits are summed in another order where the queries are others in number.
    assert min(in_children(ask, range(0, 400, 100))) > 0.99, plan
    assert (engine.search(x[:400], 10, workers=4).indices == wanted).mean() > 0.99, plan
"""
BUILDS = """
from nestling.encoders.maps.pca import PCARotation
from nestling.search.exact.neighbours import nearest
def make(plan):
    PCARotation().fit(x)
    nearest(x[:600], x, 3, workers=4)
    return int(build(plan, x, workers=4).search(x[:300], 1).indices.sum())
plans = ["ivf16@full > pq8x4@full", "hnsw8@full > flat@full", "graph16@full > rerank@full", "opq8x4@full"]
wanted = [make(plan) for plan in plans]
assert len(in_children(make, plans)) == len(wanted)
"""
FORK_OF_A_THREAD = """
engine = build("flat@full", x, workers=4)
stop = threading.Event()
def go_on():
    while not stop.is_set():
        engine.search(x[:300], 10, workers=4)
        engine.search(x[:300], 10, dim=24, workers=4)
busy = [threading.Thread(target=go_on) for _ in range(2)]
for thread in busy:
    thread.start()
def ask(dim):
    return engine.search(x[:300], 10, dim=dim, workers=4).indices.shape
failed = []
def forks():
    try:
        assert ask(32) == (300, 10)
        assert set(in_children(ask, [8, 16, 24, 32])) == {(300, 10)}
    except BaseException as error:
        failed.append(error)
forking = threading.Thread(target=forks)
forking.start(); forking.join(); stop.set()
for thread in busy:
    thread.join()
assert not failed, failed
"""
WORKERS_OF_A_LOADER = """
import torch
engine = build("ivf16@full > flat@full", x, workers=4)
engine.search(x, 10, workers=4)
class Negatives(torch.utils.data.Dataset):
    def __len__(self):
        return 64
    def __getitem__(self, row):
        return engine.search(x[row : row + 1], 5).indices[0]
loader = torch.utils.data.DataLoader(
    Negatives(), batch_size=8, num_workers=2, timeout=30, multiprocessing_context="fork"
)
assert torch.cat(list(loader)).shape == (64, 5)
"""
ENCODERS = """
import faiss, torch
from nestling import NestedAdapter, TextEncoder
torch.set_num_threads(2); faiss.omp_set_num_threads(2)
from nestling.encoders.text.opening import open_encoder
texts = [f"a cat sleeps on chair {number}" for number in range(16)]
encoders = [TextEncoder.open("wordllama"), open_encoder("wordllama")]
def encode(number):
    return encoders[number].encode(texts)
for _ in "cold", "warm":
    found = in_children(encode, range(2))
    for number in range(2):
        np.testing.assert_allclose(found[number], encode(number), atol=1e-5)
def fit(seed):
    adapter = NestedAdapter(nesting="dim=8,32", max_steps=3, batch_size=64, seed=seed)
    return adapter.fit(x[:600]).transform(x[:9]).shape
assert in_children(fit, range(1)) == [(9, 32)]
"""
WITHOUT_A_PAUSE = """
import ctypes
whole = ctypes.CDLL
class Old:  # an OpenMP that cannot end its threads
    def __init__(self, path, mode):
        self.omp_set_num_threads = whole(path, mode).omp_set_num_threads
ctypes.CDLL = lambda path, *rest: (Old if "libgomp" in str(path) else whole)(path, *rest)
"""
TORCH_FIRST = "import torch"  # faiss then computes with the OpenMP of torch, though it has loaded its own


def run(program: str, *arguments: str, python: str = sys.executable) -> None:
    """In a process of its own, which is killed with its children if it waits for ever."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [python, "-c", program, *arguments]
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        pytest.fail("it waits for threads that only its parent has")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors


pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks on this system")


each_openmp = pytest.mark.parametrize("loaded", [TORCH_FIRST, ""], ids=["torch first", "faiss alone"])


@each_openmp
def test_a_forked_process_searches(loaded: str) -> None:
    run(loaded + PRELUDE + SEARCHES, *PLANS)


def test_a_forked_process_builds() -> None:
    run(TORCH_FIRST + PRELUDE + BUILDS)


def test_a_forked_process_encodes(python: str) -> None:
    run(PRELUDE + ENCODERS, python=python)


def test_a_thread_may_fork_while_others_search() -> None:
    run(PRELUDE + FORK_OF_A_THREAD)


def test_the_workers_of_a_loader_search() -> None:
    run(PRELUDE + WORKERS_OF_A_LOADER)


def test_threads_that_cannot_be_ended_are_not_waited_for() -> None:
    plans = ("flat@full", "ivf16@full > flat@full", "hnsw8@full > flat@full")
    run(TORCH_FIRST + PRELUDE + WITHOUT_A_PAUSE + SEARCHES, *plans)
