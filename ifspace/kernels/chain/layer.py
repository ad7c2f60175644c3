"""One layer by the compiled loops of chains: its forward pass and its gradients on a CPU.

Activations are float32, bfloat16 or float16, channels_last or not; sums are kept in float32.
"""

from functools import lru_cache

import torch
from torch import Tensor

from ifspace.kernels.chain import dots, panels, tiles
from ifspace.kernels.chain.stages import Chain, Stage, gradient_of


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stage: Stage) -> Tensor:
    """Return the result [N, C_out, H', W'] of a stage for x [N, C_in, H, W], in the layout of x.

    `weight`: C_out fan-in k k numbers in any shape, `bias` [C_out] or None.
    """
    bias = None if bias is None else bias.float().contiguous()
    weight = weight.float().contiguous()
    if panels.fits(x, stage):
        return panels.forward(x, weight, bias, stage)
    return tiles.run(x, weight, bias, _chain_of(stage))


def input_grad(grad: Tensor, weight: Tensor, stage: Stage) -> Tensor:
    """Return the gradient [N, C_in, H, W] by x of a stage of stride 1, for grad [N, C_out, ...]."""
    if panels.fits_gradient(grad, stage):
        return panels.input_grad(grad, weight.float().contiguous(), stage)
    backward = gradient_of(stage)
    turned = weight.reshape(-1).index_select(0, backward.weight_index).float()
    return tiles.run(grad, turned, None, _chain_of(backward))


def weight_grad(grad: Tensor, x: Tensor, stage: Stage) -> Tensor:
    """Return the gradient [weights] by the weight of a stage.

    For grad [N, C_out, H', W'] and x [N, C_in, H, W].
    """
    return dots.weight_grad(grad, x, stage).to(grad.dtype)


def check() -> None:
    """Compile the loops, if that has not been done, and compute a layer.

    Raises: ArithmeticError for a wrong result, and whatever LLVM raises.
    """
    x = torch.arange(48, dtype=torch.float32).view(1, 3, 4, 4)
    if not torch.equal(forward(x, torch.ones(2), None, Stage(3, 2, 1, 1)), x[:, :2]):
        raise ArithmeticError("wrong results")


@lru_cache(maxsize=1024)
def _chain_of(stage: Stage) -> Chain:
    return Chain((stage,))
