"""The information field in formulas: coverage function, spatial field, volume, gain.

One number per layer is not enough to follow the channel field: a group pointwise after another
sees nothing new, after a shuffle it does. The coverage function U(m) is: the number of block-input
channels that m consecutive outputs, from channel 0, see together. It starts as min(m, C), every
kind turns it into another (`ConvKind.coverage`), and IF^c = U(1).

At equal widths and without shuffles it equals the exact field: every layer reads runs of
neighbouring channels, so runs see runs, and no run of m outputs sees less than the one from
channel 0. With a shuffle it is exact when runs and shuffle blocks align and their sets are
disjoint, else an estimate that errs both ways. Where a rolling layer has fewer outputs than
windows, a later window that rolls over the end joins channels that are no neighbours below, and it
may promise too much. `ifspace.reach` decides.
"""

from collections.abc import Callable, Sequence
from functools import cache
from math import exp
from typing import Any

import sympy

from ifspace.block import Block, Composition, SizedBlock, SizedLayer
from ifspace.errors import SettingError
from ifspace.kinds import C, C_in, C_out, ConvKind, U, g, m, w

Chain = Sequence[SizedLayer]
SymbolicLayer = tuple[ConvKind, dict[Any, Any]]


def coverage(chain: Chain, m: int = 1) -> int:
    """Return U(m): how many block-input channels m consecutive outputs from channel 0 see.

    >>> coverage(Block.parse("DW+RPW(4,0)+RPW(4,0)").at(16).layers)
    16
    """
    channels = chain[0].c_in if chain else m

    def start(count: int) -> int:
        return min(count, channels)

    below: Callable[[int], int] = start
    for layer in chain:
        below = _level(layer, below, channels)
    return min(below(m), channels)


def _level(layer: SizedLayer, below: Callable[[int], int], channels: int) -> Callable[[int], int]:
    # A shuffle asks twice: without the cache each one would double the work of all below it.
    @cache
    def level(count: int) -> int:
        # No outputs see no channels, whatever the formula extends to.
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

    return level


# One output: it lies in one group, and it is the first channel of one shuffled run. (For a single
# group the shuffle's quotient is 1 and its remainder 0, and the sum is the same.)
_ONE_OUTPUT = {
    sympy.ceiling(g / C_out): sympy.Integer(1),
    sympy.floor(1 / g): sympy.Integer(0),
    sympy.Mod(1, g): sympy.Integer(1),
}
# U of a number of outputs that may be 0, such as the quotient of a shuffle.
_U_OR_NONE = sympy.Function("U_or_none")


@cache
def _prepared(row: ConvKind, one: bool, uncapped: bool) -> Any:
    formula = row.coverage.replace(U, lambda n: U(n) if n.is_positive else _U_OR_NONE(n))
    if uncapped:
        formula = formula.replace(sympy.Min, lambda *parts: sympy.Min(*set(parts) - {C_in}))
    return formula.xreplace({m: sympy.Integer(1)}).xreplace(_ONE_OUTPUT) if one else formula


def layer_coverage(layer: SymbolicLayer, count: Any, uncapped: bool = False) -> Any:
    """Return the coverage of a layer for a count of outputs, in the symbols of the composition."""
    row, names = layer
    formula = _prepared(row, count == 1, uncapped)
    if row.windowed:
        names = names | {g: names[C_in] / names[w]}
    # All outputs at once, named before the widths are: then ceiling(g C_out / C_out) is g.
    formula = formula.xreplace({m: C_out if count == names[C_out] else count}).xreplace(names)
    # A window is no wider than the layer that it looks at.
    whole = sympy.Min(names[C_in], names[w], evaluate=False)
    return formula.xreplace({whole: names[w]})


def _seen(chain: Sequence[SymbolicLayer], count: Any) -> Any:
    if count.is_zero:
        return sympy.Integer(0)
    if not chain:
        return sympy.Min(count, C)
    *lower, layer = chain
    formula = layer_coverage(layer, count).replace(U, lambda n: _seen(lower, n))
    return formula.replace(
        _U_OR_NONE, lambda n: sympy.Piecewise((_seen(lower, n), n > 0), (0, True))
    )


