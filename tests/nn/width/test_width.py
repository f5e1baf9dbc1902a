"""Layers nested on width: the laws, the dense twins, what they cost, scaling, trained layers, refusals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nestling.errors import ConfigError, DataError, GranularityError
from nestling.nn.width import NestedEmbedding, NestedLinear, NestedNorm, NestedOutput, linear
from nestling.testing import check_elastic

SIZES = [4, 8, 16]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


LAYERS: dict[str, Callable[[], Any]] = {
    "square": lambda: NestedLinear(SIZES),
    "up by 2": lambda: NestedLinear(SIZES, [8, 16, 32]),
    "down by 2, no bias": lambda: NestedLinear(SIZES, [2, 4, 8], bias=False),
    "an input read whole": lambda: NestedLinear(16, SIZES),
    "one size": lambda: NestedLinear([16]),
    "norm": lambda: NestedNorm(SIZES),
    "output": lambda: NestedOutput("width=4,8,16 x dim=3,5"),
    "output along a diagonal": lambda: NestedOutput("width=4,8,16 zip dim=2,3,5", bias=False),
}


@pytest.fixture(params=[True, False], ids=["assembled", "by blocks"])
def paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to multiply."""
    if not request.param:
        monkeypatch.setattr(linear, "_ASSEMBLED_UP_TO", 0)


@pytest.mark.usefixtures("paths")
@pytest.mark.parametrize("name", LAYERS)
def test_the_laws(name: str) -> None:
    torch.manual_seed(0)
    check_elastic(LAYERS[name](), draw(3, 5, 16))


def test_the_laws_of_a_complex_map() -> None:
    torch.manual_seed(0)
    layer = NestedLinear(SIZES, dtype=torch.complex64)
    x = torch.complex(draw(5, 16), draw(5, 16, seed=1))
    for g in layer.nesting:
        torch.testing.assert_close(layer(x, at=g), layer.extract(g)(x))
        torch.testing.assert_close(layer(x, at=g), layer(x)[:, : g["width"]])


def test_the_laws_of_an_embedding() -> None:
    torch.manual_seed(0)
    check_elastic(NestedEmbedding(10, SIZES), torch.tensor([[3, 9], [0, 3]]))


@given(
    assembled=st.booleans(),
    blocks=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    out_blocks=st.lists(st.integers(1, 5), min_size=4, max_size=4),
    bias=st.booleans(),
)
def test_a_nested_map_is_a_dense_one_with_zeros(
    assembled: bool, blocks: list[int], out_blocks: list[int], bias: bool
) -> None:
    """The dense twin, in float64, gradients too."""
    sizes = torch.tensor(blocks).cumsum(0).tolist()
    outs = torch.tensor(out_blocks[: len(sizes)]).cumsum(0).tolist()
    layer = NestedLinear(sizes, outs, bias=bias, dtype=torch.float64)
    x = draw(6, sizes[-1], dtype=torch.float64).requires_grad_()
    twin = nn.Linear(sizes[-1], outs[-1], bias=bias, dtype=torch.float64)
    mask = torch.zeros(outs[-1], sizes[-1], dtype=torch.float64)
    for (start, stop), size in zip(pairwise([0, *outs]), sizes, strict=True):
        mask[start:stop, :size] = 1
    with torch.no_grad():
        twin.weight.copy_(layer.dense_weight())
        if layer.bias is not None:
            twin.bias.copy_(layer.bias)
    assert bool((layer.dense_weight()[mask == 0] == 0).all())
    with patch.object(linear, "_ASSEMBLED_UP_TO", 256 if assembled else 0):
        found = layer(x)
    wanted = nn.functional.linear(x, twin.weight * mask, twin.bias)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    upstream = draw(*found.shape, seed=1, dtype=torch.float64)
    (of_x,) = torch.autograd.grad(found, x, upstream, retain_graph=True)
    of_blocks = torch.autograd.grad(found, list(layer.blocks), upstream)
    of_twin = torch.autograd.grad(wanted, (x, twin.weight), upstream)
    torch.testing.assert_close(of_x, of_twin[0], rtol=1e-12, atol=1e-12)
    for block, (start, stop), size in zip(of_blocks, pairwise([0, *outs]), sizes, strict=True):
        torch.testing.assert_close(block, of_twin[1][start:stop, :size], rtol=1e-12, atol=1e-12)


def test_no_zeros_are_stored() -> None:
    """FMR-7: sizes that double store 2/3 of a dense square, 0.672 of it from 8 to 64."""
    widths = [8, 16, 32, 64]
    layer = NestedLinear(widths, bias=False)
    assert sum(p.numel() for p in layer.parameters()) == layer.cost().parameters == 2752
    assert round(layer.cost().parameters / 64**2, 3) == 0.672
    apart = sum(NestedLinear([width], bias=False).cost().parameters for width in widths)
    assert 1.97 < apart / layer.cost().parameters < 2.0
    assert layer.cost(16).flops == 8 * 8 + 8 * 16


