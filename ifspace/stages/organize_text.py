"""What `ifspace organize` prints: the layouts move by move, beside those that were published."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ifspace.catalogue.export import csv_table, json_text, markdown_table
from ifspace.cli.options import Forms
from ifspace.stages.layout import Layout
from ifspace.stages.moves import (
    Move,
    Trajectory,
)
from ifspace.stages.published import PublishedLayout
from ifspace.stages.published_text import Beside
from ifspace.table import (
    facts,
    heading,
    table,
)
from ifspace.values import listed

_COLUMNS = (
    "alpha",
    "step",
    "source",
    "target",
    "min",
    "max",
    "depths",
    "gain",
    "params",
    "macs",
    "layers",
    "width_sum",
    "published",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked for: of what in words, the threshold, the alpha that is shown in full.

    `network` is None where the stages were described one by one; `published`: what there is of it.
    """

    title: str
    network: str | None
    published: tuple[PublishedLayout, ...]
    theta: float
    alpha: float


@dataclass(frozen=True, slots=True)
class State:
    """A layout on the way, the step that led to it, and what was published with its depths.

    The layout may be that of a traced network, whose stages alone are known.
    """

    step: int | str
    move: Move | None
    layout: Any
    gain: float
    published: tuple[PublishedLayout, ...] = ()

    @property
    def amounts(self) -> dict[str, Any]:
        """The gain, and what stands beside it: it is a proxy, and one of them may say as much."""
        amounts = {
            "depths": list(self.layout.depths),
            "gain": self.gain,
            "params": self.layout.params,
            "macs": self.layout.macs,
        }
        if isinstance(self.layout, Layout):
            amounts |= {"layers": self.layout.layers, "width_sum": self.layout.width_sum}
        return amounts

    @property
    def values(self) -> dict[str, Any]:
        """The move and what it leads to."""
        return {**(_step(self.move) or {}), **self.amounts, "published": _tables(self)}

    @property
    def tables(self) -> str:
        """The tables of [3DRF] that print it."""
        return ", ".join(str(each.table) for each in self.published)


def forms(
    asked: Asked, found: Mapping[float, Trajectory[Layout]], saved: str | None = None
) -> Forms:
    """Return the trajectories, by alpha, in every format; that of `asked.alpha` in full.

    `saved`: the file that the end of that one is written to.
    """
    cells = [
        _cells(alpha, s)
        for alpha, each in found.items()
        for s in states(each, alpha, asked.published)
    ]
    return {
        "table": lambda: _text(asked, found),
        "json": lambda: json_text(_values(asked, found) | {"saved": saved}),
        "csv": lambda: csv_table(_COLUMNS, cells),
        "markdown": lambda: markdown_table(
            _COLUMNS, [["" if cell is None else str(cell) for cell in row] for row in cells]
        ),
    }


def states(
    found: Trajectory[Any], alpha: float, published: Sequence[PublishedLayout]
) -> list[State]:
    """Return the start and what it is after each move, each with what was published of it."""
    return [
        State(
            step,
            move,
            layout,
            layout.gain(alpha),
            tuple(each for each in published if each.depths == layout.depths),
        )
        for step, (move, layout) in enumerate(zip((None, *found.moves), found.layouts, strict=True))
    ]


def _cells(alpha: float, state: State) -> list[Any]:
    amounts = state.amounts
    amounts["depths"] = ",".join(map(str, state.layout.depths))
    move = _step(state.move) or dict.fromkeys(("source", "target", "min", "max"))
    return [alpha, state.step, *move.values(), *amounts.values(), state.tables or None]


def _step(move: Move | None) -> dict[str, Any] | None:
    if move is None:
        return None
    return {"source": move.source, "target": move.target, "min": move.min, "max": move.max}


def _values(asked: Asked, found: Mapping[float, Trajectory[Layout]]) -> dict[str, Any]:
    main = found[asked.alpha]
    values = {
        "network": asked.network,
        "theta": asked.theta,
        "stages": [stage.side for stage in main.start.stages],
        "widths": list(main.start.widths),
        "blocks": list(main.start.blocks),
        **_trajectory(asked, main, asked.alpha),
        "published": [Beside(each, main).values for each in asked.published],
    }
    if len(found) > 1:
        values["alphas"] = [
            _trajectory(asked, each, alpha) | {"same_moves": _route(each) == _route(main)}
            for alpha, each in found.items()
        ]
    return values


