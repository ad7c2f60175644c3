"""`ifspace organize`: its answer in every format, and its errors."""

import csv
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brute_organizer
import pytest

from ifspace.stages.networks import network
from ifspace.stages.organizer import organize
from ifspace.stages.text import short
from ifspace.table import widest

STAGES = ("organize", "--stages", "32,16,8,4,2", "--depths", "2,2,3,3,3")
VGG = ("organize", "--network", "vgg16")


def test_the_json_keeps_its_contract(run: Callable, snapshot: Any) -> None:
    ended = run(*STAGES, "--format", "json")
    assert (ended.status, ended.err) == (0, snapshot)
    values = ended.json
    routes = [(move["source"], move["target"]) for move in values["moves"]]
    assert routes == [(4, 1), (5, 2), (5, 1), (4, 1), (3, 2)]
    assert values["moves"][0]["depths"] == [3, 2, 3, 2, 3]
    assert (values["moves"][0]["min"], round(values["moves"][0]["max"], 3)) == (0, 0.892)
    assert values["depths"] == [5, 4, 2, 1, 1]
    # Weights of the convolutions alone.
    weights = 3 * 64 + 4 * 64**2 + 64 * 128 + 3 * 128**2 + 128 * 256 + 256**2 + 256 * 512 + 512**2
    assert values["params"] == 9 * weights
    assert values["macs"] == network("vgg16", 32).at_depths(values["depths"]).macs - 512 * 10
    assert (values["layers"], values["width_sum"]) == (13, 5 * 64 + 4 * 128 + 2 * 256 + 1024)
    assert values["gain"] == pytest.approx(organize(network("vgg16", 32)).end.gain())
    assert (values["stopped"], values["network"], values["published"]) == ("no_gain", None, [])
    assert values["untaken"]["source"] == 2


def test_each_state_says_what_it_costs_and_where_it_is_published(run: Callable) -> None:
    values = run(*VGG, "--format", "json").json
    assert [move["params"] for move in values["moves"]][-1] == values["params"] == 5_098_826
    assert values["start"]["params"] == 14_724_042
    assert [move["published"] for move in values["moves"]] == [[], [], [], [], [3, 4]]
    first = values["published"][0]
    assert (first["params"], first["layout_params"], first["step"]) == ("5.10", 5_098_826, 5)
    assert round(first["moved_gain"], 3) == round(values["moved_gain"], 3) == 2.490
    for state, layout in zip(
        values["moves"], organize(network("vgg16", 32)).layouts[1:], strict=True
    ):
        assert (state["macs"], state["layers"]) == (layout.macs, layout.layers)
        assert (state["gain"], state["width_sum"]) == (layout.gain(), layout.width_sum)


def test_the_table_has_a_row_for_each_state(run: Callable, snapshot: Any) -> None:
    ended = run(*VGG, "--input", "3x224x224")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == snapshot
    states = [line.split()[0] for line in ended.out.splitlines()[4:7]]
    assert states == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("name", "side"),
    [("vgg19", 32), ("vgg19", 224), ("mobilenet", 32), ("resnet50", 32), ("resnet50", 224)],
)
def test_where_the_published_layouts_stand(
    run: Callable, snapshot: Any, name: str, side: int
) -> None:
    assert run("organize", "--network", name, "--input", side).out == snapshot


def test_a_printed_layout_beside_the_moves_has_its_own_gain(run: Callable) -> None:
    mobilenet = ("organize", "--network", "mobilenet")
    sides, start, printed = (32, 32, 16, 8, 4), (1, 2, 2, 6, 2), (4, 4, 2, 2, 1)
    for cap, multiple in (("twice", 2), ("input", 1)):
        by_formula = brute_organizer.total(sides, printed, cap=multiple)
        by_formula -= brute_organizer.total(sides, start, cap=multiple)
        published = run(*mobilenet, "--cap", cap, "--format", "json").json["published"]
        gains = [row["layout_gain"] for row in published]
        assert gains == pytest.approx([float(by_formula)] * 2)
        assert [row["step"] for row in published] == [None, None]
    lines = run(*mobilenet, "--cap", "twice").out.splitlines()
    assert sum("printed 3.94, here 3.94 for that layout, 4.09 in all" in x for x in lines) == 2


