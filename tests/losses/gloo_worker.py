"""One of two gloo processes: writes the gradients by three methods. Also imported by its test."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel

from nestling.granularity import Nesting
from nestling.losses import GradientCache, InfoNCE, Nested

WORLD, PER_PROCESS = 2, 6


def model() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(5, 8, dtype=torch.float64)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return linear


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(2, WORLD * PER_PROCESS, 5, generator=generator, dtype=torch.float64)
    return x, y, torch.arange(WORLD * PER_PROCESS) % 9


def loss(fast: bool) -> Nested:
    return Nested(InfoNCE(symmetric=True).double(), Nesting.parse("dim=2,4,8"), fast=fast)


def one_of_two(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    init_process_group("gloo", rank=rank, world_size=WORLD)
    mine = slice(rank * PER_PROCESS, (rank + 1) * PER_PROCESS)
    x, y, ids = (column[mine] for column in batch())
    gradients = []
    for fast in (True, False):
        parallel = DistributedDataParallel(model())
        u, v = parallel(torch.cat([x, y])).split(PER_PROCESS)
        loss(fast)(u, v, ids=ids).backward()
        gradients.append([p.grad for p in parallel.parameters()])
    parallel = DistributedDataParallel(model())
    GradientCache(parallel, loss(True), chunk_size=4)(x, y, ids=ids).backward()
    gradients.append([p.grad for p in parallel.parameters()])
    if rank == 0:
        flat = torch.cat([g.flatten() for way in gradients for g in way])
        Path(folder, "gradients.bin").write_bytes(flat.numpy().tobytes())


if __name__ == "__main__":
    one_of_two(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    gc.collect()  # leftovers of the wrappers hold the group, whose threads abort a closing interpreter
    destroy_process_group()
