"""The reproduction page: verdicts, and how many rows match."""

import pytest

from experiments.reproduction import __main__ as reproduction
from experiments.reproduction.page import (
    CUT,
    MATCH,
    Judged,
    Section,
    as_table,
    verdict,
)


@pytest.mark.parametrize(
    ("printed", "ours", "expected"),
    [
        ("1.17", 1.165, MATCH),
        ("1.17", 1.1749, MATCH),
        ("1.17", 1.1751, CUT),
        ("1.17", 1.1801, "off by +0.01"),
        ("1.17", 1.16, "off by -0.01"),
        ("0", 0.0, MATCH),
        ("11.0", 11.04, MATCH),
        ("147.4244", 147.4246, "off by +0.0002"),
    ],
)
def test_a_number_matches_to_the_printed_digits_and_no_further(printed, ours, expected):
    assert verdict(printed, ours) == expected


def test_the_page_counts_what_it_judges():
    judged = Judged(
        as_table(["name", "verdict"], [["a", MATCH], ["b", CUT], ["c", "off"], ["d", "off"]])
    )
    plain = as_table(["name", "verdict"], [["e", "off"]])
    page = reproduction.page([Section("Part", ["Text.", plain, judged], ("these",))], "`x`")
    assert "Of 4 rows, 2 match and 2 do not." in page
    assert "| these   | 2       | 2        | c, d    |" in page
    assert page.index("Written by `x`") < page.index("## Part") < page.index("| e ")
