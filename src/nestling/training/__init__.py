"""The training loop, on Accelerate: batches, optimiser steps, checkpoints and the log."""

from typing import TYPE_CHECKING

from nestling._exports import exports

if TYPE_CHECKING:
    from nestling.training.config import TrainConfig as TrainConfig
    from nestling.training.log import LogRow as LogRow
    from nestling.training.log import TrainLog as TrainLog
    from nestling.training.loop import fit as fit

_PLAN = "nestling.domains.text.train_plan"
__getattr__, __dir__, __all__ = exports(
    __name__,
    {
        "LogRow": "log",
        "TrainConfig": "config",
        "TrainLog": "log",
        "fit": "loop",
    },
    renamed={name: f"{_PLAN}.{name}" for name in ("TrainPlan", "read_plan", "write_plan")},
)
