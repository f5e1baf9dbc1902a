"""Training a speech recogniser by a plan."""

from __future__ import annotations

import logging
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nestling.data.tables.roles import TRANSCRIPT_ROLES, read_roles
from nestling.data.transcripts import Transcripts, read_transcripts
from nestling.domains.prefix.names import check_pretrained, lasting_name
from nestling.domains.speech.train_plan import SMALL, STORIES, DataPlan, ModelPlan, TrainPlan
from nestling.errors import ConfigError, DataError
from nestling.process.extras import TRAINING, check_packages
from nestling.storage.artifact import check_file_target

if TYPE_CHECKING:
    from nestling.domains.speech.recogniser import Recogniser

__all__ = ["KIND", "TrainPlan", "check_plan", "train"]

KIND = "recogniser"
_SAMPLE_RATE, _STRIDE = 16_000, 320
_ENCODERS = ("whisper", "wav2vec2", "hubert", "wavlm")
_log = logging.getLogger(__name__)


def read_data(plan: DataPlan) -> Transcripts:
    """Read the recordings of a plan.

    Raises:
        ConfigError: if the plan names none.
        DataError: if they cannot be used.
    """
    if plan.recordings is None:
        raise ConfigError(
            "the plan has no data; name a table of wav files and texts, or a public data set: recordings = "
            '"my.csv" below [data]'
        )
    return read_transcripts(plan.recordings, **read_roles(plan.columns, TRANSCRIPT_ROLES)).head(plan.limit)


def check_plan(plan: TrainPlan) -> None:
    """Refuse a plan whose data, models or output folder cannot be used, before torch is imported.

    Raises:
        ConfigError: for a plan without data, or models of another kind.
        DataError: for recordings or models that do not exist, and recordings that are too short for a token
            or of another sample rate than the encoder takes.
        ArtifactError: if the folder holds a ``plan.toml`` that nestling did not write.
        StorageError: if nothing can be written to the folder.
        MissingExtraError: if packages are missing; all of them are named.
    """
    recordings = read_data(plan.data)
    encoder = check_pretrained(plan.model.encoder, "encoder of sound", (SMALL,))
    if encoder and encoder.get("model_type") not in _ENCODERS:
        raise ConfigError(
            f"[model] encoder={plan.model.encoder!r} is a model of kind {encoder.get('model_type')!r}; give "
            f"one of {', '.join(_ENCODERS)}, or {SMALL!r}"
        )
    if plan.model.encoder != SMALL and recordings.sample_rate != _SAMPLE_RATE:
        raise DataError(
            f"the recordings have {recordings.sample_rate} samples a second, and {plan.model.encoder} takes "
            f"{_SAMPLE_RATE}; resample them first, or set encoder = {SMALL!r}"
        )
    coarsest = max(plan.model.rates)
    per_second = _SAMPLE_RATE // prod(encoder.get("conv_stride", [_STRIDE]))
    recordings.check_seconds(coarsest / per_second, f"a token of {coarsest} vectors")
    check_pretrained(plan.model.language_model, "causal language model", (STORIES,))
    check_file_target(Path(plan.output.folder) / "plan.toml")
    check_packages(*TRAINING, "transformers", *(["peft"] if plan.model.tune == "adapters" else []))


def train(plan: TrainPlan) -> Recogniser:
    """Train the recogniser that a plan describes.

    The resolved plan, the log and the checkpoints go into the plan's folder, and a call that was interrupted
    resumes from them when it is repeated.

    Args:
        plan: such as :meth:`TrainPlan.read` reads.

    Returns:
        The trained recogniser; ``save`` writes it to a folder.

    Raises:
        ConfigError: for a plan that lacks what its training needs.
        DataError: if the data cannot be used.
        StorageError: if the folder cannot be written.
    """
    check_plan(plan)
    from nestling.training import fit

    recordings, folder, seed = read_data(plan.data), Path(plan.output.folder), plan.train.seed
    _log.info("%s recordings to train", f"{len(recordings):,}")
    plan.write(folder / "plan.toml")
    model = _untrained(plan.model, recordings.sample_rate, seed)

    def batch(rows: list[int]) -> Any:
        texts, audio = [recordings.texts[row] for row in rows], recordings.audio(rows)
        return model.batch(texts, audio=audio, sample_rate=recordings.sample_rate)

    objective = model.model.objective(schedule=plan.loss.schedule(), reduction="mean", seed=seed)
    fit(model.model, objective, range(len(recordings)), plan.train, collate=batch, folder=folder)
    return model


def _untrained(plan: ModelPlan, sample_rate: int, seed: int) -> Recogniser:
    """The recogniser before training; only what the plan tunes is trainable."""
    import torch

    from nestling.domains.speech.pretrained import Parts
    from nestling.domains.speech.recogniser import Recogniser

    parts = Parts(lasting_name(plan.encoder), lasting_name(plan.language_model), sample_rate)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        encoder, (lm, tokenizer) = parts.open_encoder(), parts.open_language_model(Path())
        model = Recogniser.around(
            lm,
            tokenizer,
            [encoder],
            {"audio": plan.rates},
            strategy=plan.strategy if plan.tune == "adapters" else None,
            rank=plan.rank,
            alpha=plan.alpha,
            mode=plan.mode,
            projection=plan.projection,
            hidden=plan.hidden,
            decoding={"max_new_tokens": plan.max_new_tokens},
            seed=seed,
        )
    model.parts = parts
    if plan.tune == "language_model":
        lm.requires_grad_(True)
    if plan.encoder == SMALL:
        encoder.requires_grad_(True)
    return model
