"""Fit the weights of a block to what it should write, by least squares.

A block without activations is linear in the weights of each of its layers while the others stand
still. So its layers are first fitted one after the other, from the last to the first, and again:
alternating least squares, each layer by a few steps of conjugate gradients on its normal equations.
From where that ends all weights are fitted together, which helps where channels nearly depend on
each other. In the time of a fit of all together from the start this leaves less
(results/warm-start.md); a block with activations has the second part alone.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ifspace.nn.block import BlockModule

# Inputs x [N, C, H, W], what the block should write of them, and how much that counts.
Target = tuple[Tensor, Tensor, float]
# At most so many passes over the layers, each of so many steps; the passes end where one lowers the
# error by less than such a share.
SWEEPS: Final = 5
STEPS: Final = 10
_LEAST_FALL: Final = 0.02
# Steps of the fit of all weights together, and the least change of its relative error.
JOINT_STEPS: Final = 100
_LEAST_CHANGE: Final = 1e-6


def minimise(block: BlockModule, targets: Sequence[Target]) -> None:
    """Minimise the relative error |y - block(x)|² / |y|² of a block in place, over all targets."""
    if block.style.activation is None:
        alternate(block, targets)
    minimise_jointly(block, targets)


def alternate(block: BlockModule, targets: Sequence[Target], sweeps: int = SWEEPS) -> None:
    """Fit the layers of a block without activations, each in turn while the others stand still."""
    scaled = _scaled(targets)
    layers = [
        names
        for prefix, part in block.named_modules()
        if (
            names := [
                f"{prefix}.{name}" if prefix else name
                for name, weight in part.named_parameters(recurse=False)
                if weight.requires_grad
            ]
        )
    ]
    before = float("inf")
    for _ in range(sweeps):
        error = before
        for names in reversed(layers):
            error = _fit_layer(block, names, scaled)
        if error >= (1 - _LEAST_FALL) * before:
            break
        before = error


def _fit_layer(block: BlockModule, names: Sequence[str], targets: Sequence[Target]) -> float:
    """Fit the parameters of these names by conjugate gradients; return the error that is left."""
    parameters = {name: block.get_parameter(name) for name in names}
    weights = [weight.detach().clone().requires_grad_() for weight in parameters.values()]
    with torch.enable_grad():
        outputs = [_output(block, names, weights, x) for x, _, _ in targets]
    rests = [y - output.detach() for (_, y, _), output in zip(targets, outputs, strict=True)]
    scales = [scale for _, _, scale in targets]
    with torch.no_grad():
        zeros = [torch.zeros_like(weight) for weight in weights]
        constants = [_output(block, names, zeros, x) for x, _, _ in targets]

    def slopes() -> list[Tensor]:
        # The derivatives of the output do not depend on these weights: one graph serves all steps.
        scaled = [scale * rest for scale, rest in zip(scales, rests, strict=True)]
        return list(torch.autograd.grad(outputs, weights, scaled, retain_graph=True))

    slope = slopes()
    direction, size, length = slope, _squares(slope), _squares(weights)
    values = [weight.detach() for weight in weights]
    for _ in range(STEPS):
        if not size > 0:
            break
        # As long as the weights are: short ones would be lost beside what other layers add.
        unit = (length / _squares(direction)) ** 0.5 or 1.0
        with torch.no_grad():
            long = [unit * part for part in direction]
            changes = [
                (_output(block, names, long, x) - constant) / unit
                for (x, _, _), constant in zip(targets, constants, strict=True)
            ]
            curvature = sum(
                scale * float(change.square().sum())
                for scale, change in zip(scales, changes, strict=True)
            )
            if not curvature > 0:
                break
            step = size / curvature
            values = [value + step * part for value, part in zip(values, direction, strict=True)]
            rests = [rest - step * change for rest, change in zip(rests, changes, strict=True)]
        slope, before = slopes(), size
        size = _squares(slope)
        direction = [new + size / before * old for new, old in zip(slope, direction, strict=True)]
    with torch.no_grad():
        for parameter, value in zip(parameters.values(), values, strict=True):
            parameter.copy_(value)
    return sum(
        scale * float(rest.square().sum()) for scale, rest in zip(scales, rests, strict=True)
    )


def _output(
    block: BlockModule, names: Sequence[str], weights: Sequence[Tensor], x: Tensor
) -> Tensor:
    """Return what a block writes with other values of some parameters; gradients are of them."""
    values = {name: weight.detach() for name, weight in block.named_parameters()}
    values |= dict(zip(names, weights, strict=True))
    output: Tensor = functional_call(block, values, (x,))
    return output


def _squares(tensors: Sequence[Tensor]) -> float:
    return sum(float(tensor.detach().square().sum()) for tensor in tensors)


def minimise_jointly(block: nn.Module, targets: Sequence[Target], steps: int = JOINT_STEPS) -> None:
    """Minimise the relative error over all weights together, by L-BFGS."""
    weights = [weight for weight in block.parameters() if weight.requires_grad]
    solver = torch.optim.LBFGS(
        weights,
        max_iter=steps,
        history_size=20,
        tolerance_grad=0,
        tolerance_change=_LEAST_CHANGE,
        line_search_fn="strong_wolfe",
    )
    scaled = _scaled(targets)

    def loss() -> Tensor:
        solver.zero_grad()
        total = torch.stack([(block(x) - y).square().sum() * scale for x, y, scale in scaled]).sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]


def _scaled(targets: Sequence[Target]) -> list[Target]:
    """Return targets whose weight is that of a square of what is left."""
    return [(x, y, weight / norm_squared(y)) for x, y, weight in targets]


def norm_squared(y: Tensor) -> float:
    """Return |y|²; 1 of zeros, against which any remainder counts as it is."""
    return float(y.square().sum()) or 1.0
