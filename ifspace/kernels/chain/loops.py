"""The compiled loops of a chain: explicit vectors, written as LLVM code.

Every stage is the same loop. A *block* is one, two or four filters that read the same channels; a
*tap* is an offset into the source, of one channel and one pixel of the kernel. For a few vectors of
adjacent pixels, or where rows are short of pixels in some rows, the results of a block stay in
registers while the loop runs over its taps: each vector of the source is loaded once for all
filters of the block, each weight is one scalar.

    for pixels p, in steps of a few vectors:
        y[filter][p] = bias[filter] for each filter of the block
        for tap t:  y[filter][p] += weight[filter][t] x[p + offset[t]]
        store y + residual within limits, which are those of a rectifier

Other activations run through the output of a stage afterwards: a function called inside the loop
would take the registers. No zeros are multiplied, and no array is compared with another for
overlap.

All that is compiled stands here: `ifspace.kernels.chain.compiled` keeps the machine code on disk,
under a key made of the code and the processor.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from llvmlite import ir

from ifspace.kernels.chain.compiled import Entry, processor
from ifspace.kernels.chain.translation import (
    INT64,
    Function,
    Piece,
    Turn,
    counting,
    declared,
    integer,
    slot,
    slot_with,
)

# Numbers of a vector: of a register with AVX-512, of two of ARM's, of one of AVX2.
LANES: Final = 16 if "+avx512f" in processor()[2].split(",") else 8
HALF: Final = LANES // 2
FLOAT: Final = ir.FloatType()
INT32: Final = ir.IntType(32)
VECTOR: Final = ir.VectorType(FLOAT, LANES)
# Whether the processor loads some elements of a vector; if not, LLVM writes a branch for each.
MASKED: Final = "+avx" in processor()[2].split(",")

# Kinds of elements of a tensor. Those of 16 bits are moved as integers.
FLOAT32, BFLOAT16, FLOAT16 = 0, 1, 2
ELEMENTS: Final = (FLOAT, ir.IntType(16), ir.IntType(16))
ELEMENT_BYTES: Final = (4, 2, 2)
NAMES: Final = ("f32", "i16", "i16")

# Words of a block: its first tap, and the number of taps of a filter; for each of up to four
# filters the weight of the block's first tap, the bias, the place in the output and in the
# residual, and the first tap that it has, which does not decrease from 0 on, and is 0 at a stride;
# its first channel, which is the only one of a streamed source; which of `LOOPS` runs it, the
# pixels of a step of it, and which runs a vector that is left; from the weight of a tap to that of
# the next, which is 1 for one filter.
TAP, TAPS, WEIGHT, BIAS, OUTPUT, RESIDUAL, SHIFT = 0, 1, 2, 6, 10, 14, 18
CHANNEL, LOOP, STEP, LAST_LOOP, WEIGHT_STEP = 22, 23, 24, 25, 26
BLOCK_WORDS: Final = 27


class Loop(NamedTuple):
    """A compiled loop: filters of a block, vectors of pixels, stride of the source.

    `taps`: how many each filter has, whose weights are adjacent; 0 for any number. `rows`: of the
    result that are computed together. `side`: rows and columns of the kernel of a depthwise loop,
    which has one channel; 0 of the others.
    """

    filters: int
    vectors: int
    stride: int = 1
    taps: int = 0
    rows: int = 1
    side: int = 0


LOOPS: Final = (
    Loop(4, 3),
    Loop(4, 2, taps=4),
    Loop(4, 2, taps=8),
    Loop(4, 2, taps=16),
    Loop(4, 1),
    Loop(4, 1, rows=3),
    Loop(2, 4),
    Loop(2, 1),
    Loop(2, 1, rows=4),
    Loop(1, 4),
    Loop(1, 2),
    Loop(1, 1),
    Loop(1, 1, rows=4),
    Loop(4, 1, 2),
    Loop(4, 1, 2, rows=2),
    Loop(2, 1, 2),
    Loop(2, 1, 2, rows=4),
    Loop(1, 1, 2),
    Loop(1, 1, 2, rows=4),
    *(Loop(1, 1, rows=rows, side=side) for side in (3, 5) for rows in (4, 1)),
)

# Codes of what is applied to the results. A rectifier is a pair of limits.
LIMITS, SILU, HARDSWISH = 0, 1, 2


# ---- pieces of LLVM code


def _at(builder: Any, base: Any, index: Any, kind: Any = FLOAT) -> Any:
    """Return the pointer to element `index` of the array at an address."""
    return builder.gep(builder.inttoptr(base, kind.as_pointer()), [index])


def _splat(builder: Any, scalar: Any, lanes: int = LANES) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    zeros = ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes)
    return builder.shuffle_vector(one, undefined, zeros)


def _constant(value: float) -> Any:
    return ir.Constant(VECTOR, [value] * LANES)


def _load(builder: Any, base: Any, index: Any, stride: int = 1) -> Any:
    """Return the vector of elements index, index + stride, ...; the stride is 1 or 2."""

    def load(at: Any) -> Any:
        vector = builder.load(builder.bitcast(_at(builder, base, at), VECTOR.as_pointer()))
        vector.align = 4
        return vector

    if stride == 1:
        return load(index)
    both = load(index), load(builder.add(index, integer(LANES)))
    even = ir.Constant(ir.VectorType(INT32, LANES), list(range(0, 2 * LANES, 2)))
    return builder.shuffle_vector(*both, even)


def _store(builder: Any, vector: Any, base: Any, index: Any) -> None:
    pointer = builder.bitcast(_at(builder, base, index), VECTOR.as_pointer())
    builder.store(vector, pointer).align = 4


def _mask(builder: Any, count: Any, first: Any = None) -> Any:
    """Return the mask of the elements of a vector whose numbers are from 0 on below a count.

    `first`: the number of its first element, 0 by default.
    """
    numbers = ir.Constant(ir.VectorType(INT32, LANES), list(range(LANES)))
    if first is not None:
        numbers = builder.add(numbers, _splat(builder, builder.trunc(first, INT32)))
    return builder.icmp_unsigned("<", numbers, _splat(builder, builder.trunc(count, INT32)))


def _read(builder: Any, base: Any, index: Any, mask: Any, kind: int = FLOAT32) -> Any:
    """Return a vector of numbers of a kind as floats, with zeros where a mask is not set.

    Nothing is read there.
    """
    vector = ir.VectorType(ELEMENTS[kind], LANES)
    pointer = builder.bitcast(_at(builder, base, index, ELEMENTS[kind]), vector.as_pointer())
    if mask is None:
        read = builder.load(pointer)
        read.align = ELEMENT_BYTES[kind]
    else:
        zeros = ir.Constant(vector, [0] * LANES)
        align = ir.Constant(INT32, ELEMENT_BYTES[kind])
        read = _call_masked(builder, "load", vector, kind, [pointer, align, mask, zeros])
    if kind == FLOAT16:
        return builder.fpext(builder.bitcast(read, ir.VectorType(ir.HalfType(), LANES)), VECTOR)
    if kind == BFLOAT16:  # the upper half of a float
        integers = ir.VectorType(INT32, LANES)
        upper = builder.shl(builder.zext(read, integers), ir.Constant(integers, [16] * LANES))
        return builder.bitcast(upper, VECTOR)
    return read


def _write(builder: Any, vector: Any, base: Any, index: Any, mask: Any, kind: int) -> None:
    """Write the floats of a vector, or those for which a mask is set, rounded to a kind."""
    vector = _rounded(builder, vector, kind)
    pointer = builder.bitcast(_at(builder, base, index, ELEMENTS[kind]), vector.type.as_pointer())
    if mask is None:
        builder.store(vector, pointer).align = ELEMENT_BYTES[kind]
    else:
        align = ir.Constant(INT32, ELEMENT_BYTES[kind])
        _call_masked(builder, "store", ir.VoidType(), kind, [vector, pointer, align, mask])


def _write_first(builder: Any, vector: Any, base: Any, index: Any, count: Any) -> None:
    """Write the first `count` floats of a vector, less than all.

    Processors with AVX-512 store under a mask in one step. Others of AMD take about twelve cycles:
    there four, two and one of them are stored.
    """
    if LANES > 8:
        _write(builder, vector, base, index, _mask(builder, count), FLOAT32)
        return
    at, size = slot_with(builder, index), HALF
    whole = slot_with(builder, vector)
    while size:
        is_part = builder.icmp_signed("!=", builder.and_(count, integer(size)), integer(0))
        with builder.if_then(is_part):
            own = builder.load(whole)
            part = builder.shuffle_vector(own, own, _numbers(range(size)))
            place = builder.load(at)
            pointer = builder.bitcast(_at(builder, base, place), part.type.as_pointer())
            builder.store(part, pointer).align = 4
            rest = [min(lane + size, LANES - 1) for lane in range(LANES)]
            builder.store(builder.shuffle_vector(own, own, _numbers(rest)), whole)
            builder.store(builder.add(place, integer(size)), at)
        size //= 2


def _numbers(lanes: Iterable[int]) -> Any:
    """Return the order of the elements of a vector that is mixed of others."""
    order = list(lanes)
    return ir.Constant(ir.VectorType(INT32, len(order)), order)


def _call_masked(builder: Any, name: str, result: Any, kind: int, arguments: list[Any]) -> Any:
    """Call a masked load or store of LLVM."""
    name = f"llvm.masked.{name}.v{LANES}{NAMES[kind]}.p0"
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(declared(builder, function, name), arguments)


def _rounded(builder: Any, vector: Any, kind: int) -> Any:
    """Return floats as elements of a kind; halfway between two, the even one."""
    shorts = ir.VectorType(ELEMENTS[kind], LANES)
    if kind == FLOAT16:
        half = builder.fptrunc(vector, ir.VectorType(ir.HalfType(), LANES))
        return builder.bitcast(half, shorts)
    if kind == BFLOAT16:
        integers = ir.VectorType(INT32, LANES)

        def constant(value: int) -> Any:
            return ir.Constant(integers, [value] * LANES)

        bits = builder.bitcast(vector, integers)
        odd = builder.and_(builder.lshr(bits, constant(16)), constant(1))
        bits = builder.add(builder.add(bits, constant(0x7FFF)), odd)
        is_number = builder.fcmp_ordered("ord", vector, vector)
        bits = builder.select(is_number, bits, constant(0x7FC00000))
        return builder.trunc(builder.lshr(bits, constant(16)), shorts)
    return vector


def _call(builder: Any, name: str, *vectors: Any) -> Any:
    """Call an intrinsic of LLVM on vectors of one type."""
    own = vectors[0].type
    kind = ir.FunctionType(own, [own] * len(vectors))
    name = f"llvm.{name}.v{own.count}f32"
    return builder.call(declared(builder, kind, name), vectors)


def _limited(builder: Any, vector: Any, low: Any, high: Any) -> Any:
    """Return a vector within limits; what is not a number stays so."""
    vector = builder.select(builder.fcmp_ordered("<", vector, low), low, vector)
    return builder.select(builder.fcmp_ordered(">", vector, high), high, vector)


def _silu(builder: Any, x: Any) -> Any:
    """Return x / (1 + exp(-x)).

    exp(z) = 2^n exp(r) with n = round(z / ln 2), |r| <= ln(2) / 2, ln 2 in two parts and exp(r) by
    its series to r^7, whose remainder is 6e-9. Added to 1.5 2^23 a number is rounded, and its
    lowest bits are those of an integer.
    """
    shift, integers = _constant(12582912.0), ir.VectorType(INT32, LANES)

    def constant(value: int) -> Any:
        return ir.Constant(integers, [value] * LANES)

    z = _limited(builder, builder.fneg(x), _constant(-88.0), _constant(89.0))
    shifted = _call(builder, "fmuladd", z, _constant(1.4426950408889634), shift)
    n = builder.fsub(shifted, shift)
    r = _call(builder, "fmuladd", n, _constant(-0.693359375), z)
    r = _call(builder, "fmuladd", n, _constant(2.12194440e-4), r)
    series = _constant(1 / 5040)
    for factor in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = _call(builder, "fmuladd", series, r, _constant(factor))
    exponent = builder.add(builder.bitcast(shifted, integers), constant(127))
    power = builder.bitcast(builder.shl(exponent, constant(23)), VECTOR)
    return builder.fdiv(x, builder.fadd(_constant(1.0), builder.fmul(series, power)))


def _hardswish(builder: Any, x: Any) -> Any:
    """Return x min(max(x + 3, 0), 6) / 6."""
    gate = _limited(builder, builder.fadd(x, _constant(3.0)), _constant(0.0), _constant(6.0))
    return builder.fdiv(builder.fmul(x, gate), _constant(6.0))


@contextmanager
def _rolled_range(builder: Any, count: Any) -> Iterator[Turn]:
    """Write a loop over indices below a number that LLVM does not unroll.

    It would need more registers for the places of the weights than there are.
    """
    with counting(builder, count) as turn:
        yield turn
    module = builder.module
    plain = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    name = module.add_metadata([plain, ir.Constant(INT64, len(module.metadata))])
    name.operands = (name, plain)  # the name of a loop begins with itself
    turn.next.terminator.set_metadata("llvm.loop", name)


class _BlockWriter:
    """Writes the loop over the pixels of a block; see `run_block` for the arguments."""

    def __init__(self, builder: Any, arguments: Any, loop: Loop) -> None:
        self.builder, self.loop = builder, loop
        (
            self.source,
            self.output,
            self.residual,
            weights,
            biases,
            self.block,
            offsets,
            self.rows,
            self.source_row,
            self.output_row,
            self.residual_row,
            self.begin,
            self.end,
            exact,
            changes,
            low,
            high,
            self.source_top,
            self.source_height,
            self.source_width,
            self.border,
            self.zeros,
        ) = arguments
        filters = range(loop.filters)
        self.offsets = builder.add(offsets, builder.mul(self.word(TAP), integer(8)))
        self.weights = [
            builder.add(weights, builder.mul(self.word(WEIGHT + i), integer(4))) for i in filters
        ]
        self.outputs = [self.word(OUTPUT + i) for i in filters]
        self.residuals = [self.word(RESIDUAL + i) for i in filters]
        self.biases = [self._bias(biases, i) for i in filters]
        self.weight_step = self.word(WEIGHT_STEP) if loop.filters > 1 else integer(1)
        self.limits = _splat(builder, low), _splat(builder, high)
        self.is_changed = builder.icmp_signed("!=", changes, integer(0))
        # Every filter has vectors in some rows: the row, and the place of the vector in it.
        self.parts = [(row, j * LANES) for row in range(loop.rows) for j in range(loop.vectors)]
        self.vectors = [(i, j) for i in filters for j in range(len(self.parts))]
        step = LANES * loop.vectors
        count = builder.add(builder.sub(self.end, self.begin), integer(step - 1))
        self.step, self.steps = step, builder.sdiv(count, integer(step))
        is_exact = builder.icmp_signed("!=", exact, integer(0))
        early = builder.sub(self.end, integer(step))
        self.latest = builder.select(is_exact, early, self.end)

    def word(self, number: int) -> Any:
        """Return a word of the block."""
        return self.builder.load(_at(self.builder, self.block, integer(number), INT64))

    def _bias(self, biases: Any, index: int) -> Any:
        builder = self.builder
        bias = slot_with(builder, ir.Constant(FLOAT, 0.0))
        with builder.if_then(builder.icmp_signed("!=", biases, integer(0))):
            builder.store(builder.load(_at(builder, biases, self.word(BIAS + index))), bias)
        return _splat(builder, builder.load(bias))

    def slots(self) -> dict[tuple[int, int], Any]:
        """Return room for the results, filters x vectors."""
        return {at: slot(self.builder, VECTOR) for at in self.vectors}

    def pixel(self, turn: Any) -> Any:
        """Return the first pixel of a step."""
        builder = self.builder
        pixel = builder.add(self.begin, builder.mul(turn, integer(self.step)))
        late = builder.icmp_signed(">", pixel, self.latest)
        return builder.select(late, self.latest, pixel)

    def weight(self, filter_index: int, place: Any) -> Any:
        """Return a vector of one weight."""
        builder = self.builder
        return _splat(builder, builder.load(_at(builder, self.weights[filter_index], place)))

    def read(self, offset: Any) -> list[Any]:
        """Return the vectors of the source at an offset."""
        builder, stride = self.builder, self.loop.stride
        vectors = []
        for row, column in self.parts:
            place = builder.add(offset, builder.mul(integer(row), self.source_row))
            place = builder.add(place, integer(column * stride))
            vectors.append(_load(builder, self.source, place, stride))
        return vectors

    def row_groups(self) -> Any:
        """Return the number of groups of rows that are computed together."""
        count = integer(self.loop.rows)
        return self.builder.sdiv(self.builder.add(self.rows, integer(self.loop.rows - 1)), count)

    def first_row(self, group: Any) -> Any:
        """Return the first row of a group: the last one begins early."""
        builder = self.builder
        row = builder.mul(group, integer(self.loop.rows))
        latest = builder.sub(self.rows, integer(self.loop.rows))
        return builder.select(builder.icmp_signed(">", row, latest), latest, row)

    def places(self, base: list[Any], row: Any, pixel: Any, pitch: Any) -> Iterator[Any]:
        """Yield the places of all vectors in a tensor, `pitch` elements from a row to the next."""
        builder = self.builder
        for i, j in self.vectors:
            own, column = self.parts[j]
            place = builder.mul(builder.add(row, integer(own)), pitch)
            place = builder.add(builder.add(place, pixel), integer(column))
            yield builder.add(base[i], place)

    def offset(self, tap: Any) -> Any:
        """Return the offset of a tap."""
        return self.builder.load(_at(self.builder, self.offsets, tap, INT64))

    def finish(self, sums: dict[tuple[int, int], Any], row: Any, pixel: Any) -> None:
        """Add the residual to the sums, limit them, and store them."""
        builder = self.builder
        with builder.if_then(self.is_changed):
            with builder.if_then(builder.icmp_signed("!=", self.residual, integer(0))):
                places = self.places(self.residuals, row, pixel, self.residual_row)
                for at, place in zip(self.vectors, places, strict=True):
                    own = _load(builder, self.residual, place)
                    builder.store(builder.fadd(builder.load(sums[at]), own), sums[at])
            for at in self.vectors:
                builder.store(_limited(builder, builder.load(sums[at]), *self.limits), sums[at])
        places = self.places(self.outputs, row, pixel, self.output_row)
        for at, place in zip(self.vectors, places, strict=True):
            _store(builder, builder.load(sums[at]), self.output, place)

    def write(self) -> None:
        """Write the loop over rows, pixels and taps."""
        builder, stride = self.builder, self.loop.stride
        sums, taps = self.slots(), self.word(TAPS)
        offsets = [self.offset(integer(tap)) for tap in range(self.loop.taps)]
        filters = range(self.loop.filters)
        shifts = [self.word(SHIFT + i) for i in filters]
        is_shifted = builder.icmp_signed("!=", shifts[-1], integer(0))
        with counting(builder, self.row_groups()) as group:
            row = self.first_row(group.index)
            with counting(builder, self.steps) as turn:
                pixel = self.pixel(turn.index)
                place = builder.mul(row, self.source_row)
                place = builder.add(place, builder.mul(pixel, integer(stride)))
                for i, j in self.vectors:
                    builder.store(self.biases[i], sums[i, j])
                if offsets:
                    for tap, offset in enumerate(offsets):
                        self.add_tap(sums, filters, integer(tap), builder.add(offset, place))
                elif stride > 1 or len(filters) == 1:
                    self.add_taps(sums, filters, (integer(0), taps), place)
                else:
                    with builder.if_then(is_shifted):
                        for i in filters[:-1]:
                            self.add_taps(sums, [i], (shifts[i], shifts[-1]), place)
                    self.add_taps(sums, filters, (shifts[-1], taps), place)
                    with builder.if_then(is_shifted):
                        for i in filters[1:]:
                            self.add_taps(sums, [i], (taps, builder.add(taps, shifts[i])), place)
                self.finish(sums, row, pixel)

    def add_taps(
        self, sums: dict[tuple[int, int], Any], filters: Sequence[int], span: Any, place: Any
    ) -> None:
        """Write the loop over the taps of a span, for some of the filters."""
        builder, (begin, end) = self.builder, span
        turns = _rolled_range if self.loop.filters > 1 else counting
        with turns(builder, builder.sub(end, begin)) as turn:
            tap = builder.add(begin, turn.index)
            self.add_tap(
                sums,
                filters,
                builder.mul(tap, self.weight_step),
                builder.add(self.offset(tap), place),
            )

    def add_tap(
        self, sums: dict[tuple[int, int], Any], filters: Sequence[int], weight: Any, place: Any
    ) -> None:
        """Write the products of the source from a place on with weights of some filters."""
        builder, read = self.builder, self.read(place)
        for i in filters:
            factor = self.weight(i, weight)
            for j, vector in enumerate(read):
                total = _call(builder, "fmuladd", factor, vector, builder.load(sums[i, j]))
                builder.store(total, sums[i, j])

    def write_depthwise(self) -> None:
        """Write the loop over rows and columns of a kernel on one channel.

        A row of the source is a part of several rows of the output, whose sums are in registers.
        The last rows may be computed twice. What lies outside the image is not read.
        """
        builder, sums, side = self.builder, self.slots(), self.loop.side
        weights = [self.weight(0, integer(tap)) for tap in range(side**2)]
        first = builder.add(self.source, builder.mul(self.offset(integer(0)), integer(4)))
        pitch = builder.mul(self.source_row, integer(4))
        with counting(builder, self.row_groups()) as group:
            row = self.first_row(group.index)
            places = []
            for i in range(self.loop.rows + side - 1):
                number = builder.add(row, integer(i))
                place = builder.add(first, builder.mul(number, pitch))
                if MASKED:
                    number = builder.add(number, self.source_top)
                    is_inside = builder.icmp_unsigned("<", number, self.source_height)
                    place = builder.select(is_inside, place, self.zeros)
                places.append(place)

            def step(pixel: Any, masks: list[Any]) -> None:
                self.write_step(sums, weights, places, row, pixel, masks)

            if side == 3:
                self.write_edges(step)
            else:
                with counting(builder, self.steps) as turn:
                    pixel = self.pixel(turn.index)
                    step(pixel, self.column_masks(pixel))

    def write_edges(self, step: Callable[[Any, list[Any]], None]) -> None:
        """Write the steps of a row of a 3x3 kernel, of which only the first and last mask."""
        builder = self.builder
        before_last, begin = builder.sub(self.steps, integer(1)), integer(0)
        first_masks, last_masks = map(self.column_masks, (begin, self.latest))
        with builder.if_else(builder.icmp_signed(">", before_last, begin)) as (then, otherwise):
            with then:  # elements of the first and the last column of a kernel may be outside
                step(begin, [first_masks[0], None, None])
                with counting(builder, before_last, integer(1)) as turn:
                    step(builder.mul(turn.index, integer(LANES)), [None, None, None])
                step(self.latest, [None, None, last_masks[-1]])
            with otherwise:
                step(begin, first_masks)

    def write_step(
        self,
        sums: dict[tuple[int, int], Any],
        weights: list[Any],
        places: list[Any],
        row: Any,
        pixel: Any,
        masks: list[Any],
    ) -> None:
        """Write the sums of a vector of pixels in some rows."""
        builder, side = self.builder, self.loop.side
        for total in sums.values():
            builder.store(self.biases[0], total)
        for column, mask in enumerate(masks):
            for i, place in enumerate(places):
                read = _read(builder, place, builder.add(pixel, integer(column)), mask)
                for j in range(max(0, i - side + 1), min(self.loop.rows, i + 1)):
                    weight, total = weights[side * (i - j) + column], sums[0, j]
                    added = _call(builder, "fmuladd", weight, read, builder.load(total))
                    builder.store(added, total)
        self.finish(sums, row, pixel)

    def column_masks(self, pixel: Any) -> list[Any]:
        """Return which elements of a vector lie in the image, for each column of a kernel."""
        if not MASKED:
            return [None] * self.loop.side
        builder = self.builder
        first = builder.sub(pixel, self.border)
        places = [builder.add(first, integer(column)) for column in range(self.loop.side)]
        return [_mask(builder, self.source_width, place) for place in places]


def _write_block(builder: Any, arguments: Any, loop: Loop) -> None:
    writer = _BlockWriter(builder, arguments, loop)
    if loop.side:
        writer.write_depthwise()
    else:
        writer.write()


def _switch(builder: Any, code: Any, cases: Any, write: Any) -> None:
    """Write what a code chooses from: for case number n, `write` of it."""
    done = builder.append_basic_block("done")
    switch = builder.switch(code, done)
    for number, options in enumerate(cases):
        case = builder.append_basic_block(f"case{number}")
        switch.add_case(integer(number), case)
        builder.position_at_end(case)
        write(*options)
        builder.branch(done)
    builder.position_at_end(done)


@Piece
def run_block(builder: Any, *arguments: Any) -> None:
    """Compute the results of a block for the pixels `begin` to `end` of some rows by a loop.

    `arguments`: source, output, residual, weights, biases, block, offsets, rows, source_row,
    output_row, residual_row, begin, end, exact, changes, low, high, source_top, source_height,
    source_width, border, zeros, loop. Those up to `offsets` are addresses, of which those of the
    residual and the biases may be 0. `source_row` ...: elements from a row to the next. `exact`:
    whether the last step of a row begins early, so that it ends at `end`, instead of running over
    it. `changes`: whether a residual is added or results are limited to `low` ... `high`.
    `source_top`, `source_height`, `source_width`, `border`, `zeros`: for a depthwise loop the first
    row of the source, the size of its image, the padding, and the address of what is read instead
    of a row outside the image. `loop`: its number in `LOOPS`.
    """
    *arguments, number = arguments
    _switch(builder, number, LOOPS, lambda *loop: _write_block(builder, arguments, Loop(*loop)))


def _by_vector(builder: Any, count: Any, write: Callable[[Any, Any], None]) -> None:
    """Write a loop over the vectors of `count` elements: `write` where each begins.

    The last one may have less elements than a vector: then `write` gets their number, else None.
    """
    full = builder.sdiv(count, integer(LANES))
    with counting(builder, full) as turn:
        write(builder.mul(turn.index, integer(LANES)), None)
    end = builder.mul(full, integer(LANES))
    rest = builder.sub(count, end)
    with builder.if_then(builder.icmp_signed(">", rest, integer(0))):
        write(end, rest)


@Piece
def activate(builder: Any, address: Any, count: Any, kind: Any) -> None:
    """Apply the activation of a code to `count` floats from an address on."""
    is_silu = builder.icmp_signed("==", kind, integer(SILU))
    with builder.if_else(is_silu) as branches:
        for branch, function in zip(branches, (_silu, _hardswish), strict=True):

            def change(at: Any, rest: Any, function: Any = function) -> None:
                mask = None if rest is None else _mask(builder, rest)
                y = function(builder, _read(builder, address, at, mask))
                if rest is None:
                    _store(builder, y, address, at)
                else:
                    _write_first(builder, y, address, at, rest)

            with branch:
                _by_vector(builder, count, change)


@Piece
def word_at(builder: Any, address: Any, index: Any) -> Any:
    """Return word `index` of the array of 64-bit integers at an address."""
    return builder.load(_at(builder, address, index, INT64))


@Piece
def float_at(builder: Any, address: Any, index: Any) -> Any:
    """Return element `index` of the array of floats at an address."""
    return builder.load(_at(builder, address, index))


def _zeros(builder: Any, count: Any) -> Any:
    """Return a vector of zeros for a loop, as what LLVM does not know: it would call memset.

    `count`: a number below 2^62.
    """
    return _splat(builder, builder.uitofp(builder.lshr(count, integer(62)), FLOAT))


@Piece
def set_zero(builder: Any, address: Any, count: Any) -> None:
    """Set floats to zero, `count` of them from an address on."""
    zeros = _zeros(builder, count)

    def clear(at: Any, rest: Any) -> None:
        if rest is None:
            _store(builder, zeros, address, at)
        else:
            _write_first(builder, zeros, address, at, rest)

    _by_vector(builder, count, clear)


def _prefetching(writes: bool) -> Any:
    """Return the piece that brings bytes from an address on into the second cache."""

    @Piece
    def bring(builder: Any, address: Any, count: Any) -> None:
        place = ir.IntType(8).as_pointer()
        function = ir.FunctionType(ir.VoidType(), [place, INT32, INT32, INT32])
        own = declared(builder, function, "llvm.prefetch.p0")
        how = [ir.Constant(INT32, number) for number in (int(writes), 2, 1)]
        lines = builder.sdiv(builder.add(count, integer(LINE - 1)), integer(LINE))
        with counting(builder, lines) as turn:
            line = builder.add(address, builder.mul(turn.index, integer(LINE)))
            builder.call(own, [builder.inttoptr(line, place), *how])

    return bring


LINE: Final = 64  # bytes of a line of a cache
prefetch, prefetch_to_write = _prefetching(False), _prefetching(True)


@Piece
def copy_rows(builder: Any, source: Any, target: Any, rows: Any, width: Any, row: Any) -> None:
    """Copy rows of `width` floats to rows `row` floats apart, up to `LANES` zeros between them.

    Up to `LANES` - 1 floats behind the last row are zeros too.
    """
    lanes = integer(LANES)
    full = builder.sdiv(width, lanes)
    last = builder.mul(full, lanes)
    mask = _mask(builder, builder.sub(width, last))
    has_last = builder.icmp_signed(">", row, last)
    has_more = builder.icmp_signed(">", row, builder.add(last, lanes))
    with counting(builder, rows) as turn:
        read, written = builder.mul(turn.index, width), builder.mul(turn.index, row)
        with counting(builder, full) as column:
            at = builder.mul(column.index, lanes)
            vector = _load(builder, source, builder.add(read, at))
            _store(builder, vector, target, builder.add(written, at))
        at = builder.add(written, last)
        with builder.if_then(has_last):
            vector = _read(builder, source, builder.add(read, last), mask)
            _store(builder, vector, target, at)
        with builder.if_then(has_more):
            _store(builder, _constant(0.0), target, builder.add(at, lanes))


@Piece
def clear_gaps(builder: Any, address: Any, rows: Any, row: Any, count: Any) -> None:
    """Set `count` floats to zero, less than `LANES`, in rows `row` floats apart."""
    zeros = _zeros(builder, rows)
    with counting(builder, rows) as turn:
        _write_first(builder, zeros, address, builder.mul(turn.index, row), count)


def _copying(source_kind: int, target_kind: int) -> Any:
    """Return the piece that copies `count` numbers of a kind as another, address to address."""

    @Piece
    def copy(builder: Any, source: Any, target: Any, count: Any) -> None:
        def move(at: Any, mask: Any = None) -> None:
            vector = _read(builder, source, at, mask, source_kind)
            _write(builder, vector, target, at, mask, target_kind)

        full = builder.sdiv(count, integer(LANES))
        with counting(builder, full) as turn:
            move(builder.mul(turn.index, integer(LANES)))
        rest = builder.sub(count, builder.mul(full, integer(LANES)))
        with builder.if_then(builder.icmp_signed(">", rest, integer(0))):
            long = builder.icmp_signed(">", full, integer(0))
            with builder.if_else(long) as (then, otherwise):
                with then:  # a last vector that ends where the row ends
                    move(builder.sub(count, integer(LANES)))
                with otherwise:
                    move(integer(0), _mask(builder, rest))

    return copy


copy_row = _copying(FLOAT32, FLOAT32)
widen_bfloat16, widen_float16 = _copying(BFLOAT16, FLOAT32), _copying(FLOAT16, FLOAT32)
round_bfloat16, round_float16 = _copying(FLOAT32, BFLOAT16), _copying(FLOAT32, FLOAT16)


def _transposing(source_kind: int, target_kind: int) -> Any:
    """Return the piece that transposes a block of numbers of a kind into one of another.

    Of `rows` x `columns`, each of up to 16: rows are `source_row` elements apart, and those of the
    result `target_row`.
    """

    @Piece
    def transpose(builder: Any, *arguments: Any) -> None:
        rows, columns = arguments[2:4]
        sides = (builder.icmp_signed("==", side, integer(LANES)) for side in (rows, columns))
        with builder.if_else(builder.and_(*sides)) as (then, otherwise):
            for is_full, branch in ((True, then), (False, otherwise)):
                with branch:
                    _transpose_block(builder, arguments, source_kind, target_kind, is_full)

    return transpose


def _transpose_block(
    builder: Any, arguments: Any, source_kind: int, target_kind: int, is_full: bool
) -> None:
    """Write the transposition of a block; `is_full`: of as many rows and columns as fit."""
    source, source_row, rows, columns, target, target_row = arguments

    def row_of(number: int, count: Any, step: Any) -> Any:
        """Rows beyond the last are the last once more."""
        if is_full:
            return builder.mul(integer(number), step)
        last = builder.sub(count, integer(1))
        inside = builder.icmp_signed("<", integer(number), last)
        return builder.mul(builder.select(inside, integer(number), last), step)

    mask = None if is_full else _mask(builder, columns)
    vectors = [
        _read(builder, source, row_of(i, rows, source_row), mask, source_kind) for i in range(LANES)
    ]
    mask = None if is_full else _mask(builder, rows)
    for i, vector in reversed(list(enumerate(_transposed(builder, vectors)))):
        _write(builder, vector, target, row_of(i, columns, target_row), mask, target_kind)


def _transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """Return the columns of a square of vectors.

    Squares of four are transposed by interleaving, as processors do within 128 bits; then in turn
    the squares of pairs of vectors 4, 8 ... apart are exchanged.
    """
    kind = ir.VectorType(INT32, LANES)

    def mixed(first: Any, second: Any, order: list[int]) -> Any:
        return builder.shuffle_vector(first, second, ir.Constant(kind, order))

    def interleaved(first: Any, second: Any, size: int) -> list[Any]:
        """Return the lower and upper halves of all fours, of both in turn, so many at a time."""
        orders = (
            [
                source + four + half + begin + n
                for four in range(0, LANES, 4)
                for begin in range(0, 2, size)
                for source in (0, LANES)
                for n in range(size)
            ]
            for half in (0, 2)
        )
        return [mixed(first, second, order) for order in orders]

    fours = []
    for i in range(0, LANES, 4):
        (a, b), (c, d) = (interleaved(*vectors[j : j + 2], size=1) for j in (i, i + 2))
        fours += [*interleaved(a, c, size=2), *interleaved(b, d, size=2)]
    vectors, width = fours, 4
    while width < LANES:
        lanes = range(LANES)
        low = [lane if not lane & width else LANES + lane - width for lane in lanes]
        high = [lane + width if not lane & width else LANES + lane for lane in lanes]
        for i in lanes:
            if not i & width:
                pair = vectors[i], vectors[i + width]
                vectors[i], vectors[i + width] = mixed(*pair, low), mixed(*pair, high)
        width *= 2
    return vectors


transpose_float32 = _transposing(FLOAT32, FLOAT32)
transpose_from_bfloat16 = _transposing(BFLOAT16, FLOAT32)
transpose_from_float16 = _transposing(FLOAT16, FLOAT32)
transpose_to_bfloat16 = _transposing(FLOAT32, BFLOAT16)
transpose_to_float16 = _transposing(FLOAT32, FLOAT16)


# Words of a plan: how tiles lie in the tensors, and where the copy of the input's part lies. KIND
# and SIZE: of the tensors' elements; CHANNELS_LAST: whether the channels of a pixel are adjacent,
# where every block of filters brings a share of the next tile's input, and of where this tile's
# output will be written, into the caches: so many bytes. ZEROS: so many of them lie at ZEROS_AT.
(
    TILES,
    TILE_ROWS,
    HEIGHT,
    STAGES,
    INPUT_IMAGE,
    INPUT_CHANNEL,
    INPUT_CHANNELS,
    INPUT_HEIGHT,
    INPUT_WIDTH,
    COPY,
    COPY_AT,
    COPY_CHANNEL,
    COPY_ROW,
    COPY_PADDING,
    COPY_ROWS,
    COPY_FACTOR,
    COPY_BEFORE,
    OUTPUT_IMAGE,
    OUTPUT_CHANNEL,
    OUTPUT_CHANNELS,
    OUTPUT_WIDTH,
    STAGED,
    STAGED_AT,
    STAGED_CHANNEL,
    STAGED_ROW,
    KIND,
    SIZE,
    CHANNELS_LAST,
    INPUT_SHARE,
    OUTPUT_SHARE,
    COPY_SKIP,
    ZEROS,
    ZEROS_AT,
) = range(33)
PLAN_WORDS: Final = 33

# Words of a stage. SOURCE, TARGET and ADDED say where a value lies, _AT at which element of the
# scratch memory, _ROW how many elements its rows are apart. The first row of the stage's output is
# FACTOR times the tile's first row of the result, minus BEFORE. Below another tile its first SKIP
# rows are not computed: nobody reads them, or, KEPT, they are moved from where they were. CLIPPED:
# nor are rows outside the image. BORDER is the padding of the stage. CHANGES: whether the sums are
# not yet the results, for a residual is added or they have limits.
(
    SOURCE,
    SOURCE_AT,
    SOURCE_ROW,
    TARGET,
    TARGET_AT,
    TARGET_ROW,
    ADDED,
    ADDED_AT,
    ADDED_ROW,
    ROWS,
    COUNT,
    EXACT,
    CHUNK,
    BLOCKS,
    BLOCK_COUNT,
    OFFSETS,
    ACTIVATION,
    PADDING,
    CHANNELS,
    TARGET_CHANNEL,
    MAP_ROWS,
    MAP_HEIGHT,
    MAP_WIDTH,
    FACTOR,
    BEFORE,
    SKIP,
    KEPT,
    CLIPPED,
    BORDER,
    SOURCE_HEIGHT,
    SOURCE_WIDTH,
    CHANGES,
) = range(32)
STAGE_WORDS: Final = 32

# Where a value lies: nowhere, in the scratch memory, in the tensor, or, one channel at a time, in
# the scratch memory.
NOWHERE, MEMORY, TENSOR, STREAM = 0, 1, 2, 3


def _row_copier(bfloat16: Any, float16: Any) -> Any:
    """Return the function that copies `count` numbers, those of 16 bits by two other functions."""

    @Function
    def copy(source, target, count, kind):
        if kind == BFLOAT16:
            bfloat16(source, target, count)
        elif kind == FLOAT16:
            float16(source, target, count)
        else:
            copy_row(source, target, count)

    return copy


# Copy numbers of a kind as floats, and floats as numbers of a kind.
read_row = _row_copier(widen_bfloat16, widen_float16)
write_row = _row_copier(round_bfloat16, round_float16)


@Function
def read_pixels(source, channels, target, channel, count, kind):
    """Copy `count` pixels [count, channels] of a kind as floats [channels, count].

    `channel`: floats from a channel of the target to the next.
    """
    size = 4 if kind == FLOAT32 else 2
    rows, columns = min(LANES, count), min(LANES, channels)
    for begin in range(0, count, LANES):
        pixel = min(begin, count - rows)  # some of the last ones twice
        for start in range(0, channels, LANES):
            first = min(start, channels - columns)
            place = source + size * (pixel * channels + first)
            block = target + 4 * (first * channel + pixel)
            if kind == BFLOAT16:
                transpose_from_bfloat16(place, channels, rows, columns, block, channel)
            elif kind == FLOAT16:
                transpose_from_float16(place, channels, rows, columns, block, channel)
            else:
                transpose_float32(place, channels, rows, columns, block, channel)


@Function
def write_pixels(source, channel, target, channels, count, kind):
    """Copy floats [channels, count] as `count` pixels [count, channels] of a kind.

    `channel`: floats from a channel of the source to the next.
    """
    size = 4 if kind == FLOAT32 else 2
    rows, columns = min(LANES, channels), min(LANES, count)
    for begin in range(0, count, LANES):
        pixel = min(begin, count - columns)  # some of the last ones twice
        for start in range(0, channels, LANES):
            first = min(start, channels - rows)
            block = source + 4 * (first * channel + pixel)
            place = target + size * (pixel * channels + first)
            if kind == BFLOAT16:
                transpose_to_bfloat16(block, channel, rows, columns, place, channels)
            elif kind == FLOAT16:
                transpose_to_float16(block, channel, rows, columns, place, channels)
            else:
                transpose_float32(block, channel, rows, columns, place, channels)


@Entry
def read_images(x, target, channels, pixels, kind, channels_last, begin, end):
    """Copy parts `begin` to `end` of images of a kind as floats [image, channel, pixel].

    A part of a channels_last image is `LANES` pixels or the last ones, of any other a channel.
    """
    size = 4 if kind == FLOAT32 else 2
    if not channels_last:
        source, place = x + size * begin * pixels, target + 4 * begin * pixels
        read_row(source, place, (end - begin) * pixels, kind)
        return
    parts = (pixels + LANES - 1) // LANES
    for part in range(begin, end):
        image, pixel = part // parts, part % parts * LANES
        source = x + size * channels * (image * pixels + pixel)
        place = target + 4 * (image * channels * pixels + pixel)
        read_pixels(source, channels, place, pixels, min(LANES, pixels - pixel), kind)


@Function
def copy_tile(x, target, plan, first, rows):
    """Copy rows of a tile in all channels of a channels_last image, from `first` on."""
    row = word_at(plan, COPY_ROW)
    padding, width = word_at(plan, COPY_PADDING), word_at(plan, INPUT_WIDTH)
    height, channels = word_at(plan, INPUT_HEIGHT), word_at(plan, INPUT_CHANNELS)
    channel, kind = word_at(plan, COPY_CHANNEL), word_at(plan, KIND)
    pitch = word_at(plan, SIZE) * width * channels
    if padding == 0 and row == width and first >= 0 and first + rows <= height:
        read_pixels(x + first * pitch, channels, target, channel, rows * width, kind)
        return
    for index in range(channels):
        set_zero(target + 4 * (index * channel - padding), padding)
    for i in range(rows):
        place = target + 4 * i * row
        inside = 0 <= first + i < height
        if inside:
            read_pixels(x + (first + i) * pitch, channels, place, channel, width, kind)
        begin = width if inside else 0
        if row > begin:
            for index in range(channels):
                set_zero(place + 4 * (index * channel + begin), row - begin)


@Function
def write_tile(scratch, y, plan):
    """Copy a tile of the result from the scratch memory to the tensor."""
    rows, row, width = (
        word_at(plan, TILE_ROWS),
        word_at(plan, STAGED_ROW),
        word_at(plan, OUTPUT_WIDTH),
    )
    channel, channels = word_at(plan, STAGED_CHANNEL), word_at(plan, OUTPUT_CHANNELS)
    kind, size = word_at(plan, KIND), word_at(plan, SIZE)
    if row == width:  # rows without gaps: one long row
        width, rows = width * rows, 1
    source = scratch + 4 * word_at(plan, STAGED_AT)
    for i in range(rows):
        if word_at(plan, CHANNELS_LAST):
            target = y + size * i * width * channels
            write_pixels(source + 4 * i * row, channel, target, channels, width, kind)
            continue
        for index in range(channels):
            target = y + size * (index * word_at(plan, OUTPUT_CHANNEL) + i * width)
            write_row(source + 4 * (index * channel + i * row), target, width, kind)


@Function
def clear_columns(address, rows, row, count):
    """Set `count` floats to zero in some rows, which are `row` floats apart."""
    if count < LANES:
        clear_gaps(address, rows, row, count)
        return
    for i in range(rows):
        set_zero(address + 4 * i * row, count)


@Function
def copy_channel(x, target, plan, first, rows):
    """Copy rows of a tile in a channel, with zeros outside the image, from `first` on.

    Those of the next channel are brought into the cache.
    """
    kind, size = word_at(plan, KIND), word_at(plan, SIZE)
    row = word_at(plan, COPY_ROW)
    padding, width = word_at(plan, COPY_PADDING), word_at(plan, INPUT_WIDTH)
    begin = min(max(first, 0), first + rows)
    end = max(begin, min(first + rows, word_at(plan, INPUT_HEIGHT)))
    next_channel = x + size * word_at(plan, INPUT_CHANNEL)
    prefetch(next_channel + size * begin * width, size * (end - begin) * width)
    if padding == 0 and row == width and begin == first and end == first + rows:
        read_row(x + size * first * width, target, rows * width, kind)
        return
    set_zero(target - 4 * padding, padding)
    set_zero(target, (begin - first) * row)
    source, place = x + size * begin * width, target + 4 * (begin - first) * row
    if kind == FLOAT32 and row - width <= LANES:
        copy_rows(source, place, end - begin, width, row)
    else:
        for i in range(end - begin):
            read_row(source + size * i * width, place + 4 * i * row, width, kind)
        clear_columns(place + 4 * width, end - begin, row, row - width)
    set_zero(target + 4 * (end - first) * row, (first + rows - end) * row)


@Function
def activate_rows(target, stage):
    """Apply a stage's activation to its output."""
    for channel in range(word_at(stage, CHANNELS)):
        place = target + 4 * channel * word_at(stage, TARGET_CHANNEL)
        for row in range(word_at(stage, ROWS)):
            at = place + 4 * row * word_at(stage, TARGET_ROW)
            activate(at, word_at(stage, COUNT), word_at(stage, ACTIVATION))


