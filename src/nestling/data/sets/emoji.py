"""Emoji: one concept in up to twelve drawing styles."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from nestling.data.sets.source import locate
from nestling.errors import DataError


@dataclass(frozen=True)
class EmojiPictures:
    """Colour pictures of 861 concepts, each drawn in several styles.

    Args:
        images: ``UInt8[n, 32, 32, 3]``.
        styles: the drawing style of each picture.
        concepts: the concept of each picture, a key of ``names``.
        names: of the concepts, such as ``"red apple"``.
    """

    images: NDArray[np.uint8]
    styles: NDArray[np.str_]
    concepts: NDArray[np.str_]
    names: dict[str, str]

    def __len__(self) -> int:
        return len(self.images)


def emoji_pictures() -> EmojiPictures:
    """8,071 pictures of emoji, 32x32 pixels, in twelve drawing styles.

    Raises:
        DataError: if the files cannot be found, or are not what they should be.
    """
    folder = locate("emoji-clip")
    pictures = _read_arrays(folder / "pictures.npz")
    try:
        concepts = json.loads((folder / "concepts.json").read_text(encoding="utf-8"))
        names = {key: str(each["name"]) for key, each in concepts.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{folder / 'concepts.json'} is damaged ({error}); get it again") from error
    return EmojiPictures(pictures["pixels"], pictures["style"], pictures["concept"], names)


def emoji_clip() -> Path:
    """The folder of a small CLIP model that was trained on nine of the styles, for transformers.

    Raises:
        DataError: if it cannot be found.
    """
    return locate("emoji-clip") / "model"


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            found = {name: stored[name] for name in ("pixels", "style", "concept")}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise DataError(f"{path} is damaged or of another kind ({error}); get it again") from error
    count = len(found["pixels"])
    if found["pixels"].ndim != 4 or any(
        each.shape != (count,) for each in (found["style"], found["concept"])
    ):
        raise DataError(
            f"{path} holds other arrays than pictures with a style and a concept each; get it again"
        )
    return found
