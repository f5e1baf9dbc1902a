"""Running a torch module to see what it gives or costs, and leaving it as it was; or in other processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without gradients and in eval mode; afterwards every submodule is in the mode it had."""
    trained = [part for part in module.modules() if part.training]
    if trained:  # to say it to every part takes as long as a layer does for one text
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in trained:
            part.training = True


def multiply_adds(run: Callable[[], Any]) -> float:
    """The multiply-adds of the matrix products and convolutions in ``run()``, as torch counts them."""
    # Fused attention kernels are not counted on every device; the plain one is.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops()) / 2


def encode_apart(
    model: SentenceTransformer, texts: list[str], devices: Sequence[str], batch_size: int, prompt: str | None
) -> NDArray[np.float32]:
    """Vectors ``Float32[texts, dim]`` by a process for each of ``devices``, each with a copy of the model."""
    pool = model.start_multi_process_pool(list(devices))
    try:
        with evaluating(model):
            found = model.encode(texts, pool=pool, batch_size=batch_size, prompt=prompt)
    finally:
        model.stop_multi_process_pool(pool)
    return np.asarray(found, np.float32)
