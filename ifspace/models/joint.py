"""Redesign a network: widths, depths and blocks decided together, in one search.

Every parameter and every layer of the network is a part of the problem of `ifspace.stages.joint`:
what it costs at the numbers of channels that are tried, as it is or as a block, and the unit that
it stands in. Which channels go together, which units may be removed and which blocks a layer may
become is what `narrow`, `reorganize` and `decompose` say. In the network that comes out units are
removed first, then channels, and then layers are replaced; it is traced again, and has what was
planned.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import product
from math import ceil, floor, prod
from typing import Any, Final, Literal

from torch import Tensor, nn

from ifspace.answer import Answer, Status
from ifspace.block import Block, SizedBlock
from ifspace.cpsat import seconds_left
from ifspace.errors import IfspaceError, SettingError
from ifspace.groups.full_field import front_blocks
from ifspace.memory import DEFAULT_DTYPE, Schedule, bytes_of
from ifspace.models.channel_groups import Channels, LayerCall
from ifspace.models.decomposition import (
    Layers,
    Search,
    amounts_of,
    latency_of_calls,
    lowered_note,
)
from ifspace.models.depths import TracedLayout
from ifspace.models.edits import EditedNetwork
from ifspace.models.graph import Trace, TracedLayer
from ifspace.models.latencies import layer_latency
from ifspace.models.layer_times import LayerTimes
from ifspace.models.plan_file import over_budgets
from ifspace.models.recipe import Recipe
from ifspace.models.replaceable import ReplaceableConv, replaceable_convs
from ifspace.models.surgery import Remove, Replace, copy_of_network, modules_of_unit
from ifspace.models.tracing import Image, checked_model
from ifspace.models.tracing import trace as traced
from ifspace.models.units import Unit, stages_of, units_of, within
from ifspace.models.warm_start import Fit, fit_blocks
from ifspace.models.weights import names_after
from ifspace.models.widths import (
    MULTIPLE,
    WIDTHS_OBJECTIVE,
    GroupWidth,
    Importance,
    Resized,
    Steps,
    best_narrowing,
    check_widen,
    live_forms,
    resize_copy,
    scores_of,
    tensor_forms,
    written_form,
)
from ifspace.nn.network import seeded
from ifspace.stages.joint import (
    PEAK,
    POWER,
    Choice,
    Curve,
    JointPlan,
    JointProblem,
    LiveStep,
    Part,
    best_joint,
    least_amounts,
    with_more_params,
)
from ifspace.stages.problem import Budgets, budgets_error
from ifspace.stages.widths import MARGIN, Counts, Form, Width, shares_alike

_SUMMED: Final = ("params", "macs", "activations")
# Of each width eighths are tried first; then so many steps around the best ones.
_STEPS_AROUND: Final = 2
# Widths narrowed alike are compared at so many ratios.
_RATIOS: Final = 64
# A layer that reads several groups of channels may become a block if its table has no more entries.
_ENTRIES: Final = 1000
# A budget below such a share of what the network has is compared with the least possible first; one
# so far below the least is refused without a search.
_FAR: Final = Fraction(1, 4)
_SURELY: Final = Fraction(9, 10)
# Objectives that a network within the budgets is best for as it is.
_KEEPING: Final = ("macs-3/4", "most-macs", "most-params", "keep", "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class Freedom:
    """What of a network may change: `widths`, `depths` and the `blocks` of its `layers`.

    `keep_widths`: patterns of the full names of layers that stay as wide as they are. `widen`: how
    many times as wide layers may be.
    """

    widths: bool = True
    depths: bool = True
    blocks: bool = True
    keep_widths: tuple[str, ...] = ()
    widen: Fraction = Fraction(1)
    layers: Layers = Layers()  # noqa: RUF009 - a frozen value


@dataclass(frozen=True, slots=True, eq=False)
class Redesign:
    """The plan of a redesigned network: its widths, its units and blocks, and what they cost.

    `removed`: the units that go, by their modules; `kept_units`: the numbers of units of each
    stage that may go and stay, before and after. `blocks`: those that replace layers. `before` and
    `after`: parameters, MACs of one image, activations, and what else is bounded; `limits`: the
    most of each, budgets included. `tried`: how many numbers of channels of how many there are were
    offered in the last round, for which the bound of the `answer` holds. `fixed`: layers whose
    widths stay, with reasons.
    """

    budgets: Budgets
    objective: str
    before: Mapping[str, Any]
    limits: Mapping[str, Any]
    answer: Answer[JointPlan]
    tried: tuple[int, int] = (0, 0)
    widths: tuple[GroupWidth, ...] = ()
    removed: tuple[tuple[str, ...], ...] = ()
    kept_units: tuple[tuple[int, int], ...] = ()
    blocks: Mapping[str, SizedBlock] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    fixed: tuple[Any, ...] = ()
    notes: tuple[str, ...] = ()
    is_planned: bool = False

    @property
    def is_solved(self) -> bool:
        """Whether there is a plan within the budgets."""
        return self.answer.best is not None

    @property
    def is_unchanged(self) -> bool:
        """Whether the network stays as it is."""
        return not (self.removed or self.blocks or any(x.before != x.after for x in self.widths))

    def check(self) -> None:
        """Check that there is a plan within the budgets. Raises: SettingError."""
        if not self.is_solved:
            raise self.budgets_error()

    def budgets_error(self) -> SettingError:
        """Return the error for budgets that nothing keeps."""
        limits = self.budgets.limits
        above = over_budgets(self.answer.least, limits) if self.is_planned else None
        if above is not None:
            return above
        follow = {name: x for name, x in self.limits.items() if name not in limits}
        return budgets_error(
            "design", self.answer, limits, "raise the budget", follow=follow, shares=True
        )


@dataclass(frozen=True, slots=True, eq=False)
class RedesignedNetwork(EditedNetwork):
    """A network with other widths, depths and blocks, the plan that it follows, and the fits."""

    plan: Redesign
    fits: tuple[Fit, ...] = ()


def redesign(
    network: nn.Module | EditedNetwork,
    x: Image,
    budgets: Budgets,
    freedom: Freedom = Freedom(),
    search: Search = Search(),  # noqa: B008 - a frozen value
    *,
    importance: Importance = "l2",
    multiple: int = MULTIPLE,
    seed: int = 0,
) -> RedesignedNetwork:
    """Return a copy of a network within budgets whose widths, depths and blocks go together.

    `x`: an image [N, C, H, W] or its size (C, H, W). The search's `objective` is that of
    `ifspace.stages.joint.ORDERS`, "macs-3/4" if it has none; its `latency` makes a budget of
    latency that of all convolutions, and without one keeps it at what it is. Importance and
    multiple are those of `narrow`. An amount without a budget is at most 9/10 of what it is where
    all widths are narrowed alike, and never more than before; of the sum of MACs^(3/4) up to 1/200
    goes for parameters that the budget leaves. A network that keeps the budgets
    stays as it is, but for an objective that makes an amount least.

    >>> model = nn.Sequential(nn.Conv2d(8, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 1), nn.ReLU(),
    ...                       nn.Conv2d(64, 8, 1))
    >>> small = redesign(model, (8, 16, 16), Budgets(params="60%"))
    >>> sum(weight.numel() for weight in small.model.parameters()) <= 0.6 * 9352
    True

    Raises: SettingError where nothing keeps the budgets, and as `narrow` does.
    """
    edited = EditedNetwork.of(network)
    trace = traced(checked_model(edited.model), x)
    plan, parts = plan_redesign(edited, trace, budgets, freedom, search, importance, multiple)
    plan.check()
    assert parts is not None
    return apply_redesign(edited, plan, parts, seed)


@dataclass(frozen=True, slots=True, eq=False)
class NarrowedCopy:
    """A copy of the network with units and channels removed, and the blocks that are to come."""

    network: EditedNetwork
    steps: tuple[Replace, ...]

    @property
    def recipe(self) -> Recipe:
        """Return how the network with its blocks is trained."""
        layers = {step.name: self.network.model.get_submodule(step.name) for step in self.steps}
        sizes = {name: sum(x.numel() for x in layers[name].parameters()) for name in layers}
        return Recipe({step.name: min(1.0, step.params / sizes[step.name]) for step in self.steps})


def apply_redesign(
    network: EditedNetwork,
    plan: Redesign,
    copy: NarrowedCopy,
    seed: int = 0,
    images: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    noise: bool = False,
) -> RedesignedNetwork:
    """Put the blocks of a plan into a narrowed copy of a network, fitted on `images` if given."""
    base = copy.network
    final = EditedNetwork(copy_of_network(base.model), base.edits)
    with seeded(seed, next((tensor.device for tensor in base.model.parameters()), None)):
        final = final.apply(*copy.steps)
    fits: tuple[Fit, ...] = ()
    if images is not None and copy.steps:
        names = [step.name for step in copy.steps]
        fits = fit_blocks(base.model, final.model, names, images, seed, progress, noise=noise)
    return RedesignedNetwork(final.model, final.edits, plan, fits)


def plan_redesign(
    network: EditedNetwork,
    trace: Trace,
    budgets: Budgets,
    freedom: Freedom = Freedom(),
    search: Search = Search(),  # noqa: B008 - a frozen value
    importance: Importance = "l2",
    multiple: int = MULTIPLE,
) -> tuple[Redesign, NarrowedCopy | None]:
    """Return the best widths, depths and blocks of a traced network, and the narrowed copy.

    Arguments and errors are those of `redesign`, but that budgets nothing keeps are a plan without
    a design, and no copy.
    """
    limit_s = search.time_limit_s
    deadline = None if limit_s is None else time.monotonic() + limit_s
    parts = NetworkParts(network, trace, freedom, search, multiple)
    amounts = {**amounts_of(trace, budgets.dtype), "latency_ms": parts.latency_ms}
    budgets = budgets.of(amounts)
    budgets.check((*_SUMMED, "latency_ms", "peak_memory"))
    objective = search.objective or WIDTHS_OBJECTIVE
    if "latency_ms" in budgets.bounded and search.latency is None:
        raise SettingError.because(
            "nothing says how long the layers take",
            got="a budget of latency",
            allowed="a table or a model of latencies beside it",
            remedy="give latencies too",
            argument="latency_budget_ms",
        )
    present = {name: x for name, x in amounts.items() if x is not None}
    is_kept = present.keys() >= set(budgets.bounded) and not budgets.exceeded(present)
    if is_kept and objective in _KEEPING and freedom.widen == 1:
        plan, counts = _unchanged(parts, budgets, objective)
        copy = narrowed_copy(parts, plan, counts, importance)
        assert isinstance(copy, NarrowedCopy)
        return plan, copy
    refused = _refused(parts, budgets, objective, deadline)
    if refused is not None:
        return refused, None
    while True:
        plan, counts = _solve(parts, budgets, objective, importance, deadline)
        lowest = parts.search.floors.least_fan_in
        if plan.is_solved and lowest < search.floors.least_fan_in:
            plan = replace(plan, notes=(*plan.notes, lowered_note(search.floors, lowest)))
        if plan.answer.best is None:
            lower = _lowered(parts)
            if lower is None:
                return plan, None
            parts = lower
            continue
        try:
            copy = narrowed_copy(parts, plan, counts, importance)
            if isinstance(copy, NarrowedCopy):
                return plan, copy
            parts.channels = copy.restrict(parts.channels)
        except IfspaceError as error:
            if not plan.removed:
                raise
            # Where the units are gone, channels cannot be removed as planned.
            note = f"depths stay: {error.finding}"
            kept = replace(freedom, depths=False)
            parts = NetworkParts(network, trace, kept, parts.search, multiple)
            parts.notes.append(note)


def _lowered(parts: "NetworkParts") -> "NetworkParts | None":
    """Return the parts with half the least fan-in of blocks, None if it is not to be lowered."""
    search = parts.search
    fan_in = search.floors.least_fan_in
    if not search.lower_floors or fan_in == 1 or not parts.freedom.blocks:
        return None
    search = replace(search, floors=search.floors.but("least_fan_in", fan_in // 2))
    return NetworkParts(parts.network, parts.trace, parts.freedom, search, parts.multiple)


class NetworkParts:
    """A traced network as parts of a problem, at any numbers of channels.

    `units`: the modules of each unit that may be removed, stage by stage. `convs`: the layers that
    may become blocks, by name. `planned`: the block of each layer that becomes one, if known.
    """

    def __init__(
        self,
        network: EditedNetwork,
        trace: Trace,
        freedom: Freedom,
        search: Search,
        multiple: int = MULTIPLE,
        planned: Mapping[str, Block] | None = None,
    ) -> None:
        self.planned = planned
        self.network, self.trace, self.freedom, self.search = network, trace, freedom, search
        self.multiple, self.tried = multiple, Steps(multiple, check_widen(freedom.widen))
        self.source = search.latency
        self.channels = Channels(network.model, trace.image).with_kept(freedom.keep_widths)
        self.notes: list[str] = []
        self.stages: list[list[int]] = []
        self.units: list[tuple[str, ...]] = []
        self._owners: list[tuple[str, int]] = []
        # Of each unit the feature maps that it reads and writes.
        self._ends: list[tuple[int, int]] = []
        if freedom.depths:
            self._find_units()
        self.layers_of: dict[str, list[TracedLayer]] = {}
        for layer in trace.all_layers:
            self.layers_of.setdefault(layer.name, []).append(layer)
        self.convs: dict[str, ReplaceableConv] = {}
        if freedom.blocks:
            convs, _ = replaceable_convs(network.model, trace, freedom.layers, every=True)
            self.convs = {conv.name: conv for conv in convs}
        self._blocks: dict[Any, tuple[SizedBlock, ...]] = {}
        # What each layer may be at some numbers of channels.
        self.entries: dict[tuple[str, Counts], tuple[Choice, ...]] = {}

    def _find_units(self) -> None:
        """Take the units that can be removed, with all of their modules."""
        model = self.network.model
        stages = stages_of(self.trace, units_of(self.trace, model))
        for at in TracedLayout.of(self.trace, model, stages).stages:
            members = []
            for index in at.stage.removable:
                unit = at.stage.units[index]
                entry = self._entry_of(unit)
                if entry is None:
                    continue
                names = unit.names
                _, keys = modules_of_unit(model, names)
                parent = names[0].rpartition(".")[0]
                number = len(self.units)
                self._owners += [(f"{parent}.{key}" if parent else key, number) for key in keys]
                self.units.append(names)
                self._ends.append((entry, unit.output))
                members.append(number)
            self.stages += [members] if members else []

    def _entry_of(self, unit: Unit) -> int | None:
        """Return the feature map that stands in for a removed unit's: one with as many channels."""
        ids = self.channels.ids_of
        count = len(ids(unit.output))
        return next((node for node in unit.inputs if len(ids(node)) == count), None)

    def with_widths_alone(self) -> "NetworkParts":
        """Return the parts whose widths alone may change."""
        freedom = replace(self.freedom, depths=False, blocks=False)
        parts = NetworkParts(self.network, self.trace, freedom, self.search, self.multiple)
        parts.channels = self.channels
        return parts

    def unit_of(self, name: str) -> int | None:
        """Return the unit that a module stands in."""
        return next((unit for module, unit in self._owners if within(name, module)), None)

    @property
    def latency_ms(self) -> Fraction | None:
        """What the convolutions take as they are, of those whose time is known."""
        if self.source is None:
            return None
        times = (self._layer_ms(layer, layer.c_in, layer.c_out) for layer in self._timed)
        return sum((time for time in times if time is not None), Fraction(0))

    @property
    def _timed(self) -> list[TracedLayer]:
        return [x for x in self.trace.all_layers if x.conv.writes and not x.is_linear]

    def _layer_ms(self, layer: TracedLayer, c_in: int, c_out: int) -> Fraction | None:
        """Return the time of one call of a layer with these channels."""
        if self.source is None:
            return None
        groups = layer.groups
        if groups > 1:  # groups go with their channels
            groups = max(1, groups * c_in // layer.c_in)
        time = layer_latency(replace(layer, c_in=c_in, c_out=c_out, groups=groups), self.source)
        return None if time is None else time.ms

    def problem(
        self, widths: tuple[Width, ...], limits: Mapping[str, Any], objective: str
    ) -> JointProblem:
        """Return the problem at some numbers of channels of each group."""
        tables = _Tables(self, widths, PEAK in limits)
        return JointProblem(
            widths,
            tables.parts(),
            tuple(map(tuple, self.stages)),
            tuple(tables.curves),
            tables.steps(),
            self._ties(),
            limits,
            objective,
        )

    def _ties(self) -> tuple[tuple[int, int, int | None], ...]:
        """Return the groups of channels that follow each other where a unit is removed."""
        channels = self.channels
        group_of = {
            int(member): number
            for number, group in enumerate(channels.groups)
            for member in group.classes
        }
        ties: dict[tuple[int, int, int | None], None] = {}
        for unit, (entry, end) in enumerate(self._ends):
            read, written = (channels.class_of[channels.ids_of(node)] for node in (entry, end))
            for before, after in zip(read.tolist(), written.tolist(), strict=True):
                a, b = group_of.get(before), group_of.get(after)
                if before == after or a == b:
                    continue
                if a is not None:
                    ties[unit, a, b] = None
                elif b is not None:
                    ties[unit, b, a] = None
        return tuple(ties)

    def blocks_of(self, conv: ReplaceableConv, c_in: int, c_out: int) -> tuple[SizedBlock, ...]:
        """Return the blocks that a layer may become with these channels."""
        if self.planned is not None:
            try:
                return (conv.at(self.planned[conv.name], c_in, c_out),)
            except (KeyError, IfspaceError):
                return ()
        stride: Literal[1, 2] = 2 if conv.stride == 2 else 1
        key = c_in, c_out, conv.kernel, stride, conv.geometry
        if key not in self._blocks:
            try:
                searched = not self.freedom.widths  # they take a search for each pair of widths
                front = front_blocks(*key[:4], floors=self.search.floors, searched=searched)
                self._blocks[key] = tuple(conv.at(x.block, c_in, c_out) for x in front)
            except IfspaceError:
                self._blocks[key] = ()
        return self._blocks[key]


class _Tables:
    """The parts of a problem at the numbers of channels that are tried."""

    def __init__(self, parts: NetworkParts, widths: tuple[Width, ...], with_peak: bool) -> None:
        self.parts_of, self.widths, self.with_peak = parts, widths, with_peak
        channels = parts.channels
        self.axes, self.tensors = tensor_forms(channels)
        self.calls: dict[str, list[LayerCall]] = {}
        for call in channels.walk.layers:
            self.calls.setdefault(call.name, []).append(call)
        self.curves: list[Curve] = []
        # What depends on the same widths and unit is one part.
        self._sums: dict[tuple[tuple[int, ...], int | None], list[tuple[str, Any]]] = {}
        self._live: dict[str, list[int]] = {}
        self._forms: list[Form] = []
        if with_peak:
            live = channels.walk.live.schedule(channels.walk.returned_nodes)
            self._schedule, self._calls = live.schedule, live.calls
            self._forms = live_forms(channels)
            for index, step in enumerate(live.calls):
                self._live.setdefault(step.layer, []).append(index)

    def parts(self) -> tuple[Part, ...]:
        """Return the parts: those with a choice of blocks, then the sums of all others."""
        parts, channels = self.parts_of, self.parts_of.channels
        sites = [site for conv in parts.convs.values() if (site := self._site(conv)) is not None]
        open_layers = {site.name for site in sites}
        for name in channels.parameters:
            module = name.rpartition(".")[0]
            if module not in open_layers:
                self._add("params", self.tensors[name], parts.unit_of(module))
        for name, calls in self.calls.items():
            if name not in open_layers:
                self._add_layer(name, calls)
        self._add("macs", Form(channels.other_macs), None)
        self._add_curve(Form(channels.other_macs), None)
        names = {*self.calls, *open_layers}
        for layer in parts._timed:
            if layer.name not in names:
                time = parts._layer_ms(layer, layer.c_in, layer.c_out)
                entry = ("latency_ms", lambda _, time=time: time or Fraction(0))
                self._sums.setdefault(((), parts.unit_of(layer.name)), []).append(entry)
        sums = [
            Part("", self._table(widths, entries), widths, unit)
            for (widths, unit), entries in self._sums.items()
        ]
        return (*sites, *sums)

    def steps(self) -> tuple[LiveStep, ...]:
        """Return what is live during each step."""
        if not self.with_peak:
            return ()
        pairs = zip(self._forms, self._calls, strict=True)
        return tuple(LiveStep(form, self.parts_of.unit_of(call.scope)) for form, call in pairs)

    # Amounts that add up

    def _table(
        self, widths: tuple[int, ...], entries: Sequence[tuple[str, Any]]
    ) -> dict[Counts, tuple[Choice, ...]]:
        table: dict[Counts, tuple[Choice, ...]] = {}
        for counts in product(*(self.widths[n].counts for n in widths)):
            at = dict(zip(widths, counts, strict=True))
            totals: dict[str, Any] = {}
            for name, amount in entries:
                more = amount(at)
                before = totals.get(name, 0)
                totals[name] = None if more is None or before is None else before + more
            table[counts] = (Choice(**totals),)
        return table

    def _add(self, name: str, form: Form, unit: int | None) -> None:
        """Add a form, term by term."""
        terms: list[tuple[tuple[int, ...], Form]] = [((), Form(form.constant))]
        terms += [((index,), Form(0, {index: x})) for index, x in form.linear.items()]
        for (a, b), factor in form.products.items():
            own = (a,) if a == b else (a, b)
            terms.append((own, Form(0, {}, {(a, b): factor})))
        for widths, term in terms:
            if widths or term.constant:
                self._sums.setdefault((widths, unit), []).append((name, term.at))

    def _add_curve(self, macs: Form, unit: int | None) -> None:
        """Add the power of the MACs of a layer."""
        widths = macs.widths
        if len(widths) > 2:
            self.curves.append(Curve(macs, unit))
        else:
            entry = ("value", lambda at: macs.at(at) ** POWER)
            self._sums.setdefault((widths, unit), []).append(entry)

    def _add_layer(self, name: str, calls: Sequence[LayerCall]) -> None:
        """Add what a layer that stays costs."""
        parts = self.parts_of
        unit = parts.unit_of(name)
        for call in calls:
            macs = self.tensors[call.weight].scaled(call.macs_per_weight)
            self._add("macs", macs, unit)
            self._add_curve(macs, unit)
            self._add("activations", written_form(call, parts.channels), unit)
        if parts.source is None:
            return
        reads, writes = self._ends(name, calls[0])
        widths = tuple(sorted({*reads.widths, *writes.widths}))
        if len(widths) > 2:  # as many as it may read: never less than it takes
            most = {index: self.widths[index].most for index in reads.widths}
            widths, reads = writes.widths, Form(int(reads.at(most)))
        for layer in parts.layers_of.get(name, ()):
            if layer.is_linear or parts._layer_ms(layer, layer.c_in, layer.c_out) is None:
                continue

            def time_at(at: Mapping[int, int], layer: TracedLayer = layer) -> Fraction | None:
                return parts._layer_ms(layer, reads.at(at), writes.at(at))

            self._sums.setdefault((widths, unit), []).append(("latency_ms", time_at))

    def _ends(self, name: str, call: LayerCall) -> tuple[Form, Form]:
        """Return how many channels a layer reads and writes."""
        layer = self.parts_of.layers_of[name][0]
        written = self.axes.get((call.weight, 0), Form(layer.c_out))
        read = self.axes.get((call.weight, 1), Form(layer.c_in))
        if layer.groups > 1:
            # A weight has the channels of all groups along its first axis only.
            ratio = Fraction(layer.c_in, layer.c_out)
            read = Form(
                int(written.constant * ratio),
                {index: int(x * ratio) for index, x in written.linear.items()},
            )
        return read, written

    # Layers that may become blocks

    def _site(self, conv: ReplaceableConv) -> Part | None:
        """Return a layer with the blocks that it may become, None if it stays whatever happens."""
        parts, calls = self.parts_of, self.calls.get(conv.name, [])
        weight = f"{conv.name}.weight"
        names = [n for n in parts.channels.parameters if n.rpartition(".")[0] == conv.name]
        if not calls or {call.weight for call in calls} != {weight} or weight not in names:
            return None
        reads = self.axes.get((weight, 1), Form(conv.layer.c_in))
        writes = self.axes.get((weight, 0), Form(conv.layer.c_out))
        widths = tuple(sorted({*reads.widths, *writes.widths}))
        entries = prod(len(self.widths[n].counts) for n in widths)
        if (len(widths) > 2 and entries > _ENTRIES) or len(calls) != len(conv.calls):
            return None
        written = Form.sum(written_form(call, parts.channels) for call in calls)
        if self.with_peak and len(self._live.get(conv.name, ())) != 1:
            return None
        live = self._forms[self._live[conv.name][0]] if self.with_peak else Form()
        table = {}
        for counts in product(*(self.widths[n].counts for n in widths)):
            key = conv.name, counts
            if key in parts.entries:
                table[counts] = parts.entries[key]
                continue
            at = dict(zip(widths, counts, strict=True))
            c_in, c_out = reads.at(at), writes.at(at)
            weights = self.tensors[weight].at(at)
            macs = [call.macs_per_weight * weights for call in calls]
            kept = Choice(
                sum(self.tensors[name].at(at) for name in names),
                sum(macs),
                written.at(at),
                self._time(conv, c_in, c_out, None),
                sum(amount**POWER for amount in macs),
            )
            blocks = (
                self._block(conv, sized, kept) for sized in parts.blocks_of(conv, c_in, c_out)
            )
            table[counts] = (kept, *(block for block in blocks if block is not None))
        if all(len(choices) == 1 for choices in table.values()):
            return None
        return Part(conv.name, table, widths, parts.unit_of(conv.name), live)

    def _time(
        self, conv: ReplaceableConv, c_in: int, c_out: int, sized: SizedBlock | None
    ) -> Fraction | None:
        """Return the time of all calls; none where that of the layer as it is is not known."""
        source = self.parts_of.source
        if source is None or conv.layer.is_linear:
            return Fraction(0)
        if sized is not None and isinstance(source, LayerTimes):
            # With the norms between the block's layers.
            source = replace(source, style=conv.default_style)
        block = sized or conv.at(conv.block.block, c_in, c_out)
        time = latency_of_calls(conv, block, source)
        return None if time is None else time.ms

    def _block(self, conv: ReplaceableConv, sized: SizedBlock, kept: Choice) -> Choice | None:
        """Return what a block costs in place of a layer, None if that is more."""
        step = conv.replaced_by(sized)
        macs = [step.macs(*sizes) for sizes in conv.calls]
        time = self._time(conv, sized.channels, sized.out_channels, sized)
        slower = time is not None and kept.latency_ms is not None and time > kept.latency_ms
        costs_more = step.params > kept.params or sum(macs) > kept.macs or slower
        if costs_more and self.parts_of.planned is None:
            return None
        inner = 0
        for (height, width), (out_height, out_width) in conv.calls:
            before, after = height * width, out_height * out_width
            strided = next((n for n, x in enumerate(sized.layers) if x.conv.spatial), 0)
            for index, layer in enumerate(sized.layers):
                pixels = before if index < strided else after
                inner += layer.c_out * pixels if layer.conv.writes else 0
            inner -= sized.out_channels * after
        more = self._more_live(conv, sized) if self.with_peak else 0
        # Its layers are one linear map, as that of the layer: two of them do not count for more.
        value = sum(amount**POWER for amount in macs)
        activations = kept.activations + inner
        return Choice(step.params, sum(macs), activations, time, value, sized, more)

    def _more_live(self, conv: ReplaceableConv, sized: SizedBlock) -> int:
        """Return how many elements more are live while a block runs than while the layer did."""
        size_in, size_out = conv.calls[0]
        chain = conv.replaced_by(sized).schedule(size_in, size_out)
        entered, written = chain.inputs[0], sized.out_channels * size_out[0] * size_out[1]
        if self._outlives(self._live[conv.name][0]):
            chain = Schedule(chain.inputs, chain.steps, (0, *chain.outputs))
        return max(0, chain.peak.elements - entered - written)

    def _outlives(self, index: int) -> bool:
        """Return whether what a step reads first may be read later, too."""
        schedule = self._schedule
        first = len(schedule.inputs)
        same = {schedule.steps[index].reads[0]}
        for number, step in enumerate(schedule.steps[: index + 1]):
            if step.alias in same:
                same.add(first + number)
        later = {value for step in schedule.steps[index + 1 :] for value in step.reads}
        return bool(same & {*later, *schedule.outputs})


# The search


def _solve(
    parts: NetworkParts,
    budgets: Budgets,
    objective: str,
    importance: Importance,
    deadline: float | None,
) -> tuple[Redesign, Counts]:
    """Return the best plan, and the numbers of channels of each group."""
    whole, narrowing = _summed(budgets), None
    if not whole.bounded:  # to see which channels can be removed
        whole = Budgets(params="60%").of({"params": parts.trace.params})
    narrowest: Counts | None = None
    if parts.freedom.widths and parts.channels.groups:
        narrowing = best_narrowing(
            parts.channels,
            whole,
            WIDTHS_OBJECTIVE,
            importance,
            parts.tried,
            seconds_left(deadline),
            with_bound=False,
        )
        parts.channels = narrowing.channels
        if narrowing.answer.best is not None:
            narrowest = narrowing.answer.best.counts
    channels = parts.channels
    every = tuple(parts.tried.width_of(x, channels.can_widen(x)) for x in channels.groups)
    if not parts.freedom.widths:
        every = tuple(replace(width, counts=(width.present,)) for width in every)
    alike = None
    if narrowing is not None and "latency_ms" not in budgets.bounded and whole == _summed(budgets):
        alike = narrowing.problem.alike

    def problem_around(
        parts: NetworkParts, narrowest: Counts | None, limits: Mapping[str, Any] | None = None
    ) -> JointProblem:
        widths = tuple(
            _tried(width, None if narrowest is None else narrowest[n])
            for n, width in enumerate(every)
        )
        peak = {PEAK: 0} if budgets.peak_memory is not None else {}
        free = parts.problem(widths, peak, objective)
        return replace(free, limits=limits or _limits(parts, free, budgets, alike))

    problem = problem_around(parts, narrowest)
    more = parts.freedom.depths or parts.freedom.blocks
    if more and narrowest is not None and not replace(problem.start, counts=narrowest).is_within:
        # The widths alone as latency bounds them, of which the plan is never below.
        alone = parts.with_widths_alone()
        own = problem_around(alone, narrowest, problem.limits)
        best = _rounds(alone, own, every, _hint(own, narrowest), deadline).best
        if best is not None:
            narrowest = best.counts
            problem = problem_around(parts, narrowest, problem.limits)
    answer = _rounds(parts, problem, every, _hint(problem, narrowest), deadline)
    if objective == "macs-3/4" and answer.best is not None:
        plan = with_more_params(answer.best, seconds_left(deadline))
        if plan is not answer.best:
            answer = Answer(Status.FEASIBLE, answer.bound, (plan,))
    best_problem = problem if answer.best is None else answer.best.problem
    return as_redesign(parts, budgets, objective, answer, best_problem, every)


def _refused(
    parts: NetworkParts, budgets: Budgets, objective: str, deadline: float | None
) -> Redesign | None:
    """Return the plan without a design where a budget is far below the least that is possible.

    The narrowest widths, without units that may go, and with the cheapest block of each layer are
    below every plan, with blocks of any fan-in where that may be lowered.
    """
    present = amounts_of(parts.trace, budgets.dtype) | {"latency_ms": parts.latency_ms}
    limits = {name: x for name, x in budgets.limits.items() if name in (*_SUMMED, "latency_ms")}
    if not any(x < _FAR * (present.get(name) or 0) for name, x in limits.items()):
        return None
    if parts.search.lower_floors:
        search = replace(parts.search, floors=parts.search.floors.but("least_fan_in", 1))
        parts = NetworkParts(parts.network, parts.trace, parts.freedom, search, parts.multiple)
    widths = tuple(parts.tried.width_of(group, False) for group in parts.channels.groups)
    narrow = tuple(
        replace(
            x, counts=tuple(sorted({x.counts[0] if parts.freedom.widths else x.present, x.present}))
        )
        for x in widths
    )
    problem = parts.problem(narrow, limits, objective)
    if all(_SURELY * problem.least(name) <= limit for name, limit in limits.items()):
        return None
    least = least_amounts(problem, deadline)
    answer: Answer[JointPlan] = Answer(Status.INFEASIBLE, None, (), least=least)
    return as_redesign(parts, budgets, objective, answer, problem, widths)[0]


def _unchanged(parts: NetworkParts, budgets: Budgets, objective: str) -> tuple[Redesign, Counts]:
    """Return the plan that changes nothing, for a network that keeps the budgets as it is."""
    every = tuple(parts.tried.width_of(group, False) for group in parts.channels.groups)
    widths = tuple(replace(width, counts=(width.present,)) for width in every)
    limits = dict(budgets.limits)
    if limits.pop("peak_memory", None) is not None:
        limits[PEAK] = budgets.peak_elements or 0
    problem = parts.problem(widths, limits, objective)
    answer = Answer(Status.OPTIMAL, None, (problem.start,))
    return as_redesign(parts, budgets, objective, answer, problem, every)


def _rounds(
    parts: NetworkParts,
    problem: JointProblem,
    every: Sequence[Width],
    hint: JointPlan | None,
    deadline: float | None,
) -> Answer[JointPlan]:
    """Return the best plan of several rounds of search: around the hint, far, around the best.

    The bound is that of the widest round, of whose numbers of channels the others are neighbours.
    """
    if problem.widths == tuple(every) or hint is None:
        first = best_joint(problem, hint, seconds_left(deadline))
        if problem.widths == tuple(every) or first.best is None:
            return first
        hint = first.best
    best, wide = hint, None
    for is_wide in (False, True, False):
        around = tuple(
            _tried(width, count) if is_wide else _around(width, count)
            for width, count in zip(every, best.counts, strict=True)
        )
        near = parts.problem(around, problem.limits, problem.objective)
        start = JointPlan(near, best.counts, best.present, _chosen(near, best))
        answer = best_joint(near, start, seconds_left(deadline))
        assert answer.best is not None
        is_better = answer.best.objective() < best.objective()
        best = answer.best
        wide = answer if is_wide else wide
        if is_wide and not is_better:
            break
    assert wide is not None
    objective, bound = best.objective(), wide.bound
    if bound is not None and objective <= bound:
        return Answer(Status.OPTIMAL, objective, (best,))
    return Answer(Status.FEASIBLE, bound, (best,))


def _summed(budgets: Budgets) -> Budgets:
    """Return the budgets without that of latency."""
    return Budgets(
        budgets.params, budgets.macs, peak_memory=budgets.peak_memory, dtype=budgets.dtype
    )


def _tried(width: Width, hint: int | None) -> Width:
    """Return a width with a few of its numbers, and those next to a hint."""
    shares = (Fraction(n, 8) for n in range(2, ceil(Fraction(8 * width.most, width.present)) + 1))
    counts = {width.nearest(share) for share in shares}
    if hint is not None:
        counts |= {*_around(width, hint, 1).counts}
    return replace(width, counts=tuple(sorted(counts)))


def _around(width: Width, count: int, steps: int = _STEPS_AROUND) -> Width:
    """Return a width with the numbers next to one, and with that of its channels now."""
    place = width.counts.index(count)
    counts = {*width.counts[max(0, place - steps) : place + steps + 1], width.present}
    return replace(width, counts=tuple(sorted(counts)))


def _limits(
    parts: NetworkParts, free: JointProblem, budgets: Budgets, alike: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the most of each amount: its budget, or what it has for want of one."""
    before = free.start.totals
    limits: dict[str, Any] = dict(budgets.limits)
    if limits.pop("peak_memory", None) is not None:
        limits[PEAK] = budgets.peak_elements
    if parts.freedom.widths and parts.channels.groups:
        least = replace(free.start, counts=tuple(width.counts[0] for width in free.widths)).totals
        narrowed = _narrowed_alike(free, limits)
        follows = alike or narrowed
        margin = 1 if replace(free, limits=limits).start.is_within else MARGIN
        for name in _SUMMED:
            most = max(floor(margin * follows[name]), least[name])
            limits.setdefault(name, most if name == "activations" else min(most, before[name]))
        is_timed = all("latency_ms" in amounts for amounts in (narrowed, least, before))
        if parts.source is not None and is_timed:
            slowest = max(margin * narrowed["latency_ms"], least["latency_ms"])
            limits.setdefault("latency_ms", min(slowest, before["latency_ms"]))
    for name in ("params", "macs"):
        limits.setdefault(name, before[name])
    if parts.source is not None:
        limits.setdefault("latency_ms", before["latency_ms"])
    return limits


def _narrowed_alike(free: JointProblem, limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the network costs with all widths narrowed alike, by a ratio that keeps limits.

    Between the widths that are tried amounts are taken to be linear; latency that is not known
    there is left out, and bounds nothing. As it is where none of them keeps the limits: only blocks
    or fewer units do then.
    """
    bounded, above = replace(free, limits=limits), free.start.totals
    for share in shares_alike(free.widths, _RATIOS)[:-1]:
        counts = tuple(width.nearest(share) for width in free.widths)
        plan = JointPlan(bounded, counts, free.start.present, free.start.chosen)
        if plan.is_within:
            return _between(plan.totals, above, limits)
        above = plan.totals
    return free.start.totals


def _between(
    low: Mapping[str, Any], high: Mapping[str, Any], limits: Mapping[str, Any]
) -> dict[str, Any]:
    """Return amounts as far from `low`, which keeps the limits, to `high` as those allow.

    >>> low = {"params": 100, "macs": 10, "activations": 4}
    >>> high = {"params": 200, "macs": 40, "activations": 4}
    >>> _between(low, high, {"params": 150, "latency_ms": 1})
    {'params': 150, 'macs': 25, 'activations': 4}
    """
    shares = (
        Fraction(limit - low[name]) / Fraction(high[name] - low[name])
        for name, limit in limits.items()
        if high.get(name, limit) > limit
    )
    share = min(shares, default=Fraction(0))
    amounts = {name: low[name] + floor(share * (high[name] - low[name])) for name in _SUMMED}
    if "latency_ms" in low and "latency_ms" in high:
        amounts["latency_ms"] = low["latency_ms"] + share * (high["latency_ms"] - low["latency_ms"])
    return amounts


def _hint(problem: JointProblem, counts: Counts | None) -> JointPlan | None:
    """Return a plan within the limits to begin from: of widths alone, or all narrowed alike.

    `counts`: widths alone, which latency may ask to be narrowed alike from there on.
    """
    start, shares = problem.start, shares_alike(problem.widths, _RATIOS // 4)
    choices = [tuple(width.nearest(share) for width in problem.widths) for share in shares[:-1]]
    if counts is not None:
        choices += [
            tuple(
                width.nearest(share * Fraction(count, width.present))
                for width, count in zip(problem.widths, counts, strict=True)
            )
            for share in shares_alike((), _RATIOS)[:-1]
        ]
    plans = [replace(start, counts=counts) for counts in dict.fromkeys(choices)]
    within = [plan for plan in plans if plan.is_within]
    return min(within, key=JointPlan.objective, default=None)


def _chosen(problem: JointProblem, plan: JointPlan) -> tuple[int, ...]:
    """Return the choices of a plan's blocks in a problem at other numbers of channels."""
    blocks = plan.blocks
    chosen = []
    for part in problem.parts:
        options = part.table[tuple(plan.counts[n] for n in part.widths)]
        block = blocks.get(part.name)
        chosen.append(next((n for n, x in enumerate(options) if x.block == block), 0))
    return tuple(chosen)


def as_redesign(
    parts: NetworkParts,
    budgets: Budgets,
    objective: str,
    answer: Answer[JointPlan],
    problem: JointProblem,
    every: Sequence[Width],
) -> tuple[Redesign, Counts]:
    """Return the plan of a network for the best plan of a problem."""
    best, groups = answer.best, parts.channels.groups
    counts = best.counts if best is not None else tuple(width.present for width in every)
    present = best.present if best is not None else (True,) * len(parts.units)
    dtype = budgets.dtype or DEFAULT_DTYPE

    def in_bytes(totals: Mapping[str, Any]) -> dict[str, Any]:
        peak = {PEAK: bytes_of(totals[PEAK], dtype)} if PEAK in totals else {}
        return {**totals, **peak}

    removed = [names for names, there in zip(parts.units, present, strict=True) if not there]
    gone = [name for names in removed for name in names]

    def stays(layer: str) -> bool:
        return not any(within(layer, name) for name in gone)

    plan = Redesign(
        budgets,
        objective,
        in_bytes(problem.start.totals),
        in_bytes(problem.limits),
        answer,
        (sum(len(x.counts) for x in problem.widths), sum(len(x.counts) for x in every)),
        tuple(
            GroupWidth(layers, group.width, count * group.channels)
            for group, count in zip(groups, counts, strict=True)
            if (layers := tuple(filter(stays, group.layers)))
        ),
        tuple(removed),
        tuple((len(stage), sum(present[n] for n in stage)) for stage in parts.stages),
        {} if best is None else best.blocks,
        {} if best is None else in_bytes(best.totals),
        parts.channels.fixed,
        tuple(parts.notes),
    )
    return plan, counts


# The network that comes out


def narrowed_copy(
    parts: NetworkParts, plan: Redesign, counts: Counts, importance: Importance
) -> NarrowedCopy | Resized:
    """Return a copy without the units and channels of a plan, and the steps of its blocks.

    Or, where channels cannot be added as planned, which.

    Raises: SettingError where what is left is not what was planned.
    """
    start, image = parts.network, parts.trace.image
    copy = EditedNetwork(copy_of_network(start.model), start.edits.for_image(image))
    copy = copy.apply(*(Remove(names) for names in reversed(plan.removed)))
    new_names = {
        old.rpartition(".")[0]: new.rpartition(".")[0]
        for old, new in names_after(start, copy).items()
    }
    if any(width.before != width.after for width in plan.widths):
        old_names = {new: old for old, new in new_names.items()}
        channels = Channels(copy.model, image) if plan.removed else parts.channels
        scores = scores_of(importance, parts.channels)
        if not isinstance(scores, int):
            scores = {new_names[name]: x for name, x in scores.items() if name in new_names}
        count_of = {
            layer: (len(group.classes), count)
            for group, count in zip(parts.channels.groups, counts, strict=True)
            for layer in group.layers
        }
        kept = []
        for group in channels.groups:
            own = len(group.classes)
            size, count = count_of.get(old_names[group.name], (own, own))
            if size != own:
                raise _not_as_planned(f"{own} channels of {group.name}", f"{size} of them")
            kept.append(count)
        resized = resize_copy(channels, copy.model, kept, scores)
        if resized.fixed:
            reason = next(iter(resized.fixed.values()))
            raise _not_as_planned(reason, "channels that can be removed")
        if resized.not_wider:
            return resized
        copy = EditedNetwork(copy.model, copy.edits.then(*resized.steps))
    best = plan.answer.best
    assert best is not None
    expected = replace(best, chosen=(0,) * len(best.chosen)).totals
    trace = traced(copy.model, image)
    amounts, planned = (trace.params, trace.macs), (expected["params"], expected["macs"])
    if amounts != planned:
        raise _not_as_planned(
            *("{:,} parameters, {:,} MACs".format(*x) for x in (amounts, planned))
        )
    steps = tuple(
        replace(parts.convs[name].replaced_by(sized), name=new_names[name])
        for name, sized in plan.blocks.items()
    )
    return NarrowedCopy(copy, steps)


def _not_as_planned(got: str, allowed: str) -> SettingError:
    return SettingError.because(
        "a network that is not what was planned without some units",
        got=got,
        allowed=allowed,
        remedy="keep the depths",
        argument="model",
    )
