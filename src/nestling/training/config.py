"""The settings of a training run and its learning rate at each step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from nestling.arguments.numbers import shown
from nestling.errors import ConfigError, unknown

RateSchedule = Literal["cosine", "linear", "constant"]
MixedPrecision = Literal["no", "bf16", "fp16"]

# Settings that say how a run is watched; the weights that come out do not depend on them.
_WATCHING = ("workers", "log_every", "checkpoint_every", "evaluate_every")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained.

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
        schedule: how the learning rate falls after the warm-up: as a half ``"cosine"``, on a line
            (``"linear"``), or not at all (``"constant"``).
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
        for name in ("epochs", "batch_size", "gradient_accumulation", "log_every"):
            _check_count(name, getattr(self, name), 1)
        for name in ("max_steps", "checkpoint_every", "evaluate_every"):
            if getattr(self, name) is not None:
                _check_count(name, getattr(self, name), 1)
        for name in ("seed", "workers"):
            _check_count(name, getattr(self, name), 0)
        _check_range("lr", self.lr, 0, math.inf, least_allowed=False)
        _check_range("weight_decay", self.weight_decay, 0, math.inf)
        _check_range("warmup", self.warmup, 0, 1)
        if self.max_grad_norm == math.inf:
            object.__setattr__(self, "max_grad_norm", None)
        if self.max_grad_norm is not None:
            _check_range("max_grad_norm", self.max_grad_norm, 0, math.inf, least_allowed=False)
        for name, kind in (("schedule", RateSchedule), ("mixed_precision", MixedPrecision)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(unknown(name, getattr(self, name), get_args(kind)))

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
        """The settings that the trained weights depend on."""
        return {name: value for name, value in asdict(self).items() if name not in _WATCHING}


def _check_range(name: str, value: object, least: int, below: float, *, least_allowed: bool = True) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not least <= value < below or (value == least and not least_allowed):  # type: ignore[operator]
        lower = f"at least {least}" if least_allowed else f"above {least}"
        raise ConfigError(f"{name} must be a number {lower} and below {below:g}; got {shown(value)}")


def _check_count(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}; got {shown(value)}")
