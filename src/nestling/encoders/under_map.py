"""A model that ends in a map of vectors, taken apart: the encoder under it, and the map."""

from __future__ import annotations

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from nestling.cut import CutRule
from nestling.elastic import Origin
from nestling.encoders.export import EMBEDDING, modules_of, stock_modules, width_of, with_modules
from nestling.encoders.inference import evaluating
from nestling.encoders.matrix import blocks_of

if TYPE_CHECKING:
    from nestling.encoders.text import TextEncoder


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
