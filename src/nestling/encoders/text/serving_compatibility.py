"""Inference servers (TEI, vLLM): writes the files they read, and predicts where their vectors differ."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nestling.arguments.paths import home_path
from nestling.encoders.config_files import read_config, write_config
from nestling.encoders.text.static.layers import EMBEDDING
from nestling.errors import ServingWarning

Answer = Literal["same", "other", "none"]
Rest = Sequence[tuple[str, Any]]
"""The modules after the pooling: class and config of each."""

_MODULES, _CONFIG, _TRANSFORMER = "modules.json", "config.json", "sentence_bert_config.json"
_ABOUT = "config_sentence_transformers.json"
_TOKENIZER = "tokenizer.json"
_KNOWN = ("Transformer", "StaticEmbedding", "Pooling", "Dense", "LayerNorm", "Normalize")
_STRICTLY_KNOWN = ("Dense", "Normalize")
_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
_SERVED_POOLINGS = ("cls", "mean", "lasttoken")
_POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")
# Without a length in the tokenizer, transformers writes 10**30, which no server can read.
_LONGEST = 2**31
# y(c x) = c y(x) for every c > 0, so a length that is divided out at the end may stay in until then.
_HOMOGENEOUS = ("Identity", "ReLU")


@dataclass(frozen=True)
class Served:
    """The result of serving a saved model.

    Args:
        server: ``"TEI"`` (text-embeddings-inference) or ``"vLLM"``.
        vectors: ``"same"`` as the encoder gives, ``"other"`` ones without an error, or ``"none"``: it
            does not start.
        reason: reason for other vectors; if they are the same, settings that the request needs, if any.
    """

    server: str
    vectors: Answer
    reason: str = ""


@dataclass(frozen=True)
class _Server:
    """The rules of one server for the modules after the transformer."""

    name: str
    activations: Sequence[str]
    is_strict: bool  # it stops at unknown modules; others skip them
    normalises_always: bool


# As their sources say: TEI of July 2026 (router/src/lib.rs, backends/src/lib.rs, models/dense.rs) and vLLM
# 0.24 (transformers_utils/config.py, model_executor/models/adapters.py, layers/activation.py).
_TEI = _Server("TEI", ("Identity", "Tanh"), is_strict=True, normalises_always=True)
_VLLM = _Server(
    "vLLM",
    ("Identity", "Tanh", "ReLU", "GELU", "SiLU", "Sigmoid"),
    is_strict=False,
    normalises_always=False,
)


def prepare_for_servers(folder: Path, max_length: int | None) -> None:
    """Add the entries that servers read and sentence-transformers 6 no longer writes.

    sentence-transformers 6 reads both forms alike: the names that modules had before, how tokens are pooled
    as one truth value for each way, and how many tokens are read.

    Args:
        folder: as ``SentenceTransformer.save`` wrote it.
        max_length: tokens of a text that the model reads, if it says so.
    """
    modules = read_config(folder / _MODULES)
    for module in modules:
        home, _, kind = str(module["type"]).rpartition(".")
        if home.startswith("sentence_transformers.") and kind in _KNOWN:
            module["type"] = f"sentence_transformers.models.{kind}"
    write_config(folder / _MODULES, modules)
    for kind, place in _chain(folder):
        if kind == "Pooling":
            _name_pooling(place / _CONFIG)
        elif kind == "Transformer":
            _name_length(place, max_length)


def served_by(folder: str | Path, /) -> tuple[Served, ...]:
    """Whether TEI and vLLM give the same vectors for a saved text encoder, by the rules of their sources.

    Both pool, apply every Dense, and normalise once at the end; other modules between are skipped. Whether
    a server knows the architecture of the transformer is not asked.
    """
    return tuple(_ask(server, home_path(folder)) for server in (_TEI, _VLLM))


def in_words(served: Iterable[Served]) -> str:
    """One sentence per group of servers with the same result."""
    verbs = {"same": "the same vectors", "other": "other vectors", "none": "not served"}
    groups: dict[tuple[Answer, str], list[str]] = {}
    for each in served:
        groups.setdefault((each.vectors, each.reason), []).append(each.server)
    return "; ".join(
        f"{' and '.join(names)}: {verbs[vectors]}{reason and f' ({reason})'}"
        for (vectors, reason), names in groups.items()
    )


def warn_of_others(folder: str | Path) -> None:
    """Warn if a server would give other vectors than the encoder saved there, and say nothing of it."""
    others = [each for each in served_by(folder) if each.vectors == "other"]
    if others:
        warnings.warn(
            f"{in_words(others)}; sentence-transformers 6 or newer gives the same",
            ServingWarning,
            stacklevel=3,
        )


def _ask(server: _Server, folder: Path) -> Served:
    chain = list(_chain(folder))
    if [kind for kind, _ in chain[:2]] != ["Transformer", "Pooling"]:
        first = chain[0][0] if chain else "nothing"
        reason = f"a Transformer followed by a Pooling is served, and this begins with {first}"
        return Served(server.name, "none", reason)
    pooling = read_config(chain[1][1] / _CONFIG)
    rest = [(kind, read_config(place / _CONFIG)) for kind, place in chain[2:]]
    if server.is_strict:
        for reason in _stops(server, folder, pooling, rest):
            return Served(server.name, "none", reason)
    about = read_config(folder / _ABOUT)
    for reason in _differences(server, pooling, rest, about.get("prompts") or {}):
        return Served(server.name, "other", reason)
    return Served(server.name, "same", " and ".join(_to_ask(server, rest, about)))


def _stops(server: _Server, folder: Path, pooling: Any, rest: Rest) -> Iterator[str]:
    """Reasons that a server which checks the whole model does not start."""
    if not (folder / _TOKENIZER).is_file():
        yield f"it needs a fast tokenizer in {_TOKENIZER}"
    if _mode(pooling) not in _SERVED_POOLINGS:
        yield f"the pooling {_mode(pooling)} is not known there"
    if _POOLING_KEYS["cls"] not in pooling or "max_seq_length" not in read_config(folder / _TRANSFORMER):
        yield "the folder does not say in the form of TEI how tokens are pooled and how many are read"
    if all(kind in _STRICTLY_KNOWN for kind, _ in rest):
        for config in (config for kind, config in rest if kind == "Dense"):
            if _activation(config) not in server.activations:
                yield f"the activation {_activation(config)} is not known there"


def _differences(server: _Server, pooling: Any, rest: Rest, prompts: Mapping[str, str]) -> Iterator[str]:
    """Reasons that a server which starts gives other vectors."""
    kinds = [kind for kind, _ in rest]
    mode = _mode(pooling)
    if mode not in _SERVED_POOLINGS and not (mode == "mean_sqrt_len_tokens" and _any_length(rest)):
        yield f"the pooling {mode} is not known there"
    for kind, config in rest:
        if kind not in _STRICTLY_KNOWN:
            yield f"the {kind} is left out" + (" and every Dense" * (server.is_strict and "Dense" in kinds))
        if kind == "Dense" and (config.get("use_residual") or _places(config) - {EMBEDDING, None}):
            yield "of a Dense only matrix, bias and activation are read"
        if kind == "Dense" and _activation(config) not in server.activations:
            yield f"the activation {_activation(config)} is not known there, and every Dense is left out"
    if "Normalize" in kinds and kinds[-1] != "Normalize":
        yield "vectors are normalised at the end and not between modules"
    inner = [rest[place + 1 :] for place, kind in enumerate(kinds[:-1]) if kind == "Normalize"]
    if not all(_any_length(after) for after in inner):
        yield "a Normalize before a bias or a curved activation is left out"
    if pooling.get("include_prompt") is False and any(prompts.values()):
        yield "the tokens of prompts are pooled too"


def _to_ask(server: _Server, rest: Rest, about: Any) -> Iterator[str]:
    """Settings that requests need for the same vectors."""
    if server.normalises_always and all(kind != "Normalize" for kind, _ in rest):
        yield 'with "normalize": false in requests'
    name = about.get("default_prompt_name")
    if (about.get("prompts") or {}).get(name):
        yield f"with the prompt {name!r} before texts"


def _any_length(rest: Rest) -> bool:
    """Whether scaling the input of these modules leaves their output unchanged."""
    for kind, config in rest:
        if kind == "Normalize":
            return True
        if kind != "Dense" or config.get("bias") or _activation(config) not in _HOMOGENEOUS:
            return False
    return False


def _name_pooling(path: Path) -> None:
    config = read_config(path)
    mode = _mode(config)
    # Servers use the first of several combined poolings; without one TEI stops with an error.
    if mode in _POOLING_KEYS:
        config |= {key: mode == name for name, key in _POOLING_KEYS.items()}
        write_config(path, config)


def _name_length(folder: Path, max_length: int | None) -> None:
    if max_length is None or max_length >= _LONGEST:
        return
    path, about = folder / _TRANSFORMER, read_config(folder / _CONFIG)
    positions = about.get("max_position_embeddings")
    if positions and about.get("model_type") in _POSITIONS_AFTER_PADDING:
        max_length = min(max_length, positions - (about.get("pad_token_id") or 0) - 1)
    config = read_config(path)
    # vLLM reads the length only where it finds both.
    write_config(
        path, config | {"max_seq_length": max_length, "do_lower_case": config.get("do_lower_case", False)}
    )


def _mode(pooling: Any) -> str:
    mode = pooling.get("pooling_mode", "mean")
    return mode if isinstance(mode, str) else " with ".join(mode)


def _activation(dense: Any) -> str:
    return str(dense.get("activation_function", "Identity")).rpartition(".")[2]


def _places(dense: Any) -> set[str | None]:
    return {dense.get("module_input_name"), dense.get("module_output_name")}


def _chain(folder: Path) -> Iterator[tuple[str, Path]]:
    """The modules of a folder in order: their class, and where they lie."""
    for module in read_config(folder / _MODULES):
        yield str(module["type"]).rpartition(".")[2], folder / module["path"]
