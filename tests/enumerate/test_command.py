"""`ifspace enumerate`: what it prints, the files it writes, and its errors."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ifspace import table as tables
from ifspace.catalogue import Design, load
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate import search
from ifspace.enumerate.command import command

SHORT = ("enumerate", "-C", 16, "--max-len", 3)


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search says that it is compiled, wherever the tests run first."""
    monkeypatch.setattr(search, "is_compiled", lambda: True)


@pytest.fixture(scope="module")
def designs() -> tuple[Design, ...]:
    """What `SHORT` finds."""
    return search.enumerate_designs([EnumerationSetting(channels=16, max_len=3)], jobs=1).designs


def test_the_json_keeps_its_contract(run: Callable) -> None:
    ended = run("enumerate", "-C", 8, "--max-len", 2, "--jobs", 1, "--format", "json", "--quiet")
    assert (ended.status, ended.err) == (0, "")
    assert ended.json["arguments"]["channels"] == 8
    assert ended.json["funnel"]["compositions"] == 42
    assert ended.json["funnel"]["after_patterns"] == 36
    assert ended.json["funnel"]["by_length"] == [0, 5]
    by_name = {design["composition"]: design for design in ended.json["designs"]}
    assert set(by_name) == {"PW+GC", "PW+DW", "GC+PW", "DW+PW", "RPW+GC"}
    assert by_name["DW+PW"]["params"] == 9 * 8 + 8 * 8
    assert by_name["GC+PW"]["same_as"] == "DW+PW"


def test_all_options_reach_the_search(run: Callable, tmp_path: Path) -> None:
    options = (
        "--max-len 3 --kinds gc,PW,SH --channels 16,32,16 --out-channels 32 --kernel 5 "
        "--overlaps 0.5,0 --repeats 2 --bottleneck 1/4 --rule early-stop --permutation free "
        "--patterns keep --compact subset --stride 2 --dims 1 --objective macs --rpw-order both "
        "--jobs 1"
    )
    path = tmp_path / "a.parquet"
    ended = run("enumerate", *options.split(), "--out", path, "--format", "json")
    one = EnumerationSetting(
        channels=16,
        out_channels=32,
        kinds=("PW", "GC", "SH"),
        max_len=3,
        kernel=5,
        overlaps=("0", "1/2"),
        repeats=2,
        bottleneck="1/4",
        rule="early-stop",
        permutation="free",
        patterns="keep",
        compact="subset",
        stride=2,
        dims=1,
        objective="macs",
        rpw_order="both",
    )
    settings = (one, replace(one, channels=32))
    assert load(path) == search.enumerate_designs(settings, jobs=1)
    reached = [record["arguments"] for record in ended.json["settings"]]
    assert reached == [setting.arguments() for setting in settings]


def test_the_defaults_are_those_of_a_setting(run: Callable) -> None:
    ended = run("enumerate", "--max-len", 1, "--format", "json")
    assert ended.json["arguments"] == EnumerationSetting(max_len=1).arguments()
    (max_len,) = (option for option in command.params if option.name == "max_len")
    assert max_len.default == EnumerationSetting().max_len


def test_the_text_is_the_funnel_the_best_and_the_trade_offs(
    run: Callable, snapshot: object
) -> None:
    ended = run(*SHORT)
    assert ended.status == 0
    assert [line.partition(":")[0] for line in ended.err.splitlines()] == ["ifspace"] * 2
    assert "not compact at 16 channels: (GC+SH+GPW)x2 (clcNet)" in ended.err
    assert ended.out == snapshot


def test_the_funnel_has_the_counts(run: Callable) -> None:
    lines = [line.split() for line in run(*SHORT).out.splitlines()]
    assert ["compositions", "6", "36", "216", "258"] in lines
    assert ["after", "repeated", "patterns", "6", "30", "210", "246"] in lines
    assert ["survivors", "0", "5", "17", "22"] in lines


def test_the_best_by_the_objective_come_first_up_to_the_limit(
    run: Callable, snapshot: object
) -> None:
    arguments = (*SHORT, "--objective", "activations")
    assert run(*arguments, "--limit", 1).out == snapshot
    assert "params" not in run(*arguments, "--limit", 0).out


def test_several_widths_have_a_funnel_each(run: Callable, snapshot: object) -> None:
    ended = run("enumerate", "-C", "16,32", "-F", 64, "--max-len", 3, "--limit", 0)
    assert ended.out == snapshot


def test_no_survivor_is_an_answer(run: Callable, snapshot: object) -> None:
    ended = run("enumerate", "--max-len", 1)
    assert ended.status == 0
    assert ended.out == snapshot


