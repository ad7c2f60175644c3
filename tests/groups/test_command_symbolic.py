from collections.abc import Callable

import pytest
import sympy


def test_the_ratio_of_the_widths_stands_in_every_line(run: Callable) -> None:
    arguments = ("groups", "DW+RPW+RPW+RPW", "--symbolic", "--alpha", 1)
    text = run(*arguments).out
    assert text.startswith("DW+RPW+RPW+RPW, F = C\n")
    assert "least parameters  3·C^(4/3) + 9·C\n" in text
    assert "n layers, F = C   9·C + C^(1 + 1/n)·n\n" in text
    assert "greatest width    3·C^(4/3) + 9·C = P, solve for C\n" in text
    values = run(*arguments, "--format", "json").json
    assert values["groups"] == {f"g_{n}": "C**(2/3)" for n in (1, 2, 3)}
    assert values["family"] == "9*C + C**(1 + 1/n)*n"
    assert [key for key in ("params", "ratio", "bound", "widest") if "F" in values[key]] == []
    neck = ("--bottleneck", "1/4", "--alpha", 2, "--format", "json")
    values = run("groups", "PW+DW+PW", "--symbolic", *neck).json
    assert values["params"] == "3*C**2/2 + 9*C/2"  # K = C/2: C K + 9 K + K F


def test_symbols_and_the_condition_are_told_alike(run: Callable) -> None:
    values = run("groups", "GC+SH+GPW", "--symbolic", "--format", "json").json
    assert values["symbols"]["g_3, w_3"] == "groups and fan-in of layer 3, GPW"
    assert values["condition"] == "C <= w_1*w_3"
    values = run("groups", "DW+PW", "--symbolic", "--format", "json").json
    assert values["condition"] == "always"
    assert "full field        always\n" in run("groups", "DW+PW", "--symbolic").out
    latex = run("groups", "DW+RPW+RPW", "--symbolic", "--format", "latex").out
    assert "\\text{greatest width} &: \\quad " in latex


def test_json_is_for_programs_and_the_text_for_readers(run: Callable) -> None:
    values = run("groups", "GC+SH+GPW", "--symbolic", "--format", "json").json
    names = {name: sympy.Symbol(name) for name in ("C", "F", "g_1", "g_3")}
    at = {"C": 64, "F": 64, "g_1": 32, "g_3": 2}
    assert sympy.sympify(values["params"], names).subs(at) == 3200
    assert sympy.sympify(values["bound"], names).subs(at) == 6 * 64 * 8
    for text in values["groups"].values():
        sympy.sympify(text, names)
    assert values["notes"][-len(values["remarks"]) :] == values["remarks"]
    for form in ("table", "markdown"):
        assert "*" not in run("groups", "GC+SH+GPW", "--symbolic", "--format", form).out


DESIGNS = ["DW+PW", "GC+SH+GPW", "PW+DW+PW --bottleneck 1/4", "GPW+SH+DW+GPW --bottleneck 1/4"]


@pytest.mark.parametrize("text", DESIGNS)
def test_what_fog_prints_comes_last_of_its_designs(run: Callable, text: str) -> None:
    lines = run("groups", *text.split(), "--symbolic").out.splitlines()
    place = lines.index("remarks on [Fog]'s print")
    assert lines[place - 2].startswith("source            [Fog] section 3.3.")
    assert lines[place + 1 :]
    assert all(line.startswith("  ") for line in lines[place + 1 :])
    assert "[Fog]" not in "".join(lines[: place - 2])


@pytest.mark.parametrize(
    "text",
    [
        *DESIGNS,
        "DW+RPW+RPW",
        "GC+GPW",
        "GPW+SH+DW+GPW",
        "(GPW+SH+DW+GPW)x3 --bottleneck 1/8",
        "GPW+SH+DW+GPW --bottleneck 1/7 --alpha 3/5",
        "GC+PW",
        "(DW+RPW+RPW)x12",
        "DW+RPW",
    ],
)
def test_a_note_is_a_short_line(run: Callable, text: str) -> None:
    out = run("groups", *text.split(), "--symbolic").out
    notes = [line[18:] for line in out.splitlines() if line.startswith("note ")]
    notes += [line[2:] for line in out.splitlines() if line.startswith("  ")]
    assert notes
    assert [note for note in notes if len(note) > 78] == []
    assert ("remarks on" in out) == (text in DESIGNS or "GPW+SH+DW+GPW --bott" in text)


@pytest.mark.parametrize(
    "text", ["(DW+RPW+RPW)x10", "(DW+RPW+RPW)x12", "(GPW+SH+DW+GPW)x10", "(DW+RPW)x20"]
)
def test_many_copies_have_formulas(run: Callable, text: str) -> None:
    ended = run("groups", text, "--symbolic")
    assert (ended.status, ended.err) == (0, "")
    assert "least parameters" in ended.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["DW+PW", "--kernel", 2], ["--kernel is even"]),
        (["DW+PW", "--kernel", 0], ["--kernel out of range: got 0"]),
        (["DW+PW", "--bottleneck", "1/2"], ["a bottleneck needs two"]),
        (["PW+PW", "--bottleneck", 0], ["--bottleneck out of range: got 0; allowed: ratios"]),
        (["DW+PW", "--alpha", 0], ["--alpha out of range: got 0; allowed: ratios above 0"]),
        (["(DW+RPW)x200"], ["composition too long: got 200 x 2 layers"]),
    ],
)
def test_wrong_input_is_one_line(run: Callable, arguments: list[object], words: list[str]) -> None:
    run("groups", *arguments, "--symbolic").refused(*words)
