"""Vectors of items: learned by id, projected from features, or both, cut on ``width``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nestling.errors import ConfigError
from nestling.granularity import At, Nesting
from nestling.nn.width import NestedEmbedding, NestedLinear, WidthPart
from nestling.process.blocks import blocks

_START = 0.05
_ROWS_AT_A_TIME = 1 << 14


class ItemVectors(WidthPart):
    """A vector for each row of a catalogue: the sum of one learned for it and projections of its features.

    Args:
        rows: number of items.
        sizes: widths, increasing.
        ids: learn a vector for each item.
        features: the size of each kind of features.

    Raises:
        ConfigError: for neither ids nor features.
    """

    kind = "item_vectors"

    def __init__(
        self, rows: int, sizes: Sequence[int], *, ids: bool = True, features: Mapping[str, int] | None = None
    ) -> None:
        super().__init__()
        self.nesting, self.rows = Nesting.chain(width=sizes), rows
        self.out_sizes, self.feature_sizes = self.nesting.sizes("width"), dict(features or {})
        if not ids and not self.feature_sizes:
            raise ConfigError("items have neither ids nor features to make vectors of; name at least one")
        self.ids = NestedEmbedding(rows, self.out_sizes) if ids else None
        if self.ids is not None:
            nn.init.normal_(self.ids.weight, std=_START)
        self.projections = nn.ModuleDict(
            {name: NestedLinear(size, self.out_sizes) for name, size in self.feature_sizes.items()}
        )
        for name, size in self.feature_sizes.items():
            self.register_buffer(f"feature_{name}", torch.zeros(rows, size))
            self.register_buffer(f"centre_{name}", torch.zeros(size))
            self.register_buffer(f"scale_{name}", torch.ones(()))

    def set_features(self, name: str, values: Tensor, seen: Tensor | None = None) -> None:
        """Take the features of all items, centred and scaled to unit variance.

        Unscaled features of unit length are small in each entry, and train slowly.

        Args:
            name: of the features.
            values: ``Float[rows, size]``.
            seen: rows of training items, whose mean and variance are taken; all by default.
        """
        sample = values if seen is None else values[seen]
        centre = sample.mean(dim=0)
        scale = (sample - centre).square().mean().sqrt().clamp_min(1e-12).reciprocal()
        self.get_buffer(f"centre_{name}").copy_(centre)
        self.get_buffer(f"scale_{name}").copy_(scale)
        self.get_buffer(f"feature_{name}").copy_((values - centre) * scale)

    def forget_unseen(self, seen: Tensor) -> None:
        """Set the learned vectors of items that training never saw to zero, if there are features."""
        if self.ids is None or not self.feature_sizes:
            return
        unseen = torch.ones(self.rows, dtype=torch.bool)
        unseen[seen] = False
        with torch.no_grad():
            self.ids.weight[unseen.to(self.ids.weight.device)] = 0

    def grown(
        self, rows: int, places: NDArray[np.int64], features: Mapping[str, NDArray[np.float32]]
    ) -> ItemVectors:
        """The vectors of a larger catalogue; new items have features alone.

        Args:
            rows: of the larger catalogue.
            places: in it, of the items of this one.
            features: of all its items, by name.
        """
        with torch.device("meta"):
            made = ItemVectors(rows, self.out_sizes, ids=self.ids is not None, features=self.feature_sizes)
        state = {name: value.clone() for name, value in self.state_dict().items()}
        for name, x in features.items():
            centred = torch.from_numpy(x) - state[f"centre_{name}"]
            state[f"feature_{name}"] = centred * state[f"scale_{name}"]
        if self.ids is not None:
            table = self.ids.weight.new_zeros(rows, self.out_sizes[-1])
            table[torch.from_numpy(places)] = self.ids.weight.detach()
            state["ids.weight"] = table
        made.load_state_dict(state, assign=True)
        return made.train(self.training)

    def leading(self, x: Tensor, place: int) -> Tensor:
        """See :class:`~nestling.nn.width.WidthPart`; ``x`` are row numbers."""
        g = self.nesting[place]
        parts = [] if self.ids is None else [self.ids(x, at=g)]
        for name, projection in self.projections.items():
            parts.append(projection(self.get_buffer(f"feature_{name}")[x], at=g))
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(dim=0)

    def table(self, at: At = None) -> Tensor:
        """The vectors of all items at a width, ``Float[rows, width]``, without gradients."""
        with torch.no_grad():
            device = next(self.parameters()).device
            rows = torch.arange(self.rows, device=device)
            return torch.cat([self(rows[part], at=at) for part in blocks(self.rows, _ROWS_AT_A_TIME)])

    def baked(self, at: At = None) -> ItemVectors:
        """The vectors up to a width as a table of ids, without features."""
        kept = self.nesting.up_to(self.nesting.resolve(at))
        with torch.device("meta"):
            made = ItemVectors(self.rows, kept.sizes("width"))
        made.load_state_dict({"ids.weight": self.table(at).clone()}, assign=True)
        return made.train(self.training)

    def flops(self, at: At = None) -> float:
        """Multiply-adds of the projections of one item."""
        g = self.nesting.resolve(at)
        return float(sum(size * g["width"] for size in self.feature_sizes.values()))

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        return {
            "rows": self.rows,
            "sizes": list(self.out_sizes[: self.place(at) + 1]),
            "ids": self.ids is not None,
            "features": self.feature_sizes,
        }

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """See :class:`Part`."""
        g = self.nesting.resolve(at)
        kept = {name: buffer for name, buffer in self.named_buffers() if "." not in name}
        for path, part in (
            ("ids", self.ids),
            *((f"projections.{n}", p) for n, p in self.projections.items()),
        ):
            if part is not None:
                kept |= {f"{path}.{name}": weight for name, weight in part.weights(g).items()}  # type: ignore[operator]
        return kept
