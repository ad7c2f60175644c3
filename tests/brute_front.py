"""The front by brute force: every choice that passes, its amounts, and what beats what.

Written from the definitions alone, on the compositions and choices of `brute_force`.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import Any

from brute_force import KINDS, Option, Problem, compositions, kept

# Params, MACs, activations and peak memory per output pixel, -least fan-in, layers.
Amounts = tuple[int, int, int, int, int, int]


def passing_choices(setting: Any) -> Iterator[tuple[str, tuple[int, str], Amounts]]:
    """The composition, overlapping layers and block, and amounts of every choice that passes."""
    problem = Problem(setting)
    for kinds in compositions(setting):
        options = problem.options(kinds) if kept(kinds, setting.patterns) else None
        for choice in product(*map(_distinct, options)) if options else ():
            if problem.passes(choice):
                amounts = _amounts(problem, kinds, choice)
                overlapping, _ = problem.windows(choice)
                yield problem.notation(kinds), (overlapping, problem.block(choice)), amounts


def _distinct(options: list[Option]) -> list[Option]:
    """The choices for a layer, those that read the same counted once."""
    first: dict[Any, Option] = {}
    for option in options:
        first.setdefault(tuple(layer.reads for layer in option.layers + option.real), option)
    return list(first.values())


def _amounts(problem: Problem, kinds: tuple[str, ...], choice: tuple[Option, ...]) -> Amounts:
    copies = range(problem.s.repeats)
    chain = [option.real[n] for n in copies for option in choice]
    params, macs, activations = problem.price(choice)
    fan_in = min(layer.fan_in for layer in chain if KINDS[layer.kind].mixing)
    # The stride sits on the first spatial layer: what comes before it has more pixels.
    pixels = problem.s.stride**problem.s.dims
    strided = next(index for index, layer in enumerate(chain) if KINDS[layer.kind].spatial)
    peak = max(
        layer.c_in * (pixels if index <= strided else 1)
        + layer.c_out * (pixels if index < strided else 1)
        for index, layer in enumerate(chain)
        if KINDS[layer.kind].written
    )
    return params, macs, activations, peak, -fan_in, len(kinds)


def beats(one: Amounts, other: Amounts) -> bool:
    """Whether one is no worse in any amount and better in one."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))


def pareto(amounts: set[Amounts]) -> set[Amounts]:
    return {one for one in amounts if not any(beats(other, one) for other in amounts)}


class Front:
    """Every composition's front, the global one, and the numbers of choices.

    `rows`: for the composition and amounts of each row its block, the first of those with the
    fewest overlapping layers; how many choices of all compositions have these amounts; and how many
    they beat. `whole`: the amounts on the global front.
    """

    def __init__(self, setting: Any) -> None:
        choices: dict[str, Counter[Amounts]] = {}
        first: dict[tuple[str, Amounts], tuple[int, str]] = {}
        for composition, block, amounts in passing_choices(setting):
            choices.setdefault(composition, Counter())[amounts] += 1
            # Choices come in canonical order.
            first[composition, amounts] = min(
                first.get((composition, amounts), block), block, key=lambda entry: entry[0]
            )
        everything = sum(choices.values(), Counter())
        self.rows = {
            (composition, amounts): (
                first[composition, amounts][1],
                everything[amounts],
                sum(n for other, n in everything.items() if beats(amounts, other)),
            )
            for composition, counts in choices.items()
            for amounts in pareto(set(counts))
        }
        self.whole = pareto(set(everything))
        self.choices = everything.total()
