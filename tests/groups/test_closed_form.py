"""Closed forms against [Fog], against grids of real numbers, and against all whole choices."""

from contextlib import suppress
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import sympy

from ifspace.block import Block, Composition, Layer
from ifspace.errors import BlockError, SettingError
from ifspace.groups.symbolic import (
    ALPHA,
    Efficiency,
    P,
    analyse,
    widest,
)
from ifspace.kinds import KINDS, C, F, K, k
from ifspace.reach import channel_field

g_1, g_2, g_3 = (sympy.Symbol(f"g_{n}", integer=True, positive=True) for n in (1, 2, 3))
SHUFFLED = "GPW+SH+DW+GPW"


def parse(text: str) -> Composition:
    return Composition.parse(text)


def same(one: sympy.Expr, other: sympy.Expr) -> bool:
    return bool(sympy.simplify(one - other) == 0)


def least(text: str, c: int, f: int, ratio: Fraction | None = None) -> int | None:
    """The fewest parameters of any legal choice with the exact full field, all of them tried."""
    composition = parse(text)
    kinds = [KINDS[symbol] for symbol in composition.kinds]
    divisors = [n for n in range(1, max(c, f) + 1) if not c % n or not f % n]
    counts = [divisors if kind.takes_groups else [None] for kind in kinds]
    found = []
    for choice in product(*counts):
        layers = tuple(Layer(kind.symbol, n) for kind, n in zip(kinds, choice, strict=True))
        with suppress(BlockError):
            found.append(Block(layers, composition.repeats).at(c, f, ratio))
    found.sort(key=lambda sized: sized.params)
    return next((sized.params for sized in found if channel_field(sized.layers) == c), None)


def at(expr: sympy.Expr, c: int, f: int, ratio: Fraction | None = None) -> sympy.Expr:
    return expr.subs({C: c, F: f, K: 0 if ratio is None else int(ratio * f)})


def test_the_four_designs_of_fog() -> None:
    one = analyse(parse("DW+PW"))
    assert one.params == one.bound == 9 * C + C * F
    assert one.ratio == 1 / F + sympy.Rational(1, 9)
    assert (one.condition, one.groups, one.product) == (sympy.true, (), None)

    two = analyse(parse("GC+SH+GPW"))
    assert two.params == 9 * C**2 / g_1 + C * F / g_3
    assert two.product == sympy.Le(g_1 * g_3, C)
    best = dict(two.groups)
    assert best == {g_1: 3 * C / sympy.sqrt(F), g_3: sympy.sqrt(F) / 3}
    assert best[g_1] * best[g_3] == C  # Theorem 1
    assert 9 * best[g_3] == F / best[g_3]
    assert same(9 * C * best[g_3] + F * best[g_1], two.bound)
    assert two.bound == 6 * C * sympy.sqrt(F)
    assert two.ratio_at_optimum == 2 / (3 * sympy.sqrt(F))

    three = analyse(parse("PW+DW+PW"), bottleneck=True)
    assert same(three.params, K * (C + F + 9))
    assert same(three.ratio.subs(F, 4 * K), (C + 4 * K + 9) / (36 * C))

    four = analyse(parse(SHUFFLED), bottleneck=True)
    assert same(four.params, C * K / g_1 + 9 * K + K * F / g_3)
    assert four.product == sympy.Le(g_1 * g_3, K)
    best = dict(four.groups)
    assert same(best[g_1] * best[g_3], K)
    quarter = best[g_1].subs(F, 4 * K)
    assert same(quarter, sympy.sqrt(C) / 2)
    assert same(C / quarter, 4 * quarter)
    assert same(four.bound, 9 * K + 2 * sympy.sqrt(C * K * F))


SYMBOLIC = [
    ("GC+SH+GPW", False),
    ("DW+RPW+RPW", False),
    ("RPW+DW+RPW+RPW", False),
    ("DW+RPW", False),
    (SHUFFLED, False),
    (SHUFFLED, True),
    ("RPW+DW+RPW+GPW", True),
    ("GPW+DW+PW", True),
    ("(GC+SH+GPW)x2", False),
    ("GC+SH+GPW+SH+GPW", True),
    ("GC+GPW", False),
]


@pytest.mark.parametrize("kernel", [3, None])
@pytest.mark.parametrize(("text", "neck"), SYMBOLIC)
def test_the_optimum_is_stationary_and_reaches(text: str, neck: bool, kernel: int | None) -> None:
    efficiency = analyse(parse(text), neck, kernel)
    best = dict(efficiency.groups)
    # At the optimum g dP/dg is the same for all: the multiplier of one and the same product.
    slopes = [(x * sympy.diff(efficiency.params, x)).subs(best) for x in best]
    values = {C: 48, F: 80, K: 20, k: 3}
    assert len({round(float(slope.subs(values)), 6) for slope in slopes}) == 1
    assert all(slope.subs(values) < 0 for slope in slopes)
    gap = (efficiency.product.rhs - efficiency.product.lhs).subs(best).subs(values)
    assert abs(float(gap)) < 1e-6
    assert abs(float((efficiency.params.subs(best) - efficiency.bound).subs(values))) < 1e-6


