"""`ifspace groups`: its answers in every format, its notes and its exit status."""

import csv
import io
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import sympy
from syrupy.assertion import SnapshotAssertion

import ifspace.cli.progress as progress
from ifspace.answer import Status
from ifspace.block import Block, Composition
from ifspace.groups import entry
from ifspace.groups.problem import GroupPlan, GroupsAnswer, GroupsProblem, WidestProblem, judge
from ifspace.groups.text import plan_forms, remarks, spans
from ifspace.kinds import KINDS

BLOCK = "DW+RPW(8,0)+RPW(8,0)"
COMPOSITION = "DW+RPW+RPW"
PAST_THE_CAP = 9 * 4097 + 4097**2  # what DW+PW costs at 4097 channels


def plan(text: str = BLOCK, channels: int = 64, out: int | None = None, **more: Any) -> GroupPlan:
    block = Block.parse(text)
    return GroupPlan(GroupsProblem(block.composition, channels, out, **more), block)


class Solver:
    """Replaces the solver: it returns the answer it has and keeps the arguments."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        self.answer = GroupsAnswer(Status.OPTIMAL, 1600, (plan(),))

    def __call__(self, *arguments: Any, **named: Any) -> GroupsAnswer:
        self.arguments, self.named = arguments, named
        return self.answer


@pytest.fixture
def solver(monkeypatch: pytest.MonkeyPatch) -> Solver:
    stand_in = Solver()
    monkeypatch.setattr(entry, "cheapest_groups", stand_in)
    monkeypatch.setattr(entry, "widest_block", stand_in)
    return stand_in


# --- The cheapest groups at a width


def test_the_json_keeps_its_contract(run: Callable, snapshot: SnapshotAssertion) -> None:
    ended = run("groups", "gc+sh+gpw", "--channels", 64, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    assert (ended.json["status"], ended.json["bound"], ended.json["gap"]) == ("optimal", 3200, 0)
    assert (ended.json["message"], ended.json["bound_is"]) == snapshot
    assert ended.json["plans"] == [
        {
            "block": "GC(32)+SH(32)+GPW(2)",
            "channels": 64,
            "out_channels": 64,
            "params": 3200,
            "macs_per_pixel": 3200,
            "activations_per_pixel": 128,
            "peak_per_pixel": 128,
            "least_fan_in": 2,
            "objective": 3200,
            "field": [3, 64],
            "quality": True,
            "compact": True,
            "removable": [],
        }
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "DW+RPW+RPW -C 64",
        "DW+RPW+RPW -C 64 --weights 1,2,0",
        "DW+GPW+SH+GPW -C 280 -F 72",
        "DW+PW -C 1",
        "DW+PW -C 1 -F 2",
        "DW(5)+PW -C 8",
        "RPW+GPW -C 64",
        "DW+DW+RPW+GPW -C 64",
        "DW+PW+SH -C 64",
        "DW+RPW+SH+GPW -C 280 -F 72 --top 3",
        "RPW+GPW --budget 1024",
        "DW+RPW+RPW --budget 1600 --multiple 8",
        f"DW+PW --budget {PAST_THE_CAP}",
        f"DW+PW --budget {PAST_THE_CAP - 1}",
    ],
)
def test_the_table_has_the_plans_and_what_is_proven(
    run: Callable, arguments: str, snapshot: SnapshotAssertion
) -> None:
    ended = run("groups", *arguments.split())
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == snapshot


def test_a_row_per_plan_cheapest_first(run: Callable) -> None:
    out = run("groups", COMPOSITION, "-C", 64, "--top", 2).out
    rows = [line.split() for line in out.splitlines()]
    assert ["1", BLOCK, "1,600", "1/23", "1,600", "192", "128", "8"] in rows
    (second,) = (row for row in rows if row[:1] == ["2"])
    assert second[1] in ("DW+RPW(16,0)+RPW(4,0)", "DW+RPW(4,0)+RPW(16,0)")
    assert second[2:] == ["1,856", "1/20", "1,856", "192", "128", "4"]


def test_all_options_reach_the_solver(run: Callable, solver: Solver) -> None:
    options = "--kernel 5 --stride 2 --bottleneck 0.5 --overlaps 0.5,0 --objective macs"
    limits = ("--top", 3, "--time-limit", 2.5)
    run("groups", "GPW+DW+GPW", "-C", 64, "-F", 32, *options.split(), *limits)
    composition = Composition.parse("GPW+DW+GPW")
    overlaps: Any = ("0", "1/2")
    problem = GroupsProblem(
        composition, 64, 32, Fraction(1, 2), None, 5, overlaps, "macs", stride=2
    )
    assert solver.arguments == (problem,)
    assert solver.named == {"top": 3, "time_limit_s": 2.5}
    options = "--widths 16 --weights 1,0,2 --overlaps FREE"
    run("groups", "GPW+DW+GPW", "-C", 64, *options.split())
    problem = GroupsProblem(composition, 64, widths=(16,), weights=(1, 0, 2), overlaps=None)
    assert solver.arguments == (problem,)


def test_a_plan_that_is_not_proven_has_its_gap(
    run: Callable, solver: Solver, snapshot: SnapshotAssertion
) -> None:
    solver.answer = GroupsAnswer(Status.FEASIBLE, 1500, (plan(),))
    ended = run("groups", COMPOSITION, "-C", 64)
    assert ended.status == 0
    assert ended.out == snapshot
    assert ended.err == snapshot
    assert run("groups", COMPOSITION, "-C", 64, "--format", "json").json["gap"] == 100
    assert run("groups", COMPOSITION, "-C", 64, "--quiet").err == ""


def test_fewer_plans_than_asked_for_are_noted(
    run: Callable, solver: Solver, snapshot: SnapshotAssertion
) -> None:
    arguments = ("groups", "DW+PW", "-C", 8, "--top", 3)
    note = run(*arguments).err
    assert note == snapshot
    assert run(*arguments, "--time-limit", 60).err == note
    assert run(*arguments, "--time-limit", 0).err == note.replace(": ", ": time ran out: ", 1)


def test_after_a_time_limit_the_last_plan_may_not_be_the_next_best(
    run: Callable, solver: Solver, snapshot: SnapshotAssertion
) -> None:
    solver.answer = GroupsAnswer(Status.OPTIMAL, 1600, (plan(), plan()))
    arguments = ("groups", COMPOSITION, "-C", 64, "--top", 2, "--time-limit")
    assert run(*arguments, 0).err == snapshot
    assert run(*arguments, 60).err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        "GC+SH+GPW -C 13",
        "DW+GPW -C 16 -F 32",
        "DW+RPW -C 16",
        "DW+RPW -C 16 --overlaps free",
        "DW+PW --budget 5",
        "GC+GPW --budget 3M --multiple 512",
    ],
)
def test_no_full_field_is_status_three(
    run: Callable, arguments: str, snapshot: SnapshotAssertion
) -> None:
    ended = run("groups", *arguments.split())
    assert (ended.status, ended.out, ended.err.count("\n")) == (3, "", 1)
    assert ended.err == snapshot
    ended = run("groups", *arguments.split(), "--format", "json")
    assert (ended.status, ended.json["status"], ended.json["plans"]) == (3, "infeasible", [])
    assert ended.err == f"ifspace: {ended.json['message']}\n"


def test_no_time_is_status_four(run: Callable) -> None:
    for arguments in (("-C", 64), ("--budget", 1600)):
        ended = run("groups", COMPOSITION, *arguments, "--time-limit", 0, "--format", "json")
        assert (ended.status, ended.json["status"]) == (4, "unknown")
        assert ended.err.count("\n") == 1
        assert "time ran out" in ended.err


@pytest.mark.parametrize("form", ["table", "csv", "markdown", "latex"])
def test_without_a_plan_there_is_a_message_and_no_header(run: Callable, form: str) -> None:
    for arguments in (("DW+RPW", "-C", 16), ("DW+PW", "--budget", 5)):
        ended = run("groups", *arguments, "--format", form)
        assert (ended.status, ended.out, ended.err.count("\n")) == (3, "", 1)
    ended = run("groups", COMPOSITION, "-C", 64, "--time-limit", 0, "--format", form)
    assert (ended.status, ended.out, ended.err.count("\n")) == (4, "", 1)


def test_of_a_block_the_composition_counts(run: Callable, snapshot: SnapshotAssertion) -> None:
    ended = run("groups", "DW(5)+RPW(2,0)+RPW(2,0)", "-C", 64)
    assert ended.err == snapshot
    assert "DW(5)+RPW(8,0)+RPW(8,0)" in ended.out
    assert run("groups", "DW(5)+PW", "-C", 8).err == ""
    assert "DW(5)" not in run("groups", "DW(5)+PW", "-C", 8, "--kernel", 3).out
    run("groups", "DW(5)+DW+PW", "-C", 8).fails_with("several kernel sizes", "got 3, 5", "--kernel")


@pytest.mark.parametrize("form", ["csv", "markdown", "latex"])
def test_every_format_has_a_row_per_plan(run: Callable, form: str) -> None:
    text = run("groups", COMPOSITION, "-C", 64, "--top", 3, "--format", form).out
    assert text.count("DW+RPW(") == 3
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["params"] for row in rows] == ["1600", "1856", "1856"]
        assert {row["status"] for row in rows} == {"optimal"}
        assert {(row["field_side"], row["field_channels"]) for row in rows} == {("3", "64")}
        assert {(row["quality"], row["compact"]) for row in rows} == {("True", "True")}
        assert list(rows[0])[-1] == "status"
    if form == "markdown":
        lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
        assert lines[0][-4:-1] == ["quality", "compact", "status"]
        assert lines[2][-6:-1] == ["3", "64", "True", "True", "optimal"]


def test_the_answer_can_go_to_a_file(run: Callable, tmp_path: Path) -> None:
    for name in ("a.json", "a.csv", "a.md", "a.tex"):
        ended = run("groups", COMPOSITION, "-C", 64, "--out", tmp_path / name, "--quiet")
        assert (ended.status, ended.out) == (0, "")
        assert BLOCK in (tmp_path / name).read_text()
    ended = run("groups", COMPOSITION, "-C", 64, "--out", tmp_path / "a.xlsx")
    ended.fails_with("unknown output format")


def without_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "ortools" or name.startswith("ifspace.cpsat"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ortools", None)  # type: ignore[arg-type]


def test_a_missing_solver_is_one_line_that_names_the_extra(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_solver(monkeypatch)
    run("groups", COMPOSITION, "-C", 64).fails_with("OR-Tools is not installed", "ifspace[solver]")


def test_a_kind_added_to_the_table_is_chosen_for(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(KINDS, "TPW", replace(KINDS["GPW"], symbol="TPW"))  # type: ignore[arg-type]
    assert "DW+TPW(" in run("groups", "DW+tpw+SH+TPW", "-C", 16).out


# --- Remarks below the table


def remarks_on(*plans: GroupPlan) -> list[str]:
    return remarks(plans, list(map(judge, plans)))


def test_remarks_name_other_pixels_and_layers_to_spare(snapshot: SnapshotAssertion) -> None:
    assert remarks_on(plan("DW+GPW(35)+SH(35)+GPW(8)", 280, 72)) == []
    assert remarks_on(plan("(DW+RPW(8,0))x2")) == []
    plans = [
        plan("RPW(8,0)+GPW(8)"),
        plan("(DW+RPW(8,0)+DW)x2"),
        plan("DW+PW+SH(2)"),
        plan("DW+PW+RPW(2,0)+SH(2)"),
        plan("PW+DW+SH(2)+PW", 16, widths=(8,)),  # `show` takes no widths inside
    ]
    assert {str(example.block): remarks_on(example) for example in plans} == snapshot


def test_each_remark_is_written_once_with_its_plans(snapshot: SnapshotAssertion) -> None:
    spare, fine = plan("DW+PW+SH(2)"), plan("DW+PW")
    assert remarks_on(spare, spare, spare) == snapshot
    assert remarks_on(spare, fine, spare, spare) == snapshot
    assert spans([2, 3, 7, 9, 10]) == "2–3, 7, 9–10"


# --- The widest block within a budget


def test_the_widest_block_of_a_budget(run: Callable) -> None:
    ended = run("groups", COMPOSITION, "--budget", 1600, "--multiple", 64, "--format", "json")
    assert ended.status == 0
    assert [(row["block"], row["channels"]) for row in ended.json["plans"]] == [(BLOCK, 64)]


def test_the_budget_reaches_the_solver(
    run: Callable, solver: Solver, snapshot: SnapshotAssertion
) -> None:
    options = "--budget 1.6k --alpha 3/2 --multiple 8 --bottleneck 1/4 --kernel 5 --time-limit 9"
    ended = run("groups", "PW+DW+PW", *options.split())
    composition = Composition.parse("PW+DW+PW")
    problem = WidestProblem(
        composition, 1600, Fraction(3, 2), 8, bottleneck=Fraction(1, 4), kernel=5
    )
    assert solver.arguments == (problem,)
    assert solver.named["time_limit_s"] == 9
    assert callable(solver.named["progress"])
    assert ended.out == snapshot


def test_the_message_names_the_widths_that_were_tried(
    run: Callable, snapshot: SnapshotAssertion
) -> None:
    for budget in (1600, "100M"):
        ended = run("groups", "DW+PW", "--budget", budget, "--format", "json")
        assert ended.json["message"] == snapshot


def test_a_progress_bar_counts_the_widths(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(
        progress.ProgressBar, "__call__", lambda self, done, total: calls.append((done, total))
    )
    run("groups", "GC+GPW", "--budget", 5000)
    assert len(calls) > 3
    assert calls == [(n, len(calls)) for n in range(len(calls))]


@pytest.mark.slow
def test_the_json_has_the_budget_and_what_the_bound_bounds(run: Callable) -> None:
    options = ("--budget", "100k", "--alpha", "3/2", "--multiple", 16)
    answer = run("groups", COMPOSITION, *options, "--format", "json").json
    assert (answer["budget"], answer["alpha"], answer["multiple"]) == (100_000, "3/2", 16)
    (row,) = answer["plans"]
    assert answer["widest"] == row["channels"] == row["out_channels"] * 2 // 3
    # The same bound as of the fewest parameters at that width.
    widths = ("-C", answer["widest"], "-F", row["out_channels"])
    at_width = run("groups", COMPOSITION, *widths, "--format", "json").json
    assert answer["bound"] == at_width["bound"] == row["params"]
    assert answer["bound_is"] == at_width["bound_is"]
    assert f"{answer['widest']:,} to {row['out_channels']:,} channels" in answer["bound_is"]
    assert "budget" not in at_width
    nothing = run("groups", "DW+PW", "--budget", 5, "--format", "json").json
    assert (nothing["budget"], nothing["widest"], nothing["bound_is"]) == (5, None, None)


@pytest.mark.parametrize(
    ("status", "bound"), [(Status.OPTIMAL, 400_608), (Status.FEASIBLE, 390_000)]
)
def test_the_bound_of_the_widest_block_fits_a_terminal(
    status: Status, bound: int, snapshot: SnapshotAssertion
) -> None:
    widest_plan = plan(BLOCK, 1248)
    answer = GroupsAnswer(status, bound, (widest_plan,))
    widest = WidestProblem(widest_plan.problem.composition, 10**6, multiple=8)
    forms = plan_forms(widest_plan.problem, answer, widest)
    text = forms["table"]()
    assert text == snapshot
    assert max(map(len, text.splitlines()[-2:])) <= 80
    assert forms["csv"]().endswith(f",{status.name.lower()}\n")


# --- Formulas


@pytest.mark.slow
def test_formulas_need_no_width_and_no_solver(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_solver(monkeypatch)
    options = ("--symbolic", "--bottleneck", "1/4", "--format", "json")
    assert run("groups", "PW+DW+PW", *options).json["params"] == "C*K + F*K + 9*K"
    for form in ("csv", "markdown", "latex"):
        ended = run("groups", "GPW+SH+DW+GPW", "--symbolic", "--format", form)
        assert (ended.status, ended.err) == (0, "")
        assert "g_" in ended.out
    answer = run("groups", "DW+PW", "--symbolic", "--alpha", 1, "--format", "json").json
    assert answer["widest"] == "C = sqrt(4*P + 81)/2 - 9/2"


@pytest.mark.parametrize(
    "arguments",
    [
        "GC+SH+GPW",
        "DW+PW",
        "DW+RPW+RPW+RPW --alpha 1",
        "GPW+SH+DW+GPW --bottleneck 1/4",
        "DW+RPW+RPW --format latex",
        "DW+RPW+RPW --format markdown",
    ],
)
def test_the_text_of_the_formulas(
    run: Callable, arguments: str, snapshot: SnapshotAssertion
) -> None:
    ended = run("groups", *arguments.split(), "--symbolic")
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == snapshot


@pytest.mark.slow
def test_the_ratio_of_the_widths_is_in_every_formula(run: Callable) -> None:
    options = ("--symbolic", "--alpha", 1, "--format", "json")
    values = run("groups", "DW+RPW+RPW+RPW", *options).json
    assert values["groups"] == {f"g_{n}": "C**(2/3)" for n in (1, 2, 3)}
    assert values["family"] == "9*C + C**(1 + 1/n)*n"
    assert [key for key in ("params", "ratio", "bound", "widest") if "F" in values[key]] == []
    options = ("--symbolic", "--bottleneck", "1/4", "--alpha", 2, "--format", "json")
    values = run("groups", "PW+DW+PW", *options).json
    assert values["params"] == "3*C**2/2 + 9*C/2"  # K = C/2: C K + 9 K + K F


def test_symbols_and_condition_in_json(run: Callable) -> None:
    values = run("groups", "GC+SH+GPW", "--symbolic", "--format", "json").json
    assert values["symbols"]["g_3, w_3"] == "groups and fan-in of layer 3, GPW"
    assert values["condition"] == "C <= w_1*w_3"
    values = run("groups", "DW+PW", "--symbolic", "--format", "json").json
    assert values["condition"] == "always"


def test_json_is_for_programs_and_the_text_for_readers(run: Callable) -> None:
    values = run("groups", "GC+SH+GPW", "--symbolic", "--format", "json").json
    names = {name: sympy.Symbol(name) for name in ("C", "F", "g_1", "g_3")}
    at = {"C": 64, "F": 64, "g_1": 32, "g_3": 2}
    assert sympy.sympify(values["params"], names).subs(at) == 3200
    assert sympy.sympify(values["bound"], names).subs(at) == 6 * 64 * 8
    for text in values["groups"].values():
        sympy.sympify(text, names)
    assert values["notes"][-len(values["remarks"]) :] == values["remarks"]
    for form in ("table", "markdown"):
        assert "*" not in run("groups", "GC+SH+GPW", "--symbolic", "--format", form).out


DESIGNS = ["DW+PW", "GC+SH+GPW", "PW+DW+PW --bottleneck 1/4", "GPW+SH+DW+GPW --bottleneck 1/4"]


@pytest.mark.parametrize("text", DESIGNS)
def test_remarks_on_the_print_of_fog_come_last(run: Callable, text: str) -> None:
    lines = run("groups", *text.split(), "--symbolic").out.splitlines()
    title = lines.index("remarks on [Fog]'s print")
    assert lines[title - 2].split()[:3] == ["source", "[Fog]", "section"]
    assert lines[title + 1 :]
    assert all(line.startswith("  ") for line in lines[title + 1 :])
    assert "[Fog]" not in "".join(lines[: title - 2])


@pytest.mark.parametrize(
    "text",
    [
        *DESIGNS,
        "DW+RPW+RPW",
        "GC+GPW",
        "GPW+SH+DW+GPW",
        "(GPW+SH+DW+GPW)x3 --bottleneck 1/8",
        "GPW+SH+DW+GPW --bottleneck 1/7 --alpha 3/5",
        "GC+PW",
        "(DW+RPW+RPW)x12",
        "DW+RPW",
    ],
)
def test_a_note_is_a_short_line(run: Callable, text: str) -> None:
    out = run("groups", *text.split(), "--symbolic").out
    notes = [line[18:] for line in out.splitlines() if line.startswith("note ")]
    notes += [line[2:] for line in out.splitlines() if line.startswith("  ")]
    assert notes
    assert [note for note in notes if len(note) > 78] == []
    assert ("remarks on" in out) == (text in DESIGNS or "GPW+SH+DW+GPW --bott" in text)


@pytest.mark.parametrize(
    "text", ["(DW+RPW+RPW)x10", "(DW+RPW+RPW)x12", "(GPW+SH+DW+GPW)x10", "(DW+RPW)x20"]
)
def test_many_copies_have_formulas(run: Callable, text: str) -> None:
    ended = run("groups", text, "--symbolic")
    assert (ended.status, ended.err) == (0, "")
    assert "least parameters" in ended.out


# --- Wrong input


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
        (
            ["PW+PW", "-C", 16, "--bottleneck", "1/2", "--widths", 8],
            ["interior widths given"],
        ),
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
        (["DW+PW", "--symbolic", "--kernel", 2], ["--kernel is even"]),
        (["DW+PW", "--symbolic", "--kernel", 0], ["--kernel out of range: got 0"]),
        (["DW+PW", "--symbolic", "--bottleneck", "1/2"], ["a bottleneck needs two"]),
        (
            ["PW+PW", "--symbolic", "--bottleneck", 0],
            ["--bottleneck out of range: got 0; allowed: ratios"],
        ),
        (
            ["DW+PW", "--symbolic", "--alpha", 0],
            ["--alpha out of range: got 0; allowed: ratios above 0"],
        ),
        (["(DW+RPW)x200", "--symbolic"], ["composition too long: got 200 x 2 layers"]),
    ],
)
def test_wrong_input_is_one_line(run: Callable, arguments: list[object], words: list[str]) -> None:
    run("groups", *arguments).fails_with(*words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["DW+PW", "--alpha", 2], ["--alpha with no --budget", "; add --budget\n"]),
        (["DW+PW", "-C", 16, "--alpha", 2], ["; add --budget in place of --channels\n"]),
        (
            ["DW+PW", "-C", 16, "--budget", 100],
            ["--channels with --budget", "leave one of them out: --budget looks for the width\n"],
        ),
        (
            ["DW+PW", "--budget", 100, "--objective", "macs"],
            ["--objective with --budget", "one of them out: --budget counts parameters alone\n"],
        ),
        (["DW+PW", "--budget", 100, "-F", 8], ["--budget looks for the width, --alpha says F\n"]),
        (["DW+PW", "--budget", 100, "--top", 2], ["--budget finds the widest block alone\n"]),
    ],
)
def test_options_that_do_not_go_with_a_budget_have_a_reason(
    run: Callable, arguments: list[object], words: list[str]
) -> None:
    run("groups", *arguments).fails_with("options that do not go together", *words)
