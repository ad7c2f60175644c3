"""`ifspace layout`: its answer, the comparison with the organizer, its options and its errors."""

import csv
import io
import json
import re
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import brute_stages
import pytest
from latency_models import model

import ifspace.stages.allocate as optimizer
from ifspace.answer import Answer, Status
from ifspace.block import Composition
from ifspace.cli.options import MILLISECONDS
from ifspace.errors import SettingError
from ifspace.stages.command import (
    image,
)
from ifspace.stages.layout import StemAndHead
from ifspace.stages.networks import (
    make_layout,
    network,
)
from ifspace.stages.problem import (
    BlockChoice,
    Blocks,
    Budgets,
    StagePlan,
    StagesProblem,
    parse_block,
)
from ifspace.values import block_list

OURS = ("--widths", "start", "--max-depth", 16)
VGG = ("layout", "--network", "vgg16", *OURS, "--params", 5_098_826, "--macs", "370M")
SMALL = (
    "layout",
    "--stages",
    "8,4",
    "--depths",
    "2,2",
    "--widths",
    "8,16",
    "--inputs",
    8,
    "--max-depth",
    16,
    "--style",
    "bare",
    "--quiet",
)
# Parameters and MACs of the start do not bound the answer.
GROWING = (*SMALL, "--params", "1G", "--macs", "1G")
HEAD = "block,C,F,side,stride,batch,device,dtype,latency_ms"
ROWS = (
    "CONV,8,8,8,1,1,cpu,float32,1.5",
    "CONV,8,16,4,1,1,cpu,float32,0.5",
    "CONV,16,16,4,1,1,cpu,float32,0.75",
)
PROVEN = "proven: within the budgets none up to 16 deep gains more"
LAYOUT = {
    "depths",
    "widths",
    "first_blocks",
    "blocks",
    "gain",
    "params",
    "macs",
    "layers",
    "width_sum",
}


