"""`ifspace analyze`: its JSON contract, its numbers against the library's, and its errors."""

import csv
import importlib.util
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from syrupy.assertion import SnapshotAssertion
from torch import nn

import ifspace.models as m
from ifspace.models.analysis import OtherParams, other_params
from ifspace.models.analyze_text import findings
from ifspace.models.graph import TracedLayer
from ifspace.models.options import layer_text, name_list
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
    net = Net()
    net.scale = float(torch.ones(3).sum())  # the meta device has no values
    return net


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


@pytest.mark.slow
def test_the_json_keeps_its_contract(run: Callable) -> None:
    ended = run(*VGG, "--format", "json")
    assert (ended.status, ended.err) == (0, "")
    report = ended.json
    assert (report["model"], report["image"], report["alpha"]) == ("vgg16", [3, 32, 32], 3)
    assert (report["params"], report["macs"]) == (14_724_042, 313_201_664)
    assert [stage["side"] for stage in report["stages"]] == [32, 16, 8, 4, 2]
    assert [stage["width"] for stage in report["stages"]] == [64, 128, 256, 512, 512]
    third = report["stages"][2]["layers"]
    assert [layer["name"] for layer in third] == [
        f"stages.stage3.unit{n}.layer0" for n in (1, 2, 3)
    ]
    assert {layer["kind"] for layer in third} == {"CONV"}
    assert [layer["field"] for layer in third] == [[3, 128], [5, 128], [7, 128]]
    # [IF] Table 1.
    assert [layer["gain"] and round(layer["gain"], 3) for layer in third] == [None, 1.166, 0.297]


@pytest.mark.slow
def test_the_numbers_are_those_of_the_library(run: Callable) -> None:
    name, image = "torchvision:resnet18", (3, 64, 64)
    with torch.device("meta"):
        report = m.analyze(m.network(name, image), image, alpha=2)
    answer = run("analyze", name, "--input", "3x64x64", "--alpha", 2, "--format", "json").json
    assert (answer["params"], answer["macs"], answer["gain"]) == (
        report.params,
        report.macs,
        report.gain,
    )
    assert (answer["receptive"], answer["other_params"]) == (435, report.other_params)
    assert answer["other_params_of"] == {"BatchNorm2d": report.other_params}
    layers = [layer for stage in answer["stages"] for layer in stage["layers"]]
    for layer, record in zip(report.layers, layers, strict=True):
        assert (record["name"], record["gain"]) == (layer.layer.name, layer.gain)
        assert record["field"] == [layer.field.size[0], layer.field.channels]
        assert (record["params"], record["macs"]) == (layer.layer.params, layer.layer.macs)
        assert (record["adds_nothing"], record["past_image"]) == (
            layer.adds_nothing,
            layer.past_image,
        )
    for stage, record in zip(report.stages, answer["stages"], strict=True):
        assert (record["elements"], record["saturated"], record["full"]) == (
            stage.elements,
            stage.saturated,
            stage.full,
        )
        assert [unit["name"] for unit in record["units"]] == [unit.name for unit in stage.units]
    live = report.live
    assert live is not None
    assert answer["peak_memory"] == {
        "elements": live.peak,
        "bytes": 4 * live.peak,
        "dtype": "fp32",
        "at": live.peak_call.scope,
        "operator": live.peak_call.operator,
    }
    assert answer["past_image_from"] == next(
        layer.layer.name for layer in report.layers if layer.past_image
    )
    assert answer["adds_nothing"] == [e.layer.name for e in report.layers if e.adds_nothing]


def test_the_table_has_stages_units_and_findings(
    run: Callable, snapshot: SnapshotAssertion
) -> None:
    ended = run(*VGG)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out == snapshot


