"""The forms in which a block is run, and the layers that each of them runs as."""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from importlib.util import find_spec
from math import prod
from typing import Final

import torch
from torch import Tensor, nn

from ifspace.bench.machine import DTYPES
from ifspace.block import Layer, SizedBlock, SizedLayer
from ifspace.errors import SettingError
from ifspace.kernels.chain.operator import obstacle
from ifspace.kernels.chain.tiles import MARGIN, SHARED_WORK, plan_for
from ifspace.kinds import (
    KINDS,
    dense_pointwise_kind,
    grouped_pointwise_kind,
    kind_at_most_groups,
    reference_kind,
    rolling_pointwise_kind,
    shuffle_kind,
)
from ifspace.measurements import AS_IS, COLLAPSED, ONE_PASS
from ifspace.memory import bytes_of
from ifspace.nn.block import BlockModule, ChainModule, Style
from ifspace.nn.collapse import LAYERS, collapse
from ifspace.nn.fuse import Fused, fuse
from ifspace.nn.layers import RollingPointwiseConv2d


@dataclass(frozen=True, slots=True)
class Form:
    """A form: its name, and the module that it makes of a block in eval mode.

    `trains`: it is a training step of the block too, where batch norm is not folded. `devices`: the
    types of devices that it runs on.
    """

    name: str
    apply: Callable[[nn.Module], nn.Module]
    trains: bool = True
    devices: tuple[str, ...] = ("cpu", "cuda")

    @property
    def option(self) -> str:
        """The name without a space, for the command line."""
        return self.name.replace(" ", "-")


def _unchanged(module: nn.Module) -> nn.Module:
    return module


FORMS: Final = {
    form.name: form
    for form in (
        Form(AS_IS, _unchanged),
        Form(COLLAPSED, partial(collapse, choose=LAYERS)),
        Form(ONE_PASS, fuse, trains=False),
    )
}


def find_forms(names: Iterable[str] | None, device: torch.device) -> tuple[str, ...]:
    """Return the names of forms, the block as it is always first; for None all of a device.

    >>> find_forms(["collapsed"], torch.device("cpu"))
    ('as is', 'collapsed')

    Raises: SettingError for an unknown one, or one that does not run on the device.
    """
    here = {form.option: form.name for form in FORMS.values() if device.type in form.devices}
    if names is None:
        return tuple(here.values())
    chosen = {name.lower().replace(" ", "-") for name in names}
    if unknown := sorted(chosen - here.keys()):
        raise SettingError.because(
            f"no such form on {device.type}",
            got=repr(unknown[0]),
            allowed=", ".join(here),
            remedy="choose among these",
            argument="forms",
        )
    return tuple(name for option, name in here.items() if option in chosen or name == AS_IS)


@cache
def is_changed(
    form: str, sized: SizedBlock, stride: int, style: Style, device: str = "cpu"
) -> bool:
    """Return whether a block runs otherwise in a form than as it is, on a type of device.

    >>> from ifspace.nn.block import PLAIN
    >>> from ifspace.block import Block
    >>> blocks = (Block.parse(text).at(16) for text in ("DW+PW", "DW+GPW(4)+PW"))
    >>> [is_changed("collapsed", block, 1, PLAIN) for block in blocks]
    [False, True]
    """
    if form == ONE_PASS:
        module = _in_form(form, sized, stride, style)
        return isinstance(module, Fused) and (device != "cuda" or _fits_card(module))
    # Batch norm is folded wherever it is.
    layers = (layers_of(name, sized, stride, style) for name in (form, AS_IS))
    return form != AS_IS and (style.batch_norm or len(set(layers)) > 1)


def _fits_card(module: Fused) -> bool:
    """Return whether the kernel of a card computes all chains of a fused block."""
    if find_spec("triton") is None:
        return False
    from ifspace.kernels.chain.triton import Plan, plan_of

    runs = [segment.run for segment in module.segments]
    return all(run is None or isinstance(plan_of(run.chain), Plan) for run in runs)


