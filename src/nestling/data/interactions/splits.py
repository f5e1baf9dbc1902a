"""Splits of interactions into training, validation and test: the next item of each user is asked for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.constraints import Real, checked
from nestling.data.interactions.interactions import Interactions, Rows
from nestling.errors import ConfigError, DataError, EvaluationWarning

_FEWEST = 3


@dataclass(frozen=True, eq=False)
class NextItems:
    """Users with a history, and the item that follows it.

    Args:
        histories: the events before.
        targets: ``Int64[users]``, places in ``histories.item_ids``.
    """

    histories: Interactions
    targets: Rows

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def target_ids(self) -> NDArray[np.generic]:
        """The item ids of the targets."""
        return self.histories.item_ids[self.targets]


@dataclass(frozen=True, eq=False)
class Split:
    """Interactions to train on, and next items to validate and to test with.

    Args:
        train: to train on.
        validation: the histories end where training does.
        test: the histories include what was validated with.
        dropped: users that are left out, with the reason in :attr:`how`.
        how: the split in words.
    """

    train: Interactions
    validation: NextItems
    test: NextItems
    dropped: int
    how: str


def leave_one_out(interactions: Interactions) -> Split:
    """The last item of each user is the test, the last but one the validation, the rest is training.

    At the test, the validation item is part of the history. Users with fewer than three events are left out.

    Raises:
        DataError: if no user has three events.

    Warns:
        EvaluationWarning: if times are known and training events of other users are later than test events,
            which a recommender in use cannot know; :func:`split_by_time` avoids it.
    """
    lengths = interactions.lengths
    keep = lengths >= _FEWEST
    if not keep.any():
        raise DataError(
            f"no user has {_FEWEST} events, which training, validation and test take; give longer ones"
        )
    kept = interactions.first(np.where(keep, lengths, 0))
    lengths = kept.lengths
    train = kept.first(lengths - 2)
    _warn_of_leak(train, kept)
    return Split(
        train,
        NextItems(train, kept.items[kept.offsets[1:] - 2]),
        NextItems(kept.first(lengths - 1), kept.items[kept.offsets[1:] - 1]),
        int((~keep).sum()),
        f"leave one out; users with fewer than {_FEWEST} events are left out",
    )


@checked(validation=Real(above=0, below=1), test=Real(above=0, below=1))
def split_by_time(interactions: Interactions, validation: float = 0.1, test: float = 0.1) -> Split:
    """Training before one moment, validation up to a second one, test after it, for all users together.

    The first event of a user in the validation period is asked for, given those before the period; so is
    the first one in the test period. Users without an event before, or in it, take no part in it.

    Args:
        interactions: with times.
        validation: share of all events that is in the validation period.
        test: share that is in the test period.

    Raises:
        ConfigError: if both shares leave nothing to train on.
        DataError: without times, or if a period asks for no item.
    """
    if validation + test >= 1:
        raise ConfigError(
            f"validation={validation} and test={test} leave nothing to train on; sum them below 1"
        )
    times = interactions.times
    if times is None:
        raise DataError("a split by time needs times, and these interactions have none; use leave_one_out")
    start, middle = np.quantile(times, [1 - validation - test, 1 - test])
    before = {moment: _counts(interactions, times < moment) for moment in (start, middle, np.inf)}
    train = interactions.first(before[start])
    periods = [_asked(interactions, before[a], before[b]) for a, b in ((start, middle), (middle, np.inf))]
    return Split(
        train,
        periods[0],
        periods[1],
        interactions.users - train.users,
        f"by time, at {start:g} and {middle:g}; users without events before the first are not trained on",
    )


def _counts(interactions: Interactions, chosen: NDArray[np.bool_]) -> Rows:
    return np.add.reduceat(chosen, interactions.offsets[:-1], dtype=np.int64)


def _asked(interactions: Interactions, before: Rows, after: Rows) -> NextItems:
    """The next item after ``before[u]`` events, of users that have some before and one up to ``after[u]``."""
    asked = (before > 0) & (after > before)
    if not asked.any():
        raise DataError(
            "no user has an event before a period and one in it; take larger shares, or leave_one_out"
        )
    targets = interactions.items[(interactions.offsets[:-1] + before)[asked]]
    return NextItems(interactions.first(np.where(asked, before, 0)), targets)


def _warn_of_leak(train: Interactions, whole: Interactions) -> None:
    if train.times is None or whole.times is None:
        return
    share = float((whole.times[whole.offsets[1:] - 1] < train.times.max()).mean())
    if share:
        warnings.warn(
            f"{share:.0%} of the test events are earlier than the last training event of another user, which "
            "a recommender in use cannot know; split_by_time avoids it",
            EvaluationWarning,
            stacklevel=3,
        )
