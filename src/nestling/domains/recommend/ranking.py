"""Full ranking: the rank of each user's next item among all items, and metrics of ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Whole, checked
from nestling.data.interactions.interactions import Interactions, Rows
from nestling.data.interactions.splits import NextItems
from nestling.domains.recommend.items import Items
from nestling.errors import ConfigError, DataError, unknown
from nestling.measure.bootstrap import bootstrap
from nestling.measure.tasks.scores import MeanScores
from nestling.process.blocks import blocks
from nestling.process.progress import Progress

Floats = NDArray[np.float64]
Exclude = Literal["history"] | None
"""Whether items of a user's history are left out of the ranking."""

_SCORES_AT_A_TIME = 1 << 24


class Scorer(Protocol):
    """Anything that scores all items for users by their histories."""

    def scores(self, histories: Interactions, rows: slice) -> NDArray[np.floating]:
        """Scores ``Float[users, items]`` for the users ``rows``, a column for each item of the catalogue."""
        ...


@dataclass(frozen=True, eq=False)
class Ranks:
    """The rank of each user's next item, from 1.

    Of items with equal scores each has the middle of their ranks, so that the order of rows decides nothing.

    Args:
        ranks: ``Float[users]``; infinite for a next item that is excluded, as it stands in the history.
        exclude: whether histories were excluded.
        cold: ``Bool[users]``, next items that training has never seen.
        sampled: number of other items, if each next item was ranked among a sample; metrics then have another
            name, as they are no estimates of those of a full ranking.
    """

    ranks: Floats
    exclude: Exclude
    cold: NDArray[np.bool_]
    sampled: int | None = None

    @property
    def unreachable(self) -> int:
        """The number of next items that are excluded as part of the history."""
        return int(np.isinf(self.ranks).sum())

    def values(self, metric: str) -> Floats:
        """A metric of each user, such as ``"NDCG@10"``, ``"Recall@20"``, ``"MRR@10"`` or ``"Hit@10"``.

        There is one next item a user, so ``Hit`` is ``Recall``. Among 99 sampled items it is
        ``"NDCG@10 among 99 sampled"``.

        Raises:
            ConfigError: for another metric.
        """
        suffix = "" if self.sampled is None else f" among {self.sampled} sampled"
        if not metric.endswith(suffix) or " among " in metric.removesuffix(suffix):
            raise ConfigError(f"these ranks have metrics such as {f'NDCG@10{suffix}'!r}, not {metric!r}")
        name, _, k = metric.removesuffix(suffix).partition("@")
        if name not in METRICS or not k.isdecimal() or int(k) < 1:
            raise ConfigError(unknown("metric", metric, [f"{each}@10" for each in METRICS]))
        return np.where(self.ranks <= int(k), METRICS[name](self.ranks), 0.0)

    def interval(self, metric: str, *, resamples: int = 1000, seed: int = 0) -> tuple[float, float]:
        """The 95 % confidence interval of the mean over users, from bootstrap resamples."""
        scores = MeanScores(self.values(metric)[None, :, None], (metric,))
        found = bootstrap(scores, resamples=resamples, seed=seed)
        return float(found.low.squeeze()), float(found.high.squeeze())

    def mean(self, metric: str, *, cold: bool | None = None) -> float:
        """The mean over users: all, those with a cold next item (``True``), or the others; NaN for none."""
        values = self.values(metric)
        chosen = values if cold is None else values[self.cold == cold]
        return float(chosen.mean()) if len(chosen) else float("nan")


METRICS: dict[str, Callable[[Floats], Floats]] = {
    "NDCG": lambda ranks: 1 / np.log2(1 + ranks),
    "Recall": np.ones_like,
    "MRR": lambda ranks: 1 / ranks,
    "Hit": np.ones_like,
}
"""Metrics by name, as RecBole calls them, of ranks up to k."""


