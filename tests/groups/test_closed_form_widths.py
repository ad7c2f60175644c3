"""Closed forms of several copies, at ratios of the widths, and of any number of layers."""

from fractions import Fraction

import pytest
import sympy

from ifspace.block import Composition
from ifspace.groups import symbolic as closed_form
from ifspace.groups.symbolic import analyse
from ifspace.kinds import KINDS, C, F, K

QUARTER = Fraction(1, 4)
SHUFFLED = "GPW+SH+DW+GPW"
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


def parse(text: str) -> Composition:
    return Composition.parse(text)


def same(one: sympy.Expr, other: sympy.Expr) -> bool:
    return bool(sympy.simplify(one - other) == 0)


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
    left, right = (float(sympy.log(each.subs(best).subs(values))) for each in sides)
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


def test_of_many_layers_the_condition_is_that_of_the_product() -> None:
    short, long = (analyse(parse(f"(DW+RPW)x{n}")) for n in (6, 7))
    assert short.condition.has(sympy.Symbol("s_1", integer=True, positive=True))
    assert str(long.condition) == "C <= w_1**7"
    assert any("that of the product alone" in note for note in long.notes)


@pytest.mark.parametrize("alpha", [1, 2, Fraction(3, 2), Fraction(1, 3)])
@pytest.mark.parametrize(("text", "neck"), [each for each in SYMBOLIC if each[0] != "DW+RPW"])
def test_at_a_ratio_of_widths_all_is_in_c(text: str, neck: bool, alpha: Fraction | int) -> None:
    known = analyse(parse(text), QUARTER if neck else False, alpha=alpha)
    open_ = analyse(parse(text), neck)
    put = {F: sympy.sympify(alpha) * C, K: sympy.sympify(alpha) * C / 4}
    for one, other in (
        (known.params, open_.params),
        (known.ratio, open_.ratio),
        (known.bound, open_.bound),
        (known.ratio_at_optimum, open_.ratio_at_optimum),
        *zip(dict(known.groups).values(), dict(open_.groups).values(), strict=True),
    ):
        assert not one.free_symbols & {F, K}
        values = {C: 48} | {x: 3 + n for n, x in enumerate(dict(open_.groups))}
        assert float(one.subs(values)) == pytest.approx(float(other.subs(put).subs(values)))
    gap = known.product.rhs - known.product.lhs
    assert abs(float(gap.subs(dict(known.groups)).subs(C, 48))) < 1e-6
    if neck:
        assert not known.condition.free_symbols & {F, K}
        # Without a ratio of the bottleneck K stays.
        assert K in analyse(parse(text), True, alpha=alpha).params.free_symbols


@pytest.mark.parametrize("text", ["DW+RPW", "DW+RPW+RPW", "RPW+DW+RPW+RPW", "DW+GPW+SH+GPW"])
@pytest.mark.parametrize("kernel", [3, 5, None])
def test_a_family_has_its_bound_for_every_n(text: str, kernel: int | None) -> None:
    family = analyse(parse(text), kernel=kernel).family
    for n in range(1, 7):
        rolling = Composition(("DW", *["RPW"] * n))
        bound = analyse(rolling, kernel=kernel, alpha=1).bound
        assert same(family.subs(closed_form.N, n), bound)
    own = analyse(parse(text), kernel=kernel, alpha=1)
    n = sum(KINDS[kind].mixing for kind in parse(text).kinds)
    assert same(family.subs(closed_form.N, n), own.bound)


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
def test_what_is_not_alike_has_no_family(text: str, neck: bool) -> None:
    assert analyse(parse(text), neck).family is None
