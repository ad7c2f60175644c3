"""Compiling the Triton kernels ahead of time, without a card: do they fit, and do they spill?

`CASES` lists every kernel of RPW, of the fused block and of chains under its configurations;
`compile_case` compiles one for a target, in a process that has imported triton without its
interpreter. `AotCase.key` says whether what was measured of one once still holds.
"""

import hashlib
import io
import re
import subprocess
import tempfile
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.language import constexpr
from triton.runtime import JITFunction

from ifspace.errors import DeviceError, KernelError
from ifspace.kernels.chain import triton as chains
from ifspace.kernels.chain.stages import Chain, Stage
from ifspace.kernels.fused import triton as fused
from ifspace.kernels.fused.reference import FusedSpec
from ifspace.kernels.launch import (
    CUDA,
    KINDS,
    SHARED_BYTES,
    TARGETS,
    Config,
    Launch,
    align_of,
    count_indices,
    filled_width,
    interprets,
    is_blocked,
    is_plain,
    vector_of,
    window_sizes,
)
from ifspace.kernels.rpw import triton as rpw
from ifspace.kernels.tensors import empty_in_layout, empty_with_channels
from ifspace.kernels.windows import BLOCKED, ROLLING, Windows, window_index, windows_of

_GPUS: Final = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
_TYPES: Final = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
# Instructions of matrix units, by a part of their name.
_UNITS: Final = ("tcgen05.mma", "wgmma", "mma.sync", "mfma")
# What AMD's memory instructions call their sizes, in bytes; "d16" is half of a register.
_HIP_BYTES: Final = {
    "byte": 1,
    "ubyte": 1,
    "sbyte": 1,
    "short": 2,
    "ushort": 2,
    "sshort": 2,
    "dword": 4,
    "dwordx2": 8,
    "dwordx3": 12,
    "dwordx4": 16,
}
_NARROW_BYTES: Final = 4
# With registers to spare NVIDIA's compiler gives up a few, so that more threads fit.
_FEW_BYTES: Final = 32
_MOST_REGISTERS: Final = 255
# Other constants under which each kernel of RPW must compile, where it has them.
_SPECIAL: Final[dict[str, dict[str, bool]]] = {
    "": {},
    " wide": {"WIDE": True},
    " atomic": {"ATOMIC": True},
}
_MORE_WINDOWS: Final = (
    windows_of(512, 512, 4, "0.33"),
    windows_of(512, 512, 2, 0),
    windows_of(512, 512, 2, "1/2", BLOCKED),
    windows_of(512, 512, 16, "1/2", BLOCKED),
    windows_of(512, 640, 4, "0.33", BLOCKED),
)
# Overlap, order, channels_last, dtype and float32 precision: at 1/2 windows start at whole vectors.
_FUSED_PROBLEMS: Final = (
    ("1/2", ROLLING, True, torch.bfloat16, None),
    ("0.33", ROLLING, False, torch.bfloat16, None),
    ("0.33", ROLLING, True, torch.float32, "tf32"),
    ("0.33", ROLLING, False, torch.float32, "ieee"),
    ("1/2", BLOCKED, True, torch.bfloat16, None),
    ("1/2", BLOCKED, False, torch.bfloat16, None),
    ("0.33", BLOCKED, True, torch.bfloat16, None),
    ("0.33", BLOCKED, False, torch.bfloat16, None),
)


def _depthwise(channels: int, activation: str | None = None) -> Stage:
    return Stage(channels, channels, 1, 1, BLOCKED, 3, padding=1, activation=activation)


_CHAINS: Final = {
    "DW+RPW C=64": Chain((_depthwise(64), Stage(64, 64, 16, 16))),
    "DW+RPW C=512": Chain((_depthwise(512), Stage(512, 512, 128, 64))),
    "DW+RPW+RPW C=64 relu": Chain(
        (_depthwise(64, "relu"), *(Stage(64, 64, 16, 16, activation="relu") for _ in range(2)))
    ),
    "DW+RPW+RPW C=128 relu": Chain(
        (_depthwise(128, "relu"), *(Stage(128, 128, 16, 16, activation="relu") for _ in range(2)))
    ),
    "PW+DW+PW C=32 to 128 relu6": Chain(
        (
            Stage(32, 128, 32, 32, activation="relu6"),
            _depthwise(128, "relu6"),
            Stage(128, 32, 128, 128, residual=0),
        )
    ),
    "PW+DW+PW C=16 to 64 relu6": Chain(
        (
            Stage(16, 64, 16, 16, activation="relu6"),
            _depthwise(64, "relu6"),
            Stage(64, 16, 64, 64, residual=0),
        )
    ),
    "GC+RPW C=64": Chain((Stage(64, 64, 8, 8, BLOCKED, 3, padding=1), Stage(64, 64, 16, 16))),
    "GC+RPW C=128": Chain((Stage(128, 128, 8, 8, BLOCKED, 3, padding=1), Stage(128, 128, 16, 16))),
}