@Function
def clear_edges(target, stage, first):
    """Set what lies outside the image to zero, in the channels of a stage's output."""
    rows, row = word_at(stage, MAP_ROWS), word_at(stage, TARGET_ROW)
    padding, width = word_at(stage, PADDING), word_at(stage, MAP_WIDTH)
    begin = min(max(first, 0), first + rows)
    end = max(begin, min(first + rows, word_at(stage, MAP_HEIGHT)))
    for channel in range(word_at(stage, CHANNELS)):
        place = target + 4 * channel * word_at(stage, TARGET_CHANNEL)
        set_zero(place - 4 * padding, padding)
        set_zero(place, (begin - first) * row)
        gaps = place + 4 * ((begin - first) * row + width)
        clear_columns(gaps, end - begin, row, row - width)
        set_zero(place + 4 * (end - first) * row, (first + rows - end) * row)


@Function
def keep_rows(target, stage, moved):
    """Move rows of a stage's output that the tile above has computed, up by `moved` rows."""
    row, count = word_at(stage, TARGET_ROW), word_at(stage, SKIP)
    for channel in range(word_at(stage, CHANNELS)):
        place = target + 4 * channel * word_at(stage, TARGET_CHANNEL)
        copy_row(place + 4 * moved * row, place, count * row)


