"""How well the objectives of a stage layout choose among trained networks.

`python -m experiments.layout_choosers TABLE.csv` takes the table of NAS-Bench-Macro (columns
`arch`, `params`, `flops`, `acc_mean`) and writes `layout-choosers.md` and `.csv` into `results/`.
Under each of 25 pairs of budgets, five of parameters by five of MACs, each objective picks the
network where it is the greatest; the percentile of the pick is the share of the networks within the
budgets that are no more accurate. A random pick has 50 on average. Which five is a choice that
moves the means, so the page has their range over `GRIDS` too, and over both readings of a gain.

A network of NAS-Bench-Macro has a stem to 32 channels at 32x32 pixels and stages of 2, 3 and 3
layers to 64, 128 and 256 channels, each opening with stride 2. A layer is an identity (where a
stage opens, a 1x1 convolution), or an inverted residual block with a 3x3 kernel and expansion 3, or
with a 5x5 kernel and expansion 6. Gains are by convolution (`scores`), or by layer.

Reference: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, for the data;
[IF] eq. 4 for the gain.
"""

import argparse
from collections.abc import Sequence
from itertools import accumulate, pairwise, permutations, product
from math import exp, fsum, log
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.block import Block, SizedBlock
from ifspace.errors import SettingError
from ifspace.infofield import gain, spatial_field, volume
from ifspace.stages.layout import Stage
from ifspace.stages.objectives import OBJECTIVES, tie_breakers
from ifspace.storage import read_csv
from ifspace.table import Table
from ifspace.values import listed

COLUMNS: Final = ("arch", "params", "flops", "acc_mean")
QUANTILES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
# Five quantiles at equal distances from each of the first to each of the second.
GRIDS: Final = tuple(
    tuple(float(q) for q in np.linspace(least, most, len(QUANTILES)).round(4))
    for least, most in product((0.05, 0.1, 0.2, 0.3), (0.7, 0.9, 1.0))
)
DEPTHS: Final = (2, 3, 3)
STEM: Final = 32
SIDE: Final = 32
ALPHA: Final = 3.0
# Kernel and expansion by the digit of a layer.
INVERTED: Final = {"1": (3, 3), "2": (5, 6)}
MOST: Final = "most MACs"
# Equal but for the rounding of sums.
DIGITS: Final = 9
# As noted when the objectives were chosen; neither its budgets nor its step of a gain are recorded.
NOTED: Final = {"gain": 85, "log-gain": 97, "macs-3/4": 97, MOST: 89}
# From one of these to the next a field grows.
CONVOLUTION: Final = "convolution"
LAYER: Final = "layer"
STEPS: Final = (CONVOLUTION, LAYER)
Column = npt.NDArray[np.float64]


def stages_of(arch: str) -> list[list[Stage]]:
    """Return the layers of each stage, each a stage of one block; an identity is none.

    >>> [[str(layer.first.block) for layer in stage] for stage in stages_of("01200000")][0]
    ['CONV(1)', 'PW+DW+PW']
    """
    stages, digits, width, side = [], iter(arch), STEM, SIDE
    for number, depth in enumerate(DEPTHS):
        layers, out = [], STEM << (number + 1)
        for stride in (2, *[1] * (depth - 1)):
            digit = next(digits)
            if digit in INVERTED or stride == 2:
                sized = _sized(digit, width, out)
                layers.append(Stage(side, sized, sized, 1, stride))
            width, side = out, side // stride
        stages.append(layers)
    return stages


def _sized(digit: str, c_in: int, c_out: int) -> SizedBlock:
    if digit not in INVERTED:
        return Block.parse("CONV(1)").at(c_in, c_out)
    kernel, expansion = INVERTED[digit]
    return Block.parse(f"PW+DW({kernel})+PW").at(c_in, c_out, widths=(c_in * expansion,))


