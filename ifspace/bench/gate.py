"""The gate: a candidate that is wrong is not timed.

Blocks: parameters, operations, field, numbers and gradients. The first three are counted and traced
on the bare block, in float64 on a CPU; the numbers are those of the module that will be timed, on
the device and feature maps that will be timed: of all images or, where the reference would take
long, of as few as run in the same way. Layers: output and gradients on a few pixels.

The reference shares nothing with the modules but the weights: dense convolutions with zeros, or
sums over channels, where the table of kinds says which input channel a weight belongs to.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf, sqrt
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.utils.flop_counter import FlopCounterMode

from ifspace.bench.case import (
    FUSED,
    KERNEL,
    MEMORY_FORMATS,
    BlockCandidate,
    Conditions,
    Implementation,
    LayerCandidate,
    LayerCase,
    Tensors,
)
from ifspace.bench.machine import rounding, set_precision
from ifspace.bench.run import summary
from ifspace.block import SizedLayer
from ifspace.errors import IfspaceError
from ifspace.kernels.fused import reference as fused_reference
from ifspace.kernels.fused.reference import FusedSpec
from ifspace.kernels.rpw import reference as rpw_reference
from ifspace.measurements import AS_IS, BOTH_WAYS, FORWARD
from ifspace.nn.block import PLAIN, BlockModule
from ifspace.reach import channel_reach, field_after

# The error allowed: so many times that of eager PyTorch in the same precision, plus one rounding.
# Sums over many pixels in another order differ by up to five times, a wrong channel by thousands.
SLACK: Final = 8.0
# And so much for the root of the numbers that torch's convolutions add up for a gradient by a
# weight, one for each pixel: a rounding each, in float32, as if they were added one after the
# other. Grouped ones come near it, where the sums of sums of RPW are ten times as exact.
SUMMING: Final = torch.finfo(torch.float32).eps / 2
# The error allowed to a compiled block beside the block itself, in roundings.
COMPILED_SLACK: Final = 64
# Layers are compared on so many images and pixels, blocks counted on so many pixels.
BATCH: Final = 2
SIDE: Final = 7
# Multiply-accumulates of a block's reference, zeros included, that are few enough to compare.
MAX_MACS: Final = 2**32
# Outputs traced at a time, each with an image of its own.
TRACED: Final = 64
BY_INPUT: Final = "gradient by x"
# A layer that reads less than this share of the channels is summed channel by channel.
SPARSE: Final = 1 / 16


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Return |actual - expected| / |expected|, both as vectors; nan where there is one.

    >>> round(relative_error(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])), 6)
    0.1
    """
    if actual.dtype != expected.dtype:
        actual, expected = actual.double(), expected.double()
    with torch.no_grad():
        return float((actual - expected).norm() / expected.norm())


def mismatch(name: str, actual: Tensor | None, expected: Tensor, limit: float) -> str | None:
    """Return what is wrong with a tensor: its shape, infinities, or an error over the limit."""
    if actual is None or actual.shape != expected.shape:
        shape = None if actual is None else list(actual.shape)
        return f"{name} of shape {shape}, not {list(expected.shape)}"
    if not bool(actual.isfinite().all()):
        return f"{name} is not finite"
    error = relative_error(actual, expected)
    if not error <= limit:
        return f"{name} is wrong: a relative error of {error:.1e}, over {limit:.1e}"
    return None


def mismatches(
    actual: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    eager: Mapping[str, Tensor],
    rounding: float,
    sums: Mapping[str, int] | None = None,
) -> Iterator[str]:
    """Yield what is wrong with an output and gradients, by name.

    `exact`: by the reference in float64; `eager`: by the reference in the precision of `actual`,
    whose relative distance of numbers is `rounding`; `sums`: how many numbers torch adds up for
    gradients by weights, by name.
    """
    for name, expected in exact.items():
        limit = SLACK * relative_error(eager[name], expected) + rounding
        limit += SUMMING * sqrt((sums or {}).get(name, 0))
        fault = mismatch(name, actual.get(name), expected, limit)
        if fault is not None:
            yield fault


# Blocks.


def block_fault(candidate: BlockCandidate, conditions: Conditions) -> str | None:
    """Return what is wrong with a block, or None; an error of torch is a fault too."""
    try:
        return next(_block_faults(candidate, conditions), None)
    except (RuntimeError, MemoryError, IfspaceError) as error:
        return summary(error)


