"""The index behaves as a dictionary of vectors that is searched exactly, whatever lies on the disk."""

from __future__ import annotations

import json
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nestling.cut import RAW, CutRule
from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError, StorageError
from nestling.search.exact.neighbours import nearest
from nestling.search.index.index import AdaptiveIndex
from nestling.search.plan.plan import Plan
from nestling.storage.artifact import MANIFEST
from nestling.testing import check_elastic
from nestling.vectors.stored import StoredVectors
from samples import examples, gaussian

DIM = 16
NESTING = "dim=4,8,16"
PLANS = ["flat@full", "int8@8 > rerank@full", "ivf4@8 > flat@16", "graph8@4 > rerank:fp16@full"]


vectors = partial(gaussian, dim=DIM)


def create(folder: Path, *args: Any, **options: Any) -> AdaptiveIndex:
    return AdaptiveIndex.create(folder, *args, **{"nesting": NESTING, **options})


def expected(rows: dict[Any, np.ndarray], queries: np.ndarray, k: int, dim: int = DIM) -> tuple[Any, Any]:
    """Ids and scores of an exact search among the rows of a dictionary."""
    names = np.array(list(rows))
    found = nearest(queries, np.stack(list(rows.values())), k, dim=dim)
    return names[found.indices], found.scores


def assert_holds(index: AdaptiveIndex, rows: dict[Any, np.ndarray]) -> None:
    """The index has exactly those rows, and finds each under its id at every size."""
    assert sorted(index.ids().tolist()) == sorted(rows)
    assert len(index) == len(rows)
    if not rows:
        return
    queries = np.stack(list(rows.values()))[:20]
    for dim in (4, 8, 16):
        hits = index.search(queries, k=min(3, len(rows)), at=dim)
        _, scores = expected(rows, queries, min(3, len(rows)), dim)
        np.testing.assert_allclose(hits.scores, scores, atol=1e-5)
        found = np.stack([[rows[name] for name in line] for line in hits.ids.tolist()])
        cosines = np.einsum(
            "qd,qkd->qk",
            *(
                part[..., :dim] / np.linalg.norm(part[..., :dim], axis=-1, keepdims=True)
                for part in (queries, found)
            ),
        )
        np.testing.assert_allclose(hits.scores, cosines, atol=1e-5)


STEP = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 40)),
    st.tuples(st.just("update"), st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True)),
    st.tuples(st.just("delete"), st.lists(st.integers(0, 60), max_size=30, unique=True)),
    st.tuples(st.sampled_from(["flush", "compact", "reopen"]), st.none()),
)


@settings(max_examples=examples(15), suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(STEP, max_size=12), text=st.booleans())
def test_any_history_of_changes(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, Any]], text: bool
) -> None:
    """Against a dictionary; batches of 30 rows and more are larger than the log, and become segments."""
    folder = tmp_path_factory.mktemp("history") / "index"
    name = (lambda number: f"doc {number}") if text else int
    index, rows, next_id = create(folder, dim=DIM, log_bytes=30 * DIM * 4), {}, 0
    for seed, (step, argument) in enumerate(steps):
        if step == "add":
            new = vectors(argument, seed)
            given = [name(next_id + 1000 + i) for i in range(argument)] if text else None
            names = index.add(new, given).tolist()
            assert not set(names) & set(rows)
            rows |= dict(zip(names, new, strict=True))
            next_id += argument
        elif step == "update":
            new, names = vectors(len(argument), seed), [name(number) for number in argument]
            index.update(new, names)
            rows |= dict(zip(names, new, strict=True))
        elif step == "delete":
            there = {name(number) for number in argument} & set(rows)
            assert index.delete([name(number) for number in argument], missing_ok=True) == len(there)
            rows = {key: row for key, row in rows.items() if key not in there}
        elif step == "reopen":
            index.close()
            index = AdaptiveIndex.open(folder, log_bytes=30 * DIM * 4)
        else:
            getattr(index, step)()
        assert_holds(index, rows)
    index.close()
    with AdaptiveIndex.open(folder, read_only=True) as reader:
        assert_holds(reader, rows)
        assert reader.verify().messages == ()


