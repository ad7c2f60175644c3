"""The organizer once more for 3 x 3 convolutions, from its definition, in forty digits.

k of them see (1 + 2k)² pixels of each channel, so channels cancel and gains follow from the side
alone. Equal gains come out equal to the last digit, so ties need no tolerance.
"""

from collections.abc import Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction

Step = tuple[int, int | None, Decimal, Decimal, tuple[int, ...]]


def gain(side: int, place: int, alpha: float = 3) -> Decimal:
    """The gain of the convolution at a place from 2."""
    before, after = (Fraction(min(1 + 2 * k, side) ** 2) for k in (place - 1, place))
    ratio, filled = after / before - 1, before / side**2 * Fraction(alpha)
    with localcontext(Context(prec=40)):
        decay = (-Decimal(filled.numerator) / filled.denominator).exp()
        return Decimal(ratio.numerator) / ratio.denominator * decay


def greedy(
    sides: Sequence[int],
    depths: Sequence[int],
    theta: float = 0,
    alpha: float = 3,
    least: Sequence[int] | None = None,
) -> list[Step]:
    """The steps: source and target from 1, min, max, depths after; `least` depths are kept."""
    now, steps = list(depths), []
    while True:
        losses, gains = [], []
        for n, side in enumerate(sides):
            gains.append((gain(side, now[n] + 1, alpha), -n))
            if now[n] > (least[n] if least else 1):
                losses.append((gain(side, now[n], alpha), n))
        if not losses:
            return steps
        (low, source), (high, target) = min(losses), max(gains)
        target = -target
        if high <= low or source == target or high == theta:
            return steps
        now[source] -= 1
        if high > theta:
            now[target] += 1
        goes_to = target + 1 if high > theta else None
        steps.append((source + 1, goes_to, low, high, tuple(now)))
