"""Every layout of a problem by enumerating all widths: the witness of the solvers."""

from collections.abc import Iterator
from math import log, prod

from ifspace.energy.problem import EnergyProblem

Widths = tuple[int, ...]


def layouts(problem: EnergyProblem) -> Iterator[Widths]:
    """Yield the layouts that meet the budget; the only bound is the total of the weights."""

    def grow(widths: Widths, left: int) -> Iterator[Widths]:
        unit = len(widths)
        if unit == len(problem.units):
            if left == 0 or problem.at_most:
                yield widths
            return
        below = widths[-1] if widths else problem.inputs
        width = 1 if not widths else below + (0 if problem.nondecreasing else 1)
        inside = problem.units[unit] - 1
        while (cost := below * width + inside * width**2) <= left:
            yield from grow((*widths, width), left - cost)
            width += 1

    return grow((), problem.budget)


def energy(problem: EnergyProblem, widths: Widths) -> float:
    """Return the product of the logarithms, in floats."""
    powers = problem.units if problem.per == "convolution" else (1,) * len(widths)
    return prod(log(width) ** power for width, power in zip(widths, powers, strict=True))


def ranking(problem: EnergyProblem) -> list[tuple[float, Widths]]:
    """Return all layouts, the greatest energy first, those of equal energy by their widths.

    Energies that differ by less than 1e-12 count as equal: on small problems they are.
    """
    by_energy = sorted((-energy(problem, widths), widths) for widths in layouts(problem))
    ranked: list[tuple[float, Widths]] = []
    for negative, widths in by_energy:
        near = ranked and abs(ranked[-1][0] + negative) <= 1e-12 * abs(negative)
        ranked.append((ranked[-1][0] if near else -negative, widths))
    return sorted(ranked, key=lambda pair: (-pair[0], pair[1]))