@cache
def coverage_expr(word: Composition | Block, bottleneck: bool = False) -> Any:
    """Return IF^c = U(1) of a composition in symbols.

    Layers with groups are numbered from 1: fan-in w_i = C_in / g_i, RPW step s_i, shuffle groups
    g_i. Widths are C, F and K as in `Composition.chain`. An estimate when there is a shuffle.

    >>> coverage_expr(Composition.parse("DW+RPW+RPW"))
    Min(C, s_1*(w_2 - 1) + w_1)
    """
    composition = word.composition if isinstance(word, Block) else word
    return _seen(composition.chain(bottleneck), sympy.Integer(1))


@cache
def full_field_condition(word: Composition | Block, bottleneck: bool = False) -> Any:
    """Return the relation that the parameters meet when every output sees all C channels.

    Without shuffles it is the coverage function's condition, necessary and, at equal widths,
    sufficient. With one it is the product of the fan-ins, which is necessary: the coverage
    function is an estimate there. Symbols as in `coverage_expr`; without a bottleneck it is
    stated at equal widths C, where it is decided.

    >>> full_field_condition(Composition.parse("DW+RPW+RPW"))
    C <= s_1*(w_2 - 1) + w_1
    >>> full_field_condition(Composition.parse("GC+SH+GPW"))
    C <= w_1*w_3
    >>> full_field_condition(Composition.parse("DW+PW"))
    True

    Reference: [3DRF] section 4.2; [Fog] Theorem 1.
    """
    composition = word.composition if isinstance(word, Block) else word
    chain = composition.chain(bottleneck)
    if not bottleneck:
        chain = tuple((row, names | {C_in: C, C_out: C}) for row, names in chain)
    if any(row.scatters for row, _ in chain):
        fan_ins = (names[w] if row.windowed else row.fan_in.xreplace(names) for row, names in chain)
        return sympy.Le(C, sympy.Mul(*fan_ins))
    count = sympy.Integer(1)
    for layer in reversed(chain):
        # A minimum with C may go: every layer sees at least as many channels as are asked for.
        count = layer_coverage(layer, count, uncapped=layer[1][C_in] == C).args[0]
    return sympy.Le(C, count)


def spatial_field(kernels: Sequence[int], w0: int | None = None) -> int:
    """Return IF^w in pixels of a chain of kernels, at most the side w0 of the stage's input.

    >>> spatial_field([3, 1, 3]), spatial_field([3, 3, 3], w0=4)
    (5, 4)

    Reference: [IF] eq. 2.
    """
    side = 1 + sum(kernel - 1 for kernel in kernels)
    return side if w0 is None else min(side, w0)


def fields(sized: SizedBlock, w0: int | None = None) -> tuple[tuple[int, int], ...]:
    """Return (IF^w, IF^c) after each layer by the formulas, in pixels and channels.

    >>> fields(Block.parse("GPW(4)+SH(4)+DW+GPW(4)").at(16))
    ((1, 4), (1, 4), (3, 4), (3, 16))

    Reference: [IF] eqs. 2 and 3.
    """
    prefixes = [sized.layers[:length] for length in range(1, len(sized.layers) + 1)]
    return tuple(
        (spatial_field([layer.kernel for layer in chain], w0), coverage(chain))
        for chain in prefixes
    )


def volume(w: int, c: int, dims: int = 2) -> int:
    """Return the information field in elements: IF^w ** dims x IF^c.

    >>> volume(3, 128)
    1152

    Reference: [IF] eq. 1.
    """
    return c * int(w**dims)


def gain(previous: int, current: int, v0: int, alpha: float = 3) -> float:
    """Return the gain of a layer that takes the field from `previous` to `current` elements.

    v0 is the volume of the stage's input in elements.

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
