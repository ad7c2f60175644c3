"""How fast rolling pointwise convolution (RPW) is, beside everything that could do its work.

`python -m ifspace.bench.kernels` measures a list of layers on one device and writes `<device>.csv`
and `<device>.md` into `results/bench/`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ifspace.bench.case import (
    BASELINE_LAYER,
    COMPILED_PREFIX,
    FUSED,
    KERNEL,
    OURS,
    RPW,
    Implementation,
    LayerCandidate,
    LayerCase,
    Tensors,
    Trial,
    unchanged,
)
from ifspace.bench.clock import Limits
from ifspace.bench.gate import (
    LayerCall,
    by_layer_name,
    check_layer,
    layer_inputs,
    mismatch,
    on_few_pixels,
    wrong_candidate,
)
from ifspace.bench.machine import (
    DTYPES,
    Machine,
    Rates,
    available_bytes,
    bound_s,
    check_choice,
    find_device,
    keep_memory,
    measured_rates,
    set_precision,
    this_machine,
)
from ifspace.bench.page import ON_CPU, ON_CUDA, judge, page
from ifspace.bench.record import list_in_readme
from ifspace.bench.rows import Row, percentiles, start_row, time_rows, with_numbers, write_rows
from ifspace.bench.run import MAX_CAPTURED, time_trials
from ifspace.errors import IfspaceError, SettingError
from ifspace.kernels.fused import fused_dw_rpw
from ifspace.kernels.rpw import rolling_pointwise_conv2d
from ifspace.kernels.tensors import is_channels_last
from ifspace.kernels.windows import BLOCKED, ORDERS, ROLLING, Windows, dense_weight
from ifspace.measurements import FORWARD, LAYOUTS, LEAST_RATIO, MODES, NOT_RUN, OF_BOUND, RATIO

COMMAND: Final = "python -m ifspace.bench.kernels"
LAYER_KINDS: Final = (RPW, FUSED)
# Batch, width and side of the layers; C_out = C_in. Batch 1 comes first: its times say what takes
# too long at batch 128.
SHAPES: Final = (
    (1, 128, 56),
    (1, 256, 28),
    (1, 512, 14),
    (1, 1024, 7),
    (128, 128, 56),
    (128, 256, 28),
    (128, 512, 14),
    (128, 1024, 7),
)
# Group count, overlap and order.
Window = tuple[int, str, str]
WINDOWS: Final[tuple[Window, ...]] = (
    (2, "1/2", ROLLING),
    (4, "0.33", ROLLING),
    (4, "1/2", ROLLING),
    (8, "1/2", ROLLING),
)
QUICK_SHAPES: Final = ((1, 512, 14), (1, 1024, 7))
QUICK_WINDOWS: Final[tuple[Window, ...]] = ((4, "0.33", ROLLING), (4, "1/2", ROLLING))
THREADS: Final = 2
LIMITS: Final = {
    "cpu": Limits(),
    "cuda": Limits(budget_s=0.3, min_rounds=20, max_rounds=60),
}
QUICK_LIMITS: Final = Limits(budget_s=0.2, min_rounds=3, slow_s=0.1, once_s=0.3)
# Where torch.compile is timed unless all is asked for: a compilation takes seconds to minutes.
COMPILED_SHAPE: Final = (128, 512, 14)
COMPILED_WINDOWS: Final = {"cpu": ((4, "1/2"),), "cuda": ((4, "1/2"), (4, "0.33"))}
TIME_IS_UP: Final = "the time limit of the run was over"
# Both passes take about three times a forward pass.
BOTH_TO_FORWARD: Final = 3
# The candidate, through the gate itself, that others are compared with at full size.
WITNESS: Final = "dense with zeros"
# A target needs its forward pass, however slow.
REQUIRED: Final = ("published",)
Shape = tuple[int, int, int]
Build = Callable[[LayerCase, torch.device], Implementation]


# The list of cases.


def list_cases(
    shapes: Sequence[Shape],
    windows: Sequence[Window],
    layouts: Sequence[str],
    modes: Sequence[str],
    dtypes: Sequence[str],
    kinds: Sequence[str] = (RPW,),
) -> Iterator[LayerCase]:
    """Yield every case; those that differ in their mode alone follow each other.

    A fused layer is timed forward only.
    """
    for kind, dtype, layout, shape, window, mode in product(
        kinds, dtypes, layouts, shapes, windows, modes
    ):
        if kind == RPW or mode == FORWARD:
            groups, overlap, order = window
            yield LayerCase(*shape, groups, overlap, layout, mode, dtype, kind, order)


def parse_layer_shape(text: str) -> Shape:
    """Parse NxCxH.

    >>> parse_layer_shape("128x512x14")
    (128, 512, 14)

    Raises: SettingError for anything else.
    """
    try:
        batch, width, side = (int(part) for part in text.split("x"))
    except ValueError:
        batch = width = side = 0
    if min(batch, width, side) < 1:
        raise SettingError.because(
            "no such shape",
            got=repr(text),
            allowed="NxCxH",
            remedy="write 128x512x14",
            argument="cases",
        )
    return batch, width, side


def parse_window(text: str) -> Window:
    """Parse g,o or g,o,order.

    >>> parse_window("4,0.33"), parse_window("8,1/2,blocked")
    ((4, '0.33', 'rolling'), (8, '1/2', 'blocked'))

    Raises: SettingError for anything else.
    """
    groups, comma, overlap_text = text.partition(",")
    overlap, _, order = overlap_text.partition(",")
    order = order or ROLLING
    if not comma or not groups.isdecimal() or order not in ORDERS:
        raise SettingError.because(
            "no such windows",
            got=repr(text),
            allowed=f"g,o or g,o,order with an order of {', '.join(ORDERS)}",
            remedy="write 4,0.33 or 8,1/2,blocked",
            argument="windows",
        )
    return int(groups), overlap, order


# The list of candidates: ours, then everything else that could do its work, by torch's operators.
# C_out is a multiple of the distinct windows, as it is when C_out = C_in.


def list_candidates(impl: str, compiled: bool) -> tuple[LayerCandidate, ...]:
    """Return all candidates in the order of the tables; `compiled` adds torch.compile's.

    `impl`: the implementation of ours.
    """
    plain = [
        LayerCandidate(OURS, f"ifspace {impl}", _ours(impl)),
        LayerCandidate("dense", "torch", dense, exact=False),
        LayerCandidate("dense with zeros", "torch", dense_with_zeros),
        LayerCandidate("dense with zeros, packed", "torch", packed_zeros),
        LayerCandidate("grouped", "torch", grouped, exact=False),
        LayerCandidate("grouped + shuffle", "torch", group_and_shuffle, exact=False),
        LayerCandidate("batched product", "torch", batched_product, expands=True),
        LayerCandidate("per window", "torch", per_window, unrolled=True),
        LayerCandidate("published", "torch", published, expands=True, unrolled=True),
        LayerCandidate("gather + einsum", "torch", gather_einsum, expands=True),
    ]
    compositions = [
        candidate for candidate in plain if candidate.provider == "torch" and candidate.exact
    ]
    direct = LayerCandidate("direct", "triton", _direct, forward_only=True, cuda_only=True)
    fused_impl = "triton" if impl == "triton" else "reference"  # of the fused layer no other exists
    fused = [
        LayerCandidate(OURS, f"ifspace {fused_impl}, fused", _fused(fused_impl), FUSED),
        LayerCandidate(BASELINE_LAYER[FUSED], "torch", _depthwise_then_dense, FUSED, exact=False),
        LayerCandidate("DW, then ours", f"ifspace {impl}", _depthwise_then_ours(impl), FUSED),
        LayerCandidate(
            "DW, then grouped + shuffle", "torch", _depthwise_then_grouped, FUSED, exact=False
        ),
    ]
    return (*plain, direct, *(map(_compiled, compositions) if compiled else ()), *fused)


def of_kind(candidates: Iterable[LayerCandidate], kind: str) -> tuple[LayerCandidate, ...]:
    """Return the candidates for one kind of layer."""
    return tuple(candidate for candidate in candidates if candidate.kind == kind)


def _compiled(plain: LayerCandidate) -> LayerCandidate:
    def build(case: LayerCase, device: torch.device) -> Implementation:
        torch.compiler.reset()
        implementation = plain.build(case, device)
        forward = torch.compile(implementation.forward, dynamic=False, fullgraph=True)
        return replace(implementation, forward=forward, note="")

    return LayerCandidate(
        COMPILED_PREFIX + plain.name,
        "torch.compile",
        build,
        expands=plain.expands,
        unrolled=plain.unrolled,
        compiled=True,
    )


def _ours(impl: str) -> Build:
    def build(case: LayerCase, device: torch.device) -> Implementation:
        def forward(x: Tensor, weight: Tensor) -> Tensor:
            return rolling_pointwise_conv2d(x, weight, None, *_windows(case), impl, case.order)

        return Implementation(forward, note=_cpu_plan(case) if impl == "cpu" else "")

    return build


def _windows(case: LayerCase) -> tuple[int, str]:
    return case.groups, case.overlap


def _cpu_plan(case: LayerCase) -> str:
    from ifspace.kernels.rpw.cpu import plan_for

    return str(plan_for(case.windows, case.pixels, case.layout == LAYOUTS[0]))


def _direct(case: LayerCase, device: torch.device) -> Implementation:
    # Its module needs Triton.
    implementation: Implementation = import_module("ifspace.bench.direct").direct(case, device)
    return implementation


def _fused(impl: str) -> Build:
    def build(case: LayerCase, device: torch.device) -> Implementation:
        def forward(x: Tensor, dw_weight: Tensor, weight: Tensor) -> Tensor:
            return fused_dw_rpw(x, dw_weight, weight, *_windows(case), impl=impl, order=case.order)

        return Implementation(forward)

    return build


def _depthwise_then_ours(impl: str) -> Build:
    def build(case: LayerCase, device: torch.device) -> Implementation:
        def forward(x: Tensor, dw_weight: Tensor, weight: Tensor) -> Tensor:
            middle = depthwise(x, dw_weight)
            return rolling_pointwise_conv2d(middle, weight, None, *_windows(case), impl, case.order)

        return Implementation(forward)

    return build


def _depthwise_then_dense(case: LayerCase, device: torch.device) -> Implementation:
    pack_dense = dense(case, device).pack

    def pack(weights: Tensors) -> Tensors:
        return (weights[0], *pack_dense(weights[1:]))

    def forward(x: Tensor, dw_weight: Tensor, weight: Tensor) -> Tensor:
        return pointwise(depthwise(x, dw_weight), weight)

    return Implementation(forward, pack)


def _depthwise_then_grouped(case: LayerCase, device: torch.device) -> Implementation:
    grouped_layer = group_and_shuffle(case, device)

    def forward(x: Tensor, dw_weight: Tensor, weight: Tensor) -> Tensor:
        return grouped_layer.forward(depthwise(x, dw_weight), weight)

    def pack(weights: Tensors) -> Tensors:
        return (weights[0], *grouped_layer.pack(weights[1:]))

    return Implementation(forward, pack)


def dense(case: LayerCase, device: torch.device) -> Implementation:
    """Return the dense pointwise convolution: another function, with g times the weights."""
    shape = (case.width, case.width)
    return Implementation(
        pointwise, lambda weights: (torch.randn(shape).to(weights[0]) / case.width**0.5,)
    )


def grouped(case: LayerCase, device: torch.device) -> Implementation:
    """Return the grouped pointwise convolution with as many weights: nothing rolls."""

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return conv2d(x, weight[:, :, None, None], groups=case.groups)

    return Implementation(forward)


def group_and_shuffle(case: LayerCase, device: torch.device) -> Implementation:
    """Return a grouped convolution and a channel shuffle of as many weights by a batched product.

    The input is split into groups by a view, and the shuffle is how the output is put together:
    filter j is filter j // g of group j mod g: RPW in rolling order where nothing overlaps.

    Reference: Gorbunov et al., "Group and Shuffle: Efficient Structured Orthogonal
    Parametrization", NeurIPS 2024.
    """
    groups = case.groups

    def pack(weights: Tensors) -> Tensors:
        by_group = torch.unflatten(weights[0], 0, (-1, groups)).permute(1, 2, 0)
        return (by_group.contiguous(),)  # [g, w, filters of a group]

    def unpack(grads: Tensors) -> Tensors:
        return (grads[0].permute(2, 0, 1).flatten(0, 1),)

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        if is_channels_last(x):
            pixels = torch.unflatten(x.permute(0, 2, 3, 1).flatten(0, 2), 1, (groups, -1))
            y = torch.bmm(pixels.transpose(0, 1), weight).permute(1, 2, 0).flatten(1)
            return torch.unflatten(y, 0, (x.shape[0], *x.shape[2:])).permute(0, 3, 1, 2)
        planes = torch.unflatten(x.flatten(2), 1, (groups, -1))
        y = torch.matmul(weight.transpose(1, 2), planes).transpose(1, 2).flatten(1, 2)
        return torch.unflatten(y, 2, x.shape[2:])

    return Implementation(forward, pack, unpack)


def dense_with_zeros(case: LayerCase, device: torch.device) -> Implementation:
    """Return the dense convolution of the weights scattered into zeros on every call."""
    channels = case.windows.read_channels(device)

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return pointwise(x, _dense_weight(weight, case, channels))

    return Implementation(forward)


def packed_zeros(case: LayerCase, device: torch.device) -> Implementation:
    """Return the dense convolution of a weight that is kept with its zeros."""
    channels = case.windows.read_channels(device)
    return Implementation(
        pointwise,
        lambda weights: (_dense_weight(weights[0], case, channels),),
        lambda grads: (grads[0].gather(1, channels),),
    )


def _dense_weight(weight: Tensor, case: LayerCase, channels: Tensor) -> Tensor:
    return dense_weight(weight, case.width, case.windows.step, channels, case.order)


def published(case: LayerCase, device: torch.device) -> Implementation:
    """Return the published composition: slices, one concatenation, one grouped convolution.

    Reference: [3DRF] Listing 2; here a window that wraps is cut where it wraps, and the output
    channels are put into the order of the definition.
    """
    windows = case.windows

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        stacked = torch.cat(_slices(x, windows), 1)
        y = conv2d(stacked, weight[:, :, None, None], groups=windows.distinct)
        return in_filter_order(y, windows)

    return Implementation(forward, *_by_window(windows))


def per_window(case: LayerCase, device: torch.device) -> Implementation:
    """Return one small convolution for each window, then a concatenation.

    Reference: [3DRF] section 4.2, the second implementation.
    """
    windows = case.windows

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        weights = weight[:, :, None, None].chunk(windows.distinct)
        parts = [conv2d(*pair) for pair in zip(_slices(x, windows), weights, strict=True)]
        return in_filter_order(torch.cat(parts, 1), windows)

    return Implementation(forward, *_by_window(windows))


def batched_product(case: LayerCase, device: torch.device) -> Implementation:
    """Return a batched matrix product over the windows.

    With the channels side by side the windows, sorted by where they start, are a strided view of
    the pixels with their first channels repeated at the end: nothing is gathered.
    """
    windows, count = case.windows, case.windows.distinct
    unit, is_blocked = windows.in_channels // count, windows.order == BLOCKED
    # sorted_at[p]: the index of window p among the starts 0, unit, 2 unit ...
    sorted_at = torch.tensor([start // unit for start in windows.starts], device=device)
    window_at = sorted_at.argsort()

    def pack(weights: Tensors) -> Tensors:
        by_window = filters_by_window(weights[0], windows)  # [P, filters of a window, w]
        return (by_window.transpose(1, 2)[window_at].contiguous(),)

    def unpack(grads: Tensors) -> Tensors:
        by_window = grads[0][sorted_at].transpose(1, 2)
        return ((by_window if is_blocked else by_window.transpose(0, 1)).flatten(0, 1),)

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        if is_channels_last(x):
            pixels = x.permute(0, 2, 3, 1).flatten(0, 2)
            views = pad(pixels[None], (0, windows.width), mode="circular")[0]
            views = views.unfold(1, windows.width, unit)[:, :count].transpose(0, 1)
            y = torch.bmm(views, weight)  # [P, pixels, filters of a window]
            if is_blocked:
                y = y.transpose(0, 1)[:, sorted_at].flatten(1)
            else:
                y = y.permute(1, 2, 0)[:, :, sorted_at].flatten(1)
            return torch.unflatten(y, 0, (x.shape[0], *x.shape[2:])).permute(0, 3, 1, 2)
        pixels = pad(x.flatten(2).transpose(1, 2), (0, windows.width), mode="circular")
        views = pixels.transpose(1, 2).unfold(1, windows.width, unit)[:, :count]
        y = torch.matmul(weight.transpose(1, 2), views.transpose(2, 3))
        y = y[:, sorted_at]
        y = (y if is_blocked else y.transpose(1, 2)).flatten(1, 2)
        return torch.unflatten(y, 2, x.shape[2:])

    return Implementation(forward, pack, unpack)


def gather_einsum(case: LayerCase, device: torch.device) -> Implementation:
    """Return a gather of every window and one einsum."""
    windows = case.windows
    first_filters = [windows.readers(window)[0] for window in range(windows.distinct)]
    channels = windows.read_channels(device)[first_filters]
    filters = "pf" if windows.order == BLOCKED else "fp"

    def forward(x: Tensor, weight: Tensor) -> Tensor:
        parts = filters_by_window(weight, windows)
        if is_channels_last(x):
            pixels = x.permute(0, 2, 3, 1)[..., channels]
            y = torch.einsum(f"nyxpt,pft->nyx{filters}", pixels, parts)
            return y.flatten(3).contiguous().permute(0, 3, 1, 2)
        y = torch.einsum(f"nptyx,pft->n{filters}yx", x[:, channels], parts)
        return y.flatten(1, 2).contiguous()

    return Implementation(forward)


def pointwise(x: Tensor, weight: Tensor) -> Tensor:
    """Return the 1x1 convolution of x [N, C, H, W] by weight [C_out, C]."""
    return conv2d(x, weight[:, :, None, None])


def depthwise(x: Tensor, weight: Tensor) -> Tensor:
    """Return the depthwise convolution of x [N, C, H, W] by weight [C, 1, k, k]."""
    return conv2d(x, weight, padding=KERNEL // 2, groups=x.shape[1])


def in_filter_order(y: Tensor, windows: Windows) -> Tensor:
    """Return y [N, C_out, H, W], whose channels are sorted by window, in the filters' order."""
    count = windows.distinct
    if count == windows.out_channels or windows.order == BLOCKED:
        return y
    if y.device.type == "cpu":  # its shuffle is vectorised and keeps the layout
        return torch.channel_shuffle(y, count)
    if is_channels_last(y):
        pixels = torch.unflatten(y.permute(0, 2, 3, 1), -1, (count, -1))
        return pixels.transpose(-1, -2).flatten(-2).permute(0, 3, 1, 2)
    return torch.unflatten(y, 1, (count, -1)).transpose(1, 2).flatten(1, 2)


