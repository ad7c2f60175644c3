"""Fields and gains of [IF] Tables 1 and 2, and the organizer's trajectories beside the published.

`write` puts what `ifspace report` draws into CSV files: verdicts, trajectories, and the energies of
[Layout] by rank.

Reference: [3DRF] section 4.1 and Tables 3 to 5; [IF] Tables 1 and 2.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from experiments.reproduction.count_tables import (
    ROLES,
    built,
    search,
)
from experiments.reproduction.page import (
    CUT,
    MATCH,
    Judged,
    Section,
    as_table,
    braces,
    verdict,
)
from experiments.reproduction.printed import (
    COUNTED,
    DEPTHS,
    EXPECTED,
    FIELDS,
    LEARNED,
    RESIDUAL,
    RESIDUAL_ENERGIES,
    VARIANTS,
    Counted,
    Expected,
    Widths,
)
from ifspace.energy.problem import EnergyProblem
from ifspace.energy.solve import best_energy
from ifspace.infofield import spatial_field
from ifspace.reach import channel_fields
from ifspace.stages.layout import (
    Layout,
    Stage,
)
from ifspace.stages.networks import mobilenet, network, vgg
from ifspace.stages.organizer import Trajectory, organize
from ifspace.table import Table


def fields_section() -> Section:
    """Return the section of the page."""
    network = vgg("vgg11", 32)
    return Section(
        "[IF] Tables 1 and 2: fields and gains",
        [
            "Table 1: three 3x3 convolutions on a stage input of 8 x 8 x 128 (stage 3 of VGG-11 "
            "with one convolution more). A cell with one number is the same in both.",
            fields_table(network.stages[2].at_depth(len(FIELDS))),
            "Table 2: the gain of one convolution more in a stage of VGG-11, by stage.",
            variants_table(network),
        ],
        ("[IF] Table 1: layers", "[IF] Table 2: variants of VGG-11"),
    )


def fields_table(stage: Stage) -> Judged:
    """Return Table 1 beside the fields and gains of a stage, whose blocks are single layers."""
    layers = [layer for block in stage.blocks for layer in block.layers]
    sides = [spatial_field([x.kernel for x in layers[:n]], stage.side) for n in range(1, 4)]
    channels = channel_fields(layers)
    gains = (None, *stage.gains())
    rows = []
    for (k, *fields, gain), *ours, own in zip(
        FIELDS, sides, channels, stage.volumes(), gains, strict=True
    ):
        judged = MATCH
        if fields != ours:
            judged = f"fields {ours}"
        elif gain is not None and own is not None:
            judged = verdict(gain, own)
        cells = [f"{a}" if a == b else f"{a} / {b}" for a, b in zip(fields, ours, strict=True)]
        rows.append([k, *cells, gain or "-", "-" if own is None else f"{own:.4f}", judged])
    return Judged(as_table(["k", "IF^w", "IF^c", "IF", "gain printed", "ours", "verdict"], rows))


def variants_table(network: Layout) -> Judged:
    """Return Table 2 beside the gain of one more block in each stage of a network."""
    rows = []
    for number, (stage, printed) in enumerate(zip(network.stages, VARIANTS, strict=True), start=1):
        own = stage.next_gain()
        rows.append([f"Variant-{number}", printed, f"{own:.4f}", verdict(printed, own)])
    return Judged(as_table(["network", "gain printed", "ours", "verdict"], rows))


ALPHAS: Final = (1, 2, 3, 5, 10)


@cache
def trajectory(name: str, side: int, alpha: float = 3) -> Trajectory[Layout]:
    """Return the organizer's steps from a network of the papers on, with a threshold of 0."""
    # The printed layouts are found by the sides that are written.
    layout = mobilenet(side, stem_counts=True) if name == "mobilenet" else network(name, side)
    return organize(layout.at_written_sides(), alpha=alpha)


def sums(path: Trajectory[Layout]) -> list[float]:
    """Return Σ(max − min) after 0, 1, 2 … moves."""
    return list(accumulate((move.max - move.min for move in path.moves), initial=0.0))


