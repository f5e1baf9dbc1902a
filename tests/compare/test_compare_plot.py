"""MDS maps recover planes and are aligned; plots of RDMs share colours and leave matplotlib alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.spatial.distance import pdist

from nestling.compare import RDMs, map_stimuli, plot_maps, plot_matrices, plot_thresholds
from nestling.compare.transforms.thresholds import threshold_grid
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
    with pytest.raises(DataError, match="2 names were given for 3"):
        plot_maps(planes(), tmp_path / "a.png", names=["a", "b"])
    with pytest.raises(DataError, match="do not belong to 1 pairs"):
        plot_thresholds([(0, 1)], [1, 2], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def colours_of(tmp_path: Path, rdms: RDMs, **how: Any) -> list[tuple[float, float]]:
    """The ends of the colours of every panel of a picture, and of nothing else."""
    found: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nestling.picture.figure.share_legend", lambda figure, panels: found.extend(panels))
        plot_matrices(rdms, tmp_path / "matrices.png", **how)
    return [axes.images[0].get_clim() for axes in found]


def test_panels_of_matrices_share_their_colours(tmp_path: Path) -> None:
    rdms = planes()
    ends = colours_of(tmp_path, rdms)
    assert set(ends) == {(0, rdms.vectors.max())}
    assert set(colours_of(tmp_path, rdms, colours="ranks")) == {(0, 100)}
    with pytest.raises(ConfigError, match=r"colours='rank' must be one of .*; did you mean 'ranks'"):
        colours_of(tmp_path, rdms, colours="rank")


def test_ranks_are_of_each_matrix(tmp_path: Path) -> None:
    axes = Figure().add_subplot()
    rdms = RDMs([[1.0, 1.0, 30.0, 2.0, np.nan, 5.0]], metric="cosine")
    plot_matrices(rdms, axes, colours="ranks")
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown.filled(np.nan)[np.triu_indices(4, 1)], [12.5, 12.5, 100, 50, np.nan, 75])
    assert [axes.images[0].get_label()] == ["quantity: rank of cosine within a matrix, in %"]


def test_groups_have_looks_and_a_legend() -> None:
    axes = Figure().add_subplot()
    kinds = ["animal", "tool", "animal"] * 4
    plot_maps(planes()[0], axes, groups=kinds)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["animal", "tool"]
    sizes = [len(points.get_offsets()) for points in axes.collections]
    assert sizes == [8, 4]
    colours = {tuple(points.get_facecolor()[0]) for points in axes.collections}
    assert len(colours) == 2
    axes = Figure().add_subplot()
    plot_maps(planes()[0], axes)
    assert len(axes.collections) == 1
    assert axes.get_legend() is None
    axes = Figure().add_subplot()
    plot_maps(planes()[0], axes, groups=[np.nan, None, 3] * 4)  # every point is drawn, whatever its group
    assert [len(points.get_offsets()) for points in axes.collections] == [4, 4, 4]
    many = RDMs([pdist(RNG.normal(size=(60, 2)))])
    with pytest.raises(DataError, match="60 groups are more than a plot can distinguish; give at most 42"):
        plot_maps(many, axes, groups=range(60))
    with pytest.raises(DataError, match="3 groups were given for 12 stimuli"):
        plot_maps(planes(), axes, groups=["a", "b", "c"])


def test_of_many_stimuli_some_far_apart_are_named() -> None:
    places = RNG.normal(size=(60, 2))
    places[-1] = [9, 9]
    axes = Figure().add_subplot()
    plot_maps(RDMs([pdist(places)]), axes)
    named = [text.get_text() for text in axes.texts]
    assert len(named) == 8
    assert named[0] == "59"
    axes = Figure().add_subplot()
    plot_maps(RDMs([pdist(np.repeat([[0.0, 0.0], [1.0, 1.0]], 20, axis=0))]), axes)
    assert len(axes.texts) == 2  # names would lie on top of each other