@pytest.mark.parametrize("plan", PLANS)
def test_a_plan_survives_saving_and_compaction(tmp_path: Path, plan: str) -> None:
    data = vectors(3000)
    with create(tmp_path / "index", data, plan=plan, log_bytes=1 << 14) as index:
        assert index.info().segments[0].plan == str(Plan.parse(plan).resolve(DIM))
        extra = vectors(700, 1)
        index.add(extra)
        index.delete(np.arange(0, 3000, 2))
        before = index.search(extra, k=1)
        assert (before.ids[:, 0] == np.arange(3000, 3700)).mean() > 0.9
        index.compact()
        assert [segment.rows for segment in index.info().segments] == [2200]
        assert index.info().deleted == 0
        after = index.search(extra, k=1)
        assert (after.ids[:, 0] == np.arange(3000, 3700)).mean() > 0.9
        assert not set(after.ids.ravel().tolist()) & set(range(0, 3000, 2))
        index.save(tmp_path / "copy")
    with AdaptiveIndex.load(tmp_path / "copy") as copy:
        np.testing.assert_array_equal(copy.search(extra, k=1).ids, after.ids)


def test_compaction_of_one_whole_segment_has_nothing_to_do(tmp_path: Path) -> None:
    with AdaptiveIndex.create(tmp_path / "index", vectors(300)) as index:
        before = index.info().generation
        index.compact()
        assert index.info().generation == before
        index.delete([3])
        index.compact()
        assert (index.info().deleted, index.info().segments[0].rows) == (0, 299)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("rule", [CutRule(), CutRule("layer_norm"), RAW], ids=str)
def test_the_laws_of_elastic_things(tmp_path: Path, plan: str, rule: CutRule) -> None:
    data = vectors(1500)
    with create(tmp_path / "index", data, plan=plan, rule=rule) as index:
        index.add(vectors(40, 1))
        index.delete(np.arange(0, 1500, 3))
        check_elastic(index, vectors(5, 2))


def test_the_law_holds_for_what_was_extracted(tmp_path: Path) -> None:
    queries = vectors(5, 2)
    with (
        create(tmp_path / "index", vectors(1200), rule=CutRule("layer_norm")) as index,
        index.extract(8, tmp_path / "small") as small,
    ):
        assert small.nesting.full["dim"] == 8
        assert small.rule == CutRule()
        check_elastic(small, queries)
        twice = small.extract(4)
        np.testing.assert_array_equal(twice.search(queries).ids, index.search(queries, at=4).ids)
        twice.close()
        assert not twice.folder.exists()


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_scores_of_a_metric_merge(tmp_path: Path, metric: Any) -> None:
    data, queries = vectors(2000), vectors(7, 3)
    with create(tmp_path / "index", data[:1500], metric=metric, rule=RAW) as index:
        index.add(data[1500:])
        for dim in (4, 16):
            hits = index.search(queries, 20, at=dim)
            truth = nearest(queries, data, 20, dim=dim, rule=RAW, metric=metric)
            np.testing.assert_array_equal(hits.ids, truth.indices)
            np.testing.assert_allclose(hits.scores, truth.scores, rtol=1e-4, atol=1e-4)


def test_filters(tmp_path: Path) -> None:
    data, queries = vectors(1500), vectors(5, 3)
    with create(tmp_path / "index", data[:1200]) as index:
        index.add(data[1200:])
        index.delete([7])
        chosen = np.array([3, 7, 40, 1300, 1400, 10**6])
        there = [3, 40, 1300, 1400]
        flags = np.zeros(1350, bool)
        flags[[3, 7, 40, 1300]] = True
        for given, allowed in ((chosen, there), (set(chosen.tolist()), there), (flags, there[:3])):
            hits = index.search(queries, 6, filter=given)
            truth = nearest(queries, data[allowed], len(allowed))
            np.testing.assert_array_equal(hits.ids[:, : len(allowed)], np.array(allowed)[truth.indices])
            assert (hits.ids[:, len(allowed) :] == -1).all()
            assert np.isnan(hits.scores[:, len(allowed) :]).all()
        assert (index.search(queries, 2, filter=[]).ids == -1).all()
        with pytest.raises(DataError, match="whole numbers, but strings"):
            index.search(queries, filter=["a"])
    with create(tmp_path / "named", data[:3], ["a", "b", "c"]) as index:
        assert index.search(data[:1], 3, filter={"b", "c"}).ids[0].tolist()[2] == ""
        index.add(data[3:5], ["0", "e"])
        index.update(data[:1], ["a"])  # it goes to the end
        flags = np.isin(index.ids(), ["0", "a", "c"])
        hits, same = index.search(queries, 4, filter=flags), index.search(queries, 4, filter=["0", "a", "c"])
        np.testing.assert_array_equal(hits.ids, same.ids)
        assert set(hits.ids[0].tolist()) == {"0", "a", "c", ""}
        for wrong in (flags[:3], flags[None]):
            with pytest.raises(DataError, match=r"for each of the 5 rows, in the order of ids\(\).*where="):
                index.search(queries, filter=wrong)