def filters_by_window(weight: Tensor, windows: Windows) -> Tensor:
    """Return the filters of a weight [C_out, w] as [P, filters of a window, w]."""
    if windows.order == BLOCKED:
        return torch.unflatten(weight, 0, (windows.distinct, -1))
    return torch.unflatten(weight, 0, (-1, windows.distinct)).transpose(0, 1)


def _by_window(
    windows: Windows,
) -> tuple[Callable[[Tensors], Tensors], Callable[[Tensors], Tensors]]:
    """Return how the weights are packed window by window, and their gradients unpacked."""
    if windows.order == BLOCKED:
        return unchanged, unchanged

    def pack(weights: Tensors) -> Tensors:
        return (filters_by_window(weights[0], windows).flatten(0, 1),)

    def unpack(grads: Tensors) -> Tensors:
        by_window = torch.unflatten(grads[0], 0, (windows.distinct, -1))
        return (by_window.transpose(0, 1).flatten(0, 1),)

    return pack, unpack


def _slices(x: Tensor, windows: Windows) -> list[Tensor]:
    pieces = []
    for start in windows.starts:
        end = start + windows.width
        piece = x[:, start:end]
        if end > windows.in_channels:
            piece = torch.cat([piece, x[:, : end - windows.in_channels]], 1)
        pieces.append(piece)
    return pieces


