"""`ifspace optimize` on stages: JSON contract, states, budgets and published states."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from network_files import FILE, params
from torch import Tensor, nn

import ifspace.models as m
from ifspace.errors import SettingError
from ifspace.stages.networks import mobilenet, network
from ifspace.stages.organizer import organize
from ifspace.table import widest

pytestmark = pytest.mark.usefixtures("one_thread", "net_file")

SMALL = ("--input", "3x16x16")
OWN = ("optimize", "net.py:make", *SMALL)
ROLLING = "DW+RPW(2,1/2)"
JSON = ("--format", "json")
VGG = ("optimize", "vgg16", "--input", "3x32x32")


@pytest.mark.slow
def test_the_json_keeps_its_contract(run: Callable) -> None:
    ended = run(*VGG, *JSON)
    assert (ended.status, ended.err) == (0, "")
    report, trajectory = ended.json, organize(network("vgg16", 32))
    for name, layout in (("before", trajectory.start), ("after", trajectory.end)):
        assert {key: report[name][key] for key in ("params", "macs", "depths")} == {
            "params": layout.params,
            "macs": layout.macs,
            "depths": list(layout.depths),
        }
        assert report[name]["gain"] == pytest.approx(layout.gain())
    moves = [(move["source"], move["target"], move["depths"]) for move in report["moves"]]
    assert moves == [(move.source, move.target, list(move.depths)) for move in trajectory.moves]
    assert [move["params"] for move in report["moves"]] == [
        e.params for e in trajectory.layouts[1:]
    ]
    assert [move["macs"] for move in report["moves"]] == [e.macs for e in trajectory.layouts[1:]]
    assert [move["taken"] for move in report["moves"]] == [False] * 4 + [True]
    assert (report["replaced"], report["saved"], report["message"]) == ([], None, None)
    assert report["ratios"]["params"] == trajectory.end.params / trajectory.start.params
    assert report["stages"]["sides"] == [32, 16, 8, 4, 2]


@pytest.mark.slow
@pytest.mark.parametrize("moves", [0, 3, 5])
def test_every_state_can_be_taken_and_all_are_shown(run: Callable, moves: int) -> None:
    report = run(*VGG, "--moves", moves, *JSON).json
    state = organize(network("vgg16", 32)).layouts[moves]
    assert (report["after"]["depths"], report["stages"]["taken"]) == (list(state.depths), moves)
    assert (report["after"]["params"], report["after"]["macs"]) == (state.params, state.macs)
    assert len(report["moves"]) == 5


@pytest.mark.slow
def test_every_unit_that_is_removed_or_added_is_listed(run: Callable) -> None:
    stages = run(*VGG, *JSON).json["stages"]
    assert stages["removed"] == [
        "block 3 of stage 3",
        "block 2 of stage 4",
        "block 3 of stage 4",
        "block 2 of stage 5",
        "block 3 of stage 5",
    ]
    behind = "block 2 of stage {}".format
    assert stages["added"] == [
        {"behind": behind(number), "like": behind(number), "count": count, "channels": None}
        for number, count in ((1, 3), (2, 2))
    ]
    rows = [line.split(",") for line in run(*VGG, "--format", "csv").out.splitlines()]
    names = [row[rows[0].index("name")] for row in rows if row[0] == "removed"]
    assert names == stages["removed"]
    text = run(*OWN, "--stages-only", "--params", "10k").out
    report = run(*OWN, "--stages-only", "--params", "10k", *JSON).json["stages"]
    assert report["removed"]
    assert all(name in text for name in report["removed"])
    assert (
        run(*OWN, "--params", "10k", "--blocks-only", "--block", "DW+PW", *JSON).json["stages"]
        is None
    )


@pytest.mark.slow
def test_beyond_the_last_move_the_last_state_is_taken(run: Callable, snapshot: Any) -> None:
    ended = run(*VGG, "--moves", 9, *JSON)
    assert ended.json["after"]["depths"] == [5, 4, 2, 1, 1]
    assert ended.err == snapshot


@pytest.mark.slow
def test_the_table_has_a_row_for_each_state(run: Callable, snapshot: Any) -> None:
    assert run(*VGG, "--moves", 3).out == snapshot


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "image"),
    [
        ("vgg16", "3x32x32"),
        ("torchvision:vgg16", "3x224x224"),
        ("torchvision:vgg16_bn", "3x32x32"),
        ("torchvision:vgg19", "3x224x224"),
        ("torchvision:resnet50", "3x224x224"),
        ("timm:mobilenetv1_100", "3x224x224"),
    ],
)
def test_which_state_was_published_is_printed(
    run: Callable, snapshot: Any, model: str, image: str
) -> None:
    lines = run("optimize", model, "--input", image).out.splitlines()
    assert [line for line in lines if "[3DRF] Table" in line] == snapshot


@pytest.mark.slow
def test_which_gain_counts_the_stem_is_said(run: Callable) -> None:
    with_stem, blocks = mobilenet(32, stem_counts=True), mobilenet(32)
    end = (4, 3, 3, 2, 1)
    ended = run("optimize", "mobilenet", "--input", "3x32x32")
    rows = [line.split() for line in ended.out.splitlines() if line]
    assert [row[2] for row in rows if row[0] == "0"] == [f"{blocks.gain():.2f}"] == ["4.97"]
    gains = [row[-2] for row in rows if row[0] in ("before", "after")]
    # The depths of a layout whose stem counts have it as one more in stage 1.
    assert gains == [f"{with_stem.gain():.2f}", f"{with_stem.at_depths((5, *end[1:])).gain():.2f}"]
    says_so = "the stem is the first layer"
    assert says_so in ended.out
    assert says_so not in run(*VGG).out


@pytest.mark.slow
def test_networks_of_the_user_have_no_published_states(run: Callable) -> None:
    Path("vgg16.py").write_text(FILE)
    report = run("optimize", "vgg16.py:make", "--input", "3x32x32", *JSON).json
    assert report["published"] == []


@pytest.mark.slow
def test_stages_meet_a_budget_with_proof(run: Callable, snapshot: Any) -> None:
    image = (3, 16, 16)
    better = m.reorganize(m.network("net.py:make", image), image, m.Budgets(params="10k"))
    model, plan = better.model, better.plan
    report = run(*OWN, "--stages-only", "--params", "10k", *JSON).json
    assert (report["after"]["params"], report["stages"]["status"]) == (params(model), "optimal")
    assert report["after"]["depths"] == list(plan.end.depths)
    assert run(*OWN, "--stages-only", "--params", "20k").out == snapshot


@pytest.mark.slow
def test_depths_outside_the_trajectory_have_their_own_row(run: Callable) -> None:
    ended = run(*VGG, "--stages-only", "--params", "9M", "--macs", "300M")
    (row,) = [line.split() for line in ended.out.splitlines() if line.startswith("b ")]
    assert row[-1] == "taken"
    assert "keeps the budgets" not in ended.out
    report = run(*VGG, "--stages-only", "--params", "9M", "--macs", "300M", *JSON).json
    assert (report["stages"]["taken"], ",".join(map(str, report["after"]["depths"]))) == (
        "b",
        row[1],
    )
    assert report["after"]["params"] <= 9e6
    assert report["after"]["macs"] <= 300e6


@pytest.mark.slow
def test_nothing_is_wider_than_a_terminal(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (80, 120):
        monkeypatch.setattr("ifspace.table.terminal_width", lambda width=width: width)
        assert widest(run(*OWN, "--params", "10k", "--block", ROLLING).out) <= width
        assert widest(run(*VGG, "--stages-only", "--params", "9M", "--macs", "300M").out) <= width


@pytest.mark.slow
def test_without_a_file_no_weight_has_a_value(run: Callable) -> None:
    ended = run(*OWN, "--block", "DW+PW", *JSON)
    assert ended.err == "the file runs\nweights on meta\n"


@pytest.mark.slow
def test_activations_and_latencies_that_grow_are_said(run: Callable) -> None:
    rows = ["block,C,F,side,stride,batch,device,dtype,latency_ms"]
    rows += [f"CONV,16,16,{side},1,1,cpu,float32,{ms}" for side, ms in ((16, 4), (4, 1))]
    Path("table.csv").write_text("\n".join(rows) + "\n")
    arguments = (*OWN, "--moves", 1, "--latency", "table.csv")
    report = run(*arguments, *JSON).json
    image = (3, 16, 16)
    start = m.network("net.py:make", image)
    for name, model in (("before", start), ("after", m.reorganize(start, image, moves=1).model)):
        # Views, such as of nn.Flatten, write nothing.
        written = [
            (model.get_submodule(layer), tensor)
            for layer, tensor in outputs_of(model, image).items()
        ]
        assert report[name]["activations"] == sum(
            y.numel() for layer, y in written if not isinstance(layer, nn.Flatten)
        )
        sides = [y.shape[-1] for layer, y in written if getattr(layer, "in_channels", 0) == 16]
        assert report[name]["latency_ms"] == sum({16: 4, 4: 1}[side] for side in sides)
        assert (report[name]["timed"], report[name]["layers"]) == (len(sides), len(sides) + 1)
    # A move from side 4 to side 16: two feature maps of 16 channels each more, and as many less.
    before, after = report["before"]["activations"], report["after"]["activations"]
    assert after - before == 2 * 16 * (16**2 - 4**2)
    ended = run(*arguments)
    assert f"training activations to {after / before:.2f} times, {after:,} an image" in ended.out
    assert "12.000 (6 of 7 layers) before, 15.000 (6 of 7 layers) after: 1.25 times" in ended.out
    assert "latencies of cpu, batch 1, fp32" in ended.err


def outputs_of(model: nn.Module, image: tuple[int, int, int]) -> dict[str, Tensor]:
    """Return what the leaf modules of a network write for an image, by name."""
    outputs: dict[str, Tensor] = {}
    for name, leaf in model.named_modules():
        if not list(leaf.children()):
            leaf.register_forward_hook(lambda _, __, y, name=name: outputs.__setitem__(name, y))
    model(torch.zeros(1, *image))
    return outputs


@pytest.mark.parametrize(
    ("amounts", "words"),
    [
        ({"latency_ms": 3}, r"a budget of latency_ms where they are not counted"),
        ({"latency_ms": "70%"}, r"a share of an amount that is not known: got 70% of the milli"),
        ({"activations": 9}, r"a budget of activations where they are not counted"),
    ],
)
def test_budgets_that_stages_alone_cannot_keep_are_refused(
    amounts: dict[str, Any], words: str
) -> None:
    chain = m.EditedNetwork.of(nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))))
    problem = m.OptimizationProblem(budgets=m.Budgets(**amounts))
    with pytest.raises(SettingError, match=words):
        m.optimize(chain, m.trace(chain.model, (4, 8, 8)), problem)
