"""How fast stage layouts are proven, beside exhaustive search and the published organizer.

`python -m benchmarks.stages` writes `stages-bench.md` and `stages-bench.csv` into `results/`;
`--quick` takes a few of the cases, in a minute, and prints them.
The exhaustive search goes through every block, width and depth of every stage, with the gain and
cost of each stage counted once.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import product
from math import fsum, prod
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import in_turn, write_results
from ifspace.answer import Status
from ifspace.bench.record import provenance
from ifspace.block import Block, Composition
from ifspace.errors import BlockError, SettingError
from ifspace.stages.allocate import best_stages
from ifspace.stages.layout import INVERTED, Layout
from ifspace.stages.networks import (
    make_layout,
    network,
    published_layouts,
    styled,
)
from ifspace.stages.objectives import OBJECTIVES
from ifspace.stages.organizer import organize
from ifspace.stages.problem import (
    BlockChoice,
    Blocks,
    Budgets,
    StagesProblem,
)
from ifspace.table import Table

LIMIT_S: Final = 30.0
EXHAUSTIVE_S: Final = 15.0
REPEATS: Final = 3
# Sums of the same gains in another order.
CLOSE: Final = 1e-7
BLOCKS: Final = ("CONV", "DW+PW", "DW(5)+PW")
# Its groups are looked for at every pair of widths; it cannot open the first stage, of 3 channels.
OPEN: Final = "DW+GPW+SH+GPW"
WIDTHS: Final = (32, 48, 64, 96, 128, 192, 256, 512)
# Stages of VGG-16 at 32 pixels, most depth, blocks and widths of each stage.
SIZES: Final = (
    (3, 4, 1, 1),
    (3, 6, 2, 2),
    (5, 6, 1, 1),
    (4, 8, 1, 3),
    (5, 16, 1, 1),
    (4, 6, 2, 3),
    (5, 16, 3, 8),
)
CASES: Final = (
    Budgets(params=1_000_000),
    Budgets(params=100_000),
    Budgets(params=30_000),
    Budgets(macs=20_000_000),
    Budgets(macs=5_000_000),
    Budgets(layers=30),
    Budgets(params=60_000, macs=15_000_000),
    Budgets(params=100_000, macs=10_000_000, layers=40),
)
# Of these each objective is asked for.
OBJECTIVE_CASES: Final = (
    Budgets(params=1_000_000, macs=100_000_000),
    Budgets(params=5_000_000, macs=300_000_000),
    Budgets(params=100_000),
    Budgets(macs=20_000_000),
)
# Inverted residuals in seven stages, as many and as strided as in MobileNetV2 at 224 pixels.
INVERTED_SIDES: Final = (112, 112, 56, 28, 14, 14, 7)
INVERTED_STRIDES: Final = (1, 2, 2, 2, 1, 2, 1)
INVERTED_WIDTHS: Final = (16, 24, 32, 64, 96, 160, 320)
# Multiples of 8 near these parts of a width are offered.
PARTS: Final = (1 / 2, 3 / 4, 1, 5 / 4, 3 / 2, 7 / 4, 2, 5 / 2)
EXPANSIONS: Final = tuple(map(Fraction, (1, 2, 3, 4, 6)))
INVERTED_DEPTH: Final = 6
INVERTED_CASES: Final = (
    Budgets(params=3_500_000, macs=300_000_000),
    Budgets(params=2_000_000, macs=150_000_000, activations=4_000_000),
)
NETWORKS: Final = tuple(product(("vgg16", "vgg19", "mobilenet", "resnet50"), (32, 224)))
MOST_DEPTH: Final = 32
Row = dict[str, Any]
# Gain, parameters and MACs of a stage.
Part = tuple[float, int, int]


def choices(count: int, depth: int, blocks: int, widths: int) -> StagesProblem:
    """Return the problem of VGG-16's first stages with some of the blocks and widths.

    The budgets are half of the parameters and MACs that convolutions of the least widths have at
    half the depth, a quarter where there is a cheaper block.
    """
    vgg = network("vgg16", 32)
    listed = tuple((width,) for width in vgg.widths) if widths == 1 else (WIDTHS[:widths],) * 5
    sides = [stage.side for stage in vgg.stages]
    least, half = [width[0] for width in listed[:count]], [depth // 2 + 1] * count
    start = make_layout("CONV", sides[:count], least, half, stem_and_head=vgg.stem_and_head)
    share = 2 if blocks == 1 else 4
    return StagesProblem(
        start,
        Budgets(start.params // share, start.macs // share),
        listed[:count],
        (Blocks(*BLOCKS[:blocks]),) * count,
        depth,
    )


def ours(problem: StagesProblem) -> float | None:
    """Return the greatest gain by the optimizer of record."""
    answer = best_stages(problem, time_limit_s=LIMIT_S)
    if answer.status in (Status.FEASIBLE, Status.UNKNOWN):
        raise TimeoutError
    return answer.plans[0].objective() if answer.plans else None


def exhaustive(problem: StagesProblem) -> float | None:
    """Return the greatest gain by trying every layout, for budgets of parameters and MACs."""
    deadline = time.monotonic() + EXHAUSTIVE_S
    best: float | None = None
    for (params, macs), parts in _every_choice(problem):
        for tried, choice in enumerate(product(*parts)):
            gain = sum(part[0] for part in choice)
            if (
                (best is None or gain > best)
                and params + sum(part[1] for part in choice) <= (problem.budgets.params or 0)
                and macs + sum(part[2] for part in choice) <= (problem.budgets.macs or 0)
            ):
                best = gain
            if not tried % 1000 and time.monotonic() > deadline:
                raise TimeoutError
    return best


def _every_choice(problem: StagesProblem) -> Iterator[tuple[tuple[int, int], list[list[Part]]]]:
    """Yield the cost of stem and head and, stage by stage, gain and cost of each depth."""
    ends = problem.start.stem_and_head
    parts: dict[tuple[int, BlockChoice, int, int], list[Part]] = {}
    for widths in product(*problem.width_choices):
        entries = (ends.stem_channels, *widths)
        for blocks in product(*problem.block_choices):
            keys = [(n, block, entries[n], widths[n]) for n, block in enumerate(blocks)]
            for key in keys:
                if key not in parts:
                    parts[key] = _parts(problem, *key)
            yield (ends.params(widths[-1]), ends.macs(widths[-1])), [parts[key] for key in keys]


def _parts(
    problem: StagesProblem, index: int, choice: BlockChoice, entry: int, width: int
) -> list[Part]:
    """Return a stage at every depth; nothing where its block does not fit."""
    assert choice.block is not None
    ends, stage = problem.start.stem_and_head, problem.start.stages[index]
    try:
        first, repeated = (
            choice.block.at(channels, width, choice.bottleneck) for channels in (entry, width)
        )
    except BlockError:
        return []
    first_cost = (
        ends.block_params(first, True),
        ends.block_macs(first, stage.side_out, stage.stride, True),
    )
    repeated_cost = (ends.block_params(repeated), ends.block_macs(repeated, stage.side_out))
    sized = replace(stage, first=first, repeated=repeated)
    parts: list[Part] = []
    for depth in problem.depth_choices[index]:
        repeats = depth - stage.min_depth
        gain = fsum(sized.at_depth(depth).gains(problem.alpha))
        params, macs = (a + repeats * b for a, b in zip(first_cost, repeated_cost, strict=True))
        parts.append((gain, params, macs))
    return parts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    ours(StagesProblem(network("vgg11", 32), Budgets(layers=9)))
    names = ("search", "wide", "objectives", "inverted", "organizer")
    tables: dict[str, list[Row]] = {name: [] for name in names}
    if options.quick:
        for objective in OBJECTIVES:
            print(_wide(OBJECTIVE_CASES[0], objective), flush=True)
            print(_inverted(INVERTED_CASES[0], objective), flush=True)
        return
    for size in SIZES:
        tables["search"].append(_search(*size))
        print(tables["search"][-1], flush=True)
    for budgets in CASES:
        tables["wide"].append(_wide(budgets))
        print(tables["wide"][-1], flush=True)
    for objective, budgets in product(OBJECTIVES, OBJECTIVE_CASES):
        tables["objectives"].append({"objective": objective, **_wide(budgets, objective)})
        print(tables["objectives"][-1], flush=True)
    for objective, budgets in product(OBJECTIVES, INVERTED_CASES):
        tables["inverted"].append(_inverted(budgets, objective))
        print(tables["inverted"][-1], flush=True)
    for name, side in NETWORKS:
        tables["organizer"] += _compared(name, side)
        print(tables["organizer"][-1], flush=True)
    command = "python -m benchmarks.stages"
    rows = [{"table": name, **row} for name, table in tables.items() for row in table]
    write_results(options.out, "stages-bench", _page(command, tables), rows, command)


def _search(count: int, depth: int, blocks: int, widths: int) -> Row:
    problem = choices(count, depth, blocks, widths)
    best, seconds = in_turn(
        {"ours": partial(ours, problem), "exhaustive": partial(exhaustive, problem)}, REPEATS
    )
    gains = [-1.0 if gain is None else gain for gain in best]
    if gains and max(gains) - min(gains) > CLOSE:
        raise SettingError(f"the searches disagree: {gains}")
    row: Row = {"stages": count, "depth": depth, "blocks": blocks, "widths": widths}
    row |= {"layouts": f"{prod([depth * blocks * widths] * count):.1e}"}
    row |= {"gain": f"{gains[0]:.4f}" if gains else ""}
    for name, limit in (("ours", LIMIT_S), ("exhaustive", EXHAUSTIVE_S)):
        row[f"{name} s"] = f"{seconds[name]:.3f}" if name in seconds else f"> {limit:.0f}"
    ratio = seconds.get("exhaustive", EXHAUSTIVE_S) / seconds.get("ours", LIMIT_S)
    row["exhaustive / ours"] = f"{'' if 'exhaustive' in seconds else '> '}{ratio:.2f}"
    return row


def _wide(budgets: Budgets, objective: str = "gain") -> Row:
    problem = choices(5, 16, len(BLOCKS), len(WIDTHS))
    blocks = Blocks(*problem.block_choices[0], BlockChoice.parse(OPEN))
    problem = replace(problem, budgets=budgets, blocks=(blocks,) * 5, objective=objective)
    return _timed(problem, ("depths", "widths", "blocks"))


def inverted(budgets: Budgets, objective: str) -> StagesProblem:
    """Return the problem of seven stages of inverted residuals whose expansions are chosen."""
    block = BlockChoice(Composition.parse("PW+DW+PW"), Block.parse("PW+DW+PW"), type=INVERTED)
    ends = styled("mobilenet", 3, 32, INVERTED_SIDES[0], 1000)
    start = make_layout("DW+PW", INVERTED_SIDES, INVERTED_WIDTHS, (1,) * 7, INVERTED_STRIDES, ends)
    widths = tuple(
        tuple(sorted({max(8, 8 * round(width * part / 8)) for part in PARTS}))
        for width in INVERTED_WIDTHS
    )
    blocks = Blocks(*(block.expanded(expansion) for expansion in EXPANSIONS))
    return StagesProblem(start, budgets, widths, (blocks,) * 7, INVERTED_DEPTH, objective=objective)


def _inverted(budgets: Budgets, objective: str) -> Row:
    row: Row = {"objective": objective, "activations": ""}
    if budgets.activations is not None:
        row["activations"] = f"{budgets.activations:,}"
    return row | _timed(inverted(budgets, objective), ("depths", "widths"), expansions=True)


def _timed(problem: StagesProblem, names: Sequence[str], expansions: bool = False) -> Row:
    """Return the row of the best layout of a problem within the time."""
    budgets = problem.budgets
    start = time.perf_counter()
    answer = best_stages(problem, time_limit_s=LIMIT_S)
    seconds = time.perf_counter() - start
    row: Row = {name: f"{value:,}" for name, value in budgets.limits.items()}
    row = {name: row.get(name, "") for name in ("params", "macs", "layers")}
    row |= {"seconds": f"{seconds:.1f}", "status": answer.status.name.lower()}
    if not answer.plans or answer.bound is None:
        return row | dict.fromkeys(("gain", "bound", "gap", *names), "")
    gain, layout = answer.plans[0].objective(), answer.plans[0].layout
    row |= {"gain": f"{gain:.4f}", "bound": f"{answer.bound:.4f}"}
    row["gap"] = f"{(answer.bound - gain) / gain:.2%}"
    for name in names:
        row[name] = " ".join(map(str, getattr(layout, name)))
    if expansions:
        ratios = (Fraction(s.repeated.inner_width, s.repeated.channels) for s in layout.stages)
        row["expansions"] = " ".join(map(str, ratios))
    return row


def _compared(name: str, side: int) -> list[Row]:
    """Return a row for the organizer's end and one for each layout published."""
    rows = [_beside(name, side, "organizer's end", organize(network(name, side)).end)]
    for layout in published_layouts(name, side):
        rows.append(_beside(name, side, f"published, {layout.data}", layout.layout))
    return rows