def side_of(row: Counted) -> int:
    """Return the side in pixels of the images of a row's data set."""
    return 224 if row.data == "ImageNet" else 32


def moves_section() -> Section:
    """Return the section of the page."""
    parts: list[str | Table | Judged] = [
        "θ = 0, α = 3. The moves and states that the project's design stated before the program "
        "was written (*known*: no paper prints them), beside the program's:",
        expected_table(),
        "Each state with what it has. *Gain*: Σ(max − min) of the moves so far. *Published*: the "
        "data sets whose printed parameters are those of the state (all of it under [3DRF] Tables "
        "3 to 5 below). Parameters in millions as the public implementation for CIFAR-10 or "
        "ImageNet counts them, MACs in millions without additions.",
    ]
    for name, side in dict.fromkeys((row.network, side_of(row)) for row in COUNTED):
        parts += [f"### {name}, {side} x {side}", states_table(name, side)]
    parts += [
        "### Published layouts",
        "Is the layout with the printed counts, or the one named in the text of section 5.1, a "
        "state of the trajectory? MobileNet's text counts blocks, our first stage the stem too.",
        published_table(),
        "### Published gains",
        "Δ3DRF of a reorganized network as Σ(max − min) of its moves, which is what its layers "
        "gain more than those it started with: for the published layout, on the trajectory or "
        "not, and at the end of the trajectory. *Nearest*: what comes nearest over all states and "
        f"α of {', '.join(map(str, ALPHAS))}; at another state or α than the published it explains "
        "nothing. For the rows that are off no reason was found.",
        gains_table(),
        "### The trajectories under other α",
        "Ends of the trajectories: the paper says that α hardly matters.",
        alphas_table(),
    ]
    names = (
        "trajectories stated beforehand",
        "[3DRF] published layouts",
        "[3DRF] Tables 3 to 5: Δ3DRF",
    )
    return Section("[3DRF] section 4.1: trajectories of the organizer", parts, names)


def expected_table() -> Judged:
    """Return the moves and states stated beforehand, and whether the organizer has them."""
    rows = []
    for expected in EXPECTED:
        path = trajectory(expected.network, expected.side)
        stated = expected.moves or ", ".join(
            f"{n}: {braces(depths)}" for n, depths in expected.states
        )
        rows.append(
            [
                expected.network,
                expected.side,
                f"{stated}; {expected.total} in all",
                ", ".join(map(str, path.moves)),
                judge_moves(expected, path),
            ]
        )
    return Judged(as_table(["network", "side", "known", "moves", "verdict"], rows), 2)


def judge_moves(expected: Expected, path: Trajectory[Layout]) -> str:
    """Return whether moves, states and their number are the stated ones, or what differs."""
    states = [layout.depths for layout in path.layouts]
    faults = [
        f"state {n} is {braces(states[n]) if n < len(states) else 'not there'}"
        for n, depths in expected.states
        if n >= len(states) or states[n] != depths
    ]
    if len(path.moves) != expected.total:
        faults.append(f"{len(path.moves)} moves")
    if expected.moves and ", ".join(map(str, path.moves)) != expected.moves:
        faults.append("other moves")
    return "; ".join(faults) or MATCH


def states_table(name: str, side: int) -> Table:
    """Return the states of a trajectory with their counts and the published ones marked."""
    path = trajectory(name, side)
    layout = built(name, "ImageNet" if side == 224 else "CIFAR-10")
    marks: dict[tuple[int, ...], list[str]] = {}
    for row in COUNTED:
        if (row.network, side_of(row)) == (name, side):
            depths, data = search(row, 1).best.depths, row.data
            marks.setdefault(depths, []).append(data)
    steps = [("start", "-", "-"), *((str(m), f"{m.min:.4f}", f"{m.max:.4f}") for m in path.moves)]
    rows = []
    for n, (state, step, total) in enumerate(zip(path.layouts, steps, sums(path), strict=True)):
        counted = layout.at_depths(state.depths)
        rows.append(
            [
                n,
                *step,
                braces(state.depths),
                f"{total:.3f}",
                f"{counted.params / 1e6:.2f}",
                f"{counted.macs / 1e6:,.0f}",
                ", ".join(marks.get(state.depths, [])),
            ]
        )
    header = ["state", "move", "min", "max", "layout", "gain", "params", "MACs", "published"]
    return as_table(header, rows)


