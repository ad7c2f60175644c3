"""Networks: a layout of stages as a torch module, with the weights that the layout counts.

Weights, biases and batch norm are those of the layout's frame. What a layout does not count
(activations, shortcuts without weights, pooling, dropout) is the `NetworkStyle`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isqrt
from typing import Any, Final

import torch
from torch import Tensor, nn

from ifspace.block import Layer, SizedBlock, SizedLayer
from ifspace.errors import ARGUMENT, KernelError, SettingError
from ifspace.kinds import dense_pointwise_kind
from ifspace.nn.block import (
    ACTIVATIONS,
    BATCH_NORMS,
    WHERE,
    BlockModule,
    Style,
    build,
    last_writer,
)
from ifspace.nn.checks import check_dtype, check_seed, device_of, kind_of, wrong_type
from ifspace.nn.layers import layer_module
from ifspace.stages.layout import (
    INVERTED,
    MAX_DEPTH,
    RESIDUAL,
    Layout,
    Stage,
    StemAndHead,
)
from ifspace.stages.networks import (
    NETWORKS,
    network,
)
from ifspace.values import choice, whole_number

HEADS: Final = ("average", "max")
STARTS: Final = ("he", "variance")


@dataclass(frozen=True, slots=True)
class NetworkStyle:
    """What a network has that its layout does not count.

    `activation`: "relu", "relu6", "silu", "hardswish" or None; `where` it is applied: "each" is
    after every convolution, but after the sum instead of the last one before it; "between" leaves
    out the last of a block, and the sum; "end" is after the sum alone, or after a block without
    one. The stem always has it. `residual`: how many blocks a shortcut spans, 0 for no shortcuts;
    blocks that are left over at the end of a stage have none. `head`: how the last feature maps are
    pooled, "average" or "max". `dropout`: the probability of dropout after each hidden dense layer.
    `start`: how weights are drawn; "he" is for ReLUs, but dense layers as in torch; "variance" has
    dense layers by their fan-in too, and lets blocks with an identity as their shortcut begin with
    it alone, so that the variance of what enters is kept however deep the network is.

    >>> NetworkStyle(residual=1).activation
    'relu'

    Raises: SettingError for a value that is not allowed.
    """

    activation: str | None = "relu"
    where: str = "each"
    residual: int = 0
    head: str = "average"
    dropout: float = 0.0
    start: str = "he"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("activation", (*ACTIVATIONS, None)),
            ("where", WHERE),
            ("head", HEADS),
            ("start", STARTS),
        ):
            choice(getattr(self, name), name, allowed)
        whole_number(self.residual, "residual", 0, MAX_DEPTH)
        if not (type(self.dropout) in (int, float) and 0 <= self.dropout < 1):
            raise SettingError.because(
                f"{ARGUMENT} out of range",
                got=repr(self.dropout),
                allowed="0 <= dropout < 1",
                remedy="0 drops nothing",
                argument="dropout",
            )


_PLAIN: Final = NetworkStyle()
_VGG: Final = NetworkStyle(head="max", dropout=0.5)
_RESNET: Final = NetworkStyle(residual=1)
_FOG: Final = NetworkStyle(residual=1, where="end")

# [Layout] Table 3 counts convolutions, two of which form a residual block, as in the 32-layer
# network of He et al.; its single first convolution has no shortcut.
STYLES: Final[dict[str, NetworkStyle]] = {
    "vgg11": _VGG,
    "vgg13": _VGG,
    "vgg16": _VGG,
    "vgg19": _VGG,
    "resnet50": _RESNET,
    "mobilenet": _PLAIN,
    "layout-plain": _PLAIN,
    "layout-residual": NetworkStyle(residual=2),
    "fog": _FOG,
    "3drf": NetworkStyle(head="max"),
}


# Of the layouts of stages that are described: `ifspace.stages.networks.styled`.
LAYOUT_STYLES: Final[dict[str, NetworkStyle]] = {
    "resnet": NetworkStyle(residual=1, start="variance"),
    "mobilenet": NetworkStyle(activation="relu6", start="variance"),
    "plain": NetworkStyle(start="variance"),
}


def style_of(name: str) -> NetworkStyle:
    """Return the style of a network of the papers.

    >>> style_of("resnet50").residual, style_of("fog").where
    (1, 'end')

    Raises: SettingError for an unknown name.

    Reference: [Layout] Fig. 2 and Table 3, [Fog] section 4.1, [3DRF] Listing 1.
    """
    if not isinstance(name, str) or name.lower() not in STYLES:
        raise SettingError.because(
            f"unknown {ARGUMENT}",
            got=kind_of(name),
            allowed=", ".join(NETWORKS),
            remedy="choose one of them",
            argument="network",
        )
    return STYLES[name.lower()]


def style_for(layout: Layout) -> NetworkStyle:
    """Return the style of a layout without a name: shortcuts only if it counts projections."""
    return _RESNET if layout.stem_and_head.projections else _PLAIN


def network_style(style: Any, layout: Layout) -> NetworkStyle:
    """Return a style, given as such, by the name of a network, or None for that of the layout.

    "plain" has no activation, like the style of a block with that name.

    Raises: SettingError for anything else.
    """
    if style is None:
        return style_for(layout)
    if isinstance(style, str):
        if style.lower() == "plain":
            return NetworkStyle(activation=None)
        if style.lower() in STYLES:
            return STYLES[style.lower()]
    if not isinstance(style, NetworkStyle):
        raise wrong_type(
            "style",
            style,
            f"a NetworkStyle of ifspace.nn, or a name: plain, {', '.join(STYLES)}",
            "a network takes a NetworkStyle, build takes a Style",
        )
    return style


@dataclass(frozen=True, slots=True)
class StageJoin:
    """A stage and the feature maps before it: of side `before`, pooled to side `pooled`.

    `after_stem`: whether a stem writes these feature maps.
    """

    stage: Stage
    before: int
    pooled: int
    after_stem: bool


@dataclass(frozen=True, slots=True)
class Joins:
    """The strides of the layers of the stem, and the join of each stage."""

    stem_strides: tuple[int, ...]
    stages: tuple[StageJoin, ...]


def joins_of(layout: Layout) -> Joins:
    """Return how the parts of a layout fit together.

    Feature maps larger than a stage takes are pooled to its side.

    >>> from ifspace.stages.networks import network
    >>> joins = joins_of(network("resnet50", 224))
    >>> joins.stem_strides, [(join.before, join.pooled) for join in joins.stages]
    ((2,), [(112, 56), (56, 56), (28, 28), (14, 14)])

    Raises: SettingError naming the two parts that do not fit.
    """
    frame = layout.stem_and_head
    width, side, strides = frame.inputs, layout.image, []
    for number, stem in enumerate(frame.stem, start=1):
        _check_equal(f"layer {number} of the stem", "channels", stem.layer.c_in, width)
        if side % stem.side:
            raise _misfit(
                f"layer {number} of the stem", f"side {stem.side}", f"a divisor of {side}"
            )
        strides.append(side // stem.side)
        width, side = stem.layer.c_out, stem.side
    stages = []
    for number, stage in enumerate(layout.stages, start=1):
        where = f"stage {number}"
        _check_stage(where, stage, width, () if number > 1 else frame.counted_stem)
        pooled = stage.side_strided
        if pooled > side:
            raise _misfit(
                where,
                f"side {pooled}",
                f"no more than {side}, the side there",
            )
        stages.append(StageJoin(stage, side, pooled, bool(frame.stem) and number == 1))
        width, side = stage.width, stage.side_out
    _check_dims(layout)
    return Joins(tuple(strides), tuple(stages))


def head_side(layout: Layout) -> int:
    """Return the side to which the last feature maps are pooled before they are flattened.

    Raises: SettingError if the pixels that the layout counts are no square within the maps.
    """
    pixels, last = layout.stem_and_head.pixels, layout.stages[-1]
    side = pixels if last.first.dims == 1 else isqrt(pixels)
    if side**last.first.dims != pixels or side > last.side_out:
        raise _misfit(
            "the classifier", f"{pixels} pixels", f"squares up to {last.side_out} x {last.side_out}"
        )
    return side


def _check_stage(where: str, stage: Stage, width: int, before: tuple[Any, ...]) -> None:
    _check_equal(where, "channels", stage.first.channels, width)
    for channels in (stage.repeated.channels, stage.repeated.out_channels):
        _check_equal(f"the repeated block of {where}", "channels", channels, stage.width)
    if stage.stem != before:
        raise _misfit(
            where,
            f"{len(stage.stem)} layers counted before it",
            "the stem where the frame counts it, and nothing elsewhere",
        )


def _check_dims(layout: Layout) -> None:
    layers = [stem.layer for stem in layout.stem_and_head.stem]
    layers += [x for stage in layout.stages for unit in stage.blocks for x in unit.layers]
    dims = sorted({layer.dims for layer in layers})
    if len(dims) > 1:
        raise _misfit(
            "the network",
            f"layers of {' and '.join(map(str, dims))} dimensions",
            "one number of dimensions",
        )


def _check_equal(where: str, unit: str, number: int, before: int) -> None:
    if number != before:
        raise _misfit(where, f"{number} {unit}", f"{before}, the width there")


def _misfit(where: str, got: str, allowed: str) -> SettingError:
    return SettingError.because(
        f"{where} does not fit",
        got=got,
        allowed=allowed,
        remedy="make the layout with ifspace.stages.networks.make_layout",
    )


class FreeShortcut(nn.Module):
    """A shortcut without weights between different shapes: subsampled, and padded with zeros.

    Every `stride`-th pixel is taken; channels from `out_channels` on are dropped.

    >>> FreeShortcut(16, 32, stride=2)(torch.ones(1, 16, 8, 8)).shape
    torch.Size([1, 32, 4, 4])

    Reference: He et al., Deep Residual Learning for Image Recognition, section 3.3, option A.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.stride = in_channels, out_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, out_channels, ...] of x [N, in_channels, ...]."""
        for axis in range(2, x.dim()):
            x = x[(slice(None),) * axis + (slice(None, None, self.stride),)]
        missing = self.out_channels - self.in_channels
        # Padding counts from the last axis: two numbers for each spatial axis, then the channels.
        return nn.functional.pad(x, (*[0] * (2 * (x.dim() - 2)), 0, missing))

    def extra_repr(self) -> str:
        """Return the arguments that `repr` shows."""
        return f"{self.in_channels}, {self.out_channels}, stride={self.stride}"


class Residual(nn.Module):
    """A residual block: consecutive blocks, a shortcut, and an activation after the sum."""

    def __init__(self, units: Iterable[nn.Module], shortcut: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.units = nn.Sequential(*units)
        self.shortcut = shortcut
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, F, H', W'] of x [N, C, H, W]."""
        y: Tensor = self.act(torch.add(self.units(x), self.shortcut(x)))
        return y


