"""Rank the compositions that can replace a convolution by their cheapest full-field block.

Each composition is a groups problem of its own at the widths of the convolution.

Reference: [Fog] section 3.3.
"""

import time
from contextlib import suppress
from dataclasses import replace
from itertools import product
from typing import Final, Literal

from ifspace.answer import Status
from ifspace.block import Block, Composition, SizedBlock
from ifspace.catalogue.setting import Objective
from ifspace.cpsat import seconds_left
from ifspace.errors import IfspaceError
from ifspace.floors import NO_FLOORS, Floors
from ifspace.groups.problem import GroupPlan, GroupsProblem, Weights
from ifspace.groups.solve import cheapest_groups
from ifspace.kinds import find_kind, grouped_pointwise_kind
from ifspace.values import MAX_WIDTH, whole_number

# Of the 96 compositions of two to four layers in the study of groups (results/groups-study.csv),
# there is for every pair of widths and every number of layers one of these that nothing of as many
# layers is cheaper than; the same holds for all 96 at 72 pairs from 16 to 1024 channels, and for
# MACs at stride 2. Of those that tie (results/best-64.md) the list has GPW rather than RPW as the
# last layer, which reads the same there, and DW where feature maps or channels are fewest: at the
# front, where a stride sits on it, or at the end, when the block ends narrower than it begins.
# DW+PW and PW+DW exist at every width, prime ones too.
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
# The same without the spatial layer: for 1 x 1 convolutions.
POINTWISE: Final = ("RPW+RPW+GPW", "RPW+GPW", "PW")
DEFAULT: Final = tuple(map(Composition.parse, (*SPATIAL, *POINTWISE)))
DEPTHWISE: Final = Composition.parse("DW+PW")
# What may replace a layer whose block need not be the cheapest, by whether it is spatial: two
# layers in g and h groups; and three, which go lowest, whose groups are searched.
PAIRS: Final = {
    True: (
        "DW({k})+GPW({g})+SH({g})+GPW({h})",
        "GC({g},k={k})+SH({g})+GPW({h})",
        "RPW({g},0)+GC({h},k={k})",
    ),
    False: ("GPW({g})+SH({g})+GPW({h})", "RPW({g},0)+GPW({h})"),
}
SEARCHED: Final = {
    True: tuple(map(Composition.parse, ("DW+PW", "DW+RPW+RPW+GPW"))),
    False: (Composition.parse("RPW+RPW+GPW"),),
}
# Proven rankings, and proven fronts of one composition, by their problems.
_PROVEN: Final[dict[tuple[GroupsProblem, ...], tuple[GroupPlan, ...]]] = {}
_FRONTS: Final[dict[GroupsProblem, tuple[GroupPlan, ...]]] = {}


def ranked_blocks(
    c_in: int,
    c_out: int,
    kernel: int = 3,
    stride: Literal[1, 2] = 1,
    side: int | None = None,
    objective: Objective = "params",
    compositions: tuple[Composition, ...] = DEFAULT,
    time_limit_s: float | None = None,
    floors: Floors = NO_FLOORS,
) -> tuple[GroupPlan, ...]:
    """Return the cheapest plan of every composition that has one, cheapest first.

    Of equal cost the one with fewest layers comes first, then the one with the fewest layers of
    overlapping windows and of windows, then the composition that is listed first.
    Compositions without a spatial layer are for kernel 1 at stride 1, those with one for all other
    convolutions. `side`, the side of the input in pixels, makes the pixels on both sides of a
    stride exact; without it they differ fourfold. A time limit ends the search with the plans found
    by then, without proof; a proven ranking is cached. `floors` hold for every block.

    >>> [str(plan.block) for plan in ranked_blocks(64, 64)[-2:]]
    ['PW+DW', 'PW+GC(32)']

    Raises: SettingError for widths, kernel, stride, side or objective out of range.

    Reference: [Fog] section 3.3.
    """
    problems = _problems(c_in, c_out, kernel, stride, side, objective, compositions, floors)
    ranking = _PROVEN.get(problems)
    if ranking is not None:
        return ranking
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    answers = [
        cheapest_groups(problem, time_limit_s=seconds_left(deadline)) for problem in problems
    ]
    plans = [plan for answer in answers for plan in answer.plans]
    plans.sort(key=lambda plan: (plan.objective(), len(plan.block), plan.block.window_counts))
    ranking = tuple(plans)
    if all(answer.status in (Status.OPTIMAL, Status.INFEASIBLE) for answer in answers):
        _PROVEN[problems] = ranking
    return ranking


