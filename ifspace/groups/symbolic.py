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

from ifspace.block import DEFAULT_KERNEL, Composition, check_length
from ifspace.groups.problem import (
    MAX_KERNEL,
    ratio_above_zero,
)
from ifspace.infofield import full_field_condition
from ifspace.kinds import C, C_in, C_out, F, K, find_kind, g, k, reference_kind, s, w
from ifspace.values import listed, odd_number

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


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What a composition costs, and the least it can cost with the full field, in symbols.

    `ratio` is over CONV(k), r of them for r copies. `condition` is the full-field condition in
    fan-ins w_i and steps s_i, `product` what it asks of group counts at least (None: nothing).
    `groups` holds (g_i, real optimum), `bound` the parameters there, never above a legal choice's.
    `widths` are the widths put in for F and K. `family` is the bound at F = C of n layers in place
    of those that mix channels here (None: they are not all alike).
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
    reference: str


def analyse(
    composition: Composition,
    bottleneck: bool | Fraction = False,
    kernel: int | None = DEFAULT_KERNEL,
    alpha: Fraction | int | None = None,
) -> Efficiency:
    """Return parameters, full-field condition and continuous optimum of a composition.

    Widths are C in, F out, K in a bottleneck. With `alpha` F is alpha x C, and a bottleneck that is
    a ratio makes K = ratio x F then. `kernel=None` keeps k.

    >>> efficiency = analyse(Composition.parse("GC+SH+GPW"))
    >>> efficiency.groups, efficiency.bound, efficiency.product
    (((g_1, 3*C/sqrt(F)), (g_3, sqrt(F)/3)), 6*C*sqrt(F), g_1*g_3 <= C)
    >>> analyse(Composition.parse("GC+SH+GPW"), alpha=1).bound
    6*C**(3/2)

    Raises: SettingError for an even or too large kernel, ratios that are not above 0 and too long a
        composition; BlockError for a bottleneck without two channel-mixing layers.

    Reference: [Fog] section 3.3.
    """
    if kernel is not None:
        odd_number(kernel, "kernel", 1, MAX_KERNEL)
    check_length(composition)
    neck = bottleneck is not False
    put = _widths(composition, bottleneck, alpha)
    chain = tuple(
        (row, {x: y.xreplace(put) for x, y in to.items()}) for row, to in composition.chain(neck)
    )
    standard = Composition((reference_kind().symbol,), composition.repeats)
    conv, params = (
        each.xreplace(put)
        for each in (
            standard.params_formula(kernel=kernel),
            composition.params_formula(neck, kernel),
        )
    )
    fan_ins = [row.fan_in.xreplace(names) for row, names in chain]
    splits: dict[Any, list[Any]] = {}  # group count -> the widths that it splits, in all copies
    for row, names in chain:
        if row.windowed:
            splits.setdefault(names[g], []).extend((names[C_in], names[C_out]))
    nested = len(fan_ins) <= MOST_NESTED or not splits
    condition = full_field_condition(composition, neck) if nested else _product_condition(chain)
    condition, product, groups = condition.xreplace(put), None, {}
    if C in fan_ins:
        # Nothing is left to reach: each group more is cheaper, up to the edge of the legal range.
        condition = sympy.true
        groups = {x: sympy.Min(*widths) for x, widths in splits.items()}
    elif splits:
        reached = sympy.Mul(*fan_ins)
        product = sympy.Le(*(C / reached).as_numer_denom())
        groups = _stationary(params, reached, {x: len(splits[x]) // 2 for x in splits})
    dear = {x: sympy.factor(params.coeff(1 / x)) for x in splits}
    free = sympy.Add(*(term for term in sympy.Add.make_args(params) if not term.has(*splits)))
    # At the optimum those with groups are alike, and become one part.
    best_parts = [free, sympy.Add(*(dear[x] / best for x, best in groups.items()))]
    parts = [free, *(dear[x] / x for x in splits)]
    section, *remarks = REMARKS.get((str(composition), neck), ("3.3",))
    if isinstance(bottleneck, Fraction) and alpha is None:
        remarks = [f"the greatest width has K = {sympy.sympify(bottleneck) * F}", *remarks]
    notes = [*_notes(composition, condition, product, splits, groups, nested), *remarks]
    return Efficiency(
        composition,
        neck,
        kernel,
        tuple(put.items()),
        params,
        _over(parts, conv),
        condition,
        product,
        tuple(groups.items()),
        sympy.Add(*best_parts),
        _over(best_parts, conv),
        _family(composition, neck, kernel),
        tuple(notes),
        f"[Fog] section {section}",
    )


def _widths(
    composition: Composition, bottleneck: bool | Fraction, alpha: Fraction | int | None
) -> dict[Any, Any]:
    """Return what is put in for the widths F and K."""
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


def _over(parts: list[Any], conv: Any) -> Any:
    """Return the parts of a sum over CONV, as a sum where the denominators can be products."""
    quotients = [sympy.factor(part) / sympy.factor(conv) for part in parts]
    return sympy.Add(
        *(
            each if each.as_numer_denom()[1].has(sympy.Add) else sympy.expand(each)
            for each in quotients
        )
    )


def _stationary(params: Any, reached: Any, layers: dict[Any, int]) -> dict[Any, Any]:
    """Return the best real group counts.

    With n layers to a group count and A / g its parameters, A / g = n lambda at the optimum, and
    the product is C: lambda is a product of powers of the A.
    """
    dear = {x: sympy.factor(params.coeff(1 / x)) for x in layers}
    total = sum(layers.values())
    at_one_group = reached * sympy.Mul(*(x**n for x, n in layers.items()))
    level = (C / at_one_group) ** sympy.Rational(1, total)
    for x, n in layers.items():
        share = sympy.Rational(n, total)
        level *= dear[x] ** share / sympy.Integer(n) ** share
    return {x: dear[x] / (n * level) for x, n in layers.items()}


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
    composition: Composition, condition: Any, product: Any, splits: Any, groups: Any, nested: bool
) -> Iterator[str]:
    if product is None:
        settled = "a layer reads all C channels: at best the others mix nothing"
        yield settled if groups else "no group count is free"
        return
    yield "the least is a bound: full field needs a product of fan-ins of C or more"
    for x, best in groups.items():
        most = sympy.Min(*splits[x])
        if best == 1:
            yield f"{x} = 1: that layer reads all, as PW or CONV does"
        elif not (_is_power(best) and _is_power(most / best)):
            legal = f"1 <= {best} <= {most}"
            yield f"{x} leaves its legal range, and the bound is not met, unless {legal}"
    rows = [find_kind(kind) for kind in composition.kinds]
    if any(row.scatters for row in rows):
        yield "the condition is necessary; behind a shuffle the exact field decides"
    elif not nested:
        yield "the condition is necessary: for so many layers it is that of the product alone"
    elif condition.has(sympy.ceiling, sympy.Min):
        yield "without a shuffle layers look at the same channels: the bound may be out of reach"
    elif any(row.takes_overlap for row in rows):
        yield f"overlap 0, {s}_i = {w}_i, sees most: the product of the fan-ins"


def _is_power(value: Any) -> bool:
    """Return whether it is a root or a power of a width: then it is never below 1."""
    base, power = value.as_base_exp()
    return base in (C, F, K) and power > 0


def widest(
    composition: Composition,
    bottleneck_ratio: Fraction | int | None = None,
    alpha: Fraction | int | None = None,
    kernel: int | None = DEFAULT_KERNEL,
) -> Any:
    """Return the equation of the greatest width C for P parameters at F = alpha C and K = ratio F.

    It is solved for C where that is short: no legal block of full field is wider.
    >>> widest(Composition.parse("DW+PW"), alpha=1)
    Eq(C, sqrt(4*P + 81)/2 - 9/2)
    >>> widest(Composition.parse("GPW+SH+DW+GPW"), Fraction(1, 4), alpha=1)
    Eq(C**(3/2) + 9*C/4, P)

    Raises: SettingError for a ratio that is no exact number above 0.

    Reference: [Fog] section 3.3.
    """
    for name, value in (("bottleneck", bottleneck_ratio), ("alpha", alpha)):
        if value is not None:
            ratio_above_zero(value, name)
    least = analyse(composition, bottleneck_ratio is not None, kernel).bound
    slope = ALPHA if alpha is None else sympy.sympify(alpha)
    least = least.subs([(K, sympy.sympify(bottleneck_ratio or 1) * F), (F, slope * C)])
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
    found = [(y, y.subs(dict.fromkeys(y.free_symbols, 1))) for y in sympy.solve(polynomial, x)]
    (root,) = (root for root, at_one in found if at_one > 0)
    return sympy.Eq(C, sympy.simplify(root**unit), evaluate=False)


_OF_A_LAYER: Final = {g: "groups", w: "fan-in", s: "step"}
# What an analysis says at length, and how a line says it.
_SHORTER: Final = (
    ("without a shuffle layers look at", "without a shuffle layers see"),
    (": for so many layers it is that of", ": of so many layers it is"),
)


def said(value: Any) -> str:
    """Return a formula as SymPy writes and reads it, with = for an equation.

    >>> said(sympy.Eq(C, F, evaluate=False)), said(sympy.true), said(None)
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
    return said(width) if width.lhs == C else f"{said(width)}, solve for C"


def symbols(efficiency: Efficiency, width: Any = None) -> dict[str, str]:
    """Return what each symbol means that occurs in the formulas, in the order of a reader.

    >>> from ifspace.block import Composition
    >>> from ifspace.groups.symbolic import analyse
    >>> symbols(analyse(Composition.parse("GC+PW")))["g_1"]
    'groups of layer 1, GC'
    """
    solvable = width if width is not None and width.has(C) else None
    used = {x for _, value in _lines(efficiency, solvable) for x in value.free_symbols}
    known = {
        C: "channels that enter the block",
        F: "channels that leave it",
        K: "channels inside the bottleneck",
        k: "kernel size",
    }
    meanings = {str(x): meaning for x, meaning in known.items() if x in used}
    number, copies = 0, " of every copy" if efficiency.composition.repeats > 1 else ""
    for place, kind in enumerate(efficiency.composition.kinds, start=1):
        number += (takes_groups := find_kind(kind).takes_groups)
        own = {f"{x}_{number}": name for x, name in _OF_A_LAYER.items()}
        own = {x: name for x, name in own.items() if x in map(str, used)} if takes_groups else {}
        if own:
            meanings[", ".join(own)] = f"{listed(own.values())} of layer {place}{copies}, {kind}"
    last = {
        C_in: "channels that enter the layer",
        N: "layers that mix channels",
        ALPHA: "F/C",
        P: "parameters to spend",
    }
    return meanings | {str(x): meaning for x, meaning in last.items() if x in used}


def _lines(efficiency: Efficiency, width: Any = None) -> list[tuple[str, Any]]:
    always = efficiency.condition == sympy.true
    lines = [
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
    return [line for line in lines if line[1] is not None]


def notes(efficiency: Efficiency) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the notes of an analysis, a short line each, and the remarks on [Fog]'s print.

    >>> from ifspace.block import Composition
    >>> from ifspace.groups.symbolic import analyse
    >>> notes(analyse(Composition.parse("GC+SH+GPW")))[0][1]
    'the bound is met only if the best g_1 has 1 <= g_1 <= C'
    """
    name = (str(efficiency.composition), efficiency.bottleneck)
    remarks = REMARKS.get(name, ("",))[1:]
    lines = (note for note in efficiency.notes if note not in remarks)
    return tuple(_shorter(note, efficiency) for note in lines), remarks


def _shorter(note: str, efficiency: Efficiency) -> str:
    for x, best in efficiency.groups:
        # The optimum stands in its own line, and can be as long as that.
        head, found, most = note.partition(f" unless 1 <= {best} <= ")
        if found and head.startswith(f"{x} "):
            return f"the bound is met only if the best {x} has 1 <= {x} <= {most}"
    for long, short in _SHORTER:
        note = note.replace(long, short)
    return note


def to_text(efficiency: Efficiency, width: Any = None) -> str:
    """Return an analysis as lines of text; `width` is the equation of the greatest width.

    >>> from ifspace.block import Composition
    >>> from ifspace.groups.symbolic import analyse
    >>> print(to_text(analyse(Composition.parse("DW+PW"))).splitlines()[2])
    ratio to CONV(3)  1/9 + 1/F
    """
    parts = [str(efficiency.composition)]
    parts += ["bottleneck K"] * efficiency.bottleneck
    parts += [f"{x} = {value}" for x, value in efficiency.widths]
    lines = [(name, said(value)) for name, value in _lines(efficiency)]
    if width is not None:
        lines.append(("greatest width", width_text(width)))
    lines += [("where", f"{x}: {meaning}") for x, meaning in symbols(efficiency, width).items()]
    short, remarks = notes(efficiency)
    lines += [("note", note) for note in short]
    lines.append(("source", efficiency.reference))
    text = f"{', '.join(parts)}\n" + "".join(f"{name:18}{text}\n" for name, text in lines)
    if not remarks:
        return text
    return f"{text}\nremarks on [Fog]'s print\n" + "".join(f"  {each}\n" for each in remarks)


def to_latex(efficiency: Efficiency, width: Any = None) -> str:
    r"""Return the formulas of an analysis for LaTeX with amsmath; what else is said are comments.

    >>> from ifspace.block import Composition
    >>> from ifspace.groups.symbolic import analyse
    >>> print(to_latex(analyse(Composition.parse("DW+RPW"), alpha=1)).splitlines()[1])
    \text{parameters} &: \quad \frac{C^{2}}{g_{1}} + 9 C \\
    """
    rows = []
    for name, value in _lines(efficiency, width):
        formula = r"\text{always}" if value == sympy.true else sympy.latex(value)
        if name == "greatest width" and value.lhs != C:
            open_ = ", solve for C" if value.has(C) else ": there are no parameters"
            formula += rf"\text{{{open_}}}"
        rows.append(rf"\text{{{name}}} &: \quad {formula}")
    legend = (f"{x}: {meaning}" for x, meaning in symbols(efficiency, width).items())
    short, remarks = notes(efficiency)
    comments = (*legend, *short, efficiency.reference, *remarks)
    said_too = "".join(f"% {comment}\n" for comment in comments)
    return "\\begin{align*}\n" + " \\\\\n".join(rows) + "\n\\end{align*}\n" + said_too
