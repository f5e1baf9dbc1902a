"""Two processes train as one does; a failure of one stops both; shards are collected and spread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed import init_process_group

from nestling.errors import ConfigError, NonFiniteError
from nestling.granularity import Granularity, Nesting
from nestling.losses import InfoNCE, Nested, OneEncoding, Parts
from nestling.schedules import RandomSome
from nestling.training import TrainConfig, TrainLog, fit
from nestling.training.sharded import collect_shards, spread_shards
from nestling.training.state import pack, unpack
from two_processes import WORLD, launch, save

pytestmark = pytest.mark.filterwarnings("default")
CONFIG = TrainConfig(
    epochs=3,
    batch_size=16,
    gradient_accumulation=2,
    lr=1e-2,
    log_every=1,
    checkpoint_every=2,
    drop_last=False,
)


class Contrast(nn.Module):
    """A nested contrastive loss with a learned temperature, which can fail in one call."""

    def __init__(self, fail_at: int = -1) -> None:
        super().__init__()
        self.loss = Nested(InfoNCE(learn_temperature=True), Nesting.parse("dim=2,4,8")).double()
        self.calls, self.fail_at = 0, fail_at

    def forward(self, encode: nn.Module, batch: dict[str, Tensor]) -> Parts:
        self.calls += 1
        if self.calls == self.fail_at:
            raise MemoryError
        u, v = encode(torch.cat([batch["a"], batch["b"]])).chunk(2)
        return self.loss.parts(u, v)


def model(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    network = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Dropout(dropout), nn.Linear(16, 8)).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return network


def data() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {"a": generator.normal(size=(74, 6)), "b": generator.normal(size=(74, 6))}


def all_weights(*modules: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for module in modules for p in module.parameters()])


def train(folder: Path | None = None, *, fail_at: int = -1, **changes: Any) -> tuple[Tensor, TrainLog]:
    network, objective = model(**changes), Contrast(fail_at)
    log = fit(network, objective, data(), CONFIG, folder=folder, evaluate=lambda step: {"step": step})
    return all_weights(network, objective), log


def train_in_two(folder: Path) -> None:
    found, log = train(folder / "run")
    save(
        folder,
        "plain",
        weights=found,
        losses=torch.tensor([v for _, v in log.series("loss")], dtype=torch.float64),
    )
    # Dropout differs between the processes, and between the steps; other seeds stand for other starts.
    whole, _ = train(dropout=0.5)
    with pytest.raises(MemoryError):
        train(folder / "stopped", dropout=0.5, fail_at=11)
    again, log = train(folder / "stopped", dropout=0.5)
    assert log.resumed_from == 6
    assert torch.equal(again, whole)


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    launch(train_in_two, tmp_path)
    expected, log = train()
    for rank in range(WORLD):
        found = load_file(tmp_path / f"plain-{rank}.safetensors")
        torch.testing.assert_close(found["weights"], expected, rtol=1e-7, atol=1e-9)
        losses = [value for _, value in log.series("loss")]
        torch.testing.assert_close(found["losses"].tolist(), losses, rtol=1e-7, atol=1e-9)
    written = TrainLog.from_csv((tmp_path / "run" / "log.csv").read_text())
    assert written.series("step") == [(9, 9.0)], "one process alone writes the log"


def fail_in_one(folder: Path) -> None:
    def objective(encode: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        loss = encode(batch["a"]).square().mean()
        broken = torch.distributed.get_rank() == 1
        return loss * (float("nan") if broken else 1.0)

    network = model()
    with pytest.raises(NonFiniteError, match="loss of step 1 is not finite: nan at the total"):
        fit(network, objective, data(), CONFIG)
    assert torch.equal(all_weights(network), all_weights(model()))
    with pytest.raises(ConfigError, match="batch_size=15 cannot be shared equally among 2 processes"):
        fit(network, objective, data(), TrainConfig(batch_size=15))


def test_a_loss_that_is_nan_in_one_process_stops_both(tmp_path: Path) -> None:
    launch(fail_in_one, tmp_path)


class Scales(nn.Module):
    """An encoder and a head for each number of tokens; a step trains some heads alone."""

    def __init__(self, seed: int, *, norm: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(model(seed), nn.BatchNorm1d(8) if norm else nn.Identity()).double()
        self.heads = nn.ModuleDict({size: model(seed + int(size))[0] for size in "124"})

    def encode(self, batch: dict[str, Tensor]) -> Tensor:
        return self.encoder(batch["a"])[:, :6]

    def loss(self, features: Tensor, batch: dict[str, Tensor], at: Granularity) -> Tensor:
        return (self.heads[str(at["tokens"])](features)[:, :6] - batch["b"]).square().mean()


def train_scales(seed: int = 0, **changes: Any) -> tuple[Scales, TrainLog]:
    network = Scales(seed, **changes)
    objective = OneEncoding(
        Scales.encode,
        lambda network, features, batch, at: network.loss(features, batch, at),
        "tokens=1,2,4",
        schedule=RandomSome(1),
    )
    return network, fit(network, objective, data(), CONFIG)


def yield_in_two(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    network, log = train_scales(seed=0 if rank == 0 else 5)  # all start from the weights of the first
    losses = torch.tensor([value for _, value in log.series("loss")], dtype=torch.float64)
    save(folder, "yielded", weights=all_weights(network), losses=losses)
    network, _ = train_scales(norm=True)
    save(folder, "norm", **network.state_dict())

    def one_sided(network: Scales, batch: dict[str, Tensor]) -> Iterator[Tensor]:
        for at in (Granularity(tokens=1), Granularity(tokens=2)):
            features = network.encode(batch)
            yield network.loss(features, batch, at if rank == 0 else Granularity(tokens=1))

    network = Scales(0)
    fit(network, one_sided, data(), TrainConfig(max_steps=2, batch_size=16))
    save(folder, "one-sided", **network.state_dict())

    def other_names(network: Scales, batch: dict[str, Tensor]) -> Iterator[Parts]:
        loss = network.loss(network.encode(batch), batch, Granularity(tokens=1))
        yield Parts(loss, {Granularity(tokens=1 + rank): loss.detach()})

    with pytest.raises(ConfigError, match=rf"different losses .* the total, tokens={1 + rank}\. Sample"):
        fit(Scales(0), other_names, data(), CONFIG)


def test_an_objective_that_yields_trains_in_two_processes_as_in_one(tmp_path: Path) -> None:
    """Also if a step trains some weights alone, and the same granularities are sampled everywhere."""
    launch(yield_in_two, tmp_path)
    network, log = train_scales()
    expected = [value for _, value in log.series("loss")]
    both = [load_file(tmp_path / f"yielded-{rank}.safetensors") for rank in range(WORLD)]
    assert torch.equal(both[0]["weights"], both[1]["weights"])
    torch.testing.assert_close(both[0]["weights"], all_weights(network), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(both[0]["losses"].tolist(), expected, rtol=1e-7, atol=1e-9)
    for name in ("norm", "one-sided"):
        first, second = (load_file(tmp_path / f"{name}-{rank}.safetensors") for rank in range(WORLD))
        assert all(torch.equal(value, second[key]) for key, value in first.items())
    start = Scales(0).state_dict()
    assert not torch.equal(first["heads.2.weight"], start["heads.2.weight"]), "one process trained it"
    assert torch.equal(first["heads.4.weight"], start["heads.4.weight"]), "no process trained it"


def train_untold(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"there are 2 processes, but Accelerate sees 1; start .* torchrun"):
        train()


def test_processes_that_accelerate_does_not_know_of_are_refused(tmp_path: Path) -> None:
    launch(train_untold, tmp_path, told=False)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(5, 6)))
    network(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def shard(network: nn.Module) -> tuple[nn.Module, torch.optim.Optimizer]:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    fully_shard(network, mesh=init_device_mesh("cpu", (WORLD,)))
    return network, torch.optim.AdamW(network.parameters(), lr=0.1)


def collect_and_spread(folder: Path) -> None:
    init_process_group("gloo")
    first = shard(model(seed=1))
    for seed in range(3):
        step(*first, seed)
    weights, moments = collect_shards(*first)
    if torch.distributed.get_rank() == 0:
        save(folder, "collected", **weights)
    packed = list(pack((weights, moments)))  # as a checkpoint holds it
    torch.distributed.broadcast_object_list(packed)
    second = shard(model(seed=2))
    spread_shards(*second, *unpack(*packed))
    for pair in (first, second):
        step(*pair, seed=3)
    weights, _ = collect_shards(*first)
    again, _ = collect_shards(*second)
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    assert bool(weights) == (torch.distributed.get_rank() == 0)


@pytest.mark.skipif(torch.__version__ < "2.7", reason="torch before 2.7 shards models on GPUs alone")
def test_sharded_states_are_collected_whole_and_spread_again(tmp_path: Path) -> None:
    launch(collect_and_spread, tmp_path)
    network = model(seed=1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for seed in range(3):
        step(network, optimizer, seed)
    found = load_file(tmp_path / "collected-0.safetensors")
    assert found.keys() == network.state_dict().keys()
    for name, value in network.state_dict().items():
        torch.testing.assert_close(found[name], value)
