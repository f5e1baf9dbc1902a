"""Bar plots of an evaluation: intervals, noise ceiling and significant differences."""

from __future__ import annotations

from typing import Any, NamedTuple

from nestling.arguments.constraints import Real, checked
from nestling.compare.inference.evaluation import Evaluation
from nestling.compare.inference.significance import Correction
from nestling.picture import Style, as_they_are, draw, legend, look_of, title_of, value_axis

_MOST_JOINED = 8
_MOST_LETTERS = 60  # of all names on a line
_SIGNIFICANT = 0.05
_CEILING = "#b9bec7"


@checked(alpha=Real(above=0, below=1, hint="0.05 is usual"))
def plot_evaluation(
    found: Evaluation,
    target: Any,
    *,
    correction: Correction = "holm",
    alpha: float = _SIGNIFICANT,
    title: str = "",
    style: Style | None = None,
) -> None:
    """Draw one bar per model with its interval, the noise ceiling as a band, and marks of significance.

    A star stands at the foot of a bar that is above 0, a dagger where it is below the lower noise ceiling.
    Lines above the bars join models that differ from each other; of more than eight models
    ``found.pairs()`` says so alone.

    Args:
        found: result of :func:`~nestling.compare.inference.evaluation.evaluate`.
        target: a file (.png, .svg or .pdf) or matplotlib axes.
        correction: of the p values, for the number of models and of pairs.
        alpha: below which a corrected p value counts, above 0 and below 1.
        title: of the picture.
        style: size, font and resolution of the file.

    Raises:
        ConfigError: for an ``alpha`` out of range, an unknown correction, or another kind of file.
        MissingExtraError: if matplotlib is not installed.
        StorageError: if the file cannot be written.

    Source: the form of the picture: Nili et al. 2014, figure 4.
    """
    rows = found.rows(correction)
    joined = []
    if 1 < len(rows) <= _MOST_JOINED:
        numbers = {name: number for number, name in enumerate(found.models)}
        joined = [
            _Join(numbers[pair["first"]], numbers[pair["second"]])
            for pair in found.pairs(correction)
            if pair["p"] < alpha
        ]
    draw(target, lambda axes: _draw(axes, found, rows, joined, (alpha, correction, title)), style=style)


class _Join(NamedTuple):
    """Two models that differ, by number."""

    first: int
    second: int


def _draw(
    axes: Any,
    found: Evaluation,
    rows: list[dict[str, Any]],
    joined: list[_Join],
    words: tuple[float, Correction, str],
) -> None:
    alpha, correction, title = words
    values = [row["value"] for row in rows]
    reach = [[row["value"] - row["low"] for row in rows], [row["high"] - row["value"] for row in rows]]
    handles = []
    names = []
    if found.ceiling is not None:
        handles.append(axes.axhspan(found.ceiling.lower, found.ceiling.upper, color=_CEILING, linewidth=0))
        names.append("noise ceiling")
    bars = axes.bar(range(len(rows)), values, width=0.62, color=look_of(0).colour, alpha=0.85)
    interval = axes.errorbar(range(len(rows)), values, reach, fmt="none", ecolor="k", capsize=3)
    axes.axhline(0, color="k", linewidth=0.8)
    handles += [bars, interval]
    names += ["mean over subjects", f"{found.confidence:.0%} interval"]
    _join(axes, joined)
    value_axis(axes, f"{found.method} with the data")
    _name(axes, rows, alpha)
    over = "subjects and stimuli" if found.over == "both" else found.over
    title_of(
        axes, title or f"{len(rows)} models against {len(found.subjects)} subjects, intervals over {over}"
    )
    legend(axes, handles, names, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    said = [f"* above 0   † below the noise ceiling   (p < {alpha:g}, {correction})"]
    if joined:
        said.append("a line joins models that differ")
    elif len(rows) > _MOST_JOINED:
        said.append("differences of pairs: see pairs()")
    axes.set_xlabel("\n".join(said), fontsize="small")


def _name(axes: Any, rows: list[dict[str, Any]], alpha: float) -> None:
    """Each bar's model below it, and its marks at its foot."""
    names = [str(row["model"]) for row in rows]
    axes.set_xticks(range(len(rows)), names)
    as_they_are(*axes.get_xticklabels())
    if max(map(len, names)) * len(rows) > _MOST_LETTERS:
        axes.tick_params(axis="x", labelrotation=35)
        for label in axes.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    for number, row in enumerate(rows):
        marks = "*" * (row["p_zero"] < alpha) + "†" * (row["p_ceiling"] < alpha)
        axes.text(number, 0.01, marks, transform=axes.get_xaxis_transform(), ha="center", va="bottom")


def _join(axes: Any, joined: list[_Join]) -> None:
    """Lines above everything, short ones lowest; lines that do not meet share a height."""
    low, high = axes.dataLim.intervaly
    step = 0.05 * (high - min(low, 0.0))
    levels: list[list[_Join]] = []
    for pair in sorted(joined, key=lambda pair: pair.second - pair.first):
        level = next((each for each in levels if all(_apart(pair, other) for other in each)), None)
        if level is None:
            level = []
            levels.append(level)
        level.append(pair)
        height = high + step * (1 + next(i for i, each in enumerate(levels) if each is level))
        axes.plot(pair, (height, height), color="k", marker="|", markersize=4, linewidth=1)


def _apart(one: _Join, other: _Join) -> bool:
    return one.second < other.first or other.second < one.first
