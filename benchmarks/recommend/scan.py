"""Forward and backward time of the linear recurrence by each scan, against the released form and plain loops.

The released form is that of LRURec and fMRLRec: complex numbers, padding to a power of two, rounds that join
runs in pairs, gradients by autograd. The plain loop is one line of torch a step, gradients by autograd.

Run: python benchmarks/recommend/scan.py   (one thread; the seconds are those of the processor)
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from nestling.nn.recurrent.scan import Scan, linear_recurrence
from record import Ratios, arguments, in_turn, parsed, ratio

WIDTH = 64
BATCHES = (128, 1)
LENGTHS = (8, 50, 200, 512)
RELEASED, PLAIN = "released tree", "plain loop"
Recurrence = Callable[[Tensor, Tensor], Tensor]


def released(x: Tensor, decay: Tensor) -> Tensor:
    batch, length, width = x.shape
    rounds = math.ceil(math.log2(length))
    padding = 2**rounds - length
    h = F.pad(x, (0, 0, padding, 0))
    mask = F.pad(torch.ones(batch, length, dtype=torch.bool), (padding, 0))
    powers = decay[None]
    for number in range(1, rounds + 1):
        run = 2**number
        h, masks = h.reshape(-1, run, width), mask.reshape(-1, run)
        first, second = h[:, : run // 2], h[:, run // 2 :]
        if number > 1:
            powers = torch.cat([powers, powers * powers[-1]], dim=0)
        second = second + powers * first[:, -1:] * masks[:, run // 2 - 1 : run // 2, None]
        h = torch.cat([first, second], dim=1)
    return h.reshape(batch, -1, width)[:, padding:]


def plain(x: Tensor, decay: Tensor) -> Tensor:
    state = torch.zeros_like(x[:, 0])
    states = []
    for given in x.unbind(1):
        state = given + decay * state
        states.append(state)
    return torch.stack(states, dim=1)


def scans() -> dict[str, Recurrence]:
    def of(scan: Scan) -> Recurrence:
        return lambda x, decay: linear_recurrence(x, decay, scan=scan)

    return {RELEASED: released, PLAIN: plain, **{name: of(name) for name in get_args(Scan)}}


def step(recurrence: Recurrence, x: Tensor, decay: Tensor, upstream: Tensor) -> Callable[[], None]:
    def act() -> None:
        x.grad = decay.grad = None
        recurrence(x, decay).backward(upstream)

    return act


def main() -> None:
    given = parsed(arguments(__doc__, rounds=15))
    torch.set_num_threads(1)
    found = Ratios("recommend_scan", given.output)
    for batch in BATCHES:
        for length in LENGTHS[: 2 if given.quick else None]:
            torch.manual_seed(0)
            x = torch.randn(batch, length, WIDTH, dtype=torch.complex64, requires_grad=True)
            decay = torch.polar(torch.rand(WIDTH), 6 * torch.rand(WIDTH)).requires_grad_()
            upstream = torch.randn_like(x)
            repeats = max(1, 6400 // (batch * length))
            steps = {name: step(each, x, decay, upstream) for name, each in scans().items()}
            acts = {name: _repeated(act, repeats) for name, act in steps.items()}
            seconds = in_turn(acts, given.rounds, clock=time.process_time)
            _report(found, f"{batch} x {length} x {WIDTH}", length, batch, seconds)
            print("  " + ", ".join(f"{n} {min(s) / repeats * 1e3:.2f} ms" for n, s in seconds.items()))


def _repeated(act: Callable[[], None], times: int) -> Callable[[], None]:
    def acts() -> None:
        for _ in range(times):
            act()

    return acts


def _report(found: Ratios, shape: str, length: int, batch: int, seconds: dict[str, list[float]]) -> None:
    is_asked = batch > 1 and length in (50, 512)
    found.add(
        f"{RELEASED} over ours, {shape}", ratio(seconds, RELEASED, "auto"), at_least=3 if is_asked else None
    )
    found.add(f"{PLAIN} over ours, {shape}", ratio(seconds, PLAIN, "auto"), at_least=1)
    for name in ("loop", "tree", "fft"):
        found.add(f"{name} over ours, {shape}", ratio(seconds, name, "auto"))


if __name__ == "__main__":
    main()
