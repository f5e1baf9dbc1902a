"""Pre-training a text encoder by masked-language modelling at every granularity."""

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
from nestling.domains.text.train_plan import TrainPlan, write_plan
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
    """Train the transformer of ``encoder`` in place to predict masked words at each granularity.

    Args:
        encoder: with a nesting of dims and layers.
        texts: at least one word each.
        config: of the run.
        encoder_rate: fraction of the words that are masked for the encoder.
        decoder_rate: fraction of the words that are masked for the decoder.
        max_length: length of the longest text in tokens; longer texts are cut at a random place.
        head: a masked language model whose head to start from; None starts from a random head.
        folder: for checkpoints and the log; an interrupted run resumes from there.

    Returns:
        The encoder's transformer with the head and the decoder, for more training or for measuring; the
        encoder does not need them.

    Raises:
        ConfigError: for rates outside (0, 1), or a tokenizer without a mask token.
        DataError: for texts without words.

    Source: Starbucks, arXiv 2410.13230.
    """
    transformer: Any = encoder.model[0]
    masks = MaskedTexts(transformer.tokenizer, encoder_rate, decoder_rate, max_length)
    model = MaskedAutoEncoder(transformer.auto_model, encoder.nesting, head)
    fit(model, _loss, _Texts(texts), config, collate=partial(_batch, masks), folder=folder)
    encoder.eval()
    return model


def pretrain_by_plan(plan: TrainPlan) -> TextEncoder:
    """Pre-train by a plan with ``tune = "masked"``; plan, log and checkpoints go into its folder.

    Raises:
        ConfigError: for a plan without a file of texts or without a nesting.
    """
    if plan.data.texts is None or plan.model.nesting is None:
        raise ConfigError('tune = "masked" needs a file of texts and a nesting of dims and layers; give both')
    texts = read_texts(plan.data.texts, **read_roles(plan.data.columns, TEXT_ROLES), leave_out_blank=True)
    start = TextEncoder.open(plan.model.encoder)
    rule = start.rule.without_code
    encoder = TextEncoder(copy.deepcopy(start.model), Nesting.parse(plan.model.nesting), rule)
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
    # The loop seeds torch by the number of the batch, so a resumed run draws the same masks.
    generator = np.random.default_rng(int(torch.randint(1 << 62, (1,))))
    return {name: torch.from_numpy(rows) for name, rows in masks.batch(texts, generator).items()}


def _loss(model: MaskedAutoEncoder, batch: dict[str, Tensor]) -> Parts:
    """The mean over granularities of the encoder's and the decoder's loss; the log shows both."""
    found = model(**batch)
    losses = {g: (own + again) / 2 for g, (own, again) in found.items()}
    apart = {
        f"{name}@{g}": loss.detach()
        for g, both in found.items()
        for name, loss in zip(("masked", "decoded"), both, strict=True)
    }
    total = torch.stack(list(losses.values())).mean()
    return Parts(total, {g: loss.detach() for g, loss in losses.items()}, apart)
