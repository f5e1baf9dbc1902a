"""Curves over two axes, such as layers and dims: a text table and a heat map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nestling.errors import ConfigError
from nestling.picture import heat_map

if TYPE_CHECKING:
    from nestling.measure.curve.choice import Row
    from nestling.measure.curve.curve import Curve


@dataclass(frozen=True)
class Grid:
    """The rows of a metric by their sizes on two axes.

    Args:
        down: axis and sizes of the lines, such as ``("layer", (1, 2, 6))``.
        across: axis and sizes of the columns.
        cells: by both sizes; pairs along a diagonal leave the others out.
    """

    down: tuple[str, tuple[int, ...]]
    across: tuple[str, tuple[int, ...]]
    cells: dict[tuple[int, int], Row]

    @classmethod
    def of(cls, curve: Curve, metric: str | None = None) -> Grid:
        """The grid of a curve.

        Raises:
            ConfigError: for a curve of other than two axes, or a metric that it lacks.
        """
        axes = curve.nesting.axes
        if len(axes) != 2:
            raise ConfigError(
                f"a grid needs two axes, but this curve has {', '.join(axes)}; use table() or plot()"
            )
        across, down = axes
        cells = {(row.granularity[down], row.granularity[across]): row for row in curve.column(metric)}
        return cls((down, curve.nesting.sizes(down)), (across, curve.nesting.sizes(across)), cells)

    def lines(self, text: Callable[[Row], str]) -> list[list[str]]:
        """A header and one line for each size down; cells that were not measured are empty."""
        (down, lines), (across, columns) = self.down, self.across
        header = [f"{down} \\ {across}", *map(str, columns)]
        shown = {place: text(row) for place, row in self.cells.items()}
        return [header, *([str(line), *(shown.get((line, each), "") for each in columns)] for line in lines)]

    def draw(self, axes: Any, title: str, metric: str) -> None:
        """A heat map on matplotlib axes, each cell with its value."""
        lines, columns = self.down[1], self.across[1]
        values = [
            [self.cells[line, each].value if (line, each) in self.cells else math.nan for each in columns]
            for line in lines
        ]
        heat_map(axes, values, self.down, self.across, title, metric)
