"""Processes and device of a run, from Accelerate."""

from __future__ import annotations

import atexit
import gc
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from nestling.errors import ConfigError, require

_PLAIN = ("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_XPU", "MULTI_NPU", "MULTI_MLU", "MULTI_MUSA", "MULTI_HPU")


@contextmanager
def launched() -> Iterator[Any]:
    """The ``Accelerator`` of a run: one process, or those of ``accelerate launch`` or ``torchrun``.

    Accelerate keeps a global state per process; the first caller fixes its precision. The run sets this
    state aside and restores it afterwards, so that it neither depends on it nor changes it.

    Raises:
        MissingExtraError: if Accelerate is not installed.
        ConfigError: for an unsupported kind of distributed training, or a process group that
            Accelerate does not know.
    """
    accelerate = require("accelerate", "train")
    with ExitStack() as stack:
        for kind in (accelerate.state.AcceleratorState, accelerate.state.GradientState):
            stack.enter_context(_put_aside(kind))
        # Without cpu=True, Accelerate sees the processes of torchrun on CPUs as unrelated single ones.
        only_cpu = _launched_processes() > 1 and not getattr(torch, "accelerator", torch.cuda).is_available()
        had_group = _group_runs()
        accelerator = accelerate.Accelerator(mixed_precision="no", cpu=only_cpu)
        if _group_runs() and not had_group:
            atexit.register(_leave_group)
        _check_distribution(accelerator)
        yield accelerator


def is_sharded(accelerator: Any) -> bool:
    """Whether the weights are sharded over the processes (FSDP)."""
    return bool(accelerator.distributed_type.value == "FSDP")


def copy_from_first(tensors: Iterable[Tensor]) -> None:
    """Give all processes the values of the first; every process passes the same tensors."""
    for tensor in tensors:
        values = tensor.detach().contiguous()
        torch.distributed.broadcast(values, 0)
        tensor.detach().copy_(values)


def average_gradients(accelerator: Any, parameters: Sequence[nn.Parameter]) -> None:
    """Replace gradients by their means over the processes; one without a gradient counts as zero.

    Parameters without a gradient in all processes keep none.
    """
    if not parameters:
        return
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int, device=accelerator.device)
    for parameter, count in zip(parameters, accelerator.reduce(has, "sum").tolist(), strict=True):
        if count:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = accelerator.reduce(gradient, "mean")


def check_same_names(accelerator: Any, names: Iterable[str]) -> None:
    """Check that all processes computed the same losses, whose values are averaged in this order.

    Raises:
        ConfigError: if they did not.
    """
    names = list(names)
    digest = torch.tensor([zlib.crc32("\n".join(names).encode())], device=accelerator.device)
    if accelerator.gather(digest).unique().numel() > 1:
        mine = ", ".join(name or "the total" for name in names)
        raise ConfigError(
            f"the processes computed different losses in this step; this one {mine}. Sample granularities "
            "from a seed that all processes share, as the schedules of Nested and OneEncoding do"
        )


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
    running = torch.distributed.get_world_size() if _group_runs() else _launched_processes()
    if accelerator.num_processes != running:
        raise ConfigError(
            f"there are {running} processes, but Accelerate sees {accelerator.num_processes}; start the "
            "program with torchrun or accelerate launch, which set the rank of each"
        )


def _group_runs() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _leave_group() -> None:
    """Runs at exit: an open gloo group may abort the interpreter."""
    if _group_runs():
        gc.collect()  # DDP wrappers are reference cycles that hold the group
        torch.distributed.destroy_process_group()


def _launched_processes() -> int:
    """The number of processes that torchrun or accelerate launch started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
