"""The gradient by the weights of a layer, as compiled dot products along the pixels.

The products of a window's filters with the channels that it reads are computed in blocks of up to
four filters and nine taps, whose sums are vectors in registers. A *unit* is some filters and
channels of a window, over all images: threads share the units, so that every sum has one order,
whatever their number.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifspace.kernels.chain import loops, outer
from ifspace.kernels.chain.loops import DOTS, LANES
from ifspace.kernels.chain.stages import MOST_FILTERS, Index, Stage
from ifspace.kernels.chain.threads import run_parts, scratch_memory
from ifspace.kernels.chain.tiles import KINDS, MARGIN, SHARED_WORK
from ifspace.kernels.tensors import is_channels_last, memory_format

# The most filters and taps of a unit: the sums, a vector for each product, take up to 128 KiB.
UNIT_FILTERS: Final = 32
UNIT_TAPS: Final = 64
# Elements of its channels that a unit reads before the next elements' turn.
CHUNK: Final = 16384
# Pixels of all images up to which vectors run along channels in every layout.
FEW_PIXELS: Final = 63
# Elements of both tensors that are copied at a time.
COPIED: Final = 1 << 18


@dataclass(frozen=True, eq=False)
class DotPlan:
    """The gradient by the weights at a size of the input, as the compiled loops read it.

    `scratch`: floats of memory for a thread; `work`: multiplications and additions of an image;
    `plan`, `units`: words; `tables`: what the words are addresses of.
    """

    scratch: int
    work: int
    plan: Index
    units: Index
    tables: tuple[Index, ...]
    addresses: tuple[int, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "addresses", (self.plan.ctypes.data, self.units.ctypes.data))


def weight_grad(grad: Tensor, x: Tensor, stage: Stage) -> Tensor:
    """Return the gradient [weights] of a stage, for grad [N, C_out, H', W'] and x [N, C_in, H, W].

    The result is float32. Where a tensor is of another type or channels_last and outer products do
    not fit, as many images as fit the caches are copied at a time.
    """
    if 0 < x.numel() // stage.c_in <= FEW_PIXELS and stage.is_pointwise:
        # A vector along so few pixels is not full: transposed, they are few numbers.
        x, grad = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (x, grad))
    if x.numel() and outer.fits(x, grad, stage):
        return outer.weight_grad(grad, x, stage)
    output = torch.zeros(stage.weights, dtype=torch.float32, device="cpu")
    if _is_direct(x) and _is_direct(grad):
        _add_products(x, grad, output, dot_plan(stage, *x.shape[2:]))
        return output
    x, grad = (tensor.contiguous(memory_format=memory_format(tensor)) for tensor in (x, grad))
    for x_part, grad_part in _parts(x, grad, stage):
        _add_products(x_part, grad_part, output, dot_plan(stage, *x_part.shape[2:]))
    return output


def _parts(x: Tensor, grad: Tensor, stage: Stage) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images of x and grad as float32 and contiguous.

    Copies of a part are overwritten by those of the next.
    """
    if _is_direct(x) and _is_direct(grad):
        yield x, grad
        return
    step = max(1, COPIED // max(1, x[:1].numel() + grad[:1].numel()))
    memory: list[Tensor | None] = [None, None]
    for begin in range(0, len(x), step):
        parts = [x[begin : begin + step], grad[begin : begin + step]]
        for i, part in enumerate(parts):
            if not _is_direct(part):
                memory[i] = parts[i] = _copied(part, memory[i])
        yield parts[0], parts[1]


def _copied(x: Tensor, memory: Tensor | None) -> Tensor:
    """Return images as float32 and contiguous, in the memory of a tensor if it has as much."""
    images, channels, height, width = x.shape
    if memory is None or memory.numel() < x.numel():
        memory = torch.empty(x.numel(), dtype=torch.float32, device="cpu")
    copy = memory.view(-1)[: x.numel()].view(x.shape)
    pixels, is_last = height * width, is_channels_last(x)
    arguments = x.data_ptr(), copy.data_ptr(), channels, pixels, KINDS[x.dtype], is_last
    count = images * (-(-pixels // LANES) if is_last else channels)
    run_parts(loops.read_images, arguments, count, _threads(4 * x.numel()), 0, (x, copy))
    return copy


def _add_products(x: Tensor, grad: Tensor, output: Tensor, plan: DotPlan) -> None:
    """Add the products of some images to the gradient."""
    threads = _threads(x.shape[0] * plan.work)
    memory = scratch_memory(threads * plan.scratch)
    pointers = x.data_ptr(), grad.data_ptr(), output.data_ptr(), memory.data_ptr()
    arguments = (*pointers, *plan.addresses, x.shape[0])
    holds = x, grad, output, memory, plan
    run_parts(
        loops.run_weight_gradient, arguments, len(plan.units), threads, 4 * plan.scratch, holds
    )


def _threads(operations: int) -> int:
    """Return how many threads share so many operations."""
    return 1 if operations < SHARED_WORK else torch.get_num_threads()


def _is_direct(tensor: Tensor) -> bool:
    """Return whether the loops can read a tensor as it is."""
    return tensor.dtype == torch.float32 and tensor.is_contiguous()


@lru_cache(maxsize=512)
def dot_plan(stage: Stage, height: int, width: int) -> DotPlan:
    """Return the plan of a stage for an input [N, C_in, height, width]."""
    rows, columns = stage.size_of(height), stage.size_of(width)
    copies = stage.kernel > 1 or stage.stride > 1
    padded = width + 2 * stage.padding
    copy_rows = height + 2 * stage.padding
    pitch = height * width
    if copies:  # an odd number of vectors, for the sake of caches, and one to run over
        pitch = LANES * ((copy_rows * padded + 2 * LANES) // LANES | 1)
    pixels = (np.arange(stage.kernel)[:, None] * padded + np.arange(stage.kernel)).ravel()
    tables: list[Index] = []
    units, offsets, tap = [], [], 0
    sums = channels_of_unit = 0
    for share in _shares(stage):
        channels, taps = share.channels, len(share.channels) * len(pixels)
        place = np.arange(len(channels)) if copies else channels
        offsets.append((place[:, None] * pitch + pixels).ravel())
        blocks = list(_blocks(stage, share, tap, rows * columns))
        unit = np.zeros(loops.UNIT_WORDS, dtype=np.int64)
        tables += [np.array(blocks, dtype=np.int64), channels * (height * width)]
        unit[loops.UNIT_BLOCKS] = tables[-2].ctypes.data
        unit[loops.UNIT_BLOCK_COUNT] = len(blocks)
        unit[loops.UNIT_CHANNELS] = tables[-1].ctypes.data
        unit[loops.UNIT_CHANNEL_COUNT] = len(channels)
        units.append(unit)
        sums = max(sums, sum(filters * own * LANES for filters, own, _ in map(_dots_of, blocks)))
        channels_of_unit = max(channels_of_unit, len(channels))
        tap += taps
    tables.append(np.concatenate(offsets))
    count = columns if copies else rows * columns
    chunk = max(256, CHUNK // min(UNIT_TAPS, stage.fan_in) // LANES * LANES)
    images = 1 if copies else max(1, chunk // count)
    words = np.zeros(loops.DOT_PLAN_WORDS, dtype=np.int64)
    for number, word in {
        loops.DOT_IMAGES: images,
        loops.DOT_X_IMAGE: stage.c_in * height * width,
        loops.DOT_GRAD_IMAGE: stage.c_out * rows * columns,
        loops.DOT_ROWS: rows if copies else 1,
        loops.DOT_COUNT: count,
        loops.DOT_CHUNK: count if copies else min(count, chunk),
        loops.DOT_X_ROW: padded * stage.stride if copies else stage.c_in * height * width,
        loops.DOT_GRAD_ROW: columns if copies else stage.c_out * rows * columns,
        loops.DOT_COPIES: copies,
        loops.DOT_SUM_FLOATS: sums,
        loops.DOT_PITCH: pitch,
        loops.DOT_PADDING: stage.padding,
        loops.DOT_HEIGHT: height,
        loops.DOT_WIDTH: width,
        loops.DOT_COPY_ROW: padded,
        loops.DOT_OFFSETS: tables[-1].ctypes.data,
    }.items():
        words[number] = word
    return DotPlan(
        sums + copies * channels_of_unit * pitch + MARGIN,
        stage.weights * rows * columns,
        words,
        np.stack(units),
        tuple(tables),
    )


class _Reader(NamedTuple):
    """A filter with those channels of a unit that it reads: numbers `begin` to `end`.

    `place`: that of the weight of the unit's first channel, if the filter read it.
    """

    filter: int
    begin: int
    end: int
    place: int


class _Share(NamedTuple):
    """What a unit computes: products of some channels with `parts` of filters that share them."""

    channels: Index
    parts: list[list[_Reader]]


def _shares(stage: Stage) -> Iterator[_Share]:
    """Yield the filters and channels of every unit."""
    area = stage.kernel**2
    most, step = max(1, UNIT_TAPS // area), UNIT_FILTERS // MOST_FILTERS
    for family in stage.families:
        parts = [
            list(zip(family.filters[p].tolist(), family.first[p].tolist(), strict=True))
            for p in family.parts()
        ]
        for begin in range(0, len(parts), step):
            own = parts[begin : begin + step]
            every = np.arange(own[0][0][1], own[-1][-1][1] + family.width)
            for numbers in np.array_split(every, -(-len(every) // most)):
                low, count = int(numbers[0]), len(numbers)
                readers = [
                    [
                        _Reader(
                            number,
                            max(0, first - low),
                            min(count, first - low + family.width),
                            int(stage.first_weights[number]) - (first - low) * area,
                        )
                        for number, first in part
                    ]
                    for part in own
                ]
                yield _Share(family.channels[numbers], readers)


def _blocks(stage: Stage, share: _Share, table: int, pixels: int) -> Iterator[list[int]]:
    """Yield the blocks of a unit, those of the same taps together.

    `table`: the place of its first tap in the table of offsets.
    """
    blocks: list[list[int]] = []
    for part in share.parts:
        begin = max(reader.begin for reader in part)
        end = max(begin, min(reader.end for reader in part))
        blocks += _run(stage, part, (begin, end), table, pixels)
        for reader in part:  # what the others do not read
            for edge in (
                (reader.begin, min(begin, reader.end)),
                (max(end, reader.begin), reader.end),
            ):
                blocks += _run(stage, [reader], edge, table, pixels)
    sums = 0
    for block in sorted(blocks, key=lambda block: block[loops.DOT_TAP]):
        block[loops.DOT_SUMS] = sums
        filters, taps, _ = _dots_of(block)
        sums += filters * taps * LANES
        yield block


def _run(
    stage: Stage, readers: Sequence[_Reader], span: tuple[int, int], table: int, pixels: int
) -> Iterator[list[int]]:
    """Yield the blocks of filters that all read the channels of a span."""
    begin, end = (number * stage.kernel**2 for number in span)
    while begin < end:
        number = next(
            number
            for number, (count, taps, stride) in enumerate(DOTS)
            if (count, stride) == (len(readers), stage.stride) and begin + taps <= end
        )
        block = [0] * loops.DOT_WORDS
        block[loops.DOT_TAP], block[loops.DOT_LOOP] = table + begin, number
        for index, reader in enumerate(readers):
            block[loops.DOT_GRAD + index] = reader.filter * pixels
            block[loops.DOT_OUTPUT + index] = reader.place + begin
        yield block
        begin += DOTS[number][1]


def _dots_of(block: Sequence[int]) -> tuple[int, int, int]:
    """Return the filters, taps and stride of the loop of a block."""
    return DOTS[block[loops.DOT_LOOP]]
