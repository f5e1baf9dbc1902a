"""The base class of what turns the tokens of an item into fewer tokens."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

from nestling.elastic import resolve_each
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.part import ElasticPart
from nestling.nn.tokens.tokens import AnyTokens, Count, Tokens, as_tokens


class Compressor(ElasticPart):
    """Base class of parts whose number of tokens is chosen at the moment of use.

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

    def output_bytes(self, at: Granularity) -> int:
        """Bytes of the output of one item of :attr:`inputs` tokens."""
        return 4 * self.lengths(self.inputs, at) * self.out_width(at)
