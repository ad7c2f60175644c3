"""Analyses in symbols against [Fog], grids of real numbers and all whole choices; their text."""

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
    REMARKS,
    Efficiency,
    N,
    P,
    analyse,
    greatest_width,
    symbols,
    to_latex,
    to_text,
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
    blocks = []
    for choice in product(*counts):
        layers = tuple(Layer(kind.symbol, n) for kind, n in zip(kinds, choice, strict=True))
        with suppress(BlockError):
            blocks.append(Block(layers, composition.repeats).at(c, f, ratio))
    blocks.sort(key=lambda sized: sized.params)
    return next((sized.params for sized in blocks if channel_field(sized.layers) == c), None)


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
        best = np.unravel_index(np.argmin(cost(*map(np.exp, axes))), axes[0].shape)
        centre, reach = np.array([axis[best] for axis in axes]), reach * 0.7
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
def test_the_bound_and_the_best_whole_choice_by_hand(
    text: str, c: int, f: int, ratio: Fraction, bound: int, integer: int
) -> None:
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
    full = {(c, f): params for c, f in widths if (params := least(text, c, f, ratio)) is not None}
    assert len(full) > 2
    for (c, f), params in full.items():
        assert at(efficiency.bound, c, f, ratio) <= params


def test_a_layer_that_reads_all_leaves_groups_at_the_edge() -> None:
    assert analyse(parse("GC+PW")).bound == 9 * C + C * F
    assert analyse(parse("PW+GPW")).groups == ((g_1, sympy.Min(C, F)),)


def test_equal_groups_of_theorem_1_are_not_the_cheapest() -> None:
    eights, best = (Block.parse(t).at(64) for t in ("GC(8)+SH(8)+GPW(8)", "GC(32)+SH(32)+GPW(2)"))
    assert [channel_field(x.layers) for x in (eights, best)] == [64, 64]
    assert (eights.params, best.params) == (5120, 3200)
    # C = 10, K = 8, F = 10: the common divisors allow M N = 4 at most.
    assert least(SHUFFLED, 10, 10, Fraction(4, 5)) == 10 * 8 // 2 + 72 + 80 // 2


@pytest.mark.slow
def test_widest_blocks_of_fog() -> None:
    one = greatest_width(parse("DW+PW"))
    assert one.lhs == C
    assert same(one.rhs, (-9 + sympy.sqrt(81 + 4 * ALPHA * P)) / (2 * ALPHA))
    two = greatest_width(parse("GC+SH+GPW"))
    assert same(two.rhs, (P / (6 * sympy.sqrt(ALPHA))) ** sympy.Rational(2, 3))
    three = greatest_width(parse("PW+DW+PW"), QUARTER)
    root = sympy.sqrt(81 * ALPHA**2 + 16 * ALPHA**2 * P + 16 * ALPHA * P)
    assert same(three.rhs, (root - 9 * ALPHA) / (2 * (ALPHA**2 + ALPHA)))
    four = greatest_width(parse(SHUFFLED), QUARTER)
    assert same(four.lhs, ALPHA * C * (9 + 4 * sympy.sqrt(C)) / 4)
    assert four.rhs == P


@pytest.mark.parametrize(
    ("text", "ratio"),
    [("DW+PW", None), ("GC+SH+GPW", None), ("PW+DW+PW", QUARTER), ("RPW+GPW+GPW", QUARTER)],
)
def test_at_the_widest_the_parameters_are_spent(text: str, ratio: Fraction | None) -> None:
    width = greatest_width(parse(text), ratio, Fraction(3, 2)).rhs
    bound = analyse(parse(text), ratio is not None).bound
    for budget in (50, 5_000, 123_456):
        c = width.subs(P, budget)
        spent = bound.subs(K, F * sympy.sympify(ratio or 1)).subs(F, c * 3 / 2).subs(C, c)
        assert float(spent) == pytest.approx(budget)


