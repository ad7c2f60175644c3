"""Latency as an amount: how long one block takes at its widths, side and stride.

A *source* knows the latencies of blocks: a table of measurements, or a model that `ifspace bench`
fitted. All of them give the same value, `Latency`. Times are exact, as fractions rounded up to
whole nanoseconds, so that a sum within a budget is.
"""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Protocol

from ifspace.block import Block, SizedBlock, SizedLayer
from ifspace.errors import ARGUMENT, BlockError, IfspaceError, SettingError
from ifspace.measurements import AS_IS, COLLAPSED, ONE_PASS
from ifspace.storage import read_csv, reason

COLUMNS: Final = ("block", "C", "F", "side", "stride", "batch", "device", "dtype", "latency_ms")
CONDITIONS: Final = ("batch", "device", "dtype")
# Columns that a table may have too: the form that a block was run in, and where the time is from.
FORM: Final = "form"
SOURCE: Final = "source"
MEASURED: Final = "measured"
MODELLED: Final = "predicted"
FORMS: Final = (AS_IS, COLLAPSED, ONE_PASS)
DECIMALS: Final = 6
# So many shapes that a table lacks are written out.
MOST_SHAPES: Final = 6
# Block, channels in and out, side in pixels, stride.
Case = tuple[str, int, int, int, int]
# Channels in and out, side of the output in pixels, stride.
Shape = tuple[int, int, int, int]
# What types of numbers are called elsewhere.
_DTYPES: Final = {
    "float32": "fp32",
    "float": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
}


@dataclass(frozen=True, slots=True)
class Latency:
    """The time of one block: exact milliseconds, and the form in which it takes them.

    `form` is "as is", "collapsed" or "fused". `extrapolated`: it is predicted for a shape outside
    those that the model was fitted on.
    """

    ms: Fraction
    form: str = AS_IS
    extrapolated: bool = False

    @classmethod
    def of(cls, ms: float | Fraction, form: str = AS_IS, extrapolated: bool = False) -> "Latency":
        """Return the latency of a time that is rounded up to whole nanoseconds, one at least.

        >>> Latency.of(0.25)
        Latency(ms=Fraction(1, 4), form='as is', extrapolated=False)
        """
        return cls(_rounded_up(Fraction(ms)), form, extrapolated)


class LatencySource(Protocol):
    """What knows latencies, all of one device, type and batch: a table, or a fitted model."""

    @property
    def device(self) -> str | None:
        """The name of the device, None where it is not known."""
        ...

    @property
    def dtype(self) -> str | None:
        """The type of the numbers, such as fp32, None where it is not known."""
        ...

    @property
    def batch(self) -> int | None:
        """The images in a batch, None where it is not known."""
        ...

    @property
    def shapes(self) -> Collection[Shape]:
        """The shapes that were measured."""
        ...

    @property
    def about(self) -> str:
        """What the latencies hold under, in words."""
        ...

    def side_of(self, block: SizedBlock, stride: int) -> int | None:
        """Return the side at which blocks of these widths were measured, None where none were.

        Raises: SettingError for several sides.
        """
        ...

    def find(self, block: SizedBlock, side: int, stride: int = 1) -> Latency | None:
        """Return the latency of a block in its fastest form, None where it is not known.

        `side`: that of the output feature map, in pixels.
        """
        ...

    def lacks(self, block: SizedBlock, side: int, stride: int = 1) -> frozenset[str]:
        """Return what a block runs that no time is known for, such as "RPW grouped".

        Empty where a model has all times, and for a table, which has whole blocks.
        """
        ...

    @property
    def layer_forms(self) -> tuple[str, ...]:
        """The forms in which the time of a block is a sum over its layers.

        But for what all group counts, shuffles and overlaps of a composition have alike. None for a
        table, which has whole blocks.
        """
        ...

    def ms_in(self, form: str, block: SizedBlock, side: int, stride: int = 1) -> float | None:
        """Return the milliseconds of a block in one of the `layer_forms`, not rounded.

        None where they are not known, or the block does not run in that form.
        """
        ...

    def layer_ms(self, form: str, layer: SizedLayer, side: int, stride: int = 1) -> float | None:
        """Return the milliseconds of one layer in a form, up to what all its choices have alike.

        None for a choice with which no block runs in that form, or whose time is not known.
        """
        ...

    def blocks_at(
        self, channels: int, out_channels: int, side: int, stride: int
    ) -> tuple[str, ...]:
        """Return the blocks that are timed one by one at a shape; none for a model."""
        ...


