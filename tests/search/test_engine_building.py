"""Builds are streams: they read files block by block, and go on where they were interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nestling.cut import RAW
from nestling.errors import ArtifactError, ConfigError, DataError, StorageError
from nestling.search.engine import building
from nestling.search.engine.engine import Engine, build
from nestling.search.graph import growth as walk_steps
from nestling.search.plan.plan import Point
from nestling.search.stages import building as stage_building
from nestling.search.stages.kinds import ivf
from nestling.storage import resumable as journal

PLANS = [
    "flat@full",
    "ivf8@16 > int8@24 > rerank:fp16@full > rerank@full",
    "ivf8@16 > rabitq@24 > rerank@full",
    "opq8x4@24 > rerank:int8@full",
    "hnsw8@16 > fp16@24 > rerank@full",
    "graph16@24 > rerank:fp16@24 > rerank@full",
]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven blocks of 100 rows, sorted 64 KB at a time, and a copy of a graph after each of a dozen steps."""
    monkeypatch.setattr(walk_steps, "_NEW_SHARE", 1.0)
    monkeypatch.setattr(stage_building, "_ENTRIES_AT_A_TIME", 3200)
    monkeypatch.setattr(ivf, "_BYTES_SORTED_AT_A_TIME", 1 << 13)
    monkeypatch.setattr(journal, "_SECONDS_BETWEEN_COPIES", 0.0)


