"""Compiling Triton kernels ahead of time, without a card: do they fit, and do they spill?

The module of a kernel offers `aot_cases()`; here each is compiled for a target, in a process that
has imported triton without its interpreter.
"""

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels.launch import Launch, interprets
from ifspace.kernels.rpw.configs import (
    SHARED_BYTES,
    TARGETS,
)

_GPUS: Final = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_TYPES: Final = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


@dataclass(frozen=True, slots=True)
class AotCase:
    """One kernel under one configuration, as it is specialised for one problem.

    `signature`, `constexprs` and `attributes` are what triton.compile takes; `targets` are those
    that the configuration is offered on.
    """

    kernel: str
    config: str
    problem: str
    function: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    attributes: dict[tuple[int, ...], Any]
    warps: int
    stages: int
    targets: tuple[str, ...] = TARGETS

    def __str__(self) -> str:
        """Name it in one line."""
        return f"{self.kernel} {self.config} {self.problem}"


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a compiled kernel needs: registers of a thread, bytes that spill, shared bytes."""

    case: AotCase
    target: str
    registers: int
    spill_bytes: int
    shared_bytes: int

    def faults(self) -> list[str]:
        """Return what keeps it from being offered on its target."""
        found = []
        if self.spill_bytes:
            found.append(f"{self.case} on {self.target}: spills {self.spill_bytes} bytes")
        if self.shared_bytes > SHARED_BYTES[self.target]:
            found.append(
                f"{self.case} on {self.target}: {self.shared_bytes} bytes of shared memory, "
                f"the card has {SHARED_BYTES[self.target]}"
            )
        return found


def cases_of(launch: Launch, problem: str, channels_last: bool) -> list[AotCase]:
    """Return a launch as cases: one for each configuration that fits it."""
    tensor = next(each for each in launch.arguments.values() if isinstance(each, Tensor))
    layout = "channels_last" if channels_last else "NCHW"
    words = f"{problem} {layout} {_TYPES[tensor.dtype]}"
    if tensor.dtype == torch.float32:
        words += f" {launch.constants['PRECISION']}"
    return [
        specialised(
            launch.function,
            {**launch.arguments, **launch.constants, **config.constants()},
            kernel=launch.kernel,
            config=config.name,
            problem=words,
            warps=config.warps,
            stages=config.stages,
            targets=config.targets,
        )
        for config in launch.fit
    ]


def specialised(function: Any, arguments: Mapping[str, Any], **told: Any) -> AotCase:
    """Return the case that a call with these arguments by name would compile.

    As triton does on a launch: an integer 1 becomes a constant, multiples of 16 are marked, and
    tensors (none need storage) count as aligned.
    """
    signature: dict[str, str] = {}
    constexprs: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    fixed = {parameter.name for parameter in function.params if parameter.is_constexpr}
    for place, name in enumerate(function.arg_names):
        value = arguments[name]
        if name in fixed or value is None or (isinstance(value, int) and value == 1):
            signature[name], constexprs[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name] = f"*{_TYPES[value.dtype]}"
            attributes[(place,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(place,)] = [["tt.divisibility", 16]]
    return AotCase(
        function=function, signature=signature, constexprs=constexprs, attributes=attributes, **told
    )


def compile_case(case: AotCase, target: str) -> Compiled:
    """Compile a case for "sm_80", "sm_90" or "gfx942" and measure it.

    Raises: KernelError for another target; DeviceError under Triton's interpreter.
    """
    if target not in _GPUS:
        raise KernelError.because(
            "no such target", got=repr(target), allowed=", ".join(_GPUS), remedy="pick one"
        )
    if interprets():
        raise DeviceError.because(
            "the interpreter does not compile",
            got="TRITON_INTERPRET set",
            allowed="a process without it",
            remedy="unset it before triton is imported",
        )
    source = ASTSource(case.function, case.signature, case.constexprs, case.attributes)
    options = {"num_warps": case.warps, "num_stages": case.stages}
    kernel = triton.compile(source, target=_GPUS[target], options=options)
    measure = _measure_hip if target == "gfx942" else _measure_cuda
    registers, spill_bytes = measure(kernel)
    return Compiled(case, target, registers, spill_bytes, kernel.metadata.shared)


def _measure_cuda(kernel: Any) -> tuple[int, int]:
    # A stack frame in a kernel without arrays of its own is where registers spill to.
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        report = subprocess.run(
            [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(cubin)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
    return _number(r"REG:(\d+)", report), _number(r"STACK:(\d+)", report)


def _measure_hip(kernel: Any) -> tuple[int, int]:
    text = kernel.asm["amdgcn"]
    return (
        _number(r"\.vgpr_count:\s*(\d+)", text),
        _number(r"\.private_segment_fixed_size:\s*(\d+)", text),
    )


def _number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    if found is None:
        raise DeviceError.because(
            "the compiler's report is unknown",
            got=text[:80],
            allowed=f"a match of {pattern}",
            remedy="use triton 3.6 or 3.7",
        )
    return int(found[1])
