"""`ifspace energy`: its answers in every format, its notes and its exit status."""

import csv
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion

from ifspace.answer import Status
from ifspace.energy import solve
from ifspace.energy.cpsat import cpsat_energy
from ifspace.energy.problem import EnergyAnswer, EnergyPlan, EnergyProblem
from ifspace.energy.solve import exact_energy

BEST = (135, 136, 137, 211)
PAPER = ("energy", "--layers", 4, "--budget", 66304)


class Solver:
    """Replaces the search: it returns the answer it has and keeps the arguments."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()
        self.named: dict[str, Any] = {}
        plan = EnergyPlan(EnergyProblem(66304, layers=4), BEST)
        self.answer = EnergyAnswer(Status.FEASIBLE, 640.0, (plan,))

    def __call__(self, *arguments: Any, **named: Any) -> EnergyAnswer:
        self.arguments, self.named = arguments, named
        return self.answer


@pytest.fixture
def solver(monkeypatch: pytest.MonkeyPatch) -> Solver:
    stand_in = Solver()
    monkeypatch.setattr(solve, "best_energy", stand_in)
    return stand_in


def test_the_json_keeps_its_contract(run: Callable, snapshot: SnapshotAssertion) -> None:
    ended = run(*PAPER, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    assert (ended.json["status"], ended.json["gap"]) == ("optimal", 0)
    assert ended.json["bound"] == pytest.approx(634.5233493146844)
    assert ended.json["message"] == snapshot
    assert ended.json["plans"] == [
        {
            "widths": list(BEST),
            "energy": ended.json["bound"],
            "params": 596736,
            "weights": 66304,
            "depth": 4,
            "width_sum": 619,
        }
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        "--layers 4 --budget 66304 --top 2",
        "--repeats 1,10,10,10 --budget 51248 --nondecreasing --top 2",
    ],
)
def test_the_table_has_an_energy_with_its_budget_and_depth(
    run: Callable, arguments: str, snapshot: SnapshotAssertion
) -> None:
    ended = run("energy", *arguments.split())
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == snapshot


@pytest.mark.slow
@pytest.mark.parametrize("method", ["auto", "exact", "cpsat"])
def test_every_method_has_the_same_answer(run: Callable, method: str) -> None:
    arguments = ("energy", "--repeats", "1,10,10,10", "--budget", "51248", "--format", "json")
    answer = run(*arguments, "--method", method).json
    assert answer["plans"][0]["widths"] == [19, 34, 41, 49]
    assert answer["plans"][0]["depth"] == 31
    assert answer["repeats"] == [1, 10, 10, 10]


def test_all_options_reach_the_solver(
    run: Callable, solver: Solver, snapshot: SnapshotAssertion
) -> None:
    options = "--layers 2 --repeats 1,2 --budget 1.6k --inputs 1 --kernel 5 --at-most"
    options += " --nondecreasing --per convolution --method cpsat --top 3 --time-limit 2.5"
    ended = run("energy", *options.split())
    assert ended.status == 0
    problem = EnergyProblem(1600, 2, (1, 2), 1, 5, True, True, "convolution")
    assert solver.arguments == (problem,)
    assert solver.named == {"top": 3, "time_limit_s": 2.5, "search": cpsat_energy}
    assert ended.out == snapshot
    for method in ("auto", "exact"):
        run(*PAPER, "--method", method)
        assert solver.named["search"] is exact_energy


@pytest.mark.parametrize("repeats", ["1,10,10,10", ",".join(["2"] * 20), "2", "200"])
def test_titles_fit_into_eighty_columns(
    run: Callable, solver: Solver, repeats: str, snapshot: SnapshotAssertion
) -> None:
    out = run("energy", "--repeats", repeats, "--budget", "10M", "--at-most").out
    lines = out.splitlines()
    (budget,) = (line for line in lines if line.startswith("budget "))
    assert [lines[0], budget] == snapshot
    assert max(len(lines[0]), len(budget)) <= 80


def test_a_plan_that_is_not_proven_has_its_gap(
    run: Callable, solver: Solver, snapshot: SnapshotAssertion
) -> None:
    ended = run(*PAPER)
    assert ended.status == 0
    assert ended.out == snapshot
    assert ended.err == snapshot
    assert run(*PAPER, "--format", "json").json["gap"] == pytest.approx(5.4766507)
    assert run(*PAPER, "--quiet").err == ""


def test_fewer_plans_than_asked_for_are_noted(
    run: Callable, solver: Solver, snapshot: SnapshotAssertion
) -> None:
    solver.answer = EnergyAnswer(Status.OPTIMAL, 634.5, solver.answer.plans)
    assert run(*PAPER, "--top", 2).err == snapshot
    assert run(*PAPER, "--top", 2, "--time-limit", 0).err == snapshot


@pytest.mark.parametrize(
    ("arguments", "below", "above"),
    [
        ("--layers 1 --budget 1000", 999, 1002),
        ("--layers 64 --budget 66304", None, 87363),
        ("--layers 4 --budget 9 --at-most", None, 23),
    ],
)
def test_a_budget_that_no_layout_meets_is_status_three(
    run: Callable, arguments: str, below: int | None, above: int, snapshot: SnapshotAssertion
) -> None:
    ended = run("energy", *arguments.split())
    assert (ended.status, ended.out, ended.err.count("\n")) == (3, "", 1)
    assert ended.err == snapshot
    ended = run("energy", *arguments.split(), "--format", "json")
    assert (ended.status, ended.json["status"], ended.json["plans"]) == (3, "infeasible", [])
    assert (ended.json["below"], ended.json["above"]) == (below, above)
    assert ended.err == f"ifspace: {ended.json['message']}\n"


def test_no_time_is_status_four(run: Callable) -> None:
    for method in ("exact", "cpsat"):
        ended = run(*PAPER, "--time-limit", 0, "--format", "json", "--method", method)
        assert (ended.status, ended.json["status"]) == (4, "unknown")
        assert ended.json["bound"] > 634.5
        assert ended.err.count("\n") == 1
        assert "time ran out" in ended.err


@pytest.mark.parametrize("form", ["csv", "markdown"])
def test_every_format_has_a_row_per_plan(run: Callable, form: str) -> None:
    text = run(*PAPER, "--top", 3, "--format", form).out
    assert text.count("596736") == 3
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(text)))
        assert rows[0]["widths"] == "135,136,137,211"
        assert [row["width_sum"] for row in rows] == ["619", "620", "646"]


def test_the_answer_can_go_to_a_file(run: Callable, tmp_path: Path) -> None:
    for name in ("a.json", "a.csv", "a.md"):
        ended = run(*PAPER, "--out", tmp_path / name, "--quiet")
        assert (ended.status, ended.out) == (0, "")
        assert "211" in (tmp_path / name).read_text()
    run(*PAPER, "--out", tmp_path / "a.xlsx").fails_with("unknown output format")
    # No file is written without an answer.
    run("energy", "--layers", 1, "--budget", 1000, "--out", tmp_path / "none.json")
    assert not (tmp_path / "none.json").exists()


def test_without_the_solver_only_its_own_method_is_missing(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "ortools" or name.startswith("ifspace.cpsat"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ortools", None)  # type: ignore[arg-type]
    ended = run(*PAPER, "--method", "cpsat")
    ended.fails_with("OR-Tools is not installed", "ifspace[solver]", "leave --method out")
    for method in ("auto", "exact"):
        answer = run(*PAPER, "--method", method, "--format", "json").json
        assert answer["plans"][0]["widths"] == list(BEST)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layers", 4], ["Missing option '--budget'", "`ifspace energy --help`"]),
        (["--budget", 100], ["no --layers", "give --layers"]),
        (["--layers", 4, "--budget", 0], ["--budget out of range: got 0"]),
        (["--layers", 4, "--budget", "1G"], ["--budget out of range", "10000000"]),
        (["--layers", 4, "--budget", "-5"], ["'--budget'", "got '-5'"]),
        (["--layers", 0, "--budget", 100], ["--layers out of range: got 0"]),
        (["--layers", "x", "--budget", 100], ["'--layers'", "got 'x'"]),
        (
            ["--layers", 3, "--repeats", "1,10", "--budget", 100],
            ["--layers and units contradict each other: got 3 and 1,10, which are 2 units"],
        ),
        (["--repeats", "1,0", "--budget", 100], ["--repeats out of range: got 0"]),
        (["--repeats", "1,x", "--budget", 100], ["'--repeats'", "got '1,x'"]),
        (["--repeats", "200,200", "--budget", 100], ["--repeats", "got 400"]),
        (["--layers", 4, "--budget", 100, "--inputs", 0], ["--inputs out of range"]),
        (["--layers", 4, "--budget", 100, "--kernel", 4], ["--kernel is even"]),
        (["--layers", 4, "--budget", 100, "--per", "layer"], ["'--per'", "got 'layer'"]),
        (["--layers", 4, "--budget", 100, "--method", "best"], ["'--method'", "got 'best'"]),
        (["--layers", 4, "--budget", 100, "--top", 0], ["'--top'"]),
        (["--layers", 4, "--budget", 100, "--time-limit", "nan"], ["got 'nan'"]),
    ],
)
def test_wrong_input_is_one_line(run: Callable, arguments: list[object], words: list[str]) -> None:
    run("energy", *arguments).fails_with(*words)
