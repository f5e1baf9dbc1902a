"""The base class of what turns the tokens of an item into fewer tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from nestling.arguments.paths import home_path
from nestling.elastic import Cost, resolve_each
from nestling.errors import ArtifactError, unknown
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.tokens.tokens import AnyTokens, Count, Tokens, as_tokens
from nestling.storage.artifact import read_folder, write_folder

_WEIGHTS = "model.safetensors"
_PARTS = {
    "connector": "Connector",
    "grid_pool": "GridPool",
    "sequence_pool": "SequencePool",
    "budget_pool": "BudgetPool",
    "projector": "Projector",
    "query_resampler": "QueryResampler",
    "static_resampler": "StaticResampler",
    "scale_projectors": "ScaleProjectors",
    "tiled_views": "TiledViews",
}
"""The classes of saved parts, by their kind."""


class Part(nn.Module, ABC):
    """A module from tokens to tokens that can be saved, and cut if it has a nesting.

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
            weights = {name: weight.contiguous().cpu() for name, weight in self.weights().items()}
            save_file(weights, path / _WEIGHTS)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        """Read what ``save`` wrote."""
        manifest = read_folder(folder, cls.kind)
        made = cls.from_arguments(manifest.settings)
        return cast(Self, _filled(made, load_file(home_path(folder) / _WEIGHTS), None))


def part_from(saved: dict[str, Any]) -> Part:
    """The part that a mapping with its ``kind`` and its arguments describes.

    Raises:
        ArtifactError: for a kind that this nestling does not know.
    """
    kind = saved["kind"]
    if kind not in _PARTS:
        raise ArtifactError(unknown("kind of part", kind, _PARTS))
    home: type[Part] = getattr(import_module(__package__), _PARTS[kind])
    return home.from_arguments({name: value for name, value in saved.items() if name != "kind"})


class Compressor(Part):
    """Base class of parts whose number of tokens is chosen at the moment of use.

    A compressor is elastic (:class:`~nestling.elastic.Elastic`).

    Attributes:
        nesting: sizes on one axis, ``tokens`` unless the constructor says another.
        width: entries of an input token.
        inputs: tokens of one input item, as ``cost`` counts them.
    """

    nesting: Nesting
    width: int
    inputs: int

    def forward(self, tokens: AnyTokens, /, at: At = None) -> Tokens:
        """The tokens ``Float[batch, m, out_width]`` at one granularity."""
        granularity = self.nesting.resolve(at)
        return self.each(self.read(tokens), (granularity,))[granularity]

    def forward_each(
        self, tokens: AnyTokens, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tokens]:
        """The tokens at several granularities; shared work is done once."""
        return self.each(self.read(tokens), resolve_each(self.nesting, granularities))

    def read(self, tokens: AnyTokens) -> Tokens:
        """The input, checked.

        Raises:
            DataError: if it does not fit.
        """
        return as_tokens(tokens, self.width)

    @abstractmethod
    def each(self, tokens: Tokens, wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        """The tokens at granularities of the nesting, of tokens that :meth:`read` returned."""

    @abstractmethod
    def lengths(self, n: Count, at: At = None) -> Count:
        """The exact number of output tokens of items with ``n`` input tokens."""

    def out_width(self, at: At = None) -> int:
        """Entries of an output token."""
        self.nesting.resolve(at)
        return self.width

    def shape(self, at: At = None) -> tuple[int, int] | None:
        """Rows and columns of the output; None if it is a sequence."""
        self.nesting.resolve(at)
        return None

    def extract(self, at: At) -> Self:
        """The compressor that has only the granularities up to ``at``."""
        return self.copied(self.nesting.resolve(at))

    def cost(self, at: At = None) -> Cost:
        """Of one item of :attr:`inputs` tokens, whose output is held as float32."""
        granularity = self.nesting.resolve(at)
        held = list(self.weights(granularity).values())
        return Cost(
            flops=self.flops(granularity),
            parameters=sum(weight.numel() for weight in held),
            size_bytes=sum(weight.nbytes for weight in held),
            output_bytes=4 * self.lengths(self.inputs, granularity) * self.out_width(granularity),
        )

    def flops(self, at: At = None) -> float:
        """Multiply-adds of the matrix products for one item; pooling has none."""
        return 0.0


def _filled(made: Part, weights: dict[str, Tensor], like: Part | None) -> Part:
    """``made``, built on the meta device, with weights; as trainable as those of ``like``."""
    made.load_state_dict(weights, assign=True)
    if like is not None:
        trained = {name: parameter.requires_grad for name, parameter in like.named_parameters()}
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(trained.get(name, True))
    return made
