"""Everything that is timed, in the order of the tables: ours, then its rivals."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ifspace.bench.kernels import rivals
from ifspace.bench.kernels.cases import FUSED, KERNEL, RPW, Case
from ifspace.bench.kernels.rivals import Tensors, Way
from ifspace.kernels.fused import fused_dw_rpw
from ifspace.kernels.rpw import rolling_pointwise_conv2d

OURS: Final = "ours"
# What the ratios of a table are to.
BASELINE: Final = {RPW: "dense", FUSED: "DW, then dense"}
# torch.compile unrolls a window's slice each.
MOST_UNROLLED: Final = 32
COMPILED: Final = "compiled "
Build = Callable[[Case, torch.device], Way]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to be timed.

    `exact`: it computes the layer itself, and must pass the gate. `expands`: it holds every window
    of x at once. `unrolled`: a step for every window. `forward_only`, `cuda_only`: as they say.
    """

    name: str
    provider: str
    build: Build
    kind: str = RPW
    exact: bool = True
    expands: bool = False
    unrolled: bool = False
    forward_only: bool = False
    cuda_only: bool = False
    compiled: bool = False

    def refusal(self, case: Case, device: torch.device, most_bytes: float) -> str | None:
        """Return why the candidate is not run in a case, or None."""
        if self.cuda_only and device.type != "cuda":
            return "a Triton kernel, for CUDA only"
        if self.cuda_only and find_spec("triton") is None:
            return "Triton is not installed"
        if self.forward_only and case.both_ways:
            return "it has no backward"
        if self.compiled and self.unrolled and case.windows.distinct > MOST_UNROLLED:
            return f"more than {MOST_UNROLLED} windows to unroll"
        if self.compiled and device.type == "cpu" and not _has_compiler():
            return "no C++ compiler"
        needed = self.bytes_needed(case)
        if needed > most_bytes:
            return f"it needs {needed / 2**30:.0f} GiB of {most_bytes / 2**30:.0f}"
        return None

    def bytes_needed(self, case: Case) -> int:
        """Return about how many bytes it holds at once: tensors, windows, and copies of those."""
        layer = case.pixels * case.width
        held = layer * (5 if case.both_ways else 2)
        if self.expands:
            spread = case.pixels * case.windows.distinct * case.windows.width
            held += spread * (3 if case.both_ways else 2)
        return held * case.torch_dtype.itemsize


def candidates(impl: str, compiled: bool) -> tuple[Candidate, ...]:
    """Return all candidates, ours run by an implementation; `compiled` adds torch.compile's."""
    ways = [
        Candidate(OURS, f"ifspace {impl}", _ours(impl)),
        Candidate("dense", "torch", rivals.dense, exact=False),
        Candidate("dense with zeros", "torch", rivals.zeros),
        Candidate("dense with zeros, packed", "torch", rivals.packed_zeros),
        Candidate("grouped", "torch", rivals.grouped, exact=False),
        Candidate("batched product", "torch", rivals.batched, expands=True),
        Candidate("per window", "torch", rivals.per_window, unrolled=True),
        Candidate("published", "torch", rivals.published, expands=True, unrolled=True),
        Candidate("gather + einsum", "torch", rivals.gather, expands=True),
    ]
    compositions = [way for way in ways if way.provider == "torch" and way.exact]
    direct = Candidate("direct", "triton", _direct, forward_only=True, cuda_only=True)
    fusing = "triton" if impl == "triton" else "reference"  # of the fused block there is no other
    fused = [
        Candidate(OURS, f"ifspace {fusing}, fused", _fused(fusing), FUSED),
        Candidate(BASELINE[FUSED], "torch", _dw_dense, FUSED, exact=False),
        Candidate("DW, then ours", f"ifspace {impl}", _dw_ours(impl), FUSED),
    ]
    return (*ways, direct, *(map(_compile, compositions) if compiled else ()), *fused)


def _compile(plain: Candidate) -> Candidate:
    def build(case: Case, device: torch.device) -> Way:
        way = plain.build(case, device)
        forward = torch.compile(way.forward, dynamic=False, fullgraph=True)
        return Way(forward, way.keep, way.give)

    return Candidate(
        COMPILED + plain.name,
        "torch.compile",
        build,
        expands=plain.expands,
        unrolled=plain.unrolled,
        compiled=True,
    )


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def _ours(impl: str) -> Build:
    def build(case: Case, device: torch.device) -> Way:
        def forward(x: Tensor, weight: Tensor) -> Tensor:
            return rolling_pointwise_conv2d(x, weight, None, case.groups, case.overlap, impl)

        return Way(forward, note=_plan(case) if impl == "cpu" else "")

    return build


def _plan(case: Case) -> str:
    cpu = import_module("ifspace.kernels.rpw.cpu")
    return str(cpu.plan_for(case.windows, case.pixels, case.layout == "channels_last"))


def _direct(case: Case, device: torch.device) -> Way:
    way: Way = import_module("ifspace.bench.kernels.direct").direct(case, device)
    return way


def _fused(impl: str) -> Build:
    def build(case: Case, device: torch.device) -> Way:
        def forward(x: Tensor, dw_weight: Tensor, weight: Tensor) -> Tensor:
            return fused_dw_rpw(x, dw_weight, weight, case.groups, case.overlap, impl=impl)

        return Way(forward)

    return build


def _dw_ours(impl: str) -> Build:
    def build(case: Case, device: torch.device) -> Way:
        def forward(x: Tensor, dw_weight: Tensor, weight: Tensor) -> Tensor:
            middle = _depthwise(x, dw_weight)
            return rolling_pointwise_conv2d(middle, weight, None, case.groups, case.overlap, impl)

        return Way(forward)

    return build


def _dw_dense(case: Case, device: torch.device) -> Way:
    square = rivals.dense(case, device)

    def keep(given: Tensors) -> Tensors:
        return (given[0], *square.keep(given[1:]))

    def forward(x: Tensor, dw_weight: Tensor, weight: Tensor) -> Tensor:
        return rivals.pointwise(_depthwise(x, dw_weight), weight)

    return Way(forward, keep)


def _depthwise(x: Tensor, weight: Tensor) -> Tensor:
    return conv2d(x, weight, padding=KERNEL // 2, groups=x.shape[1])


def named(every: Sequence[Candidate], kind: str) -> tuple[Candidate, ...]:
    """Return the candidates for one kind of layer."""
    return tuple(each for each in every if each.kind == kind)