_MAX_POOLS: Final[dict[int, type[nn.Module]]] = {1: nn.MaxPool1d, 2: nn.MaxPool2d}
_ADAPTIVE: Final[dict[tuple[str, int], type[nn.Module]]] = {
    ("max", 1): nn.AdaptiveMaxPool1d,
    ("max", 2): nn.AdaptiveMaxPool2d,
    ("average", 1): nn.AdaptiveAvgPool1d,
    ("average", 2): nn.AdaptiveAvgPool2d,
}


@dataclass(frozen=True, slots=True)
class _Joined:
    """How the blocks of a stage are joined.

    `spans`: how many blocks a shortcut spans, 0 for none; `projects`: the first is a projection;
    `where` the activation is; `free`: there are shortcuts between different shapes too.
    """

    spans: int
    projects: bool
    where: str
    free: bool = True


@dataclass(frozen=True, slots=True)
class Parts:
    """Builds the parts of a layout in a style, on one device and of one dtype."""

    layout: Layout
    style: NetworkStyle
    device: torch.device | str | None = None
    dtype: torch.dtype | None = None

    @property
    def stem_and_head(self) -> StemAndHead:
        """What the layout counts besides its blocks."""
        return self.layout.stem_and_head

    @property
    def dims(self) -> int:
        """The number of spatial dimensions of the feature maps."""
        return self.layout.stages[0].first.dims

    def stem(self, strides: Sequence[int]) -> nn.Sequential:
        """Return the layers before the stages, each with its batch norm and activation."""
        layers: list[nn.Module] = []
        for stem, stride in zip(self.stem_and_head.stem, strides, strict=True):
            layers.append(
                layer_module(stem.layer, stride, self.stem_and_head.bias, self.device, self.dtype)
            )
            if stem.layer.conv.writes:  # a shuffle writes nothing
                layers += [self._norm(stem.layer.c_out)] if self.stem_and_head.batch_norm else []
                layers.append(self._activation())
        return nn.Sequential(*layers)

    def stage(self, join: StageJoin) -> nn.Sequential:
        """Return the blocks of a stage, after pooling if the feature maps are too large.

        Raises: SettingError for projections in a style without shortcuts.
        """
        stage = join.stage
        joined = self._joined(stage)
        if joined.projects and not joined.spans:
            raise SettingError.because(
                "projections without shortcuts",
                got="residual 0",
                allowed="residual 1 or more where the layout counts projections",
                remedy="choose a style with shortcuts",
                argument="style",
            )
        parts = OrderedDict[str, nn.Module]()
        if join.pooled < join.before:
            parts["pool"] = self._pool(join)
        step = joined.spans or 1
        for n, start in enumerate(range(0, len(stage.blocks), step), start=1):
            group = stage.blocks[start : start + step]
            opens = start == 0
            parts[f"unit{n}"] = self._group(group, stage.stride if opens else 1, opens, joined)
        return nn.Sequential(parts)

    def _joined(self, stage: Stage) -> "_Joined":
        """Return how the blocks of a stage are joined: by its type, or as in the whole network."""
        where = self.style.where
        if stage.type is None:
            return _Joined(self.style.residual, self.stem_and_head.projections, where)
        if stage.type == INVERTED:
            return _Joined(1, False, "between", free=False)
        return _Joined(int(stage.type == RESIDUAL), stage.type == RESIDUAL, where)

    def _group(
        self, blocks: Sequence[SizedBlock], stride: int, opens: bool, joined: "_Joined"
    ) -> nn.Module:
        """Return consecutive blocks, with a shortcut if they are as many as one spans.

        A projection that the layout counts is built whatever their number. `opens`: they are the
        first of their stage.
        """
        strides = [stride, *[1] * (len(blocks) - 1)]
        projects = opens and joined.projects
        c_in, c_out = blocks[0].channels, blocks[-1].out_channels
        same = c_in == c_out and stride == 1
        spans = len(blocks) == joined.spans and (same or joined.free)
        if not (projects or spans):
            modules = [
                self._block(block, block_stride, joined.where)
                for block, block_stride in zip(blocks, strides, strict=True)
            ]
            return modules[0] if len(modules) == 1 else nn.Sequential(*modules)
        if len(blocks) == 1 and (projects or same):
            kind = "projection" if projects else "identity"
            return self._block(blocks[0], stride, joined.where, kind)
        # The activation after the sum replaces the last one before it, with "end" all of them.
        wheres = [joined.where] * (len(blocks) - 1) + ["between"]
        modules = [
            self._block(*arguments, inside=True)
            for arguments in zip(blocks, strides, wheres, strict=True)
        ]
        shortcut: nn.Module = nn.Identity()
        if projects:
            shortcut = self._projection(c_in, c_out, stride)
        elif not same:
            shortcut = FreeShortcut(c_in, c_out, stride)
        between = joined.where == "between"
        return Residual(modules, shortcut, nn.Identity() if between else self._activation())

    def _block(
        self,
        block: SizedBlock,
        stride: int,
        where: str,
        shortcut: str = "none",
        inside: bool = False,
    ) -> nn.Module:
        silent = inside and self.style.where == "end"
        style = Style(
            self.stem_and_head.batch_norm,
            None if silent else self.style.activation,
            where,
            shortcut,
            self.stem_and_head.bias,
        )
        return build(block, stride=stride, style=style, device=self.device, dtype=self.dtype)

    def _projection(self, c_in: int, c_out: int, stride: int) -> nn.Module:
        layer = SizedLayer(Layer(dense_pointwise_kind().symbol), c_in, c_out, self.dims)
        parts = [layer_module(layer, stride, self.stem_and_head.bias, self.device, self.dtype)]
        parts += [self._norm(c_out)] if self.stem_and_head.batch_norm else []
        return nn.Sequential(*parts)

    def head(self) -> nn.Sequential:
        """Return pooling, flattening and dense layers; an empty module without a classifier."""
        if not self.stem_and_head.classifier:
            return nn.Sequential()
        last = self.layout.stages[-1]
        side = head_side(self.layout)
        parts = OrderedDict[str, nn.Module]()
        if last.type == INVERTED:
            # Its blocks end without one: the mean of their pixels alone would be near 0.
            parts["act"] = self._activation()
        if side < last.side_out:
            parts["pool"] = _ADAPTIVE[self.style.head, self.dims](side)
        parts["flatten"] = nn.Flatten()
        *hidden, classes = pairwise(
            (last.width * self.stem_and_head.pixels, *self.stem_and_head.classifier)
        )
        for n, (c_in, c_out) in enumerate(hidden, start=1):
            parts[f"dense{n}"] = self._dense(c_in, c_out)
            parts[f"dense{n}_act"] = self._activation()
            if self.style.dropout:
                parts[f"dense{n}_drop"] = nn.Dropout(self.style.dropout)
        parts["logits"] = self._dense(*classes)
        return nn.Sequential(parts)

    def _pool(self, join: StageJoin) -> nn.Module:
        ratio = join.before // join.pooled
        if join.before // ratio != join.pooled or ratio == 1:
            return _ADAPTIVE["max", self.dims](join.pooled)
        if join.after_stem and join.before == 2 * join.pooled:
            # After a stem the windows overlap, as in ResNet and [Fog] Table 1.
            return _MAX_POOLS[self.dims](3, 2, 1)
        return _MAX_POOLS[self.dims](ratio)

    def _norm(self, width: int) -> nn.Module:
        return BATCH_NORMS[self.dims](width, device=self.device, dtype=self.dtype)

    def _dense(self, c_in: int, c_out: int) -> nn.Module:
        return nn.Linear(c_in, c_out, device=self.device, dtype=self.dtype)

    def _activation(self) -> nn.Module:
        return ACTIVATIONS[self.style.activation]() if self.style.activation else nn.Identity()


