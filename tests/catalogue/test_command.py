"""`ifspace best`: what it prints, its notes, its exit status."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from samples import SMALL

from ifspace.block import Block
from ifspace.catalogue import Catalogue, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.run import merge_folder, run_in_folder
from ifspace.enumerate.search import enumerate_designs


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    path = tmp_path / "small.parquet"
    save(SMALL, path)
    return path


def test_the_json_keeps_its_contract(run: Callable, catalogue: Path, snapshot: object) -> None:
    ended = run("best", catalogue, "--format", "json", "--quiet")
    assert (ended.status, ended.err) == (0, "")
    blocks = [design["block"] for design in ended.json["designs"]]
    assert blocks == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW", "GC(8)+PW", "(PW+DW+PW)x2"]
    assert [design["why"] for design in ended.json["designs"]] == snapshot
    assert ended.json["designs"][1]["field"] == [3, 16]


def test_bounds_take_suffixes_and_kinds_rule_out(run: Callable, catalogue: Path) -> None:
    def blocks(*arguments: object) -> list[str]:
        ended = run("best", catalogue, "--format", "json", *arguments)
        return [design["block"] for design in ended.json["designs"]]

    assert blocks("--params", "0.4k") == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW"]
    assert blocks("--macs", "0.0005M") == ["DW+RPW(4,0)+RPW(4,0)", "DW+PW"]
    assert blocks("--activations", 32, "--layers", 2) == ["DW+PW", "GC(8)+PW"]
    assert blocks("--kinds", "dw,PW", "-C", 16) == ["DW+PW"]
    assert blocks("--by", "layers")[0] == "DW+PW"


def test_the_table_has_ranks_widths_and_reasons(
    run: Callable, catalogue: Path, snapshot: object
) -> None:
    assert run("best", catalogue).out == snapshot
    assert run("best", catalogue, "-C", 16, "--by", "layers").out == snapshot
    assert run("best", catalogue, "--format", "markdown").out == snapshot


def test_several_widths_are_noted(run: Callable, catalogue: Path, snapshot: object) -> None:
    assert run("best", catalogue).err == snapshot
    assert run("best", catalogue, "--quiet").err == ""
    assert run("best", catalogue, "-C", 32).err == ""


def test_the_table_is_truncated_with_a_note(
    run: Callable, catalogue: Path, snapshot: object
) -> None:
    ended = run("best", catalogue, "-C", 16, "--limit", 1)
    assert ended.out.count("\n") == 3
    assert ended.err == snapshot


def test_csv_and_markdown_files_have_the_reason(
    run: Callable, catalogue: Path, tmp_path: Path
) -> None:
    rows = csv.DictReader(io.StringIO(run("best", catalogue, "--format", "csv").out))
    answer = run("best", catalogue, "--format", "json").json
    assert [row["why"] for row in rows] == [design["why"] for design in answer["designs"]]
    run("best", catalogue, "--out", tmp_path / "a.md", "--quiet")
    assert "cheaper as DW+PW" in (tmp_path / "a.md").read_text()


def test_no_design_within_the_bounds_is_status_three(
    run: Callable, catalogue: Path, snapshot: object
) -> None:
    ended = run("best", catalogue, "--params", 10)
    assert (ended.status, ended.out) == (3, "")
    assert ended.err == snapshot
    ended = run("best", catalogue, "--params", 10, "--format", "json")
    assert (ended.status, ended.json) == (3, {"designs": []})


def test_no_design_names_the_nearest_bound_that_leaves_some(run: Callable, catalogue: Path) -> None:
    def remedy(*arguments: object) -> str:
        ended = run("best", catalogue, "-C", 16, *arguments)
        assert ended.status == 3
        start, _, last = ended.err.partition("; ")
        assert start.startswith("ifspace: no entry of small.parquet is within the bounds")
        return last

    costs = {"DW+RPW(4,0)+RPW(4,0)": (272, 3, 4), "DW+PW": (400, 2, 16), "GC(8)+PW": (544, 2, 2)}
    designs = run("best", catalogue, "-C", 16, "--format", "json").json["designs"][:3]
    assert {x["block"]: (x["params"], x["layers"], x["least_fan_in"]) for x in designs} == costs
    assert remedy("--params", 10) == "--params 272 leaves some\n"
    assert remedy("--params", 300, "--layers", 2) == "--params 400 or --layers 3 leaves some\n"
    assert remedy("--params", 10, "--layers", 2) == "--params 400 leaves some\n"
    assert remedy("--params", 10, "--layers", 1) == "loosen several of them\n"
    assert remedy("--kinds", "DW") == "allow more --kinds\n"
    ended = run("best", catalogue, "-C", 16, "--params", 10, "--layers", 1)
    least = "entries have at least 272 parameters and at least 2 layers"
    assert ended.err.startswith(
        f"ifspace: no entry of small.parquet is within the bounds: {least};"
    )
    size = ("--side", 8, "--dtype", "fp32")
    assert remedy("--peak-memory", 100, *size) == f"--peak-memory {2 * 16 * 64 * 4} leaves some\n"


@pytest.mark.parametrize("quiet", [[], ["--quiet"]])
def test_without_a_block_within_the_bounds_no_file_is_written(
    run: Callable, catalogue: Path, tmp_path: Path, quiet: list[str]
) -> None:
    path = tmp_path / "none.json"
    ended = run("best", catalogue, "--params", 10, "--out", path, *quiet)
    assert (ended.status, ended.out) == (3, "")
    assert ended.err.endswith(f"; {path} was not written\n")
    assert not path.exists()
    path.write_text("older")
    assert run("best", catalogue, "--params", 10, "--out", path, *quiet).status == 3
    assert path.read_text() == "older"
    run("best", catalogue, "--params", 10, "--out", tmp_path / "a.xlsx").fails_with("output format")


def test_wrong_input_is_one_line(run: Callable, catalogue: Path, tmp_path: Path) -> None:
    run("best", tmp_path / "none.parquet").fails_with("cannot be read", "No such file")
    run("best", catalogue, "--params", "5.1").fails_with("'--params'", "got '5.1'", "5.1M")
    run("best", catalogue, "--params", "-5").fails_with("got '-5'")
    ended = run("best", catalogue, "--kinds", "XY")
    ended.fails_with("unknown kind", "got 'XY'; allowed: PW, GC, DW, GPW, RPW, SH;")
    run("best", catalogue, "-C", 99).fails_with("no such --channels", "got 99; allowed: 16, 32;")
    run("best", catalogue, "--kinds", "PW,,DW").fails_with("values between commas")
    run("best", catalogue, "--by", "speed").fails_with("got 'speed'; allowed: params, macs, act")
    run("best", catalogue, "--out", tmp_path / "a.parquet").fails_with("allowed: .json, .csv, .md")
    catalogue.write_bytes(catalogue.read_bytes()[:300])
    run("best", catalogue).fails_with("small.parquet is not a catalogue", "only a part")
    catalogue.write_text("something else")
    run("best", catalogue).fails_with("small.parquet is not a catalogue")


def test_the_best_of_each_width_with_what_the_next_better_would_cost(
    run: Callable, catalogue: Path, snapshot: object
) -> None:
    ended = run("best", catalogue, "--top", 2)
    assert (ended.out, ended.err) == (snapshot, "")
    designs = run("best", catalogue, "--top", 2, "--format", "json").json["designs"]
    assert [(x["channels"], x["block"]) for x in designs] == [
        (16, "DW+RPW(4,0)+RPW(4,0)"),
        (16, "DW+PW"),
        (32, "(PW+DW+PW)x2"),
    ]
    assert designs[0]["next_better"] == [
        {
            "amounts": ["activations", "layers", "least-fan-in"],
            "block": "DW+PW",
            "changes": {
                "params": [272, 400],
                "macs": [272, 400],
                "activations": [48, 32],
                "layers": [3, 2],
                "least-fan-in": [4, 16],
            },
            "better": ["activations", "layers", "least-fan-in"],
            "worse": ["params", "macs"],
        }
    ]
    assert run("best", catalogue, "--top", 1, "--format", "markdown").out.count("| block") == 2


def test_a_trade_of_equal_rows_is_said_once(run: Callable, tmp_path: Path) -> None:
    three = next(design for design in SMALL.designs if design.params == 272)
    pair = next(design for design in SMALL.designs if design.composition == "DW+PW")
    twins = [
        replace(three, composition=x, block=Block.parse(y), network=None)
        for x, y in (
            ("RPW+DW+RPW", "RPW(4,0)+DW+RPW(4,0)"),
            ("RPW+RPW+DW", "RPW(4,0)+RPW(4,0)+DW"),
        )
    ]
    path = tmp_path / "twins.parquet"
    save(Catalogue(SMALL.settings[:1], SMALL.funnels[:1], (three, *twins, pair)), path)
    text = run("best", path, "--no-check", "--top", 3).out
    (row,) = [line for line in text.splitlines() if "activations 48 to 32" in line]
    assert row.startswith("1-3  ")
    trades = run("best", path, "--no-check", "--top", 3, "--format", "json").json["designs"]
    assert [len(design["next_better"]) for design in trades] == [1, 1, 1]


def test_a_trade_says_that_its_latency_is_not_known(
    run: Callable, catalogue: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    table.write_text(
        "block,C,F,side,stride,batch,device,dtype,latency_ms\nDW+PW,16,16,8,1,1,cpu,fp32,1\n"
    )
    question = ("best", catalogue, "-C", 16, "--by", "latency", "--top", 1, "--latency", table)
    (row,) = [line for line in run(*question).out.splitlines() if "272" in line]
    assert row.endswith("least fan-in 16 to 4, a latency that is not known")
    within = ("best", catalogue, "-C", 16, "--latency", table, "--latency-budget-ms")
    assert run(*within, "0.5").err.endswith(
        "of at least 1.0 ms; --latency-budget-ms 1.0 leaves some\n"
    )
    ended = run(*within, 2, "--side", 4)
    assert ended.status == 3
    assert ended.err.endswith("other blocks, widths, sides or strides: --side picks the side\n")


def test_what_other_choices_may_have_is_said_of_all_but_a_front(
    run: Callable, tmp_path: Path
) -> None:
    notes = {}
    for front in (False, True):
        path = tmp_path / f"{front}.parquet"
        setting = EnumerationSetting(channels=8, max_len=2, stride=2, front=front)
        save(enumerate_designs([setting], jobs=1), path)
        for by in ("macs", "least-fan-in", "peak-memory"):
            notes[front, by] = run("best", path, "--by", by).err
    head = (
        "ifspace: of each composition the catalogue has the choice with the fewest params; others"
    )
    assert notes[False, "macs"] == f"{head} may have fewer macs: enumerate again with --front\n"
    assert notes[False, "least-fan-in"].startswith(f"{head} may have a greater least fan-in:")
    # The peak is that of the composition, and a front has every trade-off.
    assert {notes[key] for key in notes if key[0] or key[1] == "peak-memory"} == {""}


def test_several_catalogues_answer_together(run: Callable, catalogue: Path, tmp_path: Path) -> None:
    parts = []
    for name, number, designs in (("a", 0, SMALL.designs[:3]), ("b", 1, SMALL.designs[3:])):
        parts.append(tmp_path / f"{name}.parquet")
        part = Catalogue(SMALL.settings[number:][:1], SMALL.funnels[number:][:1], designs)
        save(part, parts[-1])
    for options in ([], ["--top", 1], ["--format", "json"]):
        assert run("best", *parts, *options).out == run("best", catalogue, *options).out
    # The widths are said where all rows within the bounds have one of them.
    bounds = ("--params", 300)
    header, _, row = run("best", *parts, *bounds).out.splitlines()
    assert (header.split()[:3], row.split()[:3]) == (["#", "C", "F"], ["1", "16", "16"])
    assert run("best", *parts, *bounds, "--top", 1).out.startswith("16 to 16 channels\n")
    assert run("best", parts[0], *bounds).out.split()[:2] == ["#", "block"]
    # The widths are in the order of the files.
    designs = run("best", *reversed(parts), "--top", 1, "--format", "json").json["designs"]
    assert [design["channels"] for design in designs] == [32, 16]


def test_peak_memory_needs_the_size_of_the_feature_map(run: Callable, catalogue: Path) -> None:
    run("best", catalogue, "--peak-memory", "8k").fails_with("got no --side and no --dtype;")
    at_side = ("--peak-memory", "8k", "--side", 8)
    run("best", catalogue, *at_side).fails_with("got no --dtype; allowed: --side in pixels, --dt")
    for dtype, blocks in (("fp32", 0), ("fp16", 3)):
        ended = run("best", catalogue, *at_side, "--dtype", dtype, "--format", "json")
        assert len(ended.json["designs"]) == blocks
    # Two feature maps of 16 channels, of 8 x 8 pixels.
    size = ("-C", 16, "--side", 8, "--dtype", "fp16")
    for question in (("--peak-memory", "8k"), ("--by", "peak-memory")):
        ended = run("best", catalogue, *question, *size, "--format", "json")
        assert {design["peak_memory"] for design in ended.json["designs"]} == {2 * 16 * 64 * 2}
        assert "peak bytes" in run("best", catalogue, *question, *size).out
    assert "peak/px" in run("best", catalogue, "--by", "peak-memory").out
    assert "peak" not in run("best", catalogue).out.splitlines()[0]


def test_a_question_about_floors_that_the_catalogue_cannot_answer(
    run: Callable, catalogue: Path
) -> None:
    run("best", catalogue, "--least-fan-in", 8).fails_with(
        "--least-fan-in: floors that the catalogue was not made for: got at least 8 channels",
        "--least-fan-in 8 --out FILE.parquet` answers",
    )
    assert run("best", catalogue, "--least-fan-in", 2).status == 0


def test_a_catalogue_too_long_for_memory_is_read_within_the_bounds(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [EnumerationSetting(channels=8, max_len=4)]
    for number in (1, 2):
        run_in_folder(settings, tmp_path / "run", jobs=1, share=(number, 2))
    file = tmp_path / "a.parquet"
    merge_folder(tmp_path / "run", file)
    bounds = ("--params", "200", "--layers", "3", "--format", "json")
    expected = json.loads(run("best", file, *bounds).out)["designs"]
    assert 1 < len(expected) < 40
    monkeypatch.setattr("ifspace.catalogue.dataset.MAX_ROWS", 40)  # of 93 rows
    for source in (file, tmp_path / "run"):
        designs = json.loads(run("best", source, *bounds).out)["designs"]
        assert [x["block"] for x in designs] == [x["block"] for x in expected]
        assert [x["network"] for x in designs] == [x["network"] for x in expected]
        ended = run("best", source, "--params", "1k")
        assert ended.status == 2
        assert "held in memory; give bounds that leave fewer" in ended.err
        ended = run("best", source)
        assert "got 93 rows; allowed: up to 40, which are held in memory; give bounds" in ended.err
