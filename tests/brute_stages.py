"""Stage layouts by brute force: every block, width and depth of every stage.

Fields, gains and costs are counted from the definitions; nothing of the library is imported.
`layouts` takes anything that has the attributes of a stages problem.
"""

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from itertools import pairwise, product
from math import exp, log
from types import SimpleNamespace
from typing import Any, NamedTuple

from brute_groups import copy_widths, sight
from brute_layers import KINDS, Layer, layer

Chain = tuple[tuple[Layer, int], ...]
Inside = tuple[Fraction | None, Fraction | None, int | None]
# The block of an open choice from one width to another, or None.
Groups = Callable[[Any, int, int], Any]
# Objectives this close, relatively, are equal: others of these small problems are far apart.
SAME = 1e-9
OBJECTIVES = ("gain", "log-gain", "macs-3/4", "width-field", "energy")


class Row(NamedTuple):
    """A layout with its objectives and costs; depths include the layers of the stem that count."""

    objectives: tuple[float, ...]
    params: int
    macs: int
    # Elements that convolutions and dense layers write.
    activations: int
    layers: int
    latency_ms: Fraction
    # Elements that are live at once.
    peak_memory: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    blocks: tuple[str, ...]
    strides: tuple[int, ...]

    @property
    def gain(self) -> float:
        return self.objectives[0]


class Part(NamedTuple):
    """A stage of a layout at one depth."""

    objectives: tuple[float, ...]
    params: int
    macs: int
    activations: int
    layers: int
    latency_ms: Fraction
    peak_memory: int
    depth: int
    block: str


@cache
def chain(block: Any, inside: Inside, entry: int, width: int) -> Chain | None:
    """Return the layers of a block between two widths, with kernels; None if it does not fit.

    `inside`: bottleneck, expansion and channels of the choice.
    """
    ratio, expansion, inner = inside
    if ratio is not None and (ratio * width).denominator != 1:
        return None
    widths = None
    mixing = sum(KINDS[term.kind].mixing for term in block.layers)
    if expansion is not None or inner is not None:
        channels = Fraction(inner if expansion is None else expansion * entry)
        if channels.denominator != 1 or (mixing < 2 and expansion != 1):
            return None
        widths = (int(channels),) * (mixing - 1) if mixing > 1 else None
    setting = SimpleNamespace(
        composition=block.composition, out_width=width, widths=widths, bottleneck=ratio
    )
    pairs = copy_widths(setting, entry) + copy_widths(setting, width) * (block.repeats - 1)
    terms = block.layers * block.repeats
    if pairs[-1][1] != width or any(
        c % (term.groups or 1) for term, pair in zip(terms, pairs, strict=True) for c in pair
    ):
        return None
    return tuple(
        (layer(term.kind, term.groups or 1, term.overlap or Fraction(0), a, b), term.kernel or 1)
        for term, (a, b) in zip(terms, pairs, strict=True)
    )


def weights(conv: Layer, kernel: int) -> int:
    return KINDS[conv.kind].written * conv.c_out * conv.fan_in * kernel**2


def params_per_channel(ends: Any) -> int:
    return (2 if ends.batch_norm else 0) + (1 if ends.bias else 0)


def layer_params(ends: Any, conv: Layer, kernel: int) -> int:
    """Return the weights of a layer with the batch norm and bias of its channels."""
    return weights(conv, kernel) + KINDS[conv.kind].written * conv.c_out * params_per_channel(ends)


def cost(
    ends: Any, block: Chain, side: int, stride: int, widths: tuple[int, int] | None
) -> tuple[int, int, int]:
    """Return parameters, MACs and activations of a block.

    `widths`: those that a projection joins.
    """
    spatial = [KINDS[conv.kind].spatial for conv, _ in block]
    strided = spatial.index(True) if True in spatial else 0
    params = sum(layer_params(ends, *pair) for pair in block)
    pixels = [(side * (stride if index < strided else 1)) ** 2 for index, _ in enumerate(block)]
    macs = sum(weights(*pair) * n for pair, n in zip(block, pixels, strict=True))
    written = sum(
        KINDS[conv.kind].written * conv.c_out * n
        for (conv, _), n in zip(block, pixels, strict=True)
    )
    if widths is not None:
        a, b = widths
        params += a * b + params_per_channel(ends) * b
        macs += a * b * side**2
        written += b * side**2
    return params, macs, written


