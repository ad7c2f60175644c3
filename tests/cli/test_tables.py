import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.cli.tables import table

WORDS = st.lists(st.text("abcDW+() ,", max_size=30), min_size=1, max_size=4)


@given(cells=WORDS, width=st.integers(40, 100))
def test_a_folded_table_fits_and_loses_no_character(cells: list[str], width: int) -> None:
    text = table(["block~", ">params"], [[cell, "123"] for cell in cells], width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    kept = "".join(line.removesuffix("123") for line in lines[2:]).replace(" ", "")
    assert kept == "".join(cells).replace(" ", "")


def test_nothing_is_folded_without_a_width(capsys: pytest.CaptureFixture[str]) -> None:
    long = "DW+" * 100 + "PW"
    assert long in table(["block~"], [[long]])


def test_numbers_stand_to_the_right() -> None:
    assert table([">n", "name"], [[1, "a"], [100, None]]) == (
        "  n  name\n---------\n  1  a\n100\n"
    )  # fmt: skip
