"""The fastest group counts, or the cheapest within a latency: every choice of full field is timed.

A latency is no sum over the layers: a fused block is one pass, and what a collapsed one computes
depends on its neighbours. So the choices are tried one by one, all of them, and the answer is
exact: none with the full field whose latency is known is better.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, product
from math import prod
from typing import Final

from ifspace.answer import Status
from ifspace.errors import SettingError
from ifspace.groups.problem import GroupPlan, GroupsAnswer, GroupsProblem
from ifspace.groups.solve import Options
from ifspace.latency import BlockLatency, Latency
from ifspace.parallel import Progress

# More choices are not tried: at a hundredth of a second each they take minutes.
MOST_CHOICES: Final = 20_000


@dataclass(frozen=True, slots=True)
class TimedPlans:
    """The latencies of plans, in their order; None where one is not known.

    `message`: how the search ended, where latencies decided; `least`: their latency was minimised.
    """

    latencies: tuple[Latency | None, ...]
    message: str = ""
    least: bool = False


def timed_groups(
    problem: GroupsProblem,
    latency: BlockLatency,
    top: int = 1,
    by_latency: bool = True,
    most_ms: Fraction | None = None,
    progress: Progress | None = None,
) -> tuple[GroupsAnswer, TimedPlans]:
    """Return the `top` plans of least latency, or with `by_latency` false those of least objective.

    Within `most_ms` where that is given. Ties go to the objective, to the latency and to canonical
    order. A bound is on the objective, and there is none where the latency is minimised. The
    progress callback gets how many choices are done, and of how many.

    Raises: SettingError for more choices than `MOST_CHOICES`.
    """
    if problem.exceeds_peak:
        nothing = GroupsAnswer(Status.INFEASIBLE, None, ())
        return nothing, TimedPlans((), f"proven: {problem.peak_text}", by_latency)
    options = Options(problem, every_step=True)
    choices = prod(map(len, options.layers))
    if choices > MOST_CHOICES:
        raise SettingError.because(
            "too many choices to time each of them",
            got=f"{choices:,} for {problem.composition} at {problem.widths_text}",
            allowed=f"up to {MOST_CHOICES:,}",
            remedy="bound them: --least-fan-in, --multiple, or fewer --overlaps",
            argument="objective",
        )
    full = timed = 0
    rated: list[tuple[tuple[Fraction | int, Fraction | int], int, GroupPlan, Latency]] = []
    numbers = product(*(range(len(layers)) for layers in options.layers))
    for index, choice in enumerate(numbers):
        if progress is not None:
            progress(index, choices)
        if not options.is_full(choice):
            continue
        full += 1
        plan = GroupPlan(problem, options.block(choice))
        time = latency(plan.sized, problem.stride)
        if time is None:
            continue
        timed += 1
        if most_ms is None or time.ms <= most_ms:
            cost = plan.objective()
            key = (time.ms, cost) if by_latency else (cost, time.ms)
            rated.append((key, index, plan, time))
    rated.sort(key=lambda entry: entry[:2])
    plans = [plan for _, _, plan, _ in islice(rated, top)]
    for plan in plans:
        plan.check()
    text = f"{choices:,} choices tried, {full:,} have the full field"
    text += f", the latency of {timed:,} is known" if timed < full else ""
    text += ", none is better" if plans else ", none keeps the latency budget" if timed else ""
    bound = plans[0].objective() if plans and not by_latency else None
    return (
        GroupsAnswer(Status.OPTIMAL if plans else Status.INFEASIBLE, bound, tuple(plans)),
        TimedPlans(tuple(time for *_, time in rated[:top]), f"proven: {text}", by_latency),
    )


def times_of(plans: Sequence[GroupPlan], latency: BlockLatency) -> TimedPlans:
    """Return the latencies of plans that were found without them."""
    return TimedPlans(tuple(latency(plan.sized, plan.problem.stride) for plan in plans))
