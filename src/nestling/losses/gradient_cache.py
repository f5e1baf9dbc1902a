"""Large effective batches in little memory: the loss sees all embeddings, the encoder a chunk at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import register_multi_grad_hook
from torch.nn.parallel import DistributedDataParallel

from nestling.errors import ConfigError


class GradientCache:
    """Computes a loss over a whole batch with the memory that the encoder needs for one chunk.

    The batch is encoded without gradients, the loss gives the gradient of each embedding, and on
    ``backward`` each chunk is encoded again to carry its share into the weights. Dropout is the same
    both times. One loss over B rows costs two forward passes and one backward pass of the encoder.

    Args:
        encode: one chunk of inputs -> embeddings ``Float[chunk, dim]``.
        loss: as it would be called with the embeddings of the whole batch.
        chunk_size: inputs encoded at a time.

    Source: Gao et al. 2021, arXiv 2101.06983, section 3.2.
    """

    def __init__(
        self, encode: Callable[[Any], Tensor], loss: Callable[..., Tensor], *, chunk_size: int
    ) -> None:
        if chunk_size < 1:
            raise ConfigError(f"chunk_size must be at least 1, not {chunk_size}")
        self.encode, self.loss, self.chunk_size = encode, loss, chunk_size

    def __call__(self, *columns: Sequence[Any], **rest: Any) -> Tensor:
        """The loss of a batch; ``.backward()`` works as on any loss.

        Args:
            columns: the inputs of each embedding argument of the loss (anchors, positives, ...), as
                anything that can be sliced: lists, tensors.
            rest: passed to the loss.
        """
        chunks = [
            [column[start : start + self.chunk_size] for start in range(0, len(column), self.chunk_size)]
            for column in columns
        ]
        states = [[_RandomState() for _ in column] for column in chunks]
        embeddings = [
            torch.cat([self._encode_first(*pair) for pair in zip(*column, strict=True)])
            for column in zip(chunks, states, strict=True)
        ]
        if not torch.is_grad_enabled():
            return self.loss(*embeddings, **rest)
        leaves = [embedding.requires_grad_() for embedding in embeddings]
        value = self.loss(*leaves, **rest)
        # Backward usually runs outside autocast, but both passes must compute in the same precision.
        precision = _autocast(leaves[0].device.type)

        def replay(gradients: Sequence[Tensor | None]) -> None:
            with precision():
                self._encode_again(chunks, states, gradients)

        register_multi_grad_hook(leaves, replay)
        return value

    def _encode_first(self, chunk: Any, state: _RandomState) -> Tensor:
        state.note()
        with torch.no_grad():
            return self.encode(chunk).detach()

    def _encode_again(
        self,
        chunks: list[list[Any]],
        states: list[list[_RandomState]],
        gradients: Sequence[Tensor | None],
    ) -> None:
        """Carry the gradients of the embeddings into the encoder, chunk by chunk."""
        work = [
            piece
            for column, column_states, gradient in zip(chunks, states, gradients, strict=True)
            if gradient is not None
            for piece in zip(column, column_states, torch.split(gradient, self.chunk_size), strict=True)
        ]
        for number, (chunk, state, gradient) in enumerate(work, start=1):
            with self._unsynchronised(number < len(work)), state.restored(), torch.enable_grad():
                torch.autograd.backward(self.encode(chunk), gradient)

    def _unsynchronised(self, wanted: bool) -> AbstractContextManager[Any]:
        """With several processes, only the last chunk exchanges gradients (they are sums by then)."""
        if wanted and isinstance(self.encode, DistributedDataParallel):
            return self.encode.no_sync()
        return nullcontext()


def _autocast(device: str) -> Callable[[], torch.autocast]:
    """What re-enters the autocast state of now."""
    enabled, dtype = torch.is_autocast_enabled(device), torch.get_autocast_dtype(device)
    return lambda: torch.autocast(device, dtype=dtype, enabled=enabled)


class _RandomState:
    """The random state before a chunk was encoded, so that dropout falls the same again."""

    def note(self) -> None:
        """Keep the state of now."""
        self.cpu = torch.get_rng_state()
        self.devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
        self.cuda = [torch.cuda.get_rng_state(device) for device in self.devices]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Within, the state of then; afterwards, the state of now."""
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.cpu)
            for device, state in zip(self.devices, self.cuda, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