def stem_and_head_cost(ends: Any, last_width: int) -> tuple[int, int, int]:
    """Return parameters, MACs and activations of stem and head."""
    stem = [(_stem_layer(stem_layer.layer), stem_layer.side) for stem_layer in ends.stem]
    params = sum(layer_params(ends, *pair) for pair, _ in stem)
    macs = sum(weights(*pair) * side**2 for pair, side in stem)
    written = sum(conv.c_out * side**2 for (conv, _), side in stem)
    inputs = last_width * ends.pixels
    for width in ends.classifier:
        params, macs, inputs = params + inputs * width + width, macs + inputs * width, width
        written += width
    return params, macs, written


def _stem_layer(sized: Any) -> tuple[Layer, int]:
    return layer(sized.layer.kind, 1, Fraction(0), sized.c_in, sized.c_out), sized.layer.kernel


def gains(blocks: list[Chain], side: int, alpha: float) -> tuple[float, float]:
    """Return the sums of the gains and of the log-gains of the blocks but the first."""
    entry = blocks[0][0][0].c_in
    fields, state = sight(entry)
    reach, volumes = 1, []
    for block in blocks:
        for conv, kernel in block:
            state = fields.after(state, conv)
            reach += kernel - 1
        volumes.append(min(reach, side) ** 2 * fields.least[state])
    v0 = side**2 * entry
    pairs = [(a, b, exp(-alpha * a / v0)) for a, b in pairwise(volumes)]
    return sum((b - a) / a * decay for a, b, decay in pairs), sum(
        log(b / a) * decay for a, b, decay in pairs
    )


def width_objectives(block: Chain, side: int, stride: int) -> tuple[float, float, float]:
    """Return Σ MACs^(3/4), Σ c_out^(3/4) · side · ln(fan-in) and Σ ln ln c_out of the layers."""
    spatial = [KINDS[conv.kind].spatial for conv, _ in block]
    strided = spatial.index(True) if True in spatial else 0
    macs, width_field, energy = 0.0, 0.0, 0.0
    for index, (conv, kernel) in enumerate(block):
        if KINDS[conv.kind].written:
            written = side * (stride if index < strided else 1)
            macs += (weights(conv, kernel) * written**2) ** 0.75
            width_field += conv.c_out**0.75 * written * log(conv.fan_in * kernel**2)
            energy += log(log(max(2, conv.c_out)))
    return macs, width_field, energy


def block_peak(block: Chain, side: int, stride: int, shortcut: str) -> int:
    """Return the most elements that are live at once in a block; a shortcut keeps its input."""
    spatial = [KINDS[conv.kind].spatial for conv, _ in block]
    strided = spatial.index(True) if True in spatial else 0
    entry = block[0][0].c_in * (side * stride) ** 2
    read, most = entry, entry
    for index, (conv, _) in enumerate(block):
        if KINDS[conv.kind].written:
            written = conv.c_out * (side * (stride if index < strided else 1)) ** 2
            kept = entry if shortcut != "none" and index else 0
            most, read = max(most, kept + read + written), written
    if shortcut != "none":
        # The projection reads the input once more; an identity is added where it is.
        most = max(most, entry + read * (2 if shortcut == "projection" else 1))
    return most


