"""The files of a run: designs, models, latency table; those of earlier runs."""

import csv
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from samples import SMALL

from ifspace.bench.blocks import BlockShape
from ifspace.bench.latency import LatencyRows
from ifspace.bench.machine import Machine
from ifspace.bench.record import Provenance
from ifspace.bench.results import EarlierResults, ResultFiles, write_results
from ifspace.bench.rows import Measurements
from ifspace.bench.session import BenchSettings, BlockBench
from ifspace.errors import OutputError, SettingError
from ifspace.latency import MEASURED, MODELLED, read_latency
from ifspace.measurements import AS_IS
from ifspace.nn import build

MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")
PROVENANCE = Provenance("ifspace bench", "abc", "a machine", "2026-11-21")


@pytest.fixture
def bench(quick, here) -> BlockBench:
    settings = BenchSettings(
        BlockShape(16, 16, 4, 2),
        here,
        2,
        baselines=("conv", "inverted"),
        repeats=3,
        calibrate=False,
    )
    bench = BlockBench(
        SMALL, settings, MACHINE, Measurements(MACHINE), lambda: None, lambda done, total: None
    )
    bench.execute()
    return bench


def test_designs_have_sources_that_are_the_block(bench: BlockBench, tmp_path: Path) -> None:
    files = ResultFiles(tmp_path, "cpu-test", "fp32", 2)
    files.prepare()
    write_results(bench, files, {"top": 2}, PROVENANCE)
    values = json.loads(files.designs.read_text())
    assert (values["version"], values["arguments"], values["model"]) == (1, {"top": 2}, {})
    assert values["provenance"]["command"] == "ifspace bench"
    assert values["provenance"]["device"] == "cpu-test"
    assert values["conditions"] == {
        "dtype": "fp32",
        "layout": "channels_last",
        "style": "plain",
        "threads": 1,
        "side": 4,
        "batch": 2,
    }
    assert len(values["designs"]) == 4
    for record, candidate in zip(values["designs"], bench.shown, strict=True):
        assert record["checked"]
        assert record["block"] == str(candidate.sized.block)
        assert record["composition"] == str(candidate.sized.block.composition)
        names: dict = {}
        exec(record["source"], names)
        ours, theirs = names["Block"](), build(candidate.sized)
        ours.load_state_dict(theirs.state_dict())
        x = torch.randn(2, 16, 5, 5)
        torch.testing.assert_close(ours(x), theirs(x))
    rpw = values["designs"][0]
    assert rpw["fields"] == [[3, 1], [3, 4], [3, 16]]
    assert values["designs"][3]["bottleneck"] == "6"


def test_the_latency_table_is_one_that_layout_reads(bench: BlockBench, tmp_path: Path) -> None:
    files = ResultFiles(tmp_path, "cpu-test", "fp32", 2)
    files.prepare()
    write_results(bench, files, {}, PROVENANCE)
    table = read_latency(files.latency)
    # The inverted residual has a bottleneck, which the table cannot say.
    assert {case[0] for case in table.cases} == {"DW+RPW(4,0)+RPW(4,0)", "DW+PW", "CONV"}
    for block, least_ms in bench.least_ms(bench.shown)[:3]:
        latency = table.find(block.sized, 4)
        assert latency is not None
        assert float(latency.ms) == pytest.approx(least_ms, abs=2e-6)
    assert "source" in files.latency.read_text().splitlines()[0]


def test_a_measurement_replaces_a_prediction(block, tmp_path: Path) -> None:
    rows = LatencyRows("cpu-test", "fp32")
    rows.put(block("PW"), 5.0, MODELLED)
    rows.put(block("PW"), 4.0, MEASURED)
    rows.put(block("PW"), 3.0, MODELLED)
    rows.put(block("PW"), 2.0, MEASURED)
    rows.put(block("DW"), 0.0, MODELLED)
    rows.put(block("CONV"), None, MODELLED)
    rows.put(block("PW+PW", inside=2), 1.0, MEASURED)
    rows.put(block("DW+PW", 16, 32, side=3, stride=2), 0.25, MODELLED)
    rows.write(tmp_path / "latency.csv")
    assert len(rows) == 3
    assert read_latency(tmp_path / "latency.csv").cases == {
        ("PW", 16, 16, 6, 1): Fraction(4),
        ("DW", 16, 16, 6, 1): Fraction(1, 10**6),
        ("DW+PW", 16, 32, 3, 2): Fraction(1, 4),
    }


