"""The organizer for 3x3 convolutions, from its definition, in forty digits.

k of them see (1 + 2k)² pixels of each channel, so channels cancel and gains follow from the side
alone. Equal gains are equal to the last digit, so ties need no tolerance.
"""

from collections.abc import Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction

Step = tuple[int, int | None, Decimal, Decimal, tuple[int, ...]]


def gain(side: int, number: int, alpha: float = 3) -> Decimal:
    """Return the gain of convolution `number` of a stage, from 2."""
    before, after = (Fraction(min(1 + 2 * k, side) ** 2) for k in (number - 1, number))
    ratio, filled = after / before - 1, before / side**2 * Fraction(alpha)
    with localcontext(Context(prec=40)):
        decay = (-Decimal(filled.numerator) / filled.denominator).exp()
        return Decimal(ratio.numerator) / ratio.denominator * decay


def greedy(
    sides: Sequence[int],
    depths: Sequence[int],
    theta: float = 0,
    alpha: float = 3,
    min_depths: Sequence[int] | None = None,
) -> list[Step]:
    """Return the steps: source and target from 1, min, max, and the depths after each."""
    current, steps = list(depths), []
    while True:
        losses, gains = [], []
        for n, side in enumerate(sides):
            gains.append((gain(side, current[n] + 1, alpha), -n))
            if current[n] > (min_depths[n] if min_depths else 1):
                losses.append((gain(side, current[n], alpha), n))
        if not losses:
            return steps
        (low, source), (high, target) = min(losses), max(gains)
        target = -target
        if high <= low or source == target or high == theta:
            return steps
        current[source] -= 1
        if high > theta:
            current[target] += 1
        moved_to = target + 1 if high > theta else None
        steps.append((source + 1, moved_to, low, high, tuple(current)))
