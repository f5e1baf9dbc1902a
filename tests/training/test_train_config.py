"""Training settings: ranges, names, learning-rate schedules."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nestling.errors import ConfigError
from nestling.training import TrainConfig


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0), ("epochs", 1.5), ("epochs", True), ("max_steps", 0), ("batch_size", 0), ("lr", 0.0),
        ("lr", math.nan), ("lr", math.inf), ("lr", "fast"), ("weight_decay", -1.0), ("warmup", 1.0),
        ("warmup", -0.1), ("max_grad_norm", 0.0), ("seed", -1), ("workers", -1), ("log_every", 0),
        ("checkpoint_every", 0), ("evaluate_every", 0), ("gradient_accumulation", 0),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{name}={value!r} must be "):
        TrainConfig(**{name: value})


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        TrainConfig(schedule="cosin")
    with pytest.raises(ConfigError, match="did you mean 'bf16'"):
        TrainConfig(mixed_precision="bfloat16")


def closed_form(schedule: str, lr: float, warmup: float, steps: int) -> np.ndarray:
    """The rates of all steps, written as whole curves: a ramp, then 1 to 0 sampled at its left ends."""
    rising = round(warmup * steps)
    ramp = np.arange(1, rising + 1) / max(rising, 1)
    left = np.linspace(0, 1, steps - rising, endpoint=False)
    fall = {"cosine": np.cos(np.pi * left / 2) ** 2, "linear": 1 - left, "constant": np.ones_like(left)}
    return lr * np.concatenate([ramp, fall[schedule]])


@given(
    schedule=st.sampled_from(["cosine", "linear", "constant"]),
    lr=st.floats(1e-6, 10),
    warmup=st.floats(0, 0.99),
    steps=st.integers(1, 300),
)
def test_the_learning_rate_follows_its_closed_form(
    schedule: Any, lr: float, warmup: float, steps: int
) -> None:
    config = TrainConfig(schedule=schedule, lr=lr, warmup=warmup)
    found = [config.learning_rate(step, steps) for step in range(steps)]
    # cos^2(x/2) and (1 + cos x) / 2 agree to rounding, which near zero is rounding of 1.
    np.testing.assert_allclose(found, closed_form(schedule, lr, warmup, steps), rtol=1e-9, atol=1e-15 * lr)
    assert all(0 < rate <= lr * (1 + 1e-12) for rate in found), "no step is wasted on a rate of zero"


def test_settings_that_only_watch_decide_nothing() -> None:
    base = TrainConfig()
    watching = TrainConfig(log_every=3, checkpoint_every=4, evaluate_every=5, workers=1)
    assert watching.decisive() == base.decisive() != TrainConfig(seed=1).decisive()
