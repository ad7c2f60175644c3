"""Reports: fields and gains against layouts and papers, layers that add nothing, and progress."""

from collections import OrderedDict
from math import inf

import pytest
import torch
import torch_networks
from models import odd_networks as odd
from models.odd_networks import IMAGE, conv
from models.zoo import ZOO, on_meta
from torch import Tensor, nn

from ifspace.errors import SettingError
from ifspace.infofield import gain
from ifspace.models import network
from ifspace.models.analysis import (
    Report,
    StageReport,
    analyze,
    report_on,
)
from ifspace.models.tracing import trace
from ifspace.stages import networks

pytestmark = pytest.mark.usefixtures("one_thread")
# Stages whose first one does not begin with the image: the layout counts no stem, the trace does.
STEMS = {("resnet50", 32), ("fog", 32)}


def seen(stage: StageReport) -> tuple[int, tuple[int, ...], list[float]]:
    volumes = tuple(unit.field.volume for unit in stage.units)
    return stage.side[0], volumes, [unit.gain for unit in stage.units if unit.gain is not None]


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("name", [key for key in networks.NETWORKS if key != "layout-residual"])
def test_fields_and_gains_are_those_of_the_layout(name: str, side: int) -> None:
    with torch.device("meta"):
        model = network(name, (3, side, side))
    layout = networks.network(name, side)
    if name == "mobilenet":  # nothing separates its stem from the blocks of the first stage
        layout = networks.mobilenet(side, stem_counts=True)
    graph = trace(model, (3, side, side))
    for alpha, cap in ((3, "input"), (1, "input"), (3, "none"), (3, "twice")):
        report = report_on(graph, model, alpha=alpha, cap=cap)
        stages = [seen(stage) for stage in report.stages]
        expected = [
            (stage.side, stage.volumes(cap), list(stage.gains(alpha, cap)))
            for stage in layout.stages
        ]
        skipped = len(stages) - len(expected) or (name, side) in STEMS
        assert skipped == (name in ("resnet50", "fog"))
        if (name, side) in STEMS:  # a stage of its own, were it not of the same side
            expected, stages = expected[1:], stages[1:]
        assert stages[-len(expected) :] == [
            (side, volumes, pytest.approx(gains, rel=1e-12)) for side, volumes, gains in expected
        ]


@pytest.mark.slow
def test_residual_units_of_two_layers_see_as_far_as_both() -> None:
    # The layout counts the layers one by one: of the traced units every other one.
    model = network("layout-residual", (3, 32, 32))
    stages = analyze(model, (3, 32, 32)).stages
    assert [unit.field.volume for unit in stages[0].units] == [
        3 * side**2 for side in (3, 7, 11, 15, 19, 23)
    ]
    assert [unit.field.volume for unit in stages[1].units] == [
        16 * side**2 for side in (5, 9, 13, 17, 21)
    ]


def test_table_1_of_the_information_field() -> None:
    model = nn.Sequential(*(nn.Conv2d(128, 128, 3, padding=1) for _ in range(3)))
    report = analyze(model, (128, 8, 8))
    assert [entry.field.volume for entry in report.layers] == [1152, 3200, 6272]
    assert [entry.gain for entry in report.layers] == [
        None,
        pytest.approx(1.166, abs=5e-4),
        pytest.approx(0.297, abs=5e-4),
    ]
    (stage,) = report.stages
    assert (stage.elements, stage.saturated, stage.full) == (8192, False, False)
    assert report.gain == pytest.approx(1.166 + 0.297, abs=1e-3)