@Function
def end_of_full_steps(block, begin, end):
    """Return the first of the pixels of a part for which one vector is enough, or the end."""
    step = word_at(block, STEP)
    if step <= LANES:
        return end
    rest = (end - begin) % step
    return end - rest if rest <= LANES else end


@Entry
def run(x, y, scratch, weights, biases, plan, stages, limits, begin, end):
    """Compute the tiles `begin` to `end` of a chain.

    `x`, `y`: the tensors; `scratch`: memory of this thread; `weights`, `biases`: of all stages;
    `plan`, `stages`: words; `limits`: two numbers a stage. All are addresses.
    """
    copy_at, size = scratch + 4 * word_at(plan, COPY_AT), word_at(plan, SIZE)
    zeros = scratch + 4 * word_at(plan, ZEROS_AT)
    set_zero(zeros, word_at(plan, ZEROS))
    top = 0
    for tile in range(begin, end):
        above = top
        image = tile // word_at(plan, TILES)
        top = tile % word_at(plan, TILES) * word_at(plan, TILE_ROWS)
        top = min(top, word_at(plan, HEIGHT) - word_at(plan, TILE_ROWS))
        x_image = x + size * image * word_at(plan, INPUT_IMAGE)
        row = word_at(plan, OUTPUT_WIDTH)
        if word_at(plan, CHANNELS_LAST):
            row *= word_at(plan, OUTPUT_CHANNELS)
        y_tile = y + size * (image * word_at(plan, OUTPUT_IMAGE) + top * row)
        # A vector that is copied while rows move does not reach into where they come from.
        follows = (
            tile > begin and top > above and (top - above) * word_at(plan, OUTPUT_WIDTH) >= LANES
        )
        first = top * word_at(plan, COPY_FACTOR) - word_at(plan, COPY_BEFORE)
        input_rows = word_at(plan, COPY_ROWS)
        if word_at(plan, COPY) == MEMORY:
            skip = word_at(plan, COPY_SKIP) if follows else 0
            rest = input_rows - skip
            below = copy_at + 4 * skip * word_at(plan, COPY_ROW)
            if word_at(plan, CHANNELS_LAST):
                copy_tile(x_image, below, plan, first + skip, rest)
            else:
                for channel in range(word_at(plan, INPUT_CHANNELS)):
                    source = x_image + size * channel * word_at(plan, INPUT_CHANNEL)
                    target = below + 4 * channel * word_at(plan, COPY_CHANNEL)
                    copy_channel(source, target, plan, first + skip, rest)
        input_share = word_at(plan, INPUT_SHARE) if tile + 1 < end else 0
        output_share = word_at(plan, OUTPUT_SHARE)
        next_row = word_at(plan, INPUT_WIDTH) * word_at(plan, INPUT_CHANNELS)
        next_input = x_image + size * (first + input_rows) * next_row
        next_output = y_tile
        for number in range(word_at(plan, STAGES)):
            stage = stages + 8 * STAGE_WORDS * number
            top_row = top * word_at(stage, FACTOR) - word_at(stage, BEFORE)
            source = scratch + 4 * word_at(stage, SOURCE_AT)
            if word_at(stage, SOURCE) == TENSOR:
                source = x_image + 4 * first * word_at(plan, INPUT_WIDTH)
            target = scratch + 4 * word_at(stage, TARGET_AT)
            if word_at(stage, TARGET) == TENSOR:
                target = y_tile
            added = 0
            if word_at(stage, ADDED) == MEMORY:
                added = scratch + 4 * word_at(stage, ADDED_AT)
            elif word_at(stage, ADDED) == TENSOR:
                added = x_image + 4 * top_row * word_at(plan, INPUT_WIDTH)
            low, high = float_at(limits, 2 * number), float_at(limits, 2 * number + 1)
            streamed = -1
            count, chunk = word_at(stage, COUNT), word_at(stage, CHUNK)
            first_pixel = 0
            if follows and word_at(stage, SKIP):
                first_pixel = word_at(stage, SKIP) * word_at(stage, TARGET_ROW)
                if word_at(stage, KEPT):
                    keep_rows(target, stage, (top - above) * word_at(stage, FACTOR))
            if word_at(stage, CLIPPED):
                width = word_at(stage, MAP_WIDTH)
                first_pixel = max(first_pixel, -top_row * width)
                count = min(count, (word_at(stage, MAP_HEIGHT) - top_row) * width)
            for part in range(first_pixel, count, chunk):
                for index in range(word_at(stage, BLOCK_COUNT)):
                    block = word_at(stage, BLOCKS) + 8 * BLOCK_WORDS * index
                    if word_at(stage, SOURCE) == STREAM and word_at(block, CHANNEL) != streamed:
                        streamed = word_at(block, CHANNEL)
                        channel = x_image + size * streamed * word_at(plan, INPUT_CHANNEL)
                        copy_channel(channel, copy_at, plan, first, input_rows)
                    if output_share:
                        prefetch(next_input, input_share)
                        prefetch_to_write(next_output, output_share)
                        next_input += input_share
                        next_output += output_share
                    end_of_part = min(count, part + chunk)
                    middle = end_of_full_steps(block, part, end_of_part)
                    for piece in range(2):  # not two calls, each of which would be a copy
                        start = middle if piece else part
                        stop = end_of_part if piece else middle
                        if start < stop:
                            run_block(
                                source,
                                target,
                                added,
                                weights,
                                biases,
                                block,
                                word_at(stage, OFFSETS),
                                word_at(stage, ROWS),
                                word_at(stage, SOURCE_ROW),
                                word_at(stage, TARGET_ROW),
                                word_at(stage, ADDED_ROW),
                                start,
                                stop,
                                word_at(stage, EXACT),
                                word_at(stage, CHANGES),
                                low,
                                high,
                                top_row - word_at(stage, BORDER),
                                word_at(stage, SOURCE_HEIGHT),
                                word_at(stage, SOURCE_WIDTH),
                                word_at(stage, BORDER),
                                zeros,
                                word_at(block, LAST_LOOP if piece else LOOP),
                            )
            if word_at(stage, ACTIVATION):
                activate_rows(target, stage)
            if word_at(stage, PADDING):
                clear_edges(target, stage, top_row)
        if word_at(plan, STAGED):
            write_tile(scratch, y_tile, plan)


