"""Graph search over 2-bit codes: recall, filters, small and odd inputs."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from nestling.cut import RAW, CutRule
from nestling.errors import ArtifactError, ConfigError, DataError
from nestling.kernels.library import levels
from nestling.search.exact.neighbours import nearest
from nestling.search.graph.growth import usual_view
from nestling.search.graph.scan import GraphScan
from nestling.storage.artifact import MANIFEST
from samples import recall

COSINE = CutRule()
SPACES = [(COSINE, "dot"), (COSINE, "euclidean"), (RAW, "dot"), (RAW, "euclidean")]
ROWS, DIM = 3000, 48


def clustered(rows: int, dim: int = DIM, seed: int = 0) -> np.ndarray:
    """Vectors near a subspace and away from zero, as embeddings are."""
    basis = np.random.default_rng(99).standard_normal((16, dim))
    rng = np.random.default_rng(seed)
    near = rng.standard_normal((rows, 16)) @ basis + 0.4 * rng.standard_normal((rows, dim)) + 0.5
    return near.astype(np.float32)


@cache
def scan_of(rule: CutRule, metric: str) -> GraphScan:
    return GraphScan.build(clustered(ROWS), rule=rule, metric=metric, links=32, seed=1)


@pytest.mark.parametrize(("rule", "metric"), SPACES, ids=str)
def test_recall_and_scores(rule: CutRule, metric: str) -> None:
    """Measured: 1.0 with 200 in view, and 0.99 by inner product, whose answers are outliers."""
    queries, vectors = clustered(60, seed=2), clustered(ROWS)
    true = nearest(queries, vectors, 10, rule=rule, metric=metric)
    found = scan_of(rule, metric).search(queries, 10, ef=200)
    assert recall(found.indices, true.indices) >= (0.97 if (rule, metric) == (RAW, "dot") else 0.99)
    assert recall(found.indices, true.indices) > recall(
        scan_of(rule, metric).search(queries, 10, ef=10).indices, true.indices
    )
    same = found.indices == true.indices
    np.testing.assert_allclose(found.scores[same], true.scores[same], rtol=1e-4, atol=1e-4)
    falling = np.diff(found.scores.astype(np.float64), axis=1)
    assert (falling >= 0).all() if metric == "euclidean" else (falling <= 0).all()
    assert found.indices.dtype == np.int64
    assert found.scores.dtype == np.float32


@pytest.mark.parametrize(("rule", "metric"), SPACES, ids=str)
@pytest.mark.parametrize("share", [0.5, 0.2, 0.02])
def test_filters_never_leak(rule: CutRule, metric: str, share: float) -> None:
    queries, vectors = clustered(40, seed=3), clustered(ROWS)
    allowed = np.random.default_rng(4).random(ROWS) < share
    found = scan_of(rule, metric).search(queries, 10, ef=100, allowed=allowed).indices
    assert allowed[found].all()
    rows = np.flatnonzero(allowed)
    true = rows[nearest(queries, vectors[rows], 10, rule=rule, metric=metric).indices]
    assert recall(found, true) >= (1.0 if share == 0.02 else 0.95)


def test_fewer_rows_than_asked_for_are_all_found() -> None:
    queries, allowed = clustered(5, seed=5), np.zeros(ROWS, np.bool_)
    allowed[[7, 70, 700]] = True
    found = scan_of(COSINE, "dot").search(queries, 5, allowed=allowed)
    assert {frozenset(row) for row in found.indices[:, :3].tolist()} == {frozenset((7, 70, 700))}
    assert (found.indices[:, 3:] == -1).all()
    assert np.isnan(found.scores[:, 3:]).all()
    none = scan_of(COSINE, "dot").search(queries, 5, allowed=np.zeros(ROWS, np.bool_))
    assert (none.indices == -1).all()


def test_rows_that_no_walk_reaches_are_found() -> None:
    """Many equal rows link with each other alone; all must be found where all are asked for."""
    vectors = np.repeat(clustered(4), 100, axis=0)
    found = GraphScan.build(vectors, links=8, ef=4).search(clustered(3, seed=6), 400, ef=1)
    assert (np.sort(found.indices, axis=1) == np.arange(400)).all()


def test_larger_graphs_look_further_for_links() -> None:
    assert [usual_view(rows) for rows in (1, 50_000, 200_000, 1_000_000, 10**8)] == [100, 100, 100, 150, 256]
    vectors = clustered(600)
    default, given = (GraphScan.build(vectors, links=8, **options) for options in ({}, {"ef": 100}))
    np.testing.assert_array_equal(default._graph.links, given._graph.links)


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_small_matrices(rows: int) -> None:
    vectors = clustered(rows, 3)
    scan = GraphScan.build(vectors, rule=RAW, metric="euclidean", links=8)
    true = nearest(vectors, vectors, rows, rule=RAW, metric="euclidean")
    np.testing.assert_array_equal(scan.search(vectors, rows).indices, true.indices)


@pytest.mark.parametrize(("rule", "metric"), SPACES[2:], ids=str)
def test_rows_without_spread(rule: CutRule, metric: str) -> None:
    vectors = np.zeros((50, 8), np.float32)
    found = GraphScan.build(vectors, rule=rule, metric=metric).search(vectors[:2], 3)
    np.testing.assert_array_equal(found.scores, 0)


def test_half_precision_vectors_stay_as_they_are() -> None:
    vectors, queries = clustered(ROWS).astype(np.float16), clustered(30, seed=14)
    found = GraphScan.build(vectors, links=32).search(queries, 10, ef=200)
    true = nearest(queries, vectors.astype(np.float32), 10)
    assert recall(found.indices, true.indices) >= 0.99
    same = found.indices == true.indices
    np.testing.assert_allclose(found.scores[same], true.scores[same], atol=1e-6)


def test_numbers_far_from_one() -> None:
    """Scores may overflow float32; the order of exact scores does not."""
    for factor in (1e-18, 1e30):
        vectors, queries = clustered(200) * np.float32(factor), clustered(5, seed=15) * np.float32(factor)
        for rule, metric in SPACES[2:]:
            scan = GraphScan.build(vectors, rule=rule, metric=metric, links=16)
            found = scan.search(queries, 3, ef=200).indices
            plain = nearest(queries / np.float32(factor), clustered(200), 3, rule=rule, metric=metric)
            assert recall(found, plain.indices) >= 0.95


@pytest.mark.parametrize(("rule", "metric"), SPACES, ids=str)
@pytest.mark.parametrize("dim", [48, 256, 700])
def test_residuals_rank_nearly_as_vectors_do(rule: CutRule, metric: str, dim: int, tmp_path: Path) -> None:
    """Eight bits of what two bits leave out: scores are right to about a thousandth of a length."""
    vectors, queries = clustered(1500, dim), clustered(20, dim, seed=17)
    scan = GraphScan.build(vectors, rule=rule, metric=metric, links=32, rerank="int8")
    true = nearest(queries, vectors, 10, rule=rule, metric=metric)
    found = scan.search(queries, 10, ef=400)
    assert recall(found.indices, true.indices) >= 0.96
    same = found.indices == true.indices
    lengths = 1 if rule == COSINE else np.linalg.norm(vectors, axis=1).max()
    lengths = lengths if metric == "euclidean" or rule == COSINE else lengths**2
    np.testing.assert_allclose(found.scores[same], true.scores[same], atol=2e-3 * lengths)
    scan.save(tmp_path / "graph")
    np.save(tmp_path / "vectors.npy", vectors)
    loaded = GraphScan.load(str(tmp_path / "graph"), np.load(tmp_path / "vectors.npy", mmap_mode="r"))
    np.testing.assert_array_equal(loaded.search(queries, 10, ef=400).scores, found.scores)
    full = GraphScan.build(vectors[:300], rule=rule, metric=metric, links=32).cost()
    kept = GraphScan.build(vectors[:300], rule=rule, metric=metric, links=32, rerank="int8").cost()
    assert full.output_bytes + dim + 4 <= kept.output_bytes <= full.output_bytes + 2 * max(dim, 256) + 4


@pytest.mark.parametrize("dim", [300, 700])
def test_codes_of_several_lines(dim: int) -> None:
    vectors = np.random.default_rng(7).standard_normal((600, dim)).astype(np.float32)
    queries = vectors[:20] + np.float32(0.1)
    scan = GraphScan.build(vectors)
    found = scan.search(queries, 1, ef=60).indices
    np.testing.assert_array_equal(found[:, 0], np.arange(20))
    assert scan.cost().output_bytes > 64 * 4 + 64 * (dim // 256)


def test_the_graph_depends_on_nothing_but_vectors_and_seed(tmp_path: Path) -> None:
    queries = clustered(30, seed=8)
    answers = []
    for number, workers in enumerate((1, 3)):
        scan = GraphScan.build(clustered(ROWS), links=16, ef=40, seed=5, workers=workers)
        scan.save(tmp_path / str(number))
        answers.append(scan.search(queries, 5, ef=30).indices)
    assert (tmp_path / "0/links.npy").read_bytes() == (tmp_path / "1/links.npy").read_bytes()
    np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize("level", ["off", "plain", "avx2"])
@pytest.mark.parametrize("rerank", ["full", "int8"])
def test_every_level_answers_alike(level: str, rerank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if level not in ("off", *levels()):
        pytest.skip(f"this machine has no {level}")
    vectors, queries = clustered(250), clustered(8, seed=9)
    best = GraphScan.build(vectors, links=8, ef=20, rerank=rerank).search(queries, 5, ef=12)
    monkeypatch.setenv("NESTLING_KERNELS", level)
    found = GraphScan.build(vectors, links=8, ef=20, rerank=rerank).search(queries, 5, ef=12)
    np.testing.assert_array_equal(found.indices, best.indices)
    np.testing.assert_allclose(found.scores, best.scores, rtol=1e-6)


def test_threads_share_a_scan() -> None:
    scan, queries = scan_of(COSINE, "dot"), clustered(300, seed=10)
    alone = scan.search(queries, 5, ef=40, workers=1).indices
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.append(scan.search(queries, 5, ef=40, workers=2).indices))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for each in found:
        np.testing.assert_array_equal(each, alone)


@pytest.mark.parametrize(("rule", "metric"), SPACES, ids=str)
def test_saving_and_loading(rule: CutRule, metric: str, tmp_path: Path) -> None:
    scan, queries = scan_of(rule, metric), clustered(20, seed=11)
    scan.save(tmp_path / "graph")
    np.save(tmp_path / "vectors.npy", clustered(ROWS))
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    loaded = GraphScan.load(tmp_path / "graph", mapped)
    for ours, theirs in zip(
        vars(loaded.search(queries, 7, ef=50)).values(),
        vars(scan.search(queries, 7, ef=50)).values(),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.cost() == scan.cost()


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    scan_of(COSINE, "dot").save(tmp_path / "graph")
    with pytest.raises(ArtifactError, match="other vectors"):
        GraphScan.load(tmp_path / "graph", clustered(ROWS, seed=12))
    with pytest.raises(ArtifactError, match="does not hold a graph of these vectors"):
        GraphScan.load(tmp_path / "graph", clustered(ROWS - 1))
    with pytest.raises(ArtifactError, match="does not hold a graph of these vectors"):
        GraphScan.load(tmp_path / "graph", clustered(ROWS, DIM + 1))
    links = tmp_path / "graph" / "links.npy"
    links.write_bytes(links.read_bytes()[:-4])
    with pytest.raises(ArtifactError, match="truncated or altered"):
        GraphScan.load(tmp_path / "graph", clustered(ROWS))
    (tmp_path / "graph" / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match="not a folder saved by nestling"):
        GraphScan.load(tmp_path / "graph", clustered(ROWS))


def test_bad_builds_are_refused() -> None:
    vectors = clustered(20)
    with pytest.raises(ConfigError, match="metric"):
        GraphScan.build(vectors, metric="manhattan")
    with pytest.raises(ConfigError, match="rerank"):
        GraphScan.build(vectors, rerank="int4")
    with pytest.raises(ConfigError, match="links=2"):
        GraphScan.build(vectors, links=2)
    with pytest.raises(ConfigError, match="ef=0"):
        GraphScan.build(vectors, ef=0)
    with pytest.raises(ConfigError, match="layer_norm"):
        GraphScan.build(vectors, rule=CutRule("layer_norm"))
    with pytest.raises(ConfigError, match="workers=0"):
        GraphScan.build(vectors, workers=0)
    vectors[3] = 0
    with pytest.raises(DataError, match="row 3"):
        GraphScan.build(vectors)
    vectors[4, 1] = np.nan
    with pytest.raises(DataError):
        GraphScan.build(vectors, rule=RAW)


def test_bad_requests_are_refused() -> None:
    scan, queries = scan_of(COSINE, "dot"), clustered(2, seed=13)
    for k in (0, ROWS + 1, True, 1.5):
        with pytest.raises(DataError, match="k="):
            scan.search(queries, k)
    with pytest.raises(ConfigError, match="ef=0"):
        scan.search(queries, 1, ef=0)
    with pytest.raises(ConfigError, match="shortlist"):
        scan.search(queries, 5, shortlist=4)
    with pytest.raises(ConfigError, match="workers=0"):
        scan.search(queries, 5, workers=0)
    with pytest.raises(DataError, match="allowed"):
        scan.search(queries, 5, allowed=np.ones(ROWS - 1, np.bool_))
    with pytest.raises(DataError):
        scan.search(clustered(2, DIM - 1), 5)
    with pytest.raises(DataError, match="row 1"):
        scan.search(queries * np.array([[1], [0]], np.float32), 5)
    many = clustered(200, seed=13)
    many[170, 3], many[190] = np.nan, np.inf
    for workers in (1, 3):
        with pytest.raises(DataError, match=r"NaN or infinity in 2 rows \(170, 190\)"):
            scan.search(many, 5, workers=workers)
    for wrong in (np.empty((0, DIM), np.float32), queries[0], queries.astype(str)):
        with pytest.raises(DataError):
            scan.search(wrong, 5)


def test_queries_of_any_layout_and_type() -> None:
    scan, queries = scan_of(RAW, "euclidean"), clustered(9, seed=16)
    plain = scan.search(queries, 5)
    wide = np.zeros((18, 2 * DIM), np.float64)
    wide[::2, ::2] = queries
    for same in (np.asfortranarray(queries), wide[::2, ::2], queries.tolist()):
        np.testing.assert_array_equal(scan.search(same, 5).indices, plain.indices)
