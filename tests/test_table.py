import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifspace.table import (
    Table,
    _fold,
    ratio_text,
)

WORDS = st.lists(st.text("abcDW+() ,", max_size=30), min_size=1, max_size=4)


@pytest.mark.slow
@given(cells=WORDS, width=st.integers(40, 100))
def test_a_folded_table_fits_and_loses_no_character(cells: list[str], width: int) -> None:
    text = Table(("block~", ">params"), tuple((cell, "123") for cell in cells)).text(width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    kept = "".join(line.removesuffix("123") for line in lines[2:]).replace(" ", "")
    assert kept == "".join(cells).replace(" ", "")


def test_nothing_is_folded_without_a_width(capsys: pytest.CaptureFixture[str]) -> None:
    long = "DW+" * 100 + "PW"
    assert long in Table(("block~",), ((long,),)).text()


def test_a_pipe_is_folded_where_columns_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(("block~",), (("DW+" * 100 + "PW",),), notes=("a note " * 40,))
    monkeypatch.setenv("COLUMNS", "50")
    assert 40 < max(map(len, table.text().splitlines())) <= 50
    monkeypatch.setenv("COLUMNS", "")
    assert max(map(len, table.text().splitlines())) > 300


def test_numbers_are_right_aligned() -> None:
    assert Table((">n", "name"), ((1, "a"), (100, None))).text() == (
        "  n  name\n---------\n  1  a\n100\n"
    )


def test_columns_that_do_not_fit_follow_below_with_the_keys_repeated() -> None:
    row = (1, "DW+GPW(8)", "1234567", "7654321")
    text = Table(("#", "block~", ">a", ">b"), (row,)).text(20, keys=2)
    assert [line.split() for line in text.splitlines()] == [
        ["#", "block", "a"],
        ["-" * 20],
        ["1", "DW+", "1234567"],
        ["GPW(8)"],
        [],
        ["#", "block", "b"],
        ["-" * 20],
        ["1", "DW+", "7654321"],
        ["GPW(8)"],
    ]


@pytest.mark.parametrize("width", range(10, 40))
def test_names_of_blocks_are_wrapped_between_layers(width: int) -> None:
    text = Table(("block~",), (("DW+RPW(16,33/100)+GPW(64) min(C, w_1·(s_1 + 1)) k = 3",),)).text(
        width
    )
    words = text.split("\n", 2)[2].replace("+", "+ ").split()
    assert words == [
        "DW+",
        "RPW(16,33/100)+",
        "GPW(64)",
        "min(C,",
        "w_1·(s_1",
        "+",
        "1))",
        "k",
        "=",
        "3",
    ]


def test_parentheses_and_equations_are_cut_last() -> None:
    assert _fold("1 + min(C, w_1) + k = 3", 12) == ["1 +", "min(C, w_1)", "+ k = 3"]
    assert _fold("1 + min(C, w_1)", 8) == ["1 +", "min(C,", "w_1)"]


def test_ratios_read_as_fractions_of_the_convolution() -> None:
    texts = [ratio_text(ratio) for ratio in (1344 / 36864, 272 / 2304, 1 / 4, 1, 0.999, 2.5)]
    assert texts == ["1/27", "1/8.5", "1/4", "1.00", "1.00", "2.50"]


def test_markdown_of_results_pages_has_no_colons() -> None:
    table = Table(("name", ">n"), (("a|b", 10), (None, 9)))
    assert table.markdown("github").splitlines() == [
        "| name   |   n |",
        "|--------|-----|",
        "| a\\|b   |  10 |",
        "|        |   9 |",
    ]
    assert Table(("name",), ()).markdown("github") == "| name   |\n|--------|\n"
