"""`ifspace bench` from end to end on small blocks: what it prints, writes, keeps; its errors."""

import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from samples import DW_PW, SMALL
from syrupy.assertion import SnapshotAssertion

from ifspace.bench import session
from ifspace.catalogue import load, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.latency import read_latency
from ifspace.measurements import COLUMNS

BASELINES = ("--baselines", "conv,shufflenet")
SMALLEST = (
    "--top",
    2,
    "--side",
    4,
    "--batch",
    2,
    "--repeats",
    3,
    "--threads",
    1,
    "--forms",
    "as-is,collapsed",
    *BASELINES,
)
QUICK = (*SMALLEST, "--no-calibrate")


@pytest.fixture(autouse=True)
def empty_folder(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Runs are quick, in an empty folder, and a busy machine is not noted."""
    monkeypatch.setattr("ifspace.bench.text.BUSY", float("inf"))
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "small.parquet"
    save(SMALL, path)
    return path


def written(folder: Path = Path("results")) -> list[Path]:
    return sorted((folder / "bench").iterdir())


def anywhere(text: str) -> str:
    """Return a text with neither the name of this machine nor the times measured on it."""
    device = written()[0].stem.removeprefix("blocks-")
    return re.sub(r"\d+\.\d+|\d+(?= times)", "N", text.replace(device, "cpu-here"))


def case_rows(folder: Path = Path("results")) -> list[dict[str, str]]:
    (path,) = (
        path
        for path in written(folder)
        if path.name.startswith("blocks-") and path.suffix == ".csv"
    )
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_for_each_block_and_mode(
    run: Callable, catalogue: Path, snapshot: SnapshotAssertion
) -> None:
    ended = run("bench", catalogue, *QUICK)
    assert ended.status == 0, ended.err
    assert re.match(r"ifspace: measuring \d+ blocks, about \d+ seconds?\n", ended.err)
    lines = ended.out.splitlines()
    tables = lines[: next(n for n, line in enumerate(lines) if line.startswith("beside CONV"))]
    assert [re.sub("  +|--+", "  ", anywhere(line)).rstrip() for line in tables] == snapshot
    first = ["1", "DW+RPW(4,0)+RPW(4,0)", "as", "is", "3×3×16", "272"]
    assert lines[4].split()[:6] == first
    conv = next(line for line in lines if line.startswith("   CONV"))
    assert conv.split()[1:6] == ["as", "is", "3×3×16", "2,304", "2,304"]
    assert (conv.split()[7], conv.split()[-2]) == ("1.00", "1.00")  # ×CONV and MiB
    least, ratio = map(float, lines[4].split()[7:9])
    assert ratio == pytest.approx(least / float(conv.split()[6]), rel=0.15)
    assert any(line.startswith("not beaten   ") for line in lines)
    assert [path.suffix for path in written()] == [".csv", ".json", ".parquet", ".csv"]
    assert f"rows         {written()[0]}" in lines


def test_every_format_has_the_rows(run: Callable, catalogue: Path, tmp_path: Path) -> None:
    ended = run("bench", catalogue, *QUICK, "--format", "json", "--no-backward")
    assert ended.status == 0, ended.err
    assert list(ended.json) == [
        "noisy",
        "rows",
        "model",
        "pareto",
        "fastest_predicted",
        "red",
        "left_out",
        "files",
    ]
    assert list(ended.json["rows"][0]) == [*COLUMNS, "field", "full_field"]
    times = [row for row in ended.json["rows"] if row["metric"] == "time"]
    assert [(row["candidate"], row["form"]) for row in times] == [
        ("DW+RPW(4,0)+RPW(4,0)", "as is"),
        ("DW+RPW(4,0)+RPW(4,0)", "collapsed"),
        ("DW+PW", "as is"),
        ("CONV", "as is"),
        ("GPW(4)+SH(4)+DW+GPW(4), bottleneck 1/4", "as is"),
    ]
    assert all(0 < row["p20"] <= row["median"] <= row["p80"] for row in times)
    assert {row["mode"] for row in ended.json["rows"]} == {"forward"}
    assert ended.json["pareto"][0]["params"] == min(x["params"] for x in ended.json["pareto"])
    out = tmp_path / "rows.csv"
    ended = run("bench", catalogue, *QUICK, "--format", "csv", "--out", out, "--resume")
    assert list(csv.DictReader(io.StringIO(ended.out)))
    assert out.read_text() == ended.out
    assert tuple(ended.out.splitlines()[0].split(",")) == COLUMNS
    markdown = run("bench", catalogue, *QUICK, "--format", "markdown", "--resume").out
    headers = [line.split("|")[1:4] for line in markdown.splitlines() if " block " in line]
    assert [[cell.strip() for cell in cells] for cells in headers] == [["#", "block", "form"]] * 2
    assert markdown.startswith("forward\n\n|")
    assert "\nforward+backward\n\n|" in markdown


@pytest.mark.slow
def test_a_block_short_of_the_field_is_marked_and_beats_nothing(run: Callable) -> None:
    # GC(12) reads 8 channels and GPW(8) 12, and together they see 16 of 96.
    short = "GC(12)+GPW(8)"
    quick = ("--side", 2, "--batch", 1, "--repeats", 3, "--threads", 1, "--no-calibrate")
    quick = (*quick, "--forms", "as-is")
    ended = run(
        "bench", *quick, "-C", 96, "--baselines", short, "--top", 2, "--format", "json", "--quiet"
    )
    assert ended.status == 0, ended.err
    rows = [row for row in ended.json["rows"] if row["metric"] == "least time"]
    assert {(row["candidate"], *row["field"], row["full_field"]) for row in rows} >= {
        (short, 3, 16, False)
    }
    assert [row["full_field"] for row in rows].count(True) == 4
    assert short not in [point["block"] for point in ended.json["pareto"]]
    seen = {row["metric"]: row for row in case_rows() if row["candidate"] == short}
    assert (seen["channel field"]["median"], seen["channel field"]["bound"]) == ("16", "96")
    assert (seen["spatial field"]["median"], seen["spatial field"]["bound"]) == ("3", "3")
    table = run("bench", *quick, "-C", 96, "--baselines", short, "--top", 2, "--resume", "--quiet")
    line = next(line for line in table.out.splitlines() if short in line)
    assert line.endswith("not compared: sees 16 of 96 channels")


@pytest.mark.slow
def test_a_catalogue_that_needs_permutations_is_noted(run: Callable, tmp_path: Path) -> None:
    free = EnumerationSetting(channels=16, kinds=("DW", "PW", "GC", "GPW"), max_len=2)
    path = tmp_path / "free.parquet"
    save(enumerate_designs([replace(free, permutation="free")], jobs=1), path)
    ended = run("bench", path, *QUICK, "--no-backward", "--baselines", "none")
    assert "ifspace: 2 of 6 blocks need a channel permutation between their layers" in ended.err


def test_the_catalogue_is_kept_beside_the_rows(run: Callable, catalogue: Path) -> None:
    run("bench", catalogue, *QUICK, "--no-backward")
    kept = Path("results/bench/catalogue-16.parquet")
    assert load(kept) == SMALL
    ended = run("report", "results", "--only", "designs")
    assert ended.status == 0, ended.err
    assert str(DW_PW.block) in ended.out
    # Results that have the catalogue need no second one.
    kept.rename("results/catalogue-16.parquet")
    run("bench", "results/catalogue-16.parquet", *QUICK, "--no-backward")
    assert not kept.exists()


@pytest.mark.slow
def test_a_model_that_misses_its_goal_is_not_in_the_table(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifspace.bench.latency.RANK_GOAL", 1.1)
    arguments = ("bench", *SMALLEST, "--channels", 16, "--no-backward")
    ended = run(*arguments)
    assert "the model's latencies are not in the table: its rank correlation is" in ended.err
    with written()[3].open(newline="") as file:
        assert {row["source"] for row in csv.DictReader(file)} == {"measured"}
    ended = run(*arguments, "--accept-model", "--resume")
    assert "are not in the table" not in ended.err
    with written()[3].open(newline="") as file:
        sources = [row["source"] for row in csv.DictReader(file)]
    assert set(sources) == {"measured", "predicted"}
    assert sources == sorted(sources)  # measured latencies first


@pytest.mark.slow
def test_measured_blocks_are_not_measured_again(
    run: Callable, catalogue: Path, snapshot: SnapshotAssertion
) -> None:
    run("bench", catalogue, *QUICK)
    before = case_rows()
    ended = run("bench", catalogue, *QUICK, "--resume")
    assert ended.err == snapshot
    assert case_rows() == before
    ended = run("bench", catalogue, *QUICK)
    assert ended.err == "ifspace: measuring 5 blocks, about 26 seconds\n"
    metrics = [sorted(row["metric"] for row in rows) for rows in (case_rows(), before)]
    assert metrics[0] == metrics[1]


def test_another_width_is_solved_and_added_to_the_rows(
    run: Callable, catalogue: Path, snapshot: SnapshotAssertion
) -> None:
    run("bench", catalogue, *QUICK, "--no-backward")
    ended = run(
        "bench", catalogue, *QUICK, "--no-backward", "-C", 8, "-F", 24, "--stride", 2, "--resume"
    )
    assert ended.status == 0, ended.err
    assert ended.err == snapshot
    assert {(row["C"], row["F"]) for row in case_rows()} == {("16", "16"), ("8", "24")}
    designs = json.loads(written()[1].read_text())["designs"]
    assert {path["channels"] for path in designs} == {8, 16}


def test_a_block_that_fails_the_check_is_listed_and_not_timed(
    run: Callable, tmp_path: Path, snapshot: SnapshotAssertion, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "wrong.parquet"
    # As of a long catalogue, whose rows are not compared with their blocks when it is read.
    monkeypatch.setattr("ifspace.catalogue.dataset.CHECKED_ROWS", 0)
    save(replace(SMALL, designs=(replace(DW_PW, params=401), SMALL.designs[2])), path)
    ended = run("bench", path, *QUICK)
    assert ended.status == 0
    assert ended.err == snapshot
    line = next(line for line in ended.out.splitlines() if " DW+PW " in line)
    assert "–" in line
    assert line.endswith("see below")
    red = [row for row in case_rows() if row["candidate"] == "DW+PW"]
    assert {row["metric"][:5] for row in red} == {"red: "}
    save(replace(SMALL, designs=(replace(DW_PW, params=401),)), path)
    wrong = run("bench", path, *QUICK, "--baselines", "none", "--quiet")
    wrong.fails_with("no block is right", "401")


@pytest.mark.slow
def test_the_model_is_judged_beside_one_amount_alone(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifspace.bench.latency.RANK_GOAL", -1.0)  # calls this small are noise
    ended = run("bench", *SMALLEST, "--channels", 16, "--predict", "16x32x2x2,16x7x4")
    assert ended.status == 0, ended.err
    assert "from 16 to 7 channels" in ended.err
    assert "no results/catalogue-64.parquet" in ended.err
    lines = ended.out.splitlines()
    title = next(line for line in lines if line.startswith("Latency model of "))
    assert title.endswith(" that were held out")
    names = [line[18:36].strip() for line in lines if line.startswith("forward  ")]
    assert names == ["model", "parameters alone", "MACs alone"]
    goals = next(n for n, line in enumerate(lines) if line.startswith("goals "))
    assert lines[goals + 1].split()[0] == "forward:"
    assert any(line.startswith("fastest      ") for line in lines)
    table = read_latency(written()[3])
    places = {case[1:] for case in table.cases}
    assert {(16, 16, 4, 1), (16, 32, 2, 2)} <= places
    assert len(table.cases) > 50
    model = json.loads(written()[1].read_text())["model"]
    assert set(model) == {"forward", "forward+backward"}
    assert model["forward"]["errors"]["model"]["count"] >= 10


def test_the_catalogue_of_record_is_the_default(run: Callable) -> None:
    Path("results").mkdir()
    save(SMALL, Path("results/catalogue-64.parquet"))
    ended = run("bench", *QUICK, "--no-backward", "--quiet", "--out", "rows.json")
    assert (ended.status, ended.out, ended.err) == (0, "", "")
    assert json.loads(Path("rows.json").read_text())["rows"][0]["C"] == 16


def test_an_interrupted_run_keeps_its_rows(
    run: Callable, catalogue: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    def stop(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "peak_bytes", stop)
    ended = run("bench", catalogue, *QUICK)
    assert (ended.status, ended.out) == (130, "")
    assert anywhere(ended.err) == snapshot
    assert sum(row["metric"] == "time" for row in case_rows()) == 10
    assert len(json.loads(written()[1].read_text())["designs"]) == 4


def test_interrupted_before_anything_was_timed_it_leaves_what_was_there(
    run: Callable, catalogue: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    run("bench", catalogue, *QUICK, "--no-backward")
    before = [path.read_bytes() for path in written()]

    def stop(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "block_fault", stop)
    ended = run("bench", catalogue, *QUICK)
    assert ended.status == 130
    assert ended.err == snapshot
    assert [path.read_bytes() for path in written()] == before


def test_results_of_record_are_listed_in_their_readme(run: Callable, catalogue: Path) -> None:
    folder = Path("record")
    folder.mkdir()
    (folder / "README.md").write_text("My own notes.\n")
    run("bench", catalogue, *QUICK, "--no-backward", "--results", folder)
    assert (folder / "README.md").read_text() == "My own notes.\n"
    (folder / "README.md").write_text("# Results of record\n")
    run("bench", catalogue, *QUICK, "--no-backward", "--results", folder)
    page = (folder / "README.md").read_text()
    for path in written(folder):
        assert f"| [bench/{path.name}](bench/{path.name})" in page
    assert "--no-calibrate --forms as-is,collapsed --results record` |" in page
    assert "--baselines conv,shufflenet --repeats 3" in page


def test_bad_input_is_one_line(
    run: Callable, catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("bench", tmp_path / "none.parquet").fails_with("catalogue cannot be read")
    run("bench", catalogue, *QUICK, "--device", "tpu").fails_with(
        "no such --device here: got 'tpu'", "cpu"
    )
    if not torch.cuda.is_available():
        # Before a catalogue is enumerated.
        run("bench", *QUICK, "--device", "cuda").fails_with("got 'cuda'; allowed: cpu;")
    run("bench", catalogue, *QUICK, "--dtype", "tf32").fails_with(
        "no such --dtype here", "fp32, bf16"
    )
    run("bench", catalogue, *QUICK, "--baselines", "vgg").fails_with(
        "--baselines", "'vgg'", "conv,"
    )
    shapes = ("bench", catalogue, *SMALLEST, "--predict")
    run(*shapes, "64").fails_with("no such shape", "write 64x128x28x2")
    run(*shapes, "8x8x0").fails_with("side out of range")
    run(*shapes, "8x8x4", "--no-calibrate").fails_with(
        "without a model", "leave out --no-calibrate"
    )
    run("bench", catalogue, *QUICK, "--top", 0).fails_with("'--top'", "from 1")
    # Numbers with which work or memory grows have a bound.
    for option, most in (("--side", 65_536), ("--batch", 65_536)):
        for number in (most + 1, "9" * 20):
            run("bench", catalogue, *QUICK, option, number).fails_with(f"'{option}'", f"to {most}")
    run(*shapes, "8x8x65537").fails_with("side out of range", "to 65536")
    run("bench", catalogue, *QUICK, "--by", "speed").fails_with("params, macs, activations, pareto")
    run("bench", catalogue, *QUICK, "-C", 5000).fails_with("--channels out of range: got 5000")
    run("bench", catalogue, *QUICK, "--out", tmp_path / "a.xlsx").fails_with("output format")
    with monkeypatch.context() as patch:
        patch.setattr("ifspace.catalogue.dataset.SCHEMA_VERSION", 9)
        save(SMALL, tmp_path / "other.parquet")
    other = run("bench", tmp_path / "other.parquet", *QUICK)
    other.fails_with("other.parquet is not a catalogue", "version 9, not 5")
    catalogue.write_bytes(catalogue.read_bytes()[:300])
    run("bench", catalogue, *QUICK).fails_with("small.parquet is not a catalogue")
    assert not Path("results").exists()


def test_what_no_memory_holds_is_not_begun(
    run: Callable, catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "block_fault", lambda *arguments: pytest.fail("checked"))
    run("bench", catalogue, *QUICK, "--side", 65_536, "--batch", 65_536).fails_with(
        "no block could be timed: got DW+", "GiB of", "ask for a smaller batch or side"
    )


def test_a_folder_that_cannot_be_written_is_an_error(run: Callable, catalogue: Path) -> None:
    Path("results").write_text("a file")
    ended = run("bench", catalogue, *QUICK)
    ended.fails_with("results cannot be written: got results/bench (Not a directory)", "choose")
    assert Path("results").read_text() == "a file"


@pytest.mark.parametrize("name", ["blocks-{}.csv", "blocks-{}.json", "latency-{}-fp32-batch2.csv"])
def test_an_unrecognised_file_is_left_unchanged(run: Callable, catalogue: Path, name: str) -> None:
    run("bench", catalogue, *QUICK, "--no-backward")
    device = written()[0].stem.removeprefix("blocks-")
    path = Path("results/bench") / name.format(device)
    path.write_text("something else\n")
    for more in ((), ("--resume",)):
        ended = run("bench", catalogue, *QUICK, "--no-backward", *more)
        ended.fails_with(f"{path.name} cannot be added to: got ", "move it away")
    assert path.read_text() == "something else\n"


def test_results_of_other_runs_are_kept(
    run: Callable, catalogue: Path, snapshot: SnapshotAssertion
) -> None:
    run("bench", catalogue, *QUICK, "--no-backward")
    before = case_rows()
    run("bench", catalogue, *QUICK, "--no-backward", "--side", 5)
    rows = case_rows()
    assert [row for row in rows if row["H"] == "4"] == before
    assert {case[3] for case in read_latency(written()[3]).cases} == {4, 5}
    run("bench", catalogue, *QUICK, "--no-backward", "--batch", 3)
    assert [path.name.partition("-fp32-")[2] for path in written()[3:]] == [
        "batch2.csv",
        "batch3.csv",
    ]
    ended = run("bench", catalogue, *QUICK, "--no-backward", "--layout", "nchw")
    assert ended.err == snapshot


def test_notes_go_to_stderr(
    run: Callable, catalogue: Path, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.setattr("ifspace.bench.text.BUSY", 0.0)
    monkeypatch.setattr("ifspace.bench.text.MAX_NAMED", 1)
    many = ("--baselines", "clcnet,resnext", "-C", 7, "--predict", "7x11x4")
    assert anywhere(run("bench", catalogue, *SMALLEST, *many).err) == snapshot
