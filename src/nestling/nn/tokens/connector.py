"""A chain of compressors and projectors, from features of an encoder to the prefix of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

from torch import Tensor, nn

from nestling.arguments.formatting import type_of
from nestling.errors import ConfigError
from nestling.granularity import At, Granularity
from nestling.nn.part import Part, part_from
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.projectors import Projector, ScaleProjectors
from nestling.nn.tokens.tokens import AnyTokens, Count, Tokens, as_tokens


class Connector(Compressor):
    """Parts one after the other, cut together.

    M3 projects and then pools: ``Connector(Projector(1024, 4096), GridPool((24, 24), sizes, 4096))``.
    Llama-MTSK pools and then projects, with a projector a rate: ``Connector(pool,
    ScaleProjectors.after(pool, 2048, ...))``. MQT ends with one matrix: ``Connector(QueryResampler(...),
    Projector(1024, 4096, depth=1, bias=False))``.

    Args:
        parts: compressors and projectors; those with a nesting must have the same.

    Raises:
        ConfigError: if no part has a nesting, two have different ones, or a part has not the width that the
            one before it gives.
    """

    kind = "connector"

    def __init__(self, *parts: Compressor | Projector) -> None:
        super().__init__()
        for part in parts:
            if not isinstance(part, (Compressor, Projector)):
                raise ConfigError(f"a connector is made of compressors and projectors, not {type_of(part)}")
        elastic = [part for part in parts if isinstance(part, Compressor)]
        if not elastic:
            raise ConfigError("a connector needs a part that can be cut, such as a GridPool")
        self.nesting = elastic[0].nesting
        for part in elastic:
            if part.nesting != self.nesting:
                raise ConfigError(
                    f"the parts of a connector are cut together, but a {type(part).__name__} has the nesting "
                    f"{part.nesting}, and the first has {self.nesting}; give both the same sizes"
                )
        for before, after in pairwise(parts):
            for g in self.nesting:
                _check_widths(before, after, g)
        self.parts = nn.ModuleList(parts)
        self.width = parts[0].width
        # A projector does not know how many tokens an item has.
        self.inputs = next((part.inputs for part in elastic if not isinstance(part, ScaleProjectors)), 1)

    def read(self, tokens: AnyTokens) -> Tokens:
        """The input, checked; each part checks what it is given."""
        return as_tokens(tokens)

    def each(self, tokens: Tokens, wanted: Sequence[Granularity]) -> dict[Granularity, Tokens]:
        """The tokens at each granularity; a part does equal work once."""
        found = dict.fromkeys(wanted, tokens)
        for part in self.parts:
            found = _through(part, found)
        return found

    def lengths(self, n: Count, at: At = None) -> Count:
        """The exact number of tokens that the last part gives."""
        for part in self.parts:
            n = part.lengths(n, at) if isinstance(part, Compressor) else n
        return n

    def out_width(self, at: At = None) -> int:
        """Entries of an output token."""
        self.nesting.resolve(at)
        last: Any = self.parts[-1]
        return int(last.out_width(at))

    def shape(self, at: At = None) -> tuple[int, int] | None:
        """Rows and columns of the output; None if it is a sequence."""
        pools = [part for part in self.parts if isinstance(part, Compressor)]
        shaping = [part for part in pools if not isinstance(part, ScaleProjectors)]
        return shaping[-1].shape(at) if shaping else None

    def flops(self, at: At = None) -> float:
        """Multiply-adds for one item of :attr:`inputs` tokens."""
        total, n = 0.0, self.inputs
        for part in self.parts:
            assert isinstance(part, (Compressor, Projector))
            times = n if isinstance(part, (Projector, ScaleProjectors)) else 1
            total += times * part.cost(at).flops
            n = part.lengths(n, at) if isinstance(part, Compressor) else n
        return total

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        at = self.nesting.resolve(at)
        return {"parts": [{"kind": part.kind, **part.arguments(at)} for part in self._parts()]}

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> Self:
        """See :class:`Part`."""
        return cls(*(part_from(each) for each in arguments["parts"]))  # type: ignore[arg-type]

    def weights(self, at: At = None) -> dict[str, Tensor]:
        """The weights of each part up to ``at``."""
        return {
            f"parts.{number}.{name}": weight
            for number, part in enumerate(self._parts())
            for name, weight in part.weights(at).items()
        }

    def _parts(self) -> list[Part]:
        return [part for part in self.parts if isinstance(part, Part)]


def _through(part: Any, found: dict[Granularity, Tokens]) -> dict[Granularity, Tokens]:
    """The output of a part for the tokens of each granularity; equal inputs are computed together."""
    together: dict[int, list[Granularity]] = {}
    for g, tokens in found.items():
        together.setdefault(id(tokens), []).append(g)
    given: dict[Granularity, Tokens] = {}
    for granularities in together.values():
        tokens = found[granularities[0]]
        if isinstance(part, Compressor):
            given |= part.forward_each(tokens, granularities)
        else:
            given |= dict.fromkeys(granularities, part(tokens))
    return {g: given[g] for g in found}


def _check_widths(before: Compressor | Projector, after: Compressor | Projector, g: Granularity) -> None:
    gives = before.out_width(g)
    takes = after.widths[g] if isinstance(after, ScaleProjectors) else after.width
    if gives != takes:
        raise ConfigError(
            f"a {type(before).__name__} gives tokens of {gives} entries at {g}, but the "
            f"{type(after).__name__} after it takes {takes}; give both the same width"
        )
