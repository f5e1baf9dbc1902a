"""Dims or bits: bytes that a vector needs. The claims are our own; no paper makes them.

Vectors are paid for in bytes: ``dim x bits / 8``. One code of 8 bits per entry is stored
(:class:`nestling.bits.BitCode`), and its leading entries in their leading bits are searched. Queries stay
floats. Nested integer codes are the idea of MatQuant (arXiv 2502.06786), applied here to vectors and not to
weights. Settings are chosen by half of the queries and judged by the other half.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nestling.cut import CutRule, cut
from nestling.granularity import Nesting
from nestling.measure.precision import bytes_of
from nestling.measure.sweep import sweep
from nestling.papers.claims.checks import Checks, Run, Tour, measure_checks
from nestling.papers.claims.report import Claim
from nestling.papers.problems.labelled import Floats
from nestling.papers.problems.searched_vectors import PROBLEMS, Problem, Quality, Search
from nestling.search.engine.engine import build

TITLE = "Dims or bits: the same bytes, spent better (our own claims)"

CHECKS: Checks[Problem] = Checks()
_ALL = ("trained", "never nested", "abstracts", "pictures")
_BITS, _FLOAT = (1, 2, 3, 4, 8), 32
_BUDGETS = (64, 128, 256)
_GAIN = 0.05
_SLACK = 0.01
_KEPT, _SHARE = 0.99, 1 / 8
_SWEEP, _SCAN, _ROUNDS = 3.0, 6.0, 5
_K, _SINGLE = 10, 20
_RANGES = {1: (1.6,), 2: (1.8, 2.0, 2.2), 3: (2.1, 2.3, 2.6), 4: (2.4, 2.7, 3.0), 8: (3.5, 4.0, 4.5)}


def size(dim: int, bits: int) -> int:
    """Bytes of a vector."""
    return bytes_of(bits, dim, 4 * dim)


def best_within(budget: int, search: Search, bits: tuple[int, ...]) -> float:
    """nDCG@10 of the pair of dims and bits within a budget that is the best for the queries to choose by."""
    affordable = [pair for pair in search.chosen if pair[1] in bits and size(*pair) <= budget]
    return search.judged[max(affordable, key=search.chosen.__getitem__)]


@CHECKS.claim(
    "B1", "At 64, 128, 256 bytes codes are 5 points of nDCG@10 better than fewer float32 dims", _ALL
)
def codes_beat_truncation(problem: Problem, seed: int) -> Run:
    """The best pair within each budget against the best number of float32 dims."""
    search, figures = problem.draw(seed), {}
    for budget in _BUDGETS:
        for name, bits in (("codes", (*_BITS, _FLOAT)), ("float32", (_FLOAT,))):
            figures[f"{name} in {budget} bytes"] = best_within(budget, search, bits)
    gains = [figures[f"codes in {each} bytes"] - figures[f"float32 in {each} bytes"] for each in _BUDGETS]
    return min(gains) - _GAIN, figures


@CHECKS.claim("B2", "Slices of one stored code are within 1 point of codes made for their bits alone", _ALL)
def one_code_serves_all(problem: Problem, seed: int) -> Run:
    """The largest loss at any size and precision, and the loss at full size by precision."""
    search = problem.draw(seed)
    losses = {pair: value - search.judged[pair] for pair, value in made_alone(search).items()}
    full = max(search.dims)
    figures = {f"loss at {full} x {bits}": losses[full, bits] for bits in _BITS}
    worst = max(losses, key=losses.__getitem__)
    return _SLACK - losses[worst], {**figures, "largest loss": losses[worst]}


@CHECKS.claim("B3", "99 % of the float32 quality in at most an eighth of its bytes", _ALL)
def an_eighth_is_enough(problem: Problem, seed: int) -> Run:
    """The share that the best pair keeps."""
    search = problem.draw(seed)
    full = max(search.dims)
    whole = search.judged[full, _FLOAT]
    kept = best_within(int(size(full, _FLOAT) * _SHARE), search, _BITS) / whole
    return kept - _KEPT, {"kept": kept, "float32": whole}


def made_alone(search: Search) -> Quality:
    """nDCG@10 of a uniform code for each precision, with the best clip range for the choosing queries."""
    found = {}
    for bits, ranges in _RANGES.items():
        codes = [_uniform(search, bits, each) for each in ranges]
        chosen, judged = (
            [search.quality(task, code(task.documents)) for code in codes]
            for task in (search.choosing, search.judging)
        )
        for dim in search.dims:
            best = max(range(len(codes)), key=lambda each: chosen[each][dim])
            found[dim, bits] = judged[best][dim]
    return found


def _uniform(search: Search, bits: int, reach: float) -> Callable[[Floats], Floats]:
    """A code of equal cells from ``-reach`` to ``reach`` standard deviations."""
    unit = cut(search.sample, search.sample.shape[1], CutRule())
    centre, step = unit.mean(axis=0), 2 * reach * unit.std(axis=0) / 2**bits

    def held(x: Floats) -> Floats:
        place = np.floor((cut(x, x.shape[1], CutRule()) - centre) / step) + 2 ** (bits - 1)
        return np.asarray(
            centre + (np.clip(place, 0, 2**bits - 1) + 0.5 - 2 ** (bits - 1)) * step, np.float32
        )

    return held


@CHECKS.claim("B5", "A sweep over 8 sizes and 5 precisions takes at most 3 evaluations in float32", ["timed"])
def a_sweep_is_cheap(problem: Problem, seed: int) -> Run:
    """Seconds of a sweep of given vectors over those of one evaluation at full size, in turn."""
    task, full = problem.draw(seed).judging, problem.draw(seed).dims[-1]
    whole, sizes = Nesting.chain(dim=[full]), Nesting.chain(dim=range(full // 8, full + 1, full // 8))

    def measured(nesting: Nesting, bits: tuple[int, ...] | int) -> Callable[[], object]:
        return lambda: sweep(lambda x: x, task, nesting, bits=bits, truncation=False)

    ratio = _ratio(measured(sizes, (1, 2, 4, 8, _FLOAT)), measured(whole, _FLOAT))
    return _SWEEP - ratio, {"sweep over evaluation": ratio}


@CHECKS.claim("B6", "An exact scan of 256 dims x 2 bits is 6 times as fast as of float32 by BLAS", ["timed"])
def a_scan_of_codes_is_fast(problem: Problem, seed: int) -> Run:
    """Seconds of single queries on one thread, in turn; recall is of the nearest in float32."""
    search = problem.draw(seed).judging
    documents, queries = (cut(x, x.shape[1]) for x in (search.documents, search.queries[:_SINGLE]))
    engine = build(f"bits2@{documents.shape[1]}", documents)
    plain = [_nearest(documents, query) for query in queries]
    found = engine.search(queries, _K, workers=1).indices
    recall = np.mean([len(set(a) & set(b)) / _K for a, b in zip(found, plain, strict=True)])
    ratio = _ratio(
        lambda: [_nearest(documents, query) for query in queries],
        lambda: [engine.search(query[None], _K, workers=1) for query in queries],
    )
    return ratio - _SCAN, {"BLAS over codes": ratio, "recall@10 of codes": float(recall)}


def _nearest(documents: Floats, query: Floats) -> NDArray[np.int64]:
    return np.argpartition(documents @ query, -_K)[-_K:]


def _ratio(one: Callable[[], object], other: Callable[[], object]) -> float:
    """Median seconds of ``one`` over those of ``other``, timed in turn after a first use of each.

    Both use one thread: idle threads of BLAS wait for more work, which would count as seconds of the other.
    """
    with threadpool_limits(1):
        seconds = [[_seconds(each) for each in (one, other)] for _ in range(_ROUNDS + 1)][1:]
    first, second = np.median(seconds, axis=0)
    return float(first / second)


def _seconds(use: Callable[[], object]) -> float:
    begin = time.process_time()
    use()
    return time.process_time() - begin


NOT_TESTED = {
    "B4": "Training for bits is measured by benchmarks/bits/training.py, on three data sets: at 1 and 2 bits "
    "it gains tenths of a point over codes made afterwards, or nothing."
}
CLAIMS = tuple(sorted([*(check.id for check in CHECKS), *NOT_TESTED]))


def run(tour: Tour) -> tuple[list[Claim], dict[str, object]]:
    """Measure the wanted claims."""
    checks = tour.checks(CHECKS)
    wanted = {key for check in checks for key in check.on}
    problems = {key: make(tour.quick) for key, make in PROBLEMS.items() if key in wanted}
    claims = [*measure_checks(checks, problems, tour.seeds), *tour.untested(NOT_TESTED)]
    return sorted(claims, key=lambda claim: claim.id), {}
