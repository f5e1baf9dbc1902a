"""The tour of Llama-MTSK runs on generated sentences, resumes, and its exact claims hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from nestling.data import grid_sentences
from nestling.papers import CLAIMS, llama_mtsk, reproduce
from nestling.papers.claims.speech_study import Study
from nestling.papers.llama_mtsk import (
    PAIRS,
    adapters_are_right,
    costs_are_those_published,
    nested,
    separate,
    sound,
)
from nestling.papers.problems import spoken_sentences
from nestling.papers.problems.spoken_sentences import SpokenVectors

GRAMMAR = (("bin", "set"), ("blue", "red"), ("at", "by"), ("a", "b"), ("one", "two"), ("now", "soon"))


def write_sentences(folder: Path, rows: int = 30) -> None:
    draw = np.random.default_rng(0)
    texts = [[str(draw.choice(words)) for words in GRAMMAR] for _ in range(rows)]
    lines = [
        ";".join(f"{0.4 * n},{0.4 * n + 0.4:.1f},{word}" for n, word in enumerate(text)) for text in texts
    ]
    np.savez(
        folder / "grid_s1_400.npz",
        audio=draw.integers(-9000, 9000, (rows, 48_000)).astype(np.int16),
        video=draw.integers(0, 256, (rows, 75, 24, 48)).astype(np.uint8),
        transcript=np.array(lines),
        clip=np.array([str(row) for row in range(rows)]),
    )


def write_language_model(folder: Path) -> None:
    """A Llama of llama2.c with one layer, and a tokenizer of bytes and letters."""
    dim, hidden, layers, heads, vocabulary, context = 16, 24, 1, 2, 300, 128
    count = vocabulary * dim + dim * (2 + 4 * dim + 3 * hidden) + dim + context * (dim // heads)
    weights = 0.1 * np.random.default_rng(0).normal(size=count).astype("<f4")
    header = struct.pack("<7i", dim, hidden, layers, heads, heads, vocabulary, context)
    (folder / "stories260K.bin").write_bytes(header + weights.astype("<f4").tobytes())
    letters = [" ", *(chr(n) for n in range(ord("a"), ord("z") + 1))]
    pieces = ["<unk>", "\n<s>\n", "\n</s>\n", *(f"<0x{n:02X}>" for n in range(256)), *letters]
    pieces += [f"~{n}" for n in range(vocabulary - len(pieces))]
    data = struct.pack("<i", 10)
    for place, piece in enumerate(pieces):
        raw = piece.encode()
        data += struct.pack("<fi", -float(place), len(raw)) + raw
    (folder / "tok512.bin").write_bytes(data)


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, write in (("grid", write_sentences), ("language-models", write_language_model)):
        (tmp_path / name).mkdir()
        write(tmp_path / name)
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path))
    return tmp_path


def test_a_quick_tour_measures_every_claim_and_leaves_no_notes(generated: Path, tmp_path: Path) -> None:
    claims = ["MTSK-7", "MTSK-9"]
    report = reproduce("llama-mtsk", seeds=2, claims=claims, quick=True, output=tmp_path / "out")
    assert [claim.id for claim in report.claims] == claims
    found = {claim.id: claim for claim in report.claims}
    assert found["MTSK-9"].holds is None
    assert found["MTSK-7"].holds
    assert found["MTSK-7"].figures["stack at 16, weights"] > found["MTSK-7"].figures["mean at 16, weights"]
    assert not (tmp_path / "out" / "llama-mtsk.interrupted.json").exists()
    assert (tmp_path / "out" / "llama-mtsk.md").is_file()


def test_encoders_are_trained_once_and_read_afterwards(
    generated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = SpokenVectors(grid_sentences(), quick=True, folder=tmp_path / "encoders")
    found = first.vectors("test", "audio", "0 dB")
    assert not torch.equal(found, first.vectors("test", "audio", "clean"))
    monkeypatch.setattr(spoken_sentences, "fit", None)
    again = SpokenVectors(grid_sentences(), quick=True, folder=tmp_path / "encoders")
    assert torch.equal(again.vectors("test", "audio", "0 dB"), found)
    assert torch.equal(again.variants("audio"), first.variants("audio"))
    again.forget()
    assert not (tmp_path / "encoders").exists()


def test_the_claims_are_those_of_the_catalogue() -> None:
    assert CLAIMS["llama-mtsk"] == llama_mtsk.CLAIMS


def test_published_costs_and_adapters_hold_exactly() -> None:
    study: Study = None  # type: ignore[assignment] # neither claim needs it
    clearance, figures = costs_are_those_published(study, 0)
    assert clearance > 0
    assert figures["TFLOPs at (4, 2)"] == pytest.approx(3.87, rel=0.01)
    assert adapters_are_right(study, 1)[0] > 0


def test_methods_are_told_apart_by_what_they_train() -> None:
    assert nested("mss").is_nested
    assert not separate(PAIRS[0]).is_nested
    assert not llama_mtsk.sound_pooled_at_test_time().is_nested
    assert sound().seen == {"audio": (4, 16)}
