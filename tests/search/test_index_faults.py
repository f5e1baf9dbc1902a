"""Kills, damaged files and failing writes: small runs of what benchmarks/faults does in full."""

from __future__ import annotations

import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest

from nestling.errors import ArtifactError, StorageError
from nestling.search.index import commit, writer
from nestling.search.index import create as creation
from nestling.search.index.files import manifest, segments
from nestling.search.index.index import AdaptiveIndex
from samples import gaussian

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "faults"))

import crashes
import failing_writes
import mutants
import power_cuts

sys.path.pop(0)

DIM = 8


vectors = partial(gaussian, dim=DIM)


@pytest.mark.parametrize(("kills", "seed"), [(10, 0), (5, 2)], ids=["floats", "codes"])
def test_a_killed_writer_loses_nothing(tmp_path: Path, kills: int, seed: int) -> None:
    results = list(crashes.kill_many(tmp_path, kills, seed, per_folder=5))
    assert [kill for kill in results if kill.problems] == []
    assert max(kill.acknowledged for kill in results) > 2


def test_the_crash_test_sees_what_is_missing(tmp_path: Path) -> None:
    """Of a history of three operations the index has two: acknowledged as one, two or three."""
    steps = crashes.history(seed=1)
    first, second = next(steps)[0], next(steps)[0]
    with AdaptiveIndex.create(tmp_path / "index", first.vectors, first.ids) as index:
        second.apply(index)
    results = [crashes.examine(tmp_path / "index", 1, acknowledged, "add") for acknowledged in (0, 1, 2, 3)]
    assert [bool(result.problems) for result in results] == [True, False, False, True]


@pytest.mark.skipif(sys.platform != "linux", reason="open files are named by /proc, which only Linux has")
@pytest.mark.parametrize(
    ("leave_out", "seed"), [(False, 2), (True, 2), (False, 3)], ids=["floats", "no flushes", "codes"]
)
def test_a_power_cut_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leave_out: bool, seed: int
) -> None:
    """With every flush in its place; and the test sees it if those of folders are left out."""
    if leave_out:
        for module in (creation, manifest, commit, segments, writer):
            monkeypatch.setattr(module, "flush_folder", lambda _: None, raising=False)
    cuts = list(power_cuts.cut_everywhere(tmp_path / "disk", operations=4, seed=seed))
    assert len(cuts) > 20
    assert any(cut.problems for cut in cuts) == leave_out


