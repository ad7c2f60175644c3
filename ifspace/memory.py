"""Peak memory: the largest sum of live feature maps over the order in which layers run.

A feature map is live from the step that writes it to the last step that reads it; the inputs from
the first step on, the outputs to the last. While a layer runs, what it reads and what it writes are
both live. Weights are not counted, nor are batch norm (it is folded into the layer before it),
indices (a shuffle, a reshape) and padding.

Work in place adds nothing. A step writes over what it reads where that was written so (`x += y`),
and where it is free to: an activation, or a sum with a shortcut, takes over the memory of a feature
map of its own size that no later step reads.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from typing import Any, Final

from ifspace.errors import ARGUMENT, SettingError
from ifspace.values import MAX_SIDE, choice, whole_number

# Bytes of an element.
BYTES: Final = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
DEFAULT_DTYPE: Final = "fp32"


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a schedule: the indices of the values that it reads, and what it writes.

    It writes one value of `elements` elements. `alias`: the value of whose memory that is a part or
    the whole, as of a view or of work in place, or None. `may_replace`: values whose memory it may
    take over, if they are as large and no later step reads them.
    """

    reads: tuple[int, ...]
    elements: int
    alias: int | None = None
    may_replace: tuple[int, ...] = ()

    def renumbered(self, number: Callable[[int], int]) -> "Step":
        """Return the step with other numbers for the values."""
        return Step(
            tuple(map(number, self.reads)),
            self.elements,
            None if self.alias is None else number(self.alias),
            tuple(map(number, self.may_replace)),
        )


