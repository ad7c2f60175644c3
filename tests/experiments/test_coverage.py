"""Which networks pass each step: the choice of networks, the steps, and going on after a cut."""

import csv
from pathlib import Path

import pytest

from experiments.coverage.__main__ import NETWORKS, PAGE, ROWS, main
from experiments.coverage.networks import Candidate, candidate, chosen, families
from experiments.coverage.page import page
from experiments.coverage.rows import Row, Rows
from experiments.coverage.steps import STEPS, Limits, Outcome, outcome_of, outcomes
from ifspace.errors import SettingError

IMAGE = (3, 64, 64)
SMALL = ("timm:test_resnet", "timm:test_efficientnet")


def _candidate(name: str, family: str, params: int, convs: int = 9) -> Candidate:
    return Candidate(name, family, params, convs, IMAGE, fixed=False)


def test_the_choice_is_the_smallest_of_each_file_of_timm_and_all_of_torchvision() -> None:
    candidates = [
        _candidate("timm:resnet50", "resnet", 25_557_032),
        _candidate("timm:resnet18", "resnet", 11_689_512),
        _candidate("timm:gernet_s", "byobnet", 2_000_000),
        _candidate("timm:mobileone_s0", "byobnet", 5_293_272),
        _candidate("torchvision:vgg19", "classification", 143_667_240),
    ]
    assert [network.network for network in chosen(candidates)] == [
        "timm:gernet_s",
        "timm:mobileone_s0",
        "timm:resnet18",
        "torchvision:vgg19",
    ]


def test_the_names_are_those_of_both_packages() -> None:
    names = families()
    assert names["timm:mobileone_s0"] == "byobnet"
    assert names["torchvision:fcos_resnet50_fpn"] == "detection"
    assert names["torchvision:fcn_resnet50"] == "segmentation"
    assert names["torchvision:resnet18"] == "classification"
    assert not names.keys() & {"torchvision:r3d_18", "torchvision:raft_small", *SMALL}


def test_a_network_is_counted_on_its_default_image() -> None:
    row = candidate("torchvision:resnet18", "classification")
    assert (row.params, row.convs, row.image) == (11_689_512, 20, (3, 224, 224))
    assert row.at_most(96) == (3, 96, 96)
    assert candidate("timm:vit_tiny_patch16_224", "vit").at_most(96) == (3, 224, 224)


@pytest.mark.parametrize(
    ("error", "status", "why"),
    [
        (SettingError("no units: got 3; allowed: 4; do"), "refused", "no units, 3"),
        (MemoryError(), "memory", ""),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"), "memory", ""),
        (KeyError("x"), "fault", "KeyError: 'x'"),
    ],
)
def test_what_came_of_a_step(error: Exception, status: str, why: str) -> None:
    def step() -> str:
        raise error

    outcome = outcome_of("save", step)
    assert (outcome.step, outcome.status, outcome.why) == ("save", status, why)


def test_only_steps_are_left_that_were_not_done_and_can_be(tmp_path: Path) -> None:
    rows = Rows(tmp_path / ROWS, ())
    network = _candidate("timm:a", "a", 10)
    assert rows.left("timm:a", STEPS) == list(STEPS)
    for step, status in (
        ("analyze", "yes"),
        ("stages", "refused"),
        ("blocks", "yes"),
        ("blocks save", "time"),
    ):
        rows.add(network, IMAGE, Outcome(step, status, "why, so", 1.5), "abc")
    assert rows.left("timm:a", STEPS) == ["blocks train", "blocks onnx"]
    assert rows.left("timm:b", STEPS) == list(STEPS)
    again = Rows.read(tmp_path / ROWS)
    assert again.get("timm:a", "blocks save") == Row(
        "timm:a", "a", 10, "3x64x64", "blocks save", "time", 1.5, "why, so", "abc"
    )
    again.forget(["refused"], ["timm:b"])
    assert again.get("timm:a", "stages") is not None
    again.forget(["refused"], ["timm:a"])
    assert again.left("timm:a", STEPS)[:2] == ["stages", "stages train"]


