"""The base class of modules that are saved by their arguments and weights, and cut by a granularity."""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nestling.arguments.paths import home_path
from nestling.elastic import Cost
from nestling.errors import ArtifactError, unknown
from nestling.granularity import At, Granularity, Nesting
from nestling.storage.artifact import read_folder, write_folder

_WEIGHTS = "model.safetensors"
_PARTS = {
    "last_item": "recurrent.LastItem",
    "mean": "recurrent.Mean",
    "nested_embedding": "width.NestedEmbedding",
    "nested_gru": "recurrent.NestedGRU",
    "nested_linear": "width.NestedLinear",
    "nested_lru": "recurrent.NestedLRU",
    "nested_norm": "width.NestedNorm",
    "nested_output": "width.NestedOutput",
    "sequence_block": "recurrent.SequenceBlock",
    "sequence_stack": "recurrent.SequenceStack",
    "connector": "tokens.Connector",
    "grid_pool": "tokens.GridPool",
    "sequence_pool": "tokens.SequencePool",
    "budget_pool": "tokens.BudgetPool",
    "projector": "tokens.Projector",
    "query_resampler": "tokens.QueryResampler",
    "static_resampler": "tokens.StaticResampler",
    "scale_projectors": "tokens.ScaleProjectors",
    "tiled_views": "tokens.TiledViews",
}
"""The classes of saved parts, by their kind."""


class Part(nn.Module, ABC):
    """A module that can be saved, and cut if it has a nesting.

    ``kind`` names it in saved folders.
    """

    kind: ClassVar[str]

    @abstractmethod
    def arguments(self, at: At = None) -> dict[str, Any]:
        """The arguments of the constructor, as JSON holds them, of this part or of what ``at`` keeps."""

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """The weights and buffers that ``at`` keeps, by the names that they have afterwards."""
        return self.state_dict()

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """The part that :meth:`arguments` describes, with weights on the meta device."""
        with torch.device("meta"):
            made: Any = cls(**arguments)  # of any subclass, with arguments of its own
        return cast(Self, made)

    def copied(self, at: At = None) -> Self:
        """This part, or what ``at`` keeps of it, in memory of its own."""
        made = self.from_arguments(self.arguments(at))
        kept = {name: weight.detach().clone() for name, weight in self.weights(at).items()}
        return cast(Self, _filled(made, kept, self).train(self.training))

    def save(self, folder: str | Path, /) -> None:
        """Write a verified folder."""
        nesting = getattr(self, "nesting", None)
        with write_folder(folder, self.kind, nesting=nesting, settings=self.arguments()) as path:
            save_file({name: _as_real(weight) for name, weight in self.weights().items()}, path / _WEIGHTS)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what ``save`` wrote."""
        manifest = read_folder(folder, cls.kind)
        made = cls.from_arguments(manifest.settings)
        shapes = {name: weight.shape for name, weight in made.state_dict().items()}
        weights = {
            name: torch.view_as_complex(weight) if weight.shape == (*shapes.get(name, ()), 2) else weight
            for name, weight in load_file(home_path(folder) / _WEIGHTS).items()
        }
        return cast(Self, _filled(made, weights, None))


class ElasticPart(Part):
    """Base class of parts that are elastic (:class:`~nestling.elastic.Elastic`): what is kept, and its cost.

    Attributes:
        nesting: the granularities.
    """

    nesting: Nesting

    def extract(self, at: At) -> Self:
        """The part that has only the granularities up to ``at``."""
        return self.copied(self.nesting.resolve(at))

    def cost(self, at: At = None) -> Cost:
        """The cost of one item, whose output is held as float32."""
        granularity = self.nesting.resolve(at)
        held = list(self.weights(granularity).values())
        return Cost(
            flops=self.flops(granularity),
            parameters=sum(weight.numel() for weight in held),
            size_bytes=sum(weight.nbytes for weight in held),
            output_bytes=self.output_bytes(granularity),
        )

    def flops(self, at: At = None) -> float:
        """Multiply-adds of the matrix products for one item."""
        return 0.0

    @abstractmethod
    def output_bytes(self, at: Granularity) -> int:
        """Bytes of one output, as float32."""


def _as_real(weight: Tensor) -> Tensor:
    """A weight as files hold it: complex ones as pairs, since safetensors before 0.7 knows no others."""
    return (torch.view_as_real(weight) if weight.is_complex() else weight).contiguous().cpu()


def part_from(saved: dict[str, Any]) -> Part:
    """The part that a mapping with its ``kind`` and its arguments describes.

    Raises:
        ArtifactError: for a kind that this nestling does not know.
    """
    kind = saved["kind"]
    if kind not in _PARTS:
        raise ArtifactError(unknown("kind of part", kind, _PARTS))
    room, name = _PARTS[kind].split(".")
    home: type[Part] = getattr(import_module(f"{__package__}.{room}"), name)
    return home.from_arguments({name: value for name, value in saved.items() if name != "kind"})


def _filled(made: Part, weights: dict[str, Tensor], like: Part | None) -> Part:
    """``made``, built on the meta device, with weights; as trainable as those of ``like``."""
    made.load_state_dict(weights, assign=True)
    if like is not None:
        trained = {name: parameter.requires_grad for name, parameter in like.named_parameters()}
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(trained.get(name, True))
    return made
