"""Which way computes the convolutions of a module, and why."""

from collections.abc import Callable
from typing import Any, Final

from torch import Tensor, nn

from ifspace.kernels.tensors import check_tensors
from ifspace.kernels.thin import explain_thin_conv2d
from ifspace.nn.block import ChainModule
from ifspace.nn.checks import evaluated, unwrapped, wrong_type
from ifspace.nn.fuse import Fused
from ifspace.nn.layers import RollingPointwiseConv2d, is_simple
from ifspace.values import counted

LAYERS: Final = (nn.Conv1d, nn.Conv2d, RollingPointwiseConv2d)
TORCH: Final = "torch's convolution"


def explain(module: nn.Module, x: Tensor) -> str:
    """Return for each convolution of a module which way computes it for inference, and why.

    The module is called with x, in evaluation mode. Lines are in the order of the calls; what is
    fused calls no layer and has a line of its own. The times are those that the cost model expects
    on one thread.

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
    explained: set[nn.Module] = set()

    def note(name: str, is_thin: bool) -> Callable[..., None]:
        def hook(layer: Any, inputs: tuple[Tensor, ...], _: Tensor) -> None:
            explained.add(layer)
            lines.append(f"{name}: {_way(layer, inputs[0], is_thin)}".removeprefix(": "))

        return hook

    def note_fused(name: str) -> Callable[..., None]:
        def hook(part: nn.Module, *_: Any) -> None:
            passed = [x for x in part.modules() if isinstance(x, LAYERS) and x not in explained]
            explained.update(passed)
            if passed:
                text = f"{name}: one pass, {counted(len(passed), 'convolution')}"
                lines.append(text.removeprefix(": "))

        return hook

    chains = [part for part in module.modules() if isinstance(part, ChainModule)]
    thin = {id(layer) for chain in chains for layer in chain.children()}
    handles = [
        part.register_forward_hook(
            note_fused(name) if isinstance(part, Fused) else note(name, id(part) in thin)
        )
        for name, part in module.named_modules()
        if isinstance(part, (*LAYERS, Fused))
    ]
    try:
        with evaluated(module):
            module(x)
    finally:
        for handle in handles:
            handle.remove()
    return "\n".join(lines) or "no convolution is called"


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
