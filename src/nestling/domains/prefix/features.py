"""The vectors that any model of pictures, sound or video gives, as tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from nestling.arguments.constraints import Whole, checked
from nestling.arguments.formatting import type_of
from nestling.errors import ConfigError, DataError
from nestling.nn.tokens.tokens import Tokens, as_tokens


class Features(nn.Module):
    """Runs an encoder on a batch of items, and reads its output as tokens.

    The encoder is a model of transformers or timm, or anything that gives ``Float[batch, n, width]``,
    ``Float[batch, width, rows, columns]`` or :class:`~nestling.nn.tokens.tokens.Tokens`. Of a timm model
    ``forward_features`` is used. A mapping of inputs is given by name, as processors of transformers return
    it. An encoder without trainable weights stays in ``eval()`` and runs without gradients.

    Args:
        encoder: a module, or a function.
        layer: the hidden state to read, of a model of transformers; -2 is that before the last layer. None
            reads the output.
        skip: leading tokens to drop, such as 1 for a class token. By default as many as a timm model says
            that it has, or none.

    >>> Features(lambda pixels: pixels.flatten(2).mT)(torch.zeros(2, 3, 4, 4)).values.shape
    torch.Size([2, 16, 3])
    """

    @checked(layer=Whole(-(10**6)) | None, skip=Whole(0) | None)
    def __init__(
        self, encoder: Callable[..., Any], *, layer: int | None = None, skip: int | None = None
    ) -> None:
        super().__init__()
        if not callable(encoder):
            raise ConfigError(f"an encoder must be a module or a function, not {type_of(encoder)}")
        self.encoder, self.layer = encoder, layer
        self.skip = int(getattr(encoder, "num_prefix_tokens", 0)) if skip is None else skip

    @classmethod
    def of(cls, encoder: Callable[..., Any]) -> Features:
        """``encoder`` itself if it is of this class, or what reads it."""
        return encoder if isinstance(encoder, Features) else cls(encoder)

    @property
    def is_frozen(self) -> bool:
        """Whether there are weights, and none is trained."""
        trained = [weight.requires_grad for weight in self.parameters()]
        return bool(trained) and not any(trained)

    def train(self, mode: bool = True) -> Features:
        """Training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode and not self.is_frozen)
        return self

    def forward(self, inputs: Any, /) -> Tokens:
        """The tokens of a batch of items."""
        with torch.no_grad() if self.is_frozen else nullcontext():
            found = self._read(self._output(inputs))
        if not self.skip:
            return found
        if found.grid is not None or found.values.shape[1] <= self.skip:
            raise DataError(
                f"skip={self.skip} drops leading tokens, and the encoder gives "
                f"{'a grid' if found.grid else f'{found.values.shape[1]} tokens'} without any; use skip=0"
            )
        kept = None if found.mask is None else found.mask[:, self.skip :]
        return Tokens(found.values[:, self.skip :], kept)

    def _output(self, inputs: Any) -> Any:
        call: Any = self.encoder
        if self.layer is None:
            call = getattr(call, "forward_features", call)
        settings = {} if self.layer is None else {"output_hidden_states": True}
        return call(**inputs, **settings) if isinstance(inputs, Mapping) else call(inputs, **settings)

    def _read(self, output: Any) -> Tokens:
        if self.layer is not None:
            states = getattr(output, "hidden_states", None)
            if states is None or not -len(states) <= self.layer < len(states):
                has = "none" if states is None else f"{len(states)}"
                raise ConfigError(f"layer={self.layer} is no hidden state of the encoder; it gives {has}")
            output = states[self.layer]
        elif not isinstance(output, (Tensor, Tokens)):
            output = getattr(output, "last_hidden_state", output)
        if isinstance(output, Tensor) and output.ndim == 4:
            return as_tokens(Tokens(output.flatten(2).mT, None, (output.shape[2], output.shape[3])))
        if not isinstance(output, (Tensor, Tokens)):
            raise DataError(
                f"an encoder must give a tensor [batch, n, width], Tokens, or an output of transformers with "
                f"last_hidden_state, not {type_of(output)}"
            )
        return as_tokens(output)
