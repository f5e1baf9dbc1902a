"""The streams of a prefix: for each an encoder, and a connector to the width of the language model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import nn

from nestling.domains.prefix.batches import PrefixBatch, place_of
from nestling.domains.prefix.features import Features
from nestling.domains.prefix.sequences import Filled, places_of
from nestling.elastic import Cost
from nestling.errors import ConfigError, GranularityError
from nestling.granularity import Granularity, Nesting
from nestling.nn.tokens.compressor import Compressor
from nestling.nn.tokens.connector import Connector
from nestling.nn.tokens.tokens import Tokens

ByGranularity = Mapping[Granularity, Tokens]
Order = Literal["forward", "reversed"]


class Streams(nn.Module):
    """Encoders and connectors by the name of their stream.

    Args:
        encoders: see :class:`~nestling.domains.prefix.model.PrefixLM`.
        connectors: see there.
        width: entries of an embedding of the language model.
        order: see there.

    Attributes:
        names: in the order of the connectors.
        attainable: all combinations of the connectors' sizes.
    """

    def __init__(
        self,
        encoders: Mapping[str, Callable[..., Any]],
        connectors: Mapping[str, Compressor],
        width: int,
        order: Order = "forward",
    ) -> None:
        super().__init__()
        self.order = order
        if not connectors or set(encoders) != set(connectors):
            raise ConfigError(
                f"each stream needs an encoder and a connector, but encoders has {sorted(encoders)} and "
                f"connectors {sorted(connectors)}"
            )
        self.names = tuple(connectors)
        for name in self.names:
            if not name.isidentifier():
                raise ConfigError(f"{name!r} is no name of a stream; use letters, as in 'image' or 'audio'")
        self.encoders = nn.ModuleDict({name: Features.of(encoders[name]) for name in self.names})
        self.connectors = nn.ModuleDict({name: _connector(part) for name, part in connectors.items()})
        self.attainable = self._product()
        for name in self.names:
            for g in self.connector(name).nesting:
                gives = self.connector(name).out_width(g)
                if gives != width:
                    raise ConfigError(
                        f"the connector of {name} gives tokens of {gives} entries at {g}, and the language "
                        f"model takes {width}; end it with a Projector(..., {width})"
                    )

    def encoder(self, name: str) -> Features:
        """The encoder of a stream."""
        return cast(Features, self.encoders[name])

    def connector(self, name: str) -> Connector:
        """The connector of a stream."""
        return cast(Connector, self.connectors[name])

    def within(self, nesting: Nesting | str) -> Nesting:
        """A nesting, if all connectors have its sizes.

        Raises:
            GranularityError: if not.
        """
        found = Nesting.of(nesting)
        for g in found:
            if set(g) != set(self.attainable.axes):
                raise GranularityError(
                    f"the nesting {found} must name the axes of the connectors, "
                    f"{', '.join(self.attainable.axes)}"
                )
            self.attainable.resolve(g)
        return found

    def own(self, name: str, g: Granularity) -> Granularity:
        """The part of a granularity that is about one stream."""
        return Granularity(**{axis: g[axis] for axis in self.connector(name).nesting.axes})

    def tokens(
        self, features: Mapping[str, Tokens | None], wanted: Iterable[Granularity]
    ) -> dict[str, ByGranularity]:
        """The tokens of all items, at each granularity of their stream; none of a stream without items."""
        wanted = list(dict.fromkeys(wanted))
        found: dict[str, ByGranularity] = {}
        for name in self.names:
            given, sizes = features[name], list(dict.fromkeys(self.own(name, g) for g in wanted))
            found[name] = {} if given is None else self.connector(name).forward_each(given, sizes)
        return found

    def filled(
        self,
        batch: PrefixBatch,
        tokens: Mapping[str, ByGranularity],
        rows: Sequence[Granularity],
        chosen: Sequence[int],
    ) -> Iterator[Filled]:
        """The tokens in the places of some rows of a batch.

        Args:
            batch: all rows.
            tokens: of :meth:`tokens`.
            rows: the granularity of each row.
            chosen: the rows that are kept, in this order.
        """
        length = batch.ids.shape[1]
        moved = torch.full((len(rows),), -1, device=batch.ids.device)
        moved[list(chosen)] = torch.arange(len(chosen), device=batch.ids.device)
        for number, name in enumerate(self.names):
            places = places_of(batch.ids, batch.mask, place_of(number))
            row = places // length
            own = {g: self.own(name, g) for g in set(rows)}
            sizes = [own[rows[each]] for each in row.tolist()]
            inside = (moved[row] >= 0).tolist()
            for g, found in tokens[name].items():
                kept = [item for item, size in enumerate(sizes) if size == g and inside[item]]
                if kept:
                    at = moved[row[kept]] * length + places[kept] % length
                    items = found if len(kept) == len(sizes) else _items(found, kept)
                    yield Filled(at, items if self.order == "forward" else _reversed(items))

    def count(self, g: Granularity) -> int:
        """The tokens of one item of each stream."""
        connectors = {name: self.connector(name) for name in self.names}
        return sum(part.lengths(part.inputs, self.own(name, g)) for name, part in connectors.items())

    def cost(self, g: Granularity) -> Cost:
        """Of the connectors, for one item of each stream."""
        costs = [self.connector(name).cost(self.own(name, g)) for name in self.names]
        return Cost(
            flops=sum(cost.flops for cost in costs),
            parameters=sum(cost.parameters for cost in costs),
            size_bytes=sum(cost.size_bytes for cost in costs),
            output_bytes=sum(cost.output_bytes for cost in costs),
        )

    def copied(
        self, at: Granularity, lm: nn.Module, made: nn.Module
    ) -> tuple[dict[str, Any], dict[str, Compressor]]:
        """Encoders, and connectors of the granularities up to ``at``, in memory of their own.

        Encoders that are parts of the language model ``lm`` become parts of its copy ``made``.
        """
        encoders = {name: copy.deepcopy(self.encoder(name), {id(lm): made}) for name in self.names}
        return encoders, {name: self.connector(name).extract(self.own(name, at)) for name in self.names}

    def _product(self) -> Nesting:
        sizes: dict[str, tuple[int, ...]] = {}
        for name in self.names:
            nesting = self.connector(name).nesting
            (axis, *others) = nesting.axes
            if others or axis in sizes:
                raise ConfigError(
                    f"the connector of {name} has the axis {', '.join(nesting.axes)}; each stream needs "
                    "one of its own, which axis= of its pool sets"
                )
            sizes[axis] = nesting.sizes(axis)
        return Nesting.grid(**sizes)


def _connector(part: Compressor) -> Connector:
    return part if isinstance(part, Connector) else Connector(part)


def _items(tokens: Tokens, kept: list[int]) -> Tokens:
    return Tokens(tokens.values[kept], None if tokens.mask is None else tokens.mask[kept], tokens.grid)


def _reversed(tokens: Tokens) -> Tokens:
    return Tokens(tokens.values.flip(1), None if tokens.mask is None else tokens.mask.flip(1))
