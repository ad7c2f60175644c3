"""What `ifspace analyze` prints: stages and units, or every layer, and what stands out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Final

from ifspace.cli.options import Forms
from ifspace.models.options import (
    Source,
    layer_text,
    size_text,
    size_value,
    some,
)
from ifspace.serialize import json_text
from ifspace.stages.text import short
from ifspace.table import Table, facts, heading, markdown_table, table
from ifspace.values import listed

if TYPE_CHECKING:
    from ifspace.models.analysis import (
        LayerReport,
        OtherParams,
        Report,
        StageReport,
    )
    from ifspace.models.fields import Field
    from ifspace.models.graph import Size, TracedLayer


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for, and what the parameters belong to that no layer has."""

    source: Source
    each_layer: bool
    others: "OtherParams"


def forms(asked: Asked, report: "Report") -> Forms:
    """Return the analysis in every format."""
    rows = [_flat(row) for row in _rows(asked, report)]
    columns = list(rows[0])
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    return {
        "table": lambda: _text(asked, report),
        "json": lambda: json_text(_values(asked, report)),
        "csv": lambda: Table(tuple(columns), tuple(map(tuple, cells))).csv(),
        "markdown": lambda: markdown_table(columns, [list(map(str, row)) for row in cells]),
    }


def _rows(asked: Asked, report: "Report") -> Iterator[dict[str, Any]]:
    """Yield a row a layer; a gate and a layer of the head have no field."""
    model = {"model": asked.source.name}
    for number, stage in enumerate(report.stages, start=1):
        for each in stage.layers:
            place = {"part": "stage", "stage": number, "unit": stage.units[each.unit].name}
            yield model | place | _layer(each.layer) | _seen(each)
    for part, layers in (("gate", report.gates), ("head", report.head)):
        for layer in layers:
            place = {"part": part, "stage": None, "unit": None}
            yield model | place | _layer(layer) | _seen(None)


def _layer(layer: "TracedLayer") -> dict[str, Any]:
    return {
        "name": layer.name,
        "kind": layer.kind,
        "layer": layer_text(layer),
        "channels": layer.c_in,
        "out_channels": layer.c_out,
        "groups": layer.groups,
        "kernel": size_value(layer.kernel),
        "stride": size_value(layer.stride),
        "dilation": size_value(layer.dilation),
        "side": size_value(layer.size_out),
        "params": layer.params,
        "macs": layer.macs,
    }


def _seen(seen: "LayerReport | None") -> dict[str, Any]:
    if seen is None:
        return dict.fromkeys(("field", "gain", "receptive", "adds_nothing", "past_image"))
    return {
        "field": _pair(seen.field),
        "gain": seen.gain,
        "receptive": size_value(seen.receptive),
        "adds_nothing": seen.adds_nothing,
        "past_image": seen.past_image,
    }


