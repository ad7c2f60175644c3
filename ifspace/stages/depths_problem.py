"""Depths asked for and found, for stages that are known by tables of gains and costs alone.

A stage of any network comes down to three rows of numbers by depth: what it gains, and the
parameters and MACs that it has. Where its layers come from does not matter here.

Reference: [3DRF] section 4.1 for the gain; the budgets are beyond the paper.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from math import fsum, isfinite
from typing import Final

from ifspace.answer import Status
from ifspace.errors import SettingError
from ifspace.stages.problem import (
    MAX_BUDGET,
    Budgets,
)
from ifspace.values import whole_within

COUNTED: Final = ("params", "macs")
# Far above any gain: a field grows from a pixel to the whole map, and the gain with it.
MAX_GAIN: Final = 10**6


@dataclass(frozen=True, slots=True)
class StageTable:
    """A stage by depth, from `least` to `most`: total gain, parameters, MACs of one image.

    >>> table = StageTable("layer1", 1, (0.0, 1.5, 1.75), (100, 250, 400), (10, 20, 30), 3)
    >>> table.depths, table.at(2)
    (range(1, 4), (1.5, 250, 20))

    Raises: SettingError for rows of another length than there are depths, and numbers out of range.
    """

    name: str
    least: int
    gains: tuple[float, ...]
    params: tuple[int, ...]
    macs: tuple[int, ...]
    most: int

    def __post_init__(self) -> None:
        """Make the rows canonical; refuse what no stage could have."""
        put = object.__setattr__
        put(self, "least", whole_within(self.least, "least", 0))
        put(self, "most", whole_within(self.most, "most", self.least))
        for name in ("gains", *COUNTED):
            row = tuple(getattr(self, name))
            if len(row) != len(self.depths):
                raise SettingError.because(
                    f"a table of another length than its depths in {self.name}",
                    got=f"{len(row)} {name} for depths {self.least} to {self.most}",
                    allowed=f"{len(self.depths)}, one for each depth",
                    remedy="give a number to every depth",
                    argument=name,
                )
            put(self, name, row)
        for gain in self.gains:
            if not (isfinite(gain) and abs(gain) <= MAX_GAIN):
                raise SettingError.because(
                    f"gain out of range in {self.name}",
                    got=gain,
                    allowed=f"numbers up to {MAX_GAIN:,}",
                    remedy="correct the table",
                    argument="gains",
                )
        for name in COUNTED:
            put(
                self, name, tuple(whole_within(n, name, 0, MAX_BUDGET) for n in getattr(self, name))
            )

    @property
    def depths(self) -> range:
        """The depths that the stage may have."""
        return range(self.least, self.most + 1)

    def at(self, depth: int) -> tuple[float, int, int]:
        """Return gain, parameters and MACs at a depth."""
        place = depth - self.least
        return self.gains[place], self.params[place], self.macs[place]


@dataclass(frozen=True, slots=True)
class DepthsProblem:
    """Which depths have the greatest total gain within budgets of the whole network.

    `rest_params` and `rest_macs` are what the network has outside its stages.

    >>> table = StageTable("a", 1, (0.0, 1.0), (5, 9), (1, 2), 2)
    >>> DepthsProblem((table, table), Budgets(params=20), rest_params=3).amounts((1, 2))
    {'params': 17, 'macs': 3}

    Raises: SettingError for no stage, and budgets out of range or of anything else.
    """

    tables: tuple[StageTable, ...]
    budgets: Budgets
    rest_params: int = 0
    rest_macs: int = 0

    def __post_init__(self) -> None:
        """Refuse what has no answer by its form."""
        put = object.__setattr__
        put(self, "tables", tuple(self.tables))
        if not self.tables:
            raise SettingError.because(
                "no stage to choose a depth for",
                got="no table",
                allowed="one for each stage",
                remedy="name a network with stages",
                argument="tables",
            )
        self.budgets.check(COUNTED)
        for name in ("rest_params", "rest_macs"):
            put(self, name, whole_within(getattr(self, name), name, 0, MAX_BUDGET))

    def amounts(self, depths: tuple[int, ...]) -> dict[str, int]:
        """Return parameters and MACs of the network at some depths."""
        rows = [table.at(depth) for table, depth in zip(self.tables, depths, strict=True)]
        return {
            "params": self.rest_params + sum(params for _, params, _ in rows),
            "macs": self.rest_macs + sum(macs for _, _, macs in rows),
        }


@dataclass(frozen=True, slots=True)
class DepthsPlan:
    """Depths found, with their gain and costs summed again from the tables alone."""

    problem: DepthsProblem
    depths: tuple[int, ...]

    @property
    def params(self) -> int:
        """Parameters of the network."""
        return self.problem.amounts(self.depths)["params"]

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.problem.amounts(self.depths)["macs"]

    def objective(self) -> float:
        """Return the total gain.

        Reference: [IF] eq. 4.
        """
        pairs = zip(self.problem.tables, self.depths, strict=True)
        return fsum(table.at(depth)[0] for table, depth in pairs)

    def check(self) -> None:
        """Recount depths and budgets; know no solver.

        Raises: SettingError naming what does not hold.
        """
        problem = self.problem
        faults = []
        if len(self.depths) != len(problem.tables):
            faults.append(f"{len(self.depths)} depths for {len(problem.tables)} stages")
        faults += [
            f"{table.name} is {depth} deep"
            for table, depth in zip(problem.tables, self.depths, strict=False)
            if depth not in table.depths
        ]
        if not faults:
            amounts = problem.amounts(self.depths)
            faults += [
                f"{amounts[name]} {name}, more than {most}"
                for name, most in problem.budgets.given.items()
                if amounts[name] > most
            ]
        if faults:
            raise SettingError.because(
                "a plan that does not hold",
                got="; ".join(faults),
                allowed="depths of the tables within budgets",
                remedy="ask for the plan again",
            )


@dataclass(frozen=True, slots=True)
class DepthsAnswer:
    """How a search ended, the plans, best first, and the gain that no depths are above.

    Status and bound are those of the first plan. `least`: where no depths keep the budgets, the
    least that the network can have of each amount that is bounded.
    """

    status: Status
    bound: float | None
    plans: tuple[DepthsPlan, ...]
    least: Mapping[str, int | Fraction] = field(default_factory=dict)
