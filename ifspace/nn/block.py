"""Blocks as torch modules: any block at any widths, with a stride and in a style.

Submodules are named after the layers of the chain: `layer0`, `layer0_bn`, `layer0_act`, `layer1`,
..., `shortcut`, `shortcut_bn`, `act`. `ifspace.nn.to_source` writes a block as plain PyTorch.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from ifspace.block import NO_SHORTCUT, SHORTCUTS, Block, Layer, SizedBlock, SizedLayer
from ifspace.catalogue.design import Design
from ifspace.errors import BlockError, KernelError, SettingError
from ifspace.kinds import dense_pointwise_kind
from ifspace.nn.checks import check_dtype, wrong_type
from ifspace.nn.layers import Device, Geometry, layer_module, run_layer
from ifspace.values import choice, whole_number

ACTIVATIONS: Final[dict[str, type[nn.Module]]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "silu": nn.SiLU,
    "hardswish": nn.Hardswish,
}
WHERE: Final = ("each", "between", "end")
NORM_WHERE: Final = ("each", "between")
BIAS_WHERE: Final = ("each", "last")
BATCH_NORMS: Final[dict[int, type[nn.Module]]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


@dataclass(frozen=True, slots=True)
class Style:
    """Batch norm, activations, shortcut and biases of a block.

    `batch_norm`: after every layer that writes, and after a projection. `activation`: "relu",
    "relu6", "silu", "hardswish" or None. `where` it is applied: "each" is after every layer that
    writes, but with a shortcut after the sum instead of the last; "between" leaves out the last;
    "end" is once, after the sum or the last layer. A shuffle writes nothing. `shortcut`: "none";
    "identity"; "projection", a 1x1 convolution with the block's stride; "auto", an identity if the
    shapes are equal and a projection otherwise. `bias`: whether convolutions have one.

    A block that replaces one convolution of a network leaves to the network what follows it: with
    `batch_norm_where` "between" neither the last layer that writes nor a projection has a batch
    norm; with `bias_where` "last" no other layer has a bias.

    >>> Style(activation="silu", where="end").batch_norm
    True

    Raises: SettingError for a value that is not allowed.
    """

    batch_norm: bool = True
    activation: str | None = "relu"
    where: str = "each"
    shortcut: str = "none"
    bias: bool = False
    batch_norm_where: str = "each"
    bias_where: str = "each"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("activation", (*ACTIVATIONS, None)),
            ("where", WHERE),
            ("shortcut", SHORTCUTS),
            ("batch_norm_where", NORM_WHERE),
            ("bias_where", BIAS_WHERE),
        ):
            choice(getattr(self, name), name, allowed)


# [Fog] section 4.1: batch norm after every layer, one ReLU after the sum.
FOG: Final = Style(where="end", shortcut="auto")
# Howard et al., MobileNets, section 3.1: batch norm and ReLU after every convolution.
MOBILENET: Final = Style()
# The layers alone, for which the information field is defined.
PLAIN: Final = Style(batch_norm=False, activation=None)
STYLES: Final = {"plain": PLAIN, "mobilenet": MOBILENET, "fog": FOG}


def block_style(style: Any) -> Style:
    """Return a style, given as such or by name: "plain", "mobilenet", "fog".

    Raises: SettingError for anything else.
    """
    if isinstance(style, str) and style.lower() in STYLES:
        return STYLES[style.lower()]
    if not isinstance(style, Style):
        raise wrong_type(
            "style",
            style,
            f"a Style of ifspace.nn, or a name: {', '.join(STYLES)}",
            "a block takes a Style, build_network takes a NetworkStyle",
        )
    return style


class ChainModule(nn.Module):
    """Layers in a row, a shortcut around them, and an activation after the sum.

    Convolutions run in the fastest known way: see `run_layer`.

    `steps` are the names of the submodules in the order in which they run, without those of the
    shortcut: "none", "identity" or "projection", by `shortcut_kind`.
    """

    act: nn.Module
    shortcut: nn.Module
    shortcut_bn: nn.Module
    steps: tuple[str, ...]
    shortcut_kind: str

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, F, H', W'] of x [N, C, H, W]."""
        y = x
        for name in self.steps:
            y = run_layer(getattr(self, name), y)
        if self.shortcut_kind == "projection":
            x = run_layer(self.shortcut, x)
            x = self.shortcut_bn(x) if hasattr(self, "shortcut_bn") else x
        if self.shortcut_kind != "none":
            y = y + x
            y = self.act(y) if hasattr(self, "act") else y
        return y


