"""The modules that belong to a unit, for the usual orders of norms and activations.

Letters: c a convolution, b a norm, r an activation, d a dropout, P pooling, B a residual block.
"""

import pytest
import torch
from small_networks import BasicBlock
from torch import nn

from ifspace.errors import SettingError
from ifspace.models.surgery import (
    children_of,
    is_follower,
    is_sequential,
    modules_of_unit,
)

MAKE = {
    "c": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "b": lambda: nn.BatchNorm2d(4),
    "r": nn.ReLU,
    "d": nn.Dropout,
    "P": lambda: nn.MaxPool2d(2),
    "B": lambda: BasicBlock(4, 4, 1),
}


def sequence(letters: str) -> nn.Sequential:
    return nn.Sequential(*(MAKE[letter]() for letter in letters))


@pytest.mark.parametrize(
    ("letters", "unit", "run"),
    [
        ("crcr", 2, "cr"),
        ("cbrcbrP", 3, "cbr"),
        ("cbrcbrP", 0, "cbr"),
        ("cc", 1, "c"),
        ("Pcbr", 1, "cbr"),
        # Norm and activation before the layer, where none follows it.
        ("cbrcP", 3, "brc"),
        ("brcbrcP", 5, "brc"),
        ("PbrcP", 3, "brc"),
        ("cbrcbrcP", 3, "brc"),
        ("cbrcbrc", 6, "brc"),
        ("cbrcbrBP", 3, "brc"),
        ("cbrcbrcPcbr", 3, "brc"),
        ("cbrcbrcbrPc", 3, "cbr"),
        # A dropout after the last layer belongs to the whole sequence.
        ("crcrdP", 2, "cr"),
        ("crdcrdP", 3, "crd"),
        ("crcbrP", 2, "cbr"),
        # Consecutive blocks have no norm or activation between them.
        ("cbrBBbrP", 4, "B"),
        ("cbrBBbrP", 3, "B"),
        ("BrBrP", 2, "Br"),
        ("cbrB", 3, "B"),
        ("PBbr", 1, "Bbr"),
        ("ccbr", 1, "c"),
    ],
)
def test_layers_that_belong_to_a_unit(letters: str, unit: int, run: str) -> None:
    model = sequence(letters)
    parent, keys = modules_of_unit(model, [str(unit)])
    assert parent is model
    assert "".join(letters[int(key)] for key in keys) == run
    assert str(unit) in keys


def test_a_unit_of_several_modules() -> None:
    assert modules_of_unit(sequence("cbrcbrP"), ["0", "3"])[1] == ["0", "1", "2", "3", "4", "5"]


def test_outside_of_a_sequential_a_unit_is_one_module() -> None:
    class Own(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    class Kind(nn.Sequential):
        """A subclass of nn.Sequential."""

    listed = nn.ModuleList([MAKE["c"](), nn.ReLU()])
    assert modules_of_unit(nn.ModuleDict({"a": listed}), ["a.0"]) == (listed, ["0"])
    assert not is_sequential(Own())
    assert modules_of_unit(Own(MAKE["c"](), nn.ReLU()), ["0"])[1] == ["0"]
    assert is_sequential(Kind())
    assert modules_of_unit(Kind(MAKE["c"](), nn.ReLU()), ["0"])[1] == ["0", "1"]


def test_one_object_at_two_indices_belongs_to_both() -> None:
    act = nn.ReLU()
    model = nn.Sequential(MAKE["c"](), act, MAKE["c"](), act)
    assert list(children_of(model)) == ["0", "1", "2", "3"]
    assert modules_of_unit(model, ["2"])[1] == ["2", "3"]


class NormAct(nn.BatchNorm2d):
    """A norm with an activation of its own, as in timm."""

    def __init__(self) -> None:
        super().__init__(4)
        self.act = nn.ReLU()


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.PReLU(), True),
        (nn.Dropout2d(), True),
        (nn.GroupNorm(2, 4), True),
        (nn.LayerNorm(4), True),
        (nn.InstanceNorm2d(4), True),
        (nn.Identity(), True),
        (nn.SyncBatchNorm(4), True),
        (NormAct(), True),
        (nn.MultiheadAttention(4, 2), False),
        (nn.AvgPool2d(2), False),
        (nn.Conv2d(4, 4, 1), False),
        (nn.ChannelShuffle(2), False),
        (nn.Flatten(), False),
        (nn.Sequential(), False),
    ],
)
def test_layers_that_keep_the_feature_map(module: nn.Module, expected: bool) -> None:
    assert is_follower(module) is expected


@pytest.mark.parametrize("names", [["9"], ["0", "9"], ["a.0"], ["0", "a.0"], [""]])
def test_a_missing_unit_is_an_error(names: list[str]) -> None:
    with pytest.raises(SettingError, match=r"^a unit that is not in the network: got ") as raised:
        modules_of_unit(sequence("cbr"), names)
    assert "\n" not in str(raised.value)
