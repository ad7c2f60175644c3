"""Stages at other depths: predicted counts and gains are those of the network built."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from models.movable_networks import IMAGE, NETWORKS
from models.predictions import (
    check_counts,
    check_gains,
    layout_of,
    layout_on,
    some_depths,
    with_depths,
)
from small_networks import macs, params
from torch import nn

from ifspace.infofield import gain
from ifspace.models.tracing import trace

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_counts_of_other_depths_are_as_predicted(name: str) -> None:
    model = NETWORKS[name]().to("meta").eval()
    start = layout_of(model)
    assert (start.params, start.macs) == (params(model), macs(model, IMAGE))
    shape = model(torch.empty(2, *IMAGE, device="meta")).shape
    for seed in range(2):
        layout = some_depths(start, seed)
        changed = with_depths(model, layout)
        check_counts(changed, layout)
        check_gains(layout_of(changed), layout)
        assert changed(torch.empty(2, *IMAGE, device="meta")).shape == shape
        assert type(changed) is type(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one relu", "named", "listed", "residual", "our blocks"])
def test_appended_units_can_be_removed_again(name: str) -> None:
    # Appended units can be removed: the second trace finds the same stages.
    model = NETWORKS[name]().to("meta")
    start = layout_of(model)
    grown = start.at_depths(tuple(s.depth + 2 * (s.stage.copy is not None) for s in start.stages))
    deeper = with_depths(model, grown)
    again = layout_of(deeper)
    back = with_depths(deeper, again.at_depths(start.depths))
    assert params(back) == start.params
    check_gains(layout_of(back), start)


@pytest.mark.slow
def test_removable_units_and_units_that_are_kept() -> None:
    start = layout_of(NETWORKS["residual"]())
    assert start.depths == (1, 1, 4)
    assert [stage.stage.removable for stage in start.stages] == [[], [], [1, 2, 3]]
    assert [stage.min_depth for stage in start.stages] == [1, 1, 1]
    assert [stage.stage.copy.channels for stage in start.stages] == [8, 12, None]


@pytest.mark.slow
def test_a_unit_is_appended_after_the_last_of_its_class() -> None:
    first, second = layout_of(NETWORKS["headed"]()).stages
    assert [stage.stage.units[stage.stage.end].name for stage in (first, second)] == ["3", "4"]
    assert [len(stage.stage.units) for stage in (first, second)] == [2, 2]
    assert second.stage.order(4) == [0, -1, -1, 1]


@pytest.mark.slow
def test_a_stage_without_residual_blocks_is_left_out() -> None:
    # The single convolution before the blocks is no block, and the image enters it: it is left out.
    sides = [stage.stage.traced.side for stage in layout_of(NETWORKS["residual"]()).stages]
    assert sides == [(32, 32), (16, 16), (8, 8)]


def test_inner_units_are_removed_last_first() -> None:
    widths = [(3, 8), (8, 8), (8, 12), (12, 12), (12, 12), (12, 16)]
    model = nn.Sequential(*(nn.Conv2d(*pair, 3, padding=1) for pair in widths))
    (stage,) = layout_of(model).stages
    adjustable = stage.stage
    assert (adjustable.removable, adjustable.end, adjustable.min_depth) == ([1, 3, 4], 4, 3)
    assert [adjustable.kept(depth) for depth in (6, 5, 4, 3)] == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 3, 5],
        [0, 1, 2, 5],
        [0, 2, 5],
    ]
    assert adjustable.order(8) == [0, 1, 2, 3, 4, -1, -1, 5]
    assert [adjustable.last(depth) for depth in (8, 6, 5, 4, 3)] == [6, 4, 3, 1, 2]


def test_gains_by_hand() -> None:
    # 3 x 3 convolutions on 8 x 8 pixels: fields of 3, 5, 7 and 8 pixels, all channels.
    widths = [(4, 4), (4, 4)]
    model = nn.Sequential(*(nn.Conv2d(*pair, 3, padding=1) for pair in widths))
    (stage,) = layout_of(model, (4, 8, 8)).at_depths((5,)).stages
    fields = [4 * side**2 for side in (3, 5, 7, 8, 8)]
    assert stage.stage.volumes(5) == tuple(fields)
    gains = [gain(a, b, 256, 3) for a, b in pairwise(fields)]
    assert stage.gains(3) == tuple(gains)
    assert stage.last_gain(3) == gains[-1] == 0
    shorter = layout_of(model, (4, 8, 8)).stages[0]
    assert shorter.next_gain(3) == gains[1]


class Twice(nn.Module):
    """A convolution that is called twice, and others that are called once."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.d(self.b(self.c(self.b(self.a(x)))))