def test_a_closed_index_is_refused_and_says_so(tmp_path: Path) -> None:
    index = create(tmp_path / "index", vectors(3), plan="flat@full")
    reader = AdaptiveIndex.open(tmp_path / "index", read_only=True)
    for each in (index, reader):
        assert "3 rows of" in repr(each)
        assert f"plan '{each.plan}'" in repr(each)
        assert str(each.folder) in repr(each)
        each.close()
        each.close()
        assert "closed" in repr(each)
        for use in (each.ids, each.verify, each.rows, lambda each=each: each.search(vectors(1))):
            with pytest.raises(StorageError, match="was closed; open it again"):
                use()
        assert (len(each), each.info().rows, each.dim) == (3, 3, DIM)


def test_more_rows_are_asked_for_than_there_are(tmp_path: Path) -> None:
    with create(tmp_path / "index", vectors(3)) as index:
        hits = index.search(vectors(2, 1), 5)
        assert hits.ids.shape == (2, 5)
        assert ((hits.ids == -1) == (np.arange(5) >= 3)).all()
        index.delete([0, 1, 2])
        assert (index.search(vectors(2, 1), 5).ids == -1).all()
        assert len(index) == 0
        index.compact()
        assert index.info().segments == ()
        assert index.add(vectors(1)).tolist() == [3], "a number is never used twice"


def test_queries_of_another_width(tmp_path: Path) -> None:
    with create(tmp_path / "index", vectors(50)) as index:
        query = vectors(4, 1)
        np.testing.assert_array_equal(index.search(query[:, :8], at=8).ids, index.search(query, at=8).ids)
        with pytest.raises(DataError, match="8 entries, but this index takes 4 or 16"):
            index.search(query[:, :8], at=4)
        with pytest.raises(DataError, match="10 entries"):
            index.search(query[:, :10])
    with (
        create(tmp_path / "layer", vectors(50), rule=CutRule("layer_norm")) as index,
        pytest.raises(DataError, match="takes 16 "),
    ):
        index.search(vectors(1)[:, :8], at=8)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_vectors_that_cannot_be_used(tmp_path: Path, bad: float) -> None:
    broken = vectors(9)
    broken[4, 2] = bad
    with pytest.raises(DataError, match="row 4"):
        create(tmp_path / "index", broken)
    assert not (tmp_path / "index").exists()
    with create(tmp_path / "index", vectors(5)) as index:
        for use in (index.add, index.search):
            with pytest.raises(DataError, match="row 4"):
                use(broken)
        zero = vectors(9)
        zero[3, :4] = 0
        for use in (index.add, index.search):
            with pytest.raises(DataError, match="first 4 entries of row 3"):
                use(zero)
        with pytest.raises(DataError, match="row 2 holds numbers too large"):
            index.add(np.where(np.arange(9)[:, None] == 2, 1e200, vectors(9).astype(np.float64)))
        with pytest.raises(DataError, match="12 entries a row, but 16"):
            index.add(vectors(2)[:, :12])
        with pytest.raises(DataError, match="must be floats"):
            index.add(np.array([["a"] * 16]))
        with pytest.raises(DataError, match="matrix"):
            index.add(vectors(1)[0])
        assert len(index) == 5


