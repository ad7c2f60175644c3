from pathlib import Path

import pytest
from report_samples import ENERGY as ENERGY_ROWS
from report_samples import write_csv

from ifspace.errors import SettingError
from ifspace.report.read import (
    ENERGY,
    number,
    read_rows,
)


def test_cells_are_read_by_their_columns(tmp_path: Path) -> None:
    (row,) = read_rows(write_csv(tmp_path / ENERGY.pattern, ENERGY_ROWS), ENERGY)
    assert row["best widths"] == (35, 36, 37, 43)
    assert (row["budget"], row["energy"], row["layers"]) == (4288, 173.035768, "4")
    assert set(row) == set(ENERGY.columns)


def test_unknown_columns_are_ignored(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [row | {"more": "x"} for row in ENERGY_ROWS])
    assert "more" not in read_rows(path, ENERGY)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"energy": "lots"}, r"line 2: energy 'lots'"),
        ({"energy": "inf"}, r"line 2: energy 'inf'"),
        ({"params": ""}, r"line 2: params ''"),
        ({"best widths": "35,36"}, r"line 2: best widths '35,36'"),
    ],
)
def test_an_invalid_cell_is_named(tmp_path: Path, change, message: str) -> None:
    path = write_csv(tmp_path / "energy-bench.csv", [row | change for row in ENERGY_ROWS])
    with pytest.raises(SettingError, match=message):
        read_rows(path, ENERGY)


def test_a_file_without_the_columns_is_an_error_that_names_the_command(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "energy-bench.csv", [{"name": "other"}])
    with pytest.raises(
        SettingError, match=r"no column layers, budg.*write it anew by `.*benchmarks\.energy"
    ):
        read_rows(path, ENERGY)


def test_a_truncated_line_is_an_error(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "energy-bench.csv", ENERGY_ROWS)
    path.write_text(path.read_text().rpartition(",")[0] + "\n")
    with pytest.raises(SettingError, match=r"line 2 has \d+ fields, the header \d+"):
        read_rows(path, ENERGY)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n\x00"])
def test_a_file_that_is_not_a_table_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "energy-bench.csv"
    path.write_bytes(content)
    with pytest.raises(SettingError, match=r"^energy-bench\.csv is not a file of results"):
        read_rows(path, ENERGY)


def test_a_number_is_finite() -> None:
    assert number("1,234.5") == 1234.5
    with pytest.raises(ValueError, match="nan"):
        number("nan")
