import csv
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ifspace import table as tables
from ifspace.kinds import KINDS
from ifspace.show.describe import describe_kinds


def test_the_json_keeps_its_contract(run: Callable) -> None:
    ended = run("kinds", "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    assert [row["kind"] for row in ended.json] == ["PW", "GC", "DW", "GPW", "RPW", "SH", "CONV"]
    for row in ended.json:
        for key in ("kind", "fan_in", "property", "params", "macs", "reference"):
            assert row[key]
            assert isinstance(row[key], str)


def test_the_formulas_are_those_of_the_table_of_kinds(run: Callable) -> None:
    by_kind = {row["kind"]: row for row in run("kinds", "--format", "json").json}
    assert by_kind["GC"]["params"] == str(KINDS["GC"].params)
    assert by_kind["RPW"]["property"] == str(KINDS["RPW"].coverage)


@pytest.mark.parametrize("form", ["table", "markdown", "latex"])
def test_the_text_of_each_format(run: Callable, snapshot, form: str) -> None:
    text = run("kinds", "--format", form).out
    assert all(kind in text for kind in KINDS)
    assert text == snapshot


def test_the_csv_holds_the_formulas(run: Callable) -> None:
    rows = list(csv.DictReader(io.StringIO(run("kinds", "--format", "csv").out)))
    assert rows[0]["params"] == "C_in*C_out"


def test_no_formula_is_cut_on_a_terminal_of_80_columns(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run("kinds").out
    monkeypatch.setattr(tables, "terminal_width", lambda: 80)
    text = run("kinds").out
    assert max(map(len, text.splitlines())) <= 80 < max(map(len, whole.splitlines()))
    for kind in describe_kinds():
        for formula in (kind.property, kind.params, kind.fan_in):
            assert tables.readable(formula) in text


def test_a_kind_added_to_the_table_is_printed(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(KINDS["GPW"], symbol="TPW", title="something new")
    monkeypatch.setitem(KINDS, "TPW", row)  # type: ignore[arg-type]
    assert "something new" in run("kinds").out


def test_the_answer_can_go_to_a_file(run: Callable, tmp_path: Path) -> None:
    path = tmp_path / "kinds.tex"
    assert run("kinds", "--out", path, "--quiet").out == ""
    assert path.read_text() == run("kinds", "--format", "latex").out
    run("kinds", "--out", tmp_path / "kinds.parquet").fails_with("allowed: .json, .csv, .md, .tex")
    run("kinds", "--out", tmp_path / "no" / "kinds.csv").fails_with("cannot be written")
