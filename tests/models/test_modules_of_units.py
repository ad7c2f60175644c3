"""Which modules go along with a layer, where normalisation and activation stand as people put them.

Rows are drawn: c a convolution, b a norm, r an activation, d a dropout, P pooling, B a block.
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


def row(drawn: str) -> nn.Sequential:
    return nn.Sequential(*(MAKE[letter]() for letter in drawn))


@pytest.mark.parametrize(
    ("drawn", "unit", "run"),
    [
        ("crcr", 2, "cr"),
        ("cbrcbrP", 3, "cbr"),
        ("cbrcbrP", 0, "cbr"),
        ("cc", 1, "c"),
        ("Pcbr", 1, "cbr"),
        # Before the layer, where nothing stands behind it.
        ("cbrcP", 3, "brc"),
        ("brcbrcP", 5, "brc"),
        ("PbrcP", 3, "brc"),
        ("cbrcbrcP", 3, "brc"),
        ("cbrcbrc", 6, "brc"),
        ("cbrcbrBP", 3, "brc"),
        ("cbrcbrcPcbr", 3, "brc"),
        ("cbrcbrcbrPc", 3, "cbr"),
        # A dropout behind the last is that of the row.
        ("crcrdP", 2, "cr"),
        ("crdcrdP", 3, "crd"),
        ("crcbrP", 2, "cbr"),
        # Blocks that follow each other directly have nothing behind them.
        ("cbrBBbrP", 4, "B"),
        ("cbrBBbrP", 3, "B"),
        ("BrBrP", 2, "Br"),
        ("cbrB", 3, "B"),
        ("PBbr", 1, "Bbr"),
        ("ccbr", 1, "c"),
    ],
)
def test_what_goes_along(drawn: str, unit: int, run: str) -> None:
    model = row(drawn)
    parent, keys = modules_of_unit(model, [str(unit)])
    assert parent is model
    assert "".join(drawn[int(key)] for key in keys) == run
    assert str(unit) in keys


def test_a_unit_of_several_modules() -> None:
    assert modules_of_unit(row("cbrcbrP"), ["0", "3"])[1] == ["0", "1", "2", "3", "4", "5"]


def test_outside_of_a_row_nothing_goes_along() -> None:
    class Own(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x)

    class Kind(nn.Sequential):
        """A row by another name."""

    listed = nn.ModuleList([MAKE["c"](), nn.ReLU()])
    assert modules_of_unit(nn.ModuleDict({"a": listed}), ["a.0"]) == (listed, ["0"])
    assert not is_sequential(Own())
    assert modules_of_unit(Own(MAKE["c"](), nn.ReLU()), ["0"])[1] == ["0"]
    assert is_sequential(Kind())
    assert modules_of_unit(Kind(MAKE["c"](), nn.ReLU()), ["0"])[1] == ["0", "1"]


def test_one_object_at_two_places_stands_at_both() -> None:
    act = nn.ReLU()
    model = nn.Sequential(MAKE["c"](), act, MAKE["c"](), act)
    assert list(children_of(model)) == ["0", "1", "2", "3"]
    assert modules_of_unit(model, ["2"])[1] == ["2", "3"]


class NormAct(nn.BatchNorm2d):
    """A norm that activates as well, as timm has it."""

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
def test_what_keeps_a_map_as_it_is(module: nn.Module, expected: bool) -> None:
    assert is_follower(module) is expected


@pytest.mark.parametrize("names", [["9"], ["0", "9"], ["a.0"], ["0", "a.0"], [""]])
def test_a_unit_that_is_not_there(names: list[str]) -> None:
    with pytest.raises(SettingError, match=r"^a unit that is not in the network: got ") as refused:
        modules_of_unit(row("cbr"), names)
    assert "\n" not in str(refused.value)
