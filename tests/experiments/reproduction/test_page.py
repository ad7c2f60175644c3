"""The reproduction page: verdicts, readings and the score of each paper."""

import pytest

from experiments.reproduction import __main__ as reproduction
from experiments.reproduction.page import (
    Judged,
    Outcome,
    Reading,
    Section,
    Verdict,
    agrees,
    matched,
    score,
)

GOOD = Verdict(Outcome.MATCH, "R")
WRONG = Verdict(Outcome.MISPRINT, "two numbers")
OPEN = Verdict(Outcome.NO_READING, "7 tried")


@pytest.mark.parametrize(
    ("printed", "ours", "how"),
    [
        ("1.17", 1.165, "rounded"),
        ("1.17", 1.1749, "rounded"),
        ("1.17", 1.1751, "cut"),
        ("1.17", 1.1801, ""),
        ("1.17", 1.16, ""),
        ("0", 0.0, "rounded"),
        ("11.0", 11.04, "rounded"),
        ("147.4244", 147.4246, ""),
    ],
)
def test_a_number_matches_to_the_printed_digits_and_no_further(printed, ours, how):
    assert agrees(printed, ours) == how
    verdict = matched("R", printed, ours)
    assert (verdict is None) == (how == "")


def judged(paper: str, *verdicts: Verdict) -> Judged:
    return Judged(paper, "these", ("row",), tuple((n,) for n in range(len(verdicts))), verdicts)


def test_the_score_counts_outcomes_by_paper():
    sections = [
        Section("One", [judged("[IF]", GOOD, GOOD, WRONG), "Text."]),
        Section("Two", [judged("[Fog]", OPEN), judged("[IF]", OPEN)]),
    ]
    assert [row[1:] for row in score(sections).rows] == [
        (4, 2, 1, 1),
        (0, 0, 0, 0),
        (0, 0, 0, 0),
        (1, 0, 0, 1),
        (5, 2, 1, 2),
    ]


def test_the_page_begins_with_the_score_and_names_the_readings(snapshot):
    reading = Reading("R", "these tables", "as they stand", 7, "2 of 3")
    section = Section("Part", [judged("[IF]", GOOD, WRONG, OPEN), "Text."], (reading,))
    assert reproduction.page([section], "`x`") == snapshot
