from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist

from nestling.compare import RDMs
from nestling.compare.plot import map_stimuli, plot_maps, plot_matrices, plot_thresholds
from nestling.compare.thresholds import threshold_grid
from nestling.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
PLANE = RNG.normal(size=(12, 2))
TURN = np.array([[0.6, -0.8], [0.8, 0.6]])


def planes() -> RDMs:
    """The same places twice, one of them mirrored, turned, moved and three times as large; and others."""
    moved = 3 * PLANE @ TURN * [1, -1] + 5
    other = RNG.normal(size=(12, 5))
    return RDMs([pdist(PLANE), pdist(moved), pdist(other)], labels={"name": ["here", "there", "other"]})


def test_a_map_of_a_plane_is_that_plane() -> None:
    maps = map_stimuli(planes())
    distances = pdist(maps[0])
    np.testing.assert_allclose(distances / distances.mean(), pdist(PLANE) / pdist(PLANE).mean(), rtol=1e-4)
    np.testing.assert_allclose(maps[0], maps[1], atol=1e-4)
    np.testing.assert_allclose(maps.mean(axis=1), 0, atol=1e-9)


def test_maps_are_aligned_as_well_as_they_can_be() -> None:
    first, _, other = map_stimuli(planes())
    apart = ((first - other) ** 2).sum()
    for angle in np.linspace(0.1, 6.2, 20):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        assert ((first - other @ turn) ** 2).sum() >= apart
        assert ((first - other @ turn * [1, -1]) ** 2).sum() >= apart


def test_maps_of_equal_places() -> None:
    assert not map_stimuli(RDMs(np.zeros((2, 6)))).any()


def test_what_no_map_can_show_is_refused() -> None:
    for bad in (np.nan, np.inf, -0.5):
        with pytest.raises(DataError, match="finite and not negative"):
            map_stimuli(RDMs([[1.0, 2.0, bad]]))


def test_pictures_are_written_and_leave_matplotlib_alone(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    rdms = planes()
    plot_matrices(rdms, tmp_path / "matrices.png")
    plot_maps(rdms, tmp_path / "maps.svg")
    grid = threshold_grid(0.1)
    plot_thresholds(grid, RNG.random(len(grid)), tmp_path / "thresholds.pdf", title="accuracy")
    assert (tmp_path / "matrices.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "thresholds.pdf").read_bytes().startswith(b"%PDF")
    assert dict(mpl.rcParams) == before


def test_panels_say_what_they_show() -> None:
    axes = Figure().add_subplot()
    plot_matrices(planes()[1], axes)
    assert axes.get_title() == "there"
    top, bottom = axes.get_ylim()[1], axes.get_ylim()[0]
    assert top < bottom  # the first stimulus is at the top
    square = axes.images[0].get_array()
    np.testing.assert_allclose(square, planes()[1].squares()[0])
    axes = Figure().add_subplot()
    plot_maps(planes()[0], axes)
    assert [text.get_text() for text in axes.texts] == list(map(str, range(12)))
    axes = Figure().add_subplot()
    plot_maps(planes()[0].replace(labels={"layer": 3, "seed": 1}), axes)
    assert axes.get_title() == "layer=3, seed=1"


def test_the_triangle_of_thresholds() -> None:
    axes = Figure().add_subplot()
    plot_thresholds([(0, 0.5), (0, 1), (0.5, 1), (0.5, 0.5)], [1, 2, 3, 4], axes)
    table = axes.images[0].get_array()
    np.testing.assert_array_equal(table.filled(np.nan), [[1, 2], [4, 3]])
    axes = Figure().add_subplot()
    plot_thresholds([(0, 0.5), (0.25, 1)], [1, 2], axes)
    assert np.isnan(axes.images[0].get_array().filled(np.nan)).sum() == 2
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.5", "1"]


def test_pictures_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no picture file"):
        plot_matrices(planes(), tmp_path / "matrices.gif")
    with pytest.raises(ConfigError, match="3 panels need a file"):
        plot_matrices(planes(), Figure().add_subplot())
    with pytest.raises(DataError, match="2 names do not belong to 3"):
        plot_maps(planes(), tmp_path / "a.png", names=["a", "b"])
    with pytest.raises(DataError, match="do not belong to 1 pairs"):
        plot_thresholds([(0, 1)], [1, 2], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
