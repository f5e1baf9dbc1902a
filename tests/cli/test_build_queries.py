"""``index build`` of texts measures what it is asked for: queries, neighbours and bounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from commands import run
from nestling.domains.text.collection import Collection
from nestling.encoders.text.opening import open_encoder
from nestling.errors import ConfigError, DataError

WORDS = ("red", "warm", "old", "small"), ("jacket", "shoe", "hat", "boot"), ("winter", "rain", "city", "farm")
TEXTS = [f"{a} {b} for {c}" for a in WORDS[0] for b in WORDS[1] for c in WORDS[2]]
ASKED = [f"something {a} for my {c}" for a in WORDS[0] for c in WORDS[2]]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    (folder / "asked.txt").write_text("\n".join(ASKED) + "\n")
    np.save(folder / "asked.npy", open_encoder("wordllama").encode(ASKED))
    np.save(folder / "narrow.npy", np.ones((4, 8), np.float32))
    return folder


def build(files: Path, folder: Path, *flags: object) -> Any:
    return run("index", "build", files / "texts.txt", "--encoder", "wordllama", "-o", folder, *flags)


@pytest.mark.parametrize("queries", ["asked.txt", "asked.npy"])
def test_texts_and_vectors_of_them_are_the_queries_of_a_build(
    queries: str, files: Path, tmp_path: Path
) -> None:
    told = build(files, tmp_path / "i", "--queries", files / queries, "--k", 5)
    assert told.exit_code == 0, told.exception
    assert "rows of the index" not in told.stdout
    with Collection.open(tmp_path / "i") as made:
        assert made.index.manifest.settings.default_k == 5
        assert not made.index.info().sampled


def test_without_queries_it_is_said_what_recall_was_measured_with(files: Path, tmp_path: Path) -> None:
    words = "recall was measured with rows of the index; on real queries it may be lower (see --queries)"
    assert words in build(files, tmp_path / "i").stdout
    assert words in run("index", "info", tmp_path / "i").stdout
    assert json.loads(run("index", "info", tmp_path / "i", "--json").stdout)["sampled"]
    tuned = run("index", "tune", tmp_path / "i", "--queries", files / "asked.txt")
    assert f"{len(ASKED)} queries that were given" in tuned.stdout
    assert words not in run("index", "info", tmp_path / "i").stdout


@pytest.mark.parametrize(
    ("flags", "error", "words"),
    [
        (("--max-bytes", 1), ConfigError, "no plan fits max_bytes=1: the smallest takes"),
        (("--max-ms", 1e-9), ConfigError, "no plan fits max_ms=1e-09: the smallest takes"),
        (("--queries", "narrow.npy"), DataError, "queries"),
        (("--queries", "none.npy"), DataError, "none.npy does not exist"),
        (("--k", 0), SystemExit, ""),
    ],
)
def test_what_cannot_be_met_is_refused(
    flags: tuple[object, ...], error: type, words: str, files: Path, tmp_path: Path
) -> None:
    flags = tuple(files / each if str(each).endswith(".npy") else each for each in flags)
    told = build(files, tmp_path / "i", *flags)
    assert isinstance(told.exception, error)
    assert words in str(told.exception)


def test_texts_are_no_queries_of_vectors(files: Path, tmp_path: Path) -> None:
    told = run("index", "build", files / "asked.npy", "--queries", files / "asked.txt", "-o", tmp_path / "i")
    assert "asked.txt holds texts, and there is no encoder for them" in str(told.exception)