def test_widest_without_a_solution_is_the_equation() -> None:
    assert same(
        greatest_width(parse("DW+RPW+RPW"), alpha=1).lhs, 9 * C + 2 * C ** sympy.Rational(3, 2)
    )
    assert greatest_width(parse("SH")) == sympy.Eq(0, P, evaluate=False)
    assert greatest_width(parse("PW+GPW")).rhs == P  # Min(C, F) has no one side


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


def test_notes_name_what_the_bound_leaves_open(snapshot: object) -> None:
    texts = ("DW+PW", "GC+SH+GPW", "GC+GPW", "DW+RPW+RPW", "DW+RPW", "GC+PW")
    assert {text: analyse(parse(text)).notes for text in texts} == snapshot
    assert "divisors may not allow" in "\n".join(analyse(parse(SHUFFLED), True).remarks)
    assert analyse(parse("GC+SH+GPW")).reference == "[Fog] section 3.3.2, Theorem 1"


def test_values_out_of_range_are_an_error() -> None:
    with pytest.raises(SettingError, match="kernel is even"):
        analyse(parse("DW+PW"), kernel=4)
    with pytest.raises(SettingError, match="kernel out of range: got 0"):
        analyse(parse("DW+PW"), kernel=0)
    with pytest.raises(BlockError, match="two channel-mixing layers"):
        analyse(parse("DW+PW"), bottleneck=True)
    with pytest.raises(SettingError, match=r"alpha out of range: got 0\.5; .* exact"):
        greatest_width(parse("DW+PW"), alpha=0.5)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="alpha out of range: got 0; allowed: ratios above 0"):
        greatest_width(parse("DW+PW"), alpha=Fraction(0))
    with pytest.raises(SettingError, match="bottleneck out of range: got 0"):
        greatest_width(parse("PW+PW"), Fraction(0))
    with pytest.raises(BlockError, match="composition too long: got 65 x 2 layers"):
        analyse(parse("(DW+RPW)x65"))
    with pytest.raises(BlockError, match="composition too long"):
        equal_fan_ins(128)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "bottleneck"),
    [
        ("(DW+RPW+RPW)x10", False),
        ("(DW+RPW+RPW)x12", False),
        ("(DW+RPW)x64", False),
        ("(GPW+SH+DW+GPW)x10", Fraction(1, 4)),
        ("(GC+SH+GPW)x2", False),
        ("+".join(["DW", *["RPW"] * 40]), False),
    ],
)
def test_copies_have_an_optimum_too(text: str, bottleneck: bool | Fraction) -> None:
    efficiency = analyse(parse(text), bottleneck)
    best, values = dict(efficiency.groups), {C: 48, F: 80, K: 20}
    slopes: dict[sympy.Symbol, sympy.Expr] = {}
    for x in best:
        # By the factor that a small step of log g changes the product of the fan-ins.
        copies = sympy.Poly(efficiency.product.lhs, x).degree()
        slopes[x] = (x * sympy.diff(efficiency.params, x)).subs(best).subs(values) / copies
    first, *others = map(float, slopes.values())
    assert others == pytest.approx([first] * len(others))
    sides = (efficiency.product.lhs, efficiency.product.rhs)
    left, right = (float(sympy.log(side.subs(best).subs(values))) for side in sides)
    assert left == pytest.approx(right)
    spent = float(efficiency.params.subs(best).subs(values))
    assert float(efficiency.bound.subs(values)) == pytest.approx(spent)
    of_all = Composition(("CONV",), efficiency.composition.repeats).params_formula(kernel=3)
    assert float((efficiency.ratio * of_all).subs(best).subs(values)) == pytest.approx(spent)
    ratio = float((efficiency.ratio_at_optimum * of_all).subs(values))
    assert ratio == pytest.approx(spent)