def _block_faults(candidate: BlockCandidate, conditions: Conditions) -> Iterator[str]:
    if candidate.form == AS_IS:
        yield from _count_faults(candidate)
        yield from _field_faults(candidate)
    yield from _number_faults(candidate, conditions)


def fewer_images(candidate: BlockCandidate, conditions: Conditions) -> BlockCandidate:
    """Return a candidate with as many images as are compared; each RPW runs as with all of them."""
    layers = candidate.sized.layers
    dense_macs = sum(layer.c_in * layer.c_out * layer.kernel**2 for layer in layers)
    images = MAX_MACS // (dense_macs * (candidate.side * candidate.stride) ** 2)
    fewer = replace(candidate, batch=min(candidate.batch, max(1, images)))
    same = fewer.rpw_plans(conditions) == candidate.rpw_plans(conditions)
    return fewer if same else candidate


def _count_faults(candidate: BlockCandidate) -> Iterator[str]:
    """Compare parameters by formula, catalogue and tensors; operations by formula and counter."""
    sized, design = candidate.sized, candidate.design
    bare = BlockModule(sized, candidate.stride, PLAIN, dtype=torch.float64)
    numel = sum(weight.numel() for weight in bare.parameters())
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


def _field_faults(candidate: BlockCandidate) -> Iterator[str]:
    """Compare what each output sees by gradients, by bitsets, and by the catalogue."""
    sized, design = candidate.sized, candidate.design
    side, channels = field_after(sized)[-1]
    if design is not None and design.field != (side, channels):
        yield f"sees {side}×{side}×{channels}, the catalogue says {design.field}"
    bare = BlockModule(sized, 1, PLAIN, dtype=torch.float64)
    for weight in bare.parameters():
        nn.init.uniform_(weight, 0.5, 1.5)
    reach = channel_reach(sized.layers)
    for start in range(0, sized.out_channels, TRACED):
        outputs = torch.arange(start, min(start + TRACED, sized.out_channels))
        # A ring of pixels more than the field: nothing of it may be seen.
        x = torch.ones(len(outputs), sized.channels, side + 2, side + 2, dtype=torch.float64)
        middle = (torch.arange(len(outputs)), outputs, side // 2 + 1, side // 2 + 1)
        (gradient,) = torch.autograd.grad(bare(x.requires_grad_())[middle].sum(), x)
        reached = gradient != 0
        inner = reached[:, :, 1:-1, 1:-1].flatten(2)
        is_square = bool((inner.any(2) == inner.all(2)).all())
        if not is_square or int(reached.sum()) != int(inner.sum()):
            yield f"sees no square of {side}×{side} pixels"
        for output, row in zip(outputs.tolist(), inner.any(2), strict=True):
            if sum(1 << channel for channel in row.nonzero().flatten().tolist()) != reach[output]:
                yield f"output {output} sees other channels than the field has"


def _number_faults(candidate: BlockCandidate, conditions: Conditions) -> Iterator[str]:
    """Compare output and gradients with the reference in float64.

    Another form has other weights: of its gradients the one by x is compared.
    """
    set_precision(conditions.dtype)
    fewer = fewer_images(candidate, conditions)
    x, grad = conditions.draw(*fewer.in_shape), conditions.draw(*fewer.out_shape, seed=1)
    module = conditions.build(fewer)
    for mode in candidate.modes(conditions):
        module.train(mode == BOTH_WAYS)
        reference = reference_of(module)
        exact = _by_name(copy_of(reference).double(), x.double(), grad.double(), mode)
        eager = _by_name(reference, x, grad, mode)
        actual = _by_name(conditions.in_form(module, candidate.form), x, grad, mode)
        if candidate.form != AS_IS:
            exact = {name: exact[name] for name in ("output", BY_INPUT) if name in exact}
        sums = {
            f"gradient by {name}.weight": x.numel() // x.shape[1]
            for name, layer in module.named_modules()
            if isinstance(layer, nn.Conv2d)
        }
        yield from mismatches(actual, exact, eager, rounding(conditions.dtype), sums)


def _by_name(module: nn.Module, x: Tensor, grad: Tensor, mode: str) -> dict[str, Tensor]:
    """Return the output and, both ways, the gradients by name."""
    if mode == FORWARD:
        with torch.no_grad():
            return {"output": module(x)}
    x = x.detach().requires_grad_()
    weights = dict(module.named_parameters())
    y = module(x)
    grads = torch.autograd.grad(y, (x, *weights.values()), grad)
    names = [BY_INPUT, *(f"gradient by {name}" for name in weights)]
    return {"output": y.detach()} | dict(zip(names, grads, strict=True))


def check_compiled(outputs: Tensors, expected: Tensors, dtype: str) -> None:
    """Compare what a compiled block returns with what the block returns.

    Raises: RuntimeError where they differ.
    """
    limit = COMPILED_SLACK * rounding(dtype)
    for index, (actual, tensor) in enumerate(zip(outputs, expected, strict=True)):
        fault = mismatch("gradient" if index else "output", actual, tensor, limit)
        if fault is not None:
            raise RuntimeError(f"compiled, {fault}")


class ReferenceLayer(nn.Module):
    """A layer of a block with the same weights, in terms that need no kind of convolution.

    A dense convolution whose weight is scattered into zeros; where that is mostly zeros, a sum over
    the channels that an output reads, one depthwise convolution each; a shuffle as an index.
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
        sized, kernel = self.sized, self.sized.kernel
        weight = self.weight.view(sized.c_out, sized.fan_in, kernel, kernel)
        if sized.fan_in < SPARSE * sized.c_in:
            return self._summed(x, weight)
        taps = weight.flatten(2)
        reads = self.reads[:, :, None].expand_as(taps)
        dense = taps.new_zeros(sized.c_out, sized.c_in, kernel * kernel).scatter(1, reads, taps)
        dense = dense.view(sized.c_out, sized.c_in, kernel, kernel)
        return conv2d(x, dense, self.bias, self.stride, kernel // 2)

    def _summed(self, x: Tensor, weight: Tensor) -> Tensor:
        padding, width = self.sized.kernel // 2, self.sized.c_out
        y = sum(
            conv2d(x[:, read], taps[:, None], None, self.stride, padding, groups=width)
            for read, taps in zip(self.reads.T, weight.unbind(1), strict=True)
        )
        assert isinstance(y, Tensor)
        return y if self.bias is None else y + self.bias[:, None, None]


def reference_of(block: BlockModule) -> BlockModule:
    """Return a copy of a block whose layers are `ReferenceLayer`s of the same weights."""
    reference = copy_of(block)
    strides = block.sized.strides(block.stride)
    for index, (sized, stride) in enumerate(zip(block.sized.layers, strides, strict=True)):
        name = f"layer{index}"
        layer = ReferenceLayer(sized, stride, reference.get_submodule(name))
        reference.add_module(name, layer)
    return reference.to(next(block.parameters()).device)


def copy_of(block: BlockModule) -> BlockModule:
    """Return a copy with weights of its own; the description of the block is shared."""
    shared = (block.sized, *block.sized.layers, block.style)
    return deepcopy(block, {id(part): part for part in shared})


# Layers.


class WrongCandidateError(IfspaceError, RuntimeError):
    """A candidate computes something else than the layer."""


@dataclass(frozen=True, slots=True)
class LayerInputs:
    """x [N, C, H, H], the layer's weights, and a gradient shaped as y; x and grad in the layout."""

    x: Tensor
    weights: Tensors
    grad: Tensor

    def to(self, dtype: torch.dtype) -> "LayerInputs":
        """Return them in another type."""
        weights = tuple(weight.to(dtype) for weight in self.weights)
        return LayerInputs(self.x.to(dtype), weights, self.grad.to(dtype))


def layer_inputs(case: LayerCase, device: torch.device, seed: int = 0) -> LayerInputs:
    """Return random inputs of a case; weights such that y is about as large as x."""
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=device).to(case.torch_dtype)

    shape = (case.batch, case.width, case.side, case.side)
    memory_format = MEMORY_FORMATS[case.layout]
    x, grad = (draw(*shape).to(memory_format=memory_format) for _ in range(2))
    weights: Tensors = (draw(case.width, case.windows.width) / case.windows.width**0.5,)
    if case.kind == FUSED:
        weights = (draw(case.width, 1, KERNEL, KERNEL) / KERNEL, *weights)
    return LayerInputs(x, weights, grad)


