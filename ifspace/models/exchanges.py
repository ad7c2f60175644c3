"""Consecutive grouped layers of a network that exchange no channels.

From the graph of feature maps: the two layers have no other layer that mixes channels between them,
but depthwise layers, pooling, sums and selections of channels. What an output of the second sees of
what enters the first is propagated exactly, whatever lies between, so that a shuffle written as a
view, a transpose and a view counts as one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ifspace.block import SizedLayer
from ifspace.exchange import Exchange, is_grouped, missing_exchange, shuffle_order
from ifspace.models.fields import Propagation, sized_layer
from ifspace.models.graph import Node, Op, Trace
from ifspace.models.units import TracedStage
from ifspace.reach import Rows, through


@dataclass(frozen=True, slots=True)
class LayerExchange:
    """Two layers, by the full names of their modules, that exchange no channels.

    `joined`: whether a sum or a concatenation lies between them. `stage_field`: the fewest channels
    of the stage's input that an output of the second sees, as it is and with the shuffle; None if
    it lies in no stage.
    """

    first: str
    second: str
    exchange: Exchange
    joined: bool
    stage_field: tuple[int, int] | None


def layer_exchanges(trace: Trace, stages: Sequence[TracedStage]) -> tuple[LayerExchange, ...]:
    """Return the pairs of grouped layers that exchange no channels, in the order in which they run.

    None of a trace by hooks, which see no shuffles. Layers that run several times are one pair.

    >>> from torch import nn
    >>> from ifspace.models import analyze
    >>> net = nn.Sequential(nn.Conv2d(64, 64, 3, groups=4), nn.Conv2d(64, 64, 1, groups=4))
    >>> (pair,) = analyze(net, (64, 8, 8)).exchanges
    >>> pair.first, pair.second, pair.exchange.field, pair.exchange.shuffled
    ('0', '1', 16, 64)
    """
    if trace.how == "hooks":
        return ()
    stage_of = {index: stage for stage in stages for index in stage.nodes}
    pairs: dict[tuple[str, str], LayerExchange] = {}
    for node in trace.nodes:
        for pair in _of_layer(trace, node, stage_of):
            pairs.setdefault((pair.first, pair.second), pair)
    return tuple(pairs.values())


def _of_layer(
    trace: Trace, node: Node, stage_of: Mapping[int, TracedStage]
) -> Iterator[LayerExchange]:
    """Yield the pair of a layer and the last grouped one before it, if they exchange nothing."""
    if node.layer is None or not node.layer.conv.mixing or len(node.parents) != 1:
        return
    second = sized_layer(node.layer)
    if not is_grouped(second):
        return
    before, joined = _mixing_before(trace, node)
    grouped = [
        (trace.nodes[index], sized)
        for index in before
        if is_grouped(sized := _sized(trace.nodes[index]))
    ]
    if not grouped:
        return
    first, sized = max(grouped, key=lambda pair: pair[0].index)
    rows = _rows(Propagation(trace, first.parents), node)
    exchange = missing_exchange(rows, sized.c_in, sized, second, direct=not joined)
    if exchange is None or first.layer is None:
        return
    stage = stage_of.get(node.index)
    of_stage: tuple[int, int] | None = None
    if stage is not None and node.parents[0] >= min(stage.inputs, default=0):
        below = _rows(stage.propagation, node)
        shuffled = below[shuffle_order(len(below), exchange.groups)]
        of_stage = _field(through(below, second)), _field(through(shuffled, second))
    yield LayerExchange(first.layer.name, node.layer.name, exchange, joined, of_stage)


def _mixing_before(trace: Trace, node: Node) -> tuple[list[int], bool]:
    """Return the nearest layers before one that mix channels, and whether anything joins them."""
    nearest, joined = [], False
    seen: set[int] = set()
    waiting = list(node.parents)
    while waiting:
        index = waiting.pop()
        if index in seen:
            continue
        seen.add(index)
        earlier = trace.nodes[index]
        if earlier.layer is not None and earlier.layer.conv.mixing:
            nearest.append(index)
        elif earlier.op is not Op.MIX:
            joined |= len(earlier.parents) > 1
            waiting += earlier.parents
    return nearest, joined


def _sized(node: Node) -> SizedLayer:
    assert node.layer is not None
    return sized_layer(node.layer)


def _rows(propagation: Propagation, node: Node) -> Rows:
    return propagation.fields(node.parents[0]).rows


def _field(rows: Rows) -> int:
    return int(np.bitwise_count(rows).sum(axis=1, dtype=np.int64).min())