@dataclass(frozen=True, slots=True)
class AotCase:
    """One kernel under one configuration, as it is specialised for one problem.

    `signature`, `constexprs` and `attributes` are what triton.compile takes; `targets` are those
    that the configuration is offered on. `work`: see `work_of`; 0 for a kernel without products.
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
    work: float = 0.0

    def __str__(self) -> str:
        """Name it in one line."""
        return f"{self.kernel} {self.config} {self.problem}"

    def key(self, target: str) -> str:
        """Return a hash of all that the compiler reads of it for a target, and of its version.

        That is the code of the kernel and of what it calls, without comments and wherever it
        stands in its file; the types, constants and alignment of arguments; warps and stages.
        """
        read = (
            triton.__version__,
            target,
            _code_of(self.function),
            sorted(self.signature.items()),
            sorted(self.constexprs.items()),
            sorted(self.attributes.items()),
            self.warps,
            self.stages,
        )
        return hashlib.sha256(repr(read).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Compiled:
    """The needs of a compiled kernel, and how it reaches memory and multiplies.

    `registers` of a thread; `spill_bytes`; `shared_bytes`. `unit`: the instruction that multiplies,
    see `_UNITS`, or "". `store_bytes`: of the widest store of a thread to global memory.
    `narrow_loads`: how many loads from there are of 4 bytes or fewer.
    """

    case: AotCase
    target: str
    registers: int
    spill_bytes: int
    shared_bytes: int
    unit: str = ""
    store_bytes: int = 0
    narrow_loads: int = 0

    def faults(self) -> list[str]:
        """Return why it cannot be offered on its target, one line for each reason."""
        faults = []
        if self.spill_bytes > (_FEW_BYTES if self.registers < _MOST_REGISTERS else 0):
            faults.append(f"{self.case} on {self.target}: spills {self.spill_bytes} bytes")
        if self.shared_bytes > SHARED_BYTES[self.target]:
            faults.append(
                f"{self.case} on {self.target}: {self.shared_bytes} bytes of shared memory, "
                f"the card has {SHARED_BYTES[self.target]}"
            )
        return faults


@cache
def _code_of(kernel: Any) -> str:
    """Return the tokens of a kernel, of the functions that it calls and of the constants it reads.

    A name that is also that of an attribute counts as read: nothing that is read is left out.
    """
    parts: list[str] = []
    functions = [kernel]
    for function in functions:  # which grows by those that it calls
        for token in tokenize.generate_tokens(io.StringIO(function.src).readline):
            if token.type not in (tokenize.COMMENT, tokenize.NL):
                parts.append(token.string)
        for name in sorted(set(function.fn.__code__.co_names)):
            value = function.fn.__globals__.get(name)
            if isinstance(value, JITFunction) and value not in functions:
                functions.append(value)
            elif isinstance(value, constexpr):
                parts.append(f"{name}={value.value!r}")
    return " ".join(parts)


def rpw_cases() -> tuple[AotCase, ...]:
    """Return the cases of RPW that must compile without a spill.

    Every configuration, layout and precision where windows are whole vectors, where they are
    filled up to them, where two are woven, and in blocked order; under its default configuration
    each kernel with 64-bit addresses, with atomic additions, and with a single output channel; and
    the kernels that fill windows and add parts.
    """
    cases: list[AotCase] = []
    for windows in (windows_of(512, 512, 2, "1/2"), *_MORE_WINDOWS):
        for channels_last in (True, False):
            for kind in KINDS if windows.distinct == 4 else ("half",):
                for launch in _rpw_launches(windows, channels_last, kind):
                    problem = _rpw_problem(launch, windows, "", channels_last)
                    cases += _cases_of(launch, windows, problem)
    special_windows = (
        windows_of(512, 512, 2, "1/2"),
        windows_of(16, 1, 2, "1/2"),
        windows_of(512, 640, 4, "0.33", BLOCKED),
    )
    for windows in special_windows:
        for channels_last in (True, False):
            for launch in _rpw_launches(windows, channels_last, "half"):
                for name, constants in _SPECIAL.items():
                    if constants.keys() <= launch.arguments.keys():
                        arguments = {**launch.arguments, **constants}
                        default = rpw.fitting(launch.kernel, arguments, windows)[:1]
                        special = replace(launch, arguments=arguments, configs=default)
                        problem = _rpw_problem(launch, windows, name, channels_last)
                        cases += _cases_of(special, windows, problem)
    small_windows = (
        windows_of(512, 512, 4, "0.33"),
        windows_of(16, 1, 2, "0.33"),
        windows_of(512, 640, 4, "0.33", BLOCKED),
    )
    for windows in small_windows:
        cases += _small_cases(windows)
    return tuple(cases)


def fused_cases() -> tuple[AotCase, ...]:
    """Return the cases of the fused block that must compile without a spill.

    Every configuration, in both layouts, alignments of windows and orders.
    """
    cases: list[AotCase] = []
    for overlap, order, channels_last, dtype, fp32 in _FUSED_PROBLEMS:
        layout = "channels_last" if channels_last else "NCHW"
        windows = windows_of(256, 256, 4, overlap, order)
        text = f"o={overlap}{' blocked' if is_blocked(windows) else ''}"
        problem = f"C=256 g=4 {text} {layout} {dtype} {fp32 or ''}".strip()
        for launch in _fused_launches(windows, channels_last, dtype, fp32):
            cases += _cases_of(launch, windows, problem, prefix="dw_rpw.")
    return tuple(cases)


def chain_cases() -> tuple[AotCase, ...]:
    """Return the cases of chains that must compile without a spill.

    Every configuration: of a depthwise layer and a matrix, of activations between products, of an
    inverted residual, of a grouped convolution; each in half precision and both of float32.
    """
    cases: list[AotCase] = []
    for name, chain in _CHAINS.items():
        for dtype, fp32 in ((torch.bfloat16, ""), (torch.float32, "tf32"), (torch.float32, "ieee")):
            x = _image(chain.stages[0].c_in, True, dtype)
            launch = _chain_launch(x, chain, fp32 or "tf32")
            # The precise products of float32 are other ones on AMD: see `chains.chain_launch`.
            forms: dict[tuple[str, ...], Launch] = {TARGETS: launch}
            if fp32 == "ieee":
                other = replace(launch, arguments=launch.arguments | {"PRECISION": "ieee"})
                forms = {CUDA: launch, tuple(set(TARGETS) - set(CUDA)): other}
            for targets, form in forms.items():
                for config in form.configs:
                    case = _chain_case(form, config, f"{name} {_TYPES[dtype]} {fp32}")
                    offered = tuple(target for target in case.targets if target in targets)
                    if offered:
                        cases.append(replace(case, targets=offered))
    return tuple(cases)


def _chain_case(launch: Launch, config: Config, problem: str) -> AotCase:
    """Return a chain under one configuration."""
    return specialised(
        launch.function,
        launch.everything(config)[1],
        kernel="chain",
        problem=problem.strip(),
        **_options(config),
    )


def _chain_launch(x: Tensor, chain: Chain, precision: str) -> Launch:
    """Return the launch of a chain on tensors without storage."""
    plan = chains.plan_of(chain)
    assert isinstance(plan, chains.Plan)
    tensors = chains.pack(
        torch.zeros(chain.weights), torch.zeros(chain.biases), chain, plan, x.dtype
    ).tensors
    y = empty_in_layout(x, chain.shape_of(x.shape))
    return chains.chain_launch(x, tensors, y, chain, plan, precision)


# The kernels by name, and their cases.
CASES: Final = {"rpw": rpw_cases, "fused": fused_cases, "chain": chain_cases}


def _cases_of(launch: Launch, windows: Windows, problem: str, prefix: str = "") -> list[AotCase]:
    """Return a launch as cases: one for each configuration that fits it."""
    return [
        specialised(
            launch.function,
            launch.everything(config)[1],
            kernel=prefix + launch.kernel,
            problem=problem,
            work=work_of(launch.kernel, config, windows),
            **_options(config),
        )
        for config in launch.configs
    ]


def work_of(kernel: str, config: Config, windows: Windows) -> float:
    """Return how many products a kernel computes for each weight and pixel: 1 wastes none.

    What is beyond are zeros: channels of a union that a filter does not read, and the ends of
    tiles. `kernel`: one of RPW's, or of the fused block's.

    >>> from ifspace.kernels.rpw.triton import configurations
    >>> config = configurations("forward", "half")[0]
    >>> config.name
    '64x64x32-natural-w4s3'
    >>> [work_of("forward", config, windows_of(512, 512, 4, "1/2", order))
    ...  for order in ("rolling", "blocked")]
    [4.0, 1.0]
    """
    if kernel in ("input_grad", "middle_grad"):
        products = sum(
            _up(_count_meeting(windows, first, config), config.filters) * config.channels
            for first in range(0, windows.in_channels, config.channels)
        )
    else:
        indices = count_indices(windows, config.order)
        products = sum(
            _up(_union_length(windows, first, config), config.channels) * config.filters
            for first in range(0, indices, config.filters)
        )
    return products / windows.params


def _up(count: int, block: int) -> int:
    return -(-count // block) * block


def _union_length(windows: Windows, first: int, config: Config) -> int:
    """Return how many channels a tile of filters reads: see `rpw.triton.union_of`."""
    sizes = window_sizes(windows)
    last = min(first + config.filters, count_indices(windows, config.order)) - 1
    if config.order == "woven":
        reach = 0
    elif config.order == "sorted":
        reach = (last // sizes["share"] - first // sizes["share"]) * sizes["unit"]
    elif is_blocked(windows):
        count = windows.distinct, windows.out_channels, BLOCKED
        reach = (window_index(last, *count) - window_index(first, *count)) * windows.step
    else:
        reach = min(last - first, windows.distinct) * windows.step
    return min(_up(reach, vector_of(windows)) + sizes["window"], windows.in_channels)


def _count_meeting(windows: Windows, first: int, config: Config) -> int:
    """Return how many filters a tile of channels visits: see `rpw.triton.filters_meeting`."""
    if config.order == "natural" and not is_plain(windows):
        return windows.out_channels
    sizes, c_in = window_sizes(windows), windows.in_channels
    low = (first + c_in - sizes["window"]) // sizes["unit"] + 1
    high = (min(first + config.channels, c_in) - 1 + c_in) // sizes["unit"]
    turns = min(high - low + 1, windows.distinct)
    if config.order == "sorted":
        return turns * sizes["share"]
    align, lowest = align_of(windows), low % windows.distinct
    begin, end = (
        -(-window * windows.out_channels // windows.distinct) for window in (lowest, lowest + turns)
    )
    return min(_up(end - begin // align * align, align), windows.out_channels)


def _options(config: Config) -> dict[str, Any]:
    return {
        "config": config.name,
        "warps": config.warps,
        "stages": config.stages,
        "targets": config.targets,
    }


def _rpw_launches(windows: Windows, channels_last: bool, kind: str) -> tuple[Launch, ...]:
    """Return the launches of all kernels of RPW on tensors without storage."""
    dtype = torch.bfloat16 if kind == "half" else torch.float32
    fp32 = None if kind == "half" else kind
    x = _image(windows.in_channels, channels_last, dtype)
    y = empty_with_channels(x, windows.out_channels)
    weight = x.new_empty(windows.out_channels, filled_width(windows))
    bias = x.new_empty(windows.out_channels)
    partial = weight.float(), bias.float()
    return (
        rpw.forward_launch(x, weight, bias, y, windows, fp32),
        rpw.input_grad_launch(y, weight, x, windows, fp32),
        rpw.weight_grad_launch(y, x, *partial, windows, fp32, parts=8),
    )


def _fused_launches(
    windows: Windows, channels_last: bool, dtype: torch.dtype, fp32: str | None
) -> tuple[Launch, ...]:
    """Return the launches of all kernels of the fused block on tensors without storage."""
    spec = FusedSpec(windows, 1, "relu6", "silu")
    x = _image(256, channels_last, dtype)
    y = empty_in_layout(x, spec.output_shape(tuple(x.shape)))
    vector, weight = x.new_empty(256), x.new_empty(256, 64)
    first = {"dw_weight": x.new_empty(256, 1, 3, 3), "scale1": vector, "shift1": vector}
    every = {**first, "weight": weight, "scale2": vector, "shift2": vector}
    return (
        fused.forward_launch(x, every, None, y, spec, fp32),
        fused.forward_launch(x, every, y, y, spec, fp32),
        fused.weight_grad_launch(x, first, y, spec, fp32),
        fused.middle_grad_launch(x, {**first, "weight": weight}, y, y, spec, fp32),
    )


def _image(channels: int, channels_last: bool, dtype: torch.dtype) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    shape = (128, channels, 28, 28)
    return torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)


def _rpw_problem(launch: Launch, windows: Windows, special: str, channels_last: bool) -> str:
    layout = "channels_last" if channels_last else "NCHW"
    dtype = next(t.dtype for t in launch.arguments.values() if isinstance(t, Tensor))
    text = f"{_windows_text(windows)}{special} {layout} {_TYPES[dtype]}"
    return f"{text} {launch.arguments['PRECISION']}" if dtype == torch.float32 else text


def _windows_text(windows: Windows) -> str:
    text = f"C={windows.in_channels} F={windows.out_channels} g={windows.groups} s={windows.step}"
    return f"{text} blocked" if is_blocked(windows) else text


def _small_cases(windows: Windows) -> list[AotCase]:
    """Return the cases of the two small kernels that fill windows and add parts."""
    window, sizes = filled_width(windows), window_sizes(windows)
    vector = torch.empty(16, dtype=torch.bfloat16, device="meta")
    shared = {name: sizes[name] for name in ("in_channels", "out_channels", "step", "distinct")}
    shared |= {"width": windows.width, "window": window, "VECTOR": vector_of(windows)}
    shared["BLOCKED"] = is_blocked(windows)
    pad = {"weight": vector, "filled": vector, "entries": windows.out_channels * window}
    add = {"partial": vector.float(), "by_weight": vector, "by_bias": vector, "parts": 8}
    return [
        specialised(
            function,
            {**shared, **arguments, **blocks},
            kernel=kernel,
            config="only",
            problem=_windows_text(windows),
            warps=4,
            stages=3,
        )
        for kernel, function, arguments, blocks in (
            ("pad", rpw.pad_kernel, pad, {"BLOCK": rpw.PAD_BLOCK}),
            ("sum_parts", rpw.sum_parts_kernel, add, rpw.SUM_BLOCKS),
        )
    ]


def specialised(function: Any, arguments: Mapping[str, Any], **fields: Any) -> AotCase:
    """Return the case that a call with these arguments by name would compile.

    As triton does on a launch: an integer 1 becomes a constant, multiples of 16 are marked, and
    tensors (none need storage) count as aligned.
    """
    signature: dict[str, str] = {}
    constexprs: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], Any] = {}
    fixed = {parameter.name for parameter in function.params if parameter.is_constexpr}
    general = {parameter.name for parameter in function.params if parameter.do_not_specialize}
    for index, name in enumerate(function.arg_names):
        value = arguments[name]
        is_one = isinstance(value, int) and value == 1 and name not in general
        if name in fixed or value is None or is_one:
            signature[name], constexprs[name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[name] = f"*{_TYPES[value.dtype]}"
            attributes[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0 and name not in general:
                attributes[(index,)] = [["tt.divisibility", 16]]
    return AotCase(
        function=function,
        signature=signature,
        constexprs=constexprs,
        attributes=attributes,
        **fields,
    )


def compile_case(case: AotCase, target: str) -> Compiled:
    """Compile a case for a target of `TARGETS` and measure it.

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
    if target == "gfx942":
        code, (registers, spill_bytes) = kernel.asm["amdgcn"], _measure_hip(kernel)
        stores, loads = _hip_bytes("store", code), _hip_bytes("load", code)
    else:
        code, (registers, spill_bytes) = kernel.asm["ptx"], _measure_cuda(kernel)
        stores, loads = _cuda_bytes("st", code), _cuda_bytes("ld", code)
    return Compiled(
        case,
        target,
        registers,
        spill_bytes,
        kernel.metadata.shared,
        unit=next((unit for unit in _UNITS if unit in code), ""),
        store_bytes=max(stores, default=0),
        narrow_loads=sum(size <= _NARROW_BYTES for size in loads),
    )


