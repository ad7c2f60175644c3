from fractions import Fraction
from typing import Any

import click
import pytest

from ifspace.cli.options import (
    AMOUNT,
    BLOCKS,
    LIST,
    NUMBERS,
    RATIO,
    SECONDS,
    WIDTHS,
    OneOf,
    WholeNumber,
)


def read(kind: click.ParamType[Any], text: str) -> Any:
    return kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("1344", 1344),
        ("16k", 16_000),
        ("16K", 16_000),
        ("5.1M", 5_100_000),
        (" 370m ", 370_000_000),
        ("2G", 2 * 10**9),
        ("0.001k", 1),
    ],
)
def test_amounts_are_exact(text: str, value: int) -> None:
    assert read(AMOUNT, text) == value


@pytest.mark.parametrize("text", ["", "k", "-1", "5.1", "0.0001k", "1e6", "5,1M", "٣", "1 000"])
def test_other_amounts_are_errors(text: str) -> None:
    with pytest.raises(click.BadParameter, match="allowed: whole numbers above 0 such as 16k"):
        read(AMOUNT, text)


def test_lists_are_split_at_commas() -> None:
    assert read(LIST, " PW,DW ") == ("PW", "DW")
    assert read(WIDTHS, "64, 16,64") == (64, 16)
    assert read(NUMBERS, "64, 16,64") == (64, 16, 64)
    assert read(BLOCKS, "CONV, RPW(8,1/2)") == ("CONV", "RPW(8,1/2)")
    with pytest.raises(click.BadParameter, match="values between commas"):
        read(LIST, "PW,,DW")
    with pytest.raises(click.BadParameter, match="whole numbers above 0 such as 64"):
        read(WIDTHS, "16,²")


@pytest.mark.parametrize("text", ["", "1/0", "-1", "1e3", "nan", "a", "1/2/3", ".5"])
def test_ratios_are_exact_and_others_errors(text: str) -> None:
    assert read(RATIO, " 0.33") == Fraction(33, 100)
    with pytest.raises(click.BadParameter, match="allowed: ratios above 0 such as 1/4"):
        read(RATIO, text)


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1s"])
def test_seconds_are_plain_numbers(text: str) -> None:
    assert read(SECONDS, "2.5") == 2.5
    with pytest.raises(click.BadParameter, match=r"allowed: seconds from 0 such as 0\.5"):
        read(SECONDS, text)


def test_words_and_whole_numbers_say_what_is_allowed() -> None:
    assert read(OneOf(["params", "macs"]), "MACs") == "macs"
    assert read(WholeNumber(1), "7") == 7
    for kind, text, allowed in (
        (OneOf(["params", "macs"]), "flops", "got 'flops'; allowed: params, macs"),
        (WholeNumber(1), "0", "got '0'; allowed: whole numbers from 1"),
        (WholeNumber(1, 2), "3", "got '3'; allowed: whole numbers from 1 to 2"),
        (WholeNumber(), "x", "got 'x'; allowed: whole numbers"),
    ):
        with pytest.raises(click.BadParameter, match=f"^{allowed}$"):
            read(kind, text)
