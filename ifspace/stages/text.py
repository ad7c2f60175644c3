"""What `ifspace organize` prints, in every format, and words for layouts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from ifspace.cli.options import Forms
from ifspace.serialize import json_text
from ifspace.stages.layout import Layout
from ifspace.stages.networks import PublishedLayout, published_layouts
from ifspace.stages.organizer import Move, Trajectory
from ifspace.table import Table, facts, heading
from ifspace.values import listed

Facts = list[tuple[str, str]]
# Where a network has another name than in the papers, whatever the package.
_PAPER_NAMES: Final[Mapping[str, str]] = {
    "vgg16_bn": "vgg16",
    "vgg19_bn": "vgg19",
    "mobilenetv1_100": "mobilenet",
}
# The cap of the field that all printed gains of [3DRF] Tables 3 to 5 come out with.
PRINTED_CAP: Final = "twice"
_ORGANIZE_COLUMNS: Final = (
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


def short(count: int) -> str:
    """Return an amount as the tables of papers have it; below a million every digit.

    >>> short(112320), short(5098826), short(16857530368)
    ('112,320', '5.10M', '16.86G')
    """
    for power, letter in ((10**9, "G"), (10**6, "M")):
        if count >= power:
            return f"{count / power:.2f}{letter}"
    return f"{count:,}"


def cap_text(cap: str) -> str:
    """Return what a title says of the cap of the field; nothing of that of [IF] eq. 2.

    >>> cap_text("none"), cap_text("input")
    (', no cap', '')
    """
    return {"input": "", "twice": ", cap at twice the side"}.get(cap, ", no cap")


def published_depths(row: PublishedLayout, layout: Any) -> tuple[int, ...]:
    """Return the depths of a published layout as a layout counts them.

    The stages of a traced network have all its layers, as those of a layout whose stem counts.
    """
    blocks_alone = isinstance(layout, Layout) and not layout.stem_and_head.stem_counts
    return row.depths if blocks_alone else row.depths_with_stem


def published_of(model: str, image: tuple[int, int, int]) -> tuple[PublishedLayout, ...]:
    """Return what was published of the network that MODEL stands for, on square images.

    >>> [row.table for row in published_of("torchvision:vgg16_bn", (3, 32, 32))]
    [3, 4]
    """
    name = model.strip().lower().rpartition(":")[2].partition(".")[0]
    if model.lower().rpartition(":")[0].endswith(".py") or image[1] != image[2]:
        return ()
    return published_layouts(_PAPER_NAMES.get(name, name), image[1])


@dataclass(frozen=True, slots=True)
class PublishedComparison:
    """A published layout beside the states of the organizer.

    `classifier`: the parameters of the network's own dense layers, None where they are those of the
    papers. `other`: the trajectory with ties resolved the other way. `alpha`: that of both.
    """

    published: PublishedLayout
    trajectory: Trajectory[Any]
    classifier: int | None = None
    other: Trajectory[Any] | None = None
    alpha: float = 3

    @property
    def depths(self) -> tuple[int, ...]:
        """The published depths as they count here."""
        return published_depths(self.published, self.trajectory.start)

    @property
    def step(self) -> int | None:
        """The step after which the layout is reached, 0 for the start; None if it never is."""
        depths = [layout.depths for layout in self.trajectory.layouts]
        published = self.depths
        return depths.index(published) if published in depths else None

    @property
    def counted(self) -> list[int]:
        """The steps after which the network has as many parameters as were printed."""
        return [
            step
            for step, layout in enumerate(self.trajectory.layouts)
            if f"{layout.params / 1e6:.2f}" == self.published.params
        ]

    @property
    def values(self) -> dict[str, Any]:
        """What was published, and where it stands here."""
        own = None if self.step is None else self.trajectory.layouts[self.step].params
        return asdict(self.published) | {
            "depths": self.depths,
            "layout_params": self.published.layout.params,
            "layout_macs": self.published.layout.macs,
            "step": self.step,
            "moved_gain": self._moved_gain(self.step),
            "layout_gain": self.layout_gain,
            "own_params": own,
            "counted": self.counted,
        }

    @property
    def layout_gain(self) -> float | None:
        """What the published layout gains more than the start, whether or not moves lead to it.

        None where a stage keeps more units than it has there.

        Reference: [3DRF] Tables 3 to 5, column Δ3DRF.
        """
        start, cap = self.trajectory.start, self.trajectory.cap
        pairs = zip(start.stages, self.depths, strict=True)
        if any(depth < stage.min_depth for stage, depth in pairs):
            return None
        layout = start.at_depths(self.depths)
        return float(layout.gain(self.alpha, cap) - start.gain(self.alpha, cap))

    def _moved_gain(self, steps: int | None) -> float:
        """Return Σ(max − min) of the first steps, of all if None."""
        return replace(self.trajectory, moves=self.trajectory.moves[:steps]).moved_gain

    def __str__(self) -> str:
        row, step, end = self.published, self.step, len(self.trajectory.moves)
        if step is None:
            where = "no state here"
            if self.other and self.depths in [layout.depths for layout in self.other.layouts]:
                where += f", one with --tie {self.other.tie}"
        elif step == end:
            where = f"step {step}, the end"
        else:
            where = f"step {step}, {end - step} before the end"
        text = f"[3DRF] Table {row.table}, {row.data}: {row.params}M is "
        text += f"{{{commas(self.depths)}}}, {where}"
        if not row.has_printed_params:
            text += f", {row.layout.params / 1e6:.2f}M by our count"
        text += self._own_count()
        gains = [f"{self._moved_gain(end):.2f} in all"]
        if step is None:
            if (gain := self.layout_gain) is not None:
                gains.insert(0, f"{gain:.2f} for that layout")
        elif step != end:
            gains.insert(0, f"{self._moved_gain(step):.2f} up to it")
        return f"{text}; Δ3DRF printed {row.gain}, here {', '.join(gains)}"

    def _own_count(self) -> str:
        """Return how far the network's own count is from that of the published layout, and why."""
        if self.step is None:
            others = commas(self.counted, ", ")
            return f"; step {others} has as many parameters" if others else ""
        own = self.trajectory.layouts[self.step].params
        more = own - self.published.layout.params
        if not more or self.classifier is None:
            return ""
        theirs = _classifier_params(self.published.layout)
        rest = more - (self.classifier - theirs)
        text = f"; here {own / 1e6:.2f}M"
        if self.classifier != theirs:
            text += f": its classifier has {self.classifier:,}, that of the table {theirs:,}"
        if rest:
            text += f"{' and' if self.classifier != theirs else ':'} {rest:+,} in biases and "
            text += "batch norm"
        return text


