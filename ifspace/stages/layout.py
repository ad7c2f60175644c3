"""A network as stages between a stem and a head: fields, gains and costs; its JSON form.

Everything is counted from the blocks alone. Amounts are additive: a block of a stage costs the same
wherever it stands behind the first, so layouts are compared by sums of whole numbers. In JSON,
blocks stand in their notation and ratios as text; nothing is rounded.

Reference: [IF] eqs. 1 to 4, [3DRF] section 4.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import accumulate, pairwise
from math import fsum
from typing import Any, Final

from ifspace.block import Block, Layer, SizedBlock, SizedLayer
from ifspace.errors import BlockError, IfspaceError, SettingError
from ifspace.infofield import gain, spatial_field, volume
from ifspace.reach import channel_field, channel_fields
from ifspace.values import whole_number


@dataclass(frozen=True, slots=True)
class StemLayer:
    """A convolution before the stages, on maps of side x side pixels."""

    layer: SizedLayer
    side: int


@dataclass(frozen=True, slots=True)
class Frame:
    """How a network counts its parameters and MACs beside the weights of its blocks.

    `inputs`: channels of the image. `batch_norm` adds scale and shift, `bias` a number, to each
    channel that a layer with weights writes. `projections`: a 1x1 convolution beside the first
    unit of every stage; other shortcuts are free. `classifier`: widths of the dense layers, with
    biases, behind the last stage, whose maps are pooled to `pixels` pixels. `stem_counts`: the stem
    stands at the side of the first stage and counts as its first layers. `image`: side of the
    image; None where the first layer has no stride, so that it is as large as what that writes.

    >>> from ifspace.block import Block
    >>> unit = Block.parse("CONV(3)").at(64)
    >>> Frame().unit_params(unit), Frame(batch_norm=True).unit_params(unit)
    (36864, 36992)
    """

    inputs: int = 3
    stem: tuple[StemLayer, ...] = ()
    batch_norm: bool = False
    bias: bool = False
    projections: bool = False
    classifier: tuple[int, ...] = ()
    pixels: int = 1
    stem_counts: bool = False
    image: int | None = None

    @property
    def opens_with(self) -> int:
        """Channels that enter the first stage."""
        return self.stem[-1].layer.c_out if self.stem else self.inputs

    @property
    def counted(self) -> tuple[SizedLayer, ...]:
        """The layers of the stem that count in the first stage."""
        return tuple(each.layer for each in self.stem) if self.stem_counts else ()

    def unit_params(self, unit: SizedBlock, opens: bool = False) -> int:
        """Return the parameters of one unit; `opens`: it is the first of its stage."""
        total = sum(layer.params + self._extra(layer) for layer in unit.layers)
        if opens and self.projections:
            total += unit.channels * unit.out_channels + self._per_channel * unit.out_channels
        return total

    def unit_macs(self, unit: SizedBlock, side: int, stride: int = 1, opens: bool = False) -> int:
        """Return the multiply-accumulates of one unit that writes side x side pixels."""
        per_pixel = unit.macs_per_pixel(stride)
        if opens and self.projections:
            per_pixel += unit.channels * unit.out_channels
        return per_pixel * int(side**unit.dims)

    def params(self, last_width: int) -> int:
        """Return the parameters of stem and classifier behind a last stage of a width."""
        stem = sum(each.layer.params + self._extra(each.layer) for each in self.stem)
        return stem + sum(a * b + b for a, b in pairwise(self._dense(last_width)))

    def macs(self, last_width: int) -> int:
        """Return the multiply-accumulates of stem and classifier."""
        stem = sum(each.layer.params * int(each.side**each.layer.dims) for each in self.stem)
        return stem + sum(a * b for a, b in pairwise(self._dense(last_width)))

    @property
    def _per_channel(self) -> int:
        return 2 * self.batch_norm + self.bias

    def _extra(self, layer: SizedLayer) -> int:
        return self._per_channel * layer.c_out if layer.params else 0

    def _dense(self, last_width: int) -> Sequence[int]:
        return (last_width * self.pixels, *self.classifier) if self.classifier else ()


# Far above any network in use.
MAX_SIDE: Final = 65536
MAX_DEPTH: Final = 1000
MAX_STAGE_WIDTH: Final = 8192


@dataclass(frozen=True, slots=True)
class Stage:
    """Units in a row on maps of side x side pixels.

    `first` maps the width of the stage before to this one's, with a stride of `stride`; `more`
    follows it. A unit is a block, the step by which the field is measured. `before`: layers of the
    stem that count here. `depth` counts them and the units.

    >>> from ifspace.block import Block
    >>> conv = Block.parse("CONV(3)").at(128)
    >>> stage = Stage(8, conv, conv, depth=3)
    >>> stage.volumes(), [round(each, 3) for each in stage.gains()]
    ((1152, 3200, 6272), [1.166, 0.297])

    Reference: [IF] Table 1.
    """

    side: int
    first: SizedBlock
    more: SizedBlock
    depth: int = 1
    stride: int = 1
    before: tuple[SizedLayer, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a depth that leaves no unit."""
        if self.depth < self.least_depth:
            raise SettingError.because(
                "a stage without a block",
                got=f"depth {self.depth}",
                allowed=f"{self.least_depth} or more",
                remedy="give every stage at least one block",
                argument="depths",
            )

    @property
    def least_depth(self) -> int:
        """The depth with one unit."""
        return len(self.before) + 1

    @property
    def units(self) -> tuple[SizedBlock, ...]:
        """The blocks in a row."""
        return (self.first, *(self.more for _ in range(self.depth - self.least_depth)))

    @property
    def width(self) -> int:
        """Channels that leave the stage."""
        return self.first.out_channels

    @property
    def layers(self) -> int:
        """Layers of the units, shuffles included."""
        return sum(len(unit.layers) for unit in self.units)

    def at_depth(self, depth: int) -> "Stage":
        """Return the stage with another depth."""
        return replace(self, depth=depth)

    def volumes(self) -> tuple[int, ...]:
        """Return the exact information field after each counted layer or unit, in elements.

        Reference: [IF] eqs. 1 to 3.
        """
        return _volumes(self)

    def gains(self, alpha: float = 3) -> tuple[float, ...]:
        """Return the gain of each unit but the first, which has none.

        Reference: [IF] eq. 4.
        """
        sees = self.volumes()
        entry = self.before[0].c_in if self.before else self.first.channels
        v0 = volume(self.side, entry, self.first.dims)
        return tuple(gain(a, b, v0, alpha) for a, b in pairwise(sees))

    def last_gain(self, alpha: float = 3) -> float:
        """Return the gain of the last unit, that which `at_depth(depth - 1)` would lose."""
        return self.gains(alpha)[-1]

    def next_gain(self, alpha: float = 3) -> float:
        """Return the gain of one more unit."""
        return self.at_depth(self.depth + 1).last_gain(alpha)


