"""Print the analysis of a list of layers: costs, fields and gains of a chain, without torch."""

from dataclasses import dataclass
from itertools import pairwise
from math import fsum, prod
from typing import Any

from ifspace.cli.options import Forms
from ifspace.infofield import gain
from ifspace.memory import bytes_of, bytes_text
from ifspace.models.graph import conv_kind
from ifspace.models.options import size_text, size_value
from ifspace.scores.layers import (
    AT_FREE_PERMUTATION,
    LayerList,
    ListedLayer,
    chain_stages,
)
from ifspace.scores.measures import Field, fields_of
from ifspace.serialize import json_text
from ifspace.stages.text import cap_text, short
from ifspace.table import Table, facts
from ifspace.values import counted


@dataclass(frozen=True, slots=True)
class _Entry:
    """A layer with its stage, its field and its gain, which the first of a stage has not."""

    layer: ListedLayer
    stage: int
    field: Field
    gain: float | None

    @property
    def kind(self) -> str:
        return conv_kind(self.layer.c_in, self.layer.c_out, self.layer.groups, self.layer.kernel)


def list_forms(
    name: str, layers: LayerList, alpha: float, cap: str, every_layer: bool, dtype: str
) -> Forms:
    """Return the analysis of a list of layers in every format; see `ifspace.scores.measures`.

    `every_layer`: whether the terminal shows a row for each. `dtype`: of the feature maps.
    """
    stages = _entries(layers, alpha, cap)
    rows = [_layer_values(entry) for stage in stages for entry in stage]
    table = Table(
        tuple(rows[0]),
        tuple(tuple(_cell(value) for value in row.values()) for row in rows),
    )
    return {
        "table": lambda: _text(name, layers, stages, (alpha, cap), every_layer, dtype),
        "json": lambda: json_text(_values(name, layers, stages, (alpha, cap), dtype)),
        "csv": table.csv,
        "markdown": table.markdown,
    }


def _entries(layers: LayerList, alpha: float, cap: str) -> list[list[_Entry]]:
    stages = []
    for number, stage in enumerate(chain_stages(layers.chain), start=1):
        v0 = prod(stage[0].size_in) * stage[0].c_in
        fields = fields_of(stage, cap)
        gains = [gain(prod(a), prod(b), v0, alpha) for a, b in pairwise(fields)]
        entries = zip(stage, fields, (None, *gains), strict=True)
        stages.append([_Entry(layer, number, field, gained) for layer, field, gained in entries])
    return stages


def _layer_values(entry: _Entry) -> dict[str, Any]:
    layer = entry.layer
    return {
        "name": layer.name,
        "kind": entry.kind,
        "stage": entry.stage,
        "channels": layer.c_in,
        "out_channels": layer.c_out,
        "groups": layer.groups,
        "kernel": size_value(layer.kernel),
        "stride": size_value(layer.stride),
        "dilation": size_value(layer.dilation),
        "side": size_value(layer.size),
        "params": layer.params,
        "macs": layer.macs,
        "field": [size_value(entry.field[:2]), entry.field[2]],
        "gain": entry.gain,
    }


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "×".join(str(_cell(part)) for part in value)
    return "" if value is None else value


def _values(
    name: str,
    layers: LayerList,
    stages: list[list[_Entry]],
    setting: tuple[float, str],
    dtype: str,
) -> dict[str, Any]:
    return {
        "model": name,
        "alpha": setting[0],
        "cap": setting[1],
        "params": layers.params,
        "macs": layers.macs,
        "activations": layers.activations,
        "gain": _total_gain(stages),
        "peak_memory": {
            "elements": layers.peak,
            "bytes": bytes_of(layers.peak, dtype),
            "dtype": dtype,
        },
        "shortcuts": len(layers.layers) - len(layers.chain),
        "joints": layers.joints,
        "stages": [
            {
                "side": size_value(stage[0].layer.size_in),
                "side_out": size_value(stage[-1].layer.size),
                "channels": stage[0].layer.c_in,
                "width": stage[-1].layer.c_out,
                "params": sum(entry.layer.params for entry in stage),
                "macs": sum(entry.layer.macs for entry in stage),
                "layers": [_layer_values(entry) for entry in stage],
            }
            for stage in stages
        ],
        "adds_nothing": [
            entry.layer.name or index
            for index, entry in enumerate((e for stage in stages for e in stage), start=1)
            if entry.gain == 0
        ],
    }


def _total_gain(stages: list[list[_Entry]]) -> float:
    return fsum(entry.gain or 0 for stage in stages for entry in stage)


def _text(
    name: str,
    layers: LayerList,
    stages: list[list[_Entry]],
    setting: tuple[float, str],
    every_layer: bool,
    dtype: str,
) -> str:
    title = f"{name}: {short(layers.params)} parameters, {short(layers.macs)} MACs"
    parts = [_stage_table(stages, title).text()]
    if every_layer:
        parts.append(_layer_table(stages).text(keys=2))
    entries = [entry for stage in stages for entry in stage]
    idle = sum(entry.gain == 0 for entry in entries)
    notes = [
        (
            "gain",
            f"{_total_gain(stages):.3f} of all layers, α = {setting[0]:g}{cap_text(setting[1])}",
        ),
        ("adds nothing", f"{idle} of {counted(len(entries), 'layer')}" if idle else "no layer"),
        ("written", f"{layers.activations:,} elements by all layers"),
        ("peak memory", f"{bytes_text(layers.peak, dtype)}, read and written by one layer"),
    ]
    if beside := len(layers.layers) - len(layers.chain):
        notes.append(
            ("shortcuts", f"{counted(beside, '1×1 layer')} beside the chain, with costs alone")
        )
    if layers.is_grouped:
        notes.append(("field", AT_FREE_PERMUTATION))
    if layers.joints:
        apart = f"{counted(layers.joints, 'layer')} {'does' if layers.joints == 1 else 'do'} not"
        notes.append(("joints", f"{apart} read what the one before writes"))
    return "\n".join((*parts, facts(notes)))


def _stage_table(stages: list[list[_Entry]], title: str) -> Table:
    rows = tuple(
        (
            number,
            size_text(stage[0].layer.size_in),
            size_text(stage[-1].layer.size),
            f"{stage[0].layer.c_in:,}→{stage[-1].layer.c_out:,}",
            len(stage),
            size_text(stage[-1].field[:2]) + f"×{stage[-1].field[2]}",
            short(sum(entry.layer.params for entry in stage)),
            short(sum(entry.layer.macs for entry in stage)),
        )
        for number, stage in enumerate(stages, start=1)
    )
    columns = (">#", "reads", "writes", ">channels", ">layers", ">field", ">params", ">MACs")
    return Table(columns, rows, title)


def _layer_table(stages: list[list[_Entry]]) -> Table:
    rows = tuple(
        (
            entry.stage,
            entry.layer.name or number,
            f"{entry.kind} {size_text(entry.layer.kernel)}",
            f"{entry.layer.c_in:,}→{entry.layer.c_out:,}",
            entry.layer.groups,
            size_text(entry.field[:2]) + f"×{entry.field[2]}",
            "" if entry.gain is None else f"{entry.gain:.3f}",
            short(entry.layer.params),
            short(entry.layer.macs),
        )
        for number, entry in enumerate((e for stage in stages for e in stage), start=1)
    )
    columns = ("stage", "layer", "kind", ">channels", ">groups", ">field", ">gain", ">params")
    return Table((*columns, ">MACs"), rows)
