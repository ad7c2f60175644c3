"""Starting a Triton kernel of RPW: what it is told of tensors, and under which configuration.

No table and no pointer but those of the tensors goes to the device: a launch may be captured in a
CUDA graph.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import torch
import triton
from torch import Tensor

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels.rpw.configs import (
    Config,
    configurations,
    named,
    pinned,
    suitable,
)
from ifspace.kernels.rpw.tiles import (
    numbers,
    vector_of,
)
from ifspace.kernels.windows import Windows

HALF: Final = (torch.float16, torch.bfloat16)
_LARGE: Final = 2**31 - 2**16  # the last tile may reach beyond the last pixel
_WOVEN: Final = (2, 4, 8, 16)
# What the speed of a kernel depends on, where it has it; triton adds the types of the tensors.
_KEY: Final = (
    "pixels",
    "plane",
    "x_c",
    "grad_c",
    "in_channels",
    "out_channels",
    "window",
    "step",
    "EVEN",
    "FLAT",
    "WIDE",
    "PRECISION",
)


@dataclass(frozen=True, slots=True)
class Launch:
    """One call of a kernel, complete but for its configuration.

    `grid` gives the programs for the constants of a configuration.
    """

    kernel: str
    function: Any
    arguments: dict[str, Any]
    constants: dict[str, Any]
    grid: Callable[[dict[str, Any]], tuple[int, ...]]
    fit: tuple[Config, ...]

    def run(self, config: str | None) -> None:
        """Run under a configuration by name, the pinned one, the fastest, or the default."""
        name = config or pinned(self.kernel)
        given = {**self.arguments, **self.constants}
        with on_device(*given.values()):
            if name is None and self._may_tune():
                tuner(self.kernel, self.function)[self.grid](**given)
                _tuned.add(self._problem())
                return
            chosen = self.fit[0] if name is None else named(self.kernel, name, self.fit)
            self.function[self.grid](**given, **chosen.constants(), **chosen.options())

    def _may_tune(self) -> bool:
        if interprets() or torch.are_deterministic_algorithms_enabled():
            return False
        # Nothing can be timed while a graph is captured; what was timed before is known.
        return not torch.cuda.is_current_stream_capturing() or self._problem() in _tuned

    def _problem(self) -> tuple[Any, ...]:
        given = {**self.arguments, **self.constants}
        types = [str(each.dtype) for each in given.values() if isinstance(each, Tensor)]
        return (self.kernel, *(given.get(name) for name in _KEY), *types)


_tuned: set[tuple[Any, ...]] = set()


@cache
def tuner(kernel: str, function: Any) -> Any:
    """Return a kernel under triton.autotune with the configurations of its table."""
    by_config = {
        config: triton.Config(config.constants(), num_warps=config.warps, num_stages=config.stages)
        for config in configurations(kernel)
    }

    def prune(_: Any, __: Any, **given: Any) -> list[Any]:
        tensors = [each for each in given.values() if isinstance(each, Tensor)]
        fit = suitable(
            kernel,
            kind_of(tensors[0].dtype, given["PRECISION"]),
            given.get("WOVEN", 1),
            reads_channels_last(given),
            given["WIDE"],
        )
        here = target_here()
        return [by_config[each] for each in fit if here is None or here in each.targets]

    return triton.autotune(
        configs=list(by_config.values()),
        key=list(_KEY),
        prune_configs_by={"early_config_prune": prune},
        # While candidates are timed, one that adds must not add to what another left.
        reset_to_zero=["by_weight", "by_bias"] if kernel == "weight_grad" else None,
    )(function)


def kernel_launch(
    kernel: str,
    function: Any,
    tensors: Mapping[str, Tensor | None],
    windows: Windows,
    fp32: str | None,
    grid: Callable[[dict[str, Any]], tuple[int, ...]],
    own: Mapping[str, Any],
) -> Launch:
    """Return the launch of a kernel.

    `tensors` by the names of its arguments; of the 4-D ones it is told strides. `own`: arguments
    and constants of this kernel alone.
    """
    images = {name: each for name, each in tensors.items() if each is not None and each.dim() == 4}
    arguments: dict[str, Any] = dict(tensors)
    every = []
    for name, image in images.items():
        strides = pixel_strides(image)
        every.append((image, strides))
        arguments |= zip((f"{name}_n", f"{name}_c", f"{name}_h", f"{name}_w"), strides, strict=True)
    first = next(iter(images.values()))
    images_count, _, height, width = first.shape
    plane = height * width
    arguments |= {"pixels": images_count * plane, "plane": plane, "row": width}
    arguments |= numbers(windows)
    even = all(s_h == width * s_w for _, (_, _, s_h, s_w) in every)
    flat = even and all(images_count == 1 or s_n == plane * s_w for _, (s_n, _, _, s_w) in every)
    precision = precision_of(first.dtype, fp32)
    constants: dict[str, Any] = {
        "EVEN": even,
        "FLAT": flat,
        "WIDE": is_wide(arguments, windows),
        "VECTOR": vector_of(windows),
        "PRECISION": precision,
        "EXACT": interprets() and first.dtype == torch.bfloat16,
    }
    for name, value in own.items():
        (constants if name.isupper() else arguments)[name] = value
    fit = suitable(
        kernel,
        kind_of(first.dtype, precision),
        constants.get("WOVEN", 1),
        reads_channels_last(arguments),
        constants["WIDE"],
    )
    return Launch(kernel, function, arguments, constants, grid, fit)


def pixel_strides(image: Tensor) -> tuple[int, int, int, int]:
    """Return the strides of [N, C, H, W], those of axes of length 1 such that pixels are even.

    >>> pixel_strides(torch.empty(2, 3, 5, 1))
    (15, 5, 1, 1)
    """
    s_n, s_c, s_h, s_w = image.stride()
    _, _, height, width = image.shape
    if width == 1:
        s_w = s_h if height > 1 else s_n
    if height == 1:
        s_h = width * s_w
    return s_n, s_c, s_h, s_w


def is_wide(arguments: Mapping[str, Any], windows: Windows) -> bool:
    """Return whether some index or address needs more than 32 bits."""
    reach = [windows.distinct**2, windows.params + windows.out_channels, arguments["pixels"]]
    for each in arguments.values():
        if isinstance(each, Tensor):
            spans = zip(each.shape, each.stride(), strict=True)
            reach.append(sum((size - 1) * stride for size, stride in spans))
    return bool(max(reach) >= _LARGE)


def woven_windows(windows: Windows) -> int:
    """Return how many windows a kernel can weave: all of them, or 1 where they are not few."""
    return windows.distinct if windows.distinct in _WOVEN else 1


def reads_channels_last(arguments: Mapping[str, Any]) -> bool:
    """Return whether the channels of a pixel lie side by side in what a kernel reads."""
    channels: int = arguments.get("grad_c", arguments.get("x_c"))
    return channels == 1 and bool(arguments["pixels"] != 1)


def precision_of(dtype: torch.dtype, fp32: str | None) -> str:
    """Return how float32 is multiplied: "tf32" or "ieee", by default as torch's matmul on CUDA.

    Raises: KernelError for another word.
    """
    if fp32 not in (None, "tf32", "ieee"):
        raise KernelError.because(
            "no such precision of float32",
            got=repr(fp32),
            allowed="tf32, ieee",
            remedy="leave it out to follow torch",
            argument="fp32",
        )
    if dtype in HALF:
        return "tf32"  # not used: products of half precision are exact
    if fp32 is None:
        # The one of matrix products, and where that says nothing the one of all.
        words = (torch.backends.cuda.matmul.fp32_precision, _precision_of_all())
        fp32 = "tf32" if next((w for w in words if w != "none"), "ieee") == "tf32" else "ieee"
    return fp32


def _precision_of_all() -> str:
    return str(getattr(torch.backends, "fp32_precision", "none"))


def kind_of(dtype: torch.dtype, precision: str) -> str:
    """Return the kind of product in the table of configurations."""
    return "half" if dtype in HALF else precision


def check_runnable(x: Tensor) -> None:
    """Refuse tensors on which these kernels do not run.

    Raises: DeviceError for a device that is not CUDA (but under Triton's interpreter), and for
        types other than float16, bfloat16 and float32.
    """
    if x.dtype not in (*HALF, torch.float32):
        raise DeviceError.because(
            "triton kernels do not compute in this type",
            got=str(x.dtype),
            allowed="float16, bfloat16, float32",
            remedy="use impl reference",
        )
    if x.device.type != "cuda" and not (x.device.type == "cpu" and interprets()):
        raise DeviceError.because(
            "triton kernels run on CUDA devices",
            got=f"a tensor on {x.device}",
            allowed="cuda; cpu where TRITON_INTERPRET=1 was set before triton was imported",
            remedy="move the tensors, or use impl auto",
        )


@cache
def interprets() -> bool:
    """Return whether Triton was imported under its interpreter, which takes tensors of the CPU."""
    return bool(triton.knobs.runtime.interpret)


def target_here() -> str | None:
    """Return the compiler's name for the current device, or None for one without a table."""
    if torch.version.hip:
        name = str(torch.cuda.get_device_properties().gcnArchName).partition(":")[0]
        return name if name == "gfx942" else None
    major, _ = torch.cuda.get_device_capability()
    return {8: "sm_80", 9: "sm_90"}.get(major)


def on_device(*arguments: Any) -> AbstractContextManager[Any]:
    """Make the device of the tensors among some arguments the current one, as triton wants it."""
    for each in arguments:
        if isinstance(each, Tensor) and each.device.type == "cuda":
            return torch.cuda.device(each.device)
    return nullcontext()