def test_ratios_of_copies_are_simple() -> None:
    twice = analyse(parse("(DW+RPW)x2"))
    assert str(twice.ratio) == "1/(9*g_1) + 1/F"
    assert str(twice.ratio_at_optimum) == "1/F + 1/(9*sqrt(F))"
    assert str(analyse(parse("(DW+PW)x3")).ratio) == "1/9 + 1/F"


def test_the_condition_of_many_layers_is_the_product_of_their_fan_ins() -> None:
    short, long = (analyse(parse(f"(DW+RPW)x{n}")) for n in (6, 7))
    assert short.condition.has(sympy.Symbol("s_1", integer=True, positive=True))
    assert str(long.condition) == "C <= w_1**7"
    assert any("it is the product alone" in note for note in long.notes)


@pytest.mark.parametrize("alpha", [1, 2, Fraction(3, 2), Fraction(1, 3)])
@pytest.mark.parametrize(("text", "neck"), [case for case in SYMBOLIC if case[0] != "DW+RPW"])
def test_at_a_ratio_of_widths_every_formula_is_in_c(
    text: str, neck: bool, alpha: Fraction | int
) -> None:
    closed = analyse(parse(text), QUARTER if neck else False, alpha=alpha)
    open_ = analyse(parse(text), neck)
    put = {F: sympy.sympify(alpha) * C, K: sympy.sympify(alpha) * C / 4}
    for one, other in (
        (closed.params, open_.params),
        (closed.ratio, open_.ratio),
        (closed.bound, open_.bound),
        (closed.ratio_at_optimum, open_.ratio_at_optimum),
        *zip(dict(closed.groups).values(), dict(open_.groups).values(), strict=True),
    ):
        assert not one.free_symbols & {F, K}
        values = {C: 48} | {x: 3 + n for n, x in enumerate(dict(open_.groups))}
        assert float(one.subs(values)) == pytest.approx(float(other.subs(put).subs(values)))
    gap = closed.product.rhs - closed.product.lhs
    assert abs(float(gap.subs(dict(closed.groups)).subs(C, 48))) < 1e-6
    if neck:
        assert not closed.condition.free_symbols & {F, K}
        # Without a ratio of the bottleneck K stays.
        assert K in analyse(parse(text), True, alpha=alpha).params.free_symbols


@pytest.mark.parametrize("text", ["DW+RPW", "DW+RPW+RPW", "RPW+DW+RPW+RPW", "DW+GPW+SH+GPW"])
@pytest.mark.parametrize("kernel", [3, 5, None])
def test_a_family_has_its_bound_for_every_n(text: str, kernel: int | None) -> None:
    family = analyse(parse(text), kernel=kernel).family
    for n in range(1, 7):
        rolling = Composition(("DW", *["RPW"] * n))
        bound = analyse(rolling, kernel=kernel, alpha=1).bound
        assert same(family.subs(N, n), bound)
    own = analyse(parse(text), kernel=kernel, alpha=1)
    n = sum(KINDS[kind].mixing for kind in parse(text).kinds)
    assert same(family.subs(N, n), own.bound)


@pytest.mark.parametrize(
    ("text", "neck"),
    [
        ("DW+PW", False),
        ("GC+SH+GPW", False),
        ("(DW+RPW)x2", False),
        (SHUFFLED, True),
        ("DW+DW+RPW", False),
        ("RPW+GPW", False),
        ("DW+SH", False),
        ("DW+RPW+PW", False),
    ],
)
def test_layers_that_are_not_alike_have_no_family(text: str, neck: bool) -> None:
    assert analyse(parse(text), neck).family is None


def lines(text: str, name: str) -> list[str]:
    """Return the value after a name in the lines of a text."""
    return [line[18:] for line in text.splitlines() if line[:18].rstrip() == name]


