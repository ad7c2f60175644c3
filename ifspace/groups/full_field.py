"""The cheapest block with the full field of a standard convolution, over a list of compositions.

Each composition is a problem of group counts of its own. The cheapest block asks of every later one
only what is cheaper than the best known, which most refuse at once.

Reference: [Fog] section 3.3.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Literal, TypeVar

from ifspace.answer import Status
from ifspace.block import Composition
from ifspace.catalogue.setting import Objective
from ifspace.cpsat import left
from ifspace.errors import IfspaceError
from ifspace.groups.problem import GroupPlan, GroupsProblem, Weights
from ifspace.groups.solve import cheapest_groups
from ifspace.kinds import find_kind
from ifspace.values import whole_within

Problems = tuple[GroupsProblem, ...]
T = TypeVar("T")

# Of the 96 compositions of two to four layers in the study of groups (results/groups-study.csv),
# there is for every pair of widths and every number of layers one of these that nothing of as many
# layers is cheaper than; the same holds for all 96 at 72 pairs from 16 to 1024 channels, and for
# MACs at stride 2. Of those that tie (results/best-64.md) the list has GPW rather than RPW as the
# last layer, which reads the same there, and DW where maps or channels are fewest: at the front,
# where a stride sits on it, or at the end, when the block ends narrower than it begins. DW+PW and
# PW+DW exist at every width, prime ones too.
SPATIAL: Final = (
    "DW+RPW+RPW+GPW",
    "RPW+RPW+GPW+DW",
    "DW+RPW+GPW",
    "RPW+GPW+DW",
    "RPW+RPW+GC",
    "RPW+GC",
    "PW+GC",
    "DW+PW",
    "PW+DW",
)
# The same without the spatial layer: for convolutions of one pixel.
POINTWISE: Final = ("RPW+RPW+GPW", "RPW+GPW", "PW")
DEFAULT: Final = tuple(map(Composition.parse, (*SPATIAL, *POINTWISE)))
DEPTHWISE: Final = Composition.parse("DW+PW")
# What was proven before, by search and problems.
_KNOWN: Final[dict[Any, Any]] = {}


def cheapest_block(
    c_in: int,
    c_out: int,
    kernel: int = 3,
    stride: Literal[1, 2] = 1,
    side: int | None = None,
    objective: Objective = "params",
    compositions: tuple[Composition, ...] = DEFAULT,
    time_limit_s: float | None = None,
) -> GroupPlan | None:
    """Return the cheapest plan of any of the compositions, or None where none has one.

    Of equal cost the one of fewest layers, then the composition that stands first. Compositions
    without a spatial layer are for kernel and stride 1, those with one for the others. `side`, that
    of the input in pixels, tells the pixels on both sides of a stride exactly; without it they
    differ fourfold. A time limit ends the search with the best found by then, without proof.

    >>> str(cheapest_block(64, 64).block), cheapest_block(64, 64).objective()
    ('DW+RPW(16,0)+RPW(16,0)+GPW(16)', 1344)

    Raises: SettingError for widths, kernel, stride, side or objective out of range.

    Reference: [Fog] section 3.3.
    """
    problems = _problems(c_in, c_out, kernel, stride, side, objective, compositions)
    return _in_time(_cheapest, problems, time_limit_s)


def ranked_blocks(
    c_in: int,
    c_out: int,
    kernel: int = 3,
    stride: Literal[1, 2] = 1,
    side: int | None = None,
    objective: Objective = "params",
    compositions: tuple[Composition, ...] = DEFAULT,
    time_limit_s: float | None = None,
) -> tuple[GroupPlan, ...]:
    """Return the cheapest plan of every composition that has one, cheapest first.

    Everything else is as `cheapest_block` has it, whose answer is the first.

    >>> [str(plan.block) for plan in ranked_blocks(64, 64)[-2:]]
    ['PW+DW', 'PW+GC(32)']

    Raises: SettingError for widths, kernel, stride, side or objective out of range.
    """
    problems = _problems(c_in, c_out, kernel, stride, side, objective, compositions)
    return _in_time(_ranked, problems, time_limit_s)


def _problems(
    c_in: int,
    c_out: int,
    kernel: int,
    stride: Literal[1, 2],
    side: int | None,
    objective: Objective,
    compositions: tuple[Composition, ...],
) -> Problems:
    """Return a problem of group counts for each composition that can stand for the convolution."""

    def of(composition: Composition) -> GroupsProblem:
        weights = _weights(side) if objective == "macs" and stride == 2 else None
        return GroupsProblem(
            composition,
            c_in,
            c_out,
            kernel=kernel,
            objective=objective,
            weights=weights,
            stride=stride,
        )

    of(DEPTHWISE)  # it fits all widths: what is refused here is the caller's
    spatial = kernel > 1 or stride > 1
    found = []
    for composition in dict.fromkeys(compositions):
        if any(find_kind(kind).spatial for kind in composition.kinds) == spatial:
            with suppress(IfspaceError):
                found.append(of(composition))
    return tuple(found)


def _weights(side: int | None) -> Weights | None:
    """Return weights of parameters and MACs that count a stride of 2 on maps of an odd side.

    With p weights before the stride and q behind it, params is p + q and MACs, four pixels to one,
    4p + q. On n x n pixels before and m x m behind, the sum wanted is n²p + m²q: three times that.
    """
    if side is None or whole_within(side, "side", 1) % 2 == 0:
        return None
    before, behind = side**2, ((side + 1) // 2) ** 2
    return 4 * behind - before, before - behind, 0


def _in_time(
    search: Callable[[Problems, float | None], tuple[T, bool]],
    problems: Problems,
    time_limit_s: float | None,
) -> T:
    """Return what a search finds; what it proves is not looked for again."""
    key = search, problems
    if key not in _KNOWN:
        deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
        found, proven = search(problems, deadline)
        if not proven:
            return found
        _KNOWN[key] = found
    known: T = _KNOWN[key]
    return known


def _cheapest(problems: Problems, deadline: float | None) -> tuple[GroupPlan | None, bool]:
    best: GroupPlan | None = None
    proven = True
    for problem in problems:
        most = None
        if best is not None:
            no_shorter = len(problem.composition) >= len(best.problem.composition)
            most = best.objective() - no_shorter
        plan, ended = _solved(problem, deadline, most)
        best, proven = plan or best, proven and ended
    if best is not None and best.problem != problems[0]:
        # Of groups that cost the same, those that are found without a limit, as when ranked.
        plan, ended = _solved(best.problem, deadline)
        best, proven = (plan or best) if ended else best, proven and ended
    return best, proven


def _ranked(problems: Problems, deadline: float | None) -> tuple[tuple[GroupPlan, ...], bool]:
    solved = [_solved(problem, deadline) for problem in problems]
    plans = [plan for plan, _ in solved if plan is not None]
    plans.sort(key=lambda plan: (plan.objective(), len(plan.problem.composition)))
    return tuple(plans), all(ended for _, ended in solved)


def _solved(
    problem: GroupsProblem, deadline: float | None, at_most: int | None = None
) -> tuple[GroupPlan | None, bool]:
    """Return the cheapest plan of a problem, if any, and whether that is proven."""
    answer = cheapest_groups(problem, time_limit_s=left(deadline), at_most=at_most)
    proven = answer.status in (Status.OPTIMAL, Status.INFEASIBLE)
    return next(iter(answer.plans), None), proven
