"""The settings of a training run and its learning rate at each step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from nestling.arguments.constraints import OneOf, Real, Whole, checked

RateSchedule = Literal["cosine", "linear", "constant"]
MixedPrecision = Literal["no", "bf16", "fp16"]

# Settings of logging and speed; the trained weights do not depend on them.
_WATCHING = ("workers", "log_every", "checkpoint_every", "evaluate_every")


@dataclass(frozen=True)
@checked(
    epochs=Whole(1),
    max_steps=Whole(1) | None,
    batch_size=Whole(1),
    lr=Real(above=0),
    weight_decay=Real(least=0),
    schedule=OneOf(get_args(RateSchedule)),
    warmup=Real(least=0, below=1),
    mixed_precision=OneOf(get_args(MixedPrecision)),
    gradient_accumulation=Whole(1),
    max_grad_norm=Real(above=0, finite=False) | None,
    seed=Whole(0),
    workers=Whole(0),
    log_every=Whole(1),
    checkpoint_every=Whole(1) | None,
    evaluate_every=Whole(1) | None,
)
class TrainConfig:
    """Settings of a training run.

    One optimiser step sees ``batch_size * gradient_accumulation`` rows. With several processes, each
    takes an equal share of every batch, so the same settings mean the same training.

    Args:
        epochs: passes over the data; at least 1.
        max_steps: number of optimiser steps, in place of ``epochs``.
        batch_size: rows in one batch, over all processes together; a smaller data set makes one batch.
        drop_last: leave out the last, shorter batch of an epoch; each epoch leaves out different rows. Fewer
            negatives change the meaning of a contrastive loss, hence the default.
        lr: highest learning rate of AdamW; above 0.
        weight_decay: weight decay of matrices; biases, norms and scalars never decay. At least 0.
        schedule: decay of the learning rate after the warm-up: a half ``"cosine"``, a line (``"linear"``),
            or none (``"constant"``).
        warmup: fraction of the steps in which the learning rate rises to ``lr``; from 0 to below 1.
        mixed_precision: precision of the loss: ``"no"`` (float32), or ``"bf16"`` or ``"fp16"`` by autocast
            (fp16 with loss scaling); weights stay float32. Overrides what ``accelerate launch`` says.
        gradient_accumulation: batches per optimiser step; their losses are weighted by rows.
        max_grad_norm: gradients are clipped to this norm; ``inf`` does not clip.
        seed: seed of the order of rows, and of everything random in the model and the data.
        workers: number of processes that prepare batches; 0 prepares them in the training process.
        log_every: steps between lines of the log; each line is the mean since the line before.
        checkpoint_every: steps between checkpoints; by default one at the end of each epoch.
        evaluate_every: steps between evaluations; by default one at the end.

    Raises:
        ConfigError: for a value outside these ranges.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012 - read by pydantic where a plan holds one

    epochs: int = 1
    max_steps: int | None = None
    batch_size: int = 256
    drop_last: bool = True
    lr: float = 1e-3
    weight_decay: float = 0.0
    schedule: RateSchedule = "cosine"
    warmup: float = 0.1
    mixed_precision: MixedPrecision = "no"
    gradient_accumulation: int = 1
    max_grad_norm: float | None = 1.0
    seed: int = 0
    workers: int = 0
    log_every: int = 50
    checkpoint_every: int | None = None
    evaluate_every: int | None = None

    def __post_init__(self) -> None:
        if self.max_grad_norm == math.inf:
            object.__setattr__(self, "max_grad_norm", None)

    def learning_rate(self, step: int, steps: int) -> float:
        """The rate of optimiser step ``step`` (from 0) of ``steps``.

        >>> config = TrainConfig(lr=1.0, schedule="linear", warmup=0.5)
        >>> [config.learning_rate(step, 4) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
        """
        rising = round(self.warmup * steps)
        if step < rising:
            return self.lr * (step + 1) / rising
        progress = (step - rising) / max(1, steps - rising)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * progress))
        return self.lr * (1 - progress) if self.schedule == "linear" else self.lr

    def decisive(self) -> dict[str, Any]:
        """The settings that affect the trained weights."""
        return {name: value for name, value in asdict(self).items() if name not in _WATCHING}
