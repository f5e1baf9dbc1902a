"""Pre-training a text encoder at every granularity, on texts alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nestling.data import read_texts
from nestling.data.masking import MaskedTexts
from nestling.data.tables.roles import TEXT_ROLES, read_roles
from nestling.domains.text.plan import TrainPlan, write_plan
from nestling.encoders.text.encoder import TextEncoder
from nestling.encoders.text.origin import TrainedFrom
from nestling.errors import ConfigError
from nestling.granularity import Nesting
from nestling.losses import Parts
from nestling.nn.masked_autoencoder import MaskedAutoEncoder
from nestling.training import TrainConfig, fit


def pretrain(
    encoder: TextEncoder,
    texts: Sequence[str],
    config: TrainConfig,
    *,
    encoder_rate: float = 0.2,
    decoder_rate: float = 0.4,
    max_length: int = 512,
    head: torch.nn.Module | None = None,
    folder: str | Path | None = None,
) -> MaskedAutoEncoder:
    """Train the transformer of ``encoder`` in place to tell masked words at each of its granularities.

    Args:
        encoder: with a nesting of dims and layers.
        texts: at least one word each.
        config: of the run.
        encoder_rate: share of the words that the encoder does not see.
        decoder_rate: share of the words that the decoder does not see.
        max_length: tokens of a text; longer ones are cut at random places.
        head: a model for masked words whose head to start from.
        folder: for checkpoints and the log; an interrupted run goes on from there.

    Returns:
        The encoder's transformer with head and decoder, for going on or measuring; they can be forgotten.

    Raises:
        ConfigError: for rates or a tokenizer that do not do.
        DataError: for texts without words.

    Source: Starbucks, arXiv 2410.13230.
    """
    transformer: Any = encoder.model[0]
    masks = MaskedTexts(transformer.tokenizer, encoder_rate, decoder_rate, max_length)
    model = MaskedAutoEncoder(transformer.auto_model, encoder.nesting, head)
    fit(model, _told, _Texts(texts), config, collate=partial(_batch, masks), folder=folder)
    encoder.eval()
    return model


def pretrain_by_plan(plan: TrainPlan) -> TextEncoder:
    """Pre-train as planned (``tune = "masked"``); plan, log and checkpoints go into the plan's folder.

    Raises:
        ConfigError: for a plan that names no file of texts or no nesting.
    """
    if plan.data.texts is None or plan.model.nesting is None:
        raise ConfigError('tune = "masked" needs a file of texts and a nesting of dims and layers; name both')
    texts = read_texts(plan.data.texts, **read_roles(plan.data.columns, TEXT_ROLES), leave_out_blank=True)
    start = TextEncoder.open(plan.model.encoder)
    encoder = TextEncoder(copy.deepcopy(start.model), Nesting.parse(plan.model.nesting), start.rule)
    encoder.trained_from = TrainedFrom(plan.model.encoder)
    write_plan(plan, Path(plan.output.folder) / "plan.toml")
    pretrain(
        encoder,
        texts if plan.data.limit is None else texts[: plan.data.limit],
        plan.train,
        encoder_rate=plan.masking.encoder_rate,
        decoder_rate=plan.masking.decoder_rate,
        max_length=plan.masking.max_length,
        folder=plan.output.folder,
    )
    return encoder


class _Texts(torch.utils.data.Dataset[str]):
    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> str:
        return self.texts[row]


def _batch(masks: MaskedTexts, texts: list[str]) -> dict[str, Tensor]:
    # The loop seeds torch by the number of the batch: a run that goes on draws the same masks.
    generator = np.random.default_rng(int(torch.randint(1 << 62, (1,))))
    return {name: torch.from_numpy(rows) for name, rows in masks.batch(texts, generator).items()}


def _told(model: MaskedAutoEncoder, batch: dict[str, Tensor]) -> Parts:
    """The mean over the granularities of both losses; the log shows them apart."""
    found = model(**batch)
    losses = {g: (own + again) / 2 for g, (own, again) in found.items()}
    apart = {
        f"{name}@{g}": loss.detach()
        for g, both in found.items()
        for name, loss in zip(("masked", "decoded"), both, strict=True)
    }
    total = torch.stack(list(losses.values())).mean()
    return Parts(total, {g: loss.detach() for g, loss in losses.items()}, apart)
