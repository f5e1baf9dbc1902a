"""Problems of classes and pairs: pictures, docstrings by package, docstring search, sentence similarity."""

from __future__ import annotations

import os
import sysconfig
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nestling.data.pairs import TextPairs
from nestling.data.sets.docstrings import docstring_pairs
from nestling.data.sets.images import LabelledImages, digits, fashion_mnist
from nestling.data.sets.sts import ScoredPairs, stsb
from nestling.encoders.text.encoder import TextEncoder
from nestling.granularity import Nesting

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

# Coarse groups of Fashion-MNIST's ten classes, by where they are worn: upper body, legs, whole body,
# feet, hand. Written down before any model was trained.
FASHION_GROUPS = (0, 1, 0, 2, 0, 3, 0, 3, 4, 3)
# A package with fewer docstrings says too little of itself; many more would drown the others.
_FEWEST_PER_PACKAGE, _MOST_PER_PACKAGE = 120, 400
_WORDS_DROPPED = (0.3, 0.5)


class Rows(NamedTuple):
    """Inputs ``Float[n, inputs]`` with their classes ``Int[n]``."""

    x: Floats
    labels: Ints


class Pairs(NamedTuple):
    """Inputs that belong together row by row, and their similarity as people scored it, if they did."""

    first: Floats
    second: Floats
    scores: Floats | None = None


@dataclass(frozen=True, eq=False)
class LabelledData:
    """A classification problem.

    ``shifted`` holds the test inputs as they look under other conditions; ``coarse`` gives each class
    its superclass.
    """

    name: str
    nesting: Nesting
    train: Rows
    validation: Rows
    test: Rows
    shifted: Mapping[str, Floats] = field(default_factory=dict)
    coarse: Ints | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes in the training rows."""
        return int(self.train.labels.max()) + 1


@dataclass(frozen=True, eq=False)
class PairedData:
    """A problem of matching texts: find the second of each pair, or agree with people's scores."""

    name: str
    nesting: Nesting
    train: Pairs
    validation: Pairs
    test: Pairs


def fashion(quick: bool) -> LabelledData:
    """Fashion-MNIST, with noise, translation and rotation as shifts.

    The nesting begins below the number of classes (2, 4, 8 of 10): from there up, ten classes fit into
    any vectors and nothing could be learned from a cut.
    """
    made = quick and not _data_is_at_hand()
    pictures, asked = _made_pictures() if made else (fashion_mnist("train"), fashion_mnist("test"))
    taken, held, tested = (2_000, 500, 500) if quick else (30_000, 5_000, 10_000)
    order = np.random.default_rng(0).permutation(len(pictures))
    test = _rows(asked, np.arange(tested))
    return LabelledData(
        "made pictures" if made else "Fashion-MNIST",
        Nesting.parse("dim=2..64"),
        _rows(pictures, order[:taken]),
        _rows(pictures, order[taken : taken + held]),
        test,
        {name: shift(test.x.reshape(-1, 28, 28)).reshape(test.x.shape) for name, shift in _SHIFTS.items()},
        np.array(FASHION_GROUPS),
    )


@cache
def docstrings(quick: bool) -> TextPairs:
    """Names and descriptions of functions in the installed packages; in the standard library if quick."""
    return docstring_pairs([sysconfig.get_paths()["stdlib"]] if quick else None)


def packages(pairs: TextPairs, encoder: TextEncoder, quick: bool) -> LabelledData:
    """Classification of docstrings by package, from mean word vectors; words dropped as shifts."""
    nesting = Nesting.parse("dim=8..256")
    fewest = 30 if quick else _FEWEST_PER_PACKAGE
    texts, labels = _classes_by_group(pairs, fewest, 60 if quick else _MOST_PER_PACKAGE)
    order = np.random.default_rng(0).permutation(len(texts))
    train, validation, test = np.split(order, [int(0.7 * len(order)), int(0.8 * len(order))])
    vectors = encoder.encode(texts)
    mean, deviation = vectors[train].mean(0), vectors[train].std(0)

    def standard(values: Floats) -> Floats:
        return np.asarray((values - mean) / deviation, np.float32)

    shifted = {}
    for share in _WORDS_DROPPED:
        dropped = [_drop_words(texts[row], share, np.random.default_rng([7, int(row)])) for row in test]
        shifted[f"{share:.0%} of words dropped"] = standard(encoder.encode(dropped))
    x = standard(vectors)
    fit, held, asked = (Rows(x[rows], labels[rows]) for rows in (train, validation, test))
    return LabelledData("docstrings by package", nesting, fit, held, asked, shifted)


