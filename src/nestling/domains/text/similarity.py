"""Similarity of texts, from pairs that people scored: an encoder is trained whole."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Dataset

from nestling.data.sets.sts import ScoredPairs, read_scored_pairs
from nestling.data.tables.roles import SCORED_ROLES, read_roles
from nestling.domains.text.loss import planned_loss
from nestling.domains.text.pairs import PairObjective, train_on_pairs
from nestling.domains.text.plan import TrainPlan, write_plan
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ConfigError
from nestling.granularity import Nesting
from nestling.losses import CoSENT
from nestling.measure.tasks.tasks import STS


def train_by_plan(plan: TrainPlan) -> TextEncoder:
    """Train as planned on scored pairs, with CoSENT; plan, log and checkpoints go into the plan's folder.

    All pairs train. With ``evaluate_every`` a tenth of them, whose sentences are in no other pair, is held
    out, and sweeps of it are logged on the way.

    Raises:
        ConfigError: for a plan that names no file of scored pairs or no nesting.
        DataError: if the file cannot be used, or its pairs all hang together and a tenth is to be held out.
    """
    if plan.data.scored is None or plan.model.nesting is None:
        raise ConfigError("training on scored pairs needs their file and a nesting; name both")
    pairs = read_scored_pairs(plan.data.scored, **read_roles(plan.data.columns, SCORED_ROLES)).head(
        plan.data.limit
    )
    task = None
    if plan.train.evaluate_every is not None:
        pairs, held_out = pairs.split(seed=plan.train.seed)
        task = STS(held_out.first, held_out.second, held_out.scores)
    start = TextEncoder.open(plan.model.encoder)
    write_plan(plan, Path(plan.output.folder) / "plan.toml")
    loss = planned_loss(plan, CoSENT(1 / plan.loss.temperature), Nesting.parse(plan.model.nesting))
    objective = PairObjective(loss, "scores", plan.loss.chunk_size)
    return train_on_pairs(plan, start, ScoredRows(pairs), objective, task)


class ScoredRows(Dataset[tuple[str, str, float]]):
    """Scored pairs, row by row."""

    def __init__(self, pairs: ScoredPairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, row: int) -> tuple[str, str, float]:
        return self.pairs.first[row], self.pairs.second[row], float(self.pairs.scores[row])
