"""The kinds of convolution and what sequences of layers see, for the brute-force oracles.

Written from the definitions alone, with plain integers as sets of channels; nothing of the library
is imported.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import floor
from typing import Any

Reads = Callable[[int, int, int, Fraction], list[list[int]]]


@dataclass(frozen=True)
class Kind:
    """`reads(c_in, c_out, groups, overlap)`: the channels that each output reads.

    `blocked`: those that it reads in blocked order; None for a kind without orders.
    """

    reads: Reads
    spatial: bool = False
    mixing: bool = True
    grouped: bool = False
    rolling: bool = False
    written: bool = True
    blocked: Reads | None = None


def _all(c_in: int, c_out: int, g: int, o: Fraction) -> list[list[int]]:
    return [list(range(c_in)) for _ in range(c_out)]


def _own(c_in: int, c_out: int, g: int, o: Fraction) -> list[list[int]]:
    return [[j] for j in range(c_out)]


def _group(c_in: int, c_out: int, g: int, o: Fraction) -> list[list[int]]:
    groups = [list(range(n * c_in // g, (n + 1) * c_in // g)) for n in range(g)]
    return [group for group in groups for _ in range(c_out // g)]


def _window(c_in: int, c_out: int, g: int, o: Fraction) -> list[list[int]]:
    w = c_in // g
    s = w - floor(o * w)
    return [[(j * s + t) % c_in for t in range(w)] for j in range(c_out)]


def window_starts(c_in: int, g: int, o: Fraction) -> list[int]:
    """The first channel of every distinct window, in the order in which they follow."""
    w = c_in // g
    s = w - floor(o * w)
    starts = [0]
    while (start := (starts[-1] + s) % c_in) != 0:
        starts.append(start)
    return starts


def _shared_window(c_in: int, c_out: int, g: int, o: Fraction) -> list[list[int]]:
    starts = window_starts(c_in, g, o)
    firsts = [starts[j * len(starts) // c_out] for j in range(c_out)]
    return [[(first + t) % c_in for t in range(c_in // g)] for first in firsts]


def _dealt(c_in: int, c_out: int, g: int, o: Fraction) -> list[list[int]]:
    runs = [list(range(n * c_in // g, (n + 1) * c_in // g)) for n in range(g)]
    return [[run[turn]] for turn in range(c_in // g) for run in runs]


# In canonical order. CONV is GC with one group; no composition of the search contains it.
KINDS = {
    "PW": Kind(_all),
    "GC": Kind(_group, spatial=True, grouped=True),
    "DW": Kind(_own, spatial=True, mixing=False),
    "GPW": Kind(_group, grouped=True),
    "RPW": Kind(_window, grouped=True, rolling=True, blocked=_shared_window),
    "SH": Kind(_dealt, mixing=False, grouped=True, written=False),
    "CONV": Kind(_all, spatial=True),
}


@dataclass(frozen=True, eq=False)
class Layer:
    """A kind with its parameters between two widths; one object for each."""

    kind: str
    groups: int
    overlap: Fraction
    c_in: int
    c_out: int
    order: str
    reads: tuple[tuple[int, ...], ...]

    @property
    def fan_in(self) -> int:
        return len(self.reads[0])

    @property
    def keeps_width(self) -> bool:
        return self.c_in == self.c_out

    def sets(self) -> list[set[int]]:
        return list(map(set, self.reads))


def meets(floors: Any, layer: Layer) -> bool:
    """Whether a layer meets floors: counted in what its outputs read."""
    row = KINDS[layer.kind]
    if not row.mixing:
        return True
    outputs = Counter(map(frozenset, layer.reads))
    fan_ins = {len(inputs) for inputs in outputs}
    if min(fan_ins) < max(floors.least_fan_in, row.spatial and floors.least_spatial_fan_in):
        return False
    if layer.groups == 1:
        return True
    per_group = fan_ins if row.rolling else fan_ins | set(outputs.values())
    within = floors.most_groups is None or layer.groups <= floors.most_groups
    return within and all(channels % floors.multiple == 0 for channels in per_group)


@cache
def _layer(
    row: Kind, kind: str, groups: int, overlap: Fraction, c_in: int, c_out: int, order: str
) -> Layer:
    reads = (row.blocked if order == "blocked" else row.reads)(c_in, c_out, groups, overlap)
    assert len(reads) == c_out
    return Layer(kind, groups, overlap, c_in, c_out, order, tuple(map(tuple, reads)))


def layer(
    kind: str, groups: int, overlap: Fraction, c_in: int, c_out: int, order: str = "rolling"
) -> Layer:
    return _layer(KINDS[kind], kind, groups, overlap, c_in, c_out, order)


def orders(kind: str, rpw_order: str) -> tuple[str, ...]:
    """The orders to try for a kind."""
    if rpw_order == "rolling" or not KINDS[kind].rolling:
        return ("rolling",)
    return ("blocked",) if rpw_order == "blocked" else ("rolling", "blocked")


def enough_filters(order: str, g: int, o: Fraction, pairs: list[tuple[int, int]]) -> bool:
    """Whether there is a filter for every window at all (input, output) widths, if there must."""
    return order != "blocked" or all(len(window_starts(a, g, o)) <= b for a, b in pairs)


class Sight:
    """The sets of channels that the outputs of a sequence of layers see; states are numbered."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []
        self.least: list[int] = []
        self._numbers: dict[tuple[int, ...], int] = {}
        self._steps: dict[tuple[int, Layer], int] = {}
        self.start = cache(self._start)

    def _number(self, rows: tuple[int, ...]) -> int:
        if rows not in self._numbers:
            self._numbers[rows] = len(self.rows)
            self.rows.append(rows)
            self.least.append(min(row.bit_count() for row in rows))
        return self._numbers[rows]

    def _start(self, channels: int) -> int:
        return self._number(tuple(1 << j for j in range(channels)))

    def after(self, number: int, layer: Layer) -> int:
        state = self._steps.get((number, layer))
        if state is None:
            below, seen = self.rows[number], []
            for read in layer.reads:
                union = 0
                for channel in read:
                    union |= below[channel]
                seen.append(union)
            state = self._steps[number, layer] = self._number(tuple(seen))
        return state
