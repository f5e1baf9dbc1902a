"""Projectors and connectors: the laws, order of pooling and projecting, shared work, counts, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError
from nestling.granularity import Nesting
from nestling.nn.tokens import (
    BudgetPool,
    Connector,
    GridPool,
    Projector,
    ScaleProjectors,
    SequencePool,
    Tokens,
)
from nestling.testing import check_elastic


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sound(mode: Any = "mean") -> Connector:
    pool = SequencePool(3, [1, 2, 4], 16, axis="audio", mode=mode)
    return Connector(pool, ScaleProjectors.after(pool, 6, hidden=8, activation="relu", norm=True))


CONNECTORS = {
    "project, then pool (M3)": lambda: Connector(Projector(3, 6), GridPool((4, 4), [1, 4, 16], 6)),
    "pool, then project": lambda: Connector(GridPool((4, 4), [1, 4, 16], 3), Projector(3, 6, norm=True)),
    "a projector a scale": sound,
    "stacking": lambda: sound("stack"),
    "a budget": lambda: Connector(BudgetPool(3, [2, 8]), Projector(3, 6, depth=1, bias=False)),
}


@pytest.mark.parametrize("name", CONNECTORS)
def test_the_laws(name: str) -> None:
    torch.manual_seed(0)
    check_elastic(CONNECTORS[name](), draw(2, 16, 3))


def test_the_laws_of_projectors_a_scale() -> None:
    torch.manual_seed(0)
    check_elastic(ScaleProjectors("tokens=4,16", 3, 6), draw(2, 5, 3))


def test_projecting_before_pooling_is_not_pooling_before_projecting() -> None:
    torch.manual_seed(0)
    projector, x = Projector(3, 6), draw(1, 16, 3)
    after = Connector(projector, GridPool((4, 4), [1, 16], 6))
    before = Connector(GridPool((4, 4), [1, 16], 3), projector)
    torch.testing.assert_close(after(x, at=1).values[0, 0], projector(x).values[0].mean(dim=0))
    torch.testing.assert_close(before(x, at=1).values, projector(x.mean(dim=1, keepdim=True)).values)
    assert not torch.allclose(after(x, at=1).values, before(x, at=1).values)


def test_a_shared_projector_runs_once() -> None:
    connector, calls = Connector(Projector(3, 6), GridPool((4, 4), [1, 4, 16], 6)), []
    connector.parts[0].register_forward_hook(lambda *_: calls.append(1))
    connector.forward_each(draw(1, 16, 3))
    assert len(calls) == 1


def test_counts_and_costs() -> None:
    stacked, pooled = sound("stack"), sound()
    assert [stacked.lengths(16, g) for g in stacked.nesting] == [4, 8, 16]
    assert pooled.lengths(torch.tensor([16, 7]), at="audio=4").tolist() == [4, 1]
    one = pooled.cost("audio=4")
    assert one.flops == 4 * (3 * 8 + 8 * 6)
    assert one.parameters == sum(p.numel() for p in pooled.extract("audio=4").parameters())
    assert one.output_bytes == 4 * 4 * 6
    assert stacked.cost().flops == 16 * (3 * 8 + 8 * 6)
    assert stacked.cost("audio=4").flops == 4 * (12 * 8 + 8 * 6)
    m3 = CONNECTORS["project, then pool (M3)"]()
    assert m3.cost(1).flops == m3.cost().flops == 16 * (3 * 6 + 6 * 6)


def test_only_the_projector_of_the_scale_is_trained() -> None:
    connector = sound()
    connector(draw(1, 16, 3), at="audio=8").values.sum().backward()
    trained = {name for name, p in connector.named_parameters() if p.grad is not None}
    assert trained
    assert all(name.startswith("parts.1.projectors.1.") for name in trained)


def test_dtype_mode_and_frozen_weights_survive(tmp_path: Path) -> None:
    connector = sound().double().eval()
    for parameter in connector.parameters():
        parameter.requires_grad_(False)
    small = connector.extract("audio=8")
    assert not small.training
    assert {(p.dtype, p.requires_grad) for p in small.parameters()} == {(torch.float64, False)}
    connector.save(tmp_path / "connector")
    loaded = Connector.load(tmp_path / "connector")
    x = draw(1, 16, 3).double()
    torch.testing.assert_close(loaded(x).values, connector(x).values)


def test_the_mask_passes_through() -> None:
    mask = torch.arange(16) < torch.tensor([[16], [7]])
    found = sound()(Tokens(draw(2, 16, 3), mask), at="audio=4")
    assert found.lengths().tolist() == [4, 1]


def test_bad_input_is_refused(tmp_path: Path) -> None:
    pool = GridPool((4, 4), [1, 4], 3)
    for parts, message in (
        ([], "needs a part that can be cut"),
        ([Projector(3, 6)], "needs a part that can be cut"),
        ([pool, Projector(4, 6)], "a GridPool gives tokens of 3 entries at tokens=1, but the Projector"),
        ([pool, ScaleProjectors("tokens=1,16", 3, 6)], "give both the same sizes"),
    ):
        with pytest.raises(ConfigError, match=message):
            Connector(*parts)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="made of compressors and projectors, not a Linear"):
        Connector(pool, torch.nn.Linear(3, 6))  # type: ignore[arg-type]
    stack = SequencePool(3, [2, 4], 16, mode="stack")
    with pytest.raises(ConfigError, match="gives tokens of 12 entries at tokens=4, but the ScaleProjectors"):
        Connector(stack, ScaleProjectors(stack.nesting, 6, 6))
    with pytest.raises(ConfigError, match="one for each of the 2 sizes"):
        ScaleProjectors("tokens=1,4", [3], 6)
    with pytest.raises(ConfigError, match="one axis"):
        ScaleProjectors("audio=1,4 x video=2,3", 3, 6)
    with pytest.raises(DataError, match="takes tokens of 6 entries, not of 3"):
        ScaleProjectors(Nesting.parse("tokens=1,4"), [3, 6], 6)(draw(1, 2, 3))
    with pytest.raises(ConfigError, match="depth=0"):
        Projector(3, 6, depth=0)
    with pytest.raises(GranularityError, match="nearest"):
        Connector(Projector(3, 6), GridPool((4, 4), [1, 4], 6))(draw(1, 16, 3), at=9)
    pool.save(tmp_path / "pool")
    with pytest.raises(ArtifactError, match="a grid pool"):
        Connector.load(tmp_path / "pool")
