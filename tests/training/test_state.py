"""Training state survives JSON and safetensors; what only pickle could store is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from nestling.errors import ConfigError
from nestling.training.state import pack, unpack
from samples import examples

PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.text(max_size=3) | st.integers(0, 9)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    kind = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.uint8, torch.bool]))
    return (
        torch.arange(max(1, torch.Size(shape).numel()))[: torch.Size(shape).numel()].reshape(shape).to(kind)
    )


TREES = st.recursive(
    PLAIN | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(KEYS, inner, max_size=3)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@settings(max_examples=examples(40))
@given(TREES)
def test_a_tree_comes_back_through_json_and_safetensors(tree: Any) -> None:
    value, named = pack(tree)
    assert same(unpack(json.loads(json.dumps(value)), load(save(named))), tree)


def test_tensors_that_share_memory_are_kept_apart() -> None:
    shared = torch.arange(6.0)
    tree = {"a": shared, "b": shared[::2], "c": {"a": shared.reshape(2, 3).T}, "c/a": shared}
    value, named = pack(tree)
    assert same(unpack(value, load(save(named))), tree)


def test_what_only_pickle_could_store_is_named() -> None:
    with pytest.raises(ConfigError, match="holds a set at model/_extra_state"):
        pack({"model": {"_extra_state": {1, 2}}})
