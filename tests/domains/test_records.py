from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.domains.records import Record, RecordStore
from nestling.errors import ArtifactError, StorageError

texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.builds(Record, texts, texts), max_size=20))
def test_what_is_kept_comes_back(tmp_path_factory: pytest.TempPathFactory, records: list[Record]) -> None:
    store = RecordStore.create(tmp_path_factory.mktemp("records") / "r.sqlite")
    ids = store.add(records)
    assert store.ids() == sorted(ids)
    assert store.get(ids[::-1]) == records[::-1]


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    store = RecordStore.create(tmp_path / "r.sqlite")
    first = store.add([Record("a", "b"), Record("c", "d")])
    store.delete([*first, 99])
    assert store.ids() == []
    assert min(store.add([Record("e", "f")])) > max(first)


def test_threads_share_it(tmp_path: Path) -> None:
    store = RecordStore.create(tmp_path / "r.sqlite")
    with ThreadPoolExecutor(4) as pool:
        ids = [
            number
            for some in pool.map(lambda i: store.add([Record(str(i), "x")] * 5), range(8))
            for number in some
        ]
    assert store.ids() == sorted(ids)
    assert len(set(ids)) == 40


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="was not finished"):
        RecordStore(tmp_path / "none.sqlite")
    store = RecordStore.create(tmp_path / "r.sqlite")
    with pytest.raises(ArtifactError, match="build the collection again"):
        store.get([7])
    (tmp_path / "r.sqlite").write_bytes(b"no database" * 1000)
    for use in (lambda: store.get([1]), store.ids):
        with pytest.raises(ArtifactError, match="damaged"):
            use()
    for use in (lambda: store.add([Record("a", "b")]), lambda: store.delete([1])):
        with pytest.raises(StorageError, match="could not be written"):
            use()
    with pytest.raises(StorageError, match="could not be written"):
        RecordStore.create(tmp_path / "missing" / "r.sqlite")


def test_a_failed_batch_leaves_nothing(tmp_path: Path) -> None:
    store = RecordStore.create(tmp_path / "r.sqlite")
    with pytest.raises(StorageError):
        store.add([Record("a", "b"), Record(None, "d")])  # type: ignore[arg-type]
    assert store.ids() == []
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
