"""Fields and gains of [IF] Tables 1 and 2; the organizer beside the layouts and gains of [3DRF].

`write` puts what `ifspace report` draws into CSV files: verdicts, trajectories, and the energies of
[Layout] by rank.

Reference: [3DRF] section 4.1 and Tables 3 to 5; [IF] Tables 1 and 2.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate, product
from pathlib import Path
from typing import Any, Final

from experiments.reproduction.count_tables import (
    ROLES,
    at_blocks,
    blocks_of,
    built,
    layouts,
    published,
)
from experiments.reproduction.page import (
    Judged,
    Outcome,
    Reading,
    Section,
    Verdict,
    agrees,
    braces,
    matched,
    totals,
)
from experiments.reproduction.printed import (
    COUNTED,
    DEPTHS,
    FIELDS,
    LEARNED,
    RESIDUAL,
    RESIDUAL_ENERGIES,
    VARIANTS,
    Counted,
    Widths,
)
from ifspace.energy.problem import EnergyProblem
from ifspace.energy.solve import best_energy
from ifspace.infofield import CAPS, spatial_field
from ifspace.reach import channel_fields
from ifspace.stages.layout import Layout, Stage
from ifspace.stages.networks import mobilenet, network, vgg
from ifspace.stages.organizer import TIES, Trajectory, organize
from ifspace.table import Table

FIELD: Final = "F"
NAME: Final = "G"
ALPHAS: Final = (1, 2, 3, 5, 10)
# [3DRF] section 5.1: the moves of ResNet-50 on CIFAR, in words.
TOLD_MOVES: Final = "3→1, 3→1, 4→2"


def fields_section() -> Section:
    """Return the section of the page."""
    layout = vgg("vgg11", 32)
    return Section(
        "[IF] Tables 1 and 2: fields and gains",
        [
            "Table 1: three 3x3 convolutions on a stage input of 8 x 8 x 128 (stage 3 of VGG-11 "
            "with one convolution more). A cell with one number is the same in both.",
            fields_table(layout.stages[2].at_depth(len(FIELDS))),
            "Table 2: the gain of one convolution more in a stage of VGG-11, by stage.",
            variants_table(layout),
        ],
        (Reading(FIELD, "[IF] Tables 1 and 2", "eqs. 1 to 4 as they stand, α = 3"),),
    )


def fields_table(stage: Stage) -> Judged:
    """Return Table 1 beside the fields and gains of a stage, whose blocks are single layers."""
    layers = [layer for block in stage.blocks for layer in block.layers]
    sides = [spatial_field([x.kernel for x in layers[:n]], stage.side) for n in range(1, 4)]
    channels = channel_fields(layers)
    gains = (None, *stage.gains())
    rows, verdicts = [], []
    for (k, *fields, gain), *ours, own in zip(
        FIELDS, sides, channels, stage.volumes(), gains, strict=True
    ):
        verdict: Verdict | None = Verdict(Outcome.MATCH, FIELD)
        if fields != ours:
            verdict = None
        elif gain is not None and own is not None:
            verdict = matched(FIELD, gain, own)
        cells = [f"{a}" if a == b else f"{a} / {b}" for a, b in zip(fields, ours, strict=True)]
        rows.append((k, *cells, gain, None if own is None else f"{own:.4f}"))
        verdicts.append(verdict or Verdict(Outcome.NO_READING, f"fields {ours}"))
    return Judged(
        "[IF]",
        "Table 1: layers",
        (">k", ">IF^w", ">IF^c", ">IF", ">gain printed", ">ours"),
        tuple(rows),
        tuple(verdicts),
    )


def variants_table(layout: Layout) -> Judged:
    """Return Table 2 beside the gain of one more block in each stage of a network."""
    rows, verdicts = [], []
    for number, (stage, (printed, accuracy, _)) in enumerate(
        zip(layout.stages, VARIANTS, strict=True), start=1
    ):
        own = stage.next_gain()
        rows.append((f"Variant-{number}", accuracy, printed, f"{own:.4f}"))
        verdicts.append(
            matched(FIELD, printed, own) or Verdict(Outcome.NO_READING, f"gain {own:.4f}")
        )
    return Judged(
        "[IF]",
        "Table 2: variants of VGG-11",
        ("network", ">accuracy", ">gain printed", ">ours"),
        tuple(rows),
        tuple(verdicts),
    )


@dataclass(frozen=True, slots=True)
class GainReading:
    """How the organizer's gains are measured, and of which layout Δ3DRF is the gain.

    `written`: by the sides that the stages write, not by those that enter them; `cap`: where the
    spatial field stops; `stem`: whether MobileNet's stem counts in its first stage; `tie`: which of
    stages with equal gains is taken; `of`: a name of `LAYOUTS`.
    """

    written: bool
    cap: str
    stem: bool
    tie: str
    of: str

    def __str__(self) -> str:
        caps = {"input": "capped at w0", "twice": "capped at 2 w0", "none": "not capped"}
        return (
            f"{'written' if self.written else 'entering'} sides, {caps[self.cap]}, MobileNet's "
            f"stem {'counted' if self.stem else 'not counted'}, ties to the {self.tie} stage, "
            f"Δ of {LAYOUTS[self.of]}"
        )


# Of which layout Δ3DRF is the gain over the network as it was.
LAYOUTS: Final = {
    "named": "the layout that the text names, else of the trajectory's end",
    "end": "the trajectory's end",
    "counts": "the layout with the printed counts",
}


@cache
def readings() -> tuple[GainReading, ...]:
    """Return all readings, the program's own first."""
    choices = product((False, True), CAPS, (False, True), TIES, LAYOUTS)
    return tuple(GainReading(*choice) for choice in choices)


