"""The base class of what turns the tokens of an item into fewer tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self

from nestling.elastic import Cost, resolve_each
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.part import Part
from nestling.nn.tokens.tokens import AnyTokens, Count, Tokens, as_tokens


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