def rank_next_items(
    scorer: Scorer, asked: NextItems, items: Items, train: Interactions | None = None
) -> dict[Exclude, Ranks]:
    """The ranks of next items among all items of the catalogue, with histories excluded and not.

    Args:
        scorer: a model or a baseline.
        asked: users with histories and the item that follows.
        items: the catalogue.
        train: training interactions, which say what items are cold; none are without them.

    Returns:
        The ranks with ``exclude="history"`` under that key, those among all items under None.

    Raises:
        DataError: for items that the catalogue does not have.
    """
    histories = asked.histories
    seen, targets = histories.rows_in(items.ids), items.rows(asked.target_ids)
    raw, masked = np.empty(len(asked)), np.empty(len(asked))
    with Progress("ranking", len(asked), "users") as progress:
        for rows in blocks(len(asked), max(1, _SCORES_AT_A_TIME // len(items))):
            scores = scorer.scores(histories, rows)
            users = np.repeat(np.arange(rows.stop - rows.start), histories.lengths[rows])
            events = _events(seen, histories, rows)
            raw[rows], masked[rows] = _ranks(scores, targets[rows], users, events)
            progress.update(rows.stop - rows.start)
    cold = np.zeros(len(asked), np.bool_) if train is None else ~np.isin(targets, train.rows_in(items.ids))
    return {"history": Ranks(masked, "history", cold), None: Ranks(raw, None, cold)}


@checked(negatives=Whole(1), seed=Whole(0))
def rank_among_sampled(
    scorer: Scorer, asked: NextItems, items: Items, negatives: int = 99, *, seed: int = 0
) -> Ranks:
    """The rank of each next item among randomly drawn items that are not in the history.

    The order of two recommenders may differ from that of :func:`rank_next_items`, which is to be preferred:
    on the purchases of beauty products next counts and text cosines are equal by the full ranking, and among
    99 sampled items one has three times the NDCG of the other.

    Args:
        scorer: a model or a baseline.
        asked: users with histories and the item that follows.
        items: the catalogue.
        negatives: items drawn for each user, with replacement.
        seed: of the drawing.

    Raises:
        DataError: for items that the catalogue does not have, or a history that leaves no other item.

    Source: Krichene and Rendle 2020, "On sampled metrics for item recommendation".
    """
    random, histories, ranks = np.random.default_rng(seed), asked.histories, np.empty(len(asked))
    seen, targets = histories.rows_in(items.ids), items.rows(asked.target_ids)
    for rows in blocks(len(asked), max(1, _SCORES_AT_A_TIME // len(items))):
        scores, own = scorer.scores(histories, rows), targets[rows]
        users = np.arange(len(own))
        barred = np.zeros(scores.shape, np.bool_)
        barred[np.repeat(users, histories.lengths[rows]), _events(seen, histories, rows)] = True
        barred[users, own] = True
        if barred.all(axis=1).any():
            raise DataError("a history holds all items, so there is no other to rank the next one among")
        drawn = random.integers(len(items), size=(len(own), negatives))
        while (wrong := barred[users[:, None], drawn]).any():
            drawn[wrong] = random.integers(len(items), size=int(wrong.sum()))
        of_drawn, of_own = scores[users[:, None], drawn], scores[users, own][:, None]
        ranks[rows] = 1 + (of_drawn > of_own).sum(axis=1) + (of_drawn == of_own).sum(axis=1) / 2
    return Ranks(ranks, "history", np.zeros(len(asked), np.bool_), negatives)


def _events(seen: Rows, histories: Interactions, rows: slice) -> Rows:
    """The items in the histories of the users ``rows``."""
    return seen[histories.offsets[rows.start] : histories.offsets[rows.stop]]


def _ranks(
    scores: NDArray[np.floating],
    targets: NDArray[np.int64],
    users: NDArray[np.int64],
    events: NDArray[np.int64],
) -> tuple[Floats, Floats]:
    """Mid-ranks among all items, and among those that are not in the history.

    Args:
        scores: ``Float[users, items]``.
        targets: the next item of each user.
        users: the user of each event of the histories.
        events: its item.
    """
    own = scores[np.arange(len(scores)), targets][:, None]
    better, equal = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    raw = better + (equal + 1) / 2
    once = np.unique(users * scores.shape[1] + events)  # an item may be bought twice
    users, events = np.divmod(once, scores.shape[1])
    of_events = scores[users, events]
    count = len(scores)
    better = better - np.bincount(users[of_events > own[users, 0]], minlength=count)
    equal = equal - np.bincount(users[of_events == own[users, 0]], minlength=count)
    masked = better + (equal + 1) / 2
    masked[users[events == targets[users]]] = np.inf
    return raw, masked
