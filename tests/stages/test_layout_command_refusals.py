"""What `ifspace layout` refuses, one fault at a time: one line, exit status 2."""

from collections.abc import Callable
from pathlib import Path

import pytest

SMALL = ("layout", "--stages", "8,4", "--depths", "2,2", "--widths", "8,16", "--quiet")
HEAD = "block,C,F,side,stride,batch,device,dtype,latency_ms"
ROW = "CONV,3,8,8,1,1,cpu,float32,1.5"
BUDGET = ("--params", "10k")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--params", 0], ["--params out of range: got 0", "more than 0"]),
        (["--macs", "x"], ["'--macs'", "got 'x'"]),
        (["--layers", "1.5"], ["'--layers'", "got '1.5'"]),
        ([*BUDGET, "--latency-budget-ms", 3], ["half a latency budget", "a budget without a"]),
        ([*BUDGET, "--latency-budget-ms", "-3"], ["'--latency-budget-ms'", "got '-3'"]),
        ([*BUDGET, "--blocks", "XY"], ["--blocks: unknown kind of convolution: got 'XY'"]),
        ([*BUDGET, "--blocks", ""], ["'--blocks'", "got ''", "blocks between commas"]),
        ([*BUDGET, "--blocks", "CONV;"], ["'--blocks'", "got ''"]),
        ([*BUDGET, "--blocks", "CONV,;CONV"], ["'--blocks'", "got 'CONV,'"]),
        ([*BUDGET, "--blocks", "CONV;PW;PW"], ["wrong number of --blocks: got 3 lists", "or 2"]),
        ([*BUDGET, "--blocks", "DW+GPW+GPW(2)"], ["a block without its groups: got GPW in DW"]),
        ([*BUDGET, "--blocks", "DW(4)+PW"], ["kernel size is even: got 4"]),
        ([*BUDGET, "--blocks", "GC(3)"], ["stage 1 has no block left: got GC(3) from 8 to 8"]),
        ([*BUDGET, "--width-choices", "8;16;16"], ["wrong number of width choices: got 3 lists"]),
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
        ([*BUDGET, "--network", "vgg16"], ["--stages, --widths with --network"]),
        ([*BUDGET, "--out", "a.xlsx"], ["unknown output format: got a.xlsx"]),
    ],
)
def test_wrong_input_is_one_line(run: Callable, more: list[object], words: list[str]) -> None:
    run(*SMALL, *more).refused(*words)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ([], ["no stages: got no --stages and no --depths"]),
        (["--network", "lenet"], ["unknown --network: got 'lenet'"]),
        (["--network", "vgg16", "--input", 64], ["image side: got 64; allowed: 32, 224"]),
        (["--network", "vgg16", "--depths", "1,2"], ["wrong number of --depths: got 1, 2"]),
        (["--network", "mobilenet", "--max-depth", 1], ["--max-depth", "whole numbers from 2"]),
        (["--network", "mobilenet", "--depths", "1,1,1,1,1"], ["a stage without a block"]),
    ],
)
def test_stages_that_are_none_are_refused(
    run: Callable, asked: list[object], words: list[str]
) -> None:
    run("layout", *asked, *BUDGET, "--quiet").refused(*words)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ["an empty file"]),
        ([HEAD], ["no rows"]),
        ([HEAD.replace("stride,", ""), ROW], ["no column stride"]),
        ([HEAD, ROW.replace("1.5", "fast")], ["line 2: latency_ms 'fast'", "numbers above 0"]),
        ([HEAD, ROW.replace("CONV,3", "CONV,three")], ["line 2: C 'three'"]),
        ([HEAD, ROW.replace("CONV", "XY")], ["line 2: block 'XY'"]),
        ([HEAD, ROW, ROW], ["line 3 measures a case again"]),
        ([HEAD, ROW, ROW.replace("cpu", "cuda")], ["device cpu, cuda", "one batch, device"]),
    ],
)
def test_malformed_tables_are_refused(
    run: Callable, tmp_path: Path, lines: list[str], words: list[str]
) -> None:
    path = tmp_path / "times.csv"
    path.write_text("\n".join(lines), "utf-8")
    asked = ("--latency", path, "--latency-budget-ms", 6)
    run(*SMALL, *asked).refused("malformed --latency table times.csv", *words)


def test_what_is_no_file_is_refused(run: Callable, tmp_path: Path) -> None:
    for path, word in (
        (tmp_path / "none.csv", "no --latency table there"),
        (tmp_path, "Is a directory"),
    ):
        run(*SMALL, "--latency", path, "--latency-budget-ms", 6).refused(word)


def test_a_table_without_a_budget_is_refused(run: Callable, tmp_path: Path) -> None:
    path = tmp_path / "times.csv"
    path.write_text(f"{HEAD}\n{ROW}\n", "utf-8")
    run(*SMALL, *BUDGET, "--latency", path).refused("half a latency budget: got a table without")
    run(*SMALL, "--latency", path).refused("half a latency budget")
    # The table lacks the block that would follow the first.
    asked = ("--latency", path, "--latency-budget-ms", 6)
    run(*SMALL, *asked).refused("stage 1 has no block left: got no latency for CONV from 8 to 8")