def scores(arch: str, step: str = CONVOLUTION) -> dict[str, float]:
    """Return the objectives of a network, and its MACs in the stages.

    `step`: of `STEPS`, from what to what the gains are.
    """
    by_field = [_gains(stage, step) for stage in stages_of(arch)]
    totals = {
        name: fsum(pair[n] for pair in by_field) for n, name in enumerate(OBJECTIVES) if n < 2
    }
    layers = [layer for stage in stages_of(arch) for layer in stage]
    for name in list(OBJECTIVES)[2:]:
        totals[name] = fsum(OBJECTIVES[name](layer, ALPHA, "input")[0] for layer in layers)
    macs = (x.first.macs_per_pixel(x.stride) * x.side_out**x.first.dims for x in layers)
    return totals | {MOST: float(sum(macs))}


def _gains(stage: Sequence[Stage], step: str) -> tuple[float, float]:
    """Return the sums of the gains and of the log-gains of a stage, step by step."""
    entry, channels = stage[0].side, stage[0].first.channels
    kernels = [layer.kernel for block in stage for layer in block.first.layers]
    ends = accumulate(
        [1] * len(kernels) if step == CONVOLUTION else [len(layer.first.layers) for layer in stage]
    )
    # Each of its layers, or the first behind it, reads all channels.
    volumes = [volume(spatial_field(kernels[:end], entry), channels) for end in ends]
    v0 = volume(entry, channels)
    pairs = list(pairwise(volumes))
    return (
        fsum(gain(a, b, v0, ALPHA) for a, b in pairs),
        fsum(log(b / a) * exp(-ALPHA * a / v0) for a, b in pairs),
    )


def percentiles(
    table: dict[str, Column], scored: dict[str, Column], quantiles: Sequence[float] = QUANTILES
) -> list[dict[str, Any]]:
    """Return for each pair of budgets and each chooser the percentile of its pick.

    `quantiles`: of the parameters and of the MACs, where the budgets are.
    """
    rows = []
    for a, b in product(quantiles, repeat=2):
        params, macs = np.quantile(table["params"], a), np.quantile(table["flops"], b)
        within = np.flatnonzero((table["params"] <= params) & (table["flops"] <= macs))
        accuracies = table["acc_mean"][within]
        for name in scored:
            order = (name, *tie_breakers(name)) if name in OBJECTIVES else (name,)
            keys = [-np.round(scored[key][within], DIGITS) for key in order]
            pick = np.lexsort([table["params"][within], *reversed(keys)])[0]
            share = float(np.mean(accuracies <= accuracies[pick]))
            rows.append(
                {
                    "chooser": name,
                    "params": int(params),
                    "macs": int(macs),
                    "networks": len(within),
                    "percentile": round(100 * share, 2),
                }
            )
    return rows


def read(path: Path) -> tuple[list[str], dict[str, Column]]:
    """Return the names of the networks, and parameters, MACs and accuracies.

    Raises: SettingError for a table that cannot be read, or lacks a column.
    """
    try:
        table = read_csv(path)
        rows = [row for _, row in table.rows]
        numbers = {name: np.array([float(row[name]) for row in rows]) for name in COLUMNS[1:]}
        return [row["arch"] for row in rows], numbers
    except (OSError, KeyError, ValueError) as error:
        raise SettingError.because(
            "a table that is not of NAS-Bench-Macro",
            got=f"{path}: {error}",
            allowed=f"CSV with the columns {', '.join(COLUMNS)}",
            remedy="give its path",
        ) from None