run.seconds = 2

# ---- the gradient by the weights: dot products along the pixels

# Words of a block of dot products, of up to four filters with a run of taps: for each filter the
# place of its channel in the gradient, for each the place of the first product in the result; the
# first tap; where the sums lie; which of `DOTS` computes it.
DOT_GRAD, DOT_OUTPUT, DOT_TAP, DOT_SUMS, DOT_LOOP = 0, 4, 8, 9, 10
DOT_WORDS: Final = 11

# The loops that are compiled: filters, taps, stride.
DOTS: Final = tuple(
    sizes
    for sizes in (
        (4, 6, 1),
        (4, 4, 1),
        (4, 3, 1),
        (4, 1, 1),
        (2, 8, 1),
        (2, 6, 1),
        (2, 4, 1),
        (2, 1, 1),
        (1, 9, 1),
        (1, 8, 1),
        (1, 4, 1),
        (1, 1, 1),
        (4, 1, 2),
        (2, 1, 2),
        (1, 9, 2),
        (1, 1, 2),
    )
    if 2 * sizes[0] * sizes[1] <= 3 * LANES  # of 2 LANES registers, the sums take so many
)

# Words of a unit: its blocks and their number; the channels of x that it reads, for a copy with
# zeros around them.
UNIT_BLOCKS, UNIT_BLOCK_COUNT, UNIT_CHANNELS, UNIT_CHANNEL_COUNT = range(4)
UNIT_WORDS: Final = 4

