"""Which way computes the convolutions of a module, and why."""

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor, nn

from ifspace.kernels.tensors import check_tensors
from ifspace.kernels.thin import explain_thin_conv2d
from ifspace.nn.block import ChainModule
from ifspace.nn.checks import evaluated, unwrapped, wrong_type
from ifspace.nn.fuse import CHAIN, Fused, Run, Segment
from ifspace.nn.fuse import TORCH as BY_TORCH
from ifspace.nn.layers import RollingPointwiseConv2d, is_simple
from ifspace.values import counted

LAYERS: Final = (nn.Conv1d, nn.Conv2d, RollingPointwiseConv2d)
TORCH: Final = "torch's convolution"


def explain(module: nn.Module, x: Tensor) -> str:
    """Return for each convolution of a module which way computes it for inference, and why.

    The module is called with x, in evaluation mode. Lines are in the order of the calls; what is
    fused calls no layer: its layers, from the first to the last, have a line. The times are those
    that the cost model expects on one thread.

    >>> import torch
    >>> from ifspace.nn import build, fuse
    >>> text = explain(build("DW+GPW(16)", 64), torch.ones(1, 64, 28, 28))
    >>> [line.split(" (")[0] for line in text.splitlines()]
    ['layer0: compiled', 'layer1: compiled']
    >>> explain(nn.Sequential(fuse(build("DW+GPW(16)", 64))), torch.ones(1, 64, 28, 28))
    '0: one pass, 2 convolutions'

    Raises: SettingError for a value that is no module, KernelError for an x that is no tensor, and
        what the module raises.
    """
    module = unwrapped(module)
    if not isinstance(module, nn.Module):
        raise wrong_type("module", module, "a torch.nn.Module", "make one with build")
    check_tensors({"x": x})
    lines: list[str] = []

    def note(name: str, is_thin: bool) -> Callable[..., None]:
        def hook(layer: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
            lines.append(f"{name}: {_way(layer, inputs[0], is_thin)}".removeprefix(": "))

        return hook

    def note_run(name: str, run: Run) -> Callable[[str], None]:
        count = sum(part.convolution is not None for part in run.filters)
        texts = {CHAIN: f"one pass, {counted(count, 'convolution')}", BY_TORCH: f"{TORCH}, folded"}

        def heard(way: str) -> None:
            if way in texts:
                lines.append(f"{name}: {texts[way]}".removeprefix(": "))

        return heard

    chains = [part for part in module.modules() if isinstance(part, ChainModule)]
    thin = {id(layer) for chain in chains for layer in chain.children()}
    handles = [
        part.register_forward_hook(note(name, id(part) in thin))
        for name, part in module.named_modules()
        if isinstance(part, LAYERS)
    ]
    runs = [
        (segment.run, _place(name, part, segment))
        for name, part in module.named_modules()
        if isinstance(part, Fused)
        for segment in part.segments
        if segment.run is not None
    ]
    try:
        for run, name in runs:
            run.heard = note_run(name, run)
        with evaluated(module):
            module(x)
    finally:
        for handle in handles:
            handle.remove()
        for run, _ in runs:
            run.heard = None
    return "\n".join(lines) or "no convolution is called"


def _place(name: str, part: nn.Module, segment: Segment) -> str:
    """Return the name of a part that a segment is all of, or of its first and last layer."""
    names = segment.names
    if len(names) == len(part._modules):
        return name
    layers = [f"{name}.{own}".removeprefix(".") for own in dict.fromkeys((names[0], names[-1]))]
    return " to ".join(layers)


def _way(layer: Any, x: Tensor, is_thin: bool) -> str:
    """Return the way of a layer for its input, and why."""
    if isinstance(layer, RollingPointwiseConv2d):
        text = layer.explain(x).splitlines()[0]
    elif is_thin and type(layer) is nn.Conv2d and is_simple(layer):
        stride, padding = layer.stride[0], int(layer.padding[0])
        text = explain_thin_conv2d(x, layer.weight, stride, padding, layer.groups).splitlines()[0]
    else:
        text = TORCH
    return text.removeprefix("forward: ")
