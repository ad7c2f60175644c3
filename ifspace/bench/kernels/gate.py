"""No time is taken of what is wrong: every exact candidate against float64, gradients too."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from ifspace.bench.gate import (
    SLACK,
    distance,
)
from ifspace.bench.kernels.candidates import Candidate, named
from ifspace.bench.kernels.cases import FUSED, KERNEL, Case
from ifspace.bench.kernels.rivals import Tensors, Way
from ifspace.bench.machine import precision
from ifspace.bench.rows import (
    BOTH_WAYS,
    FORWARD,
)
from ifspace.errors import IfspaceError
from ifspace.kernels.fused import reference as dw_rpw_reference
from ifspace.kernels.fused.reference import FusedSpec
from ifspace.kernels.rpw import reference

BATCH: Final = 2
SIDE: Final = 7
NAMES: Final = {
    True: ("output", "gradient by x", "gradient by dw_weight", "gradient by weight"),
    False: ("output", "gradient by x", "gradient by weight"),
}


class WrongCandidateError(IfspaceError, RuntimeError):
    """A candidate computes something else than the layer."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """x [N, C, H, H], the layer's weights, and a gradient shaped as y; x and grad in the layout."""

    x: Tensor
    weights: Tensors
    grad: Tensor

    def to(self, dtype: torch.dtype) -> "Inputs":
        """Return them in another type."""
        return Inputs(
            self.x.to(dtype), tuple(w.to(dtype) for w in self.weights), self.grad.to(dtype)
        )


def inputs(case: Case, device: torch.device, seed: int = 0) -> Inputs:
    """Return random inputs of a case; weights such that y is about as large as x."""
    random = torch.Generator(device).manual_seed(seed)
    layout = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=random, device=device)
        return drawn.to(case.torch_dtype)

    shape = (case.batch, case.width, case.side, case.side)
    x, grad = (draw(*shape).to(memory_format=layout) for _ in range(2))
    weights: Tensors = (draw(case.width, case.windows.width) / case.windows.width**0.5,)
    if case.kind == FUSED:
        weights = (draw(case.width, 1, KERNEL, KERNEL) / KERNEL, *weights)
    return Inputs(x, weights, grad)


def run(way: Way, kept: Tensors, given: Inputs, both_ways: bool) -> Tensors:
    """Return y or, both ways, y and the gradients by x and by what the way keeps.

    Where y has another shape than its gradient there are no gradients.
    """
    if not both_ways:
        with torch.no_grad():
            return (way.forward(given.x, *kept),)
    y = way.forward(given.x, *kept)
    if y.shape != given.grad.shape:
        return (y,)
    return (y, *torch.autograd.grad(y, (given.x, *kept), given.grad))


def own(way: Way, found: Tensors) -> Tensors:
    """Return what `run` found with the gradients by the layer's own weights."""
    return (*found[:2], *way.give(found[2:])) if len(found) > 1 else found


def leaves(way: Way, given: Inputs, both_ways: bool) -> tuple[Tensors, Inputs]:
    """Return what a way keeps and the inputs, as leaves that gradients are asked of."""
    kept = tuple(each.detach().requires_grad_(both_ways) for each in way.keep(given.weights))
    return kept, replace(given, x=given.x.detach().requires_grad_(both_ways))


def check(every: Sequence[Candidate], case: Case, device: torch.device) -> None:
    """Compare all exact candidates with float64 on a few pixels of a case.

    What torch.compile makes is compared where it is timed, see `measure`.

    Raises: WrongCandidateError at the first that is wrong, in its output or a gradient.
    """
    precision(case.dtype)
    case = replace(case.sized(BATCH, SIDE), mode=BOTH_WAYS)
    given = inputs(case, device)
    exact = _reference(case, given.to(torch.float64))
    eager = _reference(case, given)
    limits = [SLACK * distance(a, b) + case.rounding for a, b in zip(eager, exact, strict=True)]
    for each in named(every, case.kind):
        can_run = not each.refusal(replace(case, mode=FORWARD), device, float("inf"))
        if not each.exact or each.compiled or not can_run:
            continue
        both_ways = not each.forward_only
        way = each.build(case, device)
        kept, asked = leaves(way, given, both_ways)
        found = run(way, kept, asked, both_ways)
        compare(each.name, case, own(way, found), exact, limits)


def compare(
    name: str, case: Case, found: Tensors, wanted: Tensors, limits: Sequence[float]
) -> None:
    """Compare an output, and gradients if there are, with what they should be.

    Raises: WrongCandidateError for another shape or layout of numbers, or too large an error.
    """
    names = NAMES[case.kind == FUSED]
    for what, got, want, limit in zip(names, found, wanted, limits, strict=False):
        error = distance(got, want) if got.shape == want.shape else float("nan")
        if not error <= limit:
            raise WrongCandidateError.because(
                f"{name} is wrong in {case.name} {case.shape} {case.layout} {case.dtype}",
                got=f"{what} of shape {list(got.shape)} with a relative error of {error:.1e}",
                allowed=f"{list(want.shape)}, {limit:.1e}",
                remedy="nothing wrong is timed",
            )


def _reference(case: Case, given: Inputs) -> Tensors:
    """Return y and the gradients by x and the weights, by the code that says what is meant."""
    windows = case.windows
    if case.kind == FUSED:
        dw_weight, weight = given.weights
        arguments = (given.x, dw_weight, None, None, weight, None, None, FusedSpec(windows))
        y = dw_rpw_reference.forward(*arguments)
        grads = dw_rpw_reference.backward(given.grad, *arguments)
        return y, grads[0], grads[1], grads[4]
    (weight,) = given.weights
    by_weight, _ = reference.weight_grad(given.grad, given.x, windows)
    by_x = reference.input_grad(given.grad, weight, windows)
    return reference.forward(given.x, weight, None, windows), by_x, by_weight
