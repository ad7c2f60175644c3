"""The figures of a report, part by part: catalogue, layouts, energy, blocks, kernels.

Shades of grey and marks that differ in form; the same bytes for the same data.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ifspace.catalogue import Design, Funnel, one_a_network, ranked
from ifspace.catalogue.choose import trade_offs
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.measurements import AS_IS, FORWARD, LEAST, PREDICTED, TIME
from ifspace.report.drawing import draw
from ifspace.report.measured import (
    PARAMS,
    Condition,
    Rows,
    baseline_name,
    by_condition,
    in_other_forms,
    least_of,
    median_of,
    shortfall,
)
from ifspace.report.read import (
    RANKS,
    TRAJECTORIES,
    Measured,
    PlannedLayout,
    Results,
    Row,
)
from ifspace.report.style import (
    DARK,
    DASHES,
    LIGHT,
    MARKS,
    MIDDLE,
    figure,
    grid,
    log_scale,
    save,
    style,
)
from ifspace.report.tables import (
    setting_name,
    settings,
)
from ifspace.values import counted

# Lines of the same depth are drawn so far apart.
_APART: Final = 0.09
_SHADES: Final = (DARK, MIDDLE, DARK, MIDDLE, DARK)


def layout_figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield for each image side the organizer's trajectories, and a figure of each layout."""
    rows = results.of(TRAJECTORIES)
    for side in sorted({row["side"] for row in rows}):
        some = [row for row in rows if row["side"] == side]
        yield f"trajectories-{side}", trajectories(some, side)
    for plan in results.plans:
        yield f"layout-{plan.name}", planned_layout(plan)


