"""Mixers of sequences: the laws, plain twins, padding anywhere, states event by event, scans, refusals."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nestling.errors import ConfigError, DataError, GranularityError
from nestling.nn.recurrent import (
    LastItem,
    Mean,
    Mixer,
    NestedGRU,
    NestedLRU,
    SequenceBlock,
    SequenceStack,
    linear_recurrence,
)
from nestling.nn.tokens import Tokens
from nestling.testing import check_elastic

SIZES = [4, 8, 16]
MIXERS: dict[str, Callable[[], Mixer]] = {
    "lru": lambda: NestedLRU(SIZES, 0.2, 0.9),
    "lru, tree": lambda: NestedLRU(SIZES, 0.2, 0.9, scan="tree"),
    "lru, fft": lambda: NestedLRU(SIZES, 0.2, 0.9, scan="fft"),
    "gru": lambda: NestedGRU(SIZES),
    "mean": lambda: Mean(SIZES),
    "last item": lambda: LastItem(SIZES),
    "block": lambda: SequenceBlock(NestedLRU(SIZES, 0.2, 0.9)),
    "stack of LRUs": lambda: SequenceStack([SequenceBlock(NestedLRU(SIZES, 0.2, 0.9)) for _ in range(2)]),
    "stack of means": lambda: SequenceStack([SequenceBlock(Mean(SIZES)) for _ in range(2)]),
}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def made(name: str) -> Mixer:
    torch.manual_seed(0)
    return MIXERS[name]().double()


MASK = torch.tensor(
    [
        [True, True, True, True, True],
        [False, False, True, True, True],
        [True, True, False, False, False],
        [False, True, False, True, False],
        [False, False, False, False, False],
    ]
)


@pytest.mark.parametrize("mask", [None, MASK], ids=["full", "padded"])
@pytest.mark.parametrize("name", MIXERS)
def test_the_laws(name: str, mask: Tensor | None) -> None:
    torch.manual_seed(0)
    check_elastic(MIXERS[name](), Tokens(draw(5, 5, 16, dtype=torch.float32), mask))


@pytest.mark.parametrize("name", MIXERS)
def test_leading_outputs_and_states_are_those_of_a_smaller_width(name: str) -> None:
    mixer, x = made(name), draw(2, 7, 16)
    whole, state = mixer.run(x)
    small, small_state = mixer.run(x, at=8)
    torch.testing.assert_close(whole.values[..., :8], small.values, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state[:, : mixer.state_width(8)], small_state, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MIXERS)
def test_padding_changes_nothing(name: str) -> None:
    """Outputs and state are those of the events alone, with padding before, after or between them."""
    mixer, x = made(name), draw(5, 5, 16)
    found, state = mixer.run(Tokens(x, MASK))
    assert found.values[~MASK].abs().max() == 0
    for row, mask in enumerate(MASK):
        if not mask.any():
            torch.testing.assert_close(state[row : row + 1], mixer.start(1), check_dtype=False)
            continue
        alone, after = mixer.run(x[row : row + 1, mask])
        torch.testing.assert_close(found.values[row, mask], alone.values[0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(state[row], after[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("width", SIZES)
@pytest.mark.parametrize("name", MIXERS)
def test_step_by_step_is_the_sequence(name: str, width: int) -> None:
    """FMR-2, from a state of full width."""
    mixer, x = made(name), draw(3, 6, 16)
    _, state = mixer.run(x[:, :2])
    for position in range(2, 6):
        y, state = mixer.step(x[:, position], state, at=width)
    whole, last = mixer.run(x, at=width)
    torch.testing.assert_close(y, whole.values[:, -1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(state, last, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", MIXERS)
def test_no_output_depends_on_later_events(name: str) -> None:
    mixer, x = made(name), draw(2, 6, 16)
    changed = x.clone()
    changed[:, 3:] += 1
    before, after = mixer(x).values, mixer(changed).values
    torch.testing.assert_close(before[:, :3], after[:, :3])
    assert not torch.allclose(before[:, 3:], after[:, 3:])


def plain_recurrence(x: Tensor, decay: Tensor, state: Tensor) -> Tensor:
    states = []
    for each in x.unbind(1):
        state = each + decay * state
        states.append(state)
    return torch.stack(states, dim=1)


@pytest.mark.parametrize("scan", ["auto", "loop", "tree", "fft"])
@settings(max_examples=25)
@given(length=st.integers(1, 70), radius=st.sampled_from([0.0, 0.05, 0.9, 0.999]), seed=st.integers(0, 9))
def test_scans_agree_with_autograd_on_the_loop(scan: str, length: int, radius: float, seed: int) -> None:
    """FMR-2: values and gradients, to 1e-10 in float64."""
    decay = torch.polar(torch.full((3,), radius).double(), draw(3, seed=seed))
    values = [
        draw(2, length, 3, seed=seed, dtype=torch.complex128),
        decay,
        draw(2, 3, dtype=torch.complex128),
    ]
    upstream = draw(2, length, 3, seed=seed + 1, dtype=torch.complex128)
    results = []
    for recur in (plain_recurrence, lambda x, d, s: linear_recurrence(x, d, s, scan=scan)):  # type: ignore[arg-type]
        inputs = [value.clone().requires_grad_() for value in values]
        found = recur(*inputs)
        results.append((found.detach(), *torch.autograd.grad(found, inputs, upstream)))
    for wanted, found in zip(*results, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def released_tree(u: Tensor, decay: Tensor, mask: Tensor) -> Tensor:
    """The scan of LRURec and fMRLRec: left padded to a power of two, rounds of joining runs."""
    batch, length, width = u.shape
    rounds = math.ceil(math.log2(length)) if length > 1 else 0
    padding = 2**rounds - length
    h = nn.functional.pad(u, (0, 0, padding, 0))
    mask = nn.functional.pad(mask, (padding, 0))
    for number in range(rounds):
        size = 2 ** (number + 1)
        h, runs = h.reshape(-1, size, width), mask.reshape(-1, size)
        first, second = h[:, : size // 2], h[:, size // 2 :]
        powers = decay ** torch.arange(1, size // 2 + 1)[:, None]
        carry = first[:, -1:] * runs[:, size // 2 - 1, None, None] * powers
        h = torch.cat([first, second + carry], dim=1)
    return h.reshape(batch, -1, width)[:, padding:]


@pytest.mark.parametrize("length", [1, 5, 8, 50])
def test_left_padding_gives_what_the_released_scan_gives(length: int) -> None:
    u, decay = (
        draw(3, length, 4, dtype=torch.complex128),
        torch.polar(torch.full((4,), 0.9).double(), draw(4)),
    )
    mask = torch.arange(length) >= torch.tensor([[0], [length // 2], [length - 1]])
    ours = linear_recurrence(u * mask[..., None], decay)
    torch.testing.assert_close(ours[mask], released_tree(u, decay, mask)[mask], rtol=1e-12, atol=1e-12)


def test_a_gru_is_that_of_torch_with_zeros_in_its_weights() -> None:
    torch.manual_seed(0)
    dense = nn.GRU(16, 16, batch_first=True).double()
    mixer = NestedGRU.from_dense(dense, SIZES)
    with torch.no_grad():
        for weight in (dense.weight_ih_l0, dense.weight_hh_l0):
            for gate in weight.split(16):
                for start, stop in ((0, 4), (4, 8)):
                    gate[start:stop, stop:] = 0
    x = draw(2, 7, 16)
    torch.testing.assert_close(mixer(x).values, dense(x)[0], rtol=1e-12, atol=1e-12)


def test_a_mean_is_a_mean() -> None:
    x = draw(1, 4, 16)
    torch.testing.assert_close(made("mean")(x).values[0, 3], x[0].mean(dim=0))


def test_the_start_of_an_lru() -> None:
    torch.manual_seed(0)
    mixer = NestedLRU([64, 512], 0.3, 0.6)
    decay = mixer.decay()
    assert bool(((decay.abs() > 0.29) & (decay.abs() < 0.61)).all())
    torch.testing.assert_close(mixer.gamma.exp() ** 2, 1 - decay.abs() ** 2)
    assert bool(NestedLRU([4096]).nu.isfinite().all())


def test_parameters_of_a_block_are_those_of_the_paper() -> None:
    """FMR-1: those of the released code, without the imaginary bias of C, which changes no output."""
    sizes = [8, 16, 32, 64]
    block = SequenceBlock(NestedLRU(sizes))
    counts = [block.cost(size).parameters + size for size in sizes]
    assert counts == [560, 1568, 5376, 20160]
    assert block.cost().flops == 7 * 2752
    assert SequenceStack([block, SequenceBlock(NestedLRU(sizes))]).state_bytes() == 1024


def test_dropout_is_of_training_alone() -> None:
    torch.manual_seed(0)
    block, x = SequenceBlock(LastItem(SIZES), dropout=0.5), draw(2, 3, 16, dtype=torch.float32)
    assert not torch.equal(block(x).values, block(x).values)
    block.eval()
    assert torch.equal(block(x).values, block(x).values)


def test_costs_and_states() -> None:
    lru = NestedLRU([8, 16, 32, 64])
    assert lru.cost(8).flops == 4 * 8 * 8
    assert lru.cost(16).parameters == sum(p.numel() for p in lru.extract(16).parameters())
    assert lru.state_bytes() == 512
    assert lru.state_bytes(8) == 64
    assert NestedGRU([8, 16]).cost(8).flops == 6 * 8 * 8
    assert Mean([8]).state_bytes() == 36
    assert LastItem([8]).state_bytes() == 0


@pytest.mark.parametrize("name", MIXERS)
def test_half_precision_is_computed_in_float32(name: str) -> None:
    torch.manual_seed(0)
    mixer, x = MIXERS[name](), draw(2, 200, 16, dtype=torch.float32).bfloat16()
    found, state = mixer.run(x)
    assert found.values.dtype == torch.bfloat16
    assert state.dtype in (torch.float32, torch.complex64)
    torch.testing.assert_close(found.values, mixer(x.float()).values.bfloat16())
    halved = mixer.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert halved.run(x).state.dtype in (torch.float32, torch.complex64)


def test_bad_input_is_refused(tmp_path: Path) -> None:
    for r_min, r_max in ((0.5, 0.5), (0.6, 0.5)):
        with pytest.raises(ConfigError, match="must be below r_max"):
            NestedLRU(SIZES, r_min, r_max)
    with pytest.raises(ConfigError, match=r"r_max=1\.0 must be"):
        NestedLRU(SIZES, 0.5, 1.0)
    with pytest.raises(ConfigError, match="must be one of auto, loop, tree, fft"):
        NestedLRU(SIZES, scan="scan")  # type: ignore[arg-type]
    for kind in (NestedLRU, NestedGRU, Mean, LastItem):
        with pytest.raises(GranularityError, match="8 comes before 8"):
            kind([8, 8])
    mixer = NestedLRU(SIZES)
    with pytest.raises(DataError, match="16 or more entries"):
        mixer(torch.zeros(2, 3, 8))
    with pytest.raises(DataError, match=r"shape \[2, 16 or more\].*run the events again"):
        mixer.step(torch.zeros(2, 16), mixer.start(2, at=8))
    with pytest.raises(DataError, match="must be complex"):
        mixer.step(torch.zeros(2, 16), torch.zeros(2, 16))
    with pytest.raises(DataError, match=r"\[batch, width\]"):
        mixer.step(torch.zeros(2, 1, 16), mixer.start(2))
    with pytest.raises(DataError, match="mask must be bool"):
        mixer(Tokens(torch.zeros(2, 3, 16), torch.zeros(2, 3)))
    with pytest.raises(DataError, match="at least one step"):
        linear_recurrence(torch.zeros(1, 0, 2, dtype=torch.complex64), torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(DataError, match=r"decay must be torch\.complex64"):
        linear_recurrence(torch.zeros(1, 1, 2, dtype=torch.complex64), torch.zeros(2))
    with pytest.raises(ConfigError, match="LayerNorm of the 2 entries"):
        SequenceBlock(Mean([4, 6]))
    for blocks, message in (([], "is empty"), ([Mean([4, 8]), LastItem([4, 8])], "states of one kind")):
        with pytest.raises(ConfigError, match=message):
            SequenceStack(blocks)
    with pytest.raises(ConfigError, match="one layer"):
        NestedGRU.from_dense(nn.GRU(16, 16, num_layers=2), SIZES)
    with pytest.raises(GranularityError, match="nearest"):
        mixer(torch.zeros(2, 3, 16), at=5)
