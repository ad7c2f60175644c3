"""The convolutions of a network that a block may take the place of.

Such a layer is a plain 3 x 3 convolution of torch that keeps the side of its map, or halves it; a
block without a spatial kind may also take the place of a pointwise one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Final

import torch
from torch import nn
from torch.func import functional_call

from ifspace.errors import SettingError
from ifspace.models.graph import (
    Trace,
    TracedLayer,
)
from ifspace.models.tracing import evaluated

Side = tuple[int, int]
LEAST_CHANNELS: Final = 16
_BatchNorm = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, slots=True)
class ConvSite:
    """A convolution that may be replaced: its layer, and the maps of each call, before and behind.

    `normed`: whether a batch norm reads what it writes.
    """

    layer: TracedLayer
    calls: tuple[tuple[Side, Side], ...]
    normed: bool

    @property
    def name(self) -> str:
        """The path of the convolution."""
        return self.layer.name

    @property
    def stride(self) -> int:
        """The stride in pixels, the same down and across."""
        return self.layer.stride[0]

    @property
    def params(self) -> int:
        """Weights and biases."""
        return self.layer.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all calls for one image."""
        layer = self.layer
        a_pixel = layer.macs // (layer.side_out[0] * layer.side_out[1])
        return sum(a_pixel * height * width for _, (height, width) in self.calls)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A convolution that stays, and why."""

    name: str
    reason: str


def sites_of(
    model: nn.Module,
    trace: Trace,
    names: Iterable[str] | None = None,
    least_channels: int = LEAST_CHANNELS,
    pointwise: bool = False,
) -> tuple[tuple[ConvSite, ...], tuple[Skipped, ...]]:
    """Return the layers to replace, in the order in which they run, and the other convolutions.

    By default all 3 x 3 convolutions that read `least_channels` or more; `names` chooses others.
    `pointwise`: whether pointwise ones may be named too.

    Raises: SettingError for a name that is no layer, or of a layer that no block may replace.
    """
    called: dict[str, list[TracedLayer]] = {}
    for layer in trace.all_layers:
        called.setdefault(layer.name, []).append(layer)
    chosen: list[TracedLayer] = []
    skipped: list[Skipped] = []
    named = _checked(names, called)
    for name, calls in called.items():
        first = max(calls, key=lambda each: each.params)  # of several calls one counts the weights
        reason = why_not(model, first, pointwise and name in named)
        if name in named and reason:
            raise SettingError.because(
                "no block may replace this layer",
                got=f"{name} ({reason})",
                allowed="3 x 3 convolutions of stride 1 or 2, and 1 x 1 ones for blocks without a "
                "spatial kind",
                remedy="leave it out of names",
                argument="names",
            )
        if name in named or (names is None and not reason and first.c_in >= least_channels):
            chosen.append(first)
        elif names is None and first.conv.dense and first.conv.spatial:
            few = f"{first.c_in} input channels, fewer than {least_channels}"
            skipped.append(Skipped(name, reason or few))
    normed = _normed(model, [each.name for each in chosen], trace.image)
    return tuple(
        ConvSite(
            each,
            tuple((call.side_in, call.side_out) for call in called[each.name]),
            each.name in normed,
        )
        for each in chosen
    ), tuple(skipped)


def why_not(model: nn.Module, layer: TracedLayer, pointwise: bool = False) -> str:
    """Return why no block can take the place of a layer; nothing where one can."""
    if not layer.name:
        return "the network itself"
    conv: Any = model.get_submodule(layer.name)
    dense, spatial = layer.conv.dense and not layer.is_linear, layer.conv.spatial
    if dense and not spatial and isinstance(conv, nn.Conv2d) and not pointwise:
        return "a pointwise convolution, and the block has a spatial kind"
    sides, padding = ((3, 3), (1, 1)) if spatial else ((1, 1), (0, 0))
    if not dense:
        return f"a layer of kind {layer.kind}"
    if type(conv) is not nn.Conv2d and not _is_plain(conv):
        return f"{type(conv).__name__}, not a plain nn.Conv2d"
    for what, found, wanted in (
        ("kernel", conv.kernel_size, (sides,)),
        ("dilation", conv.dilation, ((1, 1),)),
        ("stride", conv.stride, ((1, 1), (2, 2)) if spatial else ((1, 1),)),
        ("padding", conv.padding, (padding, "same") if conv.stride == (1, 1) else (padding,)),
    ):
        if found not in wanted:
            return f"{what} {found if isinstance(found, str) else ' x '.join(map(str, found))}"
    if conv.padding_mode != "zeros":
        return f"padding of {conv.padding_mode}"
    return _shared(model, conv)


def _is_plain(module: Any) -> bool:
    """Whether a subclass computes what torch's convolution does, from weights that are its own."""
    return (
        isinstance(module, nn.Conv2d)
        and type(module).forward is nn.Conv2d.forward
        and type(module)._conv_forward is nn.Conv2d._conv_forward
        and not nn.utils.parametrize.is_parametrized(module)
    )


