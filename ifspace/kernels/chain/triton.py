"""Chains on a card: one Triton kernel for a whole block, a tile of pixels with all channels.

Thin layers are no work for a card: what they cost is a trip through memory and a launch each. Here
a tile is read once and written once. The depthwise convolution of a tile is computed in registers,
nine loads that the L1 cache serves; every pointwise layer is a product with its weights written out
as a dense matrix, which costs matrix units less than any gather, and layers without an activation
between them are one matrix. Rolling orders and channel shuffles are places in these matrices.

    point ...                  matrices before: each pixel that a tap reads passes through them
    one spatial convolution    depthwise, or a matrix for each tap; or none
    point ...                  matrices behind it

`plan_of` says which chains have that form. Tensors are channels_last.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any, Final

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ifspace.errors import KernelError
from ifspace.kernels import repeat
from ifspace.kernels.chain.stages import ACTIVATIONS, Chain, Index, Stage, shuffled_channels
from ifspace.kernels.launch import (
    CUDA,
    HALF,
    SM_90_UP,
    TARGETS,
    Completion,
    Config,
    Launch,
    interprets,
    kind_of,
    precision_of,
    stride_arguments,
)
from ifspace.kernels.repeat import Call
from ifspace.kernels.rpw.triton import add_product
from ifspace.kernels.tensors import empty_in_layout

# Channels of a chain in which more than one product follows the other: a program holds all.
MOST_HELD: Final = 128
# The most channels of a chain of one depthwise convolution and one matrix.
MOST_CHANNELS: Final = 1024
# Matrix units take no narrower tile.
_LEAST: Final = 16
# An activation's number in the constants of the kernel; 0 is none.
_CODES: Final[dict[str | None, int]] = {
    name: code for code, name in enumerate((None, *ACTIVATIONS))
}
_BASE: Final = tl.constexpr(len(_CODES))
_LARGE: Final = 2**31 - 2**16


@dataclass(frozen=True, slots=True)
class Step:
    """Stages that one product computes; `first`, `last`: numbers of stages from 0, inclusive."""

    first: int
    last: int
    activation: str | None
    adds_input: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """A chain in the form of the kernel: steps before, the spatial stage if any, steps after."""

    before: tuple[Step, ...]
    spatial: Step | None
    after: tuple[Step, ...]
    depthwise: bool
    channels: int

    @property
    def is_split(self) -> bool:
        """Whether a program need not hold all channels: it is one depthwise layer and a matrix."""
        return self.depthwise and not self.before and len(self.after) == 1

    @property
    def codes(self) -> dict[str, int]:
        """Activations and shortcuts as constants of the kernel."""
        spatial = () if self.spatial is None else (self.spatial,)
        steps = (*spatial, *self.after)
        shift = 1 - len(spatial)
        return {
            "BEFORE_ACTIVATIONS": _packed(self.before),
            "ACTIVATION": _packed(spatial),
            "AFTER_ACTIVATIONS": _packed(self.after),
            "SHORTCUTS": sum(step.adds_input << (n + shift) for n, step in enumerate(steps)),
        }


def _packed(steps: Sequence[Step]) -> int:
    return sum(_CODES[step.activation] * int(_BASE) ** n for n, step in enumerate(steps))


@lru_cache(maxsize=1024)
def plan_of(chain: Chain) -> Plan | str:
    """Return how the kernel computes a chain, or why it does not.

    >>> depthwise = Stage(8, 8, 1, 1, "blocked", kernel=3, padding=1)
    >>> plan = plan_of(Chain((depthwise, Stage(8, 8, 2, 2), Stage(8, 8, 4, 4, "blocked"))))
    >>> plan.after
    (Step(first=1, last=2, activation=None, adds_input=False),)
    >>> plan_of(Chain((depthwise, depthwise)))
    'it computes one spatial convolution at a time, not 2'
    """
    stages = chain.stages
    spatial = [n for n, stage in enumerate(stages) if not stage.is_pointwise]
    if len(spatial) > 1:
        return f"it computes one spatial convolution at a time, not {len(spatial)}"
    for n, stage in enumerate(stages):
        if chain.source_of(n + 1) != n:
            return "its layers do not follow on each other"
        if stage.residual is None:
            continue
        if stage.residual != 0 or (spatial and (n < spatial[0] or stages[spatial[0]].stride != 1)):
            return "it adds the input alone, behind the spatial convolution"
        if stage.shuffle_out:
            return "it shuffles no channels behind a shortcut"
    at = spatial[0] if spatial else None
    depthwise = at is None or _is_depthwise(stages[at])
    if at is not None and depthwise and stages[at].residual == 0 and not _is_in_place(stages[at]):
        return "it shuffles no channels behind a shortcut"
    channels = max(stages[0].c_in, *(stage.c_out for stage in stages))
    split = 0 if at is None else at
    plan = Plan(
        before=_steps(stages, 0, split),
        spatial=None if at is None else _step(stages, at, at),
        after=_steps(stages, 0 if at is None else at + 1, len(stages)),
        depthwise=depthwise,
        channels=channels,
    )
    if at is not None and depthwise and not plan.after and not _is_in_place(stages[at]):
        return "it shuffles no channels behind the last convolution"
    most = MOST_CHANNELS if plan.is_split else MOST_HELD
    if channels > most:
        return f"it holds {most} channels, not {channels}"
    return plan


def _is_depthwise(stage: Stage) -> bool:
    return stage.fan_in == 1 and stage.c_in == stage.c_out == len(set(stage.reads[:, 0].tolist()))


def _sources(stage: Stage) -> Index:
    """Return the channel [C] that each channel of a depthwise stage's output comes from."""
    sources: Index = stage.reads[:, 0][shuffled_channels(stage.c_out, stage.shuffle_out)]
    return sources


