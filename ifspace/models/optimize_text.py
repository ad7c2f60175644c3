"""What `ifspace optimize` prints: the moves, the blocks, the network before and after."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from ifspace.answer import Answer, Status
from ifspace.cli.latency import MARK, LatencyColumns
from ifspace.cli.options import Forms
from ifspace.errors import SettingError
from ifspace.latency import Latency
from ifspace.memory import DEFAULT_DTYPE, bytes_of
from ifspace.models.analysis import Report
from ifspace.models.decomposition import Decomposition, Replacement
from ifspace.models.depths import TracedLayout
from ifspace.models.joint_text import design_text, design_values
from ifspace.models.latencies import KnownLatency, known_latency
from ifspace.models.layer_changes import LayerChange
from ifspace.models.optimization import Optimization
from ifspace.models.options import (
    ModelSource,
    name_list,
    peak_text,
    peak_values,
    size_text,
    size_value,
)
from ifspace.models.reorganization import Reorganization
from ifspace.models.replaceable import CLASSIFIER, LEFT_OUT
from ifspace.models.sources import PACKAGES
from ifspace.models.warm_start import Fit
from ifspace.models.widths_text import above_facts, widths_text, widths_values
from ifspace.nn.checks import unwrapped
from ifspace.nn.network import Network
from ifspace.serialize import json_text
from ifspace.stages.layout import Layout
from ifspace.stages.problem import amounts_text
from ifspace.stages.replacement import ORDERS, ReplacementPlan
from ifspace.stages.text import (
    LayoutState,
    PublishedComparison,
    cap_text,
    ending_facts,
    moves_table,
    published_facts,
    published_of,
    short,
    states,
)
from ifspace.table import Table, facts, heading, ratio_text
from ifspace.values import counted

Facts = list[tuple[str, str]]
# The step of depths chosen within budgets that are no state of the organizer.
BEST: Final = "b"
_DEPTHS_STATUS: Final = {
    Status.OPTIMAL: "proven: within the budgets no depths up to {depth} gain more",
    Status.FEASIBLE: "time ran out: the best found so far, with the bound beside it",
}
_BLOCKS_STATUS: Final = {
    Status.OPTIMAL: "proven: within the budgets nothing is better",
    Status.FEASIBLE: "the best found",
}
# What the amounts are called that decide between blocks.
_DECIDING: Final = {
    "replaced": "replaced layers",
    "removed": "parameters kept",
    "params": "parameters",
    "macs": "MACs",
    "latency_ms": "latency",
    "peak_memory": "peak memory",
}
# Where some choices have no latency.
_OF_TIMED: Final = "proven the best of the choices that have a latency"
# Why a layer stays that a block fits, by the objective.
_WHY_KEPT: Final = {
    "keep": "the budgets ask for no more",
    "weights": "the budgets ask for no more",
}
# Smaller shares of the parameters out of reach are not printed.
_LEAST_SHARE: Final = 0.01
# From this share on they are the reason why nothing keeps a budget.
_LARGE_SHARE: Final = 0.2
# How fitted blocks were begun.
_STARTS: Final = {
    "closed form": "with the nearest weights that there are",
    "projected": "with weights that are near",
    "drawn": "with weights that are drawn",
}
_NO_GAIN: Final = "no less of what decides with a block"
_COLUMNS: Final = (
    "what",
    "step",
    "taken",
    "source",
    "target",
    "min",
    "max",
    "depths",
    "gain",
    "params",
    "macs",
    "name",
    "block",
    "stride",
    "params_before",
    "macs_before",
    "least_fan_in",
    "error",
    "reason",
    "behind",
    "count",
    "peak_bytes",
    "before",
)


@dataclass(frozen=True, slots=True)
class OptimizationReport:
    """An optimization of the network `source`, which is written to the file `saved`, if any.

    `as_diff`: the table has what changes, layer by layer, with the numbers before and after.
    """

    source: ModelSource
    optimization: Optimization
    saved: Path | None = None
    as_diff: bool = False

    def forms(self) -> Forms:
        """Return the report in every format; without a network after, JSON alone has something."""
        values = self.values
        rows = [tuple(_cell(row.get(name)) for name in _COLUMNS) for row in _rows(values)]
        table = Table(_COLUMNS, tuple(rows))
        forms = {
            "table": self._text,
            "csv": table.csv,
            "markdown": table.markdown,
        }
        if self.optimization.after is None:
            forms = dict.fromkeys(forms, str)
        return forms | {"json": lambda: json_text(values)}

    @property
    def message(self) -> str:
        """Why there is no network within the budgets, in a sentence."""
        stages, blocks = self.optimization.stages, self.optimization.blocks
        if self.optimization.is_above_peak:
            return str(self._peak_error())
        if self.optimization.design is not None:
            return str(self.optimization.design.budgets_error())
        if self.optimization.widths is not None:
            return str(self.optimization.widths.budgets_error())
        if blocks is None:
            assert stages is not None
            blocks_help = ", or let --cheapest find blocks" if self.optimization.replaceable else ""
            return str(stages.budgets_error(f"raise a budget{blocks_help}"))
        offered = self.optimization.problem.blocks
        if offered is not None and offered.is_front:
            return str(blocks.budgets_error(_remedy_of_front(blocks)))
        if blocks.peak_stays_at:
            return str(
                blocks.budgets_error(
                    f"the peak is at {blocks.peak_stays_at}, which no block changes; use a smaller "
                    "--input or raise --peak-memory"
                )
            )
        if offered is not None and offered.choices is None:
            return str(
                blocks.budgets_error("raise a budget: these are the cheapest blocks already")
            )
        return str(blocks.budgets_error())

    @property
    def dtype(self) -> str:
        """The type of the feature maps."""
        return self.optimization.problem.budgets.dtype or DEFAULT_DTYPE

    def _peak_error(self) -> SettingError:
        """Return the error of stages that need too much memory."""
        report = self.optimization.reorganized
        return SettingError.because(
            "the network with these stages needs more peak memory than it may",
            got=peak_text(None if report is None else report.live, self.dtype),
            allowed=f"{self.optimization.problem.budgets.peak_memory:,} bytes",
            remedy="raise the budget, or offer blocks for its convolutions, such as --cheapest",
        )

    @property
    def values(self) -> dict[str, Any]:
        """The report as JSON values."""
        optimization, problem = self.optimization, self.optimization.problem
        before, after = optimization.before, optimization.after
        limits = problem.budgets.limits
        if "latency_ms" in limits:
            limits["latency_ms"] = float(limits["latency_ms"])  # type: ignore[assignment]
        return {
            "model": self.source.name,
            "part": self.source.part,
            "image": self.source.image,
            "alpha": problem.alpha,
            "cap": problem.cap,
            "tie": problem.tie,
            "theta": problem.theta,
            "seed": problem.seed,
            "budgets": limits,
            "shares": {name: float(part) for name, part in problem.budgets.shares},
            "dtype": self.dtype,
            "message": None if after is not None else self.message,
            "before": self._amounts(before, at_end=False),
            "after": None if after is None else self._amounts(after, at_end=True),
            "ratios": None
            if after is None
            else {
                name: getattr(after, name) / getattr(before, name) for name in ("params", "macs")
            },
            **self._stages_values(),
            **_blocks_values(optimization),
            "measured": _measured_values(optimization),
            "fresh": None if after is None else self._fresh_values(),
            "widths": widths_values(optimization.widths),
            "design": design_values(optimization.design),
            "changes": [change.values for change in optimization.changes],
            "saved": self.saved,
        }

    def _text(self) -> str:
        optimization, before = self.optimization, self.optimization.before
        assert optimization.after is not None
        reports = [("before", before, False), ("after", optimization.after, True)]
        plans = (optimization.blocks, optimization.widths, optimization.design)
        changed_again = any(plan is not None for plan in plans)
        if changed_again and optimization.reorganized not in (None, before):
            reports.insert(1, ("stages reorganized", optimization.reorganized, True))
        plan = optimization.blocks
        times = None if plan is None else plan.replaced_latencies
        rows = []
        for name, report, at_end in reports:
            ratios = [
                ""
                if report is before
                else ratio_text(getattr(report, amount) / getattr(before, amount))
                for amount in ("params", "macs")
            ]
            depths = ",".join(map(str, self._depths(at_end)))
            at = {"before": 0, "after": 1}.get(name)
            rows.append(
                (
                    name,
                    report.params,
                    ratios[0],
                    report.macs,
                    ratios[1],
                    "" if report.live is None else bytes_of(report.live.peak, self.dtype),
                    *([] if times is None else ["" if at is None else _marked(times[at])]),
                    f"{report.gain:.2f}",
                    depths,
                )
            )
        timed = () if times is None else (">ms",)
        columns = ("", ">params", ">×", ">MACs", ">×", ">peak bytes", *timed, ">gain", "depths")
        totals = heading(str(self.source)) + Table(columns, tuple(rows)).text()
        notes = [*self._growth_facts(), *self._latency_facts()]
        notes += [("peak bytes", f"of {self.dtype} that are live at once, {self._peak_places()}")]
        if times is not None and plan is not None:
            counted = f"{len(plan.timed)} of {len(plan.replaced)} " * (plan.timed != plan.replaced)
            notes.append(("ms", f"of the {counted}replaced layers alone, and of their blocks"))
        notes += _measured_facts(optimization)
        notes += self._fresh_facts() + _share_facts(optimization)
        totals += "\n" + facts([*notes, *(("gain", note) for note in self._gain_notes())])
        blocks_text = _diff_text(optimization) if self.as_diff else _blocks_text(optimization)
        is_measured = optimization.measured is not None
        others = (
            widths_text(optimization.widths, is_measured),
            design_text(optimization.design, is_measured),
        )
        texts = (self._stages_text(), blocks_text, *others, totals)
        return "\n".join(text for text in texts if text)

    def _growth_facts(self) -> Facts:
        """Return which amounts are greater than before: they do not follow the parameters.

        Units that are put in at a large spatial size have few weights and much work.
        """
        before, after = self.optimization.before, self.optimization.after
        assert after is not None
        lines = [
            f"{name} to {_times(new / old)}{new:,} an image"
            for name, old, new in (
                ("MACs", before.macs, after.macs),
                ("training activations", _activations(before), _activations(after)),
            )
            if old is not None and new is not None and new > old
        ]
        return _labelled("grows", lines)

    def _fresh_values(self) -> dict[str, Any]:
        """Return how many layers hold fresh weights, and how many of them are new."""
        optimization, start = self.optimization, self.source.start
        new, layers = len(optimization.fresh), optimization.layers
        fresh = layers if start == "fresh" else new
        return {"layers": fresh, "of": layers, "new": new, "start": start}

    def _fresh_facts(self) -> Facts:
        """Return how many layers hold fresh weights, and what the others hold."""
        optimization, start = self.optimization, self.source.start
        new, layers = len(optimization.fresh), optimization.layers
        fitted = len(optimization.fits)
        if start == "fresh":
            text = "all layers hold fresh weights"
            text += f"; {new} of {layers} are new" if new else ""
            text += f", {counted(fitted, 'block')} fitted to such" if fitted else ""
            packaged = self.source.name.strip().partition(":")[0].lower() in PACKAGES
            option = "--pretrained" if packaged else "--weights"
            return [("weights", f"{text} (trained ones: {option})")]
        text = f"{new} of {counted(layers, 'layer')} hold fresh weights"
        text += f", {counted(fitted, 'block')} fitted ones" if fitted else ""
        if start == "code":
            file = self.source.name.rpartition(":")[0]
            text += f", the others those that {Path(file).name} gives"
        return [("weights", text)]

    def _latency_facts(self) -> Facts:
        """Return the latency of stages that change, layer by layer."""
        source, after = self.optimization.problem.search.latency, self.optimization.after
        if source is None or self.optimization.blocks is not None or after is None:
            return []
        before_times, after_times = (
            known_latency(report, source) for report in (self.optimization.before, after)
        )
        if not before_times.ms or not after_times.ms:
            return [("ms", "not known: no layer has its latency in --latency")]
        change = _times(float(after_times.ms / before_times.ms))
        text = f"{_sum_text(before_times)} before, {_sum_text(after_times)} after: {change}"
        return [("ms", f"of the layers alone, {text.rstrip(', ')}")]

    def _peak_places(self) -> str:
        """Return where the network needs the most memory, before and after."""
        reports = (self.optimization.before, self.optimization.after)
        lives = [report.live for report in reports if report is not None]
        if None in lives:
            return "not known: branches are not seen"
        places = dict.fromkeys(str(live.peak_call) for live in lives if live is not None)
        return f"at {', then at '.join(places)}"

    def _gain_notes(self) -> list[str]:
        """Return why the moves begin at another gain than the network before them."""
        plan = self.optimization.stages
        if plan is None or self.optimization.problem.keeps_stages:
            return []
        moved, whole = plan.start.gain(plan.alpha, plan.cap), self.optimization.before.gain
        if f"{moved:.2f}" == f"{whole:.2f}":
            return []
        if isinstance(plan.start, Layout):
            return [
                "the stem is the first layer of stage 1 here, as for `ifspace analyze`; the moves "
                "count blocks alone"
            ]
        return ["of all stages; the moves count those that take part"]

    def _amounts(self, report: Report, at_end: bool) -> dict[str, Any]:
        """Return the amounts of the network before or after as JSON values."""
        values = {
            "params": report.params,
            "macs": report.macs,
            "gain": report.gain,
            "depths": self._depths(at_end),
            "peak_memory": peak_values(report.live, self.dtype),
            "activations": _activations(report),
        }
        source = self.optimization.problem.search.latency
        if source is None or self.optimization.problem.blocks is not None:
            return values
        latency = known_latency(report, source)
        return values | {
            "latency_ms": float(latency.ms) if latency.timed else None,
            "timed": latency.timed,
            "layers": latency.layers,
            "extrapolated": latency.extrapolated,
        }

    def _depths(self, at_end: bool) -> tuple[int, ...]:
        """Return the units of the stages that take part, of all stages if no unit can move."""
        plan, design = self.optimization.stages, self.optimization.design
        if plan is None:
            return tuple(len(stage.units) for stage in self.optimization.before.stages)
        network = self.optimization.network
        if at_end and design is not None and isinstance(plan.end, Layout):
            model = None if network is None else unwrapped(network.model)
            return model.depths if isinstance(model, Network) else plan.end.depths
        if at_end and design is not None and isinstance(plan.end, TracedLayout):
            return tuple(
                at.depth - sum(unit.names in design.removed for unit in at.stage.units)
                for at in plan.end.stages
            )
        return (plan.end if at_end else plan.start).depths

    def _stages_values(self) -> dict[str, Any]:
        plan = self.optimization.stages
        if plan is None or self.optimization.problem.keeps_stages:
            return {"stages": None, "moves": [], "published": []}
        answer, chosen = plan.answer, _taken(plan)
        first, *later = self._states(plan)
        solved = plan.is_solved
        return {
            "stages": {
                "sides": [size_value(size) for size in plan.sizes],
                "taken": chosen,
                "status": None if answer is None else answer.status.name.lower(),
                "bound": None if answer is None else answer.bound,
                "stopped": plan.trajectory.stopped.name.lower(),
                "moved_gain": plan.trajectory.moved_gain,
                "start": first.amounts,
                "removed": list(plan.removed) if solved else [],
                "added": [asdict(units) for units in plan.added] if solved else [],
            },
            "moves": [
                {"step": state.step, **state.values, "taken": state.step == chosen}
                for state in later
                if state.move is not None
            ],
            "published": [comparison.values for comparison in self._published(plan)],
        }

    def _stages_text(self) -> str:
        """Return the stages as a table with a row for each state, and facts about them."""
        plan, problem = self.optimization.stages, self.optimization.problem
        if plan is None or problem.keeps_stages:
            return ""
        pairs: Facts = [("sides", ", ".join(map(size_text, plan.sizes)))]
        alpha = f"α = {plan.alpha:g}{cap_text(plan.cap)}"
        if plan.answer is None:
            title = f"Moves of the organizer: θ = {problem.theta:g}, {alpha}"
            pairs += ending_facts(plan.trajectory, plan.other)
        else:
            limits = amounts_text(plan.budgets.limits)
            title = f"Depths of greatest gain within {limits}: {alpha}"
            pairs += _proof_facts(plan)
        pairs += _change_facts(plan)
        comparisons = self._published(plan)
        pairs += published_facts(comparisons)
        rows = moves_table(self._states(plan), bool(comparisons), _state_notes(plan))
        return heading(title) + rows + "\n" + facts(pairs)

    def _states(self, plan: Reorganization) -> list[LayoutState]:
        """Return the states of the organizer, and the end of the plan if it is none of them."""
        published = [comparison.published for comparison in self._published(plan)]
        organized = states(plan.trajectory, plan.alpha, published, plan.cap)
        if _taken(plan) != BEST:
            return organized
        return [*organized, LayoutState(BEST, None, plan.end, plan.end.gain(plan.alpha, plan.cap))]

    def _published(self, plan: Reorganization) -> list[PublishedComparison]:
        classifier = sum(layer.params for layer in self.optimization.before.head)
        return [
            PublishedComparison(row, plan.trajectory, classifier, plan.other, plan.alpha)
            for row in published_of(self.source.name, self.source.image)
            if self.source.part is None and len(row.depths) == len(plan.start.depths)
        ]


def _taken(plan: Reorganization) -> int | str | None:
    """Return the step after which the depths are those of the plan; None without an answer."""
    if not plan.is_solved:
        return None
    depths = [layout.depths for layout in plan.states]
    return depths.index(plan.end.depths) if plan.end.depths in depths else BEST


def _state_notes(plan: Reorganization) -> dict[Any, str]:
    """Return remarks on states: which was taken, which others keep the budgets."""
    limits = plan.budgets.limits
    notes: dict[Any, str] = {
        step: "keeps the budgets"
        for step, layout in enumerate(plan.states)
        if limits and all(getattr(layout, name) <= limit for name, limit in limits.items())
    }
    chosen = _taken(plan)
    return notes if chosen is None else notes | {chosen: "taken"}


def _change_facts(plan: Reorganization) -> Facts:
    """Return every unit that is removed, and every one that is added."""
    if not plan.is_solved:
        return []
    added = [
        f"{units.count} behind {units.behind}"
        + (f", like {units.like}" if units.like != units.behind else "")
        + (f", {counted(units.channels, 'channel')} wide" if units.channels else "")
        for units in plan.added
    ]
    removed = [", ".join(plan.removed)] if plan.removed else []
    return [*_labelled("removed", removed), *_labelled("added", added)]


def _proof_facts(plan: Reorganization) -> Facts:
    answer = plan.answer
    if answer is None or answer.best is None:
        return []
    best = answer.best
    deepest = max(table.max_depth for table in best.problem.tables)
    status = _DEPTHS_STATUS[answer.status].format(depth=deepest)
    pairs = [("status", f"{answer.status.name.lower()}, {status}")]
    if answer.bound is not None:
        gap = answer.bound - best.objective()
        reached = "which these reach" if gap < 1e-6 else f"{gap:.2g} above these"
        pairs.append(("bound", f"{answer.bound:.6f}, {reached}"))
    limits = plan.budgets.limits.items()
    margin = {name: limit - getattr(plan.end, name) for name, limit in limits}
    return [*pairs, ("left over", amounts_text(margin))]


def _blocks_values(optimization: Optimization) -> dict[str, Any]:
    plan = optimization.blocks
    if plan is None:
        return {"blocks": None, "replaced": [], "kept": [], "skipped": [], "out_of_reach": []}
    answer, fits = plan.answer, {fit.name: fit for fit in optimization.fits}
    timed = _is_timed(optimization)
    return {
        "blocks": {
            "objective": optimization.problem.objective,
            "status": None if answer is None else answer.status.name.lower(),
            "left_out": [] if answer is None else answer.left_out,
            **(_total_latency_values(plan) if timed else {}),
        },
        "replaced": [
            {
                "name": replacement.name,
                "block": str(replacement.sized.block),
                "stride": replacement.step.stride,
                "geometry": asdict(replacement.step.geometry),
                "params": replacement.params,
                "macs": replacement.macs,
                "field": replacement.fields,
                "least_fan_in": replacement.sized.least_fan_in,
                "fit": _fit_values(fits.get(replacement.name)),
                **(_latency_values(replacement) if timed else {}),
            }
            for replacement in plan.replaced
        ],
        "kept": plan.kept,
        "skipped": [{"name": conv.name, "reason": conv.reason} for conv in plan.skipped],
        "out_of_reach": [asdict(part) for part in plan.out_of_reach],
    }


def _total_latency_values(plan: Decomposition) -> dict[str, Any]:
    """Return what the layers whose latencies are known take in all, before and after."""
    before, after = plan.replaced_latencies or (None, None)
    return {
        "timed": len(plan.timed),
        "latency_ms": [None if time is None else float(time.ms) for time in (before, after)],
        "extrapolated": [time and time.extrapolated for time in (before, after)],
    }


def _marked(latency: Latency) -> str:
    """Return milliseconds, marked where they are extrapolated."""
    return f"{MARK * latency.extrapolated}{float(latency.ms):.3f}"


def _latency_values(replacement: Replacement) -> dict[str, Any]:
    """Return the latencies of a layer and its block alone, and the form of the block."""
    before, after = replacement.latencies
    return {
        "latency_ms": [None if time is None else float(time.ms) for time in (before, after)],
        "form": after and after.form,
        "extrapolated": after and after.extrapolated,
    }


def _fit_values(fit: Fit | None) -> dict[str, Any] | None:
    if fit is None:
        return None
    values = asdict(fit)
    del values["name"]
    return values


def _blocks_text(optimization: Optimization) -> str:
    """Return the blocks as a table with a row for each convolution, and facts about them."""
    plan = optimization.blocks
    if plan is None:
        return ""
    fits = {fit.name: fit for fit in optimization.fits}
    columns = ["layer", "block~", ">params", ">×", ">MACs", ">×", ">least fan-in"]
    columns += [">error", ">drawn", ">unseen", ">weights"] if fits else []
    timed = _is_timed(optimization)
    rows: list[list[Any]] = []
    for replacement in plan.replaced:
        row = [replacement.name, str(replacement.sized.block)]
        for before, after in (replacement.params, replacement.macs):
            row += [short(after), ratio_text(after / before)]
        row.append(str(replacement.sized.least_fan_in))
        rows.append([*row, *(_errors(fits.get(replacement.name)) if fits else ())])
    if timed:
        latencies = LatencyColumns([replacement.latencies[1] for replacement in plan.replaced])
        for header, cells in latencies.shown.items():
            columns.append(header)
            rows = [[*row, cell] for row, cell in zip(rows, cells, strict=True)]
    fitting = len(plan.replaced) + len(plan.kept)
    front = _is_front(optimization)
    what = "layers" if front else "convolutions"
    title = f"Replaced: {len(plan.replaced)} of {fitting} {what} that a block fits"
    if plan.answer is None and optimization.problem.plan is not None:
        title = f"Replaced: {counted(len(plan.replaced), 'layer')}, as planned"
    elif plan.skipped and not front:
        which = "larger than 1×1 and of one group"
        if optimization.problem.layers.names is not None:
            which = "named"
        title += f"; {fitting + len(plan.skipped)} are {which}"
    text = heading(title)
    pairs = _block_facts(optimization, plan)
    text += Table(tuple(columns), tuple(map(tuple, rows))).text() if rows else ""
    return text + ("\n" * bool(rows) + facts(pairs) if pairs else "")


def _errors(fit: Fit | None) -> list[str]:
    errors = (None,) * 4 if fit is None else (fit.error, fit.random, fit.unseen, fit.weights)
    return ["" if error is None else f"{error:.3f}" for error in errors]


def _gap_text(answer: Answer[ReplacementPlan]) -> str:
    """Return how far the first amount that is not proven the best may be from the best."""
    if answer.status is not Status.FEASIBLE or answer.best is None or not answer.bound:
        return ""
    plan, number = answer.best, len(answer.bound) - 1
    name, value = ORDERS[plan.problem.objective][number], plan.objective()[number]
    gap = float(abs((value - answer.bound[number]) / value)) if value else 0.0
    return f": {_DECIDING[name]} at most {gap:.2%} from the best, which is not proven"


def _block_facts(optimization: Optimization, plan: Decomposition) -> Facts:
    skipped: dict[str, list[str]] = {}
    for conv in plan.skipped:
        skipped.setdefault(conv.reason, []).append(conv.name)
    lines = [f"{name_list(names)}: {reason}" for reason, names in skipped.items()]
    if _is_front(optimization):
        lines = []  # `out of reach` has them, with what they have
    if plan.kept:
        reason = _WHY_KEPT.get(optimization.problem.objective, _NO_GAIN)
        lines.append(f"{name_list(plan.kept)}: {reason}")
    pairs = _labelled("kept", lines) + _field_facts(plan)
    if optimization.problem.plan is None and any(x.sees_less for x in plan.replaced):
        pairs.append(("", "--cheapest takes blocks with the full field"))
    if not plan.replaced:
        now = {"params": plan.params[0], "macs": plan.macs[0]}
        pairs += above_facts(plan.budgets, now)
    pairs += _reach_facts(plan) if _is_front(optimization) else []
    answer = plan.answer
    if answer is not None and answer.best is not None:
        proven = answer.status is Status.OPTIMAL and answer.left_out
        status = _OF_TIMED if proven else f"{_BLOCKS_STATUS[answer.status]}{_gap_text(answer)}"
        pairs.append(("status", f"{answer.status.name.lower()}, {status}"))
        limits = optimization.problem.budgets.limits
        margin: dict[str, int | Fraction] = {
            name: limits[name] - getattr(optimization.after, name)
            for name in ("params", "macs")
            if name in limits
        }
        if plan.budgets.dtype is not None and plan.peaks is not None and "peak_memory" in limits:
            used = bytes_of(plan.peaks[1], plan.budgets.dtype)
            margin["peak_memory"] = limits["peak_memory"] - used
        totals = answer.best.totals
        if "latency_ms" in totals:
            together = (
                f"{float(totals['latency_ms']):.3f} ms, all layers that blocks may replace together"
            )
            pairs.append(("latency", together))
            if "latency_ms" in limits:
                used_ms = totals["latency_ms"]
                if optimization.measured is not None:
                    used_ms = optimization.measured.predicted_ms[1]
                margin["latency_ms"] = limits["latency_ms"] - used_ms
        pairs += [("left over", amounts_text(margin))] if margin else []
        pairs += _left_out_facts(plan)
    if optimization.fits:
        images = optimization.problem.images
        of_what = "of noise" if images is None else f"given, {len(images)} of them"
        starts = Counter(fit.start for fit in optimization.fits)
        pairs += [
            (
                "error",
                "what a fitted block leaves of its convolution's output y, |y - block|² / "
                f"|y|², on images {of_what}",
            ),
            ("drawn", "the same before the fit; unseen: on images kept out of it"),
            ("weights", "what it leaves of the convolution's weights, |W - block|² / |W|²"),
            ("begun", ", ".join(f"{count} {_STARTS[start]}" for start, count in starts.items())),
        ]
    return pairs


def _is_timed(optimization: Optimization) -> bool:
    """Return whether latencies are asked for."""
    problem = optimization.problem
    return problem.search.latency is not None or problem.measure is not None


def _is_front(optimization: Optimization) -> bool:
    blocks = optimization.problem.blocks
    return blocks is not None and blocks.is_front


def _reach_facts(plan: Decomposition) -> Facts:
    """Return what no block can replace: at least a hundredth of the parameters."""
    return _labelled(
        "out of reach",
        [
            f"{100 * part.share:.0f}% of the parameters: "
            + (f"{name_list(part.names, 3)}, " if part.names else "")
            + part.why
            for part in plan.out_of_reach
            if part.share >= _LEAST_SHARE
        ],
    )


def _remedy_of_front(plan: Decomposition) -> str:
    """Return what helps where no blocks keep the budgets."""
    most = next(iter(plan.out_of_reach), None)
    if most is None or most.share < _LARGE_SHARE or "params" not in plan.budgets.limits:
        return (
            "raise a budget, or narrow layers too with --joint: no block with its full field costs "
            "less"
        )
    share = f"{100 * most.share:.0f}% of the parameters are {most.why}"
    if most.why == LEFT_OUT:
        return f"raise a budget, or leave out fewer layers: {share}"
    share += ", which --classifier replaces too" if most.why == CLASSIFIER else ""
    return f"raise a budget, or narrow layers too with --joint; {share}"


def _left_out_facts(plan: Decomposition) -> Facts:
    """Return how many candidates are no choice because their latency is not known."""
    answer = plan.answer
    if answer is None or answer.best is None or not answer.left_out:
        return []
    sites = answer.best.problem.sites
    count = sum(len(site.options) for site in sites)
    left_out = len(answer.left_out)
    verb = "has" if left_out == 1 else "have"
    text = f"{left_out:,} of {count:,} choices {verb} no latency, such as {answer.left_out[0]}"
    return [("left out", text.replace("such as no latency for ", "such as "))]


def _measured_values(optimization: Optimization) -> dict[str, Any] | None:
    """Return the times of the network before and after."""
    measured = optimization.measured
    if measured is None:
        return None
    return {
        "predicted_ms": [float(ms) for ms in measured.predicted_ms],
        "measured_ms": [float(ms) for ms in measured.measured_ms],
        "about": measured.about,
        "timed": measured.layers,
        "kept": measured.kept,
        "planned_for": float(measured.planned_for),
    }


def _measured_facts(optimization: Optimization) -> Facts:
    """Return the times of the network before and after, predicted and measured."""
    measured = optimization.measured
    if measured is None:
        return []
    lines = [
        f"{what} {float(before):.3f} → {float(after):.3f} ms, {float(after / before):.2f} times"
        for what, (before, after) in (
            ("predicted", measured.predicted_ms),
            ("measured ", measured.measured_ms),
        )
    ]
    return [*_labelled("network", lines), ("", f"{measured.about}, in turn")]


def _share_facts(optimization: Optimization) -> Facts:
    """Return what the shares that were given stand for."""
    budgets = optimization.problem.budgets
    limits = budgets.limits
    of_layers = optimization.design is not None and optimization.problem.measure is None
    return _labelled(
        "budget",
        [
            f"{float(100 * part):g}% of now: {amounts_text({name: limits[name]})}"
            + " of the layers" * (name == "latency_ms" and of_layers)
            for name, part in budgets.shares
            if name in limits
        ],
    )


def _diff_text(optimization: Optimization) -> str:
    """Return what changes as a table with a row for each layer, and facts about it."""
    plan = optimization.blocks
    if plan is None:
        return _changes_text(optimization.changes)
    timed = any(None not in replacement.latencies for replacement in plan.replaced)
    columns = ["layer", "before", "after~", ">params", ">MACs", *([">ms"] if timed else [])]
    rows = []
    for replacement in plan.replaced:
        times = ["" if time is None else _marked(time) for time in replacement.latencies]
        geometry = replacement.step.geometry
        rows.append(
            (
                replacement.name,
                ", ".join(filter(None, map(str, (replacement.before.block, geometry)))),
                str(replacement.sized.block),
                *(_change(map(short, pair)) for pair in (replacement.params, replacement.macs)),
                *([_change(times)] if timed else []),
                _change(_field_texts(replacement)),
            )
        )
    count = len(plan.replaced)
    title = heading(f"Plan: {counted(count, 'layer')} change{'s' * (count == 1)}")
    text = Table((*columns, "field"), tuple(rows)).text() if rows else ""
    pairs = _block_facts(optimization, plan)
    return title + text + ("\n" * bool(rows) + facts(pairs) if pairs else "")


def _field_texts(replacement: Replacement) -> list[str]:
    """Return what one output of the layer and of the block sees."""
    axis = replacement.step.geometry.axis
    return [
        f"{1 if axis == 'width' else side}×{1 if axis == 'height' else side}×{channels}"
        for side, channels in replacement.fields
    ]


def _changes_text(changes: Sequence[LayerChange]) -> str:
    """Return the layers that change, with other widths or blocks, as a table with a title."""
    if not changes:
        return ""
    timed = any(None not in change.ms for change in changes)
    columns = ["layer", "before", "after~", ">params", ">MACs", *([">ms"] if timed else [])]
    rows = []
    for change in changes:
        times = ["" if ms is None else f"{ms:.3g}" for ms in change.ms]
        fields = [f"{x.size[0]}×{x.size[1]}×{x.channels}" for x in change.fields if x is not None]
        rows.append(
            (
                change.name,
                *change.texts,
                *(_change(map(short, pair)) for pair in (change.params, change.macs)),
                *([_change(times)] if timed else []),
                _change(fields),
            )
        )
    verb = "layer changes" if len(changes) == 1 else "layers change"
    title = heading(f"Plan: {len(changes)} {verb}")
    return title + Table((*columns, "field"), tuple(rows)).text()


def _change(texts: Iterable[str]) -> str:
    """Return two texts with an arrow between them, or one where they are equal."""
    return " → ".join(dict.fromkeys(texts))


def _field_facts(plan: Decomposition) -> Facts:
    """Return which blocks see less than the convolution that they replace."""
    names_of: dict[str, list[str]] = {}
    for replacement in plan.replaced:
        if replacement.sees_less:
            before, after = _field_texts(replacement)
            names_of.setdefault(f"{after} of {before}", []).append(replacement.name)
    lines = [f"{name_list(names)}: {fields}" for fields, names in names_of.items()]
    return _labelled("sees less", lines)


def _labelled(label: str, lines: "Iterator[str] | Sequence[str]") -> Facts:
    """Return lines as facts, the first with the label."""
    return [("" if index else label, line) for index, line in enumerate(lines)]


def _rows(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the report as rows: the network before, moves, layers, the network after."""
    yield {"what": "before", **values["before"], **_peak_cell(values["before"])}
    for move in values["moves"]:
        yield {"what": "move", **move}
    if values["stages"] is not None:
        yield from ({"what": "removed", "name": name} for name in values["stages"]["removed"])
        yield from (
            {"what": "added", "name": units["like"], **units} for units in values["stages"]["added"]
        )
    for replacement in values["replaced"]:
        row = {"what": "replaced", **replacement}
        for name in ("params", "macs"):
            row[f"{name}_before"], row[name] = replacement[name]
        yield row | (replacement["fit"] or {})
    for change in values["changes"]:
        before, after = change["layers"]
        row = {"what": "changed", "name": change["name"], "block": after, "before": before}
        for name in ("params", "macs"):
            row[f"{name}_before"], row[name] = change[name]
        yield row
    for name in values["kept"]:
        yield {"what": "kept", "name": name}
    for conv in values["skipped"]:
        yield {"what": "skipped", **conv}
    if values["after"] is not None:
        yield {"what": "after", **values["after"], **_peak_cell(values["after"])}


def _activations(report: Report) -> int | None:
    """Return the elements that training keeps for an image, None where branches are not seen."""
    return None if report.live is None else report.live.activations


def _times(ratio: float) -> str:
    """Return a ratio to the network as it was, in front of an amount."""
    return "less than 1.01 times, " if 1 < ratio < 1.005 else f"{ratio:.2f} times, "


def _sum_text(latency: KnownLatency) -> str:
    """Return a sum of latencies, and of how many layers it is."""
    marked = f"{MARK * latency.extrapolated}{float(latency.ms):.3f}"
    return f"{marked} ({latency.timed} of {counted(latency.layers, 'layer')})"


def _peak_cell(amounts: Mapping[str, Any]) -> dict[str, Any]:
    peak = amounts["peak_memory"]
    return {"peak_bytes": None if peak is None else peak["bytes"]}


def _cell(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value
