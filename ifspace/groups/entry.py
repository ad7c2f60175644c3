"""Group counts from Python: what `ifspace groups` solves."""

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from ifspace.answer import Status
from ifspace.block import DEFAULT_KERNEL, Composition
from ifspace.catalogue.setting import DEFAULT_OVERLAPS, Objective, RpwOrder
from ifspace.errors import SettingError
from ifspace.floors import NO_FLOORS, Floors, leaves_nothing
from ifspace.groups.problem import GroupsAnswer, GroupsProblem, Weights, WidestProblem
from ifspace.groups.remedy import TIME_LIMIT_S as REMEDY_LIMIT_S
from ifspace.groups.solve import cheapest_groups, widest_block
from ifspace.memory import peak_limit
from ifspace.parallel import Progress


def find_groups(
    composition: str | Composition,
    channels: int | None = None,
    out_channels: int | None = None,
    *,
    budget: int | None = None,
    alpha: Fraction | int | str = 1,
    multiple: int = 1,
    bottleneck: Fraction | str | None = None,
    widths: Sequence[int] | None = None,
    kernel: int = DEFAULT_KERNEL,
    overlaps: Sequence[Any] | None = DEFAULT_OVERLAPS,
    objective: Objective = "params",
    weights: Weights | None = None,
    stride: int = 1,
    rpw_order: RpwOrder = "rolling",
    floors: Floors = NO_FLOORS,
    peak_memory: int | str | None = None,
    dtype: str | None = None,
    side: int | None = None,
    top: int = 1,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
) -> GroupsAnswer:
    """Return the `top` cheapest group counts of full field, or the widest block in a budget.

    With `channels` (and `out_channels`, the same if None) the cheapest plans at these widths; with
    `budget` instead the widest block of at most so many parameters, whose output is `alpha` times
    as wide as its input, a multiple of `multiple`; `floors` hold for all channel-mixing layers.
    `peak_memory`: bytes that feature maps of a `dtype` may need at once where the block writes
    side x side pixels. The options are those of `ifspace groups`.

    >>> answer = find_groups("DW+GPW+SH+GPW", 280, 72)
    >>> answer.status.name, answer.bound, str(answer.plans[0].block)
    ('OPTIMAL', 7280, 'DW+GPW(35)+SH(35)+GPW(8)')
    >>> str(find_groups("DW+RPW+RPW", budget=1600, multiple=8).plans[0].block)
    'DW+RPW(8,0)+RPW(8,0)'

    Raises: SettingError for numbers out of range, both or neither of `channels` and `budget`, and
        floors without which there were a plan.
    """
    if (channels is None) == (budget is None):
        raise SettingError.because(
            "channels or a budget",
            got="neither" if channels is None else "both",
            allowed="the width of the block, or the parameters of the widest",
            remedy="give one of them",
        )
    problem = groups_problem(
        composition,
        channels,
        out_channels,
        budget=budget,
        alpha=alpha,
        multiple=multiple,
        bottleneck=bottleneck,
        widths=widths,
        kernel=kernel,
        overlaps=overlaps,
        objective=objective,
        weights=weights,
        stride=stride,
        rpw_order=rpw_order,
        floors=floors,
        most_peak=peak_limit(peak_memory, dtype, side),
    )
    return solve(problem, top, time_limit_s, progress)


def groups_problem(
    composition: str | Composition,
    channels: int | None,
    out_channels: int | None,
    *,
    budget: int | None,
    alpha: Any,
    multiple: int,
    widths: Any,
    objective: Objective,
    weights: Weights | None,
    **shared: Any,
) -> GroupsProblem | WidestProblem:
    """Return the problem of `channels`, or that of a budget where there is one.

    `shared` are the fields that both kinds of problem have.

    Raises: SettingError or BlockError for values out of range.
    """
    if isinstance(composition, str):
        composition = Composition.parse(composition)
    if budget is not None:
        return WidestProblem(composition, budget, alpha, multiple, **shared)
    return GroupsProblem(
        composition,
        channels or 0,
        out_channels,
        widths=widths,
        objective=objective,
        weights=weights,
        **shared,
    )


def solve(
    problem: GroupsProblem | WidestProblem,
    top: int = 1,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
) -> GroupsAnswer:
    """Return the answer to a problem of either kind; there is one widest block, whatever `top`.

    Raises: SettingError for floors without which a problem of given widths had a plan: which of
        them, and the nearest that works.
    """
    if isinstance(problem, WidestProblem):
        return widest_block(problem, time_limit_s=time_limit_s, progress=progress)
    answer = cheapest_groups(problem, top=top, time_limit_s=time_limit_s)
    if problem.floors and answer.status is Status.INFEASIBLE and _works(problem, NO_FLOORS):
        raise leaves_nothing(
            problem.floors,
            lambda floors: _works(problem, floors),
            [layer.c_in for layer in problem.chain],
            f"of {problem.composition} at {problem.widths_text}",
        )
    return answer


def _works(problem: GroupsProblem, floors: Floors) -> bool:
    other = replace(problem, floors=floors)
    return bool(cheapest_groups(other, time_limit_s=REMEDY_LIMIT_S).plans)
