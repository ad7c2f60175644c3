"""The rows of what was measured, counted and predicted, one number each."""

from collections.abc import Iterator, Sequence

from ifspace.bench.blocks.book import COMPILED, PEAK, PREDICTED, RED
from ifspace.bench.blocks.cases import Candidate, Conditions
from ifspace.bench.blocks.measure import Timed
from ifspace.bench.rates import Rates, Work
from ifspace.bench.tidy import (
    BOTH_WAYS,
    FORWARD,
    LEAST,
    NOT_RUN,
    ROUNDS,
    TIME,
    Machine,
    Row,
    rounded,
    spread,
)


def filled(
    start: Row, metric: str, unit: str, numbers: Sequence[float], bound: float | None = None
) -> Row:
    """Return a row with a metric: median, p20 and p80 of numbers, or of none."""
    low, middle, high = spread(numbers) if numbers else ("", "", "")
    found = {"median": middle, "p20": low, "p80": high, "bound": "" if bound is None else bound}
    return start | {"metric": metric, "unit": unit} | {k: rounded(v) for k, v in found.items()}


def time_rows(
    timed: Timed, conditions: Conditions, machine: Machine, rates: Rates
) -> Iterator[Row]:
    """Yield the rows of a candidate's times, or the one that says why there are none."""
    start = timed.candidate.row(conditions, timed.mode, machine)
    suffix = COMPILED * timed.compiled
    if timed.reason:
        red = timed.reason.startswith(RED)
        yield filled(start, timed.reason if red else NOT_RUN + timed.reason + suffix, "", ())
    elif timed.seconds:
        bound = 1e3 * bound_s(timed.candidate, conditions, timed.mode, rates)
        times = [1e3 * each for each in timed.seconds]
        yield filled(start, TIME + suffix, "ms", times, bound)
        yield filled(start, LEAST + suffix, "ms", [min(times)], bound)
        yield filled(start, ROUNDS + suffix, "count", [len(times)])


def count_rows(candidate: Candidate, conditions: Conditions, machine: Machine) -> Iterator[Row]:
    """Yield parameters and multiply-accumulates per output pixel."""
    start = candidate.row(conditions, FORWARD, machine)
    yield filled(start, "params", "count", [candidate.sized.params])
    yield filled(start, "macs", "count/pixel", [candidate.sized.macs_per_pixel(candidate.stride)])


def peak_row(
    candidate: Candidate, mode: str, conditions: Conditions, machine: Machine, peak: int
) -> Row:
    """Return the row of the most memory held at once."""
    return filled(candidate.row(conditions, mode, machine), PEAK, "MiB", [peak / 2**20])


def predicted_row(
    candidate: Candidate, mode: str, conditions: Conditions, machine: Machine, milliseconds: float
) -> Row:
    """Return the row of a time that the model says."""
    return filled(candidate.row(conditions, mode, machine), PREDICTED, "ms", [milliseconds])


def bound_s(candidate: Candidate, conditions: Conditions, mode: str, rates: Rates) -> float:
    """Return the seconds of a block whose layers are one, at the rates of large tensors.

    What stays in a cache may be a little quicker.
    Forward: x and the weights read, y written. Backward: the gradient of y, x and the weights
    read, the gradients of x and weights written, twice the operations.
    """
    n, c_in, *sides = candidate.in_shape
    pixels = candidate.batch * candidate.side**2
    x, y = n * c_in * sides[0] * sides[1], candidate.sized.out_channels * pixels
    params, size = candidate.sized.params, conditions.torch_dtype.itemsize
    forward = Work((x + y + params) * size, 2 * candidate.macs)
    found = forward.seconds(rates, conditions.dtype)
    if mode == BOTH_WAYS:
        backward = Work((2 * x + y + 2 * params) * size, 4 * candidate.macs)
        found += backward.seconds(rates, conditions.dtype)
    return found
