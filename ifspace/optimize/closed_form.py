"""Efficiency in closed form: the cheapest group counts as real numbers, and what they bound.

The parameters of a composition are a sum of terms A / g, and an output can see all C channels only
if the product of the fan-ins reaches C. In log g the parameters are convex and the log of the
product is linear: the one stationary point of parameters - lambda * (log(product) - log C) is the
minimum over real groups. SymPy differentiates and solves. Whole groups with the full field are
among the real ones, so the minimum is a lower bound on what any legal choice costs. Shuffle groups
cost nothing and enter no product: they are in no optimum.

Reference: [Fog] section 3.3 and Theorem 1, for four designs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import lcm
from typing import Any, Final

import sympy

from ifspace.block import DEFAULT_KERNEL, Block, Composition, Layer, SizedBlock
from ifspace.block.layer import whole
from ifspace.errors import SettingError
from ifspace.infofield import full_field_condition
from ifspace.kinds import C, C_in, C_out, F, K, U, find_kind, g, s, w

# The ratio F / C and the parameters to spend: symbols of this analysis alone, of no layer.
ALPHA: Final = sympy.Symbol("alpha", positive=True)
P: Final = sympy.Symbol("P", integer=True, positive=True)

# (composition, bottleneck): section of [Fog], remarks on its efficiency and on its greatest width.
# M and N are its first and last group count. "Illegible" is said of the text that could be read.
_FOG: Final = {
    ("DW+PW", False): ("3.3.1",
        "[Fog] agrees; the root of the widest is illegible ('2 alpha + 40 P'): 81 + 4*alpha*P"),
    ("GC+SH+GPW", False): ("3.3.2, Theorem 1",
        "[Fog] Theorem 1, 'if and only if' M*N = C: needed, not enough (C = F = 64: 8 and 8 take "
        "5120, 32 and 2 take 3200); its proof raises N to C/M, which need not divide F: raise M to "
        "C/N. The best N is illegible ('N = 9N'): 9*N = F/N",
        "[Fog], widest, illegible ('(6 sqrt(alpha)) 3'): (P/(6*sqrt(alpha)))**(2/3)"),
    ("PW+DW+PW", True): ("3.3.3",
        "[Fog] agrees, widest at K = F/4 too; the ratio there is illegible: (C + F + 9)/(36*C)"),
    ("GPW+SH+DW+GPW", True): ("3.3.4, Theorem 1",
        "[Fog] is illegible: 'K(M + N + 9)' is K*(C/M + F/N + 9); at M*N = K = F/4 the ratio is "
        "(C/M + 4*M + 9)/(36*C), best at C/M = 4*M ('M = 4M'). For other K the divisors may not "
        "allow M*N = K (C = 10, K = 8, F = 10)",
        "[Fog], widest, agrees at K = F/4: P >= alpha*C*(9 + 4*sqrt(C))/4, equal at alpha*M = N"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What a composition costs, and the least it can cost with the full field, in symbols.

    `ratio` is over CONV(k), r of them for r copies. `condition` is the full-field condition in
    fan-ins w_i and steps s_i, `product` what it asks of group counts at least (None: nothing).
    `groups` holds (g_i, real optimum), `bound` the parameters there, never above a legal choice's.
    """

    composition: Composition
    bottleneck: bool
    kernel: int | None
    params: Any
    ratio: Any
    condition: Any
    product: Any
    groups: tuple[tuple[Any, Any], ...]
    bound: Any
    ratio_at_optimum: Any
    notes: tuple[str, ...]
    reference: str


