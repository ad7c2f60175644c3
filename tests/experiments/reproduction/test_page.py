"""The reproduction page: verdicts, counts of rows, fields and trajectories."""

from dataclasses import replace
from itertools import pairwise
from math import exp

import pytest

from experiments.reproduction import __main__ as reproduction
from experiments.reproduction import (
    fields,
    moves,
)
from experiments.reproduction.page import (
    CUT,
    MATCH,
    Judged,
    Section,
    as_table,
    verdict,
)
from experiments.reproduction.printed import EXPECTED
from ifspace.stages.networks import vgg


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


# --- [IF] Tables 1 and 2 ---


def test_fields_and_gains_of_if_table_1():
    sides = [3, 5, 7]
    volumes = [side**2 * 128 for side in sides]
    own = [(b - a) / a * exp(-3 * a / 8192) for a, b in pairwise(volumes)]
    table = fields.fields_table(vgg("vgg11", 32).stages[2].at_depth(3))
    assert table.missed == []
    assert [row[5] for row in table.rows] == ["-", *(f"{gain:.4f}" for gain in own)]


def test_another_stage_does_not_match_if_table_1():
    wrong = vgg("vgg11", 32).stages[1].at_depth(3)
    assert fields.fields_table(wrong).missed == ["1", "2", "3"]


def test_gains_of_if_table_2():
    table = fields.variants_table(vgg("vgg11", 32))
    assert table.missed == []
    first = (25 - 9) / 9 * exp(-3 * 9 / 32**2)
    assert table.rows[0][2] == f"{first:.4f}"
    assert fields.variants_table(vgg("vgg16", 32)).missed


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
    known = replace(EXPECTED[0], **change)
    found = moves.trajectory("vgg16", 32)
    with pytest.raises(AssertionError, match=fault):
        assert moves.judge_moves(known, found) == MATCH


@pytest.mark.parametrize(("network", "side"), [("vgg19", 32), ("mobilenet", 224)])
def test_moved_gain_is_the_difference_of_the_total_gains(network, side):
    found = moves.trajectory(network, side)
    differences = [layout.gain() - found.start.gain() for layout in found.layouts]
    assert moves.sums(found) == pytest.approx(differences, abs=1e-12)


def test_published_layouts_and_gains():
    published = list(moves.published())
    off = {(each.network, each.data) for each in published if each.state is None}
    assert off == {("resnet50", data) for data in ("CIFAR-10", "CIFAR-100", "ImageNet")}
    gains = moves.gains_table()
    fits = {row[0]: row[-1] for row in gains.rows if row[1] == "ImageNet"}
    assert fits["vgg16-opt"] == "match (published)"
    assert fits["vgg19-opt"] == "match (end)"
    assert len(gains.missed) == 10
