"""A network as stages between a stem and a head: fields, gains and costs; its JSON form.

Everything is counted from the blocks alone. Amounts are additive: a block of a stage costs the same
wherever it stands behind the first, so layouts are compared by sums of whole numbers. In JSON,
blocks stand in their notation and ratios as text; nothing is rounded.

Reference: [IF] eqs. 1 to 4, [3DRF] section 4.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import accumulate, pairwise
from math import fsum
from typing import Annotated, Any, Final

from ifspace.block import (
    IDENTITY,
    NO_SHORTCUT,
    PROJECTION,
    Block,
    Layer,
    SizedBlock,
    SizedLayer,
)
from ifspace.errors import ARGUMENT, BlockError, IfspaceError, SettingError
from ifspace.infofield import field_limit, gain, spatial_field, volume
from ifspace.reach import channel_field, channel_fields
from ifspace.serialize import Between, from_plain, to_plain
from ifspace.values import MAX_SIDE, choice, set_fields, whole_number

# Far above any network in use.
MAX_DEPTH: Final = 1000
MAX_STAGE_WIDTH: Final = 8192
# How the blocks of a stage are joined: without shortcuts; with one around each, which is a 1x1
# convolution around the first; with an identity where the shapes are equal, and no activation
# behind the last layer of a block.
PLAIN, RESIDUAL, INVERTED = "plain", "residual", "inverted"
STAGE_TYPES: Final = (PLAIN, RESIDUAL, INVERTED)
# What blocks add to a network wherever they stand.
BLOCK_AMOUNTS: Final = ("params", "macs", "activations", "layers")


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
    `stem_counts`: the stem counts as the first layers of the first stage, which the image enters.
    `image`: side of the image; None where the first layer has no stride, so that the image is as
    large as what that layer writes.

    >>> block = Block.parse("CONV(3)").at(64)
    >>> StemAndHead().block_params(block), StemAndHead(batch_norm=True).block_params(block)
    (36864, 36992)

    Raises: SettingError for inputs out of range.
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

    def __post_init__(self) -> None:
        set_fields(self, inputs=whole_number(self.inputs, "inputs", 1, MAX_STAGE_WIDTH))

    @property
    def stem_channels(self) -> int:
        """Channels that enter the first stage."""
        return self.stem[-1].layer.c_out if self.stem else self.inputs

    @property
    def counted_stem(self) -> tuple[SizedLayer, ...]:
        """The layers of the stem that count in the first stage."""
        return tuple(stem_layer.layer for stem_layer in self.stem) if self.stem_counts else ()

    def side_before(self, side: int, with_stem: bool) -> int:
        """Return the side that enters a stage whose first block reads `side`.

        `with_stem`: the stem counts there, and it is entered by the image.
        """
        if not with_stem:
            return side
        return self.stem[0].side if self.image is None else self.image

    def block_params(
        self, block: SizedBlock, opens: bool = False, projects: bool | None = None
    ) -> int:
        """Return the parameters of one block.

        `opens`: it is the first of its stage; `projects`: the stage has a projection around that,
        as the network says if None.
        """
        total = sum(layer.params + self._params_beside(layer) for layer in block.layers)
        if opens and self._projects(projects):
            total += block.channels * block.out_channels
            total += self._params_per_channel * block.out_channels
        return total

    def block_macs(
        self,
        block: SizedBlock,
        side: int,
        stride: int = 1,
        opens: bool = False,
        projects: bool | None = None,
    ) -> int:
        """Return the multiply-accumulates of one block that writes side x side pixels.

        See `block_params`.
        """
        per_pixel = block.macs_per_pixel(stride)
        if opens and self._projects(projects):
            per_pixel += block.channels * block.out_channels
        return per_pixel * int(side**block.dims)

    def block_activations(
        self,
        block: SizedBlock,
        side: int,
        stride: int = 1,
        opens: bool = False,
        projects: bool | None = None,
    ) -> int:
        """Return the elements that the convolutions of one block write, for one image.

        See `block_params`.
        """
        per_pixel = block.activations_per_pixel(stride)
        if opens and self._projects(projects):
            per_pixel += block.out_channels
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
    def activations(self) -> int:
        """The elements that the layers of stem and head write, for one image."""
        stem = sum(
            s.layer.c_out * int(s.side**s.layer.dims) for s in self.stem if s.layer.conv.writes
        )
        return stem + sum(self.classifier)

    def _projects(self, projects: bool | None) -> bool:
        return self.projections if projects is None else projects

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
    """Blocks one after the other; what enters the first layer has side x side pixels.

    `side` is the papers' w0, by which the field is measured. `side_out` is the side of the feature
    maps that the blocks write; 0 stands for `side` / `stride`. `first` maps the width of the stage
    before to this one's, with a stride of `stride`; `repeated` follows it. A block is the step by
    which the field is measured. `stem`: layers of the stem that count here. `depth` counts them and
    the blocks. `type`: how the blocks are joined, one of `STAGE_TYPES`; None for what the network
    has around all of its stages.

    >>> conv = Block.parse("CONV(3)").at(128)
    >>> stage = Stage(8, conv, conv, depth=3)
    >>> stage.volumes(), [round(gain, 3) for gain in stage.gains()]
    ((1152, 3200, 6272), [1.166, 0.297])
    >>> strided = Stage(8, conv, conv, depth=3, stride=2)
    >>> strided.side_out, strided.volumes() == stage.volumes()
    (4, True)

    Raises: SettingError for a depth that leaves no block, and a side that the stride does not
        divide.

    Reference: [IF] Table 1; [3DRF] section 3.1 and footnote 1 for the side.
    """

    side: int
    first: SizedBlock
    repeated: SizedBlock
    depth: int = 1
    stride: int = 1
    stem: tuple[SizedLayer, ...] = ()
    side_out: int = 0
    type: str | None = None

    def __post_init__(self) -> None:
        """Derive the side that is written; check that the depth leaves a block."""
        if self.type is not None:
            choice(self.type, "type", STAGE_TYPES)
        if not self.side_out:
            if self.side % self.stride:
                raise SettingError.because(
                    "feature maps with a fraction of a pixel",
                    got=f"side {self.side} at stride {self.stride}",
                    allowed=f"multiples of {self.stride}",
                    remedy="give the side of what enters the stage",
                    argument="stages",
                )
            set_fields(self, side_out=self.side // self.stride)
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

    def layers_apart(self, other: "Stage") -> int:
        """Return by how many layers two stages differ.

        Stages that repeat one block at one width differ by what the deeper one has more, others by
        all layers of the larger one. The width that enters them is the other stage's matter.

        >>> conv = Block.parse("CONV(3)").at(128)
        >>> stage = Stage(8, conv, conv, depth=3)
        >>> stage.layers_apart(stage.at_depth(5))
        2
        """
        if self.repeated == other.repeated:
            return abs(self.layers - other.layers)
        return max(self.layers, other.layers)

    def at_depth(self, depth: int) -> "Stage":
        """Return the stage with another depth."""
        return replace(self, depth=depth)

    def shortcut(self, opens: bool, projections: bool) -> str:
        """Return the shortcut around the first block, or around each that follows it.

        `projections`: what the network has around its stages where this one has no type.
        """
        joined = self.type or (RESIDUAL if projections else PLAIN)
        if joined == PLAIN:
            return NO_SHORTCUT
        if joined == RESIDUAL:
            return PROJECTION if opens else IDENTITY
        changes = self.first.channels != self.width or self.stride > 1
        return NO_SHORTCUT if opens and changes else IDENTITY

    def block_amount(self, name: str, opens: bool, ends: StemAndHead) -> int:
        """Return one of `BLOCK_AMOUNTS` of the first block, or of each that follows it."""
        block, stride = (self.first, self.stride) if opens else (self.repeated, 1)
        if name == "layers":
            return len(block.layers)
        projects = None if self.type is None else self.type == RESIDUAL
        if name == "params":
            return ends.block_params(block, opens, projects)
        count = ends.block_macs if name == "macs" else ends.block_activations
        return count(block, self.side_out, stride, opens, projects)

    def amount(self, name: str, ends: StemAndHead) -> int:
        """Return one of `BLOCK_AMOUNTS` of all blocks."""
        repeats = self.depth - self.min_depth
        first = self.block_amount(name, True, ends)
        return first + (repeats and repeats * self.block_amount(name, False, ends))

    @property
    def side_strided(self) -> int:
        """Side of the feature maps that the first block reads: `side`, or behind a counted stem."""
        return self.side_out * self.stride

    @property
    def input_volume(self) -> int:
        """Elements of what enters the stage, V0 of the gain."""
        entry = self.stem[0].c_in if self.stem else self.first.channels
        return volume(self.side, entry, self.first.dims)

    def volumes(self, cap: str = "input") -> tuple[int, ...]:
        """Return the exact information field after each counted layer or block, in elements.

        `cap`: at which multiple of the side that enters the spatial field stops, a name of `CAPS`.

        Reference: [IF] eqs. 1 to 3.
        """
        return _volumes(self, cap)

    def gains(self, alpha: float = 3, cap: str = "input") -> tuple[float, ...]:
        """Return the gain of each counted layer or block but the first, which has none.

        Reference: [IF] eq. 4.
        """
        v0 = self.input_volume
        return tuple(gain(a, b, v0, alpha) for a, b in pairwise(self.volumes(cap)))

    def last_gain(self, alpha: float = 3, cap: str = "input") -> float:
        """Return the gain of the last block, which `at_depth(depth - 1)` would lose."""
        return self.gains(alpha, cap)[-1]

    def next_gain(self, alpha: float = 3, cap: str = "input") -> float:
        """Return the gain of one more block."""
        return self.at_depth(self.depth + 1).last_gain(alpha, cap)


@cache
def _volumes(stage: Stage, cap: str) -> tuple[int, ...]:
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
    limit = field_limit(stage.side, cap)
    sides = (spatial_field([more + 1], limit) for more in reach)
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
        return stem[0].side if stem else first.side_strided

    @property
    def params(self) -> int:
        """Parameters of the whole network."""
        return self.stem_and_head.params(self.widths[-1]) + self._of_blocks("params")

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        return self.stem_and_head.macs(self.widths[-1]) + self._of_blocks("macs")

    @property
    def activations(self) -> int:
        """Elements that all convolutions and dense layers write, for one image."""
        return self.stem_and_head.activations + self._of_blocks("activations")

    def _of_blocks(self, name: str) -> int:
        return sum(stage.amount(name, self.stem_and_head) for stage in self.stages)

    @property
    def layers(self) -> int:
        """Number of layers of all blocks, shuffles included; stem and head not."""
        return sum(stage.layers for stage in self.stages)

    @property
    def width_sum(self) -> int:
        """Channels that leave each block, summed; stem and head not."""
        return sum(block.out_channels for stage in self.stages for block in stage.blocks)

    @property
    def least_fan_ins(self) -> tuple[int, ...]:
        """Of each stage the fewest channels that a filter of a channel-mixing layer reads.

        Without the block that reads the image, whose channels are few, where others follow it.
        """
        reads_image = not self.stem_and_head.stem
        return tuple(
            _least_fan_in((stage,), reads_image and index == 0)
            for index, stage in enumerate(self.stages)
        )

    @property
    def least_fan_in(self) -> int:
        """The fewest channels that a filter of a channel-mixing layer of any stage reads.

        Without the block that reads the image.
        """
        return _least_fan_in(self.stages, not self.stem_and_head.stem)

    def gain(self, alpha: float = 3, cap: str = "input") -> float:
        """Return the total gain: of every block that is not the first of its stage.

        Reference: [IF] eq. 4.
        """
        return fsum(gain for stage in self.stages for gain in stage.gains(alpha, cap))

    def at_written_sides(self) -> "Layout":
        """Return the layout with its field measured by the sides that the stages write.

        Nothing else changes. It is how the layouts of MobileNet in [3DRF] were found; its gains
        are by the sides that enter, as everywhere else.

        >>> from ifspace.stages.networks import network
        >>> resnet = network("resnet50", 224)
        >>> [stage.side for stage in resnet.stages]
        [56, 56, 28, 14]
        >>> [stage.side for stage in resnet.at_written_sides().stages]
        [56, 28, 14, 7]
        """
        stages = (replace(stage, side=stage.side_out) for stage in self.stages)
        return replace(self, stages=tuple(stages))

    def at_depths(self, depths: Sequence[int]) -> "Layout":
        """Return the layout with other depths.

        Raises: SettingError for a wrong number of depths, or a stage without a block.
        """
        if len(depths) != len(self.stages):
            raise SettingError.because(
                f"wrong number of {ARGUMENT}",
                got=", ".join(map(str, depths)),
                allowed=f"{len(self.stages)}, one for each stage",
                remedy="give a depth to every stage",
                argument="depths",
            )
        stages = (s.at_depth(depth) for s, depth in zip(self.stages, depths, strict=True))
        return replace(self, stages=tuple(stages))


# What files hold: the names of the fields are the keys of the JSON, which stay as they are. `frame`
# is what stands around the stages, `more` the block that a stage repeats, `before` its stem.
_Width = Annotated[int, Between(1, MAX_STAGE_WIDTH)]
# A block may stand for a fully connected layer behind flattened feature maps: VGG's reads 25,088.
_BlockWidth = Annotated[int, Between(1, 8 * MAX_STAGE_WIDTH)]
_Side = Annotated[int, Between(1, MAX_SIDE)]


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """A block at its widths as files hold it.

    `widths`: those behind the channel-mixing layers but the last, where the block needs them.

    Raises: BlockError for widths that do not fit the block.
    """

    block: Block
    channels: _BlockWidth
    out_channels: _BlockWidth
    bottleneck: Fraction | None
    widths: tuple[_BlockWidth, ...] | None
    dims: Annotated[int, Between(1, 2)]

    def __post_init__(self) -> None:
        _ = self.sized

    @classmethod
    def of(cls, sized: SizedBlock) -> "BlockRecord":
        """Return the record of a block."""
        ratio = sized.bottleneck
        widths = None if ratio else _interior_widths(sized)
        return cls(sized.block, sized.channels, sized.out_channels, ratio, widths, sized.dims)

    @property
    def sized(self) -> SizedBlock:
        """The block at its widths.

        >>> sized = Block.parse("DW+RPW(2,1/2)").at(8, 16)
        >>> BlockRecord.of(sized).sized == sized
        True
        """
        return self.block.at(
            self.channels, self.out_channels, self.bottleneck, self.dims, self.widths
        )


@dataclass(frozen=True, slots=True)
class _LayerRecord:
    layer: Layer
    c_in: _Width
    c_out: _Width
    dims: Annotated[int, Between(1, 2)]

    def __post_init__(self) -> None:
        _ = self.sized

    @property
    def sized(self) -> SizedLayer:
        return SizedLayer(self.layer, self.c_in, self.c_out, self.dims)


@dataclass(frozen=True, slots=True)
class _StemLayerRecord(_LayerRecord):
    side: _Side


@dataclass(frozen=True, slots=True)
class _FrameRecord:
    inputs: _Width
    stem: tuple[_StemLayerRecord, ...]
    batch_norm: bool
    bias: bool
    projections: bool
    stem_counts: bool
    classifier: tuple[Annotated[int, Between(1)], ...]
    pixels: Annotated[int, Between(1, MAX_SIDE**2)]
    image: _Side | None


@dataclass(frozen=True, slots=True)
class _StageRecord:
    # `side` is that of what the stage writes, `side_in` of what enters it: earlier versions wrote
    # neither that nor the type.
    side: _Side
    depth: Annotated[int, Between(1, MAX_DEPTH)]
    stride: _Side
    first: BlockRecord
    more: BlockRecord
    before: tuple[_LayerRecord, ...]
    side_in: _Side | None = None
    type: str | None = None

    def __post_init__(self) -> None:
        _ = self.stage

    @property
    def stage(self) -> Stage:
        return Stage(
            self.side_in or self.side * self.stride,
            self.first.sized,
            self.more.sized,
            self.depth,
            self.stride,
            tuple(layer.sized for layer in self.before),
            self.side,
            self.type,
        )


@dataclass(frozen=True, slots=True)
class _LayoutRecord:
    frame: _FrameRecord
    stages: Annotated[tuple[_StageRecord, ...], Between(1)]


def layout_json(layout: Layout) -> dict[str, Any]:
    """Return the layout as values that JSON has.

    `side` of a stage is that of the feature maps that it writes, `side_in` of those that enter it.

    >>> from ifspace.stages.networks import make_layout
    >>> layout = make_layout("DW+PW", (8,), (16,), (2,))
    >>> values = layout_json(layout)
    >>> values["stages"][0]["more"]["block"], layout_from_json(values) == layout
    ('DW+PW', True)
    """
    ends = layout.stem_and_head
    frame = _FrameRecord(
        ends.inputs,
        tuple(_StemLayerRecord(*_layer_fields(s.layer), s.side) for s in ends.stem),
        ends.batch_norm,
        ends.bias,
        ends.projections,
        ends.stem_counts,
        ends.classifier,
        ends.pixels,
        ends.image,
    )
    stages = (
        _StageRecord(
            stage.side_out,
            stage.depth,
            stage.stride,
            BlockRecord.of(stage.first),
            BlockRecord.of(stage.repeated),
            tuple(_LayerRecord(*_layer_fields(layer)) for layer in stage.stem),
            stage.side,
            stage.type,
        )
        for stage in layout.stages
    )
    values: dict[str, Any] = to_plain(_LayoutRecord(frame, tuple(stages)))
    return values


def layout_from_json(values: Any) -> Layout:
    """Return the layout that `layout_json` wrote.

    Raises: SettingError for anything else.
    """
    try:
        record = from_plain(_LayoutRecord, values)
    except IfspaceError as error:
        raise SettingError.because(
            "a layout that cannot be read",
            got=error.finding,
            allowed="what ifspace wrote",
            remedy="write it anew",
        ) from None
    frame = record.frame
    stem_and_head = StemAndHead(
        inputs=frame.inputs,
        stem=tuple(StemLayer(layer.sized, layer.side) for layer in frame.stem),
        batch_norm=frame.batch_norm,
        bias=frame.bias,
        projections=frame.projections,
        classifier=frame.classifier,
        pixels=frame.pixels,
        stem_counts=frame.stem_counts,
        image=frame.image,
    )
    first, *others = (stage.stage for stage in record.stages)
    if record.stages[0].side_in is None:
        first = replace(first, side=stem_and_head.side_before(first.side, bool(first.stem)))
    return Layout((first, *others), stem_and_head)


def _layer_fields(layer: SizedLayer) -> tuple[Layer, int, int, int]:
    return layer.layer, layer.c_in, layer.c_out, layer.dims


def _interior_widths(block: SizedBlock) -> tuple[int, ...] | None:
    """Return the widths behind the channel-mixing layers but the last, where the block needs it."""
    try:
        if block.block.at(block.channels, block.out_channels, None, block.dims) == block:
            return None
    except BlockError:
        pass  # its groups fit the widths that were chosen for it only
    copy = block.layers[: len(block.block)]
    return tuple(layer.c_out for layer in copy if layer.conv.mixing)[:-1]


def _least_fan_in(stages: Sequence[Stage], reads_image: bool) -> int:
    """Return the least fan-in of the blocks of stages, without the first if it reads the image."""
    blocks = [block for stage in stages for block in stage.blocks]
    return min(block.least_fan_in for block in blocks[reads_image:] or blocks)