def front_blocks(
    c_in: int,
    c_out: int,
    kernel: int = 3,
    stride: Literal[1, 2] = 1,
    floors: Floors = NO_FLOORS,
    searched: bool = True,
) -> tuple[SizedBlock, ...]:
    """Return blocks with the full field that trade parameters for the least fan-in.

    Of every composition the block of fewest parameters for one least fan-in after another, each at
    least twice the one before, as long as it has fewer parameters than the convolution. Fewest
    parameters first; of as many the one with fewer layers of overlapping windows and of windows,
    so that plain grouped convolutions come before RPW. Blocks of three mixing layers are searched,
    at widths up to `MAX_WIDTH`, unless `searched` is false.

    >>> [str(sized.block) for sized in front_blocks(64, 64, kernel=1)][:2]
    ['RPW(16,0)+RPW(16,0)+GPW(16)', 'GPW(8)+SH(8)+GPW(8)']

    Raises: SettingError for widths, kernel or stride out of range.

    Reference: [Fog] section 3.3 for the blocks of one least fan-in.
    """
    spatial = kernel > 1 or stride > 1
    blocks = [
        sized
        for pair in PAIRS[spatial]
        for sized in _front_of_pair(pair, c_in, c_out, kernel, floors)
    ]
    if searched and max(c_in, c_out) <= MAX_WIDTH:
        compositions = SEARCHED[spatial]
        problems = _problems(c_in, c_out, kernel, stride, None, "params", compositions, floors)
        blocks += [plan.sized for problem in problems for plan in _front_of(problem)]
    blocks.sort(key=lambda sized: (sized.params, sized.block.window_counts, len(sized.block)))
    return tuple(blocks)


def _front_of_pair(
    pair: str, c_in: int, c_out: int, kernel: int, floors: Floors
) -> list[SizedBlock]:
    """Return the blocks of two mixing layers with the full field, each of twice the least fan-in.

    An output reads C / h neighbours of what the first layer writes, behind a shuffle in g groups or
    windows without overlap: one of each group in turn, of which each has read C / g channels. So it
    sees all C channels if g h <= C, and with no other g and h: it sees C / g times C / h at most.
    """
    kind = grouped_pointwise_kind()
    pairs = [
        (g, h)
        for g, h in product(kind.group_counts(c_in, c_in), kind.group_counts(c_in, c_out))
        if g and h and g * h <= c_in
    ]
    if not floors.without("least_fan_in"):
        # The larger count decides the least fan-in; the other one is the best that is largest.
        most: dict[tuple[int, bool], tuple[int, int]] = {}
        for g, h in pairs:
            key = max(g, h), g >= h
            most[key] = max(most.get(key, (0, 0)), (g, h))
        pairs = sorted(most.values())
    options = [Block.parse(pair.format(g=g, h=h, k=kernel)).at(c_in, c_out) for g, h in pairs]
    blocks: list[SizedBlock] = []
    for sized in sorted(options, key=lambda sized: sized.params):
        doubles = not blocks or sized.least_fan_in >= 2 * blocks[-1].least_fan_in
        if doubles and sized.meets(floors) and sized.params < c_in * c_out * kernel**2:
            blocks.append(sized)
    return blocks


def _front_of(problem: GroupsProblem) -> tuple[GroupPlan, ...]:
    """Return the cheapest plans of a composition, each of twice the least fan-in at least."""
    if problem not in _FRONTS:
        front: list[GroupPlan] = []
        floors = problem.floors
        most = problem.channels * problem.out_width * problem.kernel**2 - 1
        while plans := cheapest_groups(replace(problem, floors=floors), at_most=most).plans:
            front.append(plans[0])
            floors = replace(floors, least_fan_in=2 * plans[0].sized.least_fan_in)
        _FRONTS[problem] = tuple(front)
    return _FRONTS[problem]


def _problems(
    c_in: int,
    c_out: int,
    kernel: int,
    stride: Literal[1, 2],
    side: int | None,
    objective: Objective,
    compositions: tuple[Composition, ...],
    floors: Floors,
) -> tuple[GroupsProblem, ...]:
    """Return a groups problem for each composition that can replace the convolution."""

    def problem_of(composition: Composition) -> GroupsProblem:
        weights = _weights(side) if objective == "macs" and stride == 2 else None
        return GroupsProblem(
            composition,
            c_in,
            c_out,
            kernel=kernel,
            objective=objective,
            weights=weights,
            stride=stride,
            floors=floors,
        )

    problem_of(DEPTHWISE)  # it fits all widths: an error here is in the caller's arguments
    spatial = kernel > 1 or stride > 1
    problems = []
    for composition in dict.fromkeys(compositions):
        if any(find_kind(kind).spatial for kind in composition.kinds) == spatial:
            with suppress(IfspaceError):
                problems.append(problem_of(composition))
    return tuple(problems)


def _weights(side: int | None) -> Weights | None:
    """Return weights of parameters and MACs that count a stride of 2 at an odd side exactly.

    With p weights before the stride and q behind it, params is p + q and MACs, four pixels to one,
    4p + q. On n x n pixels before and m x m behind, the MACs are n²p + m²q; three times that is
    (4m² - n²)(p + q) + (n² - m²)(4p + q).
    """
    if side is None or whole_number(side, "side", 1) % 2 == 0:
        return None
    before, behind = side**2, ((side + 1) // 2) ** 2
    return 4 * behind - before, before - behind, 0