def stem_and_head_peak(problem: Any, last_width: int) -> int:
    """Return the most elements that are live at once in stem and head."""
    ends, stages = problem.start.stem_and_head, problem.start.stages
    channels, side = ends.inputs, _side_before(problem, 0)
    most = channels * side**2
    for part in ends.stem:
        most = max(most, channels * side**2 + part.layer.c_out * part.side**2)
        channels, side = part.layer.c_out, part.side
    pixels = stages[-1].side_out ** 2
    most = max(most, last_width * pixels)
    if ends.classifier and ends.pixels < pixels:
        most = max(most, last_width * (pixels + ends.pixels))
    for a, b in pairwise([last_width * ends.pixels, *ends.classifier]):
        most = max(most, a + b)
    return most


def _side_before(problem: Any, index: int) -> int:
    """Return the side of the feature maps before a stage, and before any pooling."""
    stages, stem = problem.start.stages, problem.start.stem_and_head.stem
    if index:
        return int(stages[index - 1].side_out)
    return int(stem[-1].side if stem else stages[0].side_out * stages[0].stride)


class Place(NamedTuple):
    """Where a stage may stand: the side by which its field counts, its stride, what it writes."""

    side: int
    stride: int
    side_out: int


def places(problem: Any) -> Iterator[tuple[Place, ...]]:
    """Yield the places of all stages: those of the start, or every pattern of free strides."""
    stages = problem.start.stages
    if problem.strides is None:
        yield tuple(Place(stage.side, stage.stride, stage.side_out) for stage in stages)
        return
    for strides in product(*problem.strides):
        side, row = stages[0].side_out * stages[0].stride, []
        for index, stride in enumerate(strides):
            if side % stride:
                break
            counted = stages[0].side if index == 0 and stages[0].stem else side
            side //= stride
            row.append(Place(counted, stride, side))
        if len(row) == len(strides) and side == stages[-1].side_out:
            yield tuple(row)


class Stages:
    """The possible stages of a problem for each input width and place."""

    def __init__(self, problem: Any, groups: Groups | None = None) -> None:
        self.problem, self.groups = problem, groups
        self.cache: dict[Any, list[Part]] = {}

    def parts(self, index: int, choice: Any, entry: int, width: int, place: Place) -> list[Part]:
        """Return a stage of every depth; none where the block does not fit."""
        key = (index, choice, entry, width, place)
        if key not in self.cache:
            self.cache[key] = list(self._parts(*key))
        return self.cache[key]

    def _parts(
        self, index: int, choice: Any, entry: int, width: int, place: Place
    ) -> Iterator[Part]:
        problem = self.problem
        ends = problem.start.stem_and_head
        side, stride, side_out = place
        first, repeated = self._block(choice, entry, width), self._block(choice, width, width)
        if first is None or repeated is None:
            return
        (first_name, opens), (repeated_name, follows) = first, repeated
        if stride > 1 and not any(KINDS[conv.kind].spatial for conv, _ in opens):
            return
        counted = (
            [_stem_layer(stem_layer.layer) for stem_layer in ends.stem] if ends.stem_counts else []
        )
        stem = [] if index else [(pair,) for pair in counted]
        times = [Fraction(0), Fraction(0)]
        if problem.latency is not None:
            # The table has no column for widths inside.
            times = [
                problem.latency.cases.get((str(choice.block), c, width, side_out, s))
                if block == chain(choice.block, (None,) * 3, c, width)
                else None
                for block, c, s in ((opens, entry, stride), (follows, width, 1))
            ]
            if choice.bottleneck is not None:
                return
            if problem.depth_choices[index][-1] == len(stem) + 1:
                times[1] = Fraction(0)  # no block follows the first
            if None in times:
                return
        joined = choice.type or ("residual" if ends.projections else "plain")
        shortcuts = {"plain": ("none", "none"), "residual": ("projection", "identity")}.get(joined)
        if shortcuts is None:
            same = entry == width and stride == 1
            shortcuts = ("identity" if same else "none", "identity")
        projected = (entry, width) if joined == "residual" else None
        first_cost = cost(ends, opens, side_out, stride, projected)
        repeated_cost = cost(ends, follows, side_out, 1, None)
        peaks = [
            block_peak(opens, side_out, stride, shortcuts[0]),
            block_peak(follows, side_out, 1, shortcuts[1]),
        ]
        written = side_out * stride
        read = _side_before(problem, index) if problem.strides is None or not index else written
        if written < read:
            peaks[0] = max(peaks[0], entry * (read**2 + written**2))
        opened = width_objectives(opens, side_out, stride)
        more = width_objectives(follows, side_out, 1)
        for depth in problem.depth_choices[index]:
            repeats = depth - len(stem) - 1
            by_field = gains([*stem, opens, *[follows] * repeats], side, problem.alpha)
            by_width = (a + repeats * b for a, b in zip(opened, more, strict=True))
            yield Part(
                (*by_field, *by_width),
                *(a + repeats * b for a, b in zip(first_cost, repeated_cost, strict=True)),
                len(opens) + repeats * len(follows),
                times[0] + repeats * times[1],
                max(peaks[: 2 if repeats else 1]),
                depth,
                repeated_name if repeats else first_name,
            )

    def _block(self, choice: Any, entry: int, width: int) -> tuple[str, Chain] | None:
        block = choice.block
        if block is None and self.groups is not None:
            block = self.groups(choice, entry, width)
        inside = (choice.bottleneck, choice.expansion, choice.inner)
        layers = None if block is None else chain(block, inside, entry, width)
        return None if layers is None else (str(block), layers)


