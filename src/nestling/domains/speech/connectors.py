"""From the vectors of an encoder of speech to tokens of a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from nestling.domains.speech.encoders import StreamEncoder
from nestling.errors import ConfigError
from nestling.nn.tokens import Connector, Projector, ScaleProjectors, SequencePool

SECONDS = 10
"""A size on the axis of a stream is the number of tokens of an item of so many seconds."""
Projection = Literal["scale", "shared"]


def connector(
    encoder: StreamEncoder,
    rates: Sequence[int],
    out_width: int,
    *,
    mode: Literal["mean", "stack"] = "mean",
    projection: Projection = "scale",
    hidden: int = 2048,
) -> Connector:
    """From the vectors of an encoder to tokens of a language model, one for every ``rate`` vectors.

    Args:
        encoder: of the stream, which names the axis.
        rates: vectors per token, increasing.
        out_width: width of the language model.
        mode: the mean of the vectors, or all one after the other.
        projection: a projector for each rate, or one for all.
        hidden: width inside of a projector.

    Raises:
        ConfigError: for stacked vectors with a shared projector: they have another width at each rate.

    Source: Llama-MTSK, arXiv 2503.06362, section 3: pooling is before the projector, which has two linear
    maps, ReLU and a LayerNorm.
    """
    pool = SequencePool(encoder.width, rates, SECONDS * encoder.per_second, axis=encoder.stream, mode=mode)
    settings: dict[str, Any] = {"hidden": hidden, "activation": "relu", "norm": True}
    if projection == "scale":
        return Connector(pool, ScaleProjectors.after(pool, out_width, **settings))
    if mode == "stack":
        raise ConfigError(
            "projection='shared' takes tokens of one width, and stacked ones are wider at each rate; use "
            "projection='scale' or mode='mean'"
        )
    return Connector(pool, Projector(encoder.width, out_width, **settings))
