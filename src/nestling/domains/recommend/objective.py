"""Training of a next-item model: batches of similar length, sampled softmax, losses of all widths at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nestling.domains.recommend.histories import Histories
from nestling.losses.nested import Parts
from nestling.losses.prefix import prefix_softmax_losses
from nestling.nn.tokens import Tokens

Batch = dict[str, Tensor]


class SequenceBatches:
    """Batches of users with histories of similar length, for :func:`nestling.training.fit`.

    The columns of the softmax are all items that follow in the batch, each once, and a uniform sample of the
    others. The logits of the sample are raised by the logarithm of the items that each of it stands for, so
    that sums over columns are unbiased estimates of sums over all items.

    Args:
        histories: of training users.
        items: number of items of the catalogue.
        batch_size: users in a batch.
        negatives: size of the sample; None takes all items.
        longest: the last events of a user that are read.
        seed: of the users with equal lengths that share a batch.
    """

    def __init__(
        self,
        histories: Histories,
        items: int,
        *,
        batch_size: int,
        negatives: int | None,
        longest: int,
        seed: int,
    ) -> None:
        self.histories, self.items, self.negatives, self.longest = histories, items, negatives, longest
        users = np.flatnonzero(histories.lengths > 1)  # one event has none after it
        order = np.random.default_rng(seed).permutation(users)
        order = order[np.argsort(np.minimum(histories.lengths[order], longest + 1), kind="stable")]
        self.batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Batch:
        """A batch; the sample is drawn from torch's global generator, which training seeds."""
        rows, mask = self.histories.padded(self.batches[number], self.longest + 1)
        inputs, mask = rows[:, :-1], mask[:, 1:]
        targets, places = torch.unique(rows[:, 1:][mask], return_inverse=True)
        sample, bias = self._sample(targets)
        columns = torch.cat([targets, sample])
        used, among = torch.unique(torch.cat([inputs[mask], columns]), return_inverse=True)
        padded = torch.zeros_like(inputs)
        padded[mask] = among[: -len(columns)]
        return {
            "rows": used,
            "inputs": padded,
            "mask": mask,
            "columns": among[-len(columns) :],
            "targets": places,
            "bias": torch.cat([torch.zeros(len(targets)), torch.full((len(sample),), bias)]),
        }

    def _sample(self, targets: Tensor) -> tuple[Tensor, float]:
        """Some of the other items, and the logarithm of the items that each stands for."""
        free = torch.ones(self.items, dtype=torch.bool)
        free[targets] = False
        others = torch.nonzero(free).flatten()
        if self.negatives is None or self.negatives >= len(others):
            return others, 0.0
        drawn = others[torch.randint(len(others), (self.negatives,))]
        return drawn, math.log(len(others) / self.negatives)


class NextItemLoss:
    """Softmax cross-entropy of the next item at every position, summed over widths from one pass.

    Args:
        weights: a factor for each width.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = tuple(weights)

    def __call__(self, model: Any, batch: Batch) -> Parts:
        """The losses of a batch of :class:`SequenceBatches`."""
        vectors = model.vectors(batch["rows"])
        users = model.network(Tokens(vectors[batch["inputs"]], batch["mask"])).values[batch["mask"]]
        found = prefix_softmax_losses(
            users,
            vectors[batch["columns"]],
            batch["targets"],
            model.nesting.sizes("width"),
            self.weights,
            cosine=False,
            bias=batch["bias"],
        )
        return Parts(found.total, dict(zip(model.nesting, found.each, strict=True)))


def only(batches: list[Batch]) -> Batch:
    """The batch of a list of one."""
    return batches[0]