def _is_in_place(stage: Stage) -> bool:
    return bool(np.array_equal(_sources(stage), np.arange(stage.c_out)))


def _step(stages: Sequence[Stage], first: int, last: int) -> Step:
    end = stages[last]
    return Step(first, last, end.activation, end.residual == 0)


def _steps(stages: Sequence[Stage], begin: int, end: int) -> tuple[Step, ...]:
    """Return pointwise stages as steps: one ends where an activation or a shortcut is."""
    steps, first = [], begin
    for n in range(begin, end):
        stage = stages[n]
        if stage.activation is not None or stage.residual is not None or n == end - 1:
            steps.append(_step(stages, first, n))
            first = n + 1
    return tuple(steps)


# ---- weights written out


@dataclass(frozen=True, slots=True)
class Packed:
    """The weights of a plan as the kernel reads them, filled up with zeros.

    `taps`: [k k, C] of a depthwise convolution in float32, or [k k, C_in, C_out]. `before`,
    `after`: [steps, in, out]. `vectors`: biases [steps before, spatial, after, C] in float32. All
    but vectors and depthwise taps are in the dtype of the input.
    """

    taps: Tensor | None
    before: Tensor | None
    after: Tensor | None
    vectors: Tensor | None

    @property
    def tensors(self) -> dict[str, Tensor | None]:
        """The arguments of the kernel by name."""
        return {
            "taps": self.taps,
            "before": self.before,
            "after": self.after,
            "vectors": self.vectors,
        }


# Of flat weights: what they were made into, by dtype, with the versions and biases of then.
_packed_weights: Any = WeakTensorKeyDictionary()