@pytest.mark.parametrize(("sizes", "outs"), [(SIZES, None), (SIZES, [8, 16, 32]), (16, SIZES)])
def test_a_trained_layer_is_nested(sizes: Any, outs: Any) -> None:
    torch.manual_seed(0)
    dense = nn.Linear(16, 16 if outs is None else outs[-1])
    layer = NestedLinear.from_dense(dense, sizes, outs)
    last = slice(layer.out_sizes[-2], None)
    torch.testing.assert_close(layer.dense_weight()[last], dense.weight[last])
    x = draw(5, 16)
    torch.testing.assert_close(layer(x)[:, last], dense(x)[:, last])
    layer(x).sum().backward()  # trainable
    with torch.no_grad():
        dense.weight.zero_()
    assert layer.dense_weight().abs().sum() > 0


def test_trained_tables_and_outputs_keep_their_weights() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(7, 16)
    rows = torch.tensor([6, 0])
    torch.testing.assert_close(NestedEmbedding.from_dense(table, SIZES)(rows, at=8), table(rows)[:, :8])
    dense, x = nn.Linear(16, 5), draw(2, 16)
    output = NestedOutput.from_dense(dense, "width=8,16 x dim=2,5")
    torch.testing.assert_close(output(x), dense(x))
    expected = x[:, :8] @ dense.weight[:2, :8].T + dense.bias[:2]
    torch.testing.assert_close(output(x, at="width=8,dim=2"), expected)


def test_a_norm_is_a_layer_norm_of_each_block() -> None:
    norm, x = NestedNorm(SIZES), draw(5, 16)
    expected = [nn.functional.layer_norm(x[:, s:e], (e - s,)) for s, e in pairwise([0, *SIZES])]
    torch.testing.assert_close(norm(x), torch.cat(expected, dim=1))


def test_sparse_gradients_name_the_rows_that_were_read() -> None:
    table = NestedEmbedding(100, SIZES, sparse=True)
    table(torch.tensor([3, 5, 3])).sum().backward()
    gradient = table.weight.grad
    assert gradient is not None
    assert gradient.is_sparse
    assert gradient.coalesce().indices().tolist() == [[3, 5]]


def test_dtype_mode_and_files(tmp_path: Path) -> None:
    layer = NestedLinear(SIZES, dtype=torch.complex64).eval()
    layer.save(tmp_path / "layer")
    loaded = NestedLinear.load(tmp_path / "layer")
    x = torch.complex(draw(5, 16), draw(5, 16, seed=1))
    assert torch.equal(layer(x), loaded(x))
    small = NestedNorm(SIZES).double().eval().extract(8)
    assert not small.training
    assert {p.dtype for p in small.parameters()} == {torch.float64}


def test_bad_sizes_are_refused() -> None:
    for sizes, message in (([8, 8], "8 comes before 8"), ([16, 8], "increase"), ([], "at least one")):
        for build in (NestedLinear, NestedNorm, lambda s: NestedEmbedding(3, s)):
            with pytest.raises(GranularityError, match=message):
                build(sizes)
    with pytest.raises(ConfigError, match="2 sizes and there are 3 widths"):
        NestedLinear(SIZES, [8, 16])
    with pytest.raises(ConfigError, match="8 comes before 8"):
        NestedLinear(SIZES, [8, 8, 16])
    with pytest.raises(ConfigError, match="out_sizes= must name"):
        NestedLinear(16)
    with pytest.raises(ConfigError, match=r"LayerNorm of the 2 entries from 4 to 6.*at least 4"):
        NestedNorm([4, 6])
    with pytest.raises(ConfigError, match="rows=0"):
        NestedEmbedding(0, SIZES)
    with pytest.raises(GranularityError, match="add dim"):
        NestedOutput("width=4,8")
    for trained, message in (
        (lambda: NestedLinear.from_dense(nn.Linear(8, 8), SIZES), "maps 8 entries to 8"),
        (lambda: NestedEmbedding.from_dense(nn.Embedding(3, 8), SIZES), "vectors of 8 entries"),
        (lambda: NestedOutput.from_dense(nn.Linear(8, 8), "width=4,16 x dim=2,8"), "maps 8 entries to 8"),
    ):
        with pytest.raises(ConfigError, match=message):
            trained()


def test_bad_inputs_are_refused() -> None:
    for layer in (NestedLinear(SIZES), NestedNorm(SIZES), NestedOutput("width=4,16 x dim=2,4")):
        with pytest.raises(DataError, match="16 or more"):
            layer(draw(3, 8))
        with pytest.raises(DataError, match="int64"):
            layer(torch.zeros(3, 16, dtype=torch.int64))
        with pytest.raises(DataError, match="takes a tensor"):
            layer([[0.0] * 16])
    table = NestedEmbedding(3, SIZES)
    with pytest.raises(DataError, match="from 1 to 3 do not all lie in a table of 3"):
        table(torch.tensor([1, 3]))
    with pytest.raises(DataError, match=r"row numbers.*float32"):
        table(torch.zeros(3))
    with pytest.raises(GranularityError, match="nearest"):
        table(torch.tensor([1]), at=5)
