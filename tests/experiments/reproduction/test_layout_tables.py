"""[Layout] Tables 1, 2, 4 and 5 against all layouts enumerated."""

from itertools import combinations, pairwise
from math import log, prod

import numpy as np
import pytest

from experiments.reproduction import layout_tables
from experiments.reproduction.page import Outcome
from experiments.reproduction.printed import (
    LEARNED,
    LISTED,
    RESIDUAL,
    RESIDUAL_ENERGIES,
)


def plain_layouts(budget: int, depth: int, least: int = 1) -> list[tuple[int, ...]]:
    """All strictly increasing widths that meet a budget, by trying them."""
    layouts = []
    if depth == 3:
        for a in range(least, budget // 3):
            rest = budget - 3 * a
            if a * (a + 1) > rest:
                break
            layouts += [
                (a, b, (rest - a * b) // b)
                for b in range(a + 1, int(rest**0.5) + 1)
                if (rest - a * b) % b == 0 and rest - a * b > b * b
            ]
        return layouts
    for a in range(least, int(budget**0.5)):
        b, c = np.meshgrid(*[np.arange(a + 1, int(budget**0.5) + 1)] * 2, indexing="ij")
        rest = budget - 3 * a - a * b - b * c
        good = (b < c) & (rest % c == 0) & (rest > c * c)
        layouts += [
            (a, *map(int, row)) for row in zip(b[good], c[good], (rest // c)[good], strict=True)
        ]
    return layouts


def energy(widths: tuple[int, ...]) -> float:
    return prod(map(log, widths))


@pytest.mark.parametrize(("budget", "layouts"), LEARNED)
def test_learned_layouts_are_the_six_best(budget, layouts):
    best = sorted(plain_layouts(budget, 4, least=10), key=energy, reverse=True)[:6]
    assert list(layouts) == best


@pytest.mark.slow
def test_table_5_and_the_named_energies_match():
    assert layout_tables.learned_table().count(Outcome.MATCH) == 12
    named = layout_tables.named_energies_table()
    assert named.count(Outcome.MATCH) == 2
    assert [row[1] for row in named.rows] == ["(35,36,37,43)", "(8,16,44,78)"]
    assert energy((35, 36, 37, 43)) == pytest.approx(173.0358, abs=1e-4)


@pytest.mark.slow
def test_residual_energies_and_ranks():
    _, budget = RESIDUAL
    tried = combinations(range(1, 76), 3)
    meeting_budget = []
    for b, c, d in tried:
        rest = budget - b * c - c * d - sum(9 * n * n for n in (b, c, d))
        if rest > 0 and rest % (3 + b) == 0 and rest // (3 + b) <= b:
            meeting_budget.append((rest // (3 + b), b, c, d))
    assert {layout for layout, _ in RESIDUAL_ENERGIES} == set(meeting_budget)
    assert sum(a < b for a, b, *_ in meeting_budget) == 12
    table = layout_tables.residual_table()
    wrong = [
        (row[0], str(verdict))
        for row, verdict in zip(table.rows, table.verdicts, strict=True)
        if verdict.outcome is not Outcome.MATCH
    ]
    text = "misprint: its decimals are those of (19,34,41,49); the energy is 110.8008"
    assert wrong == [("(16,16,32,64)", text)]
    for (layout, _), row in zip(RESIDUAL_ENERGIES, table.rows, strict=True):
        greater = sum(energy(other) > energy(layout) + 1e-9 for other in meeting_budget)
        assert (row[1], row[3], row[4]) == (
            f"{budget:,}",
            f"{energy(layout):.4f}",
            str(greater + 1),
        )


def test_entries_that_miss_their_budget():
    table = layout_tables.budgets_table()
    rows = zip(table.rows, table.verdicts, strict=True)
    assert {row[1]: verdict.text for row, verdict in rows} == {
        "52 of 57 entries meet 4,288": "E",
        "(36,43,58)": "-138 weights; (39,43,58) would do",
        "(8,18,40,86)": "+40 weights; (8,18,40,85) would do",
        "(12,28,44,64)": "+132 weights; (12,28,44,61) would do",
        "(16,32,39,65)": "+55 weights; (16,31,39,65) would do",
        "(20,34,44,51)": "+192 weights; (20,31,44,51) would do",
        "64 of 64 entries meet 66,304": "E",
    }
    misprints = {row[1] for row in table.rows}
    for cell in LISTED:
        for widths in cell.layouts:
            joined = 3 * widths[0] + sum(a * b for a, b in pairwise(widths))
            name = layout_tables.named(widths)
            assert (joined != cell.budget) == (name in misprints), name


@pytest.mark.slow
def test_how_many_layouts_of_three_convolutions_there_are():
    # Strictly increasing ones by trying; the paper's 24 have three with equal neighbours.
    strict = plain_layouts(4288, 3, least=8)
    printed = set(LISTED[0].layouts)
    equal = {widths for widths in printed if len(set(widths)) < 3}
    assert len(strict) + len(equal) == 24
    assert set(strict) - printed == {(39, 43, 58)}
    table = layout_tables.numbers_table()
    assert [verdict.outcome for verdict in table.verdicts] == [
        Outcome.MATCH,
        Outcome.MISPRINT,  # "Three Convs" over entries of four widths
        Outcome.MATCH,
        Outcome.MATCH,
        Outcome.MISPRINT,  # 12 in the text, 13 in the table
    ]