def test_the_catalogue_is_kept(run: Callable, designs: tuple[Design, ...], tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    ended = run(*SHORT, "--out", path)
    assert "survivors" in ended.out
    assert load(path).designs == designs
    assert run(*SHORT, "--out", tmp_path / "a.json", "--quiet").out == ""
    assert len(json.loads((tmp_path / "a.json").read_text())["designs"]) == len(designs)


@pytest.mark.parametrize("form", ["csv", "markdown"])
def test_other_formats_hold_every_design(
    run: Callable, designs: tuple[Design, ...], form: str
) -> None:
    text = run(*SHORT, "--format", form, "--limit", 1).out
    assert all(str(design.block) in text for design in designs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--max-len", 0], ["--max-len out of range: got 0", "from 1", "raise --max-len to 1"]),
        (["--max-len", -3], ["--max-len out of range", "got -3"]),
        (["--max-len", "six"], ["'--max-len': got 'six'; allowed: whole numbers"]),
        (["--kinds", "PW,XY"], ["unknown kind of convolution", "'XY'"]),
        (["--kinds", "CONV"], ["the reference that blocks are", "'CONV'", "leave it out"]),
        (["--kinds", "GC,SH", "-C", 13], ["no kind is left at 13 channels"]),
        (["--channels", "16,x"], ["'--channels'", "got '16,x'"]),
        (["--channels", "0"], ["--channels out of range", "from 2 to 4096; raise --channels to 2"]),
        (["--channels", "99999"], ["--channels out of range", "lower --channels to 4096"]),
        (["-F", 99999], ["--out-channels out of range", "from 1 to 4096"]),
        (["--repeats", 0], ["--repeats out of range", "raise --repeats to 1"]),
        (["--overlaps", "1"], ["--overlaps: overlap ratio out of range", "got 1"]),
        (["--overlaps", "0,half"], ["overlap ratio out of range", "got half"]),
        (["--bottleneck", "1/3"], ["bottleneck is not a whole number"]),
        (["--bottleneck", "wide"], ["bottleneck is not a whole number"]),
        (["--bottleneck", "1e999999999"], ["--bottleneck is not a whole", "1e999999999 of 64"]),
        (["--bottleneck", "1" * 99], ["--bottleneck is not a whole number"]),
        (["--kernel", 1], ["--kernel out of range", "odd numbers from 3", "raise --kernel to 3"]),
        (["--kernel", 4], ["--kernel is even: got 4", "use 3 or 5"]),
        (["--stride", 3], ["unknown --stride"]),
        (["--rule", "other"], ["got 'other'; allowed: compact, early-stop"]),
        (["--limit", -1], ["'--limit'"]),
        (["--out", "a.xlsx"], ["unknown output format", ".parquet, .csv, .json, .md"]),
        (["--out", "none/a.parquet"], ["output cannot be written", "No such file or directory"]),
    ],
)
def test_wrong_input_is_one_line_and_no_search(
    run: Callable,
    arguments: list[object],
    words: list[str],
    tmp_path: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "enumerate_designs", lambda *_, **__: pytest.fail("a search"))
    monkeypatch.chdir(tmp_path)
    run("enumerate", *arguments).fails_with(*words)
    assert os.listdir(tmp_path) == []


def test_too_few_jobs_are_an_error(run: Callable) -> None:
    run("enumerate", "-C", 8, "--max-len", 2, "--jobs", 0, "--quiet").fails_with("too few --jobs")


def test_a_prime_width_is_noted_beside_the_data(run: Callable, snapshot: object) -> None:
    prime = ("enumerate", "-C", 13, "--max-len", 2)
    ended = run(*prime, "--format", "json")
    assert ended.err == snapshot
    assert ended.json["arguments"]["channels"] == 13
    assert run(*prime, "--quiet").err == ""


@pytest.mark.parametrize("seconds", [300, 4e6, 4e7, 1e300, float("inf"), float("nan")])
def test_long_work_is_announced(
    run: Callable, monkeypatch: pytest.MonkeyPatch, seconds: float, snapshot: object
) -> None:
    monkeypatch.setattr(search, "estimate_seconds", lambda setting: seconds)
    assert run("enumerate", "--max-len", 1, "-C", 16).err == snapshot
    assert run("enumerate", "--max-len", 1, "-C", "16,32").err == snapshot


def test_the_first_run_says_that_it_compiles(
    run: Callable, monkeypatch: pytest.MonkeyPatch, snapshot: object
) -> None:
    assert run("enumerate", "--max-len", 1).err == ""
    monkeypatch.setattr(search, "is_compiled", lambda: False)
    assert run("enumerate", "--max-len", 1).err == snapshot
    assert run("enumerate", "--max-len", 1, "--quiet").err == ""


def test_lengths_get_a_row_each_where_the_line_is_too_wide(
    run: Callable, monkeypatch: pytest.MonkeyPatch, snapshot: object
) -> None:
    monkeypatch.setattr(tables, "terminal_width", lambda: 60)
    arguments = ("enumerate", "-C", 8, "--kinds", "PW,DW", "--limit", 1, "--max-len")
    (_, _, lengths, *_) = run(*arguments, 3).out.splitlines()
    assert lengths.split() == ["length", "1", "2", "3", "all"]
    text = run(*arguments, 10).out
    assert text == snapshot
    assert max(map(len, text.splitlines())) <= 60


