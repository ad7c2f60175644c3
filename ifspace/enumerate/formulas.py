"""Formulas of a composition as text, put together from its kinds without computer algebra.

A catalogue has thousands of rows and SymPy builds some hundred expressions a second, so the
expression of a kind between two widths is printed once and the texts are joined. Read back by
SymPy they equal `Composition.params_formula` and `infofield.full_field_condition`.
"""

import re
from collections.abc import Iterator
from functools import cache

import sympy

from ifspace.block import Composition, place_widths
from ifspace.infofield import layer_coverage
from ifspace.kinds import C, C_in, C_out, ConvKind, F, K, d, find_kind, g, k, s, w

# Stand-ins for the numbered symbols of a layer and for the count of outputs.
_NAMES = {each: sympy.Symbol(f"{each}_N", integer=True, positive=True) for each in (g, w, s)}
_COUNT = sympy.Symbol("COUNT", integer=True, positive=True)
_WIDTHS = {"C": C, "F": F, "K": K}

# A row of the table, its widths as text, and the number that its symbols carry.
_Layer = tuple[ConvKind, str, str, int]


def _chain(composition: Composition, bottleneck: bool) -> Iterator[_Layer]:
    rows = [find_kind(kind) for kind in composition.kinds]
    mixing = [row.mixing for row in rows]
    out = "F" if any(mixing) else "C"
    for copy in range(composition.repeats):
        number = 0
        widths = place_widths(mixing, out if copy else "C", out, "K" if bottleneck else None)
        for row, (c_in, c_out) in zip(rows, widths, strict=True):
            number += row.takes_groups
            yield row, c_in, c_out, number


def params_text(composition: Composition, bottleneck: bool, kernel: int, dims: int) -> str:
    """Return the number of parameters in the symbols C, F, K and g_i.

    >>> params_text(Composition.parse("DW+RPW+PW"), False, 3, 2)
    '9*C + C**2/g_1 + C*F'
    """
    terms: dict[str, int] = {}
    for row, c_in, c_out, number in _chain(composition, bottleneck):
        term = _params(row, c_in, c_out, kernel, dims).replace("_N", f"_{number}")
        if term != "0":
            terms[term] = terms.get(term, 0) + 1
    return " + ".join(f"{n}*{term}" if n > 1 else term for term, n in terms.items()) or "0"


def condition_text(composition: Composition, bottleneck: bool) -> str:
    """Return the full-field condition; "always" where every choice meets it.

    As `infofield.full_field_condition`: with a shuffle only the necessary half, the product of the
    fan-ins, and with a repeated block the condition of all its copies in a row.

    >>> condition_text(Composition.parse("DW+RPW+RPW"), False)
    'C <= s_1*(w_2 - 1) + w_1'
    >>> condition_text(Composition.parse("GC+SH+GPW"), False)
    'C <= w_1*w_3'
    """
    chain = list(_chain(composition, bottleneck))
    if not bottleneck:
        chain = [(row, "C", "C", number) for row, _, _, number in chain]
    if any(row.scatters for row, *_ in chain):
        fan_ins = [_fan_in(row, c_in).replace("_N", f"_{n}") for row, c_in, _, n in chain]
        if "C" in fan_ins:
            return "always"
        return "C <= " + ("*".join(text for text in fan_ins if text != "1") or "1")
    count = "1"
    for row, c_in, c_out, number in reversed(chain):
        sort = "one" if count == "1" else "all" if count == c_out else "some"
        inner = count if re.fullmatch(r"\w+", count) else f"({count})"
        text = _counted(row, c_in, c_out, sort).replace("_N", f"_{number}")
        count = count if text == "COUNT" else text.replace("COUNT", inner)
    return "always" if count == "C" else f"C <= {count}"


@cache
def _params(row: ConvKind, c_in: str, c_out: str, kernel: int, dims: int) -> str:
    widths = {C_in: _WIDTHS[c_in], C_out: _WIDTHS[c_out]}
    sizes = {k: sympy.Integer(kernel), d: sympy.Integer(dims)}
    return str(row.params.xreplace(widths | sizes | _NAMES))


@cache
def _fan_in(row: ConvKind, c_in: str) -> str:
    names = _NAMES | {C_in: _WIDTHS[c_in]}
    return str(names[w] if row.windowed else row.fan_in.xreplace(names))


@cache
def _counted(row: ConvKind, c_in: str, c_out: str, sort: str) -> str:
    count = {"one": sympy.Integer(1), "all": _WIDTHS[c_out], "some": _COUNT}[sort]
    names = _NAMES | {C_in: _WIDTHS[c_in], C_out: _WIDTHS[c_out]}
    # A minimum with C may go: every layer sees at least as many channels as are asked for.
    return str(layer_coverage((row, names), count, uncapped=c_in == "C").args[0])