# Far above any data set.
MAX_CLASSES: Final = 10**6


class Network(nn.Module):
    """The network of a layout: stem, stages, and the classifier if it has one.

    It takes images [N, inputs, S, S] with S = `layout.image` and returns logits [N, classes], or
    without a classifier the feature maps of the last stage. `build_network` and `named_network`
    build it and draw the weights.

    Raises: SettingError for a layout whose parts do not fit each other.
    """

    def __init__(
        self,
        layout: Layout,
        style: NetworkStyle | str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(layout, Layout):
            raise wrong_type(
                "layout",
                layout,
                "a Layout such as ifspace.stages.networks.make_layout returns",
                "named_network takes a name",
            )
        check_dtype(dtype)
        self.layout = layout
        self.style = network_style(style, layout)
        parts = Parts(layout, self.style, device, dtype)
        joins = joins_of(layout)
        self.stem = parts.stem(joins.stem_strides)
        self.stages = nn.Sequential(
            OrderedDict(
                (f"stage{n}", parts.stage(join)) for n, join in enumerate(joins.stages, start=1)
            )
        )
        self.head = parts.head()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits [N, classes], or feature maps, of images [N, inputs, S, S].

        Raises: KernelError for images of another size.
        """
        dims = self.layout.stages[0].first.dims
        shape = (self.layout.stem_and_head.inputs, *[self.layout.image] * dims)
        if tuple(x.shape[1:]) != shape:
            raise KernelError.because(
                "input does not fit the network",
                got=list(x.shape),
                allowed=f"[N, {', '.join(map(str, shape))}]",
                remedy="resize the images, or build the network for their size",
                argument="x",
            )
        y: Tensor = self.head(self.stages(self.stem(x)))
        return y

    def extra_repr(self) -> str:
        """Return what `repr` shows before the submodules."""
        return f"image={self.layout.image}, depths={self.depths}, style={self.style}"

    @property
    def depths(self) -> tuple[int, ...]:
        """The blocks of each stage that are there; some of the layout's may have been removed."""
        return tuple(_count_blocks(stage) for stage in self.stages)


def _count_blocks(module: nn.Module) -> int:
    """Return the number of blocks in a module, not those that took the place of their layers."""
    return isinstance(module, BlockModule) or sum(map(_count_blocks, module.children()))


def build_network(
    layout: Layout,
    style: NetworkStyle | str | None = None,
    *,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """Build the network of a layout and draw its weights.

    `style`: a NetworkStyle; the name of a network for its style; "plain" for no activation; None
    for ReLUs, with shortcuts if the layout counts projections. The weights of convolutions are
    drawn for ReLUs (He et al.) by their fan-in, and their biases are 0; batch norm and dense layers
    start as in torch. The same `seed` draws the same weights and leaves torch's generators as they
    are; None draws from them.

    >>> from ifspace.stages.networks import make_layout
    >>> layout = make_layout("DW+PW", (8, 4), (16, 32), (1, 2))
    >>> net = build_network(layout, seed=0)
    >>> net(torch.ones(2, 3, 8, 8)).shape, sum(p.numel() for p in net.parameters())
    (torch.Size([2, 32, 4, 4]), 2043)
    >>> layout.params
    2043

    Only what the layout counts is built. Change its `stem_and_head` for batch norm or a classifier:

    >>> from dataclasses import replace
    >>> frame = replace(net.layout.stem_and_head, batch_norm=True, classifier=(100,))
    >>> build_network(replace(net.layout, stem_and_head=frame))(torch.ones(2, 3, 8, 8)).shape
    torch.Size([2, 100])

    Raises: SettingError for a layout whose parts do not fit each other or the style, or a wrong
        seed; BlockError for a stride without a spatial layer to hold it; DeviceError for a device
        that does not exist.
    """
    check_seed(seed)
    if device is not None:
        device = device_of(device)
    with seeded(seed, device):
        network = Network(layout, style, device, dtype)
        _initialise(network)
        if network.style.start == "variance":
            _keep_variance(network)
    return network


def named_network(
    name: str,
    side: int = 32,
    depths: Sequence[int] | None = None,
    *,
    classes: int | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Network:
    """Build a network of the papers for images of side x side pixels.

    `depths`: of its stages, the network's own if not given; `classes`: 10 for the small images and
    1000 for the large ones if not given. Weights are drawn as in `build_network`. The papers
    describe sides of 32 and 224; for other sides the feature maps of the first are scaled, from 112
    on those of the second. For other widths, blocks or pooling make a layout with
    `ifspace.stages.networks.make_layout` and a StemAndHead, and pass it to `build_network` with the
    name of the network as its style.

    >>> net = named_network("resnet50", 224, device="meta")
    >>> sum(p.numel() for p in net.parameters())
    25557032
    >>> named_network("vgg11", 64, classes=100)(torch.ones(2, 3, 64, 64)).shape
    torch.Size([2, 100])

    Raises: SettingError for an unknown name or side, depths or classes that do not fit.
    """
    style = style_of(name)
    layout = network(name, side)
    layout = layout if depths is None else layout.at_depths(_depths(depths))
    if classes is not None:
        dense = (
            *layout.stem_and_head.classifier[:-1],
            whole_number(classes, "classes", 1, MAX_CLASSES),
        )
        layout = replace(layout, stem_and_head=replace(layout.stem_and_head, classifier=dense))
    return build_network(layout, style, seed=seed, device=device, dtype=dtype)


def _depths(depths: Any) -> tuple[int, ...]:
    if isinstance(depths, str) or not isinstance(depths, Iterable):
        raise wrong_type(
            "depths", depths, "a whole number for each stage", "write them like (5, 4, 2, 1, 1)"
        )
    return tuple(whole_number(depth, "depths", 1, MAX_DEPTH) for depth in depths)


@contextmanager
def seeded(seed: int | None, device: torch.device | str | None) -> Iterator[None]:
    """Seed torch's generators of the CPU and a device within a context; None leaves them alone."""
    if seed is None:
        yield
        return
    device = torch.device("cpu" if device is None else device)
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        # Not torch.manual_seed, which would also seed devices that are not restored afterwards.
        torch.default_generator.manual_seed(seed)
        if on_cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def _initialise(network: nn.Module) -> None:
    """Draw the weights of the convolutions again, for ReLUs.

    Reference: He et al., Delving Deep into Rectifiers, eq. 10.
    """
    for module in network.modules():
        weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
        # Dense layers keep torch's initialisation; weights with one axis are those of batch norm.
        if isinstance(module, nn.Linear) or weight is None or weight.dim() < 2:
            continue
        nn.init.kaiming_normal_(weight, mode="fan_in", nonlinearity="relu")
        if bias is not None:
            nn.init.zeros_(bias)


def _keep_variance(network: nn.Module) -> None:
    """Draw dense layers by their fan-in; let identities pass alone where blocks have batch norm.

    Reference: Goyal et al., Accurate, Large Minibatch SGD, section 5.1, for the scale 0.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            nn.init.zeros_(module.bias)
        elif isinstance(module, BlockModule) and module.shortcut_kind == "identity":
            nn.init.zeros_(module.get_parameter(f"layer{last_writer(module.sized)}_bn.weight"))
