"""How reliable each score was on published data: the table that `ifspace validate` wrote.

The file beside this module is its output; no number of it is in the code of a score.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from importlib.resources import files
from statistics import median
from typing import Any, Final

from ifspace.scores.layers import LayerList
from ifspace.scores.measures import NetworkScores, score
from ifspace.scores.validation import ALL, GROUP_SWEEPS, IN_BINS, SAME_STRIDES, UNDER_BUDGETS

FILE: Final = "reliability.csv"
# The situations in which networks are compared, and the statistic that is shown of each.
SITUATIONS: Final[Mapping[str, str]] = {
    ALL: "spearman",
    SAME_STRIDES: "spearman",
    IN_BINS: "spearman",
    GROUP_SWEEPS: "spearman",
    UNDER_BUDGETS: "pick_percentile",
}


# From here on the parameters of two networks are not equal.
EQUAL_PARAMS: Final = Fraction(11, 10)


@dataclass(frozen=True, slots=True)
class ScoredNetwork:
    """A network with its scores: its name, and a title that has the size of its image too."""

    name: str
    title: str
    layers: LayerList
    result: NetworkScores

    def of_layers(self, alpha: float) -> "ScoredNetwork":
        """Return it with the counts of its convolutions alone, as those of a list are."""
        return replace(self, result=score(self.layers, alpha))


@dataclass(frozen=True, slots=True)
class Reliability:
    """A statistic of a score in a situation: its least, median and greatest over the sets."""

    low: float
    middle: float
    high: float
    sets: int


@cache
def published_rows() -> tuple[Mapping[str, str], ...]:
    """Return the rows of the committed table."""
    text = files(__package__).joinpath(FILE).read_text(encoding="utf-8")
    return tuple(csv.DictReader(text.splitlines()))


def reliability(score: str, where: str) -> Reliability | None:
    """Return how reliable a score was in a situation; None where no set has it.

    >>> reliability("log-gain", "equal parameters").sets
    6
    """
    statistic = SITUATIONS[where]
    values = [
        float(row[statistic])
        for row in published_rows()
        if row["score"] == score and row["where"] == where and row[statistic]
    ]
    return Reliability(min(values), median(values), max(values), len(values)) if values else None


def situations(first: ScoredNetwork, second: ScoredNetwork) -> tuple[str, ...]:
    """Return the situations in which two networks are compared, of `SITUATIONS`.

    They have the same strides or not; a tenth more parameters or less are equal ones; a group sweep
    is of networks that differ in nothing but groups. A pick under budgets is always one of them.
    """
    same_strides = first.layers.strides == second.layers.strides
    params = sorted(network.result.counts["params"] for network in (first, second))
    is_sweep = first.layers.without_groups == second.layers.without_groups and [
        x.groups for x in first.layers.layers
    ] != [x.groups for x in second.layers.layers]
    holds = {
        ALL: not same_strides,
        SAME_STRIDES: same_strides,
        IN_BINS: params[1] <= params[0] * EQUAL_PARAMS,
        GROUP_SWEEPS: is_sweep,
        UNDER_BUDGETS: True,
    }
    return tuple(where for where in SITUATIONS if holds[where])


def sets() -> dict[str, int]:
    """Return the sets of the committed table, each with its number of networks."""
    return {row["set"]: int(row["networks"]) for row in published_rows() if row["where"] == "all"}


def values_of(score: str) -> list[dict[str, Any]]:
    """Return the rows of a score in the situations shown, for JSON."""
    names = ("set", "where", "networks", "spearman", "kendall", "pairs", "pick_percentile")
    numbers = (*names[3:], "low", "high")
    return [
        {name: row[name] for name in names[:2]}
        | {"networks": int(row["networks"])}
        | {name: float(row[name]) if row[name] else None for name in numbers}
        for row in published_rows()
        if row["score"] == score and row["where"] in SITUATIONS
    ]