def published_facts(comparisons: Sequence[PublishedComparison]) -> Facts:
    """Return the published layouts, and with which cap their tables were made if with another."""
    lines = list(map(str, comparisons))
    if any(comparison.trajectory.cap != PRINTED_CAP for comparison in comparisons):
        lines.append(f"the tables were made with --cap {PRINTED_CAP}")
    return [("" if index else "published", line) for index, line in enumerate(lines)]


def _classifier_params(layout: Layout) -> int:
    """Return the parameters of the dense layers of a layout."""
    width, ends = layout.stages[-1].width, layout.stem_and_head
    return ends.params(width) - replace(ends, classifier=()).params(width)


@dataclass(frozen=True, slots=True)
class LayoutState:
    """A layout of a trajectory, the move that led to it, and what was published with its depths.

    The layout may be that of a traced network, of which the stages alone are known.
    """

    step: int | str
    move: Move | None
    layout: Any
    gain: float
    published: tuple[PublishedLayout, ...] = ()

    @property
    def amounts(self) -> dict[str, Any]:
        """The gain and what may explain as much: the gain is a proxy."""
        amounts = {
            "depths": self.layout.depths,
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
        published = [row.table for row in self.published]
        return {**(_move_values(self.move) or {}), **self.amounts, "published": published}

    @property
    def tables(self) -> str:
        """The tables of [3DRF] that print it."""
        return commas((row.table for row in self.published), ", ")


def states(
    trajectory: Trajectory[Any],
    alpha: float,
    published: Sequence[PublishedLayout],
    cap: str = "input",
) -> list[LayoutState]:
    """Return the start and the state after each move, each with what was published of it."""
    pairs = zip((None, *trajectory.moves), trajectory.layouts, strict=True)
    return [
        LayoutState(
            step,
            move,
            layout,
            layout.gain(alpha, cap),
            tuple(row for row in published if published_depths(row, layout) == layout.depths),
        )
        for step, (move, layout) in enumerate(pairs)
    ]


def moves_table(
    trajectory: Sequence[LayoutState], tables: bool, notes: Mapping[Any, str] | None = None
) -> str:
    """Return a table with a row for each state; `tables`: with the tables of [3DRF] that print it.

    `notes`: remarks on states, by their steps; they stand in place of layers and widths.
    """
    columns = [">#", "move", ">min", ">max", "depths", ">gain", ">params", ">MACs"]
    columns += [">layers", ">Σwidth"] if notes is None else []
    columns += ["table"] if tables else []
    columns += [] if notes is None else ["notes~"]
    rows = []
    for state in trajectory:
        move = state.move
        moved = ("", "", "") if move is None else (move, f"{move.min:.3f}", f"{move.max:.3f}")
        depths, gain, *counts = state.amounts.values()
        row = [str(state.step), *moved, commas(depths), f"{gain:.2f}"]
        row += map(short, counts if notes is None else counts[:2])
        row += [state.tables] if tables else []
        row += [] if notes is None else [notes.get(state.step, "")]
        rows.append(tuple(row))
    return Table(tuple(columns), tuple(rows)).text()


def ending_facts(trajectory: Trajectory[Any], other: Trajectory[Any] | None = None) -> Facts:
    """Return why the moves ended, what they gained, and where stages tied."""
    stopped, untaken = trajectory.stopped.value, trajectory.untaken
    if untaken is not None:
        stopped += f" ({untaken.source}→{untaken.target}: min {untaken.min:.3f}, "
        stopped += f"max {untaken.max:.3f})"
    return [
        ("stopped", stopped),
        ("Σ(max − min)", f"{trajectory.moved_gain:.3f} over the moves"),
        *([("ties", _ties_text(trajectory, other))] if trajectory.ties else []),
    ]


def _ties_text(trajectory: Trajectory[Any], other: Trajectory[Any] | None) -> str:
    """Return which stages tied at which steps, and where the `other` way to resolve them ends."""
    tied: dict[str, list[int]] = {}
    for step, move in trajectory.ties:
        for role, stages in (("source", move.sources), ("target", move.targets)):
            if stages:
                words = f"stages {listed(map(str, stages))} are equal as {role}"
                tied.setdefault(words, []).append(step)
    text = "; ".join(
        f"{words} in step{'s' * (len(steps) > 1)} {listed(map(str, steps))}"
        for words, steps in tied.items()
    )
    if other is None:
        return text
    same = other.end.depths == trajectory.end.depths
    end = "has the same end" if same else f"ends at {{{commas(other.end.depths)}}}"
    return f"{text}; --tie {other.tie} {end}"


@dataclass(frozen=True, slots=True)
class OrganizeReport:
    """The trajectories of the organizer, by alpha, beside what was published of the network.

    `network` is None where the stages were described one by one. The trajectory of `alpha` is shown
    in full; `other` is that of the same alpha with the ties resolved the other way.
    """

    title: str
    network: str | None
    published: tuple[PublishedLayout, ...]
    theta: float
    alpha: float
    trajectories: Mapping[float, Trajectory[Layout]]
    other: Trajectory[Layout]

    @property
    def trajectory(self) -> Trajectory[Layout]:
        """The trajectory that is shown in full."""
        return self.trajectories[self.alpha]

    @property
    def comparisons(self) -> list[PublishedComparison]:
        """The published layouts beside the trajectory that is shown."""
        return [
            PublishedComparison(row, self.trajectory, other=self.other, alpha=self.alpha)
            for row in self.published
        ]

    def forms(self, saved: str | None = None) -> Forms:
        """Return the report in every format; `saved`: the file that the end is written to."""
        table = self._table()
        return {
            "table": self._text,
            "json": lambda: json_text(self._values() | {"saved": saved}),
            "csv": table.csv,
            "markdown": table.markdown,
        }

    def _table(self) -> Table:
        rows = []
        for alpha, trajectory in self.trajectories.items():
            for state in states(trajectory, alpha, self.published, trajectory.cap):
                move = _move_values(state.move) or dict.fromkeys(("source", "target", "min", "max"))
                amounts = state.amounts | {"depths": commas(state.layout.depths)}
                rows.append(
                    (alpha, state.step, *move.values(), *amounts.values(), state.tables or None)
                )
        return Table(_ORGANIZE_COLUMNS, tuple(rows))

    def _values(self) -> dict[str, Any]:
        start = self.trajectory.start
        values = {
            "network": self.network,
            "theta": self.theta,
            "cap": self.trajectory.cap,
            "tie": self.trajectory.tie,
            "stages": [stage.side for stage in start.stages],
            "sides_out": [stage.side_out for stage in start.stages],
            "widths": start.widths,
            "blocks": start.blocks,
            **self._trajectory_values(self.alpha),
            "published": [comparison.values for comparison in self.comparisons],
            "other_tie": {"tie": self.other.tie, "depths": self.other.end.depths},
        }
        if len(self.trajectories) > 1:
            moves = _move_texts(self.trajectory)
            values["alphas"] = [
                self._trajectory_values(alpha) | {"same_moves": _move_texts(trajectory) == moves}
                for alpha, trajectory in self.trajectories.items()
            ]
        return values

    def _trajectory_values(self, alpha: float) -> dict[str, Any]:
        trajectory = self.trajectories[alpha]
        first, *later = states(trajectory, alpha, self.published, trajectory.cap)
        return {
            "alpha": alpha,
            "start": first.amounts,
            "moves": [state.values for state in later],
            "stopped": trajectory.stopped.name.lower(),
            "message": trajectory.stopped.value,
            "untaken": _move_values(trajectory.untaken),
            "moved_gain": trajectory.moved_gain,
            "ties": [
                {"step": step, "sources": move.sources, "targets": move.targets}
                for step, move in trajectory.ties
            ],
            **[first, *later][-1].amounts,
        }

    def _text(self) -> str:
        start = self.trajectory.start
        blocks = list(dict.fromkeys(start.blocks)) if len(set(start.blocks)) == 1 else start.blocks
        rows = states(self.trajectory, self.alpha, self.published, self.trajectory.cap)
        lines = [
            ("sides", _sides_text(start)),
            ("widths", commas(start.widths, ", ")),
            ("blocks", commas(blocks, ", ")),
            *ending_facts(self.trajectory, self.other),
            *published_facts(self.comparisons),
        ]
        text = heading(
            f"{self.title}: θ = {self.theta:g}, α = {self.alpha:g}{cap_text(self.trajectory.cap)}"
        )
        text += moves_table(rows, bool(self.published)) + "\n" + facts(lines)
        return text if len(self.trajectories) == 1 else text + "\n" + self._alphas_text()

    def _alphas_text(self) -> str:
        """Return the trajectories of all alphas, and which are the same."""
        rows = []
        for alpha, trajectory in sorted(self.trajectories.items()):
            gains = (
                f"{trajectory.end.gain(alpha, trajectory.cap):.2f}",
                f"{trajectory.moved_gain:.2f}",
            )
            moves = " ".join(_move_texts(trajectory))
            rows.append((f"{alpha:g}", commas(trajectory.end.depths), *gains, moves))
        groups: dict[str, list[float]] = {
            f"moves as for α = {self.alpha:g}": [],
            "other moves to the same end": [],
            "another end": [],
        }
        same_moves, same_end, other_end = groups.values()
        for alpha, trajectory in sorted(self.trajectories.items()):
            if alpha == self.alpha:
                continue
            if _move_texts(trajectory) == _move_texts(self.trajectory):
                same_moves.append(alpha)
            elif trajectory.end == self.trajectory.end:
                same_end.append(alpha)
            else:
                other_end.append(alpha)
        columns = (">α", "end", ">gain", ">Σ(max − min)", "moves~")
        return (
            Table(columns, tuple(rows), "Compared").text()
            + "\n"
            + facts(
                (name, f"α = {listed(f'{alpha:g}' for alpha in alphas)}")
                for name, alphas in groups.items()
                if alphas
            )
        )


def _sides_text(layout: Layout) -> str:
    """Return the sides that enter the stages, and those that they write where these are others."""
    sides, written = (
        commas((getattr(stage, name) for stage in layout.stages), ", ")
        for name in ("side", "side_out")
    )
    return sides if sides == written else f"{sides} enter, {written} are written"


def _move_values(move: Move | None) -> dict[str, Any] | None:
    if move is None:
        return None
    return {"source": move.source, "target": move.target, "min": move.min, "max": move.max}


def _move_texts(trajectory: Trajectory[Any]) -> list[str]:
    return [str(move) for move in trajectory.moves]


def commas(values: Iterable[Any], separator: str = ",") -> str:
    """Return values as text with a separator between them."""
    return separator.join(map(str, values))
