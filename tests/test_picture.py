from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from nestling.errors import ConfigError, StorageError
from nestling.picture import draw, heat_map


def line(axes: Any) -> None:
    axes.plot([1, 2, 3])


def test_many_panels_stand_in_a_square(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def panel(axes: Any) -> None:
        seen.append(axes.get_subplotspec().get_geometry())

    draw(tmp_path / "a.png", *[panel] * 6)
    assert seen == [(2, 3, place, place) for place in range(6)]
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_one_panel_is_drawn_on_axes() -> None:
    axes = Figure().add_subplot()
    draw(axes, line)
    assert len(axes.lines) == 1
    with pytest.raises(ConfigError, match="2 panels need a file"):
        draw(axes, line, line)


def test_files_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"end its name in \.png, \.svg, \.pdf"):
        draw(tmp_path / "a.gif", line)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        draw(tmp_path / "file" / "a.png", line)


def test_a_small_heat_map_tells_its_values_and_a_large_one_its_scale() -> None:
    axes = Figure().add_subplot()
    heat_map(axes, [[1, np.nan], [0.25, 0]], ("down", ["a", "b"]), ("across", [3, 4]), "title")
    assert sorted(text.get_text() for text in axes.texts) == ["0.000", "0.250", "1.000"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("across", "down", "title")
    figure = Figure()
    axes = figure.add_subplot()
    heat_map(axes, np.eye(21), ("down", range(21)), ("across", range(21)), "")
    assert not axes.texts
    assert len(figure.axes) == 2
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(n) for n in range(0, 21, 2)]
