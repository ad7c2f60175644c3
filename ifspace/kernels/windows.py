"""Which channels each filter of a rolling pointwise convolution (RPW) reads.

Window p is the w channels (p s + t) mod C_in, t = 0 ... w - 1: windows roll on by s channels and
wrap, so that P = C_in / gcd(s, C_in) of them are distinct. Which one a filter reads is the order of
the layer (`window_index`). Filter j reads in

    rolling order   window j mod P         0 1 2 3 0 1 2 3    P = 4 windows, 8 filters
    blocked order   window j P // C_out    0 0 1 1 2 2 3 3

An RPW is a dense pointwise convolution whose weight [C_out, C_in] is zero outside the windows:
`dense_weight`. Without overlap it is, in rolling order, a grouped convolution and a channel
shuffle, and in blocked order a grouped convolution.

Reference: [3DRF] section 4.2.
"""

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from math import gcd
from numbers import Rational
from operator import index
from typing import Any, Final

import torch
from torch import Tensor

from ifspace.errors import KernelError

ROLLING: Final = "rolling"
BLOCKED: Final = "blocked"
ORDERS: Final = (ROLLING, BLOCKED)


def window_index(filters: Any, distinct: int, out_channels: int, order: str) -> Any:
    """Return which of P distinct windows filters read: the order of an RPW layer.

    `filters`: an integer or an array of them.

    >>> [window_index(j, distinct=4, out_channels=6, order="rolling") for j in range(6)]
    [0, 1, 2, 3, 0, 1]
    >>> [window_index(j, distinct=4, out_channels=6, order="blocked") for j in range(6)]
    [0, 0, 1, 2, 2, 3]
    """
    return filters * distinct // out_channels if order == BLOCKED else filters % distinct


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows table of an RPW layer; make it with `windows_of` or `windows_at`.

    `width` (w): channels that a filter reads. `step` (s): channels from one window to the next.
    `order`: "rolling" or "blocked", see `window_index`. `distinct` (P): different windows.
    `starts`: first channel of windows 0 ... P - 1. `filters`: how many filters use each window.

    >>> table = windows_of(16, 16, groups=4, overlap=0.5)
    >>> table.width, table.step, table.distinct, table.starts[:3], table.filters[:3]
    (4, 2, 8, (0, 2, 4), (2, 2, 2))
    """

    in_channels: int
    out_channels: int
    width: int
    step: int
    order: str = ROLLING
    # These follow from the five fields above, which alone are compared and hashed.
    distinct: int = field(init=False, compare=False)
    starts: tuple[int, ...] = field(init=False, compare=False)
    filters: tuple[int, ...] = field(init=False, compare=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Compute the table, and the hash of what is the key of tables at every call, once."""
        key = self.in_channels, self.out_channels, self.width, self.step, self.order
        object.__setattr__(self, "_hash", hash(key))
        c_in = self.in_channels
        distinct = distinct_windows(c_in, self.step)
        object.__setattr__(self, "distinct", distinct)
        object.__setattr__(self, "starts", tuple(p * self.step % c_in for p in range(distinct)))
        counts = tuple(len(self.readers(p)) for p in range(distinct))
        object.__setattr__(self, "filters", counts)

    def __hash__(self) -> int:
        return self._hash

    @property
    def groups(self) -> int:
        """The group count g = C_in / w."""
        return self.in_channels // self.width

    @property
    def params(self) -> int:
        """The number of weights, C_out w."""
        return self.out_channels * self.width

    @property
    def is_grouped(self) -> bool:
        """Whether the layer is a convolution of C_in / w groups."""
        return is_grouped(self.width, self.step, self.groups, self.out_channels, self.order)

    def readers(self, window: int) -> range:
        """Return the filters that read a window.

        >>> [list(Windows(4, 6, 1, 1, order).readers(2)) for order in ORDERS]
        [[2], [3, 4]]
        """
        if self.order == BLOCKED:
            ends = (-(-p * self.out_channels // self.distinct) for p in (window, window + 1))
            return range(*ends)
        return range(window, self.out_channels, self.distinct)

    def read_channels(self, device: torch.device | str | None = None) -> Tensor:
        """Return the input channels [C_out, w] that each filter reads."""
        sizes = self.in_channels, self.out_channels, self.width, self.step
        return read_channels(*sizes, device, self.order)


def distinct_windows(in_channels: int, step: int) -> int:
    """Return P, how many distinct windows a step gives.

    >>> distinct_windows(12, 4), distinct_windows(12, 5)
    (3, 12)
    """
    return in_channels // gcd(step, in_channels)


def is_grouped(width: int, step: int, groups: int, out_channels: int, order: str) -> bool:
    """Return whether an RPW is a grouped convolution: blocked, without overlap, groups alike.

    >>> is_grouped(4, 4, 2, 6, "blocked"), is_grouped(4, 4, 2, 6, "rolling")
    (True, False)
    """
    return order == BLOCKED and step == width and out_channels % groups == 0


@cache
def windows_at(
    in_channels: int, out_channels: int, width: int, step: int, order: str = ROLLING
) -> Windows:
    """Return the table of windows with a width and a step, read in an order.

    Raises: KernelError when the width does not divide the input channels, the step is not within
        1 ... width, the order is unknown, or blocked order has fewer filters than windows.
    """
    if in_channels < 1 or out_channels < 1:
        raise KernelError.because(
            "no channels",
            got=f"{in_channels} to {out_channels}",
            allowed="1 or more of each",
            remedy="give a layer channels to read and to write",
        )
    if width < 1 or in_channels % width:
        raise KernelError.because(
            "windows do not divide the input channels",
            got=f"windows of {width} in {in_channels} channels",
            allowed=f"weight [{out_channels}, w] with w of {_divisors(in_channels)}",
            remedy="use C_in / groups channels for each filter",
        )
    if not 1 <= step <= width:
        raise KernelError.because(
            "step out of range",
            got=step,
            allowed=f"1 to the window's {width} channels",
            remedy="step = w - floor(overlap w)",
        )
    check_order(order)
    if order == BLOCKED and distinct_windows(in_channels, step) > out_channels:
        raise KernelError.because(
            "fewer filters than windows",
            got=f"{out_channels} for {distinct_windows(in_channels, step)} windows",
            allowed="in blocked order, a filter or more for each window",
            remedy="use order rolling, or an overlap that gives fewer windows",
            argument="order",
        )
    return Windows(in_channels, out_channels, width, step, order)


def check_order(order: Any) -> None:
    """Check the name of an order.

    Raises: KernelError for one that is not in `ORDERS`.
    """
    if order not in ORDERS:
        raise KernelError.because(
            "unknown order",
            got=repr(order),
            allowed=", ".join(ORDERS),
            remedy="leave it at rolling",
            argument="order",
        )


def windows_of(
    in_channels: int,
    out_channels: int,
    groups: int,
    overlap: float | str | Rational = 0,
    order: str = ROLLING,
) -> Windows:
    """Return the windows table of an RPW layer with a group count and an overlap ratio.

    The overlap is exact: a decimal is what it reads as, 0.33 is 33/100. C_out may be any number,
    in blocked order any from the number of windows.

    >>> windows_of(3, 3, groups=1, overlap=0.33).step, windows_of(3, 3, 1, "1/3").step
    (3, 2)

    Raises: KernelError for groups that do not divide C_in, an overlap outside 0 <= o < 1, an
        unknown order, or blocked order with fewer filters than windows.
    """
    arguments: Any = in_channels, out_channels, groups, overlap, order
    try:
        return _windows_of(*arguments)
    except TypeError:  # an argument that cannot be hashed
        return _windows_of.__wrapped__(*arguments)


# Typed, because True == 1 == 1.0, of which only 1 is a group count.
@lru_cache(maxsize=4096, typed=True)
def _windows_of(
    in_channels: int, out_channels: int, groups: int, overlap: float | str | Rational, order: str
) -> Windows:
    c_in = _whole(in_channels, "in_channels")
    c_out = _whole(out_channels, "out_channels")
    count = _whole(groups, "groups")
    if c_in % count:
        raise KernelError.because(
            "groups do not divide the input channels",
            got=f"{count} groups of {c_in} channels",
            allowed=f"groups of {_divisors(c_in)}",
            remedy="choose a divisor",
            argument="groups",
        )
    width = c_in // count
    ratio = exact_overlap(overlap)
    step = width - ratio.numerator * width // ratio.denominator
    return windows_at(c_in, c_out, width, step, order)


def exact_overlap(overlap: float | str | Rational) -> Fraction:
    """Parse an overlap ratio exactly: a decimal is the fraction that it reads as.

    >>> exact_overlap(0.33), exact_overlap("1/3")
    (Fraction(33, 100), Fraction(1, 3))

    Raises: KernelError outside 0 <= o < 1, or for a value that is no number.
    """
    try:
        value = Fraction(*overlap_ratio(overlap))
    except (ValueError, ZeroDivisionError):
        value = Fraction(-1)
    if not 0 <= value < 1:
        raise KernelError.because(
            "overlap out of range",
            got=repr(overlap),
            allowed="0 <= o < 1",
            remedy="write 0, 0.33, 1/3 or 1/2",
            argument="overlap",
        )
    return value


def overlap_ratio(overlap: float | str | Rational) -> tuple[int, int]:
    """Return numerator and denominator of an overlap, unchecked and not always in lowest terms.

    Plain arithmetic of numbers and text, which torch.compile can trace.

    >>> overlap_ratio(0.33), overlap_ratio("1/3"), overlap_ratio(1e-05)
    ((33, 100), (1, 3), (1, 100000))

    Raises: ValueError for a value that is no number.
    """
    if isinstance(overlap, int):  # which a compiler may hold as a symbol
        return overlap, 1
    if isinstance(overlap, Fraction):
        return overlap.numerator, overlap.denominator
    # The shortest decimal that reads back as this float is the one that was written.
    text = repr(float(overlap)) if isinstance(overlap, float) else str(overlap)
    numerator, _, denominator = text.partition("/")
    if denominator:
        return int(numerator), int(denominator)
    digits, _, exponent = text.lower().partition("e")
    whole, _, decimals = digits.partition(".")
    power = int(exponent or 0) - len(decimals)
    number = int(whole + decimals)
    return (number * 10**power, 1) if power >= 0 else (number, 10**-power)


def read_channels(
    in_channels: int,
    out_channels: int,
    width: int,
    step: int,
    device: torch.device | str | None = None,
    order: str = ROLLING,
) -> Tensor:
    """Return the input channels [C_out, w] that each filter reads; the sizes may be symbols.

    >>> read_channels(in_channels=4, out_channels=3, width=2, step=1).tolist()
    [[0, 1], [1, 2], [2, 3]]
    """
    windows = torch.arange(out_channels, device=device)[:, None]
    if order == BLOCKED:  # in rolling order the start wraps as the window does
        distinct = distinct_windows(in_channels, step)
        windows = window_index(windows, distinct, out_channels, order)
    return (windows * step + torch.arange(width, device=device)) % in_channels


def dense_weight(
    weight: Tensor,
    in_channels: int,
    step: int,
    channels: Tensor | None = None,
    order: str = ROLLING,
) -> Tensor:
    """Scatter an RPW weight [C_out, w] into the equal dense weight [C_out, C_in].

    `channels`: the result of `read_channels`, for callers that keep it. Differentiable; the sizes
    may be symbols.

    >>> dense_weight(torch.ones(3, 2), in_channels=4, step=1).int().tolist()
    [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    out_channels, width = weight.shape
    if channels is None:
        channels = read_channels(in_channels, out_channels, width, step, weight.device, order)
    # Out of place, for vmap; of one expanded zero, so that zeros are written only once.
    zeros = weight.new_zeros(1, 1).expand(out_channels, in_channels)
    return zeros.scatter(1, channels, weight)


def _whole(value: Any, name: str) -> int:
    try:
        number = 0 if isinstance(value, bool) else index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise KernelError.because(
            f"{name} out of range",
            got=repr(value),
            allowed="whole numbers from 1",
            remedy=f"give {name} as a whole number",
            argument=name,
        )
    return number


def _divisors(number: int) -> str:
    return ", ".join(str(n) for n in range(1, number + 1) if number % n == 0)