class BlockModule(ChainModule):
    """A block at its widths as a module, [N, C, H, W] to [N, F, H / stride, W / stride].

    Built by `build` from `sized`, `stride` and `style`. A repeated block has all its copies and one
    shortcut around them. `geometry`: which pixels its spatial layers read, in the place of a
    convolution that reads others than its neighbours.

    Raises: SettingError for an identity shortcut between different shapes; BlockError for a stride
        without a spatial layer, or a geometry that needs exactly one; KernelError for an input that
        does not fit.
    """

    geometry: Geometry = Geometry()  # of a module that was pickled before there was another

    def __init__(
        self,
        sized: SizedBlock,
        stride: int = 1,
        style: Style | str = PLAIN,
        device: Device = None,
        dtype: torch.dtype | None = None,
        geometry: Geometry = Geometry(),  # noqa: B008 - a frozen value
    ) -> None:
        super().__init__()
        check_dtype(dtype)
        style = block_style(style)
        self.geometry = _checked_geometry(geometry, sized, stride, style)
        self.sized, self.stride, self.style = (
            sized,
            whole_number(stride, "stride", error=BlockError),
            style,
        )
        strides = sized.strides(self.stride)
        self.shortcut_kind = sized.shortcut_kind(self.stride, style.shortcut)
        self._last = last_writer(sized)
        steps: list[str] = []
        for index, (layer, layer_stride) in enumerate(zip(sized.layers, strides, strict=True)):
            is_last = index == self._last
            norm = style.batch_norm and not (is_last and style.batch_norm_where == "between")
            bias = style.bias and (is_last or style.bias_where == "each")
            steps += self._add(f"layer{index}", layer, layer_stride, norm, bias, device, dtype)
            if style.activation and self._has_activation(index):
                steps.append(f"layer{index}_act")
                self.add_module(steps[-1], ACTIVATIONS[style.activation]())
        self.steps = tuple(steps)
        if self.shortcut_kind == "projection":
            projection = SizedLayer(
                Layer(dense_pointwise_kind().symbol), sized.channels, sized.out_channels, sized.dims
            )
            norm = style.batch_norm and style.batch_norm_where == "each"
            bias = style.bias and style.bias_where == "each"
            self._add("shortcut", projection, stride, norm, bias, device, dtype)
        if style.activation and style.where != "between" and self.shortcut_kind != "none":
            self.act = ACTIVATIONS[style.activation]()

    def _add(
        self,
        name: str,
        layer: SizedLayer,
        stride: int,
        norm: bool,
        bias: bool,
        device: Device,
        dtype: torch.dtype | None,
    ) -> list[str]:
        """Add a layer, and its batch norm if `norm`, and return their names."""
        self.add_module(name, layer_module(layer, stride, bias, device, dtype, self.geometry))
        if not (norm and layer.conv.writes):
            return [name]
        batch_norm = BATCH_NORMS[self.dims](layer.c_out, device=device, dtype=dtype)
        self.add_module(f"{name}_bn", batch_norm)
        return [name, f"{name}_bn"]

    @property
    def dims(self) -> int:
        """How many spatial dimensions its feature maps have."""
        return self.geometry.dims(self.sized)

    def _has_activation(self, index: int) -> bool:
        layers = self.sized.layers
        if self.style.where == "end":
            return self.shortcut_kind == "none" and index == len(layers) - 1
        last_has_one = self.style.where == "each" and self.shortcut_kind == "none"
        return layers[index].conv.writes and (index != self._last or last_has_one)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, F, H / stride, W / stride] of x [N, C, H, W], [N, F, L / stride] in 1-D."""
        if x.dim() != self.dims + 2 or x.shape[1] != self.sized.channels:
            raise KernelError.because(
                "input does not fit the block",
                got=list(x.shape),
                allowed=f"[N, {self.sized.channels}, {'L' if self.dims == 1 else 'H, W'}]",
                remedy="build the block at the width of its input",
                argument="x",
            )
        return super().forward(x)

    def extra_repr(self) -> str:
        """Return what `repr` shows before the submodules."""
        sized = self.sized
        text = f"{sized.block}, {sized.channels} to {sized.out_channels} channels"
        text += f", stride={self.stride}" if self.stride > 1 else ""
        text += "" if self.geometry.is_default else f", {self.geometry}"
        return text if self.shortcut_kind != "identity" else f"{text}, shortcut=identity"


def _checked_geometry(geometry: Geometry, sized: SizedBlock, stride: int, style: Style) -> Geometry:
    """Return the geometry of a block. Raises: BlockError for one that it cannot have."""
    spatial = sum(layer.conv.spatial for layer in sized.layers)
    alone = not geometry.keeps_size or (stride > 1 and not geometry.is_default)
    fact = ""
    if alone and spatial != 1:
        fact, got = "a geometry for one spatial layer", f"{spatial} in {sized.block}"
    elif not geometry.keeps_size and style.shortcut != NO_SHORTCUT:
        fact, got = "a shortcut around layers that change the spatial size", str(geometry)
    if fact:
        raise BlockError.because(
            fact,
            got=f"{got} at stride {stride}",
            allowed="one spatial layer, and no shortcut",
            remedy="take a block such as DW+PW",
        )
    return geometry


class LastAxisBlock(nn.Module):
    """A block in the place of an nn.Linear: [..., C] to [..., F], channels on the last axis.

    The block runs on a view with the channels in front, which for [N, H, W, C] is a feature map in
    the memory layout channels_last.

    >>> layer = LastAxisBlock(build("GPW(2)+SH(2)+GPW(2)", 4, 8))
    >>> layer(torch.ones(2, 5, 5, 4)).shape, layer(torch.ones(3, 4)).shape
    (torch.Size([2, 5, 5, 8]), torch.Size([3, 8]))

    Raises: in a call KernelError for an input that does not fit.
    """

    def __init__(self, block: BlockModule) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Return y [..., F] of x [..., C]."""
        if x.dim() == 4:
            return cast(Tensor, self.block(x.movedim(-1, 1)).movedim(1, -1))
        if x.dim() == 3:
            return self.forward(x.unsqueeze(1)).squeeze(1)
        if x.dim() == 2:
            return self.forward(x[:, None, None])[:, 0, 0]
        y = self.forward(x.reshape(-1, *x.shape[-3:]))
        return y.reshape(*x.shape[:-1], y.shape[-1])


