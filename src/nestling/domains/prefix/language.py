"""What a causal language model of transformers computes of sequences of embeddings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.arguments.constraints import Whole, check
from nestling.arguments.formatting import shown
from nestling.axes import OF_TOKENS
from nestling.domains.prefix.batches import IGNORED
from nestling.domains.prefix.sequences import Sequences
from nestling.errors import ConfigError, DataError, meant, unknown
from nestling.granularity import Nesting
from nestling.nn.lora import ScaleAdapters

GREEDY = {"do_sample": False, "num_beams": 1, "max_new_tokens": 32}
"""Arguments of ``generate``, where no others are given."""
_SAMPLING = ("temperature", "top_k", "top_p", "typical_p", "min_p")


def logits_at(lm: nn.Module, sequences: Sequences, wanted: Tensor) -> Tensor:
    """Logits ``Float[batch, length, vocabulary]`` after each id, at least where ``wanted``; else zeros.

    Only columns that some row wants go through the output matrix, if the model allows that.
    """
    wanted = wanted & (sequences.last >= 0)
    columns = torch.unique(sequences.last[wanted])
    accepts = inspect.signature(lm.forward).parameters
    settings: dict[str, Any] = {"use_cache": False}
    if "position_ids" in accepts:
        settings["position_ids"] = sequences.positions()
    if "logits_to_keep" in accepts:
        settings["logits_to_keep"] = columns
    given = lm(inputs_embeds=sequences.embeds, attention_mask=sequences.mask.long(), **settings).logits
    if given.shape[1] != len(columns):
        given = given[:, columns]
    at = torch.searchsorted(columns, sequences.last.contiguous()).clamp(max=len(columns) - 1)
    found = given.take_along_dim(at[..., None], dim=1)
    return torch.where(wanted[..., None], found, 0)


def answer_losses(lm: nn.Module, sequences: Sequences, labels: Tensor) -> tuple[Tensor, int]:
    """The sum of the cross-entropies of labels, each after all that stands before it, and their number."""
    after = F.pad(labels[:, 1:], (0, 1), value=IGNORED)
    wanted = (after != IGNORED) & (sequences.last >= 0)
    if not bool(wanted.any()):
        return sequences.embeds.new_zeros(()), 0
    chosen = logits_at(lm, sequences, wanted)[wanted]
    wide = chosen.float() if chosen.dtype != torch.float64 else chosen
    return F.cross_entropy(wide, after[wanted], reduction="sum"), len(chosen)


def generated(lm: nn.Module, sequences: Sequences, settings: Mapping[str, Any]) -> list[list[int]]:
    """The ids that follow each sequence, up to the end of text."""
    made = lm.generate(inputs_embeds=sequences.embeds, attention_mask=sequences.mask.long(), **settings)  # type: ignore[operator]
    ends = settings.get("eos_token_id", lm.generation_config.eos_token_id)  # type: ignore[union-attr]
    stops = set(ends) if isinstance(ends, (list, tuple)) else {ends}
    return [_until(ids, stops) for ids in made.tolist()]


def read_decoding(lm: nn.Module, *given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of ``generate``, later ones in the place of earlier ones.

    Raises:
        ConfigError: for a granularity among them, or arguments that contradict one another.
    """
    settings: dict[str, Any] = dict(GREEDY)
    for each in given:
        settings |= each
    _check_names(lm, settings)
    check("max_new_tokens", settings["max_new_tokens"], Whole(1))
    check("num_beams", settings["num_beams"], Whole(1) | None)
    sampling = [name for name in _SAMPLING if name in settings]
    if not settings["do_sample"] and sampling:
        raise ConfigError(
            f"{', '.join(sampling)} need do_sample=True; decoding is greedy, or by beams, without"
        )
    if settings["do_sample"] and (settings["num_beams"] or 1) > 1:
        raise ConfigError("num_beams above 1 search and do_sample=True draws; give one of them")
    if not settings["do_sample"]:
        # The generation configs of many models sample, and transformers warns of arguments without use.
        settings |= dict.fromkeys(_SAMPLING)
    if settings.get("pad_token_id") is None:
        known: Any = lm.generation_config
        end = known.eos_token_id
        pad = known.pad_token_id if known.pad_token_id is not None else end
        settings["pad_token_id"] = (pad[0] if isinstance(pad, (list, tuple)) else pad) or 0
    return settings


def _check_names(lm: nn.Module, settings: Mapping[str, Any]) -> None:
    """Refuse what is no argument of generation here."""
    model: Any = lm
    known = {*vars(model.generation_config), *inspect.signature(model.generate).parameters}
    known |= set(inspect.signature(lm.forward).parameters)
    for name, value in settings.items():
        if name in ("at", "granularity", *OF_TOKENS):
            raise ConfigError(f"{name}={value} is no argument of generation; give at={value}")
        if name in ("inputs_embeds", "input_ids"):
            raise ConfigError("the batch holds the inputs; leave input_ids and inputs_embeds out")
        if name in ("max_length", "min_length"):
            raise ConfigError(
                f"{name}={value} counts the prefix too, which is as long as at= says; give "
                f"{name.replace('length', 'new_tokens')}"
            )
        if name not in known:
            near = meant(name, known)
            raise ConfigError(f"{name}={shown(value)} is no argument of generate of transformers; {near}")


def check_length(lm: nn.Module, sequences: Sequences, more: int, at: object) -> None:
    """Refuse rows that the language model cannot read to their end.

    Raises:
        DataError: naming the longest.
    """
    config: Any = lm.config
    most = getattr(config.get_text_config(), "max_position_embeddings", None)
    row = int(sequences.lengths.argmax())
    length = int(sequences.lengths[row])
    if most is not None and length + more > most:
        new = f" and {more} new ones" if more else ""
        raise DataError(
            f"row {row} is {length} tokens long at {at}{new}, but the language model reads {most}, which "
            "would cut the answer; use fewer tokens or a shorter text"
        )
    if int(sequences.lengths.min()) == 0:
        raise DataError(
            f"row {int(sequences.lengths.argmin())} holds neither text nor an item; give it a prompt"
        )


def width_of(lm: nn.Module) -> int:
    """Entries of an embedding.

    Raises:
        ConfigError: for a model without a table of embeddings.
    """
    find = getattr(lm, "get_input_embeddings", None)
    if find is None:
        raise ConfigError(
            unknown("kind of language model", type(lm).__name__, ["a causal one of transformers"])
        )
    return int(find().weight.shape[1])


def check_adapters(adapters: ScaleAdapters | None, lm: nn.Module, sizes: Nesting) -> None:
    """Refuse adapters of another model, or on axes that the connectors do not have.

    Raises:
        ConfigError: for either.
    """
    if adapters is None:
        return
    if adapters.model is not lm:
        raise ConfigError("the adapters are those of another model; make them with ScaleAdapters(lm, ...)")
    if not set(adapters.scales.axes) <= set(sizes.axes):
        raise ConfigError(
            f"the adapters have scales {adapters.scales}, and the connectors the axes "
            f"{', '.join(sizes.axes)}; give the adapters scales on these"
        )


def _until(ids: list[int], stops: set[Any]) -> list[int]:
    end = next((place for place, each in enumerate(ids) if each in stops), len(ids))
    return ids[:end]
