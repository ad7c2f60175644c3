"""The information field in formulas: coverage function, spatial field, volume, gain.

The channel field cannot be followed with one number per layer: a group pointwise convolution after
another sees nothing new, after a shuffle it does. The coverage function can: U(m) is the number of
block-input channels that m consecutive outputs, from channel 0, see together. On the block's input
it is min(m, C); each kind turns it into the U of its output (`ConvKind.coverage`); IF^c = U(1).

At equal widths and without kinds that scatter (shuffles) U is the exact field: every layer reads
runs of neighbouring channels, so runs see runs, and no run of m outputs sees fewer channels than
the one from channel 0. With a shuffle it is exact if runs and shuffle groups align and the sets
they see are disjoint, and otherwise an estimate that errs both ways. Where the outputs of a layer
in rolling order are no multiple of its distinct windows it may be too large: a later window that
wraps around joins channels that are not neighbours below. Decisions are made by the exact field,
`ifspace.reach`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from math import exp, log
from typing import Any, Final

import sympy

from ifspace.block import Block, Chain, Composition, SizedBlock, SizedLayer
from ifspace.errors import SettingError
from ifspace.kinds import ROLLING, C, C_in, C_out, ConvKind, U, g, m, w

SymbolicLayer = tuple[ConvKind, dict[Any, Any]]
# Where the spatial field of a stage stops growing: at which multiple of the side of its input; None
# for nowhere. [IF] eq. 2 has the input; the gains in [3DRF] Tables 3 to 5 are those at twice its
# side, to the last digit, and those without a cap to 0.006.
CAPS: Final[Mapping[str, int | None]] = {"input": 1, "twice": 2, "none": None}


def coverage(chain: Chain, m: int = 1) -> int:
    """Return U(m): how many block-input channels m consecutive outputs from channel 0 see.

    >>> coverage(Block.parse("DW+RPW(4,0)+RPW(4,0)").at(16).layers)
    16
    """
    channels = chain[0].c_in if chain else m

    def of_input(count: int) -> int:
        return min(count, channels)

    below: Callable[[int], int] = of_input
    for layer in chain:
        below = _coverage_of(layer, below, channels)
    return min(below(m), channels)


def _coverage_of(
    layer: SizedLayer, below: Callable[[int], int], channels: int
) -> Callable[[int], int]:
    # A shuffle evaluates the U below it twice: without a cache n shuffles would take 2^n steps.
    @cache
    def of_layer(count: int) -> int:
        # The formulas hold for one output or more.
        if count == 0:
            return 0
        return layer.conv.coverage_at(
            below,
            count,
            channels=channels,
            c_in=layer.c_in,
            c_out=layer.c_out,
            groups=layer.groups,
            step=layer.step,
        )

    return of_layer


# For one output: it lies in one group and is the first channel of a shuffled run. (For a single
# group the quotient of the shuffle is 1 and its remainder 0, and the sum is the same.)
_ONE_OUTPUT = {
    sympy.ceiling(g / C_out): sympy.Integer(1),
    sympy.floor(1 / g): sympy.Integer(0),
    sympy.Mod(1, g): sympy.Integer(1),
}
# U of a count that may be 0, such as the quotient of a shuffle.
_U_OR_NONE = sympy.Function("U_or_none")


@cache
def _coverage_formula(row: ConvKind, one: bool, uncapped: bool) -> Any:
    formula = row.coverage.replace(U, lambda n: U(n) if n.is_positive else _U_OR_NONE(n))
    if uncapped:
        formula = formula.replace(sympy.Min, lambda *parts: sympy.Min(*set(parts) - {C_in}))
    return formula.xreplace({m: sympy.Integer(1)}).xreplace(_ONE_OUTPUT) if one else formula


def layer_coverage(layer: SymbolicLayer, count: Any, uncapped: bool = False) -> Any:
    """Return U(count) of a layer in the symbols of a composition, with U of the layer below.

    `uncapped`: leave out the minimum with the width of the layer.
    """
    row, names = layer
    formula = _coverage_formula(row, count == 1, uncapped)
    if row.windowed:
        names = names | {g: names[C_in] / names[w]}
    # All outputs at once are put in before the widths: then ceiling(g C_out / C_out) becomes g.
    formula = formula.xreplace({m: C_out if count == names[C_out] else count}).xreplace(names)
    # A window is no wider than the input of its layer.
    window = sympy.Min(names[C_in], names[w], evaluate=False)
    return formula.xreplace({window: names[w]})


def _chain_coverage(chain: Sequence[SymbolicLayer], count: Any) -> Any:
    if count.is_zero:
        return sympy.Integer(0)
    if not chain:
        return sympy.Min(count, C)
    *lower, layer = chain
    formula = layer_coverage(layer, count).replace(U, lambda n: _chain_coverage(lower, n))
    return formula.replace(
        _U_OR_NONE, lambda n: sympy.Piecewise((_chain_coverage(lower, n), n > 0), (0, True))
    )


@cache
def coverage_expr(block: Composition | Block, bottleneck: bool = False) -> Any:
    """Return IF^c = U(1) of a block or composition in symbols.

    Layers with groups are numbered from 1: fan-in w_i = C_in / g_i, shuffle groups g_i; of RPW the
    step s_i and the number of distinct windows P_i = C_in / gcd(s_i, C_in). The orders of RPW are
    those of a block; in a composition, which has none, they are rolling. Widths are C, F and K as
    in `Composition.chain`. An estimate when there is a shuffle.

    >>> coverage_expr(Composition.parse("DW+RPW+RPW"))
    Min(C, s_1*(w_2 - 1) + w_1)
    >>> coverage_expr(Block.parse("DW+RPW(8,1/2,blocked)+RPW(8,0)"))
    Min(C, s_1*floor(P_1*(w_2 - 1)/C) + w_1)
    """
    return _chain_coverage(block.chain(bottleneck), sympy.Integer(1))


@cache
def full_field_condition(
    block: Composition | Block, bottleneck: bool = False, order: str = ROLLING
) -> Any:
    """Return the condition on the parameters under which every output sees all C channels.

    Without shuffles U(1) >= C is necessary and, at equal widths, sufficient. With a shuffle U is an
    estimate, and the condition is that of the product of the fan-ins, which is necessary. Symbols
    as in `coverage_expr`; without a bottleneck the condition is stated at equal widths C. `order`
    is that of RPW in a composition; a block has its own.

    >>> full_field_condition(Composition.parse("DW+RPW+RPW"))
    C <= s_1*(w_2 - 1) + w_1
    >>> full_field_condition(Composition.parse("GC+SH+GPW"))
    C <= w_1*w_3
    >>> full_field_condition(Composition.parse("DW+PW"))
    True

    Reference: [3DRF] section 4.2; [Fog] Theorem 1.
    """
    chain = (
        block.chain(bottleneck, order)
        if isinstance(block, Composition)
        else block.chain(bottleneck)
    )
    if not bottleneck:
        chain = tuple((row, names | {C_in: C, C_out: C}) for row, names in chain)
    if any(row.scatters for row, _ in chain):
        fan_ins = (names[w] if row.windowed else row.fan_in.xreplace(names) for row, names in chain)
        return sympy.Le(C, sympy.Mul(*fan_ins))
    count = sympy.Integer(1)
    for layer in reversed(chain):
        # A minimum with C can be left out: the condition is C <= count, and C <= C holds.
        count = layer_coverage(layer, count, uncapped=layer[1][C_in] == C).args[0]
    return sympy.Le(C, count)


def spatial_field(kernels: Sequence[int], w0: int | None = None) -> int:
    """Return IF^w of a chain of kernels in pixels, at most the side w0 of the stage's input.

    >>> spatial_field([3, 1, 3]), spatial_field([3, 3, 3], w0=4)
    (5, 4)

    Reference: [IF] eq. 2.
    """
    side = 1 + sum(kernel - 1 for kernel in kernels)
    return side if w0 is None else min(side, w0)


def field_limit(side: int, cap: str = "input") -> int | None:
    """Return how many pixels the spatial field of a stage may have, None for any number.

    >>> [field_limit(8, cap) for cap in CAPS]
    [8, 16, None]
    """
    multiple = CAPS[cap]
    return None if multiple is None else multiple * side


def fields(sized: SizedBlock, w0: int | None = None) -> tuple[tuple[int, int], ...]:
    """Return (IF^w, IF^c) in pixels and channels after each layer, by the formulas.

    >>> fields(Block.parse("GPW(4)+SH(4)+DW+GPW(4)").at(16))
    ((1, 4), (1, 4), (3, 4), (3, 16))

    Reference: [IF] eqs. 2 and 3.
    """
    chains = [sized.layers[:length] for length in range(1, len(sized.layers) + 1)]
    return tuple(
        (spatial_field([layer.kernel for layer in chain], w0), coverage(chain)) for chain in chains
    )


def volume(w: int, c: int, dims: int = 2) -> int:
    """Return the information field in elements: IF^w ** dims x IF^c.

    >>> volume(3, 128)
    1152

    Reference: [IF] eq. 1.
    """
    return c * int(w**dims)


def gain(previous: int, current: int, v0: int, alpha: float = 3) -> float:
    """Return the gain of a layer that enlarges the field from `previous` to `current` elements.

    `v0` is the volume of the stage's input in elements.

    >>> round(gain(1152, 3200, v0=8 * 8 * 128), 3)
    1.166

    Raises: SettingError unless the volumes are positive.

    Reference: [IF] eq. 4.
    """
    if previous <= 0 or v0 <= 0:
        raise SettingError.because(
            "a gain needs positive volumes",
            got=f"previous {previous}, v0 {v0}",
            allowed="1 or more",
            remedy="the first layer of a stage has no gain",
        )
    return (current - previous) / previous * exp(-alpha * previous / v0)


def log_gain(previous: int, current: int, v0: int, alpha: float = 3) -> float:
    """Return the logarithm of the field's growth, with the decay of the gain.

    >>> round(log_gain(1152, 3200, v0=8 * 8 * 128), 2)
    0.67
    """
    return log(current / previous) * exp(-alpha * previous / v0)
