"""Plans that walk a graph by its own codes: what they find, what they keep, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling import kernels
from nestling.cut import RAW, CutRule
from nestling.errors import ArtifactError, ConfigError, DataError
from nestling.search.engine.engine import Engine, build
from nestling.search.exact.neighbours import Metric, nearest
from nestling.search.exact.space import Space
from nestling.search.exact.subset import stored_rows
from nestling.search.graph.scan import GraphScan
from nestling.search.plan.plan import Plan, Point
from nestling.search.stages.kinds.rerank import Reranker, fetch_vectors
from samples import examples

SPACES: dict[str, tuple[CutRule, Metric]] = {
    "cosine": (CutRule(), "dot"),
    "angle": (CutRule(), "euclidean"),
    "dot": (RAW, "dot"),
    "distance": (RAW, "euclidean"),
}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("stored", ["rerank@full", "rerank:fp16@full", "rerank:int8@full"])
def test_a_graph_and_one_rerank_answer_as_the_scan_does_by_itself(
    nested: Any, space: str, stored: str
) -> None:
    """The same graph is grown over the same rows, so the one call is that of the scan."""
    rule, metric = SPACES[space]
    vectors, queries = nested.vectors(1500, 32), nested.vectors(20, 32, seed=1)
    engine = build(f"graph16@full > {stored}", vectors, rule=rule, metric=metric, seed=3, workers=1)
    rerank: Any = "int8" if "int8" in stored else "full"
    scan = GraphScan.build(vectors, rule=rule, metric=metric, links=16, seed=3, rerank=rerank, workers=1)
    found = engine.search(queries, 10, Point(ef=60, shortlists=(40,)))
    alone = scan.search(queries, 10, ef=60, shortlist=40)
    nested.assert_same(found, alone, 2e-3 if "fp16" in stored else 1e-5)
    singles = [engine.search(query[None], 10, Point(ef=60, shortlists=(40,))) for query in queries]
    np.testing.assert_array_equal(np.concatenate([each.indices for each in singles]), found.indices)
    # With a filter that allows all but one far row, the stages are walked one by one.
    allowed = np.ones(1500, np.bool_)
    allowed[nearest(queries, vectors, 1500, rule=rule, metric=metric).indices[0, -1]] = False
    nested.assert_same(
        engine.search(queries[:1], 10, Point(ef=60, shortlists=(40,)), allowed=allowed),
        engine.search(queries[:1], 10, Point(ef=60, shortlists=(40,))),
    )


@settings(max_examples=examples(25))
@given(st.data())
def test_keeping_all_rows_in_view_is_exact_search(nested: Any, data: st.DataObject) -> None:
    rows, dim = data.draw(st.integers(1, 120), label="rows"), data.draw(st.integers(2, 24), label="dim")
    walked = data.draw(st.integers(2, dim), label="walked")
    stores = ["rerank@full", *(f"rerank:{copy}@{walked} > rerank@full" for copy in ("fp16", "int8"))]
    store = data.draw(st.sampled_from(stores), label="store")
    k, seed = data.draw(st.integers(1, 130), label="k"), data.draw(st.integers(0, 50), label="seed")
    rule, metric = SPACES[data.draw(st.sampled_from(sorted(SPACES)), label="space")]
    vectors, queries = nested.vectors(rows, dim, seed), nested.vectors(4, dim, seed + 1000)
    engine = build(f"graph8@{walked} > {store}", vectors, rule=rule, metric=metric, workers=1)
    point = Point(ef=rows, shortlists=(max(rows, k),) * len(engine.plan.reranks))
    found = engine.search(queries, k, point, workers=1)
    most = min(k, rows)
    assert (found.indices[:, most:] == -1).all()
    assert np.isnan(found.scores[:, most:]).all()
    truth = nested.exact(queries, vectors, most, dim, rule, metric)
    kept = type(found)(found.indices[:, :most], found.scores[:, :most])
    nested.assert_same(kept, truth, 1e-3 if rule == CutRule() and metric == "euclidean" else 1e-4)


@pytest.mark.parametrize("rule", [CutRule(), RAW], ids=["unit", "raw"])
@pytest.mark.parametrize(
    "text",
    [
        "graph16@full > rerank:fp16@full",
        "graph16@full > rerank:int8@full",
        "graph24@16 > rerank@full",
        "graph24@24 > rerank:int8@24",
        "graph16@16 > rerank:int8@24 > rerank@full",
        "ivf20@16 > int8@24 > rerank:fp16@full",
        "ivf20@16 > flat@full",
        "pq8x4@24 > rerank@full",
    ],
)
def test_costs_are_the_bytes_that_are_kept(nested: Any, text: str, rule: CutRule, tmp_path: Path) -> None:
    """All but tables that do not grow with the rows: what codes learned, and where lists begin."""
    engine = build(text, nested.vectors(4000, 32), rule=rule, workers=1)
    engine.save(tmp_path)
    kept = sum(np.load(path).nbytes for path in tmp_path.glob("*.npy"))
    assert kept == sum(array.nbytes for array in engine._arrays.values())
    if engine.plan.scan.name == "graph":
        kept += 512 * 64  # codes of the hubs, which stand by themselves in memory
    assert 0 <= kept - engine.cost().bytes_stored < 3000
    if "graph16@full" not in text:
        assert engine.extract(24).cost().bytes_stored == engine.cost(dim=24).bytes_stored


def test_codes_of_several_lines_are_counted() -> None:
    """Rows whose variance is spread over 600 entries take two lines of the cache."""
    vectors = np.random.default_rng(0).normal(size=(1200, 600)).astype(np.float32)
    engine = build("graph16@full > rerank@full", vectors, workers=1)
    assert engine._arrays["codes"].shape == (1200, 128)
    kept = sum(array.nbytes for array in engine._arrays.values()) + 512 * 128
    assert 0 <= kept - engine.cost().bytes_stored < 1000
    least = engine.plan.cost(1200, 600).bytes_stored
    assert engine.cost().bytes_stored - least == (1200 + 512) * 64 + 1200 * 8


def test_more_in_view_costs_more() -> None:
    plan = Plan.parse("graph64@full > rerank:fp16@full")
    assert plan.default_point(10**6) == Point(ef=100, shortlists=(75,))
    assert plan.default_point(10**6, 100) == Point(ef=400, shortlists=(300,))
    assert plan.default_point(50, 10) == Point(ef=100, shortlists=(50,))
    costs = [plan.cost(10**6, 256, Point(ef=ef, shortlists=(75,))) for ef in (20, 100, 500)]
    assert costs[0].mflops < costs[1].mflops < costs[2].mflops
    assert costs[0].bytes_read < costs[1].bytes_read < costs[2].bytes_read
    assert len({cost.bytes_stored for cost in costs}) == 1


def test_damaged_residuals_are_refused(nested: Any, tmp_path: Path) -> None:
    vectors, plan = nested.vectors(600, 32), Plan.parse("graph16@24 > rerank:int8@24 > rerank@full")
    engine = build(plan, vectors, workers=1)
    engine.save(tmp_path)
    loaded = Engine.load(tmp_path, vectors, plan, CutRule())
    nested.assert_same(loaded.search(vectors[:5], 3), engine.search(vectors[:5], 3))
    assert not (tmp_path / "copies0.npy").exists()
    for name, spoil in (
        ("residuals", lambda a: a[:, :64]),
        ("residuals", lambda a: a[:9]),
        ("residuals", lambda a: a.view(np.uint8)),
        ("residual_steps", lambda a: a[:9]),
        ("residual_steps", lambda a: a.astype(np.float64)),
    ):
        sound = np.load(tmp_path / f"{name}.npy")
        np.save(tmp_path / f"{name}.npy", spoil(sound))
        with pytest.raises(ArtifactError, match="build it again"):
            Engine.load(tmp_path, vectors, plan, CutRule())
        np.save(tmp_path / f"{name}.npy", sound)


def test_a_graph_of_a_prefix_answers_by_it(nested: Any) -> None:
    """The prefix alone is ranked, at full size too; that is a search in vectors of that size."""
    vectors, queries = nested.vectors(900, 32), nested.vectors(20, 32, seed=1)
    point = Point(ef=900, shortlists=(900,))
    for copy in ("", ":fp16"):
        engine = build(f"graph16@16 > rerank{copy}@16", vectors, workers=1)
        truth = nested.exact(queries, vectors, 10, 16, CutRule(), "dot")
        nested.assert_same(engine.search(queries, 10, point), truth, 1e-3)
        nested.assert_same(engine.search(queries[:, :16], 10, point, dim=16), truth, 1e-3)


def test_a_damaged_or_foreign_graph_is_refused(nested: Any, tmp_path: Path) -> None:
    vectors = nested.vectors(600, 32)
    engine = build("graph16@24 > rerank:fp16@full", vectors, workers=1)
    engine.save(tmp_path)

    def load(plan: str = "graph16@24 > rerank:fp16@full", rows: int = 600) -> Engine:
        return Engine.load(tmp_path, vectors[:rows], Plan.parse(plan), CutRule())

    nested.assert_same(load().search(vectors[:5], 3), engine.search(vectors[:5], 3))
    for plan, match in (
        ("graph24@24 > rerank:fp16@full", r"needs \(600, 24\)"),
        ("graph16@16 > rerank:fp16@full", "malformed|needs"),
        ("graph16@24 > rerank:fp16@full > rerank:int8@full", "holds no copies1"),
        ("hnsw16@24 > int8@24 > rerank:fp16@full", "holds no scan.trained"),
    ):
        with pytest.raises(ArtifactError, match=match):
            load(plan)
    with pytest.raises(ArtifactError, match="599 vectors needs 599"):
        load(rows=599)
    for name, spoil in (
        ("links.rows", lambda a: np.where(a == a.max(), 600, a)),
        ("links.rows", lambda a: a - 1),
        ("links.rows", lambda a: a.astype(np.int64)),
        ("links.hubs", lambda a: a - 1),
        ("codes", lambda a: a[:, :32]),
        ("graph.basis", lambda a: a[:20]),
        ("graph.mean", lambda a: a[:5]),
        ("graph.numbers", lambda a: a[:3]),
        ("graph.numbers", lambda a: a * [1, 1, 100, 1]),
        ("norms0", lambda a: a[:7]),
    ):
        sound = np.load(tmp_path / f"{name}.npy")
        np.save(tmp_path / f"{name}.npy", spoil(sound))
        with pytest.raises(ArtifactError, match="build it again"):
            load()
        np.save(tmp_path / f"{name}.npy", sound)
    load()


def test_what_a_graph_cannot_do_is_said(nested: Any) -> None:
    vectors = nested.vectors(300, 32)
    for text, match in (
        ("graph64@full", "add a rerank stage: graph64@full > rerank:fp16@full"),
        ("ivf8@16 > graph64@full > rerank@full", "leave out ivf8@16"),
        ("graph64@full > certify@full", "add a rerank stage"),
        ("graph4@full > rerank@full", "8 to 1024"),
        ("graph@full > rerank@full", "cannot be read"),
        ("graph64x4@full > rerank@full", "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=match):
            Plan.parse(text)
    engine = build("graph16@24 > rerank@full", vectors, workers=1)
    with pytest.raises(ConfigError, match=r"cannot be cut to 16; .* graph16@16"):
        engine.search(vectors[:2], 3, dim=16)
    with pytest.raises(ConfigError, match="reads no lists"):
        engine.search(vectors[:2], 3, Point(nprobe=3, shortlists=(9,)))
    broken = vectors.copy()
    broken[[7, 9], 3] = np.nan
    with pytest.raises(DataError, match=r"2 rows \(7, 9\)"):
        build("graph16@full > rerank@full", broken)
    broken[[7, 9]] = 0
    with pytest.raises(DataError, match=r"rows? .*7, 9.* all zero"):
        build("graph16@full > rerank@full", broken)
    full = build("graph16@full > rerank@full", vectors, workers=1)
    for queries, match in ((vectors[:2, :8], "8"), (vectors[:2] * np.nan, "NaN"), (vectors[:2] * 0, "zero")):
        with pytest.raises(DataError, match=match):
            full.search(queries, 3)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_reranking_by_kernels_is_reranking_by_numpy(
    nested: Any, space: str, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule, metric = SPACES[space]
    vectors, queries = nested.vectors(900, 33).astype(kind), nested.vectors(30, 33, seed=1)
    draw, compared = np.random.default_rng(0), Space.of(rule, metric)
    shortlist = np.stack([draw.permutation(900)[:70] for _ in queries])
    shortlist[:, 60:] = -1
    shortlist[4, 3:] = -1
    norms = 1 / np.linalg.norm(vectors.astype(np.float64), axis=1)
    stored = stored_rows(vectors, compared, norms)
    assert stored is not None
    fast = Reranker(compared, 33, fetch_vectors(vectors, 33), stored)
    rows, scores = fast.order(queries, shortlist, 10)
    monkeypatch.setenv("NESTLING_KERNELS", "off")
    assert kernels.level() == "off"
    plain_rows, plain_scores = fast.order(queries, shortlist, 10)
    np.testing.assert_array_equal(rows, plain_rows)
    known = rows >= 0
    assert known.sum() == 29 * 10 + 3
    np.testing.assert_allclose(scores[known], plain_scores[known], rtol=2e-5, atol=2e-4)
    assert stored_rows(vectors.astype(np.float64), compared, norms) is None
    assert (stored_rows(vectors, compared, None) is None) == (rule.after == "l2")
