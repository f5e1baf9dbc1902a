"""The map as a torch module: laws, shapes, the chain of plain layers, gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from nestling.errors import ConfigError, DataError, GranularityError
from nestling.granularity import Nesting
from nestling.nn.adapter import Adapter
from nestling.testing import ELASTIC_LAWS, ElasticExample

NESTING = Nesting.parse("dim=3,8,16")


@pytest.fixture(params=[None, 10], ids=["linear", "hidden"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    torch.manual_seed(0)
    made = Adapter(NESTING, 20, hidden=request.param)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter)
    return made


@pytest.mark.parametrize("law", ELASTIC_LAWS, ids=lambda law: law.__name__)
def test_the_laws(adapter: Adapter, law: object) -> None:
    law(ElasticExample(adapter, torch.randn(7, 20)))  # type: ignore[operator]


def test_it_computes_what_it_says(adapter: Adapter) -> None:
    x = torch.randn(5, 20)
    expected = x @ adapter.linear.weight.T
    if adapter.hidden is not None and adapter.correction is not None:
        expected = expected + F.gelu(adapter.hidden(x)) @ adapter.correction.weight.T
    torch.testing.assert_close(adapter(x), expected)
    torch.testing.assert_close(adapter(x, at=3), expected[:, :3])
    torch.testing.assert_close(adapter(x[0]), expected[0])


def test_parameters_are_what_the_cost_says(adapter: Adapter) -> None:
    assert adapter.cost().parameters == sum(p.numel() for p in adapter.parameters())
    for g in NESTING:
        small = adapter.extract(g)
        assert small.cost() == adapter.cost(g)
        assert sum(p.numel() for p in small.parameters()) == adapter.cost(g).parameters


def test_with_a_hidden_layer_it_starts_as_the_linear_map() -> None:
    adapter, x = Adapter(NESTING, 20, hidden=10), torch.randn(5, 20)
    torch.testing.assert_close(adapter(x), adapter.linear(x))


def test_the_chain_of_plain_layers_is_the_same_map(adapter: Adapter) -> None:
    adapter.double()
    x = torch.randn(50, 20, dtype=torch.float64) * 10
    found = x
    for weight, bias, activation in adapter.affine_layers():
        found = F.linear(found, weight, bias)
        found = found if activation is None else activation(found)
    torch.testing.assert_close(found, adapter(x))
    small = adapter.extract(3).affine_layers()
    assert small[-1].weight.shape[0] == 3


def test_outputs_that_are_not_used_get_no_gradient(adapter: Adapter) -> None:
    adapter(torch.randn(5, 20), at=8).sum().backward()
    gradient = adapter.linear.weight.grad
    assert gradient is not None
    assert gradient[:8].any()
    assert not gradient[8:].any()


def test_dtype_and_mode_survive(adapter: Adapter, tmp_path: Path) -> None:
    adapter.double().eval()
    small = adapter.extract(3)
    assert not small.training
    assert {p.dtype for p in small.parameters()} == {torch.float64}
    before = small(torch.ones(1, 20, dtype=torch.float64))
    adapter.save(tmp_path / "adapter")
    assert {p.dtype for p in Adapter.load(tmp_path / "adapter").parameters()} == {torch.float64}
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.zero_()
    torch.testing.assert_close(small(torch.ones(1, 20, dtype=torch.float64)), before)


def test_bad_input_is_refused(adapter: Adapter) -> None:
    with pytest.raises(DataError, match="20 entries"):
        adapter(torch.randn(3, 16))
    with pytest.raises(GranularityError, match="nearest"):
        adapter(torch.randn(3, 20), at=5)
    with pytest.raises(GranularityError, match="the axis dim, not layer"):
        Adapter(Nesting.parse("layer=1,2"), 20)
    with pytest.raises(ConfigError, match="hidden=0 must be a whole number of at least 1"):
        Adapter(NESTING, 20, hidden=0)
    with pytest.raises(ConfigError, match="input_dim=0 must be"):
        Adapter(NESTING, 0)
