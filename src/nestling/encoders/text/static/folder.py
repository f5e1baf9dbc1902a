"""Folders of sentence-transformers that hold a table of static vectors, read and written without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from nestling.encoders.config_files import read_config, write_config
from nestling.encoders.text.static.layers import Dense, Floats, Layer, LayerNorm, Normalize
from nestling.errors import DataError, require

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_MODULES, _ABOUT, _CONFIG = "modules.json", "config_sentence_transformers.json", "config.json"
_WEIGHTS, _VOCABULARY = "model.safetensors", "tokenizer.json"
_HOME = "sentence_transformers.models"  # as every version reads it


@dataclass(frozen=True)
class StaticFolder:
    """Contents of such a folder.

    Args:
        tokenizer: of the package tokenizers.
        table: a vector for each token, ``Float32[tokens, width]``.
        layers: the modules after the mean over the tokens.
        about: prompts and similarity, as sentence-transformers keeps them.
        config: the model's ``config.json``, such as its declared sizes.
    """

    tokenizer: Tokenizer
    table: Floats
    layers: tuple[Layer, ...]
    about: Mapping[str, Any]
    config: Mapping[str, Any]


def is_static(folder: Path) -> bool:
    """Whether a folder holds a table of static vectors and nothing after it that needs torch."""
    try:
        modules = _modules(folder)
        if not modules or modules[0][0] != "StaticEmbedding":
            return False
        return (modules[0][1] / _WEIGHTS).is_file() and all(_is_known(*module) for module in modules[1:])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # reading it later reports the reason


def read_static(folder: Path) -> StaticFolder:
    """Read a folder for which :func:`is_static` holds.

    Raises:
        DataError: if its weights or its tokenizer cannot be read.
        MissingExtraError: if the package tokenizers is not installed.
    """
    (_, home), *rest = _modules(folder)
    try:
        weights = load_file(home / _WEIGHTS)
        table = _table(weights)
        layers = [_layer(kind, place) for kind, place in rest]
        said = [dict(read_config(folder / name)) for name in (_ABOUT, _CONFIG)]
        return StaticFolder(read_tokenizer(home / _VOCABULARY), table, tuple(layers), *said)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        if isinstance(error, DataError):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"the model in {folder} cannot be read: {reason}; save or copy it again") from error


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer by the file that describes it.

    Raises:
        DataError: if it cannot be read.
        MissingExtraError: if the package tokenizers is not installed.
    """
    tokenizers = require("tokenizers", "static")
    try:
        tokenizer: Tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises no other type
        raise DataError(f"the tokenizer {path} cannot be read: {error}; copy the model again") from error
    tokenizer.no_padding()
    return tokenizer


def write_static(folder: Path, tokenizer: Any, table: Floats, layers: Sequence[Layer], about: Any) -> None:
    """Fill a folder that plain sentence-transformers loads."""
    modules = []
    for number, module in enumerate((None, *layers)):
        kind = "StaticEmbedding" if module is None else type(module).__name__
        path = "" if module is None else f"{number}_{kind}"
        modules.append({"idx": number, "name": str(number), "path": path, "type": f"{_HOME}.{kind}"})
        if module is not None:
            _write_layer(folder / path, module)
    save_file({"embedding.weight": np.ascontiguousarray(table)}, folder / _WEIGHTS)
    tokenizer.save(str(folder / _VOCABULARY))
    write_config(folder / _MODULES, modules)
    write_config(folder / _ABOUT, about)


def _write_layer(folder: Path, layer: Layer) -> None:
    folder.mkdir()
    write_config(folder / _CONFIG, layer.config)
    if layer.weights:
        arrays = {name: np.ascontiguousarray(values) for name, values in layer.weights.items()}
        save_file(arrays, folder / _WEIGHTS)


def _modules(folder: Path) -> list[tuple[str, Path]]:
    """The stock modules of a folder in order: their class, and where they lie."""
    found = []
    for module in json.loads((folder / _MODULES).read_text(encoding="utf-8")):
        package, _, kind = module["type"].rpartition(".")
        stock = package.split(".")[0] == "sentence_transformers"
        found.append((kind if stock else module["type"], folder / module["path"]))
    return found


def _is_known(kind: str, folder: Path) -> bool:
    if kind == "Dense":
        return (
            Dense.read(read_config(folder / _CONFIG), {"linear.weight": np.zeros((1, 1), np.float32)})
            is not None
        )
    if kind == "Normalize":
        return Normalize().config.items() >= dict(read_config(folder / _CONFIG)).items()
    return kind == "LayerNorm"


def _layer(kind: str, folder: Path) -> Layer:
    if kind == "Normalize":
        return Normalize()
    weights = {name: _floats(values) for name, values in load_file(folder / _WEIGHTS).items()}
    if kind == "LayerNorm":
        return LayerNorm(weights["norm.weight"], weights["norm.bias"])
    layer = Dense.read(read_config(folder / _CONFIG), weights)
    assert layer is not None, "is_static said so"
    return layer


def _table(weights: Mapping[str, Any]) -> Floats:
    """The vector of each token; model2vec keeps fewer vectors than tokens, and a weight for each token."""
    if "embedding.weight" in weights:
        return _floats(weights["embedding.weight"])
    table = _floats(weights["embeddings"])
    if "mapping" in weights:
        table = table[weights["mapping"]]
    return table * _floats(weights["weights"])[:, None] if "weights" in weights else table


def _floats(values: Any) -> Floats:
    # Some tables are kept as half floats on disk; sums over tokens want more.
    return np.asarray(values, np.float32)
