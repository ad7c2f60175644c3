"""How far a computed tensor is from what it should be."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from ifspace.bench.blocks import (
    Candidate,
    Conditions,
)
from ifspace.bench.latency import ways
from ifspace.bench.machine import (
    precision,
    rounding,
)
from ifspace.bench.rows import (
    BOTH_WAYS,
    FORWARD,
)
from ifspace.block import SizedLayer
from ifspace.errors import IfspaceError
from ifspace.nn.block import (
    PLAIN,
    BlockModule,
)
from ifspace.reach import channel_reach, field_after

# How far from float64, in the error of eager PyTorch in the same precision, plus one rounding:
# sums in another order differ by that much, a wrong channel by a thousand times more.
SLACK: Final = 4.0


def distance(found: Tensor, wanted: Tensor) -> float:
    """Return |found - wanted| / |wanted|, both as vectors; nan when there is one.

    >>> round(distance(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])), 6)
    0.1
    """
    if found.dtype != wanted.dtype:
        found, wanted = found.double(), wanted.double()
    with torch.no_grad():
        return float((found - wanted).norm() / wanted.norm())


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
    strides = block.sized.strides(block.stride)
    for index, (sized, stride) in enumerate(zip(block.sized.layers, strides, strict=True)):
        name = f"layer{index}"
        plain.add_module(name, PlainLayer(sized, stride, plain.get_submodule(name)))
    return plain


def copy_of(block: BlockModule) -> BlockModule:
    """Return a copy with weights of its own; what says what it is made of is shared."""
    shared = (block.sized, *block.sized.layers, block.style)
    return deepcopy(block, {id(each): each for each in shared})


SIDE: Final = 7
# Multiply-accumulates of the reference, zeros included, that are not too many for one comparison.
MOST_MACS: Final = 2**32
# So many outputs are traced at a time, each with an image of its own.
TRACED: Final = 64


def fault(candidate: Candidate, conditions: Conditions) -> str | None:
    """Return what is wrong with a candidate, or None; an error of torch is a fault as well."""
    try:
        return next(_faults(candidate, conditions), None)
    except (RuntimeError, MemoryError, IfspaceError) as error:
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]:.120}"


def _faults(candidate: Candidate, conditions: Conditions) -> Iterator[str]:
    bare = BlockModule(candidate.sized, candidate.stride, PLAIN, dtype=torch.float64)
    yield from _counts(candidate, bare)
    yield from _field(candidate)
    yield from _numbers(candidate, conditions)


def probe(candidate: Candidate, conditions: Conditions) -> Candidate:
    """Return a candidate with as many images as are compared; each RPW runs as with all of them."""
    layers = candidate.sized.layers
    dense = sum(each.c_in * each.c_out * each.kernel**2 for each in layers)
    images = MOST_MACS // (dense * (candidate.side * candidate.stride) ** 2)
    few = replace(candidate, batch=min(candidate.batch, max(1, images)))
    return few if ways(few, conditions) == ways(candidate, conditions) else candidate


def _counts(candidate: Candidate, bare: BlockModule) -> Iterator[str]:
    """Parameters by formula, catalogue and tensors; operations by formula and counter."""
    sized, design = candidate.sized, candidate.design
    numel = sum(each.numel() for each in bare.parameters())
    if numel != sized.params:
        yield f"{numel:,} parameters, {sized.params:,} by the formula"
    side = min(candidate.side, SIDE)
    x = torch.ones(1, sized.channels, *[side * candidate.stride] * 2, dtype=torch.float64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        y = bare(x)
    if y.shape[1:] != (sized.out_channels, side, side):
        yield f"writes {list(y.shape[1:])}, not {[sized.out_channels, side, side]}"
    macs = sized.macs_per_pixel(candidate.stride)
    if counter.get_total_flops() != 2 * macs * side**2:
        counted = counter.get_total_flops() / (2 * side**2)
        yield f"{counted:,.1f} MACs a pixel, {macs:,} by the formula"
    if design is not None and (design.params, design.macs_per_pixel) != (sized.params, macs):
        claimed = f"{design.params:,} parameters and {design.macs_per_pixel:,} MACs a pixel"
        yield f"{sized.params:,} and {macs:,}, the catalogue says {claimed}"


def _field(candidate: Candidate) -> Iterator[str]:
    """What each output sees by gradients, by bitsets, and by the catalogue."""
    sized, design = candidate.sized, candidate.design
    side, channels = field_after(sized)[-1]
    if design is not None and design.field != (side, channels):
        yield f"sees {side}×{side}×{channels}, the catalogue says {design.field}"
    bare = BlockModule(sized, 1, PLAIN, dtype=torch.float64)
    for each in bare.parameters():
        nn.init.uniform_(each, 0.5, 1.5)
    for start in range(0, sized.out_channels, TRACED):
        outputs = torch.arange(start, min(start + TRACED, sized.out_channels))
        # A ring of pixels more than the field: nothing of it may be seen.
        x = torch.ones(len(outputs), sized.channels, side + 2, side + 2, dtype=torch.float64)
        middle = (torch.arange(len(outputs)), outputs, side // 2 + 1, side // 2 + 1)
        (gradient,) = torch.autograd.grad(bare(x.requires_grad_())[middle].sum(), x)
        seen = gradient != 0
        whole = seen[:, :, 1:-1, 1:-1].flatten(2)
        square = bool((whole.any(2) == whole.all(2)).all())
        if not square or int(seen.sum()) != int(whole.sum()):
            yield f"sees no square of {side}×{side} pixels"
        wanted = channel_reach(sized.layers)
        for output, row in zip(outputs.tolist(), whole.any(2), strict=True):
            if sum(1 << place for place in row.nonzero().flatten().tolist()) != wanted[output]:
                yield f"output {output} sees other channels than the field has"


def _numbers(candidate: Candidate, conditions: Conditions) -> Iterator[str]:
    """Output and gradients beside the reference in float64."""
    precision(conditions.dtype)
    few = probe(candidate, conditions)
    x, grad = conditions.draw(*few.in_shape), conditions.draw(*few.out_shape, seed=1)
    module = conditions.build(few)
    for mode in conditions.modes:
        module.train(mode == BOTH_WAYS)
        plain = reference_of(module)
        exact = _found(copy_of(plain).double(), x.double(), grad.double(), mode)
        eager = _found(plain, x, grad, mode)
        found = _found(module, x, grad, mode)
        for name in exact:
            yield from _compared(name, found.get(name), eager[name], exact[name], conditions)


def _compared(
    name: str, found: Tensor | None, eager: Tensor, exact: Tensor, conditions: Conditions
) -> Iterator[str]:
    if found is None or found.shape != exact.shape:
        yield f"{name} of shape {None if found is None else list(found.shape)}"
    elif not bool(found.isfinite().all()):
        yield f"{name} is not finite"
    else:
        error = distance(found, exact)
        limit = SLACK * distance(eager, exact) + rounding(conditions.dtype)
        if not error <= limit:
            yield f"{name} is wrong: a relative error of {error:.1e}, over {limit:.1e}"


def _found(module: nn.Module, x: Tensor, grad: Tensor, mode: str) -> dict[str, Tensor]:
    """Return the output and, both ways, the gradients by name."""
    if mode == FORWARD:
        with torch.no_grad():
            return {"output": module(x)}
    x = x.detach().requires_grad_()
    named = dict(module.named_parameters())
    y = module(x)
    grads = torch.autograd.grad(y, (x, *named.values()), grad)
    return {"output": y.detach()} | {
        f"gradient by {name}": each for name, each in zip(("x", *named), grads, strict=True)
    }