def analyse(
    composition: Composition, bottleneck: bool = False, kernel: int | None = DEFAULT_KERNEL,
    equal_widths: bool = False,
) -> Efficiency:  # fmt: skip
    """Return parameters, full-field condition and continuous optimum of a composition.

    Widths are C in, F out (C with `equal_widths`), K in a bottleneck; `kernel=None` keeps k.

    >>> efficiency = analyse(Composition.parse("GC+SH+GPW"))
    >>> efficiency.groups, efficiency.bound, efficiency.product
    (((g_1, 3*C/sqrt(F)), (g_3, sqrt(F)/3)), 6*C*sqrt(F), g_1*g_3 <= C)

    Raises: BlockError for an even kernel, or a bottleneck without two channel-mixing layers.

    Reference: [Fog] section 3.3.
    """
    Layer("DW", kernel=kernel)  # refuses a kernel that no layer can have
    chain = composition.chain(bottleneck)
    out = F if any(row.mixing for row, _ in chain) and not equal_widths else C
    chain = tuple((row, {x: out if y == F else y for x, y in to.items()}) for row, to in chain)
    conv = Composition(("CONV",), composition.repeats).params_formula(kernel=kernel)
    conv, params = (each.xreplace({F: out})
                    for each in (conv, composition.params_formula(bottleneck, kernel)))  # fmt: skip
    fan_ins = [row.fan_in.xreplace(names) for row, names in chain]
    splits: dict[Any, list[Any]] = {}  # group count -> the widths that it splits, in all copies
    for row, names in chain:
        if row.fan_in == C_in / g:
            splits.setdefault(names[g], []).extend((names[C_in], names[C_out]))
    condition, product, groups = full_field_condition(composition, bottleneck), None, {}
    if C in fan_ins:
        # Nothing is left to reach: each group more is cheaper, up to the edge of the legal range.
        condition = sympy.true
        groups = {x: sympy.Min(*widths) for x, widths in splits.items()}
    elif splits:
        product = sympy.Le(*(C / sympy.Mul(*fan_ins)).as_numer_denom())
        groups = _stationary(params, sympy.Mul(*fan_ins), tuple(splits))
    terms = sympy.Add.make_args(sympy.collect(params, [1 / x for x in groups]))
    bound = sympy.Add(*(sympy.simplify(term.xreplace(groups)) for term in terms))
    ratio, least_ratio = (sympy.Add(*(term / conv for term in sympy.Add.make_args(total)))
                          for total in (params, bound))  # fmt: skip
    section, *remarks = _FOG.get((str(composition), bottleneck), ("3.3",))
    notes = [*_notes(composition, condition, product, splits, groups), *remarks]
    return Efficiency(
        composition, bottleneck, kernel, params, ratio, condition, product, tuple(groups.items()),
        bound, least_ratio, tuple(notes), f"[Fog] section {section}",
    )  # fmt: skip


def _stationary(params: Any, reached: Any, free: tuple[Any, ...]) -> dict[Any, Any]:
    multiplier = sympy.Dummy("lambda", positive=True)
    # Group counts are whole numbers elsewhere; here they are real, or SymPy may drop a root.
    real = {x: sympy.Dummy(str(x), positive=True) for x in free}
    reached = reached.xreplace(real)
    lagrangian = params.xreplace(real) - multiplier * (sympy.log(reached) - sympy.log(C))
    best = {x: sympy.solve(sympy.diff(lagrangian, x), x)[0] for x in real.values()}
    (level,) = sympy.solve(sympy.Eq(reached.xreplace(best), C), multiplier)
    return {x: sympy.simplify(best[y].xreplace({multiplier: level})) for x, y in real.items()}


def _notes(
    composition: Composition, condition: Any, product: Any, splits: Any, groups: Any
) -> Iterator[str]:
    if product is None:
        settled = "a layer reads all C channels: at best the others mix nothing"
        yield settled if groups else "no group count is free"
        return
    yield "the least is a bound: full field needs a product of fan-ins of C or more"
    for x, best in groups.items():
        legal = f"1 <= {best} <= {sympy.Min(*splits[x])}"
        outside = f"{x} leaves its legal range, and the bound is not met, unless {legal}"
        yield f"{x} = 1: that layer reads all, as PW or CONV does" if best == 1 else outside
    rows = [find_kind(kind) for kind in composition.kinds]
    if any(row.coverage.func != U for row in rows):
        yield "the condition is necessary; behind a shuffle the exact field decides"
    elif condition.has(sympy.ceiling, sympy.Min):
        yield "without a shuffle layers look at the same channels: the bound may be out of reach"
    elif any(row.takes_overlap for row in rows):
        yield f"overlap 0, {s}_i = {w}_i, sees most: the product of the fan-ins"


def widest(
    composition: Composition, bottleneck_ratio: Fraction | int | None = None,
    alpha: Fraction | int | None = None, kernel: int | None = DEFAULT_KERNEL,
) -> Any:  # fmt: skip
    """Return the equation of the greatest width C for P parameters at F = alpha C and K = ratio F.

    It is solved for C where that is short: no legal block of full field is wider.
    >>> widest(Composition.parse("DW+PW"), alpha=1)
    Eq(C, sqrt(4*P + 81)/2 - 9/2)
    >>> widest(Composition.parse("GPW+SH+DW+GPW"), Fraction(1, 4), alpha=1)
    Eq(C**(3/2) + 9*C/4, P)

    Raises: SettingError for a ratio that is no exact number above 0.

    Reference: [Fog] section 3.3.
    """
    for name, value in (("bottleneck ratio", bottleneck_ratio), ("alpha", alpha)):
        if value is not None and not (isinstance(value, Fraction | int) and value > 0):
            raise SettingError.because(
                f"{name} out of range", got=repr(value), allowed="above 0", remedy="use a Fraction"
            )
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


