"""Questions about mosaics of garments: pictures of 4 x 4 cells of Fashion-MNIST, some of them empty.

"Which garment is in this cell?" needs fine tokens, "which is most frequent in this quadrant?" middling ones,
and "which is most frequent?" coarse ones. Each cell is encoded by a small network that was trained on single
garments and is frozen, so that a mosaic has 16 vectors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.data.sets.images import LabelledImages, fashion_mnist
from nestling.domains.prefix.batches import IGNORED, PrefixBatch
from nestling.nn.inference import evaluating
from nestling.process.blocks import blocks
from nestling.training import TrainConfig, fit

SIDE, CLASSES = 4, 10
CELLS = SIDE * SIDE
KINDS = ("cell", "quadrant", "mosaic")
"""What a question is about, fine to coarse."""
_QUADRANTS = 4
_FEWEST, _MOST = 5, 12
WIDTH = 256
_POSITIONS = 16
FEATURES = WIDTH + _POSITIONS
_FIRST_TARGET = len(KINDS)
_FIRST_CLASS = _FIRST_TARGET + CELLS + _QUADRANTS + 1
VOCABULARY = _FIRST_CLASS + CLASSES
_DEVELOPMENT = 5_000  # garments at the end of the training split, for development mosaics alone

Ints = NDArray[np.int64]
_COLUMNS = ("cells", "kinds", "targets", "answers")


@dataclass(frozen=True)
class Mosaics:
    """Mosaics, each with one question.

    Args:
        cells: ``Int[n, 16]``, the garment in each cell; the number of garments for an empty one.
        kinds: ``Int[n]``, place in ``KINDS``.
        targets: ``Int[n]``, the cell or quadrant that is asked about; 0 for the whole mosaic.
        answers: ``Int[n]``, the class.
    """

    cells: Ints
    kinds: Ints
    targets: Ints
    answers: Ints

    def __len__(self) -> int:
        return len(self.cells)

    def only(self, rows: Any) -> Mosaics:
        """Some of the mosaics."""
        return Mosaics(*(getattr(self, name)[rows] for name in _COLUMNS))

    def batch(self, rows: slice | list[int], *, answered: bool) -> PrefixBatch:
        """Rows as ids: a picture, the kind, the target, and the answer to be learned."""
        kinds = self.kinds[rows]
        first = np.array([0, CELLS, CELLS + _QUADRANTS])[kinds] + _FIRST_TARGET
        columns = [np.full_like(kinds, -1), kinds, first + self.targets[rows]]
        if answered:
            columns.append(self.answers[rows] + _FIRST_CLASS)
        ids = torch.from_numpy(np.stack(columns, axis=1))
        labels = torch.full_like(ids, IGNORED)
        labels[:, -1] = ids[:, -1]
        items = {"image": torch.from_numpy(self.cells[rows])}
        return PrefixBatch(ids, torch.ones_like(ids, dtype=torch.bool), items, labels if answered else None)


def class_logits(logits: Tensor) -> Tensor:
    """``Float[batch, classes]`` of the answer, from logits at each id of a batch without answers."""
    return logits[:, -1, _FIRST_CLASS:]


def mosaics(labels: Ints, n: int, seed: int) -> Mosaics:
    """Mosaics of garments with these labels, equally many of each kind, in random order.

    The class that is most frequent is always the only one.
    """
    draw = np.random.default_rng(seed)
    order = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[order], np.arange(CLASSES + 1))
    found: list[Mosaics] = []
    for kind in range(len(KINDS)):
        missing = n // len(KINDS)
        while missing > 0:
            made = _drawn(draw, order, starts, len(labels), kind, 2 * missing + 100)
            found.append(made.only(slice(missing)))
            missing -= len(found[-1])
    whole = Mosaics(*(np.concatenate([getattr(each, name) for each in found]) for name in _COLUMNS))
    return whole.only(draw.permutation(len(whole)))


def _drawn(draw: np.random.Generator, order: Ints, starts: Ints, empty: int, kind: int, n: int) -> Mosaics:
    """Up to ``n`` mosaics whose questions of a kind have one answer."""
    classes = draw.integers(CLASSES, size=(n, CELLS))
    counts = draw.integers(_FEWEST, _MOST + 1, size=(n, 1))
    is_full = draw.random((n, CELLS)).argsort(axis=1).argsort(axis=1) < counts
    sizes = starts[classes + 1] - starts[classes]
    garments = order[starts[classes] + (draw.random((n, CELLS)) * sizes).astype(np.int64)]
    cell, quadrant = (draw.random((n, CELLS)) * is_full).argmax(axis=1), draw.integers(_QUADRANTS, size=n)
    targets = (cell, quadrant, np.zeros(n, np.int64))[kind]
    places = (np.arange(CELLS), _quadrants(), np.zeros(CELLS, np.int64))[kind]
    inside = (places == targets[:, None]) & is_full
    frequency = ((classes[..., None] == np.arange(CLASSES)) & inside[..., None]).sum(axis=1)
    most = frequency.max(axis=1)
    is_clear = (most > 0) & ((frequency == most[:, None]).sum(axis=1) == 1)
    cells = np.where(is_full, garments, empty)
    return Mosaics(cells, np.full(n, kind), targets, frequency.argmax(axis=1)).only(is_clear)


def _quadrants() -> Ints:
    """The quadrant of each cell."""
    rows, columns = np.divmod(np.arange(CELLS), SIDE)
    found: Ints = rows // (SIDE // 2) * 2 + columns // (SIDE // 2)
    return found


@dataclass(frozen=True)
class Garments:
    """Garments of one split, encoded.

    Args:
        labels: ``Int[garments]``.
        features: ``Float[garments + 1, 256]``; the last row is an empty cell.
    """

    labels: Ints
    features: Tensor

    def encode(self, cells: Tensor) -> Tensor:
        """``Float[batch, 16, 272]``: the features of each cell of mosaics, and its position."""
        found = self.features[cells]
        return torch.cat([found, _positions().expand(len(cells), -1, -1)], dim=2)


@cache
def garments(split: str, quick: bool) -> Garments:
    """The garments of ``"train"``, ``"development"`` or ``"test"`` mosaics, encoded by the frozen network."""
    images, network = _halved(split, quick), _network(quick)
    pictures = F.pad(images[0], (0, 0, 0, 0, 0, 0, 0, 1))  # an empty cell at the end
    with evaluating(network):
        encoded = torch.cat([network[:-1](pictures[rows]) for rows in blocks(len(pictures), 2_000)])
    return Garments(images[1].numpy(), encoded)


def _halved(split: str, quick: bool) -> tuple[Tensor, Tensor]:
    """Pictures ``Float[n, 1, 14, 14]`` and their classes."""
    data: LabelledImages = fashion_mnist("test" if split == "test" else "train")
    rows = {"train": slice(0, -_DEVELOPMENT), "development": slice(-_DEVELOPMENT, None), "test": slice(None)}
    kept = rows[split] if not quick else slice(0, 1_000)
    whole = torch.from_numpy(data.images[kept].copy()).float()[:, None] / 255
    return F.avg_pool2d(whole, 2), torch.from_numpy(data.labels[kept].copy())


@cache
def _network(quick: bool) -> nn.Sequential:
    """Three convolutions to 256 numbers and a classifier, trained on single garments."""
    images, labels = _halved("train", quick)

    def loss(network: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(network(batch[0]), batch[1])

    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, WIDTH, 3), nn.ReLU(), nn.Flatten(),
            nn.Linear(WIDTH, CLASSES),
        )  # fmt: skip
    data = torch.utils.data.TensorDataset(images, labels)
    fit(network, loss, data, TrainConfig(epochs=1 if quick else 3, batch_size=256, lr=2e-3))
    return network.eval().requires_grad_(False)


@cache
def _positions() -> Tensor:
    """``Float[1, 16, 16]``: sines and cosines of the row and of the column of each cell."""
    rows, columns = np.divmod(np.arange(CELLS), SIDE)
    rates = np.pi / SIDE * np.arange(1, _POSITIONS // 4 + 1)
    parts = [f(each[:, None] * rates) for each in (rows, columns) for f in (np.sin, np.cos)]
    return torch.from_numpy(np.concatenate(parts, axis=1)).float()[None]