def _trajectory(asked: Asked, found: Trajectory[Layout], alpha: float) -> dict[str, Any]:
    first, *later = states(found, alpha, asked.published)
    return {
        "alpha": alpha,
        "start": first.amounts,
        "moves": [state.values for state in later],
        "stopped": found.stopped.name.lower(),
        "message": found.stopped.value,
        "untaken": _step(found.untaken),
        "moved_gain": found.moved_gain,
        **[first, *later][-1].amounts,
    }


def _tables(state: State) -> list[int]:
    return [each.table for each in state.published]


def _route(found: Trajectory[Layout]) -> list[str]:
    return [str(move) for move in found.moves]


def _text(asked: Asked, found: Mapping[float, Trajectory[Layout]]) -> str:
    main, alpha = found[asked.alpha], asked.alpha
    title = f"{asked.title}: θ = {asked.theta:g}, α = {alpha:g}"
    found_states = states(main, alpha, asked.published)
    text = heading(title) + moves_table(found_states, bool(asked.published))
    text += "\n" + facts(_said(asked, main))
    return text if len(found) == 1 else text + "\n" + _compared(asked, found)


def moves_table(
    found: Sequence[State], tables: bool, notes: Mapping[Any, str] | None = None
) -> str:
    """Return a table with a row a state; `tables`: with the tables of [3DRF] that print it.

    `notes`: what to say of states, by their steps.
    """
    columns = [">#", "move", ">min", ">max", "depths", ">gain", ">params", ">MACs"]
    whole = notes is None
    columns += [">layers", ">Σwidth"] if whole else []
    columns += ["table"] if tables else []
    columns += [] if whole else ["notes~"]
    rows = []
    for state in found:
        move = state.move
        taken = ["", "", ""] if move is None else [move, f"{move.min:.3f}", f"{move.max:.3f}"]
        depths, gain, *counts = state.amounts.values()
        row = [state.step, *taken, _comma(depths), f"{gain:.2f}"]
        row += map(short, counts if whole else counts[:2])
        row += [state.tables] if tables else []
        row += [] if notes is None else [notes.get(state.step, "")]
        rows.append(row)
    return table(columns, rows)


def short(count: int) -> str:
    """Return an amount as the tables of papers have it; below a million every digit.

    >>> short(112320), short(5098826), short(16857530368)
    ('112,320', '5.10M', '16.86G')
    """
    for power, letter in ((10**9, "G"), (10**6, "M")):
        if count >= power:
            return f"{count / power:.2f}{letter}"
    return f"{count:,}"


def _comma(values: Any) -> str:
    return ",".join(map(str, values))


def _said(asked: Asked, found: Trajectory[Layout]) -> list[tuple[str, str]]:
    start = found.start
    blocks = start.blocks if len(set(start.blocks)) > 1 else start.blocks[:1]
    sides = ", ".join(str(stage.side) for stage in start.stages)
    said = [
        ("sides", sides),
        ("widths", ", ".join(map(str, start.widths))),
        ("blocks", ", ".join(blocks)),
        *ended(found),
    ]
    names = ["published", *[""] * len(asked.published)]
    lines = [str(Beside(each, found)) for each in asked.published]
    return said + list(zip(names, lines, strict=False))


def ended(found: Trajectory[Any]) -> list[tuple[str, str]]:
    """Return why the moves ended, and what they gained."""
    return [
        ("stopped", found.stopped.value + _last(found.untaken)),
        ("Σ(max − min)", f"{found.moved_gain:.3f} over the moves"),
    ]


def _last(untaken: Move | None) -> str:
    if untaken is None:
        return ""
    return f" ({untaken.source}→{untaken.target}: min {untaken.min:.3f}, max {untaken.max:.3f})"


def _compared(asked: Asked, found: Mapping[float, Trajectory[Layout]]) -> str:
    main = found[asked.alpha]
    rows = []
    for alpha, each in sorted(found.items()):
        amounts = [f"{each.end.gain(alpha):.2f}", f"{each.moved_gain:.2f}"]
        rows.append([f"{alpha:g}", _comma(each.end.depths), *amounts, " ".join(_route(each))])
    others = [alpha for alpha in sorted(found) if alpha != asked.alpha]
    same = [alpha for alpha in others if _route(found[alpha]) == _route(main)]
    ends = [a for a in others if a not in same and found[a].end == main.end]
    other = [alpha for alpha in others if alpha not in (*same, *ends)]
    said = [
        (name, f"α = {listed(f'{alpha:g}' for alpha in alphas)}")
        for name, alphas in (
            (f"moves as for α = {asked.alpha:g}", same),
            ("other moves to the same end", ends),
            ("another end", other),
        )
        if alphas
    ]
    columns = [">α", "end", ">gain", ">Σ(max − min)", "moves~"]
    return heading("Compared") + table(columns, rows) + "\n" + facts(said)
