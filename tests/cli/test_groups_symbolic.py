from collections.abc import Callable

import pytest


def test_the_ratio_of_the_widths_stands_in_every_line(run: Callable) -> None:
    arguments = ("groups", "DW+RPW+RPW+RPW", "--symbolic", "--alpha", 1)
    text = run(*arguments).out
    assert text.startswith("DW+RPW+RPW+RPW, F = C\n")
    assert "least parameters  3*C**(4/3) + 9*C\n" in text
    assert "n layers, F = C   9*C + C**(1 + 1/n)*n\n" in text
    assert "greatest width    3*C**(4/3) + 9*C = P, solve for C\n" in text
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