def planned_layout(plan: PlannedLayout) -> Figure:
    """Return what each stage has of the parameters, the MACs and, where known, the time."""
    drawn = figure(1.6 + 1.3 * len(plan.stages), 3.6)
    axes = drawn.subplots()
    amounts = {
        "params": ("parameters", DARK),
        "macs": ("MACs", MIDDLE),
        "latency_ms": ("ms", LIGHT),
    }
    columns = [name for name in amounts if all(stage[name] is not None for stage in plan.stages)]
    bar = 0.8 / len(columns)
    for number, name in enumerate(columns):
        values = [stage[name] for stage in plan.stages]
        total, (title, shade) = sum(values), amounts[name]
        places = [index + (number - (len(columns) - 1) / 2) * bar for index in range(len(values))]
        shares = [100 * value / total for value in values]
        axes.bar(places, shares, bar, color=shade, label=f"{title}: {total:,} in the stages")
    ticks = [f"{n}\n{s['depth']} × {s['width']}" for n, s in enumerate(plan.stages, start=1)]
    meanings = ["stage, blocks × channels"]
    for name, meaning in (("expansion", "width inside"), ("stride", "stride")):
        # Of layouts whose stages differ in it, and of files that have it.
        values = [stage[name] for stage in plan.stages]
        if None not in values and {str(value) for value in values} != {"1"}:
            marks = [f"\n×{v}" if name == "expansion" else f"\nstride {v}" for v in values]
            ticks = [tick + mark for tick, mark in zip(ticks, marks, strict=True)]
            meanings.append(f"× {meaning}" if name == "expansion" else meaning)
    axes.set_xticks(range(len(ticks)), ticks)
    axes.set_xlabel(", ".join(meanings))
    axes.set_ylabel("share of all stages, %")
    axes.set_title(f"Layout {plan.name}: greatest {plan.objective}")
    axes.legend(fontsize=8)
    grid(axes, "y")
    return drawn


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
    deepest = max(max(state["depths"]) for state in states)
    for state in states:
        if state["published"]:
            axes.axvline(state["step"], color=LIGHT, linewidth=7, alpha=0.4, zorder=0)
            axes.annotate(
                f"published for\n{state['published']}",
                (state["step"], deepest + 0.45),
                ha="right" if state["step"] == steps[-1] and len(steps) > 1 else "center",
                va="bottom",
                fontsize=8,
            )
    axes.set_xticks(
        steps, [f"{state['move'] or 'start'}\n{state['params'] / 1e6:.2f}M" for state in states]
    )
    axes.tick_params(axis="x", labelsize=8)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(0.4, deepest + 1.5)
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
        highest = max(row["energy"] for row in states)
        share = [100 * row["energy"] / highest for row in states]
        ranks = [row["rank"] for row in states]
        count = len(units)
        network = (
            counted(count, "convolution") if set(units) == {1} else f"units of {_listed(units)}"
        )
        axes.plot(
            ranks,
            share,
            DASHES[place % len(DASHES)],
            color=DARK,
            linewidth=1.4,
            label=f"{network}, {9 * budget:,} parameters: {states[0]['layouts']:,} layouts",
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


# So many names stand beside a figure.
MOST_NAMED: Final = 14
# How providers begin that are ours: our kernels, and the blocks of a catalogue.
OURS: Final = ("ifspace", "catalogue")


@dataclass(frozen=True, slots=True)
class MeasuredBlock:
    """A measured block: its parameters, its minimum time in ms, its name if it is a baseline.

    `is_short`: it sees less than the convolution that the blocks replace. `form`: in which the time
    was measured.
    """

    name: str
    params: float
    time: float
    baseline: str | None = None
    is_short: bool = False
    form: str = AS_IS


def block_figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield for each device and shape parameters against latency; prediction; and the bound."""
    for bench in results.blocks:
        cases = by_condition(bench.rows)
        in_forms = in_other_forms(bench.rows)
        forward = {
            condition: rows for condition, rows in cases.items() if condition.mode == FORWARD
        }
        for number, (condition, rows) in enumerate(forward.items()):
            last = f"-{number + 1}" if number else ""
            blocks = measured_blocks(rows, in_forms.get(condition, {}))
            if blocks:
                name = f"params-latency-{bench.device}{last}"
                yield name, params_latency(blocks, bench.device, condition)
        drawn = predicted(bench, forward)
        if drawn is not None:
            yield f"predicted-latency-{bench.device}", drawn
        timed = {condition: rows for condition, rows in cases.items() if _bounded(rows, LEAST)}
        if timed:
            yield f"speed-bound-blocks-{bench.device}", speed_bound(bench, timed, LEAST)


def measured_blocks(rows: Rows, others: Mapping[str, Rows] | None = None) -> list[MeasuredBlock]:
    """Return the blocks that have parameters and a time, each in its fastest form.

    `rows` are those of blocks as they are, `others` those of them in each other form.
    """
    blocks = []
    for name in rows:
        params, time, form = median_of(rows, name, PARAMS), least_of(rows, name), AS_IS
        if not params or not time:
            continue
        for other, own in (others or {}).items():
            least = least_of(own, name)
            if least is not None and least < time:
                time, form = least, other
        is_short = bool(shortfall(rows, name))
        blocks.append(MeasuredBlock(name, params, time, baseline_name(rows, name), is_short, form))
    return blocks


def front(blocks: Sequence[MeasuredBlock]) -> list[MeasuredBlock]:
    """Return the blocks that no other beats in parameters and time, fewest parameters first.

    A block short of the field beats none.

    >>> blocks = [MeasuredBlock("a", 2, 1), MeasuredBlock("b", 1, 3), MeasuredBlock("c", 3, 1)]
    >>> [block.name for block in front(blocks)]
    ['b', 'a']
    """
    best: list[MeasuredBlock] = []
    whole = [block for block in blocks if not block.is_short]
    for block in sorted(whole, key=lambda block: (block.params, block.time)):
        if not best or block.time < best[-1].time:
            best.append(block)
    return best


def params_latency(blocks: Sequence[MeasuredBlock], device: str, condition: Condition) -> Figure:
    """Return parameters against forward time with the Pareto set, numbered, its names beside it."""
    drawn = figure(9.6, 5.0)
    axes = drawn.add_subplot()
    best = front(blocks)
    plain = [block for block in blocks if block.baseline is None and block not in best]
    compared = [block for block in blocks if block.baseline is not None]
    axes.plot(
        [b.params for b in plain],
        [b.time for b in plain],
        "o",
        color=MIDDLE,
        markerfacecolor="white",
        markersize=5,
        label="block",
    )
    axes.plot(
        [b.params for b in compared],
        [b.time for b in compared],
        "s",
        color=DARK,
        markerfacecolor=LIGHT,
        markersize=7,
        label="to compare with",
    )
    axes.step(
        [b.params for b in best], [b.time for b in best], "-", where="post", color=DARK, linewidth=1
    )
    axes.plot(
        [b.params for b in best],
        [b.time for b in best],
        "o",
        color=DARK,
        markersize=6,
        label="none is better in both",
    )
    named = [*best[:MOST_NAMED], *(block for block in compared if block not in best)]
    for number, block in enumerate(named, start=1):
        axes.annotate(
            str(number),
            (block.params, block.time),
            (5, 5),
            fontsize=8.5,
            textcoords="offset points",
        )
    lines = [f"{number}  {_with_name(block)}" for number, block in enumerate(named, start=1)]
    axes.annotate(
        "\n".join(lines),
        (1.03, 1),
        xycoords="axes fraction",
        va="top",
        fontsize=8.5,
        linespacing=1.5,
    )
    in_forms = any(block.form != AS_IS for block in blocks)
    time = "least of the fastest form" if in_forms else "the least measured"
    _log(axes, "parameters", f"milliseconds of a forward pass, {time}")
    axes.set_title(f"Parameters and latency: {condition.what} on {device}")
    axes.legend(loc="best")
    return drawn


def _with_name(block: MeasuredBlock) -> str:
    """Return a block, its form where it has another one, and below it the baseline that it is.

    >>> print(_with_name(MeasuredBlock("CONV", 2304, 1.5, "CONV(3)", form="fused")))
    CONV, fused
        CONV(3)
    """
    name = block.name if block.form == AS_IS else f"{block.name}, {block.form}"
    named = block.baseline not in (None, block.name)
    return f"{name}\n    {block.baseline}" if named else name


def predicted(bench: Measured, forward: Mapping[Condition, Rows]) -> Figure | None:
    """Return predicted against measured times; None where nothing has both."""
    pairs = [
        (time, guess)
        for rows in forward.values()
        for name in rows
        if (time := least_of(rows, name)) and (guess := median_of(rows, name, PREDICTED))
    ]
    if not pairs:
        return None
    drawn = figure(5.6, 5.0)
    axes = drawn.add_subplot()
    ends = min(map(min, pairs)) / 1.3, max(map(max, pairs)) * 1.3
    axes.fill_between(
        ends,
        [0.8 * end for end in ends],
        [1.2 * end for end in ends],
        color="0.92",
        label="within 20%",
    )
    axes.plot(ends, ends, "--", color=MIDDLE, linewidth=1, label="as measured")
    axes.plot(
        *zip(*pairs, strict=True),
        "o",
        color=DARK,
        markerfacecolor="white",
        markersize=5,
        label="a block",
    )
    _log(axes, "least measured, milliseconds", "predicted, milliseconds")
    axes.set_title(f"The latency model on {bench.device}")
    axes.legend(loc="upper left")
    return drawn


def kernel_figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield for each device how far the candidates are from the bound."""
    for bench in results.kernels:
        cases = by_condition(bench.rows)
        if any(_bounded(rows) for rows in cases.values()):
            yield f"speed-bound-{bench.device}", speed_bound(bench, cases)


def speed_bound(bench: Measured, cases: Mapping[Condition, Rows], metric: str = TIME) -> Figure:
    """Return what share of the bound each candidate reaches: one panel per mode, one mark per case.

    `metric`: which of the times is used, where it was kept. Filled marks are ours.
    """
    modes = list(dict.fromkeys(condition.mode for condition in cases))
    names = _candidates(cases)
    drawn = figure(4.4 * len(modes) + 2.4, 1.6 + 0.3 * len(names))
    by = f", by the {metric}" if metric == LEAST else ""
    drawn.suptitle(
        f"How near to the bound on {bench.device}{by}: every case, and the median", fontsize=12
    )
    panels = drawn.subplots(1, len(modes), squeeze=False, sharey=True, sharex=True).ravel()
    for axes, mode in zip(panels, modes, strict=True):
        some = [
            _bounded(rows, metric) for condition, rows in cases.items() if condition.mode == mode
        ]
        axes.axvline(100, color=MIDDLE, linewidth=1.2, linestyle="--")
        for place, (name, ours) in enumerate(names.items()):
            shares = [100 * case[name] for case in some if name in case]
            if shares:
                axes.plot(
                    shares,
                    [place] * len(shares),
                    "o",
                    markersize=6,
                    color=DARK,
                    markerfacecolor=DARK if ours else "white",
                    alpha=0.6,
                )
                axes.plot(
                    median(shares), place, "|", markersize=17, markeredgewidth=2.4, color=DARK
                )
        axes.set_title(mode.replace("+", " + "))
        axes.set_xlabel("share of the bound's speed, %")
        axes.set_yticks(range(len(names)), [_label(name, cases) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        log_scale(axes.xaxis)
        grid(axes)
    return drawn


def _label(name: str, cases: Mapping[Condition, Rows]) -> str:
    """Return a candidate with the name that it is compared by."""
    titles = (baseline_name(rows, name) for rows in cases.values())
    title = next(filter(None, titles), name)
    return name if title == name else f"{title}: {name}"


def _bounded(rows: Rows, metric: str = TIME) -> dict[str, float]:
    """Return the bound over the time of each candidate that has both."""
    shares = {}
    for name, metrics in rows.items():
        row = metrics.get(metric, metrics.get(TIME))
        if row is not None and row["bound"] and row["median"]:
            shares[name] = row["bound"] / row["median"]
    return shares


def _candidates(cases: Mapping[Condition, Rows]) -> dict[str, bool]:
    """Return the candidates that were timed, ours first, and whether each is ours."""
    ours = {
        name: metrics[TIME]["provider"].startswith(OURS)
        for rows in cases.values()
        for name, metrics in rows.items()
        if TIME in metrics
    }
    return dict(sorted(ours.items(), key=lambda item: not item[1]))


def _log(axes: Axes, x: str, y: str) -> None:
    log_scale(axes.xaxis)
    log_scale(axes.yaxis)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    grid(axes)


# So many of the best blocks are drawn, beside the published ones.
MOST_DRAWN: Final = 5
# A name and the figure that is written under it.
Named = tuple[str, Figure]


def figures(results: Results, part: str) -> Iterator[Named]:
    """Yield the figures of a part with their names; none where its file is not there."""
    with style():
        yield from _PARTS.get(part, _none)(results)


def write(results: Results, parts: Iterable[str], folder: Path) -> Iterator[Path]:
    """Write the figures of the parts into a folder, as SVG and PNG; yield their paths.

    Raises: OutputError when they cannot be written there.
    """
    for part in parts:
        for name, drawn in figures(results, part):
            yield from save(drawn, folder, name)


def _none(results: Results) -> Iterator[Named]:
    yield from ()


def _funnel(results: Results) -> Iterator[Named]:
    for catalogue, place, setting in settings(results):
        yield f"funnel-{_slug(setting)}", funnel(catalogue.funnels[place], setting)


def funnel(counts: Funnel, setting: EnumerationSetting) -> Figure:
    """Return how many compositions each step leaves, by length."""
    drawn = figure(9.0, 4.2)
    axes = drawn.add_subplot()
    lengths = range(1, setting.max_len + 1)
    steps = (
        ("all compositions", counts.compositions_by_length, "white", ""),
        ("not a shorter one repeated", counts.after_patterns_by_length, LIGHT, "///"),
        ("survivors: full field, no layer to spare", counts.by_length, DARK, ""),
    )
    for place, (label, numbers, colour, hatch) in enumerate(steps):
        xs = [length + 0.28 * (place - 1) for length in lengths]
        heights = [count or math.nan for count in numbers]
        axes.bar(
            xs, heights, 0.28, color=colour, edgecolor=DARK, hatch=hatch, label=label, linewidth=0.7
        )
        for x, count in zip(xs, numbers, strict=True):
            axes.annotate(
                f"{count:,}",
                (x, max(count, 0.7)),
                (0, 3),
                fontsize=7.5,
                textcoords="offset points",
                ha="left" if count > 999 else "center",
                rotation=40 if count > 999 else 0,
            )
    axes.set_yscale("log")
    axes.set_ylim(0.7, 5 * max(counts.compositions_by_length))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xticks(list(lengths))
    axes.set_xlabel("layers of the composition")
    axes.set_ylabel("compositions")
    axes.set_title(f"What the rules leave at {setting_name(setting)}")
    axes.legend(loc="upper left")
    grid(axes, "y")
    return drawn


def _designs(results: Results) -> Iterator[Named]:
    drawn: dict[str, Figure] = {}
    for catalogue, _, setting in settings(results):
        designs = catalogue.designs_of(setting)
        if designs:
            yield f"params-layers-{_slug(setting)}", params_layers(designs, setting, catalogue.rows)
        for design in to_draw(designs):
            name = f"block-{_file_safe(str(design.block))}-{design.channels}"
            if name not in drawn and design.dims == 2:
                drawn[name] = draw(
                    design.block, design.channels, design.out_channels, design.bottleneck
                )
    yield from drawn.items()


def to_draw(designs: Sequence[Design]) -> tuple[Design, ...]:
    """Return the designs to draw: the published, the trade-offs, and the next best networks."""
    candidates = [design for design in designs if design.published_as]
    networks = [design for design, _ in one_a_network(designs)]
    candidates += [design for design, _ in trade_offs(networks)]
    candidates += ranked(networks)[:MOST_DRAWN]
    return tuple(dict.fromkeys(candidates))[
        : len([d for d in candidates if d.published_as]) + MOST_DRAWN
    ]


def params_layers(
    designs: Sequence[Design], setting: EnumerationSetting, rows: int | None = None
) -> Figure:
    """Return parameters against layers, with the published designs marked.

    `rows`: how many rows the catalogue has, where the designs are only some of them.
    """
    drawn = figure(7.2, 5.2)
    axes = drawn.add_subplot()
    places = Counter((design.layers, design.params) for design in designs)
    axes.scatter(
        [layers for layers, _ in places],
        [params for _, params in places],
        [14 + 4 * count for count in places.values()],
        facecolor="white",
        edgecolor=LIGHT,
        linewidth=1.0,
    )
    axes.scatter(
        [],
        [],
        40,
        facecolor="white",
        edgecolor=LIGHT,
        label="blocks; larger: more of the same cost",
    )
    best = {layers: min(p for n, p in places if n == layers) for layers, _ in sorted(places)}
    axes.plot(
        list(best),
        list(best.values()),
        "o-",
        color=DARK,
        markersize=5,
        label="fewest parameters of so many layers",
    )
    _published(axes, [design for design in designs if design.published_as])
    axes.set_xticks(list(best))
    axes.margins(x=0.1)
    axes.set_xlabel("layers, shuffles included")
    axes.set_ylabel("parameters")
    axes.set_title(
        f"{len(designs):,}{'' if rows is None else f' of {rows:,}'} blocks with the field of "
        f"CONV({setting.kernel}), {setting_name(setting)}"
    )
    axes.legend(loc="upper right")
    log_scale(axes.yaxis)
    grid(axes)
    return drawn


def _published(axes: Axes, designs: Sequence[Design]) -> None:
    if not designs:
        return
    axes.plot(
        [design.layers for design in designs],
        [design.params for design in designs],
        "s",
        color=DARK,
        markersize=9,
        markerfacecolor="none",
        markeredgewidth=1.6,
        label="published",
    )
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1}
    for design in designs:
        name = (design.published_as or "").partition(";")[0].partition(" (")[0]
        axes.annotate(
            f"{name}: {design.composition}",
            (design.layers, design.params),
            (9, 5),
            textcoords="offset points",
            fontsize=8.5,
            bbox=behind,
        )


def _slug(setting: EnumerationSetting) -> str:
    return _file_safe(setting_name(setting).replace("channels", "").replace(" ,", ","))


def _file_safe(text: str) -> str:
    """Return a name of letters, digits and hyphens.

    >>> _file_safe("DW+RPW(8,1/2)"), _file_safe("64 to 128 , stride 2")
    ('dw-rpw-8-1-2', '64-to-128-stride-2')
    """
    text = "".join(character if character.isalnum() else "-" for character in text.lower())
    return "-".join(filter(None, text.split("-")))


_PARTS: Final[dict[str, Callable[[Results], Iterable[Named]]]] = {
    "funnel": _funnel,
    "designs": _designs,
    "layouts": layout_figures,
    "energy": energy_figures,
    "blocks": block_figures,
    "kernels": kernel_figures,
}
