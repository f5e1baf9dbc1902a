"""Fashion-MNIST and digits are read; files in other formats are refused."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from nestling.data import LabelledImages, digits, fashion_mnist
from nestling.data.sets.images import read_idx
from nestling.errors import ConfigError, DataError, MissingExtraError


def idx(array: np.ndarray) -> bytes:
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + shape + array.astype(np.uint8).tobytes()


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fashion-MNIST of 20 + 10 pictures, made on the spot."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 20), ("t10k", 10)):
        images = rng.integers(0, 256, (count, 28, 28))
        (folder / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images), mtime=0))
        (folder / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(count) % 10)))
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path))
    return folder


def test_pictures_and_classes_are_read(small: Path) -> None:
    train, test = fashion_mnist(), fashion_mnist("test")
    assert (train.images.shape, test.images.shape) == ((20, 28, 28), (10, 28, 28))
    assert (train.images.dtype, train.labels.dtype) == (np.uint8, np.int64)
    assert np.array_equal(train.images, np.random.default_rng(0).integers(0, 256, (20, 28, 28)))
    assert test.labels.tolist() == list(range(10))
    assert (train.classes[9], len(train)) == ("Ankle boot", 20)


def test_the_real_pictures(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NESTLING_DATA", str(shared_data))
    test = fashion_mnist("test")
    assert test.images.shape == (10_000, 28, 28)
    assert np.bincount(test.labels).tolist() == [1000] * 10
    # Boots (9) cover more of the picture than sandals (5): the labels belong to the pictures.
    assert test.images[test.labels == 9].mean() > 1.5 * test.images[test.labels == 5].mean()


def test_the_bundled_digits() -> None:
    data = digits()
    assert data.images.shape == (1797, 8, 8)
    assert (data.images.dtype, data.labels.dtype) == (np.uint8, np.int64)
    assert (int(data.images.max()), data.levels, data.classes[3]) == (16, 17, "3")


def test_digits_need_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    monkeypatch.setitem(__import__("sys").modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"nestling\[sklearn\]"):
        digits()


def test_an_unknown_split() -> None:
    with pytest.raises(ConfigError, match="unknown split 'tests'; did you mean 'test'"):
        fashion_mnist("tests")


GOOD = idx(np.zeros((2, 3, 3)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.gz", None, "does not exist"),
        ("a.gz", gzip.compress(GOOD, mtime=0)[:-12], "damaged or cut short"),
        ("a.gz", b"<html>not found</html>", "damaged or cut short"),
        (
            "a.gz",
            gzip.compress(GOOD, mtime=0)[:20] + b"xxxx" + gzip.compress(GOOD, mtime=0)[24:],
            "damaged or cut short",
        ),
        ("a", b"", "not an idx file"),
        ("a", b"\x89PNG" + GOOD, "not an idx file of unsigned bytes: it begins with 89 50 4e 47"),
        ("a", b"\0\0\x0d\x01" + GOOD[4:], "not an idx file of unsigned bytes"),
        ("a", GOOD[:10], "cut short or too long"),
        ("a", GOOD[:-1], r"shape \(2, 3, 3\), but 33 bytes"),
        ("a", GOOD + b"\0", "cut short or too long"),
    ],
)
def test_files_that_are_no_idx_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / name)


def test_plain_idx_files_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(idx(np.arange(12).reshape(3, 4)))
    assert read_idx(tmp_path / "a").tolist() == np.arange(12).reshape(3, 4).tolist()


def test_images_and_labels_must_fit() -> None:
    images = np.zeros((3, 2, 2), np.uint8)
    with pytest.raises(DataError, match="3 images need as many labels"):
        LabelledImages(images, np.zeros(2, np.int64), ("a",))
    with pytest.raises(DataError, match="labels must be from 0 to 0, not from 0 to 4"):
        LabelledImages(images, np.array([0, 4, 0]), ("a",))
