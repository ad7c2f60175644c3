"""How scores and plain counts order trained networks: rank correlations, pairs and picks.

The definitions are fixed: `DEFINITIONS` is printed with every result, and `VERSION` changes when
one of them does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np

from ifspace.errors import ARGUMENT, SettingError
from ifspace.parallel import Progress, as_completed, workers_or_one
from ifspace.scores.statistics import (
    BudgetPicks,
    Column,
    Indices,
    dense_ranks,
    equal_count_bins,
    groups_of,
    kendall,
    resamples,
    share_ordered_right,
    spearman,
)
from ifspace.scores.tables import NetworkSet
from ifspace.values import choice, whole_number

VERSION: Final = 1
BINS: Final = 10
# The fewest networks of a bin or a stratum: a correlation of fewer says nothing.
LEAST: Final = 5
# The fewest networks of a set that its bins compare: one bin would be the whole set again.
LEAST_BINNED: Final = 2 * LEAST
# Resamples of fewer networks hold few different ones: their intervals are no more than a hint.
LEAST_OF_INTERVAL: Final = 20
# Of fewer, under two lie beyond each end of an interval.
LEAST_RESAMPLES: Final = 80
QUANTILES: Final = (0.2, 0.4, 0.6, 0.8, 1.0)
RESAMPLES: Final = 200
MAX_RESAMPLES: Final = 10_000
SEED: Final = 0
INTERVAL: Final = 95

ALL: Final = "all"
IN_BINS: Final = "equal parameters"
IN_STRATA: Final = "equal parameters and depth"
SAME_STRIDES: Final = "same strides"
GROUP_SWEEPS: Final = "group sweeps"
UNDER_BUDGETS: Final = "under budgets"
# Where networks are compared, and what that means.
DEFINITIONS: Final[Mapping[str, str]] = {
    ALL: "all networks of a set",
    IN_BINS: f"the mean over {BINS} bins of equally many networks by parameters, fewer bins where "
    f"they would have under {LEAST}; sets of {LEAST_BINNED} networks or more",
    IN_STRATA: f"strata of one bin of parameters and one depth, {LEAST} networks or more; sets of "
    f"{LEAST_BINNED} or more",
    SAME_STRIDES: f"strata of networks whose feature maps have the same sizes, {LEAST} or more",
    GROUP_SWEEPS: "strata of networks whose layers differ in nothing but their groups",
    UNDER_BUDGETS: "25 pairs of budgets, each fifth of the parameters by each fifth of the MACs: "
    "the mean percentile of the accuracy of the network with the largest value among those within "
    "both; of equal values the mean of their percentiles; a random pick has 50 among many "
    "networks, more among few",
    "spearman": "Spearman's ρ, 0 where nothing varies; over strata the mean by networks",
    "kendall": "Kendall's τ-b, likewise",
    "pairs": "the share of pairs in a stratum that are ordered as their accuracies; a tie of the "
    "score counts half, pairs of equal accuracy do not count",
    "interval": f"{INTERVAL}% bootstrap percentile interval over networks, the bins, strata and "
    "budgets those of the whole set",
}
STATISTICS: Final = ("spearman", "kendall", "pairs", "pick_percentile")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A statistic, and its interval over resamples of the networks."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Column) -> "Estimate":
        """Return the estimate of the first sample with the interval of the others."""
        others = samples[1:][~np.isnan(samples[1:])]
        if not len(others):
            return cls(float(samples[0]), float(samples[0]), float(samples[0]))
        beyond = (100 - INTERVAL) / 2
        low, high = np.percentile(others, (beyond, 100 - beyond))
        return cls(float(samples[0]), float(low), float(high))


@dataclass(frozen=True, slots=True)
class ValidationRow:
    """How one score orders the networks of one set, at one of the places of `DEFINITIONS`.

    `networks`: how many are compared. `statistics`: by the names of `STATISTICS`. With `against`
    they are differences to that score's.
    """

    set: str
    score: str
    where: str
    networks: int
    statistics: Mapping[str, Estimate]
    against: str | None = None


@dataclass(frozen=True, slots=True)
class Validation:
    """The rows of all sets, with what they were computed with."""

    rows: tuple[ValidationRow, ...]
    resamples: int
    seed: int
    alpha: float
    # By the name of a set: the mean percentile of a random pick under its budgets.
    random_picks: Mapping[str, float]
    version: int = VERSION


Samples = dict[str, Column]


def validate(
    sets: Sequence[NetworkSet],
    against: str | None = None,
    *,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    alpha: float = 3,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> Validation:
    """Return how every score and count orders the networks of every set.

    `against`: a score or count whose statistics are subtracted, resample by resample. `alpha` is
    recorded: the decay of the gain that the sets were scored with. `jobs` workers share the scores
    of all sets, if not given those of the caller's `joblib.parallel_config`, or one: the result is
    the same.

    Raises: SettingError for an unknown score, and resamples or jobs out of range.
    """
    count = whole_number(resamples, "resamples", 1, MAX_RESAMPLES)
    if not sets:
        raise SettingError.because(
            f"{ARGUMENT} without networks",
            got="none",
            allowed="one set or more",
            remedy="give a table",
            argument="table",
        )
    if against is not None:
        choice(against, "against", sets[0].measures)
    shards = [
        _Shard(networks, names, count, seed)
        for networks in sets
        for names in _shared_out(tuple(networks.measures), workers_or_one(jobs))
    ]
    compared: dict[int, _Compared] = {}
    for index, part in as_completed(_compare, shards, workers_or_one(jobs)):
        compared[index] = part
        if progress is not None:
            progress(len(compared), len(shards))
    rows: list[ValidationRow] = []
    random_picks = {}
    for networks in sets:
        parts = [compared[n] for n, shard in enumerate(shards) if shard.networks is networks]
        all_samples = {name: columns for part in parts for name, columns in part.samples.items()}
        samples = {name: all_samples[name] for name in networks.measures}
        counts = parts[0].networks
        random_picks[networks.name] = parts[0].random_pick
        base = samples.get(against or "")
        for name, by_place in samples.items():
            if name == against:
                continue
            for where, columns in by_place.items():
                statistics = {
                    key: Estimate.of(column if base is None else column - base[where][key])
                    for key, column in columns.items()
                }
                row = networks.name, name, where, counts[where], statistics, against
                rows.append(ValidationRow(*row))
    return Validation(tuple(rows), count, seed, alpha, random_picks)


@dataclass(frozen=True, slots=True)
class _Shard:
    """Some scores of a set, which are compared with the accuracies in `count` resamples."""

    networks: NetworkSet
    names: tuple[str, ...]
    count: int
    seed: int


@dataclass(frozen=True, slots=True)
class _Compared:
    """What some scores of a set came to: the samples of each by place, and what the set has.

    `networks`: how many are compared at each place. `random_pick`: its mean percentile.
    """

    samples: Mapping[str, dict[str, Samples]]
    networks: Mapping[str, int]
    random_pick: float


def _shared_out(names: Sequence[str], count: int) -> list[tuple[str, ...]]:
    """Return names in so many shares, none of them empty."""
    return [share for n in range(count) if (share := tuple(names[n::count]))]


def _compare(shard: _Shard) -> _Compared:
    comparison = _Comparison(shard.networks, shard.count, shard.seed)
    samples = {name: comparison.samples(name) for name in shard.names}
    return _Compared(samples, comparison.networks, comparison.random_pick())


class _Comparison:
    """The networks of a set, where they are compared, and the resamples of them."""

    def __init__(self, networks: NetworkSet, count: int, seed: int) -> None:
        self._measures = {
            name: np.array(values, dtype=np.float64) for name, values in networks.measures.items()
        }
        self._accuracies = np.array(networks.accuracies)
        self._ranks = dense_ranks(self._accuracies)
        self._weights = resamples(len(self._accuracies), count, seed)
        params, macs = self._measures["params"], self._measures["macs"]
        bins = equal_count_bins(params, BINS, LEAST)
        bin_of = np.empty(len(params), dtype=np.int64)
        for number, members in enumerate(bins):
            bin_of[members] = number
        depths = self._measures["depth"]
        self._strata = {
            IN_STRATA: groups_of(list(zip(bin_of, depths, strict=True)), LEAST)
            if len(bins) > 1
            else [],
            SAME_STRIDES: groups_of(networks.strides, LEAST),
            GROUP_SWEEPS: groups_of(networks.sweeps, 2),
        }
        self._bins = bins
        pairs = product(np.quantile(params, QUANTILES), np.quantile(macs, QUANTILES))
        budgets = (np.flatnonzero((params <= p) & (macs <= m)) for p, m in pairs)
        self._picks = [
            BudgetPicks(within, self._accuracies, self._weights)
            for within in budgets
            if len(within)
        ]
        everything = len(params)
        self.networks = {ALL: everything, IN_BINS: everything, UNDER_BUDGETS: everything} | {
            where: sum(map(len, strata)) for where, strata in self._strata.items()
        }

    def samples(self, name: str) -> dict[str, Samples]:
        """Return the statistics of a score in every resample, place by place."""
        ranks = dense_ranks(self._measures[name])
        everything = np.arange(len(ranks))
        by_place = {ALL: self._over([everything], ranks)}
        if len(self._bins) > 1:
            by_place[IN_BINS] = self._over(self._bins, ranks)
        for where, strata in self._strata.items():
            if strata:
                by_place[where] = self._over(strata, ranks, by_networks=True)
        if self._picks:
            picks = np.array([budget.percentiles(ranks) for budget in self._picks])
            by_place[UNDER_BUDGETS] = {"pick_percentile": _mean_of_known(picks)}
        return by_place

    def random_pick(self) -> float:
        """Return the mean percentile of a pick among all networks within each budget.

        Of n networks with different accuracies it is 100 (n + 1) / (2n): not 50 where n is small.
        """
        alike = np.zeros(len(self._ranks), dtype=np.int64)
        return float(np.mean([budget.percentiles(alike)[0] for budget in self._picks]))

    def _over(self, parts: Sequence[Indices], ranks: Indices, by_networks: bool = False) -> Samples:
        """Return the statistics over some parts: means of them, by their networks or not."""
        sums: dict[str, Any] = dict.fromkeys(STATISTICS[:3], 0.0)
        right = ordered = total = np.zeros(len(self._weights))
        for members in parts:
            x, y, drawn = (
                _again(ranks[members]),
                _again(self._ranks[members]),
                self._weights[:, members],
            )
            share = drawn.sum(axis=1) if by_networks else np.ones(len(drawn))
            sums["spearman"] += share * spearman(x, y, drawn)
            sums["kendall"] += share * kendall(x, y, drawn)
            agreeing, pairs = share_ordered_right(x, y, drawn)
            right, ordered, total = right + agreeing, ordered + pairs, total + share
        with np.errstate(invalid="ignore"):
            return {
                "spearman": sums["spearman"] / total,
                "kendall": sums["kendall"] / total,
                "pairs": right / ordered,
            }


def _again(ranks: Indices) -> Indices:
    """Return dense ranks of a part of dense ranks."""
    return np.asarray(np.unique(ranks, return_inverse=True)[1], dtype=np.int64)


def _mean_of_known(picks: Column) -> Column:
    """Return the mean over budgets, of those within which a network was drawn."""
    drawn = ~np.isnan(picks)
    return np.asarray(np.where(drawn, picks, 0).sum(axis=0) / np.maximum(drawn.sum(axis=0), 1))


def values_of(row: ValidationRow) -> dict[str, Any]:
    """Return a row as JSON and CSV have it.

    `low` and `high` are the interval of the row's first statistic.
    """
    values: dict[str, Any] = {
        "set": row.set,
        "score": row.score,
        "where": row.where,
        "networks": row.networks,
    }
    if row.against is not None:
        values["against"] = row.against
    first = next(iter(row.statistics.values()))
    for name in STATISTICS:
        estimate = row.statistics.get(name)
        values[name] = None if estimate is None else _rounded(estimate.value)
    values |= {"low": _rounded(first.low), "high": _rounded(first.high)}
    for name in STATISTICS[1:3]:
        estimate = row.statistics.get(name)
        for end in ("low", "high"):
            values[f"{name}_{end}"] = None if estimate is None else _rounded(getattr(estimate, end))
    return values


def _rounded(number: float) -> float | None:
    return None if np.isnan(number) else round(number, 4)
