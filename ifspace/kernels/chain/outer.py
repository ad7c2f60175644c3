"""The gradient by the weights of a pointwise layer of channels_last tensors, without transposing.

The products of a pixel's results with its channels are added up in vectors of adjacent channels. A
*block* is up to eight filters and a few vectors, which hold the channels that they read:

    for every pixel: sums[filter][vector] += grad[pixel, filter] x[pixel, channels of the vector]

The pixels are cut into parts and the blocks into units, whose numbers depend on the sizes alone;
threads share them, and the sums of all parts are added in one order. So the bits are the same for
any number of threads. What is added for channels that a filter does not read is dropped; where the
filters of a block read all of its channels, and there is one part, the sums stand in the gradient.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifspace.kernels.chain import loops
from ifspace.kernels.chain.loops import HALF, LANES, OUTERS
from ifspace.kernels.chain.stages import Index, Stage
from ifspace.kernels.chain.threads import run_parts, scratch_memory
from ifspace.kernels.chain.tiles import KINDS, SHARED_WORK
from ifspace.kernels.tensors import is_channels_last

# Elements of both tensors that all blocks read before the next ones: they stay in the first cache.
CHUNK: Final = 8192
# The works that threads share, at least; the pixels of a part, at least; the floats of all sums.
WORKS: Final = 8
PART_PIXELS: Final = 1024
MOST_SUMS: Final = 1 << 21
# In multiplications and additions of a vector: that of half a vector, a load, and how many others
# a sum waits for until its next one.
HALF_TIME: Final = 0.6
LOAD_TIME: Final = 0.2
LATENCY: Final = 4


@dataclass(frozen=True, eq=False)
class OuterPlan:
    """The gradient by the weights at a number of pixels, as the compiled loops read it.

    `sums`: floats of the sums of all parts; `scratch`: floats of memory for a thread, where the
    tensors are not float32; `works`: how many works threads share; `pieces`: of the gradient;
    `plan`: words; `tables`: what the words are addresses of.
    """

    sums: int
    scratch: int
    works: int
    pieces: int
    plan: Index
    tables: tuple[Index, ...]
    address: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", self.plan.ctypes.data)


def fits(x: Tensor, grad: Tensor, stage: Stage) -> bool:
    """Return whether the loops compute the gradient: of a pointwise stage of a vector or more."""
    are_last = is_channels_last(x) and is_channels_last(grad)
    return are_last and x.dtype == grad.dtype and stage.is_pointwise and stage.c_in >= LANES


def weight_grad(grad: Tensor, x: Tensor, stage: Stage) -> Tensor:
    """Return the gradient [weights] of a stage in float32.

    For grad [N, C_out, H, W] and x [N, C_in, H, W], both channels_last and of one type.
    """
    pixels = x.numel() // stage.c_in
    plan = outer_plan(stage, pixels)
    threads = 1 if stage.weights * pixels < SHARED_WORK else torch.get_num_threads()
    output = torch.empty(stage.weights, dtype=torch.float32, device="cpu")
    kind = KINDS[x.dtype]
    scratch = 0 if kind == loops.FLOAT32 else plan.scratch
    memory = scratch_memory(plan.sums + threads * scratch)
    sums, holds = memory.data_ptr(), (x, grad, memory, output, plan)
    pointers = x.data_ptr(), grad.data_ptr(), output.data_ptr(), sums, sums + 4 * plan.sums
    arguments = (*pointers, plan.address, pixels, kind)
    run_parts(loops.run_outer_products, arguments, plan.works, threads, 4 * scratch, holds)
    if plan.pieces:
        threads = 1 if plan.sums < SHARED_WORK else threads
        places = (sums, output.data_ptr(), plan.address)
        run_parts(loops.add_parts, places, plan.pieces, threads, 0, holds)
    return output


@lru_cache(maxsize=512)
def outer_plan(stage: Stage, pixels: int) -> OuterPlan:
    """Return the plan of a stage for a number of pixels."""
    most = MOST_SUMS // _layout(stage, in_result=False).floats
    parts = max(1, min(WORKS, pixels // PART_PIXELS, most))
    layout = _layout(stage, in_result=parts == 1)
    costs, floats = np.cumsum(layout.costs), layout.floats
    units = min(-(-WORKS // parts), len(costs))
    ends = np.searchsorted(costs, np.arange(1, units) * (costs[-1] / units))
    first_blocks = np.array([0, *ends, len(costs)], dtype=np.int64)
    channels = stage.c_in + stage.c_out
    chunk = max(LANES, CHUNK // channels)
    words = np.zeros(loops.OUTER_PLAN_WORDS, dtype=np.int64)
    for number, word in {
        loops.OUTER_C_IN: stage.c_in,
        loops.OUTER_C_OUT: stage.c_out,
        loops.OUTER_PARTS: parts,
        loops.OUTER_UNITS: units,
        loops.OUTER_FIRST_BLOCKS: first_blocks.ctypes.data,
        loops.OUTER_BLOCKS: layout.blocks.ctypes.data,
        loops.OUTER_CHUNK: chunk,
        loops.OUTER_SUM_FLOATS: floats,
        loops.OUTER_PIECES: layout.pieces.ctypes.data,
    }.items():
        words[number] = word
    sizes = parts * floats, chunk * channels, parts * units, len(layout.pieces)
    return OuterPlan(*sizes, words, (layout.blocks, layout.pieces, first_blocks))


# ---- the blocks of a stage


class _Layout(NamedTuple):
    """The blocks of a stage and the pieces of its gradient as words, and the floats of all sums.

    `costs`: the times of the blocks for a pixel.
    """

    blocks: Index
    pieces: Index
    floats: int
    costs: list[float]


class _Run(NamedTuple):
    """Adjacent channels from `begin` to `end` that a filter reads.

    `weight`: the place of the weight of channel 0, if it read that.
    """

    begin: int
    end: int
    filter: int
    weight: int


@lru_cache(maxsize=512)
def _layout(stage: Stage, in_result: bool) -> _Layout:
    """Return the layout; `in_result`: sums of channels that are all read stand in the gradient."""
    floats = 0
    blocks, pieces, costs = [], [], []
    for runs, spans in _shares(stage):
        done = 0  # the channels up to which blocks have the sums of these runs
        for number, start in spans:
            loop = OUTERS[number]
            end = start + loop.vectors * loop.lanes
            are_all_read = all(run.begin <= start and end <= run.end for run in runs)
            is_in_result = in_result and are_all_read and done <= start
            block = np.zeros(loops.OUTER_WORDS, dtype=np.int64)
            block[loops.OUTER_LOOP], block[loops.OUTER_X] = number, start
            block[loops.OUTER_IN_RESULT] = is_in_result
            for index, run in enumerate(runs):
                block[loops.OUTER_GRAD + index] = run.filter
                block[loops.OUTER_SUMS + index] = run.weight + start if is_in_result else floats
                if not is_in_result:
                    last = min(run.end, end)
                    for begin in range(max(run.begin, start), last, LANES):
                        count = min(LANES, last - begin)
                        pieces.append((floats + begin - start, run.weight + begin, count))
                    floats += end - start
            blocks.append(block)
            costs.append(_cost_of(number))
            done = end
    words = np.array(pieces, dtype=np.int64).reshape(-1, loops.PIECE_WORDS)
    return _Layout(np.stack(blocks), words, floats, costs)


def _shares(stage: Stage) -> list[tuple[list[_Run], list[tuple[int, int]]]]:
    """Return runs that are computed together, in the least time, with the loops that do so.

    A loop comes with its first channel.
    """
    runs = sorted(_runs(stage))
    # For the first runs: the least time, how many of them are together at the end, their loops.
    best: list[tuple[float, int, list[tuple[int, int]]]] = [(0.0, 0, [])]
    for end in range(1, len(runs) + 1):
        options = []
        for size, lanes in product((8, 4, 2, 1), (LANES, HALF)):
            spans = [*_spans(stage, runs[end - size : end], lanes)] if size <= end else []
            if spans:
                cost = best[end - size][0] + sum(_cost_of(number) for number, _ in spans)
                options.append((cost, size, spans))
        best.append(min(options))
    shares, end = [], len(runs)
    while end:
        _, size, spans = best[end]
        shares.append((runs[end - size : end], spans))
        end -= size
    return shares[::-1]


def _runs(stage: Stage) -> Iterator[_Run]:
    """Yield the runs of adjacent channels of all filters."""
    reads = stage.reads
    starts = np.ones(reads.shape, dtype=bool)
    starts[:, 1:] = np.diff(reads, axis=1) != 1
    places = np.flatnonzero(starts)
    lengths = np.diff(np.append(places, reads.size))
    channels = reads.ravel()[places]
    for place, channel, length in zip(places.tolist(), channels.tolist(), lengths, strict=True):
        yield _Run(channel, channel + int(length), place // stage.fan_in, place - channel)


def _spans(stage: Stage, runs: Sequence[_Run], lanes: int) -> Iterator[tuple[int, int]]:
    """Yield the loops that cover the channels of some runs, each with its first channel.

    None if there is no loop for so many.
    """
    begin, end = runs[0].begin, max(run.end for run in runs)
    while begin < end:
        options = (
            number
            for number, loop in enumerate(OUTERS)
            if (loop.filters, loop.lanes) == (len(runs), lanes)
            and (loop.vectors == 1 or (loop.vectors - 1) * lanes < end - begin)
            and loop.vectors * lanes <= stage.c_in
        )
        number = next(options, None)
        if number is None:
            return
        width = OUTERS[number].vectors * lanes
        start = min(begin, stage.c_in - width)
        yield number, start
        begin = start + width


def _cost_of(number: int) -> float:
    """Return the time of a loop for a pixel, in multiplications and additions of a vector."""
    filters, vectors, lanes = OUTERS[number]
    time = filters * vectors * (1 if lanes == LANES else HALF_TIME)
    return max(LATENCY, time) + LOAD_TIME * (filters + vectors)