def equal_fan_in(layers: int, kernel: int | None = DEFAULT_KERNEL) -> Efficiency:
    """Return the efficiency of DW and n rolling layers at F = C, where equal fan-ins are best.

    >>> equal_fan_in(3).groups[0], equal_fan_in(3).bound
    ((g_1, C**(2/3)), 3*C**(4/3) + 9*C)

    Raises: BlockError unless there is a layer.

    Reference: [Fog] section 3.3, carried on to n layers.
    """
    kinds = ("DW", *["RPW"] * whole(layers, "layers"))
    return analyse(Composition(kinds), kernel=kernel, equal_widths=True)


def best_layer_counts(channels: int, kernel: int = DEFAULT_KERNEL) -> tuple[SizedBlock, ...]:
    """Return the cheapest DW + n RPW at C = F for each n, fewest parameters first, then fewest n.

    Without overlap the field is the product of the fan-ins: n divisors of least sum, product >= C.
    >>> [(len(each.layers) - 1, each.params) for each in best_layer_counts(64)]
    [(3, 1344), (4, 1344), (5, 1344), (6, 1344), (2, 1600), (1, 4672)]

    Raises: BlockError for a width below 2 or an even kernel.

    Reference: [3DRF] section 4.2.
    """
    whole(channels, "channels", least=2)
    divisors = [width for width in range(2, channels // 2 + 1) if channels % width == 0]

    @cache
    def cheapest(layers: int, need: int) -> list[int] | None:
        if layers == 0:
            return [] if need == 1 else None
        rests = ((width, cheapest(layers - 1, -(-need // width))) for width in divisors)
        widths = [[width, *rest] for width, rest in rests if rest is not None]
        return min(widths, key=lambda each: (sum(each), each), default=None)

    spatial, found = Layer("DW", kernel=kernel), [[Layer("PW")]]
    for n in range(2, (channels - 1).bit_length() + 1):
        found.append([Layer("RPW", channels // width) for width in cheapest(n, channels) or ()])
    blocks = [Block((spatial, *layers)).at(channels) for layers in found if layers]
    return tuple(sorted(blocks, key=lambda sized: (sized.params, len(sized.layers))))


def _lines(efficiency: Efficiency) -> list[tuple[str, Any]]:
    always = efficiency.condition == sympy.true
    lines = [
        ("parameters", efficiency.params),
        (f"ratio to CONV({efficiency.kernel or 'k'})", efficiency.ratio),
        ("full field", "always" if always else efficiency.condition),
        ("fan-in", None if always else sympy.Eq(w, C_in / g)),
        ("hence", efficiency.product),
        *(("best", sympy.Eq(*pair, evaluate=False)) for pair in efficiency.groups),
        ("least parameters", efficiency.bound),
        ("least ratio", efficiency.ratio_at_optimum),
    ]
    return [line for line in lines if line[1] is not None]


def to_text(efficiency: Efficiency) -> str:
    """Return an analysis as lines of text, its formulas as SymPy writes and reads them.

    >>> print(to_text(analyse(Composition.parse("DW+PW"))).splitlines()[2])
    ratio to CONV(3)  1/9 + 1/F
    """
    notes = [("note", note) for note in efficiency.notes]
    text = f"{efficiency.composition}{', bottleneck K' if efficiency.bottleneck else ''}\n"
    for name, value in (*_lines(efficiency), *notes, ("source", efficiency.reference)):
        said = f"{value.lhs} = {value.rhs}" if isinstance(value, sympy.Eq) else value
        text += f"{name:18}{said}\n"
    return text


def to_latex(efficiency: Efficiency) -> str:
    r"""Return the formulas of an analysis for LaTeX with amsmath; its notes are comments.

    >>> print(to_latex(equal_fan_in(1)).splitlines()[1])
    \text{parameters} &: \quad \frac{C^{2}}{g_{1}} + 9 C \\
    """
    rows = []
    for name, value in _lines(efficiency):
        formula = rf"\text{{{value}}}" if isinstance(value, str) else sympy.latex(value)
        rows.append(rf"\text{{{name}}} &: \quad {formula}")
    notes = "".join(f"% {note}\n" for note in (*efficiency.notes, efficiency.reference))
    return "\\begin{align*}\n" + " \\\\\n".join(rows) + "\n\\end{align*}\n" + notes
