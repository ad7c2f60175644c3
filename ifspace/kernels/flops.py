"""Multiply-accumulates of RPW, for counters of operations that do not know it.

torch's FlopCounterMode counts RPW through the formulas registered with the operators. For fvcore,
set `fvcore_handles()` on a FlopCountAnalysis; for thop, which counts modules, there is
`ifspace.nn.thop_operators`.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any


def rpw_macs(y_shape: Sequence[int], width: int) -> int:
    """Return the multiply-accumulates of y [N, C_out, H, W] with windows of a width.

    >>> rpw_macs((1, 8, 2, 2), width=4)
    128
    """
    return prod(y_shape) * width


def dw_rpw_macs(y_shape: Sequence[int], in_channels: int, weights: int, taps: int = 9) -> int:
    """Return the multiply-accumulates of a fused DW + RPW block: 9 C_in + C_out w per output pixel.

    >>> dw_rpw_macs((4, 8, 4, 1), in_channels=16, weights=8 * 4)
    2816
    """
    n, _, height, width = y_shape
    return n * height * width * (taps * in_channels + weights)


def fvcore_handles() -> dict[str, Callable[[list[Any], list[Any]], int]]:
    """Return the handles for `fvcore.nn.FlopCountAnalysis(...).set_op_handle`.

    fvcore counts a multiply-accumulate as one operation:

        FlopCountAnalysis(model, x).set_op_handle(**fvcore_handles())
    """

    def count(inputs: list[Any], outputs: list[Any]) -> int:
        _, width = inputs[1].type().sizes()
        return rpw_macs(outputs[0].type().sizes(), width)

    return {"ifspace::rpw": count}
