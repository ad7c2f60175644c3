"""Layouts as JSON and back: what a file of a network says of how it is made.

Blocks stand in their notation, ratios as text; nothing is rounded.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ifspace.block import (
    Block,
    Layer,
    SizedBlock,
    SizedLayer,
)
from ifspace.errors import BlockError, IfspaceError, SettingError
from ifspace.stages.frame import (
    Frame,
    StemLayer,
)
from ifspace.stages.layout import (
    Layout,
    Stage,
)
from ifspace.stages.networks import (
    MAX_DEPTH,
    MAX_SIDE,
    MAX_STAGE_WIDTH,
)
from ifspace.values import whole_within

_SWITCHES = ("batch_norm", "bias", "projections", "stem_counts")


def to_json(layout: Layout) -> dict[str, Any]:
    """Return the layout as values that JSON has.

    >>> from ifspace.stages.networks import stages
    >>> layout = stages("DW+PW", (8,), (16,), (2,))
    >>> to_json(layout)["stages"][0]["more"]["block"], from_json(to_json(layout)) == layout
    ('DW+PW', True)
    """
    frame = layout.frame
    return {
        "frame": {
            "inputs": frame.inputs,
            "stem": [_layer_json(each.layer) | {"side": each.side} for each in frame.stem],
            **{name: getattr(frame, name) for name in _SWITCHES},
            "classifier": list(frame.classifier),
            "pixels": frame.pixels,
            "image": frame.image,
        },
        "stages": [
            {
                "side": stage.side,
                "depth": stage.depth,
                "stride": stage.stride,
                "first": block_json(stage.first),
                "more": block_json(stage.more),
                "before": [_layer_json(layer) for layer in stage.before],
            }
            for stage in layout.stages
        ],
    }


def from_json(values: Any) -> Layout:
    """Return the layout that `to_json` wrote.

    Raises: SettingError for anything else.
    """
    try:
        frame, stages = values["frame"], values["stages"]
        if not stages:
            raise ValueError("no stage")
        return Layout(tuple(map(_stage, stages)), _frame(frame))
    except (IfspaceError, KeyError, TypeError, ValueError, AttributeError) as error:
        # The narrow fact alone: its remedy would be for those who wrote the layout.
        said = f"no {error}" if isinstance(error, KeyError) else str(error).partition("; ")[0]
        raise SettingError.because(
            "a layout that cannot be read",
            got=said,
            allowed="what ifspace wrote",
            remedy="write it anew",
        ) from None


def _layer_json(layer: SizedLayer) -> dict[str, Any]:
    return {"layer": str(layer.layer), "c_in": layer.c_in, "c_out": layer.c_out, "dims": layer.dims}


def block_json(unit: SizedBlock) -> dict[str, Any]:
    """Return a block at its widths as values that JSON has; `block_from_json` reads them back."""
    inner = None if unit.bottleneck is None else str(unit.bottleneck)
    return {
        "block": str(unit.block),
        "channels": unit.channels,
        "out_channels": unit.out_channels,
        "bottleneck": inner,
        "widths": None if inner else _interior(unit),
        "dims": unit.dims,
    }


def _interior(unit: SizedBlock) -> list[int] | None:
    """Return the widths behind the channel-mixing layers but the last, where the block needs it."""
    try:
        if unit.block.at(unit.channels, unit.out_channels, None, unit.dims) == unit:
            return None
    except BlockError:
        pass  # its groups fit the widths that were chosen for it only
    copy = unit.layers[: len(unit.block)]
    return [layer.c_out for layer in copy if layer.conv.mixing][:-1]


def _frame(values: Mapping[str, Any]) -> Frame:
    for name in _SWITCHES:
        if not isinstance(values[name], bool):
            raise ValueError(f"{name} {values[name]!r}")
    image = values["image"]
    return Frame(
        inputs=_width(values["inputs"]),
        stem=tuple(StemLayer(_layer(each), _side(each["side"])) for each in values["stem"]),
        classifier=tuple(whole_within(each, "classifier", 1) for each in values["classifier"]),
        pixels=whole_within(values["pixels"], "pixels", 1, MAX_SIDE**2),
        image=None if image is None else _side(image),
        **{name: values[name] for name in _SWITCHES},
    )


def _stage(values: Mapping[str, Any]) -> Stage:
    return Stage(
        _side(values["side"]),
        block_from_json(values["first"]),
        block_from_json(values["more"]),
        whole_within(values["depth"], "depth", 1, MAX_DEPTH),
        whole_within(values["stride"], "stride", 1, MAX_SIDE),
        tuple(map(_layer, values["before"])),
    )


def _layer(values: Mapping[str, Any]) -> SizedLayer:
    layer = Layer.parse(values["layer"])
    return SizedLayer(layer, _width(values["c_in"]), _width(values["c_out"]), _dims(values["dims"]))


def block_from_json(values: Mapping[str, Any]) -> SizedBlock:
    """Return the block that `block_json` wrote.

    >>> block_from_json(block_json(Block.parse("DW+RPW(2,1/2)").at(8, 16)))
    SizedBlock(block=Block(layers=(Layer(kind='DW', ...), channels=8, out_channels=16, ...)

    Raises: an IfspaceError, KeyError, TypeError or ValueError for anything else.
    """
    ratio, widths = values["bottleneck"], values["widths"]
    return Block.parse(values["block"]).at(
        _width(values["channels"]),
        _width(values["out_channels"]),
        None if ratio is None else Fraction(ratio),
        _dims(values["dims"]),
        widths,
    )


def _width(value: Any) -> int:
    return whole_within(value, "width", 1, MAX_STAGE_WIDTH)


def _side(value: Any) -> int:
    return whole_within(value, "side", 1, MAX_SIDE)


def _dims(value: Any) -> int:
    return whole_within(value, "dims", 1, 2)
