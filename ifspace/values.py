"""Values that callers give: parsed once, checked once, with one error for each mistake.

Whole numbers, ratios, overlaps, lists, sizes of images and amounts such as `5.1M` are read here and
nowhere else. Every function returns the canonical value or raises an error that names the argument;
those that read the text of an option raise ValueError with the part that is wrong, to which the
option adds what it allows.
"""

import re
from collections.abc import Collection, Iterable
from fractions import Fraction
from math import isfinite
from numbers import Real
from operator import index
from typing import Any, Final

from ifspace.errors import ARGUMENT, BlockError, IfspaceError, SettingError, shown

# The exact field is kept as a bit per channel and output: this many are still quick to decide.
MAX_WIDTH: Final = 4096
# Of a block: copies, layers of all copies, and pixels of a kernel.
MAX_COPIES: Final = 64
MAX_LAYERS: Final = 128
MAX_KERNEL: Final = 9_999
# Pixels along a side of a feature map; images in a batch, and rounds in which they are timed.
MAX_SIDE: Final = 65_536
MAX_BATCH: Final = 65_536
MAX_ROUNDS: Final = 100_000
# How amounts are written, and what a letter behind them stands for.
AMOUNTS: Final = "whole numbers above 0 such as 16k, 5.1M, 1344"
SHARES: Final = "shares of the network as it is such as 60%"
_POWERS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def set_fields(instance: Any, **values: Any) -> None:
    """Set fields of a frozen dataclass to their canonical values, from its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(instance, name, value)


def whole_number(
    value: Any,
    name: str,
    least: int = 1,
    most: int | None = None,
    what: str = "whole numbers",
    error: type[IfspaceError] = SettingError,
) -> int:
    """Return the value as an int from `least` to `most`.

    >>> whole_number(True, "groups")
    Traceback (most recent call last):
    ifspace.errors.SettingError: groups out of range: got True; allowed: whole numbers from 1; ...

    Raises: `error`, for a bool or a float too, with `name` as its argument.
    """
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is not None and number >= least and (most is None or number <= most):
        return number
    if number is None:
        remedy = f"give {ARGUMENT} as a whole number"
    elif number < least:
        remedy = f"raise {ARGUMENT} to {least} or more"
    else:
        remedy = f"lower {ARGUMENT} to {most} or less"
    raise error.because(
        f"{ARGUMENT} out of range",
        got=shown(value),
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


def odd_number(value: Any, name: str, least: int, most: int | None = None) -> int:
    """Return the value as an odd int: a kernel of even size has no centre pixel.

    Raises: SettingError.
    """
    number = whole_number(value, name, least, most, "odd numbers")
    if number % 2 == 0:
        raise SettingError.because(
            f"{ARGUMENT} is even",
            got=number,
            allowed=range_text(least, most, "odd numbers"),
            remedy=f"use {number - 1} or {number + 1}: an even one has no centre pixel",
            argument=name,
        )
    return number


def choice(value: Any, name: str, allowed: Collection[Any], fact: str = "") -> None:
    """Check that the value is one of those allowed.

    Raises: SettingError, for a bool where 1 is allowed too.
    """
    if value not in allowed or isinstance(value, bool):
        raise SettingError.because(
            fact or f"unknown {ARGUMENT}",
            got=repr(value),
            allowed=", ".join(map(str, allowed)),
            remedy="choose one of them",
            argument=name,
        )


def number_from_zero(value: Any, name: str) -> float:
    """Return a finite number from 0.

    Raises: SettingError.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and isfinite(value) and value >= 0):
        low = number and value < 0
        raise SettingError.because(
            f"{ARGUMENT} out of range",
            got=value if number else repr(value),
            allowed="numbers from 0",
            remedy="use 0 for the least" if low else "use a finite number",
            argument=name,
        )
    return float(value)


def amount(value: Any, name: str = "amount") -> int:
    """Return a whole number from 0; in text it may end in k, M or G, exactly.

    >>> amount("5.1M"), amount("16k"), amount(1344)
    (5100000, 16000, 1344)

    Raises: SettingError.
    """
    if not isinstance(value, str):
        return whole_number(value, name, 0)
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([kmg]?)", value.strip().lower())
    exact = Fraction(match[1]) * _POWERS[match[2]] if match else None
    if exact is None or exact.denominator != 1:
        raise SettingError.because(
            f"{ARGUMENT} is no amount",
            got=repr(value),
            allowed=AMOUNTS,
            remedy="k, M and G stand for thousands, millions and thousand millions",
            argument=name,
        )
    return int(exact)


