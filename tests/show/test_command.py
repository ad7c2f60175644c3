import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ifspace import table as tables
from ifspace.kinds import KINDS
from ifspace.nn import build
from ifspace.show import drawing

BLOCK = "DW+RPW(4,0)+RPW(4,0)"


def test_the_json_keeps_its_contract(run: Callable) -> None:
    ended = run("show", "dw+rpw(4,0)+rpw(4, 0)", "--channels", 16, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    about = ended.json
    assert (about["block"], about["channels"], about["params"]) == (BLOCK, 16, 272)
    assert about["field"] == [3, 16]
    assert (about["quality"], about["compact"], about["removable"]) == (True, True, [])
    assert [layer["field"] for layer in about["layers"]] == [[3, 1], [3, 4], [3, 16]]
    assert [layer["params"] for layer in about["layers"]] == [144, 64, 64]
    assert [layer["layer"] for layer in about["layers"]] == ["DW", "RPW(4,0)", "RPW(4,0)"]
    assert about["symbols"]["w_1"] == 4


@pytest.mark.parametrize(
    "arguments",
    [
        (BLOCK, "-C", 16),
        ("DW+SH(4)+PW", "-C", 16),
        ("DW+GPW(4)", "-C", 16),
        ("(GC(2)+SH(2)+GPW(2))x2", "-C", 12),
        ("GPW(4)+SH(4)+DW+GPW(4)", "-C", 64, "-F", 128, "--bottleneck", "1/4", "--stride", 2),
        ("DW+PW", "-C", 1024),
    ],
    ids=str,
)
def test_the_text_of_a_block(run: Callable, snapshot, arguments: tuple[object, ...]) -> None:
    assert run("show", *arguments).out == snapshot


def test_the_markdown_of_a_block(run: Callable, snapshot) -> None:
    assert run("show", BLOCK, "-C", 16, "--format", "markdown").out == snapshot


def test_amounts_have_separators_and_the_notation_has_none(run: Callable) -> None:
    text = run("show", "DW+RPW(35,0)+SH(5)+GPW(8)", "-C", 1120, "-F", 2240).out
    assert text.startswith("DW+RPW(35,0)+SH(5)+GPW(8) at 1,120 to 2,240 channels\n")
    rows = [line.split() for line in text.splitlines()]
    # By hand: 9 C, C^2/35 and C F/8.
    assert ["1", "DW", "1,120", "1", "3×3×1", "10,080", "10,080", "1,120", "2,240", "1"] in rows
    assert ["2", "RPW(35,0)", "1,120", "32", "3×3×32", *["35,840"] * 2, "1,120"] in [
        row[:8] for row in rows
    ]
    assert "1,120→2,240" in text
    assert " = 359,520\n" in text
    assert "of 22,579,200 in CONV\n" in text
    assert "C = 1120, F = 2240" in text


def test_removable_layers_count_from_one_in_text_and_from_zero_in_json(
    run: Callable,
) -> None:
    assert run("show", "DW+SH(4)+PW", "-C", 16, "--format", "json").json["removable"] == [1]
    assert "2 (SH(4))" in run("show", "DW+SH(4)+PW", "-C", 16).out


def test_widths_stride_and_bottleneck(run: Callable) -> None:
    ended = run(
        "show",
        "GPW(4)+SH(4)+DW+GPW(4)",
        "-C",
        64,
        "-F",
        128,
        "--bottleneck",
        "1/4",
        "--stride",
        2,
        "--dims",
        1,
        "--format",
        "json",
    )
    assert [(layer["c_in"], layer["c_out"]) for layer in ended.json["layers"]] == [
        (64, 32),
        (32, 32),
        (32, 32),
        (32, 128),
    ]
    assert ended.json["params"] == 64 * 32 // 4 + 3 * 32 + 32 * 128 // 4
    assert ended.json["macs_per_pixel"] == 2 * 64 * 32 // 4 + 3 * 32 + 32 * 128 // 4


def test_every_format_has_a_row_per_layer(run: Callable, tmp_path: Path) -> None:
    for form in ("csv", "markdown"):
        text = run("show", BLOCK, "-C", 16, "--format", form).out
        assert text.count("RPW(4,0)") == 2
    ended = run("show", BLOCK, "-C", 16, "--out", tmp_path / "a.json", "--quiet")
    assert (ended.status, ended.out) == (0, "")
    assert '"params": 272' in (tmp_path / "a.json").read_text()


def test_wide_blocks_are_drawn_with_shared_columns(run: Callable) -> None:
    assert "one column stands for 6 channels" in run("show", "DW+PW", "-C", 256).out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["DW+XY", "-C", 16], ["unknown kind", "'XY'", "PW, GC, DW"]),
        (["DW+RPW+PW", "-C", 16], ["RPW needs groups", "RPW(groups,overlap,rolling|blocked)"]),
        (["DW+RPW(3,0)", "-C", 16], ["groups do not divide", "1, 2, 4, 8, 16"]),
        (["DW+RPW(4,1)", "-C", 16], ["overlap out of range: got 1;", "0 <= o < 1"]),
        (["DW+(PW", "-C", 16], ["malformed block"]),
        (["", "-C", 16], ["a block needs a layer"]),
        (["DW+PW", "-C", 0], ["--channels out of range", "from 1 to 4096", "raise --channels to"]),
        (["DW+PW", "-C", 100000], ["--channels out of range", "lower --channels to 4096"]),
        (["DW+PW", "-C", 16, "-F", 5000], ["--out-channels out of range", "from 1 to 4096"]),
        (["DW+PW", "-C", "x"], ["'--channels' / '-C': got 'x'; allowed: whole numbers; see"]),
        (["PW+PW", "-C", 16, "--bottleneck", "1e999999999"], ["--bottleneck is not a whole"]),
        (["PW+PW", "-C", 16, "--bottleneck", 257], ["257 of 16", "whole, 1 to 4096"]),
        (["(DW)x65", "-C", 16], ["too long", "65 x 1 layers", "64 copies", "ask for one copy"]),
        (["(DW+PW+PW)x43", "-C", 16], ["too long", "43 x 3 layers", "128 layers in all"]),
        (["DW", "-C", 16, "-F", 32], ["no layer can change the width"]),
        (["DW+PW", "-C", 16, "--bottleneck", "1/4"], ["a bottleneck needs two"]),
        (["PW+PW", "-C", 16, "--stride", 2], ["no layer can hold the stride"]),
        (["PW+PW", "-C", 16, "--dims", 3], ["--dims: wrong number of dimensions"]),
        (["DW+PW", "-C", 16, "--kernel", 4], ["--kernel is even: got 4", "use 3 or 5"]),
    ],
)
def test_wrong_input_is_one_line(run: Callable, arguments: list[object], words: list[str]) -> None:
    run("show", *arguments).fails_with(*words)


