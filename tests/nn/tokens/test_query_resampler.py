"""The query resampler: laws, prefixes, plain attention, starts, frozen attention, released weights."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from nestling.errors import ArtifactError, ConfigError, DataError, GranularityError
from nestling.nn.tokens import (
    Connector,
    GridPool,
    Projector,
    QueryResampler,
    StaticResampler,
    Tokens,
    from_mqt_state_dict,
)
from nestling.nn.tokens.resampler.query_layout import overlaps, places_of, regions_of, sincos
from nestling.testing import check_elastic


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def made(max_tokens: int = 4, grid: Any = (4, 4), **settings: Any) -> QueryResampler:
    torch.manual_seed(0)
    resampler = QueryResampler(max_tokens, 8, grid, **{"heads": 2, **settings}).double()
    if settings.get("start") != "grid":
        for parameter in resampler.parameters():
            nn.init.normal_(parameter, std=0.5)
    return resampler


VARIANTS: dict[str, dict[str, Any]] = {
    "content and places": {},
    "content": {"keys": "content", "positions": "none"},
    "places": {"keys": "pos"},
    "a learned table": {"positions": "learned"},
    "a sequence": {"grid": 16},
    "pyramid": {"max_tokens": 5, "order": "pyramid"},
    "pooled queries": {"queries": "pooled", "own_region": True},
    "three layers": {"depth": 3},
    "all at once": {"max_tokens": 5, "order": "pyramid", "queries": "pooled", "own_region": True, "depth": 2},
    "started on the grid": {"start": "grid"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_the_laws(name: str) -> None:
    check_elastic(made(**VARIANTS[name]), draw(2, 16, 8))


@pytest.mark.parametrize("name", VARIANTS)
def test_fewer_tokens_are_the_first_of_more(name: str) -> None:
    """The prefix property (claim MQT-1), in float32."""
    resampler, x = made(**VARIANTS[name]).float(), draw(2, 16, 8).float()
    whole = resampler(x).values
    for g in resampler.nesting:
        torch.testing.assert_close(resampler(x, at=g).values, whole[:, : g["tokens"]], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_changes_nothing(name: str) -> None:
    """Items of a batch that pads them to a larger grid of their own are as if alone."""
    resampler, x = made(**VARIANTS[name]), draw(1, 16, 8)
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[:, 11:] = False
    cut = torch.where(mask[..., None], x, torch.nan)
    changed = torch.where(mask[..., None], x, 7.0)
    found = resampler(Tokens(cut, mask)).values
    assert found.isfinite().all()
    torch.testing.assert_close(found, resampler(Tokens(changed, mask)).values)
    assert not torch.allclose(found, resampler(x).values)


def attention_by_loop(layer: Any, q: Tensor, k: Tensor, v: Tensor, sharpness: Tensor) -> Tensor:
    """Softmax attention of each head and each query, one at a time."""
    width, heads = q.shape[-1], layer.heads
    weights, biases = layer.in_proj_weight.chunk(3), layer.in_proj_bias.chunk(3)
    q, k, v = (x @ w.T + b for x, w, b in zip((q, k, v), weights, biases, strict=True))
    out = torch.zeros_like(q)
    for head, i in product(range(heads), range(len(q))):
        part = slice(head * width // heads, (head + 1) * width // heads)
        scores = sharpness[i] * (k[:, part] @ q[i, part]) / (width // heads) ** 0.5
        out[i, part] = (scores.exp() / scores.exp().sum()) @ v[:, part]
    return out @ layer.out_proj.weight.T + layer.out_proj.bias


@pytest.mark.parametrize("keys", ["content+pos", "content", "pos"])
def test_one_layer_is_plain_attention(keys: Any) -> None:
    resampler, x = made(keys=keys), draw(1, 16, 8)
    codes_q = sincos(regions_of(4, "raster", 2).mean(dim=2) * 2, 8).double()
    codes_k = sincos(places_of((4, 4)) * 2, 8).double()
    q = resampler.norm_q(resampler.queries + codes_q)
    content = resampler.norm_k(x[0])
    k = {"content": content, "pos": resampler.norm_k(codes_k)}.get(keys, content + codes_k)
    expected = attention_by_loop(resampler.attention, q, k, resampler.norm_v(x[0]), resampler.sharpness)
    torch.testing.assert_close(resampler(x).values[0], expected)


def test_pooled_queries_add_the_mean_of_their_region() -> None:
    resampler, x = made(queries="pooled"), draw(2, 16, 8)
    nn.init.zeros_(resampler.attention.out_proj.weight)
    nn.init.zeros_(resampler.attention.out_proj.bias)
    expected = GridPool((4, 4), [4], 8)(resampler.norm_v(x)).values
    torch.testing.assert_close(resampler(x).values, expected)


def test_a_query_of_its_own_region_sees_nothing_else() -> None:
    resampler = made(own_region=True)
    x = draw(1, 16, 8).requires_grad_()
    resampler(x).values[0, 0].sum().backward()
    assert x.grad is not None
    assert x.grad[0].abs().sum(dim=1).nonzero().flatten().tolist() == [0, 1, 4, 5]


@pytest.mark.parametrize(
    ("max_tokens", "order"), [(16, "raster"), (5, "pyramid"), (21, "pyramid"), (16, "raster 1-D")]
)
def test_queries_that_start_on_the_grid_attend_to_their_region(max_tokens: int, order: str) -> None:
    """Whatever the content: it enters the keys with weights of zero at first, and learns."""
    grid: Any = 32 if "1-D" in order else (8, 8)
    torch.manual_seed(0)
    resampler = QueryResampler(max_tokens, 64, grid, heads=4, start="grid", order=order.split()[0])  # type: ignore[arg-type]
    near = overlaps(regions_of(max_tokens, resampler.order, 1 if "1-D" in order else 2), grid) > 0
    x = torch.randn(1, 64 if grid != 32 else 32, 64)
    q = resampler.attention.projected(resampler._query_inputs(grid, max_tokens, None), 0)
    k = resampler.attention.projected(resampler._key_inputs(grid, x), 1)
    weights = ((q * resampler.sharpness[:, None]) @ k.transpose(2, 3) / 4).softmax(dim=3)[0].mean(dim=0)
    assert ((weights * near).sum(dim=1) >= 0.799).all()
    resampler(x).values.square().sum().backward()
    assert resampler.norm_k.weight.grad is not None
    assert resampler.norm_k.weight.grad.abs().max() > 0


def test_pyramid_regions_are_the_whole_then_its_quarters() -> None:
    regions = regions_of(21, "pyramid", 2)
    assert regions[0].tolist() == [[0, 1], [0, 1]]
    assert regions[1].tolist() == [[0, 0.5], [0, 0.5]]
    assert regions[2].tolist() == [[0, 0.5], [0.5, 1]]
    shares = overlaps(regions, (4, 4))
    torch.testing.assert_close(shares[0], torch.full((16,), 1 / 16))
    torch.testing.assert_close(shares[5:], torch.eye(16))


@settings(max_examples=20)
@given(side=st.integers(1, 6), rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_regions_share_out_any_grid(side: int, rows: int, columns: int) -> None:
    """By area, cell by cell in a fine raster."""
    fine = 60
    regions = regions_of(side * side, "raster", 2)
    shares = overlaps(regions, (rows, columns))
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(side * side))
    if fine % side or fine % rows or fine % columns:
        return
    counts = torch.zeros(side * side, rows * columns)
    for r, c in product(range(fine), repeat=2):
        region, cell = (
            r * side // fine * side + c * side // fine,
            r * rows // fine * columns + c * columns // fine,
        )
        counts[region, cell] += 1
    torch.testing.assert_close(shares, counts / counts.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("positions", ["sincos", "learned"])
def test_frozen_attention_gives_the_same(heads: int, positions: Any) -> None:
    resampler = made(9, (6, 6), keys="pos", heads=heads, positions=positions)
    static, x = resampler.freeze_attention(), draw(3, 36, 8)
    for g in resampler.nesting:
        torch.testing.assert_close(static(x, at=g).values, resampler(x, at=g).values)
    check_elastic(static, x)
    other = resampler.freeze_attention(grid=(4, 5))
    y = Tokens(draw(1, 20, 8), None, (4, 5))
    torch.testing.assert_close(other(y).values, resampler(y).values)
    assert not any(parameter.requires_grad for parameter in static.parameters())


def test_weights_of_attention_to_places_are_the_same_for_all_inputs() -> None:
    """Claim MQT-6: what changes one feature changes a token by the same amount, whatever else is there."""
    for keys, same in (("pos", True), ("content+pos", False)):
        resampler = made(keys=keys)
        changes = []
        for seed in (1, 2):
            x = draw(1, 16, 8, seed=seed)
            other = x.clone()
            x[0, 3], other[0, 3] = draw(8, seed=3), draw(8, seed=4)
            changes.append(resampler(other).values - resampler(x).values)
        assert torch.allclose(*changes) == same


def test_frozen_attention_costs_less() -> None:
    resampler = QueryResampler(256, 1024, (24, 24), heads=16, keys="pos", tokens="tokens=4,16,256")
    static = StaticResampler(resampler.nesting, 1024, 576, 16)
    shares = [static.cost(g).flops / resampler.cost(g).flops for g in resampler.nesting]
    assert [round(share, 2) for share in shares] == [0.04, 0.15, 0.5]
    one_head = StaticResampler(resampler.nesting, 1024, 576, 1)
    assert round(one_head.cost().flops / resampler.cost().flops, 3) == 0.205


def mqt_state(count: int = 16, width: int = 8, out: int = 12) -> dict[str, Tensor]:
    shapes = {
        "query": (count, width),
        "pos_embed": (count, width),
        "proj": (width, out),
        "attn.in_proj_weight": (3 * width, width),
        "attn.in_proj_bias": (3 * width,),
        "attn.out_proj.weight": (width, width),
        "attn.out_proj.bias": (width,),
        **{f"ln_{part}.{kind}": (width,) for part in "qkv" for kind in ("weight", "bias")},
    }
    return {name: draw(*shape, seed=seed).float() for seed, (name, shape) in enumerate(shapes.items())}


def released(state: dict[str, Tensor], x: Tensor, m: int, heads: int) -> Tensor:
    """The forward pass of the released Resampler, with torch's MultiheadAttention."""
    count, width = state["query"].shape
    attention = nn.MultiheadAttention(width, heads)
    attention.load_state_dict({k[5:]: v for k, v in state.items() if k.startswith("attn.")})
    side = int(count**0.5)
    table = state["pos_embed"].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    places = F.interpolate(table, size=(6, 6), mode="bicubic", align_corners=False)
    places = places.permute(0, 2, 3, 1).flatten(0, 2)

    def norm(part: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, (width,), state[f"ln_{part}.weight"], state[f"ln_{part}.bias"], 1e-6)

    q = norm("q", state["query"][:m] + state["pos_embed"][:m])[:, None].repeat(1, len(x), 1)
    k = norm("k", places)[:, None].repeat(1, len(x), 1)
    out = attention(q, k, norm("v", x).permute(1, 0, 2))[0]
    return out.permute(1, 0, 2) @ state["proj"]


