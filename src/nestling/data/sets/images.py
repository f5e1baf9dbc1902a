"""Labelled images: Fashion-MNIST and scikit-learn's digits."""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nestling.arguments.paths import home_path
from nestling.data.sets.source import locate
from nestling.errors import ConfigError, DataError, require, unknown

_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_UNSIGNED_BYTE = 8


@dataclass(frozen=True)
class LabelledImages:
    """Grey pictures and the class of each.

    Args:
        images: ``UInt8[n, height, width]``, from 0 up to ``levels - 1``.
        labels: ``Int64[n]``, index into ``classes``.
        classes: a name for each class.
        levels: number of grey levels.

    Raises:
        DataError: if there are not as many labels as images, or a label has no class.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    levels: int = 256

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels) or not len(self.images):
            raise DataError(
                f"{len(self.images)} images need as many labels, at least one, not {len(self.labels)}"
            )
        if not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise DataError(
                f"labels must be from 0 to {len(self.classes) - 1}, "
                f"not from {self.labels.min()} to {self.labels.max()}"
            )

    def __len__(self) -> int:
        return len(self.images)


def fashion_mnist(split: str = "train") -> LabelledImages:
    """Fashion-MNIST: 60,000 (``"train"``) or 10,000 (``"test"``) pictures of clothes, 28x28, 10 classes.

    Raises:
        ConfigError: for another split.
        DataError: if the files cannot be found, or are not what they should be.

    Source: Xiao et al. 2017, arXiv 1708.07747.
    """
    prefixes = {"train": "train", "test": "t10k"}
    if split not in prefixes:
        raise ConfigError(unknown("split", split, prefixes))
    folder = locate("fashion-mnist")
    images = read_idx(folder / f"{prefixes[split]}-images-idx3-ubyte.gz")
    labels = read_idx(folder / f"{prefixes[split]}-labels-idx1-ubyte.gz")
    return LabelledImages(images, labels.astype(np.int64), _FASHION_CLASSES)


def digits() -> LabelledImages:
    """scikit-learn's bundled digits: 1,797 pictures of 8x8 with 17 grey levels, 10 classes.

    Raises:
        MissingExtraError: if scikit-learn is not installed.
    """
    bunch = require("sklearn.datasets", "sklearn").load_digits()
    names = tuple(map(str, bunch.target_names))
    return LabelledImages(bunch.images.astype(np.uint8), bunch.target.astype(np.int64), names, levels=17)


def read_idx(path: str | Path) -> NDArray[np.uint8]:
    """The array of bytes in an idx file (the format of MNIST), gzipped or not.

    Raises:
        DataError: if the file is missing, damaged, cut short, or holds other numbers than unsigned bytes.
    """
    source = home_path(path)
    try:
        raw = source.read_bytes()
        data = gzip.decompress(raw) if source.suffix == ".gz" else raw
    except FileNotFoundError as error:
        raise DataError(f"{source} does not exist") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{source} is damaged or cut short ({error}); get it again") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UNSIGNED_BYTE or not 1 <= data[3] <= 4:
        raise DataError(f"{source} is not an idx file of unsigned bytes: it begins with {data[:4].hex(' ')}")
    start = 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data[4:start], dtype=">u4").tolist()) if len(data) >= start else ()
    if not shape or len(data) != start + math.prod(shape):
        raise DataError(
            f"{source} is cut short or too long: shape {shape}, but {len(data):,} bytes; get it again"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=start).reshape(shape)