@pytest.mark.parametrize(
    ("plan", "at", "rows"),
    [
        ("ivf4@8 > pq4x4@16 > rerank@full", None, "vectors.npy"),
        ("hnsw8@8 > int8@16", None, "vectors.npy"),
        ("graph8@16 > rerank:fp16@full", None, "vectors.npy"),
        ("bits1@full > rerank:bits2@full", "bits=2", "plane2.npy"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, plan: str, at: str | None, rows: str) -> None:
    folder, elsewhere = mutants.states(tmp_path, plan, at)
    found = list(mutants.mutate(folder, elsewhere, per_kind=25, seed=0))
    assert [mutant for mutant in found if not mutant.is_right] == []
    outcomes = Counter(mutant.outcome for mutant in found)
    assert outcomes["refused"] > 0.9 * len(found)
    # A log that grew behind what was acknowledged is what a crash leaves, and an older mark lags behind.
    assert {mutant.kind for mutant in found if mutant.outcome == "unharmed"} <= {"log", "mark"}
    assert {mutant.kind for mutant in found} >= {
        "nestling.json",
        rows,
        "ids.npy",
        "deleted.npy",
        "log",
    }
    assert max(mutant.seconds for mutant in found) < 10


def test_failing_writes_leave_the_old_state(tmp_path: Path) -> None:
    failures = list(failing_writes.fail_everywhere(tmp_path, most=2))
    assert [failure for failure in failures if failure.problems] == []
    assert len(failures) > 100


@pytest.mark.parametrize(
    "plan", ["flat@full", "ivf4@8 > int8@full", "hnsw8@8 > flat@full", "graph8@4 > rerank@full"]
)
def test_a_full_disk_while_an_engine_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    """Files may not grow beyond a limit, wherever that strikes: in our writes or in those of a library."""
    resource = pytest.importorskip("resource", reason="limits of file sizes are not known here")
    for limit in (100, 5_000, 30_000, 64_000):
        folder = tmp_path / str(limit)
        with AdaptiveIndex.create(folder, vectors(20), nesting="dim=4,8", plan=plan, log_bytes=9999) as index:
            before = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            try:
                with pytest.raises(StorageError, match="could not be written"):
                    index.add(vectors(2000, 1))
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert len(index) == 20
            assert index.verify().rows == 20


def test_a_torn_record_is_dropped_and_said(tmp_path: Path) -> None:
    with AdaptiveIndex.create(tmp_path / "index", vectors(20), nesting="dim=4,8") as index:
        index.add(vectors(3, 1))
        whole = next((tmp_path / "index").glob("log-*")).read_bytes()
        index.add(vectors(3, 2))
    log = next((tmp_path / "index").glob("log-*"))
    longer = log.read_bytes()
    record = longer[len(whole) :]
    for torn in (record[:1], record[:20], record[:-1], bytes(500), record[::-1]):
        log.write_bytes(longer + torn)
        with AdaptiveIndex.open(tmp_path / "index", read_only=True) as reader:
            assert len(reader) == 26, "a reader leaves the log to the writer"
            assert f"last {len(torn)} bytes of {log.name}" in reader.verify().messages[0]
        with AdaptiveIndex.open(tmp_path / "index") as index:
            assert len(index) == 26
            assert f"last {len(torn)} bytes of {log.name}" in index.verify().messages[0]
        assert log.read_bytes() == longer
    with AdaptiveIndex.open(tmp_path / "index") as index:
        assert index.verify().messages == ()
    log.write_bytes(longer[:-1])
    with pytest.raises(
        ArtifactError, match=r"damaged at byte .* acknowledged.*restore a backup of the folder"
    ):
        AdaptiveIndex.open(tmp_path / "index")
    log.write_bytes(whole)
    with pytest.raises(ArtifactError, match="acknowledged"):
        AdaptiveIndex.open(tmp_path / "index")


def test_errors_name_the_file(tmp_path: Path) -> None:
    AdaptiveIndex.create(tmp_path / "index", vectors(20), nesting="dim=4,8").close()
    for path in sorted((tmp_path / "index").rglob("*")):
        if path.is_dir() or path.name == "writer.lock":
            continue
        original = path.read_bytes()
        for content in (b"", original[:-1], bytes([original[0] ^ 1]) + original[1:]):
            path.write_bytes(content)
            with pytest.raises(ArtifactError, match=path.name):
                AdaptiveIndex.open(tmp_path / "index")
        path.write_bytes(original)
    stranger = tmp_path / "index" / "segments" / "00000001" / "engine" / "more.npy"
    stranger.write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"more\.npy is not a file of this index; remove it"):
        AdaptiveIndex.open(tmp_path / "index")


def test_an_interrupted_compaction_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finished part is kept for the next attempt, and not mistaken for another build."""
    from nestling.search.stages.kinds import ivf

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    data, folder = vectors(2000), tmp_path / "index"
    index = AdaptiveIndex.create(folder, data, nesting="dim=4,8", log_bytes=999, plan="ivf8@4 > flat@full")
    index.delete([1, 2, 3])
    monkeypatch.setattr(ivf._ListBuilder, "_sort", interrupted)
    for change in (index.compact, lambda: index.add(vectors(1500, 1))):
        with pytest.raises(KeyboardInterrupt):
            change()
        assert len(index) == 1997
        begun = folder / "segments" / "00000002"
        assert (begun / "building.txt").is_file()
    index.close()
    with AdaptiveIndex.open(folder) as index, pytest.raises(KeyboardInterrupt):
        index.compact()
    monkeypatch.undo()
    trained = (begun / "engine" / "coarse.centroids.npy").stat().st_mtime_ns
    with AdaptiveIndex.open(folder) as index:
        index.compact()
        assert index.info().segments[0].rows == 1997
        assert (begun / "engine" / "coarse.centroids.npy").stat().st_mtime_ns == trained, "learned again"
        assert not (begun / "building.txt").exists()
        assert index.search(data[10:20], 1, point="nprobe=8").ids[:, 0].tolist() == list(range(10, 20))
        index.verify()


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nestling.search.stages.kinds import ivf

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    def build() -> AdaptiveIndex:
        return AdaptiveIndex.create(folder, vectors(2000), nesting="dim=4,8", plan="ivf8@4 > flat@full")

    folder = tmp_path / "index"
    monkeypatch.setattr(ivf._ListBuilder, "_sort", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build()
    with pytest.raises(ArtifactError, match="not a folder saved by nestling"):
        AdaptiveIndex.open(folder)
    monkeypatch.undo()
    learned = folder / "segments" / "00000001" / "engine" / "coarse.centroids.npy"
    trained = learned.stat().st_mtime_ns
    with build() as index:
        assert learned.stat().st_mtime_ns == trained
        assert len(index) == 2000
