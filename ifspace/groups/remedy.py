"""What could give a composition the full field where no legal choice has it: checked, not guessed.

A remedy is named only where it can help. Whether it can is bounded by `most_channels_seen`, which
never counts too few channels; a composition to take instead is one that was solved.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Final

from ifspace.answer import Status
from ifspace.block import Composition
from ifspace.errors import IfspaceError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups, most_channels_seen
from ifspace.kinds import dense_pointwise_kind, shuffle_kind

# Widths with many divisors, of one, two and three prime factors: what falls short at all of them
# has too few channels to read, whatever the width.
WIDTHS: Final = (64, 144, 360)
MOST_COPIES: Final = 4
TIME_LIMIT_S: Final = 2.0


@cache
def remedies(problem: GroupsProblem) -> tuple[str, ...]:
    """Return what to try for a problem of which no choice has the full field, most alike first.

    >>> remedies(GroupsProblem(Composition.parse("DW+RPW"), 64))
    ('(DW+RPW)x2',)
    >>> remedies(GroupsProblem(Composition.parse("GC+GPW"), 64))
    ('GC+SH+GPW',)
    """
    texts = []
    windows = any(layer.conv.takes_overlap for layer in problem.chain)
    free = replace(problem, overlaps=None)
    if windows and problem.overlaps is not None and _may_be_full(free):
        texts.append("--overlaps free")
    both = replace(problem, rpw_order="both")
    if windows and problem.rpw_order != "both" and _may_be_full(both):
        texts.append("--rpw-order both")
    if any(_may_be_full(other) for other in _other_widths(problem)):
        texts.append("other widths")
    composition = next(_full_compositions(problem), None)
    return (*texts, str(composition)) if composition else tuple(texts)


def _may_be_full(problem: GroupsProblem) -> bool:
    """Return False only where no legal choice has the full field."""
    return most_channels_seen(problem) >= problem.channels


def _other_widths(problem: GroupsProblem) -> Iterator[GroupsProblem]:
    for width in WIDTHS:
        try:
            yield replace(problem, channels=width, out_channels=width, widths=None)
        except IfspaceError:
            continue  # the bottleneck is no whole number of channels there


def _full_compositions(problem: GroupsProblem) -> Iterator[Composition]:
    """Yield compositions that have the full field at the widths of a problem.

    A shuffle more comes first, then more copies, then a layer that reads everything.
    """
    kinds, repeats = problem.composition.kinds, problem.composition.repeats
    shuffle, dense = shuffle_kind().symbol, dense_pointwise_kind().symbol
    longer = [
        *(Composition((*kinds[:n], shuffle, *kinds[n:]), repeats) for n in range(1, len(kinds))),
        *(Composition(kinds, n) for n in range(repeats + 1, MOST_COPIES + 1)),
        Composition((*kinds, dense), repeats),
    ]
    for composition in longer:
        try:
            other = replace(problem, composition=composition)
        except IfspaceError:
            continue  # it does not fit the widths
        if _may_be_full(other):
            answer = cheapest_groups(other, time_limit_s=TIME_LIMIT_S)
            if answer.status in (Status.OPTIMAL, Status.FEASIBLE):
                yield composition
