"""What changes in each layer of a network: its channels, the block in its place, and its costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ifspace.latency import LatencySource
from ifspace.models.analysis import Report
from ifspace.models.fields import Field
from ifspace.models.graph import TracedLayer
from ifspace.models.latencies import layer_latency
from ifspace.models.options import layer_text
from ifspace.models.units import within


@dataclass(frozen=True, slots=True)
class LayerChange:
    """A layer before and after: as text, parameters, MACs, latencies in ms and fields.

    What is not known is None; a layer that is removed costs nothing after.
    """

    name: str
    texts: tuple[str, str]
    params: tuple[int, int]
    macs: tuple[int, int]
    ms: tuple[float | None, float | None]
    fields: tuple[Field | None, Field | None]

    @property
    def values(self) -> dict[str, Any]:
        """The change as JSON values."""
        return {
            "name": self.name,
            "layers": self.texts,
            "params": self.params,
            "macs": self.macs,
            "ms": self.ms,
            "fields": [
                None if field is None else [*field.size, field.channels] for field in self.fields
            ],
        }


def layer_changes(
    before: Report,
    after: Report,
    names: Mapping[str, str],
    blocks: Mapping[str, str],
    source: LatencySource | None = None,
) -> tuple[LayerChange, ...]:
    """Return the layers that change between two reports of one network.

    `names`: the full name after the change of each layer that is left; `blocks`: the blocks that
    layers become, as text, by the names before.
    """
    fields = [{x.layer.name: x.field for x in report.layers} for report in (before, after)]
    changes = []
    old: dict[str, list[TracedLayer]] = {}
    for layer in before.all_layers:
        old.setdefault(layer.name, []).append(layer)
    for name, calls in old.items():
        own = names.get(name)
        new = [x for x in after.all_layers if own is not None and within(x.name, own)]
        texts = _text(calls), f"{blocks[name]}{_channels(new)}" if name in blocks else _text(new)
        if texts[0] == texts[1]:
            continue
        ends = fields[0].get(name), fields[1].get(new[-1].name) if new else None
        totals = [
            (sum({x.name: x.params for x in layers}.values()), sum(x.macs for x in layers))
            for layers in (calls, new)
        ]
        changes.append(
            LayerChange(
                name,
                texts,
                (totals[0][0], totals[1][0]),
                (totals[0][1], totals[1][1]),
                (_ms(calls, source), _ms(new, source)),
                ends,
            )
        )
    return tuple(changes)


def _text(layers: list[TracedLayer]) -> str:
    """Return a layer with its channels, without layers that it is removed."""
    return f"{layer_text(layers[0])}{_channels(layers)}" if layers else "removed"


def _channels(layers: list[TracedLayer]) -> str:
    return f" {layers[0].c_in}→{layers[-1].c_out}"


def _ms(layers: list[TracedLayer], source: LatencySource | None) -> float | None:
    """Return what layers take, None where that of one is not known."""
    if source is None:
        return None
    times = [
        layer_latency(layer, source)
        for layer in layers
        if layer.conv.writes and not layer.is_linear
    ]
    latencies = [float(time.ms) for time in times if time is not None]
    return sum(latencies) if len(latencies) == len(times) else None
