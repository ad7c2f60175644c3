"""A traced network for the scores: the list of its convolutions, its counts and its fields."""

from collections.abc import Mapping

from torch import nn

from ifspace.models.gains import StageGrowth
from ifspace.models.graph import Trace, TracedLayer
from ifspace.models.units import TracedStage, stages_of, units_of
from ifspace.scores.layers import LayerList, ListedLayer
from ifspace.scores.measures import StageFields


def layer_list(graph: Trace) -> LayerList:
    """Return the convolutions of a network, and its dense layers on pixels, as they run.

    Gates such as squeeze-and-excitation, the head behind the last feature map and shuffles are left
    out. A transposed convolution counts as one of stride 1 on what it writes.

    >>> from torch import nn
    >>> from ifspace.models import trace
    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 1))
    >>> str(layer_list(trace(net, (3, 8, 8))))
    '3/2/3/8/1/4;1/1/8/16/1/4'

    Raises: SettingError for a network without one.
    """
    convolutions = (layer for layer in graph.layers if layer.conv.writes)
    return LayerList(tuple(map(_listed, convolutions)))


def known_counts(graph: Trace) -> Mapping[str, int]:
    """Return the counts of a whole network, which replace those of its layers alone."""
    counts = {"params": graph.params, "macs": graph.macs}
    return counts if graph.live is None else counts | {"peak-memory": graph.live.peak}


def stage_fields(graph: Trace, model: nn.Module) -> tuple[StageFields, ...]:
    """Return the fields of each stage of a traced network, as `analyze` has them.

    >>> from ifspace.models import trace
    >>> net = nn.Sequential(*(nn.Conv2d(64, 64, 1, groups=8) for _ in range(2)))
    >>> [stage.field for stage in stage_fields(trace(net, (64, 4, 4)), net)]
    [8]
    """
    return tuple(map(_fields_of, stages_of(graph, units_of(graph, model))))


def _fields_of(stage: TracedStage) -> StageFields:
    growth = StageGrowth(stage, cap="input")
    return StageFields(
        size=stage.side,
        channels=stage.channels,
        layers=len(stage.nodes),
        field=growth.field(stage.units[-1].output).volume,
        steps=tuple(volumes for volumes in growth.of_units() if volumes is not None),
    )


def _listed(layer: TracedLayer) -> ListedLayer:
    return ListedLayer(
        layer.kernel,
        layer.stride,
        layer.c_in,
        layer.c_out,
        layer.groups,
        layer.size_out,
        layer.dilation,
        layer.name,
    )
