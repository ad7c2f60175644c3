"""Widths, depths and blocks of a network together: what comes out is what was planned."""

import json
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from latency_models import model as latency_model
from models.narrow_networks import every_way
from torch import Tensor, nn

import ifspace.models as m
from ifspace.bench.predict import LatencyPredictor
from ifspace.block import SizedBlock
from ifspace.errors import SettingError
from ifspace.floors import Floors
from ifspace.models import joint
from ifspace.models.latencies import known_latency
from ifspace.models.layer_times import LayerTimes
from ifspace.models.measuring import Measurer
from ifspace.models.replaceable import Layers
from ifspace.nn import PLAIN, Style, build_network
from ifspace.stages.networks import make_layout

pytestmark = pytest.mark.slow
IMAGE = (3, 16, 16)


class Unit(nn.Module):
    """A bottleneck: pointwise, 3x3, pointwise, and a shortcut."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, padding=1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


class LastAxisUnit(nn.Module):
    """Two nn.Linear on the last axis, as in ConvNeXt, and a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.body = nn.Sequential(
            nn.Linear(channels, 4 * channels), nn.ReLU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(self.mix(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def network(seed: int = 0, stages: int = 2) -> nn.Sequential:
    """Stages of two units each, and a classifier."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
    for before, after in ((16, 32), (32, 64))[:stages]:
        parts += [nn.Conv2d(before, after, 3, 2, 1), nn.ReLU()]
        parts += [Unit(after, after) for _ in range(2)]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(after, 10)).eval()


def params_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.fixture(scope="module")
def redesigned() -> m.RedesignedNetwork:
    """Few parameters, MACs enough: units go, widths shrink, layers become blocks."""
    search = m.Search(floors=Floors(least_fan_in=8), objective="most-macs")
    budgets = m.Budgets(params="12%", macs="60%", activations=10**6)
    return m.redesign(network(), IMAGE, budgets, search=search)


def test_what_comes_out_is_what_was_planned(redesigned: m.RedesignedNetwork) -> None:
    plan, graph = redesigned.plan, m.trace(redesigned.model, IMAGE)
    assert plan.removed
    assert plan.blocks
    assert any(width.after < width.before for width in plan.widths)
    assert (graph.params, graph.macs) == (plan.after["params"], plan.after["macs"])
    assert params_of(redesigned.model) == graph.params <= 0.12 * params_of(network())
    for name, limit in plan.limits.items():
        assert plan.after[name] <= limit
    assert all(sized.least_fan_in >= 8 for sized in plan.blocks.values())


def test_it_trains_and_is_saved_loaded_and_exported(
    redesigned: m.RedesignedNetwork, tmp_path: Path
) -> None:
    x = torch.randn(2, *IMAGE)
    with torch.no_grad():
        expected = redesigned.model(x)
    assert m.Edits.from_json(json.loads(json.dumps(redesigned.edits.to_json()))) == (
        redesigned.edits
    )
    m.save(redesigned, tmp_path / "net.safetensors")
    loaded = m.load(tmp_path / "net.safetensors", into=network(seed=1))
    with torch.no_grad():
        assert torch.equal(loaded.eval()(x), expected)
    m.save(redesigned, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(output, expected.numpy(), rtol=1e-3, atol=1e-4)
    loaded.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


def test_a_block_counts_as_the_one_layer_that_it_replaces() -> None:
    design = m.redesign(network(), IMAGE, m.Budgets(params="30%"), m.Freedom(widths=False))
    assert len(design.plan.blocks) > 3
    graph = m.trace(design.model, IMAGE)
    macs = Counter({"classifier": graph.macs - sum(layer.macs for layer in graph.layers)})
    for layer in graph.layers:
        inside = [name for name in design.plan.blocks if layer.name.startswith(f"{name}.")]
        macs[inside[0] if inside else layer.name] += layer.macs
    assert design.plan.after["value"] == pytest.approx(sum(x**0.75 for x in macs.values()))


def test_together_is_at_least_as_good_as_widths_alone() -> None:
    budgets, model = m.Budgets(params="30%"), network(stages=1)
    narrow = m.narrow(model, IMAGE, budgets)
    assert narrow.plan.answer.best is not None
    together = m.redesign(model, IMAGE, budgets)
    assert together.plan.after["value"] >= narrow.plan.answer.best.objective()
    assert together.plan.limits == pytest.approx(
        dict(narrow.plan.answer.best.problem.limits), rel=1e-9
    )


def test_layers_become_wider_where_budgets_allow_it() -> None:
    model, freedom = network(stages=1), m.Freedom(widen=Fraction(2))
    plan = m.redesign(model, IMAGE, m.Budgets(params="150%", macs="150%"), freedom).plan
    assert any(width.after > width.before for width in plan.widths)
    assert plan.after["value"] > plan.before["value"]
    big = m.redesign(model, IMAGE, m.Budgets(params="150%"), freedom)
    graph = m.trace(big.model, IMAGE)
    assert (graph.params, graph.macs) == (big.plan.after["params"], big.plan.after["macs"])
    assert graph.macs <= big.plan.before["macs"]


@pytest.mark.parametrize("style", ["resnet50", "layout-residual"])
def test_units_of_own_networks_go(style: str, tmp_path: Path) -> None:
    start = build_network(make_layout("CONV", (16, 8), (8, 16), (5, 4)), style, seed=0)
    freedom = m.Freedom(widths=False, blocks=False)
    done = m.redesign(start, IMAGE, m.Budgets(params="60%"), freedom)
    # A block has 9 · 8² weights, or 9 · 16² at a quarter of the pixels: two of the second stage are
    # the fewest that reach 60%, one by one or as a residual block of two.
    assert (start.depths, done.model.depths) == ((5, 4), (5, 2))
    assert params_of(start) - params_of(done.model) == 2 * 9 * 16**2
    x = torch.randn(2, *IMAGE)
    m.save(done, tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(m.load(tmp_path / "net.safetensors").eval()(x), done.model.eval()(x))


def test_what_is_to_stay_stays() -> None:
    freedom = m.Freedom(depths=False, keep_widths=("4.*",), layers=Layers(exclude=("8.*", "9.*")))
    plan = m.redesign(network(), IMAGE, m.Budgets(params="30%"), freedom).plan
    names = {layer for width in plan.widths for layer in width.layers}
    assert not any(name.startswith("4.") for name in names)
    assert any("matches 4.*" in part.reason for part in plan.fixed)
    assert not plan.removed
    assert not any(name.startswith(("8.", "9.")) for name in plan.blocks)
    with pytest.raises(SettingError, match=r"got 'layer9'; allowed: patterns of full names"):
        m.redesign(network(), IMAGE, m.Budgets(params="30%"), m.Freedom(keep_widths=("layer9",)))


def test_blocks_are_timed_with_the_norms_between_their_layers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    styles: dict[bool, set[bool]] = {True: set(), False: set()}

    def block_ms(
        _: Measurer, sized: SizedBlock, side: int, stride: int = 1, style: Style = PLAIN
    ) -> Fraction:
        styles[len(sized.layers) > 1].add(style.batch_norm)
        return Fraction(sized.params, 10**4)

    monkeypatch.setattr(Measurer, "block_ms", block_ms)
    source = LayerTimes(Measurer())
    model, freedom = (
        network(stages=1),
        m.Freedom(depths=False, layers=Layers(include=("*.body.3",))),
    )
    plan = m.redesign(model, IMAGE, m.Budgets(params="60%"), freedom, m.Search(latency=source)).plan
    # What has no budget is at most 9/10 of what it is with all widths narrowed alike.
    assert plan.after["latency_ms"] <= plan.limits["latency_ms"] < 0.9 * plan.before["latency_ms"]
    assert styles == {True: {True}, False: {False}}  # a norm is behind each of these layers


def test_joint_plans_begin_from_the_widths_alone_that_latency_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Layers that write more channels than they read take the time, which their MACs do not say.
    def block_ms(_: Measurer, sized: SizedBlock, *__: Any) -> Fraction:
        is_slow = sized.out_channels > sized.channels > 3
        return Fraction(sized.out_channels**2 if is_slow else 1, 10**4)

    monkeypatch.setattr(Measurer, "block_ms", block_ms)
    calls = []
    rounds, limits = joint._rounds, []

    def record(parts: Any, problem: Any, every: Any, hint: Any, deadline: Any) -> Any:
        answer = rounds(parts, problem, every, hint, deadline)
        calls.append((parts.freedom, hint, answer.best))
        limits.append(problem.limits)
        return answer

    monkeypatch.setattr(joint, "_rounds", record)
    search = m.Search(latency=LayerTimes(Measurer()))
    m.redesign(network(stages=1), IMAGE, m.Budgets(params="60%"), m.Freedom(), search)
    (alone, _, widths), (every, begin, _) = calls
    assert (alone.widths, alone.depths, alone.blocks) == (True, False, False)
    assert (every.depths, every.blocks) == (True, True)
    assert begin.objective() == widths.objective()
    assert limits[0] == limits[1]  # of numbers of channels that are tried they would differ


def test_what_narrowing_alike_leaves_is_not_that_of_the_next_width_that_is_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Times in proportion to MACs: 70% of the latency is 70% of the MACs, of which 9/10 are kept.
    monkeypatch.setattr(
        Measurer, "block_ms", lambda _, sized, side, *__: Fraction(sized.params * side**2, 10**9)
    )
    source, freedom = LayerTimes(Measurer()), m.Freedom(depths=False, blocks=False)
    for widths in (24, 40):
        start = nn.Sequential(
            nn.Conv2d(3, widths, 3, padding=1, bias=False),
            nn.Conv2d(widths, widths, 3, padding=1, bias=False),
            nn.Conv2d(widths, 64, 3, padding=1, bias=False),
        )
        before = m.analyze(start, IMAGE).macs
        plan = m.redesign(
            start, IMAGE, m.Budgets(latency_ms="70%"), freedom, m.Search(latency=source)
        ).plan
        assert 0.6 * before < plan.limits["macs"] <= 0.63 * before + 1


def test_a_budget_of_latency_holds_in_the_network_that_comes_out() -> None:
    record = latency_model()
    coefficients = record["model"]["forward"]["coefficients"]
    # A launch, and a millisecond for a million operations.
    coefficients |= {name: 1e-6 for name in coefficients if name.endswith(" operations")}
    source = LatencyPredictor._parse(record)
    last_axis = nn.Sequential(
        nn.Conv2d(3, 16, 4, 4), LastAxisUnit(16), nn.Flatten(), nn.Linear(256, 10)
    )
    for model, is_share, freedom in (
        (network(stages=1), False, m.Freedom(depths=False, blocks=False)),
        (network(stages=1), True, m.Freedom()),
        (last_axis.eval(), True, m.Freedom()),
    ):
        before = known_latency(m.analyze(model, IMAGE), source).ms
        most = "70%" if is_share else before * Fraction(7, 10)
        budgets = m.Budgets(latency_ms=most)
        small = m.redesign(model, IMAGE, budgets, freedom, m.Search(latency=source))
        after = known_latency(m.analyze(small.model, IMAGE), source).ms
        assert after <= small.plan.after["latency_ms"] <= before * Fraction(7, 10)
        assert small.plan.budgets.latency_ms == before * Fraction(7, 10)


def test_a_strided_pointwise_layer_has_the_latency_of_one_without_a_stride() -> None:
    source = LatencyPredictor._parse(latency_model())
    for stride in (1, 2):
        report = m.analyze(nn.Sequential(nn.Conv2d(3, 16, 1, stride)), (3, 8, 8))
        latency = known_latency(report, source)
        assert (latency.timed, latency.layers, float(latency.ms)) == (1, 1, 0.5)


def test_peak_memory_holds_in_the_network_that_comes_out() -> None:
    live = m.trace(every_way(), IMAGE).live
    assert live is not None
    budgets = m.Budgets(params="60%", peak_memory=live.peak * 4 * 7 // 10, dtype="fp32")
    small = m.redesign(every_way(), IMAGE, budgets)
    after = m.trace(small.model, IMAGE).live
    assert after is not None
    assert after.peak * 4 <= small.plan.after["peak_memory"] <= live.peak * 4 * 7 // 10


def test_a_budget_of_parameters_lets_nothing_else_grow() -> None:
    model = network(stages=1)
    search = m.Search(latency=LatencyPredictor._parse(latency_model()))
    freedom = m.Freedom(widths=False)
    plan = m.redesign(model, IMAGE, m.Budgets(params="95%"), freedom, search).plan
    for name in ("params", "macs", "latency_ms"):
        assert plan.after[name] <= plan.before[name]


def test_budgets_below_the_least_name_the_least() -> None:
    with pytest.raises(SettingError, match=r"got 100 parameters; allowed: at least [0-9,]+ param"):
        m.redesign(network(stages=1), IMAGE, m.Budgets(params=100))
