"""Two processes that train together, as torchrun starts them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed import destroy_process_group, init_process_group
from torch.multiprocessing import start_processes

WORLD = 2


def launch(job: Callable[[Path], None], folder: Path, *, told: bool = True) -> None:
    """Run ``job`` in two processes that know of each other as those of torchrun do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(_one, args=(job, str(folder), port, told), nprocs=WORLD, start_method="fork")


def _one(rank: int, job: Callable[[Path], None], folder: str, port: int, told: bool) -> None:
    from accelerate.state import PartialState

    PartialState._reset_state()  # the state that this process inherited by the fork
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    if told:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2")
    else:
        init_process_group("gloo", rank=rank, world_size=WORLD)
    job(Path(folder))
    destroy_process_group()


def save(folder: Path, name: str, **tensors: Tensor) -> None:
    save_file(tensors, folder / f"{name}-{torch.distributed.get_rank()}.safetensors")
