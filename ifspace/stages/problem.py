"""The questions about stages, and plans that check themselves.

`StagesProblem` asks which block, width and depth each stage of a layout gets. `DepthsProblem` asks
for depths alone, of stages that are known by tables of gain, parameters and MACs by depth; where
their layers come from does not matter there.

Reference: [3DRF] section 4.1 for the gain; the budgets are beyond the paper.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from fractions import Fraction
from itertools import pairwise
from math import fsum, isfinite
from typing import Any, Final

from ifspace.answer import Status
from ifspace.block import Block, Composition, SizedBlock
from ifspace.errors import SettingError
from ifspace.stages.latency import LatencyTable
from ifspace.stages.layout import MAX_DEPTH, Layout
from ifspace.values import MAX_WIDTH, listed, whole_number

DEFAULT_MOST_DEPTH: Final = 16
MAX_BUDGET: Final = 10**12
AMOUNTS: Final = ("params", "macs", "layers", "latency_ms")


@dataclass(frozen=True, slots=True)
class Unit:
    """A block that a stage may repeat, or a composition whose groups fit the widths in play.

    `block` None: the cheapest groups with the full field are looked for at every pair of widths.

    >>> str(Unit(Composition.parse("DW+GPW+SH+GPW"))), Unit.of(Block.parse("DW+PW")).is_open
    ('DW+GPW+SH+GPW', False)
    """

    composition: Composition
    block: Block | None = None
    bottleneck: Fraction | None = None
    kernel: int = 3

    @classmethod
    def of(cls, block: Block, bottleneck: Fraction | None = None) -> "Unit":
        """Return the unit of a block that has its groups."""
        return cls(block.composition, block, bottleneck)

    @property
    def is_open(self) -> bool:
        """Whether groups are still to be chosen."""
        return self.block is None

    def __str__(self) -> str:
        """Return the block as it was asked for, behind it the bottleneck ratio, if any."""
        text = str(self.block or self.composition)
        return text if self.bottleneck is None else f"{text} with bottleneck {self.bottleneck}"


@dataclass(frozen=True, slots=True)
class Budgets:
    """What a layout may have at most: parameters, MACs of one image, layers, milliseconds.

    Layers are those of the units, shuffles included. None bounds nothing.
    """

    params: int | None = None
    macs: int | None = None
    layers: int | None = None
    latency_ms: Fraction | None = None

    @property
    def given(self) -> dict[str, int | Fraction]:
        """The budgets that bound something."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def check(self, counted: Sequence[str] = AMOUNTS, above: int = 0) -> None:
        """Refuse budgets of amounts that are not counted, or that are not above a number.

        Raises: SettingError.
        """
        for name, value in self.given.items():
            if name not in counted:
                raise SettingError.because(
                    f"a budget of {name} where they are not counted",
                    got=f"{value} {name}",
                    allowed=f"budgets of {listed(counted)}",
                    remedy="leave it out",
                    argument=name,
                )
            if not above < value <= MAX_BUDGET:
                raise SettingError.because(
                    f"{name} out of range",
                    got=value,
                    allowed=f"more than {above:,}, up to {MAX_BUDGET:,}",
                    remedy="choose a budget between",
                    argument=name,
                )


@dataclass(frozen=True, slots=True)
class StagesProblem:
    """Which depths, widths and blocks have the greatest total gain within budgets.

    `start`: a layout with the sides, strides and frame; its own widths and blocks are the only
    choices of a stage unless `widths` or `units` list others for each stage. Depths go from one
    unit to `most_depth`, the counted layers of the stem included. `monotone`: no stage is narrower
    than the one before.

    >>> from ifspace.stages.networks import network
    >>> problem = StagesProblem(network("vgg16", 32), Budgets(params=5_100_000))
    >>> problem.width_choices[0], str(problem.unit_choices[0][0])
    ((64,), 'CONV')

    Raises: SettingError for choices or budgets out of range.
    """

    start: Layout
    budgets: Budgets
    widths: tuple[tuple[int, ...], ...] | None = None
    units: tuple[tuple[Unit, ...], ...] | None = None
    most_depth: int = DEFAULT_MOST_DEPTH
    alpha: float = 3
    monotone: bool = False
    latency: LatencyTable | None = None

    def __post_init__(self) -> None:
        """Refuse what no layout could have."""
        least = max(stage.least_depth for stage in self.start.stages)
        whole_number(self.most_depth, "max_depth", least, MAX_DEPTH)
        for name, choices in (("width_choices", self.widths), ("blocks", self.units)):
            if choices is not None and (len(choices) != len(self.start.stages) or not all(choices)):
                raise SettingError.because(
                    "a stage without a choice",
                    got=f"{name} for {sum(map(bool, choices))} of {len(self.start.stages)} stages",
                    allowed="at least one for every stage",
                    remedy="list them for every stage, or one list for all",
                    argument=name,
                )
        for width in {width for choices in self.widths or () for width in choices}:
            whole_number(width, "width_choices", 1, MAX_WIDTH)
        if not (isfinite(self.alpha) and self.alpha >= 0):
            raise SettingError.because(
                "alpha out of range",
                got=self.alpha,
                allowed="numbers from 0",
                remedy="the papers take 3",
                argument="alpha",
            )
        self.budgets.check()
        if (self.budgets.latency_ms is None) != (self.latency is None):
            raise SettingError.because(
                "half a latency budget",
                got="a table without a budget" if self.latency else "a budget without a table",
                allowed="both or none",
                remedy="give --latency TABLE.csv and --latency-budget-ms T",
            )

    @property
    def width_choices(self) -> tuple[tuple[int, ...], ...]:
        """Widths that each stage may have, in channels."""
        return self.widths or tuple((width,) for width in self.start.widths)

    @property
    def unit_choices(self) -> tuple[tuple[Unit, ...], ...]:
        """Blocks that each stage may repeat."""
        return self.units or tuple(
            (Unit.of(stage.more.block, stage.more.bottleneck),) for stage in self.start.stages
        )

    def amounts(self, layout: Layout) -> dict[str, int | Fraction]:
        """Return what a layout has of everything that is bounded, counted from its blocks."""
        measures: dict[str, int | Fraction] = {
            "params": layout.params,
            "macs": layout.macs,
            "layers": layout.layers,
        }
        if self.latency is not None:
            measures["latency_ms"] = sum(
                (
                    self.latency.of(unit, stage.side, 1 if place else stage.stride)
                    for stage in layout.stages
                    for place, unit in enumerate(stage.units)
                ),
                Fraction(0),
            )
        return measures

    def fits(self, layout: Layout) -> bool:
        """Return whether a layout keeps every budget.

        Raises: SettingError for a case that the latency table lacks.
        """
        amounts = self.amounts(layout)
        return all(amounts[name] <= most for name, most in self.budgets.given.items())