def means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the mean percentile of each chooser."""
    names = dict.fromkeys(row["chooser"] for row in rows)
    return {n: fmean(r["percentile"] for r in rows if r["chooser"] == n) for n in names}


def summary(rows: Sequence[dict[str, Any]], swept: Sequence[dict[str, float]]) -> Table:
    """Return the mean percentile of each chooser, the best first, and its range over a sweep.

    `swept`: the mean percentiles of every grid.
    """
    mean = means(rows)
    least = {n: min(r["percentile"] for r in rows if r["chooser"] == n) for n in mean}
    return Table(
        ("chooser", ">mean percentile", ">least", ">over grids", ">noted"),
        tuple(
            (
                name,
                f"{mean[name]:.1f}",
                f"{least[name]:.1f}",
                _range(name, swept),
                NOTED.get(name),
            )
            for name in sorted(mean, key=lambda name: -mean[name])
        ),
    )


def never_below(swept: Sequence[dict[str, float]]) -> list[tuple[str, str]]:
    """Return the pairs of choosers of which the first has no lower mean in any entry of a sweep.

    >>> never_below([{"a": 90.0, "b": 80.0, "c": 85.0}, {"a": 90.0, "b": 80.0, "c": 75.0}])
    [('a', 'b'), ('a', 'c')]
    """
    return [(a, b) for a, b in permutations(swept[0], 2) if all(s[a] >= s[b] for s in swept)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Score all networks, let each objective choose, and write the page and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    names, table = read(options.table)
    by_step = {}
    for step in STEPS:
        by_network = [scores(name, step) for name in names]
        by_step[step] = {key: np.array([row[key] for row in by_network]) for key in by_network[0]}
    rows = percentiles(table, by_step[CONVOLUTION])
    swept = [means(percentiles(table, by_step[step], grid)) for step, grid in product(STEPS, GRIDS)]
    command = "python -m experiments.layout_choosers TABLE.csv"
    write_results(
        options.out, "layout-choosers", _page(command, len(names), rows, swept), rows, command
    )


def _page(
    command: str, count: int, rows: Sequence[dict[str, Any]], swept: Sequence[dict[str, float]]
) -> list[str]:
    everywhere, by_convolution = never_below(swept), never_below(swept[: len(GRIDS)])
    pairs, more = (
        "; ".join(f"{a} never below {b}" for a, b in orders)
        for orders in (everywhere, [pair for pair in by_convolution if pair not in everywhere])
    )
    steps = Table(
        ("chooser", *(f">a step a {step}" for step in STEPS)),
        tuple(
            (
                name,
                *(_range(name, swept[n * len(GRIDS) :][: len(GRIDS)]) for n in range(len(STEPS))),
            )
            for name in swept[0]
        ),
    )
    return [
        "# How well the objectives of a layout choose",
        f"Written by {provenance(command)}.",
        f"NAS-Bench-Macro, {count:,} networks trained on CIFAR-10. Budgets at the quantiles "
        f"{', '.join(map(str, QUANTILES))} of the parameters and of the MACs as published. "
        "Each chooser picks the network within the budgets where it is the greatest, ties broken "
        "as in `ifspace layout`; the percentile is the share of the networks within the budgets "
        "that are no more accurate. A random pick has 50. *over grids*: the mean with other "
        "quantiles, see below. *noted*: what was noted when the "
        "objectives were chosen, from 25 pairs of budgets and a step of the gain (from convolution "
        "to convolution, or from layer to layer) that are not recorded.",
        summary(rows, swept[: len(GRIDS)]).markdown("github").rstrip(),
        "## What depends on choices",
        "Budgets and step of the noted figures are not recorded. Neither the quantiles above nor "
        "the step of the gain, from convolution to convolution, were fixed before this data had "
        "been looked at, so the first table tests no prediction. Its means over 25 pairs of "
        f"budgets are repeated over {len(GRIDS)} grids, five quantiles at equal distances from "
        f"each of {_ends(0)} to each of {_ends(-1)}, with both steps:",
        steps.markdown("github").rstrip(),
        f"Orders that hold on all {len(swept)} of these: {pairs or 'none'}. With a step a "
        f"convolution they hold too, and: {more or 'no other'}. No finer ranking is supported.",
        "Every pair of budgets of the first table: [layout-choosers.csv](layout-choosers.csv). One "
        "data set, whose widths are fixed: no promise of accuracy.",
    ]


def _range(name: str, swept: Sequence[dict[str, float]]) -> str:
    return f"{min(s[name] for s in swept):.1f} to {max(s[name] for s in swept):.1f}"


def _ends(index: int) -> str:
    return listed([f"{q:g}" for q in dict.fromkeys(sorted(grid[index] for grid in GRIDS))])


if __name__ == "__main__":
    main()
