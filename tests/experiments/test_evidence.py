"""Published trained networks: the facts, what the page says of them, and that nobody says more."""

import re
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from claims import claims_of
from scipy.stats import spearmanr

from experiments.evidence.__main__ import PAGE, PLACES, table
from experiments.evidence.page import (
    always_above_macs,
    field_share,
    group_sweeps,
    networks_of_full_field,
    page,
    pairs_of_equal_cost,
    wide_networks,
    width_correlation,
)
from ifspace.block import Block
from ifspace.canonical import network_class
from ifspace.catalogue.evidence import CLAIMS, evidence, evidence_table, trained_blocks
from ifspace.scores.measures import SCORES
from ifspace.table import Table

ROOT = Path(__file__).parents[2]
ROWS = trained_blocks()


def test_the_files_are_what_the_generator_writes_of_the_facts() -> None:
    texts = [place.read_text() for place in PLACES]
    assert texts == [table(ROWS)] * 2
    assert all(row.licence in ("MIT", "paper") and row.source and row.where for row in ROWS)


@pytest.mark.slow
def test_the_page_is_that_of_the_facts() -> None:
    assert PAGE.read_text() == page(ROWS)


def test_larger_field_at_equal_cost() -> None:
    pairs = pairs_of_equal_cost(ROWS)
    assert len(pairs) == 6
    assert all(rolling.error < plain.error for plain, rolling in pairs)
    assert max(plain.error - rolling.error for plain, rolling in pairs) == pytest.approx(3.78)
    assert all(abs(plain.params - rolling.params) <= 10_000 for plain, rolling in pairs)


def test_a_field_that_falls_short() -> None:
    rows = [row for row in ROWS if row.source.endswith("research log")]
    # The shares that are published are counted by others.
    assert [round(field_share(int(row.groups)), 2) for row in rows] == [1.0, 0.88, 0.45, 0.15]
    assert [row.error for row in rows] == [4.76, 5.98, 7.70, 10.02]


def test_group_sweeps() -> None:
    changes = [last.error - first.error for first, last in group_sweeps(ROWS)]
    assert len(changes) == 9
    assert (min(changes), max(changes)) == (pytest.approx(-0.09), pytest.approx(1.75))
    assert sum(changes) / 9 == pytest.approx(0.62, abs=0.005)


def test_width_at_equal_parameters_against_scipy() -> None:
    networks = wide_networks(ROWS)
    rho, _ = width_correlation(networks)
    expected = spearmanr([int(row.width) for row in networks], [-row.error for row in networks])
    assert rho == pytest.approx(expected.statistic)
    assert rho == pytest.approx(0.96, abs=0.005)


def test_full_fields_that_are_apart() -> None:
    errors = [row.error for row in networks_of_full_field(ROWS)]
    assert max(errors) - min(errors) == pytest.approx(2.4, abs=0.05)


def test_no_score_is_above_macs_on_every_set() -> None:
    assert always_above_macs(list(SCORES)) == []
    # A plain count is.
    assert always_above_macs(["activations", "params"]) == ["activations"]


@pytest.mark.parametrize(
    ("block", "same"),
    [
        ("RPW(4,0)+DW+GPW(4)", {"GPW(4)+SH(4)+DW+GPW(4)"}),
        ("GPW(4)+SH(4)+DW+GPW(4)", {"GPW(4)+SH(4)+DW+GPW(4)"}),
        ("PW+GC(32)+PW", {"PW+GC(32)+PW"}),
        ("GPW(2)+SH(4)+DW+GPW(2)", {"GPW(2)+SH(2)+DW+GPW(2)"}),
        ("DW+GPW(16)", set()),
    ],
)
def test_blocks_are_matched_by_network(block: str, same: set[str]) -> None:
    sized = Block.parse(block).at(64)
    rows = evidence(sized)
    assert {entry.trained.block for entry in rows if entry.same_network} == same
    assert [entry.same_network for entry in rows] == sorted(
        (entry.same_network for entry in rows), reverse=True
    )
    for entry in rows:
        if entry.trained.block is None:
            continue
        try:
            other = Block.parse(entry.trained.block).at(64)
        except ValueError:
            continue
        assert (network_class(other) == network_class(sized)) == entry.same_network
    assert len(rows) >= 3
    assert evidence(replace(sized.block, repeats=2).at(64)) == rows


def test_a_bottleneck_makes_other_networks_the_same() -> None:
    # With 32 channels inside, GC(32) is a depthwise layer.
    narrow = Block.parse("PW+GC(32)+PW").at(64, bottleneck=Fraction(1, 2))
    blocks = {entry.trained.block for entry in evidence(narrow) if entry.same_network}
    assert blocks == {"PW+GC(32)+PW", "PW+DW+PW"}


@pytest.mark.slow
def test_commands_show_them(run: Callable, tmp_path: Path) -> None:
    shown = run("show", "DW+PW", "-C", 64)
    assert "MobileNet x1.0" in run("show", "DW+PW", "-C", 64, "--format", "json").out
    assert "Published networks of such blocks" in shown.out
    path = tmp_path / "front.parquet"
    run("enumerate", "--channels", 64, "--max-len", 2, "--quiet", "--out", path)
    designs = run("best", path, "--evidence", "--format", "json").json["designs"]
    rows = next(design for design in designs if design["block"] == "DW+PW")["evidence"]
    assert {"3DRF", "Fog", "imgc"} <= {row["source"].strip("[")[:4].strip("]") for row in rows}
    assert all(row["same_network"] for row in rows if row["composition"] == "DW+PW")
    tables = [
        run("best", path, "--evidence", "--format", name).out for name in ("table", "markdown")
    ]
    assert all("MobileNet" not in text and "VGG16-opt" in text for text in tables)
    assert "evidence" not in run("best", path, "--format", "json").json["designs"][0]


def test_a_table_has_no_empty_column_and_explains_its_sources() -> None:
    def shown(text: str, bottleneck: Fraction | None = None) -> Table:
        rows = evidence(Block.parse(text).at(64, bottleneck=bottleneck))
        return evidence_table([(None, entry) for entry in rows], len(rows))

    plain, narrow = shown("DW+RPW(4,1/2)"), shown("PW+DW+PW", Fraction(1, 2))
    assert "inside" not in plain.names
    assert "inside:" not in plain.text()
    assert "inside" in narrow.names
    for x in (plain, narrow):
        assert {len(row) for row in x.rows} == {len(x.names)}
        has_source = any(str(row[-1]).startswith("deficient-efficient") for row in x.rows)
        assert ("Gray, Crowley and Storkey" in " ".join(x.text().split())) == has_source


PAGES = (
    ROOT / "README.md",
    ROOT / "results" / "tournament.md",
    *sorted((ROOT / "docs").glob("*.md")),
)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_page_claims_more(path: Path) -> None:
    assert claims_of(path.read_text()) == []


def test_more_would_be_seen() -> None:
    assert claims_of("A larger field is a better network.")
    assert claims_of("Blocks of full field have higher\naccuracy.")
    assert not claims_of("A larger field is not a better network.")


def test_the_claims_are_the_same_everywhere() -> None:
    for path in (ROOT / "README.md", PAGE):
        text = re.sub(r"\s+", " ", path.read_text())
        assert all(claim in text for claim in CLAIMS), path