def test_a_layer_that_runs_twice_is_kept() -> None:
    model = Twice()
    start = layout_of(model, (8, 9, 9))
    (stage,) = start.stages
    assert [unit.name for unit in stage.stage.units] == ["a", "b", "c", "b", "d"]
    assert [stage.stage.units[place].name for place in stage.stage.removable] == ["c", "d"]
    for depth in (4, 3):
        less = start.at_depths((depth,))
        check_counts(with_depths(model, less), less, (8, 9, 9))


def test_a_layer_that_runs_twice_in_succession_is_kept() -> None:
    class Again(Twice):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.d(self.b(self.b(self.a(x))))

    (stage,) = layout_of(Again(), (8, 9, 9)).stages
    assert [stage.stage.units[place].name for place in stage.stage.removable] == ["d"]


def test_layers_without_padding_are_kept() -> None:
    # Without padding a layer loses two pixels: no unit can be removed or appended.
    layers = [nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3), nn.MaxPool2d(2)]
    more = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(3)]
    first, second = layout_of(nn.Sequential(*layers, *more), (3, 24, 24)).stages
    assert (first.stage.removable, first.stage.copy) == ([], None)
    assert second.stage.removable == [1, 2]
    assert second.next_gain(3) == replace(second, depth=4).last_gain(3)
    assert first.next_gain(3) == -math.inf


@pytest.mark.slow
def test_a_sequential_around_one_layer_does_not_matter() -> None:
    start = layout_of(NETWORKS["hourglass"]())
    assert start.depths == (2, 2, 2)
    less = start.at_depths((1, 2, 1))
    check_gains(layout_of(with_depths(NETWORKS["hourglass"](), less)), less)


def test_layers_that_share_a_weight_are_kept() -> None:
    model = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)))
    model[3].weight = model[1].weight
    start = layout_of(model, (8, 9, 9))
    (stage,) = start.stages
    assert stage.stage.removable == [2]
    more = start.at_depths((6,))
    check_counts(with_depths(model, more), more, (8, 9, 9))


def test_a_module_of_two_names_is_kept() -> None:
    class Sliced(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1) for _ in range(4)))
            self.first, self.last = self.all[:3], self.all[3:]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x))

    assert layout_of(Sliced(), (8, 9, 9)).stages == ()


def test_a_unit_that_two_units_read_is_kept() -> None:
    class Bridge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))
            self.d = nn.Conv2d(16, 8, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x)
            return self.d(torch.cat([y, self.c(self.b(y))], 1))

    start = layout_of(Bridge(), (8, 9, 9))
    (stage,) = start.stages
    assert [stage.stage.units[place].name for place in stage.stage.removable] == ["b", "c"]
    for depth in (2, 3, 4, 5):
        layout = start.at_depths((depth,))
        changed = with_depths(Bridge(), layout)
        check_counts(changed, layout, (8, 9, 9))
        assert changed(torch.zeros(1, 8, 9, 9)).shape == (1, 8, 9, 9)


def test_units_with_layers_in_several_parents_are_kept() -> None:
    # Depthwise and pointwise layers have different parents, so a unit has no single parent.
    class Part(nn.Module):
        def __init__(self, layer: nn.Module) -> None:
            super().__init__()
            self.layer, self.other = layer, nn.PReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.other(self.layer(x))

    def pair() -> list[nn.Module]:
        return [Part(nn.Conv2d(8, 8, 3, padding=1, groups=8)), Part(nn.Conv2d(8, 8, 1))]

    model = nn.Sequential(*pair(), *pair(), nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1))
    graph = trace(model, (8, 9, 9))
    start = layout_on(graph, model)
    for depth in range(start.stages[0].min_depth, 6):
        layout = start.at_depths((depth,))
        check_counts(with_depths(model, layout), layout, (8, 9, 9))
