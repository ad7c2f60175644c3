"""Print an analysis: stages and units, or every layer, and what stands out."""

from collections.abc import Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Final

from ifspace.cli.options import Forms
from ifspace.memory import DEFAULT_DTYPE
from ifspace.models.options import (
    ModelSource,
    layer_text,
    name_list,
    peak_text,
    peak_values,
    size_text,
    size_value,
)
from ifspace.serialize import json_text, to_plain
from ifspace.stages.text import cap_text, short
from ifspace.table import Table, facts
from ifspace.values import counted, listed

if TYPE_CHECKING:
    from ifspace.models.analysis import LayerReport, OtherParams, Report, StageReport
    from ifspace.models.fields import Field
    from ifspace.models.graph import Size, TracedLayer

ADDS_NOTHING: Final = "adds nothing"
PAST_IMAGE: Final = "past the image"
UNKNOWN_PIXELS: Final = "unknown pixels"
UNPLACED: Final = "unplaced"
# So many pairs of layers are named.
MOST_PAIRS: Final = 4


def analysis_forms(
    source: ModelSource,
    report: "Report",
    unlisted: "OtherParams",
    every_layer: bool = False,
    dtype: str = DEFAULT_DTYPE,
) -> Forms:
    """Return the analysis of a network in every format.

    `unlisted`: what the parameters outside layers belong to. `every_layer`: whether the terminal
    shows a row for each layer instead of each unit. `dtype`: the type of the feature maps.
    """
    rows = [_flat(row) for row in _rows(source, report)]
    table = Table(
        tuple(rows[0]),
        tuple(tuple(_cell(value) for value in row.values()) for row in rows),
    )
    return {
        "table": lambda: _text(source, report, unlisted, every_layer, dtype),
        "json": lambda: json_text(_values(source, report, unlisted, dtype)),
        "csv": table.csv,
        "markdown": table.markdown,
    }


# JSON, and a row for each layer in CSV and Markdown


def _rows(source: ModelSource, report: "Report") -> Iterator[dict[str, Any]]:
    """Yield a row for each layer; layers of gates and of the head have no field."""
    model = {"model": source.title}
    for number, stage in enumerate(report.stages, start=1):
        for entry in stage.layers:
            unit = stage.units[entry.unit].name
            position = {"part": "stage", "stage": number, "unit": unit}
            yield model | position | _layer(entry.layer) | _seen(entry)
    beside = (("gate", report.gates), ("head", report.head), (UNPLACED, report.unplaced))
    for part, layers in beside:
        for layer in layers:
            position = {"part": part, "stage": None, "unit": None}
            yield model | position | _layer(layer) | _seen(None)


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


def _seen(entry: "LayerReport | None") -> dict[str, Any]:
    if entry is None:
        return dict.fromkeys(_SEEN)
    return {
        "field": _field_values(entry.field),
        "gain": entry.gain,
        "receptive": size_value(entry.receptive),
        "adds_nothing": entry.adds_nothing,
        "past_image": entry.past_image,
        "unknown_pixels": entry.unknown_pixels,
    }


_SEEN: Final = ("field", "gain", "receptive", "adds_nothing", "past_image", "unknown_pixels")


