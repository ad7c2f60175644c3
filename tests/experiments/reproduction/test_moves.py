"""Fields, gains and trajectories against the papers, and the files that the report reads."""

import csv
from dataclasses import replace
from itertools import pairwise
from math import exp, log, prod
from pathlib import Path

import pytest

from experiments.reproduction import moves
from experiments.reproduction.page import MATCH, Judged, Section, as_table
from experiments.reproduction.printed import EXPECTED
from ifspace.report.read import RANKS, TRAJECTORIES, VERDICTS, read_rows
from ifspace.stages.networks import vgg

# --- [IF] Tables 1 and 2 ---


def test_fields_and_gains_of_if_table_1():
    sides = [3, 5, 7]
    volumes = [side**2 * 128 for side in sides]
    own = [(b - a) / a * exp(-3 * a / 8192) for a, b in pairwise(volumes)]
    table = moves.fields_table(vgg("vgg11", 32).stages[2].at_depth(3))
    assert table.missed == []
    assert [row[5] for row in table.rows] == ["-", *(f"{gain:.4f}" for gain in own)]


def test_another_stage_does_not_match_if_table_1():
    wrong = vgg("vgg11", 32).stages[1].at_depth(3)
    assert moves.fields_table(wrong).missed == ["1", "2", "3"]


def test_gains_of_if_table_2():
    table = moves.variants_table(vgg("vgg11", 32))
    assert table.missed == []
    first = (25 - 9) / 9 * exp(-3 * 9 / 32**2)
    assert table.rows[0][2] == f"{first:.4f}"
    assert moves.variants_table(vgg("vgg16", 32)).missed


# --- [3DRF] trajectories ---


def test_trajectories_are_those_stated():
    assert moves.expected_table().missed == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"total": 4}, "5 moves"),
        ({"moves": "4→1"}, "other moves"),
        ({"states": ((1, (2, 2, 3, 3, 3)),)}, r"state 1 is \{3,2,3,2,3\}"),
        ({"states": ((9, (2, 2, 3, 3, 3)),)}, "state 9 is not there"),
    ],
)
def test_a_wrong_statement_is_found(change, fault):
    stated = replace(EXPECTED[0], **change)
    path = moves.trajectory("vgg16", 32)
    with pytest.raises(AssertionError, match=fault):
        assert moves.judge_moves(stated, path) == MATCH


@pytest.mark.parametrize(("network", "side"), [("vgg19", 32), ("mobilenet", 224)])
def test_moved_gain_is_the_difference_of_the_total_gains(network, side):
    path = moves.trajectory(network, side)
    differences = [layout.gain() - path.start.gain() for layout in path.layouts]
    assert moves.sums(path) == pytest.approx(differences, abs=1e-12)


def test_published_layouts_and_gains():
    published = list(moves.published())
    off = {(layout.network, layout.data) for layout in published if layout.state is None}
    assert off == {("resnet50", data) for data in ("CIFAR-10", "CIFAR-100", "ImageNet")}
    gains = moves.gains_table()
    fits = {row[0]: row[-1] for row in gains.rows if row[1] == "ImageNet"}
    assert fits["vgg16-opt"] == "match (published)"
    assert fits["vgg19-opt"] == "match (end)"
    assert len(gains.missed) == 10


# --- the files ---


def test_verdicts_are_counted_table_by_table() -> None:
    judged = Judged(as_table(["name", "verdict"], [["a", MATCH], ["b", "off"]]))
    rows = list(moves.verdict_rows([Section("Part", [judged], ("these",))]))
    assert rows == [{"table": "these", "rows": 2, "match": 1}]


def test_states_of_a_trajectory() -> None:
    states = [
        row for row in moves.trajectory_rows() if (row["network"], row["side"]) == ("vgg16", 32)
    ]
    assert [row["move"] for row in states] == ["", "4→1", "5→2", "5→1", "4→1", "3→2"]
    assert (states[0]["depths"], states[-1]["depths"]) == ("2 2 3 3 3", "5 4 2 1 1")
    assert states[-1]["published"] == "CIFAR-10, CIFAR-100"
    assert states[-1]["params"] == 5_098_826
    moved = states[-1]["gain"] - states[0]["gain"]
    assert moved == pytest.approx(states[-1]["moved_gain"], abs=1e-5)


@pytest.fixture(scope="module")
def ranks() -> list[moves.Row]:
    return list(moves.rank_rows())


@pytest.mark.slow
def test_ranks_are_those_of_all_layouts(ranks) -> None:
    """All increasing widths of four convolutions with 4,288 weights, counted in plain Python."""
    energies = sorted(
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
    assert rows[0]["layouts"] == len(energies)
    assert float(rows[-1]["energy"]) == pytest.approx(energies[-1], rel=1e-6), "the last is kept"
    for row in rows:
        assert float(row["energy"]) == pytest.approx(energies[row["rank"] - 1], rel=1e-6)


@pytest.mark.slow
def test_the_numbers_of_the_paper_are_kept(ranks) -> None:
    learned = [row["rank"] for row in ranks if row["paper"] == "learned best"]
    assert learned == [*range(1, 7), *range(1, 7)]
    table = [row["rank"] for row in ranks if row["paper"] == "Table 4"]
    assert table == [*range(1, 13), 12], "two layouts have no energy at all"


@pytest.mark.slow
def test_the_first_layouts_and_few_of_the_others_are_kept(ranks) -> None:
    assert max(row["layouts"] for row in ranks) > 10_000
    for budget in {row["budget"] for row in ranks}:
        rows = [row for row in ranks if row["budget"] == budget]
        for number, (row, after) in enumerate(pairwise(rows[: moves.FIRST]), start=2):
            equal = after["energy"] == row["energy"]
            assert after["rank"] == (row["rank"] if equal else number)
        assert len(rows) < 200


@pytest.mark.slow
def test_the_report_reads_the_file(tmp_path: Path) -> None:
    names = moves.write(
        tmp_path,
        [Section("Part", [Judged(as_table(["a", "verdict"], [["b", MATCH]]))], ("these",))],
    )
    assert names == (VERDICTS.pattern, TRAJECTORIES.pattern, RANKS.pattern)
    for source in (VERDICTS, TRAJECTORIES, RANKS):
        rows = read_rows(tmp_path / source.pattern, source)
        with (tmp_path / source.pattern).open(newline="") as file:
            assert len(rows) == len(list(csv.DictReader(file)))
