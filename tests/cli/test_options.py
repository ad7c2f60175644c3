from fractions import Fraction

import click
import pytest

from ifspace.cli.options import amount, numbers, parts, ratio, seconds, widths


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
    assert amount(text) == value


@pytest.mark.parametrize("text", ["", "k", "-1", "5.1", "0.0001k", "1e6", "5,1M", "٣", "1 000"])
def test_other_amounts_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="allowed: whole numbers such as 16k"):
        amount(text)


def test_lists_are_split_at_commas() -> None:
    assert parts(" PW,DW ") == ("PW", "DW")
    assert widths("64, 16,64") == (64, 16)
    with pytest.raises(click.BadParameter, match="values between commas"):
        parts("PW,,DW")
    with pytest.raises(click.BadParameter, match="whole numbers such as 64"):
        widths("16,²")


def test_numbers_keep_their_order_and_their_repeats() -> None:
    assert numbers("64, 16,64") == (64, 16, 64)


@pytest.mark.parametrize("text", ["", "1/0", "-1", "1e3", "nan", "a", "1/2/3"])
def test_ratios_are_exact_and_others_refused(text: str) -> None:
    assert ratio(" 0.33") == Fraction(33, 100)
    with pytest.raises(click.BadParameter, match="allowed: ratios such as 1/4"):
        ratio(text)


@pytest.mark.parametrize("text", ["", "-1", "nan", "inf", "1s"])
def test_seconds_are_plain_numbers(text: str) -> None:
    assert seconds("2.5") == 2.5
    with pytest.raises(click.BadParameter, match=r"allowed: seconds such as 0\.5"):
        seconds(text)
