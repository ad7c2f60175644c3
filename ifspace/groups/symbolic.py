"""Analyse a composition in symbols: its cost, the cheapest real group counts and what they bound.

The parameters of a composition are a sum of terms A / g, and an output can see all C channels only
if the product of the fan-ins reaches C. In log g the parameters are convex and the log of the
product is linear: the one stationary point of parameters - lambda * (log(product) - log C) is the
minimum over real groups. There A / g is lambda for each layer that g splits, which leaves a
monomial: no equation is solved. Whole groups with the full field are among the real ones, so the
minimum is a lower bound on what any legal choice costs. Shuffle groups cost nothing and enter no
product: they are in no optimum.

Reference: [Fog] section 3.3 and Theorem 1, for four designs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any, Final

import sympy

from ifspace import kinds
from ifspace.block import DEFAULT_KERNEL, Composition
from ifspace.catalogue.setting import RpwOrder, orders_of
from ifspace.groups.problem import MAX_KERNEL
from ifspace.infofield import full_field_condition
from ifspace.kinds import C, C_in, C_out, F, K, find_kind, g, k, reference_kind, s, w
from ifspace.values import listed, odd_number, ratio_above_zero

_COUNTS: Final = "M and N of [Fog] are g_1 and g_3"

# (composition, bottleneck): section of [Fog], remarks on its efficiency and on its greatest width.
REMARKS: Final = {
    ("DW+PW", False): (
        "3.3.1",
        "[Fog] has the same parameters and ratio",
        "the root of the greatest width, read '2 alpha + 40 P', is of 81 + 4*alpha*P",
    ),
    ("GC+SH+GPW", False): (
        "3.3.2, Theorem 1",
        _COUNTS,
        "Theorem 1 has 'if and only if' of M*N = C, which is needed, but not enough",
        "at C = F = 64 groups 8 and 8 take 5,120 parameters, 32 and 2 take 3,200",
        "its proof raises N to C/M, which need not divide F: raise M to C/N",
        "the best N, read 'N = 9N', has 9*N = F/N",
        "the greatest width, read '(6 sqrt(alpha)) 3', is (P/(6*sqrt(alpha)))**(2/3)",
    ),
    ("PW+DW+PW", True): (
        "3.3.3",
        "[Fog] has the same parameters, and the same greatest width at K = F/4",
        "the ratio at K = F/4, which is illegible, is (C + F + 9)/(36*C)",
    ),
    ("GPW+SH+DW+GPW", True): (
        "3.3.4, Theorem 1",
        _COUNTS,
        "the parameters, read 'K(M + N + 9)', are K*(C/M + F/N + 9)",
        "at M*N = K = F/4 the ratio is (C/M + 4*M + 9)/(36*C)",
        "that is best at C/M = 4*M, which [Fog] prints as 'M = 4M'",
        "for other K the divisors may not allow M*N = K, as at C = 10, K = 8, F = 10",
        "[Fog] has the same greatest width at K = F/4: P >= alpha*C*(9 + 4*sqrt(C))/4",
        "there P is equal where alpha*M = N",
    ),
}

# The ratio F / C and the parameters to spend: symbols of this analysis alone, of no layer.
ALPHA: Final = sympy.Symbol("alpha", positive=True)
P: Final = sympy.Symbol("P", integer=True, positive=True)
# How many layers mix channels, where that is left open.
N: Final = sympy.Symbol("n", integer=True, positive=True)
# With more grouped layers than this the exact condition is a formula that nobody reads.
MOST_NESTED: Final = 12
_OF_A_LAYER: Final = {g: "groups", w: "fan-in", s: "step", kinds.P: "distinct windows"}


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What a composition costs, and the least it can cost with the full field, in symbols.

    `ratio` is over CONV(k), r of them for r copies. `condition` is the full-field condition in
    fan-ins w_i and steps s_i, `product` what it requires of group counts at least (None: nothing).
    `groups` holds (g_i, real optimum), `bound` the parameters there, never above a legal choice's.
    `widths` are the values of F and K. `family` is the bound at F = C of n layers in place of those
    that mix channels here (None: they are not all alike). `remarks` compare with the print of
    [Fog].
    """

    composition: Composition
    bottleneck: bool
    kernel: int | None
    widths: tuple[tuple[Any, Any], ...]
    params: Any
    ratio: Any
    condition: Any
    product: Any
    groups: tuple[tuple[Any, Any], ...]
    bound: Any
    ratio_at_optimum: Any
    family: Any
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    reference: str