@dataclass(frozen=True, slots=True)
class StagePlan:
    """A layout found, with its gain counted again from the blocks alone."""

    problem: StagesProblem
    layout: Layout

    def objective(self) -> float:
        """Return the total gain.

        Reference: [IF] eq. 4.
        """
        return self.layout.gain(self.problem.alpha)

    def check(self) -> None:
        """Recount budgets, depths, widths and blocks; know no solver.

        Raises: SettingError naming what does not hold.
        """
        problem, layout = self.problem, self.layout
        amounts = problem.amounts(layout)
        faults = [
            f"{amounts[name]} {name}, more than {most}"
            for name, most in problem.budgets.given.items()
            if amounts[name] > most
        ]
        if _given(layout) != _given(problem.start):
            faults.append("sides, strides or frame are not those asked for")
        entry = layout.frame.opens_with
        choices = zip(layout.stages, problem.width_choices, problem.unit_choices, strict=False)
        for place, (stage, widths, units) in enumerate(choices, start=1):
            if stage.depth > problem.most_depth:
                faults.append(f"stage {place} is {stage.depth} deep")
            if stage.width not in widths:
                faults.append(f"stage {place} has {stage.width} channels")
            joins = (stage.first.channels, stage.more.channels, stage.more.out_channels)
            if joins != (entry, stage.width, stage.width):
                faults.append(f"stage {place} does not join the one before")
            if not any(_repeats(unit, stage.first, stage.more) for unit in units):
                faults.append(f"stage {place} repeats {stage.more.block}")
            entry = stage.width
        if problem.monotone and any(a > b for a, b in pairwise(layout.widths)):
            faults.append("a stage is narrower than the one before")
        if faults:
            raise SettingError.because(
                "a plan that does not hold",
                got="; ".join(faults),
                allowed="layouts within budgets and choices",
                remedy="ask for the plan again",
            )


def _given(layout: Layout) -> tuple[Any, ...]:
    """Return what no search may change: the frame, and side, stride and stem of every stage."""
    return layout.frame, [(stage.side, stage.stride, stage.before) for stage in layout.stages]


def _repeats(unit: Unit, first: SizedBlock, more: SizedBlock) -> bool:
    """Return whether both blocks are the unit, or of its composition where groups are open."""
    return all(
        block.bottleneck == unit.bottleneck
        and (
            block.block == unit.block
            or (
                unit.is_open
                and block.block.composition == unit.composition
                and all(layer.kernel in (None, unit.kernel) for layer in block.block.layers)
            )
        )
        for block in (first, more)
    )


@dataclass(frozen=True, slots=True)
class StagesAnswer:
    """How a search ended, the plans, best first, and the gain that no layout is above.

    Status and bound are those of the first plan. `left_out`: the combinations of block and widths
    that were no choice, in words. `least`: where no layout keeps the budgets, the least that any
    has of each amount that is bounded.
    """

    status: Status
    bound: float | None
    plans: tuple[StagePlan, ...]
    left_out: tuple[str, ...] = ()
    least: Mapping[str, int | Fraction] = field(default_factory=dict)


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
        put(self, "least", whole_number(self.least, "least", 0))
        put(self, "most", whole_number(self.most, "most", self.least))
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
                self, name, tuple(whole_number(n, name, 0, MAX_BUDGET) for n in getattr(self, name))
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
            put(self, name, whole_number(getattr(self, name), name, 0, MAX_BUDGET))

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