@dataclass(frozen=True, slots=True)
class Peak:
    """The most elements that are live at once, and the index of the first step where they are."""

    elements: int
    step: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in the order in which they run.

    `inputs`: the elements of each input. Values are numbered: the inputs first, then what each step
    writes. `outputs`: the values that stay live to the end.

    A layer from 4 elements to 8 with an activation, and with one whose input is added to it:

    >>> layer, activation = Step((0,), 8), Step((1,), 8, may_replace=(1,))
    >>> Schedule((4,), (layer, activation), (2,)).peak
    Peak(elements=12, step=0)
    >>> Schedule((4,), (layer, activation, Step((1, 2), 8, may_replace=(1, 2))), (3,)).peak
    Peak(elements=16, step=1)
    """

    inputs: tuple[int, ...]
    steps: tuple[Step, ...]
    outputs: tuple[int, ...]

    @property
    def peak(self) -> Peak:
        """The peak, exactly."""
        live = self.live()
        step = max(range(len(live)), key=live.__getitem__)
        return Peak(live[step], step)

    @property
    def written(self) -> int:
        """The elements that the steps write, but for work in place and views of what is there.

        Training keeps them for the backward pass, or what is computed from them.
        """
        return sum(step.elements for step in self.steps if step.alias is None)

    def live(self) -> list[int]:
        """Return the elements that are live during each step; without steps, the inputs."""
        steps, count = self.steps, len(self.inputs)
        end = max(len(steps) - 1, 0)
        last_use = [0] * count + list(range(len(steps)))
        for index, step in enumerate(steps):
            for value in step.reads:
                last_use[value] = index
        for value in self.outputs:
            last_use[value] = end
        for value in range(len(last_use) - 1, count - 1, -1):
            alias = steps[value - count].alias
            if alias is not None:
                last_use[alias] = max(last_use[alias], last_use[value])
        # Of each value the buffer that it lies in; of each buffer its size, first and last step.
        buffer_of = list(range(count))
        sizes, first, last = list(self.inputs), [0] * count, last_use[:count]
        for index, step in enumerate(steps):
            buffer = None if step.alias is None else buffer_of[step.alias]
            if buffer is None:
                # Two readings of one buffer, as of x and of its channels in another order, may
                # cross.
                read = [buffer_of[source] for source in set(step.reads)]
                owned = (buffer_of[source] for source in step.may_replace)
                free = (x for x in owned if last[x] == index and sizes[x] == step.elements)
                buffer = next((x for x in free if read.count(x) == 1), None)
            if buffer is None:
                buffer = len(sizes)
                sizes.append(step.elements)
                first.append(index)
                last.append(index)
            last[buffer] = max(last[buffer], last_use[count + index])
            buffer_of.append(buffer)
        changes = [0] * (end + 2)
        for size, begin, stop in zip(sizes, first, last, strict=True):
            changes[begin] += size
            changes[stop + 1] -= size
        return list(accumulate(changes[:-1]))

    def with_chain(self, index: int, chain: "Schedule") -> "Schedule":
        """Return the schedule with another one in place of a step.

        `chain` has one input, the first value that the step reads, and one output, what its last
        step writes. Its steps have the indices from `index` on.

        >>> layers = Schedule((4,), (Step((0,), 6), Step((1,), 8)), (2,))
        >>> Schedule((4,), (Step((0,), 8),), (1,)).with_chain(0, layers).live()
        [10, 14]
        """
        source, first = self.steps[index].reads[0], len(self.inputs) + index
        more = len(chain.steps) - 1

        def inside(value: int) -> int:
            return source if value == 0 else first + value - 1

        def behind(value: int) -> int:
            return value + more if value >= first else value

        return Schedule(
            self.inputs,
            (
                *self.steps[:index],
                *(step.renumbered(inside) for step in chain.steps),
                *(step.renumbered(behind) for step in self.steps[index + 1 :]),
            ),
            tuple(map(behind, self.outputs)),
        )


def peak_bytes(value: Any, dtype: Any) -> int | None:
    """Return a bound on the peak memory in bytes; None for none.

    Text may end in k, M or G for powers of 1,000, kB, MB or GB the same, or in KiB, MiB or GiB for
    powers of 1,024.

    >>> peak_bytes("256k", "int8"), peak_bytes("256KiB", "fp32"), peak_bytes(None, None)
    (256000, 262144, None)

    Raises: SettingError for a value that is no number of bytes, a bound without a type of the
        feature maps, or a type without a bound.
    """
    if dtype is not None:
        choice(dtype, "dtype", BYTES)
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip()
        match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([kKmMgG]?|[kMG]B|[KMG]iB)", text)
        exact = Fraction(match[1]) * _unit(match[2]) if match else None
        if exact is None or exact.denominator != 1 or not exact:
            raise SettingError.because(
                f"{ARGUMENT} is no number of bytes",
                got=repr(value),
                allowed="bytes above 0 such as 262144, 256k or 256kB (256,000), 256KiB (262,144)",
                remedy="k, M and G stand for powers of 1,000, KiB, MiB and GiB for powers of 1,024",
                argument="peak_memory",
            )
        most = int(exact)
    else:
        most = whole_number(value, "peak_memory")
    if dtype is None:
        raise SettingError.because(
            "peak memory without the type of the feature maps",
            got=f"{value} bytes and no type",
            allowed=f"one of {', '.join(BYTES)} beside it",
            remedy=f"add {ARGUMENT} {DEFAULT_DTYPE}, or that of your device",
            argument="dtype",
        )
    return most


def peak_limit(value: Any, dtype: Any, side: Any, dims: int = 2) -> int | None:
    """Return a bound on the peak memory in elements per pixel of a feature map; None for none.

    `side`: of the feature map that a block writes, in pixels. See `peak_bytes`.

    >>> peak_limit("256KiB", "int8", 32)
    256

    Raises: SettingError as `peak_bytes`, and for a bound without a side.
    """
    most = peak_bytes(value, dtype)
    if most is None:
        return None
    if side is None:
        raise SettingError.because(
            "peak memory without the side of the feature map",
            got=f"{value} bytes and no side",
            allowed=f"the side of what the block writes, up to {MAX_SIDE} pixels",
            remedy=f"add {ARGUMENT}, such as 56",
            argument="side",
        )
    least = BYTES[dtype] * whole_number(side, "side", 1, MAX_SIDE) ** dims
    if most < least:
        raise SettingError.because(
            f"{ARGUMENT} holds not one feature map of one channel",
            got=f"{most:,} bytes",
            allowed=f"from {least:,} bytes, at side {side} in {dtype}, for each channel",
            remedy="raise it",
            argument="peak_memory",
        )
    return int(most // least)


def _unit(suffix: str) -> int:
    """Return how many bytes a suffix stands for."""
    power = " kmg".index(suffix[:1].lower() or " ")
    return int((1024 if suffix.endswith("iB") else 1000) ** power)


def bytes_of(elements: int, dtype: str = DEFAULT_DTYPE) -> int:
    """Return the bytes of so many elements of a type.

    >>> bytes_of(256, "fp16")
    512

    Raises: SettingError for an unknown type.
    """
    choice(dtype, "dtype", BYTES)
    return elements * BYTES[dtype]


def bytes_text(elements: int, dtype: str = DEFAULT_DTYPE) -> str:
    """Return so many elements of a type as text.

    >>> bytes_text(1806336), bytes_text(1806336, "int8")
    ('7,225,344 bytes of fp32', '1,806,336 bytes of int8')
    """
    return f"{bytes_of(elements, dtype):,} bytes of {dtype}"
