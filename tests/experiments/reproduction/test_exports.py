import csv
from math import log, prod
from pathlib import Path

import pytest

from experiments.reproduction import exports
from experiments.reproduction.page import (
    MATCH,
    Judged,
    Section,
    as_table,
)
from ifspace.report.read import (
    RANKS,
    TRAJECTORIES,
    VERDICTS,
    read_rows,
)


def test_verdicts_are_counted_table_by_table() -> None:
    judged = Judged(as_table(["name", "verdict"], [["a", MATCH], ["b", "off"]]))
    rows = list(exports.verdict_rows([Section("Part", [judged], ("these",))]))
    assert rows == [{"table": "these", "rows": 2, "match": 1}]


def test_states_of_a_trajectory() -> None:
    states = [
        row for row in exports.trajectory_rows() if (row["network"], row["side"]) == ("vgg16", 32)
    ]
    assert [row["move"] for row in states] == ["", "4→1", "5→2", "5→1", "4→1", "3→2"]
    assert (states[0]["depths"], states[-1]["depths"]) == ("2 2 3 3 3", "5 4 2 1 1")
    assert states[-1]["published"] == "CIFAR-10, CIFAR-100"
    assert states[-1]["params"] == 5_098_826
    moved = states[-1]["gain"] - states[0]["gain"]
    assert moved == pytest.approx(states[-1]["moved_gain"], abs=1e-5)


@pytest.fixture(scope="module")
def ranks() -> list[exports.Row]:
    return list(exports.rank_rows())


def test_ranks_are_those_of_all_layouts(ranks) -> None:
    """All increasing widths of four convolutions with 4,288 weights, counted in plain Python."""
    found = sorted(
        (
            prod(map(log, (a, b, c, d)))
            for a in range(1, 66)
            for b in range(a + 1, 4288 // a + 1)
            for c in range(b + 1, (4288 - 3 * a - a * b) // b + 1)
            if (left := 4288 - 3 * a - a * b - b * c) > c * c
            for d in [left // c]
            if left % c == 0 and d > c
        ),
        reverse=True,
    )
    rows = [row for row in ranks if row["budget"] == 4288]
    assert rows[0]["layouts"] == len(found)
    for row in rows:
        assert float(row["energy"]) == pytest.approx(found[row["rank"] - 1], rel=1e-6)


def test_what_the_paper_prints_is_kept(ranks) -> None:
    learned = [row["rank"] for row in ranks if row["paper"] == "learned best"]
    assert learned == [*range(1, 7), *range(1, 7)]
    table = [row["rank"] for row in ranks if row["paper"] == "Table 4"]
    assert table == [*range(1, 13), 12], "two layouts have no energy at all"


def test_few_of_many_are_kept() -> None:
    kept = exports._kept(12_000)
    assert {*range(1, exports.FIRST + 1), 12_000} <= kept
    assert len(kept) < 200


def test_the_report_reads_what_is_written(tmp_path: Path) -> None:
    names = exports.write(
        tmp_path,
        [Section("Part", [Judged(as_table(["a", "verdict"], [["b", MATCH]]))], ("these",))],
    )
    assert names == (VERDICTS.pattern, TRAJECTORIES.pattern, RANKS.pattern)
    for source in (VERDICTS, TRAJECTORIES, RANKS):
        rows = read_rows(tmp_path / source.pattern, source)
        with (tmp_path / source.pattern).open(newline="") as file:
            assert len(rows) == len(list(csv.DictReader(file)))
