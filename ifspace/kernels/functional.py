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
from ifspace.kernels import ops
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
    exact: 0.33 is 33/100. y is channels_last when x is.

    `impl`: "reference" (eager, any device), "cpu", "triton" (CUDA), or "auto": see
    `choose_implementation`. What is named runs, or DeviceError is raised.

    >>> x, weight = torch.ones(1, 4, 2, 2), torch.ones(8, 2)
    >>> rolling_pointwise_conv2d(x, weight, groups=2, overlap=0.5).shape
    torch.Size([1, 8, 2, 2])

    Raises: KernelError for shapes, types or devices that do not fit, groups that do not divide
        C_in or an overlap outside 0 <= o < 1; DeviceError for an implementation that cannot run
        where x is. Both before anything runs.

    Reference: [3DRF] section 4.2.
    """
    _check_input(x)
    step = step_of(x.shape[1], groups, overlap)
    _check_parameters(x, weight, bias, groups)
    chosen = choose_implementation(x, impl)
    if _autocast(x) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight = x.to(dtype), weight.to(dtype)
        bias = None if bias is None else bias.to(dtype)
    y: Tensor = ops.rpw(x, weight, bias, step, chosen)
    return y


def choose_implementation(x: Tensor, impl: str = "auto") -> str:
    """Return which implementation runs for x: what is asked for, or for "auto" the fastest there.

    "auto" is "cpu" on a CPU, "triton" on CUDA for float16, bfloat16 and float32, and "reference"
    for float64 there and on any other device.

    >>> choose_implementation(torch.ones(1, 4, 2, 2))
    'cpu'

    Raises: KernelError for a name that is none; DeviceError for an implementation that cannot run
        where x is, as it is or as "auto" would choose it.
    """
    kind = x.device.type
    if impl not in IMPLEMENTATIONS:
        raise KernelError.because(
            "unknown implementation", got=repr(impl), allowed=", ".join(IMPLEMENTATIONS),
            remedy="leave it at auto", argument="impl",
        )  # fmt: skip
    if impl == "auto":
        if kind == "cuda":
            impl = "triton" if x.dtype in _TRITON_DTYPES else "reference"
        else:
            impl = "cpu" if kind == "cpu" else "reference"
    if impl == "cpu" and kind != "cpu":
        raise DeviceError.because(
            "the cpu implementation runs on a CPU only", got=f"a tensor on {x.device}",
            allowed="auto, reference, triton", remedy="leave it at auto",
        )  # fmt: skip
    if impl == "triton":
        _check_triton(x)
    return impl


def _check_triton(x: Tensor) -> None:
    if find_spec("triton") is None:
        raise DeviceError.because(
            "triton is not installed", got=f"impl triton for a tensor on {x.device}",
            allowed="impl reference", remedy="install ifspace[triton] (Linux)",
        )  # fmt: skip
    if x.device.type not in ("cuda", "meta") and not _interprets():
        raise DeviceError.because(
            "triton kernels run on CUDA devices", got=f"a tensor on {x.device}",
            allowed="auto, reference, cpu", remedy="move the tensors to a CUDA device",
        )  # fmt: skip
    if x.dtype not in _TRITON_DTYPES:
        raise DeviceError.because(
            "triton kernels do not compute in this type", got=str(x.dtype),
            allowed=", ".join(map(str, _TRITON_DTYPES)), remedy="use impl reference",
        )  # fmt: skip


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
    # While a compiler traces, sizes may be symbols: arithmetic only, and no table. What does not
    # divide is refused when the operator runs.
    shared, of = overlap_ratio(overlap)
    width = in_channels // groups
    return width - shared * width // of


def _check_input(x: Tensor) -> None:
    if x.dim() != 4:
        raise KernelError.because(
            "input is not 4-D", got=_shape(x), allowed="[N, C_in, H, W]",
            remedy="add the batch dimension with x[None], or reshape", argument="x",
        )  # fmt: skip
    if not x.is_floating_point():
        raise KernelError.because(
            "input is not of a floating type", got=str(x.dtype),
            allowed="float16, bfloat16, float32, float64", remedy="convert it", argument="x",
        )  # fmt: skip


def _check_parameters(x: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> None:
    width = x.shape[1] // groups
    if weight.dim() != 2 or weight.shape[1] != width:
        raise KernelError.because(
            "weight does not fit the input",
            got=f"weight {_shape(weight)} for x {_shape(x)} and {groups} groups",
            allowed=f"weight [C_out, {width}]", remedy="a filter has C_in / groups weights",
            argument="weight",
        )  # fmt: skip
    if bias is not None and (bias.dim() != 1 or bias.shape[0] != weight.shape[0]):
        raise KernelError.because(
            "bias does not fit the weight",
            got=f"bias {_shape(bias)} for weight {_shape(weight)}",
            allowed=f"bias [{weight.shape[0]}]", remedy="give one number for each filter",
            argument="bias",
        )  # fmt: skip
    given = [tensor for tensor in (x, weight, bias) if tensor is not None]
    devices = [str(tensor.device) for tensor in given]
    if len(set(devices)) > 1:
        raise KernelError.because(
            "tensors on several devices", got=_listed(devices),
            allowed="one device", remedy="move them with .to(x.device)",
        )  # fmt: skip
    dtypes = [str(tensor.dtype) for tensor in given]
    if len(set(dtypes)) > 1 and not _autocast(x):
        raise KernelError.because(
            "tensors of several types", got=_listed(dtypes),
            allowed="one type, or autocast", remedy="convert them with .to(x.dtype)",
        )  # fmt: skip


def _autocast(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _shape(tensor: Tensor) -> str:
    return str(list(tensor.shape))


def _listed(values: Sequence[str]) -> str:
    return ", ".join(f"{n} {v}" for n, v in zip(("x", "weight", "bias"), values, strict=False))