# Words of the plan of a weight gradient. IMAGES: how many are rows of one call, where x is not
# copied; PITCH: elements from a channel of the copy to the next, which lies behind SUM_FLOATS sums.
(
    DOT_IMAGES,
    DOT_X_IMAGE,
    DOT_GRAD_IMAGE,
    DOT_ROWS,
    DOT_COUNT,
    DOT_CHUNK,
    DOT_X_ROW,
    DOT_GRAD_ROW,
    DOT_COPIES,
    DOT_SUM_FLOATS,
    DOT_PITCH,
    DOT_PADDING,
    DOT_HEIGHT,
    DOT_WIDTH,
    DOT_COPY_ROW,
    DOT_OFFSETS,
) = range(16)
DOT_PLAN_WORDS: Final = 16


def _totals(builder: Any, vectors: list[Any]) -> Any:
    """Return the vector whose element n is the sum of the elements of vector n.

    Pairs of vectors are added pair by pair of their elements, until one is left.
    """
    kind = ir.VectorType(INT32, LANES)
    even, odd = (ir.Constant(kind, list(range(start, 2 * LANES, 2))) for start in (0, 1))

    def add_pairs(first: Any, second: Any) -> Any:
        halves = (builder.shuffle_vector(first, second, half) for half in (even, odd))
        return builder.fadd(*halves)

    for _ in range(LANES.bit_length() - 1):
        if len(vectors) > 1 and len(vectors) % 2:
            vectors = [*vectors, _constant(0.0)]
        pairs = zip(vectors[::2], vectors[1::2], strict=True) if len(vectors) > 1 else [vectors * 2]
        vectors = [add_pairs(*pair) for pair in pairs]
    return vectors[0]


