"""A small pre-trained Llama of the TinyStories family, from the files of llama2.c."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nestling.data.sets.source import locate
from nestling.errors import DataError, require

_HEADER = struct.Struct("<7i")
_TOKEN = struct.Struct("<fi")
_UNKNOWN, _START, _END = "<unk>", "<s>", "</s>"


def stories(name: str = "stories260K") -> tuple[Any, Any]:
    """A Llama of 260,032 weights that writes short stories for children, and its tokenizer.

    Returns:
        ``LlamaForCausalLM`` in evaluation mode, and ``PreTrainedTokenizerFast`` of 512 tokens.

    Raises:
        DataError: if the files cannot be found, or are not what they should be.
        MissingExtraError: if transformers is not installed.

    Source: Karpathy's tinyllamas, trained on TinyStories (Eldan and Li 2023, arXiv 2305.07759).
    """
    folder = locate("language-models")
    return read_llama(folder / f"{name}.bin"), read_tokenizer(folder / "tok512.bin")


def read_llama(path: Path) -> Any:
    """The model in a file of llama2.c (version 0, float32).

    Raises:
        DataError: if it is missing, or its size does not fit its header.
    """
    transformers = require("transformers", "lora")
    data = _bytes_of(path)
    if len(data) < _HEADER.size:
        raise DataError(f"{path} is not a model of llama2.c: it holds {len(data)} bytes; get it again")
    dim, hidden, layers, heads, kv_heads, vocabulary, context = _HEADER.unpack_from(data)
    if min(dim, hidden, layers, heads, kv_heads, context) < 1 or vocabulary == 0 or dim % heads:
        raise DataError(f"{path} is not a model of llama2.c: its header is damaged; get it again")
    config = transformers.LlamaConfig(
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        vocab_size=abs(vocabulary),
        max_position_embeddings=context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=vocabulary > 0,  # the file writes a negative number for untied ones
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    state = dict(_weights(path, np.frombuffer(data, "<f4", offset=_HEADER.size), config))
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(state, assign=True, strict=False)
    model.tie_weights()
    model.model.rotary_emb = type(model.model.rotary_emb)(config)  # its buffers are in no file
    return model.eval()


def read_tokenizer(path: Path) -> Any:
    """The tokenizer in a file of llama2.c: byte-pair encoding with a score for each token.

    Raises:
        DataError: if it is missing, damaged, or cut short.
    """
    tokenizers, transformers = require("tokenizers", "static"), require("transformers", "lora")
    pieces = _pieces(path, _bytes_of(path))
    texts = [text for text, _ in pieces]
    vocabulary = {text: place for place, text in enumerate(texts)}
    if len(vocabulary) != len(texts):
        raise DataError(f"{path} names a token twice; get it again")
    model = tokenizers.models.BPE(
        vocabulary, _merges(pieces, vocabulary), unk_token=_UNKNOWN, byte_fallback=True, fuse_unk=True
    )
    found = tokenizers.Tokenizer(model)
    normalizers, decoders = tokenizers.normalizers, tokenizers.decoders
    found.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    found.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    found.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{_START} $A", special_tokens=[(_START, vocabulary[_START])]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=found, unk_token=_UNKNOWN, bos_token=_START, eos_token=_END, pad_token=_UNKNOWN
    )


def _bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _weights(path: Path, values: NDArray[np.float32], config: Any) -> Iterator[tuple[str, Tensor]]:
    """The weights by the names of transformers, in the order of the file."""
    dim, layers, head = config.hidden_size, config.num_hidden_layers, config.head_dim
    kv_width = config.num_key_value_heads * head
    wide = config.intermediate_size
    shapes = {
        "model.embed_tokens": (config.vocab_size, dim),
        "input_layernorm": (layers, dim),
        "self_attn.q_proj": (layers, dim, dim),
        "self_attn.k_proj": (layers, kv_width, dim),
        "self_attn.v_proj": (layers, kv_width, dim),
        "self_attn.o_proj": (layers, dim, dim),
        "post_attention_layernorm": (layers, dim),
        "mlp.gate_proj": (layers, wide, dim),
        "mlp.down_proj": (layers, dim, wide),
        "mlp.up_proj": (layers, wide, dim),
        "model.norm": (dim,),
        "": (config.max_position_embeddings * head,),  # cosines and sines of positions
    }
    if not config.tie_word_embeddings:
        shapes["lm_head"] = (config.vocab_size, dim)
    if len(values) != sum(map(prod, shapes.values())):
        raise DataError(f"{path} is cut short, or too long for its header; get it again")
    start = 0
    for name, shape in shapes.items():
        weight = torch.from_numpy(values[start : start + prod(shape)].reshape(shape).copy())
        start += prod(shape)
        if name.startswith(("model", "lm_head")):
            yield f"{name}.weight", weight
        elif name:
            for layer, each in enumerate(weight):
                rotated = name.endswith(("q_proj", "k_proj"))
                yield f"model.layers.{layer}.{name}.weight", _halves_apart(each, head) if rotated else each


def _halves_apart(weight: Tensor, head: int) -> Tensor:
    """Rows of rotary pairs: neighbours in the file, half a head apart in transformers."""
    pairs = weight.reshape(-1, head // 2, 2, weight.shape[1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def _pieces(path: Path, data: bytes) -> list[tuple[str, float]]:
    """Each token with its score; blanks are written as in SentencePiece, bytes as ``<0x0A>``."""
    found, start = [], 4  # the first number is the length of the longest
    while start < len(data):
        if start + _TOKEN.size > len(data):
            raise DataError(f"{path} is cut short; get it again")
        score, length = _TOKEN.unpack_from(data, start)
        start += _TOKEN.size
        raw = data[start : start + length]
        start += length
        if length < 1 or len(raw) != length:
            raise DataError(f"{path} is damaged or cut short; get it again")
        found.append((raw.decode("utf-8", "replace").replace(" ", "▁"), score))
    for place, name in enumerate((_UNKNOWN, _START, _END)):
        found[place] = (name, found[place][1])
    return found


def _merges(pieces: list[tuple[str, float]], vocabulary: dict[str, int]) -> list[tuple[str, str]]:
    """The pairs that make each token, those of a higher score first."""
    found = [
        (-score, place, (text[:cut], text[cut:]))
        for place, (text, score) in enumerate(pieces)
        for cut in range(1, len(text))
        if text[:cut] in vocabulary and text[cut:] in vocabulary
    ]
    return [pair for *_, pair in sorted(found)]
