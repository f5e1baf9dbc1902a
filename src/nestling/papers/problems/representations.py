"""Representations to compare: shapes, AlexNet and cortex on pictures, trained networks, and words."""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nestling.compare.rdms.from_patterns import rdm
from nestling.compare.rdms.rdms import RDMs
from nestling.compare.transforms.geodesic import Geodesic
from nestling.compare.transforms.topology import GeoTopological
from nestling.data.sets.dissimilarities import pictures92
from nestling.data.sets.images import fashion_mnist
from nestling.data.sets.sts import stsb
from nestling.encoders.activations import activations
from nestling.encoders.text.encoder import TextEncoder
from nestling.granularity import Nesting
from nestling.measure.baselines import random_dims
from nestling.measure.encode import encode_task
from nestling.measure.sweep import sweep
from nestling.measure.tasks.fidelity import Fidelity
from nestling.training import TrainConfig, fit

Floats = NDArray[np.float64]

DRAWS = 5  # of points, noise, pictures or words, for one seed
_JITTER = 0.004
_NETWORKS, _STIMULI, _IMAGES, _EPOCHS, _WIDTHS = 10, 62, 8_000, 5, (16, 16, 24, 24, 32, 32, 32, 32)
_PICTURES = 0.8  # share of them that a seed draws
_WORDS, _COMMON, _LETTERS = 107, 600, 4
_SIZES = Nesting.chain(dim=[8, 16, 32, 64, 128, 256])


class Shapes:
    """Points on a figure eight that is flat or twisted to a saddle, and crosses itself or does not."""

    name = "figure eights of 50 and 100 points"

    def points(self, count: int, seed: int) -> Floats:
        """``Float[4, count, 3]``: flat and twisted with a crossing, then both with strands that pass.

        Seeds differ in where on the curve the points lie, and by a little noise.
        """
        rng = np.random.default_rng([seed, count])
        t = 2 * np.pi * (np.arange(count) + rng.random()) / count
        eight = np.stack([np.cos(t), np.sin(2 * t)])
        gap, saddle = np.sin(t) / 3, np.cos(2 * t)
        heights = ((1, 0 * t), (2, saddle), (1, gap), (2, saddle * (1 + gap)))
        points = np.stack([np.stack([*eight / scale, height], axis=1) for scale, height in heights])
        return points + rng.normal(scale=_JITTER, size=points.shape)

    def grouping(self, count: int, seed: int, transform: GeoTopological | Geodesic | None = None) -> float:
        """Distance between shapes of one topology over that between shapes of one geometry.

        Above 1, a statistic groups shapes by geometry (flat, twisted); below 1, by topology (crossing, not).
        """
        vectors = rdm(self.points(count, seed), "euclidean").vectors
        flat, twisted, flat_apart, twisted_apart = (
            vectors if transform is None else transform.fit_transform(vectors)
        )
        apart = np.linalg.norm
        of_one_topology = apart(flat - twisted) + apart(flat_apart - twisted_apart)
        return float(of_one_topology / (apart(flat - flat_apart) + apart(twisted - twisted_apart)))


def rdms_of(part: str) -> RDMs:
    """The matrices of one part of the 92 pictures."""
    return RDMs.of(pictures92(part))


class AlexNet:
    """Five layers of AlexNet under ten simulated measurements."""

    name = "AlexNet on 92 pictures under 10 measurements"

    @cached_property
    def rdms(self) -> RDMs:
        """50 matrices, labelled ``layer`` and ``measurement``."""
        every = rdms_of("alexnet")
        simulated = [str(name).startswith("smooth") for name in every.labels["measurement"]]
        return every[np.array(simulated)]


class Brains:
    """Cortex of people and a monkey, and a model of V1, on the 92 pictures."""

    name = "inferior temporal cortex on 92 pictures"

    def averages(self, seed: int) -> tuple[RDMs, RDMs, RDMs]:
        """The mean over people and scans, the monkey's, and V1's, over pictures that ``seed`` draws."""
        people, species, models = (rdms_of(part) for part in ("brains", "species", "models"))
        chosen = np.random.default_rng([92, seed]).permutation(people.n)[: round(_PICTURES * people.n)]
        names = [people.stimuli[place] for place in sorted(chosen)]
        human = RDMs(people.vectors.mean(axis=0))
        each = (human, species.where(name="mIT_674neurons"), models.where(name="V1"))
        return tuple(rdms.at(names) for rdms in each)  # type: ignore[return-value]