def test_another_cap_than_that_of_the_tables_is_said(run: Callable) -> None:
    note = "the tables were made with --cap twice"
    for cap, is_said in (("twice", False), ("input", True), ("none", True)):
        assert (note in run(*VGG, "--cap", cap).out) == is_said
    assert "here 2.30 in all" in run(*VGG, "--cap", "twice").out
    assert note not in run(*STAGES).out


@pytest.mark.parametrize(
    ("name", "side", "form"),
    [
        ("resnet50", 96, "below 112 pixels: no stride in the stem, batch norm, 1 dense layer, 10"),
        ("resnet50", 128, "of 112 pixels or more: a stem that divides the side by 4, batch norm"),
        ("vgg16", 64, "below 112 pixels: batch norm, 1 dense layer, 10 classes"),
        ("vgg16", 128, "of 112 pixels or more: biases, 3 dense layers, 1,000 classes"),
    ],
)
@pytest.mark.parametrize("command", ["organize", "layout"])
def test_the_form_of_a_network_at_a_size_that_no_paper_has(
    run: Callable, command: str, name: str, side: int, form: str
) -> None:
    fixed = ["--widths", "start"] if command == "layout" else []  # which takes no search of widths
    ended = run(command, "--network", name, "--input", side, *fixed)
    (line,) = ended.err.splitlines()
    assert f"{name} at {side}×{side}: the papers print nothing at this size" in line
    assert f"the form for images {form}" in line


def test_other_depths_of_a_network_lead_by_the_same_states(run: Callable) -> None:
    values = run(*VGG, "--depths", "5,3,3,1,1", "--format", "json").json
    assert [move["published"] for move in values["moves"]] == [[3, 4]]
    assert values["start"]["depths"] == [5, 3, 3, 1, 1]


def test_a_threshold_removes_blocks(run: Callable, snapshot: Any) -> None:
    ended = run(*STAGES, "--theta", "1.5", "--format", "json")
    targets = {move["target"] for move in ended.json["moves"]}
    assert (targets, ended.json["depths"], ended.json["moved_gain"]) == ({None}, [2, 2, 2, 1, 1], 0)
    assert run(*STAGES, "--theta", "1.5").out == snapshot


def test_the_cap_and_the_tie_are_said_and_recorded(run: Callable, snapshot: Any) -> None:
    resnet = ("organize", "--network", "resnet50", "--input", 224)
    assert run(*resnet, "--cap", "none", "--tie", "later").out == snapshot
    for tie, other, end, other_end in (
        ("earlier", "later", [5, 4, 4, 3], [4, 5, 4, 3]),
        ("later", "earlier", [4, 5, 4, 3], [5, 4, 4, 3]),
    ):
        values = run(*resnet, "--tie", tie, "--format", "json").json
        assert (values["cap"], values["tie"], values["depths"]) == ("input", tie, end)
        assert values["ties"] == [{"step": 2, "sources": [], "targets": [1, 2]}]
        assert values["other_tie"] == {"tie": other, "depths": other_end}
        assert (values["stages"], values["sides_out"]) == ([56, 56, 28, 14], [56, 28, 14, 7])
    for cap, end, gained in (
        ("input", [7, 4, 3, 1, 1], "3.237"),
        ("twice", [6, 4, 3, 2, 1], "3.134"),
        ("none", [6, 4, 3, 2, 1], "3.133"),
    ):
        values = run("organize", "--network", "vgg19", "--cap", cap, "--format", "json").json
        assert (values["cap"], values["depths"]) == (cap, end)
        assert f"{values['moved_gain']:.3f}" == gained
        states = [values["start"], *values["moves"]]
        assert states[-1]["gain"] - states[0]["gain"] == pytest.approx(values["moved_gain"])


def test_blocks_of_stages_between_semicolons(run: Callable) -> None:
    stages = ("organize", "--stages", "16,8", "--depths", "2,2", "--format", "json")
    by_comma, by_semicolon = (
        run(*stages, "--blocks", text).json for text in ("CONV, DW+PW", "CONV; DW+PW")
    )
    assert by_comma == by_semicolon
    assert by_comma["blocks"] == ["CONV", "DW+PW"]
    run(*stages, "--blocks", "CONV,PW;DW+PW").fails_with("'--blocks'", "blocks between commas")
    run(*stages, "--blocks", "CONV;").fails_with("'--blocks'", "blocks between commas")