def test_float64_and_strided_vectors_are_taken(tmp_path: Path) -> None:
    wide = vectors(40, dim=32).astype(np.float64)
    with create(tmp_path / "index", wide[:, ::2]) as index:
        index.add(np.asfortranarray(wide[:, 1::2]))
        assert index.search(wide[:, ::2], 1).ids[:, 0].tolist() == list(range(40))
        assert index.search(np.asfortranarray(wide[:, 1::2]), 1).ids[:, 0].tolist() == list(range(40, 80))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1, 1, 2], "id 1 occurs more than once"),
        ([1, 2], "2 ids are given for 3 rows"),
        ([1, 2, -3], "0 to 2"),
        ([1, 2, 2**63 - 1], "0 to 2"),
        (["a", "b", ""], "row 2 has 0"),
        (["a", "b", "c" * 257], "row 2 has 257"),
        (["a", "b", "c\0"], "null"),
        (["a", 1, 2], "some of each"),
        ([0.5, 1.0, 2.0], "whole numbers or of strings"),
        ([None, None, None], "whole numbers or of strings"),
        (np.zeros((3, 1), int), "of shape"),
        ([True, False, True], "whole numbers or strings, not bool"),
    ],
)
def test_ids_that_cannot_be_used(tmp_path: Path, ids: Any, message: str) -> None:
    with create(tmp_path / "index", dim=DIM) as index:
        with pytest.raises(DataError, match=message):
            index.add(vectors(3), ids)
        assert len(index) == 0
    with pytest.raises(DataError, match=message):
        create(tmp_path / "other", vectors(3), ids)