def packed(
    weights: Tensor, biases: Tensor | None, chain: Chain, plan: Plan, dtype: torch.dtype
) -> Packed:
    """Return the weights of a chain as the kernel reads them, kept for the next call.

    Raises: KernelError where a CUDA graph is captured and they are not there yet.
    """
    versions = _version(weights), _version(biases)
    entry = _packed_weights.get(weights, {}).get(dtype)
    if entry is not None and entry[0] is chain and entry[1] is biases and entry[2] == versions:
        return entry[3]  # type: ignore[no-any-return]
    if weights.is_cuda and torch.cuda.is_current_stream_capturing():
        raise KernelError.because(
            "a CUDA graph cannot hold the first call of a fused block",
            got="a capture before any call with these weights and this type",
            allowed="a capture after a call, as torch asks of everything that is captured",
            remedy="call the block once before",
        )
    result = pack(weights, biases, chain, plan, dtype)
    if None not in versions:
        _packed_weights.setdefault(weights, {})[dtype] = (chain, biases, versions, result)
    return result


def _version(tensor: Tensor | None) -> int | None:
    if tensor is None:
        return -1
    return None if tensor.is_inference() else tensor._version


@torch.no_grad()
def pack(
    weights: Tensor, biases: Tensor | None, chain: Chain, plan: Plan, dtype: torch.dtype
) -> Packed:
    """Write the weights of a chain out; products of matrices are made in float64."""
    parts = [part.double() for part in chain.split(weights)]
    vectors = [None] * len(parts) if biases is None else chain.split(biases, biases=True)
    width = padded(plan.channels)
    matrices_of = {"before": [], "after": []}  # type: dict[str, list[Tensor]]
    rows: dict[str, list[Tensor]] = {"before": [], "spatial": [], "after": []}
    taps, order = None, None
    if plan.spatial is not None:
        stage, weight = chain.stages[plan.spatial.first], parts[plan.spatial.first]
        bias = vectors[plan.spatial.first]
        bias = weight.new_zeros(stage.c_out) if bias is None else bias.double()
        if plan.depthwise:
            order = _index(_sources(stage), weights)
            own = _index(stage.reads[:, 0], weights)  # channel that filter f reads
            flat = weight.view(stage.c_out, -1)
            taps = _filled(torch.zeros_like(flat).index_copy_(0, own, flat).T, width)
            bias = torch.zeros_like(bias).index_copy_(0, own, bias)
        else:
            behind = _index(shuffled_channels(stage.c_out, stage.shuffle_out), weights)
            matrices = [
                _dense(weight[:, :, i, j], stage)[behind].T
                for i in range(stage.kernel)
                for j in range(stage.kernel)
            ]
            taps = torch.stack([_filled(matrix, width, width) for matrix in matrices])
            bias = bias[behind]
        rows["spatial"].append(_filled(bias[None], width)[0])
    for name, steps in (("before", plan.before), ("after", plan.after)):
        for number, step in enumerate(steps):
            matrix, vector = None, None
            for n in range(step.first, step.last + 1):
                stage, part, bias = chain.stages[n], parts[n], vectors[n]
                behind = _index(shuffled_channels(stage.c_out, stage.shuffle_out), weights)
                factor = _dense(part[:, :, 0, 0], stage)
                term = part.new_zeros(stage.c_out) if bias is None else bias.double()
                if matrix is not None and vector is not None:
                    term = factor @ vector + term
                    factor = factor @ matrix
                matrix, vector = factor[behind], term[behind]
            assert matrix is not None
            assert vector is not None
            if name == "after" and number == 0 and order is not None:
                # The depthwise results stand where they were read.
                matrix = torch.zeros_like(matrix).index_copy_(1, order, matrix)
            matrices_of[name].append(_filled(matrix.T, width, width).to(dtype))
            rows[name].append(_filled(vector[None], width)[0])
    if plan.spatial is None:
        rows["spatial"].append(weights.new_zeros(width, dtype=torch.float64))
    every = [*rows["before"], *rows["spatial"], *rows["after"]]
    if taps is not None:
        taps = taps.float() if plan.depthwise else taps.to(dtype)
    return Packed(
        None if taps is None else taps.contiguous(),
        torch.stack(matrices_of["before"]).contiguous() if matrices_of["before"] else None,
        torch.stack(matrices_of["after"]).contiguous() if matrices_of["after"] else None,
        None if biases is None else torch.stack(every).float().contiguous(),
    )


