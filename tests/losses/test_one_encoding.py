"""One encoding for all granularities gives the gradients of the summed loss; one graph is alive at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nestling.errors import ConfigError
from nestling.granularity import Granularity, Nesting
from nestling.losses import OneEncoding, Parts
from nestling.losses.one_encoding import one_encoding
from nestling.schedules import Every, RandomPrefix, RandomSome, Sandwich, Schedule

NESTING = Nesting.parse("tokens=1,2,4")
WEIGHTS = (0.5, 2.0, 1.0)
ROWS, TOKENS, WIDTH = 6, 4, 5


class Tokens(NamedTuple):
    values: Tensor
    mask: Tensor | None
    grid: tuple[int, int]


class Model(nn.Module):
    """An encoder, and a head for each number of tokens."""

    def __init__(self, *, checkpointed: bool = False, frozen: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Linear(3, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
            sizes = map(str, NESTING.sizes("tokens"))
            self.heads = nn.ModuleDict(
                {size: nn.Sequential(nn.Linear(WIDTH, 7), nn.GELU(), nn.Linear(7, 2)) for size in sizes}
            )
        self.encoder.requires_grad_(not frozen)
        self.checkpointed, self.encoded = checkpointed, 0
        self.encoder.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.encoded += 1

    def encode(self, batch: dict[str, Tensor]) -> Tokens:
        return Tokens(self.encoder(batch["x"]), None, (2, 2))

    def loss(self, features: Tokens, batch: dict[str, Tensor], at: Granularity) -> Tensor:
        assert features.grid == (2, 2)
        pooled = features.values.unflatten(1, (at["tokens"], -1)).mean(2)
        head = self.heads[str(at["tokens"])]
        out = checkpoint(head, pooled, use_reentrant=False) if self.checkpointed else head(pooled)
        return (out.float() if out.dtype == torch.bfloat16 else out).mean(1).sub(batch["y"]).square().mean()


def batch() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, TOKENS, 3, generator=generator, dtype=torch.float64)
    return {"x": x, "y": x.sum((1, 2)).unsqueeze(1).expand(-1, 2)}


def objective(**settings: Any) -> OneEncoding:
    return OneEncoding(
        Model.encode,
        lambda model, features, batch, at: model.loss(features, batch, at),
        NESTING,
        **{"weights": WEIGHTS, **settings},
    )


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def summed(model: Model, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of the sum of all losses, back-propagated together."""
    features = model.encode(rows)
    sum(w * model.loss(features, rows, at) for at, w in zip(NESTING, WEIGHTS, strict=True)).backward()
    return gradients(model)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_are_those_of_the_summed_loss_from_one_encoding(checkpointed: bool, frozen: bool) -> None:
    model = Model(checkpointed=checkpointed, frozen=frozen).double()
    losses: dict[Granularity, Tensor] = {}
    for part in objective()(model, batch()):
        losses |= part.losses
        part.total.backward()
    assert model.encoded == 1
    assert tuple(losses) == tuple(NESTING)
    expected = summed(Model(frozen=frozen).double(), batch())
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # float64 sums in another order
        torch.testing.assert_close(found[name], gradient, rtol=1e-12, atol=1e-15)


def test_gradients_are_those_of_the_summed_loss_under_autocast() -> None:
    rows = {name: column.float() for name, column in batch().items()}
    model, other = Model(), Model()
    pieces = objective()(model, rows)
    while True:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            part = next(pieces, None)
        if part is None:
            break
        part.total.backward()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = other.encode(rows)
        assert features.values.dtype == torch.bfloat16
        total = sum(w * other.loss(features, rows, at) for at, w in zip(NESTING, WEIGHTS, strict=True))
    total.backward()
    for name, gradient in gradients(other).items():
        # bfloat16 keeps 8 bits, and the sums of gradients are rounded to it in another order
        torch.testing.assert_close(gradients(model)[name], gradient, rtol=2e-2, atol=2e-3)


def test_only_one_graph_lives_and_its_context_is_open_until_it_is_back_propagated() -> None:
    alive: list[weakref.ref[Any]] = []
    events: list[str] = []

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, at: str) -> Tensor:
            ctx.at = at
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
            events.append(f"backward {ctx.at}")
            return gradient, None

    @contextmanager
    def context(at: Granularity) -> Iterator[None]:
        events.append(f"open {at}")
        yield
        events.append(f"close {at}")

    def loss(model: Model, features: Tokens, rows: dict[str, Tensor], at: Granularity) -> Tensor:
        assert [ref for ref in alive if ref() is not None] == []
        out = Noted.apply(model.loss(features, rows, at), str(at))
        alive.append(weakref.ref(out.grad_fn))
        return out

    def back(part: Parts) -> None:
        part.total.backward()

    model = Model().double()
    pieces = OneEncoding(Model.encode, loss, NESTING, context=context)(model, batch())
    while (part := next(pieces, None)) is not None:
        back(part)
        del part
    assert len(alive) == len(NESTING)
    assert events == [f"{what} {at}" for at in NESTING for what in ("open", "backward", "close")]