@pytest.mark.parametrize("widths", [(64, 64, 16), (48, 80, 20)])
@pytest.mark.parametrize(("text", "neck"), SYMBOLIC)
def test_a_grid_of_real_groups_agrees(text: str, neck: bool, widths: tuple[int, ...]) -> None:
    efficiency = analyse(parse(text), neck)
    values = dict(zip((C, F, K), widths, strict=True))
    params, room = (efficiency.params.subs(values), efficiency.product.subs(values))
    *free, last = [x for x, _ in efficiency.groups]
    real = sympy.Dummy(positive=True)
    (closing,) = sympy.solve((room.lhs - room.rhs).subs(last, real), real)
    cost = sympy.lambdify(free, params.subs(last, closing), "numpy")
    centre, reach = np.zeros(len(free)), 8.0  # natural logarithms of the group counts
    for _ in range(60 if free else 0):
        axes = np.meshgrid(*(centre[i] + np.linspace(-reach, reach, 9) for i in range(len(free))))
        place = np.unravel_index(np.argmin(cost(*map(np.exp, axes))), axes[0].shape)
        centre, reach = np.array([axis[place] for axis in axes]), reach * 0.7
    bound = float(efficiency.bound.subs(values))
    assert float(cost(*np.exp(centre))) == pytest.approx(bound, rel=1e-9)


QUARTER = Fraction(1, 4)


@pytest.mark.parametrize(
    ("text", "c", "f", "ratio", "bound", "integer"),
    [
        ("DW+PW", 64, 64, None, 4672, 4672),
        ("GC+SH+GPW", 64, 64, None, 3072, 3200),
        ("GC+SH+GPW", 36, 36, None, 1296, 1296),  # sqrt(F)/3 = 2 divides
        ("GC+SH+GPW", 72, 36, None, 2592, 2592),
        ("DW+RPW+RPW", 64, 64, None, 1600, 1600),
        ("DW+RPW+RPW+RPW", 64, 64, None, 1344, 1344),
        ("PW+DW+PW", 64, 64, QUARTER, 2192, 2192),
        (SHUFFLED, 64, 64, QUARTER, 656, 656),  # M = N = sqrt(C)/2 = 4
        (SHUFFLED, 16, 64, QUARTER, 400, 400),
    ],
)
def test_by_number(text: str, c: int, f: int, ratio: Fraction, bound: int, integer: int) -> None:
    assert at(analyse(parse(text), ratio is not None).bound, c, f, ratio) == bound
    assert least(text, c, f, ratio) == integer


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("GC+SH+GPW", None),
        ("DW+RPW+RPW", None),
        ("GC+GPW", None),
        ("GC+PW", None),
        ("PW+GC", None),
        ("DW+RPW", None),
        (SHUFFLED, None),
        (SHUFFLED, QUARTER),
        ("GPW+DW+PW", QUARTER),
        ("RPW+DW+GPW", QUARTER),
        (SHUFFLED, Fraction(2)),
        ("(DW+RPW)x2", None),
        ("GC+SH+RPW", None),
        ("RPW+GPW+GC", None),
    ],
)
def test_no_whole_choice_is_below_the_bound(text: str, ratio: Fraction | None) -> None:
    efficiency = analyse(parse(text), ratio is not None)
    widths = [(8, 8), (12, 12), (12, 24), (18, 12), (20, 20)]
    full = {(c, f): found for c, f in widths if (found := least(text, c, f, ratio)) is not None}
    assert len(full) > 2
    assert all(at(efficiency.bound, *each, ratio) <= found for each, found in full.items())


def test_a_layer_that_reads_all_leaves_groups_at_the_edge() -> None:
    assert analyse(parse("GC+PW")).bound == 9 * C + C * F
    assert analyse(parse("PW+GPW")).groups == ((g_1, sympy.Min(C, F)),)


def test_theorem_1_needs_repair_in_one_direction() -> None:
    eights, best = (Block.parse(t).at(64) for t in ("GC(8)+SH(8)+GPW(8)", "GC(32)+SH(32)+GPW(2)"))
    assert [channel_field(x.layers) for x in (eights, best)] == [64, 64]
    assert (eights.params, best.params) == (5120, 3200)
    # C = 10, K = 8, F = 10: the common divisors allow M N = 4 at most.
    assert least(SHUFFLED, 10, 10, Fraction(4, 5)) == 10 * 8 // 2 + 72 + 80 // 2


