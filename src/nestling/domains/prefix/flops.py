"""The cost of reading a prompt."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from nestling.arguments.constraints import Whole, checked
from nestling.arguments.formatting import type_of
from nestling.elastic import Cost
from nestling.errors import ConfigError, require
from nestling.granularity import Granularity

if TYPE_CHECKING:
    from nestling.domains.prefix.model import PrefixLM


def weights_per_token(lm: nn.Module) -> int:
    """The weights of a language model that each token is multiplied with: all but the table of embeddings.

    A table that is the output matrix too counts once, and the vision encoder of LLaVA-like models not at all.
    """
    model: Any = lm
    output = model.get_output_embeddings()
    read = {id(weight): weight for weight in model.get_decoder().parameters()}
    del read[id(model.get_input_embeddings().weight)]
    read |= {id(weight): weight for weight in ([] if output is None else output.parameters())}
    return sum(weight.numel() for weight in read.values())


@checked(tokens=Whole(0), adapters=Whole(0))
def prefill_flops(config: Any, tokens: int, *, adapters: int = 0) -> float:
    """Floating-point operations of a language model that reads a prompt: two for each weight and token.

    The products of queries and keys, which are few in prompts of some thousand tokens, are not counted, as
    in the tables of the papers.

    Args:
        config: of a causal language model of transformers.
        tokens: of the prefix and the text.
        adapters: weights of active adapters.

    Source: M3, arXiv 2405.17430, and Llama-MTSK, arXiv 2503.06362, whose cost tables this reproduces.
    """
    auto: Any = require("transformers", "lora").AutoModelForCausalLM
    try:
        with torch.device("meta"):
            lm = auto.from_config(config)
    except ValueError as error:
        raise ConfigError(
            f"config must be of a causal language model of transformers, not {type_of(config)}"
        ) from error
    lm.tie_weights()
    return 2.0 * (weights_per_token(lm) + adapters) * tokens


def cost_of(model: PrefixLM, at: Granularity) -> Cost:
    """The cost of a prefix model: see :meth:`PrefixLM.cost`."""
    connected = model.streams.cost(at)
    held = [*model.streams.encoders.parameters(), *model.lm.parameters()]
    spare: list[nn.Parameter] = []
    if model.adapters is not None:
        scales = {model.adapted(g) for g in model.nesting.up_to(at)}
        kept = {id(weight) for g in scales for weight in model.adapters.parameters(g)}
        spare = [weight for weight in model.adapters.parameters() if id(weight) not in kept]
    return Cost(
        flops=connected.flops + weights_per_token(model.lm) * model.streams.count(at),
        parameters=connected.parameters + _numbers(held) - _numbers(spare),
        size_bytes=connected.size_bytes + sum(w.nbytes for w in held) - sum(w.nbytes for w in spare),
        output_bytes=connected.output_bytes,
    )


def _numbers(weights: Iterable[nn.Parameter]) -> int:
    return sum(weight.numel() for weight in weights)
