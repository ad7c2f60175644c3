"""A setting in parts: the designs of each by themselves, and what they say of each other together.

The compositions of a setting can be shared out among parts in any way. A part knows its designs,
with their networks, and how many compositions and choices it looked at. Which design another one
dominates, which one represents a network, and what the rows of a front beat, is known when all
parts have been seen (`Whole`). For that a few numbers are kept, not the designs: the distinct
costs, and the distinct networks or, of parts in files, `Representatives`. So the parts can be
longer together than memory is.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import merge
from operator import attrgetter
from typing import Any

from ifspace.block import Block
from ifspace.catalogue.design import Design, Dominators, Funnel
from ifspace.catalogue.networks import Representatives

# What is compared on a front: parameters, MACs, activations and peak memory per output pixel,
# -least fan-in, layers, and nanoseconds where latency is an amount. Less is better in each.
Compared = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """The designs of a part of a setting, in canonical order.

    They have their networks, but nothing that depends on other parts. `funnel`: of the compositions
    that the part looked at; the compositions and those after repeated patterns are those of the
    whole setting. `amounts`: of a front, how many passing choices have which amounts. `latencies`:
    of the designs, where they are an amount. `rows`: how many designs a file has that are not here.
    """

    designs: tuple[Design, ...]
    funnel: Funnel
    amounts: tuple[tuple[Compared, int], ...] = ()
    latencies: tuple[int, ...] = ()
    rows: int = 0


class Whole:
    """What is known of a setting when all of its parts have been seen."""

    def __init__(
        self, layers: int, front: bool, representatives: Representatives | None = None
    ) -> None:
        """Start with no part of a setting of so many layers at most.

        `representatives`: of the networks of the designs, which then come in canonical order; all
        are in memory without it.
        """
        self.representatives = representatives
        self._layers = layers
        self._front = front
        self._funnels: list[Funnel] = []
        self._rows: Counter[int] = Counter()
        self._dominators = Dominators()
        self._costs: set[Compared] = set()
        self._latencies: dict[Block, int] = {}
        self._amounts: Counter[Compared] = Counter()
        # Of each network the key of its representative, its block and its layers.
        self._networks: dict[str | None, tuple[Any, str, int]] = {}

    def see(self, funnel: Funnel, amounts: Iterable[tuple[Compared, int]]) -> None:
        """Add what a part counted."""
        self._funnels.append(funnel)
        for compared, count in amounts:
            self._amounts[compared] += count

    def see_designs(self, designs: Sequence[Design], latencies: Sequence[int] = ()) -> None:
        """Add designs of a part, with their latencies where they are an amount."""
        for design, ns in zip(designs, latencies, strict=bool(latencies)):
            self._latencies[design.block] = ns
        for design in designs:
            self._rows[design.layers] += 1
            self._dominators.add(design)
            if self._front:
                self._costs.add(self._compared(design))
            if self.representatives is not None:
                self.representatives.add(design)
                continue
            first = self._networks.get(design.network)
            if first is None or design.representative_key < first[0]:
                representative = design.representative_key, str(design.block), design.layers
                self._networks[design.network] = representative

    def completed(self, design: Design, representative: str | None = None) -> Design:
        """Return a design that was seen, with all that depends on the others.

        `representative`: of its network, where these are not in memory.
        """
        ranks: tuple[int | None, int | None] = (None, None)
        if self._front:
            compared = self._compared(design)
            ranks = self._amounts[compared], self._beaten[compared]
        whole: Design = _design(
            *_before(design),
            *ranks,
            self._dominators.of(design),
            *_between(design),
            representative or self._networks[design.network][1],
        )
        return whole

    def funnel(self) -> Funnel:
        """Return the funnel of all parts.

        Raises: ValueError where no part was seen.
        """
        first, *others = self._funnels
        lengths = range(1, self._layers + 1)
        for funnel in others:
            first = first.plus(funnel)
        if self.representatives is not None:
            networks = self.representatives.layers()
        else:
            networks = Counter(layers for *_, layers in self._networks.values())
        return replace(
            first,
            distinct_networks=networks.total(),
            distinct_networks_by_length=tuple(networks[length] for length in lengths),
            choices_passing=self._amounts.total() if self._front else None,
            rows_by_length=tuple(self._rows[n] for n in lengths) if self._front else None,
        )

    def _compared(self, design: Design) -> Compared:
        latency = (self._latencies[design.block],) if self._latencies else ()
        return *design.costs, *latency

    @cached_property
    def _beaten(self) -> dict[Compared, int]:
        from ifspace.catalogue.beaten import beaten  # which imports numba

        return beaten(self._costs, self._amounts)


# The fields before `stands_for`, and those between `dominated_by` and `representative`.
# dataclasses.replace takes three times as long, seconds on a long catalogue.
_NAMES = tuple(Design.__dataclass_fields__)
_design: Any = Design
_before = attrgetter(*_NAMES[: _NAMES.index("stands_for")])
_between = attrgetter(*_NAMES[_NAMES.index("dominated_by") + 1 : -1])


def joined(parts: Iterable[Part], layers: int, front: bool) -> tuple[Funnel, tuple[Design, ...]]:
    """Return the funnel and the designs of a setting of so many layers, given all its parts."""
    whole = Whole(layers, front)
    parts = tuple(parts)
    for part in parts:
        whole.see(part.funnel, part.amounts)
        whole.see_designs(part.designs, part.latencies)
    designs = in_order(part.designs for part in parts)
    return whole.funnel(), tuple(map(whole.completed, designs))


def in_order(parts: Iterable[Iterable[Design]]) -> Iterator[Design]:
    """Yield the designs of several parts in canonical order, in which those of each are."""
    return merge(*parts, key=_canonical)


def _canonical(design: Design) -> tuple[int, tuple[int, ...]]:
    """Return the key of the canonical order; several designs of a composition are in one part."""
    return design.layers, design.kinds_key
