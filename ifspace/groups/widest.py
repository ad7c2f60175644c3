"""The widest block within a parameter budget, with its groups.

Widths are tried from above, so the first one with a plan is the widest. Above the first width that
is tried no block exists: the fan-ins of a full-field block multiply to its width at least, and by
the inequality of the arithmetic and geometric mean the parameters of fan-ins with a given product
have a least value, which grows with the width. Where that value is within the budget even above
MAX_WIDTH, the answer says that it is one of the widths up to there.

Reference: [Fog] section 3.3, the widest C for given parameters.
"""

import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import ceil, lcm, prod

from ifspace.answer import Status
from ifspace.block import (
    Block,
    Layer,
    SizedBlock,
    SizedLayer,
)
from ifspace.errors import SettingError
from ifspace.groups.problem import GroupsAnswer, GroupsProblem, ratio_above_zero
from ifspace.groups.solve import cheapest_groups
from ifspace.kinds import U
from ifspace.parallel import Progress
from ifspace.values import (
    MAX_WIDTH,
    whole_within,
)


def widest_block(
    problem: GroupsProblem,
    budget: int,
    alpha: Fraction | int = 1,
    multiple: int = 1,
    time_limit_s: float | None = None,
    progress: Progress | None = None,
) -> GroupsAnswer:
    """Return the widest block of at most `budget` parameters, and of those the cheapest.

    The block has C channels in and alpha x C out, C a multiple of `multiple`, no width above
    MAX_WIDTH. `problem` says the rest; its widths do not matter. The bound is that of the plan's
    parameters. `progress` is told how many of how many widths are done.

    >>> from ifspace.block import Composition
    >>> answer = widest_block(GroupsProblem(Composition.parse("DW+RPW+RPW"), 1), 1600, multiple=8)
    >>> answer.plans[0].problem.channels, answer.plans[0].objective(), answer.up_to
    (64, 1600, None)

    Raises: SettingError for a budget, ratio or multiple below 1, explicit interior widths, and
        ratios and a multiple that no width up to MAX_WIDTH fits.
    """
    whole_within(budget, "budget", 1)
    whole_within(multiple, "multiple", 1)
    ratio = ratio_above_zero(alpha, "alpha")
    if problem.widths is not None:
        raise SettingError.because(
            "no widths to look for",
            got=f"widths {problem.widths}",
            allowed="no explicit interior widths",
            remedy="use a bottleneck ratio for the inside",
        )
    problem = replace(problem, objective="params", weights=None)
    period, count = _widths(problem, ratio, multiple)
    least = _least_params(problem, ratio, period)
    # Multiples of the period are legal; the least grows with them, so it is within the budget for
    # the first `fitting` of them.
    fitting = bisect_right(range(1, count + 1), budget, key=least)
    up_to = MAX_WIDTH if fitting == count and least(count + 1) <= budget else None
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    for done in range(fitting):
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            return GroupsAnswer(Status.UNKNOWN, None, (), up_to)
        if progress is not None:
            progress(done, fitting)
        channels = (fitting - done) * period
        candidate = replace(problem, channels=channels, out_channels=int(ratio * channels))
        if _most_seen(candidate) < channels:
            continue
        answer = cheapest_groups(candidate, time_limit_s=left, at_most=budget)
        if answer.status is not Status.INFEASIBLE:
            return replace(answer, up_to=up_to)
    return GroupsAnswer(Status.INFEASIBLE, None, (), up_to)


def _widths(problem: GroupsProblem, alpha: Fraction, multiple: int) -> tuple[int, int]:
    """Return the least legal width C, of which all others are multiples, and how many there are.

    Raises: SettingError when it is above what MAX_WIDTH leaves: no width is legal.
    """
    inner = alpha * (problem.bottleneck or 1)
    most = int(MAX_WIDTH / max(Fraction(1), alpha, inner))
    period = 1
    for name, value, step in (
        ("multiple", str(multiple), multiple),
        ("alpha", f"{alpha} at multiple {multiple}", alpha.denominator),
        ("bottleneck", f"{problem.bottleneck} at alpha {alpha}", inner.denominator),
    ):
        period = lcm(period, step)
        if period > most:
            raise SettingError.because(
                f"no width up to {MAX_WIDTH} fits {name}",
                got=value,
                allowed=f"C up to {most}, and {period} is the least that all of it fits",
                remedy="choose a smaller multiple, or ratios of smaller numbers",
                argument=name,
            )
    return period, most // period


def _least_params(problem: GroupsProblem, alpha: Fraction, period: int) -> Callable[[int], int]:
    """Return the function from n to the parameters that a full-field block at C = n x period needs.

    It never falls as n grows, and is defined above MAX_WIDTH too.
    """
    length = len(problem.composition)
    layers = tuple(each.layer for each in problem.chain[:length])
    block = Block(layers, problem.composition.repeats)

    def least(n: int) -> int:
        channels = n * period
        sized = block.at(channels, int(alpha * channels), problem.bottleneck, problem.dims)
        return ceil(_least_of(sized))

    return least


def _least_of(sized: SizedBlock) -> float:
    fixed, weights, missing = 0, [], float(sized.channels)
    reading_all = 0
    for layer in sized.layers:
        if layer.conv.takes_groups and layer.params:
            # With one group a layer has fan-in C_in: its parameters for every channel of fan-in.
            weights.append(layer.params / layer.fan_in)
        else:
            fixed += layer.params
            missing /= layer.fan_in
            reading_all += layer.conv.mixing
    # What two layers that read all leave missing falls as the width grows: it is left out.
    if not weights or missing <= 1 or reading_all > 1:
        return float(fixed + sum(weights))
    count = len(weights)
    mean = (missing * prod(weights)) ** (1 / count)
    # Rounded down a little: a float must not lift the bound above a whole number of parameters.
    return float(fixed + max(count * mean, sum(weights)) * (1 - 1e-9))


def _most_seen(problem: GroupsProblem) -> int:
    """Return how many channels an output can see at most; 0 when a layer has no legal choice.

    From the last layer down to the block's input: each passes on what its best choice reads, by
    the coverage function, and behind a shuffle by the fan-in.
    """
    # The least overlap is the widest step: it sees most.
    overlaps = (Fraction(0),) if problem.overlaps is None else problem.overlaps[:1]
    count, scattered = 1, False
    for stand_in in reversed(problem.chain):
        conv = stand_in.conv
        scattered = scattered or conv.coverage.func != U
        choices = [
            SizedLayer(
                Layer(conv.symbol, groups, overlap, stand_in.layer.kernel),
                stand_in.c_in,
                stand_in.c_out,
                stand_in.dims,
            )
            for groups, overlap in conv.choices(stand_in.c_in, stand_in.c_out, overlaps)
        ]
        seen = (_reads(layer, count, scattered) for layer in choices)
        count = min(stand_in.c_in, max(seen, default=0))
    return count


def _reads(layer: SizedLayer, count: int, scattered: bool) -> int:
    if scattered:
        return layer.fan_in * count
    return layer.conv.coverage_at(
        lambda n: n,
        count,
        channels=layer.c_in,
        c_in=layer.c_in,
        c_out=layer.c_out,
        groups=layer.groups,
        step=layer.step,
    )
