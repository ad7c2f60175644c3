"""How a chain is cut into tiles, and its run on a CPU.

A tile is some rows of the result in one image. Backwards through the stages follows which rows of
every value it needs, the halo included: R rows of a result need (R - 1) s + k rows of its source.
All tiles of a chain have as many rows; the last one begins early and computes some rows of the one
before again, with the same bits. A tile below another one that was computed just before keeps the
rows that both need, and the layers above those do not compute them again. What lies outside an
image is zeros in the memory of a tile. A chain of pointwise stages alone sees an image as one
column of H W rows, and channels_last all images as one.

Values lie in the scratch memory of a thread as [channels, rows, columns], so that the results of
every stage stay in its caches. The input is read from its tensor, and the result written to its
own, where no zeros are needed around them; an input that the first stage reads one channel a
filter is copied one channel at a time. A depthwise 3x3 or 5x5 layer at stride 1 needs no zeros:
it does not read what lies outside the image. Nor are such rows computed for it by the pointwise
layers before it.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ifspace.kernels.chain import loops
from ifspace.kernels.chain.loops import LANES, LOOPS, MEMORY, STREAM, TENSOR
from ifspace.kernels.chain.stages import Chain, Convolution, Index
from ifspace.kernels.chain.threads import PARTS, run_words, scratch_memory, shares
from ifspace.kernels.tensors import memory_format

# Bytes of scratch memory for which the rows of a tile are chosen.
SCRATCH_BYTES: Final = 768 << 10
# The same for NCHW tensors: the images of most layers in one piece, since short pieces of channels
# come late from memory. With AVX-512 that was not measured.
NCHW_BYTES: Final = 2048 << 10 if LANES == 8 else SCRATCH_BYTES
# The same for channels_last tensors without halos, of which parts come into the cache beside it,
# and the fewest pixels that it has room for.
LAST_BYTES: Final = (128 if LANES == 8 else 256) << 10
LAST_PIXELS: Final = 64
# Tiles for each thread, if they then have so many pixels or more; fewer are enough for one each.
TILES_PER_THREAD: Final = 4
TILE_PIXELS: Final = 256
LEAST_PIXELS: Final = 64
# Elements of its channels that a window reads before the next window's turn.
CHUNK: Final = 6144
# Parts of the tiles for each of several threads, where some rows are kept from tile to tile.
LONG_PARTS: Final = 2
# Multiplications and additions, and elements moved, from which on threads share the work.
SHARED_WORK: Final = 500_000
# Elements behind the scratch memory that a vector may read, but never use.
MARGIN: Final = 8 * LANES
# Kernels that have depthwise loops.
DEPTHWISE: Final = frozenset(loop.side for loop in LOOPS) - {0}
# Pixels of the longest step of a loop.
MOST_STEP: Final = LANES * max(loop.vectors for loop in LOOPS)
INFINITY: Final = float("inf")
LIMITS: Final = {"relu": (0.0, INFINITY), "relu6": (0.0, 6.0)}
CODES: Final = {"silu": loops.SILU, "hardswish": loops.HARDSWISH}
KINDS: Final = {
    torch.float32: loops.FLOAT32,
    torch.bfloat16: loops.BFLOAT16,
    torch.float16: loops.FLOAT16,
}


@dataclass
class Value:
    """Where a value of a chain lies, and which of its rows a tile needs.

    For the tile that begins with row r of the result, these are `rows` rows, from row
    `factor` r - `before` of the image on. In the scratch memory channels are `channel` elements
    apart, and rows `row`: the width and `padding` zeros; element `at` is the first pixel. A value
    of which no row is needed is not computed. In a tile below another one the first `skip` rows are
    not computed: nobody reads them, or, where the value `is_kept`, they are moved. Where it
    `is_clipped`, rows outside the image are not computed either.
    """

    channels: int
    height: int
    width: int
    factor: int = 0
    before: int = 0
    rows: int = 0
    padding: int = 0
    has_zeros: bool = False
    place: int = MEMORY
    last_use: int = 0
    at: int = 0
    skip: int = 0
    is_kept: bool = False
    is_clipped: bool = False

    @property
    def row(self) -> int:
        """Elements from a row to the next."""
        return self.width + self.padding

    @property
    def channel(self) -> int:
        """Elements from a channel to the next: an odd number of vectors, one to run over."""
        vectors = ceil((self.padding + self.rows * self.row + LANES) / LANES)
        return LANES * (vectors | 1)

    @property
    def size(self) -> int:
        """Elements of the scratch memory; of a streamed value, those of one channel."""
        if self.place == TENSOR or not self.rows:
            return 0
        return self.channel * (1 if self.place == STREAM else self.channels)

    def need(self, factor: int, before: int, rows: int) -> bool:
        """Add to the rows that a tile needs; return whether the factor is that of other rows."""
        if not self.rows:
            self.factor, self.before, self.rows = factor, before, rows
            return True
        end = max(self.rows - self.before, rows - before)
        self.before = max(self.before, before)
        self.rows = end + self.before
        return self.factor == factor

    def rows_inside(self, top: int) -> int:
        """Return how many of the rows are inside the image, for a tile from row `top` on."""
        first = top * self.factor - self.before
        return min(first + self.rows, self.height) - max(first, 0)

    def is_inside(self, last_top: int) -> bool:
        """Return whether no tile, the last from row `last_top`, needs rows outside the image."""
        return all(self.rows_inside(top) == self.rows for top in (0, last_top))


@dataclass(frozen=True, eq=False)
class Plan:
    """A chain at a shape of its input, as the compiled loops read it.

    `tiles` in all; `scratch`: floats of memory for a thread; `work`:
    multiplications and additions, and elements moved; `plan`, `stages`, `limits`: the words
    and numbers of `loops.run`; `tables`: what the words are addresses of; `threads`: how many run
    it; `words`: the last ones of a call.
    """

    shape: tuple[int, int, int, int]
    tiles: int
    scratch: int
    work: int
    plan: Index
    stages: Index
    limits: NDArray[np.float32]
    tables: tuple[Index, ...]
    threads: int
    words: "array[int]" = field(init=False)

    def __post_init__(self) -> None:
        addresses = [table.ctypes.data for table in (self.plan, self.stages, self.limits)]
        # A thread that computes tiles below each other computes less.
        parts = LONG_PARTS if self.stages[:, loops.KEPT].any() else PARTS
        last = shares(self.tiles, self.threads, 4 * (self.scratch + MARGIN), parts)
        object.__setattr__(self, "words", array("q", (*addresses, *last)))


@lru_cache(maxsize=512)
def plan_for(
    chain: Chain,
    images: int,
    height: int,
    width: int,
    threads: int,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Plan:
    """Return the plan of a chain for an input [images, C_in, height, width].

    Raises: KernelError for an input that does not fit.
    """
    shape = chain.shape_of((images, chain.stages[0].c_in, height, width))
    room = SCRATCH_BYTES if channels_last else NCHW_BYTES
    if all(stage.is_pointwise for stage in chain.stages):
        height, width = height * width, 1
        if channels_last:
            channels = chain.stages[0].c_in + chain.stages[-1].c_out
            room = max(LAST_BYTES, 4 * channels * LAST_PIXELS)
            if images:  # the pixels of all images are adjacent
                images, height = 1, images * height
    is_direct = dtype == torch.float32 and not channels_last
    values, top_rows = _tile(chain, images, height, width, threads, is_direct, room)
    return _Words(chain, values, top_rows, dtype, channels_last).plan(images, shape, threads)


def run(x: Tensor, weights: Tensor, biases: Tensor | None, chain: Chain) -> Tensor:
    """Return the result [N, C_out, H', W'] of a chain for x [N, C_in, H, W], in the layout of x.

    x is float32, bfloat16 or float16; `weights` and `biases` are float32.
    """
    n, _, height, width = x.shape
    layout, dtype = memory_format(x), x.dtype
    x = x.contiguous(memory_format=layout)
    is_last = layout == torch.channels_last
    plan = plan_for(chain, n, height, width, torch.get_num_threads(), dtype, is_last)
    if plan.shape == x.shape:
        y = torch.empty_like(x)
    else:
        y = torch.empty(plan.shape, dtype=dtype, device="cpu", memory_format=layout)
    memory = scratch_memory(plan.threads * (plan.scratch + MARGIN))
    pointers = (
        x.data_ptr(),
        y.data_ptr(),
        memory.data_ptr(),
        weights.data_ptr(),
        0 if biases is None else biases.data_ptr(),
    )
    holds = x, y, memory, weights, biases, plan
    run_words(loops.run, array("q", pointers) + plan.words, plan.threads, holds)
    return y


# ---- the geometry of a tile


def _tile(
    chain: Chain, images: int, height: int, width: int, threads: int, is_direct: bool, room: int
) -> tuple[list[Value], int]:
    """Return the values of a chain for tiles of a good size, and the rows of a tile.

    `room`: bytes that they should take at the most.
    """
    rows = total = chain.sizes(height, width)[-1][0]
    count = 1
    while True:
        rows = ceil(total / count)
        values, alike = _values(chain, height, width, rows, is_direct)
        pixels = rows * values[-1].width
        least = LEAST_PIXELS if images * count < threads else TILE_PIXELS
        few = images * count < TILES_PER_THREAD * threads and pixels >= 2 * least
        large = _allocate(values) * 4 > room
        if rows == 1 or (count == 1 and not alike) or not (few or large):
            return values, rows
        count = ceil(total / (rows - 1))


def _values(
    chain: Chain, height: int, width: int, rows: int, is_direct: bool
) -> tuple[list[Value], bool]:
    """Return the values for tiles of some rows, and whether such tiles can be computed.

    `is_direct`: whether the loops can read and write the tensors, rather than copies. Where one
    value is needed at two factors, only a tile that is the whole image can.
    """
    channels = [chain.stages[0].c_in, *(stage.c_out for stage in chain.stages)]
    sizes = chain.sizes(height, width)
    values = [Value(c, *size) for c, size in zip(channels, sizes, strict=True)]
    alike = values[-1].need(1, 0, rows)
    for number in range(len(chain.stages), 0, -1):
        stage, value = chain.stages[number - 1], values[number]
        if not value.rows:
            continue
        source = values[chain.source_of(number)]
        alike &= source.need(
            value.factor * stage.stride,
            value.before * stage.stride + stage.padding,
            max(0, (value.rows - 1) * stage.stride + stage.kernel),
        )
        if not _masks(stage):
            source.padding = max(source.padding, stage.padding)
            source.has_zeros |= stage.padding > 0
        source.last_use = max(source.last_use, number)
        if stage.residual is not None:
            added = values[stage.residual]
            alike &= added.need(value.factor, value.before, value.rows)
            added.last_use = max(added.last_use, number)
    values[-1].last_use = len(chain.stages) + 1
    last_top = sizes[-1][0] - rows
    for number in range(len(chain.stages), 0, -1):
        stage = chain.stages[number - 1]
        if stage.kernel == stage.stride == 1:  # rows of equal length: one loop runs through them
            source = values[chain.source_of(number)]
            source.padding = max(source.padding, values[number].padding)
    _clip(chain, values, last_top)
    values[0].place = _input_place(chain, values, last_top, is_direct)
    # An activation runs through what was written: where tiles overlap, only in their own memory.
    is_final = chain.stages[-1].activation not in CODES
    if is_direct and is_final and _pixels(chain, values, len(chain.stages))[1] >= LANES:
        values[-1].place = TENSOR
    _skip(chain, values, rows, last_top)
    return values, alike


def _clip(chain: Chain, values: list[Value], last_top: int) -> None:
    """Find the values of which no rows outside the image are computed: those without zeros there.

    They are the ones that run through all pixels as one row.
    """
    for number, value in enumerate(values):
        if not (number and value.rows) or value.padding or value.is_inside(last_top):
            continue
        rows = min(value.rows_inside(top) for top in (0, last_top))
        is_one_row = chain.stages[number - 1].kernel == _pixels(chain, values, number)[0] == 1
        value.is_clipped = is_one_row and rows * value.row >= MOST_STEP


def _skip(chain: Chain, values: list[Value], rows: int, last_top: int) -> None:
    """Find what a tile below another one, of so many rows of the result, need not compute."""
    needed = [value.rows for value in values]  # the first row that is read
    needed[-1] = 0
    for number in range(len(chain.stages), 0, -1):
        stage, value = chain.stages[number - 1], values[number]
        if not value.rows:
            continue
        halo = value.rows - value.factor * rows
        skip = max(needed[number], halo)
        runs, _ = _pixels(chain, values, number)
        # The last step of a loop may begin early, but not in rows that are not computed.
        computed = (value.rows_inside(last_top) if value.is_clipped else value.rows) - skip
        is_long = (computed - 1) * value.row + value.width >= MOST_STEP
        is_alone = value.place == MEMORY and number < len(chain.stages)
        if is_alone and runs == 1 and is_long and stage.activation not in CODES:
            value.skip, value.is_kept = skip, needed[number] < halo
        source = chain.source_of(number)
        shift = values[source].before - value.before * stage.stride - stage.padding
        needed[source] = min(needed[source], value.skip * stage.stride + shift)
        if stage.residual is not None:
            shift = values[stage.residual].before - value.before
            needed[stage.residual] = min(needed[stage.residual], value.skip + shift)
    if values[0].place == MEMORY:
        values[0].skip = needed[0]


def _input_place(chain: Chain, values: list[Value], last_top: int, is_direct: bool) -> int:
    """Return where the input of a tile is read."""
    if not is_direct:
        return MEMORY
    numbers = [number for number, value in enumerate(values) if number and value.rows]
    readers = [number for number in numbers if chain.source_of(number) == 0]
    adders = [number for number in numbers if chain.stages[number - 1].residual == 0]

    def is_inside(number: int) -> bool:
        return values[number].is_clipped or values[number].is_inside(last_top)

    def is_direct_reader(number: int) -> bool:
        stage = chain.stages[number - 1]
        if _masks(stage):
            return True
        inside = values[0].is_inside(last_top) or (stage.kernel == 1 and is_inside(number))
        return inside and not values[0].padding and stage.stride == 1 and is_exact(number)

    # Vectors that end where a row ends read nothing behind the tensor; at a stride they do.
    def is_exact(number: int) -> bool:
        return _pixels(chain, values, number)[1] >= LANES

    inside = all(map(is_inside, adders))
    stages = [chain.stages[number - 1] for number in readers]
    if inside and all(map(is_exact, adders)) and all(map(is_direct_reader, readers)):
        return TENSOR
    if len(readers) == 1 and stages[0].fan_in == 1 and inside and all(map(is_exact, adders)):
        return STREAM
    return MEMORY


def _is_depthwise(stage: Convolution) -> bool:
    """Return whether a depthwise loop can compute a stage."""
    return stage.stride == 1 and stage.kernel in DEPTHWISE and stage.is_depthwise


def _masks(stage: Convolution) -> bool:
    """Return whether a stage reads nothing outside the image, so that no zeros are needed there."""
    return loops.MASKED and _is_depthwise(stage) and stage.padding <= stage.kernel // 2


def _pixels(chain: Chain, values: list[Value], number: int) -> tuple[int, int]:
    """Return in how many rows of how many pixels a stage runs: in one, if rows are alike."""
    stage, value = chain.stages[number - 1], values[number]
    rows = {value.row, values[chain.source_of(number)].row}
    if stage.residual is not None:
        added = values[stage.residual]
        rows.add(added.width if stage.residual == 0 and added.place != MEMORY else added.row)
    if stage.stride == 1 and len(rows) == 1 and not _masks(stage):
        return 1, (value.rows - 1) * value.row + value.width
    return value.rows, value.width


def _allocate(values: list[Value]) -> int:
    """Give every value its place in the scratch memory, and return the memory's size."""
    placed: list[tuple[int, int, int, int]] = []  # begin, end, first use, last use
    for number, value in enumerate(values):
        if not value.size:
            continue
        begin = 0
        first_use, last_use = (0, len(values)) if value.is_kept else (number, value.last_use)
        for start, end, first, last in sorted(placed):
            if first <= last_use and first_use <= last and start < begin + value.size:
                begin = max(begin, end)
        value.at = begin + value.padding
        placed.append((begin, begin + value.size, first_use, last_use))
    return max((end for _, end, _, _ in placed), default=0)