# The measurement of a case.


@dataclass(frozen=True, slots=True)
class KernelBench:
    """What the cases of a run share. `least_s`: the least time of a candidate in earlier cases."""

    candidates: Sequence[LayerCandidate]
    device: torch.device
    max_bytes: float
    limits: Limits = field(default_factory=Limits)
    is_compiled: Callable[[LayerCase], bool] = lambda case: False
    least_s: dict[tuple[str, LayerCase], float] = field(default_factory=dict)

    def measure(self, case: LayerCase) -> list[Trial[LayerCandidate]]:
        """Time every candidate for a case; those that cannot run have a reason.

        Ours and what torch.compile returns may run another way at full size than on the gate's few
        pixels: they are compared there with a candidate that cannot.

        Raises: WrongCandidateError when one of those differs.
        """
        set_precision(case.dtype)
        inputs = layer_inputs(case, self.device)
        trials = [self._trial(candidate, case) for candidate in of_kind(self.candidates, case.kind)]
        calls: dict[str, LayerCall] = {}

        def prepare(trial: Trial[LayerCandidate]) -> LayerCall:
            implementation = trial.candidate.build(case, self.device)
            trial.note = implementation.note
            call = LayerCall.of(implementation, inputs, case.both_ways)
            calls[trial.candidate.name] = call
            return call

        def check(outputs: dict[int, Tensors]) -> None:
            names = {index: trials[index].candidate.name for index in outputs}
            unpacked = {
                names[index]: calls[names[index]].unpacked(outputs[index]) for index in names
            }
            witness = unpacked.pop(WITNESS, None)
            if witness is not None:
                for name, output in unpacked.items():
                    _compare(name, case, output, witness)

        warm_up = self.device.type == "cuda"
        time_trials(trials, prepare, self.limits, self.device, warm_up=warm_up, check=check)
        for trial in trials:
            if trial.seconds:
                self.least_s[trial.candidate.name, case] = min(trial.seconds)
        return trials

    def _trial(self, candidate: LayerCandidate, case: LayerCase) -> Trial[LayerCandidate]:
        return Trial(
            candidate,
            case.mode,
            candidate.compiled,
            self._refusal(candidate, case),
            every_round=candidate.name in (OURS, BASELINE_LAYER[case.kind]),
            checked=candidate.name in (OURS, WITNESS) or candidate.compiled,
            replayed=candidate.bytes_needed(case) < MAX_CAPTURED,
        )

    def _refusal(self, candidate: LayerCandidate, case: LayerCase) -> str:
        refusal = candidate.refusal(case, self.device, self.max_bytes)
        if refusal:
            return refusal
        if candidate.compiled and not self.is_compiled(case):
            return "compiled in some cases only, for time"
        is_required = candidate.name in (OURS, BASELINE_LAYER[case.kind]) or (
            candidate.name in REQUIRED and not case.both_ways
        )
        limit_s = self.limits.required_skip_s if is_required else self.limits.skip_s
        expected_s = self._expected_s(candidate, case)
        if expected_s > limit_s:
            return f"about {expected_s:.0f} s a call, over the limit of {limit_s:.0f} s"
        return ""

    def _expected_s(self, candidate: LayerCandidate, case: LayerCase) -> float:
        """Return about how long a call takes, by the forward pass and by batch 1; 0 if unknown."""
        single, forward = replace(case, batch=1), replace(case, mode=FORWARD)
        return max(
            case.batch * self.least_s.get((candidate.name, single), 0.0),
            case.both_ways * BOTH_TO_FORWARD * self.least_s.get((candidate.name, forward), 0.0),
        )