@pytest.mark.parametrize("prefix", ["", "model.mm_projector."])
def test_released_weights_give_what_released_code_gives(prefix: str) -> None:
    state, x = mqt_state(), draw(2, 36, 8).float()
    given = {f"{prefix}{name}": weight for name, weight in state.items()} | {"model.embed": torch.ones(2)}
    connector = from_mqt_state_dict(given, heads=2, grid=(6, 6))
    assert connector.nesting.full["tokens"] == 16
    for m in (1, 3, 16):
        torch.testing.assert_close(connector(x, at=m).values, released(state, x, m, 2), rtol=1e-4, atol=1e-5)
    resampler, projector = connector.parts
    assert isinstance(resampler, QueryResampler)
    assert isinstance(projector, Projector)
    frozen = Connector(resampler.freeze_attention(), projector)
    torch.testing.assert_close(frozen(x).values, connector(x).values, rtol=1e-4, atol=1e-5)
    del state["ln_k.bias"]
    with pytest.raises(ArtifactError, match=r"no query abstractor of MQT: ln_k\.bias missing"):
        from_mqt_state_dict(state)
    with pytest.raises(DataError, match="of one shape"):
        from_mqt_state_dict(mqt_state(15), heads=2)


def test_half_precision_works_and_stays() -> None:
    found = made().bfloat16()(draw(1, 16, 8).bfloat16()).values
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), made()(draw(1, 16, 8)).values, rtol=0.1, atol=0.1)