def layouts(problem: Any, groups: Groups | None = None) -> Iterator[Row]:
    """Yield every layout, ignoring budgets."""
    stages, ends = Stages(problem, groups), problem.start.stem_and_head
    inputs = ends.stem[-1].layer.c_out if ends.stem else ends.inputs
    for where, widths in product(list(places(problem)), product(*problem.width_choices)):
        if problem.monotone and list(widths) != sorted(widths):
            continue
        params, macs, written = stem_and_head_cost(ends, widths[-1])
        ends_peak = stem_and_head_peak(problem, widths[-1])
        for choices in product(*problem.block_choices):
            entries = (inputs, *widths)
            by_stage = [
                stages.parts(n, choice, entries[n], widths[n], where[n])
                for n, choice in enumerate(choices)
            ]
            for parts in product(*by_stage):
                yield Row(
                    tuple(map(sum, zip(*(part.objectives for part in parts), strict=True))),
                    sum((part.params for part in parts), params),
                    sum((part.macs for part in parts), macs),
                    sum((part.activations for part in parts), written),
                    sum(part.layers for part in parts),
                    sum((part.latency_ms for part in parts), Fraction(0)),
                    max(ends_peak, *(part.peak_memory for part in parts)),
                    tuple(part.depth for part in parts),
                    widths,
                    tuple(part.block for part in parts),
                    tuple(place.stride for place in where),
                )


def ranking(problem: Any, rows: list[Row]) -> list[tuple[float, Row]]:
    """Return the layouts within budgets, the greatest objective first.

    Ties go to the objectives behind it in `OBJECTIVES`, those before it, then to the fewest
    parameters. Each comes with its objective, one number for those that are equal.
    """
    budgets = problem.budgets
    names = [name for name in Row._fields[1:7] if getattr(budgets, name) is not None]
    kept = [row for row in rows if all(getattr(row, n) <= getattr(budgets, n) for n in names)]
    first = OBJECTIVES.index(problem.objective)
    order = [*range(first, len(OBJECTIVES)), *range(first)]
    levels = {index: _levels([row.objectives[index] for row in kept]) for index in order}
    ranked = sorted(
        kept,
        key=lambda row: (*(-levels[index][row.objectives[index]] for index in order), row.params),
    )
    return [(levels[first][row.objectives[first]], row) for row in ranked]


def _levels(values: list[float]) -> dict[float, float]:
    """Return for each value the greatest that is equal to it."""
    same = SAME * max([1.0, *map(abs, values)])
    levels: dict[float, float] = {}
    greatest = previous = float("inf")
    for value in sorted(set(values), reverse=True):
        greatest = greatest if previous - value < same else value
        levels[value], previous = greatest, value
    return levels