def share(value: object, name: str = "amount") -> Fraction | None:
    """Parse a share, text such as "60%", exactly; return None for anything else.

    >>> share("60%"), share("12.5 %"), share("60")
    (Fraction(3, 5), Fraction(1, 8), None)

    Raises: SettingError for a share of 0 or above 1000%.
    """
    text = value.strip() if isinstance(value, str) else ""
    if not text.endswith("%"):
        return None
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,9})?)\s*%", text)
    if match is None or not 0 < Fraction(match[1]) <= 1000:
        raise SettingError.because(
            f"{ARGUMENT} is no share",
            got=repr(value),
            allowed="percentages above 0% and up to 1000%, such as 60%",
            remedy="write digits before the %",
            argument=name,
        )
    return Fraction(match[1]) / 100


def amount_or_share(value: str) -> int | str:
    """Return an amount, or the text of a share as it is.

    >>> amount_or_share("5.1M"), amount_or_share("60%")
    (5100000, '60%')

    Raises: SettingError.
    """
    return amount(value) if share(value) is None else value.strip()


def ratio_or_share(value: str) -> Fraction | str:
    """Return an exact ratio from 0, or the text of a share as it is.

    >>> ratio_or_share("2.5"), ratio_or_share("70%")
    (Fraction(5, 2), '70%')

    Raises: SettingError, ValueError.
    """
    return ratio_from_zero(value) if share(value) is None else value.strip()


def parse_ratio(value: object) -> Fraction | None:
    """Parse a ratio exactly; return None if `value` is a float or not a ratio.

    >>> parse_ratio("0.33"), parse_ratio("1/3"), parse_ratio("1e9")
    (Fraction(33, 100), Fraction(1, 3), None)
    """
    text = value.strip() if isinstance(value, str) else ""  # not 1e999999999: it takes forever
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}|[0-9]{1,9}/0*[1-9][0-9]{0,8}", text):
        return Fraction(text)
    return Fraction(value) if isinstance(value, int | Fraction) else None


def ratio_from_zero(text: str) -> Fraction:
    """Return an exact ratio from 0, written with a digit before its point.

    >>> ratio_from_zero("1/4"), ratio_from_zero("0.5")
    (Fraction(1, 4), Fraction(1, 2))

    Raises: ValueError with the text.
    """
    value = parse_ratio(text)
    if value is None or not re.match(r"[0-9]", text.strip()):
        raise ValueError(text)
    return value


def ratio_above_zero(value: Any, name: str) -> Fraction:
    """Return an exact ratio above 0.

    >>> ratio_above_zero(2, "alpha")
    Fraction(2, 1)

    Raises: SettingError, with `name` as the argument, for other values; floats are not exact.
    """
    if isinstance(value, Fraction | int) and value > 0:
        return Fraction(value)
    raise SettingError.because(
        f"{ARGUMENT} out of range",
        got=value if isinstance(value, Fraction) else repr(value),
        allowed="ratios above 0, exact",
        remedy="write it like 1/4, 3/2 or 2",
        argument=name,
    )


def parse_overlap(value: str | int | Fraction) -> Fraction:
    """Return an overlap ratio; raise BlockError outside 0 <= o < 1 and for what is not exact."""
    overlap = parse_ratio(value)
    if overlap is None or not 0 <= overlap < 1:
        raise BlockError.because(
            "overlap out of range",
            got=str(value).strip() or "''",
            allowed="0 <= o < 1, as a decimal or a fraction",
            remedy="write 0, 0.33, 1/3 or 1/2",
        )
    return overlap


