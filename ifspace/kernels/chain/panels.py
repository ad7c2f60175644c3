"""Pointwise layers of channels_last float32 tensors without transposing, where many share a window.

A *block* is a few vectors of adjacent results of a pixel, all of the same taps: filters of one
window, or of the gradient by the input channels that the same filters read. For some pixels at a
time the sums stay in registers:

    for every tap: sums[pixel][vector] += x[pixel, channel of the tap] weights[tap][vector]

The gradient by the input reads the weights where they are. For the forward pass they are packed,
[block, tap, filter]; the results of a rolling layer are computed window by window in the memory of
a thread, and take turns in the tensor. No zeros are multiplied, and a sum has one order: the bits
are the same for any number of threads.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifspace.kernels.chain import loops
from ifspace.kernels.chain.loops import HALF, LANES, MOST_PANEL, PANELS, RIFFLES
from ifspace.kernels.chain.stages import Index, Stage, gradient_of
from ifspace.kernels.chain.threads import run_parts, scratch_memory
from ifspace.kernels.chain.tiles import SHARED_WORK
from ifspace.kernels.tensors import is_channels_last, memory_format

# The pixels of a tile, a multiple of those of every panel, and those of panels of `MOST_PANEL`
# pixels, whose source should stay in the first cache: at most so many floats.
TILE: Final = 24
SOURCE_FLOATS: Final = 6144
# Numbers of tiles that are tried beyond the fewest.
SEARCHED: Final = 16
# Elements of both tensors from which on packing the weights pays.
LEAST_MOVED: Final = 1 << 15
# Taps of a run from which on half a vector pays, on average.
SHORTEST: Final = 16
# Multiplications and additions that packing a weight takes as long as.
PACKING: Final = 16


@dataclass(frozen=True, eq=False)
class PanelPlan:
    """A layer at a number of pixels, as the compiled loops read it.

    `tiles` in all; `scratch`: floats of memory of a thread; `plan`: words; `tables`: what the words
    are addresses of.
    """

    tiles: int
    scratch: int
    plan: Index
    tables: tuple[Index, ...]
    address: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", self.plan.ctypes.data)


def fits(x: Tensor, stage: Stage) -> bool:
    """Return whether the loops compute a stage of x [N, C_in, H, W]."""
    moved = x.numel() // stage.c_in * (stage.c_in + stage.c_out)
    return moved >= LEAST_MOVED and _is_direct(x) and packed_layer(stage) is not None


def fits_gradient(grad: Tensor, stage: Stage) -> bool:
    """Return whether the loops compute the gradient by the input from grad [N, C_out, H, W].

    Of other layouts than channels_last it is transposed, if that is less than all weights.
    """
    n, _, height, width = grad.shape
    pixels = n * height * width
    is_alike = is_channels_last(grad) or pixels * (stage.c_in + stage.c_out) <= stage.weights
    is_float = grad.dtype == torch.float32
    return is_alike and is_float and pixels >= MOST_PANEL and gradient_layer(stage) is not None


def _is_direct(x: Tensor) -> bool:
    n, _, height, width = x.shape
    return x.dtype == torch.float32 and n * height * width >= MOST_PANEL and is_channels_last(x)


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stage: Stage) -> Tensor:
    """Return the result [N, C_out, H, W] of a stage that `fits` x [N, C_in, H, W].

    `weight`: C_out fan-in numbers, contiguous; `bias` [C_out] or None.
    """
    layer = packed_layer(stage)
    assert layer is not None
    packed = torch.empty(stage.weights, dtype=torch.float32, device="cpu")
    row = stage.fan_in * layer.filter_step
    arguments = weight.data_ptr(), packed.data_ptr(), layer.units.ctypes.data, stage.fan_in, row
    threads, holds = _threads(PACKING * stage.weights), (weight, packed, layer)
    run_parts(loops.pack_filters, arguments, len(layer.units), threads, 0, holds)
    if bias is not None and layer.windows > 1:
        bias = bias.view(layer.each, layer.windows).t().contiguous()
    return _run(x, packed, bias, stage, is_gradient=False)


def input_grad(grad: Tensor, weight: Tensor, stage: Stage) -> Tensor:
    """Return the gradient [N, C_in, H, W] by the input, where it `fits_gradient`."""
    layout = memory_format(grad)
    grad = grad.contiguous(memory_format=torch.channels_last)
    return _run(grad, weight, None, stage, is_gradient=True).contiguous(memory_format=layout)


def _run(
    x: Tensor, weights: Tensor, biases: Tensor | None, stage: Stage, is_gradient: bool
) -> Tensor:
    n, _, height, width = x.shape
    pixels = n * height * width
    threads = _threads(stage.weights * pixels)
    plan = plan_for(stage, pixels, is_gradient)
    shape = n, stage.c_in if is_gradient else stage.c_out, height, width
    y = torch.empty(shape, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
    memory = scratch_memory(threads * plan.scratch)
    arguments = (
        x.data_ptr(),
        y.data_ptr(),
        memory.data_ptr(),
        weights.data_ptr(),
        0 if biases is None else biases.data_ptr(),
        plan.address,
        pixels,
    )
    holds = x, y, memory, weights, biases, plan
    run_parts(loops.run_panels, arguments, plan.tiles, threads, 4 * plan.scratch, holds)
    return y


def _threads(operations: int) -> int:
    return 1 if operations < SHARED_WORK else torch.get_num_threads()


@lru_cache(maxsize=512)
def plan_for(stage: Stage, pixels: int, is_gradient: bool) -> PanelPlan:
    """Return the plan of a stage, or of its gradient by the input, for a number of pixels."""
    layer = gradient_layer(stage) if is_gradient else packed_layer(stage)
    assert layer is not None
    c_in, c_out = stage.c_in, stage.c_out
    if is_gradient:
        c_in, c_out = c_out, c_in
    tile = _tile(pixels, c_in, {PANELS[block.panel].pixels for block in layer.blocks})
    first_runs = np.cumsum([0, *(len(block.runs) for block in layer.blocks)]).tolist()
    blocks = np.array(
        [block.words(first) for first, block in zip(first_runs, layer.blocks, strict=False)]
    )
    runs = np.array([run for block in layer.blocks for run in block.runs])
    words = np.zeros(loops.PANEL_PLAN_WORDS, dtype=np.int64)
    for number, word in {
        loops.PANEL_C_IN: c_in,
        loops.PANEL_C_OUT: c_out,
        loops.PANEL_TILE: tile,
        loops.PANEL_BLOCKS: blocks.ctypes.data,
        loops.PANEL_BLOCK_COUNT: len(blocks),
        loops.PANEL_RUNS: runs.ctypes.data,
        loops.PANEL_WINDOWS: layer.windows,
        loops.PANEL_EACH: layer.each,
    }.items():
        words[number] = word
    scratch = tile * c_out if layer.windows > 1 else 0
    return PanelPlan(ceil(pixels / tile), scratch, words, (blocks, runs))


def _tile(pixels: int, c_in: int, panels: set[int]) -> int:
    """Return the pixels of a tile, for which the steps of panels compute few pixels twice.

    >>> _tile(49, 512, {6}), _tile(3136, 64, {6, 8})
    (17, 24)
    """
    most = TILE
    if panels == {MOST_PANEL}:
        most = min(TILE, max(1, SOURCE_FLOATS // c_in // MOST_PANEL) * MOST_PANEL)
    step = min(panels)

    def computed(count: int) -> int:
        return count * (ceil(ceil(pixels / count) / step) * step + 1)

    fewest = ceil(pixels / most)
    counts = range(fewest, min(fewest + fewest // 2, fewest + SEARCHED) + 1)
    tile: int = max(MOST_PANEL, ceil(pixels / min(counts, key=computed)))
    return tile


# ---- blocks


class _Block(NamedTuple):
    """A block: its place in the result, the loop that computes it, and its runs, as words."""

    place: int
    panel: int
    runs: tuple[tuple[int, ...], ...]

    def words(self, first_run: int) -> list[int]:
        """Return the words of a block whose runs begin with a number."""
        return [self.place, self.place, self.panel, first_run, len(self.runs)]


class Layer(NamedTuple):
    """The blocks of a layer. Results of `windows` with `each` take turns; of 1 they stand in order.

    `units`: words of filters to pack, which are `filter_step` apart; none for a gradient.
    """

    blocks: tuple[_Block, ...]
    windows: int = 1
    each: int = 1
    units: Index = np.zeros((0, loops.PACK_WORDS), dtype=np.int64)
    filter_step: int = 1


@lru_cache(maxsize=512)
def packed_layer(stage: Stage) -> Layer | None:
    """Return the forward pass of a stage; None if the loops do not compute it.

    >>> layer = packed_layer(Stage(64, 64, 32, 32))
    >>> layer.windows, layer.each, {block.place // layer.each for block in layer.blocks}
    (2, 32, {0, 1})
    >>> packed_layer(Stage(64, 64, 32, 32, "blocked")).windows
    1
    """
    if not stage.is_pointwise or stage.shuffle_in or stage.shuffle_out:
        return None
    windows = sorted(stage.windows, key=lambda window: int(window.filters[0]))
    count, per_window = len(windows), len(windows[0].filters)
    if per_window % LANES or any(len(window.filters) != per_window for window in windows):
        return None
    numbers, filters = np.arange(count)[:, None], np.stack([window.filters for window in windows])
    if np.array_equal(filters, numbers * per_window + np.arange(per_window)):
        riffled, step = 1, 1
    elif np.array_equal(filters, numbers + np.arange(per_window) * count) and _take_turns(count):
        riffled, step = count, count
    else:
        return None
    blocks, units, begin = [], [], 0
    for number, window in enumerate(windows):
        first = number * per_window
        for place, vectors, lanes in _parts(per_window):
            width = vectors * lanes
            taps = [(int(c), begin + tap * width) for tap, c in enumerate(window.channels)]
            blocks.append(_Block(first + place, _panel(vectors, lanes), tuple(_runs(taps))))
            for vector in range(0, width, LANES):
                source = int(window.filters[place + vector]) * stage.fan_in
                units.append([source, begin + vector, width])
            begin += width * stage.fan_in
    return Layer(tuple(blocks), riffled, per_window, np.array(units, dtype=np.int64), step)


@lru_cache(maxsize=512)
def gradient_layer(stage: Stage) -> Layer | None:
    """Return the gradient by the input of a stage; None if the loops do not compute it well.

    >>> gradient_layer(Stage(512, 512, 256, 128)) is None
    False
    >>> gradient_layer(Stage(512, 512, 256, 172)) is None  # four channels at a time, and four taps
    True
    """
    if not stage.is_pointwise or stage.shuffle_in or stage.shuffle_out:
        return None
    backward = gradient_of(stage)
    blocks = []
    for readers, channels in backward.windows:
        # Channels whose weights are side by side in every filter that reads them.
        places = np.stack([backward.pairs[channel] for channel in channels])
        steps = np.diff(np.column_stack([channels, places]), axis=0)
        ends = np.flatnonzero((steps != 1).any(axis=1)) + 1
        for part in np.split(np.arange(len(channels)), ends):
            if len(part) % HALF:
                return None
            for place, vectors, lanes in _parts(len(part)):
                own = places[part[0]] + place
                taps = list(zip(readers.tolist(), own.tolist(), strict=True))
                first = int(channels[part[0]]) + place
                runs = tuple(_runs(taps))
                if lanes == HALF and len(taps) < SHORTEST * len(runs):
                    return None
                blocks.append(_Block(first, _panel(vectors, lanes), runs))
    return Layer(tuple(blocks))


def _take_turns(windows: int) -> bool:
    """Return whether there are loops for so many windows."""
    return windows in RIFFLES or windows % RIFFLES[-1] == 0


def _parts(count: int) -> Iterator[tuple[int, int, int]]:
    """Yield places, vectors and lanes of the blocks of adjacent results.

    >>> [*_parts(6 * LANES + HALF)][-1] == (6 * LANES, 1, HALF)
    True
    """
    begin, whole = 0, count // LANES
    most = max(panel.vectors for panel in PANELS)
    if whole:
        for part in np.array_split(np.arange(whole), ceil(whole / most)):
            yield begin, len(part), LANES
            begin += len(part) * LANES
    if count % LANES:
        yield begin, 1, HALF


def _panel(vectors: int, lanes: int) -> int:
    """Return the number of the panel of some vectors."""
    sizes = [(panel.vectors, panel.lanes) for panel in PANELS]
    return sizes.index((vectors, lanes))


def _runs(taps: Sequence[tuple[int, int]]) -> Iterator[tuple[int, ...]]:
    """Yield the words of runs of taps: the channels and the weights of one are equally far apart.

    `taps`: of each the channel of the source, and the place of the weight of the first result.

    >>> [*_runs([(6, 0), (7, 4), (0, 8), (1, 12)])]
    [(6, 1, 0, 4, 2), (0, 1, 8, 4, 2)]
    """
    begin = 0
    while begin < len(taps):
        steps = np.diff(np.array(taps[begin:]), axis=0)
        changes = np.flatnonzero((steps != steps[:1]).any(axis=1))
        count = int(changes[0]) + 1 if len(changes) else len(steps) + 1
        step = steps[0].tolist() if count > 1 else [0, 0]
        yield taps[begin][0], step[0], taps[begin][1], step[1], count
        begin += count