def padded(channels: int) -> int:
    """Return the channels that a matrix is filled up to.

    >>> padded(12), padded(48), padded(200)
    (16, 64, 256)
    """
    return max(_LEAST, int(triton.next_power_of_2(channels)))


def _index(places: Index, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(places)).to(like.device)


def _dense(weight: Tensor, stage: Stage) -> Tensor:
    """Return weights [C_out, fan-in] as a matrix [C_out, C_in]."""
    dense = weight.new_zeros(stage.c_out, stage.c_in)
    dense[_index(np.arange(stage.c_out)[:, None], weight), _index(stage.reads, weight)] = weight
    return dense


def _filled(matrix: Tensor, *widths: int) -> Tensor:
    """Return a matrix with zeros behind its last axes, up to some widths."""
    gaps = [width - size for width, size in zip(widths, matrix.shape[-len(widths) :], strict=True)]
    pads = [number for gap in reversed(gaps) for number in (0, gap)]
    return torch.nn.functional.pad(matrix, pads)


# ---- configurations and the launch

# How a tile lies: "natural" takes pixels one after the other, along rows; "square" takes a part of
# an image that is 8 pixels wide, of which fewer neighbours are read from afar.
_SQUARE: Final = "square"
_SIDE: Final = tl.constexpr(8)
# pixels, order, warps, targets: of a chain whose channels a program holds all, up to 64 of them.
_HELD: Final = (
    (64, "natural", 8, TARGETS),
    (16, "natural", 4, TARGETS),
    (32, "natural", 4, TARGETS),
    (64, "natural", 4, CUDA),
    (64, _SQUARE, 4, CUDA),
    (128, _SQUARE, 8, SM_90_UP),
)
# More channels, of tensors in half precision and in float32.
_HELD_WIDE: Final = (
    (64, "natural", 8, CUDA),
    (16, "natural", 8, TARGETS),
    (32, "natural", 8, CUDA),
    (64, _SQUARE, 8, CUDA),
)
_HELD_WIDE_FP32: Final = ((16, "natural", 8, TARGETS),)
# pixels, filters, channels, order, warps, targets: of one depthwise layer and a matrix.
_SPLIT: Final = (
    (64, 64, 64, "natural", 8, TARGETS),
    (16, 64, 64, "natural", 4, TARGETS),
    (32, 64, 64, "natural", 4, CUDA),
    (64, 64, 64, "natural", 4, CUDA),
    (64, 64, 64, _SQUARE, 4, CUDA),
    (128, 64, 64, _SQUARE, 8, SM_90_UP),
    (64, 128, 64, "natural", 8, CUDA),
    (128, 128, 32, _SQUARE, 8, SM_90_UP),
    (64, 256, 64, "natural", 8, SM_90_UP),
    (64, 512, 32, "natural", 8, ("sm_90",)),
    (64, 512, 64, "natural", 16, SM_90_UP),
)
# Where tiles of three products in tf32, which take more registers, would spill.
_SPILLING: Final = {
    "64x64x64-natural-w8s1": ("sm_80",),
    "64x64x64-natural-w4s1": ("sm_80", "sm_100"),
    "64x64x64-square-w4s1": ("sm_80",),
}


def configurations(plan: Plan, kind: str) -> tuple[Config, ...]:
    """Return the configurations of a plan for a kind of product, the default first."""
    width = padded(plan.channels)
    tiles = []
    if plan.is_split:
        for pixels, filters, channels, order, warps, targets in _SPLIT:
            if filters > max(64, width) or (kind != "half" and filters > 128):
                continue
            tile = pixels, min(filters, width), min(channels, width)
            tiles.append(Config("chain", kind, *tile, order, warps, 1, targets))
    else:
        wide = _HELD_WIDE if kind == "half" else _HELD_WIDE_FP32
        for pixels, order, warps, targets in _HELD if width <= 64 else wide:
            tile = pixels, width, width
            tiles.append(Config("chain", kind, *tile, order, warps, 1, targets))
    if kind == "ieee":
        tiles = [
            replace(
                tile,
                targets=tuple(t for t in tile.targets if t not in _SPILLING.get(tile.name, ())),
            )
            for tile in tiles
        ]
    # In narrow chains several tiles are the same.
    return tuple({tile.name: tile for tile in tiles}.values())


