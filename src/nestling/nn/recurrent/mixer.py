"""The base class of mixers: each position of a sequence gets a vector of the positions up to it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nestling.cut import RAW, cut
from nestling.elastic import resolve_each
from nestling.errors import DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.nn.part import ElasticPart
from nestling.nn.tokens.tokens import AnyTokens, Tokens, accumulating, as_tokens


class Mixed(NamedTuple):
    """The outputs of a mixer, and the state after the last event of each sequence."""

    tokens: Tokens
    state: Tensor


class Mixer(ElasticPart):
    """Base class of causal mixers whose leading outputs depend on the leading inputs alone.

    An output at a position depends on the events up to it. Padding may be anywhere, also between events: it
    changes no output and no state, and outputs there are zero. ``mixer(events, at=m)`` equals the leading
    ``m`` entries of ``mixer(events)``, and the leading entries of a state are the state at a smaller width.

    Args:
        sizes: widths, increasing.

    Attributes:
        nesting: sizes on the axis ``width``.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self.nesting = Nesting.chain(width=sizes)

    @abstractmethod
    def state_width(self, width: int) -> int:
        """Entries of the state of one sequence at a width."""

    @abstractmethod
    def sequence(self, values: Tensor, state: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Outputs ``Float[batch, length, width]`` and the states ``[batch, length, state_width]`` after each.

        Args:
            values: ``Float[batch, length, width]`` in the type of the weights, without padding before an
                event.
            state: before the first event; in float32 or wider, as the states afterwards.
            width: one of the nesting.
        """

    @property
    def sizes(self) -> tuple[int, ...]:
        """The widths."""
        return self.nesting.sizes("width")

    @property
    def state_dtype(self) -> torch.dtype:
        """The type of a state: float32, or wider if the weights are."""
        return torch.promote_types(self._dtype or torch.float32, torch.float32)

    def forward(self, events: AnyTokens, /, at: At = None) -> Tokens:
        """The outputs ``Float[batch, length, width]`` at one width."""
        return self.run(events, at=at).tokens

    def forward_each(
        self, events: AnyTokens, /, granularities: Iterable[At] | None = None
    ) -> dict[Granularity, Tokens]:
        """The outputs at several widths: prefixes of those at the largest of them."""
        wanted = resolve_each(self.nesting, granularities)
        whole = self(events, at=max(wanted, key=lambda g: g["width"]))
        return {g: whole._replace(values=cut(whole.values, g["width"], RAW)) for g in wanted}

    def run(self, events: AnyTokens, state: Tensor | None = None, at: At = None) -> Mixed:
        """The outputs at one width and the state afterwards, from which :meth:`step` continues.

        Args:
            events: ``Float[batch, length, width]``, of full width or cut already, with a mask if some are
                padding.
            state: before the first event; that of no events by default. A wider state is cut.
            at: the width.

        Raises:
            DataError: for events or a state that are too narrow, or of another shape.
        """
        width = self.nesting.resolve(at)["width"]
        values, mask, grid = as_tokens(events)
        if values.shape[2] < width:
            raise DataError(f"events of {width} or more entries are expected, not of {values.shape[2]}")
        x = cut(values, width, RAW).to(self._dtype or values.dtype)
        before = self._read(state, x, width)
        order = None if mask is None else _order(mask)
        if order is not None:
            x = torch.take_along_dim(x, order[..., None], dim=1)
        found, states = self.sequence(x, before, width)
        if mask is None:
            return Mixed(Tokens(found.to(values.dtype), None, grid), states[:, -1])
        if order is not None:
            found = torch.take_along_dim(found, torch.argsort(order, dim=1)[..., None], dim=1)
        found = found.masked_fill(~mask[..., None], 0).to(values.dtype)
        return Mixed(Tokens(found, mask, grid), _last(before, states, mask))

    def step(self, x: Tensor, state: Tensor, at: At = None) -> tuple[Tensor, Tensor]:
        """The output of one more event, both ``Float[batch, width]``, and the state after it.

        Raises:
            DataError: as :meth:`run` does.
        """
        if not isinstance(x, Tensor) or x.ndim != 2:
            raise DataError("one event a sequence is expected, as floats of shape [batch, width]")
        tokens, after = self.run(x[:, None], state, at)
        return tokens.values[:, 0], after

    def start(self, batch: int, at: At = None) -> Tensor:
        """The state of ``batch`` sequences without events."""
        like = next(self.parameters(), torch.empty(0))
        width = self.state_width(self.nesting.resolve(at)["width"])
        return torch.zeros(batch, width, dtype=self.state_dtype, device=like.device)

    def arguments(self, at: At = None) -> dict[str, Any]:
        """See :class:`Part`."""
        return {"sizes": list(self.nesting.up_to(self.nesting.resolve(at)).sizes("width"))}

    def state_bytes(self, at: At = None) -> int:
        """Bytes of the state of one sequence at a width."""
        return self.start(1, at).nbytes

    def output_bytes(self, at: Granularity) -> int:
        """Bytes of the output at one position."""
        return 4 * at["width"]

    @property
    def _dtype(self) -> torch.dtype | None:
        """The type of the weights, if there are any."""
        return next((weight.dtype for weight in self.parameters()), None)

    def _read(self, state: Tensor | None, values: Tensor, width: int) -> Tensor:
        """A state that fits the values."""
        needed = self.state_width(width)
        is_complex = self.state_dtype.is_complex
        wide = accumulating(values)
        dtype = wide.to_complex() if is_complex else wide
        if state is None:
            return values.new_zeros(len(values), needed, dtype=dtype)
        rows, entries = state.shape if state.ndim == 2 else (0, 0)
        if rows != len(values) or entries < needed or state.is_complex() != is_complex:
            kind = "complex" if is_complex else "floats"
            raise DataError(
                f"the state at width {width} must be {kind} of shape [{len(values)}, {needed} or more], not "
                f"{state.dtype} of shape {tuple(state.shape)}; a state of smaller width cannot be widened: "
                "run the events again"
            )
        return state[:, :needed].to(dtype)


def _order(mask: Tensor) -> Tensor | None:
    """The order that moves events before padding, ``Int[batch, length]``; None if they are there already."""
    if not bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        return None
    return torch.argsort(mask, dim=1, descending=True, stable=True)


def _last(before: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """The state after the last event of each sequence; that before it where there is none."""
    count = mask.sum(dim=1)
    after = states[torch.arange(len(states), device=states.device), (count - 1).clamp_min(0)]
    return torch.where(count[:, None] > 0, after, before)
