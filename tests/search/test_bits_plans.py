"""Plans over a nested code: exact by the codes, which are stored once and cut without training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nestling.cut import RAW, CutRule
from nestling.errors import ConfigError
from nestling.search.engine.engine import Engine, build
from nestling.search.exact.neighbours import nearest
from nestling.search.index.index import AdaptiveIndex
from nestling.search.plan.plan import Plan, Point
from nestling.search.stages import nested_code
from nestling.search.tuning.planner import candidate_plans
from nestling.vectors.stored import StoredVectors

ROWS, DIM = 1500, 52


def drawn(rows: int, seed: int) -> np.ndarray:
    """Clusters away from zero, whose later entries are smaller."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(40, DIM))
    x = centres[draw.integers(40, size=rows)] + draw.normal(size=(rows, DIM)) + 0.3
    return (x / np.sqrt(np.arange(1, DIM + 1))).astype(np.float32)


VECTORS, QUERIES = drawn(ROWS, 0), drawn(9, 1)


@pytest.mark.parametrize("level", ["off", ""])
@pytest.mark.parametrize(("rule", "metric"), [(CutRule(), "dot"), (CutRule(), "euclidean"), (RAW, "dot")])
@pytest.mark.parametrize(
    "at", ["dim=52,bits=1", "dim=20,bits=2", "dim=52,bits=3", "dim=36,bits=4", "dim=52,bits=8"]
)
def test_a_scan_finds_the_nearest_of_the_stored_codes(
    level: str, rule: CutRule, metric: str, at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brute force over what stored vectors hold at these dims and bits, of a calibration of their own."""
    monkeypatch.setenv("NESTLING_KERNELS", level)
    stored = StoredVectors(VECTORS, "dim=20,36,52", rule).calibrated()
    dim, bits = (int(part.split("=")[1]) for part in at.split(","))
    engine = build(f"bits{bits}@{dim}", VECTORS, rule=stored.rule, metric=metric)  # type: ignore[arg-type]
    found = engine.search(QUERIES, 10, workers=1)
    held, asked = stored.matrix(at), StoredVectors(QUERIES, "dim=20,36,52", rule).matrix(f"dim={dim}")
    # Rows that decode to equal vectors differ by rounding alone; the scores then decide.
    wanted = nearest(asked, held, 10, rule=RAW, metric=metric)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5, atol=1e-5)
    own = held[found.indices].astype(np.float64)
    scores = np.einsum("qkd,qd->qk", own, asked.astype(np.float64))
    if metric == "euclidean":
        scores = np.linalg.norm(own - asked[:, None], axis=2)
    np.testing.assert_allclose(found.scores, scores, rtol=1e-5, atol=1e-5)


def test_slices_share_one_code_that_is_stored_once(tmp_path: Path) -> None:
    plan = "bits2@32 > rerank:bits4@40 > rerank:bits8@full"
    engine = build(plan, VECTORS, folder=tmp_path)
    engine.save(tmp_path)
    planes = {f"plane{place}.npy" for place in range(1, 9)}
    assert {path.name for path in tmp_path.glob("*.npy")} == planes | {
        "code.centre.npy", "code.spread.npy", "bits.squares.npy", "bits.bounds.npy"
    }  # fmt: skip
    row = -(-DIM // 8) * 8 + 4  # 8 bits an entry, and the length of the slice that is scanned
    assert engine.cost().bytes_stored == ROWS * row
    assert Plan.parse("bits2@32").cost(ROWS, DIM).bytes_stored == ROWS * (8 + 4)
    assert Plan.parse("int8@32 > rerank:bits4@full").cost(ROWS, DIM).bytes_stored == ROWS * (32 + 4 * 7)
    again = Engine.load(tmp_path, VECTORS, engine.plan, CutRule())
    point = Point(shortlists=(200, 50))
    found, truth = again.search(QUERIES, 5, point), build("bits8@full", VECTORS).search(QUERIES, 5)
    np.testing.assert_array_equal(found.indices, truth.indices)
    np.testing.assert_array_equal(engine.search(QUERIES, 5, point).indices, found.indices)


def test_an_index_is_cut_without_training(tmp_path: Path) -> None:
    plan = "bits2@full > rerank:bits8@full"
    options = {"plan": plan, "nesting": "dim=16,32,52"}
    with AdaptiveIndex.create(tmp_path / "index", VECTORS, **options) as index:  # type: ignore[arg-type]
        found = index.search(QUERIES, 5, at="dim=32", point="shortlist=100")
        index.extract("dim=32", tmp_path / "small")
    with AdaptiveIndex.open(tmp_path / "small") as small:
        again = small.search(QUERIES[:, :32], 5, point="shortlist=100")
        np.testing.assert_array_equal(again.ids, found.ids)
        np.testing.assert_allclose(again.scores, found.scores, rtol=1e-6)
        sizes = {
            path.name: np.load(path, mmap_mode="r").shape for path in tmp_path.rglob("small/**/plane*.npy")
        }
    assert sizes == {f"plane{place}.npy": (ROWS, 4) for place in range(1, 9)}


@pytest.mark.parametrize("plan", ["bits2@full", "bits1:binary@full > rerank:bits8@full"])
def test_threads_share_queries_or_rows(plan: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested_code, "_ROWS_TO_SHARE", 100)
    engine = build(plan, VECTORS)
    allowed = np.arange(ROWS) % 2 == 0
    for count, k in ((1, 10), (9, 10), (2, ROWS)):
        one, more = (engine.search(QUERIES[:count], k, allowed=allowed, workers=n) for n in (1, 3))
        np.testing.assert_array_equal(one.indices, more.indices)
        np.testing.assert_array_equal(one.scores, more.scores)


def test_binary_queries_find_rows_of_equal_bits() -> None:
    engine = build("bits1:binary@full > rerank:bits1@full", VECTORS)
    found = engine.search(VECTORS[:50], 1, Point(shortlists=(20,)))
    exact = build("bits1@full", VECTORS).search(VECTORS[:50], 1)
    assert (found.indices == exact.indices).mean() > 0.9


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("ivf8@16 > bits2@full", "leave out ivf8@16"),
        ("bits1:binary@full", r"add bits1:binary@full > rerank:bits8@full"),
        ("bits4@16 > rerank:bits2@full", "fewer bits"),
        ("bits5@16", "choose one of 1, 2, 3, 4, 8"),
        ("bits2:binary@16", "counted of bits1"),
    ],
)
def test_plans_that_make_no_sense_are_refused(plan: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Plan.parse(plan)


def test_the_planner_compares_slices_of_one_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nestling.kernels.level", lambda: "plain")
    texts = {str(plan) for plan in candidate_plans(20_000, (16, 32, 64), nested=True)}
    assert texts >= {f"bits{few}@full > rerank:bits8@full" for few in (1, 2, 4)} | {"bits4@full"}
    monkeypatch.setattr("nestling.kernels.level", lambda: "off")
    assert not any("bits" in str(plan) for plan in candidate_plans(20_000, (16, 32, 64)))
