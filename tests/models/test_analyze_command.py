"""`ifspace analyze`: its contract, its numbers beside the library's, and how it refuses."""

import csv
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ifspace.models as m
from ifspace.table import widest

pytestmark = pytest.mark.usefixtures("one_thread")

VGG = ("analyze", "vgg16", "--input", "3x32x32")

# A gate, a second classifier that does not run, a strided and a dilated layer, and noise on stdout.
FILE = """
import torch
from torch import nn

print("the file runs")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        print("weights on", torch.empty(0).device)
        self.stem = nn.Conv2d(3, 8, (1, 5), padding=(0, 2), bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.down = nn.Conv2d(8, 16, 2, 2)
        self.far = nn.Conv2d(16, 16, 3, padding=2, dilation=2, groups=4)
        self.squeeze = nn.Conv2d(16, 16, 1)
        self.last = nn.Conv2d(16, 16, 3, padding=1)
        self.end = nn.Linear(16, 5)
        self.spare = nn.Linear(16, 7)

    def forward(self, x):
        print("forward")
        x = self.far(self.down(self.norm(self.stem(x))))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.end(self.last(x).mean((2, 3)))


def of_values():
    made = Net()
    made.scale = float(torch.ones(3).sum())  # the meta device has no values
    return made


def several():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    return Two()


def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))


def failing():
    raise ValueError("out of order")


dense = [1, 2]
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return the path of a Python file with networks."""
    (tmp_path / "net.py").write_text(FILE)
    return str(tmp_path / "net.py")


