"""Figures: layout, files, honest axes, threads and forks; matplotlib's settings are restored."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from nestling.errors import ArtifactError, ConfigError, StorageError
from nestling.picture import (
    LOOKS,
    Scale,
    Style,
    draw,
    heat_map,
    legend,
    log_axis,
    look_of,
    title_of,
    value_axis,
)
from nestling.picture.series import COLOURS, DARK_COLOURS


def line(axes: Any) -> None:
    axes.plot([1, 2, 3])


def values(*ys: float, quantity: str = "recall") -> Any:
    def panel(axes: Any) -> None:
        axes.plot(range(len(ys)), ys)
        value_axis(axes, quantity)

    return panel


def heat(table: Any, quantity: str = "value") -> Any:
    rows, columns = np.shape(table)
    return lambda axes: heat_map(
        axes, table, ("down", range(rows)), ("across", range(columns)), "title", quantity
    )


def drawn(tmp_path: Path, *panels: Any) -> list[Any]:
    """The axes of a picture in a file, after everything was drawn."""
    kept: list[Any] = []

    def keep(panel: Any) -> Any:
        def paint(axes: Any) -> None:
            kept.append(axes)
            panel(axes)

        return paint

    draw(tmp_path / "a.png", *map(keep, panels))
    return kept


# Files


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
    with pytest.raises(ConfigError, match="axes keep the style that they have"):
        draw(axes, line, style=Style())
    for nothing in (None, 3, Figure()):
        with pytest.raises(ConfigError, match="nothing to draw on; give the name of a file"):
            draw(nothing, line)


def test_files_that_cannot_be(tmp_path: Path) -> None:
    for name in ("a.gif", "a", "a.jpg"):
        with pytest.raises(ConfigError, match=r"end its name in \.png, \.svg, \.pdf"):
            draw(tmp_path / name, line)
    with pytest.raises(ConfigError, match="nothing to draw"):
        draw(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        draw(tmp_path / "file" / "a.png", line)
    draw(tmp_path / "A.PNG", line)
    assert (tmp_path / "A.PNG").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_the_same_picture_is_the_same_file(suffix: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        draw(tmp_path / f"{name}.{suffix}", values(0.2, 0.4), heat(np.eye(20)))
    one, two = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_only_pictures_of_ours_are_replaced(suffix: str, tmp_path: Path) -> None:
    for ys in ((0.2, 0.4), (0.3, 0.5)):
        draw(tmp_path / f"a.{suffix}", values(*ys))
    theirs = Figure()
    theirs.add_subplot().plot([1, 2])
    theirs.savefig(tmp_path / f"b.{suffix}")
    before = (tmp_path / f"b.{suffix}").read_bytes()
    with pytest.raises(ArtifactError, match="is not replaced; choose another name, or remove it yourself"):
        draw(tmp_path / f"b.{suffix}", line)
    assert (tmp_path / f"b.{suffix}").read_bytes() == before


def test_letters_in_a_pdf_are_true_type_and_in_an_svg_text(tmp_path: Path) -> None:
    draw(tmp_path / "a.pdf", lambda axes: axes.set_title("Rang über Schichten"))
    pdf = (tmp_path / "a.pdf").read_bytes()
    assert b"/CIDFontType2" in pdf
    assert b"/Type3" not in pdf
    draw(tmp_path / "a.svg", lambda axes: axes.set_title("Rang über Schichten"))
    assert "Rang über Schichten</text>" in (tmp_path / "a.svg").read_text(encoding="utf-8")


def test_nothing_of_matplotlib_changes(tmp_path: Path) -> None:
    before, open_figures = dict(mpl.rcParams), plt.get_fignums()
    with mpl.rc_context({"font.size": 23, "axes.facecolor": "red"}):
        inside = dict(mpl.rcParams)
        draw(tmp_path / "theirs.png", line)
        assert dict(mpl.rcParams) == inside
    draw(tmp_path / "ours.png", line)
    # A file looks the same whatever the settings of the session are.
    assert (tmp_path / "theirs.png").read_bytes() == (tmp_path / "ours.png").read_bytes()
    with pytest.raises(ZeroDivisionError):
        draw(tmp_path / "none.png", lambda axes: 1 / 0)
    assert not (tmp_path / "none.png").exists()
    assert dict(mpl.rcParams) == before
    assert plt.get_fignums() == open_figures


def test_threads_leave_the_settings_as_they_were(tmp_path: Path) -> None:
    before = dict(mpl.rcParams)
    threads = [
        threading.Thread(
            target=draw, args=(tmp_path / f"{n}.png", line), kwargs={"style": Style(font_size=n)}
        )
        for n in range(6, 12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict(mpl.rcParams) == before
    draw(tmp_path / "alone.png", line, style=Style(font_size=6))
    assert (tmp_path / "alone.png").read_bytes() == (tmp_path / "6.png").read_bytes()


def test_no_display_and_no_pyplot_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys; from nestling.picture import draw; assert 'matplotlib' not in sys.modules;"
        f"draw({str(tmp_path / 'a.png')!r}, lambda axes: axes.plot([1]));"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    path = {
        "PYTHONPATH": str(Path(__file__).parents[1] / "src"),
        "MPLBACKEND": "TkAgg",
        "HOME": str(tmp_path),
    }
    subprocess.run([sys.executable, "-c", code], check=True, env=path)


FORKED = """
import os, sys, threading, warnings
from nestling.picture import draw
warnings.simplefilter("ignore")  # newer Pythons warn of any fork of a process with threads
inside, over = threading.Event(), threading.Event()
slow = threading.Thread(target=draw, args=("slow.png", lambda axes: (inside.set(), over.wait(60))))
slow.start()
inside.wait(60)
child = os.fork()
if not child:
    draw("child.png", lambda axes: axes.plot([1]))
    os._exit(0)