def test_features_may_be_nested_and_partly_frozen() -> None:
    weight = torch.tensor([2.0, 3.0], requires_grad=True)
    fixed = torch.ones(2)
    features = {"audio": (weight * 1, fixed), "video": [weight * 2, None], "rate": 4}

    def losses(inner: Any) -> Iterator[Parts]:
        assert inner["audio"][1] is fixed
        assert inner["video"][1] is None
        assert inner["rate"] == 4
        for factor in (1.0, 5.0):
            yield Parts(factor * inner["audio"][0].sum() + inner["video"][0].square().sum(), {})

    for part in one_encoding(features, losses):
        part.total.backward()
    # of 6 * w + 2 * (2 w)^2
    torch.testing.assert_close(weight.grad, 6 + 16 * weight.detach())


def test_losses_that_are_not_back_propagated_in_turn_are_refused() -> None:
    model = Model().double()
    with pytest.raises(ConfigError, match="back-propagate each loss before asking for the next"):
        sum(part.total for part in objective()(model, batch()))
    with torch.no_grad():  # as in an evaluation
        assert [tuple(part.losses) for part in objective()(model, batch())] == [(at,) for at in NESTING]


NESTINGS = [
    "tokens=1,9,36,144,576",
    "tokens=2..16+2",
    "audio=31,125 x video=50,125",
    "dim=8,16 zip layer=1,2",
]
SCHEDULES = {
    "all": (Every(), lambda nesting, drawn: drawn == tuple(nesting)),
    "one at random, such as a random prefix": (RandomPrefix(), lambda nesting, drawn: len(drawn) == 1),
    "the full one and one more": (
        RandomSome(1),
        lambda nesting, drawn: len(drawn) == 2 and drawn[-1] == nesting.full,
    ),
    "the ends and one more": (
        Sandwich(1),
        lambda nesting, drawn: (
            {nesting[0], nesting.full} <= set(drawn) and len(drawn) == min(3, len(nesting))
        ),
    ),
}


@pytest.mark.parametrize("text", NESTINGS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_runs_on_every_nesting(name: str, text: str) -> None:
    """Granularities depend on seed and step alone, so all ranks and a resumed run train the same."""
    (schedule, is_right), nesting = SCHEDULES[name], Nesting.parse(text)

    def drawn(seed: int, steps: int, start: int = 0) -> list[tuple[Granularity, ...]]:
        of = OneEncoding(
            lambda model, batch: batch, lambda *_: torch.ones(()), nesting, schedule=schedule, seed=seed
        )
        of.load_state_dict({"_extra_state": torch.tensor(start)})
        return [tuple(g for part in of(None, None) for g in part.losses) for _ in range(steps)]

    first = drawn(0, 40)
    assert all(is_right(nesting, each) for each in first)
    assert {g for each in first for g in each} == set(nesting)
    torch.rand(3)  # the global generator has no say
    assert drawn(0, 25, start=15) == first[15:]
    assert (drawn(1, 40) == first) == (len(set(first)) == 1)


@pytest.mark.parametrize(
    ("drawn", "message"),
    [
        ({Granularity(tokens=64): 1.0}, "drew tokens=64, which is outside the nesting tokens=1,2,4"),
        ({}, "drew no"),
    ],
)
def test_a_schedule_that_draws_what_cannot_be_trained_is_refused(drawn: Any, message: str) -> None:
    class Own:
        def draw(self, *_: object) -> Any:
            return drawn

    with pytest.raises(ConfigError, match=f"the schedule Own {message}"):
        next(objective(schedule=Own())(Model().double(), batch()))
    with pytest.raises(ConfigError, match="schedule='all' has no draw"):
        objective(schedule="all")


def test_a_sampled_loss_has_the_expectation_of_all() -> None:
    schedule: Schedule
    for schedule in (RandomPrefix(), RandomSome(1), Sandwich(1)):
        loss = OneEncoding(
            lambda model, batch: batch,
            lambda model, features, batch, at: torch.tensor(float(at["tokens"])),
            "tokens=1,2,4,8",
            schedule=schedule,
            reduction="mean",
            weights=[1, 3, 2, 2],
        )
        expected = sum(float(part.total) for part in loss.eval()(None, None))
        assert expected == pytest.approx((1 + 6 + 8 + 16) / 8)
        loss.train()
        values = [sum(float(part.total) for part in loss(None, None)) for _ in range(2000)]
        # one draw deviates by at most 2.6, so three errors of the mean are 0.17
        assert sum(values) / 2000 == pytest.approx(expected, abs=0.17)