@pytest.mark.slow
def test_table_2_of_the_information_field() -> None:
    """One convolution added to each stage of VGG-11."""
    plain = analyze(torch_networks.vgg((1, 1, 2, 2, 2), 32, 10), (3, 32, 32))
    added = analyze(torch_networks.vgg((2, 2, 3, 3, 3), 32, 10), (3, 32, 32))
    gains = [stage.units[-1].gain for stage in added.stages]
    assert gains == [pytest.approx(value, abs=5e-3) for value in (1.73, 1.60, 0.30, 0, 0)]
    assert [len(stage.units) + 1 for stage in plain.stages] == [
        len(stage.units) for stage in added.stages
    ]
    assert [stage.saturated for stage in added.stages] == [False, False, False, True, True]
    assert [stage.full for stage in added.stages] == [False, False, False, True, True]
    assert [layer.layer.name for layer in added.layers if layer.adds_nothing] == [
        stage.units[place].name
        for stage, places in zip(added.stages[3:], ([2], [1, 2]), strict=True)
        for place in places
    ]


def test_gains_are_over_the_feature_map_that_is_read() -> None:
    net = nn.Sequential(OrderedDict(a=conv(4, 8), b=conv(8, 8, 1), c=conv(8, 4)))
    report = analyze(net, (4, 9, 9), alpha=2)
    a, b, c = report.layers
    assert (a.gain, b.gain, b.adds_nothing) == (None, 0, True)
    assert c.gain == gain(36, 100, 324, 2)
    assert not a.adds_nothing
    assert report.alpha == 2
    assert [unit.gain for unit in report.stages[0].units] == [None, 0, c.gain]
    (unit, *_) = report.stages[0].units
    assert (unit.name, unit.names, unit.layers) == ("a", ("a",), 1)
    assert (unit.params, unit.macs) == (8 * 37, 81 * 8 * 36)


class Side(nn.Module):
    """Two branches of a unit: the wider is written first."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = conv(8, 8, 5), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(x) + self.narrow(x)


class Meeting(nn.Module):
    """A unit that reads two feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.one(x) + self.two(y)


