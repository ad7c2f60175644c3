"""Networks and images that cannot be traced: errors of one line, and state is restored."""

import logging
import re
import warnings
from typing import Any

import pytest
import torch
from models.odd_networks import IMAGE, Two, conv
from syrupy.assertion import SnapshotAssertion
from torch import Tensor, nn

from ifspace.errors import IfspaceError, KernelError, SettingError
from ifspace.models.analysis import analyze
from ifspace.models.tracing import trace

pytestmark = pytest.mark.usefixtures("one_thread")


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


NETWORKS: dict[str, tuple[nn.Module, type[IfspaceError]]] = {
    "branch": (Branches(), SettingError),
    "branch on a number": (BranchesOnANumber(), SettingError),
    "loop": (Loops(), SettingError),
    "two inputs": (TwoInputs(), SettingError),
    "another input by name": (NamedInput(), SettingError),
    "dense layers": (
        nn.Sequential(nn.Flatten(), nn.Linear(768, 9), nn.ReLU(), nn.Linear(9, 2)),
        SettingError,
    ),
    "nothing": (nn.Sequential(nn.MaxPool2d(2)), SettingError),
    "three dimensions": (Video(), SettingError),
    "lazy": (nn.Sequential(nn.LazyConv2d(4, 3)), SettingError),
    "another image": (nn.Sequential(conv(4, 8)), KernelError),
    "lines": (nn.Sequential(nn.Conv1d(8, 8, 3)), KernelError),
    "too small an image": (nn.Sequential(nn.Conv2d(3, 8, 17)), KernelError),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_an_unsuitable_network_raises_one_line(
    name: str,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    snapshot: SnapshotAssertion,
) -> None:
    model, error = NETWORKS[name]
    before = logging.root.manager.disable
    with pytest.raises(error, match=r"^[^\n]*$") as caught:
        analyze(model, IMAGE)
    assert str(caught.value) == snapshot
    assert tuple(capfd.readouterr()) == ("", "")
    assert logging.root.manager.disable == before
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


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
        (torch.zeros(0, 3, 16, 16), "[0, 3, 16, 16]"),
        (torch.zeros(1, 3, 4, 4, 4), "[1, 3, 4, 4, 4]"),
    ],
)
def test_a_wrong_image_raises(x: Any, got: str) -> None:
    with pytest.raises(
        SettingError, match=re.escape(f"not an image: got {got}; allowed: a tensor")
    ):
        trace(Two(), x)


@pytest.mark.parametrize(
    ("model", "got"),
    [("resnet50", "'resnet50'"), (Two, "the class Two"), (None, "None"), (len, "builtin_")],
)
def test_a_wrong_model_raises(model: Any, got: str) -> None:
    with pytest.raises(SettingError, match=f"^wrong model: got {got}.*allowed: a torch.nn.Module;"):
        trace(model, IMAGE)


@pytest.mark.parametrize("alpha", [-1, float("nan"), "3", None])
def test_a_wrong_alpha_raises(alpha: Any) -> None:
    with pytest.raises(IfspaceError, match="alpha"):
        analyze(Two(), IMAGE, alpha=alpha)


def test_the_mode_is_restored_after_an_error() -> None:
    model = Branches()
    with pytest.raises(SettingError, match="control flow"):
        trace(model, IMAGE)
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_logging_works_again_after_a_trace(
    capfd: pytest.CaptureFixture[str],
) -> None:
    trace(Two(), IMAGE)
    logging.getLogger("torch").error("heard")
    assert logging.getLogger("torch").isEnabledFor(logging.ERROR)
    assert capfd.readouterr().out == ""


class NoForward(Two):
    forward = nn.Module.forward


def test_a_network_without_a_forward_is_an_error() -> None:
    for network in (NoForward(), nn.ModuleList([conv(3, 3)])):
        with pytest.raises(SettingError, match=r"^a network without a forward: got") as raised:
            trace(network, IMAGE)
        assert raised.value.argument == "model"


class Asserts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert x.shape[-1] == 128, "128 pixels"
        return self.conv(x)


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3)))


@pytest.mark.parametrize(
    ("make", "image", "message"),
    [
        (scripted, (3, 16, 16), "^a network in TorchScript: got Sequential; allowed: an nn.Module"),
        (
            lambda: nn.Sequential(nn.Conv3d(3, 8, 3)),
            (3, 16, 16),
            "^a network in three dimensions: got 1 nn.Conv3d",
        ),
        (
            lambda: nn.Conv2d(3, 8, 3),
            torch.zeros(1, 3, 16, 16, dtype=torch.uint8),
            r"^an image that is not of floats: got torch.uint8; .*; convert it: x.float\(\) / 255",
        ),
        (
            Asserts,
            (3, 16, 16),
            r"^an assertion of the network fails for the image: got .1, 3, 16, 16.: 128 pixels; ",
        ),
    ],
)
def test_what_is_refused_is_named(make: object, image: object, message: str) -> None:
    with pytest.raises(IfspaceError, match=message):
        trace(make(), image)
