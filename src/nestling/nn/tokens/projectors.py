"""Maps from the width of an encoder to that of a language model: one for all scales, or one a scale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

from torch import Tensor, nn

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.elastic import Cost
from nestling.errors import ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.part import Part
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.tokens import AnyTokens, Count, Tokens, as_tokens

Activation = Literal["gelu", "relu"]
_ACTIVATIONS = {"gelu": nn.GELU, "relu": nn.ReLU}


class Projector(Part):
    """A linear map, or a perceptron, of each token; it has no axis.

    Args:
        width: entries of an input token.
        out_width: entries of an output token.
        depth: linear maps, with activations between them.
        hidden: width between them; ``out_width`` by default.
        activation: between them.
        norm: end with a LayerNorm.
        bias: add biases.

    Source: LLaVA (two maps with GELU); Llama-MTSK, arXiv 2503.06362 (2048 wide, ReLU, LayerNorm); MQT, arXiv
    2405.19315 (one map without bias).

    >>> import torch
    >>> Projector(8, 16)(torch.zeros(2, 5, 8)).values.shape
    torch.Size([2, 5, 16])
    """

    kind = "projector"

    @checked(
        width=Whole(1),
        out_width=Whole(1),
        depth=Whole(1),
        hidden=Whole(1) | None,
        activation=OneOf(get_args(Activation)),
    )
    def __init__(
        self,
        width: int,
        out_width: int,
        *,
        depth: int = 2,
        hidden: int | None = None,
        activation: Activation = "gelu",
        norm: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.width, self._out_width, self.depth, self.bias = width, out_width, depth, bias
        self.hidden, self.activation, self.norm = hidden or out_width, activation, norm
        widths = [width, *[self.hidden] * (depth - 1), out_width]
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [_ACTIVATIONS[activation]()] if number else []
            layers.append(nn.Linear(widths[number], widths[number + 1], bias=bias))
        self.layers = nn.Sequential(*layers, *([nn.LayerNorm(out_width)] if norm else []))

    def forward(self, tokens: AnyTokens, /) -> Tokens:
        """The tokens ``Float[batch, n, out_width]``, with the same mask and grid."""
        found = as_tokens(tokens, self.width)
        return found._replace(values=self.layers(found.values))

    def out_width(self, at: At = None) -> int:
        """Entries of an output token."""
        return self._out_width

    def cost(self, at: At = None) -> Cost:
        """Of one token."""
        weights = list(self.parameters())
        matrices = [layer.weight.numel() for layer in self.layers if isinstance(layer, nn.Linear)]
        return Cost(
            flops=sum(matrices),
            parameters=sum(weight.numel() for weight in weights),
            size_bytes=sum(weight.nbytes for weight in weights),
            output_bytes=4 * self._out_width,
        )

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        return {
            "width": self.width,
            "out_width": self._out_width,
            "depth": self.depth,
            "hidden": self.hidden,
            "activation": self.activation,
            "norm": self.norm,
            "bias": self.bias,
        }


class ScaleProjectors(Compressor):
    """A projector of its own for each size; nothing is shared.

    The cost is that of one token: a connector knows how many there are. What is extracted at a size has the
    projectors up to that size.

    Args:
        nesting: sizes on one axis.
        width: entries of an input token: one number, or one a size, as stacking gives them.
        out_width: entries of an output token.
        settings: further arguments of each :class:`Projector`.

    Raises:
        GranularityError: for a nesting on several axes.
        ConfigError: for another number of widths than of sizes.

    Source: Llama-MTSK, arXiv 2503.06362.

    >>> import torch
    >>> projectors = ScaleProjectors("audio=31,125", 8, 16, hidden=32, activation="relu", norm=True)
    >>> projectors(torch.zeros(2, 3, 8), at="audio=31").values.shape
    torch.Size([2, 3, 16])
    """

    kind = "scale_projectors"
    inputs = 1

    def __init__(
        self, nesting: Nesting | str, width: int | Sequence[int], out_width: int, **settings: Any
    ) -> None:
        super().__init__()
        self.nesting = Nesting.of(nesting)
        if len(self.nesting.axes) != 1:
            raise ConfigError(f"projectors a scale need one axis; the nesting {self.nesting} has several")
        widths = [width] * len(self.nesting) if isinstance(width, int) else list(width)
        if len(widths) != len(self.nesting):
            raise ConfigError(
                f"width={widths} must be one number, or one for each of the {len(self.nesting)} sizes of "
                f"{self.nesting}"
            )
        self.widths, self.width = dict(zip(self.nesting, widths, strict=True)), widths[-1]
        self.projectors = nn.ModuleList(Projector(each, out_width, **settings) for each in widths)

    @classmethod
    def after(cls, pool: Compressor, out_width: int, **settings: Any) -> ScaleProjectors:
        """Projectors for the output of a compressor, at each of its sizes."""
        return cls(pool.nesting, [pool.out_width(g) for g in pool.nesting], out_width, **settings)

    def projector(self, at: At = None) -> Projector:
        """That of one size."""
        found = self.projectors[self.nesting.index(self.nesting.resolve(at))]
        assert isinstance(found, Projector)
        return found

    def read(self, tokens: AnyTokens) -> Tokens:
        """The input, checked; its width is checked by the projector."""
        return as_tokens(tokens)

    def each(self, tokens: Tokens, wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        """The projected tokens at each granularity."""
        return {g: self._projected(tokens, g) for g in wanted}

    def lengths(self, n: Count, at: At = None) -> Count:
        """``n``: a projector does not change the number of tokens."""
        self.nesting.resolve(at)
        return n

    def out_width(self, at: At = None) -> int:
        """Entries of an output token."""
        return self.projector(at).out_width()

    def flops(self, at: At = None) -> float:
        """Multiply-adds for one token."""
        return self.projector(at).cost().flops

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        kept = self.nesting.up_to(self.nesting.resolve(at))
        settings = self.projector().arguments()
        del settings["width"]
        return {"nesting": str(kept), "width": [self.widths[g] for g in kept], **settings}

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """The weights of the projectors up to ``at``."""
        kept = [f"projectors.{n}." for n in range(1 + self.nesting.index(self.nesting.resolve(at)))]
        return {name: w for name, w in self.state_dict().items() if name.startswith(tuple(kept))}

    def _projected(self, tokens: Tokens, g: Granularity) -> Tokens:
        if tokens.values.shape[2] != self.widths[g]:
            raise DataError(
                f"the projector at {g} takes tokens of {self.widths[g]} entries, not of "
                f"{tokens.values.shape[2]}; the pooling before it must be at {g} too"
            )
        found: Tokens = self.projector(g)(tokens)
        return found
