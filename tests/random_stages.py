"""Random problems of stage layouts, and their answers beside every layout.

`python tests/random_stages.py 3000` compares as many, and says how they ended.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise, product
from math import prod
from typing import Any

import brute_stages
import pytest

from ifspace.answer import Status
from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.latency import LatencyTable
from ifspace.stages.allocate import best_stages
from ifspace.stages.layout import STAGE_TYPES, Layout, StemAndHead, StemLayer
from ifspace.stages.networks import make_layout
from ifspace.stages.peak import peak_elements
from ifspace.stages.problem import BlockChoice, Blocks, Budgets, StagePlan, StagesProblem

Q = Fraction
AMOUNTS = ("params", "macs", "activations", "layers", "latency_ms", "peak_memory")
CLOSE = 1e-8
POOL = (
    "CONV",
    "CONV(5)",
    "DW+PW",
    "DW+GPW(4)",
    "GPW(2)+DW+GPW(2)",
    "GC(2)+SH(2)+GPW(2)",
    "PW",
    "RPW(2,1/2)+DW",
    "(DW+GPW(2))x2",
    "GC(3)",
    "DW+RPW(4,0)+PW",
    "DW(5)+GPW(2)",
)


def unit(draw: random.Random) -> BlockChoice:
    chance = draw.random()
    if chance < 0.15:
        return BlockChoice.of(Block.parse("PW+DW+PW"), draw.choice([Q(1, 2), Q(1, 4), Q(2)]))
    if chance < 0.35:
        choice = BlockChoice.of(
            Block.parse(draw.choice(["PW+DW+PW", "PW+DW(5)+GPW(2)"])),
            type=draw.choice([None, "inverted"]),
        )
        return choice.expanded(draw.choice([Q(1), Q(1, 2), Q(3, 2), Q(2), Q(6)]))
    if chance < 0.45:
        block = Block.parse("PW+CONV+PW")
        return BlockChoice.of(block, inner=draw.choice([2, 8]), type=draw.choice(STAGE_TYPES))
    return BlockChoice.of(
        Block.parse(draw.choice(POOL)), type=draw.choice([None, None, *STAGE_TYPES])
    )


def frame(draw: random.Random, side: int) -> StemAndHead:
    stem = (StemLayer(Block.parse(draw.choice(["CONV", "CONV(5)"])).at(3, 8).layers[0], side),)
    stemmed = draw.random() < 0.4
    return StemAndHead(
        inputs=draw.choice([3, 4, 8]),
        stem=stem if stemmed else (),
        batch_norm=draw.random() < 0.5,
        bias=draw.random() < 0.3,
        projections=draw.random() < 0.4,
        classifier=draw.choice([(), (10,), (6, 10)]),
        pixels=draw.choice([1, 4]),
        stem_counts=stemmed and draw.random() < 0.5,
    )


def start(draw: random.Random) -> Layout:
    count = draw.choice([2, 2, 3, 3, 4])
    sides = sorted(draw.choices([2, 3, 4, 7, 8, 14, 16, 32], k=count), reverse=True)
    around = frame(draw, sides[0])
    depths = [3] * count
    widths = draw.choices([4, 6, 8, 12], k=count)
    strides = []
    if draw.random() < 0.3:
        # Nothing is pooled between the stages, so that strides may be free.
        side, sides = draw.choice([4, 8, 16]), []
        for _ in range(count):
            sides.append(side)
            strides.append(draw.choice([1, 2]) if side > 1 else 1)
            side //= strides[-1]
        around = frame(draw, sides[0])
        return make_layout("CONV", sides, widths, depths, strides, around)
    for side, next_side in pairwise([*sides, 0]):
        # A stage may halve what enters it, down to what enters the next one.
        halves = side % 2 == 0 and side // 2 >= next_side and draw.random() < 0.5
        strides.append(2 if halves else 1)
    return make_layout("CONV", sides, widths, depths, strides, around)


def strides(draw: random.Random, layout: Layout) -> tuple[tuple[int, ...], ...] | None:
    """Draw strides that each stage may have, now and then, where nothing is pooled."""
    pairs = pairwise(layout.stages)
    if draw.random() < 0.3 or any(a.side_out != b.side_strided for a, b in pairs):
        return None
    return tuple(
        tuple(sorted({stage.stride, draw.choice([1, 1, 2, 2, 4])})) for stage in layout.stages
    )


def table(draw: random.Random, problem: StagesProblem) -> LatencyTable:
    """Draw latencies of every possible case, sometimes without one of them."""
    cases = {}
    for index, choices in enumerate(problem.block_choices):
        inside = {w for choices in problem.width_choices for w in choices}
        entries = inside | {problem.start.stem_and_head.stem_channels}
        for choice, c_in, c_out in product(choices, entries, problem.width_choices[index]):
            for place in problem.places(index):
                for stride in {1, place.stride}:
                    if draw.random() < 0.97:
                        case = (str(choice.block), c_in, c_out, place.side_out, stride)
                        cases[case] = Q(draw.randint(1, 999), draw.choice([10, 64, 1000]))
    return LatencyTable(cases)


def bounds(draw: random.Random, rows: list[brute_stages.Row], names: list[str]) -> Budgets:
    """Budgets about as large as what some layout has, now and then below what any has."""
    one = draw.choice(rows)
    values: dict[str, Any] = {}
    for name in names:
        least = min(getattr(row, name) for row in rows)
        value = draw.choice([getattr(one, name)] * 4 + [getattr(one, name) * 5 // 4, least - 1])
        if name == "latency_ms":
            value = draw.choice([Q(getattr(one, name)), Q(3, 2) * getattr(one, name), least / 2])
        values[name] = max(value, 1) if name != "latency_ms" else value
    # One byte an element.
    return Budgets(**values, dtype="int8" if "peak_memory" in names else None)


def drawn(seed: int, count: int) -> Iterator[tuple[StagesProblem, list[brute_stages.Row]]]:
    """Draw problems with all their layouts, few enough to enumerate."""
    draw = random.Random(seed)
    while count:
        begun = start(draw)
        many = len(begun.stages)
        names = draw.sample(AMOUNTS, draw.randint(1, 4))
        own = draw.random() < 0.15
        problem = StagesProblem(
            begun,
            Budgets(params=1),
            widths=draw.choice(
                [
                    None,
                    tuple(
                        tuple(draw.sample([4, 6, 8, 12], draw.randint(1, 3))) for _ in range(many)
                    ),
                ]
            ),
            blocks=None
            if own
            else tuple(
                Blocks(*(unit(draw) for _ in range(draw.randint(1, 3)))) for _ in range(many)
            ),
            max_depth=draw.randint(2, 5),
            alpha=draw.choice([3, 3, 0, 1, 10]),
            monotone=draw.random() < 0.3,
            objective=draw.choice(brute_stages.OBJECTIVES),
            min_depths=draw.choice([None, None, tuple(draw.choices([1, 2], k=many))]),
            strides=strides(draw, begun),
        )
        if "latency_ms" in names:
            problem = replace(
                problem, budgets=Budgets(latency_ms=Q(1)), latency=table(draw, problem)
            )
        choices = [map(len, problem.width_choices), map(len, problem.block_choices)]
        patterns = len(list(brute_stages.places(problem)))
        if patterns * prod(map(prod, choices)) * problem.max_depth**many > 6000:
            continue
        rows = list(brute_stages.layouts(problem))
        if rows:
            problem = replace(problem, budgets=bounds(draw, rows, names))
        count -= 1
        yield problem, rows


def seen(plan: StagePlan) -> brute_stages.Row:
    layout, amounts = plan.layout, plan.problem.amounts(plan.layout)
    return brute_stages.Row(
        tuple(plan.objectives.values()),
        *(amounts.get(name, Q(0)) for name in AMOUNTS[:2]),
        layout.activations,
        *(amounts.get(name, Q(0)) for name in AMOUNTS[3:-1]),
        peak_elements(layout),
        layout.depths,
        layout.widths,
        tuple(map(str, layout.blocks)),
        tuple(stage.stride for stage in layout.stages),
    )  # type: ignore[arg-type]


def all_have_a_block(problem: StagesProblem) -> bool:
    oracle = brute_stages.Stages(problem)
    entries = [(problem.start.stem_and_head.stem_channels,), *problem.width_choices]
    patterns = list(brute_stages.places(problem))
    return all(
        any(
            oracle.parts(n, *case, where[n])
            for where in patterns
            for case in product(choices, entries[n], entries[n + 1])
        )
        for n, choices in enumerate(problem.block_choices)
    )


def same_answer(problem: StagesProblem, rows: list[brute_stages.Row], top: int = 1) -> str:
    """Check status, bound and the best few layouts against all of them."""
    ranked = brute_stages.ranking(problem, rows)
    if not rows and not all_have_a_block(problem):
        with pytest.raises(SettingError, match="has no block left"):
            best_stages(problem, top)
        return "REFUSED"
    answer = best_stages(problem, top)
    if not ranked:
        assert (answer.status, answer.bound, answer.plans) == (Status.INFEASIBLE, None, ())
        return answer.status.name
    assert answer.status is Status.OPTIMAL
    assert answer.bound == pytest.approx(ranked[0][0], rel=CLOSE, abs=CLOSE)
    results = [seen(plan) for plan in answer.plans]
    expected = ranked[:top]
    for row, (_, other) in zip(results, expected, strict=True):
        assert row.objectives == pytest.approx(other.objectives, rel=CLOSE, abs=CLOSE)
    assert [row.params for row in results] == [row.params for _, row in expected]
    assert len({plan.layout for plan in answer.plans}) == len(results)
    all_rows = {row[1:] for row in rows}
    for plan, row in zip(answer.plans, results, strict=True):
        plan.check()
        assert row[1:] in all_rows
    return answer.status.name


def main() -> None:
    """Compare random problems, the best layout of most and the best few of some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    ended: Counter[tuple[str, str]] = Counter()
    for number, (problem, rows) in enumerate(drawn(options.seed, options.problems)):
        status = same_answer(problem, rows, top=5 if number % 10 == 0 else 1)
        ended[status, problem.objective] += 1
    for (status, objective), count in sorted(ended.items()):
        sys.stdout.write(f"{status:10} {objective:12} {count:6,}\n")
    sys.stdout.write(f"all {options.problems:,} agree\n")


if __name__ == "__main__":
    main()