def _pair(field: "Field") -> list[Any]:
    return [size_value(field.size), field.channels]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with a column each for the pixels and the channels of the field."""
    side, channels = row["field"] or (None, None)
    both = {"field_side": side, "field_channels": channels}
    return {
        key: value
        for name, each in row.items()
        for key, value in (both.items() if name == "field" else [(name, each)])
    }


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "×".join(str(_cell(each)) for each in value)
    return "" if value is None else value


def _values(asked: Asked, report: "Report") -> dict[str, Any]:
    return {
        "model": asked.source.name,
        "image": list(report.image),
        "alpha": report.alpha,
        "params": report.params,
        "macs": report.macs,
        "gain": report.gain,
        "receptive": size_value(receptive(report)),
        "stages": [_stage(stage) for stage in report.stages],
        "gates": [_layer(layer) for layer in report.gates],
        "head": [_layer(layer) for layer in report.head],
        "other_params": report.other_params,
        "other_params_of": dict(asked.others.classes),
        "does_not_run": dict(asked.others.unused),
        "adds_nothing": [each.layer.name for each in report.layers if each.adds_nothing],
        "past_image_from": next((e.layer.name for e in report.layers if e.past_image), None),
        "notes": list(report.notes),
    }


def _stage(stage: "StageReport") -> dict[str, Any]:
    return {
        "side": size_value(stage.side),
        "channels": stage.channels,
        "width": stage.width,
        "elements": stage.elements,
        "saturated": stage.saturated,
        "full": stage.full,
        "params": stage.params,
        "macs": stage.macs,
        "units": [
            {
                "name": unit.name,
                "layers": unit.layers,
                "field": _pair(unit.field),
                "gain": unit.gain,
                "params": unit.params,
                "macs": unit.macs,
            }
            for unit in stage.units
        ],
        "layers": [
            {**_layer(each.layer), **_seen(each), "unit": stage.units[each.unit].name}
            for each in stage.layers
        ],
    }


def _text(asked: Asked, report: "Report") -> str:
    title = f"{asked.source}: {short(report.params)} parameters, {short(report.macs)} MACs"
    text = heading(title) + _stages(report) + "\n"
    text += _layers(report) if asked.each_layer else _units(report)
    return text + "\n" + facts(findings(report, asked.others))


def _stages(report: "Report") -> str:
    rows = []
    for number, stage in enumerate(report.stages, start=1):
        marks = [name for name in ("full", "saturated") if getattr(stage, name)]
        rows.append(
            [
                number,
                size_text(stage.side),
                f"{stage.channels:,}→{stage.width:,}",
                f"{stage.elements:,}",
                len(stage.units),
                _field(stage.units[-1].field),
                short(stage.params),
                short(stage.macs),
                ", ".join(marks),
            ]
        )
    columns = [">#", "side", ">channels", ">V0", ">units", ">field", ">params", ">MACs", "notes~"]
    return table(columns, rows)


def _units(report: "Report") -> str:
    rows = []
    for number, stage in enumerate(report.stages, start=1):
        for unit in stage.units:
            rows.append(
                [
                    number,
                    unit.name,
                    unit.layers,
                    _field(unit.field),
                    _gain(unit.gain),
                    short(unit.params),
                    short(unit.macs),
                    NOTHING if unit.gain == 0 else "",
                ]
            )
    columns = ["stage", "unit~", ">layers", ">field", ">gain", ">params", ">MACs", "notes~"]
    return table(columns, rows, keys=2)


def _layers(report: "Report") -> str:
    rows = []
    for number, stage in enumerate(report.stages, start=1):
        for each in stage.layers:
            layer = each.layer
            rows.append(
                [
                    number,
                    layer.name,
                    layer_text(layer),
                    f"{layer.c_in:,}→{layer.c_out:,}",
                    _field(each.field),
                    _gain(each.gain),
                    size_text(each.receptive),
                    short(layer.params),
                    short(layer.macs),
                    ", ".join(_marks(each)),
                ]
            )
    columns = [
        "stage",
        "layer",
        "kind",
        ">channels",
        ">field",
        ">gain",
        ">sees",
        ">params",
        ">MACs",
        "notes~",
    ]
    return table(columns, rows, keys=2)


def _marks(each: "LayerReport") -> list[str]:
    layer = each.layer
    found = [
        f"{name} {'×'.join(map(str, dict.fromkeys(size)))}"
        for name, size in (("stride", layer.stride), ("dilation", layer.dilation))
        if max(size) > 1
    ]
    marks = ((NOTHING, each.adds_nothing), (PAST, each.past_image))
    return found + [name for name, is_so in marks if is_so]


def _field(field: "Field") -> str:
    return f"{size_text(field.size)}×{field.channels}"


def _gain(gain: float | None) -> str:
    return "" if gain is None else f"{gain:.3f}"


NOTHING: Final = "adds nothing"
PAST: Final = "past the image"


def receptive(report: "Report") -> "Size":
    """Return the greatest classical receptive field of a layer, in pixels of the image."""
    return max((each.receptive for each in report.layers), key=prod, default=(1, 1))


def findings(report: "Report", others: "OtherParams") -> list[tuple[str, str]]:
    """Return what stands out, with a name for each."""
    idle = [each.layer for each in report.layers if each.adds_nothing]
    return [
        ("gain", f"{report.gain:.3f} of all units together, α = {report.alpha:g}"),
        (NOTHING, _idle(idle, len(report.layers))),
        ("saturated", _saturated(report)),
        ("receptive field", f"up to {size_text(receptive(report))} pixels of the image"),
        (PAST, _past(report)),
        *_beside("gates", report.gates),
        *_beside("head", report.head),
        *_others(report, others),
        *(("note", note) for note in report.notes),
    ]


def _idle(idle: "Sequence[TracedLayer]", layers: int) -> str:
    """Return which layers add nothing; pointwise ones alone never look further."""
    if not idle:
        return "no layer"
    wide = [layer.name for layer in idle if max(layer.effective_kernel) > 1]
    flat = len(idle) - len(wide)
    said = f"{len(idle)} of {layers} layers"
    if flat:
        said += f", {flat if wide else 'all'} of them 1×1"
    return f"{said}: {some(wide)}" if wide else said


def _saturated(report: "Report") -> str:
    numbers = [str(n) for n, stage in enumerate(report.stages, start=1) if stage.saturated]
    if not numbers:
        return "no stage"
    noun = "stage" if len(numbers) == 1 else "stages"
    return f"{noun} {listed(numbers)}: the last unit sees no more than the one before"


def _past(report: "Report") -> str:
    image = size_text(report.image[1:])
    first = next((each.layer.name for each in report.layers if each.past_image), None)
    if first is None:
        return f"no output sees more than the {image} pixels of the image"
    return f"from {first} on outputs see more than its {image} pixels"


def _beside(name: str, layers: "Sequence[TracedLayer]") -> list[tuple[str, str]]:
    if not layers:
        return []
    params, macs = sum(each.params for each in layers), sum(each.macs for each in layers)
    names = some([layer.name for layer in layers])
    return [(name, f"{short(params)} parameters, {short(macs)} MACs: {names}")]


def _others(report: "Report", others: "OtherParams") -> list[tuple[str, str]]:
    if not report.other_params:
        return []
    parts = [f"{count:,} of {name}" for name, count in others.classes.items()]
    if others.unused:
        names = some(list(others.unused), 3)
        parts.append(f"{sum(others.unused.values()):,} of layers that do not run ({names})")
    said = f"{report.other_params:,} parameters beside the layers"
    return [("other", f"{said}: {', '.join(parts)}" if parts else said)]