@cache
def start(name: str, side: int, reading: GainReading) -> Layout:
    """Return a network as a reading sees it."""
    counted = name == "mobilenet" and reading.stem
    layout = mobilenet(side, stem_counts=True) if counted else network(name, side)
    return layout.at_written_sides() if reading.written else layout


@cache
def trajectory(name: str, side: int, reading: GainReading, alpha: float = 3) -> Trajectory[Layout]:
    """Return the organizer's steps from a network of the papers on, with a threshold of 0."""
    return organize(start(name, side, reading), alpha=alpha, cap=reading.cap, tie=reading.tie)


def side_of(row: Counted) -> int:
    """Return the side in pixels of the images of a row's data set."""
    return 224 if row.data == "ImageNet" else 32


def networks() -> list[tuple[str, int]]:
    """Return the networks of the tables with the sides of their images."""
    return list(dict.fromkeys((row.network, side_of(row)) for row in COUNTED))


def gain_of(row: Counted, reading: GainReading) -> float:
    """Return Δ3DRF of a row: what its layout gains more than the network as it was."""
    path = trajectory(row.network, side_of(row), reading)
    blocks: tuple[int, ...] | None = None
    if reading.of == "counts":
        blocks = published(row)
    elif reading.of == "named" and row.data != "ImageNet":
        blocks = DEPTHS.get(row.network)
    layout = path.end if blocks is None else at_blocks(path.start, blocks)
    return float(layout.gain(cap=reading.cap) - path.start.gain(cap=reading.cap))


def state_of(row: Counted, reading: GainReading) -> int | None:
    """Return the number of the published layout on the trajectory, from 0; None if it is not."""
    path = trajectory(row.network, side_of(row), reading)
    states = [blocks_of(layout) for layout in path.layouts]
    blocks = published(row)
    return states.index(blocks) if blocks in states else None


def moves_text(name: str, side: int, reading: GainReading) -> str:
    """Return the moves of a trajectory."""
    return ", ".join(map(str, trajectory(name, side, reading).moves))


@cache
def fits(reading: GainReading) -> tuple[int, int, int]:
    """Return how many gains, layouts and moves in words a reading explains."""
    return (
        sum(bool(agrees(row.gain, gain_of(row, reading))) for row in COUNTED),
        sum(state_of(row, reading) is not None for row in COUNTED),
        int(moves_text("resnet50", 32, reading) == TOLD_MOVES),
    )


@cache
def best_reading() -> GainReading:
    """Return the reading that explains most.

    Of several that which has the moves in words, of those the first, so the program's own tie.
    """
    return max(readings(), key=lambda reading: (sum(fits(reading)), fits(reading)[-1]))


def judge_gain(row: Counted) -> Verdict:
    """Return the verdict of a printed gain."""
    verdict = matched(NAME, row.gain, gain_of(row, best_reading()))
    return verdict or Verdict(Outcome.NO_READING, tried(row.gain, row))


def tried(printed: str, row: Counted) -> str:
    """Return how many readings have a printed gain, though not the chosen one."""
    having = sum(bool(agrees(printed, gain_of(row, reading))) for reading in readings())
    return f"{len(readings())} readings, {having} have it"


