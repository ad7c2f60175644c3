"""Rolling pointwise convolution (RPW) as a function of tensors, with its implementation chosen.

Reference: [3DRF] section 4.2.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from numbers import Rational
from typing import Final

import torch
from torch import Tensor

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels import flops as _flops  # noqa: F401 - counters know of RPW from here on
from ifspace.kernels.checks import check_alike, check_input, check_tensors, is_autocast, shape_of
from ifspace.kernels.rpw import (
    operator as ops,
)
from ifspace.kernels.rpw import (
    transforms,
)
from ifspace.kernels.windows import overlap_ratio, windows_of

IMPLEMENTATIONS: Final = ("auto", *ops.IMPLEMENTATIONS)
_TRITON_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32)


def rolling_pointwise_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    groups: int = 1,
    overlap: float | str | Rational = 0,
    impl: str = "auto",
) -> Tensor:
    """Return the rolling pointwise convolution y [N, C_out, H, W] of x [N, C_in, H, W].

    Filter j reads w = C_in / groups channels, (j s + t) mod C_in for t = 0 ... w - 1, with a step
    s = w - floor(overlap w): y[n, j] = bias[j] + sum over t of weight[j, t] x[n, (j s + t) mod
    C_in]. `weight` is [C_out, w], `bias` [C_out] or None; C_out may be any number. An overlap is
    exact: 0.33 is 33/100. y is channels_last when x is. It has derivatives of any order, forward
    and backward, and goes through the transforms of torch.func: see `transforms`.

    `impl`: "reference" (eager, any device), "cpu", "triton" (CUDA), or "auto": see
    `choose_implementation`. What is named runs, or DeviceError is raised.

    >>> x, weight = torch.ones(1, 4, 2, 2), torch.ones(8, 2)
    >>> rolling_pointwise_conv2d(x, weight, groups=2, overlap=0.5).shape
    torch.Size([1, 8, 2, 2])

    Raises: KernelError for what is no tensor, shapes, types or devices that do not fit, groups that
        do not divide C_in or an overlap outside 0 <= o < 1; DeviceError for an implementation that
        cannot run where x is. Both before anything runs.

    Reference: [3DRF] section 4.2.
    """
    check_tensors({"x": x, "weight": weight, "bias": bias}, optional=frozenset({"bias"}))
    check_input(x)
    step = step_of(x.shape[1], groups, overlap)
    _check_parameters(x, weight, bias, groups)
    chosen = choose_implementation(x, impl)
    if is_autocast(x) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    return transforms.rpw(x, weight, bias, step, chosen)


def choose_implementation(x: Tensor, impl: str = "auto") -> str:
    """Return which implementation runs for x: what is asked for, or for "auto" the fastest there.

    "auto" is "cpu" on a CPU, "triton" on CUDA for float16, bfloat16 and float32, and "reference"
    for float64 there and on any other device.

    >>> choose_implementation(torch.ones(1, 4, 2, 2))
    'cpu'

    Raises: KernelError for a name that is none or an x that is no tensor; DeviceError for an
        implementation that cannot run where x is, as it is or as "auto" would choose it.
    """
    check_tensors({"x": x})
    kind = x.device.type
    if impl not in IMPLEMENTATIONS:
        raise KernelError.because(
            "unknown implementation",
            got=repr(impl),
            allowed=", ".join(IMPLEMENTATIONS),
            remedy="leave it at auto",
            argument="impl",
        )
    if impl == "auto":
        if kind == "cuda":
            impl = "triton" if x.dtype in _TRITON_DTYPES else "reference"
        else:
            impl = "cpu" if kind == "cpu" else "reference"
    check_runs(x, impl, IMPLEMENTATIONS)
    return impl


def check_runs(x: Tensor, impl: str, among: Sequence[str]) -> None:
    """Refuse an implementation that cannot run where x is; those of `among` that can are named.

    Raises: DeviceError.
    """
    refusal = _refusal(x, impl)
    if refusal is not None:
        fact, got, remedy = refusal
        runs = [name for name in among if _refusal(x, name) is None]
        raise DeviceError.because(fact, got=got, allowed=", ".join(runs), remedy=remedy)


def _refusal(x: Tensor, impl: str) -> tuple[str, str, str] | None:
    """Return why an implementation cannot run where x is: the fact, what is got, the remedy."""
    kind = x.device.type
    if impl == "cpu" and kind != "cpu":
        return (
            "the cpu implementation runs on a CPU only",
            f"a tensor on {x.device}",
            "leave it at auto",
        )
    if impl != "triton":
        return None
    if find_spec("triton") is None:
        return (
            "triton is not installed",
            f"impl triton for a tensor on {x.device}",
            "install ifspace[triton] (Linux)",
        )
    if kind not in ("cuda", "meta") and not _interprets():
        return (
            "triton kernels run on CUDA devices",
            f"a tensor on {x.device}",
            "move the tensors to a CUDA device",
        )
    if x.dtype not in _TRITON_DTYPES:
        return "triton kernels do not compute in this type", str(x.dtype), "use impl reference"
    return None


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _interprets() -> bool:
    """Return whether Triton was imported under its interpreter, which takes tensors of the CPU."""
    from triton import knobs

    return bool(knobs.runtime.interpret)


def step_of(in_channels: int, groups: int, overlap: float | str | Rational) -> int:
    """Return the step of the windows, under a compiler that traces too.

    Raises: as `windows_of`.
    """
    if not torch.compiler.is_compiling():
        return windows_of(in_channels, 1, groups, overlap).step
    # While a compiler traces, sizes may be symbols: arithmetic only, and no table.
    if groups < 1 or in_channels % groups:
        raise KernelError.because(
            "groups do not divide the input channels",
            got=groups,
            allowed="divisors of C_in",
            remedy="choose a divisor",
            argument="groups",
        )
    shared, of = overlap_ratio(overlap)
    width = in_channels // groups
    return width - shared * width // of


def _check_parameters(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    width = x.shape[1] // groups
    if weight.dim() != 2 or weight.shape[1] != width:
        raise KernelError.because(
            "weight does not fit the input",
            got=f"weight {shape_of(weight)} for x {shape_of(x)} and {groups} groups",
            allowed=f"weight [C_out, {width}]",
            remedy="a filter has C_in / groups weights",
            argument="weight",
        )
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != weight.shape[0]):
        raise KernelError.because(
            "bias does not fit the weight",
            got=f"bias {shape_of(bias)} for weight {shape_of(weight)}",
            allowed=f"bias [{weight.shape[0]}]",
            remedy="give one number for each filter",
            argument="bias",
        )
    check_alike({"x": x, "weight": weight, "bias": bias})
