"""A block as plain torch understands it: dense convolutions with zeros, or sums over channels.

Nothing here is shared with the modules but the weights: which input channel a weight belongs to is
read from the table of kinds.
"""

from copy import deepcopy
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from ifspace.block import SizedLayer
from ifspace.nn.blocks import BlockModule

# A layer that reads less than this share of the channels is summed channel by channel.
FEW: Final = 1 / 16


class PlainLayer(nn.Module):
    """A layer of a block with the same weights, in terms that need no kind of convolution.

    Dense, its weight scattered into zeros; where that is mostly zeros a sum over the channels that
    an output reads, one depthwise convolution each; a shuffle as an index.
    """

    reads: Tensor

    def __init__(self, sized: SizedLayer, stride: int, layer: nn.Module) -> None:
        super().__init__()
        self.sized, self.stride = sized, stride
        self.weight = getattr(layer, "weight", None)
        self.bias = getattr(layer, "bias", None)
        self.register_buffer("reads", torch.from_numpy(sized.reads().astype("int64")), False)

    def forward(self, x: Tensor) -> Tensor:
        """Return y [N, C_out, H / stride, W / stride] of x [N, C_in, H, W]."""
        if self.weight is None:
            return x[:, self.reads[:, 0]]
        sized, side = self.sized, self.sized.kernel
        weight = self.weight.view(sized.c_out, sized.fan_in, side, side)
        if sized.fan_in < FEW * sized.c_in:
            return self._summed(x, weight)
        taps = weight.flatten(2)
        reads = self.reads[:, :, None].expand_as(taps)
        dense = taps.new_zeros(sized.c_out, sized.c_in, side * side).scatter(1, reads, taps)
        dense = dense.view(sized.c_out, sized.c_in, side, side)
        return conv2d(x, dense, self.bias, self.stride, side // 2)

    def _summed(self, x: Tensor, weight: Tensor) -> Tensor:
        pad, width = self.sized.kernel // 2, self.sized.c_out
        y = sum(
            conv2d(x[:, read], taps[:, None], None, self.stride, pad, groups=width)
            for read, taps in zip(self.reads.T, weight.unbind(1), strict=True)
        )
        assert isinstance(y, Tensor)
        return y if self.bias is None else y + self.bias[:, None, None]


def reference_of(block: BlockModule) -> BlockModule:
    """Return a copy of a block whose layers are `PlainLayer`s of the same weights."""
    plain = copy_of(block)
    left = block.stride
    for place, sized in enumerate(block.sized.layers):
        stride = left if sized.conv.spatial else 1
        left = 1 if sized.conv.spatial else left
        name = f"layer{place}"
        plain.add_module(name, PlainLayer(sized, stride, plain.get_submodule(name)))
    return plain


def copy_of(block: BlockModule) -> BlockModule:
    """Return a copy with weights of its own; what says what it is made of is shared."""
    shared = (block.sized, *block.sized.layers, block.style)
    return deepcopy(block, {id(each): each for each in shared})