def judge_layout(row: Counted) -> Verdict:
    """Return whether the published layout is a state of the trajectory."""
    if state_of(row, best_reading()) is not None:
        return Verdict(Outcome.MATCH, NAME)
    before = sum(blocks_of(built(row.network, row.data)))
    fitting = [sum(blocks) for blocks in layouts(row)]
    if fitting and min(fitting) > before:
        return Verdict(
            Outcome.MISPRINT,
            f"the {len(fitting)} layouts with the printed counts have {min(fitting)} blocks or "
            f"more, and the organizer adds none to {before}",
        )
    visiting = [reading for reading in readings() if state_of(row, reading) is not None]
    if not visiting:
        return Verdict(Outcome.NO_READING, f"{len(readings())} readings, none visits it")
    best = max(visiting, key=lambda reading: sum(fits(reading)))
    gains, visited, moves = fits(best)
    number = len(COUNTED)
    text = (
        f"{len(visiting)} of {len(readings())} readings visit it, the best of them explains "
        f"{gains} of {number} gains and {visited} of {number} layouts ({difference(best)})"
    )
    if replace(best, tie=best_reading().tie) == best_reading():
        lost = "" if moves else ", but the moves in words are missed"
        text += f": state {state_of(row, best)} with `--tie {best.tie}`{lost}"
    return Verdict(Outcome.NO_READING, text)


def difference(reading: GainReading) -> str:
    """Return in what a reading differs from the chosen one."""
    pairs = zip(str(reading).split(", "), str(best_reading()).split(", "), strict=False)
    return ", ".join(own for own, other in pairs if own != other)


def runner_up_text() -> str:
    """Return how much the reading behind the chosen one explains, and why that one is chosen."""
    chosen = best_reading()
    others = (reading for reading in readings() if reading != chosen)
    other = max(others, key=lambda reading: sum(fits(reading)))
    total = sum(fits(other))
    if total < sum(fits(chosen)):
        return f"next {total}"
    gains, visited, moves = fits(other)
    return (
        f"as many with {difference(other)} ({gains} gains, {visited} layouts, {moves} lists of "
        "moves): of these the one that has the moves in words, then the program's own"
    )


def moves_section() -> Section:
    """Return the section of the page."""
    reading = best_reading()
    gains, visited, moves = fits(reading)
    number = len(COUNTED)
    return Section(
        "[3DRF] section 4.1 and Tables 3 to 5: layouts and gains of the organizer",
        [
            "θ = 0, α = 3. One reading is chosen for the gains, the layouts and the moves in the "
            f"text together, of {len(readings())}: sides that enter a stage or that it writes; the "
            "field capped at w0, at 2 w0 or not; MobileNet's stem counted in stage 1 or not; ties "
            "to the earlier or the later stage; Δ3DRF of the layout that the text names (else of "
            "the end), of the end, or of the layout with the printed counts. Δ3DRF is what a "
            "layout gains more than the network as it was, which is Σ(max − min) of its moves. "
            f"Chosen: {reading}. Trajectories under it:",
            trajectories_table(reading),
            gains_table(),
            "Is the layout with the printed counts (of those in the text the same) a state of the "
            "trajectory?",
            layouts_table(),
            "How many rows each way of measuring explains, with the best choice of ties and of "
            "the layout for each:",
            readings_by_measure(),
            "MobileNet both ways. Its layout for CIFAR needs written sides and the stem counted, "
            "its printed gains the entering sides without the stem; no reading has both:",
            mobilenet_table(),
            "Ends of the trajectories under other α, of which the paper says that it hardly "
            "matters:",
            alphas_table(),
        ],
        (
            Reading(
                NAME,
                "[3DRF] Tables 3 to 5: Δ3DRF and layouts",
                f"α = 3, θ = 0; {reading}",
                len(readings()),
                f"{gains} of {number} gains, {visited} of {number} layouts, {moves} of 1 list of "
                f"moves: {sum(fits(reading))} of {2 * number + 1} in all; {runner_up_text()}",
            ),
        ),
    )


def trajectories_table(reading: GainReading) -> Table:
    """Return the trajectories under a reading."""
    rows = []
    for name, side in networks():
        path = trajectory(name, side, reading)
        rows.append(
            (
                name,
                side,
                " ".join(str(stage.side) for stage in path.start.stages),
                braces(path.start.depths),
                ", ".join(map(str, path.moves)),
                braces(path.end.depths),
                f"{path.moved_gain:.4f}",
            )
        )
    header = ("network", ">images", ">sides", "start", "moves", "end", ">Σ(max − min)")
    return Table(header, tuple(rows))


def gains_table() -> Judged:
    """Return the printed gains beside ours."""
    reading = best_reading()
    open_cap = GainReading(reading.written, "none", reading.stem, reading.tie, reading.of)
    rows = tuple(
        (
            row.network + ROLES[1],
            row.data,
            row.gain,
            f"{gain_of(row, reading):.4f}",
            f"{gain_of(row, open_cap):.4f}",
        )
        for row in COUNTED
    )
    return Judged(
        "[3DRF]",
        "Tables 3 to 5: Δ3DRF",
        ("network", "data", ">printed", ">ours", ">not capped"),
        rows,
        tuple(map(judge_gain, COUNTED)),
    )


