"""The figure of a validation: each measure where it orders networks, with its interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes

from ifspace.report.style import DARK, LIGHT, MARKS, figure, grid, save, style
from ifspace.scores.validation import IN_BINS, UNDER_BUDGETS, Validation, ValidationRow

# The places drawn, one beside the other, and the axis of each.
PANELS: Final = (
    (IN_BINS, "spearman", "Spearman's ρ, equal parameters"),
    (UNDER_BUDGETS, "pick_percentile", "percentile of the pick under budgets"),
)
_APART: Final = 0.7


def draw(result: Validation, path: Path) -> tuple[Path, Path]:
    """Draw the measures of every set, and write SVG and PNG of the name of `path`.

    Raises: OutputError when they cannot be written there.
    """
    names = list(dict.fromkeys(row.score for row in result.rows))
    sets = list(dict.fromkeys(row.set for row in result.rows))
    with style():
        drawn = figure(9, 1.5 + 0.28 * len(names) + 0.2 * len(sets))
        panels = drawn.subplots(1, len(PANELS), sharey=True)
        for axes, (where, statistic, title) in zip(panels, PANELS, strict=True):
            for number, name in enumerate(sets):
                rows = [row for row in result.rows if (row.set, row.where) == (name, where)]
                places = [
                    names.index(row.score) + _APART * ((number + 0.5) / len(sets) - 0.5)
                    for row in rows
                ]
                _draw_set(axes, rows, statistic, places, name, number)
            axes.set_yticks(range(len(names)), names)
            axes.set_title(title)
            grid(axes, "x")
        panels[0].invert_yaxis()
        handles, labels = panels[0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=3)
    return save(drawn, path.parent, path.stem)


def _draw_set(
    axes: Axes,
    rows: Sequence[ValidationRow],
    statistic: str,
    places: Sequence[float],
    name: str,
    number: int,
) -> None:
    estimates = [row.statistics[statistic] for row in rows]
    axes.hlines(places, [e.low for e in estimates], [e.high for e in estimates], color=LIGHT)
    axes.plot(
        [e.value for e in estimates],
        places,
        MARKS[number % len(MARKS)],
        color=DARK,
        markersize=4,
        label=name,
    )
