"""The processes and the device of a run, as Accelerate finds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from nestling.errors import ConfigError, require

_PLAIN = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_HPU")


@contextmanager
def launched() -> Iterator[Any]:
    """The ``Accelerator`` of a run: one process, or those of ``accelerate launch`` or ``torchrun``.

    Accelerate keeps one state per process, fixed by whoever comes first and refused to whoever wants
    another precision. It is put aside for the run, so that the run neither depends on it nor changes it.

    Raises:
        MissingExtraError: if Accelerate is not installed.
        ConfigError: under a kind of distribution that is not supported, or beside a process group
            that Accelerate does not know of.
    """
    accelerate = require("accelerate", "train")
    with ExitStack() as stack:
        for kind in (accelerate.state.AcceleratorState, accelerate.state.GradientState):
            stack.enter_context(_put_aside(kind))
        accelerator = accelerate.Accelerator(mixed_precision="no")
        _check_distribution(accelerator)
        yield accelerator


def is_sharded(accelerator: Any) -> bool:
    """Whether the weights are spread over the processes (FSDP)."""
    return bool(accelerator.distributed_type.value == "FSDP")


@contextmanager
def _put_aside(kind: Any) -> Iterator[None]:
    kept = dict(kind._shared_state)
    kind._reset_state()
    try:
        yield
    finally:
        kind._reset_state()
        kind._shared_state.update(kept)


def _check_distribution(accelerator: Any) -> None:
    kind = accelerator.distributed_type.value
    if kind not in (*_PLAIN, "FSDP"):
        raise ConfigError(f"training under {kind} is not supported; launch on one process, DDP or FSDP")
    group = torch.distributed.is_available() and torch.distributed.is_initialized()
    known, found = accelerator.num_processes, torch.distributed.get_world_size() if group else 1
    if known != found:
        raise ConfigError(
            f"torch.distributed runs {found} processes, but Accelerate sees {known}; start the program "
            "with torchrun or accelerate launch, which tell it the rank of each"
        )
