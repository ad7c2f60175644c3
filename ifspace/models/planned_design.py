"""A redesign that a plan file says: its widths, removed units and blocks instead of a search."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from fractions import Fraction
from itertools import pairwise

from ifspace.answer import Answer, Status
from ifspace.errors import IfspaceError, SettingError
from ifspace.models.decomposition import Search, amounts_of
from ifspace.models.edits import EditedNetwork
from ifspace.models.graph import Trace
from ifspace.models.joint import (
    Freedom,
    NarrowedCopy,
    NetworkParts,
    Redesign,
    as_redesign,
    narrowed_copy,
)
from ifspace.models.plan_file import PlannedBlock, PlannedDesign, misfit_error, plan_error
from ifspace.models.replaceable import Layers
from ifspace.models.units import unit_name, within
from ifspace.models.widths import MOST_WIDER, WIDTHS_OBJECTIVE, Importance, tensor_forms
from ifspace.stages.joint import PEAK, JointPlan
from ifspace.stages.problem import Budgets
from ifspace.stages.widths import Form, Width


def planned_redesign(
    network: EditedNetwork,
    trace: Trace,
    planned: PlannedDesign,
    budgets: Budgets,
    search: Search = Search(),  # noqa: B008 - a frozen value
    importance: Importance = "l2",
) -> tuple[Redesign, NarrowedCopy | None]:
    """Return what a plan makes of a traced network, and the copy with its units and channels.

    No copy where the budgets are not kept.

    Raises: SettingError for an entry that the network does not take, with its line.
    """
    blocks = {entry.name: entry.block for entry in planned.blocks}
    freedom = Freedom(
        depths=bool(planned.removed),
        widen=Fraction(MOST_WIDER),
        layers=Layers(least_channels=1, classifier=True),
    )
    parts = NetworkParts(network, trace, freedom, search, 1, blocks)
    budgets = budgets.of({**amounts_of(trace, budgets.dtype), "latency_ms": parts.latency_ms})
    widths, counts = _widths(parts, planned)
    absent = _absent(parts, planned)
    _check_layers(parts, planned, absent)
    limits = dict(budgets.limits)
    if limits.pop("peak_memory", None) is not None:
        limits[PEAK] = budgets.peak_elements or 0
    problem = parts.problem(widths, limits, search.objective or WIDTHS_OBJECTIVE)
    present = tuple(unit not in absent for unit in range(len(parts.units)))
    plan = JointPlan(problem, counts, present, (0,) * len(problem.parts))
    chosen = []
    for part in problem.parts:
        options = part.table[tuple(counts[n] for n in part.widths)]
        is_there = plan.is_there(part.unit)
        chosen.append(int(part.name in blocks and is_there and len(options) > 1))
    plan = replace(plan, chosen=tuple(chosen))
    for entry in planned.blocks:
        if entry.name not in plan.blocks:
            raise _misfit(parts, counts, entry)
    if plan.is_within:
        plan.check()
        answer = Answer(Status.FEASIBLE, None, (plan,))
    else:
        least = {name: plan.totals[name] for name in limits if name in plan.totals}
        answer = Answer(Status.INFEASIBLE, None, (), least=least)
    design, counts = as_redesign(parts, budgets, problem.objective, answer, problem, widths)
    design = replace(design, is_planned=True)
    if answer.best is None:
        return design, None
    copy = narrowed_copy(parts, design, counts, importance)
    if not isinstance(copy, NarrowedCopy):
        width = next(entry for entry in planned.widths if entry.layers[0] in copy.not_wider)
        raise plan_error(
            width.place, "a width that cannot grow", str(width.after), f"up to {width.before}"
        )
    return design, copy


def _widths(
    parts: NetworkParts, planned: PlannedDesign
) -> tuple[tuple[Width, ...], tuple[int, ...]]:
    """Return the widths of all groups, and the number of classes that the plan gives them."""
    entries = {(entry.layers, entry.before): entry for entry in planned.widths}
    widths, counts = [], []
    for group in parts.channels.groups:
        entry = entries.pop((group.layers, group.width), None)
        present, after = len(group.classes), group.width if entry is None else entry.after
        count, rest = divmod(after, group.channels)
        can_widen = parts.channels.can_widen(group)
        if entry is not None and (rest or not count):
            allowed = f"multiples of {group.channels}, which go together"
            raise plan_error(entry.place, "a width that layers cannot have", str(after), allowed)
        if entry is not None and count > present * (MOST_WIDER if can_widen else 1):
            most = group.width * (MOST_WIDER if can_widen else 1)
            reason = "" if can_widen else ": a norm puts its channels together"
            raise plan_error(
                entry.place, "a width that cannot grow", str(after), f"up to {most}{reason}"
            )
        widths.append(Width(group.name, tuple(sorted({count, present})), group.channels, present))
        counts.append(count)
    for (layers, before), entry in entries.items():
        if entry.after != before:
            names = [group.name for group in parts.channels.groups]
            allowed = _near(layers[0], names) or "layers whose width can change"
            raise plan_error(
                entry.place, "no channels of the network", f"{layers[0]}: {before}", allowed
            )
    return tuple(widths), tuple(counts)


def _absent(parts: NetworkParts, planned: PlannedDesign) -> set[int]:
    """Return the indices of the units that the plan removes."""
    names = [unit_name(names) for names in parts.units]
    absent = set()
    for name, place in planned.removed:
        if name not in names:
            allowed = _near(name, names) or "units that may go"
            raise plan_error(place, "no unit that can be removed", repr(name), allowed)
        absent.add(names.index(name))
    for stage in parts.stages:
        for before, after in pairwise(stage):
            if before in absent and after not in absent:
                place = next(place for name, place in planned.removed if name == names[before])
                allowed = f"{names[after]} removed before it"
                raise plan_error(place, "a unit that goes later", names[before], allowed)
    return absent


def _check_layers(parts: NetworkParts, planned: PlannedDesign, absent: set[int]) -> None:
    """Check that the layers of blocks are there."""
    for entry in planned.blocks:
        if entry.name not in parts.convs:
            allowed = _near(entry.name, list(parts.convs)) or "layers that blocks fit"
            raise plan_error(entry.place, "no layer that a block fits", repr(entry.name), allowed)
        gone = [parts.units[unit] for unit in absent]
        if any(within(entry.name, module) for names in gone for module in names):
            raise plan_error(
                entry.place, "a block in a unit that is removed", entry.name, "layers that stay"
            )


def _misfit(parts: NetworkParts, counts: tuple[int, ...], entry: PlannedBlock) -> SettingError:
    """Return the error of a block that its layer cannot become at the widths of the plan."""
    conv, axes = parts.convs[entry.name], tensor_forms(parts.channels)[0]
    at = dict(enumerate(counts))
    c_out, c_in = (
        axes.get((f"{entry.name}.weight", axis), Form(width)).at(at)
        for axis, width in enumerate((conv.layer.c_out, conv.layer.c_in))
    )
    try:
        conv.at(entry.block, c_in, c_out)
    except IfspaceError as error:
        return misfit_error(entry, error, c_in, c_out, conv.stride)
    return plan_error(
        entry.place,
        "a layer whose block cannot be planned with widths",
        f"{entry.name}: {entry.block}",
        "layers that run once and read and write one group of channels each",
    )


def _near(name: str, names: Sequence[str]) -> str:
    return ", ".join(get_close_matches(name, names, 3, 0.3) or names[:3])
