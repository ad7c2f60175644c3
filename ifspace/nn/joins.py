"""How the parts of a layout fit each other: strides of the stem, pooling before each stage."""

from dataclasses import dataclass
from math import isqrt
from typing import Any

from ifspace.errors import SettingError
from ifspace.stages.layout import (
    Layout,
    Stage,
)


@dataclass(frozen=True, slots=True)
class StageJoin:
    """A stage and what comes to it: maps of side `comes`, pooled to `enters` before it.

    `behind_stem`: the maps are those of a stem.
    """

    stage: Stage
    comes: int
    enters: int
    behind_stem: bool


@dataclass(frozen=True, slots=True)
class Joins:
    """The strides of the stem's layers, and the join of each stage."""

    stem_strides: tuple[int, ...]
    stages: tuple[StageJoin, ...]


def joins_of(layout: Layout) -> Joins:
    """Return how the parts of a layout are joined.

    Where maps are larger than a stage takes (its side times its stride) they are pooled to that.

    >>> from ifspace.stages.networks import network
    >>> joins = joins_of(network("resnet50", 224))
    >>> joins.stem_strides, [(join.comes, join.enters) for join in joins.stages]
    ((2,), [(112, 56), (56, 56), (28, 28), (14, 14)])

    Raises: SettingError naming the two parts that do not fit.
    """
    frame = layout.frame
    width, side, strides = frame.inputs, layout.image, []
    for place, each in enumerate(frame.stem, start=1):
        _equal(f"layer {place} of the stem", "channels", each.layer.c_in, width)
        if side % each.side:
            raise _misfit(f"layer {place} of the stem", f"side {each.side}", f"a divisor of {side}")
        strides.append(side // each.side)
        width, side = each.layer.c_out, each.side
    stages = []
    for place, stage in enumerate(layout.stages, start=1):
        where = f"stage {place}"
        _check_stage(where, stage, width, () if place > 1 else frame.counted)
        enters = stage.side * stage.stride
        if enters > side:
            raise _misfit(
                where,
                f"side {stage.side} at stride {stage.stride}",
                f"no more than {side} pixels before the stride",
            )
        stages.append(StageJoin(stage, side, enters, bool(frame.stem) and place == 1))
        width, side = stage.width, stage.side
    _check_dims(layout)
    return Joins(tuple(strides), tuple(stages))


def head_side(layout: Layout) -> int:
    """Return the side that the last maps are pooled to before they are flattened.

    Raises: SettingError when the pixels that the layout counts are no square within the maps.
    """
    pixels, last = layout.frame.pixels, layout.stages[-1]
    side = pixels if last.first.dims == 1 else isqrt(pixels)
    if side**last.first.dims != pixels or side > last.side:
        raise _misfit(
            "the classifier", f"{pixels} pixels", f"squares up to {last.side} x {last.side}"
        )
    return side


def _check_stage(where: str, stage: Stage, width: int, before: tuple[Any, ...]) -> None:
    _equal(where, "channels", stage.first.channels, width)
    for what, found in (("channels", stage.more.channels), ("channels", stage.more.out_channels)):
        _equal(f"what {where} repeats", what, found, stage.width)
    if stage.before != before:
        raise _misfit(
            where,
            f"{len(stage.before)} layers counted before it",
            "the stem where the frame counts it, and nothing elsewhere",
        )


def _check_dims(layout: Layout) -> None:
    layers = [each.layer for each in layout.frame.stem]
    layers += [x for stage in layout.stages for unit in stage.units for x in unit.layers]
    found = sorted({layer.dims for layer in layers})
    if len(found) > 1:
        raise _misfit(
            "the network",
            f"layers of {' and '.join(map(str, found))} dimensions",
            "one number of dimensions",
        )


def _equal(where: str, what: str, found: int, wanted: int) -> None:
    if found != wanted:
        raise _misfit(where, f"{found} {what}", f"{wanted}, which come to it")


def _misfit(where: str, got: str, allowed: str) -> SettingError:
    return SettingError.because(
        f"{where} does not fit",
        got=got,
        allowed=allowed,
        remedy="make the layout with ifspace.stages.networks.stages",
    )