@dataclass(frozen=True, slots=True)
class LayerCall:
    """An implementation with its packed weights and inputs, ready to be called."""

    implementation: Implementation
    inputs: LayerInputs
    packed: Tensors
    both_ways: bool

    @classmethod
    def of(
        cls, implementation: Implementation, inputs: LayerInputs, both_ways: bool
    ) -> "LayerCall":
        """Return the call, with x and the packed weights as leaves of the gradients."""
        packed = tuple(
            weight.detach().requires_grad_(both_ways)
            for weight in implementation.pack(inputs.weights)
        )
        leaf = replace(inputs, x=inputs.x.detach().requires_grad_(both_ways))
        return cls(implementation, leaf, packed, both_ways)

    def __call__(self) -> Tensors:
        """Return y or, both ways, y and the gradients by x and by the packed weights.

        Where y has another shape than its gradient there are no gradients. y is detached: a graph
        that lives on would tie the leaves to the stream of this call, and no later call could be
        captured in a CUDA graph.
        """
        x, grad = self.inputs.x, self.inputs.grad
        if not self.both_ways:
            with torch.no_grad():
                return (self.implementation.forward(x, *self.packed),)
        y = self.implementation.forward(x, *self.packed)
        if y.shape != grad.shape:
            return (y.detach(),)
        return (y.detach(), *torch.autograd.grad(y, (x, *self.packed), grad))

    def unpacked(self, outputs: Tensors) -> Tensors:
        """Return what a call returned, with the gradients by the layer's own weights."""
        if len(outputs) == 1:
            return outputs
        return (*outputs[:2], *self.implementation.unpack(outputs[2:]))


