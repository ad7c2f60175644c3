"""The least latency and the least peak memory of layouts, down to a least gain."""

import re
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import product
from pathlib import Path
from random import Random

import pytest

from ifspace.answer import Status
from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.latency import LatencyTable
from ifspace.stages.allocate import best_stages
from ifspace.stages.layout import Layout
from ifspace.stages.networks import make_layout
from ifspace.stages.peak import peak_elements
from ifspace.stages.problem import Blocks, Budgets, StagesProblem

BLOCKS = tuple(map(Block.parse, ("CONV", "DW+PW", "PW+DW+PW")))
WIDTHS = (8, 12, 16)
SIDES = (16, 8)
PARAMS = 9000


def candidates() -> Iterator[Layout]:
    for first, second in product(product(BLOCKS, WIDTHS, range(1, 4)), repeat=2):
        blocks, channels, depths = zip(first, second, strict=True)
        layout = make_layout(blocks, SIDES, channels, depths)
        if layout.params <= PARAMS:
            yield layout


def table() -> LatencyTable:
    """Latencies of all blocks but one, whatever their sizes."""
    random = Random(7)
    cases = {
        (str(block), entry, width, side, 1): Fraction(random.randrange(1, 4000), 1000)
        for block, entry, width, side in product(BLOCKS, (3, *WIDTHS), WIDTHS, SIDES)
    }
    return LatencyTable({case: ms for case, ms in cases.items() if case[:3] != ("DW+PW", 8, 8)})


def milliseconds(layout: Layout, latencies: LatencyTable) -> Fraction | None:
    times = [
        latencies.find(block, stage.side_out, stride)
        for stage in layout.stages
        for block, stride in stage.strided_blocks
    ]
    return None if None in times else sum((t.ms for t in times if t is not None), Fraction(0))


def problem(objective: str, least_gain: float) -> StagesProblem:
    return StagesProblem(
        make_layout([BLOCKS[0]] * 2, SIDES, (8, 16), (1, 1)),
        Budgets(params=PARAMS, dtype="fp32"),
        (WIDTHS,) * 2,
        (Blocks(*BLOCKS),) * 2,
        max_depth=3,
        latency=table(),
        objective=objective,
        least_gain=least_gain,
    )


@pytest.mark.slow
@pytest.mark.parametrize("least_gain", [0.0, 0.8, 1.4])
def test_the_least_costs_are_those_of_all_layouts(least_gain: float) -> None:
    latencies, layouts = table(), list(candidates())
    good = [layout for layout in layouts if layout.gain() >= least_gain]
    assert 0 < len(good) <= len(layouts)
    times = [ms for layout in good if (ms := milliseconds(layout, latencies)) is not None]
    answer = best_stages(problem("latency", least_gain))
    (plan,) = answer.plans
    assert answer.status is Status.OPTIMAL
    assert milliseconds(plan.layout, latencies) == min(times)
    assert answer.bound == plan.objective() == pytest.approx(-float(min(times)))
    assert plan.layout.gain() >= least_gain - 1e-6
    peaks = [4 * peak_elements(layout) for layout in good]
    (plan,) = best_stages(problem("peak-memory", least_gain)).plans
    assert plan.objective() == -min(peaks)
    # Of those with the least peak, and a latency for every block or not, the one of most gain.
    gains = [x.gain() for x in good if 4 * peak_elements(x) == min(peaks)]
    assert plan.layout.gain() == pytest.approx(max(gains), abs=1e-6)


def test_a_gain_that_budgets_do_not_allow_is_said_with_the_greatest() -> None:
    answer = best_stages(problem("latency", 50))
    assert answer.status is Status.INFEASIBLE
    assert answer.reason is not None
    assert answer.reason.startswith("proven: no layout within the budgets has a gain of 50.0000")


def test_what_is_asked_for_must_be_said() -> None:
    start = make_layout([BLOCKS[0]] * 2, SIDES, (8, 16), (1, 1))
    with pytest.raises(SettingError, match="add --dtype"):
        StagesProblem(start, Budgets(params=PARAMS), objective="peak-memory")
    with pytest.raises(SettingError, match="the objective latency without latencies"):
        StagesProblem(start, Budgets(params=PARAMS), objective="latency")


@pytest.mark.slow
def test_the_command_keeps_the_gain_of_a_network(run: Callable, tmp_path: Path) -> None:
    command = ("layout", "--network", "vgg11", "--input", 32, "--widths", "start")
    peak = ("--objective", "peak-memory", "--dtype", "int8")
    ended = run(*command, *peak, "--format", "json").json
    start = run(*command, "--format", "json").json["organizer"]
    (plan,) = ended["plans"]
    assert ended["bound"] == plan["peak_memory"]
    assert ended["least_gain"] <= plan["gain"] + 1e-6
    assert start["gain"] >= ended["least_gain"] - 1e-6
    budgets = run(*command, *peak, "--budgets", "all:params=20M some:params=2M").out
    assert "Least peak memory for each of the budgets" in budgets
    assert " peak bytes " in budgets
    text = run(*command, *peak).out
    assert text.startswith("Least peak memory, widths fixed, with a gain of at least")
    run("layout", "--stages", "16,8", *peak).fails_with("without a least gain", "--least-gain G")
    ended = run("layout", "--stages", "16,8", *peak, "--least-gain", "1", "--format", "json")
    assert ended.json["plans"][0]["gain"] >= 1 - 1e-6


def test_a_minimum_says_which_gain_it_keeps_and_which_widths_are_the_narrowest(
    run: Callable,
) -> None:
    peak = ("--objective", "peak-memory", "--dtype", "int8")
    command = ("layout", "--stages", "8,4", "--blocks", "DW+PW", *peak)
    out = run(*command, "--widths", "16,32", "--depths", "1,2").out
    assert "raises the objective" not in out
    assert "the least is asked for, at a gain of " in out
    out = run(*command, "--width-choices", "16,24;32,40", "--least-gain", 0).out
    # The peak is that of stage 1: where it is the least, stage 2 may be wide.
    assert "stage 1 is as narrow as offered: --width-choices offers others" in out


def test_a_bound_above_a_thousand_has_the_digits_of_the_table(run: Callable) -> None:
    stages = "--stages 32,16 --widths 256,512 --depths 1,1 --params 9M --objective macs-3/4"
    out = run("layout", *stages.split()).out
    (bound,) = re.findall(r"bound +(\S+), which the first one reaches", out)
    assert bound.endswith("M")
    assert out.count(f" {bound} ") > 1
