"""One layer: a kind with its parameters chosen, and the same at concrete widths."""

import re
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from operator import index
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ifspace.errors import BlockError
from ifspace.kinds import ConvKind, find_kind, parse_overlap, position, step

DEFAULT_KERNEL = 3
EXAMPLE = "write it like DW+RPW(8,1/2)+SH(4)+GPW(8) or (DW+RPW(2,0))x2"


def whole(
    value: Any, name: str, least: int = 1, most: int | None = None, what: str = "whole numbers"
) -> int:
    """Return the value as an int, or refuse it with the name that the caller knows it by."""
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is not None and number >= least and (most is None or number <= most):
        return number
    if number is None:
        remedy = f"give {name} as a whole number"
    elif number < least:
        remedy = f"raise {name} to {least} or more"
    else:
        remedy = f"lower {name} to {most} or less"
    raise BlockError.because(
        f"{name} out of range",
        got=repr(value),
        allowed=range_text(least, most, what),
        remedy=remedy,
        argument=name,
    )


def range_text(least: int, most: int | None = None, what: str = "whole numbers") -> str:
    """Return which numbers are allowed.

    >>> range_text(1), range_text(3, 9, "odd numbers")
    ('whole numbers from 1', 'odd numbers from 3 to 9')
    """
    return f"{what} from {least}" + ("" if most is None else f" to {most}")


