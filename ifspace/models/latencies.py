"""What the layers of a network take, layer by layer, from measured or predicted latencies."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from ifspace.block import Block
from ifspace.errors import IfspaceError
from ifspace.latency import Latency, LatencySource
from ifspace.models.analysis import Report
from ifspace.models.graph import TracedLayer
from ifspace.models.layer_times import LayerTimes
from ifspace.models.options import layer_text


@dataclass(frozen=True, slots=True)
class KnownLatency:
    """The sum of the latencies of a network's layers, of those `timed` of all `layers`."""

    ms: Fraction
    timed: int
    layers: int
    extrapolated: bool


def known_latency(report: Report, source: LatencySource) -> KnownLatency:
    """Return what the layers of a network take in all, layer by layer.

    Layers that no block could be, such as dilated ones, and those that the source does not know are
    not in the sum.
    """
    return latency_of_layers(report.all_layers, source)


def latency_of_layers(layers: Iterable[TracedLayer], source: LatencySource) -> KnownLatency:
    """Return what layers take in all, of which the fully connected ones are not counted."""
    layers = [layer for layer in layers if layer.conv.writes and not layer.is_linear]
    times = [layer_latency(layer, source) for layer in layers]
    timed = [time for time in times if time is not None]
    return KnownLatency(
        sum((time.ms for time in timed), Fraction(0)),
        len(timed),
        len(layers),
        any(time.extrapolated for time in timed),
    )


def layer_latency(layer: TracedLayer, source: LatencySource) -> Latency | None:
    """Return what one call of a layer takes, None where the source does not know it."""
    (height, width), stride = layer.size_out, layer.stride
    if height != width or stride[0] != stride[1] or layer.dilation != (1, 1):
        return None
    try:
        sized = Block.parse(layer_text(layer)).at(layer.c_in, layer.c_out)
    except IfspaceError:  # a kernel that is even, or longer along one axis
        return None
    # A strided pointwise layer reads every other pixel, and does what one without a stride does;
    # torch may take longer for it.
    is_known = sized.strided_index is not None or isinstance(source, LayerTimes)
    return source.find(sized, height, stride[0] if is_known else 1)
