import csv
import io
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import brute_stages
import pytest

import ifspace.stages.allocate as optimizer
from ifspace.answer import Answer, Status
from ifspace.block import Composition
from ifspace.stages.command import milliseconds
from ifspace.stages.layout import StemAndHead
from ifspace.stages.networks import (
    network,
    stages,
)
from ifspace.stages.problem import (
    BlockChoice,
    Blocks,
    Budgets,
    StagePlan,
    StagesProblem,
)

VGG = ("layout", "--network", "vgg16", "--params", 5_098_826, "--macs", "370M")
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
    "--quiet",
)
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
    """Stands in for the search: it answers what it is told to and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: tuple[Any, ...] = ()

    def __call__(self, *asked: Any) -> Answer[StagePlan]:
        self.asked = asked
        plan = StagePlan(asked[0], asked[0].start)
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
    found = ended.json
    assert (found["status"], found["gap"], found["alpha"]) == ("optimal", 0, 3)
    assert found["message"] == PROVEN
    assert found["budgets"] == {"params": 5_098_826, "macs": 370_000_000}
    (plan,) = found["plans"]
    assert plan == {
        "depths": [5, 4, 2, 1, 1],
        "widths": [64, 128, 256, 512, 512],
        "first_blocks": ["CONV"] * 5,
        "blocks": ["CONV"] * 5,
        "gain": found["bound"],
        "params": 5_098_826,
        "macs": 369_824_768,
        "layers": 13,
        "width_sum": 2368,
    }
    beside = found["organizer"]
    assert {name: beside[name] for name in LAYOUT} == plan
    assert (beside["moves"], beside["within_budgets"], beside["difference"]) == (5, True, 0)
    assert beside["best_within_budgets"] == plan


def test_the_first_of_the_json_is_the_best_by_brute_force(run: Callable) -> None:
    found = run(*SMALL, "--params", 4000, "--max-depth", 4, "--top", 3, "--format", "json").json
    start = stages("CONV", (8, 4), (8, 16), (2, 2), stem_and_head=StemAndHead(inputs=8))
    problem = StagesProblem(start, Budgets(params=4000), max_depth=4)
    ranked = brute_stages.ranking(problem, list(brute_stages.layouts(problem)))
    assert [(plan["depths"], plan["params"], plan["macs"]) for plan in found["plans"]] == [
        (list(row.depths), row.params, row.macs) for _, row in ranked[:3]
    ]
    assert found["plans"][0]["gain"] == pytest.approx(ranked[0][0])
    organizer = found["organizer"]
    assert organizer["depths"] == [3, 1]
    less = ranked[0][0] - organizer["gain"]
    assert organizer["difference"] == pytest.approx(less)
    assert less >= 0


def test_the_table_says_what_is_proven_and_where_the_organizer_stands(run: Callable) -> None:
    lines = [" ".join(line.split()) for line in run(*VGG, "--top", 2).out.splitlines()]
    assert lines[0] == "Greatest total gain within 5,098,826 parameters, 370,000,000 MACs: α = 3"
    assert lines[2] == "# depths gain params MACs layers Σwidth"
    assert lines[4] == "1 5,4,2,1,1 7.4286 5.10M 369.82M 13 2,368"
    assert lines[5].startswith("2 6,3,2,1,1 7.3392 ")
    assert lines[6] == "o" + lines[4][1:]
    assert lines[7].startswith("s 2,2,3,3,3 4.9385 14.72M 313.20M ")
    said = dict(line.split(" ", 1) for line in lines[9:])
    assert said["left"] == "over 0 parameters, 175,232 MACs"
    assert said["s"] == "the start"
    assert said["widths"] == "64,128,256,512,512"
    assert said["blocks"] == "CONV"
    assert said["status"] == f"optimal, {PROVEN}"
    assert said["bound"] == "7.428646, which the first one reaches"
    assert said["o"] == (
        "the organizer's best within the budgets, which gains as much as the first"
    )


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
    assert fake.asked == (
        StagesProblem(
            stages("CONV(5)", (32, 16), (8, 16), (2, 3), stem_and_head=StemAndHead(inputs=4)),
            Budgets(1_500_000, 16_000, 30),
            widths=((8, 4), (16,)),
            blocks=(Blocks("CONV(5)", open_choice, "DW+GPW(2)"), Blocks("CONV(7)")),
            max_depth=7,
            alpha=2,
            monotone=True,
        ),
        3,
        2.5,
        2,
    )


def test_one_list_is_for_every_stage(run: Callable, fake: Optimizer) -> None:
    run(*SMALL, "--blocks", "PW,CONV", "--width-choices", "8,16", "--params", 1)
    asked = fake.asked[0]
    assert asked.widths == ((8, 16),) * 2
    assert asked.blocks == (Blocks("PW", "CONV"),) * 2
    run(*VGG)
    assert fake.asked == (
        StagesProblem(network("vgg16", 32), Budgets(5_098_826, 370_000_000)),
        1,
        None,
        1,
    )


def test_latencies_are_a_budget_and_a_column(run: Callable, table: Callable[..., Path]) -> None:
    timed = (*SMALL, "--latency", table(HEAD, *ROWS), "--latency-budget-ms")
    found = run(*timed, 6, "--format", "json").json
    # Three units of 1.5 ms, one of 0.5 and one of 0.75.
    assert (found["plans"][0]["depths"], found["plans"][0]["latency_ms"]) == ([3, 2], 5.75)
    assert found["budgets"] == {"latency_ms": 6}
    assert run(*timed, "5.75", "--format", "json").json["plans"] == found["plans"]
    assert run(*timed, "5.74", "--format", "json").json["plans"][0]["depths"] == [3, 1]
    text = run(*timed, 6).out
    assert "within 6.0 milliseconds" in text
    assert text.splitlines()[2].endswith("ms")
    row = next(csv.DictReader(io.StringIO(run(*timed, 6, "--format", "csv").out)))
    assert (row["depths"], row["latency_ms"]) == ("3,2", "5.75")


def test_a_case_that_is_missing_leaves_its_block_out(
    run: Callable, table: Callable[..., Path]
) -> None:
    asked = ("--latency", table(HEAD, *ROWS), "--latency-budget-ms", 6, "--blocks", "CONV,PW")
    ended = run(*[word for word in SMALL if word != "--quiet"], *asked)
    assert ended.status == 0
    said = "ifspace: left out: no latency for PW from 8 to 8 channels, side 8, stride 1, and 2 more"
    assert said in ended.err.splitlines()
    for n, stage in ((0, 1), (1, 2), (2, 2)):
        lines = [row for place, row in enumerate(ROWS) if place != n]
        short = ("--latency", table(HEAD, *lines), "--latency-budget-ms", 6)
        run(*SMALL, *short).refused(f"stage {stage} has no block left: got no latency for CONV")


def test_a_plan_that_is_not_proven_says_its_gap(run: Callable, fake: Optimizer) -> None:
    ended = run(*VGG)
    said = "time ran out: the best found so far, with the bound beside it: a gap of 0.5"
    assert ended.status == 0
    assert ended.err.splitlines() == [
        "ifspace: left out: one, and 1 more",
        f"ifspace: not proven: {said}",
    ]
    assert f"status     feasible, {said}" in ended.out
    assert "0.5 above the first" in ended.out
    assert run(*VGG, "--format", "json").json["gap"] == pytest.approx(0.5)
    assert run(*VGG, "--quiet").err == ""


def test_fewer_layouts_than_asked_for_are_noted(run: Callable) -> None:
    asked = ("layout", "--network", "vgg11", "--params", "9.3M", "--max-depth", 2, "--top", 99)
    ended = run(*asked, "--format", "json")
    count = len(ended.json["plans"])
    assert 1 < count < 32
    said = f"ifspace: {count} of the 99 layouts asked for were found: there are no more\n"
    assert said == ended.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--params", 1], "1 parameters: proven: no layout keeps the budgets"),
        (["--macs", 9, "--layers", 4], "9 MACs, 4 layers: proven: no layout keeps the budgets"),
        (["--layers", 1], "1 layers: proven"),
        (
            ["--params", "1M", "--width-choices", "16;8", "--monotone"],
            "--monotone: no widths offered stay or rise",
        ),
    ],
)
def test_what_no_layout_keeps_is_status_three(
    run: Callable, tmp_path: Path, more: list[object], said: str
) -> None:
    file = tmp_path / "none.json"
    ended = run(*SMALL, *more, "--format", "json", "--out", file)
    assert (ended.status, ended.out, file.exists()) == (3, "", False)
    assert (ended.err.count("\n"), said in ended.err) == (1, True)
    found = run(*SMALL, *more, "--format", "json").json
    assert (found["status"], found["bound"], found["gap"]) == ("infeasible", None, None)
    assert (found["plans"], found["organizer"]["difference"]) == ([], None)


@pytest.mark.parametrize("blocks", ["CONV", "GPW+SH+DW+GPW"])
def test_no_time_is_status_four(run: Callable, blocks: str) -> None:
    asked = (*SMALL, "--params", "10k", "--widths", "16,16", "--inputs", 16, "--blocks", blocks)
    assert run(*asked).status == 0
    ended = run(*asked, "--time-limit", 0, "--format", "json")
    assert (ended.status, ended.json["status"], ended.json["plans"]) == (4, "unknown", [])
    assert ended.err == (
        "ifspace: 10,000 parameters: time ran out before a layout within the budgets was found; "
        "allow more time\n"
    )


@pytest.mark.parametrize("form", ["csv", "markdown"])
def test_every_format_has_a_row_per_layout(run: Callable, form: str) -> None:
    text = run(*VGG, "--top", 3, "--format", form).out
    assert text.count("64,128,256,512,512") == 3
    assert "None" not in text
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["depths"] for row in rows] == ["5,4,2,1,1", "6,3,2,1,1", "5,3,2,1,1"]


def test_nothing_is_wider_than_a_terminal(
    run: Callable, monkeypatch: pytest.MonkeyPatch, table: Callable[..., Path]
) -> None:
    monkeypatch.setattr("ifspace.table.terminal_width", lambda: 80)
    blocks = "CONV,DW(5)+GPW(16)+SH(4)+GPW(16)"
    wide = ("--width-choices", "32,64,128", "--blocks", blocks, "--top", 2)
    for asked in (
        (*VGG, *wide, "--layers", 30),
        (*VGG, "--top", 4),
        (*SMALL, "--latency", table(HEAD, *ROWS), "--latency-budget-ms", 6),
    ):
        lines = run(*asked).out.splitlines()
        assert max(map(len, lines)) <= 80, "\n".join(lines)


def test_a_missing_solver_is_one_line_that_names_the_extra(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "ortools" or name.startswith("ifspace.cpsat"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ortools", None)  # type: ignore[arg-type]
    run(*VGG).refused("OR-Tools is not installed", "ifspace[solver]", "`ifspace organize`")


def test_half_a_millisecond_is_exact() -> None:
    assert milliseconds(" 0.5 ") == Fraction(1, 2)