def _beside(name: str, side: int, which: str, layout: Layout) -> Row:
    gain = layout.gain()
    row: Row = {"network": name, "side": side, "layout": which}
    row |= {"depths": " ".join(map(str, layout.depths)), "gain": f"{gain:.4f}"}
    for title, budgets in (
        ("params and MACs", Budgets(params=layout.params, macs=layout.macs)),
        ("params alone", Budgets(params=layout.params)),
    ):
        answer = best_stages(StagesProblem(layout, budgets, max_depth=MOST_DEPTH))
        (plan,) = answer.plans
        if answer.status is not Status.OPTIMAL or plan.objective() < gain - CLOSE:
            raise SettingError(f"{name} at {side}: {answer.status}, {plan.objective()} and {gain}")
        row[f"best by {title}"] = f"{plan.objective():.4f}"
        row[f"{title}: more"] = f"{max(0.0, plan.objective() - gain):.4f}"
        row[f"{title}: depths"] = " ".join(map(str, plan.layout.depths))
    return row


def _page(command: str, tables: dict[str, list[Row]]) -> list[str]:
    return [
        "# How fast stage layouts are proven, and what they gain",
        f"Written by {provenance(command)}.",
        "## Beside exhaustive search",
        "The first stages of VGG-16 at 32 pixels, their widths where there is one, within half (a "
        "quarter with more than one block) of the parameters and MACs that convolutions of the "
        f"least widths have at half the depth. Median of {REPEATS} runs, the two in turn in one "
        f"process; the exhaustive search was stopped after {EXHAUSTIVE_S:.0f} s and has no figure "
        "then. All answers agree.",
        _table(tables["search"]),
        "## Five stages to sixteen units each, four blocks, eight widths",
        f"Sides and classifier of VGG-16 at 32 pixels; blocks {', '.join(BLOCKS)} and "
        f"{OPEN}, whose groups are found at each pair of widths within the time; widths "
        f"{', '.join(map(str, WIDTHS))} for every stage. One run each, at most {LIMIT_S:.0f} s; "
        "the gap is that of the bound over the gain found. A block that sees all channels gains "
        "the same at every width: of equal gains, the next objectives take what is left.",
        _table(tables["wide"]),
        "## The same for every objective",
        f"As above, at most {LIMIT_S:.0f} s each, ties broken by the next objectives in that time; "
        "the column gain has the value of the objective. Proven, or with a gap of at most "
        f"{_worst_gap(tables['objectives'])}.",
        _table([_without_empty(row) for row in tables["objectives"]]),
        "## Seven stages of inverted residuals",
        f"Sides, strides and classifier of MobileNetV2 at 224 pixels; of each stage 1 to "
        f"{INVERTED_DEPTH} blocks, expansions {', '.join(map(str, EXPANSIONS))}, and up to "
        f"{len(PARTS)} widths around MobileNetV2's. At most {LIMIT_S:.0f} s each, ties included. "
        f"Proven, or with a gap of at most {_worst_gap(tables['inverted'])}.",
        _table([_without_empty(row) for row in tables["inverted"]]),
        "## Beside the published organizer",
        "The total gain of the layout where the greedy organizer ends, and of each published "
        "layout with the classifier of its data set; the greatest gain proven at equal or smaller "
        "parameters and MACs, and at equal or smaller parameters alone; how much more that is. "
        f"Depths to {MOST_DEPTH}.",
        _table(tables["organizer"]),
    ]


def _worst_gap(rows: Sequence[Row]) -> str:
    """Return the greatest gap of some answers, in percent; all have one."""
    return max((str(row["gap"]) for row in rows), key=lambda gap: float(gap.rstrip("%") or "inf"))


def _without_empty(row: Row) -> Row:
    """Return a row without the amounts that no case bounds."""
    return {name: value for name, value in row.items() if name != "layers"}


def _table(rows: Sequence[Row]) -> str:
    return (
        Table(tuple(rows[0]), tuple(map(tuple, (row.values() for row in rows))))
        .markdown("github")
        .rstrip()
    )


if __name__ == "__main__":
    main()
