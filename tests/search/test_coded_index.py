"""An index that keeps codes: what it holds, finds and extracts are those of the decoded slices."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule, cut
from nestling.errors import ConfigError, DataError, GranularityError
from nestling.granularity import Nesting
from nestling.search.exact.neighbours import nearest
from nestling.search.index.index import AdaptiveIndex
from nestling.search.stores import open_store, read_store
from nestling.search.stores.migrate import export_index
from nestling.search.tuning.planner import build, candidate_plans, compare_with_exact, retune
from nestling.testing import check_elastic
from nestling.vectors.stored import StoredVectors
from samples import examples

DIM, ROWS = 36, 900
SIZES = "dim=12,20,36"
SPACES = [(CutRule(), "dot"), (RAW, "dot"), (RAW, "euclidean"), (CutRule("layer_norm"), "euclidean")]


def drawn(rows: int, seed: int, dim: int = DIM) -> np.ndarray:
    """Clusters away from zero, whose later entries are smaller."""
    draw = np.random.default_rng(seed)
    centres = np.random.default_rng(9).normal(size=(40, dim))
    x = centres[draw.integers(40, size=rows)] + draw.normal(size=(rows, dim)) + 0.3
    return (x / np.sqrt(np.arange(1, dim + 1))).astype(np.float32)


VECTORS, QUERIES = drawn(ROWS, 0), drawn(9, 1)
create = partial(AdaptiveIndex.create, nesting=SIZES)


def expected(index: AdaptiveIndex, rows: dict[Any, np.ndarray], queries: np.ndarray, at: Any, k: int) -> Any:
    """Exact search over what a code holds of whole vectors at one size: ids and scores."""
    g, rule = index.nesting.resolve(at), index.rule
    held = cut(np.stack(list(rows.values())), g["dim"], rule, bits=g["bits"])
    asked = cut(queries, g["dim"], rule.without_code)
    found = nearest(asked, held, k, rule=RAW, metric=index.metric)
    return held, asked, np.array(list(rows))[found.indices], found.scores


def assert_exact(index: AdaptiveIndex, rows: dict[Any, np.ndarray], at: Any, k: int = 5) -> None:
    """The scores are those of an exact search, and each row that is found has its own."""
    hits = index.search(QUERIES, k, at=at)
    held, asked, _, scores = expected(index, rows, QUERIES, at, k)
    np.testing.assert_allclose(hits.scores, scores, rtol=2e-5, atol=2e-5)
    places = {name: place for place, name in enumerate(rows)}
    found = held[[[places[name] for name in line] for line in hits.ids.tolist()]]
    own = np.einsum("qd,qkd->qk", asked, found)
    if index.metric == "euclidean":
        own = np.linalg.norm(asked[:, None] - found, axis=2)
    np.testing.assert_allclose(hits.scores, own, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(("rule", "metric"), SPACES)
def test_every_size_finds_what_the_decoded_slice_finds(tmp_path: Path, rule: CutRule, metric: Any) -> None:
    with create(tmp_path / "index", VECTORS, at="bits=4", rule=rule, metric=metric) as index:
        assert str(index.nesting) == "dim=12,20,36 x bits=1,2,3,4"
        index.add(drawn(50, 2))
        index.delete(np.arange(0, 900, 3))
        rows = dict(enumerate(np.concatenate([VECTORS, drawn(50, 2)])))
        rows = {name: row for name, row in rows.items() if name >= ROWS or name % 3}
        for at in index.nesting:
            assert_exact(index, rows, at)


@pytest.mark.parametrize(("rule", "metric"), SPACES)
@pytest.mark.parametrize("plan", [None, "bits1@full > rerank:bits8@full", "bits2@20 > rerank:bits4@full"])
def test_answers_stay_when_the_log_becomes_a_segment(
    tmp_path: Path, rule: CutRule, metric: Any, plan: str | None
) -> None:
    """To the last bit, as both are scored by the same code."""
    options: Any = {"at": "bits=8", "rule": rule, "metric": metric, "plan": plan}
    with create(tmp_path / "index", VECTORS[:300], **options) as index:
        index.add(VECTORS[300:])
        index.update(drawn(3, 5), [4, 30, 50])
        index.delete([6, 60])
        wanted = ["full", "dim=12,bits=1", "dim=36,bits=3"]
        before = [index.search(QUERIES, 7, at=at, point=_all(index)) for at in wanted]
        index.compact()
        for at, first in zip(wanted, before, strict=True):
            again = index.search(QUERIES, 7, at=at, point=_all(index))
            np.testing.assert_array_equal(again.scores, first.scores)
            np.testing.assert_array_equal(np.sort(again.ids), np.sort(first.ids))


def _all(index: AdaptiveIndex) -> str | None:
    """The point that re-ranks every row."""
    return f"shortlist={ROWS}" if index.plan.reranks else None


def test_an_index_of_codes_keeps_the_laws(tmp_path: Path) -> None:
    with create(tmp_path / "index", VECTORS, at="bits=4") as index:
        check_elastic(index, QUERIES)


@pytest.mark.parametrize("at", ["dim=36,bits=8", "dim=20,bits=2", "dim=12,bits=1", "dim=20,bits=3"])
def test_the_extracted_index_answers_as_the_whole_one_there(tmp_path: Path, at: str) -> None:
    fields = {"year": np.arange(ROWS)}
    with create(tmp_path / "index", VECTORS, at="bits=8", fields=fields, rule=CutRule("layer_norm")) as index:
        index.add(drawn(40, 2), fields={"year": np.arange(40)})
        index.delete([1, 2, 905])
        with index.extract(at, tmp_path / "small") as small:
            for where in (None, "year<20"):
                one, other = (
                    index.search(QUERIES, 6, at=at, where=where),
                    small.search(QUERIES, 6, where=where),
                )
                np.testing.assert_array_equal(other.ids, one.ids)
                np.testing.assert_array_equal(other.scores, one.scores)
            # Both take whole vectors, and hold the same of them.
            for each in (index, small):
                each.add(drawn(5, 8), fields={"year": [2000] * 5})
            one, other = index.search(QUERIES, 6, at=at), small.search(QUERIES, 6)
            np.testing.assert_array_equal(other.scores, one.scores)
            with pytest.raises(DataError, match="20 entries a row, but 36 are expected"):
                small.add(drawn(5, 8, 20), fields={"year": [2000] * 5})
    g = index.nesting.resolve(at)
    assert small.info().size_bytes < index.info().size_bytes or at == "dim=36,bits=8"
    assert small.nesting.full == g


def test_no_floats_are_on_the_disk_or_in_the_log(tmp_path: Path) -> None:
    with create(tmp_path / "index", VECTORS, at="dim=20,bits=2") as index:
        index.add(drawn(100, 2))
        files = {path.name: path.stat().st_size for path in (tmp_path / "index").rglob("*") if path.is_file()}
        assert not [name for name in files if name.startswith("vectors")]
        row = 2 * 3  # two planes of 20 entries
        assert files["plane1.npy"] == files["plane2.npy"] < ROWS * 3 + 200
        assert files["log-00000001"] < 100 * (row + 8) + 200
        assert index.cost().output_bytes == row
        assert index.info().kept_bytes == ROWS * (row + 4) + 100 * row
        with AdaptiveIndex.create(tmp_path / "floats", VECTORS[:, :20]) as floats:
            assert floats.info().size_bytes / ROWS > 4 * 20 > 4 * index.info().size_bytes / ROWS


STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 40)),
    st.tuples(st.just("update"), st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True)),
    st.tuples(st.just("delete"), st.lists(st.integers(0, 60), max_size=30, unique=True)),
    st.tuples(st.sampled_from(["flush", "compact", "reopen", "fields"]), st.none()),
)
CODE = CutRule().calibrated(VECTORS)


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, max_size=12), at=st.sampled_from(["bits=8", "dim=20,bits=2", "dim=12,bits=1"]))
def test_any_history_of_changes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], at: str
) -> None:
    """Against a dictionary of floats that are coded in one go."""
    folder, log_bytes = tmp_path_factory.mktemp("history") / "index", 30 * DIM * 4
    options: Any = {"dim": DIM, "rule": CODE, "at": at, "kinds": {"n": "int"}, "log_bytes": log_bytes}
    index = create(folder, **options)
    rows: dict[int, np.ndarray] = {}
    for seed, (step, argument) in enumerate(steps):
        if step == "add":
            new = drawn(argument, seed)
            rows |= dict(zip(index.add(new).tolist(), new, strict=True))
        elif step == "update":
            new = drawn(len(argument), seed)
            index.update(new, argument)
            rows |= dict(zip(argument, new, strict=True))
        elif step == "delete":
            index.delete(argument, missing_ok=True)
            rows = {key: row for key, row in rows.items() if key not in argument}
        elif step == "reopen":
            index.close()
            index = AdaptiveIndex.open(folder, log_bytes=log_bytes)
        elif step == "fields":
            if rows:
                index.update(None, list(rows), fields={"n": [seed] * len(rows)})
        else:
            getattr(index, step)()
        _assert_holds(index, rows)
    index.close()
    with AdaptiveIndex.open(folder, read_only=True) as reader:
        _assert_holds(reader, rows)
        assert reader.verify().messages == ()


def _assert_holds(index: AdaptiveIndex, rows: dict[int, np.ndarray]) -> None:
    assert sorted(index.ids().tolist()) == sorted(rows)
    if not rows:
        return
    g = index.nesting.full
    held = index.vectors_of(list(rows))
    wanted = CODE.needed_code.decode(CODE.encode(np.stack(list(rows.values())), g["dim"]), g["bits"])
    np.testing.assert_array_equal(held, wanted)
    names, blocks, _ = index.rows()
    np.testing.assert_array_equal(np.concatenate(list(blocks)), index.vectors_of(names))
    assert_exact(index, rows, "full", k=min(3, len(rows)))


def test_stored_codes_are_kept_as_they_are(tmp_path: Path) -> None:
    """Decoding and coding again would change them, as they are not of unit length."""
    stored = StoredVectors(VECTORS, SIZES, ids=[f"v{i}" for i in range(ROWS)], encoder="m").calibrated()
    small = stored.extract("dim=20,bits=4", tmp_path / "codes")
    with AdaptiveIndex.create(tmp_path / "index", small) as index:
        assert index.nesting == small.nesting
        assert index.encoder == "m"
        np.testing.assert_array_equal(np.concatenate(list(index.rows().blocks)), np.asarray(small.values))
        index.add(VECTORS[:3], ["a", "b", "c"])
        np.testing.assert_array_equal(index.vectors_of(["a", "b", "c"]), index.vectors_of(["v0", "v1", "v2"]))
    with AdaptiveIndex.create(tmp_path / "fewer", small, at="dim=12,bits=1") as fewer:
        assert str(fewer.nesting.full) == "dim=12,bits=1"
        np.testing.assert_array_equal(
            np.asarray(small.extract("dim=12,bits=1").values), fewer.vectors_of(small.ids)
        )
    with pytest.raises(GranularityError, match="bits=8"):
        AdaptiveIndex.create(tmp_path / "more", small, at="bits=8")


def test_the_code_of_a_rule_is_taken_over(tmp_path: Path) -> None:
    rule = CutRule().calibrated(drawn(2000, 7), encoder="m")
    with create(tmp_path / "index", VECTORS, at="bits=2", rule=rule, encoder="m") as index:
        assert index.rule.code == rule.code
    with create(tmp_path / "part", VECTORS, at="dim=12,bits=2", rule=rule, encoder="m") as index:
        assert rule.code is not None
        assert index.rule.code == rule.code.cut(12)
        index.search(QUERIES)
        index.search(QUERIES[:, :12])
    with AdaptiveIndex.open(tmp_path / "part", rule=CutRule(), encoder="m") as index:
        assert index.rule.code == rule.code.cut(12)


def test_floats_of_fewer_dims(tmp_path: Path) -> None:
    with create(tmp_path / "index", VECTORS, at="dim=20", rule=CutRule("layer_norm")) as index:
        index.add(drawn(5, 3))
        whole = np.concatenate([VECTORS, drawn(5, 3)])
        wanted = nearest(QUERIES, whole, 4, dim=20, rule=CutRule("layer_norm"))
        found = index.search(QUERIES, 4)
        np.testing.assert_array_equal(found.ids, wanted.indices)
        assert index.nesting.full["dim"] == 20


def test_a_reader_follows_a_writer(tmp_path: Path) -> None:
    index, folder = create(tmp_path / "index", VECTORS, at="bits=2"), tmp_path / "index"
    with index, AdaptiveIndex.open(folder, read_only=True) as reader:
        for change in (lambda: index.add(drawn(10, 3)), index.flush, index.compact):
            change()
            assert reader.refresh()
            found, wanted = (each.search(QUERIES, at="dim=12,bits=1") for each in (reader, index))
            np.testing.assert_array_equal(found.scores, wanted.scores)


@pytest.mark.parametrize("few", [True, False])
def test_filters(tmp_path: Path, few: bool) -> None:
    allowed = np.arange(ROWS) % (100 if few else 2) == 0
    with create(tmp_path / "index", VECTORS, at="bits=4", fields={"n": np.arange(ROWS) % 100}) as index:
        for filter_ in (allowed, np.flatnonzero(allowed)):
            hits = index.search(QUERIES, 12, filter=filter_, at="dim=20,bits=2")
            rows = {int(name): VECTORS[name] for name in np.flatnonzero(allowed)}
            count = min(12, len(rows))
            *_, scores = expected(index, rows, QUERIES, "dim=20,bits=2", count)
            np.testing.assert_allclose(hits.scores[:, :count], scores, rtol=1e-5)
            assert (hits.ids[:, count:] == -1).all()
        hits = index.search(QUERIES, 3, where="n=7")
        assert (hits.ids % 100 == 7).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"at": "bits=4", "plan": "flat@full"}, ConfigError, r"flat@36 needs floats.*rerank:bits4@full"),
        ({"at": "bits=4", "plan": "graph8@full > rerank@full"}, ConfigError, "graph8@36 needs floats"),
        ({"at": "bits=4", "plan": "bits2@full > rerank@full"}, ConfigError, "rerank@36 needs floats"),
        ({"at": "bits=4", "plan": "bits2@full > rerank:bits8@full"}, ConfigError, "held in 4"),
        ({"at": "bits=16"}, ConfigError, "floats of 32 bits, or codes of 1, 2, 3, 4, 8, not of 16"),
        ({"at": "bits=5"}, GranularityError, "bits=5 is no precision"),
        ({"at": "dim=13,bits=4"}, GranularityError, "nearest valid granularity"),
        ({"at": "layer=3"}, GranularityError, "no axis 'layer'"),
        ({"at": "dim=20,bits=4", "nesting": "dim=12,36"}, GranularityError, "dim=20"),
    ],
)
def test_what_codes_cannot_do_is_refused(tmp_path: Path, options: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        AdaptiveIndex.create(tmp_path / "index", StoredVectors(VECTORS, SIZES), **options)
    assert not (tmp_path / "index").exists()


def test_codes_need_a_calibration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no vectors yet.*calibrated\(sample\)"):
        AdaptiveIndex.create(tmp_path / "index", dim=DIM, at="bits=2")
    with create(tmp_path / "floats", VECTORS) as index, pytest.raises(GranularityError, match='at="bits=2"'):
        index.search(QUERIES, at="bits=2")
    with create(tmp_path / "codes", VECTORS, at="bits=2") as index:
        with pytest.raises(GranularityError, match="bits=2"):
            index.search(QUERIES, at="bits=4")
        with pytest.raises(DataError, match="all zero"):
            index.add(np.zeros((1, DIM)))


def test_the_planner_chooses_among_slices_of_the_code(tmp_path: Path) -> None:
    vectors = drawn(3000, 4)
    with build(tmp_path / "index", vectors, at="bits=4", recall=0.9, nesting=SIZES) as index:
        index.plan.check_held(4)
        assert str(index.nesting) == "dim=12,20,36 x bits=1,2,3,4"
        assert {row["plan"] for row in index.table} <= {
            str(plan.resolve(DIM)) for plan in candidate_plans(3000, (12, 20, 36), held=4)
        } | {str(plan) for plan in candidate_plans(3000, (12, 20, 36), held=4)}
        assert not list((tmp_path / "index").rglob("vectors.npy"))
        recall, *_ = compare_with_exact(index, QUERIES)
        assert recall > 0.8
        retune(index, k=5, recall=0.9)
        assert index.table


def test_an_export_has_the_decoded_vectors(tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    with create(tmp_path / "index", VECTORS, at="dim=20,bits=4", fields={"n": np.arange(ROWS)}) as index:
        export_index(index, f"lancedb://{tmp_path}/items")
        wanted = index.vectors_of(np.arange(ROWS))
    store = open_store(f"lancedb://{tmp_path}/items")
    back = read_store(store, tmp_path / "back")
    store.close()
    assert back.ids is not None
    order = np.argsort(back.ids)
    np.testing.assert_allclose(cut(np.asarray(back.values)[order], 20), cut(wanted, 20), atol=1e-6)


def test_a_model_is_not_cut_in_bits() -> None:
    """What ``curve.choose()`` gives may name bits, and a model computes floats."""
    with pytest.raises(GranularityError, match=r"Collection\.create.*bits=2.*stored\.calibrated\(\).*model"):
        Nesting.parse("dim=12,20,36").resolve("dim=20,bits=2")
