"""Certified search is exact on any input; its bounds hold and its certificates are true."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule
from nestling.errors import ArtifactError, ConfigError, DataError
from nestling.kernels.library import levels
from nestling.search.certified import scan as certified
from nestling.search.certified.scan import CertifiedScan
from nestling.search.exact.neighbours import nearest
from samples import examples

COSINE = CutRule()
ARRAYS = ("coarse", "fine", "floats", "rotation")
SPACES = [(COSINE, "dot"), (COSINE, "euclidean"), (RAW, "dot"), (RAW, "euclidean")]


def normal(n: int, dim: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim), dtype=np.float32)


def plain(queries: np.ndarray, vectors: np.ndarray, rule: CutRule, metric: str) -> np.ndarray:
    """All scores in float64, row by row, so that equal rows score equal; larger is better."""
    q, v = queries.astype(np.float64), vectors.astype(np.float64)
    if rule.after == "l2":
        q = q / np.linalg.norm(q, axis=1, keepdims=True)
        return np.einsum("qd,nd->qn", q, v) / np.linalg.norm(v, axis=1)
    if metric == "dot":
        return np.einsum("qd,nd->qn", q, v)
    return -np.square(q[:, None] - v[None]).sum(axis=2)


def check(
    vectors: np.ndarray, queries: np.ndarray, k: int, rule: CutRule, metric: str, **options: object
) -> None:
    """The answer is one that an exact search may give, and the certificate is true."""
    scan = CertifiedScan.build(vectors, rule=rule, metric=metric)
    found = scan.search(queries, k, **options)
    truth = plain(queries, vectors, rule, metric)
    allowed = options.get("allowed")
    if allowed is not None:
        truth = np.where(allowed, truth, -np.inf)
    # Two orders of summing float64 differ by this much; only such ties may be ordered otherwise.
    sizes = (
        np.abs(queries.astype(np.float64)).max() * np.abs(vectors.astype(np.float64)).max() * vectors.shape[1]
    )
    if rule.after == "l2":
        sizes = 1.0
    elif metric == "euclidean":
        sizes = (np.abs(queries).astype(np.float64).max() + np.abs(vectors).astype(np.float64).max()) ** 2
        sizes *= vectors.shape[1]
    tolerance = 1e-14 * sizes
    there = min(k, int(np.isfinite(truth[0]).sum()))
    best = -np.sort(-truth, axis=1)[:, :there]
    chosen = np.take_along_axis(truth, found.indices[:, :there], axis=1)
    np.testing.assert_allclose(chosen, best, rtol=1e-13, atol=tolerance)
    assert (found.indices[:, there:] == -1).all()
    assert np.isnan(found.scores[:, there:]).all()
    for row in found.indices:
        assert len(set(row[:there])) == there
    certificate = found.certificate
    assert (certificate.verified >= there).all()
    if not there:
        assert np.isnan(certificate.kth_scores).all()
        return
    kth, skipped = certificate.kth_scores, certificate.skipped_bounds
    if metric == "euclidean":
        assert (kth <= skipped).all() or (kth - skipped <= 1e-6 * (1 + kth)).all()
    else:
        assert (kth >= skipped - 1e-9 * np.abs(kth)).all()


@pytest.mark.parametrize("level", ["off", *levels()])
@pytest.mark.parametrize(("rule", "metric"), SPACES, ids=str)
@pytest.mark.parametrize("k", [1, 10, 1_000])
@pytest.mark.parametrize("count", [5, 30])
def test_agrees_with_exact_search(
    count: int, k: int, rule: CutRule, metric: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few queries, and so many that codes are unpacked for all of them."""
    monkeypatch.setenv("NESTLING_KERNELS", level)
    vectors = normal(3_000, 64) * np.linspace(2, 0.1, 64, dtype=np.float32)
    check(vectors, normal(count, 64, seed=1), k, rule, metric, workers=1)


KINDS = [
    "plain",
    "duplicates",
    "ties",
    "norms",
    "huge",
    "denormal",
    "zeros",
    "constant",
    "tilted",
    "outlier",
    "spike",
]


