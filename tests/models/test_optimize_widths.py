"""`ifspace optimize` with widths: what it prints, saves and refuses."""

import csv
import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from network_files import params
from syrupy.assertion import SnapshotAssertion

from ifspace.models import Recipe, load, parameter_groups

pytestmark = pytest.mark.usefixtures("one_thread", "net_file")

OWN = ("optimize", "net.py:make", "--input", "3x16x16")
JSON = ("--format", "json")


@pytest.mark.slow
def test_a_narrower_network(run: Callable, snapshot: SnapshotAssertion) -> None:
    ended = run(*OWN, "--widths-only", "--params", "7k")
    assert ended.out == snapshot
    report = run(*OWN, "--widths-only", "--params", "7k", *JSON).json
    assert report["after"]["params"] <= 7000 < report["before"]["params"]
    assert report["after"]["macs"] < report["before"]["macs"]
    assert report["widths"]["value"] <= report["widths"]["bound"]
    assert report["widths"]["narrowed_alike"]["params"] <= 7000
    names = [group["layers"][0] for group in report["widths"]["groups"]]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_a_narrower_network_is_saved_and_loaded_again(run: Callable) -> None:
    line = (*OWN, "--widths-only", "--params", "7k")
    report = run(*line, "--save", "net.safetensors", *JSON).json
    model = load("net.safetensors", trust_code=True)
    assert params(model) == report["after"]["params"]
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    # It has no blocks: all its weights decay alike, and the original is its teacher.
    recipe = Recipe.read("net.recipe.json")
    assert recipe == Recipe()
    assert [group["weight_decay"] for group in parameter_groups(model, recipe, 0.1)] == [0.1, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "status"),
    [
        ("--widths-only", 2),
        ("--widths-only --params 7k --cheapest", 2),
        ("--widths-only --params 7k --moves 1", 2),
        ("--widths-only --params 7k --classifier", 2),
        ("--params 7k --importance l1", 2),
        ("--widths-only --params 7k --importance l3", 2),
        ("--widths-only --params 7k --importance scores.csv", 2),
        ("--widths-only --params 100", 3),
        ("--widths-only --params 7k --objective keep", 2),
        ("--params 7k --objective most-macs", 2),
        ("--params 7k --keep-widths stem", 2),
        ("--params 7k --keep-depths", 2),
        ("--joint", 2),
        ("--joint --params 7k --cheapest", 2),
        ("--joint --params 7k --tie later", 2),
        ("--joint --params 7k --moves 0", 2),
        ("--joint --params 7k --keep-widths nothing", 2),
        ("--joint --latency-budget-ms 70%", 2),
        ("--joint --params 100", 3),
    ],
)
def test_errors_are_one_line(
    run: Callable, snapshot: SnapshotAssertion, options: str, status: int
) -> None:
    lines = ["layer,channel,importance", *(f"stem,{channel},1.5" for channel in range(3))]
    Path("scores.csv").write_text("\n".join(lines), encoding="utf-8")
    ended = run(*OWN, *options.split())
    assert ended.status == status
    assert ended.err.splitlines()[-1] == snapshot


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--widths-only", "--joint"])
def test_a_wider_network(run: Callable, way: str) -> None:
    line = (*OWN, way, "--params", "150%", "--macs", "150%", "--widen", "2")
    report = run(*line, "--save", "wide.safetensors", *JSON).json
    assert report["before"]["params"] < report["after"]["params"]
    assert report["after"]["params"] <= 1.5 * report["before"]["params"]
    assert params(load("wide.safetensors", trust_code=True)) == report["after"]["params"]
    run(*line, "--dry-run", "--out", "plan.json")
    again = run(*OWN, "--plan", "plan.json", *JSON).json
    assert again["after"]["params"] == report["after"]["params"]


