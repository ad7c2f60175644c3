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

# Far above any network in use.
MAX_SIDE: Final = 65536
MAX_DEPTH: Final = 1000
MAX_STAGE_WIDTH: Final = 8192
_FLAGS: Final = ("batch_norm", "bias", "projections", "stem_counts")


@dataclass(frozen=True, slots=True)
class StemLayer:
    """A convolution before the stages that writes feature maps of side x side pixels."""

    layer: SizedLayer
    side: int


@dataclass(frozen=True, slots=True)
class StemAndHead:
    """What a network has around its stages, and what it counts beside the weights of its blocks.

    `inputs`: channels of the image. `batch_norm` adds scale and shift, `bias` one number, to each
    channel that a layer with weights writes. `projections`: a 1x1 convolution as shortcut of the
    first block of every stage; other shortcuts are free. `classifier`: widths of the dense layers,
    with biases, behind the last stage, whose feature map is pooled to `pixels` pixels.
    `stem_counts`: the stem stands at the side of the first stage and counts as its first layers.
    `image`: side of the image; None where the first layer has no stride, so that the image is as
    large as what that layer writes.

    >>> block = Block.parse("CONV(3)").at(64)
    >>> StemAndHead().block_params(block), StemAndHead(batch_norm=True).block_params(block)
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
    def stem_channels(self) -> int:
        """Channels that enter the first stage."""
        return self.stem[-1].layer.c_out if self.stem else self.inputs

    @property
    def counted_stem(self) -> tuple[SizedLayer, ...]:
        """The layers of the stem that count in the first stage."""
        return tuple(stem_layer.layer for stem_layer in self.stem) if self.stem_counts else ()

    def block_params(self, block: SizedBlock, opens: bool = False) -> int:
        """Return the parameters of one block; `opens`: it is the first of its stage."""
        total = sum(layer.params + self._params_beside(layer) for layer in block.layers)
        if opens and self.projections:
            total += block.channels * block.out_channels
            total += self._params_per_channel * block.out_channels
        return total

    def block_macs(self, block: SizedBlock, side: int, stride: int = 1, opens: bool = False) -> int:
        """Return the multiply-accumulates of one block that writes side x side pixels."""
        per_pixel = block.macs_per_pixel(stride)
        if opens and self.projections:
            per_pixel += block.channels * block.out_channels
        return per_pixel * int(side**block.dims)

    def params(self, last_width: int) -> int:
        """Return the parameters of stem and head, behind a last stage of a width."""
        stem = sum(s.layer.params + self._params_beside(s.layer) for s in self.stem)
        return stem + sum(a * b + b for a, b in pairwise(self._dense_widths(last_width)))

    def macs(self, last_width: int) -> int:
        """Return the multiply-accumulates of stem and head."""
        stem = sum(s.layer.params * int(s.side**s.layer.dims) for s in self.stem)
        return stem + sum(a * b for a, b in pairwise(self._dense_widths(last_width)))

    @property
    def _params_per_channel(self) -> int:
        return 2 * self.batch_norm + self.bias

    def _params_beside(self, layer: SizedLayer) -> int:
        """Return the parameters of the batch norm and bias of a layer."""
        return self._params_per_channel * layer.c_out if layer.params else 0

    def _dense_widths(self, last_width: int) -> Sequence[int]:
        return (last_width * self.pixels, *self.classifier) if self.classifier else ()


@dataclass(frozen=True, slots=True)
class Stage:
    """Blocks one after the other on feature maps of side x side pixels.

    `first` maps the width of the stage before to this one's, with a stride of `stride`; `repeated`
    follows it. A block is the step by which the field is measured. `stem`: layers of the stem that
    count here. `depth` counts them and the blocks.

    >>> conv = Block.parse("CONV(3)").at(128)
    >>> stage = Stage(8, conv, conv, depth=3)
    >>> stage.volumes(), [round(gain, 3) for gain in stage.gains()]
    ((1152, 3200, 6272), [1.166, 0.297])

    Reference: [IF] Table 1.
    """

    side: int
    first: SizedBlock
    repeated: SizedBlock
    depth: int = 1
    stride: int = 1
    stem: tuple[SizedLayer, ...] = ()

    def __post_init__(self) -> None:
        """Check that the depth leaves a block."""
        if self.depth < self.min_depth:
            raise SettingError.because(
                "a stage without a block",
                got=f"depth {self.depth}",
                allowed=f"{self.min_depth} or more",
                remedy="give every stage at least one block",
                argument="depths",
            )

    @property
    def min_depth(self) -> int:
        """The depth with one block."""
        return len(self.stem) + 1

    @property
    def blocks(self) -> tuple[SizedBlock, ...]:
        """The blocks in their order."""
        return (self.first, *(self.repeated for _ in range(self.depth - self.min_depth)))

    @property
    def strided_blocks(self) -> tuple[tuple[SizedBlock, int], ...]:
        """The blocks in their order, each with its stride: only the first may have one."""
        return tuple((b, 1 if index else self.stride) for index, b in enumerate(self.blocks))

    @property
    def width(self) -> int:
        """Channels that leave the stage."""
        return self.first.out_channels

    @property
    def layers(self) -> int:
        """Number of layers of the blocks, shuffles included."""
        return sum(len(block.layers) for block in self.blocks)

    def at_depth(self, depth: int) -> "Stage":
        """Return the stage with another depth."""
        return replace(self, depth=depth)

    def volumes(self) -> tuple[int, ...]:
        """Return the exact information field after each counted layer or block, in elements.

        Reference: [IF] eqs. 1 to 3.
        """
        return _volumes(self)

    def gains(self, alpha: float = 3) -> tuple[float, ...]:
        """Return the gain of each counted layer or block but the first, which has none.

        Reference: [IF] eq. 4.
        """
        volumes = self.volumes()
        entry = self.stem[0].c_in if self.stem else self.first.channels
        v0 = volume(self.side, entry, self.first.dims)
        return tuple(gain(a, b, v0, alpha) for a, b in pairwise(volumes))

    def last_gain(self, alpha: float = 3) -> float:
        """Return the gain of the last block, which `at_depth(depth - 1)` would lose."""
        return self.gains(alpha)[-1]

    def next_gain(self, alpha: float = 3) -> float:
        """Return the gain of one more block."""
        return self.at_depth(self.depth + 1).last_gain(alpha)


@cache
def _volumes(stage: Stage) -> tuple[int, ...]:
    steps = (*((layer,) for layer in stage.stem), *(block.layers for block in stage.blocks))
    layers = tuple(layer for step in steps for layer in step)
    entry, dims = layers[0].c_in, layers[0].dims
    if channel_field(steps[0]) == entry:
        # Every layer reads some channel below: once all is seen, all stays seen.
        channels: Sequence[int] = [entry] * len(steps)
    else:
        by_layer = channel_fields(layers)
        channels = [by_layer[end - 1] for end in accumulate(map(len, steps))]
    # Layers one after the other reach as far as one kernel of their field.
    reach = accumulate(spatial_field([layer.kernel for layer in step]) - 1 for step in steps)
    sides = (spatial_field([more + 1], stage.side) for more in reach)
    return tuple(volume(side, count, dims) for side, count in zip(sides, channels, strict=True))


@dataclass(frozen=True, slots=True)
class Layout:
    """The stages of a network between its stem and head; what they gain and cost together.

    >>> from ifspace.stages.networks import network
    >>> vgg = network("vgg16", 32)
    >>> vgg.depths, vgg.params, vgg.at_depths((5, 4, 2, 1, 1)).params
    ((2, 2, 3, 3, 3), 14724042, 5098826)
    """

    stages: tuple[Stage, ...]
    stem_and_head: StemAndHead

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of each stage, with the layers of the stem that count."""
        return tuple(stage.depth for stage in self.stages)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(stage.width for stage in self.stages)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The block that each stage repeats; where there is one block only, that one."""
        return tuple(stage.blocks[-1].block for stage in self.stages)

    @property
    def first_blocks(self) -> tuple[Block, ...]:
        """The block that each stage opens with, from the width of the stage before."""
        return tuple(stage.first.block for stage in self.stages)

    @property
    def image(self) -> int:
        """The side of the images that the network takes."""
        if self.stem_and_head.image is not None:
            return self.stem_and_head.image
        first = self.stages[0]
        stem = self.stem_and_head.stem
        return stem[0].side if stem else first.side * first.stride

    @property
    def params(self) -> int:
        """Parameters of the whole network."""
        return self.stem_and_head.params(self.widths[-1]) + sum(
            self.stem_and_head.block_params(block, opens=index == 0)
            for stage in self.stages
            for index, block in enumerate(stage.blocks)
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.stem_and_head.macs(self.widths[-1]) + sum(
            self.stem_and_head.block_macs(block, stage.side, stride, opens=index == 0)
            for stage in self.stages
            for index, (block, stride) in enumerate(stage.strided_blocks)
        )

    @property
    def layers(self) -> int:
        """Number of layers of all blocks, shuffles included; stem and head not."""
        return sum(stage.layers for stage in self.stages)

    @property
    def width_sum(self) -> int:
        """Channels that leave each block, summed; stem and head not."""
        return sum(block.out_channels for stage in self.stages for block in stage.blocks)

    def gain(self, alpha: float = 3) -> float:
        """Return the total gain: of every block that is not the first of its stage.

        Reference: [IF] eq. 4.
        """
        return fsum(gain for stage in self.stages for gain in stage.gains(alpha))

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
        stages = (s.at_depth(depth) for s, depth in zip(self.stages, depths, strict=True))
        return replace(self, stages=tuple(stages))


def layout_json(layout: Layout) -> dict[str, Any]:
    """Return the layout as values that JSON has.

    >>> from ifspace.stages.networks import make_layout
    >>> layout = make_layout("DW+PW", (8,), (16,), (2,))
    >>> values = layout_json(layout)
    >>> values["stages"][0]["more"]["block"], layout_from_json(values) == layout
    ('DW+PW', True)
    """
    ends = layout.stem_and_head
    return {
        "frame": {
            "inputs": ends.inputs,
            "stem": [_layer_json(s.layer) | {"side": s.side} for s in ends.stem],
            **{name: getattr(ends, name) for name in _FLAGS},
            "classifier": list(ends.classifier),
            "pixels": ends.pixels,
            "image": ends.image,
        },
        "stages": [
            {
                "side": stage.side,
                "depth": stage.depth,
                "stride": stage.stride,
                "first": block_json(stage.first),
                "more": block_json(stage.repeated),
                "before": [_layer_json(layer) for layer in stage.stem],
            }
            for stage in layout.stages
        ],
    }


def layout_from_json(values: Any) -> Layout:
    """Return the layout that `layout_json` wrote.

    Raises: SettingError for anything else.
    """
    try:
        stem_and_head, stages = values["frame"], values["stages"]
        if not stages:
            raise ValueError("no stage")
        return Layout(tuple(map(_stage, stages)), _stem_and_head(stem_and_head))
    except (IfspaceError, KeyError, TypeError, ValueError, AttributeError) as error:
        # The narrow fact alone: its remedy would be for those who wrote the layout.
        fact = f"no {error}" if isinstance(error, KeyError) else str(error).partition("; ")[0]
        raise SettingError.because(
            "a layout that cannot be read",
            got=fact,
            allowed="what ifspace wrote",
            remedy="write it anew",
        ) from None


def block_json(block: SizedBlock) -> dict[str, Any]:
    """Return a block at its widths as values that JSON has; `block_from_json` reads them back."""
    ratio = None if block.bottleneck is None else str(block.bottleneck)
    return {
        "block": str(block.block),
        "channels": block.channels,
        "out_channels": block.out_channels,
        "bottleneck": ratio,
        "widths": None if ratio else _interior_widths(block),
        "dims": block.dims,
    }


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


def _interior_widths(block: SizedBlock) -> list[int] | None:
    """Return the widths behind the channel-mixing layers but the last, where the block needs it."""
    try:
        if block.block.at(block.channels, block.out_channels, None, block.dims) == block:
            return None
    except BlockError:
        pass  # its groups fit the widths that were chosen for it only
    copy = block.layers[: len(block.block)]
    return [layer.c_out for layer in copy if layer.conv.mixing][:-1]


def _layer_json(layer: SizedLayer) -> dict[str, Any]:
    return {"layer": str(layer.layer), "c_in": layer.c_in, "c_out": layer.c_out, "dims": layer.dims}


def _layer(values: Mapping[str, Any]) -> SizedLayer:
    layer = Layer.parse(values["layer"])
    return SizedLayer(layer, _width(values["c_in"]), _width(values["c_out"]), _dims(values["dims"]))


def _stem_and_head(values: Mapping[str, Any]) -> StemAndHead:
    for name in _FLAGS:
        if not isinstance(values[name], bool):
            raise ValueError(f"{name} {values[name]!r}")
    image = values["image"]
    return StemAndHead(
        inputs=_width(values["inputs"]),
        stem=tuple(StemLayer(_layer(layer), _side(layer["side"])) for layer in values["stem"]),
        classifier=tuple(whole_number(n, "classifier", 1) for n in values["classifier"]),
        pixels=whole_number(values["pixels"], "pixels", 1, MAX_SIDE**2),
        image=None if image is None else _side(image),
        **{name: values[name] for name in _FLAGS},
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


def _width(value: Any) -> int:
    return whole_number(value, "width", 1, MAX_STAGE_WIDTH)


def _side(value: Any) -> int:
    return whole_number(value, "side", 1, MAX_SIDE)


def _dims(value: Any) -> int:
    return whole_number(value, "dims", 1, 2)
