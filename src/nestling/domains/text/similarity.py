"""Similarity of texts: all weights of an encoder are trained on pairs that people scored."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Dataset

from nestling.data.sets.sts import ScoredPairs, read_scored_pairs
from nestling.data.tables.roles import SCORED_ROLES, read_roles
from nestling.domains.text.loss import planned_loss
from nestling.domains.text.pairs import PairObjective, train_on_pairs
from nestling.domains.text.train_plan import TrainPlan, write_plan
from nestling.encoders.text.encoder import TextEncoder
from nestling.errors import ConfigError
from nestling.granularity import Nesting
from nestling.losses import CoSENT
from nestling.measure.tasks.tasks import STS


def train_by_plan(plan: TrainPlan) -> TextEncoder:
    """Train on scored pairs by a plan, with CoSENT; plan, log and checkpoints go into its folder.

    With ``evaluate_every`` a tenth of the pairs is held out, and sweeps of it are logged during training; its
    texts are in no other pair. Otherwise all pairs are used for training.

    Raises:
        ConfigError: for a plan without a file of scored pairs or without a nesting.
        DataError: if the file cannot be used, or no tenth can be held out because all pairs share texts.
    """
    if plan.data.scored is None or plan.model.nesting is None:
        raise ConfigError("training on scored pairs needs their file and a nesting; give both")
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
