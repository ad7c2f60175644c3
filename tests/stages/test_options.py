import click
import pytest

from ifspace.errors import SettingError
from ifspace.stages.command import (
    block_list,
    image,
)
from ifspace.stages.problem import parse_block


@pytest.mark.parametrize(
    ("text", "side"), [("32", 32), (" 224 ", 224), ("3x32x32", 32), ("3X224×224", 224)]
)
def test_an_image_is_its_side(text: str, side: int) -> None:
    assert image(text) == side


@pytest.mark.parametrize("text", ["", "x", "1x32x32", "3x32x64", "32x32", "-32", "3x32x32x1"])
def test_an_image_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="allowed: 32, 224, 3x32x32 or 3x224x224"):
        image(text)


def test_blocks_are_split_outside_parentheses() -> None:
    assert block_list("CONV,CONV,DW+PW") == ("CONV", "CONV", "DW+PW")
    assert block_list("GC(4,k=5)+SH(4), (DW+RPW(8,1/2))x2 ,PW") == (
        "GC(4,k=5)+SH(4)",
        "(DW+RPW(8,1/2))x2",
        "PW",
    )


@pytest.mark.parametrize("text", ["", ",", "PW,", "PW,,DW"])
def test_a_missing_block_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="allowed: blocks between commas"):
        block_list(text)


@pytest.mark.parametrize(
    ("text", "kernel", "block"),
    [
        ("conv", 3, "CONV"),
        ("conv", 7, "CONV(7)"),
        ("CONV(3)+CONV", 7, "CONV+CONV(7)"),
        ("GC(4,k=3)+GC(4)+PW", 5, "GC(4)+GC(4,k=5)+PW"),
        ("(DW+GPW(2))x2", 5, "(DW(5)+GPW(2))x2"),
        ("PW+RPW(4,1/2)", 5, "PW+RPW(4,1/2)"),
    ],
)
def test_the_kernel_is_that_of_layers_without_one(text: str, kernel: int, block: str) -> None:
    assert str(parse_block(text, kernel)) == block


@pytest.mark.parametrize("kind", ["GC", "GPW", "RPW", "SH"])
def test_groups_must_be_given(kind: str) -> None:
    with pytest.raises(SettingError, match=rf"without its groups: got {kind} in DW\+{kind}; "):
        parse_block(f"DW+{kind}")
