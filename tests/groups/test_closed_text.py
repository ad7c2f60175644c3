from fractions import Fraction

import pytest
import sympy

from ifspace.block import Composition
from ifspace.groups.symbolic import (
    REMARKS,
    Efficiency,
    P,
    analyse,
    notes,
    symbols,
    to_latex,
    to_text,
    widest,
)


def found(text: str, neck: bool | Fraction = False, kernel: int | None = 3) -> Efficiency:
    return analyse(Composition.parse(text), neck, kernel)


def lines(text: str, name: str) -> list[str]:
    """What stands behind a name in the lines of a text."""
    return [line[18:] for line in text.splitlines() if line[:18].rstrip() == name]


def test_text() -> None:
    said = to_text(found("GC+SH+GPW")).splitlines()
    assert said[0] == "GC+SH+GPW"
    assert [line[18:] for line in said[1:10]] == [
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
    place = said.index("source            [Fog] section 3.3.2, Theorem 1")
    assert said[place + 1 : place + 3] == ["", "remarks on [Fog]'s print"]
    assert said[-1].startswith("  the greatest width, read ")
    assert "CONV(k)" in to_text(found("DW+PW", kernel=None))
    assert lines(to_text(found("DW+PW")), "full field") == ["always"]


def test_a_width_that_is_not_solved_says_so() -> None:
    word = Composition.parse("DW+RPW+RPW")
    text = to_text(analyse(word), widest(word, alpha=1))
    assert lines(text, "greatest width") == ["2*C**(3/2) + 9*C = P, solve for C"]
    word = Composition.parse("DW+PW")
    text = to_text(analyse(word), widest(word, alpha=1))
    assert lines(text, "greatest width") == ["C = sqrt(4*P + 81)/2 - 9/2"]
    word = Composition.parse("SH")
    assert "any: there are no parameters" in to_text(analyse(word), widest(word))


def test_widths_that_are_put_in_stand_in_the_title() -> None:
    word = Composition.parse("GPW+SH+DW+GPW")
    text = to_text(analyse(word, Fraction(1, 4), alpha=2))
    assert text.startswith("GPW+SH+DW+GPW, bottleneck K, F = 2*C, K = C/2\n")
    assert "the greatest width has K = F/4" in to_text(analyse(word, Fraction(1, 4)))


def test_every_symbol_has_its_meaning_and_no_other() -> None:
    for text in ("GC+SH+GPW", "DW+RPW+SH+GPW", "(DW+RPW)x2", "PW+DW", "RPW+DW+RPW+RPW"):
        efficiency = found(text, kernel=None)
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
    known = symbols(found("GC+SH+GPW"))
    assert known["g_3, w_3"] == "groups and fan-in of layer 3, GPW"
    known = symbols(found("DW+RPW+SH+GPW"))
    # The first layer that takes groups is the second of all.
    assert known["g_1, w_1"] == "groups and fan-in of layer 2, RPW"
    assert known["g_3, w_3"] == "groups and fan-in of layer 4, GPW"
    assert "of layer 2 of every copy, RPW" in symbols(found("(DW+RPW)x2"))["g_1, w_1, s_1"]


def test_remarks_are_one_sentence_each() -> None:
    for (text, neck), (_, *remarks) in REMARKS.items():
        efficiency = found(text, neck)
        assert notes(efficiency)[1] == tuple(remarks)
        assert not set(notes(efficiency)[0]) & set(remarks)
        assert [note for note in efficiency.notes if note in remarks] == remarks
        assert not [note for note in remarks if ". " in note or "; " in note or len(note) > 78]


def test_the_numbers_of_the_remarks_are_right() -> None:
    params = found("GC+SH+GPW").params
    at = [{"g_1": 8, "g_3": 8}, {"g_1": 32, "g_3": 2}]
    values = [
        params.subs({x: {"C": 64, "F": 64, **groups}[str(x)] for x in params.free_symbols})
        for groups in at
    ]
    assert values == [5120, 3200]
    # (P/(6*sqrt(alpha)))**(2/3) at alpha = 4: 12 C**(3/2) parameters for C = 81.
    equation = widest(Composition.parse("GC+SH+GPW"), alpha=4)
    assert sympy.simplify(equation.rhs.subs(P, 12 * 9**3)) == 81
    assert sympy.Rational(12 * 9**3, 6 * 2) ** sympy.Rational(2, 3) == 81


@pytest.mark.parametrize("text", ["GC+SH+GPW", "DW+RPW+RPW", "DW+PW", "SH"])
def test_latex_is_balanced(text: str) -> None:
    word = Composition.parse(text)
    latex = to_latex(analyse(word), widest(word, alpha=1))
    assert latex.count("{") == latex.count("}")
    assert latex.startswith("\\begin{align*}\n\\text{parameters} &: \\quad ")
    body = latex.partition("\\end{align*}")[0]
    assert body.count("&: ") == body.count("\\\\\n") + 1
    assert "\n\\text{greatest width} &: \\quad " in body


def test_latex() -> None:
    word = Composition.parse("GC+SH+GPW")
    assert "\\text{least parameters} &: \\quad 6 C \\sqrt{F}" in to_latex(analyse(word))
    word = Composition.parse("DW+RPW+RPW")
    latex = to_latex(analyse(word), widest(word))
    assert "= P\\text{, solve for C}\n" in latex
    assert "% g_2, w_2: groups and fan-in of layer 3, RPW\n" in latex
    assert "\\text{full field} &: \\quad \\text{always}" in to_latex(found("DW+PW"))
