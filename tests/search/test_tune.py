"""Planning by measurement: what is measured is true, and the choice follows from it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestling import kernels
from nestling.cut import RAW
from nestling.errors import ArtifactError, ConfigError, DataError
from nestling.search.engine.engine import Engine
from nestling.search.engine.engine import build as build_engine
from nestling.search.exact.neighbours import Neighbours, nearest
from nestling.search.exact.recall import Questions, without
from nestling.search.index.files import segments
from nestling.search.index.index import AdaptiveIndex
from nestling.search.plan.frontier import Frontier, Trial
from nestling.search.plan.plan import Plan, PlanCost, Point
from nestling.search.tuning import planner as tuning
from nestling.search.tuning import trials
from nestling.search.tuning.planner import build, candidate_plans, compare_with_exact, retune, tune
from nestling.search.tuning.trials import climb
from nestling.storage.resumable import write_array
from nestling.vectors.stored import StoredVectors
from samples import recall

N, DIM, SIZES = 3000, 32, (8, 16, 32)
PLANS = ("int4@16 > rerank@full", "ivf32@16 > int8@32 > rerank@full", "flat@full")


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    draw = np.random.default_rng(0)
    return (draw.normal(size=(N, DIM)) * 2.0 ** -np.linspace(0, 2, DIM)).astype(np.float32)


def test_a_row_that_is_a_query_is_not_its_own_neighbour() -> None:
    found = np.array([[5, 1, 2, 3], [1, 2, 3, 4], [7, 8, 6, 9]])
    np.testing.assert_array_equal(without(found, np.array([5, 9, 6]), 3), [[1, 2, 3], [1, 2, 3], [7, 8, 9]])


def test_recall_is_that_of_the_exact_neighbours(vectors: np.ndarray) -> None:
    queries = vectors[:50] + 0.05
    questions = Questions.ask(queries, vectors, 10)
    expected = questions.expected
    short = nearest(queries, vectors, 10, dim=8).indices
    assert questions.recalls(short).mean() == pytest.approx(recall(short, expected))
    names = np.array([f"row {i}" for i in range(N)])
    assert questions.named(names).recalls(names[short]).mean() == questions.recalls(short).mean()


@pytest.mark.parametrize("given", [True, False], ids=["queries", "rows"])
def test_trials_tell_the_truth_and_the_fastest_that_fits_is_chosen(vectors: np.ndarray, given: bool) -> None:
    queries = vectors[:200] + 0.05 if given else None
    chosen, frontier = tune(vectors, queries=queries, plans=PLANS, recall=0.9, seed=3, workers=1)
    assert frontier.sampled is not given
    assert frontier.queries == (200 if given else 500)
    assert frontier.seconds > 0
    assert chosen.low >= 0.9
    assert chosen.latency_ms == min(trial.latency_ms for trial in frontier if trial.low >= 0.9)
    exact = [trial for trial in frontier if str(trial.plan) == "flat@full"]
    assert [trial.recall for trial in exact] == [1.0]
    if given:
        trial = max((t for t in frontier if t.plan == Plan.parse(PLANS[0])), key=lambda t: t.recall)
        engine = build_engine(trial.plan, vectors, seed=3)
        found = engine.search(queries, 10, trial.point).indices
        assert recall(found, nearest(queries, vectors, 10).indices) == pytest.approx(trial.recall)


def test_many_rows_are_planned_on_a_sample_first(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_FEWEST_SAMPLED", 1000)
    family = tuple(map(Plan.parse, PLANS))
    monkeypatch.setattr(tuning, "candidate_plans", lambda *_, **__: family)
    chosen, frontier = tune(vectors, recall=0.8, workers=1)
    measured = {trial.plan for trial in frontier}
    assert Plan.parse("flat@full") in measured
    assert 1 <= len(measured) <= 3  # the finalists and the exact scan
    assert {trial.rows for trial in frontier} == {N}
    assert chosen.low >= 0.8


def test_plans_that_are_named_are_all_measured(vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_FEWEST_SAMPLED", 1000)
    plans = ("flat@full", *PLANS[:2], "pq8x4@full > rerank@full")
    _, frontier = tune(vectors, plans=plans, recall=0.5, workers=1)
    assert {trial.plan for trial in frontier} == set(map(Plan.parse, plans))
    assert {trial.rows for trial in frontier} == {N}


def test_planning_is_bounded_by_the_time_of_builds(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Builds that take one second for a thousand rows and searches that take none, by a clock of our own."""
    now, built = [0.0], []
    plans = [f"int4@{dim} > rerank@full" for dim in (16, 18, 20, 22, 24, 26, 28, 30, 32)]

    class Built:
        def __init__(self, rows: np.ndarray) -> None:
            self.rows = rows

        def search(self, queries: np.ndarray, k: int, point: Point, **_: object) -> Neighbours:
            now[0] += 1e-6
            return nearest(queries, self.rows, k)

        def cost(self) -> PlanCost:
            return PlanCost(1.0, 1.0, len(self.rows), 1)

    def slow_build(plan: Plan, rows: np.ndarray, **_: object) -> Built:
        now[0] += len(rows) / 1000
        built.append((str(plan), len(rows)))
        return Built(rows)

    monkeypatch.setattr(trials, "_FEWEST_SAMPLED", 600)
    monkeypatch.setattr(trials, "build", slow_build)
    monkeypatch.setattr(trials.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(tuning, "candidate_plans", lambda *_, **__: tuple(map(Plan.parse, plans)))
    chosen, frontier = tune(vectors, recall=0.8, workers=1)
    compared, whole = ([rows for _, rows in built if (rows == N) == is_whole] for is_whole in (False, True))
    assert 1 <= len(compared) < len(plans) - 1  # the dearer ones are not tried: there is no time left
    assert 1 <= len(whole) <= 2
    assert frontier.seconds <= 3 * chosen.build_s
    assert f"is {N / 1000:.1f} s of it" in frontier.table()


def test_what_the_race_built_is_not_built_again(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(segments, "build", refuse)
    with build(tmp_path / "index", vectors, recall=0.9, workers=1) as index:
        found = index.search(vectors[:20], recall=0.9)
        index.verify()
    monkeypatch.undo()
    with AdaptiveIndex.create(tmp_path / "again", vectors, plan=index.plan) as again:
        point = Trial.from_json(dict(min(index.table, key=lambda row: row["latency_ms"]))).point
        np.testing.assert_array_equal(
            again.search(vectors[:20], point=point).ids,
            AdaptiveIndex.open(tmp_path / "index", read_only=True).search(vectors[:20], point=point).ids,
        )
    assert (found.ids[:, 0] == np.arange(20)).all()


def test_an_engine_over_other_vectors_is_refused(vectors: np.ndarray, tmp_path: Path) -> None:
    plan = "graph16@full > rerank:fp16@full"
    engine = build_engine(plan, vectors + 1, workers=1)
    for case, given in enumerate((engine, build_engine(plan, vectors[:-1], workers=1))):
        with pytest.raises(ConfigError, match="over other vectors"):
            AdaptiveIndex.create(tmp_path / f"index{case}", vectors, plan=plan, engine=given)
        assert not (tmp_path / f"index{case}").exists()
    sound = build_engine(plan, vectors, workers=1)
    with AdaptiveIndex.create(tmp_path / "index", vectors, plan=plan, engine=sound) as index:
        wanted = sound.search(vectors[:9], 10)
        np.testing.assert_array_equal(index.search(vectors[:9], 10).ids, wanted.indices)


def test_graphs_are_candidates_where_they_are_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [str(plan) for plan in candidate_plans(50_000, (64, 128, 192, 256))]
    assert any(text.startswith("graph64") for text in texts) == kernels.available()
    monkeypatch.setenv("NESTLING_KERNELS", "off")
    texts = [str(plan) for plan in candidate_plans(50_000, (64, 128, 192, 256))]
    assert not any(text.startswith("graph") for text in texts)
    assert any(text.startswith("hnsw") for text in texts)


def test_climbing_goes_on_while_more_is_found() -> None:
    """Against a search whose recall is known at every point."""
    rows = np.cos(np.linspace(0, 1, 1000))[:, None] * [1, 0] + np.sin(np.linspace(0, 1, 1000))[:, None] * [
        0,
        1,
    ]
    questions = Questions.ask(np.tile([[1.0, 0.0]], (8, 1)), rows, 16)

    def search(queries: np.ndarray, k: int, point: Point) -> np.ndarray:
        assert point.nprobe is not None
        found = np.tile(np.arange(k), (len(queries), 1))
        found[:, min(point.nprobe, k) :] = -1
        return found

    plan = Plan.parse("ivf64@8 > flat@8")
    trials = list(climb(search, plan, questions, 1000, 4.0, 0.0))
    assert [trial.point.nprobe for trial in trials] == [1, 2, 4, 8, 16]
    assert [trial.recall for trial in trials] == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


@pytest.mark.parametrize(
    ("rows", "full"), [(100, 16), (50_000, 256), (50_000, 30), (10**6, 768), (20_000, 7)]
)
def test_candidates_fit_the_vectors_and_rise_in_cost(rows: int, full: int) -> None:
    plans = candidate_plans(rows, tuple(range(1, full + 1)))
    assert Plan.parse("flat@full") in plans
    costs = [plan.cost(rows, full).bytes_read for plan in plans]
    assert costs == sorted(costs)
    assert len(set(plans)) == len(plans)


def test_a_built_index_keeps_what_was_measured(vectors: np.ndarray, tmp_path: Path) -> None:
    stored = StoredVectors(vectors, "dim=8,16,32", ids=[f"n{i}" for i in range(N)], encoder="e")
    with build(tmp_path / "index", stored, recall=0.9, workers=1) as index:
        trials = [Trial.from_json(dict(row)) for row in index.table]
        assert {trial.plan.resolve(DIM) for trial in trials} == {index.plan}
        fast = min((t for t in trials if t.low >= 0.9), key=lambda t: t.latency_ms)
        queries = vectors[:5]
        by_recall = index.search(queries, recall=0.9)
        np.testing.assert_array_equal(by_recall.ids, index.search(queries, point=fast.point).ids)
        with pytest.raises(ConfigError, match="not both"):
            index.search(queries, recall=0.9, point="nprobe=1")
        recall, ours_ms, exact_ms = compare_with_exact(index, vectors[:50] + 0.01, target=0.9)
        assert recall > 0.8
        assert min(ours_ms, exact_ms) > 0


def test_a_given_plan_is_built_and_measured(vectors: np.ndarray, tmp_path: Path) -> None:
    with build(tmp_path / "index", vectors, plan="int4@16 > rerank@full", workers=1) as index:
        assert str(index.plan) == "int4@16 > rerank@32"
        assert len(index.table) > 1
        index.delete(np.arange(100))
        index.add(vectors[:10] + 3)
        chosen, frontier = retune(index, recall=0.8, queries=vectors[:60] + 0.02, workers=1)
        assert isinstance(frontier, Frontier)
        assert chosen.rows == N - 90
        code_bytes, length_bytes = 16 // 2, 8
        kept = N * (code_bytes + length_bytes) + 10 * 4 * DIM
        assert chosen.row_bytes == pytest.approx(kept / (N - 90), rel=0.01)  # and what the code learned
        assert [row["recall"] for row in index.table] == [t.recall for t in frontier.pareto()]


def test_bad_requests_are_told(vectors: np.ndarray) -> None:
    with pytest.raises(DataError, match="needs at least two vectors"):
        tune(vectors[:1], k=5)
    assert tune(vectors[:5], k=5, plans=["flat@full"])[1].k == 4  # a search finds no more either
    with pytest.raises(ConfigError, match="at least one"):
        tune(vectors, plans=[])
    with pytest.raises(ConfigError, match="no plan fits"):
        tune(vectors[:300], max_bytes=1)
    with pytest.raises(DataError, match="queries have 8 entries"):
        tune(vectors, queries=vectors[:3, :8])


def test_raw_products_and_distances_are_planned_too(vectors: np.ndarray) -> None:
    for metric in ("dot", "euclidean"):
        chosen, _ = tune(vectors[:500], rule=RAW, metric=metric, plans=["flat@full"], recall=1.0, workers=1)  # type: ignore[arg-type]
        assert chosen.recall == 1


def test_sizes_that_are_asked_for_are_kept_and_others_may_go(vectors: np.ndarray, tmp_path: Path) -> None:
    """Vectors say what sizes they have; a code that mixes its entries answers at no smaller ones."""
    stored, plan = StoredVectors(vectors, "dim=8,16,32"), "graph16@16 > rerank@full"
    with AdaptiveIndex.create(tmp_path / "large", stored, plan=plan) as index:
        assert index.nesting.sizes("dim") == (16, 32)
        assert (index.search(vectors[:9], 3, at=16).ids[:, 0] == np.arange(9)).all()
    with pytest.raises(ConfigError, match="graph16@16 mixes 16 entries"):
        AdaptiveIndex.create(tmp_path / "asked", stored, plan=plan, nesting="dim=8,16,32")
    with AdaptiveIndex.create(tmp_path / "certified", stored, plan="int4@full > certify@full") as index:
        assert index.nesting.sizes("dim") == (32,)
    with pytest.raises(ConfigError, match=r"certify@full proves results of 32 entries.* only"):
        AdaptiveIndex.create(
            tmp_path / "proved", stored, plan="int4@full > certify@full", nesting="dim=8,16,32"
        )
    with build(tmp_path / "all", stored, recall=0.9, nesting="dim=8,16,32", workers=1) as index:
        assert index.nesting.sizes("dim") == (8, 16, 32)


def test_what_is_nested_is_planned_so_that_it_answers_at_every_size(
    vectors: np.ndarray, tmp_path: Path
) -> None:
    """Sizes that were given to the vectors are kept by the plan that is measured; it says so."""
    rows = np.concatenate([vectors] * 4)[: tuning._FEW_ROWS + 100]
    rows = rows + 1e-3 * np.random.default_rng(5).normal(size=rows.shape).astype(np.float32)
    stored = StoredVectors(rows, "dim=8,16,32")
    with build(tmp_path / "nested", stored, recall=0.9, workers=1) as index:
        assert index.nesting.sizes("dim") == (8, 16, 32)
        assert "searched at each of dim=8,16,32" in index.info().reason
        for dim in (8, 16, 32):
            truth = nearest(rows[:50], rows, 1, dim=dim)
            hits = index.search(rows[:50], 1, at=dim)
            assert (hits.ids == truth.indices).mean() >= 0.9
        small = index.extract(8)
        np.testing.assert_array_equal(small.search(rows[:9], 3).ids, index.search(rows[:9], 3, at=8).ids)
        small.close()
    smallest = {plan.resolve(32).smallest_dim for plan in candidate_plans(20_000, (8, 16, 32), nested=True)}
    assert max(smallest) <= 8
    everything = candidate_plans(20_000, (32,), nested=True)
    assert {plan.resolve(32).smallest_dim for plan in everything} == {1, 32}
    plain = StoredVectors(rows)
    assert not plain.is_nested
    plain.save(tmp_path / "saved")
    assert StoredVectors.load(tmp_path / "saved").is_nested


def test_searches_that_name_no_point_use_the_one_that_was_chosen(vectors: np.ndarray, tmp_path: Path) -> None:
    with build(tmp_path / "index", vectors, plan="int4@16 > rerank@full", recall=0.7, workers=1) as index:
        info = index.info()
        trials = {str(trial.point): trial for trial in (Trial.from_json(dict(row)) for row in index.table)}
        chosen = trials[info.default_point]
        assert chosen.latency_ms == min(each.latency_ms for each in trials.values() if each.low >= 0.7)
        given_ = index.search(vectors[:9], point=info.default_point)
        np.testing.assert_array_equal(index.search(vectors[:9]).ids, given_.ids)
        longer = Point.parse(info.default_point).grown(10)
        more = index.search(vectors[:9], 100)
        np.testing.assert_array_equal(more.ids, index.search(vectors[:9], 100, point=longer).ids)
        np.testing.assert_array_equal(more.ids, index.search(vectors[:9], 100, recall=0.7).ids)
    with AdaptiveIndex.open(tmp_path / "index", read_only=True) as again:
        np.testing.assert_array_equal(again.search(vectors[:9]).ids, given_.ids)


@pytest.mark.parametrize("copied", [1, 4], ids=["few files", "more files"])
def test_an_interrupted_take_over_leaves_what_can_be_built_again(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: int
) -> None:
    """Killed while files of the comparison are copied: nothing opens, and the same call makes it whole."""
    folder, plan = tmp_path / "index", "graph16@full > rerank:fp16@full"
    given = build_engine(plan, vectors, workers=1)

    def save(self: Engine, place: Path) -> None:
        for name, array in list(self._arrays.items())[:copied]:
            write_array(place / f"{name}.npy", array)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Engine, "save", save)
        with pytest.raises(KeyboardInterrupt):
            AdaptiveIndex.create(folder, vectors, plan=plan, engine=given, workers=1)
    with pytest.raises(ArtifactError):
        AdaptiveIndex.open(folder)
    with AdaptiveIndex.create(folder, vectors, plan=plan, workers=1) as index:
        index.verify()
        np.testing.assert_array_equal(
            index.search(vectors[:30], 5).ids, given.search(vectors[:30], 5).indices
        )
