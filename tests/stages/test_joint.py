"""Decisions taken together: types of stages, widths inside blocks, strides, forms, activations."""

import json
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from ifspace.floors import Floors
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.models.tracing import trace
from ifspace.nn import build_network
from ifspace.nn.files import load
from ifspace.stages.entry import layout
from ifspace.stages.networks import network
from ifspace.stages.objectives import OBJECTIVES, total

SMALL = ("layout", "--stages", "16,8", "--params", "60k", "--macs", "3M", "--quiet")
JSON = ("--format", "json")


def plan(run: Callable, *options: Any) -> Any:
    values = run(*SMALL, *options, *JSON).json
    assert values["status"] == "optimal"
    return values["plans"][0]


TYPED = {
    "inverted": ("--expansions", "1,2,3,6"),
    "bottleneck": ("--types", "bottleneck", "--bottlenecks", "1/4,1/2,24"),
    "mixed": ("--types", "basic,plain;inverted", "--strides", "free", "--activations", "30k"),
    "plain style": ("--style", "plain", "--types", "inverted;bottleneck"),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fvcore compiles losses of its own
@pytest.mark.parametrize("case", TYPED)
def test_a_saved_network_has_exactly_what_the_plan_counts(
    run: Callable, tmp_path: Path, case: str
) -> None:
    file = tmp_path / "net.safetensors"
    values = plan(run, *TYPED[case], "--save", file)
    built = load(file)
    images = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    built.eval()
    fvcore = import_module("fvcore.nn")
    flops = fvcore.FlopCountAnalysis(built, images[:1]).unsupported_ops_warnings(False)
    written = fvcore.ActivationCountAnalysis(built, images[:1]).unsupported_ops_warnings(False)
    operators = flops.by_operator()
    assert sum(parameter.numel() for parameter in built.parameters()) == values["params"]
    assert operators["conv"] + operators["linear"] == values["macs"]
    assert written.total() == values["activations"]
    live = trace(build_network(built.layout, built.style, device="meta"), (3, 16, 16)).live
    assert live is not None
    assert live.peak == values["peak_elements"]
    # It trains: a gradient for every parameter, and the variance of what enters is kept.
    built.train()
    logits = built(images)
    torch.nn.functional.cross_entropy(logits, torch.arange(16) % 10).backward()
    assert all(parameter.grad is not None for parameter in built.parameters())
    assert 1 / 3 < logits.std() / images.std() < 3
    kinds = [module.shortcut_kind for module in built.modules() if hasattr(module, "shortcut_kind")]
    for number, (kind, depth) in enumerate(zip(values["types"], values["depths"], strict=True)):
        stage = built.stages[number]
        joined = [m.shortcut_kind for m in stage.modules() if hasattr(m, "shortcut_kind")]
        same = stage[-1].sized.channels == built.layout.stages[number].first.channels
        first = {"residual": "projection", "plain": "none"}.get(kind)
        if kind == "inverted":
            opens = same and values["strides"][number] == 1
            first = "identity" if opens else "none"
            # The projection of an inverted residual is linear.
            assert not any(name.endswith("layer2_act") for name, _ in stage.named_modules())
        others = "none" if kind == "plain" else "identity"
        assert joined == [first, *[others] * (depth - 1)]
    assert len(kinds) == sum(values["depths"])


def test_an_expansion_of_one_leaves_the_expanding_layer_out(run: Callable) -> None:
    values = plan(run, "--expansions", "1")
    assert set(values["blocks"]) == {"DW+PW"}
    assert (values["expansions"], values["types"]) == (["1", "1"], ["inverted"] * 2)
    fixed = ("--widths", "16,32", "--objective", "macs-3/4", "--max-depth", 4)
    single = [plan(run, "--expansions", e, *fixed)["macs-3/4"] for e in "12346"]
    assert plan(run, "--expansions", "1,2,3,4,6", *fixed)["macs-3/4"] >= max(single)


def test_the_table_says_expansions_and_types(run: Callable, snapshot: object) -> None:
    out = run(*SMALL, "--types", "inverted;basic,bottleneck", "--strides", "free").out
    assert out == snapshot


def test_free_strides_are_as_good_as_the_best_pattern() -> None:
    amounts: dict[str, Any] = {"params": 60_000, "macs": 3_000_000, "blocks": [["DW+PW"]]}
    widths = {"widths": (16, 24, 32), "objective": "macs-3/4", "max_depth": 4, "style": "plain"}
    free = layout(stages=(16, 16, 8), strides="free", **amounts, **widths)
    best = []
    for strides in product((1, 2), repeat=3):
        if strides.count(2) == 1:
            sides = [16]
            for stride in strides[:-1]:
                sides.append(sides[-1] // stride)
            answer = layout(stages=sides, strides=strides, **amounts, **widths)
            best.append((answer.plans[0].objective(), strides))
    first = free.plans[0]
    value, strides = max(best)
    assert (free.status.name, len(best)) == ("OPTIMAL", 3)
    assert first.objective() == pytest.approx(value)
    assert tuple(stage.stride for stage in first.layout.stages) == strides
    assert first.layout.stages[-1].side_out == 8


def test_free_strides_of_a_network(run: Callable) -> None:
    command = ("layout", "--network", "mobilenet", "--widths", "start", "--strides", "free")
    values = run(*command, "--objective", "macs-3/4", "--stage", "1:stride=1", *JSON).json
    (best,) = values["plans"]
    assert best["strides"][0] == 1
    assert best["strides"].count(2) == 4
    start = total(OBJECTIVES["macs-3/4"], network("mobilenet", 32), 3)
    assert best["macs-3/4"] >= start
    run("layout", "--network", "vgg16", "--strides", "free").fails_with(
        "free strides of stages that are pooled: got feature maps pooled before stage 2, 3, 4 and",
        "describe the stages by --stages",
    )


def test_forms_are_the_cheapest_groups_of_each_least_fan_in() -> None:
    # More MACs are allowed than the cheapest groups have at any width: the others spend them.
    options: dict[str, Any] = {
        "stages": (8, 4),
        "widths": (16, 32),
        "blocks": [["DW+GPW+SH+GPW"]],
        "style": "bare",
        "inputs": 16,
        "objective": "macs-3/4",
        "params": 10**6,
        "max_depth": 3,
    }
    cheapest, front = (layout(**options, forms=forms) for forms in ("cheapest", "front"))
    assert front.plans[0].objective() > cheapest.plans[0].objective()
    last = front.plans[0].layout.stages[1].repeated
    setting = GroupsProblem(last.block.composition, 32, 32)
    fronts = {}
    for least in range(1, 33):
        answer = cheapest_groups(
            GroupsProblem(last.block.composition, 32, 32, floors=Floors(least_fan_in=least))
        )
        if answer.best is not None:
            fronts[answer.best.sized.params] = answer.best.sized.least_fan_in
    assert last.params == max(fronts)
    assert last.least_fan_in == fronts[last.params] > cheapest.plans[0].layout.least_fan_in
    assert setting.amount(last.block) == last.params


@pytest.mark.slow
def test_blocks_of_a_front_are_choices_where_they_have_the_full_field(
    run: Callable, tmp_path: Path
) -> None:
    file = tmp_path / "front.parquet"
    run("enumerate", "--channels", 16, "--max-len", 2, "--front", "--out", file, "--quiet")
    values = run(*SMALL, "--style", "plain", "--blocks", file, *JSON).json
    (best,) = values["plans"]
    named = json.loads(run("best", file, "--top", 99, *JSON).out)["designs"]
    assert set(best["blocks"]) <= {design["block"] for design in named}
    # All channels that enter: of the image's stem, and of the stage before.
    assert best["stages"][1]["field"][1] == best["widths"][0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--expansions", "6", "--blocks", "DW+PW"), ["widths inside blocks that have none"]),
        (("--bottlenecks", "1/4", "--types", "basic"), ["--bottlenecks for CONV+CONV"]),
        (("--types", "odd"), ["--types", "plain, basic, bottleneck, inverted"]),
        (("--expansions", "0"), ["--expansions", "ratios above 0"]),
        (
            ("--bottlenecks", "5/2"),
            ["--bottlenecks", "ratios above 0 and below 1 such as 1/4, or channels"],
        ),
        (
            ("--expansions", "2,3", "--stage", "2:expansion>=4"),
            ["limits that leave stage 2 no expansion", "got expansion from 4", "some of 2, 3"],
        ),
        (
            ("--stage", "1:expansion<=4"),
            ["limits that leave stage 1 no expansion", "none: no block has one"],
        ),
        (("--stage", "1:stride>=2"), ["limits that leave stage 1 no stride", "--strides free"]),
        (
            ("--strides", "free", "--stage", "1:stride=2", "--stage", "2:stride=2"),
            ["strides that do not lead to the last feature maps"],
        ),
        (("--strides", "1,2,3"), ["wrong number of --strides: got 3 for 2 stages"]),
        (
            ("--expansions", "7/5", "--widths", "16,24"),
            ["PW+DW+PW with expansion 7/5, inverted from 16 to 16 channels is not legal"],
        ),
        (("--style", "mobilenet", "--types", "bottleneck"), ["does not fit --style mobilenet"]),
    ],
)
def test_choices_that_cannot_be_are_one_line(
    run: Callable, options: Sequence[str], words: list[str]
) -> None:
    run(*SMALL, *options).fails_with(*words)


def test_limits_of_expansion_and_stride_are_kept(run: Callable) -> None:
    limits = ("--stage", "1:expansion<=2,stride=1", "--stage", "2:expansion>=3")
    values = plan(run, "--expansions", "1,2,3,6", "--strides", "free", *limits)
    assert Fraction(values["expansions"][0]) <= 2
    assert Fraction(values["expansions"][1]) >= 3
    assert values["strides"] == [1, 2]


def test_the_least_activations_of_a_layout(run: Callable) -> None:
    ended = run(*SMALL, "--expansions", "3,6", "--activations", "100", *JSON)
    assert ended.status == 3
    least = ended.json["least"]["activations"]
    assert f"{least:,} activations" in ended.err
    values = run(*SMALL, "--expansions", "3,6", "--activations", least, *JSON).json
    assert [p["activations"] for p in values["plans"]] == [least]
    assert network("mobilenet", 32).activations > 0


def test_a_network_that_is_not_built_in_is_for_optimize(run: Callable) -> None:
    run("layout", "--network", "resnet18", "--params", "5M").fails_with(
        "unknown --network: got 'resnet18'", "`ifspace optimize` takes other networks"
    )