def check_layer(
    candidates: Sequence[LayerCandidate], case: LayerCase, device: torch.device
) -> None:
    """Compare exact candidates with float64 on a few pixels of a case, gradients too.

    Candidates of other kinds, compiled ones and those that cannot run here are left out: what
    torch.compile returns is compared where it is timed.

    Raises: WrongCandidateError at the first that is wrong.
    """
    set_precision(case.dtype)
    case = on_few_pixels(case)
    inputs = layer_inputs(case, device)
    exact = by_layer_name(case, _layer_reference(case, inputs.to(torch.float64)))
    eager = by_layer_name(case, _layer_reference(case, inputs))
    forward = replace(case, mode=FORWARD)
    for candidate in candidates:
        is_gated = candidate.kind == case.kind and candidate.exact and not candidate.compiled
        if not is_gated or candidate.refusal(forward, device, inf):
            continue
        implementation = candidate.build(case, device)
        call = LayerCall.of(implementation, inputs, not candidate.forward_only)
        actual = by_layer_name(case, call.unpacked(call()))
        names = ("output",) if candidate.forward_only else tuple(exact)
        compared = {name: exact[name] for name in names}
        fault = next(mismatches(actual, compared, eager, case.rounding), None)
        if fault is not None:
            raise wrong_candidate(candidate.name, case, fault)


def on_few_pixels(case: LayerCase) -> LayerCase:
    """Return the case that stands for one in the gate: few pixels, both ways."""
    return replace(case.at_most(BATCH, SIDE), mode=BOTH_WAYS)


def by_layer_name(case: LayerCase, outputs: Tensors) -> dict[str, Tensor]:
    """Return the output of a layer and, if there are some, its gradients by name."""
    weights = ("dw_weight", "weight") if case.kind == FUSED else ("weight",)
    names = ("output", *(f"gradient by {name}" for name in ("x", *weights)))
    return dict(zip(names, outputs, strict=False))


def wrong_candidate(name: str, case: LayerCase, fault: str) -> WrongCandidateError:
    """Return the error of a candidate with a fault."""
    return WrongCandidateError.because(
        f"{name} fails the check in {case.name} {case.shape} {case.layout} {case.dtype}",
        got=fault,
        allowed="what the layer computes",
        remedy="nothing wrong is timed",
    )


def _layer_reference(case: LayerCase, inputs: LayerInputs) -> Tensors:
    """Return y and the gradients by x and the weights, by the kernels' readable references."""
    windows = case.windows
    if case.kind == FUSED:
        dw_weight, weight = inputs.weights
        arguments = (inputs.x, dw_weight, None, None, weight, None, None, FusedSpec(windows))
        y = fused_reference.forward(*arguments)
        grads = fused_reference.backward(inputs.grad, *arguments)
        return y, grads[0], grads[1], grads[4]
    (weight,) = inputs.weights
    weight_grad, _ = rpw_reference.weight_grad(inputs.grad, inputs.x, windows)
    input_grad = rpw_reference.input_grad(inputs.grad, weight, windows)
    return rpw_reference.forward(inputs.x, weight, None, windows), input_grad, weight_grad
