"""Garments of random pixels in the place of Fashion-MNIST."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nestling.papers.problems import mosaics


def write_garments(folder: Path, name: str, rows: int) -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(10, size=rows).astype(np.uint8)
    images = draw.integers(0, 60, size=(rows, 28, 28)).astype(np.uint8) + 10 * labels[:, None, None]
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
        (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 1))


@pytest.fixture
def generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "fashion-mnist").mkdir()
    for name in ("train", "t10k"):
        write_garments(tmp_path / "fashion-mnist", name, 400)
    monkeypatch.setenv("NESTLING_DATA", str(tmp_path))
    for cached in (mosaics.garments, mosaics._network):
        cached.cache_clear()
    yield tmp_path
    for cached in (mosaics.garments, mosaics._network):
        cached.cache_clear()
