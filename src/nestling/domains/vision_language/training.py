"""Training a model like LLaVA by a plan, on questions about pictures."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nestling.data.questions import PictureQuestions, read_questions
from nestling.data.tables.roles import QUESTION_ROLES, read_roles
from nestling.domains.prefix.names import check_pretrained
from nestling.domains.vision_language.train_plan import DataPlan, TrainPlan
from nestling.errors import ConfigError
from nestling.process.extras import TRAINING, check_packages
from nestling.storage.artifact import check_file_target

if TYPE_CHECKING:
    from nestling.domains.vision_language.answerer import Answerer

__all__ = ["KIND", "TrainPlan", "check_plan", "train"]

KIND = "answerer"
_log = logging.getLogger(__name__)


def read_data(plan: DataPlan) -> PictureQuestions:
    """Read the questions of a plan.

    Raises:
        ConfigError: if the plan names no table.
        DataError: if the table cannot be used.
    """
    if plan.pictures is None:
        raise ConfigError(
            'the plan has no data; name a table of pictures, questions and answers: pictures = "my.csv" '
            "below [data]"
        )
    return read_questions(plan.pictures, **read_roles(plan.columns, QUESTION_ROLES)).head(plan.limit)


def check_plan(plan: TrainPlan) -> None:
    """Refuse a plan whose data, model or output folder cannot be used, before torch is imported.

    Raises:
        ConfigError: for a plan without data or model, a model that reads no pictures, or numbers of tokens
            that its grid does not allow.
        DataError: for a table or model that does not exist, or pictures that do not.
        ArtifactError: if the folder holds a ``plan.toml`` that nestling did not write.
        StorageError: if nothing can be written to the folder.
        MissingExtraError: if packages are missing; all of them are named.
    """
    read_data(plan.data)
    if plan.model.base is None:
        raise ConfigError('the plan has no model; name one like LLaVA: base = "a/folder" below [model]')
    _check_config(check_pretrained(plan.model.base, "model like LLaVA"), plan)
    check_file_target(Path(plan.output.folder) / "plan.toml")
    check_packages(*TRAINING, "transformers", *(["peft"] if plan.model.tune == "adapters" else []))


def train(plan: TrainPlan) -> Answerer:
    """Train the model that a plan describes.

    The resolved plan, the log and the checkpoints go into the plan's folder, and a call that was interrupted
    resumes from them when it is repeated.

    Args:
        plan: such as :meth:`TrainPlan.read` reads.

    Returns:
        The trained model; ``save`` writes it to a folder.

    Raises:
        ConfigError: for a plan that lacks what its training needs.
        DataError: if the data cannot be used.
        StorageError: if the folder cannot be written.
    """
    check_plan(plan)
    from nestling.domains.vision_language.answerer import Answerer
    from nestling.training import fit

    questions, folder = read_data(plan.data), Path(plan.output.folder)
    _log.info("%s questions to train", f"{len(questions):,}")
    plan.write(folder / "plan.toml")
    model, seed = Answerer.planned(plan.model, plan.train.seed), plan.train.seed

    def batch(rows: list[int]) -> Any:
        asked, right = ([column[row] for row in rows] for column in (questions.questions, questions.answers))
        return model.inputs(questions.pictures(rows), asked, right)

    objective = model.nested.objective(schedule=plan.loss.schedule(), reduction="mean", seed=seed)
    fit(model.nested, objective, range(len(questions)), plan.train, collate=batch, folder=folder)
    return model


def _check_config(config: dict[str, Any], plan: TrainPlan) -> None:
    """Refuse a model without a vision encoder, and numbers of tokens that are no squares of its grid."""
    if not config:
        return
    vision = config.get("vision_config")
    if not isinstance(vision, dict):
        raise ConfigError(
            f"{plan.model.base} is of the kind {config.get('model_type')!r}, which reads no pictures; give a "
            "model like LLaVA"
        )
    size, patch = vision.get("image_size"), vision.get("patch_size")
    if not isinstance(size, int) or not isinstance(patch, int):
        return
    side = size // patch
    allowed = [part * part for part in range(1, side + 1) if side % part == 0]
    wrong = [tokens for tokens in plan.model.tokens if tokens not in allowed]
    if wrong:
        raise ConfigError(
            f"[model] tokens={wrong[0]}: a picture of {plan.model.base} has {side} x {side} vectors, which "
            f"can be pooled to {', '.join(map(str, allowed))}"
        )
