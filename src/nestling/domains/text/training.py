"""Training a text encoder by a plan: on pairs, on scored pairs, or by masked-language modelling."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nestling.domains.text.train_plan import TrainPlan, check_sources
from nestling.encoders.text.names import check_model
from nestling.storage.artifact import check_file_target

if TYPE_CHECKING:
    from nestling.encoders.text.encoder import TextEncoder

KIND = "text_encoder"
_log = logging.getLogger(__name__)


def check_plan(plan: TrainPlan) -> None:
    """Refuse a plan whose data, encoder or output folder cannot be used, before torch is imported.

    Raises:
        DataError: for a file or an encoder that does not exist.
        ArtifactError: if the folder holds a ``plan.toml`` that nestling did not write.
        StorageError: if nothing can be written to the folder.
        MissingExtraError: if packages are missing; all of them are named.
    """
    check_sources(plan.data)
    check_model(plan.model.encoder, to_train=True)
    check_file_target(Path(plan.output.folder) / "plan.toml")


def train(plan: TrainPlan) -> TextEncoder:
    """Train the text encoder that a plan describes.

    ``tune = "masked"`` pre-trains on texts. Otherwise scored pairs train with CoSENT, and pairs of texts with
    InfoNCE. The resolved plan, the log and the checkpoints go into the plan's folder, and the same call
    resumes from them after an interruption. The number of pairs, and what was left out of them, go to the log
    ``nestling``.

    Args:
        plan: such as :func:`~nestling.domains.text.train_plan.read_plan` reads.

    Returns:
        The trained encoder; ``save`` writes it to a folder.

    Raises:
        ConfigError: for a plan that lacks what its training needs.
        DataError: if the data cannot be used.
        StorageError: if the folder cannot be written.
    """
    check_plan(plan)
    if plan.model.tune == "masked":
        from nestling.domains.text.pretraining import pretrain_by_plan

        return pretrain_by_plan(plan)
    if plan.data.scored is not None:
        from nestling.domains.text.similarity import train_by_plan

        return train_by_plan(plan)
    from nestling.domains.text.retrieval import TextStudy, read_data

    pairs = read_data(plan.data)
    for reason, count in pairs.left_out.items():
        _log.info("left out: %s %s", f"{count:,}", reason)
    study = TextStudy(plan, pairs)
    _log.info("%s pairs to train, %s to validate", f"{len(study.training):,}", f"{len(study.validation):,}")
    return study.train()