def _compare(name: str, case: LayerCase, outputs: Tensors, expected: Tensors) -> None:
    # Right answers differ by a few roundings, and by a sum over all pixels.
    limit = 4 * case.rounding + float(torch.finfo(torch.float32).eps * case.pixels**0.5)
    actual = by_layer_name(case, outputs)
    for what, tensor in by_layer_name(case, expected).items():
        fault = mismatch(what, actual.get(what), tensor, limit)
        if fault is not None:
            raise wrong_candidate(name, case, fault)


# Rows.


def case_rows(
    case: LayerCase, trials: Sequence[Trial[LayerCandidate]], bound: float, machine: Machine
) -> Iterator[Row]:
    """Yield the rows of a case: times, shares of the `bound` in seconds, ratios to the baseline.

    A ratio is the time over the baseline's in the same round, so what slows a round slows both; of
    a single call it is over the baseline's median.
    """
    baseline = next(x for x in trials if x.candidate.name == BASELINE_LAYER[case.kind])
    for trial in trials:
        start = start_row(machine, case.columns(trial.candidate, trial.note))
        if not trial.seconds:
            yield with_numbers(start, NOT_RUN + trial.reason, "")
            continue
        time_row, least_row, rounds_row = time_rows(start, trial.seconds, bound)
        shares = [bound / seconds for seconds in trial.seconds]
        yield from (time_row, least_row)
        yield with_numbers(start, OF_BOUND, "1", shares, 1.0)
        yield rounds_row
        if baseline.seconds:
            unit = f"x {baseline.candidate.name}"
            yield with_numbers(start, RATIO, unit, _ratios(trial.seconds, baseline.seconds))
            least_ratio = min(trial.seconds) / min(baseline.seconds)
            yield with_numbers(start, LEAST_RATIO, unit, [least_ratio])


