"""The rows of a case: times, ratios to the baseline, shares of the bound, reasons."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ifspace.bench.kernels.candidates import BASELINE, Candidate
from ifspace.bench.kernels.cases import Case
from ifspace.bench.machine import Rates
from ifspace.bench.rows import (
    COLUMNS,
    LEAST,
    NOT_RUN,
    OF_BOUND,
    ROUNDS,
    TIME,
    Machine,
    Row,
    rounded,
    spread,
)

RATIO: Final = "ratio"
LEAST_RATIO: Final = "ratio of least times"


@dataclass(frozen=True, slots=True)
class Timed:
    """What became of a candidate in a case: its seconds, round by round, or why there are none."""

    candidate: Candidate
    note: str = ""
    seconds: tuple[float, ...] = ()
    reason: str = ""


def rows_of(case: Case, every: Sequence[Timed], bound_s: float, machine: Machine) -> Iterator[Row]:
    """Yield the rows of a case.

    The ratio is that of the time to the baseline's in the same round, so what slows a round slows
    both; of a single call, to the baseline's median.
    """
    baseline = next(each for each in every if each.candidate.name == BASELINE[case.kind])
    for each in every:
        start = _start(case, each)

        def row(
            metric: str,
            unit: str,
            numbers: Sequence[float],
            bound: float | None = None,
            start: Row = start,
        ) -> Row:
            low, middle, high = spread(numbers) if numbers else ("", "", "")
            values = (metric, unit, middle, low, high, "" if bound is None else bound)
            found = start | dict(zip(COLUMNS[11:17], map(rounded, values), strict=True))
            return found | {name: getattr(machine, name) for name in COLUMNS[17:]}

        if not each.seconds:
            yield row(NOT_RUN + each.reason, "", ())
            continue
        times = [1e3 * seconds for seconds in each.seconds]
        yield row(TIME, "ms", times, 1e3 * bound_s)
        yield row(LEAST, "ms", [min(times)], 1e3 * bound_s)
        yield row(OF_BOUND, "1", [bound_s / seconds for seconds in each.seconds], 1.0)
        yield row(ROUNDS, "count", [len(times)])
        if baseline.seconds:
            unit = f"x {baseline.candidate.name}"
            yield row(RATIO, unit, _ratios(each, baseline))
            yield row(LEAST_RATIO, unit, [min(each.seconds) / min(baseline.seconds)])


def rate_rows(rates: Rates, machine: Machine) -> Iterator[Row]:
    """Yield the rows of the rates that the bounds are made of."""
    empty = dict.fromkeys(COLUMNS, "") | {name: getattr(machine, name) for name in COLUMNS[17:]}
    empty |= {"candidate": "torch", "provider": "torch", "mode": "forward"}
    measured = [("copy", "", "bandwidth", "GB/s", rates.copy / 1e9)]
    for dtype, rate in rates.matrix.items():
        measured.append(("matrix product", dtype, "rate", "GFLOP/s", rate / 1e9))
    for case, dtype, metric, unit, value in measured:
        numbers = dict.fromkeys(("median", "p20", "p80"), rounded(value))
        yield empty | {"case": case, "dtype": dtype, "metric": metric, "unit": unit} | numbers


def _start(case: Case, timed: Timed) -> Row:
    provider = timed.candidate.provider + (f": {timed.note}" if timed.note else "")
    values = (
        case.name,
        timed.candidate.name,
        provider,
        case.mode,
        case.dtype,
        case.layout,
        case.batch,
        case.width,
        case.width,
        case.side,
        case.side,
    )
    return dict(zip(COLUMNS[:11], values, strict=True))


def _ratios(each: Timed, baseline: Timed) -> list[float]:
    if len(each.seconds) > 1:  # a slow candidate takes part in the first rounds only
        return [a / b for a, b in zip(each.seconds, baseline.seconds, strict=False)]
    _, middle, _ = spread(baseline.seconds)
    return [each.seconds[0] / middle]
