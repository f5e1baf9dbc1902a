"""Saved folders are verified, replaced atomically, and survive interruption and full disks."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from nestling.cut import CutRule
from nestling.errors import ArtifactError, StorageError
from nestling.granularity import Nesting
from nestling.storage.artifact import (
    MANIFEST,
    SCHEMA_VERSION,
    check_folder_target,
    read_folder,
    read_manifest,
    write_file,
    write_folder,
)
from nestling.storage.temporary import beside, held


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    with write_folder(
        folder, "thing", nesting=Nesting.parse("dim=2,4"), rule=CutRule("layer_norm"), settings={"a": [1]}
    ) as path:
        (path / "data.bin").write_bytes(b"0123456789")
        (path / "sub").mkdir()
        (path / "sub" / "more.txt").write_text("text")
    return folder


def edit(folder: Path, **changes: object) -> None:
    raw = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**raw, **changes}))


def test_what_is_written_is_read(saved: Path) -> None:
    manifest = read_folder(saved, "thing")
    assert manifest.read_nesting() == Nesting.parse("dim=2,4")
    assert manifest.read_cut() == CutRule("layer_norm")
    assert manifest.settings == {"a": [1]}
    assert set(manifest.files) == {"data.bin", "sub/more.txt"}
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "data.bin").unlink(), "missing"),
        (lambda f: (f / "data.bin").write_bytes(b"012345678"), "truncated or altered"),
        (lambda f: (f / "data.bin").write_bytes(b"012345678X"), "truncated or altered"),
        (lambda f: (f / MANIFEST).unlink(), "not a folder saved by nestling"),
        (lambda f: (f / MANIFEST).write_text("{"), "cannot be read"),
        (lambda f: (f / MANIFEST).write_text("[]"), "malformed"),
        (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe"), "cannot be read"),
        (lambda f: edit(f, schema_version=SCHEMA_VERSION + 1), "update it with: pip install -U nestling"),
        (lambda f: edit(f, more=1), "malformed at more"),
        (lambda f: edit(f, kind="other"), "holds an other, not a thing"),
        (lambda f: edit(f, files={"../x": {"size_bytes": 1, "sha256": ""}}), "outside the folder"),
        (lambda f: edit(f, files={"/etc/passwd": {"size_bytes": 1, "sha256": ""}}), "outside the folder"),
    ],
)
def test_a_folder_that_was_touched_is_refused(saved: Path, break_it: object, message: str) -> None:
    break_it(saved)  # type: ignore[operator]
    with pytest.raises(ArtifactError, match=message):
        read_folder(saved, "thing")


def test_a_file_that_the_manifest_does_not_list_is_refused(saved: Path) -> None:
    (saved / "extra.safetensors").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"extra\.safetensors"):
        read_folder(saved, "thing")


def test_an_interrupted_write_leaves_the_old_folder(saved: Path) -> None:
    def interrupted() -> None:
        with write_folder(saved, "thing") as path:
            (path / "data.bin").write_bytes(b"new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_folder(saved, "thing").settings == {"a": [1]}
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_a_full_disk_changes_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"), write_folder(saved, "thing") as path:
        (path / "data.bin").write_bytes(b"new")
    with pytest.raises(StorageError, match="disk is full"):
        write_file(saved.parent / "curve.json", "{}")
    assert read_folder(saved, "thing").settings == {"a": [1]}
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_errors_of_the_caller_pass_through(saved: Path) -> None:
    with pytest.raises(ZeroDivisionError), write_folder(saved, "thing"):
        _ = 1 / 0
    assert read_folder(saved, "thing")


def test_a_written_folder_replaces_the_old_one(saved: Path) -> None:
    with write_folder(saved, "thing", settings={"b": 2}):
        pass
    assert read_folder(saved, "thing").settings == {"b": 2}
    assert not (saved / "data.bin").exists()
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


def test_other_peoples_folders_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with (
        pytest.raises(ArtifactError, match="not written by nestling"),
        write_folder(tmp_path / "mine", "thing"),
    ):
        pass
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "precious"


def test_a_missing_nesting_is_said(tmp_path: Path) -> None:
    with write_folder(tmp_path / "x", "thing"):
        pass
    with pytest.raises(ArtifactError, match="names no nesting"):
        read_manifest(tmp_path / "x").read_nesting()


def test_a_folder_is_replaced_by_its_own_kind_only(saved: Path) -> None:
    with write_folder(saved, "thing"):
        pass
    before = (saved / MANIFEST).read_bytes()
    with pytest.raises(ArtifactError, match="holds a thing and is not replaced by stored vectors; choose"):
        check_folder_target(saved, "stored_vectors")
    with pytest.raises(ArtifactError, match="holds a thing"), write_folder(saved, "other"):
        pytest.fail("the work was begun")
    assert (saved / MANIFEST).read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == ["saved"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text_encoder", "a text encoder"),
        ("image_encoder", "an image encoder"),
        ("index", "an index"),
        ("collection", "a collection"),
        ("stored_vectors", "stored vectors"),
        ("text-pairs", "text pairs"),
        ("rdms", "RDMs"),
        ("pca_rotation", "a PCA rotation"),
    ],
)
def test_kinds_are_written_in_words(saved: Path, kind: str, words: str) -> None:
    with pytest.raises(ArtifactError, match=f"holds a thing, not {words};"):
        read_folder(saved, kind)
    edit(saved, kind=kind)
    with pytest.raises(ArtifactError, match=f"holds {words}, not a thing;"):
        read_folder(saved, "thing")


@pytest.mark.parametrize("place", ["", "settings"])
def test_a_name_that_a_newer_version_added_says_how_to_update(tmp_path: Path, place: str) -> None:
    """Unknown names are refused, since their meaning could change the results."""
    from nestling import AdaptiveIndex

    AdaptiveIndex.create(tmp_path / "ix", np.eye(4), plan="flat@full").close()
    manifest = json.loads((tmp_path / "ix" / MANIFEST).read_text())
    (manifest[place] if place else manifest)["shards"] = 2
    (tmp_path / "ix" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match=r"malformed at (settings\.)?shards.*pip install -U nestling"):
        AdaptiveIndex.open(tmp_path / "ix", read_only=True)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no locks of folders")
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_a_killed_process_left_is_removed_by_the_next_write(kind: str, tmp_path: Path) -> None:
    target = tmp_path / "v[1].npy"

    def write() -> None:
        if kind == "file":
            write_file(target, "new")
        else:
            with write_folder(target, "stored_vectors") as folder:
                (folder / "part").write_text("new")

    def left(ending: str, age: float = 3600) -> Path:
        place = beside(target, ending)
        place.write_text("torn") if kind == "file" else (place / "inner").mkdir(parents=True)
        os.utime(place, (time.time() - age,) * 2)
        return place

    torn, old, young, filled = left("tmp"), left("old"), left("tmp", age=1), left("tmp")
    strangers = [tmp_path / ".v[1].npy.notes.tmp", tmp_path / f".v1.npy.{32 * 'a'}.tmp"]
    for each in strangers:
        each.write_text("of somebody else")
        os.utime(each, (0, 0))
    with held(filled):
        write()
        assert not torn.exists()
        assert old.exists(), "without a target it is the only copy of the old content"
        write()
        assert not old.exists()
        assert all(each.exists() for each in (young, filled, *strangers))
    write()
    assert not filled.exists()