def test_the_help_says_where_json_has_every_setting(run: Callable) -> None:
    text = " ".join(run("enumerate", "--help").out.split())
    assert "`settings` holds them for every one" in text


def test_an_interrupt_keeps_an_older_catalogue(
    run: Callable, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "enumerate_designs", interrupted)
    path = tmp_path / "a.parquet"
    path.write_text("old")
    ended = run("enumerate", "-C", 8, "--out", path)
    assert (ended.status, ended.out, ended.err) == (130, "", "ifspace: interrupted\n")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.parquet"]


def test_the_title_names_arguments_that_are_not_the_default(run: Callable) -> None:
    plain = run("enumerate", "-C", 8, "--max-len", 2).out.splitlines()[0]
    other = run("enumerate", "-C", 8, "--max-len", 2, "--stride", 2, "--overlaps", 0).out
    assert plain == "Compositions of 1 to 2 layers at 8 channels"
    assert other.splitlines()[0] == f"{plain} (--overlaps 0 --stride 2)"


def test_best_says_when_the_catalogue_minimised_something_else(
    run: Callable, tmp_path: Path
) -> None:
    options = ["-C", 8, "--max-len", 2, "--stride", 2, "--objective", "macs", "--quiet"]
    run("enumerate", *options, "--out", tmp_path / "macs.parquet")
    ended = run("best", tmp_path / "macs.parquet", "--params", 500)
    assert "the choice with the fewest macs; others may have fewer params" in ended.err
    assert "others may" not in run("best", tmp_path / "macs.parquet", "--by", "macs").err


def test_blocks_that_need_a_permutation_say_so(
    run: Callable, tmp_path: Path, snapshot: object
) -> None:
    path = tmp_path / "free.parquet"
    free = ("enumerate", "--preset", "fog", "--max-len", 3, "--jobs", 1)
    ended = run(*free, "--limit", 3)
    assert (ended.out, ended.err) == snapshot
    designs = run(*free, "--format", "json", "--quiet").json["designs"]
    written = {design["block"]: design["field_as_written"] for design in designs}
    for text, (side, channels) in written.items():
        described = run("show", text, "-C", 64, "--format", "json").json
        assert described["field"] == [side, channels], text
    # Layers that read runs of a group after a group see no more than the wider one.
    assert {text: n for text, (_, n) in written.items() if n < 64} == {
        "GC(32)+GPW(2)": 32,
        "GPW(2)+GC(32)": 32,
        "GPW(8)+DW+GPW(8)": 8,
        "GPW(8)+GC(32)+GPW(16)": 8,
    }
    assert all(design["field"] == [3, 64] for design in designs)
    run(*free, "--out", path, "--quiet")
    chosen = run("best", path, "--layers", 2)
    assert "ifspace: 2 of 6 blocks need a channel permutation between" in chosen.err
    assert chosen.out.count("needs a channel permutation between its layers (sees 32 of 64") == 2
    assert run("best", path, "--format", "json").json["designs"][0]["field_as_written"] == [3, 8]
    assert "permutation" not in run(*SHORT).out


def test_lists_and_names_of_options_are_written_as_they_are_given(run: Callable) -> None:
    ended = run("enumerate", "--preset", "fog", "--kinds", "GC,DW,PW", "--max-len", 2)
    assert "ifspace: --kinds GC,DW,PW is stronger than --preset fog" in ended.err
    title = ended.out.partition("\n")[0]
    assert title.endswith("(--kinds PW,GC,DW --permutation free --patterns any)")
    title = run("enumerate", "-C", 8, "--max-len", 2, "--rpw-order", "both").out.partition("\n")[0]
    assert title.endswith("(--rpw-order both)")


def test_a_simpler_composition_is_explained_only_where_a_row_names_one(run: Callable) -> None:
    assert "cheaper as" not in run("enumerate", "-C", 16, "--max-len", 2, "--limit", 1).out
    assert 'that "cheaper as" names' in run("enumerate", "-C", 16, "--max-len", 2).out


def test_every_row_has_the_number_of_its_network(
    run: Callable, tmp_path: Path, snapshot: object
) -> None:
    path = tmp_path / "a.parquet"
    search_of_all = ("enumerate", "-C", 8, "--max-len", 3, "--jobs", 1)
    run(*search_of_all, "--out", path, "--quiet")
    text = run(*search_of_all, "--all", "--limit", 30).out
    assert text == snapshot
    classes = {str(design.block): design.network for design in load(path).designs}
    for shown in (text.partition("Trade-offs")[0], run("best", path, "--all").out):
        rows = [line.split()[1:3] for line in shown.splitlines()]
        numbers = {row[1]: int(row[0]) for row in rows if len(row) == 2 and row[1] in classes}
        assert len(numbers) > len(set(numbers.values())) > 5
        assert list(dict.fromkeys(numbers.values())) == list(
            range(1, len(set(numbers.values())) + 1)
        )
        for a, b in combinations(numbers, 2):
            assert (numbers[a] == numbers[b]) == (classes[a] == classes[b]), (a, b)
    assert "network  block" not in run("best", path).out
