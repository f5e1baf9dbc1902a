"""A recommender at every width beside untrained baselines, on the same users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nestling.arguments.constraints import Whole, checked
from nestling.data.interactions.splits import Split
from nestling.domains.recommend.baselines import untrained
from nestling.domains.recommend.next_item import NextItem
from nestling.domains.recommend.ranking import Exclude, Ranks, rank_next_items
from nestling.errors import ConfigError, unknown
from nestling.measure.bootstrap import Resampled
from nestling.measure.tasks.scores import MeanScores
from nestling.text_table import aligned

KINDS: dict[Exclude, str] = {"history": "", None: ", history kept"}
"""Words behind a metric: without histories, as a product recommends, or with them, as many papers measure."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Ranks of the same next items by a model at several widths and by baselines.

    Args:
        ranks: by name, with histories excluded and not.
        baselines: the names that are untrained.
        split: the split in words.
    """

    ranks: Mapping[str, Mapping[Exclude, Ranks]]
    baselines: tuple[str, ...]
    split: str

    @checked(resamples=Whole(1), seed=Whole(0))
    def difference(
        self, one: str, other: str, metric: str = "NDCG@10", *, resamples: int = 1000, seed: int = 0
    ) -> tuple[float, float, float]:
        """The difference of two means without histories, and its 95 % interval over users that both share.

        Raises:
            ConfigError: for unknown names.
        """
        for name in (one, other):
            if name not in self.ranks:
                raise ConfigError(unknown("name", name, self.ranks))
        values = [self.ranks[name]["history"].values(metric) for name in (one, other)]
        drawn = Resampled.of(MeanScores(np.stack(values)[:, :, None], (metric,)), resamples, seed)
        found = drawn.at([0]).minus(drawn.at([1]))
        value, low, high = (float(each.squeeze()) for each in found)
        return value, low, high

    def verdict(self, metric: str = "NDCG@10") -> str:
        """One sentence: whether the best trained width beats the best baseline."""
        means = {name: found["history"].mean(metric) for name, found in self.ranks.items()}
        model = max((name for name in means if name not in self.baselines), key=means.__getitem__)
        best = max(self.baselines, key=means.__getitem__)
        value, low, high = self.difference(model, best, metric)
        how = "beats" if low > 0 else "loses to" if high < 0 else "is as good as"
        return (
            f"The model at {model} {how} the best untrained baseline, {best}: {metric} {means[model]:.4f} "
            f"against {means[best]:.4f} (difference {value:+.4f}, {low:+.4f} to {high:+.4f})."
        )

    def table(self, metrics: Sequence[str] = ("NDCG@10", "Recall@10")) -> str:
        """The verdict, the means of all, and how next items were asked for, as text."""
        head = ["", *(f"{metric}{words}" for words in KINDS.values() for metric in metrics)]
        rows = [
            [name, *(f"{found[kind].mean(metric):.4f}" for kind in KINDS for metric in metrics)]
            for name, found in self.ranks.items()
        ]
        first = next(iter(self.ranks.values()))["history"]
        cold = f"{int(first.cold.sum())} next items are new to training"
        notes = f"{len(first.ranks):,} users, {self.split}; {cold}"
        if first.unreachable:
            notes += f"; {first.unreachable} stand in the history and cannot be found without it"
        return f"{self.verdict(metrics[0])}\n\n{aligned([head, *rows])}\n\n{notes}."


def evaluate(model: NextItem, split: Split, feature: str | None = None) -> Evaluation:
    """Rank the next items of the test by a model at every width, and by all untrained baselines.

    Args:
        model: trained on the training interactions of the split.
        split: see :mod:`nestling.data.interactions.splits`. Baselines know the histories of the test.
        feature: name of the features of baselines; that which the catalogue has, if it has one, by default.
    """
    items, train, test = model.items, split.train, split.test
    name = feature or next(iter(items.features), None)
    scorers = untrained(items, test.histories, name)
    ranks = {each: rank_next_items(scorer, test, items, train) for each, scorer in scorers.items()}
    for at in model.nesting:
        ranks[str(at)] = rank_next_items(model.scorer(at), test, items, train)
    return Evaluation(ranks, tuple(scorers), split.how)
