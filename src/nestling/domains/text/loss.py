"""The nested loss of a plan."""

from __future__ import annotations

from torch import nn

from nestling.axes import FLOAT_BITS
from nestling.domains.text.train_plan import TrainPlan
from nestling.granularity import Nesting
from nestling.losses import AlignScores, AlignVectors, Nested
from nestling.losses.alignment import Alignment
from nestling.losses.nested import read_weights
from nestling.schedules import Cross, Every, RandomPrefix, RandomSome, Sandwich, Schedule


def planned_loss(plan: TrainPlan, base: nn.Module, nesting: Nesting) -> Nested:
    """``base`` over ``nesting`` and the bits of a plan, with its weights, schedule and self-distillation."""
    loss, weights = plan.loss, read_weights(nesting, plan.loss.weights)
    if loss.bits is not None:
        nesting = nesting.times(bits=[*loss.bits, max(FLOAT_BITS)])
    schedules: dict[str, Schedule] = {
        "every": Every(),
        "random_some": RandomSome(loss.draw_count),
        "sandwich": Sandwich(loss.draw_count),
        "random_prefix": RandomPrefix(),
        "cross": Cross(),
    }
    aligned: dict[str | None, Alignment | None] = {
        None: None,
        "scores": AlignScores(loss.align_weight, loss.align_temperature or loss.temperature),
        "vectors": AlignVectors(loss.align_weight, loss.align_temperature or 1.0),
    }
    return Nested(
        base,
        nesting,
        weights={g: weights[g.replace(bits=None)] for g in nesting},
        schedule=schedules[loss.draw],
        align=aligned[loss.align],
        deep_documents=loss.deep_documents,
        seed=plan.train.seed,
    )
