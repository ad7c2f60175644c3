"""A part of a network alone: the backbones of networks for detection."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import ifspace.models as m
from ifspace.errors import SettingError

pytestmark = pytest.mark.usefixtures("one_thread")

DETECTION = (
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "retinanet_resnet50_fpn",
    "ssdlite320_mobilenet_v3_large",
    "fcos_resnet50_fpn",
)
IMAGE = (3, 320, 320)
FILE = """
import torch
from torch import nn


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()) for _ in range(4)]
        self.head = nn.Conv2d(8, 4, 1)
        self.neck = nn.ModuleDict({"backbone": nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), *layers)})

    def forward(self, x):
        y = self.head(self.neck["backbone"](x)).flatten(2)
        return y[y > 0].view(-1, 2) if y.sum() > 0 else y


class Pyramid(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))

    def forward(self, x):
        y = self.backbone(x)
        return {"boxes": y[y > 0] * 2 if y.sum() > 0 else y}


class Bare(Pyramid):
    def forward(self, x):
        assert x.shape[-1] % 32 == 0
        return self.backbone(x)


class Larger(Pyramid):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 5), nn.Conv2d(8, 8, 5))

    def forward(self, x):
        y = self.backbone(nn.functional.interpolate(x, scale_factor=2.0))
        return {"boxes": y[y > 0] * 2 if y.sum() > 0 else y}


class Alone(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def forward(self, x):
        y = self.two(self.one(x))
        return y[y > 0] * 2 if y.sum() > 0 else y
"""


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return m.network(f"torchvision:{name}", IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTION)
def test_the_backbone_of_a_network_for_detection(name: str) -> None:
    model = on_meta(name)
    report = m.analyze(model, IMAGE, part="backbone")
    backbone = model.get_submodule("backbone").eval()
    assert report.params == sum(weight.numel() for weight in backbone.parameters())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        maps = backbone(torch.empty(1, *IMAGE, device="meta"))
    assert 2 * report.macs == counter.get_total_flops()
    # Every feature map that the dictionary returns is written on the side of a stage.
    sides = {tuple(y.shape[-2:]) for y in maps.values() if y.shape[-1] > 5}
    assert sides <= {stage.side_out for stage in report.stages}
    message = "a network whose control flow depends on the values of the image: got .*part backbone"
    with pytest.raises(SettingError, match=message):
        m.analyze(model, IMAGE)


@pytest.mark.slow
def test_a_backbone_is_optimized_saved_and_loaded(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(FILE)
    options = ("--input", "3x32x32", "--part", "neck.backbone", "--format", "json")
    command = ("optimize", "net.py:Detector", *options, "--params", "2k")
    none = run(*command)
    assert none.status == 2
    assert "no convolution to replace: got 4 layers: 8 input channels, fewer than 16" in none.err
    report = run(*command, "--stages-only", "--save", "a.safetensors")
    assert report.json["part"] == "neck.backbone"
    loaded = m.load_edited("a.safetensors", trust_code=True)
    assert loaded.edits.part == "neck.backbone"
    assert sum(weight.numel() for weight in loaded.model.parameters()) <= 2000
    with torch.no_grad():
        assert loaded.model(torch.zeros(1, 3, 32, 32)).shape == (1, 8, 16, 16)
    analysis = run("analyze", "a.safetensors", "--trust-code", "--format", "json").json
    assert (analysis["part"], analysis["image"]) == ("neck.backbone", [3, 32, 32])
    run("analyze", "a.safetensors", "--trust-code", "--part", "0").fails_with(
        "--part of a saved network: got 0; allowed: none: the whole of what was saved; leave "
        "--part out, or take the part of the network before it is saved"
    )
    first = m.load("a.safetensors", trust_code=True, part="0")
    assert torch.equal(first.weight, loaded.model[0].weight)


def test_the_part_to_take_is_named(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(FILE)
    small = ("--input", "3x32x32")
    run("analyze", "net.py:Pyramid", *small).fails_with(
        "a network whose control flow depends on the values of the image: got Pyramid; allowed: "
        "networks that call the same layers for every image; analyse the part that gives feature "
        "maps: --part backbone"
    )
    # Two windows of five pixels do not fit into eight, as an SSD's do not into 224.
    larger = run("analyze", "net.py:Larger", "--input", "3x8x8")
    larger.fails_with("--part backbone, on larger images")
    bare = run("analyze", "net.py:Bare", "--input", "3x8x8")
    values = run("analyze", "net.py:Alone", *small)
    values.fails_with("a network whose control flow depends on the values of the image: got ")
    assert max(len(ended.err) for ended in (larger, bare, values)) <= 300 + len("ifspace: \n")
    run("analyze", "net.py:Pyramid", *small, "--part", "backbon").fails_with(
        "--part that the network does not have: got backbon; allowed: the full name of a module, "
        "such as backbone; nearest: backbone"
    )
    run("analyze", "net.py:Bare", "--input", "3x8x8").fails_with(
        "--input: an assertion of the network fails for the image: got [1, 3, 8, 8]: assert "
        "x.shape[-1] % 32 == 0; allowed: an image for which it holds; give such an image, or "
        "change line 30 of net.py"
    )
    ended = run("analyze", "net.py:Detector", *small, "--part", "neck.backbone")
    assert ended.out.startswith("neck.backbone of net.py:Detector at 3×32×32: 2,560 parameters")
    # Inside a network an image has the channels that the part reads.
    report = run(
        "analyze", "net.py:Detector", "--input", "8x16x16", "--part", "head", "--format", "json"
    ).json
    assert report["image"] == [8, 16, 16]


def test_a_part_without_a_module_is_no_part() -> None:
    net: Any = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())
    for part in ("", "2", "0.weight", 0):
        with pytest.raises(SettingError, match=r"^part that the network does not have: got"):
            m.analyze(net, (3, 8, 8), part=part)


class Checked(nn.Module):
    def __init__(self, text: str, by_torch: bool = False) -> None:
        super().__init__()
        self.conv, self.text, self.by_torch = nn.Conv2d(3, 8, 3), text, by_torch

    def forward(self, x: Tensor) -> Tensor:
        if self.by_torch:
            torch._assert(x.shape[-1] % 32 == 0, self.text)
        assert x.shape[-1] % 32 == 0, self.text
        y: Tensor = self.conv(x)
        return y


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Checked("a width of 32, 64 ..."), "a width of 32, 64 ..."),
        (Checked("so says torch", by_torch=True), "so says torch"),
    ],
)
def test_a_failing_assertion_says_its_own_text(model: nn.Module, text: str) -> None:
    with pytest.raises(ValueError, match="an assertion of the network fails") as caught:
        m.analyze(model, (3, 8, 8))
    message = str(caught.value)
    assert f"got [1, 3, 8, 8]: {text}; allowed: an image for which it holds; give such" in message
    assert message.endswith(f" of {Path(__file__).name}")
    assert "sizes" not in message
