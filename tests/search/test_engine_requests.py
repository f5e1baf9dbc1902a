"""Filters agree with brute force, bad requests say why, and engines keep the laws of elastic things."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.cut import CutRule
from nestling.elastic import Cost, resolve_each
from nestling.errors import ArtifactError, ConfigError, DataError
from nestling.granularity import At, Granularity, Nesting
from nestling.search.engine.engine import Engine, build
from nestling.search.exact.neighbours import Neighbours, nearest
from nestling.search.plan.plan import Plan, Point
from nestling.storage.artifact import read_folder, write_folder
from nestling.testing import check_elastic
from samples import examples

# Every kind of scan, with how far each looks when nothing is filtered.
SCANS = {
    "flat@full": Point(),
    "int8@full > rerank@full": Point(shortlists=(50,)),
    "pq8x4@full > rerank@full": Point(shortlists=(150,)),
    "rabitq@full > rerank@full": Point(shortlists=(150,)),
    "ivf30@16 > flat@full": Point(nprobe=10),
    "ivf30@16 > pq8x4@full > rerank@full": Point(nprobe=10, shortlists=(150,)),
    "ivf30@16 > rabitq@full > rerank@full": Point(nprobe=10, shortlists=(150,)),
    "hnsw8@16 > fp16@full > rerank@full": Point(ef=80, shortlists=(50,)),
    "graph16@full > rerank:fp16@full": Point(ef=80, shortlists=(50,)),
    "graph16@24 > rerank:int8@24 > rerank@full": Point(ef=80, shortlists=(80, 50)),
    "int4@full > certify@full": Point(),
}


@pytest.fixture(scope="module")
def engines(nested: Any) -> dict[str, Engine]:
    vectors = nested.vectors(2500, 32)
    return {text: build(text, vectors, workers=1) for text in SCANS}


@pytest.mark.parametrize("share", [0.002, 0.05, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("text", SCANS)
def test_filters_agree_with_brute_force(
    nested: Any, engines: dict[str, Engine], text: str, share: float
) -> None:
    engine, queries = engines[text], nested.vectors(20, 32, seed=1)
    allowed = np.random.default_rng(0).random(2500) < share
    rows = np.flatnonzero(allowed)
    k = min(10, len(rows))
    truth = nearest(queries, engine.vectors[rows], k)
    found = engine.search(queries, 10, SCANS[text], allowed=allowed)
    assert allowed[found.indices[found.indices >= 0]].all()
    assert ((found.indices >= 0).sum(axis=1) == k).all()
    whole = Neighbours(rows[truth.indices], truth.scores)
    assert nested.recall(Neighbours(found.indices[:, :k], found.scores[:, :k]), whole) >= 0.9
    if share < 0.01:
        nested.assert_same(Neighbours(found.indices[:, :k], found.scores[:, :k]), whole)


@settings(max_examples=examples(25))
@given(st.data())
def test_any_filter_of_a_full_scan_is_exact(
    nested: Any, engines: dict[str, Engine], data: st.DataObject
) -> None:
    share, seed = data.draw(st.floats(0, 1)), data.draw(st.integers(0, 99))
    k, dim = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 32))
    engine, queries = engines["ivf30@16 > flat@full"], nested.vectors(4, 32, seed=seed)
    allowed = np.random.default_rng(seed).random(2500) < share
    found = engine.search(queries, k, Point(nprobe=30), dim=dim, allowed=allowed)
    rows = np.flatnonzero(allowed)
    most = min(k, len(rows))
    assert (found.indices[:, most:] == -1).all()
    if most:
        truth = nearest(queries, engine.vectors[rows], most, dim=dim)
        kept = Neighbours(found.indices[:, :most], found.scores[:, :most])
        nested.assert_same(kept, Neighbours(rows[truth.indices], truth.scores), 1e-4)


@settings(max_examples=examples(60))
@given(st.data())
def test_as_many_rows_are_found_as_there_are(engines: dict[str, Engine], data: st.DataObject) -> None:
    """At any point: -1 stands only where fewer rows exist or are allowed."""
    engine = engines[data.draw(st.sampled_from(sorted(SCANS)), label="plan")]
    k, dim = data.draw(st.integers(1, 2600), label="k"), data.draw(st.sampled_from([None, 24]), label="dim")
    seed = data.draw(st.integers(0, 99), label="seed")
    plan, draw = engine.plan, np.random.default_rng(seed)
    point = Point(
        nprobe=data.draw(st.integers(1, 3), label="nprobe") if "nprobe" in plan.parameters else None,
        ef=data.draw(st.integers(1, 30), label="ef") if "ef" in plan.parameters else None,
        shortlists=(k,) * len(plan.reranks),
    )
    share = data.draw(st.sampled_from([None, 0.0, 0.001, 0.02, 0.4, 0.98]), label="share")
    allowed = None
    if share is not None:
        near = data.draw(st.booleans(), label="on one side")
        values = engine.vectors[:, 0] if near else draw.normal(size=2500)
        allowed = values < np.quantile(values, share) if share else np.zeros(2500, np.bool_)
    if plan.smallest_dim > 24:
        dim = None
    found = engine.search(engine.vectors[draw.integers(2500, size=3)], k, point, dim=dim, allowed=allowed)
    there = min(k, 2500 if allowed is None else int(allowed.sum()))
    for rows, scores in zip(found.indices, found.scores, strict=True):
        assert (rows[there:] == -1).all()
        assert np.isnan(scores[there:]).all()
        assert len(set(rows[:there])) == there
        assert not np.isnan(scores[:there]).any()
        assert (rows[:there] >= 0).all()
        assert allowed is None or allowed[rows[:there]].all()


def test_a_filter_far_from_the_query_reads_more_lists(nested: Any) -> None:
    """The allowed rows are those of the lists that a query reads last."""
    vectors = nested.vectors(2000, 16)
    engine = build("ivf40@16 > int8@full > rerank@full", vectors, workers=1)
    query = vectors[:1]
    farthest = nearest(query, vectors, 2000).indices[0][1000:]
    allowed = np.zeros(2000, np.bool_)
    allowed[farthest] = True
    found = engine.search(query, 400, Point(nprobe=1, shortlists=(400,)), allowed=allowed)
    assert (found.indices >= 0).all()
    assert allowed[found.indices].all()


BAD_REQUESTS: dict[str, tuple[Callable[[Engine, Any], Any], type[Exception], str]] = {
    "no neighbour": (lambda e, q: e.search(q, 0), DataError, "k=0"),
    "half a neighbour": (lambda e, q: e.search(q, 2.5), DataError, "k=2.5"),
    "narrow": (lambda e, q: e.search(q[:, :16], 3), DataError, "16 entries, but 32 .* dim="),
    "neither": (lambda e, q: e.search(q[:, :20], 3, dim=16), DataError, "20 entries, but 32 or 16"),
    "one vector": (lambda e, q: e.search(q[0], 3), DataError, "matrix"),
    "text": (lambda e, q: e.search([["a"]], 3), DataError, "floats"),
    "NaN": (lambda e, q: e.search(np.where(q > 1, np.nan, q), 3), DataError, "queries hold NaN"),
    "too large": (lambda e, q: e.search(q.astype(np.float64) * 1e300, 3), DataError, "queries hold NaN"),
    "zero": (lambda e, q: e.search(q * 0, 3), DataError, "queries are all zero"),
    "dim 0": (lambda e, q: e.search(q, 3, dim=0), ConfigError, "choose 1 to 32"),
    "dim 33": (lambda e, q: e.search(q, 3, dim=33), ConfigError, "choose 1 to 32"),
    "extract 0": (lambda e, q: e.extract(0), ConfigError, "choose 1 to 32"),
    "shortlists": (lambda e, q: e.search(q, 3, Point(1)), ConfigError, "has 0 shortlists"),
    "short": (lambda e, q: e.search(q, 9, Point(1, shortlists=(8,))), ConfigError, "cannot hold k=9"),
    "ef": (lambda e, q: e.search(q, 3, Point(ef=9, shortlists=(8,))), ConfigError, "searches no graph"),
    "mask length": (lambda e, q: e.search(q, 3, allowed=np.ones(3, np.bool_)), DataError, "each of the 500"),
    "mask type": (lambda e, q: e.search(q, 3, allowed=np.ones(500)), DataError, "one bool"),
    "mask list": (lambda e, q: e.search(q, 3, allowed=[True]), DataError, "one bool"),
    "workers": (lambda e, q: e.search(q, 3, workers=0), ConfigError, "workers=0"),
}


@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_requests_that_cannot_be_met_say_why(nested: Any, case: str) -> None:
    request, error, match = BAD_REQUESTS[case]
    engine = build("ivf8@16 > int8@24 > rerank@full", nested.vectors(500, 32), workers=1)
    with pytest.raises(error, match=match):
        request(engine, nested.vectors(5, 32, seed=1))


def test_more_lists_than_there_are_is_a_warning(nested: Any) -> None:
    vectors = nested.vectors(200, 16)
    engine = build("ivf8@8 > flat@full", vectors, workers=1)
    with pytest.warns(UserWarning, match="nprobe=9 reads all 8 lists"):
        found = engine.search(vectors[:3], 5, Point(nprobe=9))
    nested.assert_same(found, nearest(vectors[:3], vectors, 5))


BAD_BUILDS = {
    "ivf501@16 > flat@full": "at least as many vectors as lists",
    "hnsw1@16 > flat@full": "at least 2 links",
    "pq8x8@16": "256 centroids per part, and there are 200",
    "pq5x4@16": "divide 16 entries into 5",
    "int4@15": "even prefix",
    "flat@33": "fit vectors of 32",
    "flat@16 > rerank@8": "re-ranks by less",
    "graph7@full > rerank@full": "8 to 1024",
    "pq8x4@full > certify@full": "int4@full",
    "int4@16 > certify@full": "int4@full",
}


@pytest.mark.parametrize("text", BAD_BUILDS)
def test_plans_that_do_not_fit_say_why(nested: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=BAD_BUILDS[text]):
        build(text, nested.vectors(200, 32))


@pytest.mark.parametrize(
    ("vectors", "match"),
    [
        (np.zeros((0, 8), np.float32), "empty"),
        (np.zeros(8, np.float32), "matrix"),
        (np.zeros((3, 8)), "3 rows .0, 1, 2. of vectors"),
        (np.array([["a", "b"]]), "floats"),
    ],
)
def test_vectors_that_cannot_be_used_say_why(vectors: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        build("flat@full", vectors)


@pytest.mark.parametrize("code", ["pq8x4@24", "opq8x4@24", "rabitq@24"])
def test_codes_that_mix_entries_are_not_cut(nested: Any, code: str) -> None:
    vectors = nested.vectors(300, 32)
    engine = build(f"{code} > rerank@full", vectors, workers=1)
    for use in (lambda: engine.search(vectors[:2], 3, dim=16), lambda: engine.extract(16)):
        with pytest.raises(ConfigError, match=rf"{re.escape(code)} mix all 24 .* 24 or more.* int8@24"):
            use()
    found = engine.search(vectors[:2], 3, Point(shortlists=(300,)), dim=28)
    nested.assert_same(found, nearest(vectors[:2], vectors, 3, dim=28))


def test_half_a_byte_is_not_cut(nested: Any) -> None:
    engine = build("int4@full", nested.vectors(100, 32), workers=1)
    with pytest.raises(ConfigError, match="choose an even prefix"):
        engine.search(nested.vectors(2, 32), 3, dim=15)


def test_certified_plans_have_one_size(nested: Any) -> None:
    engine = build("int4@full > certify@full", nested.vectors(100, 32))
    with pytest.raises(ConfigError, match="searches at dim=32, not at 16"):
        engine.search(nested.vectors(2, 32), 3, dim=16)


def test_what_was_saved_must_fit(nested: Any, tmp_path: Path) -> None:
    vectors = nested.vectors(100, 32)
    engine = build("ivf4@8 > int8@full", vectors, workers=1)
    engine.save(tmp_path)
    cases: list[tuple[Any, Any, str]] = [
        (vectors[:99], "ivf4@8 > int8@full", "100 codes, and .* 99 vectors needs 99"),
        (vectors, "ivf5@8 > int8@full", "needs 6"),
        (vectors, "hnsw4@8 > int8@full", "holds no graph.levels"),
        (vectors, "ivf4@8 > int8@16", "saved code is not int8@16"),
        (vectors, "ivf4@8 > pq8x4@full", "saved code is not pq8x4@32"),
        (vectors, "ivf4@8 > int8@full > rerank:fp16@full", "holds no copies0"),
    ]
    for others, plan, match in cases:
        with pytest.raises(ArtifactError, match=match):
            Engine.load(tmp_path, others, Plan.parse(plan), CutRule())
    np.save(tmp_path / "codes.npy", np.zeros((100, 31), np.uint8))
    with pytest.raises(ArtifactError, match=r"codes of shape \(100, 31\)"):
        Engine.load(tmp_path, vectors, engine.plan, CutRule())
    np.save(tmp_path / "scan.trained.npy", np.arange(100, dtype=np.uint8))
    with pytest.raises(ArtifactError, match="of a newer one"):
        Engine.load(tmp_path, vectors, engine.plan, CutRule())
    (tmp_path / "rows.npy").unlink()
    with pytest.raises(ArtifactError, match="build it again"):
        Engine.load(tmp_path, vectors, engine.plan, CutRule())


class ElasticEngine:
    """An engine and the sizes it is used at, as an elastic thing."""

    def __init__(self, engine: Engine, nesting: Nesting, point: Point) -> None:
        self.engine, self.nesting, self.point = engine, nesting, point

    def __call__(self, x: Any, /, at: At = None) -> tuple[Any, Any]:
        dim = self.nesting.resolve(at)["dim"]
        found = self.engine.search(x[:, : self.engine.dim], 5, self.point, dim=dim)
        return found.indices, found.scores

    def forward_each(self, x: Any, /, granularities: Iterable[At] | None = None) -> dict[Granularity, Any]:
        return {g: self(x, g) for g in resolve_each(self.nesting, granularities)}

    def extract(self, at: At) -> ElasticEngine:
        g = self.nesting.resolve(at)
        return ElasticEngine(self.engine.extract(g["dim"]), self.nesting.up_to(g), self.point)

    def cost(self, at: At = None) -> Cost:
        dim = self.nesting.resolve(at)["dim"]
        cost = self.engine.cost(self.point, dim)
        return Cost(flops=cost.mflops * 1e6, size_bytes=cost.bytes_stored + cost.bytes_on_disk)

    def save(self, folder: str | Path, /) -> None:
        settings = {"plan": str(self.engine.plan), "point": str(self.point)}
        with write_folder(folder, "engine", nesting=self.nesting, settings=settings) as path:
            self.engine.save(path)
            np.save(path / "vectors.npy", self.engine.vectors)

    @classmethod
    def load(cls, folder: str | Path, /) -> Self:
        manifest = read_folder(folder, "engine")
        vectors = np.load(Path(folder) / "vectors.npy", mmap_mode="r")
        plan = Plan.parse(manifest.settings["plan"])
        point = Point.parse(manifest.settings["point"])
        return cls(Engine.load(folder, vectors, plan, CutRule()), manifest.read_nesting(), point)


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("flat@full", Point()),
        ("ivf8@16 > int8@32", Point(nprobe=3)),
        ("ivf8@32 > fp16@16 > rerank:int8@full", Point(nprobe=3, shortlists=(30,))),
        ("hnsw8@8 > int4@32 > rerank@full", Point(ef=40, shortlists=(30,))),
        ("pq4x4@8 > rerank:fp16@16 > rerank@full", Point(shortlists=(40, 20))),
        ("graph16@8 > rerank:fp16@32", Point(ef=40, shortlists=(30,))),
        ("graph16@8 > rerank:int8@16 > rerank@full", Point(ef=40, shortlists=(30, 20))),
    ],
)
def test_engines_keep_the_laws_of_elastic_things(nested: Any, text: str, point: Point) -> None:
    engine = build(text, nested.vectors(400, 32), workers=1)
    nesting = Nesting.chain(dim=[8, 16, 32])
    check_elastic(ElasticEngine(engine, nesting, point), nested.vectors(6, 32, seed=1))


FAR_PLANS = (
    "flat@full",
    "int8@full > rerank@full",
    "ivf30@full > flat@full",
    "ivf30@16 > int8@full > rerank@full",
    "hnsw16@full > flat@full",
    "hnsw16@16 > fp16@full > rerank@full",
    "graph32@full > rerank:fp16@full",
    "graph32@full > rerank:int8@full",
    "graph32@24 > rerank:int8@24 > rerank@full",
    "int4@full > certify@full",
)


@pytest.mark.parametrize("share", [0.5, 0.3, 0.1, 0.01])
@pytest.mark.parametrize("text", FAR_PLANS)
def test_a_filter_far_from_the_query_costs_no_recall(nested: Any, text: str, share: float) -> None:
    """The rows allowed are those that lie farthest from the query."""
    vectors, queries = nested.vectors(4000, 32), nested.vectors(12, 32, seed=1)
    engine = build(text, vectors, workers=1)
    found = 0.0
    for query in queries:
        farthest = nearest(query[None], vectors, 4000).indices[0][-int(share * 4000) :]
        allowed, rows = np.zeros(4000, np.bool_), np.sort(farthest)
        allowed[rows] = True
        truth = nearest(query[None], vectors[rows], 10)
        whole = Neighbours(rows[truth.indices], truth.scores)
        found += nested.recall(engine.search(query[None], 10, allowed=allowed), whole)
    assert found / len(queries) >= 0.95