class Optimizer:
    """Stands in for the search: its answer is fixed, and it keeps its arguments."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any, announce: Any, distance: int) -> Answer[StagePlan]:
        self.arguments = arguments
        plan = StagePlan(arguments[0], arguments[0].start)
        return Answer(Status.FEASIBLE, plan.objective() + 0.5, (plan,), ("one", "two"))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Optimizer:
    stand_in = Optimizer()
    monkeypatch.setattr(optimizer, "best_stages", stand_in)
    return stand_in


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    def write(*lines: str) -> Path:
        path = tmp_path / "table.csv"
        path.write_text("\n".join(lines), "utf-8")
        return path

    return write


def test_the_json_keeps_its_contract(run: Callable) -> None:
    ended = run(*VGG, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    values = ended.json
    assert (values["status"], values["gap"], values["alpha"]) == ("optimal", 0, 3)
    assert values["message"] == PROVEN
    assert values["budgets"] == {"params": 5_098_826, "macs": 370_000_000}
    (plan,) = values["plans"]
    assert {name: plan[name] for name in LAYOUT} == {
        "depths": [5, 4, 2, 1, 1],
        "widths": [64, 128, 256, 512, 512],
        "first_blocks": ["CONV"] * 5,
        "blocks": ["CONV"] * 5,
        "gain": values["bound"],
        "params": 5_098_826,
        "macs": 369_824_768,
        "layers": 13,
        "width_sum": 2368,
    }
    beside = values["organizer"]
    assert {name: beside[name] for name in LAYOUT} == {name: plan[name] for name in LAYOUT}
    assert (beside["moves"], beside["within_budgets"], beside["difference"]) == (5, True, 0)
    assert beside["best_within_budgets"].items() <= plan.items()


def test_the_first_of_the_json_is_the_best_by_brute_force(run: Callable) -> None:
    values = run(*GROWING, "--params", 4000, "--max-depth", 4, "--top", 3, "--format", "json").json
    start = make_layout("CONV", (8, 4), (8, 16), (2, 2), stem_and_head=StemAndHead(inputs=8))
    problem = StagesProblem(start, Budgets(params=4000), max_depth=4)
    ranked = brute_stages.ranking(problem, list(brute_stages.layouts(problem)))
    assert [(plan["depths"], plan["params"], plan["macs"]) for plan in values["plans"]] == [
        (list(row.depths), row.params, row.macs) for _, row in ranked[:3]
    ]
    assert values["plans"][0]["gain"] == pytest.approx(ranked[0][0])
    organizer = values["organizer"]
    assert organizer["depths"] == [3, 1]
    less = ranked[0][0] - organizer["gain"]
    assert organizer["difference"] == pytest.approx(less)
    assert less >= 0


def test_the_table_says_what_is_proven_and_where_the_organizer_stands(
    run: Callable, snapshot: Any
) -> None:
    assert run(*VGG, "--top", 2).out == snapshot


def test_all_options_reach_the_optimizer(run: Callable, fake: Optimizer) -> None:
    ended = run(
        "layout",
        "--stages",
        "32,16",
        "--depths",
        "2,3",
        "--widths",
        "8,16",
        "--inputs",
        4,
        "--kernel",
        5,
        "--style",
        "bare",
        "--blocks",
        "CONV,DW+GPW,DW(3)+GPW(2);conv(7)",
        "--width-choices",
        "8,4;16",
        "--monotone",
        "--max-depth",
        7,
        "--params",
        "1.5M",
        "--macs",
        "16k",
        "--layers",
        30,
        "--alpha",
        2,
        "--top",
        3,
        "--time-limit",
        2.5,
        "--jobs",
        2,
    )
    assert ended.status == 0
    open_choice = BlockChoice(Composition.parse("DW+GPW"), kernel=5)
    assert fake.arguments == (
        StagesProblem(
            make_layout("CONV(5)", (32, 16), (8, 16), (2, 3), stem_and_head=StemAndHead(inputs=4)),
            Budgets(1_500_000, 16_000, 30),
            widths=((8, 4), (16,)),
            blocks=(Blocks("CONV(5)", open_choice, "DW+GPW(2)"), Blocks("CONV(7)")),
            max_depth=7,
            objective="macs-3/4",
            alpha=2,
            monotone=True,
        ),
        3,
        2.5,
        2,
    )


def test_one_list_is_for_every_stage(run: Callable, fake: Optimizer) -> None:
    run(*GROWING, "--blocks", "PW,CONV", "--width-choices", "8,16", "--params", 1)
    problem = fake.arguments[0]
    assert problem.widths == ((8, 16),) * 2
    assert problem.blocks == (Blocks("PW", "CONV"),) * 2
    run(*VGG)
    assert fake.arguments == (
        StagesProblem(network("vgg16", 32), Budgets(5_098_826, 370_000_000), max_depth=16),
        1,
        None,
        None,
    )


def test_latencies_are_a_budget_and_a_column(
    run: Callable, table: Callable[..., Path], snapshot: Any
) -> None:
    timed = (*GROWING, "--latency", table(HEAD, *ROWS), "--latency-budget-ms")
    values = run(*timed, 6, "--format", "json").json
    # Three units of 1.5 ms, one of 0.5 and one of 0.75.
    assert (values["plans"][0]["depths"], values["plans"][0]["latency_ms"]) == ([3, 2], 5.75)
    assert values["budgets"] == {"params": 10**9, "macs": 10**9, "latency_ms": 6}
    exact = run(*timed, "5.75", "--format", "json").json["plans"][0]
    assert (exact["depths"], exact["shares"]["latency_ms"]) == ([3, 2], 1)
    assert run(*timed, "5.74", "--format", "json").json["plans"][0]["depths"] == [3, 1]
    assert run(*timed, 6).out == snapshot
    row = next(csv.DictReader(io.StringIO(run(*timed, 6, "--format", "csv").out)))
    assert (row["depths"], row["latency_ms"]) == ("3,2", "5.75")


def test_the_forms_that_take_the_milliseconds_are_told(
    run: Callable, table: Callable[..., Path]
) -> None:
    forms = [f"{row},{form}" for row, form in zip(ROWS, ("fused", "as is", "fused"), strict=True)]
    ended = run(*GROWING, "--latency", table(f"{HEAD},form", *forms), "--latency-budget-ms", "5.75")
    expected = "ms         of blocks in their fastest form: 4 fused, 1 as is, by ifspace.nn.fuse"
    assert expected in ended.out.splitlines()
    assert ", 0 milliseconds" in ended.out
    plain = run(*GROWING, "--latency", table(HEAD, *ROWS), "--latency-budget-ms", "5.75")
    assert "fastest form" not in plain.out


def test_a_case_that_is_missing_leaves_its_block_out(
    run: Callable, table: Callable[..., Path], snapshot: Any
) -> None:
    arguments = ("--latency", table(HEAD, *ROWS), "--latency-budget-ms", 6, "--blocks", "CONV,PW")
    ended = run(*[word for word in SMALL if word != "--quiet"], *arguments)
    assert ended.status == 0
    assert ended.err == snapshot
    for n, stage in ((0, 1), (1, 2), (2, 2)):
        lines = [row for place, row in enumerate(ROWS) if place != n]
        short = ("--latency", table(HEAD, *lines), "--latency-budget-ms", 6)
        run(*GROWING, *short).fails_with(
            f"stage {stage} has no block left: got no latency for CONV"
        )


def test_a_plan_that_is_not_proven_says_its_gap(
    run: Callable, fake: Optimizer, snapshot: Any
) -> None:
    ended = run(*VGG)
    assert ended.status == 0
    assert ended.err == snapshot(name="notes")
    assert ended.out == snapshot(name="table")
    assert run(*VGG, "--format", "json").json["gap"] == pytest.approx(0.5)
    assert run(*VGG, "--quiet").err == ""


def test_fewer_layouts_than_asked_for_are_noted(run: Callable) -> None:
    arguments = ("layout", "--network", "vgg11", *OURS[:2], "--params", "9.3M", "--max-depth", 2)
    ended = run(*arguments, "--top", 99, "--format", "json")
    count = len(ended.json["plans"])
    assert 1 < count < 32
    note = f"ifspace: {count} of the 99 layouts asked for were found: there are no more\n"
    assert note == ended.err


@pytest.mark.parametrize(
    "more",
    [
        ["--params", 1],
        ["--macs", 9, "--layers", 4],
        ["--layers", 1],
        ["--params", "1M", "--width-choices", "16;8", "--monotone"],
        ["--params", "1M", "--kernel", 99],
    ],
)
def test_what_no_layout_keeps_is_status_three(
    run: Callable, tmp_path: Path, snapshot: Any, more: list[object]
) -> None:
    file = tmp_path / "none.json"
    ended = run(*SMALL, *more, "--format", "json", "--out", file)
    assert (ended.status, ended.out, file.exists()) == (3, "", False)
    assert ended.err.count("\n") == 1
    assert ended.err == snapshot
    values = run(*SMALL, *more, "--format", "json").json
    assert (values["status"], values["bound"], values["gap"]) == ("infeasible", None, None)
    assert (values["plans"], values["organizer"]["difference"]) == ([], None)


@pytest.mark.parametrize("blocks", ["CONV", "GPW+SH+DW+GPW"])
def test_no_time_is_status_four(run: Callable, snapshot: Any, blocks: str) -> None:
    arguments = (*SMALL, "--params", "10k", "--widths", "16,16", "--inputs", 16, "--blocks", blocks)
    assert run(*arguments).status == 0
    ended = run(*arguments, "--time-limit", 0, "--format", "json")
    assert (ended.status, ended.json["status"], ended.json["plans"]) == (4, "unknown", [])
    assert ended.err == snapshot


@pytest.mark.parametrize("form", ["csv", "markdown"])
def test_every_format_has_a_row_per_layout(run: Callable, form: str) -> None:
    text = run(*VGG, "--top", 3, "--format", form).out
    assert text.count("64,128,256,512,512") == 3
    assert "None" not in text
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["depths"] for row in rows] == ["5,4,2,1,1", "6,3,2,1,1", "5,3,2,1,1"]


@pytest.mark.slow
def test_nothing_is_wider_than_a_terminal(
    run: Callable, monkeypatch: pytest.MonkeyPatch, table: Callable[..., Path]
) -> None:
    monkeypatch.setattr("ifspace.table.terminal_width", lambda: 80)
    blocks = "CONV,DW(5)+GPW(16)+SH(4)+GPW(16)"
    wide = ("--width-choices", "32,64,128", "--blocks", blocks, "--top", 2)
    for arguments in (
        (*VGG, *wide, "--layers", 30),
        (*VGG, "--top", 4),
        (*GROWING, "--latency", table(HEAD, *ROWS), "--latency-budget-ms", 6),
    ):
        lines = run(*arguments).out.splitlines()
        assert max(map(len, lines)) <= 80, "\n".join(lines)


def test_a_missing_solver_is_one_line_that_names_the_extra(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "ortools" or name.startswith("ifspace.cpsat"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ortools", None)  # type: ignore[arg-type]
    run(*VGG).fails_with("OR-Tools is not installed", "ifspace[solver]", "`ifspace organize`")


def test_half_a_millisecond_is_exact() -> None:
    assert MILLISECONDS.convert(" 0.5 ", None, None) == Fraction(1, 2)


def test_the_organizer_says_how_it_compares(run: Callable, snapshot: Any) -> None:
    assert run(*GROWING, "--params", 4000).out == snapshot(name="less gain")
    assert run(*GROWING, "--params", 2000).out == snapshot(name="none within")
    # It has the blocks and widths of the best layout, not those that the start was described with.
    narrow = ("layout", "--stages", "8,4", "--depths", "2,2", "--widths", "4,4", "--inputs", 8)
    narrow += ("--style", "bare")
    values = run(
        *narrow, "--params", "9k", "--macs", "1M", "--width-choices", "16", "--format", "json"
    ).json
    assert values["organizer"]["widths"] == values["plans"][0]["widths"] == [16, 16]
    assert values["organizer"]["difference"] >= 0


def test_a_state_within_the_budgets_that_is_too_deep_is_named(run: Callable) -> None:
    deep = (*GROWING, "--depths", "3,3", "--max-depth", 2, "--objective", "gain")
    ended = run(*deep, "--format", "json").json["organizer"]
    assert (ended["within_budgets"], ended["best_within_budgets"]) == (False, None)
    assert max(ended["params"], ended["macs"]) < 10**9
    faults = [
        f"stage {n} is deeper than --max-depth 2" for n in (1, 2) if ended["depths"][n - 1] > 2
    ]
    text = run(*deep).out
    assert f"{','.join(map(str, ended['depths']))} keeps the budgets, but {faults[0]}" in text
    # None within the budgets at all.
    assert "none of its states keeps the budgets" in run(*deep, "--params", 2000).out


def test_a_layout_without_a_start_has_no_comparison(run: Callable, snapshot: Any) -> None:
    assert run("layout", "--stages", "8,4", "--params", "200k", "--quiet").out == snapshot
    run("layout", "--stages", "8,4").fails_with("no budget: got none of --params", "--depths")


def test_without_a_budget_those_of_the_start_are_kept(run: Callable) -> None:
    values = run(*SMALL, "--format", "json").json
    assert values["kept"] == ["params", "macs"]
    assert values["budgets"] == {"params": 4608, "macs": 129024}
    assert values["plans"][0]["gain"] >= values["organizer"]["best_within_budgets"]["gain"]


def test_an_amount_without_a_budget_does_not_grow(run: Callable) -> None:
    vgg, params = ("layout", "--network", "vgg16", *OURS), ("--params", 5_098_826)
    start = network("vgg16", 32)
    ended = run(*vgg, *params, "--format", "json").json
    assert ended["kept"] == ["macs"]
    assert ended["budgets"]["macs"] == start.macs == 313_201_664
    assert ended["plans"][0]["macs"] <= start.macs
    assert (
        "no budget  MACs: no more than at the start; --macs allows more" in run(*vgg, *params).out
    )
    assert "no budget" not in run(*vgg, *params, "--macs", "370M").out
    # As in the papers, where MACs are not bounded.
    grown = run(*vgg, *params, "--macs", "1G", "--format", "json").json["plans"][0]
    assert (grown["depths"], grown["macs"]) == ([8, 3, 2, 1, 1], 445_322_240)
    failed = run(*vgg, "--params", "1M")
    assert failed.status == 3
    assert "1,000,000 parameters without more MACs than now" in failed.err


def test_the_first_block_of_a_stage_is_named_where_it_differs(run: Callable, snapshot: Any) -> None:
    arguments = (*GROWING, "--params", "100k", "--blocks", "DW+GPW+SH+GPW", "--max-depth", 2)
    (plan,) = run(*arguments, "--format", "json").json["plans"]
    assert plan["first_blocks"] != plan["blocks"]
    assert run(*arguments).out == snapshot


def test_what_is_left_and_what_stops_the_depth_are_shown(run: Callable, snapshot: Any) -> None:
    assert run(*GROWING, "--params", "100k", "--max-depth", 2).out == snapshot


def test_a_budget_too_small_is_answered_with_the_least(run: Callable, snapshot: Any) -> None:
    ended = run(*SMALL, "--params", 100, "--layers", 1)
    assert ended.status == 3
    shallow = (*GROWING, "--depths", "1,1", "--max-depth", 1, "--format", "json")
    (least,) = run(*shallow).json["plans"]
    assert f"{least['params']:,} parameters, {least['layers']} layers" in ended.err
    assert ended.err == snapshot


def test_the_best_state_within_the_budgets_is_printed_with_the_end(
    run: Callable, snapshot: Any
) -> None:
    # From 2, 2 to 3, 1: the first has 1,584 parameters, the end 2,016.
    arguments = (*GROWING, "--widths", "8,4", "--params", "2k")
    beside = run(*arguments, "--format", "json").json["organizer"]
    assert (beside["depths"], beside["params"], beside["within_budgets"]) == ([3, 1], 2016, False)
    within = beside["best_within_budgets"]
    assert (within["depths"], within["params"]) == ([2, 2], 1584)
    out = run(*arguments).out
    assert out == snapshot
    rows = [line.split()[:2] for line in out.splitlines()]
    assert ["o", "2,2"] in rows
    assert ["(o)", "3,1"] in rows


def test_a_state_deeper_than_the_maximum_is_outside_the_budgets(run: Callable) -> None:
    arguments = (*GROWING, "--depths", "9,1", "--params", "1M", "--format", "json")
    assert run(*arguments).json["organizer"]["within_budgets"] is True
    ended = run(*arguments, "--max-depth", 3).json
    beside = ended["organizer"]
    assert (beside["within_budgets"], beside["best_within_budgets"]) == (False, None)
    assert (ended["plans"][0]["depths"], beside["difference"]) == ([3, 3], None)


@pytest.mark.parametrize("params", [1800, 3000, 4500, 7000, 9000])
@pytest.mark.parametrize("depths", ["1,4", "3,3", "6,1", "2,5"])
def test_the_organizer_never_gains_more_within_the_same(
    run: Callable, params: int, depths: str
) -> None:
    values = run(*GROWING, "--depths", depths, "--params", params, "--format", "json").json
    beside = values["organizer"]
    assert values["status"] == "optimal"
    if beside["best_within_budgets"] is not None:
        assert beside["best_within_budgets"]["params"] <= params
        assert values["bound"] >= beside["best_within_budgets"]["gain"] - 1e-9
        assert beside["difference"] >= -1e-9


IMAGE_STAGES = (
    "layout",
    "--stages",
    "8,4",
    "--depths",
    "2,2",
    "--widths",
    "8,16",
    "--style",
    "bare",
    "--quiet",
)
ROW = "CONV,3,8,8,1,1,cpu,float32,1.5"
BUDGET = ("--params", "10k")
START = ("--stages", "32,16", "--widths", "64,128", "--style", "bare")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--params", 0], ["--params out of range: got 0", "more than 0"]),
        (["--macs", "x"], ["'--macs'", "got 'x'"]),
        (["--layers", "1.5"], ["'--layers'", "got '1.5'"]),
        (
            [*BUDGET, "--latency-budget-ms", 3],
            ["nothing says how long the blocks take", "a latency budget without"],
        ),
        ([*BUDGET, "--latency-budget-ms", "-3"], ["'--latency-budget-ms'", "got '-3'"]),
        ([*BUDGET, "--blocks", "XY"], ["--blocks: unknown kind of convolution: got 'XY'"]),
        ([*BUDGET, "--blocks", ""], ["'--blocks'", "got ''", "blocks between commas"]),
        ([*BUDGET, "--blocks", "CONV;"], ["'--blocks'", "got ''"]),
        ([*BUDGET, "--blocks", "CONV,;CONV"], ["'--blocks'", "got 'CONV,'"]),
        ([*BUDGET, "--blocks", "CONV;PW;PW"], ["wrong number of --blocks: got 3 lists", "or 2"]),
        ([*BUDGET, "--blocks", "DW+GPW+GPW(2)"], ["a block without its groups: got GPW in DW"]),
        ([*BUDGET, "--blocks", "DW(4)+PW"], ["kernel size is even: got 4"]),
        ([*BUDGET, "--blocks", "GC(3)"], ["stage 1 has no block left: got GC(3) from 8 to 8"]),
        ([*BUDGET, "--width-choices", "8;16;16"], ["wrong number of --width-choices: got 3 lists"]),
        ([*BUDGET, "--width-choices", "8;x"], ["'--width-choices'", "got 'x'"]),
        ([*BUDGET, "--width-choices", "0"], ["--width-choices out of range: got 0"]),
        ([*BUDGET, "--width-choices", "4097"], ["--width-choices out of range: got 4097"]),
        ([*BUDGET, "--kernel", 4], ["--kernel is even: got 4", "odd numbers"]),
        ([*BUDGET, "--depths", "2,0"], ["--depths out of range: got 0"]),
        ([*BUDGET, "--depths", "2"], ["wrong number of --depths: got 1 for 2 stages"]),
        ([*BUDGET, "--stages", "4,8"], ["--stages that grow: got 4, 8", "largest side first"]),
        ([*BUDGET, "--max-depth", 0], ["'--max-depth'", "allowed: whole numbers from 1"]),
        ([*BUDGET, "--max-depth", 1001], ["--max-depth out of range: got 1001"]),
        ([*BUDGET, "--alpha", "nan"], ["'--alpha'", "got 'nan'"]),
        ([*BUDGET, "--alpha", "-1"], ["'--alpha'", "got '-1'"]),
        ([*BUDGET, "--top", 0], ["'--top'"]),
        ([*BUDGET, "--time-limit", "soon"], ["'--time-limit'", "got 'soon'"]),
        ([*BUDGET, "--network", "vgg16"], ["--stages, --widths, --style with --network"]),
        ([*BUDGET, "--out", "a.xlsx"], ["unknown output format: got a.xlsx"]),
    ],
)
def test_wrong_input_is_one_line(run: Callable, more: list[object], words: list[str]) -> None:
    run(*IMAGE_STAGES, *more).fails_with(*words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["no stages: got no --stages and no --depths"]),
        (["--network", "lenet"], ["unknown --network: got 'lenet'"]),
        (
            ["--network", "vgg16", "--input", 40],
            ["--input", "got side 40; allowed: multiples of 16"],
        ),
        (["--network", "vgg16", "--depths", "1,2"], ["wrong number of --depths: got 1, 2"]),
        (["--network", "vgg16", "--max-depth", 0], ["--max-depth", "whole numbers from 1"]),
        (["--network", "mobilenet", "--depths", "1,1,0,1,1"], ["--depths out of range: got 0"]),
    ],
)
def test_wrong_stages_are_an_error(
    run: Callable, arguments: list[object], words: list[str]
) -> None:
    run("layout", *arguments, *BUDGET, "--quiet").fails_with(*words)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ["an empty file"]),
        ([HEAD], ["no rows"]),
        ([HEAD.replace("stride,", ""), ROW.replace(",1,1", ",1")], ["no column stride"]),
        ([HEAD, ROW.replace("1.5", "fast")], ["line 2: latency_ms 'fast'", "numbers above 0"]),
        ([HEAD, ROW.replace("CONV,3", "CONV,three")], ["line 2: C 'three'"]),
        ([HEAD, ROW.replace("CONV", "XY")], ["line 2: block 'XY'"]),
        ([HEAD, ROW, ROW], ["line 3 measures a case again"]),
        ([HEAD, ROW, ROW.replace("cpu", "cuda")], ["device cpu, cuda", "one batch, device"]),
    ],
)
def test_malformed_tables_are_an_error(
    run: Callable, tmp_path: Path, lines: list[str], words: list[str]
) -> None:
    path = tmp_path / "times.csv"
    path.write_text("\n".join(lines), "utf-8")
    arguments = ("--latency", path, "--latency-budget-ms", 6)
    run(*IMAGE_STAGES, *arguments).fails_with("malformed --latency table times.csv", *words)


def test_a_path_that_is_not_a_file_is_an_error(run: Callable, tmp_path: Path) -> None:
    for path, word in (
        (tmp_path / "none.csv", "no --latency table there"),
        (tmp_path, "Is a directory"),
    ):
        run(*IMAGE_STAGES, "--latency", path, "--latency-budget-ms", 6).fails_with(word)


def test_a_table_without_a_budget_is_a_column(run: Callable, tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    rows = [ROW, ROW.replace("CONV,3", "CONV,8").replace("1.5", "0.5")]
    path.write_text("\n".join([HEAD, *rows]), "utf-8")
    arguments = ("layout", "--stages", 8, "--depths", 2, "--widths", 8, *BUDGET, "--max-depth", 2)
    arguments += ("--style", "bare")
    plain = run(*arguments, "--format", "json").json["plans"][0]
    ended = run(*arguments, "--latency", path, "--format", "json")
    assert ended.err.splitlines()[-1] == "ifspace: latencies of cpu, batch 1, fp32"
    more = {"latency_ms": 2.0, "latency_forms": ["as is"] * 2, "extrapolated": False}
    plan = ended.json["plans"][0]
    assert (plan["depths"], {name: plan[name] for name in more}) == ([2], more)
    assert all(plan[name] == plain[name] for name in plain if name != "stages")
    assert run(*arguments, "--latency", path).out.splitlines()[2].endswith(" ms")
    # A block that the table lacks is a choice all the same, without a time.
    path.write_text(f"{HEAD}\n{ROW}\n", "utf-8")
    plan = run(*arguments, "--latency", path, "--format", "json").json["plans"][0]
    assert all(plan[name] == plain[name] for name in plain)
    # The table lacks the block that would follow the first.
    arguments = ("--latency", path, "--latency-budget-ms", 6)
    run(*IMAGE_STAGES, *arguments).fails_with(
        "stage 1 has no block left: got no latency for CONV from 8 to 8",
        "latencies of these (`ifspace bench --predict 8x8x",
    )


def test_a_model_of_bench_bounds_a_layout(run: Callable, tmp_path: Path) -> None:
    """The model of `latency_models`: a convolution takes 3 ms, DW+PW fused 1.25 ms."""
    path = tmp_path / "blocks-cpu-test.json"
    shapes = [[8, 8, 8, 1], [8, 8, 4, 2]]
    path.write_text(json.dumps(model(shapes=shapes)), "utf-8")
    stages = ("layout", "--stages", "8,8", "--widths", "8,8", "--inputs", 8)
    bound = ("--latency", path, "--latency-budget-ms", 7, "--max-depth", 4)
    ended = run(*stages, *bound, "--blocks", "CONV,DW+PW", "--format", "json")
    plan = ended.json["plans"][0]
    assert plan["latency_ms"] <= 7
    forms = {"fused": Fraction(5, 4), "as is": 3}
    assert sum(forms[form] for form in plan["latency_forms"]) == plan["latency_ms"]
    assert not plan["extrapolated"]
    assert "latencies predicted for cpu-test: batch 2, fp32" in ended.err
    path.write_text(json.dumps(model(shapes=[[16, 16, 8, 1]])), "utf-8")
    ended = run(*stages, *bound, "--blocks", "CONV,DW+PW", "--format", "json")
    assert ended.json["plans"][0]["extrapolated"]
    assert "~: outside the shapes that the latency model was fitted on" in ended.err
    table = run(*stages, *bound, "--blocks", "CONV,DW+PW").out
    assert f" ~{ended.json['plans'][0]['latency_ms']:.3f}\n" in table
    assert re.search(r"left over +~[\d.]+ milliseconds\n", table)
    # So are the shares of the budget, of each stage and in all.
    assert re.search(r"spent +~[\d.]+% of ms\n", table)
    assert len(re.findall(r" ~[\d.]+%\n", table)) == 2
    step = ended.json["plans"][0]["stages"][0]["one_more_block"]
    assert f" ~{step['costs']['latency_ms']:+.3f} " in table
    run(*stages, *bound, "--batch", 1).fails_with("--batch is not that of the latencies: got 1")
    run(*stages, *bound, "--dtype", "int8").fails_with("--dtype is not that of the latencies")
    run(*stages, "--params", "1M", "--batch", 1).fails_with("got --batch without --latency")


@pytest.mark.parametrize(
    ("text", "side"), [("32", 32), (" 224 ", 224), ("3x32x32", 32), ("3X224×224", 224)]
)
def test_an_image_is_its_side(text: str, side: int) -> None:
    assert image(text) == side


@pytest.mark.parametrize("text", ["", "x", "1x32x32", "3x32x64", "32x32", "-32", "3x32x32x1"])
def test_an_image_of_another_form_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        image(text)


def test_blocks_are_split_outside_parentheses() -> None:
    assert block_list("CONV,CONV,DW+PW") == ("CONV", "CONV", "DW+PW")
    assert block_list("GC(4,k=5)+SH(4), (DW+RPW(8,1/2))x2 ,PW") == (
        "GC(4,k=5)+SH(4)",
        "(DW+RPW(8,1/2))x2",
        "PW",
    )


@pytest.mark.parametrize("text", ["", ",", "PW,", "PW,,DW"])
def test_a_missing_block_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        block_list(text)


@pytest.mark.parametrize(
    ("text", "kernel", "block"),
    [
        ("conv", 3, "CONV"),
        ("conv", 7, "CONV(7)"),
        ("CONV(3)+CONV", 7, "CONV+CONV(7)"),
        ("GC(4,k=3)+GC(4)+PW", 5, "GC(4)+GC(4,k=5)+PW"),
        ("(DW+GPW(2))x2", 5, "(DW(5)+GPW(2))x2"),
        ("PW+RPW(4,1/2)", 5, "PW+RPW(4,1/2)"),
    ],
)
def test_the_kernel_is_that_of_layers_without_one(text: str, kernel: int, block: str) -> None:
    assert str(parse_block(text, kernel)) == block


@pytest.mark.parametrize("kind", ["GC", "GPW", "RPW", "SH"])
def test_groups_must_be_given(kind: str) -> None:
    with pytest.raises(SettingError, match=rf"without its groups: got {kind} in DW\+{kind}; "):
        parse_block(f"DW+{kind}")


@pytest.mark.parametrize(
    ("blocks", "words"),
    [
        ("DW+RPW", ["stage 1: proven: no groups give DW+RPW from 64 to 64", "(DW+RPW)x2"]),
        ("DW+RPW,GPW", ["the full field", "such as (DW+RPW)x2"]),
        ("CONV;DW+RPW", ["stage 2: proven: no groups give DW+RPW from 128 to 128"]),
        ("DW+GPW", ["DW+GPW from 64 to 64 channels the full field; offer another block"]),
    ],
)
def test_a_block_without_the_full_field_is_no_answer_and_no_mistake(
    run: Callable, blocks: str, words: list[str]
) -> None:
    ended = run("layout", *START, *BUDGET, "--blocks", blocks, "--quiet")
    assert (ended.status, ended.out) == (3, "")
    assert all(word in ended.err for word in words)
    assert "x2" not in ended.err or "RPW" in blocks
    # Groups that do not fit are a mistake.
    run("layout", *START, *BUDGET, "--blocks", "GC(7)").fails_with("is not legal")


def test_another_block_takes_the_place_of_one_without_the_full_field(run: Callable) -> None:
    stages = ("layout", *START, "--params", "1M", "--blocks", "DW+RPW,CONV")
    ended = run(*stages, "--format", "json")
    assert set(ended.json["plans"][0]["blocks"]) == {"CONV"}
    assert "DW+RPW from 64 to 64 channels has the full field with no groups" in ended.err
