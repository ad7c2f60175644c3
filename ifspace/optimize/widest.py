"""The widest block within a parameter budget, with its groups.

Widths are tried from above, so the first one with a plan is the widest. Above the first width that
is tried no block exists: the fan-ins of a full-field block multiply to its width at least, and by
the inequality of the arithmetic and geometric mean the parameters of fan-ins with a given product
have a least value, which grows with the width.

Reference: [Fog] section 3.3, the widest C for given parameters.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from math import prod

from ifspace.errors import BlockError, SettingError
from ifspace.optimize.groups import cheapest_groups
from ifspace.plan.groups import GroupsAnswer, GroupsProblem, Status
from ifspace.plan.legal import MAX_WIDTH


def widest_block(
    problem: GroupsProblem,
    budget: int,
    alpha: Fraction | int = 1,
    multiple: int = 1,
    time_limit_s: float | None = None,
) -> GroupsAnswer:
    """Return the widest block of at most `budget` parameters, and of those the cheapest.

    The block has C channels in and alpha x C out, C a multiple of `multiple`, at most MAX_WIDTH.
    `problem` says the rest; its widths do not matter. The bound is that of the plan's parameters.

    >>> from ifspace.block import Composition
    >>> answer = widest_block(GroupsProblem(Composition.parse("DW+RPW+RPW"), 1), 1600, multiple=8)
    >>> answer.plans[0].problem.channels, answer.plans[0].objective()
    (64, 1600)

    Raises: SettingError for a budget, ratio or multiple below 1 or explicit interior widths.
    """
    ratio = Fraction(alpha)
    if problem.widths is not None or budget < 1 or multiple < 1 or ratio <= 0:
        raise SettingError.because(
            "no widths to look for",
            got=f"budget {budget}, alpha {alpha}, multiple {multiple}, widths {problem.widths}",
            allowed="budget and multiple from 1, alpha above 0, no explicit interior widths",
            remedy="use a bottleneck ratio for the inside",
        )
    problem = replace(problem, objective="params", weights=None)
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    for candidate in _from_above(problem, budget, ratio, multiple):
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return GroupsAnswer(Status.UNKNOWN, None, ())
        answer = cheapest_groups(candidate, time_limit_s=left, at_most=budget)
        if answer.status is not Status.INFEASIBLE:
            return answer
    return GroupsAnswer(Status.INFEASIBLE, None, ())


def _at(problem: GroupsProblem, channels: int, alpha: Fraction) -> GroupsProblem | None:
    out = alpha * channels
    if out.denominator != 1 or out < 1:
        return None
    try:
        return replace(problem, channels=channels, out_channels=int(out))
    except (BlockError, SettingError):
        return None  # a bottleneck that is no whole number of channels there


def _from_above(
    problem: GroupsProblem, budget: int, alpha: Fraction, multiple: int
) -> Iterator[GroupsProblem]:
    for channels in range(MAX_WIDTH // multiple * multiple, 0, -multiple):
        candidate = _at(problem, channels, alpha)
        if candidate is not None and _least_params(candidate) <= budget:
            yield candidate


def _least_params(problem: GroupsProblem) -> float:
    """Return what no block with the full field can have less parameters than."""
    fixed, weights, missing = 0, [], float(problem.channels)
    chain = problem.chain
    for layer in chain:
        if layer.conv.takes_groups and layer.params:
            # With one group a layer has fan-in C_in: its parameters for every channel of fan-in.
            weights.append(layer.params / layer.fan_in)
        else:
            fixed += layer.params
            missing /= layer.fan_in
    if not weights or missing <= 1:
        return float(fixed + sum(weights))
    count = len(weights)
    mean = (missing * prod(weights)) ** (1 / count)
    # Rounded down a little: a float must not lift the bound above a whole number of parameters.
    return float(fixed + max(count * mean, sum(weights)) * (1 - 1e-9))
