"""The choices of a groups problem: every legal layer at every place, and what it costs."""

from collections.abc import Sequence
from fractions import Fraction
from functools import cached_property

from ifspace.block import (
    Block,
    Layer,
    SizedLayer,
)
from ifspace.groups.problem import GroupsProblem
from ifspace.kinds import U
from ifspace.reach import channel_field

Choice = tuple[int, ...]


class Options:
    """Per place of the composition the layers that may stand there; a choice numbers one of each.

    Left out is only what cannot be better: shuffles at the ends of a single block, which permute
    inputs or outputs, keep one option; without shuffles and changes of width a wider step sees
    more at the same cost, so of equal groups only the widest step stays.
    """

    def __init__(self, problem: GroupsProblem) -> None:
        """List the options; costs follow on demand."""
        self.problem = problem
        self.chain = problem.chain
        self.length = len(problem.composition)
        self.scatters = [layer.conv.coverage.func != U for layer in self.chain]
        self.layers = [self._layers(place) for place in range(self.length)]
        self._full: dict[Choice, bool] = {}

    def copies(self, place: int) -> tuple[SizedLayer, ...]:
        """Return the stand-ins of a place in all copies of the block."""
        return self.chain[place :: self.length]

    def sized(self, place: int, number: int) -> list[SizedLayer]:
        """Return one option at the widths of every copy."""
        layer = self.layers[place][number]
        return [SizedLayer(layer, c.c_in, c.c_out, c.dims) for c in self.copies(place)]

    def block(self, choice: Choice) -> Block:
        """Return the block of a choice."""
        layers = tuple(each[n] for each, n in zip(self.layers, choice, strict=True))
        return Block(layers, self.problem.composition.repeats)

    def is_full(self, choice: Choice) -> bool:
        """Return whether every output sees every channel, exactly."""
        known = self._full.get(choice)
        if known is None:
            field = channel_field(self.problem.sized(self.block(choice)).layers)
            known = self._full[choice] = field == self.problem.channels
        return known

    def of_equal_cost(self, choice: Choice) -> tuple[tuple[int, ...], ...]:
        """Return for each place the options that rank where the chosen one does."""
        return tuple(
            tuple(n for n, rank in enumerate(each) if rank == each[number])
            for each, number in zip(self.ranks, choice, strict=True)
        )

    @cached_property
    def ranks(self) -> list[list[int]]:
        """What decides among options: their costs, or parameters where all cost the same."""
        _, costs = self.costs
        if any(cost for each in costs for cost in each):
            return costs
        return [
            [sum(layer.params for layer in self.sized(place, n)) for n in range(len(layers))]
            for place, layers in enumerate(self.layers)
        ]

    @cached_property
    def costs(self) -> tuple[int, list[list[int]]]:
        """The cost of the first option everywhere, and what each option adds to it."""
        first = [layers[0] for layers in self.layers]
        repeats = self.problem.composition.repeats
        base = self.problem.amount(Block(tuple(first), repeats))
        table = [
            [
                self.problem.amount(Block((*first[:place], layer, *first[place + 1 :]), repeats))
                - base
                for layer in layers
            ]
            for place, layers in enumerate(self.layers)
        ]
        return base, table

    def _layers(self, place: int) -> list[Layer]:
        copies = self.copies(place)
        stand_in, conv = copies[0].layer, copies[0].conv
        if not conv.takes_groups:
            return [stand_in]
        common = set.intersection(
            *({g for g, _ in conv.choices(c.c_in, c.c_out, (Fraction(0),))} for c in copies)
        )
        layers: list[Layer] = []
        for groups in sorted(g for g in common if g is not None):
            fan_ins = {conv.fan_in_at(c.c_in, groups) for c in copies}
            steps: dict[tuple[int, ...], Layer] = {}
            for overlap in self._overlaps(conv.takes_overlap, fan_ins):
                layer = Layer(stand_in.kind, groups, overlap, stand_in.kernel)
                key = tuple(SizedLayer(layer, c.c_in, c.c_out, c.dims).step for c in copies)
                steps.setdefault(key, layer)
            if self._monotone:
                steps = {max(steps): steps[max(steps)]}
            layers.extend(steps.values())
        return layers[:1] if self._at_an_end(place) else layers

    def _overlaps(self, takes_overlap: bool, fan_ins: set[int]) -> Sequence[Fraction | None]:
        if not takes_overlap:
            return (None,)
        if self.problem.overlaps is None:
            # The step of a window changes at the multiples of one over its width only.
            return sorted({Fraction(shared, w) for w in fan_ins for shared in range(w)})
        return self.problem.overlaps

    @property
    def _monotone(self) -> bool:
        keeps = all(not layer.changes_width for layer in self.chain)
        return keeps and not any(self.scatters)

    def _at_an_end(self, place: int) -> bool:
        if self.problem.composition.repeats > 1 or not self.scatters[place]:
            return False
        mixing = [n for n, layer in enumerate(self.chain) if layer.conv.mixing]
        return not mixing or place < mixing[0] or place > mixing[-1]