def _field_values(field: "Field") -> list[Any]:
    return [size_value(field.size), field.channels]


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with one column for the pixels of the field and one for its channels."""
    side, channels = row["field"] or (None, None)
    field = {"field_side": side, "field_channels": channels}
    return {
        column: cell
        for name, value in row.items()
        for column, cell in (field.items() if name == "field" else [(name, value)])
    }


def _cell(value: Any) -> Any:
    if isinstance(value, list):
        return "×".join(str(_cell(part)) for part in value)
    return "" if value is None else value


def _values(
    source: ModelSource, report: "Report", unlisted: "OtherParams", dtype: str
) -> dict[str, Any]:
    return {
        "model": source.name,
        "part": source.part,
        "image": report.image,
        "alpha": report.alpha,
        "cap": report.cap,
        "params": report.params,
        "macs": report.macs,
        "gain": report.gain,
        "receptive": size_value(_largest_receptive_field(report)),
        "peak_memory": peak_values(report.live, dtype),
        "stages": [_stage(stage) for stage in report.stages],
        "gates": [_layer(layer) for layer in report.gates],
        "head": [_layer(layer) for layer in report.head],
        "unplaced": [_layer(layer) for layer in report.unplaced],
        "other_params": report.other_params,
        "other_params_of": unlisted.classes,
        "does_not_run": unlisted.unused,
        "adds_nothing": [entry.layer.name for entry in report.layers if entry.adds_nothing],
        "past_image_from": _first_past_image(report),
        "unknown_pixels": [entry.layer.name for entry in report.layers if entry.unknown_pixels],
        "exchanges": [
            {
                "first": pair.first,
                "second": pair.second,
                **to_plain(pair.exchange),
                "joined": pair.joined,
                "stage_field": pair.stage_field,
            }
            for pair in report.exchanges
        ],
        "notes": report.notes,
    }


def _stage(stage: "StageReport") -> dict[str, Any]:
    return {
        "side": size_value(stage.side),
        "side_out": size_value(stage.side_out),
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
                "field": _field_values(unit.field),
                "gain": unit.gain,
                "unknown_pixels": unit.field.unknown,
                "params": unit.params,
                "macs": unit.macs,
            }
            for unit in stage.units
        ],
        "layers": [
            {**_layer(entry.layer), **_seen(entry), "unit": stage.units[entry.unit].name}
            for entry in stage.layers
        ],
    }


# Text for a terminal


def _text(
    source: ModelSource, report: "Report", unlisted: "OtherParams", every_layer: bool, dtype: str
) -> str:
    title = f"{source}: {short(report.params)} parameters, {short(report.macs)} MACs"
    details = _layer_table(report) if every_layer else _unit_table(report)
    parts = (_stage_table(report, title).text(), details.text(keys=2))
    return "\n".join((*parts, facts(findings(report, unlisted, dtype))))


def _stage_table(report: "Report", title: str) -> Table:
    rows = []
    for number, stage in enumerate(report.stages, start=1):
        marks = [name for name in ("full", "saturated") if getattr(stage, name)]
        rows.append(
            (
                number,
                size_text(stage.side),
                size_text(stage.side_out),
                f"{stage.channels:,}→{stage.width:,}",
                stage.elements,
                len(stage.units),
                _field_text(stage.units[-1].field),
                short(stage.params),
                short(stage.macs),
                ", ".join(marks),
            )
        )
    columns = (
        ">#",
        "side",
        "writes",
        ">channels",
        ">V0",
        ">units",
        ">field",
        ">params",
        ">MACs",
        "notes~",
    )
    return Table(columns, tuple(rows), title)


def _unit_table(report: "Report") -> Table:
    rows = tuple(
        (
            number,
            unit.name,
            unit.layers,
            _field_text(unit.field),
            _gain_text(unit.gain),
            short(unit.params),
            short(unit.macs),
            UNKNOWN_PIXELS if unit.field.unknown else ADDS_NOTHING if unit.gain == 0 else "",
        )
        for number, stage in enumerate(report.stages, start=1)
        for unit in stage.units
    )
    columns = ("stage", "unit~", ">layers", ">field", ">gain", ">params", ">MACs", "notes~")
    return Table(columns, rows)


def _layer_table(report: "Report") -> Table:
    rows = tuple(
        (
            number,
            entry.layer.name,
            layer_text(entry.layer),
            f"{entry.layer.c_in:,}→{entry.layer.c_out:,}",
            _field_text(entry.field),
            _gain_text(entry.gain),
            _least(entry.unknown_pixels) + size_text(entry.receptive),
            short(entry.layer.params),
            short(entry.layer.macs),
            ", ".join(_marks(entry)),
        )
        for number, stage in enumerate(report.stages, start=1)
        for entry in stage.layers
    )
    columns = ("stage", "layer", "kind", ">channels", ">field", ">gain", ">sees", ">params")
    return Table((*columns, ">MACs", "notes~"), rows)


def _marks(entry: "LayerReport") -> list[str]:
    layer = entry.layer
    marks = [
        f"{name} {'×'.join(map(str, dict.fromkeys(size)))}"
        for name, size in (("stride", layer.stride), ("dilation", layer.dilation))
        if max(size) > 1
    ]
    if entry.adds_nothing:
        marks.append(ADDS_NOTHING)
    if entry.past_image:
        marks.append(PAST_IMAGE)
    if entry.unknown_pixels:
        marks.append(UNKNOWN_PIXELS)
    return marks


def _least(unknown: bool) -> str:
    """Return the sign before what is the least that is seen."""
    return "≥" if unknown else ""


def _field_text(field: "Field") -> str:
    return f"{_least(field.unknown)}{size_text(field.size)}×{field.channels}"


def _gain_text(gain: float | None) -> str:
    return "" if gain is None else f"{gain:.3f}"


def findings(
    report: "Report", unlisted: "OtherParams", dtype: str = DEFAULT_DTYPE
) -> list[tuple[str, str]]:
    """Return what stands out in an analysis, with a name for each finding."""
    return [
        (
            "gain",
            f"{report.gain:.3f} of all units together, α = {report.alpha:g}{cap_text(report.cap)}",
        ),
        (ADDS_NOTHING, _layers_without_gain(report)),
        ("saturated", _saturated_stages(report)),
        (
            "receptive field",
            f"{'at least' if _sees_unknown(report) else 'up to'} "
            f"{size_text(_largest_receptive_field(report))} pixels of the image",
        ),
        (PAST_IMAGE, _past_image(report)),
        *_no_exchange(report),
        ("peak memory", peak_text(report.live, dtype)),
        *_beside_stages("gates", report.gates),
        *_beside_stages("head", report.head),
        *_beside_stages(UNPLACED, report.unplaced),
        *_unknown_pixels(report),
        *_outside_layers(report, unlisted),
        *(("note", note) for note in report.notes),
    ]


def _no_exchange(report: "Report") -> list[tuple[str, str]]:
    """Return which consecutive grouped layers exchange no channels, and what mends it."""
    pairs = report.exchanges
    if not pairs:
        return []
    count = f"{counted(len(pairs), 'pair')} of consecutive grouped layers"
    texts = [f"{count} exchange{'s' * (len(pairs) == 1)} no channels"]
    for pair in pairs[:MOST_PAIRS]:
        text = f"{pair.first}, {pair.second}: {pair.exchange}"
        if pair.stage_field is not None and pair.stage_field[0] == pair.stage_field[1]:
            text += f"; of the stage's input {pair.stage_field[0]:,} either way"
        texts.append(text)
    if len(pairs) > MOST_PAIRS:
        texts.append(f"and {len(pairs) - MOST_PAIRS} more, which --format json has")
    return list(zip(("no exchange", *[""] * (len(texts) - 1)), texts, strict=True))


def _largest_receptive_field(report: "Report") -> "Size":
    """Return the largest classical receptive field of a layer, in pixels of the image."""
    return max((entry.receptive for entry in report.layers), key=prod, default=(1, 1))


def _layers_without_gain(report: "Report") -> str:
    """Return which layers add nothing; pointwise ones are only counted, as they never see more."""
    idle = [entry.layer for entry in report.layers if entry.adds_nothing]
    if not idle:
        return "no layer"
    spatial = [layer.name for layer in idle if max(layer.effective_kernel) > 1]
    pointwise = len(idle) - len(spatial)
    text = f"{len(idle)} of {counted(len(report.layers), 'layer')}"
    if pointwise:
        text += f", {pointwise if spatial else 'all'} of them 1×1"
    return f"{text}: {name_list(spatial)}" if spatial else text


def _saturated_stages(report: "Report") -> str:
    numbers = [str(number) for number, stage in enumerate(report.stages, 1) if stage.saturated]
    if not numbers:
        return "no stage"
    noun = "stage" if len(numbers) == 1 else "stages"
    return f"{noun} {listed(numbers)}: the last unit sees no more than the one before"


def _first_past_image(report: "Report") -> str | None:
    """Return the name of the first layer whose receptive field is larger than the image."""
    return next((entry.layer.name for entry in report.layers if entry.past_image), None)


def _past_image(report: "Report") -> str:
    image = size_text(report.image[1:])
    first = _first_past_image(report)
    if first is None:
        verb = "is known to see" if _sees_unknown(report) else "sees"
        return f"no output {verb} more than the {image} pixels of the image"
    return f"from {first} on outputs see more than its {image} pixels"


def _beside_stages(name: str, layers: "Sequence[TracedLayer]") -> list[tuple[str, str]]:
    if not layers:
        return []
    params, macs = sum(layer.params for layer in layers), sum(layer.macs for layer in layers)
    names = name_list([layer.name for layer in layers])
    text = f"{short(params)} parameters, {short(macs)} MACs: {names}"
    if name == UNPLACED:
        text += "; they run, on constants or where their outputs are not followed"
    return [(name, text)]


def _sees_unknown(report: "Report") -> bool:
    return any(entry.unknown_pixels for entry in report.layers)


def _unknown_pixels(report: "Report") -> list[tuple[str, str]]:
    names = [entry.layer.name for entry in report.layers if entry.unknown_pixels]
    if not names:
        return []
    noun = "layer sees" if len(names) == 1 else "layers see"
    text = f"{len(names)} {noun} pixels that were moved in a way that is not followed: "
    return [(UNKNOWN_PIXELS, f"{text}{name_list(names)}; fields are the least, without a gain")]


def _outside_layers(report: "Report", unlisted: "OtherParams") -> list[tuple[str, str]]:
    if not report.other_params:
        return []
    parts = [f"{count:,} of {name}" for name, count in unlisted.classes.items()]
    if unlisted.unused:
        names = name_list(list(unlisted.unused), 3)
        parts.append(f"{sum(unlisted.unused.values()):,} of layers that do not run ({names})")
    text = f"{report.other_params:,} parameters outside the layers"
    return [("other", f"{text}: {', '.join(parts)}" if parts else text)]
