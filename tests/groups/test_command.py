import csv
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

import ifspace.groups.solve as groups
import ifspace.groups.solve as widest
from ifspace.answer import Status
from ifspace.block import Block, Composition
from ifspace.groups.problem import GroupPlan, GroupsAnswer, GroupsProblem
from ifspace.kinds import KINDS

BLOCK = "DW+RPW(8,0)+RPW(8,0)"
WORD = "DW+RPW+RPW"


def plan(text: str = BLOCK, channels: int = 64) -> GroupPlan:
    block = Block.parse(text)
    return GroupPlan(GroupsProblem(block.composition, channels), block)


class Optimizer:
    """Stands in for the solver: it answers what it is told to and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        self.answer = GroupsAnswer(Status.OPTIMAL, 1600, (plan(),))

    def __call__(self, *asked: Any, **named: Any) -> GroupsAnswer:
        self.asked, self.named = asked, named
        return self.answer


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Optimizer:
    stand_in = Optimizer()
    monkeypatch.setattr(groups, "cheapest_groups", stand_in)
    monkeypatch.setattr(widest, "widest_block", stand_in)
    return stand_in


def test_the_json_keeps_its_contract(run: Callable) -> None:
    ended = run("groups", "gc+sh+gpw", "--channels", 64, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    assert (ended.json["status"], ended.json["bound"], ended.json["gap"]) == ("optimal", 3200, 0)
    assert ended.json["message"].startswith("proven: no legal choice")
    said = "a lower bound on the parameters of every plan at 64 channels"
    assert ended.json["bound_is"] == said
    (found,) = ended.json["plans"]
    assert found == {
        "block": "GC(32)+SH(32)+GPW(2)",
        "channels": 64,
        "out_channels": 64,
        "params": 3200,
        "macs_per_pixel": 3200,
        "activations_per_pixel": 128,
        "objective": 3200,
        "field": [3, 64],
        "quality": True,
        "compact": True,
        "removable": [],
    }


def test_the_table_has_a_row_per_plan_and_what_is_proven(run: Callable) -> None:
    ended = run("groups", WORD, "-C", 64, "--top", 2)
    assert (ended.status, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.splitlines()]
    assert lines[0] == ["Fewest", "parameters", "of", "DW+RPW+RPW", "at", "64", "channels"]
    assert ["1", BLOCK, "1,600", "1/23", "1,600", "192"] in lines
    second = next(line for line in lines if line[:1] == ["2"])
    assert second[1] in ("DW+RPW(16,0)+RPW(4,0)", "DW+RPW(4,0)+RPW(16,0)")
    assert second[2:] == ["1,856", "1/20", "1,856", "192"]
    assert "status  optimal, proven: no legal choice with the full field is better" in ended.out
    assert "bound   1,600, which the first one reaches" in ended.out


def test_all_options_reach_the_optimizer(run: Callable, fake: Optimizer) -> None:
    run(
        "groups",
        "GPW+DW+GPW",
        "-C",
        64,
        "-F",
        32,
        "--kernel",
        5,
        "--stride",
        2,
        "--bottleneck",
        "0.5",
        "--overlaps",
        "0.5,0",
        "--objective",
        "macs",
        "--top",
        3,
        "--time-limit",
        2.5,
    )
    word = Composition.parse("GPW+DW+GPW")
    asked = GroupsProblem(word, 64, 32, Fraction(1, 2), None, 5, ("0", "1/2"), "macs", stride=2)
    assert fake.asked == (asked,)
    assert fake.named == {"top": 3, "time_limit_s": 2.5}
    run(
        "groups", "GPW+DW+GPW", "-C", 64, "--widths", 16, "--weights", "1,0,2", "--overlaps", "FREE"
    )
    assert fake.asked == (GroupsProblem(word, 64, widths=(16,), weights=(1, 0, 2), overlaps=None),)


def test_the_budget_reaches_the_optimizer(run: Callable, fake: Optimizer) -> None:
    ended = run(
        "groups",
        "PW+DW+PW",
        "--budget",
        "1.6k",
        "--alpha",
        "3/2",
        "--multiple",
        8,
        "--bottleneck",
        "1/4",
        "--kernel",
        5,
        "--time-limit",
        9,
    )
    asked, *rest = fake.asked
    assert rest == [1600, Fraction(3, 2), 8]
    assert fake.named["time_limit_s"] == 9
    assert callable(fake.named["progress"])
    assert (asked.bottleneck, asked.kernel) == (Fraction(1, 4), 5)
    assert ended.out.startswith("Widest PW+DW+PW within 1,600 parameters: 64 channels\n")


def test_a_plan_that_is_not_proven_says_its_gap(run: Callable, fake: Optimizer) -> None:
    fake.answer = GroupsAnswer(Status.FEASIBLE, 1500, (plan(),))
    ended = run("groups", WORD, "-C", 64)
    said = "the best found has 1,600, the bound is 1,500: a gap of 6.2%"
    assert (ended.status, ended.err) == (0, f"ifspace: not proven: {said}\n")
    assert f"bound   {said}" in ended.out
    assert run("groups", WORD, "-C", 64, "--format", "json").json["gap"] == 100
    assert run("groups", WORD, "-C", 64, "--quiet").err == ""


def test_fewer_plans_than_asked_for_are_noted(run: Callable, fake: Optimizer) -> None:
    some = "1 of the 3 plans asked for were found"
    assert run("groups", "DW+PW", "-C", 8, "--top", 3).err == f"ifspace: {some}\n"
    limited = ("groups", "DW+PW", "-C", 8, "--top", 3, "--time-limit")
    assert run(*limited, 60).err == f"ifspace: {some}\n"
    assert run(*limited, 0).err == f"ifspace: time ran out: {some}\n"


def test_a_time_limit_is_told_of_the_plans_behind_the_first(run: Callable, fake: Optimizer) -> None:
    fake.answer = GroupsAnswer(Status.OPTIMAL, 1600, (plan(), plan()))
    limited = ("groups", WORD, "-C", 64, "--top", 2, "--time-limit")
    said = "time ran out: the first plan is proven, the last may not be the next best"
    assert run(*limited, 0).err == f"ifspace: {said}\n"
    assert run(*limited, 60).err == ""


def test_no_full_field_is_status_three(run: Callable) -> None:
    ended = run("groups", "GC+SH+GPW", "-C", 13)
    assert (ended.status, ended.out) == (3, "")
    assert ended.err == (
        "ifspace: GC+SH+GPW at 13 channels: GC, SH and GPW have no legal group count at these "
        "widths; try widths with more common divisors\n"
    )
    ended = run("groups", "DW+GPW", "-C", 16, "-F", 32, "--format", "json")
    assert (ended.status, ended.json["status"], ended.json["plans"]) == (3, "infeasible", [])
    assert ended.err == f"ifspace: {ended.json['message']}\n"
    assert "at 16 to 32 channels: proven" in ended.err
    assert ended.err.endswith("the full field; try other widths, or another composition\n")
    said = run("groups", "DW+RPW", "-C", 16).err
    assert said.endswith("; try other widths, or --overlaps free, or another composition\n")
    assert "free" not in run("groups", "DW+RPW", "-C", 16, "--overlaps", "free").err
    ended = run("groups", "DW+PW", "--budget", 5)
    assert (ended.status, ended.out) == (3, "")
    assert ended.err == (
        "ifspace: DW+PW within 5 parameters: proven: no width has a legal choice with the full "
        "field; raise --budget, or try another composition\n"
    )


def test_one_channel_is_no_plural(run: Callable) -> None:
    assert "DW+PW at 1 channel\n" in run("groups", "DW+PW", "-C", 1).out
    assert "DW+PW at 1 to 2 channels\n" in run("groups", "DW+PW", "-C", 1, "-F", 2).out


def test_no_time_is_status_four(run: Callable) -> None:
    for arguments in (("-C", 64), ("--budget", 1600)):
        ended = run("groups", WORD, *arguments, "--time-limit", 0, "--format", "json")
        assert (ended.status, ended.json["status"]) == (4, "unknown")
        assert ended.err.count("\n") == 1
        assert "time ran out" in ended.err


def test_of_a_block_the_composition_counts(run: Callable) -> None:
    ended = run("groups", "DW(5)+RPW(2,0)+RPW(2,0)", "-C", 64)
    assert ended.err == (
        "ifspace: the groups of DW(5)+RPW(2,0)+RPW(2,0) do not count, only DW+RPW+RPW does\n"
    )
    assert "DW(5)+RPW(8,0)+RPW(8,0)" in ended.out
    assert run("groups", "DW(5)+PW", "-C", 8).err == ""
    assert "DW(5)" not in run("groups", "DW(5)+PW", "-C", 8, "--kernel", 3).out
    run("groups", "DW(5)+DW+PW", "-C", 8).refused("several kernel sizes", "got 3, 5", "--kernel")


@pytest.mark.parametrize("form", ["csv", "markdown", "latex"])
def test_every_format_has_a_row_per_plan(run: Callable, form: str) -> None:
    text = run("groups", WORD, "-C", 64, "--top", 3, "--format", form).out
    assert text.count("DW+RPW(") == 3
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["params"] for row in rows] == ["1600", "1856", "1856"]
        assert {row["status"] for row in rows} == {"optimal"}
        assert {(row["field_side"], row["field_channels"]) for row in rows} == {("3", "64")}
        assert {(row["quality"], row["compact"]) for row in rows} == {("True", "True")}
        assert list(rows[0])[-1] == "status"
    if form == "markdown":
        assert text.splitlines()[0].endswith("| quality | compact | status |")
        assert text.splitlines()[2].endswith("| 3 | 64 | True | True | optimal |")


def test_the_answer_can_go_to_a_file(run: Callable, tmp_path: Path) -> None:
    for name in ("a.json", "a.csv", "a.md", "a.tex"):
        ended = run("groups", WORD, "-C", 64, "--out", tmp_path / name, "--quiet")
        assert (ended.status, ended.out) == (0, "")
        assert BLOCK in (tmp_path / name).read_text()
    run("groups", WORD, "-C", 64, "--out", tmp_path / "a.xlsx").refused("unknown output format")


def test_weights_have_a_column(run: Callable) -> None:
    text = run("groups", WORD, "-C", 64, "--weights", "1,2,0").out
    assert text.startswith("Fewest 1 x parameters + 2 x MACs of DW+RPW+RPW")
    assert "4,800" in text


def test_formulas_need_no_width_and_no_solver(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_solver(monkeypatch)
    text = run("groups", "GC+SH+GPW", "--symbolic").out
    for part in ("9·C^2/g_1 + C·F/g_3", "6·C·sqrt(F)", "sqrt(F)/3", "g_1·g_3 ≤ C"):
        assert part in text
    values = run("groups", "PW+DW+PW", "--symbolic", "--bottleneck", "1/4", "--format", "json").json
    assert values["params"] == "C*K + F*K + 9*K"
    for form in ("csv", "markdown", "latex"):
        ended = run("groups", "GPW+SH+DW+GPW", "--symbolic", "--format", form)
        assert (ended.status, ended.err) == (0, "")
        assert "g_" in ended.out
    equal = run("groups", "DW+PW", "--symbolic", "--alpha", 1, "--format", "json").json
    assert equal["widest"] == "C = sqrt(4*P + 81)/2 - 9/2"


def without_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "ortools" or name.startswith("ifspace.cpsat"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ortools", None)  # type: ignore[arg-type]


def test_a_missing_solver_is_one_line_that_names_the_extra(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_solver(monkeypatch)
    run("groups", WORD, "-C", 64).refused("OR-Tools is not installed", "ifspace[solver]")


def test_a_kind_added_to_the_table_is_chosen_for(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "TPW", replace(KINDS["GPW"], symbol="TPW"))  # type: ignore[arg-type]
    assert "DW+TPW(" in run("groups", "DW+tpw+SH+TPW", "-C", 16).out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["DW+PW"], ["Missing option '--channels'", "--budget", "`ifspace groups --help`"]),
        (["DW+XY", "-C", 16], ["unknown kind", "'XY'"]),
        (["DW+RPW(8)+GPW", "-C", 16], ["GPW needs groups"]),
        (["", "-C", 16], ["a block needs a layer"]),
        (["DW+PW", "-C", 0], ["channels out of range", "got 0"]),
        (["DW+PW", "-C", 99999], ["--channels out of range", "4096"]),
        (["DW+PW", "-C", 16, "-F", 5000], ["--out-channels out of range: got 5000"]),
        (["DW+PW", "-C", 16, "-F", 0], ["--out-channels out of range: got 0"]),
        (["PW+PW", "-C", 16, "--widths", 99999], ["--widths out of range", "4096"]),
        (["PW+PW", "-C", 16, "--widths", 0], ["--widths out of range: got 0"]),
        (["(DW+PW)x2000", "-C", 8], ["composition too long: got 2000 x 2 layers", "64 copies"]),
        (["DW", "-C", 16, "-F", 32], ["no layer can change the width"]),
        (["DW+PW", "-C", 16, "--bottleneck", "1/4"], ["a bottleneck needs two"]),
        (["PW+PW", "-C", 16, "--bottleneck", "1/3"], ["bottleneck is not a whole number"]),
        (["PW+PW", "-C", 16, "--bottleneck", "wide"], ["'--bottleneck'", "got 'wide'"]),
        (["PW+PW", "-C", 16, "--bottleneck", "1/2", "--widths", 8], ["two statements"]),
        (["PW+PW", "-C", 16, "--widths", "8,8"], ["wrong number of interior widths"]),
        (["PW+PW", "-C", 16, "--widths", "8,x"], ["'--widths'", "got '8,x'"]),
        (["PW+PW", "-C", 16, "--stride", 2], ["no layer can hold the stride"]),
        (["DW+PW", "-C", 16, "--stride", 3], ["'--stride'"]),
        (["DW+PW", "-C", 16, "--kernel", 4], ["--kernel is even"]),
        (["DW+PW", "-C", 16, "--kernel", 0], ["--kernel out of range: got 0"]),
        (["DW+PW", "-C", 16, "--kernel", 99999999], ["--kernel out of range", "1 to 999"]),
        (["DW+PW", "-C", 4096, "--kernel", 999, "--weights", "1,999999,0"], ["cost too large"]),
        (["DW+PW", "-C", 16, "--overlaps", "0,free"], ["overlap ratio out of range"]),
        (["DW+PW", "-C", 16, "--weights", "1,2"], ["--weights out of range: got 1, 2"]),
        (["DW+PW", "-C", 16, "--weights", "0,0,0"], ["--weights out of range: got 0, 0, 0"]),
        (["DW+PW", "-C", 16, "--weights", "999999999,1,1"], ["--weights out", "to 1000000"]),
        (["DW+PW", "-C", 16, "--weights", "1,1,1", "--objective", "macs"], ["two objectives"]),
        (["DW+PW", "-C", 16, "--top", 0], ["'--top'"]),
        (["DW+PW", "-C", 16, "--time-limit", "-1"], ["'--time-limit'", "got '-1'"]),
        (["DW+PW", "-C", 16, "--time-limit", "nan"], ["got 'nan'"]),
        (["DW+PW", "-C", 16, "--alpha", 2], ["--alpha with no --budget"]),
        (["DW+PW", "--budget", 0], ["ifspace: --budget out of range: got 0; allowed: whole"]),
        (["DW+PW", "--budget", 9, "--alpha", 0], ["ifspace: --alpha out of range: got 0; allow"]),
        (["DW+PW", "--budget", 9, "--multiple", 4097], ["fits --multiple: got 4097; allowed"]),
        (["DW+PW", "--budget", 9, "--alpha", "0.3333"], ["fits --alpha: got 3333/10000"]),
        (["PW+PW", "--budget", 9, "--bottleneck", "1/5000"], ["--bottleneck is not", "1/5000"]),
        (["DW", "--budget", 100, "--alpha", 2], ["no layer can change the width"]),
        (["DW+PW", "--symbolic", "--top", 2], ["--top with --symbolic"]),
    ],
)
def test_wrong_input_is_one_line(run: Callable, arguments: list[object], words: list[str]) -> None:
    run("groups", *arguments).refused(*words)
