"""Picks of measures under grids of budgets: against the validation, and by hand."""

import csv
from pathlib import Path

import pytest

from experiments.layout_choosers import GRIDS, main, percentiles, summary
from ifspace.scores.tables import network_sets, read_table
from ifspace.scores.validation import QUANTILES, UNDER_BUDGETS, validate

ROWS = "layers,accuracy\n" + "".join(
    f"3/1/3/{8 * n}/1/8,{accuracy}\n" for n, accuracy in enumerate((10, 40, 20, 30), start=1)
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "trained.csv"
    path.write_text(ROWS, "utf-8")
    return path


def test_at_each_fifth_the_picks_are_those_of_the_validation(table: Path) -> None:
    sets = network_sets(read_table(table))
    picks = percentiles(sets[0], QUANTILES)
    for row in validate(sets, resamples=1).rows:
        if row.where == UNDER_BUDGETS:
            assert picks[row.score] == row.statistics["pick_percentile"].value
    # Parameters and MACs are proportional: budgets of 1, 2, 2, 3 and 4 networks, the smaller one of
    # a pair decides. The widest of them are 100, 100, 100, 66.7 and 75.
    assert picks["params"] == pytest.approx((21 * 100 + 3 * 200 / 3 + 75) / 25)
    # Of equal depths the mean of all within: 100, 75, 66.7 and 62.5.
    assert picks["depth"] == pytest.approx((9 * 100 + 12 * 75 + 3 * 200 / 3 + 62.5) / 25)


def test_the_page_has_the_range_over_grids(table: Path, tmp_path: Path) -> None:
    main([str(table), "--out", str(tmp_path)])
    page = (tmp_path / "layout-choosers.md").read_text("utf-8")
    assert "## trained, 4 networks" in page
    rows = list(csv.DictReader((tmp_path / "layout-choosers.csv").read_text("utf-8").splitlines()))
    assert len({row["quantiles"] for row in rows}) == len(GRIDS)
    (networks,) = network_sets(read_table(table))
    swept = [percentiles(networks, grid) for grid in GRIDS]
    first = summary(percentiles(networks, QUANTILES), swept).records()[0]
    assert f"| {first['measure']} " in page
    assert first["over grids"] in page
