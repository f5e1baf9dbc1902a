"""Emoji pictures are read; files in other formats are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nestling.data import emoji_clip, emoji_pictures
from nestling.errors import DataError


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four pictures of two concepts, made on the spot."""
    folder = tmp_path / "emoji-clip"
    (folder / "model").mkdir(parents=True)
    pixels = np.arange(4 * 32 * 32 * 3).reshape(4, 32, 32, 3).astype(np.uint8)
    np.savez(
        folder / "pictures.npz", pixels=pixels, style=["a", "b"] * 2, concept=["1f34e"] * 2 + ["1f415"] * 2
    )
    names = {"1f34e": {"name": "red apple"}, "1f415": {"name": "dog"}}
    (folder / "concepts.json").write_text(json.dumps(names))
    for name in ("config.json", "model.safetensors"):
        (folder / "model" / name).touch()
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path))
    return folder


def test_pictures_and_names_are_read(small: Path) -> None:
    data = emoji_pictures()
    assert (len(data), data.images.shape, data.images.dtype) == (4, (4, 32, 32, 3), np.uint8)
    assert data.styles.tolist() == ["a", "b", "a", "b"]
    assert [data.names[concept] for concept in data.concepts] == ["red apple", "red apple", "dog", "dog"]
    assert emoji_clip() == small / "model"


def test_damaged_files_are_refused(small: Path) -> None:
    whole = (small / "pictures.npz").read_bytes()
    (small / "pictures.npz").write_bytes(whole[:500])
    with pytest.raises(DataError, match=r"pictures\.npz is damaged"):
        emoji_pictures()
    np.savez(small / "pictures.npz", pixels=np.zeros((4, 32, 32, 3)), style=["a"], concept=["b"])
    with pytest.raises(DataError, match="other arrays"):
        emoji_pictures()
    (small / "pictures.npz").write_bytes(whole)
    (small / "concepts.json").write_text("[]")
    with pytest.raises(DataError, match=r"concepts\.json is damaged"):
        emoji_pictures()


def test_the_real_pictures(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    data = emoji_pictures()
    assert data.images.shape == (8_071, 32, 32, 3)
    assert len(set(data.styles.tolist())) == 12
    assert set(data.concepts.tolist()) == set(data.names)
