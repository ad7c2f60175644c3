"""`ifspace optimize` with blocks: the layers replaced, budgets and warm starts."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from latency_models import model
from network_files import params

import ifspace.models as m
from ifspace.errors import SettingError
from ifspace.models.optimization import OptimizationProblem, optimize

pytestmark = pytest.mark.usefixtures("one_thread", "net_file")

SMALL = ("--input", "3x16x16")
OWN = ("optimize", "net.py:make", *SMALL)
ROLLING = "DW+RPW(2,1/2)"
JSON = ("--format", "json")
VGG = ("optimize", "vgg16", "--input", "3x32x32")


@pytest.mark.slow
def test_one_block_replaces_every_convolution_that_it_fits(run: Callable) -> None:
    image = (3, 16, 16)
    better = m.reorganize(m.network("net.py:make", image), image, moves=1)
    final = m.decompose(better, image, m.Blocks(ROLLING))
    report = run(*OWN, "--moves", 1, "--block", ROLLING.lower(), *JSON).json
    plan = final.plan
    assert [layer["name"] for layer in report["replaced"]] == [
        layer.name for layer in plan.replaced
    ]
    assert {layer["block"] for layer in report["replaced"]} == {ROLLING}
    assert (report["after"]["params"], report["after"]["macs"]) == (
        params(final.model),
        plan.macs[1],
    )
    assert report["skipped"] == [{"name": "0", "reason": "3 input channels, fewer than 16"}]
    saved = sum(layer["params"][0] - layer["params"][1] for layer in report["replaced"])
    assert saved == plan.params[0] - plan.params[1]
    assert report["after"]["depths"] == report["moves"][0]["depths"]


@pytest.mark.slow
def test_blocks_meet_the_rest_of_the_budget(run: Callable, snapshot: Any) -> None:
    assert run(*VGG, "--params", "1M", "--block", ROLLING).out == snapshot
    report = run(*OWN, "--params", "10k", "--block", ROLLING, *JSON).json
    assert (len(report["replaced"]), report["blocks"]["status"]) == (3, "optimal")
    assert report["after"]["depths"] == organize_small(run)
    assert len(report["kept"]) == 3
    assert 8000 < report["after"]["params"] <= 10_000
    least = run(*OWN, "--params", "10k", "--block", ROLLING, "--objective", "params", *JSON).json
    assert (least["kept"], least["after"]["params"] < report["after"]["params"]) == ([], True)


def organize_small(run: Callable) -> list[int]:
    """Return the depths at which the organizer ends for the network in the file."""
    depths: list[int] = run(*OWN, *JSON).json["after"]["depths"]
    return depths


@pytest.mark.slow
def test_blocks_only_keeps_the_stages(run: Callable) -> None:
    report = run(*OWN, "--blocks-only", "--block", "DW+PW", *JSON).json
    assert (report["stages"], report["moves"], report["published"]) == (None, [], [])
    assert report["before"]["depths"] == report["after"]["depths"] == [3, 4]
    assert "Moves" not in run(*OWN, "--blocks-only", "--block", "DW+PW").out


def test_stages_that_stay_are_not_planned(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every stage would be traced once more, which took four fifths of the time for MaxViT."""

    def fail(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("ifspace.models.reorganization.traced", fail)
    assert run(*OWN, "--params", "60%").status == 0
    assert run(*OWN, "--blocks-only", "--block", "DW+PW").status == 0


def test_a_budget_is_refused_where_nothing_may_change() -> None:
    image = (3, 16, 16)
    network = m.network("net.py:make", image)
    problem = OptimizationProblem(budgets=m.Budgets(params="10k"), keep_stages=True)
    with pytest.raises(SettingError, match="a budget where nothing may change: got one of params"):
        optimize(m.EditedNetwork.of(network), m.trace(network, image), problem)


@pytest.mark.slow
def test_several_blocks_and_the_cheapest(run: Callable) -> None:
    two = run(*OWN, "--blocks", f"DW+PW,{ROLLING}", *JSON).json
    assert {layer["block"] for layer in two["replaced"]} == {ROLLING}
    least = run(*OWN, "--cheapest", *JSON).json
    assert len(least["replaced"]) == len(two["replaced"]) == 6
    assert {layer["block"] for layer in least["replaced"]}.isdisjoint({ROLLING, "DW+PW"})
    # CONV has 9 · 16² and 16 biases; DW+RPW(4,0)+GPW(4) 272 and 16.
    assert {tuple(layer["params"]) for layer in least["replaced"]} == {(2320, 288)}


@pytest.mark.slow
def test_blocks_that_see_less_are_named(run: Callable, snapshot: Any) -> None:
    narrow = run(*OWN, "--blocks-only", "--block", ROLLING, "--names", "2.0,6.0")
    assert narrow.out == snapshot
    report = run(*OWN, "--blocks-only", "--block", ROLLING, *JSON).json
    assert {str(layer["field"]) for layer in report["replaced"]} == {"[[3, 16], [3, 8]]"}
    assert "sees less" not in run(*OWN, "--cheapest").out


@pytest.mark.slow
def test_layers_are_chosen_by_name_and_width(run: Callable) -> None:
    chosen = run(*OWN, "--blocks-only", "--cheapest", "--names", "2.0,6.0", *JSON).json
    assert [layer["name"] for layer in chosen["replaced"]] == ["2.0", "6.0"]
    wide = run(*VGG, "--blocks-only", "--block", "DW+PW", "--least-channels", 512, *JSON).json
    assert [layer["name"][:19] for layer in wide["replaced"]] == [
        "stages.stage4.unit2",
        "stages.stage4.unit3",
        "stages.stage5.unit1",
        "stages.stage5.unit2",
        "stages.stage5.unit3",
    ]


@pytest.mark.slow
def test_latencies_decide_where_they_are_given(run: Callable) -> None:
    rows = ["block,C,F,side,stride,batch,device,dtype,latency_ms"]
    for side in (16, 4):
        rows += [f"CONV,16,16,{side},1,1,cpu,float32,2", f"DW+PW,16,16,{side},1,1,cpu,float32,1"]
    Path("table.csv").write_text("\n".join(rows) + "\n")
    report = run(
        *OWN,
        "--blocks-only",
        "--block",
        "DW+PW",
        "--latency",
        "table.csv",
        "--latency-budget-ms",
        "10.5",
        *JSON,
    ).json
    # Six convolutions at 2 ms are 12.
    assert (len(report["replaced"]), len(report["kept"])) == (2, 4)
    assert report["budgets"] == {"latency_ms": 10.5}
    times = [(x["latency_ms"], x["form"], x["extrapolated"]) for x in report["replaced"]]
    assert times == [([2, 1], "as is", False)] * 2
    blocks = report["blocks"]
    assert (blocks["timed"], blocks["latency_ms"], blocks["extrapolated"]) == (
        2,
        [4, 2],
        [False, False],
    )
    budget = ("--latency", "table.csv", "--latency-budget-ms", "10.5")
    text = run(*OWN, "--blocks-only", "--block", "DW+PW", *budget).out
    assert "10.000 ms, all layers that blocks may replace together" in text
    assert "left over  0.5 milliseconds" in text
    totals = [line.split() for line in text.splitlines() if line.startswith(("before ", "after "))]
    assert ["4.000" in totals[0], "2.000" in totals[1]] == [True, True]
    # Without a budget they are a column.
    arguments = (*OWN, "--blocks-only", "--block", "DW+PW", "--latency", "table.csv")
    ended = run(*arguments, "--batch", 1, "--dtype", "fp32")
    assert "latency ms" in ended.out
    assert "ifspace: latencies of cpu, batch 1, fp32" in ended.err
    run(*arguments, "--batch", 2).fails_with("--batch is not that of the latencies: got 2")
    # What the table lacks is measured by a command that the message says.
    Path("short.csv").write_text("\n".join(rows[:3]) + "\n")
    short = (*arguments[:-1], "short.csv", "--latency-budget-ms", "10.5")
    lacking = run(*short)
    assert lacking.status == 2
    assert "no latency for any option of a layer: got 5.0, 6.0, …" in lacking.err
    assert "(`ifspace bench --predict 16x16x4x1`)" in lacking.err
    fastest = run(*arguments, "--objective", "latency", "--blocks", "DW+PW,PW", *JSON)
    assert fastest.status == 2  # --block and --blocks


@pytest.mark.slow
def test_the_objective_latency_takes_the_fastest_blocks(run: Callable) -> None:
    """The model has 1.25 ms for the convolution and DW+PW, fused, and 1 for GC(4).

    GC(4) has more parameters than DW+PW.
    """
    Path("blocks-cpu-test.json").write_text(json.dumps(model(shapes=[[16, 16, 4, 1]])))
    arguments = (*OWN, "--blocks-only", "--blocks", "DW+PW,GC(4)")
    arguments = (*arguments, "--latency", "blocks-cpu-test.json", *JSON)
    for objective, block, ms, form in (
        ("latency", "GC(4)", 1, "as is"),
        ("params", "DW+PW", 1.25, "fused"),
    ):
        report = run(*arguments, "--objective", objective).json
        assert {x["block"] for x in report["replaced"]} == {block}
        assert {tuple(x["latency_ms"]) for x in report["replaced"]} == {(1.25, ms)}
        assert {x["form"] for x in report["replaced"]} == {form}
        # The maps of 16 pixels are larger than those of the fit.
        assert {x["extrapolated"] for x in report["replaced"]} == {False, True}
        count = len(report["replaced"])
        assert report["blocks"]["latency_ms"] == [1.25 * count, ms * count]
        assert report["blocks"]["extrapolated"] == [True, True]


@pytest.mark.slow
def test_a_warm_start_prints_its_errors(run: Callable) -> None:
    command = (*OWN, "--block", ROLLING, "--warm-start")
    report = run(*command, *JSON).json
    assert len(report["replaced"]) == 6
    for layer in report["replaced"]:
        assert 0 < layer["fit"]["error"] < layer["fit"]["scaled"] <= 1 <= 3 * layer["fit"]["random"]
    ended = run(*command)
    (header,) = [line.split() for line in ended.out.splitlines() if line.startswith("layer ")]
    assert header[-4:] == ["error", "drawn", "unseen", "weights"]
    assert "what a fitted block leaves of its convolution's output" in ended.out


@pytest.mark.slow
def test_csv_has_rows_of_moves_and_layers(run: Callable) -> None:
    ended = run(*OWN, "--params", "10k", "--block", ROLLING, "--format", "csv", "--out", "a.md")
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    whats = [row["what"] for row in rows]
    moves = whats.count("move")
    assert moves > 0
    assert whats == [
        "before",
        *["move"] * moves,
        *["removed"] * whats.count("removed"),
        *["added"] * whats.count("added"),
        *["replaced"] * 3,
        *["kept"] * 3,
        "skipped",
        "after",
    ]
    assert (rows[moves]["taken"], rows[moves]["depths"]) == ("True", rows[-1]["depths"])
    first = rows[whats.index("replaced")]
    assert (first["params_before"], first["block"]) == ("2320", ROLLING)
    assert (rows[0]["params"], rows[-1]["params"] < "9999") == ("14436", True)
    assert Path("a.md").read_text().count("\n") == 2 + len(rows)


@pytest.mark.slow
def test_stages_that_cannot_move_stay(run: Callable, snapshot: Any) -> None:
    rigid = ("optimize", "net.py:Rigid", *SMALL)
    ended = run(*rigid, "--block", "DW+PW", *JSON)
    assert [layer["stride"] for layer in ended.json["replaced"]] == [2, 2]
    assert ended.json["stages"] is None
    assert ended.json["before"]["depths"] == ended.json["after"]["depths"] == [1, 1, 1]
    assert ended.err == snapshot
    assert "stay as they are" not in run(*rigid, "--block", "DW+PW", "--blocks-only").err
    for more in ((), ("--block", "DW+PW", "--moves", 1)):
        again = run(*rigid, *more)
        assert (again.status, again.out) == (2, "")
        assert "no unit of the network can move" in again.err