def _in_form(form: str, sized: SizedBlock, stride: int, style: Style) -> nn.Module:
    """Return the module of a block in a form, without values."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nothing in .* can be fused")
        return FORMS[form].apply(BlockModule(sized, stride, style, device="meta").eval())


def fusion_fault(module: nn.Module, x: Tensor) -> str | None:
    """Return why a fused block would run layer by layer; None if it does not, or is not fused."""
    runs = [segment.run for segment in module.segments] if isinstance(module, Fused) else []
    reasons = (obstacle(x, run.chain) for run in runs if run is not None)
    return next((reason for reason in reasons if reason is not None), None)


@cache
def layers_of(
    form: str, sized: SizedBlock, stride: int, style: Style
) -> tuple[tuple[SizedLayer, int], ...]:
    """Return the layers that a block in a form computes, each with its stride.

    A fused block computes those of the block as it is, in one pass.

    >>> from ifspace.nn.block import PLAIN
    >>> from ifspace.block import Block
    >>> sized = Block.parse("DW+RPW(8,0)+GPW(8)").at(64)
    >>> [str(layer.layer) for layer, _ in layers_of("collapsed", sized, 1, PLAIN)]
    ['DW', 'PW']
    """
    if form != COLLAPSED:
        return tuple(zip(sized.layers, sized.strides(stride), strict=True))
    module = _in_form(form, sized, stride, style)
    assert isinstance(module, ChainModule)
    layers: list[tuple[SizedLayer, int]] = []
    width = sized.channels
    for name in module.steps:
        for leaf in module.get_submodule(name).modules():
            if isinstance(leaf, nn.Conv2d):
                widths = leaf.in_channels, leaf.out_channels
                sized_layer = convolution(*widths, leaf.kernel_size[0], leaf.groups)
                layers.append((sized_layer, leaf.stride[0]))
            elif isinstance(leaf, RollingPointwiseConv2d):
                rolling = rolling_pointwise_kind().symbol
                layer = Layer(rolling, leaf.groups, Fraction(leaf.overlap), order=leaf.order)
                layers.append((SizedLayer(layer, leaf.in_channels, leaf.out_channels), 1))
            elif isinstance(leaf, nn.ChannelShuffle):
                shuffle = Layer(shuffle_kind().symbol, leaf.groups)
                layers.append((SizedLayer(shuffle, width, width), 1))
            width = layers[-1][0].c_out if layers else width
    return tuple(layers)


def convolution(c_in: int, c_out: int, kernel: int, groups: int) -> SizedLayer:
    """Return a convolution as a layer of its kind.

    >>> str(convolution(16, 16, 3, 16).layer), str(convolution(16, 32, 1, 4).layer)
    ('DW', 'GPW(4)')
    """
    widths = c_in, c_out
    if kernel == 1:
        kind = dense_pointwise_kind() if groups == 1 else grouped_pointwise_kind()
        return SizedLayer(Layer(kind.symbol, groups if kind.takes_groups else None), *widths)
    if groups == 1:
        return SizedLayer(Layer(reference_kind().symbol, kernel=kernel), *widths)
    grouped = next(row for row in KINDS.values() if row.windowed and row.spatial)
    depthwise = kind_at_most_groups(grouped.symbol)
    if depthwise is not None and {groups} == set(widths):
        return SizedLayer(Layer(depthwise, kernel=kernel), *widths)
    return SizedLayer(Layer(grouped.symbol, groups, kernel=kernel), *widths)


def peak_bytes(
    form: str, sized: SizedBlock, side: int, stride: int, style: Style, dtype: str, threads: int = 1
) -> int | None:
    """Return the peak memory of a block in a form, for one image; None where it is not known.

    `side`: of what the block writes, in pixels. A fused block needs its input, its output and, for
    each of the threads, a tile of float32 as the engine plans it; that of one which is fused in
    part, or not at all, is not known. Weights are not counted.

    >>> from ifspace.nn.block import PLAIN
    >>> from ifspace.block import Block
    >>> sized = Block.parse("PW+DW+PW").at(24, bottleneck=6)
    >>> peak_bytes(AS_IS, sized, 56, 1, PLAIN, "fp32") == 4 * 56**2 * (144 + 144)
    True
    >>> 4 * 56**2 * (24 + 24) < peak_bytes(ONE_PASS, sized, 56, 1, PLAIN, "fp32") < 2_400_000
    True

    Raises: SettingError for an unknown type.
    """
    size = (side * stride,) * sized.dims
    if form == COLLAPSED:
        layers = layers_of(form, sized, stride, style)
        sized = replace(sized, layers=tuple(layer for layer, _ in layers))
    if form != ONE_PASS:
        return bytes_of(sized.peak_elements(size, stride, style.shortcut), dtype)
    module = _in_form(form, sized, stride, style)
    runs = [segment.run for segment in module.segments] if isinstance(module, Fused) else []
    if len(runs) != 1 or runs[0] is None or dtype not in DTYPES:
        return None
    height, width = size if sized.dims == 2 else (1, *size)
    plan = plan_for(runs[0].chain, 1, height, width, threads, DTYPES[dtype])
    used = 1 if plan.work < SHARED_WORK else threads
    maps = sized.channels * height * width + prod(plan.shape)
    return bytes_of(maps, dtype) + bytes_of(used * (plan.scratch + MARGIN), "fp32")