def test_any_image_size_that_the_network_allows(run: Callable) -> None:
    values = run("organize", "--network", "vgg16", "--input", 96, "--format", "json").json
    assert values["stages"] == [96, 48, 24, 12, 6]
    values = run("organize", "--network", "resnet50", "--input", "3x128x128", "--format", "json")
    assert values.json["stages"] == [32, 32, 16, 8]


def test_a_number_of_moves(run: Callable) -> None:
    values = run(*STAGES, "--moves", 2, "--format", "json").json
    assert (len(values["moves"]), values["stopped"]) == (2, "limit")
    assert run(*STAGES, "--moves", 0, "--format", "json").json["depths"] == [2, 2, 3, 3, 3]


def test_several_alphas_are_compared(run: Callable, snapshot: Any) -> None:
    ended = run("organize", "--network", "vgg19", "--input", 224, "--alpha", "1,2,3,5,10")
    assert ended.out == snapshot
    values = run(
        "organize", "--network", "vgg19", "--input", 224, "--alpha", "10,3,2", "--format", "json"
    ).json
    assert values["alpha"] == 3
    same = [(row["alpha"], row["same_moves"]) for row in values["alphas"]]
    assert same == [(10, False), (3, True), (2, True)]
    assert values["alphas"][1]["moves"] == values["moves"]


def test_alphas_with_other_moves_to_the_same_end(run: Callable, snapshot: Any) -> None:
    residual = ("organize", "--network", "layout-residual", "--alpha", "5,3")
    assert run(*residual).out == snapshot
    values = run(*residual, "--format", "json").json
    assert [row["same_moves"] for row in values["alphas"]] == [False, True]
    assert values["alphas"][0]["depths"] == values["depths"]


def test_without_alpha_3_the_first_is_shown(run: Callable) -> None:
    assert run(*VGG, "--alpha", "5,1", "--format", "json").json["alpha"] == 5
    assert "Compared" not in run(*VGG, "--alpha", "5,5").out


def test_csv_and_markdown_have_a_row_for_each_state(run: Callable, tmp_path: Path) -> None:
    out = tmp_path / "found.md"
    ended = run(*VGG, "--alpha", "3,1", "--format", "csv", "--out", out)
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    assert [row["alpha"] for row in rows] == ["3.0"] * 6 + ["1.0"] * 5
    assert (rows[0]["source"], rows[0]["params"]) == ("", "14724042")
    assert (rows[5]["depths"], rows[5]["published"]) == ("5,4,2,1,1", "3, 4")
    assert (rows[5]["source"], rows[5]["target"], rows[5]["params"]) == ("3", "2", "5098826")
    assert out.read_text().count("\n") == 2 + len(rows)


