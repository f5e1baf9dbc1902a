"""The vectors of pictures that models like LLaVA put in the places of their image tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nestling.errors import DataError


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """The vectors of pictures, equally many of each.

    Args:
        model: with ``get_image_features``.
    """

    model: Any

    def __call__(self, **inputs: Tensor) -> Tensor:
        """Vectors ``Float[pictures, n, width]``.

        Raises:
            DataError: if pictures have different numbers of vectors.
        """
        found = self.model.get_image_features(**inputs, return_dict=True).pooler_output
        if isinstance(found, Tensor):
            return found
        counts = {len(each) for each in found}
        if len(counts) > 1:
            raise DataError(
                f"the pictures have {', '.join(map(str, sorted(counts)))} vectors; give pictures of one "
                "size, which have equally many"
            )
        return torch.stack(list(found))


def selected(model: Any, pixels: Tensor) -> Tensor:
    """The hidden states that the configuration of a LLaVA names, ``Float[views, n, width]``."""
    states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    layers = model.config.vision_feature_layer
    chosen = [states[layer] for layer in ([layers] if isinstance(layers, int) else layers)]
    start = 1 if model.config.vision_feature_select_strategy == "default" else 0
    return torch.cat(chosen, dim=-1)[:, start:]
