"""Tiled pictures: the laws, the order of tokens, vectors after rows, padding, exact counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nestling.errors import ConfigError, DataError, GranularityError
from nestling.nn.tokens import BudgetPool, Connector, GridPool, Projector, TiledViews, Tokens
from nestling.testing import check_elastic


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def tiled(newline: bool = True, **settings: Any) -> TiledViews:
    return TiledViews(GridPool((4, 4), [1, 4, 16], 3, **settings), (2, 3), newline=newline).double()


@pytest.mark.parametrize("newline", [True, False])
def test_the_laws(newline: bool) -> None:
    mask = torch.ones(2, 7 * 16, dtype=torch.bool)
    mask[1, 90:] = False
    check_elastic(tiled(newline), Tokens(draw(2, 7 * 16, 3), mask))


def test_the_laws_with_a_projector_inside() -> None:
    inner = Connector(Projector(3, 5), GridPool((4, 4), [1, 4, 16], 5))
    check_elastic(TiledViews(inner, (1, 2)).double(), draw(2, 3 * 16, 3))


def test_tokens_lie_where_plain_loops_put_them() -> None:
    """Numbered by their place in the large picture: row 8 * r + c of a grid of 8 x 12."""
    large = torch.arange(96.0).reshape(8, 12)
    tiles = [large[r : r + 4, c : c + 4].flatten() for r in (0, 4) for c in (0, 4, 8)]
    values = torch.cat([-torch.arange(16.0), *tiles])[None, :, None].repeat(1, 1, 3)
    views = tiled().float()
    assert views.newline is not None
    views.newline.data.fill_(1000)
    found = views(values).values[0, :, 0].tolist()
    rows = [number for row in large.tolist() for number in [*row, 1000]]
    assert found == [*(-torch.arange(16.0)).tolist(), *rows]
    assert tiled(False).float()(values).values[0, 16:, 0].tolist() == large.flatten().tolist()


@pytest.mark.parametrize("at", [1, 4, 16])
def test_counts_are_exact(at: int) -> None:
    side = {1: 1, 4: 2, 16: 4}[at]
    assert tiled(False).lengths(7 * 16, at) == 7 * at
    assert tiled().lengths(7 * 16, at) == 7 * at + 2 * side
    assert tiled()(draw(2, 7 * 16, 3), at=at).lengths().tolist() == [7 * at + 2 * side] * 2
    assert tiled().lengths(torch.tensor([112, 112]), at).tolist() == [7 * at + 2 * side] * 2


def test_another_number_of_tiles_at_use() -> None:
    """Trained on 2 x 2 tiles of 144 tokens (720 in all), used on 3 x 3 (1440)."""
    views = TiledViews(GridPool((24, 24), [1, 9, 36, 144, 576], 2), newline=False)
    assert [views.lengths(2880, g) for g in views.nesting] == [5, 45, 180, 720, 2880]
    x = draw(1, 10 * 576, 2)
    assert views(x, at=144, tiles=(3, 3)).values.shape[1] == views.lengths(5760, 144, tiles=(3, 3)) == 1440


def test_the_padded_area_needs_no_cropping() -> None:
    """A wide picture padded above and below: whole rows of windows are padding, at every size."""
    mask = torch.ones(8, 12, dtype=torch.bool)
    mask[:2] = mask[6:] = False
    tiles = [mask[r : r + 4, c : c + 4].flatten() for r in (0, 4) for c in (0, 4, 8)]
    given = Tokens(draw(1, 7 * 16, 3), torch.cat([torch.ones(16, dtype=torch.bool), *tiles])[None])
    # At one token a tile, each tile holds some of the picture.
    for at, expected in ((16, 16 + 4 * 13), (4, 4 + 2 * 7), (1, 1 + 2 * 4)):
        assert tiled()(given, at=at).lengths().tolist() == [expected]


def test_it_is_saved_with_what_it_holds(tmp_path: Path) -> None:
    views = TiledViews(Connector(Projector(3, 5), GridPool((4, 4), [1, 16], 5)), (1, 2))
    views.save(tmp_path / "views")
    loaded = TiledViews.load(tmp_path / "views")
    x = draw(1, 48, 3).float()
    torch.testing.assert_close(loaded(x).values, views(x).values)


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match=r"80 tokens are not 7 views \(the picture and 2 x 3 tiles\) of 16"):
        tiled()(draw(1, 80, 3))
    with pytest.raises(DataError, match="3 entries are expected"):
        tiled()(draw(1, 112, 2))
    with pytest.raises(ConfigError, match="use newline=False"):
        tiled(mode="sequential")
    with pytest.raises(ConfigError, match="use newline=False"):
        TiledViews(BudgetPool(3, [1, 2]))
    with pytest.raises(GranularityError, match=r"tiles is \(rows, columns\)"):
        TiledViews(GridPool((4, 4), [1], 3), (2, 0))
    with pytest.raises(GranularityError, match="nearest"):
        tiled()(draw(1, 112, 3), at=9)