@dataclass(frozen=True, slots=True)
class Layer:
    """A kind with its parameters chosen: groups, overlap (RPW), kernel size (spatial kinds, 3).

    >>> Layer.parse("rpw(8, 0.5)"), str(Layer("GC", 4, kernel=5))
    (Layer(kind='RPW', groups=8, overlap=Fraction(1, 2), kernel=None), 'GC(4,k=5)')

    Raises: BlockError for a parameter that the kind does not take, lacks, or that is out of range.
    """

    kind: str
    groups: int | None = None
    overlap: Fraction | None = None
    kernel: int | None = None

    def __post_init__(self) -> None:
        conv = find_kind(self.kind)
        object.__setattr__(self, "kind", conv.symbol)
        for name, taken in (
            ("groups", conv.takes_groups),
            ("overlap", conv.takes_overlap),
            ("kernel", conv.spatial),
        ):
            if not taken and getattr(self, name) is not None:
                raise self._refuse(f"{conv.symbol} takes no {name}", getattr(self, name))
        if conv.takes_groups:
            if self.groups is None:
                raise self._refuse(f"{conv.symbol} needs groups", "none")
            object.__setattr__(self, "groups", whole(self.groups, f"{conv.symbol} groups"))
        if conv.takes_overlap:
            overlap = Fraction(0) if self.overlap is None else self.overlap
            object.__setattr__(self, "overlap", parse_overlap(overlap))
        if conv.spatial:
            kernel = DEFAULT_KERNEL if self.kernel is None else self.kernel
            if whole(kernel, "kernel size") % 2 == 0:
                # An even kernel has no centre pixel: the block would shift or shrink its map.
                raise self._refuse("kernel size is even", kernel)
            object.__setattr__(self, "kernel", index(kernel))

    def _refuse(self, fact: str, got: object) -> BlockError:
        form = _notation(find_kind(self.kind))
        return BlockError.because(fact, got=got, allowed=form, remedy="write the layer that way")

    @property
    def conv(self) -> ConvKind:
        """The row of the kind table."""
        return find_kind(self.kind)

    @property
    def sort_key(self) -> tuple[int, int, Fraction, int]:
        """Canonical order of the parameters: kind, groups, overlap, kernel."""
        overlap = self.overlap or Fraction(0)
        return position(self.kind), self.groups or 0, overlap, self.kernel or 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the layer that the notation means; case and spaces do not matter."""
        packed = "".join(text.split())
        match = re.fullmatch(r"([^()+,]+)(?:\(([^()]*)\))?", packed)
        if match is None:
            raise malformed(text)
        conv = find_kind(match[1])
        slots = ["groups"] * conv.takes_groups + ["overlap"] * conv.takes_overlap
        if conv.spatial and not slots:
            slots = ["kernel"]
        values: dict[str, Any] = {}
        for part in match[2].split(",") if match[2] is not None else ():
            named = re.fullmatch(r"[kK]=(.*)", part)
            name = "kernel" if named else slots.pop(0) if slots else ""
            value = named[1] if named else part
            if not name or name in values:
                raise malformed(text, _notation(conv))
            if name != "overlap" and not re.fullmatch(r"[0-9]{1,9}", value):
                raise malformed(text, _notation(conv))
            values[name] = parse_overlap(value) if name == "overlap" else int(value)
        return cls(conv.symbol, **values)

    def __str__(self) -> str:
        parts = [str(part) for part in (self.groups, self.overlap) if part is not None]
        if self.kernel not in (None, DEFAULT_KERNEL):
            parts.append(f"k={self.kernel}" if parts else str(self.kernel))
        return f"{self.kind}({','.join(parts)})" if parts else self.kind


def _notation(conv: ConvKind) -> str:
    parts = ["groups"] * conv.takes_groups + ["overlap"] * conv.takes_overlap
    if conv.spatial:
        parts.append("k=odd size" if parts else "odd kernel size")
    return f"{conv.symbol}({','.join(parts)})" if parts else f"plain {conv.symbol}"


def malformed(text: str, allowed: str = "KIND or KIND(parameters), joined by +") -> BlockError:
    """Return the error for text that is not the notation."""
    return BlockError.because("malformed block", got=repr(text), allowed=allowed, remedy=EXAMPLE)


@dataclass(frozen=True, slots=True)
class SizedLayer:
    """A layer between two widths: c_in channels to c_out, in `dims` spatial dimensions.

    >>> layer = SizedLayer(Layer("RPW", 4, Fraction(1, 2)), 16, 16)
    >>> layer.fan_in, layer.step, layer.params, layer.reads()[:3].tolist()
    (4, 2, 64, [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]])

    Raises: BlockError when the groups do not divide both widths, or the kind cannot change them.
    """

    layer: Layer
    c_in: int
    c_out: int
    dims: int = 2

    def __post_init__(self) -> None:
        widths = f"{self.layer} from {self.c_in} to {self.c_out} channels"
        if self.changes_width and not self.conv.mixing:
            raise BlockError.because(
                f"{self.layer.kind} cannot change the width",
                got=widths,
                allowed="equal widths",
                remedy="leave the change to a channel-mixing layer",
            )
        common = gcd(self.c_in, self.c_out)
        if common % self.groups:
            divisors = [count for count in range(1, common + 1) if common % count == 0]
            raise BlockError.because(
                "groups do not divide the widths",
                got=widths,
                allowed=f"groups {', '.join(map(str, divisors))}",
                remedy="choose a common divisor",
            )

    @property
    def conv(self) -> ConvKind:
        """The row of the kind table."""
        return self.layer.conv

    @property
    def groups(self) -> int:
        """The group count; 1 for a kind without groups."""
        return self.layer.groups or 1

    @property
    def kernel(self) -> int:
        """The side of the square of pixels that one output reads; 1 for a kind of one pixel."""
        return self.layer.kernel or 1

    @property
    def fan_in(self) -> int:
        """How many channels of the layer below one output channel reads."""
        return self.conv.fan_in_at(self.c_in, self.groups)

    @property
    def step(self) -> int:
        """How many channels the window rolls on from one output to the next (RPW)."""
        return step(self.fan_in, self.layer.overlap or Fraction(0))

    @property
    def params(self) -> int:
        """The number of weights."""
        return self.conv.params_at(self.c_in, self.c_out, self.groups, self.kernel, self.dims)

    @property
    def changes_width(self) -> bool:
        """Whether it leaves more or fewer channels than it found; then it cannot be left out."""
        return self.c_in != self.c_out

    def reads(self) -> npt.NDArray[np.int32]:
        """Return the channels of the layer below that each output reads: [c_out, fan-in]."""
        return self.conv.reads(self.c_in, self.c_out, self.groups, self.step)