# Of a block with a stride. `best`, `enumerate` and the front take one: `at_side` makes it.
BlockLatency = Callable[[SizedBlock, int], Latency | None]


def at_side(source: LatencySource, side: int | None = None) -> BlockLatency:
    """Return the function from a block and its stride to its latency at a side in pixels.

    None is the side at which blocks of its widths were measured.

    >>> table = LatencyTable({("DW+PW", 8, 8, 4, 1): Fraction(1, 2)})
    >>> at_side(table, 4)(Block.parse("DW+PW").at(8), 1).ms
    Fraction(1, 2)
    """

    def find(block: SizedBlock, stride: int) -> Latency | None:
        pixels = source.side_of(block, stride) if side is None else side
        return None if pixels is None else source.find(block, pixels, stride)

    return find


def latency_of(source: LatencySource, block: SizedBlock, side: int, stride: int = 1) -> Latency:
    """Return the latency of a block.

    Raises: SettingError for a case that the source does not know.
    """
    latency = source.find(block, side, stride)
    if latency is None:
        raise SettingError.because(
            "no latency for a block in play",
            got=case_text(block, side, stride),
            allowed="the cases of the table",
            remedy=f"measure it (`{bench_command([shape_text(block, side, stride)])}`), "
            "or leave it out",
            argument="latency",
        )
    return latency


def is_within(shape: Shape, shapes: Collection[Shape]) -> bool:
    """Return whether a shape lies among those that were measured, as a prediction needs it to.

    It does if blocks of its stride were measured, and its channels, its side and the elements of
    its output lie between their least and their most.

    >>> measured = [(32, 32, 64, 1), (128, 128, 16, 1)]
    >>> [is_within(shape, measured) for shape in ((64, 64, 32, 1), (128, 128, 64, 1))]
    [True, False]
    """
    channels, out_channels, side, stride = shape
    alike = [other for other in shapes if other[3] == stride]

    def lies(value: int, values: Iterable[int]) -> bool:
        numbers = tuple(values)
        return min(numbers) <= value <= max(numbers)

    return bool(alike) and all(
        (
            lies(channels, (c for c, _, _, _ in alike)),
            lies(out_channels, (f for _, f, _, _ in alike)),
            lies(side, (pixels for _, _, pixels, _ in alike)),
            lies(out_channels * side**2, (f * pixels**2 for _, f, pixels, _ in alike)),
        )
    )


def check_conditions(
    source: LatencySource,
    device: str | None = None,
    dtype: str | None = None,
    batch: int | None = None,
) -> None:
    """Check that latencies hold for a device, type and batch, those that are not None.

    Raises: SettingError for a source of another one, or that does not say which it is of.
    """
    expected = {"device": device, "dtype": dtype and canonical_dtype(dtype), "batch": batch}
    for name, value in expected.items():
        has = getattr(source, name)
        if value is not None and value != has:
            raise SettingError.because(
                f"{ARGUMENT} is not that of the latencies",
                got=value,
                allowed=f"{name} {has}" if has is not None else f"none: no {name} is said",
                remedy="give latencies that were measured so, or leave the option out",
                argument=name,
            )


