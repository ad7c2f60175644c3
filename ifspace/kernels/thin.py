"""Convolutions whose filters read few channels: depthwise, grouped and pointwise, fast on a CPU.

`thin_conv2d` is torch's conv2d, computed by compiled loops where the model of
`ifspace.kernels.costs` expects them to be faster. Compilers, transforms, modes and exporters see a
plain conv2d, and so do GPUs, float64 and everything that the loops do not have.
"""

from functools import lru_cache
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn.functional import conv2d

from ifspace.kernels import costs
from ifspace.kernels.chain.engine import absence, layers
from ifspace.kernels.chain.stages import Stage, gradient_of
from ifspace.kernels.tensors import any_requires_grad, is_channels_last, is_direct, is_watched
from ifspace.kernels.windows import BLOCKED

_MOST_STRIDE: Final = 2


def thin_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int = 0,
    groups: int = 1,
) -> Tensor:
    """Return torch's conv2d y [N, C_out, H', W'] of x [N, C_in, H, W] in the fastest known way.

    `weight` is [C_out, C_in / groups, k, k], `bias` [C_out] or None. y is channels_last when x is.
    Its derivatives are those of conv2d, of any order.

    >>> x, weight = torch.ones(1, 4, 3, 3), torch.ones(4, 1, 3, 3)
    >>> thin_conv2d(x, weight, padding=1, groups=4)[0, 0]
    tensor([[4., 6., 4.],
            [6., 9., 6.],
            [4., 6., 4.]])

    Raises: RuntimeError of torch for tensors that do not fit.
    """
    if is_direct(x, weight, bias):
        stage = _stage_for(x, weight, bias, stride, padding, groups)
        if stage is not None:
            compiled = layers()
            if compiled is not None:
                if any_requires_grad(x, weight, bias):
                    y: Tensor = _apply(x, weight, bias, stage)
                else:
                    y = compiled.forward(x, weight, bias, stage)
                return y
    return conv2d(x, weight, bias, stride, padding, 1, groups)


def explain_thin_conv2d(
    x: Tensor, weight: Tensor, stride: int = 1, padding: int = 0, groups: int = 1
) -> str:
    """Return which way computes each function of `thin_conv2d`, and why.

    >>> x, weight = torch.ones(1, 64, 28, 28), torch.ones(64, 4, 1, 1)
    >>> explain_thin_conv2d(x, weight, groups=16).splitlines()[0].split(" (")[0]
    'forward: compiled'
    """
    stage = _stage_for(x, weight, None, stride, padding, groups, choose=False)
    if stage is None or x.dtype != weight.dtype or layers() is None:
        return f"torch's conv2d: {absence()}"
    return "\n".join(
        f"{function}: {_choice(stage, function, x.shape, x.dtype, is_channels_last(x))}"
        for function in costs.FUNCTIONS
    )


def _stage_for(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    groups: int,
    choose: bool = True,
) -> Stage | None:
    """Return the stage that computes a convolution, or None where torch is to."""
    if not type(stride) is type(padding) is type(groups) is int:  # torch takes pairs and names
        return None
    shapes = tuple(x.shape), tuple(weight.shape), None if bias is None else tuple(bias.shape)
    key = *shapes, stride, padding, groups, x.dtype, is_channels_last(x), choose
    return _known_stage(*key)


@lru_cache(maxsize=4096)
def _known_stage(
    x: tuple[int, ...],
    weight: tuple[int, ...],
    bias: tuple[int, ...] | None,
    stride: int,
    padding: int,
    groups: int,
    dtype: torch.dtype,
    channels_last: bool,
    choose: bool,
) -> Stage | None:
    fits = (
        dtype in costs.DTYPES
        and len(x) == len(weight) == 4
        and 0 not in x
        and weight[2] == weight[3]
        and 1 <= stride <= _MOST_STRIDE
        and 0 <= padding < weight[2]
        and groups >= 1
        and x[1] == weight[1] * groups
        and weight[0] % groups == 0
        and bias in (None, weight[:1])
        and min(x[2:]) + 2 * padding >= weight[2]
    )
    if not fits:
        return None
    stage = Stage(x[1], weight[0], weight[1], weight[1], BLOCKED, weight[2], stride, padding)
    if choose and _choice(stage, "forward", x, dtype, channels_last).way != costs.COMPILED:
        return None
    return stage


def is_torch_faster(stage: Stage, x: Tensor) -> bool:
    """Return whether torch's conv2d is expected to compute a stage of x in less time.

    `stage`: without what a convolution of torch has not, rolling windows and channel shuffles.

    >>> dense = Stage(64, 64, fan_in=64, step=64)
    >>> is_torch_faster(dense, torch.ones(1, 64, 28, 28, dtype=torch.float64))
    True
    """
    if x.dtype not in costs.DTYPES or layers() is None:
        return True
    way = _choice(stage, "forward", tuple(x.shape), x.dtype, is_channels_last(x)).way
    return way != costs.COMPILED


@lru_cache(maxsize=4096)
def _choice(
    stage: Stage, function: str, x: tuple[int, ...], dtype: torch.dtype, channels_last: bool
) -> costs.Choice:
    """Return the way for a function of a convolution of x."""
    images, _, height, width = x
    rows, row = stage.size_of(height), stage.size_of(width)
    pixels = images * rows * row
    groups = stage.c_in // stage.fan_in
    together = (gradient_of(stage) if function == "input_grad" else stage).together
    sizes = stage.c_in, stage.c_out, stage.fan_in, stage.kernel
    row = rows * row if stage.kernel == 1 else row
    counts = images * height * width, pixels, row, together, groups
    layer = costs.Layer(*sizes, *counts, dense=False, stride=stage.stride)
    return costs.choose(layer, function, dtype, channels_last)


class _ThinConvolution(Function):
    """A convolution by compiled loops. Its backward pass is torch's where that is faster."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stage: Stage) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.stage, ctx.bias_sizes = stage, None if bias is None else list(bias.shape)
        compiled = layers()
        assert compiled is not None
        return compiled.forward(x, weight, bias, stage)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        stage: Stage = ctx.stage
        needed = list(ctx.needs_input_grad[:3])
        grads: list[Tensor | None] = [None, None, None]
        # With `create_graph` the gradients have derivatives themselves: torch's formula has them.
        if not (torch.is_grad_enabled() or is_watched(grad)):
            compiled = layers()
            assert compiled is not None
            options = x.shape, x.dtype, is_channels_last(x)

            def is_compiled(function: str) -> bool:
                return _choice(stage, function, *options).way == costs.COMPILED

            if needed[0] and stage.stride == 1 and is_compiled("input_grad"):
                grads[0], needed[0] = compiled.input_grad(grad, weight, stage), False
            if needed[1] and is_compiled("weight_grad"):
                grads[1], needed[1] = compiled.weight_grad(grad, x, stage).view_as(weight), False
            if needed[2] and not any(needed[:2]):
                grads[2], needed[2] = grad.sum((0, 2, 3)), False
        if any(needed):
            both = [stage.stride] * 2, [stage.padding] * 2, [1, 1], False, [0, 0]
            rest = torch.ops.aten.convolution_backward(
                grad, x, weight, ctx.bias_sizes, *both, stage.c_in // stage.fan_in, needed
            )
            grads = [
                own if own is not None else other for own, other in zip(grads, rest, strict=True)
            ]
        return (*grads, None)


_apply: Final = cast(Any, _ThinConvolution).apply