def _add_totals(builder: Any, vectors: list[Any], output: Any, places: list[Any]) -> None:
    """Add the sum of each vector to its element, as many from each place on as there are taps."""
    taps = len(vectors) // len(places)
    size = min(taps, LANES)
    runs = [
        (builder.add(place, integer(begin)), vectors[i * taps : (i + 1) * taps][begin:][:size])
        for i, place in enumerate(places)
        for begin in range(0, taps, size)
    ]
    together = LANES // size
    for number in range(0, len(runs), together):
        group, first = runs[number : number + together], 0
        totals = _totals(builder, [vector for _, own in group for vector in own])
        for place, own in group:
            few = ir.VectorType(FLOAT, len(own))
            elements = ir.VectorType(INT32, len(own))
            order = ir.Constant(elements, list(range(first, first + len(own))))
            pointer = builder.bitcast(_at(builder, output, place), few.as_pointer())
            before = builder.load(pointer)
            before.align = 4
            part = builder.shuffle_vector(totals, totals, order)
            builder.store(builder.fadd(before, part), pointer).align = 4
            first += len(own)


def _dot_loop(builder: Any, arguments: Any, filters: int, taps: int, stride: int) -> None:
    """Write the loop over the pixels of a block of dot products; see `run_dots`."""
    x, grad, output, sums, block, offsets, rows, x_row, grad_row, begin, end, first, last = (
        arguments
    )

    def word(number: int) -> Any:
        return builder.load(_at(builder, block, integer(number), INT64))

    offsets = builder.add(offsets, builder.mul(word(DOT_TAP), integer(8)))
    sums = builder.add(sums, builder.mul(word(DOT_SUMS), integer(4)))
    places = [builder.load(_at(builder, offsets, integer(t), INT64)) for t in range(taps)]
    grads = [word(DOT_GRAD + i) for i in range(filters)]
    products = [(i, t) for i in range(filters) for t in range(taps)]
    totals = {product: slot(builder, VECTOR) for product in products}
    for total in totals.values():
        builder.store(_constant(0.0), total)

    def add(row: Any, pixel: Any, mask: Any) -> None:
        above = builder.add(builder.mul(row, grad_row), pixel)
        below = builder.add(builder.mul(row, x_row), builder.mul(pixel, integer(stride)))

        def gradient(i: int) -> Any:
            at = builder.add(grads[i], above)
            return _load(builder, grad, at) if mask is None else _read(builder, grad, at, mask)

        def element(t: int) -> Any:
            at = builder.add(places[t], below)
            if mask is None or stride > 1:
                read = _load(builder, x, at, stride)
                return read if mask is None else builder.select(mask, read, _constant(0.0))
            return _read(builder, x, at, mask)

        # The fewer stay in registers, the others are read one after the other.
        if filters <= taps:
            held = [gradient(i) for i in range(filters)]
        else:
            held = [element(t) for t in range(taps)]
        for n in range(max(filters, taps)):
            read = element(n) if filters <= taps else gradient(n)
            for m, other in enumerate(held):
                total = totals[(m, n) if filters <= taps else (n, m)]
                builder.store(_call(builder, "fmuladd", other, read, builder.load(total)), total)

    count = builder.sub(end, begin)
    steps = builder.sdiv(count, integer(LANES))
    rest = builder.sub(count, builder.mul(steps, integer(LANES)))
    mask = _mask(builder, rest)
    has_rest = builder.icmp_signed(">", rest, integer(0))
    with counting(builder, rows) as row:
        with counting(builder, steps) as turn:
            add(row.index, builder.add(begin, builder.mul(turn.index, integer(LANES))), None)
        with builder.if_then(has_rest):
            add(row.index, builder.sub(end, rest), mask)
    # A sum of sums of a few pixels each: rounding errors grow with both counts, not their product.
    with builder.if_then(builder.icmp_signed("==", first, integer(0))):
        for number, total in enumerate(totals.values()):
            before = _load(builder, sums, integer(number * LANES))
            builder.store(builder.fadd(before, builder.load(total)), total)
    vectors = [builder.load(total) for total in totals.values()]
    is_last = builder.icmp_signed("!=", last, integer(0))
    with builder.if_else(is_last) as (then, otherwise):
        with then:
            places = [word(DOT_OUTPUT + i) for i in range(filters)]
            _add_totals(builder, vectors, output, places)
        with otherwise:
            for number, vector in enumerate(vectors):
                _store(builder, vector, sums, integer(number * LANES))


@Piece
def run_dots(builder: Any, *arguments: Any) -> None:
    """Add the products of the pixels `begin` to `end` of some rows to a block's sums.

    `arguments`: x, grad, output, sums, block, offsets, rows, x_row, grad_row, begin, end, first,
    last. Those up to `offsets` are addresses. Every product of a filter and a tap has a vector of
    sums: of zeros in the `first` call for a block, and added to the elements of the output in the
    `last`.
    """
    loop = builder.load(_at(builder, arguments[4], integer(DOT_LOOP), INT64))
    _switch(builder, loop, DOTS, lambda *sizes: _dot_loop(builder, arguments, *sizes))


@Function
def copy_padded(x, target, plan):
    """Copy a channel of x with zeros around it."""
    padding, row = word_at(plan, DOT_PADDING), word_at(plan, DOT_COPY_ROW)
    height, width = word_at(plan, DOT_HEIGHT), word_at(plan, DOT_WIDTH)
    set_zero(target, padding * row)
    for i in range(height):
        place = target + 4 * (padding + i) * row
        set_zero(place, padding)
        copy_row(x + 4 * i * width, place + 4 * padding, width)
        set_zero(place + 4 * (padding + width), padding)
    set_zero(target + 4 * (padding + height) * row, padding * row)


