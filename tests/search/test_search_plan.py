"""Plans are read, printed and checked; their costs are those of the paper."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.errors import ConfigError
from nestling.search.plan.plan import Plan, Point
from nestling.search.stages.kinds.certified import Certify
from nestling.search.stages.kinds.flat import Flat
from nestling.search.stages.kinds.graph import Graph
from nestling.search.stages.kinds.hnsw import HNSW
from nestling.search.stages.kinds.ivf import IVF
from nestling.search.stages.kinds.pq import OPQ, PQ
from nestling.search.stages.kinds.rabitq import RaBitQ
from nestling.search.stages.kinds.rerank import Rerank
from nestling.search.stages.kinds.scalar import Fp16, Int4, Int8
from nestling.search.stages.stage import Coarse

dims = st.none() | st.sampled_from([8, 16, 64, 128])
lists = st.builds(IVF, dims, lists=st.integers(1, 4096))
coarse = st.none() | lists | st.builds(HNSW, dims, links=st.integers(2, 4096))
plain = st.sampled_from([Flat, Fp16, Int8, Int4, RaBitQ]).flatmap(lambda kind: st.builds(kind, dims))
quantised = st.sampled_from([PQ, OPQ]).flatmap(
    lambda kind: st.builds(kind, dims, subspaces=st.sampled_from([1, 2, 4, 8]), bits=st.sampled_from([4, 8]))
)
reranks = st.lists(st.builds(Rerank, dims, st.sampled_from(["flat", "fp16", "int8"])), max_size=3)
graphs = st.builds(Graph, dims, links=st.integers(8, 1024))
plans = (
    st.builds(Plan, plain | quantised, coarse, reranks.map(tuple))
    | st.builds(Plan, plain | quantised, certify=st.just(Certify()))
    | st.builds(Plan, graphs, reranks=reranks.filter(bool).map(tuple))
)
points = st.builds(
    Point,
    st.none() | st.integers(1, 99),
    st.none() | st.integers(1, 99),
    st.lists(st.integers(1, 500), max_size=3).map(lambda lengths: tuple(sorted(lengths, reverse=True))),
    st.sampled_from([1.0, 0.9999, 0.6]),
)


@given(plans)
def test_what_is_printed_is_read_back(plan: Plan) -> None:
    assert Plan.parse(str(plan)) == plan
    assert Plan.parse(str(plan).upper().replace(" ", "")) == plan


def test_certify_may_be_asked_for_by_a_truth_value() -> None:
    assert Plan(Int4(), certify=True) == Plan.parse("int4@full > certify@full")  # type: ignore[arg-type]
    assert Plan(Int4(), certify=False) == Plan(Int4())  # type: ignore[arg-type]


@given(points)
def test_points_are_read_back(point: Point) -> None:
    assert Point.parse(str(point)) == point


@given(plans, st.integers(128, 512).map(lambda d: d // 8 * 8), st.integers(1, 10_000))
def test_a_resolved_plan_has_numbers_and_a_cost(plan: Plan, full: int, rows: int) -> None:
    sizes = [stage.dim or full for stage in plan.stages() if not isinstance(stage, Coarse)]
    if sizes != sorted(sizes):
        with pytest.raises(ConfigError, match="re-ranks by less"):
            plan.resolve(full)
        return
    resolved = plan.resolve(full)
    assert all(stage.dim is not None for stage in resolved.stages())
    assert resolved.resolve(full) == resolved
    cost = plan.cost(rows, full)
    assert cost == resolved.cost(rows, full)
    assert min(cost.mflops, cost.bytes_read, cost.bytes_stored) > 0
    assert cost.bytes_on_disk == 4 * rows * full


@pytest.mark.parametrize(
    ("plan", "rows", "nprobe", "mflops"),
    [
        # Constants of the reference's plots (spec, section 2.5).
        ("ivf64@64 > flat@64", 1_281_167, 1, 1.285263),
        ("ivf32@2048 > flat@2048", 1_281_167, 1, 82.060224),
        ("flat@512", 4_202_000, None, 2151.424),
        ("ivf2048@2048 > flat@2048", 4_202_000, 8, 37.810304),
    ],
)
def test_costs_are_those_of_the_paper(plan: str, rows: int, nprobe: int | None, mflops: float) -> None:
    assert Plan.parse(plan).cost(rows, 2048, Point(nprobe=nprobe)).mflops == pytest.approx(mflops, abs=1e-6)


def test_costs_count_what_the_paper_leaves_out() -> None:
    bare = Plan.parse("pq8x8@64").cost(1000, 128, Point())
    assert bare.mflops * 1e6 == 1000 * 8 + 256 * 64
    assert bare.bytes_stored == bare.bytes_read == 1000 * 8
    rotated = Plan.parse("opq8x8@64").cost(1000, 128, Point())
    assert rotated.mflops * 1e6 == 1000 * 8 + 256 * 64 + 64 * 64
    funnel = Plan.parse("pq8x8@64 > rerank:fp16@64 > rerank@full").cost(1000, 128, Point(shortlists=(50, 10)))
    assert funnel.mflops * 1e6 - bare.mflops * 1e6 == pytest.approx(50 * 64 + 10 * 128)
    assert funnel.bytes_read - bare.bytes_read == 50 * 128 + 10 * 512
    assert funnel.bytes_stored - bare.bytes_stored == 1000 * 128  # the vectors themselves lie on disk


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("ivf@64 > flat@64", "cannot be read"),
        ("ivf1024@64", "scans nothing"),
        ("vif1024@64 > flat@64", "did you mean 'ivf'"),
        ("int7@64", "did you mean 'int"),
        ("flat@64 > ivf8@64", "repeated or comes too late"),
        ("flat@64 > int8@64", "repeated or comes too late"),
        ("rerank@64 > flat@64", "repeated or comes too late"),
        ("pq@64", "cannot be read"),
        ("pq8x5@64", "choose 4 or 8"),
        ("flat8@64", "cannot be read"),
        ("int8@64 > rerank:int2@full", "unknown store"),
        ("ivf8@64 > int4@full > certify@full", "leave out the other stages"),
        ("int4@full > certify@64", "write certify@full"),
        ("int4@full > rerank@full > certify@full", "repeated or comes too late"),
        ("hnsw1@64 > flat@64", "too small"),
        ("ivf0@64 > flat@64", "too small"),
        ("flat@0", "does not fit"),
        ("flat@257", "choose 1 to 256"),
        ("flat@64 > rerank@32", "re-ranks by less"),
        ("pq24x8@64", "divisor of 64"),
        ("int4@3", "even prefix"),
    ],
)
def test_plans_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan.parse(text).resolve(256)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nprobes=4", "did you mean 'nprobe'"),
        ("nprobe=x", "is no number"),
        ("nprobe=0", "at least 1"),
        ("shortlist=10/20", "must not grow"),
        ("confidence=1.5", "at most 1"),
    ],
)
def test_points_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Point.parse(text)


def test_more_of_anything_costs_more() -> None:
    plan = Plan.parse("ivf100@16 > int8@64 > rerank@full")
    costs = [
        plan.cost(10_000, 256, Point(nprobe=n, shortlists=(s,))) for n, s in [(1, 10), (10, 10), (10, 100)]
    ]
    assert costs[0].mflops < costs[1].mflops < costs[2].mflops
    assert costs[0].bytes_read < costs[1].bytes_read < costs[2].bytes_read
    assert len({cost.bytes_stored for cost in costs}) == 1


def test_plans_are_read_and_costed_without_faiss() -> None:
    code = (
        "import sys; from nestling.search import Plan;"
        "Plan.parse('ivf64@64 > pq8x4@64 > rerank:int8@full').cost(1000, 128);"
        "Plan.parse('graph64@full > rerank@full'); assert 'faiss' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