def adversarial(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, dim = draw(st.integers(1, 200)), draw(st.integers(1, 70))
    vectors = rng.standard_normal((rows, dim))
    kind = draw(st.sampled_from(KINDS))
    if kind == "duplicates":
        vectors = vectors[rng.integers(0, max(1, rows // 10), rows)]
    elif kind == "ties":
        vectors = rng.integers(-1, 2, (rows, dim)).astype(float)
    elif kind == "norms":
        vectors *= 10.0 ** rng.uniform(-15, 15, (rows, 1))
    elif kind == "huge":
        vectors *= 1e37
    elif kind == "denormal":
        vectors *= 1e-41
    elif kind == "zeros":
        vectors[:, : dim // 2] = 0
    elif kind == "constant":
        vectors[:, rng.integers(0, dim)] = 7.5
    elif kind == "tilted":
        vectors = vectors * 1e-3 + 100
    elif kind == "outlier":
        vectors[0] *= 1e20
    elif kind == "spike":
        vectors = np.eye(dim)[rng.integers(0, dim, rows)] * rng.choice([-1, 1], (rows, 1))
    vectors = vectors.astype(np.float32)
    queries = rng.standard_normal((4, dim)) * 10.0 ** rng.uniform(-10, 10, (4, 1))
    queries[0] = vectors[0].astype(float)
    queries[1] = np.round(queries[1])
    return vectors, queries.astype(np.float32)


@given(st.data())
@settings(max_examples=examples(120))
def test_is_exact_on_anything(data: st.DataObject) -> None:
    vectors, queries = adversarial(data.draw)
    rule, metric = data.draw(st.sampled_from(SPACES))
    if rule.after == "l2":  # rows without a direction are refused, see below
        vectors, queries = (
            x[np.linalg.norm(x.astype(np.float64), axis=1) > 1e-12] for x in (vectors, queries)
        )
        if not len(vectors) or not len(queries):
            return
    # Scores that float32 does not hold are refused, see below.
    queries = queries[np.abs(plain(queries, vectors, rule, metric)).max(axis=1) < np.finfo(np.float32).max]
    if not len(queries):
        return
    queries = np.tile(queries, (data.draw(st.sampled_from([1, 5])), 1))
    k = data.draw(st.one_of(st.integers(1, len(vectors)), st.just(len(vectors))))
    options: dict[str, object] = {"workers": data.draw(st.sampled_from([1, 2]))}
    if data.draw(st.booleans()):
        options["allowed"] = np.random.default_rng(k).random(len(vectors)) < data.draw(
            st.sampled_from([0, 0.5, 1])
        )
    check(vectors, queries, k, rule, metric, **options)


@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 400))
@settings(max_examples=examples(60))
def test_of_equal_scores_the_first_row_wins(seed: int, dim: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, queries = (rng.integers(-2, 3, (n, dim)).astype(np.float32) for n in (rows, rng.choice([5, 18])))
    for metric in ("dot", "euclidean"):
        k = int(rng.integers(1, rows + 1))
        found = CertifiedScan.build(vectors, rule=RAW, metric=metric).search(queries, k, workers=1)
        order = np.argsort(-plain(queries, vectors, RAW, metric), axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(found.indices, order)


@pytest.mark.parametrize(("rule", "metric"), SPACES, ids=str)
def test_no_bound_is_ever_violated(rule: CutRule, metric: str) -> None:
    """Every bound of every row, coarse and fine, against the score in float64."""
    from nestling.kernels.scans import numpy as twin

    vectors, queries = normal(2_000, 40) * np.float32(3), normal(20, 40, seed=1)
    vectors[::7] *= np.float32(1e-4)
    vectors[5::11] = vectors[4]
    scan = CertifiedScan.build(vectors, rule=rule, metric=metric)
    exact = queries.astype(np.float64)
    if rule.after == "l2":
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    aim = scan._centring.prepare(exact)
    probes = scan._codes.probes(exact, aim, scan._calibration, 1.0)
    truth = plain(queries, vectors, rule, metric) * aim.bounds[:, :1] + aim.bounds[:, 1:2]
    for bounds in twin._bounds_of_planes(scan._codes.planes, probes.codes, probes.sure):
        assert (bounds >= truth - aim.bounds[:, 2:]).all()
    # ... and they say something: most lie within a third of what lengths alone allow.
    assert np.median(bounds - truth) < 0.34 * np.median(aim.lengths)


def test_certificates_say_what_was_read() -> None:
    vectors = normal(40_000, 128)
    queries = vectors[:50] + 0.5 * normal(50, 128, seed=2)
    certificate = CertifiedScan.build(vectors).search(queries, 5).certificate
    assert certificate.rows == 40_000
    assert certificate.confidence == 1
    assert (certificate.verified < 2_000).all()
    assert (certificate.verified <= certificate.refined).all()
    assert np.isfinite(certificate.skipped_bounds).all()
    assert (certificate.skipped_bounds <= certificate.kth_scores).all()


@pytest.mark.parametrize("level", ["off", *levels()[-1:]])
def test_a_stated_confidence_is_kept(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 20,000 true neighbours, among vectors of few directions and near duplicates."""
    monkeypatch.setenv("NESTLING_KERNELS", level)
    rng = np.random.default_rng(0)
    count = 2_000 if level != "off" else 200
    vectors = (normal(10 * count, 24) @ rng.standard_normal((24, 96))).astype(np.float32)
    vectors += 0.3 * normal(10 * count, 96, seed=1)
    vectors[5 * count : 6 * count] = vectors[:count] + 0.01 * normal(count, 96, seed=2)
    queries = vectors[rng.choice(10 * count, count)] + 0.5 * normal(count, 96, seed=3)
    scan = CertifiedScan.build(vectors)
    truth = scan.search(queries, 10)
    for confidence in (0.9, 0.99, 0.9999):
        found = scan.search(queries, 10, confidence=confidence)
        recall = np.mean(
            [len(set(a) & set(b)) / 10 for a, b in zip(found.indices, truth.indices, strict=True)]
        )
        spread = 3 * np.sqrt((1 - confidence) * confidence / (10 * count))
        assert recall >= confidence - spread
        assert found.certificate.confidence == confidence
    few = [scan.search(queries[:4], 10, confidence=each).certificate.refined.mean() for each in (0.9, 1.0)]
    assert few[0] < few[1]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.03, 0.5, 1.0])
def test_only_allowed_rows_are_found(share: float) -> None:
    vectors, queries = normal(5_000, 32), normal(7, 32, seed=1)
    allowed = np.random.default_rng(5).random(5_000) < share
    check(vectors, queries, 20, COSINE, "dot", allowed=allowed)


@pytest.mark.parametrize("level", ["off", *levels()])
def test_ten_thousand_neighbours(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_KERNELS", level)
    vectors = normal(30_000, 16)
    for count in (3, 18)[: 1 + (level != "off")]:
        check(vectors, normal(count, 16, seed=1), 10_000, RAW, "euclidean", workers=1)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("confidence", [1.0, 0.999])
def test_a_query_is_answered_alike_alone_and_among_many(confidence: float, dtype: type) -> None:
    vectors, queries = normal(20_011, 100).astype(dtype), normal(270, 100, seed=1)
    scan = CertifiedScan.build(vectors)
    allowed = np.random.default_rng(2).random(20_011) < 0.7
    together = scan.search(queries, 10, confidence=confidence, allowed=allowed, workers=1)
    assert (together.certificate.verified < 4_000).all()
    same = 0
    for i in range(0, 270, 9):
        alone = scan.search(queries[i : i + 1], 10, confidence=confidence, allowed=allowed)
        same += np.array_equal(alone.indices[0], together.indices[i])
    assert same == 30 if confidence == 1 else same >= 27


@pytest.mark.parametrize("level", ["off", *levels()])
@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_threads_that_share_the_rows_find_the_same(
    metric: str, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours stand in all parts, equal ones too; some parts hold fewer than k that may be found."""
    monkeypatch.setenv("NESTLING_KERNELS", level)
    monkeypatch.setattr(certified, "_ROWS_TO_SHARE", 1_000)
    vectors, queries = normal(5_003, 40), normal(2, 40, seed=1)
    vectors[2_000:2_040] = vectors[4_990:4_950:-1] = queries[0] + 0.1 * normal(40, 40, seed=2)
    allowed = np.ones(5_003, bool)
    allowed[1_010:1_990] = False
    scan = CertifiedScan.build(vectors, rule=RAW, metric=metric)
    for k in (1, 60, 1_500):
        one, many = (scan.search(queries, k, allowed=allowed, workers=workers) for workers in (1, 5))
        np.testing.assert_array_equal(many.indices, one.indices)
        np.testing.assert_array_equal(many.scores, one.scores)
        check(vectors, queries, k, RAW, metric, allowed=allowed, workers=5)
    likely = scan.search(queries, 60, confidence=0.9999, workers=5)
    assert (likely.indices == scan.search(queries, 60, workers=1).indices).mean() > 0.97


@pytest.mark.parametrize("level", levels())
def test_more_doubts_than_may_wait(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long rows that stand at right angles to the queries: what their codes leave out could be a match."""
    monkeypatch.setenv("NESTLING_KERNELS", level)
    vectors, query = normal(20_000, 48), normal(1, 48, seed=1)
    query /= np.linalg.norm(query)
    vectors -= (vectors @ query.T) * query
    vectors *= 20 / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[:20] = query + 0.01 * vectors[:20]
    check(vectors, np.repeat(query, 16, axis=0), 10, RAW, "dot", workers=1)
    found = CertifiedScan.build(vectors, rule=RAW).search(np.repeat(query, 16, axis=0), 10, workers=1)
    assert (found.certificate.verified > 9_000).all()


def test_more_rows_than_one_ledger_holds() -> None:
    """Sums are kept of 2^18 rows at a time; the best rows lie on both sides of that border."""
    vectors, queries = normal(270_000, 24), normal(20, 24, seed=1)
    vectors[262_100:262_200] = queries[0] + 0.1 * normal(100, 24, seed=2)
    scan = CertifiedScan.build(vectors)
    for k in (3, 150):
        found, truth = scan.search(queries, k), plain(queries, vectors, COSINE, "dot")
        best = -np.sort(-truth, axis=1)[:, :k]
        np.testing.assert_allclose(np.take_along_axis(truth, found.indices, axis=1), best, rtol=1e-13)
        assert all(len(set(row)) == k for row in found.indices)


def test_half_precision_and_memory_maps(tmp_path: Path) -> None:
    vectors, queries = normal(2_000, 48).astype(np.float16), normal(5, 48, seed=1)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    check(mapped, queries, 10, COSINE, "dot")


def test_rows_that_stand_apart_in_memory() -> None:
    wide = normal(500, 40)
    for vectors in (wide[:, :17], wide[::2], np.asfortranarray(wide), wide.astype(np.float64)):
        check(vectors, normal(5, vectors.shape[1], seed=1), 10, COSINE, "dot")


def test_agrees_with_the_full_search_of_the_library() -> None:
    vectors, queries = normal(8_000, 96), normal(120, 96, seed=1)
    found, expected = CertifiedScan.build(vectors).search(queries, 10), nearest(queries, vectors, 10)
    assert (found.indices == expected.indices).mean() > 0.999
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)


def test_many_threads_at_once() -> None:
    vectors, queries = normal(20_000, 64), normal(64, 64, seed=1)
    scan = CertifiedScan.build(vectors)
    expected = scan.search(queries, 10, workers=1)
    failed: list[int] = []

    def work(number: int) -> None:
        for i in range(20):
            one = (number * 7 + i) % 60
            part = scan.search(queries[one : one + 1 + number], 10, workers=1 + number % 2)
            if not np.array_equal(
                part.indices, expected.indices[one : one + 1 + number][: len(part.indices)]
            ):
                failed.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_changes_neither_vectors_nor_queries() -> None:
    vectors, queries = normal(200, 12), normal(5, 12, seed=1)
    kept = vectors.copy(), queries.copy()
    CertifiedScan.build(vectors).search(queries, 3)
    np.testing.assert_array_equal(vectors, kept[0])
    np.testing.assert_array_equal(queries, kept[1])


@pytest.mark.parametrize(("rule", "metric"), SPACES, ids=str)
def test_saved_and_loaded_it_answers_the_same(rule: CutRule, metric: str, tmp_path: Path) -> None:
    vectors, queries = normal(700, 33), normal(9, 33, seed=1)
    scan = CertifiedScan.build(vectors, rule=rule, metric=metric)
    scan.save(tmp_path)
    again = CertifiedScan.load(tmp_path, vectors)
    for confidence in (1.0, 0.9):
        one, other = (each.search(queries, 12, confidence=confidence) for each in (scan, again))
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(one.scores, other.scores)
    assert again.cost() == scan.cost()


def test_codes_of_other_vectors_are_refused(tmp_path: Path) -> None:
    vectors = normal(700, 33)
    CertifiedScan.build(vectors).save(tmp_path)
    for others in (
        normal(700, 33, seed=1),
        vectors[::-1].copy(),
        vectors[:-1],
        normal(700, 34),
        vectors[:, :20],
    ):
        with pytest.raises(ArtifactError):
            CertifiedScan.load(tmp_path, others)


@pytest.mark.parametrize(
    "name", [f"{name}.npy" for name in (*ARRAYS, "longest", "mean", "norms")] + ["certified.json"]
)
def test_torn_files_are_refused(name: str, tmp_path: Path) -> None:
    vectors = normal(300, 20)
    CertifiedScan.build(vectors).save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for torn in (b"", whole[: len(whole) // 2], None):
        (tmp_path / name).unlink(missing_ok=True)
        if torn is not None:
            (tmp_path / name).write_bytes(torn)
        with pytest.raises(ArtifactError):
            CertifiedScan.load(tmp_path, vectors)


def test_cost_counts_the_codes() -> None:
    cost = CertifiedScan.build(normal(1_600, 256)).cost()
    assert cost.size_bytes == 1_600 * (64 + 64 + 16 + 8)
    assert cost.output_bytes == 152
    assert cost.flops == 1_600 * 256


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metric": "cosin"}, ConfigError, "metric=.cosin. must be one of"),
        ({"code": "int5"}, ConfigError, "did you mean 'int4'"),
        ({"rule": CutRule(before="layer_norm")}, ConfigError, "rule.again"),
    ],
)
def test_options_that_are_not_possible(arguments: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        CertifiedScan.build(normal(10, 4), **arguments)


def test_vectors_that_cannot_be_used() -> None:
    zero = normal(10, 4)
    zero[3] = 0
    with pytest.raises(DataError, match="row 3 of vectors"):
        CertifiedScan.build(zero)
    bad = normal(10, 4)
    bad[2, 1] = np.nan
    with pytest.raises(DataError, match="row 2"):
        CertifiedScan.build(bad)
    for shape in ((0, 4), (4, 0), (4,)):
        with pytest.raises(DataError):
            CertifiedScan.build(np.zeros(shape, np.float32))
    with pytest.raises(DataError, match="16384 is the most"):
        CertifiedScan.build(np.ones((1, 16_385), np.float32))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, DataError, "choose k from 1 to 10"),
        ({"k": 11}, DataError, "among 10 rows"),
        ({"k": True}, DataError, "k=True"),
        ({"confidence": 0.5}, ConfigError, "confidence=0.5"),
        ({"confidence": 1.1}, ConfigError, "confidence=1.1"),
        ({"workers": 0}, ConfigError, "workers=0"),
        ({"allowed": np.ones(9, bool)}, DataError, "one boolean for each of the 10 rows"),
        ({"allowed": np.ones(10, int)}, DataError, "int64"),
        ({"queries": normal(2, 5)}, DataError, "5 entries a row, but 4"),
        ({"queries": np.zeros((1, 4), np.float32)}, DataError, "row 0 of queries"),
        ({"queries": np.full((1, 4), np.inf, np.float32)}, DataError, "infinity"),
    ],
)
def test_requests_that_cannot_be_met(arguments: dict, error: type, message: str) -> None:
    scan = CertifiedScan.build(normal(10, 4))
    with pytest.raises(error, match=message):
        scan.search(**{"queries": normal(2, 4, seed=1), "k": 3, **arguments})


def test_scores_beyond_float32_are_an_error_of_the_queries_that_ask() -> None:
    vectors = (np.random.default_rng(0).normal(size=(300, 8)) * 1e19).astype(np.float32)
    scan = CertifiedScan.build(vectors, rule=RAW)
    with pytest.raises(DataError, match=r"the scores of 2 rows \(0, 1\) of queries do not fit float32"):
        scan.search(vectors[:2], 3)
    small = vectors[:2] / 1e10
    expected = small.astype(np.float64) @ vectors.astype(np.float64).T
    assert np.array_equal(scan.search(small, 3).indices, np.argsort(-expected, axis=1)[:, :3])
