"""How far the picks of `ifspace validate` depend on where its budgets are.

`python -m experiments.layout_choosers TABLE.csv...` takes tables of trained networks as `ifspace
validate` does, and writes `layout-choosers.md` and `.csv` into `results/`. Under each of 25 pairs
of budgets, five of parameters by five of MACs, each measure picks the network where it is the
largest; the percentile of a pick is the share of the networks within the budgets that are no more
accurate. A random pick has 50 on average. The grid of `validate`, each fifth, is one of `GRIDS`.

Reference: docs/scores.md.
"""

import argparse
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np

from benchmarks.measure import write_results
from ifspace.bench.record import provenance
from ifspace.scores.statistics import BudgetPicks, dense_ranks
from ifspace.scores.tables import NetworkSet, network_sets, read_table
from ifspace.scores.validation import QUANTILES
from ifspace.table import Table
from ifspace.values import listed

# Five quantiles at equal distances from each of the first to each of the second.
GRIDS: Final = tuple(
    tuple(float(q) for q in np.linspace(least, most, len(QUANTILES)).round(4))
    for least, most in product((0.05, 0.1, 0.2, 0.3), (0.7, 0.9, 1.0))
)


def percentiles(networks: NetworkSet, quantiles: Sequence[float]) -> dict[str, float]:
    """Return the mean percentile of the pick of each measure, under pairs of budgets.

    `quantiles`: of the parameters and of the MACs, where the budgets are.
    """
    params, macs = (np.array(networks.measures[name]) for name in ("params", "macs"))
    accuracies = np.array(networks.accuracies)
    once = np.ones((1, len(accuracies)), dtype=np.int64)
    budgets = product(np.quantile(params, quantiles), np.quantile(macs, quantiles))
    within = (np.flatnonzero((params <= p) & (macs <= m)) for p, m in budgets)
    picks = [BudgetPicks(members, accuracies, once) for members in within if len(members)]
    ranks = {name: dense_ranks(values) for name, values in networks.measures.items()}
    return {
        name: fmean(float(budget.percentiles(rank)[0]) for budget in picks)
        for name, rank in ranks.items()
    }


def summary(at_fifths: Mapping[str, float], swept: Sequence[Mapping[str, float]]) -> Table:
    """Return the mean percentile of each measure, the best first, and its range over a sweep."""
    return Table(
        ("measure", ">at each fifth", ">over grids", ">below MACs"),
        tuple(
            (
                name,
                f"{at_fifths[name]:.1f}",
                _range([means[name] for means in swept]),
                sum(means[name] < means["macs"] for means in swept),
            )
            for name in sorted(at_fifths, key=lambda name: -at_fifths[name])
        ),
    )


def _range(numbers: Sequence[float]) -> str:
    return f"{min(numbers):.1f} to {max(numbers):.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Let each measure choose under every grid of budgets, and write the page and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    names = " ".join(table.name for table in options.tables)
    command = f"python -m experiments.layout_choosers {names}"
    parts, rows = [], []
    for networks in network_sets([n for table in options.tables for n in read_table(table)]):
        at_fifths = percentiles(networks, QUANTILES)
        swept = [percentiles(networks, grid) for grid in GRIDS]
        parts += _section(networks, at_fifths, swept)
        for grid, means in zip(GRIDS, swept, strict=True):
            rows += [_row(networks.name, grid, name, mean) for name, mean in means.items()]
    write_results(options.out, "layout-choosers", [*_head(command), *parts], rows, command)


def _row(name: str, grid: Sequence[float], measure: str, mean: float) -> dict[str, Any]:
    quantiles = " ".join(f"{quantile:g}" for quantile in grid)
    return {"set": name, "quantiles": quantiles, "measure": measure, "percentile": round(mean, 2)}


def _head(command: str) -> list[str]:
    return [
        "# How far picks depend on budgets",
        f"Written by {provenance(command)}.",
        "Each measure picks the network within a budget of parameters and one of MACs where it is "
        "the largest; the percentile is the share of the networks within both that are no more "
        "accurate, the mean of 25 pairs of budgets, 50 at random. *At each fifth*: as [`ifspace "
        "validate`](../docs/scores.md) has it, quantiles "
        f"{listed([f'{q:g}' for q in QUANTILES])} of the parameters and of the MACs. *Over grids*: "
        f"the range of that mean over {len(GRIDS)} grids, five quantiles at equal distances from "
        f"each of {_ends(0)} to each of {_ends(-1)}. *Below MACs*: on how many of them it is worse "
        "than MACs. An order that changes between grids is not supported, and none is a promise "
        "of accuracy on other data.",
    ]


def _section(
    networks: NetworkSet, at_fifths: Mapping[str, float], swept: Sequence[Mapping[str, float]]
) -> list[str]:
    return [
        f"## {networks.name}, {len(networks.names):,} networks",
        summary(at_fifths, swept).markdown("github").rstrip(),
    ]


def _ends(index: int) -> str:
    return listed([f"{q:g}" for q in dict.fromkeys(sorted(grid[index] for grid in GRIDS))])


if __name__ == "__main__":
    main()