# ---- the words of the compiled loops


@dataclass
class _Words:
    """Writes the words of a chain whose values are placed."""

    chain: Chain
    values: list[Value]
    rows: int
    dtype: torch.dtype
    channels_last: bool
    tables: list[Index] = field(default_factory=list)

    def plan(self, images: int, shape: tuple[int, int, int, int], threads: int) -> Plan:
        """Return the plan for some threads, of which small work takes one."""
        first, last = self.values[0], self.values[-1]
        tiles = ceil(last.height / self.rows)
        words = {
            loops.TILES: tiles,
            loops.TILE_ROWS: self.rows,
            loops.HEIGHT: last.height,
            loops.STAGES: len(self._numbers),
            loops.INPUT_IMAGE: first.channels * first.height * first.width,
            loops.INPUT_CHANNEL: first.height * first.width,
            loops.INPUT_CHANNELS: first.channels,
            loops.INPUT_HEIGHT: first.height,
            loops.INPUT_WIDTH: first.width,
            loops.COPY: first.place,
            loops.COPY_AT: first.at,
            loops.COPY_CHANNEL: first.channel,
            loops.COPY_ROW: first.row,
            loops.COPY_PADDING: first.padding,
            loops.COPY_ROWS: first.rows,
            loops.COPY_FACTOR: first.factor,
            loops.COPY_BEFORE: first.before,
            loops.COPY_SKIP: first.skip,
            loops.OUTPUT_IMAGE: last.channels * last.height * last.width,
            loops.OUTPUT_CHANNEL: last.height * last.width,
            loops.OUTPUT_CHANNELS: last.channels,
            loops.OUTPUT_WIDTH: last.width,
            loops.STAGED: last.place == MEMORY,
            loops.STAGED_AT: last.at,
            loops.STAGED_CHANNEL: last.channel,
            loops.STAGED_ROW: last.row,
            loops.KIND: KINDS[self.dtype],
            loops.SIZE: self.dtype.itemsize,
            loops.CHANNELS_LAST: self.channels_last,
        }
        rows = list(self._stages())
        if self.channels_last:
            calls = sum(
                row[loops.BLOCK_COUNT] * ceil(row[loops.COUNT] / row[loops.CHUNK]) for row in rows
            )
            line = loops.LINE * calls
            for word, value, factor in (
                (loops.INPUT_SHARE, first, first.factor),
                (loops.OUTPUT_SHARE, last, 1),
            ):
                elements = self.rows * factor * value.width * value.channels
                words[word] = ceil(elements * self.dtype.itemsize / line) * loops.LINE
        stages = (self.chain.stages[number - 1] for number in self._numbers)
        scratch = _allocate(self.values)
        depthwise = [
            number for number in self._numbers if _is_depthwise(self.chain.stages[number - 1])
        ]
        words[loops.ZEROS_AT] = scratch
        words[loops.ZEROS] = zeros = max(
            (
                self.values[self.chain.source_of(number)].width
                + 2 * self.chain.stages[number - 1].padding
                for number in depthwise
            ),
            default=0,
        )
        limits = [LIMITS.get(stage.activation or "", (-INFINITY, INFINITY)) for stage in stages]
        work = images * self._work()
        return Plan(
            shape,
            images * tiles,
            scratch + zeros,
            work,
            _row(words, loops.PLAN_WORDS),
            np.stack(rows),
            np.array(limits, dtype=np.float32),
            tuple(self.tables),
            1 if work < SHARED_WORK else threads,
        )

    @property
    def _numbers(self) -> list[int]:
        """The numbers of the stages that are computed."""
        return [number for number, value in enumerate(self.values) if number and value.rows]

    def _work(self) -> int:
        """Return the multiplications and additions of an image, and the elements moved."""
        sizes = [value.height * value.width for value in self.values]
        macs = (
            stage.weights * size for stage, size in zip(self.chain.stages, sizes[1:], strict=True)
        )
        moved = (value.channels * size for value, size in zip(self.values, sizes, strict=True))
        return sum(macs) + 4 * sum(moved)

    def _stages(self) -> Iterator[Index]:
        weight = bias = 0
        for number, stage in enumerate(self.chain.stages, 1):
            if number in self._numbers:
                yield _row(dict(self._stage(number, stage, weight, bias)), loops.STAGE_WORDS)
            weight, bias = weight + stage.weights, bias + stage.c_out

    def _stage(
        self, number: int, stage: Convolution, weight: int, bias: int
    ) -> Iterator[tuple[int, int]]:
        source, target = self.values[self.chain.source_of(number)], self.values[number]
        rows, count = _pixels(self.chain, self.values, number)
        added = None if stage.residual is None else self.values[stage.residual]
        from_tensor = added is not None and stage.residual == 0 and added.place != MEMORY
        yield from {
            loops.SOURCE: source.place,
            loops.SOURCE_AT: source.at,
            loops.SOURCE_ROW: source.row * stage.stride,
            loops.TARGET: target.place,
            loops.TARGET_AT: target.at,
            loops.TARGET_ROW: target.row,
            loops.ROWS: rows,
            loops.COUNT: count,
            loops.EXACT: count >= LANES,
            loops.ACTIVATION: CODES.get(stage.activation or "", loops.LIMITS),
            loops.PADDING: target.padding if target.has_zeros else 0,
            loops.CHANNELS: target.channels,
            loops.TARGET_CHANNEL: _pitch(target),
            loops.MAP_ROWS: target.rows,
            loops.MAP_HEIGHT: target.height,
            loops.MAP_WIDTH: target.width,
            loops.FACTOR: target.factor,
            loops.BEFORE: target.before,
            loops.SKIP: target.skip,
            loops.KEPT: target.is_kept,
            loops.CLIPPED: target.is_clipped,
            loops.BORDER: stage.padding,
            loops.SOURCE_HEIGHT: source.height,
            loops.SOURCE_WIDTH: source.width,
            loops.CHUNK: _chunk(stage, count) if rows == 1 and not _is_depthwise(stage) else count,
            loops.CHANGES: added is not None or stage.activation in LIMITS,
        }.items()
        added_channel = 0
        if added is not None:
            shift = added.before - target.before
            added_channel = added.height * added.width if from_tensor else added.channel
            yield loops.ADDED, TENSOR if from_tensor else MEMORY
            yield loops.ADDED_AT, added.at + shift * added.row
            yield loops.ADDED_ROW, added.width if from_tensor else added.row
        offsets, blocks = self._tables(
            stage, source, target, added_channel, (weight, bias), (rows, count)
        )
        yield loops.BLOCKS, self._address(blocks)
        yield loops.BLOCK_COUNT, len(blocks)
        yield loops.OFFSETS, self._address(offsets)

    def _tables(
        self,
        stage: Convolution,
        source: Value,
        target: Value,
        added_channel: int,
        first: tuple[int, int],
        pixels_run: tuple[int, int],
    ) -> tuple[Index, Index]:
        """Return the offsets of all taps, and the blocks.

        `first`: the stage's first weight and bias; `pixels_run`: rows, and pixels of a row.
        """
        shift = source.before - target.before * stage.stride - stage.padding
        window = np.arange(stage.kernel)
        pixels = ((window + shift)[:, None] * source.row + window - stage.padding).ravel()
        pitch = {TENSOR: source.height * source.width, STREAM: 0}.get(source.place, source.channel)
        output = _pitch(target)
        blocks, tables, tap = [], [], 0
        for family in stage.families:
            tables.append((family.channels[:, None] * pitch + pixels).ravel())
            taps = family.width * len(pixels)
            for part in family.parts():
                filters = family.filters[part].tolist()
                shifts = (family.first[part] - family.first[part.start]) * len(pixels)
                block = np.zeros(loops.BLOCK_WORDS, dtype=np.int64)
                block[loops.TAP] = tap + family.first[part.start] * len(pixels)
                block[loops.TAPS] = taps
                block[loops.CHANNEL] = family.channels[family.first[part.start]] if taps else 0
                block[loops.WEIGHT_STEP] = step = stage.weight_steps[filters[0]]
                fixed = taps if step == 1 and not shifts[-1] else 0
                loop, last = _loop(len(filters), fixed, stage, *pixels_run)
                block[loops.LOOP], block[loops.LAST_LOOP] = loop, last
                block[loops.STEP] = LOOPS[loop].vectors * LANES
                for index, (own, shift) in enumerate(zip(filters, shifts, strict=True)):
                    block[loops.SHIFT + index] = shift
                    block[loops.WEIGHT + index] = first[0] + stage.first_weights[own] - shift * step
                    block[loops.BIAS + index] = first[1] + own
                    block[loops.OUTPUT + index] = stage.rows[own] * output
                    block[loops.RESIDUAL + index] = own * added_channel
                blocks.append(block)
            tap += len(tables[-1])
        return np.concatenate(tables), np.stack(blocks)

    def _address(self, table: Index) -> int:
        """Keep a table, and return its address."""
        self.tables.append(np.ascontiguousarray(table))
        return self.tables[-1].ctypes.data


