"""Which budgets the layouts of a problem meet, whatever their energy: sets of sums as bits.

Bit b of a whole number says that b weights are met. To put a unit of width n on top of one of
width p adds p n + (L - 1) n² to every sum: a shift. Only sums up to a limit are kept.
"""

from typing import Final

from ifspace.energy.bounds import keep_time
from ifspace.energy.problem import EnergyProblem

# How far beyond the budget the search for a budget that is met goes at first.
_FIRST_REACH: Final = 64


def nearest_budgets(
    problem: EnergyProblem, deadline: float | None = None
) -> tuple[int | None, int | None]:
    """Return the greatest budget below that a layout meets, and the least one above.

    The first is None where the narrowest layout has more weights.

    >>> nearest_budgets(EnergyProblem(1000, layers=1))
    (999, 1002)

    Raises: GaveUpError at the deadline, of time.monotonic.
    """
    reach = _FIRST_REACH
    while True:
        met = budgets_met(problem, problem.budget + reach, deadline)
        above = met >> (problem.budget + 1)
        if above:
            least_above = problem.budget + (above & -above).bit_length()
            below = met & ((1 << problem.budget) - 1)
            return (below.bit_length() - 1 if below else None), least_above
        reach *= 4


def budgets_met(problem: EnergyProblem, limit: int, deadline: float | None = None) -> int:
    """Return the budgets up to a limit that a layout meets exactly, as bits.

    >>> [b for b in range(30) if budgets_met(EnergyProblem(1, layers=2), 29) >> b & 1]
    [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29]

    Raises: GaveUpError at the deadline, of time.monotonic.
    """
    kept = (1 << (limit + 1)) - 1
    ends = {problem.inputs: 1}  # sums by the width that they end with
    for place, count in enumerate(problem.units):
        step = problem.step if place else None
        is_last = place == len(problem.units) - 1
        after: dict[int, int] = {}
        for below, sums in ends.items():
            keep_time(deadline)
            least = 1 if step is None else below + step
            if is_last and count == 1:
                # All multiples of the width below from the least on, by doubling.
                met = sums << (below * least) & kept
                stride = below
                while stride <= limit:
                    met |= met << stride & kept
                    stride *= 2
                after[0] = after.get(0, 0) | met
                continue
            width = least
            while (added := below * width + (count - 1) * width * width) <= limit:
                met = sums << added & kept
                if not met:
                    break
                after[width] = after.get(width, 0) | met
                width += 1
        ends = after
    total = 0
    for sums in ends.values():
        total |= sums
    return total
