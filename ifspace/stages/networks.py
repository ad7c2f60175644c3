"""The networks of the papers as layouts, as described for images of 32x32 and 224x224 pixels.

Each is counted as its published implementation has it: VGG for CIFAR with batch norm and one dense
layer, for ImageNet with biases and three; ResNet-50 with the stride on its 3x3 convolution. For
images of other sizes, the feature maps of the small form are scaled, from 112 pixels on those of
the large form.

[3DRF] reads MobileNet in two ways that exclude each other. Its gains are those of the blocks alone,
measured by the sides that enter the stages: that is `network("mobilenet", side)`. Its layouts count
the stem in the first stage and measure by the sides that are written:
`mobilenet(side, stem_counts=True).at_written_sides()`.

`PUBLISHED` has the reorganized networks of [3DRF] Tables 3 to 5. The tables print no layout, only
counts; the text gives two layouts. So `depths` is the layout whose count of parameters is the
printed one (the text's, where a count fits no better), and a row says itself how far the two are
apart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import gcd
from typing import Final

from ifspace.block import Block, SizedBlock, SizedLayer
from ifspace.errors import ARGUMENT, BlockError, SettingError
from ifspace.stages.defaults import BARE
from ifspace.stages.layout import (
    MAX_DEPTH,
    MAX_STAGE_WIDTH,
    Layout,
    Stage,
    StemAndHead,
    StemLayer,
)
from ifspace.values import MAX_SIDE, counted, whole_number

SIDES: Final = (32, 224)
# Images with sides from this on have the large form.
_LARGE_FROM: Final = SIDES[1] // 2
_VGG_WIDTHS: Final = (64, 128, 256, 512, 512)
_VGG_DEPTHS: Final = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


def make_layout(
    blocks: str | Sequence[Block],
    sides: Sequence[int],
    widths: Sequence[int],
    depths: Sequence[int],
    strides: Sequence[int] | None = None,
    stem_and_head: StemAndHead = StemAndHead(),  # noqa: B008 - a frozen value
    bottleneck: Fraction | None = None,
) -> Layout:
    """Return a layout whose stages repeat a block, from the width that the stem writes.

    `blocks`: one block for all stages, in the notation, or a block for each. `sides`: of the
    feature maps that enter the first block of each stage; behind a stride it writes smaller ones.

    >>> make_layout("CONV(3)", (32, 16), (64, 128), (2, 1)).params
    112320
    >>> [stage.side_out for stage in make_layout("CONV", (32, 32), (4, 8), (1, 1), (1, 2)).stages]
    [32, 16]

    Raises: SettingError for stages that do not fit each other, or a block that does not fit its
        stage; BlockError for one that cannot be read.
    """
    if isinstance(blocks, str):
        blocks = [Block.parse(blocks)] * len(sides)
    strides = strides or [1] * len(sides)
    check_stages(sides, widths, depths, blocks, strides)
    entries = (stem_and_head.stem_channels, *widths[:-1])
    columns = zip(blocks, sides, entries, widths, depths, strides, strict=True)
    first, *others = (
        Stage(
            side,
            sized(block, index, entry, width, bottleneck),
            sized(block, index, width, width, bottleneck),
            depth,
            stride,
            () if index else stem_and_head.counted_stem,
        )
        for index, (block, side, entry, width, depth, stride) in enumerate(columns)
    )
    first = replace(first, side=stem_and_head.side_before(first.side, bool(first.stem)))
    return Layout((first, *others), stem_and_head)


def styled(style: str, inputs: int, width: int, side: int, classes: int) -> StemAndHead:
    """Return stem and head of a network in a style, a name of `defaults.STYLES`.

    All but "bare", which has nothing around its stages, have a 3x3 convolution to `width` channels
    as their stem, batch norm behind every layer with weights, and a dense layer to `classes`
    classes behind an average over the last feature map. "resnet" has a shortcut around every block,
    which is a 1x1 convolution where a stage begins; the others have none.

    >>> styled("resnet", 3, 64, 32, 10).params(512), styled("bare", 3, 64, 32, 10).params(512)
    (6986, 0)
    """
    if style == BARE:
        return StemAndHead(inputs=inputs)
    return StemAndHead(
        inputs=inputs,
        stem=(_stem(3, inputs, width, side),),
        batch_norm=True,
        projections=style == "resnet",
        classifier=(classes,),
    )


def check_stages(
    sides: Sequence[int],
    widths: Sequence[int],
    depths: Sequence[int],
    blocks: Sequence[Block],
    strides: Sequence[int],
) -> None:
    """Check that stages fit each other.

    Raises: SettingError for lists of different lengths, a number out of range, or growing sides.
    """
    lists = (("widths", widths), ("depths", depths), ("blocks", blocks), ("strides", strides))
    for name, values in lists:
        if len(values) != len(sides):
            raise SettingError.because(
                f"wrong number of {ARGUMENT}",
                got=f"{len(values)} for {len(sides)} stages",
                allowed="one for each stage",
                remedy=f"give as many {ARGUMENT} as sides",
                argument=name,
            )
    for name, values, most in (
        ("stages", sides, MAX_SIDE),
        ("widths", widths, MAX_STAGE_WIDTH),
        ("depths", depths, MAX_DEPTH),
        ("strides", strides, MAX_SIDE),
    ):
        for value in values:
            whole_number(value, name, 1, most)
    if any(side < after for side, after in pairwise(sides)):
        raise SettingError.because(
            f"{ARGUMENT} that grow",
            got=", ".join(map(str, sides)),
            allowed="sides that stay or shrink from stage to stage",
            remedy="write the largest side first",
            argument="stages",
        )
    for number, (side, stride, after) in enumerate(
        zip(sides, strides, sides[1:], strict=False), start=1
    ):
        if side // stride >= after:
            continue
        pixels = f"{side // stride}" if side % stride == 0 else f"{side}/{stride}"
        raise SettingError.because(
            f"{ARGUMENT} that leave less than the next stage reads",
            got=f"{pixels} x {pixels} pixels behind stage {number} at stride {stride}, and "
            f"{after} x {after} that stage {number + 1} reads",
            allowed=f"strides that divide the {side} of stage {number}, to {after} or more",
            remedy=f"lower the stride of stage {number} or the sides of those behind it",
            argument="strides",
        )


def sized(
    block: Block, index: int, entry: int, width: int, bottleneck: Fraction | None = None
) -> SizedBlock:
    """Return a block at the widths of a stage; `index`: of the stage, from 0.

    Raises: SettingError with the stage and what does not fit.
    """
    try:
        return block.at(entry, width, bottleneck)
    except BlockError as error:
        where = f"stage {index + 1}, {entry} to {width} channels"
        more = "" if index else ", another block for this stage, or more inputs"
        misfit = SettingError(f"{where}: {error}{more}")
        misfit.argument = "blocks"
        raise misfit from None


def network(name: str, side: int) -> Layout:
    """Return a network of the papers by name, for images of side x side pixels.

    >>> network("resnet50", 224).params, network("mobilenet", 224).params
    (25557032, 4231976)
    >>> [[stage.side for stage in network("vgg11", side).stages] for side in (96, 192)]
    [[96, 48, 24, 12, 6], [192, 96, 48, 24, 12]]

    Raises: SettingError for an unknown name, and a side at which a feature map would have a
        fraction of a pixel.
    """
    if name.lower() not in NETWORKS:
        raise SettingError.because(
            f"unknown {ARGUMENT}",
            got=repr(name),
            allowed=", ".join(NETWORKS),
            remedy="choose one of them; `ifspace optimize` takes other networks",
            argument="network",
        )
    whole_number(side, "side", 1, MAX_SIDE)
    small, large = SIDES
    return _scaled(NETWORKS[name.lower()](small if side < _LARGE_FROM else large), side)


def form_note(name: str, side: int, classes: int | None = None) -> str | None:
    """Return in which form a network is built for a size of images that no paper has.

    None for the sizes of the papers. `classes`: where they are not those of the form.

    >>> form_note("resnet50", 32)
    >>> print(form_note("ResNet50", 96))  # doctest: +NORMALIZE_WHITESPACE
    resnet50 at 96×96: the papers print nothing at this size; this is the form for images below
    112 pixels: no stride in the stem, batch norm, 1 dense layer, 10 classes
    >>> print(form_note("vgg16", 128, classes=7).partition("images ")[2])
    of 112 pixels or more: biases, 3 dense layers, 7 classes

    Raises: as `network`.
    """
    if side in SIDES:
        return None
    layout = network(name, side)
    ends = layout.stem_and_head
    if side < _LARGE_FROM:
        images = f"below {_LARGE_FROM} pixels"
    else:
        images = f"of {_LARGE_FROM} pixels or more"
    parts = []
    if ends.stem:
        factor = side // layout.stages[0].side
        divides = f"a stem that divides the side by {factor}"
        parts.append("no stride in the stem" if factor == 1 else divides)
    parts += ["batch norm"] * ends.batch_norm + ["biases"] * ends.bias
    dense = len(ends.classifier)
    parts.append(counted(dense, "dense layer"))
    parts.append(counted(classes or ends.classifier[-1], "class", "classes"))
    return (
        f"{name.lower()} at {side}×{side}: the papers print nothing at this size; "
        f"this is the form for images {images}: {', '.join(parts)}"
    )


def _scaled(layout: Layout, image: int) -> Layout:
    """Return the layout for images of another size; its stem and head stay."""
    ends, stages, old = layout.stem_and_head, layout.stages, layout.image
    sides = [side for stage in stages for side in (stage.side, stage.side_out)]
    # The least image of which all feature maps are whole pixels.
    step = old // gcd(old, *sides, *(stem_layer.side for stem_layer in ends.stem))
    if image % step:
        raise SettingError.because(
            "feature maps with a fraction of a pixel",
            got=f"side {image}",
            allowed=f"multiples of {step}",
            remedy="choose one of them",
            argument="side",
        )
    stem = tuple(replace(layer, side=layer.side * image // old) for layer in ends.stem)
    ends = replace(ends, stem=stem, image=None if ends.image is None else image)
    scaled = (
        replace(stage, side=stage.side * image // old, side_out=stage.side_out * image // old)
        for stage in stages
    )
    return Layout(tuple(scaled), ends)


def _entering(written: int, count: int) -> tuple[int, ...]:
    """Return what enters stages of which all but the first open with stride 2.

    >>> _entering(56, 4)
    (56, 56, 28, 14)
    """
    return written, *halved(written, count - 1)


def halved(first: int, count: int) -> tuple[int, ...]:
    """Return the sides of stages that each halve the one before.

    >>> halved(56, 4)
    (56, 28, 14, 7)
    """
    return tuple(first >> index for index in range(count))


def vgg(name: str, side: int, classes: int | None = None, hidden: Sequence[int] = ()) -> Layout:
    """Return a VGG network; feature maps are pooled between its stages.

    `classes` and `hidden` stand for the classifier of another data set.
    """
    small = side == SIDES[0]
    hidden = tuple(hidden) if small else (4096, 4096)
    stem_and_head = StemAndHead(
        batch_norm=small,
        bias=not small,
        classifier=(*hidden, classes or (10 if small else 1000)),
        pixels=1 if small else 49,
    )
    return make_layout(
        "CONV(3)", halved(side, 5), _VGG_WIDTHS, _VGG_DEPTHS[name], stem_and_head=stem_and_head
    )


def resnet50(side: int, classes: int | None = None) -> Layout:
    """Return ResNet-50: residual blocks with a bottleneck of a quarter."""
    small = side == SIDES[0]
    stem = _stem(3 if small else 7, 3, 64, 32 if small else 112)
    stem_and_head = StemAndHead(
        stem=(stem,),
        batch_norm=True,
        projections=True,
        classifier=(classes or (10 if small else 1000),),
        image=side,
    )
    first = 32 if small else 56
    return make_layout(
        "PW+CONV(3)+PW",
        _entering(first, 4),
        (256, 512, 1024, 2048),
        (3, 4, 6, 3),
        (1, 2, 2, 2),
        stem_and_head,
        Fraction(1, 4),
    )


def mobilenet(side: int, classes: int | None = None, stem_counts: bool = False) -> Layout:
    """Return MobileNet; `stem_counts`: its stem is the first layer of the first stage.

    >>> mobilenet(32).depths, mobilenet(32, stem_counts=True).depths
    ((1, 2, 2, 6, 2), (2, 2, 2, 6, 2))
    """
    small = side == SIDES[0]
    first = 32 if small else 112
    stem_and_head = StemAndHead(
        stem=(_stem(3, 3, 32, first),),
        batch_norm=True,
        stem_counts=stem_counts,
        classifier=(classes or (10 if small else 1000),),
        image=side,
    )
    widths, depths = (64, 128, 256, 512, 1024), (1 + stem_counts, 2, 2, 6, 2)
    strides = (1, 2, 2, 2, 2)
    return make_layout("DW+PW", _entering(first, 5), widths, depths, strides, stem_and_head)


def plain(side: int, widths: Sequence[int] = (64, 76, 96, 562)) -> Layout:
    """Return a plain network of [Layout] Table 2: one convolution to a stage, pooled between."""
    stem_and_head = StemAndHead(batch_norm=True, classifier=(10 if side == SIDES[0] else 1000,))
    return make_layout(
        "CONV(3)", halved(side, len(widths)), widths, [1] * len(widths), stem_and_head=stem_and_head
    )


def residual(side: int, widths: Sequence[int] = (16, 16, 32, 64)) -> Layout:
    """Return a residual network of [Layout] Table 3: 1, 10, 10 and 10 convolutions."""
    stem_and_head = StemAndHead(batch_norm=True, classifier=(10 if side == SIDES[0] else 1000,))
    sides = (side, *_entering(side, 3))
    return make_layout("CONV(3)", sides, widths, (1, 10, 10, 10), (1, 1, 2, 2), stem_and_head)


def listing(side: int, classes: int | None = None) -> Layout:
    """Return the CNN of [3DRF] Listing 1: four stages of two convolutions, and a dense layer.

    The listing names neither widths nor sides nor what joins the stages. Here: 3x3 convolutions
    with biases, torch's default, and no batch norm; VGG's widths; feature maps pooled between the
    stages, and to 2x2 pixels (7x7 of a large image) before they are flattened.
    """
    small = side == SIDES[0]
    dense = (classes or (10 if small else 1000),)
    stem_and_head = StemAndHead(bias=True, classifier=dense, pixels=4 if small else 49)
    return make_layout(
        "CONV(3)", halved(side, 4), _VGG_WIDTHS[:4], [2] * 4, stem_and_head=stem_and_head
    )


def fog(
    side: int,
    block: str = "CONV(3)",
    width: int = 64,
    depth: int = 4,
    bottleneck: Fraction | None = None,
    projections: bool = True,
    classifier: bool = True,
) -> Layout:
    """Return the network of [Fog] Table 1: four stages of `depth` blocks, widths doubling."""
    small = side == SIDES[0]
    classes = (10 if small else 1000,) if classifier else ()
    stem = _stem(3, 3, width, 32 if small else 112)
    stem_and_head = StemAndHead(
        stem=(stem,), batch_norm=True, projections=projections, classifier=classes, image=side
    )
    widths = tuple(width << index for index in range(4))
    sides = _entering(32 if small else 56, 4)
    return make_layout(block, sides, widths, [depth] * 4, (1, 2, 2, 2), stem_and_head, bottleneck)


def _stem(kernel: int, c_in: int, c_out: int, side: int) -> StemLayer:
    layer: SizedLayer = Block.parse(f"CONV({kernel})").at(c_in, c_out).layers[0]
    return StemLayer(layer, side)


def _vgg(name: str) -> Callable[[int], Layout]:
    return lambda side: vgg(name, side)


NETWORKS: Final[dict[str, Callable[[int], Layout]]] = {
    **{name: _vgg(name) for name in _VGG_DEPTHS},
    "resnet50": resnet50,
    "mobilenet": mobilenet,
    "layout-plain": plain,
    "layout-residual": residual,
    "fog": fog,
    "3drf": listing,
}
# Networks with shortcuts that have no weights, which their layouts do not count.
FREE_SHORTCUTS: Final = ("layout-residual",)


@dataclass(frozen=True, slots=True)
class PublishedLayout:
    """A row "-opt" of [3DRF]: its network, data set and table, and what is printed of it.

    `depths` are blocks; the paper counts MobileNet's stem too, as one more of stage 1. `params` in
    millions and `gain` (the sum of max − min over the moves) are printed to two decimals; `macs`
    are in millions.

    >>> vgg16 = published_layouts("vgg16", 32)[0]
    >>> vgg16.depths, vgg16.params, vgg16.layout.params, vgg16.has_printed_params
    ((5, 4, 2, 1, 1), '5.10', 5098826, True)
    """

    network: str
    side: int
    data: str
    table: int
    depths: tuple[int, ...]
    params: str
    macs: int
    gain: str

    @property
    def layout(self) -> Layout:
        """The network at these depths, with the classifier of its data set."""
        return _for_data(self.network, self.side, self.data).at_depths(self.depths)

    @property
    def depths_with_stem(self) -> tuple[int, ...]:
        """The depths where the layers of the stem count that the first stage has no pooling after.

        >>> [row.depths_with_stem for row in PUBLISHED if row.table == 5][2:]
        [(3, 3, 3, 3, 2), (4, 5, 4, 3)]
        """
        layout = self.layout
        side = layout.stages[0].side_strided
        stem = sum(layer.side == side for layer in layout.stem_and_head.stem)
        return (self.depths[0] + stem, *self.depths[1:])

    @property
    def has_printed_params(self) -> bool:
        """Whether the layout's parameters, rounded as printed, are those printed."""
        return f"{self.layout.params / 1e6:.2f}" == self.params