def test_ids_that_are_taken_or_missing(tmp_path: Path) -> None:
    with create(tmp_path / "index", vectors(10)) as index:
        with pytest.raises(DataError, match="id 3 is in the index already; replace rows with update"):
            index.add(vectors(2), [3, 50])
        with pytest.raises(DataError, match="id 50 is not in the index, so nothing was deleted"):
            index.delete([3, 50])
        with pytest.raises(DataError, match="update needs the ids"):
            index.update(vectors(1), None)
        with pytest.raises(DataError, match="whole numbers, but strings"):
            index.update(vectors(1), ["a"])
        with pytest.raises(DataError, match="whole numbers, but strings"):
            index.delete(["a"])
        assert [len(index), 3 in index, 50 in index] == [10, True, False]
    with create(tmp_path / "named", vectors(1), ["a"]) as index:
        with pytest.raises(DataError, match="strings as ids; give one"):
            index.add(vectors(1))
        assert "a" in index


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"plan": "flat@32"}, ConfigError, "choose 1 to 16"),
        ({"plan": "pq5x8@16"}, ConfigError, "divisor"),
        ({"plan": "flat@8 > rerank@4"}, ConfigError, "re-rank by longer prefixes"),
        ({"plan": "ivf@8"}, ConfigError, "cannot be read"),
        ({"plan": "ivf64@8 > flat@8"}, ConfigError, "there are 20; choose fewer lists"),
        ({"plan": "pq4x4@8 > rerank@16"}, ConfigError, "sizes below cannot be searched"),
        ({"metric": "manhattan"}, ConfigError, "metric=.manhattan. must be one of"),
        ({"nesting": "dim=4,8"}, GranularityError, "must end at 16"),
        ({"nesting": "dim=4,32"}, GranularityError, "up to dim=32"),
        ({"nesting": "layer=1,2"}, GranularityError, "the axis dim, not layer"),
        ({"dim": 12}, DataError, "12 are expected"),
    ],
)
def test_an_index_that_cannot_be_made(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        create(tmp_path / "index", vectors(20), **options)
    assert not (tmp_path / "index").exists()


def test_sizes_and_counts_outside_are_refused(tmp_path: Path) -> None:
    with create(tmp_path / "index", vectors(20)) as index:
        for use in (index.search, index.extract, index.cost):
            with pytest.raises(GranularityError, match="nearest valid granularity"):
                use(*((vectors(1),) if use == index.search else ()), **({"at": 5}))
        for k in (0, -1, 1.5, True):
            with pytest.raises(ConfigError, match=r"k.* must be a whole number from 1"):
                index.search(vectors(1), k)
        for point, message in (
            ("probe=3", "unknown parameter"),
            ("nprobe=3", "reads no lists"),
            ("ef=3", "searches no graph"),
            ("shortlist=20", "re-ranks 0 times"),
        ):
            with pytest.raises(ConfigError, match=message):
                index.search(vectors(1), point=point)
    with pytest.raises(ConfigError, match="log_bytes=0"):
        create(tmp_path / "other", dim=DIM, log_bytes=0)
    assert not (tmp_path / "other").exists()
    with pytest.raises(ConfigError, match="give dim="):
        AdaptiveIndex.create(tmp_path / "none")


def test_folders_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ArtifactError, match="not empty"):
        create(tmp_path / "mine", vectors(3))
    create(tmp_path / "index", vectors(3)).close()
    with pytest.raises(ArtifactError, match="not empty"):
        create(tmp_path / "index", vectors(3))
    with AdaptiveIndex.open(tmp_path / "index") as index, pytest.raises(ArtifactError, match="not empty"):
        index.save(tmp_path / "mine")
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_an_interrupted_build_is_taken_up_again(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    (folder / "segments" / "00000001").mkdir(parents=True)
    (folder / "segments" / "00000001" / "vectors.npy").write_bytes(b"half")
    with pytest.raises(ArtifactError, match="not a folder saved by nestling"):
        AdaptiveIndex.open(folder, read_only=True)
    with create(folder, vectors(30)) as index:
        assert len(index) == 30


def test_identity_is_asked_for(tmp_path: Path) -> None:
    create(tmp_path / "index", vectors(3), encoder="minilm").close()
    AdaptiveIndex.open(tmp_path / "index", encoder="minilm", rule=CutRule()).close()
    with pytest.raises(ConfigError, match=r"'minilm', not of 'wordllama'.*nestling index build"):
        AdaptiveIndex.open(tmp_path / "index", encoder="wordllama")
    with pytest.raises(ConfigError, match=r"built with .*nestling index build"):
        AdaptiveIndex.open(tmp_path / "index", rule=RAW, read_only=True)
    AdaptiveIndex.open(tmp_path / "index").close()  # a refused call holds no lock


def test_stored_vectors_say_what_they_are(tmp_path: Path) -> None:
    stored = StoredVectors(vectors(9), NESTING, RAW, ids=list("abcdefghi"), encoder="wordllama")
    with AdaptiveIndex.create(tmp_path / "index", stored) as index:
        info = index.info()
        assert (info.encoder, info.nesting, index.rule, info.id_kind) == ("wordllama", NESTING, RAW, "str")
        assert json.dumps(info.to_json())
        index.write_table([{"recall": 0.9, "point": "nprobe=3"}])
    with AdaptiveIndex.open(tmp_path / "index", read_only=True) as index:
        assert index.table == ({"recall": 0.9, "point": "nprobe=3"},)
        with pytest.raises(StorageError, match="read-only"):
            index.add(vectors(1), ["j"])


def test_there_is_one_writer(tmp_path: Path) -> None:
    index = create(tmp_path / "index", vectors(30))
    with pytest.raises(StorageError, match="open for writing already, by process"):
        AdaptiveIndex.open(tmp_path / "index")
    reader = AdaptiveIndex.open(tmp_path / "index", read_only=True)
    assert not reader.refresh()
    index.add(vectors(5, 1))
    index.delete([0])
    index.compact()
    assert [len(reader), 0 in reader] == [30, True]
    assert reader.search(vectors(1), 1).ids[0, 0] == 0, "a snapshot outlives its files"
    assert reader.refresh()
    assert len(reader) == 34
    index.close()
    with pytest.raises(StorageError, match="was closed"):
        index.add(vectors(1))
    AdaptiveIndex.open(tmp_path / "index").close()
    for path, message in (
        (tmp_path / "missing", "does not exist"),
        (tmp_path, "not a folder saved by nestling"),
    ):
        with pytest.raises(ArtifactError, match=message):
            AdaptiveIndex.open(path)
    assert not (tmp_path / "missing").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_threads_read_while_one_writes(tmp_path: Path) -> None:
    """Rows are replaced in pairs at once; every search finds both of a pair as they are, or as they were."""
    base = vectors(400)
    index = create(tmp_path / "index", np.repeat(base, 2, axis=0), log_bytes=1 << 13)
    stop, problems = threading.Event(), []

    def read(seed: int) -> None:
        generator = np.random.default_rng(seed)
        while not stop.is_set():
            row = int(generator.integers(400))
            hits = index.search(base[row : row + 1], 2)
            pair = set(hits.ids[0].tolist())
            if hits.scores[0, 0] - hits.scores[0, 1] > 1e-5 or len({name // 2 for name in pair}) > 1:
                problems.append((row, hits))

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(3)]
    for reader in readers:
        reader.start()
    for step in range(12):
        rows = np.random.default_rng(step).choice(400, size=20, replace=False)
        new = vectors(20, step + 100)
        index.update(np.repeat(new, 2, axis=0), np.stack([2 * rows, 2 * rows + 1], axis=1).ravel())
        base[rows] = new
        if step % 6 == 5:
            index.compact()
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []
    assert len(index) == 800
    index.close()


def test_readers_open_while_one_writes(tmp_path: Path) -> None:
    """As other processes do: each sees one generation whole, in which rows come and go in pairs."""
    base = np.repeat(vectors(300), 2, axis=0)
    index = create(tmp_path / "index", base, log_bytes=1 << 12)
    stop = threading.Event()

    def write() -> None:
        step = 0
        while not stop.is_set():
            step += 1
            rows = np.random.default_rng(step).choice(300, size=9, replace=False)
            pairs = np.stack([2 * rows, 2 * rows + 1], axis=1).ravel()
            index.update(np.repeat(vectors(9, step), 2, axis=0), pairs)
            if step % 3 == 0:
                index.compact()

    writer = threading.Thread(target=write)
    writer.start()
    kept = AdaptiveIndex.open(tmp_path / "index", read_only=True)
    try:
        for _ in range(15):
            kept.refresh()
            for reader in (kept, AdaptiveIndex.open(tmp_path / "index", read_only=True)):
                hits = reader.search(vectors(4, 5), 2)
                np.testing.assert_array_equal(hits.ids[:, 0] // 2, hits.ids[:, 1] // 2)
                assert len(reader) == 600
    finally:
        stop.set()
        writer.join()
        index.close()


def test_a_point_reaches_what_was_extracted(tmp_path: Path) -> None:
    data = vectors(1500)
    with create(tmp_path / "index", data, plan="ivf8@4 > int8@8 > rerank@full") as index:
        index.add(vectors(5, 1))
        with index.extract(8) as small:
            for options in ({}, {"point": "nprobe=8,shortlist=300"}):
                whole, part = (
                    index.search(data[:50], 3, at=8, **options),
                    small.search(data[:50], 3, **options),
                )
                np.testing.assert_array_equal(whole.ids, part.ids)
                np.testing.assert_allclose(whole.scores, part.scores, atol=1e-5)
            assert part.ids[:, 0].tolist() == list(range(50))
        with pytest.raises(ConfigError, match="2 shortlists, and"):
            index.search(data[:1], point="nprobe=8,shortlist=300/20")


def test_segments_stay_few(tmp_path: Path) -> None:
    with create(tmp_path / "index", dim=DIM, log_bytes=16 * DIM * 4) as index:
        for step in range(30):
            index.add(vectors(8, step))
        segments = index.info().segments
        assert len(index) == 240
        assert len(segments) < 6
        for step in range(8):  # more than a log each
            index.add(vectors(17, step))
        assert len(index.info().segments) < 7
        index.flush()
        generation = index.info().generation
        index.flush()
        assert index.info().generation == generation, "nothing to write"
        named = {path.name for path in (tmp_path / "index" / "segments").iterdir()}
        assert named == {segment.name for segment in index.info().segments}


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "index", vectors(3)).close()
    path = tmp_path / "index" / MANIFEST
    raw = json.loads(path.read_text())
    path.write_text(json.dumps({**raw, "schema_version": 99}))
    with pytest.raises(ArtifactError, match="pip install -U nestling"):
        AdaptiveIndex.open(tmp_path / "index")