def test_widest_blocks_of_fog() -> None:
    one = widest(parse("DW+PW"))
    assert one.lhs == C
    assert same(one.rhs, (-9 + sympy.sqrt(81 + 4 * ALPHA * P)) / (2 * ALPHA))
    two = widest(parse("GC+SH+GPW"))
    assert same(two.rhs, (P / (6 * sympy.sqrt(ALPHA))) ** sympy.Rational(2, 3))
    three = widest(parse("PW+DW+PW"), QUARTER)
    root = sympy.sqrt(81 * ALPHA**2 + 16 * ALPHA**2 * P + 16 * ALPHA * P)
    assert same(three.rhs, (root - 9 * ALPHA) / (2 * (ALPHA**2 + ALPHA)))
    four = widest(parse(SHUFFLED), QUARTER)
    assert same(four.lhs, ALPHA * C * (9 + 4 * sympy.sqrt(C)) / 4)
    assert four.rhs == P


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("DW+PW", None), ("GC+SH+GPW", None), ("PW+DW+PW", QUARTER), ("RPW+GPW+GPW", QUARTER)],
)
def test_at_the_widest_the_parameters_are_spent(text: str, ratio: Fraction | None) -> None:
    width = widest(parse(text), ratio, Fraction(3, 2)).rhs
    bound = analyse(parse(text), ratio is not None).bound
    for budget in (50, 5_000, 123_456):
        c = width.subs(P, budget)
        spent = bound.subs(K, F * sympy.sympify(ratio or 1)).subs(F, c * 3 / 2).subs(C, c)
        assert float(spent) == pytest.approx(budget)


def test_widest_without_a_solution_is_the_equation() -> None:
    assert same(widest(parse("DW+RPW+RPW"), alpha=1).lhs, 9 * C + 2 * C ** sympy.Rational(3, 2))
    assert widest(parse("SH")) == sympy.Eq(0, P, evaluate=False)
    assert widest(parse("PW+GPW")).rhs == P  # Min(C, F) has no one side


def equal_fan_ins(layers: int) -> Efficiency:
    """A depthwise layer and rolling ones at F = C, where equal fan-ins are the optimum."""
    return analyse(Composition(("DW", *["RPW"] * layers)), alpha=1)


@pytest.mark.parametrize("n", range(1, 7))
def test_equal_fan_ins(n: int) -> None:
    efficiency = equal_fan_ins(n)
    assert same(efficiency.bound, 9 * C + n * C ** (1 + sympy.Rational(1, n)))
    groups = {sympy.simplify(best) for _, best in efficiency.groups}
    assert groups == {C ** (1 - sympy.Rational(1, n))}
    assert F not in efficiency.params.free_symbols | efficiency.ratio.free_symbols


def test_what_the_notes_say() -> None:
    def notes(text: str, bottleneck: bool = False) -> str:
        return "\n".join(analyse(parse(text), bottleneck).notes)

    assert "no group count is free" in notes("DW+PW")
    assert "unless 1 <= sqrt(F)/3 <= Min(C, F)" in notes("GC+SH+GPW")
    assert "condition is necessary" in notes("GC+SH+GPW")
    assert "may be out of reach" in notes("GC+GPW")
    assert "overlap 0, s_i = w_i" in notes("DW+RPW+RPW")
    assert "g_1 = 1" in notes("DW+RPW")
    assert "reads all C channels" in notes("GC+PW")
    assert "divisors may not allow" in notes(SHUFFLED, True)
    assert analyse(parse("GC+SH+GPW")).reference == "[Fog] section 3.3.2, Theorem 1"


def test_refusals() -> None:
    with pytest.raises(SettingError, match="kernel is even"):
        analyse(parse("DW+PW"), kernel=4)
    with pytest.raises(SettingError, match="kernel out of range: got 0"):
        analyse(parse("DW+PW"), kernel=0)
    with pytest.raises(BlockError, match="two channel-mixing layers"):
        analyse(parse("DW+PW"), bottleneck=True)
    with pytest.raises(SettingError, match=r"alpha out of range: got 0\.5; .* exact"):
        widest(parse("DW+PW"), alpha=0.5)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="alpha out of range: got 0; allowed: ratios above 0"):
        widest(parse("DW+PW"), alpha=Fraction(0))
    with pytest.raises(SettingError, match="bottleneck out of range: got 0"):
        widest(parse("PW+PW"), Fraction(0))
    with pytest.raises(SettingError, match="composition too long: got 65 x 2 layers"):
        analyse(parse("(DW+RPW)x65"))
    with pytest.raises(SettingError, match="composition too long"):
        equal_fan_ins(128)
