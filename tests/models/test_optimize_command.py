"""`ifspace optimize` on the stages of a network: contract, states, budgets, what was published."""

from collections.abc import Callable
from pathlib import Path

import pytest
from network_files import FILE, params

import ifspace.models as m
from ifspace.stages.networks import network
from ifspace.stages.organizer import organize
from ifspace.table import widest

pytestmark = pytest.mark.usefixtures("one_thread", "net_file")

SMALL = ("--input", "3x16x16")
OWN = ("optimize", "net.py:make", *SMALL)
ROLLING = "DW+RPW(2,1/2)"
JSON = ("--format", "json")
VGG = ("optimize", "vgg16", "--input", "3x32x32")


def test_the_json_keeps_its_contract(run: Callable) -> None:
    ended = run(*VGG, *JSON)
    assert (ended.status, ended.err) == (0, "")
    found, way = ended.json, organize(network("vgg16", 32))
    for name, layout in (("before", way.start), ("after", way.end)):
        assert {key: found[name][key] for key in ("params", "macs", "depths")} == {
            "params": layout.params,
            "macs": layout.macs,
            "depths": list(layout.depths),
        }
        assert found[name]["gain"] == pytest.approx(layout.gain())
    moves = [(each["source"], each["target"], each["depths"]) for each in found["moves"]]
    assert moves == [(each.source, each.target, list(each.depths)) for each in way.moves]
    assert [each["params"] for each in found["moves"]] == [e.params for e in way.layouts[1:]]
    assert [each["macs"] for each in found["moves"]] == [e.macs for e in way.layouts[1:]]
    assert [each["taken"] for each in found["moves"]] == [False] * 4 + [True]
    assert (found["replaced"], found["saved"], found["message"]) == ([], None, None)
    assert found["ratios"]["params"] == way.end.params / way.start.params
    assert found["stages"]["sides"] == [32, 16, 8, 4, 2]


@pytest.mark.parametrize("moves", [0, 3, 5])
def test_every_state_can_be_taken_and_all_are_shown(run: Callable, moves: int) -> None:
    found = run(*VGG, "--moves", moves, *JSON).json
    state = organize(network("vgg16", 32)).layouts[moves]
    assert (found["after"]["depths"], found["stages"]["taken"]) == (list(state.depths), moves)
    assert (found["after"]["params"], found["after"]["macs"]) == (state.params, state.macs)
    assert len(found["moves"]) == 5


def test_beyond_the_last_move_the_end_is_taken(run: Callable) -> None:
    ended = run(*VGG, "--moves", 9, *JSON)
    assert ended.json["after"]["depths"] == [5, 4, 2, 1, 1]
    assert ended.err == "ifspace: the organizer makes 5 moves: its end is taken\n"


def test_the_table_has_a_row_a_state(run: Callable) -> None:
    ended = run(*VGG, "--moves", 3)
    assert "CIFAR-10: 5.10M is {5,4,2,1,1}, step 5, the end; Δ3DRF printed 2.30" in ended.out
    lines = [line.split() for line in ended.out.splitlines()]
    assert ended.out.startswith("Moves of the organizer: θ = 0, α = 3\n")
    assert ["0", "2,2,3,3,3", "4.94", "14.72M", "313.20M"] in lines
    assert ["3", "5→1", "0.000", "0.566", "4,3,3,2,1", "7.11", "7.86M", "369.82M", "taken"] in lines
    assert [
        "5",
        "3→2",
        "0.297",
        "0.368",
        "5,4,2,1,1",
        "7.43",
        "5.10M",
        "369.82M",
        "3,",
        "4",
    ] in lines
    assert ["before", "14,724,042", "313,201,664", "4.94", "2,2,3,3,3"] in lines
    assert ["after", "7,864,778", "1/1.9", "369,824,768", "1.18", "7.11", "4,3,3,2,1"] in lines


@pytest.mark.parametrize(
    ("model", "image", "said"),
    [
        (
            "vgg16",
            "3x32x32",
            "24.39M is {5,4,2,1,1}, step 5, the end; here 5.10M: its classifier "
            "has 5,130, that of the table 19,292,260; ",
        ),
        ("torchvision:vgg16", "3x224x224", "133.82M is {3,3,3,2,2}, step 2, the end; Δ3DRF"),
        (
            "torchvision:vgg16_bn",
            "3x32x32",
            "5.10M is {5,4,2,1,1}, step 5, the end; here 128.74M: "
            "its classifier has 123,642,856, that of the table 5,130 and +2,368 in biases and "
            "batch norm; ",
        ),
        ("torchvision:vgg19", "3x224x224", "141.34M is {3,2,4,4,3}, step 1, 2 before the end; "),
        ("torchvision:resnet50", "3x224x224", "23.67M is {4,5,4,3}, no state here; "),
        ("timm:mobilenetv1_100", "3x224x224", "3.52M is {3,3,3,3,2}, step 3, the end; Δ3DRF"),
    ],
)
def test_which_state_was_published_is_said(
    run: Callable, model: str, image: str, said: str
) -> None:
    assert said in run("optimize", model, "--input", image).out


def test_own_networks_have_nothing_published(run: Callable) -> None:
    Path("vgg16.py").write_text(FILE)
    found = run("optimize", "vgg16.py:make", "--input", "3x32x32", *JSON).json
    assert found["published"] == []


def test_stages_meet_a_budget_with_proof(run: Callable) -> None:
    image = (3, 16, 16)
    better = m.reorganize(m.network("net.py:make", image), image, m.Budgets(params="10k"))
    model, plan = better.model, better.plan
    found = run(*OWN, "--params", "10k", *JSON).json
    assert (found["after"]["params"], found["stages"]["status"]) == (params(model), "optimal")
    assert found["after"]["depths"] == list(plan.end.depths)
    ended = run(*OWN, "--params", "20k")
    assert ended.out.startswith("Depths of greatest gain within 20,000 parameters, 1,437,760 MACs")
    assert "proven: within the budgets no depths up to 16 gain more\n" in ended.out
    assert ended.out.count("  taken\n") == 1
    assert "keeps the budgets\n" in ended.out


def test_depths_beside_the_way_have_a_row_of_their_own(run: Callable) -> None:
    ended = run(*VGG, "--params", "9M", "--macs", "300M")
    (row,) = [line.split() for line in ended.out.splitlines() if line.startswith("b ")]
    assert row[-1] == "taken"
    assert "keeps the budgets" not in ended.out
    found = run(*VGG, "--params", "9M", "--macs", "300M", *JSON).json
    assert (found["stages"]["taken"], ",".join(map(str, found["after"]["depths"]))) == ("b", row[1])
    assert found["after"]["params"] <= 9e6
    assert found["after"]["macs"] <= 300e6


def test_nothing_is_wider_than_a_terminal(run: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (80, 120):
        monkeypatch.setattr("ifspace.table.terminal_width", lambda width=width: width)
        assert widest(run(*OWN, "--params", "10k", "--block", ROLLING).out) <= width
        assert widest(run(*VGG, "--params", "9M", "--macs", "300M").out) <= width


def test_without_a_file_no_weight_has_a_value(run: Callable) -> None:
    ended = run(*OWN, "--block", "DW+PW", *JSON)
    assert ended.err == "the file runs\nweights on meta\n"