def test_what_is_loaded_is_saved_in_the_same_run(tmp_path: Path) -> None:
    rows = Rows(tmp_path / ROWS, ())
    network = _candidate("timm:a", "a", 10)
    for step in ("analyze", "blocks", "blocks save"):
        rows.add(network, IMAGE, Outcome(step, "yes", "", 1.5), "abc")
    left = ["blocks train", "blocks save", "blocks load", "blocks onnx"]
    assert [step for step in rows.left("timm:a", STEPS) if step.startswith("blocks")] == left
    rows.add(network, IMAGE, Outcome("blocks load", "yes", "", 1.5), "abc")
    assert "blocks save" not in rows.left("timm:a", STEPS)


def test_the_page(tmp_path: Path, snapshot: object) -> None:
    rows = Rows(tmp_path / ROWS, ())
    networks = [
        _candidate("timm:a", "a", 10),
        _candidate("torchvision:b", "classification", 20, convs=0),
        _candidate("torchvision:c", "detection", 30),
        _candidate("torchvision:d", "classification", 40),
    ]
    for network, step, status, why in (
        (networks[0], "analyze", "yes", "9 layers in 1 stages"),
        (networks[0], "stages", "yes", "6 of 10 parameters"),
        (networks[0], "stages train", "time", "over 60 s"),
        (networks[0], "blocks", "refused", "no convolution, 3"),
        (networks[1], "analyze", "refused", "a network without convolutions"),
        (networks[2], "analyze", "refused", "a network without convolutions"),
    ):
        seconds = None if status == "time" else 1.25
        rows.add(network, IMAGE, Outcome(step, status, why, seconds), "abc")
    assert page(networks, rows, "`a command`") == snapshot


@pytest.mark.slow
def test_the_steps_of_a_network() -> None:
    """The result of each step is checked by the step itself; here that all of them are reached."""
    row = candidate("torchvision:resnet18", "classification")
    whole = list(outcomes(row, IMAGE, STEPS, Limits()))
    assert [outcome.step for outcome in whole] == list(STEPS)
    assert {outcome.status for outcome in whole} == {"yes"}, whole


@pytest.mark.slow
def test_a_step_over_its_limit_ends_and_the_next_one_is_done() -> None:
    row = candidate("timm:test_resnet", "resnet")
    (slow,) = outcomes(row, IMAGE, STEPS, Limits(time_s=0.01))
    assert (slow.step, slow.status, slow.why) == ("analyze", "time", "over 0.01 s")
    steps = ("stages", "blocks")
    both = list(outcomes(row, IMAGE, steps, Limits(time_s=0.01)))
    assert [(outcome.step, outcome.status) for outcome in both] == [
        ("stages", "time"),
        ("blocks", "time"),
    ]
    (large,) = outcomes(row, IMAGE, ("stages",), Limits(memory=1 << 20))
    assert large.status in ("memory", "fault")


@pytest.mark.slow
def test_the_same_command_goes_on_where_it_stopped(tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path), "--side", "64", "--steps", "analyze", "--names"]
    main([*arguments, SMALL[0]])
    first = (tmp_path / ROWS).read_text()
    main([*arguments, *SMALL])
    both = (tmp_path / ROWS).read_text()
    assert both.startswith(first)  # times included: it was not measured again
    with (tmp_path / ROWS).open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["step"], row["status"]) for row in rows] == [
        (name, "analyze", "yes") for name in SMALL
    ]
    main([*arguments, *SMALL])
    assert (tmp_path / ROWS).read_text() == both
    assert "| timm:test_resnet " in (tmp_path / PAGE).read_text()
    assert (tmp_path / NETWORKS).read_text().count("\n") == 3
    assert f"[{ROWS}]({ROWS})" in (tmp_path / "README.md").read_text()