def _for_data(name: str, side: int, data: str) -> Layout:
    if data != "CIFAR-100":
        return network(name, side)
    if name.startswith("vgg"):
        return vgg(name, side, 100, (4096, 4096))
    return {"resnet50": resnet50, "mobilenet": mobilenet}[name](side, 100)


def published_layouts(name: str, side: int) -> tuple[PublishedLayout, ...]:
    """Return what was published of a network, by name, at images of side x side pixels."""
    return tuple(row for row in PUBLISHED if (row.network, row.side) == (name.lower(), side))


PUBLISHED: Final = (
    PublishedLayout("vgg16", 32, "CIFAR-10", 3, (5, 4, 2, 1, 1), "5.10", 370, "2.30"),
    PublishedLayout("vgg16", 32, "CIFAR-100", 4, (5, 4, 2, 1, 1), "24.39", 390, "2.30"),
    PublishedLayout("vgg16", 224, "ImageNet", 5, (3, 3, 3, 2, 2), "133.82", 16_900, "0.39"),
    PublishedLayout("vgg19", 32, "CIFAR-10", 3, (6, 4, 3, 2, 1), "8.09", 490, "3.13"),
    PublishedLayout("vgg19", 32, "CIFAR-100", 4, (6, 4, 3, 2, 1), "27.38", 500, "3.13"),
    PublishedLayout("vgg19", 224, "ImageNet", 5, (3, 2, 4, 4, 3), "141.34", 21_060, "1.09"),
    PublishedLayout("mobilenet", 32, "CIFAR-10", 3, (4, 4, 2, 2, 1), "1.13", 50, "3.94"),
    PublishedLayout("mobilenet", 32, "CIFAR-100", 4, (4, 4, 2, 2, 1), "1.23", 50, "3.94"),
    PublishedLayout("mobilenet", 224, "ImageNet", 5, (2, 3, 3, 3, 2), "3.52", 570, "2.59"),
    PublishedLayout("resnet50", 32, "CIFAR-10", 3, (5, 5, 4, 2), "17.24", 1310, "0.76"),
    PublishedLayout("resnet50", 32, "CIFAR-100", 4, (5, 5, 4, 3), "21.89", 1380, "0.76"),
    PublishedLayout("resnet50", 224, "ImageNet", 5, (4, 5, 4, 3), "23.67", 4130, "0.47"),
)
