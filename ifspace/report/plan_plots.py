"""The figures of layouts: the organizer's ways from stage to stage, and energy against rank."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ifspace.report.files import RANKS, TRAJECTORIES, Row
from ifspace.report.folder import Results
from ifspace.report.ink import DARK, DASHES, LIGHT, MARKS, MIDDLE, figure, grid

# Lines of the same depth are drawn so far apart.
_APART: Final = 0.09
_SHADES: Final = (DARK, MIDDLE, DARK, MIDDLE, DARK)


def layout_figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield for each image side the organizer's trajectories of the networks."""
    rows = results.of(TRAJECTORIES)
    for side in sorted({row["side"] for row in rows}):
        some = [row for row in rows if row["side"] == side]
        yield f"trajectories-{side}", trajectories(some, side)


def trajectories(rows: Sequence[Row], side: int) -> Figure:
    """Return the depths of the stages, move by move, a panel for each network."""
    networks = list(dict.fromkeys(row["network"] for row in rows))
    down = -(-len(networks) // 2)
    drawn = figure(10.4, 0.6 + 3.3 * down)
    drawn.suptitle(f"The organizer's moves at images of {side} × {side} pixels", fontsize=12)
    panels = drawn.subplots(down, 2, squeeze=False).ravel()
    for axes, name in zip(panels, networks, strict=False):
        _trajectory(axes, [row for row in rows if row["network"] == name])
        axes.set_title(name)
    for axes in panels[len(networks) :]:
        axes.set_axis_off()
    return drawn


def _trajectory(axes: Axes, states: Sequence[Row]) -> None:
    steps = [state["step"] for state in states]
    stages = len(states[0]["depths"])
    for stage in range(stages):
        shift = _APART * (stage - (stages - 1) / 2)
        depths = [state["depths"][stage] - shift for state in states]
        axes.plot(
            steps,
            depths,
            marker=MARKS[stage % len(MARKS)],
            color=_SHADES[stage % 5],
            linestyle=DASHES[stage % len(DASHES)],
            markersize=5,
            linewidth=1.3,
            markerfacecolor=_SHADES[stage % 5] if stage % 2 else "white",
            label=f"{stage + 1}: {states[0]['sides'][stage]}²",
        )
    most = max(max(state["depths"]) for state in states)
    for state in states:
        if state["published"]:
            axes.axvline(state["step"], color=LIGHT, linewidth=7, alpha=0.4, zorder=0)
            axes.annotate(
                f"published for\n{state['published']}",
                (state["step"], most + 0.45),
                ha="right" if state["step"] == steps[-1] and len(steps) > 1 else "center",
                va="bottom",
                fontsize=8,
            )
    axes.set_xticks(
        steps, [f"{state['move'] or 'start'}\n{state['params'] / 1e6:.2f}M" for state in states]
    )
    axes.tick_params(axis="x", labelsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0.4, most + 1.5)
    axes.set_xlabel("move from stage to stage, and the parameters after it")
    axes.set_ylabel("blocks in the stage")
    axes.legend(
        title="stage: pixels",
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        fontsize=8,
        title_fontsize=8,
    )
    grid(axes, "y")


def energy_figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield the energy of layouts against their rank."""
    rows = results.of(RANKS)
    if rows:
        yield "energy-rank", energy_rank(rows)


def energy_rank(rows: Sequence[Row]) -> Figure:
    """Return energies as a share of the greatest, a line for each problem."""
    drawn = figure(7.6, 5.4)
    axes = drawn.add_subplot()
    learned: list[tuple[int, float]] = []
    for place, ((units, budget), group) in enumerate(groupby(rows, key=_problem)):
        states = list(group)
        most = max(row["energy"] for row in states)
        share = [100 * row["energy"] / most for row in states]
        ranks = [row["rank"] for row in states]
        count = len(units)
        what = f"{count} convolutions" if set(units) == {1} else f"units of {_listed(units)}"
        axes.plot(
            ranks,
            share,
            DASHES[place % len(DASHES)],
            color=DARK,
            linewidth=1.4,
            label=f"{what}, {9 * budget:,} parameters: {states[0]['layouts']:,} layouts",
        )
        learned += [
            (rank, y)
            for rank, y, row in zip(ranks, share, states, strict=True)
            if row["paper"].startswith("learned")
        ]
    if learned:
        axes.plot(
            *zip(*learned, strict=True),
            "o",
            color=DARK,
            markersize=7,
            markerfacecolor="white",
            label="learned to be best in [Layout]",
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(0, 104)
    axes.set_xlabel("rank of the layout by its energy")
    axes.set_ylabel("energy, % of the greatest")
    axes.set_title("How fast the energy of layouts falls with their rank")
    drawn.legend(loc="outside lower left")
    grid(axes)
    return drawn


def _problem(row: Row) -> tuple[tuple[int, ...], int]:
    return row["units"], row["budget"]


def _listed(units: Sequence[int]) -> str:
    return ", ".join(map(str, units)) + " convolutions"
