"""The organizer for 3x3 convolutions, from its definition, in forty digits.

k of them see (1 + 2k)² pixels of each channel, so channels cancel and gains follow from the side
alone. Equal gains are equal to the last digit, so ties need no tolerance.
"""

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, localcontext
from fractions import Fraction

Step = tuple[int, int | None, Decimal, Decimal, tuple[int, ...]]


def gain(side: int, number: int, alpha: float = 3, cap: int | None = 1) -> Decimal:
    """Return the gain of convolution `number` of a stage, from 2.

    `side` is what enters the stage; at `cap` times that the field stops, nowhere for None.
    """
    widths = [1 + 2 * k for k in (number - 1, number)]
    if cap is not None:
        widths = [min(width, cap * side) for width in widths]
    before, after = (Fraction(width**2) for width in widths)
    ratio, filled = after / before - 1, before / side**2 * Fraction(alpha)
    with localcontext(Context(prec=40)):
        decay = (-Decimal(filled.numerator) / filled.denominator).exp()
        return Decimal(ratio.numerator) / ratio.denominator * decay


def total(
    sides: Sequence[int], depths: Sequence[int], alpha: float = 3, cap: int | None = 1
) -> Decimal:
    """Return the gain of all convolutions but the first of each stage."""
    pairs = zip(sides, depths, strict=True)
    return sum(
        (gain(side, n, alpha, cap) for side, depth in pairs for n in range(2, depth + 1)),
        Decimal(0),
    )


def greedy(
    sides: Sequence[int],
    depths: Sequence[int],
    theta: float = 0,
    alpha: float = 3,
    min_depths: Sequence[int] | None = None,
    cap: int | None = 1,
    later: bool = False,
) -> list[Step]:
    """Return the steps: source and target from 1, min, max, and the depths after each.

    Of stages that tie the first counts, or the last if `later`.
    """
    current, steps = list(depths), []
    while True:
        losses, gains = [], []
        for n, side in enumerate(sides):
            order = -n if later else n
            gains.append((gain(side, current[n] + 1, alpha, cap), -order, n))
            if current[n] > (min_depths[n] if min_depths else 1):
                losses.append((gain(side, current[n], alpha, cap), order, n))
        if not losses:
            return steps
        (low, _, source), (high, _, target) = min(losses), max(gains)
        if high <= low or source == target or high == theta:
            return steps
        current[source] -= 1
        if high > theta:
            current[target] += 1
        moved_to = target + 1 if high > theta else None
        steps.append((source + 1, moved_to, low, high, tuple(current)))


def route(steps: Iterable[Step]) -> str:
    """Return the moves as text, such as "4→1 5→2"."""
    return " ".join(f"{source}→{target}" for source, target, *_ in steps)


def moved_gain(steps: Iterable[Step]) -> Decimal:
    """Return Σ(max − min) over the moves."""
    return sum((high - low for _, target, low, high, _ in steps if target), Decimal(0))