def canonical_dtype(name: str) -> str:
    """Return the short name of a type of numbers, in lower case.

    >>> canonical_dtype("float32"), canonical_dtype("FP16"), canonical_dtype("int8")
    ('fp32', 'fp16', 'int8')
    """
    lower = name.strip().lower().removeprefix("torch.")
    return _DTYPES.get(lower, lower)


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Milliseconds of one block, exact, by block, widths in channels, side in pixels, stride.

    `forms`: the form of a case that is not as is. `extrapolated`: the cases that were predicted
    outside the shapes of those measured.

    >>> table = LatencyTable({("DW+PW", 8, 8, 4, 1): Fraction(1, 2)})
    >>> table.find(Block.parse("dw+pw").at(8), 4)
    Latency(ms=Fraction(1, 2), form='as is', extrapolated=False)
    """

    cases: Mapping[Case, Fraction]
    forms: Mapping[Case, str] = field(default_factory=dict)
    extrapolated: frozenset[Case] = frozenset()
    device: str | None = None
    dtype: str | None = None
    batch: int | None = None

    def __hash__(self) -> int:
        """Return a hash of the cases."""
        return hash(frozenset(self.cases.items()))

    @property
    def shapes(self) -> frozenset[Shape]:
        """The shapes of the cases."""
        return frozenset((c, f, side, stride) for _, c, f, side, stride in self.cases)

    @property
    def about(self) -> str:
        """What the latencies hold under, in words."""
        parts = [f"latencies of {self.device or 'a device that the table does not name'}"]
        parts += [] if self.batch is None else [f"batch {self.batch}"]
        parts += [] if self.dtype is None else [self.dtype]
        return ", ".join(parts)

    def side_of(self, block: SizedBlock, stride: int) -> int | None:
        """Return the side of the cases of a block's widths and stride, None without such cases.

        Raises: SettingError for cases at several sides.
        """
        widths = block.channels, block.out_channels
        sides = sorted({side for c, f, side, s in self.shapes if (c, f, s) == (*widths, stride)})
        if len(sides) > 1:
            raise SettingError.because(
                "several sides in the latency table",
                got=f"sides {', '.join(map(str, sides))} for {widths[0]} to {widths[1]} channels",
                allowed="one of them",
                remedy=f"choose it with {ARGUMENT}",
                argument="side",
            )
        return sides[0] if sides else None

    def find(self, block: SizedBlock, side: int, stride: int = 1) -> Latency | None:
        """Return the latency of a block, or None for a case that the table lacks.

        It has no column for a width inside or a dimension, and none of such blocks.
        """
        case = str(block.block), block.channels, block.out_channels, side, stride
        ms = self.cases.get(case)
        if ms is None or not _has_widths_of_case(block):
            return None
        return Latency(ms, self.forms.get(case, AS_IS), case in self.extrapolated)

    def lacks(self, block: SizedBlock, side: int, stride: int = 1) -> frozenset[str]:
        """Return nothing: rows are of whole blocks."""
        return frozenset()

    @property
    def layer_forms(self) -> tuple[str, ...]:
        """None: rows are of whole blocks."""
        return ()

    def ms_in(self, form: str, block: SizedBlock, side: int, stride: int = 1) -> float | None:
        """Return the milliseconds of a block where its row is of the form."""
        time = self.find(block, side, stride)
        return None if time is None or time.form != form else float(time.ms)

    def layer_ms(self, form: str, layer: SizedLayer, side: int, stride: int = 1) -> float | None:
        """Return nothing: rows are of whole blocks."""
        return None

    def blocks_at(
        self, channels: int, out_channels: int, side: int, stride: int
    ) -> tuple[str, ...]:
        """Return the blocks of the rows of a shape."""
        shape = channels, out_channels, side, stride
        return tuple(block for block, *other in self.cases if tuple(other) == shape)


def _has_widths_of_case(block: SizedBlock) -> bool:
    """Return whether a block is what its notation and the widths at its ends say."""
    try:
        return block.block.at(block.channels, block.out_channels) == block
    except BlockError:  # its groups fit the widths inside only
        return False


def case_text(block: SizedBlock, side: int, stride: int = 1) -> str:
    """Return a case in words.

    >>> case_text(Block.parse("DW+PW").at(8, 16), 4, 2)
    'DW+PW from 8 to 16 channels, side 4, stride 2'
    """
    return (
        f"{block.block} from {block.channels} to {block.out_channels} channels, side {side}, "
        f"stride {stride}"
    )


def shape_text(block: SizedBlock, side: int, stride: int = 1) -> str:
    """Return the shape of a case as `ifspace bench --predict` takes it.

    >>> shape_text(Block.parse("DW+PW").at(8, 16), 4, 2)
    '8x16x4x2'
    """
    return "x".join(map(str, (block.channels, block.out_channels, side, stride)))


def bench_command(shapes: Iterable[str]) -> str:
    """Return the command that measures blocks at shapes that a table lacks, the first few of them.

    >>> bench_command(["8x16x4x2", "16x16x4x1", "8x16x4x2"])
    'ifspace bench --predict 8x16x4x2,16x16x4x1'
    """
    return f"ifspace bench --predict {','.join([*dict.fromkeys(shapes)][:MOST_SHAPES])}"


def read_latency(path: Path) -> LatencyTable:
    """Read a table from CSV with the columns of `COLUMNS` in any order; other columns are ignored.

    Of a block in several forms, a column `form`, the fastest one counts. Rows whose `source` is
    "predicted" are extrapolated where they lie outside the shapes of the others.

    Raises: SettingError for a file that cannot be read, lacks a column, holds a value that is no
        number, measures a case twice, or mixes batches, devices or data types.
    """
    try:
        table = read_csv(path)
    except FileNotFoundError:
        raise SettingError.because(
            f"no {ARGUMENT} table there",
            got=path,
            allowed="a CSV file that exists",
            remedy="check the name",
            argument="latency",
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _malformed(
            path, reason(error), "a readable CSV file, its decimals with a point"
        ) from None
    names, rows = table.columns, table.rows
    if not names:
        raise _malformed(path, "an empty file", f"a first line with {', '.join(COLUMNS)}")
    if len(names) == 1 and ";" in names[0]:
        raise _malformed(path, "columns between semicolons", "columns between commas")
    times = [name for name in names if re.match("latency|time", name, re.IGNORECASE)]
    if COLUMNS[-1] not in names and times:
        raise _malformed(path, f"column {times[0]}, whose unit is not known", "latency_ms")
    if missing := [name for name in COLUMNS if name not in names]:
        raise _malformed(path, f"no column {', '.join(missing)}", ", ".join(COLUMNS))
    if not rows:
        raise _malformed(path, "no rows", "at least one measured case")
    conditions = {tuple(row[name] for name in CONDITIONS) for _, row in rows}
    if len(conditions) > 1:
        raise _malformed(path, _mixed(conditions), "one batch, device and dtype in a table")
    cases: dict[Case, Fraction] = {}
    forms: dict[Case, str] = {}
    seen: set[tuple[Case, str]] = set()
    modelled: set[Case] = set()
    for line, row in rows:
        case, ms = _case(path, line, row)
        form = row.get(FORM, "").strip() or AS_IS
        if form not in FORMS:
            raise _malformed(path, f"line {line}: form {form!r}", ", ".join(FORMS))
        if (case, form) in seen:
            raise _malformed(path, f"line {line} measures a case again", "each case once")
        seen.add((case, form))
        if case not in cases or ms < cases[case]:
            cases[case], forms[case] = ms, form
            modelled -= {case}
            modelled |= {case} if row.get(SOURCE) == MODELLED else set()
    measured = {case[1:] for case in cases if case not in modelled}
    batch, device, dtype = conditions.pop()
    return LatencyTable(
        cases,
        forms,
        frozenset(case for case in modelled if not is_within(case[1:], measured)),
        device.strip(),
        canonical_dtype(dtype),
        _whole(path, rows[0][0], "batch", batch),
    )


def _case(path: Path, line: int, row: Mapping[str, str]) -> tuple[Case, Fraction]:
    text = row["block"]
    try:
        block = str(Block.parse(text))
    except IfspaceError:
        allowed = "blocks with their groups, such as DW+RPW(8,1/2) or CONV(3)"
        raise _malformed(path, f"line {line}: block {text!r}", allowed) from None
    c_in, c_out, side, stride = (
        _whole(path, line, name, row[name]) for name in ("C", "F", "side", "stride")
    )
    return (block, c_in, c_out, side, stride), _milliseconds(path, line, row["latency_ms"])


def _whole(path: Path, line: int, name: str, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and 0 < len(text) < 8 and int(text)):
        raise _malformed(path, f"line {line}: {name} {text!r}", "whole numbers from 1")
    return int(text)


def _milliseconds(path: Path, line: int, text: str) -> Fraction:
    plain = re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?", text.strip())
    exact = Fraction(text.strip()) if plain else None
    if exact is None or not 0 < exact < 10**7:
        raise _malformed(path, f"line {line}: latency_ms {text!r}", "numbers above 0")
    return _rounded_up(exact)


def _rounded_up(ms: Fraction) -> Fraction:
    """Return a time in whole units of the last decimal, one at least.

    Rounded up, a sum within a budget is within it exactly.
    """
    scale: int = 10**DECIMALS
    return Fraction(max(-(-ms.numerator * scale // ms.denominator), 1), scale)


def _mixed(conditions: Iterable[tuple[str, ...]]) -> str:
    columns = zip(CONDITIONS, zip(*conditions, strict=True), strict=True)
    return "; ".join(
        f"{name} {', '.join(sorted(set(values)))}"
        for name, values in columns
        if len(set(values)) > 1
    )


def _malformed(path: Path, got: str, allowed: str) -> SettingError:
    return SettingError.because(
        f"malformed {ARGUMENT} table {path.name}",
        got=got,
        allowed=allowed,
        remedy="correct the table",
        argument="latency",
    )
