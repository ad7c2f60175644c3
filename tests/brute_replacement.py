"""Replacements by brute force: every option of every site, one after the other.

Nothing of the library is imported: everything takes what has the attributes of a problem.
"""

from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from operator import add, gt
from typing import Any, NamedTuple

ORDERS = {
    "keep": ("replaced", "macs", "params"),
    "params": ("params", "macs", "replaced"),
    "macs": ("macs", "params", "replaced"),
    "latency_ms": ("latency_ms", "params", "macs", "replaced"),
}


class Row(NamedTuple):
    """What all sites have together; a latency of 0 where none counts."""

    replaced: int
    params: int
    macs: int
    latency_ms: Fraction

    def plus(self, other: "Row") -> "Row":
        return Row(*(a + b for a, b in zip(self, other, strict=True)))


def timed(problem: Any) -> bool:
    return problem.objective == "latency_ms" or problem.budgets.latency_ms is not None


def rows(problem: Any, site: Any) -> list[Row]:
    """What each option has that may be chosen."""
    counts = timed(problem)
    return [
        Row(
            0 if each.block is None else 1,
            each.params,
            each.macs,
            Fraction(each.latency_ms) if counts else Fraction(0),
        )
        for each in site.options
        if not (counts and each.latency_ms is None)
    ]


def choices(problem: Any) -> Iterator[Row]:
    """Every choice, whatever its budget."""
    for chosen in product(*(rows(problem, site) for site in problem.sites)):
        total = Row(0, 0, 0, Fraction(0))
        for each in chosen:
            total = total.plus(each)
        yield total


def fits(problem: Any, row: Row) -> bool:
    bounds = problem.budgets
    return all(
        getattr(bounds, name) is None or getattr(row, name) <= getattr(bounds, name)
        for name in ("params", "macs", "latency_ms")
    )


def objective(problem: Any, row: Row) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in ORDERS[problem.objective])


def best(problem: Any, found: list[Row]) -> tuple[Any, ...] | None:
    """The least amounts that decide, None where nothing keeps the budgets."""
    return min((objective(problem, row) for row in found if fits(problem, row)), default=None)


def best_by_sums(problem: Any) -> tuple[Any, ...] | None:
    """The same for many sites whose amounts are small numbers: sums that differ, site by site.

    Of sums that are equal in what is bounded only the best one can lead to the best.
    """
    budgets = problem.budgets
    bounded = [n for n in ("params", "macs", "latency_ms") if getattr(budgets, n) is not None]
    most = [getattr(budgets, name) for name in bounded]
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
                if any(map(gt, key, most)):
                    continue
                result = tuple(map(add, value, adds))
                if key not in grown or result < grown[key]:
                    grown[key] = result
        sums = grown
    return min(sums.values(), default=None)