def test_the_text_has_a_formula_a_line() -> None:
    text = to_text(analyse(parse("GC+SH+GPW"))).splitlines()
    assert text[0] == "GC+SH+GPW"
    assert [line[18:] for line in text[1:10]] == [
        "9*C**2/g_1 + C*F/g_3",
        "C/(F*g_1) + 1/(9*g_3)",
        "C <= w_1*w_3",
        "w = C_in/g",
        "g_1*g_3 <= C",
        "g_1 = 3*C/sqrt(F)",
        "g_3 = sqrt(F)/3",
        "6*C*sqrt(F)",
        "2/(3*sqrt(F))",
    ]
    source = text.index("source            [Fog] section 3.3.2, Theorem 1")
    assert text[source + 1 : source + 3] == ["", "remarks on [Fog]'s print"]
    assert text[-1].startswith("  the greatest width, read ")
    assert "CONV(k)" in to_text(analyse(parse("DW+PW"), kernel=None))
    assert lines(to_text(analyse(parse("DW+PW"))), "full field") == ["always"]


def test_an_equation_that_is_not_solved_is_marked() -> None:
    composition = parse("DW+RPW+RPW")
    text = to_text(analyse(composition), greatest_width(composition, alpha=1))
    assert lines(text, "greatest width") == ["2*C**(3/2) + 9*C = P, solve for C"]
    composition = parse("DW+PW")
    text = to_text(analyse(composition), greatest_width(composition, alpha=1))
    assert lines(text, "greatest width") == ["C = sqrt(4*P + 81)/2 - 9/2"]
    composition = parse("SH")
    assert "any: there are no parameters" in to_text(
        analyse(composition), greatest_width(composition)
    )


def test_the_values_of_widths_are_in_the_title() -> None:
    composition = parse("GPW+SH+DW+GPW")
    text = to_text(analyse(composition, Fraction(1, 4), alpha=2))
    assert text.startswith("GPW+SH+DW+GPW, bottleneck K, F = 2*C, K = C/2\n")
    assert "the greatest width has K = F/4" in to_text(analyse(composition, Fraction(1, 4)))


def test_every_symbol_has_its_meaning_and_no_other() -> None:
    for text in ("GC+SH+GPW", "DW+RPW+SH+GPW", "(DW+RPW)x2", "PW+DW", "RPW+DW+RPW+RPW"):
        efficiency = analyse(parse(text), kernel=None)
        values = (
            efficiency.params,
            efficiency.ratio,
            efficiency.condition,
            efficiency.bound,
            efficiency.product,
            efficiency.family,
            *sum(efficiency.groups, ()),
        )
        used = {str(x) for value in values if value is not None for x in value.free_symbols}
        named = {x for names in symbols(efficiency) for x in names.split(", ")}
        assert named == used | ({"C_in"} if efficiency.condition != sympy.true else set())


def test_group_counts_are_told_apart_by_their_layers() -> None:
    meanings = symbols(analyse(parse("GC+SH+GPW")))
    assert meanings["g_3, w_3"] == "groups and fan-in of layer 3, GPW"
    meanings = symbols(analyse(parse("DW+RPW+SH+GPW")))
    # The first layer that takes groups is the second of all.
    assert meanings["g_1, w_1"] == "groups and fan-in of layer 2, RPW"
    assert meanings["g_3, w_3"] == "groups and fan-in of layer 4, GPW"
    assert "of layer 2 of every copy, RPW" in symbols(analyse(parse("(DW+RPW)x2")))["g_1, w_1, s_1"]


def test_the_condition_is_that_of_the_order_and_the_bound_holds_in_each() -> None:
    rolling, blocked, both = (
        analyse(parse("DW+RPW+RPW"), rpw_order=order) for order in ("rolling", "blocked", "both")
    )
    assert str(rolling.condition) == "C <= s_1*(w_2 - 1) + w_1"
    assert str(blocked.condition) == "C <= s_1*floor(P_1*(w_2 - 1)/C) + w_1"
    assert str(both.condition) == "C <= w_1*w_2"
    assert rolling.bound == blocked.bound == both.bound
    assert "groups, fan-in, step and distinct windows" in symbols(blocked)["g_1, w_1, s_1, P_1"]
    assert "the condition is necessary: with both orders it is the product alone" in both.notes
    assert "overlap 0, s_i = w_i, sees most: the product of the fan-ins" in rolling.notes
    assert not any("sees most" in note for note in blocked.notes + both.notes)
    # An order changes nothing where there are no windows.
    assert analyse(parse("GC+SH+GPW"), rpw_order="both") == analyse(parse("GC+SH+GPW"))


