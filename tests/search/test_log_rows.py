"""Rows in the log of an index, and deleted ones: searched as exactly as if all stood in one segment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule
from nestling.search.exact.neighbours import nearest
from nestling.search.index.index import AdaptiveIndex
from samples import examples

_DIM = 12


@settings(max_examples=examples(25))
@given(
    seed=st.integers(0, 1000),
    space=st.sampled_from([(CutRule(), "dot"), (RAW, "dot"), (RAW, "euclidean"), (CutRule(), "euclidean")]),
    added=st.integers(0, 60),
    deleted=st.integers(0, 70),
    offset=st.sampled_from([0.0, 3.0, 300.0]),
    queries=st.sampled_from([1, 7]),
    at=st.sampled_from([6, _DIM]),
)
def test_what_changed_is_searched_exactly(tmp_path_factory, seed, space, added, deleted, offset, queries, at):
    rng, (rule, metric) = np.random.default_rng(seed), space
    rows = (offset + rng.normal(size=(80 + added, _DIM))).astype(np.float32)
    rows[80:][::3] = rows[: len(rows[80:][::3])]  # some equal ones
    folder = tmp_path_factory.mktemp("log") / "i"
    with AdaptiveIndex.create(folder, rows[:80], rule=rule, metric=metric, nesting=[6, _DIM]) as index:
        if added:
            index.add(rows[80:])
        gone = rng.permutation(len(rows))[:deleted]
        index.delete(gone)
        left = np.setdiff1d(np.arange(len(rows)), gone)
        asked = (offset + rng.normal(size=(queries, _DIM))).astype(np.float32)
        k = min(9, len(left))
        hits = index.search(asked, k, at=f"dim={at}")
        best = nearest(asked, rows[left], k, dim=at, rule=rule, metric=metric)
        # Equal rows may change places, so the scores are compared, and that each row has its own.
        np.testing.assert_allclose(hits.scores, best.scores, rtol=2e-5, atol=2e-5 * (1 + offset))
        assert not set(hits.ids.ravel().tolist()) & set(gone.tolist())
        assert all(len(set(ids)) == k for ids in hits.ids.tolist())


POINTS = {"ivf8@full > flat@full": "nprobe=8", "graph16@full > rerank@full": "ef=300,shortlist=200"}


@pytest.mark.parametrize("plan", ["flat@full", "ivf8@full > flat@full", "graph16@full > rerank@full"])
def test_deleted_rows_take_no_place_of_others(tmp_path, plan):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3000, 16)).astype(np.float32)
    with AdaptiveIndex.create(tmp_path / "i", rows, plan=plan) as index:
        point = {
            "ivf8@full > flat@full": "nprobe=8",
            "graph16@full > rerank@full": "ef=300,shortlist=200",
        }.get(plan)
        gone = index.search(rows[:20], 3, point=point).ids[:, 1:].ravel()  # the neighbours of some rows
        index.delete(np.unique(gone))
        left = np.setdiff1d(np.arange(3000), gone)
        hits = index.search(rows[:40], 5, point=point)
        assert not set(hits.ids.ravel().tolist()) & set(gone.tolist())
        best = left[nearest(rows[:40], rows[left], 5).indices]
        assert (hits.ids == best).mean() > 0.97