@dataclass(frozen=True, slots=True)
class PublishedState:
    """A published layout, where it is published, and its number on a trajectory if it has one."""

    network: str
    data: str
    source: str
    depths: tuple[int, ...]
    state: int | None
    moves: int


def published() -> Iterator[PublishedState]:
    """Yield the layouts of the reorganized networks, by their counts and by the text."""
    for row in COUNTED:
        states = [state.depths for state in trajectory(row.network, side_of(row)).layouts]
        named = []
        if row.network in DEPTHS and row.data == "CIFAR-10":
            stem = int(row.network == "mobilenet")
            first, *rest = DEPTHS[row.network]
            named.append(("text", (first + stem, *rest)))
        result = search(row, 1)
        if result.hits or result.best.distance == 0:
            named.append(("counts" if result.hits else "params", result.best.depths))
        for source, depths in named:
            state = states.index(depths) if depths in states else None
            yield PublishedState(row.network, row.data, source, depths, state, len(states) - 1)


def published_table() -> Judged:
    """Return where the published layouts stand on the trajectories."""
    rows = []
    for layout in published():
        on_other = [
            side
            for side in (32, 224)
            if layout.depths in [s.depths for s in trajectory(layout.network, side).layouts]
        ]
        if layout.state is not None:
            judged, state = MATCH, f"{layout.state} of {layout.moves}"
        else:
            state = "none"
            judged = "not visited" + (
                f"; visited with sides for {on_other[0]} x {on_other[0]}" if on_other else ""
            )
        rows.append(
            [
                layout.network + ROLES[1],
                layout.data,
                layout.source,
                braces(layout.depths),
                state,
                judged,
            ]
        )
    return Judged(as_table(["network", "data", "from", "layout", "state", "verdict"], rows), 2)


def gains_table() -> Judged:
    """Return the printed gains beside those of the published layouts and of the last states."""
    rows = []
    for row in COUNTED:
        path = trajectory(row.network, side_of(row))
        depths = search(row, 1).best.depths
        own = {
            "published": path.start.at_depths(depths).gain() - path.start.gain(),
            "end": path.moved_gain,
        }
        judged = {verdict(row.gain, gain): name for name, gain in reversed(own.items())}
        fits = [name for text, name in judged.items() if text in (MATCH, CUT)]
        text = f"{MATCH} ({fits[0]})" if fits else verdict(row.gain, own["published"])
        rows.append(
            [
                row.network + ROLES[1],
                row.data,
                row.gain,
                *(f"{gain:.3f}" for gain in own.values()),
                nearest_gain(row),
                text,
            ]
        )
    header = ["network", "data", "printed", "published", "end", "nearest", "verdict"]
    return Judged(as_table(header, rows), 2)


def nearest_gain(row: Counted) -> str:
    """Return the gain nearest to a printed one, over states and α, and where it is."""
    tried = [
        (abs(total - float(row.gain)), n, alpha, total)
        for alpha in ALPHAS
        for n, total in enumerate(sums(trajectory(row.network, side_of(row), alpha)))
    ]
    _, n, alpha, total = min(tried)
    return f"{total:.3f} (state {n}, α {alpha})"


def alphas_table() -> Table:
    """Return the end of each trajectory for each α."""
    rows = [
        [name, side, *(braces(trajectory(name, side, alpha).end.depths) for alpha in ALPHAS)]
        for name, side in dict.fromkeys((row.network, side_of(row)) for row in COUNTED)
    ]
    return as_table(["network", "side", *(f"α = {alpha}" for alpha in ALPHAS)], rows)


VERDICTS: Final = "reproduction.csv"
TRAJECTORIES: Final = "trajectories.csv"
RANKS: Final = "energy-ranks.csv"
# More layouts than any of the paper's problems has.
MOST: Final = 100_000
# All ranks up to this are kept, of those behind it one for every so many per cent.
FIRST: Final = 24
PER_CENT: Final = 4

