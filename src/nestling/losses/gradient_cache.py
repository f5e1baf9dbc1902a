"""Gradient caching: large contrastive batches in little memory, encoded chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor
from torch.autograd.graph import register_multi_grad_hook
from torch.nn.parallel import DistributedDataParallel

from nestling.arguments.constraints import Whole, checked
from nestling.process.blocks import blocks

Encoded: TypeAlias = Tensor | Mapping[Any, Tensor]
_ALONE = None


class Inputs(Protocol):
    """A column of inputs that can be sliced into chunks: a list, a tensor, a string column."""

    def __len__(self) -> int:
        """The number of inputs."""
        ...

    def __getitem__(self, rows: slice, /) -> Any:
        """Some consecutive inputs, as ``encode`` takes them."""
        ...


class GradientCache:
    """Computes a loss over a whole batch with the memory that the encoder needs for one chunk.

    The batch is first encoded without gradients. The loss gives the gradient of each embedding, and
    ``backward`` encodes each chunk again to propagate it into the weights. Dropout is the same in both
    passes. The encoder runs two forward passes and one backward pass per batch.

    Args:
        encode: maps a chunk of inputs to embeddings ``Float[chunk, dim]``, or to a mapping of such tensors,
            for example the views of an encoder. The loss gets them for the whole batch.
        loss: called with the embeddings of the whole batch.
        chunk_size: inputs encoded at a time.

    Source: Gao et al. 2021, arXiv 2101.06983, section 3.2.
    """

    @checked(chunk_size=Whole(1))
    def __init__(
        self, encode: Callable[[Any], Encoded], loss: Callable[..., Tensor], *, chunk_size: int
    ) -> None:
        self.encode, self.loss, self.chunk_size = encode, loss, chunk_size

    def __call__(self, *columns: Inputs, **rest: Any) -> Tensor:
        """The loss of a batch; ``.backward()`` works as on any loss.

        Args:
            columns: the inputs of each embedding argument of the loss (anchors, positives, ...), as
                anything that can be sliced: lists, tensors.
            rest: passed to the loss.
        """
        chunks = [[column[rows] for rows in blocks(len(column), self.chunk_size)] for column in columns]
        states = [[_RandomState() for _ in column] for column in chunks]
        encoded = [
            _joined([self._encode_first(*pair) for pair in zip(*column, strict=True)])
            for column in zip(chunks, states, strict=True)
        ]
        leaves = [part for parts in encoded for part in parts.values()]
        wants_gradients = torch.is_grad_enabled()
        for leaf in leaves:
            leaf.requires_grad_(wants_gradients)
        value = self.loss(*map(_as_encoded, encoded), **rest)
        if not wants_gradients:
            return value
        # Backward usually runs outside autocast, but both passes must compute in the same precision.
        precision = _autocast(leaves[0].device.type)

        def replay(gradients: Sequence[Tensor | None]) -> None:
            found = iter(gradients)
            with precision():
                self._encode_again(
                    chunks, states, [{name: next(found) for name in parts} for parts in encoded]
                )

        register_multi_grad_hook(leaves, replay)
        return value

    def _encode_first(self, chunk: Any, state: _RandomState) -> dict[Hashable, Tensor]:
        state.note()
        with torch.no_grad():
            return {name: part.detach() for name, part in _parts(self.encode(chunk)).items()}

    def _encode_again(
        self,
        chunks: list[list[Any]],
        states: list[list[_RandomState]],
        gradients: Sequence[Mapping[Hashable, Tensor | None]],
    ) -> None:
        """Carry the gradients of the embeddings into the encoder, chunk by chunk."""
        work = [
            piece
            for column, column_states, of_parts in zip(chunks, states, gradients, strict=True)
            for piece in zip(column, column_states, self._split(of_parts, len(column)), strict=True)
            if piece[2]
        ]
        for number, (chunk, state, wanted) in enumerate(work, start=1):
            with self._unsynchronised(number < len(work)), state.restored(), torch.enable_grad():
                parts = _parts(self.encode(chunk))
                torch.autograd.backward([parts[name] for name in wanted], list(wanted.values()))

    def _split(self, gradients: Mapping[Hashable, Tensor | None], count: int) -> list[dict[Hashable, Tensor]]:
        """The gradients of each chunk, of those parts that have one."""
        found: list[dict[Hashable, Tensor]] = [{} for _ in range(count)]
        for name, gradient in gradients.items():
            if gradient is not None:
                for of_chunk, piece in zip(found, torch.split(gradient, self.chunk_size), strict=True):
                    of_chunk[name] = piece
        return found

    def _unsynchronised(self, wanted: bool) -> AbstractContextManager[Any]:
        """With several processes, only the last chunk exchanges gradients (they are sums by then)."""
        model = self.encode.func if isinstance(self.encode, partial) else self.encode
        if wanted and isinstance(model, DistributedDataParallel):
            return model.no_sync()
        return nullcontext()


def _parts(encoded: Encoded) -> dict[Hashable, Tensor]:
    """Encoded tensors by name; a single tensor has the name None."""
    return {_ALONE: encoded} if isinstance(encoded, Tensor) else dict(encoded)


def _as_encoded(parts: dict[Hashable, Tensor]) -> Encoded:
    return parts[_ALONE] if list(parts) == [_ALONE] else parts


def _joined(chunks: Sequence[Mapping[Hashable, Tensor]]) -> dict[Hashable, Tensor]:
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _autocast(device: str) -> Callable[[], torch.autocast]:
    """A function that restores the current autocast state."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype, enabled=enabled)


class _RandomState:
    """The random state before a chunk was encoded, to repeat its dropout."""

    def note(self) -> None:
        """Save the current state."""
        self.cpu = torch.get_rng_state()
        self.devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Runs the block with the saved state, then restores the current one."""
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
