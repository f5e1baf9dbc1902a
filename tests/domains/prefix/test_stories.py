"""Models of llama2.c compute what its own program does, and the pre-trained one writes a story."""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from nestling.data.sets.source import where
from nestling.domains.prefix.stories import read_llama, read_tokenizer, stories
from nestling.errors import DataError

DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, CONTEXT = 16, 24, 2, 4, 2, 12, 32
HEAD = DIM // HEADS
SHAPES = {
    "table": (VOCABULARY, DIM), "attention_norm": (LAYERS, DIM), "q": (LAYERS, DIM, DIM),
    "k": (LAYERS, KV_HEADS * HEAD, DIM), "v": (LAYERS, KV_HEADS * HEAD, DIM), "o": (LAYERS, DIM, DIM),
    "ffn_norm": (LAYERS, DIM), "w1": (LAYERS, HIDDEN, DIM), "w2": (LAYERS, DIM, HIDDEN),
    "w3": (LAYERS, HIDDEN, DIM), "norm": (DIM,), "rotary": (CONTEXT * HEAD,),
}  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    draw = np.random.default_rng(0)
    weights = {name: 0.3 * draw.normal(size=shape).astype("<f4") for name, shape in SHAPES.items()}
    header = struct.pack("<7i", DIM, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, CONTEXT)
    path = tmp_path / "model.bin"
    path.write_bytes(header + b"".join(weight.astype("<f4").tobytes() for weight in weights.values()))
    return path, weights


def normed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).mean() + 1e-5) * weight


def turned(vector: np.ndarray, position: int) -> np.ndarray:
    """Neighbouring entries as points that turn with the position, as llama2.c does it."""
    found = vector.copy()
    for i in range(0, len(vector), 2):
        angle = position / 10_000.0 ** ((i % HEAD) / HEAD)
        a, b = vector[i], vector[i + 1]
        found[i] = a * np.cos(angle) - b * np.sin(angle)
        found[i + 1] = a * np.sin(angle) + b * np.cos(angle)
    return found


def slow_logits(w: dict[str, np.ndarray], ids: list[int]) -> np.ndarray:
    rows = [w["table"][each].astype(float) for each in ids]
    for layer in range(LAYERS):
        given = [normed(x, w["attention_norm"][layer]) for x in rows]
        q = [turned(w["q"][layer] @ x, n).reshape(HEADS, HEAD) for n, x in enumerate(given)]
        k = [turned(w["k"][layer] @ x, n).reshape(KV_HEADS, HEAD) for n, x in enumerate(given)]
        v = [(w["v"][layer] @ x).reshape(KV_HEADS, HEAD) for x in given]
        for n in range(len(rows)):
            heads = []
            for head in range(HEADS):
                kv = head // (HEADS // KV_HEADS)
                scores = np.array([q[n][head] @ k[m][kv] for m in range(n + 1)]) / np.sqrt(HEAD)
                shares = np.exp(scores - scores.max())
                heads.append(sum(s * v[m][kv] for m, s in enumerate(shares / shares.sum())))
            rows[n] = rows[n] + w["o"][layer] @ np.concatenate(heads)
            x = normed(rows[n], w["ffn_norm"][layer])
            gate = w["w1"][layer] @ x
            rows[n] = rows[n] + w["w2"][layer] @ (gate / (1 + np.exp(-gate)) * (w["w3"][layer] @ x))
    return np.stack([w["table"] @ normed(x, w["norm"]) for x in rows])


def test_logits_are_those_of_a_slow_llama(saved: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, weights = saved
    ids = [1, 5, 2, 9, 9, 0, 7]
    with torch.no_grad():
        found = read_llama(path)(torch.tensor([ids])).logits[0].numpy()
    assert np.allclose(found, slow_logits(weights, ids), atol=1e-4)  # float32 against float64


@pytest.mark.parametrize(
    "change", [lambda data: data[:20], lambda data: data[:-4], lambda data: bytes(28) + data]
)
def test_a_damaged_model_is_refused(saved: tuple[Path, dict[str, np.ndarray]], change) -> None:  # type: ignore[no-untyped-def]
    path, _ = saved
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match="get it again"):
        read_llama(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_llama(path.parent / "absent.bin")


def tokens_file(path: Path, pieces: list[tuple[str, float]]) -> Path:
    data = struct.pack("<i", 10)
    for text, score in pieces:
        data += struct.pack("<fi", score, len(text.encode())) + text.encode()
    path.write_bytes(data)
    return path


PIECES = [
    ("<unk>", 0.0), ("\n<s>\n", 0.0), ("\n</s>\n", 0.0), *((f"<0x{n:02X}>", 0.0) for n in range(256)),
    (" b", -0.0), ("in", -1.0), (" bin", -2.0), ("ni", -0.5), *((c, -10.0 - n) for n, c in enumerate(" bin")),
]  # fmt: skip


def slow_ids(text: str) -> list[int]:
    """Merge the neighbours whose token has the best score, again and again, as llama2.c does it."""
    lookup = {piece: place for place, (piece, _) in enumerate(PIECES)}
    parts = list(" " + text)
    while True:
        pairs = [
            (PIECES[lookup[a + b]][1], -n) for n, (a, b) in enumerate(pairwise(parts)) if a + b in lookup
        ]
        if not pairs:
            return [lookup[part] for part in parts]
        n = -max(pairs)[1]
        parts[n : n + 2] = [parts[n] + parts[n + 1]]


@pytest.mark.parametrize("text", ["bin", "nib in", "binin bini", "bnii"])
def test_text_is_split_like_llama2_c_does_it(tmp_path: Path, text: str) -> None:
    tokenizer = read_tokenizer(tokens_file(tmp_path / "tokens.bin", PIECES))
    assert tokenizer(text).input_ids == [1, *slow_ids(text)]
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_letters_without_a_token_become_bytes(tmp_path: Path) -> None:
    tokenizer = read_tokenizer(tokens_file(tmp_path / "tokens.bin", PIECES))
    ids = tokenizer("é", add_special_tokens=False).input_ids
    assert ids[-2:] == [3 + 0xC3, 3 + 0xA9]
    assert tokenizer.decode(ids) == "é"


def test_a_damaged_tokenizer_is_refused(tmp_path: Path) -> None:
    path = tokens_file(tmp_path / "tokens.bin", PIECES)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match="cut short"):
        read_tokenizer(path)
    with pytest.raises(DataError, match="names a token twice"):
        read_tokenizer(tokens_file(tmp_path / "twice.bin", [*PIECES, PIECES[-1]]))


@pytest.mark.skipif(where("language-models") is None, reason="stories260K is not in NESTLING_DATA")
def test_the_pretrained_model_writes_a_story() -> None:
    model, tokenizer = stories()
    assert sum(weight.numel() for weight in model.parameters()) == 260_032
    given = tokenizer("Once upon a time", return_tensors="pt")
    ids = model.generate(**given, max_new_tokens=30, do_sample=False)
    text = tokenizer.decode(ids[0], skip_special_tokens=True)
    assert text.startswith("Once upon a time, there was a little girl named Lily. She loved to play outside")
