"""A text encoder and a map of its vectors: put together as one model, and taken apart again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nestling.cut import CutRule
from nestling.elastic import Origin
from nestling.encoders.text.export import (
    EMBEDDING,
    append,
    linear_module,
    modules_of,
    stock_modules,
    width_of,
    with_modules,
)
from nestling.encoders.text.origin import TrainedFrom
from nestling.errors import DataError
from nestling.granularity import Nesting
from nestling.nn.inference import evaluating
from nestling.vectors.matrix import blocks_of

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from nestling.encoders.text.encoder import TextEncoder


class Adaptable(Protocol):
    """A map on vectors that a chain of plain layers can express, such as a fitted ``NestedAdapter``."""

    @property
    def nesting(self) -> Nesting:
        """The sizes of its output."""
        ...

    def affine_layers(self) -> Sequence[tuple[Tensor, Tensor | None, nn.Module | None]]:
        """Weight, bias and activation of each layer: ``activation(x @ weight.T + bias)``."""
        ...


def put_together(encoder: TextEncoder, model: SentenceTransformer, adapter: Adaptable) -> TextEncoder:
    """``model``, which gives the full vectors of ``encoder``, followed by the map of an adapter.

    Raises:
        DataError: if the adapter takes vectors of another size.
    """
    layers, full = adapter.affine_layers(), encoder.nesting.full["dim"]
    taken = layers[0][0].shape[1]
    if taken != full:
        raise DataError(
            f"the adapter takes vectors of {taken} dims, but this encoder gives {full}; "
            "fit it on vectors of this encoder"
        )
    modules = modules_of(model)
    under = TrainedFrom(modules=len(modules))
    append(modules, *(linear_module(*layer) for layer in layers))
    rule = getattr(adapter, "rule", encoder.rule)
    mapped = type(encoder)(with_modules(model, modules), adapter.nesting, rule)
    mapped.trained_from = under
    return mapped


def take_apart(encoder: TextEncoder, count: int) -> Origin:
    """The first ``count`` modules of the model as an encoder, and the others as the map of its vectors."""
    modules = modules_of(encoder.model)
    under = with_modules(encoder.model, OrderedDict(islice(modules.items(), count)))
    last = next(reversed(modules_of(under).values()))
    normalises = isinstance(last, stock_modules().Normalize)
    rule = CutRule(after="l2" if normalises else "none")
    rest = list(islice(modules.values(), count, None))

    def lift(vectors: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        with evaluating(encoder):
            return np.concatenate([mapped(vectors[rows]) for rows in blocks_of(vectors)])

    def mapped(block: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        features = {EMBEDDING: torch.from_numpy(np.array(block)).to(encoder.model.device)}
        for module in rest:
            features = module(features)
        found: NDArray[np.float32] = features[EMBEDDING].float().cpu().numpy()
        return found

    return Origin(type(encoder)(under, [width_of(under)], rule), lift)