@Entry
def run_weight_gradient(x, grad, output, scratch, plan, units, images, begin, end):
    """Add the products of the units `begin` to `end` to the gradient by the weights.

    `x`, `grad`: tensors of some images; `output`: the result; `scratch`: memory of this thread;
    `plan`, `units`: words. All are addresses.
    """
    count, chunk = word_at(plan, DOT_COUNT), word_at(plan, DOT_CHUNK)
    copy_at = scratch + 4 * word_at(plan, DOT_SUM_FLOATS)
    for number in range(begin, end):
        unit = units + 8 * UNIT_WORDS * number
        blocks, block_count = word_at(unit, UNIT_BLOCKS), word_at(unit, UNIT_BLOCK_COUNT)
        channels = word_at(unit, UNIT_CHANNELS)
        step = word_at(plan, DOT_IMAGES)
        for image in range(0, images, step):
            rows = min(step, images - image) if step > 1 else word_at(plan, DOT_ROWS)
            source = x + 4 * image * word_at(plan, DOT_X_IMAGE)
            grad_image = grad + 4 * image * word_at(plan, DOT_GRAD_IMAGE)
            if word_at(plan, DOT_COPIES):
                for index in range(word_at(unit, UNIT_CHANNEL_COUNT)):
                    channel = source + 4 * word_at(channels, index)
                    copy_padded(channel, copy_at + 4 * index * word_at(plan, DOT_PITCH), plan)
                source = copy_at
            for part in range(0, count, chunk):
                for index in range(block_count):
                    run_dots(
                        source,
                        grad_image,
                        output,
                        scratch,
                        blocks + 8 * DOT_WORDS * index,
                        word_at(plan, DOT_OFFSETS),
                        rows,
                        word_at(plan, DOT_X_ROW),
                        word_at(plan, DOT_GRAD_ROW),
                        part,
                        min(count, part + chunk),
                        image + part == 0,
                        image + step >= images and part + chunk >= count,
                    )


# ---- the gradient by the weights of channels_last tensors: outer products of pixels


class Outer(NamedTuple):
    """A compiled loop of outer products: of filters, and vectors of `lanes` channels each."""

    filters: int
    vectors: int
    lanes: int = LANES


OUTERS: Final = tuple(
    loop
    for loop in (
        Outer(8, 3),
        Outer(8, 2),
        Outer(8, 1),
        Outer(4, 4),
        Outer(4, 2),
        Outer(4, 1),
        Outer(2, 4),
        Outer(2, 1),
        Outer(1, 4),
        Outer(1, 1),
        Outer(8, 3, HALF),
        Outer(8, 1, HALF),
        Outer(4, 5, HALF),
        Outer(4, 3, HALF),
        Outer(4, 1, HALF),
    )
    if 2 * loop.filters * loop.vectors <= 3 * LANES  # of 2 LANES registers, the sums take so many
)
MOST_OUTER: Final = max(loop.filters for loop in OUTERS)

# Words of a block of outer products: which of `OUTERS` computes it, the first channel of x, whether
# its sums are in the result and not in memory; of each filter its place in the gradient, and where
# its sums lie.
OUTER_LOOP, OUTER_X, OUTER_IN_RESULT, OUTER_GRAD = range(4)
OUTER_SUMS: Final = OUTER_GRAD + MOST_OUTER
OUTER_WORDS: Final = OUTER_SUMS + MOST_OUTER

# Words of a piece of the gradient: where its sums and its weights lie, up to `LANES` of them.
PIECE_SUMS, PIECE_OUTPUT, PIECE_COUNT = range(3)
PIECE_WORDS: Final = 3

# Words of the plan of such a gradient. The pixels are cut into PARTS with sums of their own, and
# the blocks into UNITS, whose first ones and the end are FIRST_BLOCKS; work number n is that of
# unit n % UNITS for part n // UNITS. All blocks of a work run through CHUNK pixels in turn.
(
    OUTER_C_IN,
    OUTER_C_OUT,
    OUTER_PARTS,
    OUTER_UNITS,
    OUTER_FIRST_BLOCKS,
    OUTER_BLOCKS,
    OUTER_CHUNK,
    OUTER_SUM_FLOATS,
    OUTER_PIECES,
) = range(9)
OUTER_PLAN_WORDS: Final = 9


def _outer_loop(builder: Any, arguments: Any, loop: Outer) -> None:
    """Write the loop over the pixels of a block of outer products; see `run_outer`."""
    x, grad, sums, block, x_row, grad_row, pixels, first = arguments
    kind = ir.VectorType(FLOAT, loop.lanes)

    def place(base: Any, number: int) -> Any:
        word = builder.load(_at(builder, block, integer(number), INT64))
        return builder.add(base, builder.mul(word, integer(4)))

    def pointer(base: Any, index: Any) -> Any:
        return builder.bitcast(_at(builder, base, index), kind.as_pointer())

    def load(base: Any, index: Any) -> Any:
        vector = builder.load(pointer(base, index))
        vector.align = 4
        return vector

    filters, vectors = range(loop.filters), range(loop.vectors)

    def vectors_of(filter_index: int) -> Iterator[tuple[Any, Any]]:
        """Yield the sums of a filter with the places where they are kept."""
        own = place(sums, OUTER_SUMS + filter_index)
        for j in vectors:
            yield totals[filter_index][j], pointer(own, integer(j * loop.lanes))

    x = place(x, OUTER_X)
    grads = [place(grad, OUTER_GRAD + i) for i in filters]
    totals = [[slot(builder, kind) for _ in vectors] for _ in filters]
    for total in (total for row in totals for total in row):
        builder.store(ir.Constant(kind, [0.0] * loop.lanes), total)
    with _rolled_range(builder, pixels) as turn:
        x_at, grad_at = builder.mul(turn.index, x_row), builder.mul(turn.index, grad_row)
        reads = [load(x, builder.add(x_at, integer(j * loop.lanes))) for j in vectors]
        for i in filters:
            factor = _splat(builder, builder.load(_at(builder, grads[i], grad_at)), loop.lanes)
            for j in vectors:
                total = builder.load(totals[i][j])
                builder.store(_call(builder, "fmuladd", factor, reads[j], total), totals[i][j])
    # As above, a sum of sums.
    with builder.if_then(builder.icmp_signed("==", first, integer(0))):
        for total, kept in (pair for i in filters for pair in vectors_of(i)):
            before = builder.load(kept, align=4)
            builder.store(builder.fadd(before, builder.load(total)), total)
    for total, kept in (pair for i in filters for pair in vectors_of(i)):
        builder.store(builder.load(total), kept, align=4)


@Piece
def run_outer(builder: Any, *arguments: Any) -> None:
    """Add the products of some pixels to the sums of a block, which are zeros before the `first`.

    `arguments`: x, grad, sums, block, x_row, grad_row, pixels, first. Those up to `block` are
    addresses; `x_row`, `grad_row`: elements from a pixel to the next.
    """
    number = builder.load(_at(builder, arguments[3], integer(OUTER_LOOP), INT64))
    _switch(builder, number, OUTERS, lambda *loop: _outer_loop(builder, arguments, Outer(*loop)))