def _ratios(seconds: Sequence[float], baseline_s: Sequence[float]) -> list[float]:
    if len(seconds) > 1:  # a slow candidate takes part in the first rounds only
        return [a / b for a, b in zip(seconds, baseline_s, strict=False)]
    _, median, _ = percentiles(baseline_s)
    return [seconds[0] / median]


def rate_rows(rates: Rates, machine: Machine) -> Iterator[Row]:
    """Yield the rows of the rates that the bounds are computed from."""
    measured = [("copy", "", "bandwidth", "GB/s", rates.copy / 1e9)]
    for dtype, rate in rates.matrix.items():
        measured.append(("matrix product", dtype, "rate", "GFLOP/s", rate / 1e9))
    for case, dtype, metric, unit, value in measured:
        columns = {
            "case": case,
            "candidate": "torch",
            "provider": "torch",
            "mode": FORWARD,
            "dtype": dtype,
        }
        yield with_numbers(start_row(machine, columns), metric, unit, [value])


# The command.


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    options = _parser().parse_args(arguments)
    keep_memory()
    torch.set_num_threads(options.threads)
    try:
        run = KernelRun.of(options)
        rows: list[Row] = []
        for new_rows in run.rows():
            rows += new_rows
            print(_progress_line(new_rows), flush=True)
            # After every case: a run that is stopped keeps what it measured.
            written = run.write(rows, options.out) if new_rows[0]["N"] else None
    except IfspaceError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"written: {written}")


