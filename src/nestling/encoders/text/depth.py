"""Applies :mod:`nestling.nn.early_exit` to the models of sentence-transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from nestling.encoders.text.export import (
    EMBEDDING,
    first_entries,
    last_dense,
    modules_of,
    stock_modules,
    with_modules,
)
from nestling.errors import ConfigError
from nestling.nn.early_exit import LayerStack, states_each, with_transformer

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def depth_of(model: SentenceTransformer) -> int:
    """The number of layers of a model.

    Raises:
        ConfigError: for a model without layers, or whose layers are not found.
    """
    return len(LayerStack(_transformer(model).auto_model))


def shallower(model: SentenceTransformer, depth: int) -> SentenceTransformer:
    """A model of the first ``depth`` layers of ``model``; weights are shared."""
    modules, transformer = modules_of(model), _transformer(model)
    first = next(iter(modules))
    modules[first] = with_transformer(transformer, LayerStack(transformer.auto_model).first(depth))
    return with_modules(model, modules)


def embeddings_each(
    model: SentenceTransformer,
    features: dict[str, Any],
    depths: Iterable[int | None],
    dim: int | None = None,
) -> dict[int | None, Tensor]:
    """Embeddings of a model at several depths, from one pass through its layers.

    Args:
        model: its modules after the layers run once for each depth.
        features: the output of its ``preprocess``.
        depths: numbers of layers; None for all.
        dim: entries that are needed; a final Dense computes only these.
    """
    wanted = list(dict.fromkeys(depths))
    first, *rest = model.children()
    given: dict[int | None, dict[str, Any]]
    if wanted == [None]:
        given = {None: first(dict(features))}
    else:
        found = states_each(_transformer(model), features, [depth or depth_of(model) for depth in wanted])
        given = {depth: found[depth or depth_of(model)] for depth in wanted}
    dense = last_dense(model)
    if dense is None or dim is None or dim == dense.out_features:
        return {depth: _through(rest, each)[EMBEDDING] for depth, each in given.items()}
    return {
        depth: first_entries(dense, _through(rest[:-1], each)[EMBEDDING], dim)
        for depth, each in given.items()
    }


def _through(modules: list[Any], features: dict[str, Any]) -> dict[str, Any]:
    for module in modules:
        features = module(features)
    return features


def _transformer(model: SentenceTransformer) -> Any:
    first = next(iter(model.children()))
    if not isinstance(first, stock_modules().Transformer):
        raise ConfigError(
            f"the model starts with {type(first).__name__}, which has no layers; use a nesting of dims alone"
        )
    return first