@Entry
def run_outer_products(x, grad, output, sums, scratch, plan, pixels, kind, begin, end):
    """Compute the sums of the works `begin` to `end` of a gradient by the weights.

    `x` [pixels, C_in], `grad` [pixels, C_out]: of a kind; `output`: the result; `sums`: those of
    all parts of the pixels that are not in it; `scratch`: memory of this thread for a chunk of both
    as floats; `plan`: words.
    """
    c_in, c_out = word_at(plan, OUTER_C_IN), word_at(plan, OUTER_C_OUT)
    units, parts = word_at(plan, OUTER_UNITS), word_at(plan, OUTER_PARTS)
    chunk, size = word_at(plan, OUTER_CHUNK), 4 if kind == FLOAT32 else 2
    grad_copy = scratch + 4 * chunk * c_in
    for part in range(begin // units, (end + units - 1) // units):
        own = sums + 4 * part * word_at(plan, OUTER_SUM_FLOATS)
        first_blocks = word_at(plan, OUTER_FIRST_BLOCKS)
        first_block = word_at(first_blocks, max(begin - part * units, 0))
        blocks = word_at(first_blocks, min(end - part * units, units)) - first_block
        first_pixel, last_pixel = pixels * part // parts, pixels * (part + 1) // parts
        for pixel in range(first_pixel, last_pixel, chunk):
            count = min(chunk, last_pixel - pixel)
            x_at, grad_at = x + size * pixel * c_in, grad + size * pixel * c_out
            x_next, grad_next = x_at + 4 * c_in * count, grad_at + 4 * c_out * count
            ahead = 0  # pixels of the next chunk, a share of which is brought here by every block
            if kind == FLOAT32:
                ahead = min(chunk, last_pixel - pixel - count)
            else:
                read_row(x_at, scratch, count * c_in, kind)
                read_row(grad_at, grad_copy, count * c_out, kind)
                x_at, grad_at = scratch, grad_copy
            for index in range(blocks):
                block = word_at(plan, OUTER_BLOCKS) + 8 * OUTER_WORDS * (first_block + index)
                is_first = pixel == first_pixel
                target = output if word_at(block, OUTER_IN_RESULT) > 0 else own
                run_outer(x_at, grad_at, target, block, c_in, c_out, count, is_first)
                share = ahead * index // blocks
                more = ahead * (index + 1) // blocks - share
                prefetch(x_next + 4 * c_in * share, 4 * c_in * more)
                prefetch(grad_next + 4 * c_out * share, 4 * c_out * more)


@Piece
def add_part_vectors(
    builder: Any, sums: Any, step: Any, parts: Any, output: Any, count: Any
) -> None:
    """Write up to `LANES` floats: the sums of the vectors of all parts, `step` floats apart."""
    mask = _mask(builder, count)
    total = slot_with(builder, _read(builder, sums, integer(0), mask))
    with counting(builder, builder.sub(parts, integer(1))) as turn:
        at = builder.mul(builder.add(turn.index, integer(1)), step)
        added = builder.fadd(builder.load(total), _read(builder, sums, at, mask))
        builder.store(added, total)
    _write(builder, builder.load(total), output, integer(0), mask, FLOAT32)


@Entry
def add_parts(sums, output, plan, begin, end):
    """Write the pieces `begin` to `end` of a gradient: the sums of all parts of the pixels."""
    floats, parts = word_at(plan, OUTER_SUM_FLOATS), word_at(plan, OUTER_PARTS)
    for number in range(begin, end):
        piece = word_at(plan, OUTER_PIECES) + 8 * PIECE_WORDS * number
        own = sums + 4 * word_at(piece, PIECE_SUMS)
        target = output + 4 * word_at(piece, PIECE_OUTPUT)
        add_part_vectors(own, floats, parts, target, word_at(piece, PIECE_COUNT))


# ---- pointwise layers of channels_last tensors with windows that many filters read: no transposing


class Panel(NamedTuple):
    """A compiled loop over pixels: so many at a time, and vectors of `lanes` channels of a result.

    Every product of the two has a vector of sums in a register.
    """

    pixels: int
    vectors: int
    lanes: int = LANES


PANELS: Final = (
    *((Panel(6, 4), Panel(8, 3), Panel(8, 2)) if LANES == 16 else (Panel(4, 3), Panel(6, 2))),
    Panel(8, 1),
    Panel(8, 1, HALF),
)
MOST_PANEL: Final = max(panel.pixels for panel in PANELS)

# Words of a block of a panel: the place of its first channel in the result and in the biases, which
# of `PANELS` computes it, its first run and their number.
BLOCK_RESULT, BLOCK_BIAS, BLOCK_PANEL, BLOCK_RUN, BLOCK_RUNS = range(5)
PANEL_BLOCK_WORDS: Final = 5

# Words of a run: of taps whose channels of the source are equally far apart, and their vectors of
# weights too. The first of each, from one to the next, how many.
RUN_CHANNEL, RUN_CHANNEL_STEP, RUN_WEIGHT, RUN_WEIGHT_STEP, RUN_TAPS = range(5)
RUN_WORDS: Final = 5

# Words of the plan of such a layer. TILE pixels are computed at a time; where there are several
# WINDOWS the results of each stand together in the memory of a thread, EACH of them, and take turns
# in the tensor.
(
    PANEL_C_IN,
    PANEL_C_OUT,
    PANEL_TILE,
    PANEL_BLOCKS,
    PANEL_BLOCK_COUNT,
    PANEL_RUNS,
    PANEL_WINDOWS,
    PANEL_EACH,
) = range(8)
PANEL_PLAN_WORDS: Final = 8


def _panel_loop(builder: Any, arguments: Any, panel: Panel) -> None:
    """Write the loop over the pixels of a block; see `run_panel`."""
    x, weights, biases, y, block, runs, x_row, y_row, pixels = arguments
    kind = ir.VectorType(FLOAT, panel.lanes)
    rows, vectors = range(panel.pixels), range(panel.vectors)

    def word(base: Any, number: int) -> Any:
        return builder.load(_at(builder, base, integer(number), INT64))

    def address(base: Any, index: Any) -> Any:
        return builder.add(base, builder.mul(index, integer(4)))

    def pointer(base: Any, number: int) -> Any:
        return builder.bitcast(_at(builder, base, integer(number * panel.lanes)), kind.as_pointer())

    def load(base: Any, number: int) -> Any:
        vector = builder.load(pointer(base, number))
        vector.align = 4
        return vector

    y = address(y, word(block, BLOCK_RESULT))
    runs = builder.add(runs, builder.mul(word(block, BLOCK_RUN), integer(8 * RUN_WORDS)))
    run_count = word(block, BLOCK_RUNS)
    totals = [[slot(builder, kind) for _ in vectors] for _ in rows]
    starts = [slot_with(builder, ir.Constant(kind, [0.0] * panel.lanes)) for _ in vectors]
    with builder.if_then(builder.icmp_signed("!=", biases, integer(0))):
        own = address(biases, word(block, BLOCK_BIAS))
        for j in vectors:
            builder.store(load(own, j), starts[j])
    steps = builder.sdiv(builder.add(pixels, integer(panel.pixels - 1)), integer(panel.pixels))
    latest = builder.sub(pixels, integer(panel.pixels))
    with counting(builder, steps) as turn:
        pixel = builder.mul(turn.index, integer(panel.pixels))
        late = builder.icmp_signed(">", pixel, latest)
        pixel = builder.select(late, latest, pixel)
        for j in vectors:
            first = builder.load(starts[j])
            for i in rows:
                builder.store(first, totals[i][j])
        place = address(x, builder.mul(pixel, x_row))
        with counting(builder, run_count) as run_turn:
            run = builder.add(runs, builder.mul(run_turn.index, integer(8 * RUN_WORDS)))
            source = address(place, word(run, RUN_CHANNEL))
            factors = address(weights, word(run, RUN_WEIGHT))
            source_step = builder.mul(word(run, RUN_CHANNEL_STEP), integer(4))
            factor_step = builder.mul(word(run, RUN_WEIGHT_STEP), integer(4))
            with _rolled_range(builder, word(run, RUN_TAPS)) as tap:
                at = builder.add(source, builder.mul(tap.index, source_step))
                own = builder.add(factors, builder.mul(tap.index, factor_step))
                reads = [load(own, j) for j in vectors]
                for i in rows:
                    number = builder.load(_at(builder, at, builder.mul(integer(i), x_row)))
                    factor = _splat(builder, number, panel.lanes)
                    for j in vectors:
                        total = builder.load(totals[i][j])
                        builder.store(
                            _call(builder, "fmuladd", factor, reads[j], total), totals[i][j]
                        )
        target = address(y, builder.mul(pixel, y_row))
        for i in rows:
            own = address(target, builder.mul(integer(i), y_row))
            for j in vectors:
                builder.store(builder.load(totals[i][j]), pointer(own, j)).align = 4


@Piece
def run_panel(builder: Any, *arguments: Any) -> None:
    """Compute the results of a block for some pixels, `MOST_PANEL` of them or more.

    `arguments`: x, weights, biases, y, block, runs, x_row, y_row, pixels. Those up to `runs` are
    addresses, of which that of the biases may be 0; `x_row`, `y_row`: elements from a pixel to the
    next.
    """
    number = builder.load(_at(builder, arguments[4], integer(BLOCK_PANEL), INT64))
    _switch(builder, number, PANELS, lambda *panel: _panel_loop(builder, arguments, Panel(*panel)))


# How many rows of vectors are riffled at a time.
RIFFLES: Final = tuple(1 << power for power in range(1, LANES.bit_length()))


def _riffled(builder: Any, vectors: list[Any]) -> list[Any]:
    """Return the elements of vectors in turn: the first of each, then the second of each ...

    A riffle of the first half with the second takes the highest bit of an element's place to the
    lowest; after as many as the number of the vector has bits, its bits are the lowest ones.
    """
    kind, half = ir.VectorType(INT32, LANES), len(vectors) // 2
    orders = [
        ir.Constant(kind, [start + lane // 2 + lane % 2 * LANES for lane in range(LANES)])
        for start in (0, LANES // 2)
    ]
    for _ in range(len(vectors).bit_length() - 1):
        vectors = [
            builder.shuffle_vector(vectors[i], vectors[i + half], order)
            for i in range(half)
            for order in orders
        ]
    return vectors


def _riffle_loop(builder: Any, arguments: Any, rows: int) -> None:
    """Write the loop over the results of a pixel; see `riffle`."""
    source, target, windows, count = arguments
    with counting(builder, builder.sdiv(windows, integer(rows))) as part:
        first = builder.mul(part.index, integer(rows))
        with counting(builder, builder.sdiv(count, integer(LANES))) as turn:
            column = builder.mul(turn.index, integer(LANES))
            starts = [builder.mul(builder.add(first, integer(i)), count) for i in range(rows)]
            vectors = [_load(builder, source, builder.add(start, column)) for start in starts]
            place = builder.add(builder.mul(column, windows), first)
            step = windows if rows == LANES else integer(LANES)
            turns = _transposed if rows == LANES else _riffled
            for i, vector in enumerate(turns(builder, vectors)):
                at = builder.add(place, builder.mul(integer(i), step))
                _store(builder, vector, target, at)


@Piece
def riffle(builder: Any, *arguments: Any) -> None:
    """Write the results [windows, count] of a pixel as [count, windows].

    `arguments`: source, target, windows, count. `windows` is one of `RIFFLES` or a multiple of the
    largest, `count` one of `LANES`.
    """
    windows, most = arguments[2], integer(RIFFLES[-1])
    rows = builder.select(builder.icmp_signed("<", windows, most), windows, most)
    done = builder.append_basic_block("riffled")
    switch = builder.switch(rows, done)
    for rows in RIFFLES:
        case = builder.append_basic_block(f"riffle{rows}")
        switch.add_case(integer(rows), case)
        builder.position_at_end(case)
        _riffle_loop(builder, arguments, rows)
        builder.branch(done)
    builder.position_at_end(done)


@Entry
def run_panels(x, y, scratch, weights, biases, plan, pixels, begin, end):
    """Compute the tiles `begin` to `end` of a pointwise layer.

    `x` [pixels, C_in], `y` [pixels, C_out]; `scratch`: memory of this thread for the results of a
    tile; `weights`, `biases`: as the blocks read them; `plan`: words.
    """
    c_in, c_out = word_at(plan, PANEL_C_IN), word_at(plan, PANEL_C_OUT)
    tile, count = word_at(plan, PANEL_TILE), word_at(plan, PANEL_BLOCK_COUNT)
    windows, per_window = word_at(plan, PANEL_WINDOWS), word_at(plan, PANEL_EACH)
    for number in range(begin, end):
        first = min(number * tile, pixels - tile)
        x_tile, y_tile = x + 4 * first * c_in, y + 4 * first * c_out
        x_next, y_next = x_tile + 4 * tile * c_in, y_tile + 4 * tile * c_out
        ahead = min(tile, pixels - tile - first) if number + 1 < end else 0
        for index in range(count):
            block = word_at(plan, PANEL_BLOCKS) + 8 * PANEL_BLOCK_WORDS * index
            target = scratch if windows > 1 else y_tile
            runs = word_at(plan, PANEL_RUNS)
            run_panel(x_tile, weights, biases, target, block, runs, c_in, c_out, tile)
            share = ahead * index // count
            more = ahead * (index + 1) // count - share
            prefetch(x_next + 4 * c_in * share, 4 * c_in * more)
            prefetch_to_write(y_next + 4 * c_out * share, 4 * c_out * more)
        if windows > 1:
            for pixel in range(tile):
                place = 4 * pixel * c_out
                riffle(scratch + place, y_tile + place, windows, per_window)


# Words of `LANES` filters that are packed: the place of their weights, where those are written, and
# from a tap to the next there.
PACK_SOURCE, PACK_TARGET, PACK_TARGET_ROW = range(3)
PACK_WORDS: Final = 3


@Entry
def pack_filters(weights, packed, units, taps, source_row, begin, end):
    """Write the weights of the units `begin` to `end` of filters as [tap, filter].

    `source_row`: from the weights of a filter of a unit to those of the next; `units`: words.
    """
    for number in range(begin, end):
        unit = units + 8 * PACK_WORDS * number
        source = weights + 4 * word_at(unit, PACK_SOURCE)
        target = packed + 4 * word_at(unit, PACK_TARGET)
        row = word_at(unit, PACK_TARGET_ROW)
        for tap in range(0, taps, LANES):
            columns = min(LANES, taps - tap)
            place = target + 4 * tap * row
            transpose_float32(source + 4 * tap, source_row, LANES, columns, place, row)