def _cuda_bytes(access: str, code: str) -> list[int]:
    """Return the bytes of each load "ld" or store "st" of global memory in PTX.

    >>> _cuda_bytes("st", "st.global.v4.b32 [ %rd1 + 0 ]; @%p2 st.global.b16 [ %rd2 ];")
    [16, 2]
    """
    pattern = rf"\b{access}\.global(?:\.\w+)*?(?:\.v(\d))?\.[a-z](\d+)\b"
    return [int(many or 1) * int(bits) // 8 for many, bits in re.findall(pattern, code)]


def _hip_bytes(access: str, code: str) -> list[int]:
    """Return the bytes of each "load" or "store" of global memory in AMD's assembly.

    >>> _hip_bytes("store", "global_store_dwordx4 v[0:1] global_store_short v0")
    [16, 2]
    """
    pattern = rf"\b(?:global|buffer)_{access}_(\w+?)(?:_d16\w*)?\b"
    return [_HIP_BYTES[size] for size in re.findall(pattern, code)]


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
    match = re.search(pattern, text)
    if match is None:
        raise DeviceError.because(
            "the compiler's report is unknown",
            got=text[:80],
            allowed=f"a match of {pattern}",
            remedy="use triton 3.6 or 3.7",
        )
    return int(match[1])