def obstacle(x: Tensor, chain: Chain) -> str | None:
    """Return why the kernel cannot run a chain for x, or None if it can."""
    if not (x.is_cuda or interprets()):
        return f"it runs on CUDA, not on {x.device.type}"
    if x.dtype not in (*HALF, torch.float32):
        name = str(x.dtype).removeprefix("torch.")
        return f"it computes in float32, bfloat16 and float16, not in {name}"
    if x.dim() != 4:
        return "on a card it takes feature maps of two dimensions"
    if not x.is_contiguous(memory_format=torch.channels_last):
        return "on a card it reads channels_last, not other layouts"
    plan = plan_of(chain)
    if isinstance(plan, str):
        return f"on a card {plan}"
    if max(x.numel(), prod(chain.shape_of(x.shape))) >= _LARGE:
        return "on a card it takes tensors of fewer than 2**31 numbers"
    return None


def run(
    x: Tensor,
    weights: Tensor,
    biases: Tensor | None,
    chain: Chain,
    *,
    fp32: str | None = None,
    config: str | None = None,
) -> Tensor:
    """Return the result of a chain for an x without an `obstacle`, channels_last.

    `weights` and `biases` are flat. `fp32`: "tf32" or "ieee" products of float32, by default as
    torch.backends.cuda.matmul says. `config`: a configuration by name, instead of the fastest.

    Raises: KernelError for a precision or configuration that does not exist; see `packed`.
    """
    plan = plan_of(chain)
    assert isinstance(plan, Plan)
    y = empty_in_layout(x, chain.shape_of(x.shape))
    if y.numel():
        precision = precision_of(x.dtype, fp32)
        tensors = packed(weights, biases, chain, plan, x.dtype).tensors
        repeat.run(
            "chain",
            {"x": x, **tensors, "y": y},
            (chain.text, precision, config),
            lambda: Call.of(chain_launch(x, tensors, y, chain, plan, precision), config),
        )
    return y


def chain_launch(
    x: Tensor,
    tensors: dict[str, Tensor | None],
    y: Tensor,
    chain: Chain,
    plan: Plan,
    precision: str,
) -> Launch:
    """Return the launch that fills y; `tensors` as `Packed.tensors`."""
    stage = None if plan.spatial is None else chain.stages[plan.spatial.first]
    arguments: dict[str, Any] = {"x": x, **tensors, "y": y}
    arguments |= stride_arguments("x", x) | stride_arguments("y", y)
    arguments |= {
        "pixels": y.shape[0] * y.shape[2] * y.shape[3],
        "height": x.shape[2],
        "width": x.shape[3],
        "out_height": y.shape[2],
        "out_width": y.shape[3],
        "IN": chain.stages[0].c_in,
        "OUT": chain.stages[-1].c_out,
        "MIDDLE": chain.stages[0].c_in if stage is None else stage.c_in,
        "KERNEL": 1 if stage is None else stage.kernel,
        "STRIDE": 1 if stage is None else stage.stride,
        "PADDING": 0 if stage is None else stage.padding,
        "DEPTHWISE": plan.depthwise,
        # Taps whose loads are under way together: a row of them. Products take the registers.
        "TOGETHER": stage.kernel if stage and plan.depthwise and not plan.before else 1,
        "BEFORE": len(plan.before),
        "AFTER": len(plan.after),
        **plan.codes,
        "WIDTH": padded(plan.channels),
        # Of float32 products "ieee" is made of three in tf32, as exact and on matrix units.
        "PRECISION": "tf32x3" if precision == "ieee" and not torch.version.hip else precision,
        "EXACT": interprets() and x.dtype == torch.bfloat16,
    }

    def complete(config: Config) -> Completion:
        across = triton.cdiv(y.shape[1], config.filters)
        if config.order == _SQUARE:
            high, wide = config.pixels // int(_SIDE), int(_SIDE)
            tiles = y.shape[0] * triton.cdiv(y.shape[2], high) * triton.cdiv(y.shape[3], wide)
        else:
            tiles = triton.cdiv(arguments["pixels"], config.pixels)
        return (tiles * across,), {}

    configs = configurations(plan, kind_of(x.dtype, precision))
    return Launch("chain", chain_kernel, arguments, configs, complete)


