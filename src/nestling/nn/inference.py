"""Running a torch module to see what it gives or costs, and leaving it as it was."""

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