Row = Mapping[str, Any]


def write(folder: Path, sections: Sequence[Section]) -> tuple[str, ...]:
    """Write the files into a folder and return their names."""
    files = {
        VERDICTS: list(verdict_rows(sections)),
        TRAJECTORIES: list(trajectory_rows()),
        RANKS: list(rank_rows()),
    }
    for name, rows in files.items():
        text = Table(tuple(rows[0]), tuple(tuple(row.values()) for row in rows)).csv()
        (folder / name).write_text(text)
    return tuple(files)


def verdict_rows(sections: Sequence[Section]) -> Iterator[Row]:
    """Yield for each judged table how many of its rows there are and how many match."""
    for section in sections:
        for name, total, missed in section.summary():
            yield {"table": name, "rows": total, "match": total - len(missed)}


def trajectory_rows() -> Iterator[Row]:
    """Yield every state of the organizer's trajectories from the networks of the papers.

    `moved_gain` is Σ(max − min) of the moves so far, `gain` the total gain of the layout;
    `published`: the data sets for which a layout of these depths was published.
    """
    for name, side in dict.fromkeys((row.network, side_of(row)) for row in COUNTED):
        states = trajectory(name, side)
        marks: dict[tuple[int, ...], list[str]] = {}
        for row in COUNTED:
            if (row.network, side_of(row)) == (name, side):
                marks.setdefault(search(row, 1).best.depths, []).append(row.data)
        for step, (layout, move, moved) in enumerate(
            zip(states.layouts, (None, *states.moves), sums(states), strict=True)
        ):
            yield {
                "network": name,
                "side": side,
                "step": step,
                "move": "" if move is None else str(move),
                "depths": _spaced(layout.depths),
                "sides": _spaced([stage.side for stage in layout.stages]),
                "moved_gain": round(moved, 6),
                "gain": round(layout.gain(), 6),
                "params": layout.params,
                "macs": layout.macs,
                "published": ", ".join(marks.get(layout.depths, ())),
            }


def rank_rows() -> Iterator[Row]:
    """Yield layouts of [Layout]'s problems with their energies and ranks, 1 for the greatest.

    Layouts of the same energy have the same rank. Of many layouts the first are kept, those that
    the paper prints, and some of all others. `paper`: what the paper says of the layout.
    """
    for budget, learned in LEARNED:
        problem = EnergyProblem(budget, layers=len(learned[0]))
        yield from _ranks(problem, dict.fromkeys(learned, "learned best"))
    units, budget = RESIDUAL
    wide = EnergyProblem(budget, repeats=units, nondecreasing=True)
    yield from _ranks(wide, {layout: "Table 4" for layout, _ in RESIDUAL_ENERGIES})


def _ranks(problem: EnergyProblem, named: Mapping[Widths, str]) -> Iterator[Row]:
    plans = best_energy(problem, top=MOST).plans
    kept = _kept(len(plans))
    rank, before = 0, None
    for number, plan in enumerate(plans, start=1):
        if (energy := plan.exact_energy()) != before:
            rank, before = number, energy
        if number in kept or plan.widths in named:
            yield {
                "budget": problem.budget,
                "units": _spaced(problem.units),
                "widths": _spaced(plan.widths),
                "energy": f"{plan.energy():.9g}",
                "rank": rank,
                "layouts": len(plans),
                "paper": named.get(plan.widths, ""),
            }


def _kept(count: int) -> set[int]:
    """Return the ranks that are kept of so many layouts, the last among them.

    >>> sorted(_kept(50))[FIRST - 1 :]
    [24, 25, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44, 46, 48, 50]
    """
    kept = {*range(1, min(FIRST, count) + 1), count}
    rank = FIRST
    while rank < count:
        kept.add(rank)
        rank += max(1, -(-rank * PER_CENT // 100))
    return kept


def _spaced(numbers: Sequence[int]) -> str:
    return " ".join(map(str, numbers))
