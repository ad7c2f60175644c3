"""Latency as an amount of the search: against brute force, and against `groups`."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from brute_front import beats, pareto, passing_choices
from latency_models import model

from ifspace.bench.predict import LatencyPredictor
from ifspace.block import Block, Composition, SizedBlock
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.oracle import passes
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.timed import timed_groups
from ifspace.latency import Latency, read_latency

SIDE = 8
# Nanoseconds for a byte and an operation, of each kind its own: whole numbers, so that sums are.
KINDS = ("DW", "PW", "GPW", "RPW dense", "RPW tiled", "RPW compiled", "GC", "CONV", "SH", "fused")
RATES = {
    f"{kind} {what}": rate * 1e-6
    for index, kind in enumerate(KINDS)
    for what, rate in {
        "launches": 40_000 + 9_000 * (index * 5 % 7),
        "bytes": 1 + index % 3,
        "operations": 1 + index % 2,
        "padded operations": 2,
    }.items()
}


def write_model(folder: Path, without: tuple[str, ...] = ()) -> Path:
    """Write a latency model; kinds `without` have no times."""
    rates = RATES | {"fused launches": 0.06, "fused bytes": 4e-6}
    rates = {name: rate for name, rate in rates.items() if not name.startswith(without or "-")}
    path = folder / "model.json"
    path.write_text(json.dumps(model(coefficients=rates)), "utf-8")
    return path


def nanoseconds(source: LatencyPredictor, setting: EnumerationSetting, text: str) -> int | None:
    """The time of a block in the faster of the forms that are searched, by the model itself."""
    block = Block.parse(text).at(setting.channels, setting.out_width, setting.bottleneck)
    times = [source.ms_in(form, block, SIDE, setting.stride) for form in source.layer_forms]
    return min((round(ms * 1e6) for ms in times if ms is not None), default=None)


Timed = tuple[str, str, tuple[int, ...]]


def timed_choices(source: LatencyPredictor, setting: EnumerationSetting) -> Iterator[Timed]:
    """Composition, block, and amounts with the latency of every choice that passes."""
    for composition, (_, block), amounts in passing_choices(setting):
        ns = nanoseconds(source, setting, block)
        yield composition, block, (*amounts, 1 << 60 if ns is None else ns)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("channels", "length", "more", "without"),
    [
        (8, 3, {}, ()),
        (12, 3, {}, ("RPW tiled",)),
        (16, 3, {}, ("fused",)),
        (12, 3, {"out_channels": 24, "stride": 2}, ()),
        (8, 3, {"bottleneck": "1/2", "stride": 2}, ("GC",)),
        (8, 2, {"repeats": 2}, ()),
    ],
    ids=str,
)
def test_the_fastest_choices_and_the_front_are_those_of_brute_force(
    tmp_path: Path, channels: int, length: int, more: dict[str, Any], without: tuple[str, ...]
) -> None:
    source = LatencyPredictor.read(write_model(tmp_path, without))
    setting = EnumerationSetting(channels=channels, max_len=length, objective="latency", **more)
    choices = list(timed_choices(source, setting))
    fastest: dict[str, tuple[int, int]] = {}
    for composition, _, amounts in choices:
        key = amounts[-1], amounts[0]
        fastest[composition] = min(fastest.get(composition, key), key)
    catalogue = enumerate_designs([setting], jobs=1, latency=source, side=SIDE)

    def timed(design: Any) -> tuple[int, int]:
        ns = nanoseconds(source, setting, str(design.block))
        return 1 << 60 if ns is None else ns, design.params

    assert {design.composition: timed(design) for design in catalogue.designs} == fastest

    front = EnumerationSetting(
        channels=channels, max_len=length, objective="latency", front=True, **more
    )
    counts = Counter(amounts for *_, amounts in choices)
    rows: dict[tuple[str, tuple[int, ...]], tuple[int, int]] = {}
    for composition in {composition for composition, *_ in choices}:
        own = {amounts for name, _, amounts in choices if name == composition}
        for amounts in pareto(own):
            beaten = sum(n for other, n in counts.items() if beats(amounts, other))
            rows[composition, amounts] = counts[amounts], beaten
    listed = enumerate_designs([front], jobs=1, latency=source, side=SIDE)
    got = {
        (x.composition, (*x.costs, timed(x)[0])): (x.stands_for, x.beats) for x in listed.designs
    }
    assert len(got) == len(listed.designs)
    assert got == rows
    assert listed.funnels[0].choices_passing == counts.total() == len(choices)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [8, 12, 16])
def test_groups_finds_nothing_faster_that_passes(tmp_path: Path, channels: int) -> None:
    source = LatencyPredictor.read(write_model(tmp_path))
    setting = EnumerationSetting(channels=channels, max_len=3, objective="latency")

    def latency(sized: SizedBlock, stride: int) -> Latency | None:
        ns = nanoseconds(source, setting, str(sized.block))
        return None if ns is None else Latency(Fraction(ns, 10**6))

    designs = enumerate_designs([setting], jobs=1, latency=source, side=SIDE).designs
    compared = 0
    for design in designs[::3]:
        problem = GroupsProblem(Composition.parse(design.composition), channels)
        answer, times = timed_groups(problem, latency, top=10**6)
        pairs = zip(answer.plans, times.latencies, strict=True)
        passing = (time for plan, time in pairs if passes(plan.block, setting))
        fastest = next(passing, None)
        assert latency(design.sized, 1) == fastest
        compared += 1
    assert compared > 5


@pytest.mark.slow
def test_a_table_answers_for_the_blocks_that_it_has(tmp_path: Path) -> None:
    """The rows that pass are choices; what has no row is the slowest, the cheapest of it first."""
    table = tmp_path / "table.csv"
    head = "block,C,F,side,stride,batch,device,dtype,latency_ms"
    times = {
        "DW+GPW(2)+SH(2)+GPW(8)": 0.25,
        "DW+GPW(8)+SH(8)+GPW(2)": 0.5,
        # Not compact: one layer less sees everything too.
        "DW+GPW(2)+SH(2)+PW": 0.125,
        "DW+PW": 1.5,
    }
    rows = [f'"{block}",16,16,8,1,1,cpu,fp32,{ms}' for block, ms in times.items()]
    table.write_text("\n".join([head, *rows]), "utf-8")
    source = read_latency(table)
    setting = EnumerationSetting(channels=16, max_len=4, kinds=("PW", "DW", "GPW", "SH"))
    plain = {x.composition: str(x.block) for x in enumerate_designs([setting], jobs=1).designs}
    fastest = enumerate_designs(
        [replace(setting, objective="latency")], jobs=1, latency=source
    ).designs
    assert {x.composition: str(x.block) for x in fastest} == plain | {
        "DW+GPW+SH+GPW": "DW+GPW(2)+SH(2)+GPW(8)"
    }
    front = replace(setting, objective="latency", front=True)
    catalogue = enumerate_designs([front], jobs=1, latency=source)
    untimed = enumerate_designs([replace(front, objective="params")], jobs=1)
    assert catalogue.funnels[0].choices_passing == untimed.funnels[0].choices_passing
    best = {str(x.block) for x in catalogue.designs if x.dominated_by is None}
    assert {"DW+GPW(2)+SH(2)+GPW(8)", "DW+PW"} <= best
    assert "DW+GPW(2)+SH(2)+PW" not in {str(x.block) for x in catalogue.designs}


def test_the_objective_needs_latencies(run: Callable) -> None:
    with pytest.raises(SettingError, match="objective latency without latencies"):
        enumerate_designs([EnumerationSetting(channels=16, objective="latency")])
    run("enumerate", "--objective", "latency").fails_with("got --objective latency")


def test_the_command_finds_the_fastest_choice(run: Callable, tmp_path: Path) -> None:
    path = write_model(tmp_path, ("fused",))
    command = ("enumerate", "-C", 16, "--max-len", 3, "--latency", path, "--format", "json")
    cheapest, fastest = (
        {
            design["composition"]: (design["params"], design["latency_ms"])
            for design in run(*command, *options).json["designs"]
        }
        for options in ((), ("--objective", "latency"))
    )
    assert cheapest.keys() == fastest.keys()
    ended = run(*command, "--front")
    assert "the search is exact in the forms as is and fused; others are timed" in ended.err
    rows = {design["composition"] for design in ended.json["designs"]}
    assert rows == cheapest.keys()
    assert ended.json["arguments"]["objective"] == "latency"
    slower = [name for name, (_, ms) in cheapest.items() if ms > fastest[name][1]]
    assert slower
    assert all(fastest[name][0] > cheapest[name][0] for name in slower)
