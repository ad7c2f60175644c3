"""Replacements by brute force: every option of every site.

Nothing of the library is imported: functions take anything that has the attributes of a problem.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from operator import add, gt
from typing import Any, NamedTuple

ORDERS = {
    "keep": ("replaced", "macs", "params"),
    "weights": ("replaced", "removed", "macs"),
    "params": ("params", "macs", "replaced"),
    "macs": ("macs", "params", "replaced"),
    "latency_ms": ("latency_ms", "params", "macs", "replaced"),
    "peak_memory": ("peak_memory", "params", "macs", "replaced"),
}


class Row(NamedTuple):
    """The totals over all sites; the latency is 0 where it does not count.

    The peak memory, in bytes of fp32, is the most of any site and of the rest of the network.
    """

    replaced: int
    params: int
    macs: int
    latency_ms: Fraction
    peak_memory: int = 0

    @property
    def removed(self) -> int:
        """Least where the most parameters are kept."""
        return -self.params

    def plus(self, other: "Row") -> "Row":
        sums = (a + b for a, b in zip(self[:-1], other[:-1], strict=True))
        return Row(*sums, max(self.peak_memory, other.peak_memory))


def latency_counts(problem: Any) -> bool:
    return problem.objective == "latency_ms" or problem.budgets.latency_ms is not None


def rows(problem: Any, site: Any) -> list[Row]:
    """Return the amounts of each option that may be chosen."""
    with_latency = latency_counts(problem)
    return [
        Row(
            0 if option.block is None else 1,
            option.params,
            option.macs,
            Fraction(option.latency_ms) if with_latency else Fraction(0),
            4 * max(option.peak, problem.rest_peak),
        )
        for option in site.options
        if not (with_latency and option.latency_ms is None)
    ]


def choices(problem: Any) -> Iterator[Row]:
    """Yield the amounts of every choice, ignoring budgets."""
    for chosen in product(*(rows(problem, site) for site in problem.sites)):
        total = Row(0, 0, 0, Fraction(0))
        for row in chosen:
            total = total.plus(row)
        yield total


def fits(problem: Any, row: Row) -> bool:
    bounds = problem.budgets
    return all(
        getattr(bounds, name) is None or getattr(row, name) <= getattr(bounds, name)
        for name in ("params", "macs", "latency_ms", "peak_memory")
    )


def objective(problem: Any, row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in ORDERS[problem.objective])


def best(problem: Any, totals: list[Row]) -> tuple[Any, ...] | None:
    """Return the least amounts that decide, or None where no choice meets the budgets."""
    return min((objective(problem, row) for row in totals if fits(problem, row)), default=None)


def best_by_sums(problem: Any) -> tuple[Any, ...] | None:
    """Return the same for many sites of small amounts, by all sums that differ, site by site.

    Of sums that are equal in what is bounded only the best one can lead to the best.
    """
    budgets = problem.budgets
    bounded = [n for n in ("params", "macs", "latency_ms") if getattr(budgets, n) is not None]
    limits = [getattr(budgets, name) for name in bounded]
    order = ORDERS[problem.objective]
    sums: dict[tuple[Any, ...], tuple[Any, ...]] = {(0,) * len(bounded): (0,) * len(order)}
    for site in problem.sites:
        options = {
            (tuple(getattr(row, n) for n in bounded), tuple(getattr(row, n) for n in order))
            for row in rows(problem, site)
        }
        grown: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for has, value in sums.items():
            for more, adds in options:
                key = tuple(map(add, has, more))
                if any(map(gt, key, limits)):
                    continue
                result = tuple(map(add, value, adds))
                if key not in grown or result < grown[key]:
                    grown[key] = result
        sums = grown
    return min(sums.values(), default=None)
