"""`ifspace enumerate --latency`: a column, an order, a bound and an amount of the trade-offs."""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPACE = ("enumerate", "-C", 16, "--max-len", 2, "--quiet")
# What survives at 16 channels with two layers; GC+PW is slow, and one block is not measured.
TIMES = {"DW+PW": 0.5, "PW+DW": 0.75, "RPW(2,0)+GC(8)": 0.25, "GC(8)+PW": 3}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "table.csv"
    head = "block,C,F,side,stride,batch,device,dtype,latency_ms"
    rows = [f'"{block}",16,16,8,1,1,cpu,fp32,{ms}' for block, ms in TIMES.items()]
    path.write_text("\n".join([head, *rows]), "utf-8")
    return path


def ranked(text: str) -> list[str]:
    """Return the blocks of a table of ranks."""
    rows = [line.split() for line in text.splitlines() if line[:1].isdigit()]
    return [row[1] for row in rows if "+" in row[1]]


def blocks(ended: Any) -> dict[str, float | None]:
    return {design["block"]: design["latency_ms"] for design in ended.json["designs"]}


@pytest.mark.slow
def test_latency_is_a_column_and_a_bound(run: Callable, table: Path) -> None:
    plain = [x["block"] for x in run(*SPACE, "--format", "json").json["designs"]]
    assert TIMES.keys() < set(plain)
    timed = run(*SPACE, "--latency", table, "--format", "json")
    assert blocks(timed) == {block: TIMES.get(block) for block in plain}
    bounded = (*SPACE, "--latency", table, "--latency-budget-ms", "0.75")
    within = {block: ms for block, ms in TIMES.items() if ms <= 0.75}
    assert blocks(run(*bounded, "--format", "json")) == within
    rows = csv.DictReader(io.StringIO(run(*bounded, "--format", "csv").out))
    assert {row["block"]: row["form"] for row in rows} == dict.fromkeys(within, "as is")
    assert "latency ms | form " in run(*bounded, "--format", "markdown").out
    assert run(*SPACE[:-1], "--latency", table).err.splitlines()[-2:] == [
        "ifspace: latencies of cpu, batch 1, fp32",
        f"ifspace: {len(plain) - len(TIMES)} of {len(plain)} blocks has no latency",
    ]


def test_the_fastest_come_first_and_are_trade_offs(run: Callable, table: Path) -> None:
    ended = run(*SPACE, "--latency", table, "--by", "latency", "--limit", 3)
    assert "The 3 with the least latency of 5 networks" in ended.out
    first, trades = ended.out.split("of 5 networks")[1].split("Trade-offs that no other")
    assert ranked(first) == ["RPW(2,0)+GC(8)", "DW+PW", "PW+DW"]
    # What beats a row is said with latency as an amount, and so is one that has none.
    assert "dominated by" not in trades
    rows = run(*SPACE, "--latency", table, "--by", "latency").out.splitlines()
    (slowest,) = [row for row in rows if row.startswith("5 ")]
    assert "compared as the slowest: its latency is not known" in slowest
    third = next(row for row in rows if row.startswith("3 "))
    assert third.split()[1] == "PW+DW"
    assert "dominated by DW+PW" in third
    # Without latency DW+PW beats RPW+GC, which is faster.
    assert ranked(trades) == ["DW+PW", "RPW(2,0)+GC(8)"]
    assert ranked(run(*SPACE).out.split("Trade-offs that no other")[1]) == ["PW+DW"]


@pytest.mark.slow
def test_a_front_has_latency_as_an_axis(run: Callable, table: Path) -> None:
    """A row that others beat in all amounts but latency is on the front of both."""
    front = (*SPACE, "--front")
    plain = run(*front, "--format", "json").json["designs"]
    beaten = {x["block"] for x in plain if x["dominated_by"]}
    head, *rows = table.read_text("utf-8").splitlines()
    victim = sorted(beaten - TIMES.keys())[0]
    rows = [f'"{victim}",16,16,8,1,1,cpu,fp32,0.125', *rows]
    table.write_text("\n".join([head, *rows]), "utf-8")
    assert victim not in run(*front).out
    text = run(*front, "--latency", table).out
    assert "Trade-offs that no other choice beats, latency included" in text
    assert victim in text
    # The victim is the fastest: in the order of latency the row below it says what is slower.
    by_latency = run(*front, "--latency", table, "--by", "latency").out
    assert ranked(by_latency) == [victim, "RPW(2,0)+GC(8)", "DW+PW"]
    assert "+0.125 ms" in next(x for x in by_latency.splitlines() if "RPW(2,0)+GC(8)" in x)


def test_a_bound_that_no_block_keeps_is_said(run: Callable, table: Path) -> None:
    command = (*SPACE[:-1], "--latency", table, "--latency-budget-ms")
    ended = run(*command, "0.1")
    assert "no block is within --latency-budget-ms; the fastest takes 0.25 ms" in ended.err
    assert "no block is within" not in run(*command, "0.25").err
    assert "no block is within" in run(*SPACE[:-1], "--most-peak", 31).err


def test_latencies_of_another_shape_are_said(run: Callable, table: Path) -> None:
    command = (*SPACE[:-1], "--latency", table)
    note = "ifspace: none of these is in --latency, which has other blocks, widths, sides or strid"
    assert note not in run(*command).err
    ended = run(*command, "--side", 16)
    assert note in ended.err
    assert ended.err.endswith("are measured by `ifspace bench --predict 16x16x16x1`\n")
    assert note in run(*command, "--stride", 2).err


def test_an_order_or_a_bound_needs_latencies(run: Callable, table: Path) -> None:
    run(*SPACE, "--by", "latency").fails_with("got --by latency", "add --latency MODEL")
    run(*SPACE, "--latency-budget-ms", 1).fails_with("got --latency-budget-ms")
    run(*SPACE, "--latency", table, "--batch", 4).fails_with("--batch is not that of the latencies")
