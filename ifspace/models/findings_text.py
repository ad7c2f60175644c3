"""What stands out in the analysis of a network: layers that add nothing, what sees how far."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Final

from ifspace.models.options import (
    size_text,
    some,
)
from ifspace.stages.organize_text import short
from ifspace.values import listed

if TYPE_CHECKING:
    from ifspace.models.graph import Size, TracedLayer
    from ifspace.models.others import Others
    from ifspace.models.report import Report


NOTHING: Final = "adds nothing"
PAST: Final = "past the image"


def receptive(report: "Report") -> "Size":
    """Return the greatest classical receptive field of a layer, in pixels of the image."""
    return max((each.receptive for each in report.layers), key=prod, default=(1, 1))


def findings(report: "Report", others: "Others") -> list[tuple[str, str]]:
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
    wide = [layer.name for layer in idle if max(layer.reach) > 1]
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


def _others(report: "Report", others: "Others") -> list[tuple[str, str]]:
    if not report.other_params:
        return []
    parts = [f"{count:,} of {name}" for name, count in others.classes.items()]
    if others.idle:
        names = some(list(others.idle), 3)
        parts.append(f"{sum(others.idle.values()):,} of layers that do not run ({names})")
    said = f"{report.other_params:,} parameters beside the layers"
    return [("other", f"{said}: {', '.join(parts)}" if parts else said)]
