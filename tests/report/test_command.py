import csv
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from report_samples import kernel_rows, results_folder, write_csv

from ifspace.report import command as report
from ifspace.report.read import PARTS

Run = Callable[..., "Ended"]  # noqa: F821 - of conftest.py
TEXT = "<!-- report: funnel/1 -->\n<!-- end of report -->\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results_folder(tmp_path_factory.mktemp("results"))


def test_tables_of_all_parts_are_printed(run: Run, folder: Path) -> None:
    ended = run("report", folder)
    assert (ended.status, ended.err) == (0, "")
    assert [part.title for part in PARTS if part.title not in ended.out] == []
    assert "GPW(4)+SH(4)+DW+GPW(4), bottleneck 1/4" in ended.out


def test_the_help_names_every_part(run: Run) -> None:
    text = " ".join(run("report", "--help").out.split())
    assert f"{', '.join(part.name for part in PARTS)}; all if not given" in text


def test_only_some_parts(run: Run, folder: Path) -> None:
    ended = run("report", folder, "--only", "funnel,reproduction")
    assert "survivors" in ended.out
    assert "[IF] Table 1" in ended.out
    assert "RPW" not in ended.out


def test_files_of_no_part_are_listed_where_all_parts_are_shown(
    run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = results_folder(tmp_path_factory.mktemp("results"))
    (folder / "own.csv").write_text("a\n1\n")
    assert "files that no part of the report shows: own.csv" in run("report", folder).err
    assert run("report", folder, "--only", "funnel").err == ""


@pytest.mark.slow
def test_the_json_lists_the_parts_written_and_left_out(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    ended = run("report", folder, "--html", page, "--format", "json", "--quiet")
    assert ended.json["written"] == [str(page)]
    assert ended.json["left_out"] == []
    first = ended.json["tables"][0]
    assert (first["part"], first["header"][0], first["rows"][2][-1]) == ("funnel", "length", "3")
    assert page.read_text().startswith("<!doctype html>")


def test_markdown_and_csv(run: Run, folder: Path, tmp_path: Path, snapshot: object) -> None:
    out = tmp_path / "report.md"
    ended = run("report", folder, "--only", "funnel", "--format", "csv", "--out", out)
    rows = list(csv.DictReader(ended.out.splitlines()))
    assert out.read_text() == snapshot
    (title,) = {row["table"] for row in rows if row["table"].endswith("16 channels")}
    assert title in out.read_text()
    assert rows[4] == {
        "part": "funnel",
        "table": title,
        "row": "1",
        "column": "all",
        "value": "258",
    }


@pytest.mark.slow
def test_page_figures_and_readme_are_written(run: Run, folder: Path, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(TEXT)
    figures = tmp_path / "deep" / "figures"
    ended = run(
        "report",
        folder,
        "--html",
        tmp_path / "a.html",
        "--figures",
        figures,
        "--readme",
        readme,
        "--only",
        "funnel",
    )
    assert (ended.status, ended.out) == (0, "")
    assert "| survivors" in readme.read_text()
    assert (figures / "funnel-16.svg").exists()
    paths = [line.removeprefix("ifspace: written: ") for line in ended.err.splitlines()]
    assert [path for path in paths if not Path(path).exists()] == []
    assert len(paths) == 2 + len(list(figures.iterdir()))
    again = run("report", folder, "--readme", readme)
    assert (again.out, again.err) == ("", f"ifspace: {readme} is up to date\n")
    assert run("report", folder, "--readme", readme, "--format", "json").json["written"] == []


def test_missing_parts_are_left_out_and_named(run: Run, tmp_path: Path, snapshot: object) -> None:
    write_csv(tmp_path / "bench" / "cpu-a.csv", kernel_rows())
    ended = run("report", tmp_path)
    assert ended.status == 0
    assert "RPW on cpu-test" in ended.out
    assert ended.err.replace(str(tmp_path), "FOLDER") == snapshot
    assert run("report", tmp_path, "--quiet").err == ""
    assert run("report", tmp_path, "--only", "kernels").err == ""


def test_a_page_without_a_catalogue_is_an_error(run: Run, tmp_path: Path) -> None:
    write_csv(tmp_path / "bench" / "cpu-a.csv", kernel_rows())
    readme = tmp_path / "README.md"
    readme.write_text(TEXT)
    run(
        "report", tmp_path, "--html", tmp_path / "a.html", "--readme", readme, "--quiet"
    ).fails_with("a page needs a catalogue")
    assert readme.read_text() == TEXT, "nothing is written after an error"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["no such results folder", "nowhere"]),
        ([".", "--only", "speed"], ["--only", "'speed'", "allowed: funnel, designs"]),
        ([".", "--only", ","], ["--only", "values between commas"]),
        ([".", "--html", "no/such/page.html"], ["output cannot be written", "no/such/page.html"]),
        ([".", "--readme", "no.md"], ["--readme", "no.md cannot be written anew"]),
        ([".", "--figures", "catalogue-16.parquet"], ["no place for the figures"]),
        ([".", "--out", "tables.txt"], ["unknown output format", "tables.txt"]),
    ],
)
def test_bad_input_is_one_line(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, arguments, words
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    run("report", *arguments, "--quiet").fails_with(*words)
    assert sorted(folder.rglob("*")) == before


def test_foreign_files_and_other_versions_are_one_line(run: Run, tmp_path: Path) -> None:
    folder = results_folder(tmp_path / "a")
    (folder / "stages-bench.csv").write_text("a,b\n1,2\n")
    run("report", folder).fails_with("stages-bench.csv", "no column table", "benchmarks.stages")
    folder = results_folder(tmp_path / "b")
    (folder / "bench" / "blocks-cpu-test.json").write_text('{"version": 7}')
    run("report", folder).fails_with("blocks-cpu-test.json", "version 7, not 1", "ifspace bench")
    folder = results_folder(tmp_path / "c")
    (folder / "catalogue-16.parquet").write_bytes(b"PAR1")
    run("report", folder).fails_with("catalogue-16.parquet", "no Parquet file")


def test_a_missing_package_is_named_with_its_extra(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None if name == "vl_convert" else 1)
    run("report", folder, "--html", tmp_path / "a.html").fails_with(
        "vl_convert is not installed", "ifspace[report]"
    )
    assert run("report", folder, "--only", "funnel").status == 0


def test_a_terminal_gets_folded_tables(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    out = run("report", folder, "--only", "designs").out
    assert "-----" in out
    assert "DW+RPW(4,0)+RPW(4,0)" in out, "a block is whole"


@pytest.mark.slow
def test_neither_torch_nor_a_solver_is_loaded(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom ifspace.cli.main import main\n"
        f"sys.argv = ['ifspace', 'report', {str(folder)!r}, '--html', "
        f"{str(tmp_path / 'a.html')!r}, '--figures', {str(tmp_path)!r}, '--only', 'funnel']\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "print(*{'torch', 'triton', 'ortools'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""
