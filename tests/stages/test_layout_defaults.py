"""What `ifspace layout` does without options: layouts that spend a budget, worth building."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ifspace.floors import NO_FLOORS
from ifspace.stages.entry import layout, layout_problem, widths_around
from ifspace.stages.networks import network
from ifspace.stages.objectives import OBJECTIVES

WIDTHS = "16,24,32,48,64,96,128,192,256"
RESNET = network("resnet50", 224)
# The three that left most of a budget, or put it all into one stage.
CASES = {
    "narrowest": ("--stages", "32,16,8,4", "--width-choices", WIDTHS),
    "in a row": ("--stages", "32,16,8", "--blocks", "DW+PW"),
    "resnet50": ("--network", "resnet50", "--input", "3x224x224"),
}
BUDGETS = {
    "narrowest": ("--params", "2M", "--macs", "300M"),
    "in a row": ("--params", "2M", "--macs", "300M"),
    "resnet50": ("--params", "25.6M"),
}


def binding_share(values: Mapping[str, Any]) -> float:
    """Return which part is spent of the budget that binds first."""
    (plan, *_) = values["plans"]
    return float(plan["shares"][next(iter(plan["binding"]["exceeding"]))])


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_binding_budget_is_spent(run: Callable, case: str) -> None:
    values = run("layout", *CASES[case], *BUDGETS[case], "--quiet", "--format", "json").json
    (plan,) = values["plans"]
    assert (values["status"], values["objective"]) == ("optimal", "macs-3/4")
    assert binding_share(values) >= 0.9
    assert max(plan["depths"]) <= (12 if case == "resnet50" else 4)
    if "--width-choices" not in CASES[case]:
        assert binding_share(values) >= 0.99
        # No stage could have 8 channels more.
        for stage, widths in zip(plan["stages"], values["width_choices"], strict=True):
            step = stage["eight_more_channels"]
            assert step["exceeds"] or stage["width"] == max(widths)
    if case == "resnet50":
        # Where parameters alone are bounded, MACs do not grow.
        assert (values["kept"], values["budgets"]["macs"]) == (["macs"], RESNET.macs)
        assert plan["macs"] <= RESNET.macs
        pairs = zip(plan["depths"], RESNET.depths, strict=True)
        assert all(depth <= 2 * start for depth, start in pairs)


def test_what_binds_is_said(run: Callable) -> None:
    out = run("layout", "--stages", "16,8", "--params", "60k", "--macs", "3M", "--quiet").out
    assert out.startswith("Greatest Σ MACs^(3/4), widths free, within 60,000 parameters, 3,000,000")
    (line,) = [line for line in out.splitlines() if line.startswith("binds")]
    assert line.split(",")[0].split() in (["binds", "params"], ["binds", "MACs"])


def test_widths_are_free_unless_they_are_fixed() -> None:
    def problem(**options: Any) -> Any:
        description = dict.fromkeys(("stages", "depths", "widths", "inputs", "network", "input"))
        description |= {"style": None if "network" in options else "bare", "classes": None}
        others = {"blocks": None, "width_choices": None, "monotone": False, "max_depth": None}
        others |= {"objective": None, "latency": None, "latency_budget_ms": None, "cap": "input"}
        others |= {"stage": (), "params": 10**7, "macs": None, "layers": None, "floors": NO_FLOORS}
        for name, value in options.items():
            (description if name in description else others)[name] = value
        return layout_problem(description, kernel=None, alpha=3, **others)

    free = problem(network="vgg16")
    assert (free.objective, free.width_choices[0]) == ("macs-3/4", widths_around(64))
    assert free.max_depth == (4, 4, 6, 6, 6)
    fixed = problem(network="vgg16", widths="start")
    assert (fixed.objective, fixed.widths) == ("gain", None)
    assert problem(network="vgg16", width_choices=((64,),)).objective == "gain"
    assert problem(network="vgg16", objective="energy", max_depth=3).max_depth == 3
    # Without depths: as many blocks in every stage as the budgets allow.
    even = problem(stages=(32, 16), widths=(64, 128), params=600_000)
    assert (even.start.depths, even.max_depth) == ((3, 3), (6, 6))
    assert even.start.params <= 600_000 < even.start.at_depths((4, 4)).params
    doubling = problem(stages=(32, 16, 8), params=10**6)
    assert doubling.start.depths == (2, 2, 2)
    assert doubling.start.widths == (56, 112, 224)
    assert doubling.start.params <= 10**6


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_is_proven_and_the_others_stand_beside(objective: str) -> None:
    answer = layout(stages=[8, 4], params=20_000, objective=objective, top=2)
    first, second = answer.plans
    assert answer.status.name == "OPTIMAL"
    assert list(first.objectives) == list(OBJECTIVES)
    assert answer.bound == first.objectives[objective] >= second.objectives[objective]


STAGED = ("layout", "--stages", "16,8", "--params", "60k", "--quiet", "--format", "json")


def test_limits_of_a_stage_are_kept(run: Callable) -> None:
    def plan(*limits: str) -> Any:
        options = [word for limit in limits for word in ("--stage", limit)]
        return run(*STAGED, *options).json["plans"][0]

    free = plan()
    assert (free["depths"][1], free["widths"][0]) != (3, 48)
    limited = plan("2: depth=3", "1:width=48")
    assert (limited["depths"][1], limited["widths"][0]) == (3, 48)
    # Beyond twice the depth of the start, and widths of those that are tried.
    deeper = plan("1:depth>=6,width<=24")
    assert deeper["depths"][0] >= 6
    assert deeper["widths"][0] <= 24
    assert plan("1:depth<=9")["macs-3/4"] >= free["macs-3/4"]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ("1:depth<=2,depth>=3", ["limits of stage 1 that contradict", "depth from 3 to 2"]),
        ("3:depth<=2", ["limits of a stage that is not there: got 3; allowed: 1 to 2"]),
        ("1:width>=999", ["limits that leave stage 1 no width", "--width-choices"]),
        ("1:depth<=0", ["limits of stage 1 that contradict"]),
        ("1:size=3", ["--stage cannot be read: got 'size=3'"]),
        ("depth<=3", ["--stage cannot be read"]),
        ("2:", ["--stage cannot be read"]),
    ],
)
def test_limits_that_cannot_be_kept_are_an_error(
    run: Callable, limits: str, words: list[str]
) -> None:
    run(*STAGED, "--stage", limits).fails_with(*words)


def test_limits_of_one_stage_hold_together(run: Callable) -> None:
    for first, second in (("depth<=2", "depth>=3"), ("width=48", "width=56")):
        limits = ("--stage", f"1:{first}", "--stage", f"1:{second}")
        run(*STAGED, *limits).fails_with("limits of stage 1 that contradict each other")
    run(*STAGED, "--widths", "64,128", "--stage", "1:width=48").fails_with(
        "limits that leave stage 1 no width: got width from 48 to 48; allowed: some of 64"
    )
