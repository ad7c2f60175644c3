"""What cannot be traced: one line that says why, and nothing else on the screen."""

import logging
from typing import Any

import pytest
import torch
from models.odd_networks import IMAGE, Two, conv
from torch import Tensor, nn

from ifspace.errors import IfspaceError, KernelError, SettingError
from ifspace.models.analysis import analyze
from ifspace.models.tracing import trace

pytestmark = pytest.mark.usefixtures("one_thread")
CONTROL = (
    "a network whose control flow depends on the values of the image: got Could not guard on "
    "data-dependent expression {}; allowed: networks that call the same layers for every image; "
    "analyse one way through it, as a module of its own"
)


class Branches(Two):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x) if x.sum() > 0 else x


class BranchesOnANumber(Two):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.b(x) if x.sum().item() > 0 else x


class Loops(Two):
    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        for _ in range(int(x.abs().max())):
            x = self.b(x)
        return x


class TwoInputs(Two):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.b(self.a(x + y))


class NamedInput(Two):
    def forward(self, x: Tensor, *, mask: Tensor) -> Tensor:
        return self.b(self.a(x))


class Video(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flow = nn.Conv3d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.flow(x[:, :, None])


NETWORKS: dict[str, tuple[nn.Module, type[IfspaceError], str]] = {
    "branch": (
        Branches(),
        SettingError,
        CONTROL.format("Eq(u0, 1) (unhinted: Eq(u0, 1)). (Size-like symbols: none)"),
    ),
    "branch on a number": (
        BranchesOnANumber(),
        SettingError,
        CONTROL.format("zuf0 > 0.0 (unhinted: zuf0 > 0.0). (Size-like symbols: none)"),
    ),
    "loop": (
        Loops(),
        SettingError,
        CONTROL.format("zuf0 (unhinted: zuf0). (Size-like symbols: none)"),
    ),
    "two inputs": (
        TwoInputs(),
        SettingError,
        "a network of several inputs: got forward(x, y); allowed: networks of one image; wrap it "
        "in a module that takes one",
    ),
    "another input by name": (
        NamedInput(),
        SettingError,
        "a network of several inputs: got forward(x, mask); allowed: networks of one image; wrap "
        "it in a module that takes one",
    ),
    "dense layers": (
        nn.Sequential(nn.Flatten(), nn.Linear(768, 9), nn.ReLU(), nn.Linear(9, 2)),
        SettingError,
        "a network without convolutions: got 2 other layers; allowed: networks of convolutions on "
        "feature maps; the information field is one of convolutions",
    ),
    "nothing": (
        nn.Sequential(nn.MaxPool2d(2)),
        SettingError,
        "a network without convolutions: got 0 other layers; allowed: networks of convolutions on "
        "feature maps; the information field is one of convolutions",
    ),
    "three dimensions": (
        Video(),
        SettingError,
        "feature maps of three dimensions: got conv3d in flow; allowed: networks on images, or "
        "on lines of pixels; analyse the part of it that works on images",
    ),
    "lazy": (
        nn.Sequential(nn.LazyConv2d(4, 3)),
        SettingError,
        "a network whose weights have no shape yet: got lazy modules; allowed: weights with "
        "shapes; call it once on an image",
    ),
    "another image": (
        nn.Sequential(conv(4, 8)),
        KernelError,
        "the network does not take the image: got [1, 3, 16, 16] (Given groups=1, weight of size "
        "[8, 4, 3, 3], expected input[1, 3, 16, 16] to have 4 channels, but got 3 channels "
        "instead); allowed: an image that its forward takes; check the sizes, channels first",
    ),
    "too small an image": (
        nn.Sequential(nn.Conv2d(3, 8, 17)),
        KernelError,
        "the network does not take the image: got [1, 3, 16, 16] (Calculated padded input size per "
        "channel: (16 x 16). Kernel size: (17 x 17). Kernel size can't be greater than actual "
        "input size); allowed: an image that its forward takes; check the sizes, channels first",
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_refused_in_one_line(
    name: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    model, error, message = NETWORKS[name]
    before = logging.root.manager.disable
    with pytest.raises(error, match=r"^[^\n]*$") as caught:
        analyze(model, IMAGE)
    assert str(caught.value) == message
    assert tuple(capfd.readouterr()) == ("", "")
    assert logging.root.manager.disable == before
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("x", "got"),
    [
        ("3x16x16", "'3x16x16'"),
        (None, "None"),
        (3, "3"),
        ((3, 0, 16), "(3, 0, 16)"),
        ((3, 16.0, 16), "(3, 16.0, 16)"),
        ((1, 3, 16, 16), "(1, 3, 16, 16)"),
        ((16,), "(16,)"),
        ((True, 16, 16), "(True, 16, 16)"),
        (torch.zeros(3, 16), "[3, 16]"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.int64), "[1, 3, 16, 16]"),
        (torch.zeros(0, 3, 16, 16), "[0, 3, 16, 16]"),
        (torch.zeros(1, 3, 4, 4, 4), "[1, 3, 4, 4, 4]"),
    ],
)
def test_what_is_no_image_is_refused(x: Any, got: str) -> None:
    with pytest.raises(SettingError, match="not an image") as caught:
        trace(Two(), x)
    allowed = "allowed: a tensor of floats [N, C, H, W], or (C, H, W); give (3, 224, 224)"
    assert str(caught.value) == f"not an image: got {got}; {allowed}"


@pytest.mark.parametrize(
    ("model", "got"),
    [("resnet50", "'resnet50'"), (Two, "the class Two"), (None, "None"), (len, "builtin_")],
)
def test_what_is_no_module_is_refused(model: Any, got: str) -> None:
    with pytest.raises(SettingError, match=f"^wrong model: got {got}") as caught:
        trace(model, IMAGE)
    allowed = "allowed: a torch.nn.Module; `ifspace.models.network` builds one from a name"
    assert str(caught.value).endswith(allowed)


@pytest.mark.parametrize("alpha", [-1, float("nan"), "3", None])
def test_a_decay_below_nothing_is_refused(alpha: Any) -> None:
    with pytest.raises(IfspaceError, match="alpha"):
        analyze(Two(), IMAGE, alpha=alpha)


def test_the_mode_is_given_back_after_a_refusal() -> None:
    model = Branches()
    with pytest.raises(SettingError, match="control flow"):
        trace(model, IMAGE)
    assert all(each.training for each in model.modules())
    assert not any(each._forward_hooks for each in model.modules())


def test_what_a_network_prints_and_logs_while_it_runs_comes_through_again(
    capfd: pytest.CaptureFixture[str],
) -> None:
    trace(Two(), IMAGE)
    logging.getLogger("torch").error("heard")
    assert logging.getLogger("torch").isEnabledFor(logging.ERROR)
    assert capfd.readouterr().out == ""
