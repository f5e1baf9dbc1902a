"""Real data, where the machine has it, and small models made on the spot."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import forked_python
import samples

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# Before any test imports a library of the hub: the suite needs no network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A busy machine is no failure. Tests that draw another number than 100 examples scale it with the profile.
settings.register_profile("usual", deadline=None, max_examples=100)
settings.register_profile("nightly", deadline=None, max_examples=1000)
settings.load_profile("usual")

# A shell starts what it puts in the background with Ctrl-C ignored, and the processes of tests inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]
EXECUTABLE = "NESTLING_TEST_PYTHON"
MEMORY_FOR_FOLDERS = 8 << 30

# Otherwise each program that a test starts compiles the library again, and each run rewrites all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    """Put temporary folders into memory, and start the server of forked interpreters.

    An index waits some milliseconds for the disk after every change. Power cuts are simulated, so that no
    test asks for a real disk; ``make nightly`` uses one. The server imports nothing until it is asked.
    """
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > MEMORY_FOR_FOLDERS:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))
    if hasattr(os, "fork") and EXECUTABLE not in os.environ:  # the workers of xdist inherit it
        started = forked_python.started()
        os.environ[EXECUTABLE] = str(started.__enter__())

        def end() -> None:
            del os.environ[EXECUTABLE]
            started.__exit__(None, None, None)

        config.add_cleanup(end)


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter that has imported torch and the library; for programs that do not ask about imports."""
    return os.environ.get(EXECUTABLE, sys.executable)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("NESTLING_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no data folder at {folder}; set NESTLING_DATA to one")
    return folder


@pytest.fixture(scope="session")
def tiny_bert_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 32 dims and 2 layers that reads letters, saved for transformers."""
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = samples.letters()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertModel(config)
    folder = tmp_path_factory.mktemp("tiny-bert")
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def bert(tiny_bert_folder: Path) -> SentenceTransformer:
    """The same as a model of sentence-transformers: the mean of its hidden states, of no given length."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(tiny_bert_folder), device="cpu", local_files_only=True)