@cache
def _volumes(stage: Stage) -> tuple[int, ...]:
    opening = [(layer,) for layer in stage.before]
    units = (*opening, *(unit.layers for unit in stage.units))
    chain = tuple(layer for unit in units for layer in unit)
    entry, dims = chain[0].c_in, chain[0].dims
    if channel_field(units[0]) == entry:
        # Every layer reads some channel below: once all is seen, all stays seen.
        sees: Sequence[int] = [entry] * len(units)
    else:
        each = channel_fields(chain)
        sees = [each[end - 1] for end in accumulate(map(len, units))]
    # A chain reaches as far as one kernel of its field.
    reach = accumulate(spatial_field([layer.kernel for layer in unit]) - 1 for unit in units)
    sides = (spatial_field([more + 1], stage.side) for more in reach)
    return tuple(volume(w, c, dims) for w, c in zip(sides, sees, strict=True))


@dataclass(frozen=True, slots=True)
class Layout:
    """The stages of a network in their frame, and what they gain and cost together.

    >>> from ifspace.stages.networks import network
    >>> vgg = network("vgg16", 32)
    >>> vgg.depths, vgg.params, vgg.at_depths((5, 4, 2, 1, 1)).params
    ((2, 2, 3, 3, 3), 14724042, 5098826)
    """

    stages: tuple[Stage, ...]
    frame: Frame

    @property
    def depths(self) -> tuple[int, ...]:
        """Units of each stage, with the layers of the stem that count."""
        return tuple(stage.depth for stage in self.stages)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(stage.width for stage in self.stages)

    @property
    def blocks(self) -> tuple[str, ...]:
        """The block that each stage repeats; where there is one unit only, that one."""
        return tuple(str(stage.units[-1].block) for stage in self.stages)

    @property
    def image(self) -> int:
        """The side of the images that the network takes."""
        if self.frame.image is not None:
            return self.frame.image
        first = self.stages[0]
        return self.frame.stem[0].side if self.frame.stem else first.side * first.stride

    @property
    def first_blocks(self) -> tuple[str, ...]:
        """The block that each stage opens with, from the width of the stage before."""
        return tuple(str(stage.first.block) for stage in self.stages)

    @property
    def params(self) -> int:
        """Parameters of the whole network."""
        return self.frame.params(self.widths[-1]) + sum(
            self.frame.unit_params(unit, opens=place == 0)
            for stage in self.stages
            for place, unit in enumerate(stage.units)
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.frame.macs(self.widths[-1]) + sum(
            self.frame.unit_macs(unit, stage.side, 1 if place else stage.stride, place == 0)
            for stage in self.stages
            for place, unit in enumerate(stage.units)
        )

    @property
    def layers(self) -> int:
        """Layers of all units, shuffles included; stem and classifier not."""
        return sum(stage.layers for stage in self.stages)

    @property
    def width_sum(self) -> int:
        """Channels that leave each unit, summed; stem and classifier not."""
        return sum(unit.out_channels for stage in self.stages for unit in stage.units)

    def gain(self, alpha: float = 3) -> float:
        """Return the total gain: of every unit that is not the first of its stage.

        Reference: [IF] eq. 4.
        """
        return fsum(each for stage in self.stages for each in stage.gains(alpha))

    def at_depths(self, depths: Sequence[int]) -> "Layout":
        """Return the layout with other depths.

        Raises: SettingError for a wrong number of depths, or a stage without a block.
        """
        if len(depths) != len(self.stages):
            raise SettingError.because(
                "wrong number of depths",
                got=", ".join(map(str, depths)),
                allowed=f"{len(self.stages)}, one for each stage",
                remedy="give a depth to every stage",
                argument="depths",
            )
        return replace(
            self,
            stages=tuple(s.at_depth(d) for s, d in zip(self.stages, depths, strict=True)),
        )


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
        classifier=tuple(whole_number(each, "classifier", 1) for each in values["classifier"]),
        pixels=whole_number(values["pixels"], "pixels", 1, MAX_SIDE**2),
        image=None if image is None else _side(image),
        **{name: values[name] for name in _SWITCHES},
    )


def _stage(values: Mapping[str, Any]) -> Stage:
    return Stage(
        _side(values["side"]),
        block_from_json(values["first"]),
        block_from_json(values["more"]),
        whole_number(values["depth"], "depth", 1, MAX_DEPTH),
        whole_number(values["stride"], "stride", 1, MAX_SIDE),
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
    return whole_number(value, "width", 1, MAX_STAGE_WIDTH)


def _side(value: Any) -> int:
    return whole_number(value, "side", 1, MAX_SIDE)


def _dims(value: Any) -> int:
    return whole_number(value, "dims", 1, 2)
