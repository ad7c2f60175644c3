"""Layout energy asked for and found: problems, plans, and checks that know no solver."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import cache
from itertools import pairwise
from typing import Any, Final, Literal, get_args

from ifspace.answer import Status
from ifspace.errors import SettingError
from ifspace.values import odd_number, whole_number

Per = Literal["unit", "convolution"]
# Energies are compared to so many digits: a float may call two of them equal that are not.
_DIGITS: Final = Context(prec=60)
# A unit of the paper's deepest network has ten convolutions, and it has thirty-one of them.
MAX_CONVOLUTIONS: Final = 256
MAX_BUDGET: Final = 10**7
MAX_INPUTS: Final = 4096
MAX_KERNEL: Final = 99


@dataclass(frozen=True, slots=True)
class EnergyProblem:
    """Which widths n_1 < … < n_N have the greatest energy, the product of their logarithms.

    `budget`: weights divided by kernel², met exactly or, with `at_most`, not exceeded. `layers` N
    units of one convolution each, or `repeats`: how many convolutions each unit has. `inputs` n_0
    channels enter; the order does not bind them. `nondecreasing`: neighbours may be equal. `per`:
    a factor for each unit, or for each of its convolutions.

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
        """Make the values canonical; refuse what no network could have."""
        put = object.__setattr__
        put(self, "budget", whole_number(self.budget, "budget", 1, MAX_BUDGET))
        put(self, "inputs", whole_number(self.inputs, "inputs", 1, MAX_INPUTS))
        put(self, "kernel", odd_number(self.kernel, "kernel", 1, MAX_KERNEL))
        put(self, "repeats", _units(self.layers, self.repeats))
        put(self, "layers", len(self.units))
        allowed = get_args(Per)
        if self.per not in allowed:
            raise SettingError.because(
                "unknown factors",
                got=repr(self.per),
                allowed=", ".join(allowed),
                remedy="choose one of them",
                argument="per",
            )

    @property
    def units(self) -> tuple[int, ...]:
        """How many convolutions each unit has, N numbers."""
        return self.repeats or ()

    @property
    def depth(self) -> int:
        """How many convolutions there are in all."""
        return sum(self.units)

    @property
    def factors(self) -> tuple[int, ...]:
        """How often the logarithm of each width counts, N numbers."""
        return (1,) * len(self.units) if self.per == "unit" else self.units

    @property
    def step(self) -> int:
        """How much wider a unit is than the one before it, at least."""
        return 0 if self.nondecreasing else 1

    def weights(self, widths: Sequence[int]) -> int:
        """Return the weights of a layout divided by kernel²: n_0 n_1 + Σ n_{i-1} n_i + ….

        A unit of L convolutions has n_{i-1} n_i + (L - 1) n_i² of them.
        """
        joined = sum(below * width for below, width in pairwise((self.inputs, *widths)))
        return joined + sum(
            (count - 1) * width * width for count, width in zip(self.units, widths, strict=True)
        )

    def least_weights(self) -> int:
        """Return the weights of the narrowest layout, which no budget may be below."""
        return self.weights([1 + place * self.step for place in range(len(self.units))])


def _units(layers: Any, repeats: Any) -> tuple[int, ...]:
    if repeats is None and layers is None:
        raise SettingError.because(
            "no layers",
            got="none",
            allowed="layers or repeats",
            remedy="say how many convolutions there are",
            argument="layers",
        )
    if layers is not None:
        layers = whole_number(layers, "layers", 1, MAX_CONVOLUTIONS)
    units = (1,) * layers if repeats is None else tuple(repeats)
    units = tuple(whole_number(each, "repeats", 1, MAX_CONVOLUTIONS) for each in units)
    if layers is not None and layers != len(units):
        raise SettingError.because(
            "layers and repeats contradict each other",
            got=f"{layers} and {','.join(map(str, units))}, which are {len(units)} units",
            allowed="as many layers as units",
            remedy="leave layers out",
            argument="layers",
        )
    if not units or sum(units) > MAX_CONVOLUTIONS:
        raise SettingError.because(
            "number of convolutions out of range",
            got=sum(units),
            allowed=f"1 to {MAX_CONVOLUTIONS} in all units together",
            remedy="change the repeats",
            argument="repeats",
        )
    return units


@dataclass(frozen=True, slots=True)
class EnergyPlan:
    """The widths of a layout, in channels, with what they come to, counted from them alone.

    >>> plan = EnergyPlan(EnergyProblem(51248, repeats=(1, 10, 10, 10)), (5, 8, 17, 72))
    >>> round(plan.energy(), 3), plan.weights(), plan.params, plan.width_sum
    (40.551, 51248, 461232, 102)
    """

    problem: EnergyProblem
    widths: tuple[int, ...]

    def exact_energy(self) -> Decimal:
        """Return the energy to 60 digits; layouts of the very same energy have the same digits.

        ln 2 · ln 16 and ln 4 · ln 4 are the same number, 4 (ln 2)²: so every width is written as a
        power of the least base first.
        """
        powers = [_power(width) for width in self.widths]
        bases: list[int] = []
        whole = 1
        for (base, exponent), count in zip(powers, self.problem.factors, strict=True):
            bases += [base] * count
            whole *= exponent**count
        energy = Decimal(whole)
        for base in sorted(bases):
            energy = _DIGITS.multiply(energy, _ln(base))
        return energy

    def energy(self) -> float:
        """Return Π ln n_i, rounded once."""
        return float(self.exact_energy())

    def order(self) -> tuple[Decimal, tuple[int, ...]]:
        """Return what plans are sorted by: greatest energy first, then least widths."""
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
        """The widths of all units added up."""
        return sum(self.widths)

    def check(self) -> None:
        """Recount order and budget; know no solver.

        Raises: SettingError naming what does not hold.
        """
        problem = self.problem
        faults = []
        if len(self.widths) != len(problem.units):
            faults.append(f"{len(self.widths)} widths for {len(problem.units)} units")
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
                "a layout that does not hold",
                got=f"{self.widths}: {'; '.join(faults)}",
                allowed=f"{'non-decreasing' if problem.nondecreasing else 'increasing'} widths "
                f"of {len(problem.units)} units with {limit}{problem.budget} weights",
                remedy="ask for the plan again",
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
class EnergyAnswer:
    """How a search ended, the plans found, best first, and what no energy can be above.

    Status and bound are those of the first plan. `below` and `above`: where no layout meets the
    budget, the nearest budgets that one meets; None where there is none.
    """

    status: Status
    bound: float | None
    plans: tuple[EnergyPlan, ...]
    below: int | None = None
    above: int | None = None


@dataclass(frozen=True, slots=True)
class EnergyRank:
    """Where a layout stands among all layouts of a problem.

    `greater`: how many have a greater energy; with `exact` false there are more than that.
    """

    greater: int
    exact: bool = True

    def __str__(self) -> str:
        """Return the place, counted from 1."""
        return str(self.greater + 1) if self.exact else f"behind more than {self.greater}"
