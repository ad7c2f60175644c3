"""Define layout-energy problems, their plans and answers; a plan checks itself without a solver."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache
from itertools import pairwise
from typing import Any, Final, Literal, get_args

from ifspace.answer import Answer
from ifspace.errors import ARGUMENT, SettingError
from ifspace.values import choice, counted, odd_number, set_fields, whole_number

Per = Literal["unit", "convolution"]
# Energies are compared to 60 digits: floats of two that differ may be equal.
_DIGITS: Final = Context(prec=60)
# A unit of the paper's deepest network has ten convolutions, and it has thirty-one of them.
MAX_CONVOLUTIONS: Final = 256
MAX_BUDGET: Final = 10**7
MAX_INPUTS: Final = 4096
MAX_KERNEL: Final = 99


@dataclass(frozen=True, slots=True)
class EnergyProblem:
    """Which widths n_1 < … < n_N have the greatest energy, the product of their logarithms?

    A unit is a run of convolutions of one width: N `layers` of one convolution each, or `repeats`,
    the number of convolutions of each unit. `budget` is the number of weights divided by kernel²,
    met exactly or, with `at_most`, not exceeded. `inputs` n_0 channels enter; they may be more than
    n_1. With `nondecreasing` neighbours may have equal widths. `per` says what gives a factor to
    the energy: each unit, or each of its convolutions.

    >>> problem = EnergyProblem(66304, layers=4)
    >>> problem.weights((135, 136, 137, 211))
    66304
    >>> EnergyProblem(51248, repeats=(1, 10, 10, 10)).weights((16, 16, 32, 64))
    51248

    Raises: SettingError for a budget, layers or repeats out of range, or that contradict.

    Reference: [Layout] eq. 1, 3 and 4, Table 3.
    """

    budget: int
    layers: int | None = None
    repeats: tuple[int, ...] | None = None
    inputs: int = 3
    kernel: int = 3
    at_most: bool = False
    nondecreasing: bool = False
    per: Per = "unit"

    def __post_init__(self) -> None:
        units = _units(self.layers, self.repeats)
        set_fields(
            self,
            budget=whole_number(self.budget, "budget", 1, MAX_BUDGET),
            inputs=whole_number(self.inputs, "inputs", 1, MAX_INPUTS),
            kernel=odd_number(self.kernel, "kernel", 1, MAX_KERNEL),
            repeats=units,
            layers=len(units),
        )
        choice(self.per, "per", get_args(Per), "unknown factors")

    @property
    def units(self) -> tuple[int, ...]:
        """The number of convolutions of each unit, [N]."""
        return self.repeats or ()

    @property
    def depth(self) -> int:
        """The number of convolutions in all."""
        return sum(self.units)

    @property
    def factors(self) -> tuple[int, ...]:
        """The exponent of the logarithm of each width, [N]."""
        return (1,) * len(self.units) if self.per == "unit" else self.units

    @property
    def step(self) -> int:
        """How much wider than the unit before it a unit is at least."""
        return 0 if self.nondecreasing else 1

    def weights(self, widths: Sequence[int]) -> int:
        """Return the weights of a layout divided by kernel².

        A unit of L convolutions has n_{i-1} n_i + (L - 1) n_i² of them.
        """
        between = sum(below * width for below, width in pairwise((self.inputs, *widths)))
        return between + sum(
            (count - 1) * width * width for count, width in zip(self.units, widths, strict=True)
        )

    def least_weights(self) -> int:
        """Return the weights of the narrowest layout, the least budget."""
        return self.weights([1 + index * self.step for index in range(len(self.units))])


def _units(layers: Any, repeats: Any) -> tuple[int, ...]:
    if repeats is None and layers is None:
        raise SettingError.because(
            f"no {ARGUMENT}",
            got="none",
            allowed="a number of convolutions, or how often each unit repeats",
            remedy=f"give {ARGUMENT}",
            argument="layers",
        )
    if layers is not None:
        layers = whole_number(layers, "layers", 1, MAX_CONVOLUTIONS)
    units = (1,) * layers if repeats is None else tuple(repeats)
    units = tuple(whole_number(count, "repeats", 1, MAX_CONVOLUTIONS) for count in units)
    if layers is not None and layers != len(units):
        raise SettingError.because(
            f"{ARGUMENT} and units contradict each other",
            got=f"{layers} and {','.join(map(str, units))}, which are {len(units)} units",
            allowed=f"as many {ARGUMENT} as units",
            remedy=f"leave {ARGUMENT} out",
            argument="layers",
        )
    if not units or sum(units) > MAX_CONVOLUTIONS:
        raise SettingError.because(
            "number of convolutions out of range",
            got=sum(units),
            allowed=f"1 to {MAX_CONVOLUTIONS} in all units together",
            remedy=f"change the {ARGUMENT}",
            argument="repeats",
        )
    return units


@dataclass(frozen=True, slots=True)
class EnergyPlan:
    """The widths of a layout, in channels; energy and weights are counted from them alone.

    >>> plan = EnergyPlan(EnergyProblem(51248, repeats=(1, 10, 10, 10)), (5, 8, 17, 72))
    >>> round(plan.energy(), 3), plan.weights(), plan.params, plan.width_sum
    (40.551, 51248, 461232, 102)
    """

    problem: EnergyProblem
    widths: tuple[int, ...]

    def exact_energy(self) -> Decimal:
        """Return the energy to 60 digits; layouts of equal energy have the same digits.

        ln 2 · ln 16 and ln 4 · ln 4 are the same number, 4 (ln 2)²: so every width is written as a
        power of its least base.
        """
        powers = [_power(width) for width in self.widths]
        bases: list[int] = []
        exponents = 1
        for (base, exponent), factor in zip(powers, self.problem.factors, strict=True):
            bases += [base] * factor
            exponents *= exponent**factor
        energy = Decimal(exponents)
        for base in sorted(bases):
            energy = _DIGITS.multiply(energy, _ln(base))
        return energy

    def energy(self) -> float:
        """Return Π ln n_i, rounded once."""
        return float(self.exact_energy())

    def order(self) -> tuple[Decimal, tuple[int, ...]]:
        """Return the sort key of plans: greatest energy first, then least widths."""
        return (-self.exact_energy(), self.widths)

    def weights(self) -> int:
        """Return the weights divided by kernel²."""
        return self.problem.weights(self.widths)

    @property
    def params(self) -> int:
        """The weights of all convolutions, without bias."""
        return self.problem.kernel**2 * self.weights()

    @property
    def width_sum(self) -> int:
        """The sum of the widths of all units."""
        return sum(self.widths)

    def check(self) -> None:
        """Check the order of the widths and the budget.

        Raises: SettingError with everything that is wrong.
        """
        problem = self.problem
        faults = []
        if len(self.widths) != len(problem.units):
            faults.append(
                f"{counted(len(self.widths), 'width')} for {counted(len(problem.units), 'unit')}"
            )
        else:
            weights = self.weights()
            if weights > problem.budget or (weights < problem.budget and not problem.at_most):
                faults.append(f"{weights} weights")
        if min(self.widths, default=1) < 1:
            faults.append("a width below 1")
        if any(after < before + problem.step for before, after in pairwise(self.widths)):
            faults.append("widths out of order")
        if faults:
            limit = "at most " if problem.at_most else ""
            raise SettingError.because(
                "invalid layout",
                got=f"{self.widths}: {'; '.join(faults)}",
                allowed=f"{'non-decreasing' if problem.nondecreasing else 'increasing'} widths "
                f"of {len(problem.units)} units with {limit}{problem.budget} weights",
                remedy="solve the problem again",
            )


@cache
def _ln(number: int) -> Decimal:
    return _DIGITS.ln(Decimal(number))


@cache
def _power(number: int) -> tuple[int, int]:
    """Return the least base and the exponent that make the number.

    >>> _power(64), _power(36), _power(12), _power(1)
    ((2, 6), (6, 2), (12, 1), (1, 1))
    """
    for exponent in range(number.bit_length() - 1, 1, -1):
        base = round(number ** (1 / exponent))
        if base**exponent == number:
            return base, exponent
    return number, 1


@dataclass(frozen=True, slots=True)
class EnergyAnswer(Answer[EnergyPlan]):
    """The layouts of greatest energy, and an upper bound on the energy of any.

    `below` and `above`: where no layout meets the budget, the nearest budgets that one meets; None
    where there is none.
    """

    below: int | None = None
    above: int | None = None

    @property
    def gap(self) -> float | None:
        """How much more energy than the first plan another has at most; None where not bounded."""
        if not self.plans or self.bound is None:
            return None
        return float(self.bound) - self.plans[0].energy()


@dataclass(frozen=True, slots=True)
class EnergyRank:
    """The rank of a layout among all layouts of a problem.

    `greater`: how many have a greater energy; with `exact` false there are more than that.
    """

    greater: int
    exact: bool = True

    def __str__(self) -> str:
        """Return the rank, counted from 1."""
        return str(self.greater + 1) if self.exact else f"behind more than {self.greater}"
