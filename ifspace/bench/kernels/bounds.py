"""What no implementation of a layer can beat: see `ifspace.bench.machine`."""

from ifspace.bench.kernels.cases import FUSED, KERNEL, Case
from ifspace.bench.machine import (
    Rates,
    Work,
)


def passes(case: Case) -> tuple[Work, ...]:
    """Return the work of the forward pass and, in that mode, of the backward pass.

    Forward: x and the weights read, y written. Backward: the gradient of y, x and the weights
    read, the gradients of x and of the weights written, twice the operations. It starts from a
    gradient that exists only after y, so x is read in each.

    >>> passes(Case(1, 4, 2, 2, "1/2", mode="forward+backward"))
    (Work(moved=160, operations=64), Work(moved=256, operations=128))
    """
    layer = case.pixels * case.width
    weights, macs = case.windows.params, case.pixels * case.windows.params
    if case.kind == FUSED:
        weights += KERNEL * KERNEL * case.width
        macs += KERNEL * KERNEL * layer
    size = case.torch_dtype.itemsize
    forward = Work((2 * layer + weights) * size, 2 * macs)
    if not case.both_ways:
        return (forward,)
    return forward, Work((3 * layer + 2 * weights) * size, 4 * macs)


def bound_s(case: Case, rates: Rates) -> float:
    """Return the seconds that no implementation of the layer can beat: the sum over its passes."""
    return sum(each.seconds(rates, case.dtype) for each in passes(case))