# ---- the kernel


@triton.jit
def activated(tile, CODE: tl.constexpr):
    """Return an activation of a tile by its number in `_CODES`; a NaN stays one."""
    if CODE == 1:
        tile = tl.where(tile < 0, 0.0, tile)
    elif CODE == 2:
        tile = tl.where(tile < 0, 0.0, tl.where(tile > 6, 6.0, tile))
    elif CODE == 3:
        tile = tile * tl.sigmoid(tile)
    elif CODE == 4:
        gate = tl.where(tile < -3, 0.0, tl.where(tile > 3, 6.0, tile + 3))
        tile = tile * gate * (1.0 / 6.0)
    return tile


@triton.jit
def add_bias(tile, vectors, number, channel, WIDTH: tl.constexpr):
    """Return a tile [pixels, channels] with a bias added, if there are any."""
    if vectors is not None:
        tile += tl.load(vectors + number * WIDTH + channel)[None, :]
    return tile


@triton.jit
def add_input(tile, x, center, exists, channel, CHANNELS: tl.constexpr):
    """Return a tile with the input at its pixels added."""
    value = tl.load(
        x + center[:, None] + channel[None, :],
        mask=exists[:, None] & (channel < CHANNELS)[None, :],
        other=0.0,
    )
    return tile + value.to(tl.float32)