def _pitch(value: Value) -> int:
    """Return the elements from a channel to the next where a value is written."""
    return value.height * value.width if value.place == TENSOR else value.channel


def _row(words: dict[int, int], length: int) -> Index:
    row = np.zeros(length, dtype=np.int64)
    for place, word in words.items():
        row[place] = word
    return row


def _chunk(stage: Convolution, count: int) -> int:
    """Return how many pixels a stage of one row takes before the next window."""
    return min(count, max(144, CHUNK // stage.fan_in // 48 * 48))


def _loop(filters: int, taps: int, stage: Convolution, rows: int, count: int) -> tuple[int, int]:
    """Return which loop runs a block, and which its last pixels: the widest that fits, the least.

    One fits whose step has at most the pixels and the rows that there are.
    """
    is_depthwise = _masks(stage) or (_is_depthwise(stage) and rows > 1)
    side = stage.kernel if is_depthwise else 0
    fits = [
        (loop.taps, loop.vectors, loop.rows, number)
        for number, loop in enumerate(LOOPS)
        if (loop.filters, loop.stride, loop.side) == (filters, stage.stride, side)
        and (loop.vectors == 1 or loop.vectors * LANES <= count)
        and loop.taps in (0, taps)
        and loop.rows <= rows
    ]
    return max(fits)[-1], max(fit for fit in fits if fit[1] == 1)[-1]
