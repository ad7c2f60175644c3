"""Group counts by brute force: every legal choice of a groups problem, one after the other.

Written from the definitions alone; nothing of the library is imported. `full_choices` takes
anything that has the attributes of a groups problem.
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from itertools import product
from math import gcd, prod
from typing import Any, NamedTuple

from brute_layers import KINDS, Layer, Sight, enough_filters, layer, meets, orders

Amounts = tuple[int, int, int]


class Option(NamedTuple):
    """A layer in every copy, its parameters, MACs and activations in all copies, and its term."""

    copies: tuple[Layer, ...]
    amounts: Amounts
    term: str


class Choice(NamedTuple):
    cost: int
    amounts: Amounts
    block: str


@cache
def sight(channels: int) -> tuple[Sight, int]:
    """The sets seen at a width, cached for all problems, and the number of the start."""
    sets = Sight()
    return sets, sets.start(channels)


def divisors(*widths: int) -> list[int]:
    return [g for g in range(1, gcd(*widths) + 1) if gcd(*widths) % g == 0]


def copy_widths(p: Any, c_in: int) -> list[tuple[int, int]]:
    """(input, output) of every layer of a copy that begins at a width."""
    kinds, out = p.composition.kinds, p.out_width
    mixing = [index for index, kind in enumerate(kinds) if KINDS[kind].mixing]
    becomes = dict(zip(mixing, p.widths, strict=False)) if p.widths is not None else {}
    if p.bottleneck is not None:
        becomes = {mixing[0]: int(p.bottleneck * out)}
    becomes |= dict.fromkeys(mixing[-1:], out)
    pairs, now = [], c_in
    for index in range(len(kinds)):
        pairs.append((now, becomes.get(index, now)))
        now = pairs[-1][1]
    return pairs


def options(p: Any) -> list[list[Option]]:
    """The legal, non-trivial choices for each layer of the composition."""
    kinds = p.composition.kinds
    starts = [p.channels if n == 0 else p.out_width for n in range(p.composition.repeats)]
    copies = [copy_widths(p, start) for start in starts]
    first_spatial = [KINDS[kind].spatial for kind in (*kinds, "CONV")].index(True)
    return [
        list(_options(p, kind, [copy[index] for copy in copies], index < first_spatial))
        for index, kind in enumerate(kinds)
    ]


def _options(p: Any, kind: str, pairs: list[tuple[int, int]], ahead: bool) -> Iterator[Option]:
    row = KINDS[kind]
    groups = divisors(*(width for pair in pairs for width in pair)) if row.grouped else [1]
    for g in groups:
        if row.grouped and (g == 1 or any(g == a == b for a, b in pairs)):
            continue
        # With widths inside the block a layer that reads one channel for each output copies it.
        inside = p.bottleneck is not None or p.widths is not None
        if inside and row.grouped and row.mixing and any(g == a for a, _ in pairs):
            continue
        windows = [a // g for a, _ in pairs]
        seen_steps = set()
        for o in _overlaps(p, windows) if row.rolling else [Fraction(0)]:
            steps = tuple(w - o.numerator * w // o.denominator for w in windows)
            if steps in seen_steps:
                continue
            seen_steps.add(steps)
            for order in orders(kind, p.rpw_order):
                if enough_filters(order, g, o, pairs):
                    layers = tuple(layer(kind, g, o, *pair, order) for pair in pairs)
                    if not all(meets(p.floors, copy) for copy in layers):
                        continue
                    yield Option(layers, _amounts(p, layers, ahead), _term(p, kind, g, o, order))


def _overlaps(p: Any, windows: list[int]) -> list[Fraction]:
    if p.overlaps is not None:
        return sorted(p.overlaps)
    # Where the step of some copy changes, as the ratio grows from 0.
    return sorted({Fraction(shared, w) for w in windows for shared in range(w)})


def _amounts(p: Any, copies: tuple[Layer, ...], ahead: bool) -> Amounts:
    params = macs = activations = 0
    for number, copy in enumerate(copies):
        row = KINDS[copy.kind]
        # The stride sits on the first spatial layer of the first copy.
        pixels = p.stride**p.dims if ahead and number == 0 and p.stride > 1 else 1
        area = p.kernel**p.dims if row.spatial else 1
        weights = copy.fan_in * copy.c_out * area * row.written
        params += weights
        macs += weights * pixels
        activations += copy.c_out * pixels * row.written
    return params, macs, activations


def _term(p: Any, kind: str, g: int, o: Fraction, order: str) -> str:
    row = KINDS[kind]
    parts = [str(g)] * row.grouped + [str(o)] * row.rolling + ["blocked"] * (order == "blocked")
    if row.spatial and p.kernel != 3:
        parts.append(f"k={p.kernel}" if parts else str(p.kernel))
    return f"{kind}({','.join(parts)})" if parts else kind


def cost(p: Any, amounts: Amounts) -> int:
    weights = p.weights
    if weights is None:
        weights = [p.objective == name for name in ("params", "macs", "activations")]
    return sum(weight * amount for weight, amount in zip(weights, amounts, strict=True))


def sees_all(p: Any, choice: tuple[Option, ...]) -> bool:
    """Whether every output sees every channel."""
    chain = [option.copies[n] for n in range(p.composition.repeats) for option in choice]
    # As many channels as the fan-ins multiplied, at most: without this it is the same, but slow.
    if prod(layer.fan_in for layer in chain) < p.channels:
        return False
    sets, number = sight(p.channels)
    for layer_below in chain[:-1]:
        number = sets.after(number, layer_below)
    rows, all_channels = sets.rows[number], (1 << p.channels) - 1
    for read in chain[-1].reads:
        union = 0
        for channel in read:
            union |= rows[channel]
        if union != all_channels:
            return False
    return True


def full_choices(p: Any) -> list[Choice]:
    """Every legal choice with the full field, cheapest first."""
    choices = []
    for choice in product(*options(p)):
        if sees_all(p, choice):
            params, macs, activations = map(sum, zip(*(o.amounts for o in choice), strict=True))
            amounts = (params, macs, activations)
            layers = "+".join(option.term for option in choice)
            copies = p.composition.repeats
            block = layers if copies == 1 else f"({layers})x{copies}"
            choices.append(Choice(cost(p, amounts), amounts, block))
    return sorted(choices)


def fewest_overlaps(p: Any, amount: int, params: int) -> int:
    """The fewest layers of overlapping windows of a choice of these amounts with the full field."""
    return min(
        sum(option.copies[0].overlap > 0 for option in choice)
        for choice in product(*options(p))
        for amounts in [tuple(map(sum, zip(*(o.amounts for o in choice), strict=True)))]
        if (cost(p, amounts), amounts[0]) == (amount, params) and sees_all(p, choice)
    )


def least(p: Any) -> int | None:
    """The least cost of a choice with the full field; None when there is none."""
    by_cost = [
        (cost(p, tuple(map(sum, zip(*(o.amounts for o in choice), strict=True)))), number, choice)
        for number, choice in enumerate(product(*options(p)))
    ]
    by_cost.sort(key=lambda entry: entry[:2])
    return next((amount for amount, _, choice in by_cost if sees_all(p, choice)), None)