def test_designs_of_earlier_runs_stay(bench: BlockBench, tmp_path: Path) -> None:
    files = ResultFiles(tmp_path, "cpu-test", "fp32", 2)
    files.prepare()
    write_results(bench, files, {}, PROVENANCE)
    kept = EarlierResults.read(files, bench.settings.conditions)
    kept.designs[0]["channels"] = 32
    kept.designs[1]["source"] = "older"
    kept.designs[2]["style"] = "fog"
    write_results(bench, files, {}, PROVENANCE, replace(kept, models={"forward": {"unit": "ms"}}))
    again = EarlierResults.read(files, bench.settings.conditions)
    assert [(x["channels"], x["style"]) for x in again.designs] == [
        (32, "plain"),
        (16, "plain"),
        (16, "fog"),
        (16, "plain"),
        (16, "plain"),
        (16, "plain"),
    ]
    assert "older" not in [record["source"] for record in again.designs]
    # Without a new model the old one stays.
    assert again.models == {"forward": {"unit": "ms"}}
    # Latencies hold under the conditions of their measurement.
    assert (len(again.latencies), again.dropped) == (3, 0)
    for other in ({"threads": 7}, {"style": "fog"}, {"layout": "nchw"}):
        there = EarlierResults.read(files, replace(bench.settings.conditions, **other))
        assert (there.latencies, there.dropped) == ((), 3)


def test_latencies_of_earlier_runs_stay_under_the_same_conditions(block, tmp_path: Path) -> None:
    path = tmp_path / "latency.csv"
    first = LatencyRows("cpu-test", "fp32", "plain")
    for text, ms, source in (("PW", 1.0, MEASURED), ("DW", 2.0, MODELLED), ("CONV", 3.0, MEASURED)):
        first.put(block(text), ms, source)
    first.write(path)
    with path.open(newline="") as file:
        kept = list(csv.DictReader(file))
    second = LatencyRows("cpu-test", "fp32", "plain", kept)
    second.put(block("PW"), 5.0, MODELLED)
    second.put(block("DW"), 6.0, MODELLED)
    second.put(block("DW+PW"), 7.0, MODELLED)
    second.write(path)
    assert {case[0]: float(ms) for case, ms in read_latency(path).cases.items()} == {
        "PW": 1.0,
        "DW": 6.0,
        "CONV": 3.0,
        "DW+PW": 7.0,
    }


def test_a_block_has_a_row_for_each_form_of_which_the_fastest_counts(block, tmp_path: Path) -> None:
    path = tmp_path / "latency.csv"
    rows = LatencyRows("cpu-test", "fp32", "plain")
    for text, ms, form in (("PW", 3.0, AS_IS), ("PW", 2.0, "fused"), ("DW", 1.0, AS_IS)):
        rows.put(replace(block(text), form=form), ms, MEASURED)
    rows.put(replace(block("PW"), form="fused"), 9.0, MODELLED)
    rows.put(replace(block("DW"), form="fused"), 5.0, MODELLED)
    rows.write(path)
    table = read_latency(path)
    latencies = [table.find(block(text).sized, 6) for text in ("PW", "DW")]
    assert [(float(x.ms), x.form) for x in latencies if x] == [(2.0, "fused"), (1.0, AS_IS)]
    # Later runs keep them, and so they keep those of a table without the column.
    with path.open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert [(row["block"], row["form"], row["source"]) for row in kept] == [
        ("PW", AS_IS, MEASURED),
        ("PW", "fused", MEASURED),
        ("DW", AS_IS, MEASURED),
        ("DW", "fused", MODELLED),
    ]
    for row in kept:
        if row["form"] == AS_IS:
            del row["form"]
    again = LatencyRows("cpu-test", "fp32", "plain", kept)
    again.put(block("CONV"), 4.0, MEASURED)
    again.write(path)
    assert read_latency(path).find(block("PW").sized, 6) == latencies[0]
    assert len(again.table.rows) == 5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"version": 2, "designs": []}',
        '{"version": 1, "designs": [{}], "model": {}}',
    ],
)
def test_an_unrecognised_file_of_designs_raises(text: str, tmp_path: Path, here) -> None:
    files = ResultFiles(tmp_path, "d", "fp32", 1)
    files.prepare()
    files.designs.write_text(text)
    with pytest.raises(SettingError, match=r"blocks-d\.json cannot be added to: got ") as raised:
        EarlierResults.read(files, here)
    assert "\n" not in str(raised.value)


def test_a_folder_that_cannot_be_written_raises_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "results"):
        with pytest.raises(OutputError, match="results cannot be written"):
            ResultFiles(folder, "cpu-test", "fp32", 2).prepare()
    files = ResultFiles(tmp_path / "new", "cpu-test", "fp32", 2)
    files.prepare()
    assert list((tmp_path / "new" / "bench").iterdir()) == []
    files.rows.mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        files.prepare()
