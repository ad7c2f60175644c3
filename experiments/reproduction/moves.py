"""The organizer's trajectories, move by move, and the published layouts and gains on them.

Reference: [3DRF] section 4.1 and Tables 3 to 5.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Final

from experiments.reproduction.conventions import built
from experiments.reproduction.count_tables import (
    ROLES,
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
    Counted,
    Expected,
)
from ifspace.stages.layout import Layout
from ifspace.stages.networks import network
from ifspace.stages.organizer import Trajectory, organize
from ifspace.table import Table

ALPHAS: Final = (1, 2, 3, 5, 10)


@cache
def trajectory(name: str, side: int, alpha: float = 3) -> Trajectory[Layout]:
    """Return the organizer's steps from a network of the papers on, with a threshold of 0."""
    return organize(network(name, side), alpha=alpha)


def sums(path: Trajectory[Layout]) -> list[float]:
    """Return Σ(max − min) after 0, 1, 2 … moves."""
    return list(accumulate((move.max - move.min for move in path.moves), initial=0.0))


def side_of(row: Counted) -> int:
    """Return the side of the images of a row's data set, in pixels."""
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
    """Return the known moves and states, and whether the program has them."""
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
    """Return whether moves, states and their number are the known ones, or what differs."""
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
class Published:
    """A published layout, where it is published, and its number on a trajectory if it has one."""

    network: str
    data: str
    source: str
    depths: tuple[int, ...]
    state: int | None
    moves: int


def published() -> Iterator[Published]:
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
            place = states.index(depths) if depths in states else None
            yield Published(row.network, row.data, source, depths, place, len(states) - 1)


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
            judged, place = MATCH, f"{layout.state} of {layout.moves}"
        else:
            place = "none"
            judged = "not visited" + (
                f"; visited with sides for {on_other[0]} x {on_other[0]}" if on_other else ""
            )
        rows.append(
            [
                layout.network + ROLES[1],
                layout.data,
                layout.source,
                braces(layout.depths),
                place,
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
