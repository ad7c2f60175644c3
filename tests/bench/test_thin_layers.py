"""The comparison of thin layers with grouped convolutions of as many weights."""

import csv
from pathlib import Path

import pytest

from benchmarks.thin_layers import BOTH, Case, cases, compare, main, summary


def test_cases_are_compared_in_both_modes() -> None:
    todo = list(cases((1, 128), (1,)))
    assert len(todo) == len(set(todo))
    assert all(case.batch * case.channels * case.side**2 <= 8 << 20 for case in todo)
    case = Case(1, BOTH, "nchw", "rolling", 1, 64, 14, 4, 0.33)
    row = compare(case)
    assert row is not None
    assert row["ratio"] == pytest.approx(row["rpw us"] / row["grouped us"], abs=0.02)
    assert row["way"].startswith("forward: compiled, ")
    table = summary([row | {"ratio": ratio} for ratio in (0.5, 0.9, 1.04, 2.0)], ("mode",))
    cells = [cell.strip() for cell in table.splitlines()[2].split("|")[2:-1]]
    assert cells[0] == "4"
    assert list(map(float, cells[1:3])) == [0.97, 2.0]
    assert cells[3:] == ["50%", "75%"]


@pytest.mark.slow
def test_what_it_writes(tmp_path: Path) -> None:
    main(["--seconds", "0.5", "--threads", "1", "--out", str(tmp_path)])
    with (tmp_path / "thin-layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows
    assert all(float(row["ratio"]) > 0 for row in rows)
    assert "of as many weights" in (tmp_path / "thin-layers.md").read_text()
