from collections.abc import Callable

import pytest

import ifspace.cli.progress as progress
from ifspace.answer import Status
from ifspace.block import Block
from ifspace.groups.problem import GroupPlan, GroupsAnswer, GroupsProblem
from ifspace.groups.text import (
    Budget,
    forms,
)

PAST_THE_CAP = 9 * 4097 + 4097**2  # what DW+PW costs at 4097 channels


def test_the_answer_speaks_of_channels(run: Callable) -> None:
    text = run("groups", "DW+RPW+RPW", "--budget", 1600, "--multiple", 8).out
    lines = text.splitlines()
    assert lines[0] == "Widest DW+RPW+RPW within 1,600 parameters: 64 channels"
    assert lines[-2:] == [
        "status  optimal, proven: no wider multiple of 8 fits",
        "bound   64 channels, the widest; 1,600 parameters, the fewest there",
    ]
    said = run("groups", "DW+RPW+RPW", "--budget", 1600, "--format", "json").json
    assert said["message"] == "proven: no wider block fits"


def test_where_the_widths_end_the_search_all_says_so(run: Callable) -> None:
    ended = run("groups", "DW+PW", "--budget", PAST_THE_CAP)
    assert ended.out.startswith(
        f"Widest DW+PW within {PAST_THE_CAP:,} parameters, of widths up to 4,096: 4,096 channels\n"
    )
    assert "optimal, proven: no wider block fits, of widths up to 4,096\n" in ended.out
    said = run("groups", "DW+PW", "--budget", "100M", "--format", "json").json
    assert said["message"] == "proven: no wider block fits, of widths up to 4,096"
    assert "up to" not in run("groups", "DW+PW", "--budget", PAST_THE_CAP - 1).out
    ended = run("groups", "GC+GPW", "--budget", "3M", "--multiple", 512)
    assert ended.status == 3
    assert "proven: no width up to 4,096 has a legal choice" in ended.err
    assert ended.err.count("\n") == 1


def test_there_is_a_bar_over_the_widths(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(
        progress.ProgressBar, "__call__", lambda self, done, total: told.append((done, total))
    )
    run("groups", "GC+GPW", "--budget", 5000)
    assert len(told) > 3
    assert told == [(n, len(told)) for n in range(len(told))]


def test_the_json_repeats_what_was_asked_and_says_what_the_bound_is(run: Callable) -> None:
    asked = ("--budget", "100k", "--alpha", "3/2", "--multiple", 16)
    said = run("groups", "DW+RPW+RPW", *asked, "--format", "json").json
    assert (said["budget"], said["alpha"], said["multiple"]) == (100_000, "3/2", 16)
    (found,) = said["plans"]
    assert said["widest"] == found["channels"] == found["out_channels"] * 2 // 3
    # The same bound as of the fewest parameters at that width.
    widths = ("-C", said["widest"], "-F", found["out_channels"])
    alone = run("groups", "DW+RPW+RPW", *widths, "--format", "json").json
    assert said["bound"] == alone["bound"] == found["params"]
    assert said["bound_is"] == alone["bound_is"]
    assert said["bound_is"].startswith("a lower bound on the parameters of every plan at 1,")
    assert "budget" not in alone
    nothing = run("groups", "DW+PW", "--budget", 5, "--format", "json").json
    assert (nothing["budget"], nothing["widest"], nothing["bound_is"]) == (5, None, None)


def made(bound: int, status: Status, form: str) -> str:
    """What is printed of a plan at 1,248 channels that a budget of a million found."""
    block = Block.parse("DW+RPW(8,0)+RPW(8,0)")
    problem = GroupsProblem(block.composition, 1248)
    answer = GroupsAnswer(status, bound, (GroupPlan(problem, block),))
    return forms(problem, answer, Budget(10**6, 8))[form]()


def test_the_bound_fits_a_terminal() -> None:
    lines = made(400_608, Status.OPTIMAL, "table").splitlines()
    assert lines[0].endswith("1,248 channels")
    bound = "bound   1,248 channels, the widest; 400,608 parameters, the fewest there"
    assert bound in lines
    lines = made(390_000, Status.FEASIBLE, "table").splitlines()
    place = lines.index("bound   1,248 channels, the widest")
    assert lines[place + 1].strip().startswith("the best found has 400,608, the bound is 390,000:")
    assert max(len(line) for line in [bound, *lines[place : place + 2]]) <= 80
    assert made(390_000, Status.FEASIBLE, "csv").endswith(",feasible\n")


@pytest.mark.parametrize("form", ["table", "csv", "markdown", "latex"])
def test_without_a_plan_there_is_a_message_and_no_header(run: Callable, form: str) -> None:
    for arguments in (("DW+RPW", "-C", 16), ("DW+PW", "--budget", 5)):
        ended = run("groups", *arguments, "--format", form)
        assert (ended.status, ended.out, ended.err.count("\n")) == (3, "", 1)
    ended = run("groups", "DW+RPW+RPW", "-C", 64, "--time-limit", 0, "--format", form)
    assert (ended.status, ended.out, ended.err.count("\n")) == (4, "", 1)


def test_the_widest_block_of_a_budget(run: Callable) -> None:
    ended = run("groups", "DW+RPW+RPW", "--budget", 1600, "--multiple", 64, "--format", "json")
    assert ended.status == 0
    assert [(row["block"], row["channels"]) for row in ended.json["plans"]] == [
        ("DW+RPW(8,0)+RPW(8,0)", 64)
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["DW+PW", "--multiple", 8], ["--multiple with no --budget", "; add --budget\n"]),
        (["DW+PW", "-C", 16, "--multiple", 8], ["; add --budget in place of --channels\n"]),
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
def test_what_does_not_go_with_a_budget_says_why(
    run: Callable, arguments: list[object], words: list[str]
) -> None:
    run("groups", *arguments).refused("options that do not go together", *words)