def analyse(
    composition: Composition,
    bottleneck: bool | Fraction = False,
    kernel: int | None = DEFAULT_KERNEL,
    alpha: Fraction | int | None = None,
    rpw_order: RpwOrder = "rolling",
) -> Efficiency:
    """Return parameters, full-field condition and continuous optimum of a composition.

    Widths are C in, F out, K in a bottleneck. With `alpha` F is alpha x C, and a bottleneck that is
    a ratio makes K = ratio x F then. `kernel=None` leaves k open. The bound holds in each order of
    RPW, the condition in the order asked for; for both it is the product alone.

    >>> efficiency = analyse(Composition.parse("GC+SH+GPW"))
    >>> efficiency.groups, efficiency.bound, efficiency.product
    (((g_1, 3*C/sqrt(F)), (g_3, sqrt(F)/3)), 6*C*sqrt(F), g_1*g_3 <= C)
    >>> efficiency.notes[1]
    'the bound is met only if the best g_1 has 1 <= g_1 <= C'
    >>> analyse(Composition.parse("GC+SH+GPW"), alpha=1).bound
    6*C**(3/2)

    Raises: SettingError for an even or too large kernel, ratios that are not above 0 and too long a
        composition; BlockError for a bottleneck without two channel-mixing layers.

    Reference: [Fog] section 3.3.
    """
    if kernel is not None:
        odd_number(kernel, "kernel", 1, MAX_KERNEL)
    has_bottleneck = bottleneck is not False
    widths = _widths(composition, bottleneck, alpha)
    chain = tuple(
        (row, {symbol: value.xreplace(widths) for symbol, value in names.items()})
        for row, names in composition.chain(has_bottleneck)
    )
    params = composition.params_formula(has_bottleneck, kernel).xreplace(widths)
    standard = Composition((reference_kind().symbol,), composition.repeats)
    standard_params = standard.params_formula(kernel=kernel).xreplace(widths)

    fan_ins = [row.fan_in.xreplace(names) for row, names in chain]
    # The widths that each group count splits, in all copies.
    split_widths: dict[Any, list[Any]] = {}
    for row, names in chain:
        if row.windowed:
            split_widths.setdefault(names[g], []).extend((names[C_in], names[C_out]))

    one_order = rpw_order != "both" or not any(row.takes_overlap for row, _ in chain)
    exact = one_order and (len(fan_ins) <= MOST_NESTED or not split_widths)
    condition = (
        full_field_condition(composition, has_bottleneck, orders_of(rpw_order)[0])
        if exact
        else _product_condition(chain)
    ).xreplace(widths)
    product = None
    best_groups: dict[Any, Any] = {}
    if C in fan_ins:
        # Nothing is left to reach: each group more is cheaper, up to the edge of the legal range.
        condition = sympy.true
        best_groups = {x: sympy.Min(*split) for x, split in split_widths.items()}
    elif split_widths:
        reached = sympy.Mul(*fan_ins)
        product = sympy.Le(*(C / reached).as_numer_denom())
        copies = {x: len(split) // 2 for x, split in split_widths.items()}
        best_groups = _stationary(params, reached, copies)

    # Parameters are a sum of those without groups and of A / g for each group count.
    fixed = sympy.Add(
        *(term for term in sympy.Add.make_args(params) if not term.has(*split_widths))
    )
    over_groups = {x: sympy.factor(params.coeff(1 / x)) for x in split_widths}
    parts = [fixed, *(over_groups[x] / x for x in split_widths)]
    # At the optimum those with groups are alike, and become one part.
    best_parts = [fixed, sympy.Add(*(over_groups[x] / best for x, best in best_groups.items()))]

    section, *remarks = REMARKS.get((str(composition), has_bottleneck), ("3.3",))
    notes = list(_notes(composition, condition, product, split_widths, best_groups))
    if product is not None:
        notes.append(_condition_note(composition, condition, exact, rpw_order))
    notes = [note for note in notes if note]
    if isinstance(bottleneck, Fraction) and alpha is None:
        notes.append(f"the greatest width has K = {sympy.sympify(bottleneck) * F}")
    return Efficiency(
        composition=composition,
        bottleneck=has_bottleneck,
        kernel=kernel,
        widths=tuple(widths.items()),
        params=params,
        ratio=_ratio(parts, standard_params),
        condition=condition,
        product=product,
        groups=tuple(best_groups.items()),
        bound=sympy.Add(*best_parts),
        ratio_at_optimum=_ratio(best_parts, standard_params),
        family=_family(composition, has_bottleneck, kernel),
        notes=tuple(notes),
        remarks=tuple(remarks),
        reference=f"[Fog] section {section}",
    )


def _widths(
    composition: Composition, bottleneck: bool | Fraction, alpha: Fraction | int | None
) -> dict[Any, Any]:
    """Return the values of the widths F and K that are not left open."""
    slope = None if alpha is None else sympy.sympify(ratio_above_zero(alpha, "alpha"))
    ratio = (
        bottleneck if isinstance(bottleneck, bool) else ratio_above_zero(bottleneck, "bottleneck")
    )
    mixes = any(find_kind(kind).mixing for kind in composition.kinds)
    if not mixes:
        return {F: C}
    if slope is None:
        return {}
    inner = {} if isinstance(ratio, bool) else {K: sympy.sympify(ratio) * slope * C}
    return {F: slope * C} | inner


def _product_condition(chain: Any) -> Any:
    fan_ins = (names[w] if row.windowed else row.fan_in for row, names in chain)
    return sympy.Le(C, sympy.Mul(*fan_ins))


def _ratio(parts: list[Any], standard_params: Any) -> Any:
    """Return a sum of parts over CONV, as a sum where the denominators can be products."""
    quotients = [sympy.factor(part) / sympy.factor(standard_params) for part in parts]
    return sympy.Add(
        *(
            quotient if quotient.as_numer_denom()[1].has(sympy.Add) else sympy.expand(quotient)
            for quotient in quotients
        )
    )


def _stationary(params: Any, reached: Any, layers: dict[Any, int]) -> dict[Any, Any]:
    """Return the best real group counts.

    With n layers to a group count and A / g its parameters, A / g = n lambda at the optimum, and
    the product is C: lambda is a product of powers of the A.
    """
    over_groups = {x: sympy.factor(params.coeff(1 / x)) for x in layers}
    total = sum(layers.values())
    at_one_group = reached * sympy.Mul(*(x**n for x, n in layers.items()))
    multiplier = (C / at_one_group) ** sympy.Rational(1, total)
    for x, n in layers.items():
        share = sympy.Rational(n, total)
        multiplier *= over_groups[x] ** share / sympy.Integer(n) ** share
    return {x: over_groups[x] / (n * multiplier) for x, n in layers.items()}


def _family(composition: Composition, bottleneck: bool, kernel: int | None) -> Any:
    """Return the least parameters of n equal fan-ins, if all that mix channels here are alike.

    They are pointwise with groups; one layer beside them is spatial, and the others shuffle.
    """
    rows = [find_kind(kind) for kind in composition.kinds]
    mixing = [row for row in rows if row.mixing]
    spatial = [row for row in rows if row.spatial]
    alike = all(row.windowed and not row.spatial for row in mixing)
    if not mixing or not alike or len(spatial) != 1 or bottleneck or composition.repeats > 1:
        return None
    fixed = Composition((spatial[0].symbol,)).params_formula(kernel=kernel)
    return fixed + N * C ** (1 + 1 / N)


def _notes(
    composition: Composition,
    condition: Any,
    product: Any,
    split_widths: Any,
    best_groups: Any,
) -> Iterator[str]:
    if product is None:
        settled = "a layer reads all C channels: at best the others mix nothing"
        yield settled if best_groups else "no group count is free"
        return
    yield "the least is a bound: full field needs a product of fan-ins of C or more"
    for x, best in best_groups.items():
        most = sympy.Min(*split_widths[x])
        if best == 1:
            yield f"{x} = 1: that layer reads all, as PW or CONV does"
        elif not (_is_power(best) and _is_power(most / best)):
            yield f"the bound is met only if the best {x} has 1 <= {x} <= {most}"


def _condition_note(
    composition: Composition, condition: Any, exact: bool, rpw_order: RpwOrder
) -> str:
    rows = [find_kind(kind) for kind in composition.kinds]
    if any(row.scatters for row in rows):
        return "the condition is necessary; behind a shuffle the exact field decides"
    if not exact:
        choice = "with both orders" if rpw_order == "both" else "of so many layers"
        return f"the condition is necessary: {choice} it is the product alone"
    if condition.has(sympy.ceiling, sympy.floor, sympy.Min):
        return "without a shuffle layers see the same channels: the bound may be out of reach"
    if any(row.takes_overlap for row in rows):
        return f"overlap 0, {s}_i = {w}_i, sees most: the product of the fan-ins"
    return ""


def _is_power(value: Any) -> bool:
    """Return whether the value is a root or a power of a width: then it is never below 1."""
    base, power = value.as_base_exp()
    return base in (C, F, K) and power > 0


def greatest_width(
    composition: Composition,
    bottleneck: Fraction | int | None = None,
    alpha: Fraction | int | None = None,
    kernel: int | None = DEFAULT_KERNEL,
) -> Any:
    """Return the equation of the greatest width C for P parameters, at F = alpha x C.

    `bottleneck` is the ratio K / F. The equation is solved for C where the solution is short: no
    legal block with the full field is wider.

    >>> greatest_width(Composition.parse("DW+PW"), alpha=1)
    Eq(C, sqrt(4*P + 81)/2 - 9/2)
    >>> greatest_width(Composition.parse("GPW+SH+DW+GPW"), Fraction(1, 4), alpha=1)
    Eq(C**(3/2) + 9*C/4, P)

    Raises: SettingError for a ratio that is not an exact number above 0.

    Reference: [Fog] section 3.3.
    """
    for name, value in (("bottleneck", bottleneck), ("alpha", alpha)):
        if value is not None:
            ratio_above_zero(value, name)
    least = analyse(composition, bottleneck is not None, kernel).bound
    slope = ALPHA if alpha is None else sympy.sympify(alpha)
    least = least.subs([(K, sympy.sympify(bottleneck or 1) * F), (F, slope * C)])
    least = sympy.collect(sympy.expand(sympy.powdenest(least)), C)
    terms = [term.as_coeff_exponent(C) for term in sympy.Add.make_args(least)]
    equation = sympy.Eq(least, P, evaluate=False)
    if not all(power.is_Rational and power > 0 for _, power in terms):
        return equation
    # A polynomial in a root x of C; its coefficients are positive: it grows and meets P once.
    x, unit = sympy.Dummy("x", positive=True), lcm(*(power.q for _, power in terms))
    polynomial = sum(factor * x ** (power * unit) for factor, power in terms) - P
    if len(terms) > 1 and sympy.degree(polynomial, x) > 2:
        return equation
    # No solution is ever 0, so its sign is that at any values of its symbols.
    solutions = sympy.solve(polynomial, x)
    (root,) = (y for y in solutions if y.subs(dict.fromkeys(y.free_symbols, 1)) > 0)
    return sympy.Eq(C, sympy.simplify(root**unit), evaluate=False)


def formula_text(value: Any) -> str:
    """Return a formula in SymPy's notation, with = for an equation.

    >>> formula_text(sympy.Eq(C, F, evaluate=False)), formula_text(sympy.true), formula_text(None)
    ('C = F', 'always', '')
    """
    if value is None:
        return ""
    if value == sympy.true:
        return "always"
    return f"{value.lhs} = {value.rhs}" if isinstance(value, sympy.Eq) else str(value)


def width_text(width: Any) -> str:
    """Return the equation of the greatest width, and what to do with one that is not solved.

    >>> width_text(sympy.Eq(C**2 + C, P)), width_text(sympy.Eq(0, P, evaluate=False))
    ('C**2 + C = P, solve for C', 'any: there are no parameters')
    """
    if not width.has(C):
        return "any: there are no parameters"
    return formula_text(width) if width.lhs == C else f"{formula_text(width)}, solve for C"


def symbols(efficiency: Efficiency, width: Any = None) -> dict[str, str]:
    """Return the meaning of each symbol that occurs in the formulas, in the order of first use.

    >>> symbols(analyse(Composition.parse("GC+PW")))["g_1"]
    'groups of layer 1, GC'
    """
    solvable = width if width is not None and width.has(C) else None
    used = {x for _, value in _formulas(efficiency, solvable) for x in value.free_symbols}
    of_block = {
        C: "channels that enter the block",
        F: "channels that leave it",
        K: "channels inside the bottleneck",
        k: "kernel size",
    }
    of_layer = {}
    used_names = {str(x) for x in used}
    number, copies = 0, " of every copy" if efficiency.composition.repeats > 1 else ""
    for layer, kind in enumerate(efficiency.composition.kinds, start=1):
        if not find_kind(kind).takes_groups:
            continue
        number += 1
        names = {f"{x}_{number}": meaning for x, meaning in _OF_A_LAYER.items()}
        names = {name: meaning for name, meaning in names.items() if name in used_names}
        if names:
            what = listed(names.values())
            of_layer[", ".join(names)] = f"{what} of layer {layer}{copies}, {kind}"
    of_analysis = {
        C_in: "channels that enter the layer",
        N: "layers that mix channels",
        ALPHA: "F/C",
        P: "parameters to spend",
    }
    first = {str(x): meaning for x, meaning in of_block.items() if x in used}
    last = {str(x): meaning for x, meaning in of_analysis.items() if x in used}
    return first | of_layer | last


def _formulas(efficiency: Efficiency, width: Any = None) -> list[tuple[str, Any]]:
    always = efficiency.condition == sympy.true
    formulas = [
        ("parameters", efficiency.params),
        (f"ratio to CONV({efficiency.kernel or 'k'})", efficiency.ratio),
        ("full field", efficiency.condition),
        ("fan-in", None if always else sympy.Eq(w, C_in / g)),
        ("hence", efficiency.product),
        *(("best", sympy.Eq(*pair, evaluate=False)) for pair in efficiency.groups),
        ("least parameters", efficiency.bound),
        ("least ratio", efficiency.ratio_at_optimum),
        ("n layers, F = C", efficiency.family),
        ("greatest width", width),
    ]
    return [(name, formula) for name, formula in formulas if formula is not None]


def to_text(efficiency: Efficiency, width: Any = None) -> str:
    """Return an analysis as lines of text; `width` is the equation of the greatest width.

    >>> print(to_text(analyse(Composition.parse("DW+PW"))).splitlines()[2])
    ratio to CONV(3)  1/9 + 1/F
    """
    title = [str(efficiency.composition)]
    title += ["bottleneck K"] * efficiency.bottleneck
    title += [f"{x} = {value}" for x, value in efficiency.widths]
    lines = [(name, formula_text(formula)) for name, formula in _formulas(efficiency)]
    if width is not None:
        lines.append(("greatest width", width_text(width)))
    lines += [("where", f"{x}: {meaning}") for x, meaning in symbols(efficiency, width).items()]
    lines += [("note", note) for note in efficiency.notes]
    lines.append(("source", efficiency.reference))
    text = f"{', '.join(title)}\n" + "".join(f"{name:18}{line}\n" for name, line in lines)
    if not efficiency.remarks:
        return text
    remarks = "".join(f"  {remark}\n" for remark in efficiency.remarks)
    return f"{text}\nremarks on [Fog]'s print\n{remarks}"


def to_latex(efficiency: Efficiency, width: Any = None) -> str:
    r"""Return the formulas of an analysis for LaTeX with amsmath; all other lines are comments.

    >>> print(to_latex(analyse(Composition.parse("DW+RPW"), alpha=1)).splitlines()[1])
    \text{parameters} &: \quad \frac{C^{2}}{g_{1}} + 9 C \\
    """
    rows = []
    for name, value in _formulas(efficiency, width):
        formula = r"\text{always}" if value == sympy.true else sympy.latex(value)
        if name == "greatest width" and value.lhs != C:
            unsolved = ", solve for C" if value.has(C) else ": there are no parameters"
            formula += rf"\text{{{unsolved}}}"
        rows.append(rf"\text{{{name}}} &: \quad {formula}")
    legend = (f"{x}: {meaning}" for x, meaning in symbols(efficiency, width).items())
    comments = (*legend, *efficiency.notes, efficiency.reference, *efficiency.remarks)
    aligned = " \\\\\n".join(rows)
    return f"\\begin{{align*}}\n{aligned}\n\\end{{align*}}\n" + "".join(
        f"% {comment}\n" for comment in comments
    )