def exact_overlaps(overlaps: Iterable[Any]) -> tuple[Fraction, ...]:
    """Return the overlap ratios exact and ascending, each once.

    >>> exact_overlaps(["0.5", 0, "1/2"])
    (Fraction(0, 1), Fraction(1, 2))

    Raises: SettingError outside 0 <= o < 1, and for none at all.
    """
    values = (overlaps,) if isinstance(overlaps, str) else tuple(overlaps)
    if not values:
        raise SettingError.because(
            "no overlap ratio", got="none", allowed="0 <= o < 1", remedy="give 0 for no overlap"
        )
    exact = set()
    for overlap in values:
        try:
            exact.add(parse_overlap(overlap))
        except BlockError:
            raise SettingError.because(
                "overlap ratio out of range",
                got=overlap if isinstance(overlap, str) else repr(overlap),
                allowed="0 <= o < 1, exact",
                remedy="write 0, 0.33, 1/3 or 1/2",
                argument="overlaps",
            ) from None
    return tuple(sorted(exact))


def exact_bottleneck(ratio: Any, out_width: int) -> Fraction | None:
    """Return the ratio of a bottleneck before `out_width` channels, exact.

    >>> exact_bottleneck("1/4", 64)
    Fraction(1, 4)

    Raises: SettingError unless ratio x out_width is a whole number from 1 to MAX_WIDTH.
    """
    if ratio is None:
        return None
    exact = parse_ratio(ratio)
    inner = None if exact is None else exact * out_width
    if inner is None or inner.denominator != 1 or not 1 <= inner <= MAX_WIDTH:
        raise SettingError.because(
            f"{ARGUMENT} is not a whole number of channels",
            got=f"{ratio} of {out_width}",
            allowed=f"an exact ratio such as 1/4, ratio x {out_width} whole, 1 to {MAX_WIDTH}",
            remedy="change the ratio or the width",
            argument="bottleneck",
        )
    return exact


def parse_image_size(text: str) -> tuple[int, int, int]:
    """Return (channels, height, width) of an image from text.

    >>> parse_image_size("3x224x224"), parse_image_size("1×28×32")
    ((3, 224, 224), (1, 28, 32))

    Raises: SettingError, with "input" as its argument.
    """
    ascii_text = text.replace("×", "x").lower() if isinstance(text, str) else ""
    match = re.fullmatch(r"\s*([0-9]{1,9})\s*x\s*([0-9]{1,9})\s*x\s*([0-9]{1,9})\s*", ascii_text)
    if match is None:
        is_volume = re.fullmatch(r"[0-9]+(x[0-9]+){3}", ascii_text) is not None
        raise SettingError.because(
            "image size cannot be read",
            got=repr(text),
            allowed="CHANNELSxHEIGHTxWIDTH in pixels",
            remedy=f"{'networks in 3-D are not read; ' if is_volume else ''}"
            "write it like 3x224x224",
            argument="input",
        )
    channels, height, width = map(int, match.groups())
    return channels, height, width


def text_list(text: str) -> tuple[str, ...]:
    """Return the values between commas.

    >>> text_list("PW, DW")
    ('PW', 'DW')

    Raises: ValueError with the text, if one of them is empty.
    """
    values = tuple(part.strip() for part in text.split(","))
    if not all(values):
        raise ValueError(text)
    return values


def number_list(text: str) -> tuple[int, ...]:
    """Return the whole numbers between commas.

    >>> number_list("16,64,16")
    (16, 64, 16)

    Raises: ValueError with the text.
    """
    values = text_list(text)
    if not all(value.isascii() and value.isdigit() and len(value) < 10 for value in values):
        raise ValueError(text)
    return tuple(map(int, values))


def block_list(text: str) -> tuple[str, ...]:
    """Return the blocks between commas; those inside parentheses belong to the block.

    >>> block_list("CONV, DW+RPW(8,1/2)")
    ('CONV', 'DW+RPW(8,1/2)')

    Raises: ValueError with the text, if one of them is empty.
    """
    blocks = tuple(part.strip() for part in re.split(r",(?![^()]*\))", text))
    if not all(blocks):
        raise ValueError(text)
    return blocks


def decimal(text: str) -> float:
    """Return a number from 0, written without an exponent.

    >>> decimal("0.5"), decimal("3")
    (0.5, 3.0)

    Raises: ValueError with the text.
    """
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text.strip()):
        raise ValueError(text)
    return float(text)


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, which gets an s unless `plural` says how it ends.

    >>> counted(1, "layer"), counted(1_000, "layer"), counted(2, "patch", "patches")
    ('1 layer', '1,000 layers', '2 patches')
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def listed(names: Iterable[str]) -> str:
    """Return the names as a reader lists them.

    >>> listed(["GC", "GPW", "SH"])
    'GC, GPW and SH'
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