def test_every_layer_is_shown_on_request(
    run: Callable, file: str, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.chdir(Path(file).parent)
    # The gain of `far`: (192 - 32) / 32 · exp(-3 · 32 / 256) = 3.436.
    assert run("analyze", "net.py:Net", "--input", "3x8x16", "--every-layer").out == snapshot


def test_gates_head_and_unused_layers_are_named(run: Callable, file: str) -> None:
    report = run("analyze", f"{file}:Net", "--input", "3x8x16", "--format", "json").json
    assert [layer["name"] for layer in report["gates"]] == ["squeeze"]
    assert [(layer["name"], layer["kind"]) for layer in report["head"]] == [("end", "LINEAR")]
    assert report["other_params_of"] == {"BatchNorm2d": 16}
    assert report["does_not_run"] == {"spare": 16 * 7 + 7}
    counted = [layer["params"] for stage in report["stages"] for layer in stage["layers"]]
    counted += [layer["params"] for layer in (*report["gates"], *report["head"])]
    assert sum(counted) + report["other_params"] == report["params"]
    assert [stage["side"] for stage in report["stages"]] == [[8, 16], [8, 16]]
    assert [stage["side_out"] for stage in report["stages"]] == [[8, 16], [4, 8]]
    assert report["stages"][0]["layers"][0]["field"] == [[1, 5], 3]
    assert report["stages"][0]["layers"][0]["receptive"] == [1, 5]


def test_gates_head_and_unused_layers_are_named_in_the_table(
    run: Callable, file: str, monkeypatch: pytest.MonkeyPatch, snapshot: SnapshotAssertion
) -> None:
    monkeypatch.chdir(Path(file).parent)
    assert run("analyze", "net.py:Net", "--input", "3x8x16").out == snapshot


@pytest.mark.slow
def test_the_form_of_a_network_at_a_size_that_no_paper_has(run: Callable) -> None:
    for command, side, is_said in (("analyze", 96, True), ("analyze", 32, False)):
        ended = run(command, "resnet50", "--input", f"3x{side}x{side}")
        assert ("the form for images below 112 pixels: no stride" in ended.err) == is_said
    ended = run("optimize", "mobilenet", "--input", "3x64x64", "--classes", 7, "--moves", 1)
    assert "no stride in the stem, batch norm, 1 dense layer, 7 classes" in ended.err


def test_csv_and_markdown_have_a_row_for_each_layer(
    run: Callable, file: str, tmp_path: Path
) -> None:
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
    assert rows[0]["field_side"] == "1×5"
    assert (rows[2]["field_side"], rows[2]["field_channels"]) == ("6", "8")
    assert (rows[1]["kernel"], rows[0]["kernel"], rows[1]["gain"]) == ("2", "1×5", "")
    assert out.read_text().count("\n") == 2 + len(rows)


def test_a_file_runs_without_values_and_prints_beside_the_data(run: Callable, file: str) -> None:
    ended = run("analyze", f"{file}:Net", "--input", "3x8x16", "--format", "json")
    assert ended.json["model"] == f"{file}:Net"
    assert ended.err.splitlines() == ["the file runs", "weights on meta", "forward"]
    ended = run("analyze", f"{file}:of_values", "--input", "3x8x16", "--format", "json")
    assert ended.err.splitlines()[-2:] == ["weights on cpu", "forward"]
    assert ended.json["params"] == 4_052


@pytest.mark.slow
def test_several_groups_of_a_network_fit_a_terminal(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    for width in (80, 120):
        monkeypatch.setattr("ifspace.table.terminal_width", lambda width=width: width)
        for more in ((), ("--every-layer",)):
            assert widest(run(*VGG, *more).out) <= width


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        "vgg61",
        "torchvision:vgg61",
        "keras:vgg16",
        "nowhere.py:make",
        "net.py:other",
        "net.py:dense",
        "net.py:failing",
        "net.py:several",
        "net.py:flat --input 3x8x8",
        "net.py:Net --input 4x8x8",
        "vgg16 --input 3x32",
        "vgg16 --input 3x0x32",
        "vgg16 --input 3x33x33",
        "vgg16 --input 1x32x32",
        "vgg16 --alpha -1",
        "vgg16 --input 3x32x32 --out a.parquet",
        "",
    ],
)
def test_a_wrong_argument_is_one_line_on_stderr(
    run: Callable,
    file: str,
    monkeypatch: pytest.MonkeyPatch,
    snapshot: SnapshotAssertion,
    arguments: str,
) -> None:
    monkeypatch.chdir(Path(file).parent)
    ended = run("analyze", *arguments.split())
    errors = [line for line in ended.err.splitlines() if line.startswith("ifspace: ")]
    assert (ended.status, ended.out, len(errors)) == (2, "", 1)
    assert re.sub(r"\d+ names", "... names", errors[0]) == snapshot
    printed = set(ended.err.splitlines()) - set(errors)
    assert printed <= {"the file runs", "forward", "weights on meta", "weights on cpu"}


