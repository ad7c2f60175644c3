"""Fields of a real module by autograd: which inputs the central pixel of each output depends on.

The module is run as it is, on a copy in fp64 with random positive weights, so that nothing cancels.
Strides of the copy are 1: MATH section 5 counts a strided layer in the stage that it opens, in
pixels behind it. Nothing here reads the trace.
"""

import copy
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ifspace.nn import RollingPointwiseConv2d

# (height, width) in pixels, and channels.
Field = tuple[tuple[int, int], int]
LAYERS = (nn.Conv1d, nn.Conv2d, RollingPointwiseConv2d)


def prepared(part: nn.Module) -> nn.Module:
    """A copy of stride 1 that keeps ones about as large as they are, far from where ReLU6 bends."""
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
    """The field of every layer of a part on maps of a size, and of the modules that are named."""
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
    """The least channels and the widest extent that the outputs of the central pixel depend on."""
    centre = output[0, :, *(size // 2 for size in output.shape[2:])]
    ones = torch.eye(len(centre), dtype=centre.dtype)
    (gradient,) = torch.autograd.grad(centre, image, ones, retain_graph=True, is_grads_batched=True)
    seen = gradient[:, 0] != 0
    assert bool(seen.any()), "nothing is seen"
    dims = seen.dim() - 2
    channels = int(seen.flatten(2).any(2).sum(1).min())
    extents = [
        _extent(seen.any(1).any(1 + other) if dims == 2 else seen.any(1)) for other in (1, 0)[:dims]
    ]
    return (extents[0], extents[1]) if dims == 2 else (1, extents[0]), channels


def _extent(seen: Tensor) -> int:
    """The widest span from the first to the last pixel, of the rows of [outputs, pixels]."""
    places = torch.arange(seen.shape[1])
    spans = [int(places[row].max() - places[row].min()) + 1 for row in seen if row.any()]
    return max(spans)