def _shared(model: nn.Module, conv: nn.Conv2d) -> str:
    own = {id(each) for each in conv.parameters()}
    for name, module in model.named_modules():
        mine = module.parameters(recurse=False)
        if module not in set(conv.modules()) and any(id(each) in own for each in mine):
            return f"weights shared with {name}"
    return ""


def _checked(names: Any, called: Mapping[str, Any]) -> set[str]:
    found = {names} if isinstance(names, str) else set(names or ())
    if names is not None and not found:
        raise SettingError.because(
            "no layer named",
            got="no names",
            allowed="one or more layers of the network",
            remedy="leave names out for all 3 x 3 convolutions",
            argument="names",
        )
    if unknown := sorted(map(str, found - called.keys())):
        raise SettingError.because(
            "no such layer in the network",
            got=", ".join(map(repr, unknown)),
            allowed=", ".join(get_close_matches(unknown[0], map(str, called), 3))
            or f"{len(called)} layers such as {next(iter(called))}",
            remedy="`ifspace analyze --layers` lists them",
            argument="names",
        )
    return found


def _normed(model: nn.Module, names: list[str], image: tuple[int, int, int]) -> frozenset[str]:
    """Return which convolutions write what a batch norm reads: run on shapes alone."""
    if not names:
        return frozenset()
    found: set[str] = set()
    written: dict[int, tuple[str, Any]] = {}  # the tensors too: another one may not get their id

    def wrote(name: str) -> Any:
        def hook(_: nn.Module, __: Any, y: Any) -> None:
            written[id(y)] = name, y

        return hook

    def read(_: nn.Module, given: Any) -> None:
        if given and id(given[0]) in written:
            found.add(written[id(given[0])][0])

    norms = [each for each in model.modules() if isinstance(each, _BatchNorm)]
    hooks = [model.get_submodule(name).register_forward_hook(wrote(name)) for name in names]
    hooks += [each.register_forward_pre_hook(read) for each in norms]
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(each, device="meta") for name, each in state.items()}
    kind = next((each.dtype for each in shapes.values() if each.is_floating_point()), None)
    try:
        with evaluated(model), torch.device("meta"):
            functional_call(model, shapes, (torch.empty(2, *image, dtype=kind),))
    except Exception:
        # Some forward that wants numbers: what stands behind it in the module is taken.
        return _in_order(model, names)
    finally:
        for hook in hooks:
            hook.remove()
    return frozenset(found)


def _in_order(model: nn.Module, names: list[str]) -> frozenset[str]:
    leaves = [(name, each) for name, each in model.named_modules() if not any(each.children())]
    return frozenset(
        name
        for (name, conv), (_, norm) in pairwise(leaves)
        if name in names
        and isinstance(norm, _BatchNorm)
        and norm.num_features == getattr(conv, "out_channels", None)
    )