def layouts_table() -> Judged:
    """Return where the published layouts stand on the trajectories, and the moves in words."""
    reading = best_reading()
    rows: list[tuple[object, ...]] = []
    for row in COUNTED:
        state = state_of(row, reading)
        last = len(trajectory(row.network, side_of(row), reading).moves)
        rows.append(
            (
                row.network + ROLES[1],
                row.data,
                braces(published(row) or ()),
                None if state is None else f"{state} of {last}",
            )
        )
    moves = moves_text("resnet50", 32, reading)
    rows.append(("resnet50-opt, moves in words", "CIFAR-10", TOLD_MOVES, moves))
    verdict = (
        Verdict(Outcome.MATCH, NAME)
        if moves == TOLD_MOVES
        else Verdict(Outcome.NO_READING, f"{len(readings())} readings")
    )
    return Judged(
        "[3DRF]",
        "Tables 3 to 5: layouts",
        ("network", "data", "printed", ">state"),
        tuple(rows),
        (*map(judge_layout, COUNTED), verdict),
    )


def readings_by_measure() -> Table:
    """Return for each measure how many gains and layouts it explains at best."""
    rows = []
    for written, cap, stem in product((False, True), CAPS, (False, True)):
        own = [r for r in readings() if (r.written, r.cap, r.stem) == (written, cap, stem)]
        best = max(own, key=lambda reading: sum(fits(reading)))
        gains, visited, moves = fits(best)
        rows.append(
            (
                "written" if written else "entering",
                cap,
                "counted" if stem else "not counted",
                gains,
                visited,
                moves,
            )
        )
    number = len(COUNTED)
    header = (
        "sides",
        "cap",
        "MobileNet's stem",
        f">gains of {number}",
        f">layouts of {number}",
        ">moves in words",
    )
    return Table(header, tuple(rows))


def mobilenet_table() -> Table:
    """Return MobileNet's printed layouts and gains under the readings that explain either."""
    rows = []
    own = [row for row in COUNTED if row.network == "mobilenet" and row.data != "CIFAR-100"]
    for written, stem in ((False, False), (True, True)):
        reading = next(
            r
            for r in sorted(readings(), key=lambda r: sum(fits(r)), reverse=True)
            if (r.written, r.stem) == (written, stem)
        )
        for row in own:
            path = trajectory("mobilenet", side_of(row), reading)
            state = state_of(row, reading)
            rows.append(
                (
                    f"{'written' if written else 'entering'} sides, stem "
                    f"{'counted' if stem else 'not counted'}",
                    row.data,
                    " ".join(braces(blocks_of(layout)) for layout in path.layouts),
                    f"{braces(published(row) or ())}: "
                    + ("not visited" if state is None else f"state {state}"),
                    row.gain,
                    f"{gain_of(row, reading):.3f}",
                )
            )
    header = ("reading", "data", "states, in blocks", "printed layout", ">printed Δ", ">ours")
    return Table(header, tuple(rows))


def alphas_table() -> Table:
    """Return the end of each trajectory for each α."""
    reading = best_reading()
    rows = tuple(
        (
            name,
            side,
            *(braces(trajectory(name, side, reading, alpha).end.depths) for alpha in ALPHAS),
        )
        for name, side in networks()
    )
    return Table(("network", ">images", *(f"α = {alpha}" for alpha in ALPHAS)), rows)


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
    """Yield for each judged table how many of its rows there are and how they are judged."""
    for section in sections:
        for table in section.judged:
            rows, match, misprint, without = totals([table])
            yield {
                "table": f"{table.paper} {table.name}",
                "rows": rows,
                "match": match,
                "misprint": misprint,
                "no reading": without,
            }


def trajectory_rows() -> Iterator[Row]:
    """Yield every state of the organizer's trajectories from the networks of the papers.

    As `ifspace organize` takes them. `moved_gain` is Σ(max − min) of the moves so far, `gain` the
    total gain of the layout; `published`: the data sets for which a layout of these depths was
    published.
    """
    for name, side in networks():
        states = organize(network(name, side))
        marks: dict[tuple[int, ...], list[str]] = {}
        for row in COUNTED:
            if (row.network, side_of(row)) == (name, side):
                marks.setdefault(published(row) or (), []).append(row.data)
        moved_gains = accumulate((move.max - move.min for move in states.moves), initial=0.0)
        for step, (layout, move, moved) in enumerate(
            zip(states.layouts, (None, *states.moves), moved_gains, strict=True)
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