@pytest.mark.parametrize(
    ("command", "absent", "extra"),
    [
        ("analyze", ("torch", "ortools"), "torch"),
        ("optimize", ("ortools", "safetensors"), "torch,solver"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    run: Callable,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    absent: tuple[str],
    extra: str,
    snapshot: SnapshotAssertion,
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "ifspace.cli.requirements.find_spec", lambda name: None if name in absent else real(name)
    )
    ended = run(command, "vgg16")
    ended.fails_with("not installed", f"install ifspace[{extra}]")
    assert ended.err == snapshot


def test_a_missing_package_of_networks_is_one_line(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifspace.models.sources.find_spec", lambda name: None)
    run("analyze", "timm:resnet18").fails_with("timm is not installed", "pip install timm")


# Findings by name


def findings_of(model: nn.Module, side: int) -> dict[str, str]:
    report = m.analyze(model, (8, side, side))
    return dict(findings(report, other_params(model, report)))


def test_pointwise_layers_that_add_nothing_are_counted_alone(snapshot: SnapshotAssertion) -> None:
    flat = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    both = nn.Sequential(*flat[:2], nn.Conv2d(8, 8, 3, padding=1))
    findings = [findings_of(flat, 8), findings_of(both, 2), findings_of(both[:1], 2)]
    assert [texts["adds nothing"] for texts in findings] == snapshot


@pytest.mark.parametrize("side", [5, 4, 3])
def test_findings_compare_receptive_fields_with_the_image(
    side: int, snapshot: SnapshotAssertion
) -> None:
    """Two layers see 5×5 pixels, the first of them 3×3."""
    model = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    texts = findings_of(model, side)
    assert {name: texts[name] for name in ("past the image", "receptive field", "saturated")} == (
        snapshot
    )


def test_shared_weights_are_not_counted_by_module() -> None:
    norm = nn.BatchNorm2d(8)
    model = nn.Sequential(nn.Conv2d(8, 8, 1), norm, nn.Conv2d(8, 8, 3), nn.PReLU(), nn.PReLU())
    model[4].weight = model[3].weight
    report = m.analyze(model, (8, 5, 5))
    assert other_params(model, report) == OtherParams()
    assert dict(findings(report, OtherParams()))["other"].startswith("17 parameters")


# Layers and names as they are written


def test_a_layer_is_written_as_in_a_block() -> None:
    def text(kind: str, groups: int, kernel: tuple[int, int] = (1, 1), **more: object) -> str:
        one = (1, 1)
        layer = TracedLayer("a", kind, 64, 64, groups, kernel, one, one, one, one, 0, 0, **more)
        return layer_text(layer)

    assert text("CONV", 1, (3, 3)) == "CONV"
    assert text("CONV", 1, (7, 7)) == "CONV(7)"
    assert text("CONV", 1, (4, 4)) == "CONV(4×4)"
    assert text("GC", 4, (5, 5)) == "GC(4,k=5)"
    assert text("DW", 64, (1, 3)) == "DW(1×3)"
    assert text("GPW", 4) == "GPW(4)"
    assert text("SH", 4) == "SH(4)"
    assert text("LINEAR", 1) == "LINEAR"


def test_many_names_are_cut() -> None:
    assert name_list([str(n) for n in range(8)]) == "0, 1, 2, 3, 4, 5 and 2 more"
    assert name_list([]) == ""
