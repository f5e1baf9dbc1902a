"""How likely answers are after their prompts."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from nestling.domains.prefix.batches import IGNORED, PrefixBatch
from nestling.domains.prefix.model import PrefixLM
from nestling.errors import DataError
from nestling.granularity import At, Granularity


def log_likelihoods(
    model: PrefixLM, batch: PrefixBatch, granularities: Iterable[At] | None = None
) -> dict[Granularity, Tensor]:
    """The log-probability of each row's answer, ``Float[batch]``, at several granularities.

    Args:
        model: a prefix model.
        batch: with answers.
        granularities: all of the model by default.

    Raises:
        DataError: for a batch without answers.
    """
    if batch.labels is None:
        raise DataError("the batch has no answers whose likelihood could be found")
    after = F.pad(batch.labels[:, 1:], (0, 1), value=IGNORED)
    is_answer = after != IGNORED
    found = {}
    for g, logits in model.forward_each(batch, granularities).items():
        chosen = logits.float().log_softmax(-1).gather(2, after.clamp(min=0)[..., None])[..., 0]
        found[g] = torch.where(is_answer, chosen, 0).sum(dim=1)
    return found