def build(
    block: Block | SizedBlock | Design | str,
    channels: int | None = None,
    out_channels: int | None = None,
    *,
    bottleneck: Fraction | int | str | None = None,
    stride: int | None = None,
    style: Style | str = PLAIN,
    device: Device = None,
    dtype: torch.dtype | None = None,
) -> BlockModule:
    """Build the module of a block from `channels` to `out_channels`.

    A SizedBlock and a Design of a catalogue have their own widths and dimensions; other blocks have
    two dimensions. The stride, 1 or a Design's own if not given, is that of the first spatial
    layer. `style`: a Style, or "plain", "mobilenet", "fog".

    >>> module = build("DW+RPW(8,0)+GPW(8)", 64, stride=2, style=MOBILENET)
    >>> module(torch.ones(1, 64, 32, 32)).shape, sum(p.numel() for p in module.parameters())
    (torch.Size([1, 64, 16, 16]), 1984)

    Raises: BlockError for text that is no block, or a block that does not fit the widths;
        SettingError for widths that are missing or given twice, or an identity shortcut between
        different shapes.
    """
    if not isinstance(block, Block | SizedBlock | Design | str):
        raise wrong_type(
            "block",
            block,
            'a block such as "DW+PW", a Block, a SizedBlock, or a Design',
            "write it in the notation",
        )
    if isinstance(block, SizedBlock | Design):
        if (channels, out_channels, bottleneck) != (None, None, None):
            raise SettingError.because(
                "widths given twice",
                got=f"{block.block}, which has widths, and other widths",
                allowed="one of them",
                remedy="leave the widths out, or give its .block alone",
                argument="channels",
            )
        default = block.stride if isinstance(block, Design) else 1
        sized = block.sized if isinstance(block, Design) else block
        return BlockModule(sized, default if stride is None else stride, style, device, dtype)
    if channels is None:
        raise SettingError.because(
            "no width",
            got=f"{block} alone",
            allowed="channels from 1",
            remedy="give the number of input channels",
            argument="channels",
        )
    block = Block.parse(block) if isinstance(block, str) else block
    sized = block.at(channels, out_channels, bottleneck)
    return BlockModule(sized, 1 if stride is None else stride, style, device, dtype)


def last_writer(sized: SizedBlock) -> int:
    """Return the index of the last layer that writes, -1 if none does.

    >>> last_writer(Block.parse("DW+GPW(2)+SH(2)").at(4))
    1
    """
    return max((n for n, layer in enumerate(sized.layers) if layer.conv.writes), default=-1)