@pytest.fixture
def stored(nested: Any, tmp_path: Path) -> NDArray[np.float32]:
    np.save(tmp_path / "vectors.npy", nested.vectors(700, 32))
    return np.load(tmp_path / "vectors.npy", mmap_mode="r")


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("text", PLANS)
def test_a_build_in_a_folder_is_the_build_in_memory(
    nested: Any, stored: NDArray[np.float32], tmp_path: Path, text: str
) -> None:
    in_memory = build(text, np.array(stored), seed=3, workers=1)
    in_folder = build(text, stored, seed=3, workers=1, folder=tmp_path / "built")
    assert in_memory._arrays.keys() == in_folder._arrays.keys()
    for name, array in in_memory._arrays.items():
        np.testing.assert_array_equal(in_folder._arrays[name], array, err_msg=name)
        assert isinstance(in_folder._arrays[name], np.memmap)
    in_folder.save(tmp_path / "built")
    in_memory_folder = tmp_path / "saved"
    in_memory_folder.mkdir()
    in_memory.save(in_memory_folder)
    assert parts(in_memory_folder) == parts(tmp_path / "built")


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("text", PLANS)
def test_a_build_interrupted_anywhere_goes_on_to_the_same_result(
    stored: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Stopped before and after each moment in which it notes what is done, over and over."""
    whole = build(text, stored, workers=1, folder=tmp_path / "whole")
    whole.save(tmp_path / "whole")
    note = journal._State.save
    stops = 0
    for is_noted in (False, True):
        folder = tmp_path / f"stopped-{is_noted}"
        turns = 0
        while True:
            seen = 0

            def stop(self: Any, is_noted: bool = is_noted) -> None:
                nonlocal seen
                seen += 1
                if seen == 2:
                    if is_noted:
                        note(self)
                    raise KeyboardInterrupt
                note(self)

            monkeypatch.setattr(journal._State, "save", stop)
            try:
                engine = build(text, stored, workers=1, folder=folder)
            except KeyboardInterrupt:
                turns += 1
                assert turns < 200
                tear(folder)
                continue
            finally:
                monkeypatch.setattr(journal._State, "save", note)
            break
        stops += turns
        engine.save(folder)
        assert parts(folder) == parts(tmp_path / "whole")
    assert stops >= 6


def tear(folder: Path) -> None:
    """Leave the files of a crash: half a block that nobody noted, and a file that was not renamed yet."""
    done = json.loads((folder / "build.json").read_text())["done"]
    for name in ("codes", "codes_as_read", "lists"):
        path = folder / f"{name}.npy"
        if 0 < done.get(name, 0) < 700 and path.is_file():
            with path.open("ab") as stream:
                stream.write(b"torn")
    (folder / ".codes.npy.0.tmp").write_bytes(b"torn")


def test_the_same_seed_builds_the_same(nested: Any) -> None:
    vectors = nested.vectors(600, 32)
    for text in PLANS:
        first, again = (build(text, vectors, seed=5, workers=1) for _ in range(2))
        for name, array in first._arrays.items():
            np.testing.assert_array_equal(again._arrays[name], array)
    other = build(PLANS[1], vectors, seed=6, workers=1)
    assert not np.array_equal(other._arrays["rows"], build(PLANS[1], vectors, seed=5)._arrays["rows"])


def test_the_global_random_state_and_the_threads_of_faiss_stay(nested: Any) -> None:
    import faiss

    vectors = nested.vectors(300, 16)
    before = np.random.get_state()[1].tobytes()
    threads = faiss.omp_get_max_threads()
    engine = build("ivf4@8 > opq4x4@full > rerank@full", vectors, workers=1)
    engine.search(vectors[:3], 2, workers=1)
    assert np.random.get_state()[1].tobytes() == before
    assert faiss.omp_get_max_threads() == threads


@pytest.mark.usefixtures("small_blocks")
def test_only_rows_that_are_needed_are_read_from_disk(
    nested: Any, stored: NDArray[np.float32], tmp_path: Path
) -> None:
    """DiskANN's form: graph and codes of a prefix in memory, vectors on disk, read by shortlists alone."""

    class Watched:
        def __init__(self, values: NDArray[np.float32]) -> None:
            self.values, self.shape, self.dtype, self.ndim = values, values.shape, values.dtype, 2
            self.most = 0

        def __len__(self) -> int:
            return len(self.values)

        def __getitem__(self, key: Any) -> Any:
            if isinstance(key, tuple) and key[0] is Ellipsis:  # a prefix of all rows, nothing is read yet
                part = Watched(self.values[key])
                part.__dict__["parent"] = self
                return part
            found = np.array(self.values[key])
            top = self.__dict__.get("parent", self)
            top.most = max(top.most, len(found))
            return found

    engine = build("hnsw8@16 > pq8x4@16 > rerank@full", stored, workers=1)
    watched = Watched(stored)
    small = Engine(engine.plan, engine._arrays, watched, engine.rule, engine.metric)  # type: ignore[arg-type]
    found = small.search(nested.vectors(2, 32, seed=1), 5, Point(ef=64, shortlists=(40,)))
    assert (found.indices >= 0).all()
    assert 0 < watched.most <= 80


def test_a_folder_of_another_build_is_refused(stored: NDArray[np.float32], tmp_path: Path) -> None:
    folder = tmp_path / "built"

    def stop(span: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "_encode", lambda *_: stop(None))
        with pytest.raises(KeyboardInterrupt):
            build(PLANS[1], stored, folder=folder)
    for other in ({"seed": 1}, {"metric": "euclidean"}):
        with pytest.raises(ConfigError, match="started with another"):
            build(PLANS[1], stored, folder=folder, **other)
    with pytest.raises(ConfigError, match="another plan"):
        build(PLANS[2], stored, folder=folder)
    changed = np.array(stored)
    changed[0, 0] += 1
    with pytest.raises(ConfigError, match="another vectors"):
        build(PLANS[1], changed, folder=folder)
    (folder / "build.json").write_text('{"identity": 3')
    with pytest.raises(ArtifactError, match=r"empty .* and build again"):
        build(PLANS[1], stored, folder=folder)


@pytest.mark.usefixtures("small_blocks")
def test_a_full_disk_is_an_error_after_which_the_build_goes_on(
    stored: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = build(PLANS[1], stored, workers=1)
    synced = 0

    def full(descriptor: int) -> None:
        nonlocal synced
        synced += 1
        if synced == 30:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"No space left|disk is full"):
        build(PLANS[1], stored, workers=1, folder=tmp_path / "built")
    monkeypatch.undo()
    engine = build(PLANS[1], stored, workers=1, folder=tmp_path / "built")
    for name, array in wanted._arrays.items():
        np.testing.assert_array_equal(engine._arrays[name], array)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(("value", "match"), [(np.nan, "NaN or infinity"), (np.inf, "NaN or infinity")])
def test_bad_rows_are_named_by_their_number_in_the_file(nested: Any, value: float, match: str) -> None:
    vectors = nested.vectors(700, 32)
    vectors[[345, 346, 610], 31] = value
    with pytest.raises(DataError, match=rf"{match}.*2 rows \(345, 346\)"):
        build("flat@16 > rerank@full", vectors)


@pytest.mark.usefixtures("small_blocks")
def test_a_prefix_of_zeros_has_no_direction(nested: Any) -> None:
    vectors = nested.vectors(700, 32)
    vectors[432, :8] = 0
    with pytest.raises(DataError, match="first 8 entries of row 432 "):
        build("flat@8 > rerank@full", vectors)
    assert len(build("flat@8 > rerank@full", vectors, rule=RAW)) == 700


@pytest.mark.parametrize("kind", [np.float16, np.float64, ">f4"])
def test_other_floats_are_read_as_float32(nested: Any, kind: Any) -> None:
    vectors = nested.vectors(300, 16).astype(np.float16)
    wanted = build("ivf4@8 > flat@full", vectors.astype(np.float32), workers=1)
    engine = build("ivf4@8 > flat@full", vectors.astype(kind), workers=1)
    np.testing.assert_array_equal(engine._arrays["codes"], wanted._arrays["codes"])
    fortran = build("ivf4@8 > flat@full", np.asfortranarray(vectors.astype(np.float32)), workers=1)
    np.testing.assert_array_equal(fortran._arrays["codes"], wanted._arrays["codes"])