left = os.waitpid(child, 0)[1]
over.set()
slow.join()
sys.exit(left)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_draws_while_the_parent_does(tmp_path: Path) -> None:
    path = {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", FORKED], check=True, env=path, cwd=tmp_path, timeout=60)
    assert {path.name for path in tmp_path.glob("*.png")} == {"slow.png", "child.png"}


# Style


def test_a_style_says_how_large_a_picture_is(tmp_path: Path) -> None:
    sizes: list[tuple[float, float]] = []

    def panel(axes: Any) -> None:
        sizes.append((*axes.figure.get_size_inches(), axes.title.get_fontsize(), axes.figure.dpi))

    draw(tmp_path / "a.png", panel, style=Style(width=3.3, height=2.5, font_size=7, dpi=300))
    assert sizes[0][:3] == (3.3, 2.5, 7)
    width = int.from_bytes((tmp_path / "a.png").read_bytes()[16:20], "big")
    assert width == 990  # 3.3 inches of 300 dots
    draw(tmp_path / "b.png", *[panel] * 2)
    assert sizes[1][:2] == (8.4, 3.8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"width": 0}, "width=0 must be a number from 0.5 to 100"),
        ({"height": float("nan")}, "height=nan must be a number from"),
        ({"font_size": "large"}, "font_size='large' must be a number from"),
        ({"dpi": True}, "dpi=True must be a number from"),
        ({"width": 100, "dpi": 2400}, "pixels a side; lower dpi"),
        ({"font": "DejaVu Sanss"}, "unknown font 'DejaVu Sanss'; did you mean 'DejaVu Sans"),
    ],
)
def test_styles_that_cannot_be(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        draw(tmp_path / "a.png", line, style=Style(**given))
    assert not list(tmp_path.iterdir())


def test_what_is_no_style_is_refused(tmp_path: Path) -> None:
    for wrong in ({"dpi": 300}, "paper", 300):
        with pytest.raises(ConfigError, match=r"style must be a Style, such as Style\(width=3.3"):
            draw(tmp_path / "a.png", line, style=wrong)  # type: ignore[arg-type]


def test_a_font_can_be_chosen(tmp_path: Path) -> None:
    draw(tmp_path / "a.pdf", lambda axes: axes.set_title("x"), style=Style(font="DejaVu Serif"))
    assert b"DejaVuSerif" in (tmp_path / "a.pdf").read_bytes()


def test_names_are_taken_as_they_are(tmp_path: Path) -> None:
    def panel(axes: Any) -> None:
        legend(axes, axes.plot([1, 2]) + axes.plot([2, 1]), ["_hidden", "$a$ costs $3_{"])
        title_of(axes, "a title of $5_{ " + "that is far too long for one line " * 3)

    (axes,) = drawn(tmp_path, panel)
    draw(tmp_path / "a.svg", panel)
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "$a$ costs $3_{</text>" in svg
    assert "a title of $5_{" in svg
    names = ["$\\broken{", "_"]
    draw(
        tmp_path / "b.svg",
        lambda axes: heat_map(axes, np.eye(2), ("$d_{", names), ("$a_{", names), "$t_{", "$q_{"),
    )
    svg = (tmp_path / "b.svg").read_text(encoding="utf-8")
    assert svg.count("$\\broken{</text>") == 2
    assert [text.get_text().strip() for text in axes.get_legend().get_texts()] == [
        "_hidden",
        "$a$ costs $3_{",
    ]
    assert axes.get_title().count("\n") >= 1


def test_formulas_of_others_stay_formulas(tmp_path: Path) -> None:
    def panel(axes: Any) -> None:
        axes.set_xlabel(r"$\alpha$")
        axes.plot([1, 10, 100])
        axes.set_yscale("log")

    draw(tmp_path / "a.svg", panel)
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    assert "\N{GREEK SMALL LETTER ALPHA}" in svg
    assert "$</text>" not in svg


def test_a_logarithmic_axis_has_plain_numbers(tmp_path: Path) -> None:
    def panel(axes: Any) -> None:
        axes.plot([0.04, 30])
        log_axis(axes, "ms")

    draw(tmp_path / "a.svg", panel)
    svg = (tmp_path / "a.svg").read_text(encoding="utf-8")
    for number in ("0.05", "0.1", "0.2", "1", "20"):
        assert f">{number}</text>" in svg


# Looks


def linear(colour: str) -> np.ndarray:
    part = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG's ratio."""
    low, high = sorted(linear(colour) @ [0.2126, 0.7152, 0.0722] for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
    xyz = np.array(to_xyz) @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


# Colours as seen without one kind of cone: Machado et al. 2009, severity 1.
BLINDNESS = {
    "none": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}


@pytest.mark.parametrize(
    ("colours", "pages"), [(COLOURS, ("#ffffff", "#fcfcfa")), (DARK_COLOURS, ("#1b212a", "#14181f"))]
)
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_can_be_told_apart(colours: tuple[str, ...], pages: tuple[str, ...], blindness: str) -> None:
    assert all(contrast(colour, page) >= 3 for colour in colours for page in pages)
    seen = [lab(BLINDNESS[blindness] @ linear(colour)) for colour in colours]
    # 2.3 is what can just be seen; thin lines need several times that.
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 19.5


def test_looks_do_not_depend_on_colour() -> None:
    looks = [look_of(number) for number in range(LOOKS)]
    assert len(set(looks)) == LOOKS
    for one, other in itertools.pairwise(looks):
        assert one.marker != other.marker
        assert one.dashes != other.dashes
    first = [look_of(number) for number in range(7)]
    assert len({look.marker for look in first}) == 7


# Scales


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_an_axis_holds_its_values_and_0_or_says_so(found: list[float]) -> None:
    scale = Scale.of(found)
    room = 1e-9 * (scale.high - scale.low) + 1e-9
    assert scale.low - room <= min(found)
    assert max(found) <= scale.high + room
    assert len(scale.ticks) == len(scale.labels) <= 9
    assert scale.cut == (not scale.low <= 0 <= scale.high)
    assert bool(scale.note) == scale.cut
    if scale.cut:  # only where the values would be a line at the top
        assert max(found) - min(found) < 0.25 * max(map(abs, found))


def test_round_places() -> None:
    assert Scale.of([0.13, 0.386]).labels == ["0.0", "0.1", "0.2", "0.3", "0.4"]
    assert Scale.of([0.9, 1.0]).low == 0.9
    assert Scale.of([0.9, 1.0]).note == "axis starts at 0.90"
    assert Scale.of([0.5]).low == 0
    assert Scale.of([]).ticks == Scale.of([0.0]).ticks == Scale.of([float("nan"), 0, 1]).ticks
    assert Scale.of([-0.2, 0.3]).low == -0.2
    assert Scale.of([-5.0, -1.0]).high == 0


def test_a_cut_axis_is_marked() -> None:
    axes = Figure().add_subplot()
    values(0.81, 0.86)(axes)
    assert axes.get_ylim()[0] > 0.7
    assert axes.get_ylabel() == "recall\n(axis starts at 0.81)"
    assert len(axes.lines) == 2  # the line and the mark
    axes = Figure().add_subplot()
    values(0.1, 0.86)(axes)
    assert axes.get_ylim()[0] == 0
    assert axes.get_ylabel() == "recall"
    assert len(axes.lines) == 1


def test_panels_of_one_quantity_share_their_axis(tmp_path: Path) -> None:
    low, high, other = drawn(
        tmp_path, values(0.1, 0.3), values(0.82, 0.84), values(0.82, 0.84, quantity="mrr")
    )
    assert low.get_ylim() == high.get_ylim()
    assert low.get_ylim()[0] == 0
    assert high.get_ylabel() == "recall"  # the mark is gone with the cut
    assert len(high.lines) == 1
    assert other.get_ylim()[0] > 0.7


# Heat maps


def test_a_small_heat_map_tells_its_values_and_a_large_one_its_scale() -> None:
    axes = Figure().add_subplot()
    draw(
        axes,
        lambda axes: heat_map(
            axes, [[1, np.nan], [0.25, 0]], ("down", ["a", "b"]), ("across", [3, 4]), "title"
        ),
    )
    assert sorted(text.get_text() for text in axes.texts) == ["0.000", "0.250", "1.000"]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("across", "down", "title")
    figure = Figure()
    axes = figure.add_subplot()
    draw(axes, heat(np.eye(21), "likeness"))
    assert not axes.texts
    assert len(figure.axes) == 2
    assert figure.axes[1].get_ylabel() == "likeness"
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(n) for n in range(0, 21, 2)]


def test_maps_of_one_quantity_share_their_colours_and_one_bar(tmp_path: Path) -> None:
    before, after, cost = drawn(
        tmp_path, heat([[0.4, 0.8]], "rho"), heat([[0.6, 0.9]], "rho"), heat([[3, 7]], "ms")
    )
    assert before.images[0].get_clim() == after.images[0].get_clim() == (0.4, 0.9)
    assert cost.images[0].get_clim() == (3, 7)
    bars = [axes for axes in before.figure.axes if axes not in (before, after, cost)]
    assert [bar.get_ylabel() for bar in bars] == ["rho"]


def test_panels_that_were_drawn_alone_before_have_one_bar_too(tmp_path: Path) -> None:
    large = np.random.default_rng(0).random((20, 20))
    one, two = drawn(tmp_path, lambda axes: draw(axes, heat(large)), lambda axes: draw(axes, heat(2 * large)))
    assert one.images[0].get_clim() == two.images[0].get_clim()
    assert len(one.figure.axes) == 3


def test_values_can_be_read_on_their_colours() -> None:
    axes = Figure().add_subplot()
    draw(axes, heat(np.linspace(0, 1, 144).reshape(12, 12)))  # as many as are written into a map
    assert len(axes.texts) == 144
    image = axes.images[0]
    for text in axes.texts:
        column, row = text.get_position()
        ground = image.cmap(image.norm(image.get_array()[row, column]))
        letters = "#ffffff" if text.get_color() == "w" else "#000000"
        shown = mpl.colors.to_hex(ground)
        assert contrast(letters, shown) >= 4.4, (letters, shown)  # WCAG asks for 4.5; colours are rounded


def test_what_is_not_finite_is_grey(tmp_path: Path) -> None:
    (axes,) = drawn(tmp_path, heat([[np.inf, 1.0, np.nan, 2.0]]))
    assert axes.images[0].get_clim() == (1, 2)
    assert len(axes.texts) == 2
    (axes,) = drawn(tmp_path, heat([[np.nan, np.nan]]))
    assert not axes.texts


# Legends


def test_equal_legends_become_one(tmp_path: Path) -> None:
    def panel(*names: str) -> Any:
        return lambda axes: legend(axes, [axes.plot([1])[0] for _ in names], names)

    one, two = drawn(tmp_path, panel("a", "b"), panel("a", "b"))
    assert one.get_legend() is two.get_legend() is None
    assert [text.get_text() for text in one.figure.legends[0].get_texts()] == ["a", "b"]
    one, two = drawn(tmp_path, panel("a", "b"), panel("a", "c"))
    assert one.get_legend() is not None
    assert not one.figure.legends


def test_a_large_legend_stands_beside_and_long_names_are_broken(tmp_path: Path) -> None:
    def panel(*names: str) -> Any:
        return lambda axes: legend(axes, [axes.plot([1])[0] for _ in names], names)

    (axes,) = drawn(tmp_path, panel(*map(str, range(9))))
    assert axes.get_legend().get_window_extent().x0 >= axes.get_window_extent().x1
    (axes,) = drawn(tmp_path, panel("runs/" + "a-long-name/" * 9))
    (name,) = axes.get_legend().get_texts()
    assert max(map(len, name.get_text().split("\n"))) <= 40
    assert name.get_text().replace("\n", "") == "runs/" + "a-long-name/" * 9


def test_every_picture_in_the_library_goes_through_here() -> None:
    """One place writes pictures, so that all have its style, its errors and its atomic files."""
    source = Path(__file__).parents[1] / "src" / "nestling"
    for path in source.rglob("*.py"):
        if path.parent.name != "picture":
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"savefig|pyplot|matplotlib\.figure|cmap=", text), path
