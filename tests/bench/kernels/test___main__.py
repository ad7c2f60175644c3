"""A quick run writes rows, page and entry; a wrong candidate or argument stops it in one line."""

import csv
import re
from pathlib import Path

import pytest
import torch

from ifspace.bench.kernels import __main__ as bench
from ifspace.bench.kernels import candidates
from ifspace.bench.kernels.cases import Case
from ifspace.bench.kernels.rivals import Way
from ifspace.bench.rows import COLUMNS

QUICK = ["--quick", "--device", "cpu", "--impl", "reference", "--cases", "2x16x4", "--threads", "1"]


def test_a_quick_run_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        *QUICK,
        "--windows",
        "4,0.33 8,1/2",
        "--kinds",
        "RPW,DW+RPW",
        "--out",
        str(tmp_path / "bench"),
    ]
    bench.main(arguments)
    (table,), (page,) = ((tmp_path / "bench").glob(f"*.{end}") for end in ("csv", "md"))
    assert table.stem == page.stem
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {row["device"] for row in rows} == {table.stem}
    assert {row["case"] for row in rows} == {
        "copy",
        "matrix product",
        "RPW(4,0.33)",
        "RPW(8,1/2)",
        "DW+RPW(4,0.33)",
        "DW+RPW(8,1/2)",
    }
    assert {(row["mode"], row["layout"]) for row in rows if row["case"] == "RPW(8,1/2)"} == {
        (mode, layout)
        for mode in ("forward", "forward+backward")
        for layout in ("channels_last", "nchw")
    }
    text = page.read_text()
    for title in ("## Targets", "## RPW, forward+backward, fp32, nchw", "## Not run", "## DW+RPW"):
        assert title in text
    assert "a Triton kernel, for CUDA only" in text
    entry = (tmp_path / "README.md").read_text()
    assert f"[bench/{table.name}](bench/{table.name})" in entry
    assert "--quick --device cpu --cases 2x16x4 --windows '4,0.33 8,1/2'" in entry
    assert f"written: {page}" in capsys.readouterr().out


def test_a_wrong_candidate_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(case: Case, device: torch.device) -> Way:
        return Way(lambda x, weight: x * weight.sum())

    monkeypatch.setattr(candidates, "_ours", lambda impl: build)
    with pytest.raises(SystemExit, match=r"^2$"):
        bench.main([*QUICK, "--windows", "4,1/2", "--out", str(tmp_path / "bench")])
    said = capsys.readouterr().err
    assert re.match(r"ours is wrong in RPW\(4,1/2\) .* nothing wrong is", said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "no such device here: got 'tpu'"),
        (["--dtypes", "fp32,fp7"], "no such dtypes here: got 'fp7'"),
        (["--layouts", "NCHW"], "no such layouts here: got 'NCHW'"),
        (["--kinds", "GPW"], "no such kinds here: got 'GPW'"),
        (["--cases", "12"], "no such shape"),
        (["--windows", "x"], "no such windows"),
        (["--windows", "3,0"], "groups do not divide the input channels: got 3 groups of 16"),
    ],
)
def test_bad_arguments_are_refused_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        bench.main([*QUICK, *arguments])
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_what_comes_after_the_time_limit_says_so(tmp_path: Path) -> None:
    bench.main([*QUICK, "--layouts", "nchw", "--time-limit", "-1", "--out", str(tmp_path / "b")])
    (page,) = (tmp_path / "b").glob("*.md")
    assert "the time limit of the run was over" in page.read_text()
    assert "| not measured |" in page.read_text()


def test_torch_compile_is_timed_where_it_is_said() -> None:
    chosen = bench._somewhere(torch.device("cpu"))
    case = Case(128, 512, 14, 4, "1/2")
    assert chosen(case)
    assert not chosen(Case(1, 512, 14, 4, "1/2"))
    assert not chosen(Case(128, 512, 14, 4, "1/2", layout="nchw"))
