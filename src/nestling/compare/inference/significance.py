"""Permutation and sign-flip tests over stimuli, differences and groups; corrected p values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nestling.arguments.constraints import OneOf, Whole, checked
from nestling.compare.rdms.pairs import pair_positions
from nestling.compare.rdms.rdms import RDMs, aligned
from nestling.compare.rdms.subjects import Subjects
from nestling.compare.similarity.comparators import Method, comparator, compare, usable
from nestling.errors import ConfigError, DataError, require

Floats = NDArray[np.float64]
Alternative = Literal["greater", "less", "two-sided"]
Correction = Literal["holm", "benjamini_hochberg", "none"]

_PERMUTATIONS = Whole(1, hint="1000 are usual")
_ALTERNATIVE = OneOf(get_args(Alternative))

_SLACK = 1e-9  # a smaller excess over the observed value is a tie broken by rounding
_ENTRIES_AT_A_TIME = 1 << 22


@dataclass(frozen=True, eq=False)
class PermutationTest:
    """A statistic, and the share of permutations that reach it.

    Args:
        values: ``Float[...]``: the statistics of the data as they are.
        p: ``Float[...]``: share of the permutations, the given order among them, that reach them.
        p_family: ``Float[...]``: share that reaches them anywhere: valid for all tests at once, and sharper
            than Holm's where tests go together (Westfall and Young 1993, the largest of all).
        permutations: number of permutations; all there are if ``exact``.
        exact: whether p values are those of all permutations.
    """

    values: Floats
    p: Floats
    p_family: Floats
    permutations: int
    exact: bool = False


@checked(permutations=_PERMUTATIONS, alternative=_ALTERNATIVE)
def permute_stimuli(
    a: Any,
    b: Any,
    method: Method = "spearman",
    *,
    permutations: int = 1000,
    alternative: Alternative = "greater",
    seed: int = 0,
) -> PermutationTest:
    """Are matrices related at all? The stimuli of ``a`` are permuted, rows and columns alike.

    Says nothing of other subjects or stimuli than these. Work on single matrices is done once.

    Args:
        a: RDMs, or ``Float[m, n(n-1)/2]``, without missing pairs.
        b: likewise, over the same stimuli.
        method: of :func:`~nestling.compare.similarity.comparators.compare`.
        permutations: at least 1; the smallest p value is one over one more than that.
        alternative: ``"greater"``: more alike than by chance; ``"less"`` is that for ``"bures_distance"``.
        seed: of the permutations.

    Raises:
        ConfigError: for an unknown method or alternative, or less than one permutation.
        DataError: for matrices that cannot be used, or that lack pairs.

    Source: Kriegeskorte et al. 2008, step 5; Mantel 1967.
    """
    first, second = aligned(a, b)
    chosen = comparator(method, first.n)
    x, y = (chosen.prepare(_whole(usable(rdms.vectors, chosen))) for rdms in (first, second))
    rng, step = np.random.default_rng(seed), max(1, _ENTRIES_AT_A_TIME // x.size)
    null = []
    for start in range(0, permutations, step):
        orders = [rng.permutation(first.n) for _ in range(min(step, permutations - start))]
        places = np.array([pair_positions(first.n, order) for order in orders])
        shuffled = x[:, places].swapaxes(0, 1).reshape(-1, x.shape[1])
        null.append(chosen.join(shuffled, y).reshape(len(orders), len(x), len(y)))
    return _judge(chosen.join(x, y), np.concatenate(null), alternative)


@checked(permutations=_PERMUTATIONS, alternative=_ALTERNATIVE)
def flip_signs(
    differences: ArrayLike,
    *,
    permutations: int = 10_000,
    alternative: Alternative = "two-sided",
    seed: int = 0,
) -> PermutationTest:
    """Is the mean over subjects zero? The sign of each subject is flipped at random.

    For two models give the difference of their values for each subject, such as two rows of
    ``evaluate(...).each``. Valid where differences are symmetric about zero if the models are equal, and
    exact where there are no more signs than ``permutations``.

    Args:
        differences: ``Float[subjects]`` or ``Float[tests, subjects]``; the same signs go to all tests.
        permutations: at least 1.
        alternative: to zero.
        seed: of the signs.

    Raises:
        ConfigError: for an unknown alternative, or less than one permutation.
        DataError: for differences that are not finite, or fewer than 2 subjects.

    >>> float(flip_signs([0.1, 0.2, 0.3, 0.1]).p)
    0.125
    """
    given = np.asarray(differences, np.float64)
    if given.ndim not in (1, 2) or given.shape[-1] < 2 or not np.isfinite(given).all():
        raise DataError(
            "differences must be finite, [subjects] or [tests, subjects] with at least 2 subjects, not "
            f"{given.shape}"
        )
    subjects = given.shape[-1]
    exact = subjects < 31 and 1 << subjects <= permutations
    signs = _signs(subjects, None if exact else np.random.default_rng(seed), permutations)
    null = np.moveaxis(given @ signs.T, -1, 0) / subjects
    return _judge(given.mean(axis=-1), null, alternative, exact=exact)


@checked(permutations=_PERMUTATIONS)
def compare_groups(
    a: Any,
    b: Any,
    method: Method = "pearson",
    *,
    subject: str | Sequence[Any] | None = "subject",
    paired: bool = False,
    permutations: int = 10_000,
    seed: int = 0,
) -> PermutationTest:
    """Do two groups of subjects differ in their matrices? Subjects are reassigned to the groups at random.

    The statistic is the mean similarity of two subjects of the same group less that of two of different
    groups: above 0 if groups differ. With ``paired``, as for two areas or two sessions of the same subjects,
    the matrices of each subject are swapped at random, and no subject is compared with itself.

    Args:
        a: RDMs, or ``Float[m, n(n-1)/2]``, of the first group.
        b: of the second group.
        method: a similarity of :func:`~nestling.compare.similarity.comparators.compare`.
        subject: the label of a matrix's subject, whose matrices stay together; None if each is of
            another (``paired``: the same ones in both, in order).
        paired: whether the same subjects are in both groups.
        permutations: at least 1; if ``paired``, exact where there are no more different swaps than that.
        seed: of the permutations.

    Raises:
        ConfigError: for an unknown method, ``"bures_distance"``, or less than one permutation.
        DataError: for matrices that cannot be used, fewer than 2 subjects in a group, or, if ``paired``,
            subjects that are not in both.
    """
    if method == "bures_distance":
        raise ConfigError("compare_groups needs a similarity, and 'bures_distance' is none; choose 'bures'")
    first, second = aligned(a, b)
    among, members = _among_subjects(first, second, method, subject, paired)
    rng, count = np.random.default_rng(seed), len(members) // 2
    exact = paired and count < 31 and 1 << count <= permutations
    if paired:
        swaps = _signs(count, None if exact else rng, permutations)
        dealt = np.concatenate([swaps, -swaps], axis=1)
    else:
        dealt = rng.permuted(np.tile(members, (permutations, 1)), axis=1)
    return _judge(_contrast(among, members[None])[0], _contrast(among, dealt), "greater", exact=exact)


@checked(correction=OneOf(get_args(Correction)))
def adjusted(p: ArrayLike, correction: Correction = "holm") -> Floats:
    """P values of several tests, each as large as the correction for all of them asks; NaN are no tests.

    Args:
        p: ``Float[...]``, 0 to 1.
        correction: ``"holm"``: no wrong discovery at all (Holm 1979), under any dependence;
            ``"benjamini_hochberg"``: a small share of wrong ones (1995); or ``"none"``.

    Raises:
        ConfigError: for an unknown correction.
        DataError: for values out of range.

    >>> adjusted([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    given = np.array(p, np.float64)
    tests = given[~np.isnan(given)]
    if ((tests < 0) | (tests > 1)).any():
        raise DataError("p values must lie between 0 and 1")
    if correction == "benjamini_hochberg" and len(tests):
        given[~np.isnan(given)] = require("scipy.stats", "sklearn").false_discovery_control(tests)
    elif correction == "holm":
        order = np.argsort(tests)
        steps = tests[order] * np.arange(len(tests), 0, -1)
        tests[order] = np.minimum(np.maximum.accumulate(steps), 1)
        given[~np.isnan(given)] = tests
    return given


def _whole(vectors: Floats) -> Floats:
    if np.isnan(vectors).any():
        raise DataError(
            "matrices that lack pairs (NaN) cannot be permuted: the missing ones would move; choose stimuli "
            "that have all pairs, with at()"
        )
    return vectors


def _judge(values: Floats, null: Floats, alternative: Alternative, *, exact: bool = False) -> PermutationTest:
    """P values of statistics ``Float[...]`` by ``Float[permutations, ...]``."""
    found, drawn = {
        "greater": (values, null),
        "less": (-values, -null),
        "two-sided": (np.abs(values), np.abs(null)),
    }[alternative]
    reached = found - _SLACK * np.abs(found)
    most = np.fmax.reduce(drawn.reshape(len(drawn), -1), axis=1).reshape(-1, *[1] * values.ndim)
    own = 0 if exact else 1  # the given order is one of all, and one more than those that were drawn
    p, p_family = (((each >= reached).sum(axis=0) + own) / (len(null) + own) for each in (drawn, most))
    p, p_family = (np.where(np.isnan(values), np.nan, each) for each in (p, p_family))
    return PermutationTest(np.asarray(values), p, p_family, len(null), exact)


def _signs(count: int, rng: np.random.Generator | None, draws: int) -> Floats:
    """All signs, ``Float[2**count, count]``, or some at random."""
    if rng is not None:
        return np.asarray(rng.choice([-1.0, 1.0], size=(draws, count)), np.float64)
    return np.asarray(1.0 - 2.0 * ((np.arange(1 << count)[:, None] >> np.arange(count)) & 1), np.float64)


def _among_subjects(
    first: RDMs, second: RDMs, method: Method, subject: str | Sequence[Any] | None, paired: bool
) -> tuple[Floats, Floats]:
    """Similarities of all subjects, NaN where not to be used, and 1 or -1 for the group of each."""
    groups = [Subjects.read(rdms, subject) for rdms in (first, second)]
    if min(map(len, groups)) < 2:
        raise DataError("a group of one subject has no spread; give at least 2 in each")
    both = [name for name in groups[0].names if name in groups[1].names]
    if both and not paired and subject is not None:
        raise DataError(f"subject {both[0]!r} is in both groups; paired=True compares such groups")
    if paired and set(groups[0].names) != set(groups[1].names):
        odd = sorted(map(str, set(groups[0].names) ^ set(groups[1].names)))
        raise DataError(f"paired groups need the same subjects, but {', '.join(odd[:5])} are in one alone")
    order = [groups[1].names.index(name) for name in groups[0].names] if paired else slice(None)
    averages = [groups[0].average, groups[1].average[order]]
    parts = [[compare(x, y, method) for y in (first, second)] for x in (first, second)]
    among = np.block([[averages[i] @ parts[i][j] @ averages[j].T for j in (0, 1)] for i in (0, 1)])
    sizes = [len(average) for average in averages]
    same = np.eye(sum(sizes), dtype=bool)
    if paired:
        same |= np.tile(np.eye(sizes[0], dtype=bool), (2, 2))
    return np.where(same, np.nan, among), np.repeat([1.0, -1.0], sizes)


def _contrast(among: Floats, dealt: Floats) -> Floats:
    """Mean within groups less mean across them, for each row of ``Float[permutations, subjects]``."""
    used = ~np.isnan(among)
    known = np.where(used, among, 0)
    signed, pairs = (
        np.einsum("ps,st,pt->p", dealt, matrix, dealt, optimize=True)
        for matrix in (known, used.astype(float))
    )
    total, count = known.sum(), used.sum()
    return np.asarray((total + signed) / (count + pairs) - (total - signed) / (count - pairs))
