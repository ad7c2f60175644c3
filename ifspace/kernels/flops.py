"""What counters of operations are told about RPW: without this they count it as nothing.

torch's FlopCounterMode counts it from the import of this module on. For fvcore, set
`fvcore_handles()` on a FlopCountAnalysis; for thop, which counts modules, there is
`ifspace.nn.thop_operators`.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch.utils.flop_counter import register_flop_formula

from ifspace.kernels.rpw import operator as ops  # noqa: F401 - it registers the operators

_RPW = torch.ops.ifspace.rpw
_BY_INPUT = torch.ops.ifspace.rpw_input_grad
_BY_WEIGHT = torch.ops.ifspace.rpw_weight_grad


def rpw_macs(y_shape: Sequence[int], width: int) -> int:
    """Return the multiply-accumulates behind y [N, C_out, H, W] with windows of a width.

    >>> rpw_macs((1, 8, 2, 2), width=4)
    128
    """
    return prod(y_shape) * width


@register_flop_formula(_RPW)
def _forward(x: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    n, _c, *pixels = x
    return 2 * rpw_macs((n, weight[0], *pixels), weight[1])


@register_flop_formula(_BY_INPUT)
def _input_grad(grad: Any, weight: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * rpw_macs(grad, weight[1])


@register_flop_formula(_BY_WEIGHT)
def _weight_grad(grad: Any, x: Any, width: int, *_: Any, out_shape: Any = None, **__: Any) -> int:
    return 2 * rpw_macs(grad, width)


def fvcore_handles() -> dict[str, Callable[[list[Any], list[Any]], int]]:
    """Return the handles for `fvcore.nn.FlopCountAnalysis(...).set_op_handle`.

    fvcore counts a multiply-accumulate as one:

        FlopCountAnalysis(model, x).set_op_handle(**fvcore_handles())
    """

    def count(inputs: list[Any], outputs: list[Any]) -> int:
        _, width = inputs[1].type().sizes()
        return rpw_macs(outputs[0].type().sizes(), width)

    return {"ifspace::rpw": count}