class Forked(nn.Module):
    """Two parallel units, one that reads both, and one that reads each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b, self.c = conv(3, 8), Side(), conv(8, 8), conv(8, 8)
        self.d = Meeting()

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        a, b = self.a(x), self.b(x)
        return self.d(a, b) + self.c(a + b)


def test_parallel_units_gain_over_their_own_input() -> None:
    (stage,) = analyze(Forked(), IMAGE).stages
    assert [unit.name for unit in stage.units] == ["stem", "a", "b", "d", "c"]
    volumes = [unit.field.volume for unit in stage.units]
    assert volumes == [27, 49 * 3, 25 * 3, 81 * 3, 81 * 3]
    assert [unit.gain for unit in stage.units] == [
        None,
        gain(27, 147, 768),
        gain(27, 75, 768),
        *[gain(147, 243, 768)] * 2,
    ]
    assert [entry.gain for entry in stage.layers] == [
        None,
        gain(27, 147, 768),
        gain(27, 75, 768),
        gain(27, 75, 768),
        gain(147, 243, 768),
        gain(75, 147, 768),
        gain(147, 243, 768),
    ]
    assert [entry.unit for entry in stage.layers] == [0, 1, 1, 2, 3, 3, 4]


@pytest.mark.slow
def test_a_shuffle_is_listed_and_has_no_gain() -> None:
    net = nn.Sequential(
        conv(8, 8, 1, groups=4), nn.ChannelShuffle(4), conv(8, 8, 1, groups=4), conv(8, 8)
    )
    report = analyze(net, (8, 6, 6))
    assert [entry.layer.kind for entry in report.layers] == ["GPW", "SH", "GPW", "CONV"]
    shuffle = report.layers[1]
    assert (shuffle.gain, shuffle.adds_nothing, shuffle.layer.name) == (None, False, "1")
    assert [entry.field.channels for entry in report.layers] == [2, 2, 4, 8]
    assert shuffle.unit == 0


def test_outputs_that_see_past_the_image() -> None:
    model = nn.Sequential(*(conv(3, 3) for _ in range(4)))
    report = analyze(model, (3, 7, 5))
    assert [entry.receptive for entry in report.layers] == [(n, n) for n in (3, 5, 7, 9)]
    assert [entry.past_image for entry in report.layers] == [False, False, True, True]
    assert [entry.past_image for entry in analyze(model, (3, 7, 7)).layers] == [False] * 3 + [True]


def test_a_stage_is_full_before_it_is_saturated() -> None:
    def stage(*layers: nn.Module) -> StageReport:
        return analyze(nn.Sequential(*layers), (3, 5, 5)).stages[0]

    two = stage(conv(3, 4), conv(4, 4))
    assert (two.full, two.saturated) == (True, False)
    three = stage(conv(3, 4), conv(4, 4), conv(4, 4))
    assert (three.full, three.saturated) == (True, True)
    pointwise = stage(conv(3, 4), conv(4, 4, 1))
    assert (pointwise.full, pointwise.saturated) == (False, True)
    alone = stage(conv(3, 4, 5))
    assert (alone.full, alone.saturated) == (True, False)


@pytest.mark.slow
def test_costs_add_up() -> None:
    entry = next(entry for entry in ZOO if entry.model == "torchvision:mobilenet_v3_small")
    report = analyze(on_meta(entry), entry.image)
    held = (*report.gates, *report.head)
    assert report.params == (
        sum(stage.params for stage in report.stages)
        + sum(layer.params for layer in held)
        + report.other_params
    )
    assert report.macs == (
        sum(stage.macs for stage in report.stages) + sum(layer.macs for layer in held)
    )
    for stage in report.stages:
        assert stage.params == sum(unit.params for unit in stage.units)
        assert stage.macs == sum(unit.macs for unit in stage.units)
        assert sum(unit.layers for unit in stage.units) == len(stage.layers)
    assert len(report.gates) == 18
    assert {name: report.passed[name] for name in ("hardsigmoid", "batch_norm")} == {
        "hardsigmoid": 9,
        "batch_norm": 34,
    }
    assert report.stages[-1].width == 576


def test_progress_is_reported_for_every_layer() -> None:
    calls: list[tuple[int, int]] = []
    analyze(odd.UNet(), IMAGE, progress=lambda *call: calls.append(call))
    assert calls == [(done, 7) for done in range(1, 8)]


@pytest.mark.parametrize("alpha", [0, 10.5])
def test_any_decay_from_zero_is_accepted(alpha: float) -> None:
    report: Report = analyze(odd.Two(), IMAGE, alpha=alpha)
    assert report.layers[-1].gain == gain(27, 75, 768, alpha)


@pytest.mark.parametrize("alpha", [-0.5, inf])
def test_a_decay_below_zero_raises(alpha: float) -> None:
    with pytest.raises(SettingError, match=r"alpha.*got (-0\.5|inf)"):
        analyze(odd.Two(), IMAGE, alpha=alpha)


def test_the_cap_of_the_field() -> None:
    model = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)))
    sizes = {
        cap: [entry.field.size[0] for entry in analyze(model, (4, 4, 4), cap=cap).layers]
        for cap in ("input", "twice", "none")
    }
    assert sizes == {"input": [3, 4, 4, 4], "twice": [3, 5, 7, 8], "none": [3, 5, 7, 9]}
    report = analyze(model, (4, 4, 4), cap="none")
    (stage,) = report.stages
    assert (report.cap, stage.full, stage.saturated, stage.elements) == ("none", True, False, 64)
    assert report.layers[1].gain == gain(9 * 4, 25 * 4, 64)
    # What sees every pixel sees those that enter, and no more.
    attention = analyze(odd.Attention(), IMAGE, cap="none")
    assert attention.layers[-1].field.size == attention.stages[-1].side
    with pytest.raises(SettingError, match=r"^unknown cap: got 'all'; allowed: input, twice, none"):
        analyze(model, (4, 4, 4), cap="all")