class Networks:
    """Small convolutional networks that differ by their seed, trained on Fashion-MNIST.

    Args:
        quick: two networks and few images, to see that everything runs.
    """

    name = "10 networks on Fashion-MNIST"

    def __init__(self, quick: bool) -> None:
        self.quick, self.draws = quick, 1 if quick else DRAWS

    def rdms(self, seed: int, *, noise: float = 0.0) -> RDMs:
        """A matrix for each network and layer, over test images that ``seed`` draws.

        Args:
            seed: of the images and the noise.
            noise: on each activity, in standard deviations of its layer.
        """
        rng = np.random.default_rng([62, seed])
        images = fashion_mnist("test").images
        chosen = _pixels(images[rng.choice(len(images), _STIMULI, replace=False)])
        parts = []
        for number, network in enumerate(self._trained):
            layers = activations(network, chosen, list(network.measured))
            if noise:
                layers = {name: _shaken(x, noise, rng) for name, x in layers.items()}
            found = rdm(layers, "sqeuclidean")
            parts.append(found.replace(labels={"layer": found.labels["name"], "network": number}))
        return RDMs.concat(parts)

    @cached_property
    def _trained(self) -> list[_Network]:
        data = fashion_mnist("train")
        count = 300 if self.quick else _IMAGES
        tensors = (_pixels(data.images[:count]), torch.from_numpy(data.labels[:count].astype(np.int64)))
        return [_train(tensors, seed, self.quick) for seed in range(2 if self.quick else _NETWORKS)]

    @cached_property
    def accuracy(self) -> float:
        """Mean share of test images that the networks classify rightly."""
        data = fashion_mnist("test")
        images, labels = _pixels(data.images[:2000]), data.labels[:2000]
        networks = self._trained
        with torch.no_grad():
            found = [(network(images).argmax(1).numpy() == labels).mean() for network in networks]
        return float(np.mean(found))


class _Network(nn.Module):
    """Eight convolutions, three of them with a stride, and a mean over places before the classes."""

    def __init__(self) -> None:
        super().__init__()
        channels = (1, *_WIDTHS)
        blocks = [
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1, stride=2 if number in (2, 4, 6) else 1), nn.ReLU()
            )
            for number, (before, after) in enumerate(zip(channels, _WIDTHS, strict=False))
        ]
        self.blocks = nn.Sequential(*blocks)
        self.classes = nn.Linear(_WIDTHS[-1], 10)
        self.measured = (*(f"blocks.{number}" for number in range(len(blocks))), "classes")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classes(self.blocks(images).mean((2, 3)))
        return logits


def _shaken(x: NDArray[np.float32], noise: float, rng: np.random.Generator) -> NDArray[np.float32]:
    return x + np.asarray(rng.normal(0, noise * x.std(), x.shape), np.float32)


def _train(data: tuple[torch.Tensor, torch.Tensor], seed: int, quick: bool) -> _Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = _Network()
    config = TrainConfig(epochs=1 if quick else _EPOCHS, batch_size=64, lr=2e-3, seed=seed)
    fit(network, lambda model, batch: nn.functional.cross_entropy(model(batch[0]), batch[1]), data, config)
    return network.eval()


def _pixels(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images.astype(np.float32)[:, None] / 255)


class Words:
    """Common words with the nested static vectors of wordllama."""

    name = "107 common words, wordllama"

    def kept(self, seed: int) -> dict[str, float]:
        """Correlation of matrices of few dims, the first ones or some at random, with that of all dims."""
        encoder = TextEncoder.open("wordllama")
        task = encode_task(encoder, Fidelity(self.words(seed), k=None))
        curves = {
            "{}, {}": sweep(lambda vectors: vectors, task, _SIZES, rule=encoder.rule, seed=seed),
            "{}, {} at random": random_dims(task, _SIZES, rule=encoder.rule, seed=seed),
        }
        return {
            text.format(
                row.metric, row.granularity if "random" not in text else row.granularity["dim"]
            ): row.value
            for text, curve in curves.items()
            for row in curve.rows
            if row.granularity != _SIZES.full
        }

    def words(self, seed: int) -> list[str]:
        """Words drawn from the most common ones of the STS benchmark."""
        counts = Counter(
            word
            for text in stsb("train").first
            for word in re.findall(rf"[a-z]{{{_LETTERS},}}", text.lower())
        )
        common = [word for word, _ in counts.most_common(_COMMON)]
        rows = np.random.default_rng([107, seed]).choice(len(common), _WORDS, replace=False)
        return [common[row] for row in sorted(rows)]