def test_the_json_keeps_its_contract(run: Callable) -> None:
    ended = run(*VGG, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    found = ended.json
    assert (found["model"], found["image"], found["alpha"]) == ("vgg16", [3, 32, 32], 3)
    assert (found["params"], found["macs"]) == (14_724_042, 313_201_664)
    assert [stage["side"] for stage in found["stages"]] == [32, 16, 8, 4, 2]
    assert [stage["width"] for stage in found["stages"]] == [64, 128, 256, 512, 512]
    third = found["stages"][2]["layers"]
    assert [layer["name"] for layer in third] == [
        f"stages.stage3.unit{n}.layer0" for n in (1, 2, 3)
    ]
    assert {layer["kind"] for layer in third} == {"CONV"}
    assert [layer["field"] for layer in third] == [[3, 128], [5, 128], [7, 128]]
    # [IF] Table 1.
    assert [layer["gain"] and round(layer["gain"], 3) for layer in third] == [None, 1.166, 0.297]


def test_the_numbers_are_those_of_the_library(run: Callable) -> None:
    name, image = "torchvision:resnet18", (3, 64, 64)
    with torch.device("meta"):
        report = m.analyze(m.network(name, image), image, alpha=2)
    found = run("analyze", name, "--input", "3x64x64", "--alpha", 2, "--format", "json").json
    assert (found["params"], found["macs"], found["gain"]) == (
        report.params,
        report.macs,
        report.gain,
    )
    assert (found["receptive"], found["other_params"]) == (435, report.other_params)
    assert found["other_params_of"] == {"BatchNorm2d": report.other_params}
    layers = [layer for stage in found["stages"] for layer in stage["layers"]]
    for layer, said in zip(report.layers, layers, strict=True):
        assert (said["name"], said["gain"]) == (layer.layer.name, layer.gain)
        assert said["field"] == [layer.field.size[0], layer.field.channels]
        assert (said["params"], said["macs"]) == (layer.layer.params, layer.layer.macs)
        assert (said["adds_nothing"], said["past_image"]) == (layer.adds_nothing, layer.past_image)
    for stage, said in zip(report.stages, found["stages"], strict=True):
        assert (said["elements"], said["saturated"], said["full"]) == (
            stage.elements,
            stage.saturated,
            stage.full,
        )
        assert [unit["name"] for unit in said["units"]] == [unit.name for unit in stage.units]
    assert found["past_image_from"] == next(
        layer.layer.name for layer in report.layers if layer.past_image
    )
    assert found["adds_nothing"] == [e.layer.name for e in report.layers if e.adds_nothing]


def test_the_table_has_stages_units_and_what_stands_out(run: Callable) -> None:
    ended = run(*VGG)
    assert (ended.status, ended.err) == (0, "")
    lines = [line.split() for line in ended.out.splitlines()]
    assert ended.out.startswith("vgg16 at 3×32×32: 14.72M parameters, 313.20M MACs\n")
    assert [
        "4",
        "4×4",
        "256→512",
        "4,096",
        "3",
        "4×4×256",
        "5.90M",
        "94.37M",
        "full,",
        "saturated",
    ] in lines
    assert ["3", "stages.stage3.unit2", "1", "5×5×128", "1.166", "589,824", "37.75M"] in lines
    assert [
        "5",
        "stages.stage5.unit3",
        "1",
        "2×2×512",
        "0.000",
        "2.36M",
        "9.44M",
        "adds",
        "nothing",
    ] in lines
    for said in (
        "gain             4.939 of all units together, α = 3\n",
        "adds nothing     3 of 13 layers: stages.stage4.unit3.layer0, stages.stage5.unit2.layer0, ",
        "saturated        stages 4 and 5: the last unit sees no more than the one before\n",
        "receptive field  up to 196×196 pixels of the image\n",
        "past the image   from stages.stage3.unit3.layer0 on outputs see more than its 32×32 ",
        "head             5,130 parameters, 5,120 MACs: head.logits\n",
        "other            8,448 parameters outside the layers: 8,448 of BatchNorm2d\n",
    ):
        assert said in ended.out


def test_each_layer_is_shown_when_asked_for(run: Callable, file: str) -> None:
    ended = run("analyze", f"{file}:Net", "--input", "3x8x16", "--layers")
    lines = [line.split() for line in ended.out.splitlines()]
    assert ["1", "stem", "CONV(1×5)", "3→8", "1×5×3", "1×5", "120", "15,360"] in lines
    # (192 - 32) / 32 · exp(-3 · 32 / 256) = 3.436.
    assert [
        "2",
        "down",
        "CONV(2×2)",
        "8→16",
        "2×2×8",
        "2×6",
        "528",
        "16,384",
        "stride",
        "2",
    ] in lines
    assert [
        "2",
        "far",
        "GC(4)",
        "16→16",
        "4×6×8",
        "3.436",
        "10×14",
        "592",
        "18,432",
        "dilation",
        "2,",
        "past",
        "the",
        "image",
    ] in lines
    assert "units" in lines[2]
    assert not any("layers" in line[:3] for line in lines)


def test_gates_head_and_what_does_not_run_are_named(run: Callable, file: str) -> None:
    found = run("analyze", f"{file}:Net", "--input", "3x8x16", "--format", "json").json
    assert [layer["name"] for layer in found["gates"]] == ["squeeze"]
    assert [(layer["name"], layer["kind"]) for layer in found["head"]] == [("end", "LINEAR")]
    assert found["other_params_of"] == {"BatchNorm2d": 16}
    assert found["does_not_run"] == {"spare": 16 * 7 + 7}
    counted = [each["params"] for stage in found["stages"] for each in stage["layers"]]
    counted += [each["params"] for each in (*found["gates"], *found["head"])]
    assert sum(counted) + found["other_params"] == found["params"]
    assert [stage["side"] for stage in found["stages"]] == [[8, 16], [4, 8]]
    assert found["stages"][0]["layers"][0]["field"] == [[1, 5], 3]
    assert found["stages"][0]["layers"][0]["receptive"] == [1, 5]
    text = run("analyze", f"{file}:Net", "--input", "3x8x16").out
    assert "135 parameters outside the layers: 16 of BatchNorm2d, 119 of layers" in text
    assert "of layers that do not run (spare)\n" in text
    assert "gates            272 parameters, 256 MACs: squeeze\n" in text


def test_csv_and_markdown_have_a_row_a_layer(run: Callable, file: str, tmp_path: Path) -> None:
    out = tmp_path / "found.md"
    ended = run("analyze", f"{file}:Net", "--input", "3x8x16", "--format", "csv", "--out", out)
    rows = list(csv.DictReader(io.StringIO(ended.out)))
    assert [(row["name"], row["part"], row["stage"]) for row in rows] == [
        ("stem", "stage", "1"),
        ("down", "stage", "2"),
        ("far", "stage", "2"),
        ("last", "stage", "2"),
        ("squeeze", "gate", ""),
        ("end", "head", ""),
    ]
    assert (rows[2]["layer"], rows[2]["past_image"]) == ("GC(4)", "True")
    assert (rows[2]["field_side"], rows[2]["field_channels"]) == ("4×6", "8")
    assert (rows[1]["kernel"], rows[0]["kernel"], rows[1]["gain"]) == ("2", "1×5", "")
    assert out.read_text().count("\n") == 2 + len(rows)


def test_a_file_runs_without_values_and_prints_beside_the_data(run: Callable, file: str) -> None:
    ended = run("analyze", f"{file}:Net", "--input", "3x8x16", "--format", "json")
    assert ended.json["model"] == f"{file}:Net"
    assert ended.err.splitlines() == ["the file runs", "weights on meta", "forward"]
    ended = run("analyze", f"{file}:of_values", "--input", "3x8x16", "--format", "json")
    assert ended.err.splitlines()[-2:] == ["weights on cpu", "forward"]
    assert ended.json["params"] == 4_052


def test_several_groups_of_a_network_fit_a_terminal(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (80, 120):
        monkeypatch.setattr("ifspace.table.terminal_width", lambda width=width: width)
        for more in ((), ("--layers",)):
            assert widest(run(*VGG, *more).out) <= width


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["vgg61"], ["unknown network: got 'vgg61'", "nearest: vgg19, vgg16"]),
        (["torchvision:vgg61"], ["torchvision has no such network: got 'vgg61'"]),
        (["keras:vgg16"], ["unknown source of a network: got 'keras:vgg16'"]),
        (["nowhere.py:make"], ["file of a network cannot be read: got 'nowhere.py'"]),
        (["net.py:other"], ["no such factory in the file", "allowed: Net, "]),
        (["net.py:dense"], ["factory makes no network: got list"]),
        (["net.py:failing"], ["own code failed", "ValueError: out of order", "see line"]),
        (["net.py:several"], ["a network of several inputs: got forward(x, y)"]),
        (["net.py:flat", "--input", "3x8x8"], ["a network without convolutions"]),
        (["net.py:Net", "--input", "4x8x8"], ["--input: the network does not take the image"]),
        (["vgg16", "--input", "3x32"], ["--input: image size cannot be read: got '3x32'"]),
        (["vgg16", "--input", "3x0x32"], ["--input out of range: got 0"]),
        (["vgg16", "--input", "3x33x33"], ["vgg16 for 3x33x33", "multiples of 16"]),
        (["vgg16", "--input", "1x32x32"], ["vgg16 does not take such images: got 1x32x32"]),
        (["vgg16", "--alpha", "-1"], ["--alpha", "got '-1'"]),
        (["vgg16", "--input", "3x32x32", "--out", "a.parquet"], ["unknown output format"]),
        ([], ["Missing argument 'MODEL'"]),
    ],
)
def test_refusals_are_one_line(
    run: Callable,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(Path(file).parent)
    ended = run("analyze", *arguments)
    said = [line for line in ended.err.splitlines() if line.startswith("ifspace: ")]
    assert (ended.status, ended.out, len(said)) == (2, "", 1)
    assert [word for word in words if word not in said[0]] == [], said
    printed = set(ended.err.splitlines()) - set(said)
    assert printed <= {"the file runs", "forward", "weights on meta", "weights on cpu"}


@pytest.mark.parametrize(
    ("command", "absent", "said"),
    [
        (
            "analyze",
            ("torch", "ortools"),
            "torch is not installed: real networks are taken apart "
            "with them; install ifspace[torch]",
        ),
        (
            "optimize",
            ("ortools", "safetensors"),
            "safetensors and ortools are not installed: real "
            "networks are taken apart with them; install ifspace[torch,solver]",
        ),
    ],
)
def test_what_is_missing_is_said_with_how_to_get_it(
    run: Callable, monkeypatch: pytest.MonkeyPatch, command: str, absent: tuple[str], said: str
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "ifspace.cli.requirements.find_spec", lambda name: None if name in absent else real(name)
    )
    run(command, "vgg16").refused(said)


def test_a_missing_package_of_networks_is_one_line(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifspace.models.sources.find_spec", lambda name: None)
    run("analyze", "timm:resnet18").refused("timm is not installed", "pip install timm")