@triton.jit
def product(
    tile,
    matrix,
    rows,
    columns,
    x,
    WIDTH: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Return a tile times rows and columns of a matrix [WIDTH, WIDTH]."""
    factor = tl.load(matrix + rows[:, None] * WIDTH + columns[None, :])
    total = tl.zeros((tile.shape[0], columns.shape[0]), tl.float32)
    return add_product(total, tile, factor, x, EXACT, PRECISION)


# One kernel for all sizes of images: what it would gain from knowing them, compiling it costs.
@triton.jit(do_not_specialize=["pixels", "height", "width", "out_height", "out_width"])
def chain_kernel(
    x,
    taps,
    before,
    after,
    vectors,
    y,
    pixels,
    height,
    width,
    out_height,
    out_width,
    x_n,
    x_c,
    x_h,
    x_w,
    y_n,
    y_c,
    y_h,
    y_w,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    MIDDLE: tl.constexpr,
    KERNEL: tl.constexpr,
    STRIDE: tl.constexpr,
    PADDING: tl.constexpr,
    DEPTHWISE: tl.constexpr,
    TOGETHER: tl.constexpr,
    BEFORE: tl.constexpr,
    AFTER: tl.constexpr,
    BEFORE_ACTIVATIONS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    AFTER_ACTIVATIONS: tl.constexpr,
    SHORTCUTS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_C: tl.constexpr,
    ORDER: tl.constexpr,
    EXACT: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write BLOCK_M pixels of BLOCK_N channels of the result.

    Channels are adjacent in x and y. Programs of the same pixels are neighbours. Where there is
    more than a depthwise convolution and a matrix, BLOCK_N and BLOCK_C are WIDTH: all channels.
    """
    across: tl.constexpr = (OUT + BLOCK_N - 1) // BLOCK_N
    program = tl.program_id(0)
    tile = program // across
    lane = tl.arange(0, BLOCK_M)
    columns = program % across * BLOCK_N + tl.arange(0, BLOCK_N)
    if ORDER == "square":
        wide = tl.cdiv(out_width, _SIDE)
        high = tl.cdiv(out_height, BLOCK_M // _SIDE)
        image = tile // (wide * high)
        row = tile // wide % high * (BLOCK_M // _SIDE) + lane // _SIDE
        column = tile % wide * _SIDE + lane % _SIDE
        exists = (row < out_height) & (column < out_width)
    else:
        pixel = tile * BLOCK_M + lane
        area = out_height * out_width
        image = pixel // area
        row = pixel % area // out_width
        column = pixel % out_width
        exists = pixel < pixels
    top = row * STRIDE - PADDING
    left = column * STRIDE - PADDING
    # The corner may lie outside the image: it is only ever read under a mask.
    corner = image * x_n + top * x_h + left * x_w
    center = corner + PADDING * (x_h + x_w)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, MIDDLE, BLOCK_C):
        channel = k + tl.arange(0, BLOCK_C)
        middle = tl.zeros((BLOCK_M, BLOCK_C), tl.float32)
        for turn in range(KERNEL * KERNEL // TOGETHER):
            for number in tl.static_range(TOGETHER):
                tap = turn * TOGETHER + number
                down = tap // KERNEL
                right = tap % KERNEL
                if PADDING:
                    inside = (
                        exists
                        & (top + down >= 0)
                        & (top + down < height)
                        & (left + right >= 0)
                        & (left + right < width)
                    )
                else:
                    inside = exists
                place = corner + (down * x_h + right * x_w)
                if IN % BLOCK_C == 0:
                    mask = inside[:, None]
                else:
                    mask = inside[:, None] & (channel < IN)[None, :]
                value = tl.load(x + place[:, None] + channel[None, :], mask=mask, other=0.0)
                if BEFORE:
                    for n in tl.static_range(BEFORE):
                        passed = product(
                            value,
                            before + n * WIDTH * WIDTH,
                            channel,
                            channel,
                            x,
                            WIDTH,
                            EXACT,
                            PRECISION,
                        )
                        passed = add_bias(passed, vectors, n, channel, WIDTH)
                        passed = activated(passed, BEFORE_ACTIVATIONS // _BASE**n % _BASE)
                        value = passed.to(x.dtype.element_ty)
                    # The border is of zeros behind these layers, not before them.
                    value = tl.where(inside[:, None], value, 0.0)
                if taps is None:
                    middle = value.to(tl.float32)
                elif DEPTHWISE:
                    factor = tl.load(taps + tap * WIDTH + channel)
                    middle += value.to(tl.float32) * factor[None, :]
                else:
                    middle += product(
                        value,
                        taps + tap * WIDTH * WIDTH,
                        channel,
                        channel,
                        x,
                        WIDTH,
                        EXACT,
                        PRECISION,
                    )
        if taps is not None:
            middle = add_bias(middle, vectors, BEFORE, channel, WIDTH)
            if SHORTCUTS % 2:
                middle = add_input(middle, x, center, exists, channel, IN)
            middle = activated(middle, ACTIVATION)
        if AFTER:
            factor = tl.load(after + channel[:, None] * WIDTH + columns[None, :])
            total = add_product(total, middle, factor, x, EXACT, PRECISION)
        else:
            total = middle
    for n in tl.static_range(AFTER):
        if n:
            matrix = after + n * WIDTH * WIDTH
            total = product(total, matrix, columns, columns, x, WIDTH, EXACT, PRECISION)
        total = add_bias(total, vectors, BEFORE + 1 + n, columns, WIDTH)
        if SHORTCUTS // 2 ** (n + 1) % 2:
            total = add_input(total, x, center, exists, columns, IN)
        total = activated(total, AFTER_ACTIVATIONS // _BASE**n % _BASE)
    target = image * y_n + row * y_h + column * y_w
    stored = exists[:, None] if OUT % BLOCK_N == 0 else exists[:, None] & (columns < OUT)[None, :]
    tl.store(y + target[:, None] + columns[None, :], total, mask=stored)
