"""Evaluation mode that restores itself, and the count of multiply-adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Runs the block without gradients and in eval mode, then restores the mode of every submodule."""
    trained = [part for part in module.modules() if part.training]
    if trained:  # setting every submodule takes as long as one layer for one text
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part in trained:
            part.training = True


def multiply_adds(run: Callable[[], Any]) -> float:
    """The multiply-adds of the matrix products and convolutions in ``run()``, as torch counts them."""
    # The counter sees plain attention on every device, but not fused kernels.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops()) / 2
