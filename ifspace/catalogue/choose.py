"""Which block of a catalogue to use: within bounds, ranked, with a reason; trade-offs.

Every amount has one name, in bounds, ranks and texts: parameters, MACs, activations, peak memory,
latency, layers and least fan-in. Less is better, of the least fan-in more.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil, inf
from operator import attrgetter
from typing import Any, Final

import numpy as np

from ifspace.catalogue.design import Catalogue, Design, one_a_network, other_ways
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.errors import ARGUMENT, SettingError
from ifspace.floors import NO_FLOORS, Floors
from ifspace.kinds import KINDS, canonical_kinds
from ifspace.latency import BlockLatency, Latency
from ifspace.memory import BYTES
from ifspace.values import choice, whole_number

# What can be bounded and compared: the attribute of a design and its name in texts.
AMOUNTS: Final[Mapping[str, tuple[str, str]]] = {
    "params": ("params", "parameters"),
    "macs": ("macs_per_pixel", "MACs"),
    "activations": ("activations_per_pixel", "activations"),
    "layers": ("layers", "layers"),
}
LEAST_FAN_IN: Final = "least-fan-in"
PEAK_MEMORY: Final = "peak-memory"
LATENCY: Final = "latency"
# What is compared too where the question is about it, or the rows are those of a front.
_FURTHER: Final[Mapping[str, tuple[str, str]]] = {
    PEAK_MEMORY: ("peak_per_pixel", "peak memory"),
    LEAST_FAN_IN: ("least_fan_in", "least fan-in"),
}
DESIGN_AMOUNTS: Final = {**AMOUNTS, **_FURTHER}
BY: Final = (*DESIGN_AMOUNTS, LATENCY)
_LABELS: Final[Mapping[str, str]] = {
    **{name: text for name, (_, text) in AMOUNTS.items()},
    PEAK_MEMORY: "peak/px",
    LEAST_FAN_IN: "least fan-in",
    LATENCY: "latency",
}

# The least of a bounded amount in words, by the argument of the bound.
_LEAST_TEXTS: Final[Mapping[str, str]] = {
    **{name: f"at least {{:,}} {text}" for name, (_, text) in AMOUNTS.items()},
    "peak_memory": "a peak memory of at least {:,} bytes",
    "least_fan_in": "a least fan-in of at most {:,}",
    "latency_budget_ms": "a latency of at least {:,} ms",
}


def together(catalogues: Iterable[Catalogue]) -> Catalogue:
    """Return one catalogue of several, such as those of the widths of a network.

    A setting that is in several of them is taken from the first.

    >>> together([Catalogue((), (), ())]).designs
    ()
    """
    settings: list[EnumerationSetting] = []
    funnels = []
    designs: list[Design] = []
    for catalogue in catalogues:
        new = [setting not in settings for setting in catalogue.settings]
        settings += [x for x, is_new in zip(catalogue.settings, new, strict=True) if is_new]
        funnels += [x for x, is_new in zip(catalogue.funnels, new, strict=True) if is_new]
        kept = set(designs)
        designs += [design for design in catalogue.designs if design not in kept]
    return Catalogue(tuple(settings), tuple(funnels), tuple(designs))


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """A bound on peak memory in bytes, at a side of the output in pixels and a type of numbers."""

    most: int
    side: int
    dtype: str

    def unit(self, dims: int) -> int:
        """Return the bytes of an element per output pixel, for one image."""
        return int(self.side**dims * BYTES[self.dtype])

    def keeps(self, design: Design) -> bool:
        """Return whether a design keeps it, for one image."""
        return peak_bytes(design, self.side, self.dtype) <= self.most


def peak_bytes(design: Design, side: int, dtype: str) -> int:
    """Return the peak memory of a design in bytes, for one image, layer by layer."""
    return int(design.peak_per_pixel * side**design.dims * BYTES[dtype])


def best(
    catalogue: Catalogue,
    *,
    params: int | None = None,
    macs: int | None = None,
    activations: int | None = None,
    layers: int | None = None,
    kinds: Iterable[str] | None = None,
    channels: int | None = None,
    by: str = "params",
    every_row: bool = False,
    limit: int | None = None,
    latency: BlockLatency | None = None,
    latency_ms: Fraction | float | None = None,
    floors: Floors = NO_FLOORS,
    peak_memory: PeakMemory | None = None,
) -> tuple[tuple[Design, str], ...]:
    """Return the designs within all bounds, best first, each with the reason for its rank.

    No more than `limit` of them where that is a number.

    Of designs that are one network only one is returned, which stands for the others within the
    bounds; all of them with `every_row`.

    A reason is about the designs that the bounds and kinds leave: where they rule out some, it says
    "not dominated within these bounds". `Design.dominated_by` is about the whole catalogue.

    Bounds are inclusive: parameters, MACs and activations per output pixel, layers of one copy,
    milliseconds, peak memory. `kinds` are the kinds that a design may use, `channels` is the width
    it is for; all of them when None. `by` is what is compared first; ties go as in `ranked`. By
    "latency" the designs are compared by what `latency` returns for them; those that it does not
    know come last, and are not within a bound. Dominance is taken anew among the designs that may
    be used, so that no design is called dominated by one that was ruled out; it is about
    parameters, MACs, activations and layers, and those of peak memory, least fan-in and latency
    that the question or the catalogue has.

    >>> best(Catalogue((), (), ()), params=1000)
    ()

    Raises: SettingError for a negative bound or limit, an unknown kind or amount, a width that the
        catalogue does not hold, and floors that it was not made for.
    """
    bounds = {"params": params, "macs": macs, "activations": activations, "layers": layers}
    for name, bound in bounds.items():
        if bound is not None and (isinstance(bound, bool) or bound < 0):
            raise SettingError.because(
                f"bound on {name} out of range",
                got=bound,
                allowed="whole numbers from 0",
                remedy="give another bound or none",
                argument=name,
            )
    if channels is not None:
        _check_width(catalogue, channels)
    if limit is not None:
        whole_number(limit, "limit", 0)
    choice(by, "by", BY, "unknown amount")
    if latency is None and (by == LATENCY or latency_ms is not None):
        raise SettingError.because(
            "nothing says how long the blocks take",
            got="by latency without a latency model" if by == LATENCY else "a bound without one",
            allowed="a model that `ifspace bench` wrote",
            remedy="--latency results/bench/blocks-DEVICE.json beside it",
            argument="latency",
        )
    check_floors(catalogue, floors, channels)
    at_width = _at_width(catalogue, channels)
    allowed = usable(at_width, kinds)
    times = {} if latency is None else _times(allowed, latency)
    limits = _limits(bounds, floors, peak_memory, latency_ms, times)
    within = [design for design in allowed if all(limit.keeps(design) for limit in limits)]
    is_narrowed = len(within) < len(at_width)
    others: dict[int, str] = {}
    if not every_row:
        networks = one_a_network(within)
        within = [design for design, _ in networks]
        others = {id(design): other_ways(members) for design, members in networks}
    reasons = Reasons(by, floors, peak_memory, latency)
    for design in within:
        reasons.add(design, _ms(times, design))
    reasons.name(Counter((design.replaces, design.composition) for design in within))
    return tuple(
        (
            design,
            reasons.text(design, _ms(times, design), is_narrowed, others.get(id(design), "")),
        )
        for design in sorted(within, key=lambda x: rank(x, by, _ms(times, x)))[:limit]
    )


@dataclass(frozen=True, slots=True)
class TightBounds:
    """What bounds within which there is no design leave.

    `nearest`: of those that alone are too tight the name as an argument and the nearest value at
    which some designs are within all bounds. `least`: in words the least that a design has of each
    bounded amount, of the least fan-in the most, whatever the other bounds.
    """

    nearest: Mapping[str, int | float]
    least: tuple[str, ...]


def tight_bounds(
    catalogue: Catalogue,
    *,
    kinds: Iterable[str] | None = None,
    channels: int | None = None,
    latency: BlockLatency | None = None,
    latency_ms: Fraction | float | None = None,
    floors: Floors = NO_FLOORS,
    peak_memory: PeakMemory | None = None,
    **bounds: int | None,
) -> TightBounds:
    """Return which of some bounds are too tight, for there is no design within all of them.

    The arguments are those of `best`, and `bounds` those on parameters, MACs, activations and
    layers.

    >>> tight_bounds(Catalogue((), (), ()), params=1000)
    TightBounds(nearest={}, least=())
    """
    allowed = usable(_at_width(catalogue, channels), kinds)
    times = {} if latency is None else _times(allowed, latency)
    limits = _limits(bounds, floors, peak_memory, latency_ms, times)
    nearest: dict[str, int | float] = {}
    texts = []
    for limit in limits:
        others = [other for other in limits if other is not limit]
        kept = (design for design in allowed if all(other.keeps(design) for other in others))
        value, least = (min(map(limit.value, rows), default=inf) for rows in (kept, allowed))
        if limit.name is not None and value < inf:
            nearest[limit.name] = limit.shown(value)
        if limit.name is not None and least < inf:
            texts.append(_LEAST_TEXTS[limit.name].format(limit.shown(least)))
    return TightBounds(nearest, tuple(texts))


@dataclass(frozen=True, slots=True)
class _Limit:
    """The most that a design may have of a value; `name`: the argument, None where it has no value.

    `shown`: the least value of the argument within which a value is.
    """

    name: str | None
    value: Callable[[Design], Fraction | float]
    most: Fraction | float
    shown: Callable[[Any], int | float] = int

    def keeps(self, design: Design) -> bool:
        return self.value(design) <= self.most


def _limits(
    bounds: Mapping[str, int | None],
    floors: Floors,
    peak_memory: PeakMemory | None,
    latency_ms: Fraction | float | None,
    times: Mapping[int, Latency],
) -> list[_Limit]:
    """Return all bounds on designs as one kind of limit."""
    limits = [
        _Limit(name, attrgetter(AMOUNTS[name][0]), bound)
        for name, bound in bounds.items()
        if bound is not None
    ]
    if floors.asks("least_fan_in"):
        least = floors.least_fan_in
        limits.append(_Limit("least_fan_in", lambda x: -x.least_fan_in, -least, lambda n: int(-n)))
    others = floors.without("least_fan_in")
    if others:
        limits.append(_Limit(None, lambda design: not design.sized.meets(others), 0))
    if peak_memory is not None:
        side, dtype = peak_memory.side, peak_memory.dtype
        limits.append(_Limit("peak_memory", lambda x: peak_bytes(x, side, dtype), peak_memory.most))
    if latency_ms is not None:
        limits.append(_Limit("latency_budget_ms", lambda x: _ms(times, x), latency_ms, _no_less))
    return limits


def _no_less(ms: Fraction) -> float:
    """Return milliseconds with three digits, rounded up."""
    scale = 10 ** max(3 - len(str(int(ms))), 0) if ms >= 1 else 1000
    return ceil(ms * scale) / scale


def within_bounds(
    designs: Sequence[Design],
    bounds: Mapping[str, int | None],
    floors: Floors = NO_FLOORS,
    peak_memory: PeakMemory | None = None,
    latency: BlockLatency | None = None,
    latency_ms: Fraction | float | None = None,
) -> list[Design]:
    """Return the designs within bounds, which are those of `best`, in their order.

    >>> within_bounds((), {"params": 1000})
    []
    """
    times = {} if latency is None else _times(designs, latency)
    limits = _limits(bounds, floors, peak_memory, latency_ms, times)
    return [design for design in designs if all(limit.keeps(design) for limit in limits)]


def usable(designs: Iterable[Design], kinds: Iterable[str] | None) -> list[Design]:
    """Return the designs of some kinds alone; all of them for None.

    Raises: SettingError for an unknown kind.
    """
    allowed = None if kinds is None else frozenset(canonical_kinds(kinds))
    return [design for design in designs if allowed is None or allowed.issuperset(design.kinds)]


def _at_width(catalogue: Catalogue, channels: int | None) -> list[Design]:
    return [
        design for design in catalogue.designs if channels is None or design.channels == channels
    ]


def check_floors(catalogue: Catalogue, floors: Floors, channels: int | None = None) -> None:
    """Check that a catalogue can answer a question about floors.

    It has the cheapest choice of each composition, which may lack the floors where another choice
    has them. It can answer where it was made with these floors, where all of its rows have them,
    or, for a least fan-in alone, where it is a front.

    Raises: SettingError otherwise, with the command that answers.
    """

    def counts(setting: EnumerationSetting) -> tuple[int, int]:
        designs = catalogue.designs_of(setting)
        return sum(not design.sized.meets(floors) for design in designs), len(designs)

    check_answers(catalogue.settings, floors, channels, counts)


def check_answers(
    settings: Iterable[EnumerationSetting],
    floors: Floors,
    channels: int | None,
    counts: Callable[[EnumerationSetting], tuple[int, int]],
) -> None:
    """Check the same, given how many rows of a setting lack the floors and how many there are.

    Raises: SettingError as `check_floors`.
    """
    if not floors:
        return
    for setting in settings:
        if channels not in (None, setting.channels) or setting.floors == floors:
            continue
        failing, rows = counts(setting)
        of_least_fan_in = floors.names == ("least_fan_in",) and setting.front
        if setting.floors.cover(floors) and (not failing or of_least_fan_in):
            continue
        options = " ".join(
            [*(setting.options() | _with_floors(setting, floors)).values(), "--out FILE.parquet"]
        )
        raise SettingError.because(
            "floors that the catalogue was not made for",
            got=f"{floors}, which {failing:,} of {rows:,} entries lack",
            allowed="those it was made with",
            remedy=f"`ifspace enumerate {options}` answers",
            argument=floors.names[0],
        )


def _with_floors(setting: EnumerationSetting, floors: Floors) -> dict[str, str]:
    """Return the options of `ifspace enumerate` for floors in the place of those of a setting."""
    options = replace(setting, floors=floors).options()
    return {name: options[name] for name in floors.names}


def _times(designs: Iterable[Design], latency: BlockLatency) -> dict[int, Latency]:
    """Return the latencies that are known, by the id of their design."""
    pairs = ((id(design), latency(design.sized, design.stride)) for design in designs)
    return {key: time for key, time in pairs if time is not None}


def _ms(times: Mapping[int, Latency], design: Design) -> Fraction | float:
    time = times.get(id(design))
    return inf if time is None else time.ms


def ranked(designs: Iterable[Design], by: str = "params") -> tuple[Design, ...]:
    """Return the designs with the least of an amount first; ties go to the other amounts.

    The amounts are parameters, MACs, activations and layers in this order. By "peak-memory" the one
    with the least of it comes first, by "least-fan-in" the one with the greatest. Of designs that
    tie in all of them those with the fewest layers of overlapping windows come first, then those
    with the fewest of any windows (RPW); the others stay in the order given.

    Raises: SettingError for an unknown amount.
    """
    choice(by, "by", DESIGN_AMOUNTS, "unknown amount")
    return tuple(sorted(designs, key=lambda design: rank(design, by)))


def rank(design: Design, by: str, ms: Fraction | float = inf) -> tuple[Any, ...]:
    """Return the key by which `ranked` puts a design; by "latency" its milliseconds come first."""
    order = [name for name in (by, *(name for name in AMOUNTS if name != by)) if name != LATENCY]
    amounts = (amount_of(design, name) for name in order)
    return *[ms] * (by == LATENCY), *amounts, *design.block.window_counts


def trade_offs(designs: Iterable[Design]) -> tuple[tuple[Design, int], ...]:
    """Return the designs that are not dominated, one of each costs, and how many cost the same.

    The designs are those of one setting with `dominated_by` filled in; fewest parameters first.

    >>> trade_offs(())
    ()
    """
    alike: dict[Any, list[Design]] = {}
    for design in ranked(design for design in designs if design.dominated_by is None):
        alike.setdefault(design.costs, []).append(design)
    return tuple((group[0], len(group)) for group in alike.values())


def amount_of(design: Design, name: str) -> int:
    """Return an amount of which less is better."""
    value: int = getattr(design, DESIGN_AMOUNTS[name][0])
    return -value if name == LEAST_FAN_IN else value


# Why a design is where it is.


# Of designs that replace the same: the values of what is compared.
_Values = tuple[Fraction | float, ...]
# Of a design its layers, the places of its kinds, and its block: canonical order.
_Place = tuple[int, tuple[int, ...], str]


@dataclass(slots=True)
class _Rivals:
    """What designs that replace the same have: few values, no design.

    `least`: of each amount. `firsts`: of designs of equal amounts the place of the first, and its
    composition. `dominators`: by what is compared, filled in when all designs are there.
    """

    of_front: bool = True
    least: dict[str, Fraction | float] = field(default_factory=dict)
    firsts: dict[_Values, tuple[_Place, str]] = field(default_factory=dict)
    dominators: dict[_Values, str | None] = field(default_factory=dict)


class Reasons:
    """Why designs are where they are: of each what it has least of, and what dominates it.

    All are added, then named, before the first reason is asked for. The arguments are those of
    `best`. `ms`: of a design its latency, infinite where it is not known.
    """

    def __init__(
        self,
        by: str,
        floors: Floors = NO_FLOORS,
        peak_memory: PeakMemory | None = None,
        latency: BlockLatency | None = None,
    ) -> None:
        """Begin without designs."""
        compared = [
            *AMOUNTS,
            *[PEAK_MEMORY] * (by == PEAK_MEMORY or peak_memory is not None),
            *[LEAST_FAN_IN] * (by == LEAST_FAN_IN or bool(floors)),
            *[LATENCY] * (latency is not None),
        ]
        self._by = by
        self._compared = len(compared)
        # Those of designs that are all rows of fronts come last.
        self._names = [*compared, *(name for name in _FURTHER if name not in compared)]
        self._rivals: dict[tuple[Any, ...], _Rivals] = {}

    def add(self, design: Design, ms: Fraction | float = inf) -> None:
        """Add a design."""
        rivals = self._rivals.get(design.replaces)
        if rivals is None:
            rivals = self._rivals[design.replaces] = _Rivals()
        rivals.of_front &= design.of_front
        values = self._values(design, ms)
        for name, value in zip(self._names, values, strict=True):
            rivals.least[name] = min(value, rivals.least.get(name, inf))
        first = (design.layers, design.kinds_key, str(design.block)), design.composition
        rivals.firsts[values] = min(first, rivals.firsts.get(values, first))

    @property
    def replaces(self) -> tuple[tuple[Any, ...], ...]:
        """What the designs replace."""
        return tuple(self._rivals)

    @property
    def compositions(self) -> set[tuple[tuple[Any, ...], str]]:
        """The compositions that may dominate some, each with what it replaces."""
        return {
            (replaces, composition)
            for replaces, rivals in self._rivals.items()
            for _, composition in rivals.firsts.values()
        }

    def name(self, counts: Mapping[tuple[tuple[Any, ...], str], int]) -> None:
        """Name what dominates, given how many designs are of each of the compositions.

        It is named by its composition, or by its block where several designs are of one.
        """
        for replaces, rivals in self._rivals.items():
            names: dict[_Values, tuple[_Place, str]] = {}
            for values, (place, composition) in rivals.firsts.items():
                several = counts[replaces, composition] > 1
                first = place, place[-1] if several else composition
                compared = self._of_compared(values, rivals)
                names[compared] = min(first, names.get(compared, first))
            rivals.dominators = _first_dominators(names)

    def text(
        self, design: Design, ms: Fraction | float, is_narrowed: bool, others: str = ""
    ) -> str:
        """Return the reason of a design; `others`: what there is to say of its network."""
        rivals = self._rivals[design.replaces]
        values = self._values(design, ms)
        dominator = rivals.dominators[self._of_compared(values, rivals)]
        compared = self._of_compared(self._names, rivals)
        least = {
            name
            for name, value in zip(compared, values, strict=False)
            if value == rivals.least[name] < inf
        }
        order = [self._by, *(name for name in compared if name != self._by)]
        fewest = [AMOUNTS[name][1] for name in order if name in least and name in AMOUNTS]
        parts = ["least latency"] * (LATENCY in least)
        parts += ["fewest " + " and ".join(fewest)] if fewest else []
        parts += ["least peak memory"] * (PEAK_MEMORY in least)
        parts += ["greatest least fan-in"] * (LEAST_FAN_IN in least)
        undominated = "not dominated within these bounds" if is_narrowed else "not dominated"
        parts.append(undominated if dominator is None else f"dominated by {dominator}")
        if design.same_as:
            parts.append(f"cheaper as {design.same_as}")
        return "; ".join(filter(None, [*parts, design.permutation_note, others]))

    def _values(self, design: Design, ms: Fraction | float) -> _Values:
        return tuple(ms if name == LATENCY else amount_of(design, name) for name in self._names)

    def _of_compared(self, values: Sequence[Any], rivals: _Rivals) -> tuple[Any, ...]:
        """Return the values of what is compared, of all amounts."""
        return tuple(values[: None if rivals.of_front else self._compared])


def _dominators(
    designs: Sequence[Design], amounts: Callable[[Design], Sequence[Fraction | float]]
) -> list[str | None]:
    """Return for each design the first one that is no worse in all amounts and better in one.

    The first in canonical order: layers, then kinds. It is named by its composition, or by its
    block where several designs are of one composition.
    """
    several = Counter(design.composition for design in designs)
    order = {symbol: index for index, symbol in enumerate(KINDS)}
    first: dict[tuple[Fraction | float, ...], tuple[Any, str]] = {}
    keys = [tuple(amounts(design)) for design in designs]
    for design, key in zip(designs, keys, strict=True):
        name = design.composition if several[design.composition] == 1 else str(design.block)
        place = design.layers, tuple(order[kind] for kind in design.kinds), name
        first[key] = min(first.get(key, (place, name)), (place, name))
    dominators = _first_dominators(first)
    return [dominators[key] for key in keys]


def _first_dominators(first: Mapping[_Values, tuple[Any, str]]) -> dict[_Values, str | None]:
    """Return for each amounts the name of the first that are no worse in all and better in one.

    `first`: of each amounts a key of their order, and a name.
    """
    distinct = sorted(first, key=lambda key: first[key])
    matrix = np.array([[float(value) for value in key] for key in distinct])
    dominators: dict[_Values, str | None] = {}
    for index, key in enumerate(distinct):
        no_worse = (matrix <= matrix[index]).all(axis=1)
        no_worse[index] = False  # the rest differ somewhere, so no worse is better in one
        dominators[key] = first[distinct[int(no_worse.argmax())]][1] if no_worse.any() else None
    return dominators


# What the next better design would cost.


@dataclass(frozen=True, slots=True)
class Trade:
    """The next better design in some amounts, and what it costs.

    `amounts`: those in which it is the next better one. `changes`: of every amount that differs its
    value here and there; of latency the milliseconds.
    """

    design: Design
    amounts: tuple[str, ...]
    changes: Mapping[str, tuple[Fraction | int, Fraction | int]]

    @property
    def better(self) -> tuple[str, ...]:
        """The amounts that it is better in, those of `amounts` first."""
        names = [*self.amounts, *(name for name in self.changes if name not in self.amounts)]
        return tuple(name for name in names if self._is_better(name))

    @property
    def worse(self) -> tuple[str, ...]:
        """The amounts that it pays with."""
        return tuple(name for name in self.changes if not self._is_better(name))

    def _is_better(self, name: str) -> bool:
        before, after = self.changes[name]
        return (after > before) == (name == LEAST_FAN_IN)


def change_text(name: str, before: Fraction | int, after: Fraction | int) -> str:
    """Return what another design has of an amount; of latency what it takes more or less.

    >>> change_text("params", 2624, 1344), change_text("latency", Fraction(1, 2), Fraction(3, 4))
    ('parameters 2,624 to 1,344 (-49%)', '+0.25 ms')
    """
    if name == LATENCY:
        return f"{float(after - before):+.3g} ms"
    text = f"{_LABELS[name]} {before:,} to {after:,}"
    return f"{text} ({float(after / before - 1):+.0%})" if name in ("params", "macs") else text


def next_better(
    designs: Sequence[Design], others: Sequence[Design], latency: BlockLatency | None = None
) -> tuple[tuple[Trade, ...], ...]:
    """Return for each design what the next better one in each amount would cost.

    `others` are those that could be taken instead, also outside of the bounds: of those for the
    same widths that nothing beats in all amounts, latency included where it is known, the one with
    the nearest better value. Where one is the next better in several amounts it is there once.

    >>> next_better((), ())
    ()
    """
    times = {} if latency is None else _times((*designs, *others), latency)
    costs = _costs(times)

    def values(design: Design) -> dict[str, Fraction | int]:
        amounts: dict[str, Fraction | int] = {
            name: getattr(design, attribute) for name, (attribute, _) in DESIGN_AMOUNTS.items()
        }
        time = times.get(id(design))
        return amounts if time is None else amounts | {LATENCY: time.ms}

    fronts: dict[Any, list[Design]] = {}
    for design in _unbeaten(others, costs):
        fronts.setdefault(design.replaces, []).append(design)
    return tuple(
        _trades(design, fronts.get(design.replaces, []), values, costs) for design in designs
    )


def unbeaten(designs: Iterable[Design], latency: BlockLatency) -> tuple[Design, ...]:
    """Return the designs that no other for the same widths beats in all amounts and latency.

    All of `DESIGN_AMOUNTS`; one whose latency is not known is the slowest. Fewest parameters first.

    >>> unbeaten((), lambda block, stride: None)
    ()
    """
    rivals = tuple(designs)
    return ranked(_unbeaten(rivals, _costs(_times(rivals, latency))))


def with_latency_dominators(designs: Iterable[Design], latency: BlockLatency) -> tuple[Design, ...]:
    """Return designs for the same widths, marked with what beats them as `unbeaten` compares.

    >>> with_latency_dominators((), lambda block, stride: None)
    ()
    """
    rivals = tuple(designs)
    names = _dominators(rivals, _costs(_times(rivals, latency))) if rivals else ()
    return tuple(
        replace(design, dominated_by=name) for design, name in zip(rivals, names, strict=True)
    )


def _costs(times: Mapping[int, Latency]) -> Callable[[Design], list[Fraction | float]]:
    """Return the function to all amounts of a design, and its latency if any is known."""

    def costs(design: Design) -> list[Fraction | float]:
        amounts = [amount_of(design, name) for name in DESIGN_AMOUNTS]
        return [*amounts, *[_ms(times, design)] * bool(times)]

    return costs


def _unbeaten(
    designs: Iterable[Design], costs: Callable[[Design], Sequence[Fraction | float]]
) -> list[Design]:
    alike: dict[Any, list[Design]] = {}
    for design in designs:
        alike.setdefault(design.replaces, []).append(design)
    return [
        design
        for rivals in alike.values()
        for design, name in zip(rivals, _dominators(rivals, costs), strict=True)
        if name is None
    ]


def _trades(
    design: Design,
    front: Sequence[Design],
    values: Callable[[Design], Mapping[str, Fraction | int]],
    costs: Callable[[Design], Sequence[Fraction | float]],
) -> tuple[Trade, ...]:
    here = values(design)
    amounts = [values(other) for other in front]
    nearest: dict[int, list[str]] = {}
    for name, value in here.items():
        sign = -1 if name == LEAST_FAN_IN else 1
        better = [
            (-sign * there[name], costs(front[index]), index)
            for index, there in enumerate(amounts)
            if name in there and sign * there[name] < sign * value
        ]
        if better:
            nearest.setdefault(min(better)[-1], []).append(name)
    return tuple(
        Trade(
            front[index],
            tuple(names),
            {
                name: (value, amounts[index][name])
                for name, value in here.items()
                if amounts[index].get(name, value) != value
            },
        )
        for index, names in nearest.items()
    )


def _check_width(catalogue: Catalogue, channels: int) -> None:
    widths = {setting.channels for setting in catalogue.settings}
    widths |= {design.channels for design in catalogue.designs}
    if widths and channels not in widths:
        raise SettingError.because(
            f"the catalogue has no such {ARGUMENT}",
            got=channels,
            allowed=", ".join(map(str, sorted(widths))),
            remedy="choose one of them or enumerate that width",
            argument="channels",
        )
