"""What a setting may hold, made canonical; which kinds are left at its widths."""

import re
from collections.abc import Iterable
from fractions import Fraction
from math import isfinite
from numbers import Real
from typing import Any, Final

from ifspace.block import (
    Composition,
    range_text,
    whole,
)
from ifspace.errors import BlockError, SettingError
from ifspace.kinds import alphabet, find_kind, parse_overlap, parse_ratio, position

# The exact field is kept as a bit per channel and output: this many are still quick to decide.
MAX_WIDTH: Final = 4096
# What a description looks at layer by layer ends here: all copies and layers are tried one by one.
MAX_COPIES: Final = 64
MAX_LAYERS: Final = 128
# How amounts are written, and what a letter behind them stands for.
AMOUNTS: Final = "whole numbers such as 16k, 5.1M, 1344"
_POWERS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def kinds_without_choice(
    kinds: Iterable[str], width_pairs: Iterable[tuple[int, int]], overlaps: tuple[Fraction, ...]
) -> tuple[str, ...]:
    """Return the kinds that have no legal, non-trivial parameters at any of the width pairs.

    >>> kinds_without_choice(("PW", "GC", "SH"), [(7, 7)], ())
    ('GC', 'SH')
    """
    pairs = tuple(width_pairs)

    def fits(kind: str) -> bool:
        row = find_kind(kind)
        return any(
            row.choices(c_in, c_out, overlaps)
            for c_in, c_out in pairs
            if row.mixing or c_in == c_out
        )

    return tuple(kind for kind in kinds if not fits(kind))


def ungrouped_kinds() -> tuple[str, ...]:
    """Return the kinds of the alphabet that take no groups: they exist at every width."""
    return tuple(kind for kind in alphabet() if not find_kind(kind).takes_groups)


def listed(names: Iterable[str]) -> str:
    """Return the names as a reader lists them.

    >>> listed(["GC", "GPW", "SH"])
    'GC, GPW and SH'
    """
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def canonical_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return the kinds in the order of the table, each once; text is split at its commas.

    >>> canonical_kinds("dw, PW,DW")
    ('PW', 'DW')

    Raises: SettingError for an unknown kind, for the reference, and for none at all.
    """
    given = kinds.split(",") if isinstance(kinds, str) else list(kinds)
    known = {symbol.upper(): symbol for symbol in alphabet()}
    unknown = [kind for kind in given if kind.strip().upper() not in known]
    if unknown or not given:
        raise SettingError.because(
            "unknown kind of convolution" if unknown else "no kind to enumerate",
            got=", ".join(map(repr, unknown)) or "none",
            allowed=", ".join(known.values()),
            remedy="`ifspace kinds` explains each",
        )
    return tuple(sorted({known[kind.strip().upper()] for kind in given}, key=position))


def whole_within(
    value: Any, name: str, least: int, most: int | None = None, what: str = "whole numbers"
) -> int:
    """Return the value as an int, or refuse it with the name that the caller knows it by.

    Raises: SettingError.
    """
    try:
        return whole(value, name, least, most, what)
    except BlockError as error:
        refused = SettingError(str(error))
        refused.argument = error.argument
        raise refused from None


def odd_within(value: Any, name: str, least: int, most: int | None = None) -> int:
    """Return the value as an odd int: a kernel of even size has no centre pixel.

    Raises: SettingError.
    """
    number = whole_within(value, name, least, most, "odd numbers")
    if number % 2 == 0:
        raise SettingError.because(
            f"{name} is even",
            got=number,
            allowed=range_text(least, most, "odd numbers"),
            remedy=f"use {number - 1} or {number + 1}: an even one has no centre pixel",
            argument=name,
        )
    return number


def amount(value: Any, name: str = "amount") -> int:
    """Return a whole number from 0; in text it may end in k, M or G, exactly.

    >>> amount("5.1M"), amount("16k"), amount(1344)
    (5100000, 16000, 1344)

    Raises: SettingError.
    """
    if not isinstance(value, str):
        return whole_within(value, name, 0)
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([kmg]?)", value.strip().lower())
    exact = Fraction(match[1]) * _POWERS[match[2]] if match else None
    if exact is None or exact.denominator != 1:
        raise SettingError.because(
            f"{name} is no amount",
            got=repr(value),
            allowed=AMOUNTS,
            remedy="k, M and G stand for thousands, millions and thousand millions",
            argument=name,
        )
    return int(exact)


def exact_overlaps(overlaps: Iterable[Any]) -> tuple[Fraction, ...]:
    """Return the overlap ratios exact and ascending, each once.

    >>> exact_overlaps(["0.5", 0, "1/2"])
    (Fraction(0, 1), Fraction(1, 2))

    Raises: SettingError outside 0 <= o < 1, and for none at all.
    """
    given = (overlaps,) if isinstance(overlaps, str) else tuple(overlaps)
    if not given:
        raise SettingError.because(
            "no overlap ratio", got="none", allowed="0 <= o < 1", remedy="give 0 for no overlap"
        )
    exact = set()
    for overlap in given:
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
            "bottleneck is not a whole number of channels",
            got=f"{ratio} of {out_width}",
            allowed=f"an exact ratio such as 1/4, ratio x {out_width} whole, 1 to {MAX_WIDTH}",
            remedy="change the ratio or the width",
            argument="bottleneck",
        )
    return exact


def check_length(composition: Composition) -> None:
    """Refuse a composition of more copies or layers than are looked at one by one.

    >>> check_length(Composition.parse("(DW+PW)x64"))

    Raises: SettingError.
    """
    copies, length = composition.repeats, len(composition)
    if copies > MAX_COPIES or copies * length > MAX_LAYERS:
        raise SettingError.because(
            "composition too long",
            got=f"{copies} x {length} layers",
            allowed=f"at most {MAX_COPIES} copies and {MAX_LAYERS} layers in all",
            remedy="ask for one copy, or for fewer of them",
        )


def from_zero(value: Any, name: str) -> float:
    """Return a finite number from 0.

    Raises: SettingError.
    """
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not (number and isfinite(value) and value >= 0):
        low = number and value < 0
        raise SettingError.because(
            f"{name} out of range",
            got=value if number else repr(value),
            allowed="numbers from 0",
            remedy="use 0 for the least" if low else "use a finite number",
            argument=name,
        )
    return float(value)