def test_the_blocked_condition_decides_every_choice() -> None:
    condition = analyse(parse("RPW+RPW"), rpw_order="blocked").condition
    outcomes = set()
    rows = KINDS["RPW"].choices(24, 24, [Fraction(n, 6) for n in range(6)], orders=("blocked",))
    for first, second in product(rows, repeat=2):
        layers = [Layer("RPW", g, o, None, order) for g, o, order in (first, second)]
        below, above = Block(tuple(layers)).at(24).layers
        values = {"C": 24, "F": 24, "w_1": below.fan_in, "w_2": above.fan_in}
        values |= {"s_1": below.step, "P_1": below.windows}
        at = condition.xreplace({x: sympy.Integer(values[str(x)]) for x in condition.free_symbols})
        assert bool(at) == (channel_field((below, above)) == 24)
        outcomes.add(bool(at))
    assert outcomes == {True, False}


@pytest.mark.slow
def test_remarks_are_one_sentence_each() -> None:
    for (text, neck), (_, *remarks) in REMARKS.items():
        efficiency = analyse(parse(text), neck)
        assert efficiency.remarks == tuple(remarks)
        assert not set(efficiency.notes) & set(remarks)
        assert not [note for note in remarks if ". " in note or "; " in note or len(note) > 78]


def test_the_numbers_of_the_remarks_are_right() -> None:
    params = analyse(parse("GC+SH+GPW")).params
    at = [{"g_1": 8, "g_3": 8}, {"g_1": 32, "g_3": 2}]
    values = [
        params.subs({x: {"C": 64, "F": 64, **groups}[str(x)] for x in params.free_symbols})
        for groups in at
    ]
    assert values == [5120, 3200]
    # (P/(6*sqrt(alpha)))**(2/3) at alpha = 4: 12 C**(3/2) parameters for C = 81.
    equation = greatest_width(parse("GC+SH+GPW"), alpha=4)
    assert sympy.simplify(equation.rhs.subs(P, 12 * 9**3)) == 81
    assert sympy.Rational(12 * 9**3, 6 * 2) ** sympy.Rational(2, 3) == 81


@pytest.mark.parametrize("text", ["GC+SH+GPW", "DW+RPW+RPW", "DW+PW", "SH"])
def test_latex_is_balanced(text: str) -> None:
    composition = parse(text)
    latex = to_latex(analyse(composition), greatest_width(composition, alpha=1))
    assert latex.count("{") == latex.count("}")
    assert latex.startswith("\\begin{align*}\n\\text{parameters} &: \\quad ")
    body = latex.partition("\\end{align*}")[0]
    assert body.count("&: ") == body.count("\\\\\n") + 1
    assert "\n\\text{greatest width} &: \\quad " in body


def test_latex_has_the_formulas_and_the_legend() -> None:
    composition = parse("GC+SH+GPW")
    assert "\\text{least parameters} &: \\quad 6 C \\sqrt{F}" in to_latex(analyse(composition))
    composition = parse("DW+RPW+RPW")
    latex = to_latex(analyse(composition), greatest_width(composition))
    assert "= P\\text{, solve for C}\n" in latex
    assert "% g_2, w_2: groups and fan-in of layer 3, RPW\n" in latex
    assert "\\text{full field} &: \\quad \\text{always}" in to_latex(analyse(parse("DW+PW")))