def descriptions(pairs: TextPairs, encoder: TextEncoder, quick: bool) -> PairedData:
    """Find the description of a function by its name and parameters, in packages held out of training."""
    sizes = (2_000, 400, 400) if quick else (40_000, 2_000, 4_000)
    parts = []
    for part, most in zip(pairs.split((0.8, 0.1, 0.1), seed=0), sizes, strict=True):
        rows = np.random.default_rng(0).permutation(len(part))[:most]
        chosen = part.take(int(row) for row in rows)
        parts.append(Pairs(encoder.encode(chosen.queries), encoder.encode(chosen.documents)))
    return PairedData("docstring search", Nesting.parse("dim=8..256"), *parts)


def sentence_similarity(pairs: TextPairs, encoder: TextEncoder, quick: bool) -> PairedData:
    """STS-B. Quick runs without data use synthetic pairs: a text, and the same with words dropped."""
    if quick and not _data_is_at_hand():
        name, parts = "made similarity", [_made_similarity(pairs, seed) for seed in range(3)]
    else:
        name, parts = "STS-B", [stsb(split) for split in ("train", "dev", "test")]
    encoded = [
        Pairs(encoder.encode(part.first), encoder.encode(part.second), part.scores.astype(np.float32))
        for part in parts
    ]
    return PairedData(name, Nesting.parse("dim=8..256"), *encoded)


def small_digits() -> LabelledData:
    """scikit-learn's 1,797 digits: 1,000 to train, 300 to fit thresholds, 497 to report."""
    data = digits()
    order = np.random.default_rng(0).permutation(len(data))
    train, held, asked = (_rows(data, part) for part in np.split(order, [1000, 1300]))
    return LabelledData("digits", Nesting.parse("dim=2..64"), train, held, asked)


def _data_is_at_hand() -> bool:
    return bool(os.environ.get("NESTLING_DATA"))


def _rows(data: LabelledImages, chosen: Ints) -> Rows:
    """The chosen pictures as one row each, grey levels from 0 to 1."""
    pictures = data.images[chosen].reshape(len(chosen), -1) / (data.levels - 1)
    return Rows(pictures.astype(np.float32), data.labels[chosen])


def _made_pictures() -> tuple[LabelledImages, LabelledImages]:
    """Ten smooth random prototypes under noise: as many as the quick setting takes."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(0)
    prototypes = 600 * gaussian_filter(rng.normal(size=(10, 28, 28)), sigma=(0, 3, 3))
    labels = rng.integers(10, size=3_000)
    pictures = 128 + prototypes[labels] + rng.normal(scale=120, size=(3_000, 28, 28))
    levels = np.clip(pictures, 0, 255).astype(np.uint8)
    names = tuple(map(str, range(10)))
    return LabelledImages(levels[:2_500], labels[:2_500], names), LabelledImages(
        levels[2_500:], labels[2_500:], names
    )


def _noise(pictures: Floats) -> Floats:
    noise = np.random.default_rng(11).normal(scale=0.25, size=pictures.shape)
    return np.clip(pictures + noise, 0, 1).astype(np.float32)


def _translation(pictures: Floats) -> Floats:
    moved = np.zeros_like(pictures)
    moved[:, 3:, 3:] = pictures[:, :-3, :-3]
    return moved


def _rotation(pictures: Floats) -> Floats:
    from scipy.ndimage import rotate

    return np.asarray(rotate(pictures, 20, axes=(2, 1), reshape=False, order=1), np.float32)


_SHIFTS: Mapping[str, Callable[[Floats], Floats]] = {
    "noise": _noise,
    "translation": _translation,
    "rotation": _rotation,
}


def _classes_by_group(pairs: TextPairs, fewest: int, most: int) -> tuple[list[str], Ints]:
    counts = Counter(pairs.groups)
    names = sorted(name for name, count in counts.items() if count >= fewest)
    order = np.random.default_rng(0).permutation(len(pairs))
    texts, labels, taken = [], [], Counter[str]()
    number = {name: label for label, name in enumerate(names)}
    for row in order:
        group = pairs.groups[row]
        if group in number and taken[group] < most:
            taken[group] += 1
            texts.append(pairs.documents[row])
            labels.append(number[group])
    return texts, np.array(labels)


def _drop_words(text: str, share: float, rng: np.random.Generator) -> str:
    words = text.split()
    kept = [word for word, chance in zip(words, rng.random(len(words)), strict=True) if chance >= share]
    return " ".join(kept or words[:1])


def _made_similarity(pairs: TextPairs, seed: int) -> ScoredPairs:
    rng = np.random.default_rng(seed)
    texts = [pairs.documents[row] for row in rng.permutation(len(pairs))[:400]]
    shares = rng.random(len(texts))
    others = [_drop_words(text, share, rng) for text, share in zip(texts, shares, strict=True)]
    return ScoredPairs(tuple(texts), tuple(others), 1 - shares)