def test_blocks_of_each_stage_with_the_kernel_of_those_without_one(
    run: Callable, snapshot: Any
) -> None:
    ended = run(
        "organize",
        "--stages",
        "8,4",
        "--depths",
        "2,2",
        "--widths",
        "16,16",
        "--inputs",
        16,
        "--kernel",
        5,
        "--blocks",
        "DW+RPW(4,1/2)+SH(4)+GPW(8),CONV(3)",
        "--moves",
        0,
        "--format",
        "json",
    )
    assert ended.json["blocks"] == ["DW(5)+RPW(4,1/2)+SH(4)+GPW(8)", "CONV"]
    assert ended.json["params"] == 2 * (25 * 16 + 16 * 4 + 16 * 2) + 2 * 9 * 16 * 16
    assert ended.err == snapshot
    one = run("organize", "--stages", "8,4", "--depths", "2,2", "--blocks", "dw+pw", "--quiet")
    assert (one.err, "blocks        DW+PW\n" in one.out) == ("", True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--stages 16,32 --depths 2,2", ["--stages that grow: got 16, 32"]),
        ("--stages 32,0 --depths 2,2", ["--stages out of range: got 0"]),
        ("--stages 32,16 --depths 2", ["wrong number of --depths: got 1 for 2 stages"]),
        ("--stages 32,16 --depths 2,0", ["--depths out of range: got 0"]),
        ("--stages 32,16 --depths 2,1001", ["--depths", "got 1001", "to 1000"]),
        ("--stages 32,16 --depths 2,2 --widths 3", ["wrong number of --widths: got 1"]),
        ("--stages 32,16 --depths 2,2 --widths 64,0", ["--widths out of range: got 0"]),
        ("--stages 32,16 --depths 2,2 --blocks PW,PW,PW", ["wrong number of --blocks: got 3"]),
        (
            "--stages 32,16 --depths 2,2 --blocks CONV,DW+GPW",
            ["--blocks", "without its groups: got GPW in DW+GPW", "GPW(4)", "`ifspace layout`"],
        ),
        (
            "--stages 32,16 --depths 2,2 --blocks GPW(8)",
            ["--blocks: stage 1, 3 to 64 channels: groups do not divide", "more inputs"],
        ),
        ("--stages 32,16 --depths 2,2 --blocks CONV,GPW(7)", ["stage 2, 64 to 128 channels"]),
        ("--stages 32,16 --depths 2,2 --blocks DW", ["stage 1", "no layer can change the width"]),
        ("--stages 32,16 --depths 2,2 --blocks XY", ["--blocks: unknown kind", "'XY'"]),
        ("--stages 32,16 --depths 2,2 --blocks PW,", ["'--blocks'", "allowed: blocks between"]),
        ("--stages 32,16 --depths 2,2 --kernel 4", ["--kernel is even: got 4"]),
        ("--stages 32,16 --depths 2,2 --inputs 0", ["'--inputs'", "whole numbers from 1"]),
        ("--stages 32,16", ["no --depths", "--stages and --depths, or --network"]),
        ("--depths 2,2", ["no --stages"]),
        ("--theta 1", ["no --stages and no --depths"]),
        ("--stages 32,16 --depths 2,2 --input 32", ["--input without --network"]),
        ("--network vgg16 --stages 2 --blocks PW", ["--stages, --blocks with --network"]),
        ("--network vgg17", ["unknown --network: got 'vgg17'", "vgg16, vgg19, resnet50"]),
        ("--network vgg16 --input 40", ["--input", "got side 40; allowed: multiples of 16"]),
        ("--network vgg16 --input 3x32x64", ["'--input'", "'3x32x64'", "3x224x224"]),
        ("--network vgg16 --depths 2,2", ["wrong number of --depths", "5, one for each"]),
        ("--network mobilenet --depths 1,2,2,6,0", ["--depths out of range: got 0"]),
        ("--network vgg16 --depths 2,2,2,2,9999", ["--depths out of range: got 9999"]),
        ("--network vgg16 --theta -1", ["'--theta'", "'-1'", "numbers from 0"]),
        ("--network vgg16 --alpha 1,x", ["'--alpha'", "'x'", "numbers from 0"]),
        ("--network vgg16 --moves -1", ["'--moves'", "whole numbers from 0"]),
    ],
)
def test_wrong_options_are_an_error_of_one_line(
    run: Callable, options: str, words: list[str]
) -> None:
    run("organize", *options.split()).fails_with(*words)


@pytest.mark.parametrize("name", ["vgg16", "vgg19", "mobilenet", "resnet50"])
@pytest.mark.parametrize("side", [32, 224])
def test_nothing_is_wider_than_a_terminal(
    run: Callable, monkeypatch: pytest.MonkeyPatch, name: str, side: int
) -> None:
    monkeypatch.setattr("ifspace.table.terminal_width", lambda: 80)
    out = run("organize", "--network", name, "--input", side, "--alpha", "1,2,3,5,10").out
    assert widest(out) <= 80
    # All columns are printed side by side.
    assert out.count("depths") == 1


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0"),
        (999_999, "999,999"),
        (1_000_000, "1.00M"),
        (133_822_440, "133.82M"),
        (999_999_999, "1000.00M"),
        (16_857_530_368, "16.86G"),
    ],
)
def test_amounts_are_abbreviated(count: int, text: str) -> None:
    assert short(count) == text


@pytest.mark.slow
def test_no_solver_is_needed() -> None:
    code = (
        "import sys; sys.modules['ortools'] = None\n"
        "from ifspace.cli.main import main; main(['organize', '--network', 'vgg16'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("inputs", [8193, 10**9, 10**20])
def test_more_inputs_than_any_network_has_are_an_error(run, inputs: int) -> None:
    ended = run("organize", "--stages", "16,8", "--depths", "2,2", "--inputs", inputs)
    ended.fails_with("--inputs out of range", "from 1 to 8192")