@dataclass(frozen=True, slots=True)
class KernelRun:
    """One run of the command: its cases, and what they share."""

    device: torch.device
    cases: tuple[LayerCase, ...]
    bench: KernelBench
    scale: float
    time_limit_s: float
    command: str

    @classmethod
    def of(cls, options: argparse.Namespace) -> "KernelRun":
        """Return the run for some options.

        Raises: SettingError, KernelError for options that are not allowed.
        """
        device = find_device(options.device)
        on_cuda, quick = device.type == "cuda", options.quick
        shapes = [parse_layer_shape(text) for text in options.cases.split(",") if text]
        windows = [parse_window(text) for text in options.windows.split()]
        dtypes = options.dtypes.split(",") if options.dtypes else ["bf16" if on_cuda else "fp32"]
        layouts = options.layouts.split(",")
        kinds = options.kinds.split(",") if options.kinds else [RPW, *([FUSED] if on_cuda else [])]
        for argument, values, allowed in (
            ("dtypes", dtypes, DTYPES),
            ("layouts", layouts, LAYOUTS),
            ("kinds", kinds, LAYER_KINDS),
        ):
            for value in values:
                check_choice(argument, value, allowed)
        cases = list_cases(
            shapes or (QUICK_SHAPES if quick else SHAPES),
            windows or (QUICK_WINDOWS if quick else WINDOWS),
            layouts,
            MODES,
            dtypes,
            kinds,
        )
        impl = options.impl or ("triton" if on_cuda else "cpu")
        bench = KernelBench(
            list_candidates(impl, True),
            device,
            available_bytes(device),
            QUICK_LIMITS if quick else LIMITS[device.type],
            compiled_cases("none" if quick else options.compiled, device),
        )
        scale = 1 / 4 if quick else 1.0
        return cls(device, tuple(cases), bench, scale, options.time_limit, _command(options))

    def rows(self) -> Iterator[list[Row]]:
        """Yield the rows of the rates, then of each case.

        Raises: WrongCandidateError before anything wrong is timed.
        """
        machine = this_machine(self.device)
        dtypes = list(dict.fromkeys(case.dtype for case in self.cases))
        rates = measured_rates(self.device, dtypes, self.scale)
        yield list(rate_rows(rates, machine))
        checked: set[LayerCase] = set()
        started = time.perf_counter()
        for case in self.cases:
            if time.perf_counter() - started > self.time_limit_s:
                candidates = of_kind(self.bench.candidates, case.kind)
                trials = [Trial(candidate, reason=TIME_IS_UP) for candidate in candidates]
            else:
                small = on_few_pixels(case)
                if small not in checked:
                    check_layer(self.bench.candidates, small, self.device)
                    checked.add(small)
                trials = self.bench.measure(case)
            bound = bound_s(case.passes(), rates, case.dtype)
            yield list(case_rows(case, trials, bound, machine))

    def write(self, rows: Sequence[Row], folder: Path) -> Path:
        """Write rows and page, list them in the README beside the folder; return the page."""
        folder.mkdir(parents=True, exist_ok=True)
        device = rows[0]["device"]
        with (folder / f"{device}.csv").open("w", newline="") as file:
            write_rows(file, rows, "\r\n")
        names = [f"{folder.name}/{device}.{suffix}" for suffix in ("csv", "md")]
        entry = list_in_readme(folder.parent, names, self.command)
        verdicts = judge(rows, ON_CUDA if self.device.type == "cuda" else ON_CPU)
        written_by = f"{entry}, {self._versions()}"
        path = folder / f"{device}.md"
        path.write_text(page(device, written_by, rows, verdicts, self.bench.limits))
        return path

    def _versions(self) -> str:
        name = f"{torch.get_num_threads()} threads"
        if self.device.type == "cuda":
            name = torch.cuda.get_device_name(self.device)
        return f"{name}, torch {torch.__version__}"


