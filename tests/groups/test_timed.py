"""The fastest group counts, and the cheapest within a latency: beside brute force."""

import json
from collections.abc import Callable
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest

from ifspace.block import Block, Composition, SizedBlock
from ifspace.errors import SettingError
from ifspace.floors import Floors
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.timed import timed_groups
from ifspace.latency import Latency
from ifspace.reach import channel_field

DIVISORS = (2, 4, 8)
HEAD = "block,C,F,side,stride,batch,device,dtype,latency_ms"


def latency(sized: SizedBlock, stride: int) -> Latency | None:
    """Return a time that no sum over layers is, and that one group count has not."""
    first, *_, last = (layer.groups for layer in sized.layers)
    if last == 8 and first == 2:
        return None
    return Latency.of(Fraction((first * 7 + last * 5) % 11 + stride, 8), "fused")


def full_choices() -> list[tuple[Block, Latency | None]]:
    """Return every block GC+SH+GPW of full field at 16 channels, with its latency."""
    blocks = [Block.parse(f"GC({a})+SH({b})+GPW({c})") for a, b, c in product(DIVISORS, repeat=3)]
    full = [block for block in blocks if channel_field(block.at(16).layers) == 16]
    return [(block, latency(block.at(16), 2)) for block in full]


@pytest.mark.parametrize("by_latency", [True, False])
@pytest.mark.parametrize("most_ms", [None, Fraction(1), Fraction(1, 100)])
def test_all_choices_are_timed(by_latency: bool, most_ms: Fraction | None) -> None:
    problem = GroupsProblem(Composition.parse("GC+SH+GPW"), 16, stride=2)
    answer, times = timed_groups(problem, latency, 3, by_latency, most_ms)
    timed = [(block.at(16), time) for block, time in full_choices() if time is not None]
    fits = [(sized, time) for sized, time in timed if most_ms is None or time.ms <= most_ms]
    keys = [
        (time.ms, sized.params) if by_latency else (sized.params, time.ms) for sized, time in fits
    ]
    plans = [plan.sized for plan in answer.plans]
    got = [
        (time.ms, sized.params) if by_latency else (sized.params, time.ms)
        for sized, time in zip(plans, times.latencies, strict=True)
        if time is not None
    ]
    assert got == sorted(keys)[:3]
    assert all(
        time == latency(sized, 2) for sized, time in zip(plans, times.latencies, strict=True)
    )
    assert times.message.startswith(
        f"proven: 27 choices tried, {len(full_choices())} have the full field, the latency of "
        f"{len(timed)} is known"
    )
    assert answer.bound == (None if by_latency or not plans else plans[0].params)


def test_steps_that_the_solver_leaves_out_are_tried_too() -> None:
    """A wider overlap has the same parameters, and can be faster."""
    problem = GroupsProblem(Composition.parse("DW+RPW+RPW"), 16)

    def overlapping_is_fast(sized: SizedBlock, stride: int) -> Latency:
        return Latency.of(4 - sum(bool(layer.layer.overlap) for layer in sized.layers))

    answer, _ = timed_groups(problem, overlapping_is_fast)
    assert [bool(layer.overlap) for layer in answer.plans[0].block.layers] == [False, True, True]


@pytest.mark.slow
def test_too_many_choices_are_refused_and_floors_bound_them() -> None:
    problem = GroupsProblem(Composition.parse("DW+RPW+SH+RPW+SH+RPW"), 64)
    with pytest.raises(SettingError, match=r"too many choices to time each of them: got \d+,"):
        timed_groups(problem, latency)
    floors = Floors(least_fan_in=8, most_groups=8)
    bounded = GroupsProblem(problem.composition, 64, overlaps=(Fraction(0),), floors=floors)
    answer, times = timed_groups(bounded, lambda sized, _: Latency.of(sized.params))
    assert answer.plans
    assert times.message.startswith("proven: ")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Latencies of three blocks of GC+SH+GPW at 16 channels."""
    path = tmp_path / "table.csv"
    rows = [("GC(8)+SH(8)+GPW(2)", 2), ("GC(4)+SH(4)+GPW(4)", 0.5), ("GC(2)+SH(2)+GPW(8)", 1)]
    lines = [f'"{block}",16,16,8,1,1,cpu,fp32,{ms}' for block, ms in rows]
    path.write_text("\n".join([HEAD, *lines]), "utf-8")
    return path


@pytest.mark.slow
def test_the_command_minimises_bounds_and_shows_latency(run: Callable, table: Path) -> None:
    def plans(*options: object) -> list[tuple[str, float | None]]:
        ended = run("groups", "GC+SH+GPW", "-C", 16, *options, "--format", "json")
        return [(plan["block"], plan.get("latency_ms")) for plan in ended.json["plans"]]

    cheapest = "GC(8)+SH(8)+GPW(2)"
    assert plans() == [(cheapest, None)]
    assert plans("--latency", table) == [(cheapest, 2)]
    fastest = ("--latency", table, "--objective", "latency", "--top", 2)
    assert plans(*fastest) == [("GC(4)+SH(4)+GPW(4)", 0.5), ("GC(2)+SH(2)+GPW(8)", 1)]
    bounded = ("--latency", table, "--latency-budget-ms", "1")
    assert plans(*bounded) == [("GC(4)+SH(4)+GPW(4)", 0.5)]
    ended = run("groups", "GC+SH+GPW", "-C", 16, *bounded)
    assert "the latency of 3 is known, none is better" in ended.out
    assert ended.err == "ifspace: latencies of cpu, batch 1, fp32\n"
    assert run("groups", "GC+SH+GPW", "-C", 16, *fastest).out.startswith("Least latency of GC+SH")
    ended = run("groups", "GC+SH+GPW", "-C", 16, "--latency", table, "--latency-budget-ms", "0.1")
    assert (ended.status, ended.out) == (3, "")
    assert "none keeps the latency budget" in ended.err


def test_latency_needs_a_model_and_no_budget_of_parameters(run: Callable, table: Path) -> None:
    run("groups", "GC+GPW", "-C", 16, "--objective", "latency").fails_with("add --latency MODEL")
    run("groups", "GC+GPW", "-C", 16, "--latency-budget-ms", 1).fails_with("nothing says how long")
    ended = run(
        "groups", "GC+SH+GPW", "--budget", 400, "--latency", table, "--latency-budget-ms", 1
    )
    ended.fails_with("--latency-budget-ms with --budget", "--budget counts parameters alone")
    ended = run("groups", "GC+SH+GPW", "--budget", 640, "--latency", table, "--format", "json")
    assert "latency_ms" in json.loads(ended.out)["plans"][0]
