"""Fields of a real module by autograd: the inputs that the central pixel of each output depends on.

A copy of the module runs in fp64 with random positive weights, so that no gradients cancel.
The strides of the copy are 1: MATH section 5 counts a strided layer in the stage that it opens, in
pixels of its output. Nothing here reads the trace.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ifspace.nn import RollingPointwiseConv2d

# (height, width) in pixels, and channels.
Field = tuple[tuple[int, int], int]
LAYERS = (nn.Conv1d, nn.Conv2d, RollingPointwiseConv2d)


def prepared(part: nn.Module) -> nn.Module:
    """A copy of stride 1 whose weights keep an input of ones near 1, below the limit of ReLU6."""
    copied = copy.deepcopy(part).double().eval()
    generator = torch.Generator().manual_seed(0)
    for module in copied.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            module.stride = (1,) * len(module.stride)
        if isinstance(module, LAYERS):
            with torch.no_grad():
                size = module.weight[0].numel()
                module.weight.copy_(torch.rand(module.weight.shape, generator=generator) + 0.5)
                module.weight /= 1.5 * size
                if module.bias is not None:
                    module.bias.zero_()
    return copied


def fields_of(
    part: nn.Module, channels: int, side: tuple[int, int], names: Sequence[str]
) -> dict[str, Field]:
    """Return the field of every layer of `part` and of the modules in `names`, by full name."""
    model = prepared(part)
    written: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        written[name] = output

    for name, module in model.named_modules():
        if isinstance(module, LAYERS) or name in names:
            module.register_forward_hook(partial(keep, name))
    image = torch.ones(1, channels, *side, dtype=torch.float64, requires_grad=True)
    model(image)
    return {name: field(output, image) for name, output in written.items()}


def field(output: Tensor, image: Tensor) -> Field:
    """Return the widest extent and the fewest channels that outputs at the central pixel see."""
    centre = output[0, :, *(size // 2 for size in output.shape[2:])]
    ones = torch.eye(len(centre), dtype=centre.dtype)
    (gradient,) = torch.autograd.grad(centre, image, ones, retain_graph=True, is_grads_batched=True)
    seen = gradient[:, 0] != 0
    assert bool(seen.any()), "the output depends on no input"
    dims = seen.dim() - 2
    channels = int(seen.flatten(2).any(2).sum(1).min())
    extents = [
        _extent(seen.any(1).any(1 + other) if dims == 2 else seen.any(1)) for other in (1, 0)[:dims]
    ]
    return (extents[0], extents[1]) if dims == 2 else (1, extents[0]), channels


def batch_field(
    net: nn.Module, image: tuple[int, int, int], name: str, images: slice = slice(None)
) -> tuple[int, int, int]:
    """Return the rows, columns and channels that a module's last call sees in its batch.

    `images`: only those of the batch.
    """
    pixels = seen_pixels(net, image, name, images)
    rows, columns = pixels.any(0).any(1), pixels.any(0).any(0)
    return int(rows.sum()), int(columns.sum()), int(pixels.any(2).any(1).sum())


def seen_pixels(
    net: nn.Module, image: tuple[int, int, int], name: str, images: slice = slice(None)
) -> Tensor:
    """Return which of [C, H, W] the central pixel of a module's last call sees in its batch."""
    model, outputs = prepared(net), []
    model.get_submodule(name).register_forward_hook(lambda *call: outputs.append(call[2]))
    x = torch.ones(1, *image, dtype=torch.float64, requires_grad=True)
    model(x)
    centre = outputs[-1][images, :, image[1] // 2, image[2] // 2]
    (gradient,) = torch.autograd.grad(centre.sum(), x)
    return gradient[0] != 0


def counted_macs(net: nn.Module, image: tuple[int, int, int]) -> int:
    """MACs of convolutions and dense layers; products of feature maps are left out."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.eval()(torch.rand(1, *image))
    flops = counter.get_flop_counts()["Global"]
    operators = (torch.ops.aten.convolution, torch.ops.aten.addmm)
    return sum(flops.get(name, 0) for name in operators) // 2


def _extent(seen: Tensor) -> int:
    """Return the widest span from first to last pixel over the rows of `seen` [outputs, pixels]."""
    places = torch.arange(seen.shape[1])
    spans = [int(places[row].max() - places[row].min()) + 1 for row in seen if row.any()]
    return max(spans)
