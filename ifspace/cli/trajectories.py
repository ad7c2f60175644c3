"""What `ifspace organize` prints: the layouts move by move, beside those that were published."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ifspace.catalogue.export import csv_table, json_text, markdown_table
from ifspace.cli.options import Forms
from ifspace.cli.tables import facts, heading, table
from ifspace.plan import listed
from ifspace.plan.moves import Move, Trajectory
from ifspace.plan.published_layouts import PublishedLayout
from ifspace.plan.stages import Layout

_COLUMNS = (
    "alpha", "step", "source", "target", "min", "max", "depths", "gain", "params", "macs",
    "layers", "width_sum", "published",
)  # fmt: skip


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
class _State:
    """A layout on the way, the step that led to it, and what was published with its depths."""

    step: int
    move: Move | None
    layout: Layout
    gain: float
    published: tuple[PublishedLayout, ...]

    @property
    def amounts(self) -> dict[str, Any]:
        """The gain, and what stands beside it: it is a proxy, and one of them may say as much."""
        return {
            "depths": list(self.layout.depths),
            "gain": self.gain,
            "params": self.layout.params,
            "macs": self.layout.macs,
            "layers": self.layout.layers,
            "width_sum": self.layout.width_sum,
        }

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
    cells = [_cells(alpha, s) for alpha, each in found.items() for s in _states(asked, each, alpha)]
    return {
        "table": lambda: _text(asked, found),
        "json": lambda: json_text(_values(asked, found) | {"saved": saved}),
        "csv": lambda: csv_table(_COLUMNS, cells),
        "markdown": lambda: markdown_table(
            _COLUMNS, [["" if cell is None else str(cell) for cell in row] for row in cells]
        ),
    }


def _states(asked: Asked, found: Trajectory[Layout], alpha: float) -> list[_State]:
    return [
        _State(
            step, move, layout, layout.gain(alpha),
            tuple(each for each in asked.published if each.depths == layout.depths),
        )
        for step, (move, layout) in enumerate(
            zip((None, *found.moves), found.layouts, strict=True)
        )
    ]  # fmt: skip


def _cells(alpha: float, state: _State) -> list[Any]:
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
        "published": [
            asdict(each)
            | {"layout_params": each.layout.params, "layout_macs": each.layout.macs}
            | {"step": _step_of(each, main), "moved_gain": _moved(main, _step_of(each, main))}
            for each in asked.published
        ],
    }
    if len(found) > 1:
        values["alphas"] = [
            _trajectory(asked, each, alpha) | {"same_moves": _route(each) == _route(main)}
            for alpha, each in found.items()
        ]
    return values


def _trajectory(asked: Asked, found: Trajectory[Layout], alpha: float) -> dict[str, Any]:
    first, *later = _states(asked, found, alpha)
    return {
        "alpha": alpha,
        "start": first.amounts,
        "moves": [
            {**(_step(state.move) or {}), **state.amounts, "published": _tables(state)}
            for state in later
        ],
        "stopped": found.stopped.name.lower(),
        "message": found.stopped.value,
        "untaken": _step(found.untaken),
        "moved_gain": found.moved_gain,
        **[first, *later][-1].amounts,
    }


def _tables(state: _State) -> list[int]:
    return [each.table for each in state.published]


def _route(found: Trajectory[Layout]) -> list[str]:
    return [str(move) for move in found.moves]


def _step_of(published: PublishedLayout, found: Trajectory[Layout]) -> int | None:
    """Return the step after which a published layout is reached, 0 for the start."""
    depths = [layout.depths for layout in found.layouts]
    return depths.index(published.depths) if published.depths in depths else None


def _moved(found: Trajectory[Layout], steps: int | None) -> float:
    """Return Σ(max − min) of the first steps, of all if None."""
    return replace(found, moves=found.moves[:steps]).moved_gain


def _text(asked: Asked, found: Mapping[float, Trajectory[Layout]]) -> str:
    main, alpha = found[asked.alpha], asked.alpha
    title = f"{asked.title}: θ = {asked.theta:g}, α = {alpha:g}"
    columns = [">#", "move", ">min", ">max", "depths", ">gain", ">params", ">MACs", ">layers",
               ">Σwidth"]  # fmt: skip
    columns += ["table"] if asked.published else []
    rows = []
    for state in _states(asked, main, alpha):
        move = state.move
        taken = ["", "", ""] if move is None else [move, f"{move.min:.3f}", f"{move.max:.3f}"]
        layout = state.layout
        counts = [layout.params, layout.macs, layout.layers, layout.width_sum]
        amounts = [f"{state.gain:.2f}", *map(short, counts), state.tables]
        rows.append([state.step, *taken, _comma(layout.depths), *amounts][: len(columns)])
    text = heading(title) + table(columns, rows) + "\n" + facts(_said(asked, main))
    return text if len(found) == 1 else text + "\n" + _compared(asked, found)


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
        ("stopped", found.stopped.value + _last(found.untaken)),
        ("Σ(max − min)", f"{found.moved_gain:.3f} over the moves"),
    ]
    names = ["published", *[""] * len(asked.published)]
    lines = [_published(each, found) for each in asked.published]
    return said + list(zip(names, lines, strict=False))


def _last(untaken: Move | None) -> str:
    if untaken is None:
        return ""
    return f" ({untaken.source}→{untaken.target}: min {untaken.min:.3f}, max {untaken.max:.3f})"


def _published(each: PublishedLayout, found: Trajectory[Layout]) -> str:
    """Return where a published layout stands, and where print and count differ."""
    step, end = _step_of(each, found), len(found.moves)
    if step is None:
        where = "no state here"
    elif step == end:
        where = f"step {step}, the end"
    else:
        where = f"step {step}, {end - step} before the end"
    text = f"[3DRF] Table {each.table}, {each.data}: {each.params}M is "
    text += f"{{{_comma(each.depths)}}}, {where}"
    if not each.has_printed_params:
        text += f", {each.layout.params / 1e6:.2f}M by our count"
    sums = [f"{_moved(found, at):.2f} {when}" for at, when in ((step, "up to it"), (end, "in all"))
            if at is not None and (at, when) != (end, "up to it")]  # fmt: skip
    return f"{text}; Δ3DRF printed {each.gain}, here {', '.join(sums)}"


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