def test_the_nesting_is_every_number_of_tokens() -> None:
    resampler = QueryResampler(256, 8, (24, 24), heads=2)
    assert (len(resampler.nesting), str(resampler.nesting)) == (256, "tokens=1..256+1")
    assert resampler.lengths(576, at=7) == 7
    assert resampler.lengths(torch.tensor([576]), at=7).tolist() == [7]
    assert QueryResampler(4, 8, 10, heads=2, axis="audio", tokens=[1, 4]).nesting.axes == ("audio",)
    for at, message in (
        (257, r"outside the nesting tokens=1\.\.256\+1; the nearest valid granularity is tokens=256"),
        (576, "nearest valid granularity is tokens=256"),
        (0, "not a size"),
        (2.5, "whole number"),
    ):
        with pytest.raises(GranularityError, match=message):
            resampler(torch.zeros(1, 576, 8), at=at)  # type: ignore[arg-type]


def test_more_queries_than_features_are_allowed_with_a_warning() -> None:
    resampler = made(16, (2, 2))
    with pytest.warns(UserWarning, match="16 queries resample 4 features"):
        assert resampler(draw(1, 4, 8)).values.shape == (1, 16, 8)
    resampler(draw(1, 4, 8), at=4)


def test_bad_input_is_refused() -> None:
    for options, message in (
        ({"max_tokens": 6}, "max_tokens=6 is no square, .* use 4 or 9, order='pyramid' with 5, 21 or 85"),
        ({"max_tokens": 6, "order": "pyramid"}, "fills no pyramid; use a sum of its levels: 1, 5, 21, 85"),
        ({"width": 6}, "width=6 must be a multiple of 4 for the sines and cosines of 2 axes"),
        ({"width": 7, "grid": 16, "heads": 7}, "width=7 must be a multiple of 2 .* of 1 axis;"),
        ({"heads": 3}, "width=8 is not a multiple of heads=3"),
        ({"positions": "none", "keys": "pos"}, "keys='pos' needs positions"),
        ({"positions": "learned", "start": "grid"}, "start='grid' needs keys with places"),
        ({"heads": 4, "start": "grid"}, "at least 4 entries a head, and width=8 with heads=4 has 2"),
        ({"positions": "learned", "order": "pyramid", "max_tokens": 5}, "a table on one grid"),
        ({"keys": "content", "start": "grid"}, "needs keys with places"),
        ({"keys": "image"}, "keys='image' must be one of"),
        ({"focus": 1.0}, "focus=1.0 must be"),
        ({"depth": 0}, "depth=0 must be"),
        ({"grid": 0}, "grid=0 must be"),
    ):
        given: dict[str, Any] = {"max_tokens": 4, "width": 8, "grid": (4, 4), "heads": 2, **options}
        with pytest.raises(ConfigError, match=message):
            QueryResampler(**given)
    with pytest.raises(GranularityError, match="but a query resampler has 4; end it at 4"):
        QueryResampler(4, 8, (4, 4), tokens="tokens=2,8", heads=2)
    mask = torch.tensor([[True] * 16, [False] * 16])
    for wrong, told in (
        (draw(1, 17, 8), "drop the class token"),
        (draw(1, 15, 8), "do not fill a grid of 4 x 4"),
        (Tokens(draw(2, 16, 8), mask), "row 1 of the batch holds no token"),
        (draw(1, 16, 4), "8 entries are expected"),
    ):
        with pytest.raises(DataError, match=told):
            made()(wrong)
    with pytest.raises(DataError, match="for sequences"):
        made(grid=16)(Tokens(draw(1, 16, 8), None, (4, 4)))
    for options, why in (
        ({}, "keys="),
        ({"keys": "pos", "depth": 2}, "depth=2"),
        ({"keys": "pos", "queries": "pooled"}, "pooled"),
    ):
        with pytest.raises(ConfigError, match=f"cannot be frozen: .*{why}"):
            made(**options).freeze_attention()
    static = made(keys="pos").freeze_attention()
    with pytest.raises(DataError, match="frozen for 16 features, not 20"):
        static(draw(1, 20, 8))
    with pytest.raises(DataError, match="know no padding"):
        static(Tokens(draw(2, 16, 8), mask))
