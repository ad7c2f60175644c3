"""How well the objectives of a stage layout choose among trained networks.

`python -m experiments.layout_choosers TABLE.csv` takes the table of NAS-Bench-Macro (columns
`arch`, `params`, `flops`, `acc_mean`) and writes `layout-choosers.md` and `.csv` into `results/`.
Under each of 25 pairs of budgets, five of parameters by five of MACs, each objective picks the
network where it is the greatest; the percentile of the pick is the share of the networks within the
budgets that are no more accurate. A random pick has 50 on average.

A network of NAS-Bench-Macro has a stem to 32 channels at 32x32 pixels and stages of 2, 3 and 3
layers to 64, 128 and 256 channels, each opening with stride 2. A layer is an identity (where a
stage opens, a 1x1 convolution), or an inverted residual block with a 3x3 kernel and expansion 3, or
with a 5x5 kernel and expansion 6. Gains are by convolution here, since the layers of one stage are
different blocks.

Reference: Su et al., Prioritized Architecture Sampling with Monto-Carlo Tree Search, for the data;
[IF] eq. 4 for the gain.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise, product
from math import exp, fsum, log
from pathlib import Path
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

COLUMNS: Final = ("arch", "params", "flops", "acc_mean")
QUANTILES: Final = (0.1, 0.3, 0.5, 0.7, 0.9)
DEPTHS: Final = (2, 3, 3)
STEM: Final = 32
SIDE: Final = 32
ALPHA: Final = 3.0
# Kernel and expansion by the digit of a layer.
INVERTED: Final = {"1": (3, 3), "2": (5, 6)}
MOST: Final = "most MACs"
# Equal but for the rounding of sums.
DIGITS: Final = 9
# As agreed when the objectives were chosen; the quantiles of its budgets were not recorded.
AGREED: Final = {"gain": 85, "log-gain": 97, "macs-3/4": 97, MOST: 89}
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


def scores(arch: str) -> dict[str, float]:
    """Return the objectives of a network, and its MACs in the stages."""
    by_field = [_gains(stage) for stage in stages_of(arch)]
    totals = {
        name: fsum(pair[n] for pair in by_field) for n, name in enumerate(OBJECTIVES) if n < 2
    }
    layers = [layer for stage in stages_of(arch) for layer in stage]
    for name in list(OBJECTIVES)[2:]:
        totals[name] = fsum(OBJECTIVES[name](layer, ALPHA, "input")[0] for layer in layers)
    macs = (x.first.macs_per_pixel(x.stride) * x.side_out**x.first.dims for x in layers)
    return totals | {MOST: float(sum(macs))}


def _gains(stage: Sequence[Stage]) -> tuple[float, float]:
    """Return the sums of the gains and of the log-gains of a stage, convolution by convolution."""
    entry, channels = stage[0].side, stage[0].first.channels
    kernels = [layer.kernel for block in stage for layer in block.first.layers]
    # Each of its layers, or the first behind it, reads all channels.
    volumes = [
        volume(spatial_field(kernels[:n], entry), channels) for n in range(1, len(kernels) + 1)
    ]
    v0 = volume(entry, channels)
    pairs = list(pairwise(volumes))
    return (
        fsum(gain(a, b, v0, ALPHA) for a, b in pairs),
        fsum(log(b / a) * exp(-ALPHA * a / v0) for a, b in pairs),
    )


def percentiles(table: dict[str, Column], scored: dict[str, Column]) -> list[dict[str, Any]]:
    """Return for each pair of budgets and each chooser the percentile of its pick."""
    rows = []
    for a, b in product(QUANTILES, repeat=2):
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


def summary(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the mean percentile of each chooser, the best first."""
    names = dict.fromkeys(row["chooser"] for row in rows)
    means = {n: np.mean([r["percentile"] for r in rows if r["chooser"] == n]) for n in names}
    least = {n: min(r["percentile"] for r in rows if r["chooser"] == n) for n in names}
    return Table(
        ("chooser", ">mean percentile", ">least", ">agreed"),
        tuple(
            (name, f"{means[name]:.1f}", f"{least[name]:.1f}", AGREED.get(name))
            for name in sorted(names, key=lambda name: -means[name])
        ),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Score all networks, let each objective choose, and write the page and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    names, table = read(options.table)
    by_network = [scores(name) for name in names]
    scored = {key: np.array([row[key] for row in by_network]) for key in by_network[0]}
    rows = percentiles(table, scored)
    command = "python -m experiments.layout_choosers TABLE.csv"
    page = [
        "# How well the objectives of a layout choose",
        f"Written by {provenance(command)}.",
        f"NAS-Bench-Macro, {len(names):,} networks trained on CIFAR-10. Budgets at the quantiles "
        f"{', '.join(map(str, QUANTILES))} of the parameters and of the MACs as published. "
        "Each chooser picks the network within the budgets where it is the greatest, ties broken "
        "as in `ifspace layout`; the percentile is the share of the networks within the budgets "
        "that are no more accurate. A random pick has 50. *agreed*: what was found when the "
        "objectives were chosen, with 25 pairs of budgets that were not recorded.",
        summary(rows).markdown("github").rstrip(),
        "Every pair: [layout-choosers.csv](layout-choosers.csv). One data set, whose widths are "
        "fixed: no promise of accuracy.",
    ]
    write_results(options.out, "layout-choosers", page, rows, command)


if __name__ == "__main__":
    main()
