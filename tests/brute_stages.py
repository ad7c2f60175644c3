"""Stage layouts by brute force: every block, width and depth of every stage, one after the other.

Fields, gains and costs are counted from the definitions; nothing of the library is imported.
`layouts` takes anything that has the attributes of a stages problem.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from math import exp
from types import SimpleNamespace
from typing import Any, NamedTuple

from brute_groups import copy_widths, sight
from brute_layers import KINDS, Layer, layer

Chain = tuple[tuple[Layer, int], ...]
# The block that an open unit has from one width to another, or None.
Groups = Callable[[Any, int, int], Any]
# Gains this close are equal: others of these small problems are far apart.
SAME = 1e-8


class Row(NamedTuple):
    """A layout, what it gains and has; depths count the layers of the stem that count."""

    gain: float
    params: int
    macs: int
    layers: int
    latency_ms: Fraction
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    blocks: tuple[str, ...]


class Part(NamedTuple):
    """A stage of a layout at one depth."""

    gain: float
    params: int
    macs: int
    layers: int
    latency_ms: Fraction
    depth: int
    block: str


@cache
def chain(block: Any, ratio: Fraction | None, entry: int, width: int) -> Chain | None:
    """The layers of a block between two widths with their kernels, None where it does not fit."""
    if ratio is not None and (ratio * width).denominator != 1:
        return None
    asked = SimpleNamespace(
        composition=block.composition, out_width=width, widths=None, bottleneck=ratio
    )
    pairs = copy_widths(asked, entry) + copy_widths(asked, width) * (block.repeats - 1)
    terms = block.layers * block.repeats
    if pairs[-1][1] != width or any(
        c % (term.groups or 1) for term, pair in zip(terms, pairs, strict=True) for c in pair
    ):
        return None
    return tuple(
        (layer(term.kind, term.groups or 1, term.overlap or Fraction(0), a, b), term.kernel or 1)
        for term, (a, b) in zip(terms, pairs, strict=True)
    )


def weights(each: Layer, kernel: int) -> int:
    return KINDS[each.kind].written * each.c_out * each.fan_in * kernel**2


def per_channel(frame: Any) -> int:
    return (2 if frame.batch_norm else 0) + (1 if frame.bias else 0)


def numbers(frame: Any, each: Layer, kernel: int) -> int:
    """The weights of a layer and what its channels have beside."""
    return weights(each, kernel) + KINDS[each.kind].written * each.c_out * per_channel(frame)


def cost(
    frame: Any, unit: Chain, side: int, stride: int, widths: tuple[int, int] | None
) -> tuple[int, int]:
    """Parameters and MACs of a unit; `widths`: those a projection joins, where it may have one."""
    holds = [KINDS[each.kind].spatial for each, _ in unit]
    first = holds.index(True) if True in holds else 0
    params = sum(numbers(frame, *each) for each in unit)
    macs = sum(
        weights(*each) * (side * (stride if place < first else 1)) ** 2
        for place, each in enumerate(unit)
    )
    if widths is not None and frame.projections:
        a, b = widths
        params += a * b + per_channel(frame) * b
        macs += a * b * side**2
    return params, macs


def around(frame: Any, last: int) -> tuple[int, int]:
    """Parameters and MACs of stem and classifier."""
    stem = [(_stem(each.layer), each.side) for each in frame.stem]
    params = sum(numbers(frame, *each) for each, _ in stem)
    macs = sum(weights(*each) * side**2 for each, side in stem)
    now = last * frame.pixels
    for width in frame.classifier:
        params, macs, now = params + now * width + width, macs + now * width, width
    return params, macs


def _stem(each: Any) -> tuple[Layer, int]:
    return layer(each.layer.kind, 1, Fraction(0), each.c_in, each.c_out), each.layer.kernel


def gains(units: list[Chain], side: int, alpha: float) -> list[float]:
    """The gain of each unit but the first."""
    entry = units[0][0][0].c_in
    known, state = sight(entry)
    reach, volumes = 1, []
    for unit in units:
        for each, kernel in unit:
            state = known.after(state, each)
            reach += kernel - 1
        volumes.append(min(reach, side) ** 2 * known.least[state])
    v0 = side**2 * entry
    return [(b - a) / a * exp(-alpha * a / v0) for a, b in pairwise(volumes)]


class Stages:
    """The stages of a problem: what each may be, entered from a width."""

    def __init__(self, problem: Any, groups: Groups | None = None) -> None:
        self.problem, self.groups = problem, groups
        self.known: dict[Any, list[Part]] = {}

    def parts(self, place: int, unit: Any, entry: int, width: int) -> list[Part]:
        """A stage with a unit, of every depth; none where the unit does not fit."""
        key = (place, unit, entry, width)
        if key not in self.known:
            self.known[key] = list(self._parts(*key))
        return self.known[key]

    def _parts(self, place: int, unit: Any, entry: int, width: int) -> Iterator[Part]:
        problem, stage = self.problem, self.problem.start.stages[place]
        frame = problem.start.stem_and_head
        first, more = self._unit(unit, entry, width), self._unit(unit, width, width)
        if first is None or more is None:
            return
        (first_name, opens), (more_name, follows) = first, more
        if stage.stride > 1 and not any(KINDS[each.kind].spatial for each, _ in opens):
            return
        times = [Fraction(0), Fraction(0)]
        if problem.latency is not None:
            case = (width, width, stage.side, 1)
            found = [
                problem.latency.cases.get((first_name, entry, width, stage.side, stage.stride)),
                problem.latency.cases.get((more_name, *case)),
            ]
            if None in found:
                return
            times = found
        stem = [_stem(each.layer) for each in frame.stem] if frame.stem_counts else []
        before = [] if place else [(each,) for each in stem]
        opened = cost(frame, opens, stage.side, stage.stride, (entry, width))
        each = cost(frame, follows, stage.side, 1, None)
        for depth in range(len(before) + 1, problem.max_depth + 1):
            again = depth - len(before) - 1
            yield Part(
                sum(gains([*before, opens, *[follows] * again], stage.side, problem.alpha)),
                opened[0] + again * each[0],
                opened[1] + again * each[1],
                len(opens) + again * len(follows),
                times[0] + again * times[1],
                depth,
                more_name if again else first_name,
            )

    def _unit(self, unit: Any, entry: int, width: int) -> tuple[str, Chain] | None:
        block = unit.block
        if block is None and self.groups is not None:
            block = self.groups(unit, entry, width)
        found = None if block is None else chain(block, unit.bottleneck, entry, width)
        return None if found is None else (str(block), found)


def layouts(problem: Any, groups: Groups | None = None) -> Iterator[Row]:
    """Yield every layout, whatever its budget."""
    known, frame = Stages(problem, groups), problem.start.stem_and_head
    opens = frame.stem[-1].layer.c_out if frame.stem else frame.inputs
    for widths in product(*problem.width_choices):
        if problem.monotone and list(widths) != sorted(widths):
            continue
        params, macs = around(frame, widths[-1])
        for units in product(*problem.block_choices):
            entries = (opens, *widths)
            each = [known.parts(n, unit, entries[n], widths[n]) for n, unit in enumerate(units)]
            for parts in product(*each):
                yield Row(
                    sum(part.gain for part in parts),
                    sum((part.params for part in parts), params),
                    sum((part.macs for part in parts), macs),
                    sum(part.layers for part in parts),
                    sum((part.latency_ms for part in parts), Fraction(0)),
                    tuple(part.depth for part in parts),
                    widths,
                    tuple(part.block for part in parts),
                )


def ranking(problem: Any, rows: list[Row]) -> list[tuple[float, Row]]:
    """Return the layouts within budgets, the greatest gain first, then the fewest parameters.

    Beside each its gain, one number for those that are equal.
    """
    bounds = problem.budgets
    names = [name for name in Row._fields[1:5] if getattr(bounds, name) is not None]
    kept = [row for row in rows if all(getattr(row, n) <= getattr(bounds, n) for n in names)]
    ranked: list[tuple[float, Row]] = []
    for row in sorted(kept, key=lambda row: -row.gain):
        near = ranked and ranked[-1][0] - row.gain < SAME
        ranked.append((ranked[-1][0] if near else row.gain, row))
    return sorted(ranked, key=lambda each: (-each[0], each[1].params))