@pytest.mark.parametrize(
    ("block", "channels", "out"),
    [
        ("GPW(4)+SH(4)+DW+RPW(4,1/2)+GPW(4)", 16, 32),
        ("(GPW(64)+SH(64)+DW+RPW(64,33/100)+GPW(64))x2", 512, 1024),
    ],
)
def test_nothing_is_wider_than_the_terminal(
    run: Callable, monkeypatch: pytest.MonkeyPatch, block: str, channels: int, out: int
) -> None:
    for module in (tables, drawing):
        monkeypatch.setattr(module, "terminal_width", lambda: 80)
    text = run("show", block, "-C", channels, "-F", out).out
    assert max(map(len, text.splitlines())) <= 80
    # A text that does not fit beside the costs follows below them.
    assert "layer" in text.partition("in symbols")[0].rpartition("\n")[2]
    assert "≤ min(C, w_1·w_3·w_4)" in text


@pytest.mark.slow
def test_formulas_nested_too_deep_are_not_printed(run: Callable) -> None:
    ended = run("show", "(GPW(2)+RPW(2,0))x64", "-C", 8)
    assert (ended.status, ended.err) == (0, "")
    assert re.search("full field +too long to write in symbols", ended.out)


def test_a_kind_added_to_the_table_is_shown(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(KINDS["GPW"], symbol="TPW")
    monkeypatch.setitem(KINDS, "TPW", row)  # type: ignore[arg-type]
    about = run("show", "DW+TPW(4)+SH(4)+tpw(4)", "-C", 16, "--format", "json").json
    assert (about["block"], about["field"]) == ("DW+TPW(4)+SH(4)+TPW(4)", [3, 16])


@pytest.mark.slow
def test_the_source_is_a_module_that_computes_the_block(run: Callable) -> None:
    ended = run("show", "DW+RPW(8,0)+GPW(8)", "-C", 64, "-F", 128, "--stride", 2, "--source")
    assert (ended.status, ended.err) == (0, "")
    names: dict[str, Any] = {}
    exec(ended.out, names)
    module, block = names["Block"](), build("DW+RPW(8,0)+GPW(8)", 64, 128, stride=2)
    module.load_state_dict(block.state_dict())
    x = torch.randn(1, 64, 8, 8)
    torch.testing.assert_close(module(x), block(x))
    assert "ifspace" not in ended.out
    run("show", "DW+PW", "-C", 8, "--bottleneck", "1/3", "--source").fails_with("bottleneck")
