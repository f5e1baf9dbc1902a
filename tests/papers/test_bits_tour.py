"""The tour of dims and bits, on vectors made on the spot."""

from __future__ import annotations

import numpy as np

from nestling.measure.tasks.retrieval import Retrieval
from nestling.papers import CLAIMS, bits
from nestling.papers.bits import best_within, made_alone, size
from nestling.papers.problems.searched_vectors import Problem, Search

DIMS = (8, 16, 32, 64)


def made(seed: int) -> Search:
    """Queries near their documents; leading entries say more than the others."""
    draw = np.random.default_rng(seed)
    spread = 1 / np.sqrt(1 + np.arange(64) / 16)

    def task() -> Retrieval:
        documents = (draw.normal(size=(600, 64)) * spread).astype(np.float32)
        queries = documents[:200] + 0.7 * (draw.normal(size=(200, 64)) * spread).astype(np.float32)
        return Retrieval(queries, documents, list(range(200)))

    choosing, judging = task(), task()
    return Search(choosing, judging, choosing.documents, DIMS)


PROBLEM = Problem("made", made)


def test_the_claims_are_those_of_the_catalogue() -> None:
    assert CLAIMS["bits"] == bits.CLAIMS


def test_a_budget_buys_more_in_few_bits() -> None:
    clearance, figures = bits.codes_beat_truncation(PROBLEM, 0)
    assert figures["codes in 64 bytes"] > figures["float32 in 64 bytes"] + 0.05
    assert clearance <= figures["codes in 64 bytes"] - figures["float32 in 64 bytes"] - 0.05 + 1e-9


def test_the_best_pair_lies_within_its_budget() -> None:
    search = made(0)
    floats = {dim: search.qualities(search.judging, (32,))[dim, 32] for dim in DIMS}
    assert best_within(size(8, 32), search, (32,)) == floats[8]
    assert best_within(size(64, 32), search, (32,)) == max(floats.values())


def test_slices_are_near_codes_made_alone() -> None:
    search = made(1)
    alone = made_alone(search)
    nested = search.qualities(search.judging, (1, 2, 3, 4, 8))
    assert set(alone) == set(nested)
    assert max(alone[pair] - nested[pair] for pair in alone) < 0.05
    assert abs(alone[64, 8] - search.qualities(search.judging, (32,))[64, 32]) < 0.01


def test_an_eighth_of_the_bytes_keeps_nearly_all() -> None:
    _, figures = bits.an_eighth_is_enough(PROBLEM, 0)
    assert figures["kept"] > 0.95
