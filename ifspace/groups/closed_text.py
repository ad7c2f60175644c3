"""An analysis in symbols as text and as LaTeX, with what every symbol means."""

from typing import Any, Final

import sympy

from ifspace.groups.closed_form import (
    ALPHA,
    Efficiency,
    N,
    P,
)
from ifspace.groups.fog import REMARKS
from ifspace.kinds import C, C_in, F, K, find_kind, g, k, s, w
from ifspace.values import listed

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
    >>> from ifspace.groups.closed_form import analyse
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
    >>> from ifspace.groups.closed_form import analyse
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
    >>> from ifspace.groups.closed_form import analyse
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
    >>> from ifspace.groups.closed_form import analyse
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