def compiled_cases(choice: str, device: torch.device) -> Callable[[LayerCase], bool]:
    """Return whether torch.compile is timed in a case: in "none", "some" or "all"."""

    def is_compiled(case: LayerCase) -> bool:
        if choice != "some":
            return choice == "all"
        shape = (case.batch, case.width, case.side)
        window = _windows(case)
        is_chosen = shape == COMPILED_SHAPE and window in COMPILED_WINDOWS[device.type]
        return is_chosen and case.layout == LAYOUTS[0]

    return is_compiled


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--device", default="", help="cpu or cuda; cuda if there is one")
    parser.add_argument("--cases", default="", help="NxCxH,NxCxH,...")
    parser.add_argument("--windows", default="", help='"g,o g,o,order ..."')
    parser.add_argument("--dtypes", default="", help=f"of {', '.join(DTYPES)}, with commas")
    parser.add_argument("--impl", default="", help="implementation of ours")
    parser.add_argument("--compiled", default="some", choices=("none", "some", "all"))
    parser.add_argument("--layouts", default=",".join(LAYOUTS), help="with a comma")
    parser.add_argument("--kinds", default="", help=f"{RPW}, {FUSED} or both with a comma")
    parser.add_argument(
        "--time-limit", type=float, default=float("inf"), help="seconds: no case starts after"
    )
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--quick", action="store_true", help="a few small cases only")
    parser.add_argument("--out", type=Path, default=Path("results/bench"))
    return parser


def _command(options: argparse.Namespace) -> str:
    """Return the command with the options that change what is measured."""
    words = [COMMAND, *(["--quick"] if options.quick else [])]
    defaults = vars(_parser().parse_args([]))
    for name in ("device", "cases", "windows", "dtypes", "layouts", "kinds", "impl", "compiled"):
        value = getattr(options, name)
        if value != defaults[name]:
            words += [f"--{name}", f"'{value}'" if " " in value else value]
    return " ".join(words)


def _progress_line(rows: Sequence[Row]) -> str:
    """Return a line on the rates, or on the ratios of a case's candidates."""
    first = rows[0]
    if first["N"] == "":
        return ", ".join(f"{row['case']} {row['median']:,} {row['unit']}" for row in rows)
    ratios = [f"{x['candidate']} {x['median']:.2f}" for x in rows if x["metric"] == RATIO]
    case = f"{first['case']} {first['N']}x{first['C']}x{first['H']}"
    return f"{case} {first['layout']} {first['dtype']} {first['mode']}: {', '.join(ratios)}"


if __name__ == "__main__":
    main()
