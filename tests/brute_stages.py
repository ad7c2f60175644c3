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
    layers: int
    latency_ms: Fraction
    # Elements that are live at once.
    peak_memory: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    blocks: tuple[str, ...]

    @property
    def gain(self) -> float:
        return self.objectives[0]


class Part(NamedTuple):
    """A stage of a layout at one depth."""

    objectives: tuple[float, ...]
    params: int
    macs: int
    layers: int
    latency_ms: Fraction
    peak_memory: int
    depth: int
    block: str


@cache
def chain(block: Any, ratio: Fraction | None, entry: int, width: int) -> Chain | None:
    """Return the layers of a block between two widths, with kernels; None if it does not fit."""
    if ratio is not None and (ratio * width).denominator != 1:
        return None
    setting = SimpleNamespace(
        composition=block.composition, out_width=width, widths=None, bottleneck=ratio
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
) -> tuple[int, int]:
    """Return parameters and MACs of a block; `widths`: those that a projection may join."""
    spatial = [KINDS[conv.kind].spatial for conv, _ in block]
    strided = spatial.index(True) if True in spatial else 0
    params = sum(layer_params(ends, *pair) for pair in block)
    macs = sum(
        weights(*pair) * (side * (stride if index < strided else 1)) ** 2
        for index, pair in enumerate(block)
    )
    if widths is not None and ends.projections:
        a, b = widths
        params += a * b + params_per_channel(ends) * b
        macs += a * b * side**2
    return params, macs


def stem_and_head_cost(ends: Any, last_width: int) -> tuple[int, int]:
    """Return parameters and MACs of stem and head."""
    stem = [(_stem_layer(stem_layer.layer), stem_layer.side) for stem_layer in ends.stem]
    params = sum(layer_params(ends, *pair) for pair, _ in stem)
    macs = sum(weights(*pair) * side**2 for pair, side in stem)
    inputs = last_width * ends.pixels
    for width in ends.classifier:
        params, macs, inputs = params + inputs * width + width, macs + inputs * width, width
    return params, macs


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


def block_peak(ends: Any, block: Chain, side: int, stride: int, opens: bool) -> int:
    """Return the most elements that are live at once in a block; a shortcut keeps its input."""
    spatial = [KINDS[conv.kind].spatial for conv, _ in block]
    strided = spatial.index(True) if True in spatial else 0
    entry = block[0][0].c_in * (side * stride) ** 2
    read, most = entry, entry
    for index, (conv, _) in enumerate(block):
        if KINDS[conv.kind].written:
            written = conv.c_out * (side * (stride if index < strided else 1)) ** 2
            kept = entry if ends.projections and index else 0
            most, read = max(most, kept + read + written), written
    if ends.projections:
        # The projection reads the input once more; an identity is added where it is.
        most = max(most, entry + read * (2 if opens else 1))
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


class Stages:
    """The possible stages of a problem for each input width."""

    def __init__(self, problem: Any, groups: Groups | None = None) -> None:
        self.problem, self.groups = problem, groups
        self.cache: dict[Any, list[Part]] = {}

    def parts(self, index: int, choice: Any, entry: int, width: int) -> list[Part]:
        """Return a stage of every depth; none where the block does not fit."""
        key = (index, choice, entry, width)
        if key not in self.cache:
            self.cache[key] = list(self._parts(*key))
        return self.cache[key]

    def _parts(self, index: int, choice: Any, entry: int, width: int) -> Iterator[Part]:
        problem, stage = self.problem, self.problem.start.stages[index]
        ends = problem.start.stem_and_head
        first, repeated = self._block(choice, entry, width), self._block(choice, width, width)
        if first is None or repeated is None:
            return
        (first_name, opens), (repeated_name, follows) = first, repeated
        if stage.stride > 1 and not any(KINDS[conv.kind].spatial for conv, _ in opens):
            return
        counted = (
            [_stem_layer(stem_layer.layer) for stem_layer in ends.stem] if ends.stem_counts else []
        )
        stem = [] if index else [(pair,) for pair in counted]
        times = [Fraction(0), Fraction(0)]
        if problem.latency is not None:
            case = (width, width, stage.side_out, 1)
            times = [
                problem.latency.cases.get((first_name, entry, width, stage.side_out, stage.stride)),
                problem.latency.cases.get((repeated_name, *case)),
            ]
            if choice.bottleneck is not None:
                return  # the table has no column for it
            if problem.depth_choices[index][-1] == len(stem) + 1:
                times[1] = Fraction(0)  # no block follows the first
            if None in times:
                return
        first_cost = cost(ends, opens, stage.side_out, stage.stride, (entry, width))
        repeated_cost = cost(ends, follows, stage.side_out, 1, None)
        peaks = [
            block_peak(ends, opens, stage.side_out, stage.stride, True),
            block_peak(ends, follows, stage.side_out, 1, False),
        ]
        read, written = _side_before(problem, index), stage.side_out * stage.stride
        if written < read:
            peaks[0] = max(peaks[0], entry * (read**2 + written**2))
        opened = width_objectives(opens, stage.side_out, stage.stride)
        more = width_objectives(follows, stage.side_out, 1)
        for depth in problem.depth_choices[index]:
            repeats = depth - len(stem) - 1
            by_field = gains([*stem, opens, *[follows] * repeats], stage.side, problem.alpha)
            by_width = (a + repeats * b for a, b in zip(opened, more, strict=True))
            yield Part(
                (*by_field, *by_width),
                first_cost[0] + repeats * repeated_cost[0],
                first_cost[1] + repeats * repeated_cost[1],
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
        layers = None if block is None else chain(block, choice.bottleneck, entry, width)
        return None if layers is None else (str(block), layers)


def layouts(problem: Any, groups: Groups | None = None) -> Iterator[Row]:
    """Yield every layout, ignoring budgets."""
    stages, ends = Stages(problem, groups), problem.start.stem_and_head
    inputs = ends.stem[-1].layer.c_out if ends.stem else ends.inputs
    for widths in product(*problem.width_choices):
        if problem.monotone and list(widths) != sorted(widths):
            continue
        params, macs = stem_and_head_cost(ends, widths[-1])
        ends_peak = stem_and_head_peak(problem, widths[-1])
        for choices in product(*problem.block_choices):
            entries = (inputs, *widths)
            by_stage = [
                stages.parts(n, choice, entries[n], widths[n]) for n, choice in enumerate(choices)
            ]
            for parts in product(*by_stage):
                yield Row(
                    tuple(map(sum, zip(*(part.objectives for part in parts), strict=True))),
                    sum((part.params for part in parts), params),
                    sum((part.macs for part in parts), macs),
                    sum(part.layers for part in parts),
                    sum((part.latency_ms for part in parts), Fraction(0)),
                    max(ends_peak, *(part.peak_memory for part in parts)),
                    tuple(part.depth for part in parts),
                    widths,
                    tuple(part.block for part in parts),
                )


def ranking(problem: Any, rows: list[Row]) -> list[tuple[float, Row]]:
    """Return the layouts within budgets, the greatest objective first.

    Ties go to the objectives behind it in `OBJECTIVES`, those before it, then to the fewest
    parameters. Each comes with its objective, one number for those that are equal.
    """
    budgets = problem.budgets
    names = [name for name in Row._fields[1:6] if getattr(budgets, name) is not None]
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