@pytest.mark.slow
def test_widths_depths_and_blocks_together(run: Callable, snapshot: SnapshotAssertion) -> None:
    line = (*OWN, "--joint", "--params", "6k")
    ended = run(*line, "--save", "net.safetensors")
    assert ended.out == snapshot
    model = load("net.safetensors", trust_code=True)
    report = json.loads(Path("net.plan.json").read_text(encoding="utf-8"))
    assert "; recipe of training: net.recipe.json" in ended.err
    # A 3x3 convolution of 16 to 16 channels, with biases.
    decay = Recipe.read("net.recipe.json").weight_decay
    assert decay == pytest.approx({"7.0": 416 / 2320})
    assert params(model) == report["after"]["params"] <= 6000
    assert report["after"]["macs"] <= report["before"]["macs"]
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 4)
    design = report["design"]
    assert 0 < design["value"][0] <= design["bound"][0]
    # The plan makes the same network again, and another one where it is edited.
    again = run(*OWN, "--plan", "net.plan.json", "--dry-run", *JSON).json
    assert again["design"]["groups"] == design["groups"]
    assert (again["after"], again["changes"]) == (report["after"], report["changes"])
    assert {change["name"] for change in again["changes"]} >= {"2.0", "7.0"}
    edited = deepcopy(report)
    (block,) = (x for x in edited["design"]["blocks"] if x["name"] == "7.0")
    block["block"] = "DW+PW"
    group = next(x for x in edited["design"]["groups"] if x["after"] == 8)
    group["after"] = 12
    Path("edited.json").write_text(json.dumps(edited, indent=1), encoding="utf-8")
    other = run(*OWN, "--plan", "edited.json", "--save", "other.safetensors", *JSON).json
    names = {x["layers"][0]: x["after"] for x in other["design"]["groups"]}
    assert names[group["layers"][0]] == 12
    assert {x["name"]: x["block"] for x in other["design"]["blocks"]}["7.0"] == "DW+PW"
    assert params(load("other.safetensors", trust_code=True)) == other["after"]["params"]
    beyond = run(*OWN, "--plan", "edited.json")
    has = f"{other['after']['params']:,} parameters"
    expected = f"above its budget: {has}, and edited.json was made for at most 6,000 parameters"
    assert expected in beyond.err
    assert "above its budget" not in run(*OWN, "--plan", "net.plan.json").err
    over = run(*OWN, "--plan", "edited.json", "--params", "1k")
    assert over.status == 3
    amounts = f"got {other['after']['params']:,} parameters; allowed: 1,000 parameters"
    assert f"a plan over its budgets: {amounts}" in over.err
    # As CSV a row for each layer that changes.
    table = run(*OWN, "--plan", "edited.json", "--format", "csv").out.splitlines()
    rows = [row for row in csv.DictReader(table) if row["what"] == "changed"]
    assert [(row["name"], int(row["params_before"]), int(row["params"])) for row in rows] == [
        (change["name"], *change["params"]) for change in other["changes"]
    ]
    group["after"], errors = 7.5, []
    for key, value in (("groups", 7.5), ("blocks", "GPW(3)"), ("removed", ["stem"])):
        wrong = deepcopy(report)
        if key == "groups":
            wrong["design"][key][0]["after"] = value
        elif key == "blocks":
            wrong["design"][key][0]["block"] = value
        else:
            wrong["design"][key] = value
        Path("wrong.json").write_text(json.dumps(wrong, indent=1), encoding="utf-8")
        ended = run(*OWN, "--plan", "wrong.json")
        assert ended.status == 2
        errors.append(ended.err.splitlines()[-1])
    assert errors == snapshot
    kept = run(*line, "--keep-depths", "--keep-widths", "*", *JSON).json
    assert kept["design"]["groups"] == []
    assert kept["design"]["blocks"]
    assert not kept["design"]["removed"]
    assert kept["after"]["depths"] == kept["before"]["depths"]


@pytest.mark.slow
def test_units_that_go_are_gone_from_depths_and_widths(
    run: Callable, snapshot: SnapshotAssertion
) -> None:
    line = (*OWN, "--joint", "--macs", "20%", "--objective", "keep")
    ended = run(*line)
    assert ended.out == snapshot
    report = run(*line, *JSON).json
    assert [report[at]["depths"] for at in ("before", "after")] == [[3, 4], [1, 1]]
    layers = {layer for group in report["design"]["groups"] for layer in group["layers"]}
    assert layers.isdisjoint({"2.0", "3.0", "6.0", "7.0", "8.0"})


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--joint", "--widths-only"])
def test_budgets_that_are_kept_change_nothing(run: Callable, way: str) -> None:
    report = run(*OWN, way, "--params", "15k", "--macs", "110%", *JSON).json
    before, after = report["before"], report["after"]
    assert after == before
    text = run(*OWN, way, "--params", "15k", "--macs", "110%").out
    assert text.startswith("Nothing changes\n\nbudget  not below the network as it is, which has ")
