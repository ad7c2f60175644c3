"""The figures of what was measured: parameters and latency, prediction, speed against the bound."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ifspace.report.folder import Measured, Results
from ifspace.report.ink import DARK, LIGHT, MIDDLE, figure, grid, log_scale
from ifspace.report.measured import (
    FORWARD,
    LEAST,
    PARAMS,
    PREDICTED,
    TIME,
    Condition,
    Rows,
    baseline_name,
    by_condition,
    least_of,
    median_of,
)

# So many names stand beside a figure.
MOST_NAMED: Final = 14
# How providers begin that are ours: our kernels, and the blocks of a catalogue.
OURS: Final = ("ifspace", "catalogue")


@dataclass(frozen=True, slots=True)
class Timed:
    """A measured block: its parameters, its least milliseconds, its name if to compare with."""

    name: str
    params: float
    time: float
    baseline: str | None = None


def block_figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield for each device and shape parameters against latency; prediction; and the bound."""
    for bench in results.blocks:
        cases = by_condition(bench.rows)
        forward = {each: rows for each, rows in cases.items() if each.mode == FORWARD}
        for number, (condition, rows) in enumerate(forward.items()):
            last = f"-{number + 1}" if number else ""
            blocks = measured_blocks(rows)
            if blocks:
                name = f"params-latency-{bench.device}{last}"
                yield name, params_latency(blocks, bench.device, condition)
        drawn = predicted(bench, forward)
        if drawn is not None:
            yield f"predicted-latency-{bench.device}", drawn
        timed = {each: rows for each, rows in cases.items() if _bounded(rows, LEAST)}
        if timed:
            yield f"speed-bound-blocks-{bench.device}", speed_bound(bench, timed, LEAST)


def measured_blocks(rows: Rows) -> list[Timed]:
    """Return the blocks that have parameters and a time."""
    found = []
    for name in rows:
        params, time = median_of(rows, name, PARAMS), least_of(rows, name)
        if params and time:
            found.append(Timed(name, params, time, baseline_name(rows, name)))
    return found


def front(blocks: Sequence[Timed]) -> list[Timed]:
    """Return the blocks that no other beats in parameters and time, fewest parameters first.

    >>> [each.name for each in front([Timed("a", 2, 1), Timed("b", 1, 3), Timed("c", 3, 1)])]
    ['b', 'a']
    """
    best: list[Timed] = []
    for each in sorted(blocks, key=lambda each: (each.params, each.time)):
        if not best or each.time < best[-1].time:
            best.append(each)
    return best


def params_latency(blocks: Sequence[Timed], device: str, condition: Condition) -> Figure:
    """Return parameters against forward time with the Pareto set, numbered, its names beside it."""
    drawn = figure(9.6, 5.0)
    axes = drawn.add_subplot()
    best = front(blocks)
    plain = [each for each in blocks if each.baseline is None and each not in best]
    compared = [each for each in blocks if each.baseline is not None]
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
    named = [*best[:MOST_NAMED], *(each for each in compared if each not in best)]
    for number, each in enumerate(named, start=1):
        axes.annotate(
            str(number), (each.params, each.time), (5, 5), fontsize=8.5, textcoords="offset points"
        )
    lines = [f"{number}  {_with_name(each)}" for number, each in enumerate(named, start=1)]
    axes.annotate(
        "\n".join(lines),
        (1.03, 1),
        xycoords="axes fraction",
        va="top",
        fontsize=8.5,
        linespacing=1.5,
    )
    _log(axes, "parameters", "milliseconds of a forward pass, the least measured")
    axes.set_title(f"Parameters and latency: {condition.what} on {device}")
    axes.legend(loc="best")
    return drawn


def _with_name(block: Timed) -> str:
    """Return a block and, below it, what it is there for.

    >>> print(_with_name(Timed("CONV", 2304, 1.5, "CONV(3)")))
    CONV
        CONV(3)
    """
    named = block.baseline not in (None, block.name)
    return f"{block.name}\n    {block.baseline}" if named else block.name


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
    """Return what share of the bound each candidate reaches: a panel a mode, a mark a case.

    `metric`: which of the times is meant, where it was kept. What is ours is filled.
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
            shares = [100 * each[name] for each in some if name in each]
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
    found = {}
    for name, metrics in rows.items():
        row = metrics.get(metric, metrics.get(TIME))
        if row is not None and row["bound"] and row["median"]:
            found[name] = row["bound"] / row["median"]
    return found


def _candidates(cases: Mapping[Condition, Rows]) -> dict[str, bool]:
    """Return the candidates that were timed, ours first, and whether each is ours."""
    found = {
        name: metrics[TIME]["provider"].startswith(OURS)
        for rows in cases.values()
        for name, metrics in rows.items()
        if TIME in metrics
    }
    return dict(sorted(found.items(), key=lambda each: not each[1]))


def _log(axes: Axes, x: str, y: str) -> None:
    log_scale(axes.xaxis)
    log_scale(axes.yaxis)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    grid(axes)
