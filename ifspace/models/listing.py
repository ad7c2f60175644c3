"""A traced network as a list of its convolutions, for the scores."""

from collections.abc import Mapping

from ifspace.models.graph import Trace, TracedLayer
from ifspace.scores.layers import LayerList, ListedLayer


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
