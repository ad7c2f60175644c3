"""`optimize` on every layer that counts: pointwise, linear and strided layers, shares and plans."""

import json
import sys
from collections.abc import Callable, Mapping
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from network_files import params
from torch import Tensor, nn

import ifspace.models as m
from ifspace.bench.clock import Limits
from ifspace.block import Block, Composition
from ifspace.errors import SettingError
from ifspace.floors import Floors
from ifspace.groups.full_field import front_blocks
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.latency import Latency
from ifspace.models import measuring
from ifspace.models.decomposition import plan_decomposition
from ifspace.models.latencies import layer_latency
from ifspace.models.layer_times import LayerTimes
from ifspace.models.measuring import Measurer, NetworkTimes
from ifspace.models.sources import on_shapes
from ifspace.nn.block import LastAxisBlock, Style
from ifspace.reach import field_after

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE = (3, 16, 16)
FILE = '''
from torch import nn


class Linear(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight, self.bias)


class Halved(nn.Linear):
    def forward(self, x):
        return super().forward(x / 2)


class Mixed(nn.Module):
    """A stem, an inverted residual with a 5x5 depthwise layer, a strided 3x3, a 5x5, an MLP."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.expand = nn.Conv2d(16, 64, 1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        self.spatial = nn.Conv2d(64, 64, 5, padding=2, groups=64)
        self.project = nn.Conv2d(64, 16, 1)
        self.down = nn.Conv2d(16, 32, 3, 2, padding=1)
        self.wide = nn.Conv2d(32, 32, 5, padding=2)
        self.patch = nn.Conv2d(32, 64, 2, 2)
        self.mlp = nn.Sequential(Linear(64, 128), nn.GELU(), nn.Linear(128, 64))
        self.classifier = nn.Linear(64, 48)

    def forward(self, x):
        x = self.stem(x)
        y = self.project(self.spatial(self.norm(self.expand(x)).relu())) + x
        y = self.patch(self.wide(self.down(y)).relu())
        y = y + self.mlp(y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.classifier(y.mean((2, 3)))
'''
COMMAND = ("optimize", "mixed.py:Mixed", "--input", "3x16x16")
JSON = ("--format", "json")


@pytest.fixture(autouse=True)
def _file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mixed.py").write_text(FILE, "utf-8")


def field_of(layer: nn.Module, x: Tensor) -> int:
    """Return how many inputs the first output in the middle depends on, by its gradient."""
    with torch.no_grad():
        for weight in layer.parameters():
            weight.abs_()
    x = x.requires_grad_()
    y = layer(x)
    middle = y[0, 0, y.shape[2] // 2, y.shape[3] // 2] if x.dim() == 4 else y[0, 0]
    (grad,) = torch.autograd.grad(middle, x)
    return int((grad != 0).sum())


def test_every_layer_keeps_its_field_and_the_network_trains_saves_and_loads() -> None:
    network = m.from_source("mixed.py:Mixed", IMAGE, seed=0)
    before = params(network.model)
    problem = m.OptimizationProblem(
        blocks=m.Blocks("front"), budgets=m.Budgets(params="40%"), keep_stages=True
    )
    done = m.optimize(network, m.trace(network.model, IMAGE), problem)
    assert done.network is not None
    assert done.blocks is not None
    model = done.network.model
    assert params(model) == done.blocks.params[1] <= before * 2 // 5
    replaced = {layer.name: layer for layer in done.blocks.replaced}
    # Whatever is chosen, the spatial layers that are grouped, and the patches, are left alone.
    assert isinstance(model.spatial, nn.Conv2d)
    assert isinstance(model.patch, nn.Conv2d)
    for name, layer in replaced.items():
        module = model.get_submodule(name)
        x = torch.rand(1, layer.sized.channels, 12, 12)
        if isinstance(module, LastAxisBlock):
            module, x = module.block, torch.rand(1, layer.sized.channels, 1, 1)
        side, channels = layer.fields[0]
        assert field_of(module.double().eval(), x.double()) == channels * side**2
        module.float()
        assert all(after <= now for now, after in (layer.params, layer.macs))
    model.train()
    model(torch.rand(2, *IMAGE)).square().mean().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    model.eval()
    m.save(done.network, "net.safetensors", IMAGE)
    loaded = m.load("net.safetensors", trust_code=True).eval()
    x = torch.rand(1, *IMAGE)
    assert torch.equal(loaded(x), model(x))


def test_what_a_layer_may_become() -> None:
    network = m.network("mixed.py:Mixed", IMAGE)
    trace = m.trace(network, IMAGE)
    plan = plan_decomposition(network, trace, m.Blocks("front"))
    assert [layer.name for layer in plan.replaced] == [
        *("expand", "project", "down", "wide", "mlp.0", "mlp.2")
    ]
    kernels = {layer.name: layer.fields[1][0] for layer in plan.replaced}
    assert (kernels["down"], kernels["wide"], kernels["expand"]) == (3, 5, 1)
    assert {layer.name: layer.step.stride for layer in plan.replaced}["down"] == 2
    reasons = {part.why: (part.names, part.params) for part in plan.out_of_reach}
    assert reasons["fully connected behind the feature maps"] == (("classifier",), 64 * 48 + 48)
    assert reasons["kernel 2 x 2, which has no middle"] == (("patch",), 32 * 64 * 4 + 64)
    assert reasons["grouped or depthwise already"] == (("spatial",), 64 * 25 + 64)
    assert sum(part.params for part in plan.out_of_reach) + sum(
        layer.params[0] for layer in plan.replaced
    ) == params(network)
    layers = m.Layers(exclude=("mlp.*", "wide"), include="*", skip_first=True, classifier=True)
    narrow = plan_decomposition(network, trace, m.Blocks("front"), layers=layers)
    names = [layer.name for layer in narrow.replaced]
    assert names == ["expand", "project", "down", "classifier"]
    halved: Any = sys.modules[type(network).__module__]
    network.mlp[2] = halved.Halved(128, 64)
    plan = plan_decomposition(network, trace, m.Blocks("front"))
    reasons = {part.why: part.names for part in plan.out_of_reach}
    assert reasons["Halved, not a plain nn.Linear"] == ("mlp.2",)


def test_a_layer_that_reads_a_constant_may_be_replaced_too() -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.code = nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(32, 32, 1)
            self.register_buffer("positions", torch.rand(1, 32, 16, 16))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.code(self.positions)

    model = Positions()
    plan = plan_decomposition(model, m.trace(model, IMAGE), m.Blocks("front"))
    (layer,) = plan.replaced
    assert (layer.name, layer.peaks) == ("code", (0, 0))  # what no image changes is not counted
    assert plan.params[1] < plan.params[0] == params(model)


def test_a_module_with_two_names_keeps_its_weights() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 32, 3, padding=1)
            self.blocks = nn.ModuleList([nn.Sequential(self.conv, nn.ReLU()) for _ in "ab"])

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for block in self.blocks:
                x = block(x)
            return x

    model = Shared()
    x = torch.rand(1, *IMAGE)
    before = model(x)
    plan = plan_decomposition(model, m.trace(model, IMAGE), m.Blocks("front"))
    assert [layer.name for layer in plan.replaced] == ["conv"]
    assert torch.equal(model(x), before)


def test_a_shuffle_on_the_way_to_a_layer_is_no_call_of_it() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.mix = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(32, 32)

        def forward(self, x: Tensor) -> Tensor:
            n, _, height, width = x.shape
            x = nn.functional.unfold(self.conv(x), 2, stride=2).transpose(1, 2)
            x = x.reshape(n * height * width // 4, 8, 4).transpose(1, 2)
            return self.mix(x.reshape(n, height * width // 4, 32))

    model = Patches()
    trace = m.trace(model, IMAGE)
    assert [layer.kind for layer in trace.all_layers] == ["CONV", "SH", "PW"]
    plan = plan_decomposition(model, trace, m.Blocks("front"))
    assert [layer.macs[0] for layer in plan.replaced] == [64 * 32 * 32]


@pytest.mark.slow
@pytest.mark.parametrize(("c_in", "c_out"), [(96, 24), (64, 64), (48, 128)])
def test_fronts_have_the_full_field_and_cost_less_than_the_layer(c_in: int, c_out: int) -> None:
    for kernel, blocks in (
        (1, front_blocks(c_in, c_out, 1)),
        (3, front_blocks(c_in, c_out, 3)),
        (5, front_blocks(c_in, c_out, 5)),
    ):
        assert blocks
        fan_ins: dict[str, list[int]] = {}
        for sized in blocks:
            assert field_after(sized)[-1] == (kernel, c_in)
            assert sized.params < c_in * c_out * kernel**2
            fan_ins.setdefault(str(sized.block.composition), []).append(sized.least_fan_in)
        for values in fan_ins.values():
            assert all(2 * less <= more for less, more in pairwise(values))
    # Those of two mixing layers are not searched; a search finds none with fewer parameters.
    composition = Composition.parse("GPW+SH+GPW")
    for least in (1, 2, 8):
        floors = Floors(least_fan_in=least)
        problem = GroupsProblem(composition, c_in, c_out, kernel=1, floors=floors)
        (plan,) = cheapest_groups(problem).plans
        ours = [
            x
            for x in front_blocks(c_in, c_out, 1, floors=floors)
            if x.block.composition == composition
        ]
        assert ours[0].params == plan.objective()


def test_layers_wider_than_a_search_allows_have_blocks_too() -> None:
    """The first classifier of AlexNet."""
    blocks = front_blocks(9216, 4096, 1)
    assert str(blocks[0].block) == "GPW(144)+SH(144)+GPW(64)"
    assert blocks[0].params == 9216 * 64 + 9216 * 64
    assert field_after(blocks[0])[-1] == (1, 9216)


def test_shares_are_of_the_network_as_it_is() -> None:
    budgets = m.Budgets(params="60%", macs="12.5%", latency_ms="70%", peak_memory="50%")
    assert budgets.bounded == ("params", "macs", "latency_ms", "peak_memory")
    with pytest.raises(SettingError, match=r"^a share of an amount that is not known: got 60% of"):
        assert budgets.limits
    amounts = {"params": 1001, "macs": 80, "peak_memory": 4096}
    part = budgets.of(amounts)
    assert (part.params, part.macs, part.peak_memory) == (600, 10, 2048)
    assert part.dtype == "fp32"
    whole = part.of({"latency_ms": Fraction(3), "params": 7})
    assert whole.limits["latency_ms"] == Fraction(21, 10)
    assert whole.limits["params"] == 600
    with pytest.raises(SettingError, match=r"^a share of an amount that is not known: got 70% of"):
        part.check()
    with pytest.raises(SettingError, match=r"not known: got 60% of the parameters"):
        budgets.of({"params": None})
    network = m.network("vgg11", (3, 32, 32))
    plan = m.reorganize(network, (3, 32, 32), m.Budgets(params="60%")).plan
    assert plan.end.params <= 0.6 * plan.start.params
    assert plan.budgets.limits["params"] == plan.start.params * 3 // 5
    for wrong in ("0%", "-3%", "1e3%", "%"):
        with pytest.raises(SettingError, match=r"^params is no share"):
            m.Budgets(params=wrong)


@pytest.mark.slow
def test_a_plan_is_printed_edited_and_applied(run: Callable, snapshot: Any) -> None:
    ended = run(*COMMAND, "--params", "50%", "--dry-run", "--out", "plan.json")
    assert ended.out == snapshot
    plan = json.loads(Path("plan.json").read_text())
    assert plan["budgets"] == {"params": int(plan["before"]["params"] * 0.5)}
    assert plan["shares"] == {"params": 0.5}
    again = run(*COMMAND, "--plan", "plan.json", *JSON).json
    assert again["replaced"] == plan["replaced"]
    assert again["after"] == plan["after"]
    first, *others = plan["replaced"]
    first["block"] = None
    others[0]["block"] = "GC(2)" if others[0]["name"] in ("down", "wide") else "GPW(2)"
    Path("plan.json").write_text(json.dumps(plan, indent=2))
    edited = run(*COMMAND, "--plan", "plan.json", *JSON).json
    assert [x["block"] for x in edited["replaced"]] == [x["block"] for x in others]
    network = m.network("mixed.py:Mixed", IMAGE)
    changed = sum(after - before for before, after in (x["params"] for x in edited["replaced"]))
    assert edited["after"]["params"] == params(network) + changed
    run(*COMMAND, "--plan", "plan.json", "--params", "10%").fails_with("a plan over its budgets")


@pytest.mark.parametrize(
    ("entry", "line", "what"),
    [
        ('{"name": "expand",\n "block": "GPW(3"}', 5, "no block: got 'GPW(3'"),
        ('{"name": "expand",\n "block": "GPW(3)"}', 5, "a block that does not fit the layer"),
        ('{"name": "down", "block": "GPW(2)"}', 4, "a block that does not fit the layer"),
        ('{"name": "expnd", "block": "GPW(2)"}', 4, "no such layer in the network"),
        ('{"name": "patch", "block": "DW+PW"}', 4, "kernel 2 x 2"),
        ('{"name": "project", "block": "GPW(2)"}', 4, "a layer twice"),
        ('{"block": "GPW(2)"}', 4, "an entry without a layer"),
        ('{"name": "expand" "block": 3}', 4, "no JSON"),
    ],
)
def test_an_illegal_edit_is_named_with_its_line(
    run: Callable, entry: str, line: int, what: str
) -> None:
    first = '{"name": "project", "block": "GPW(2)+SH(2)+GPW(2)"}'
    Path("plan.json").write_text(f'{{\n"replaced": [\n{first},\n{entry}\n]}}\n')
    ended = run(*COMMAND, "--plan", "plan.json")
    (error,) = [text for text in ended.err.splitlines() if text.startswith("ifspace: ")]
    assert (ended.status, ended.out) == (2, "")
    assert error.startswith(f"ifspace: plan.json, line {line}: {what}")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ("--params 50% --include expandd", "--include matches no layer: got 'expandd'"),
        ("--params 50% --exclude x.*,stem", "--exclude matches no layer: got 'x.*'"),
        ("--params 0%", "shares of the network as it is such as 60%"),
        ("--latency-budget-ms 70%", "options that do not go together"),
        ("--latency 70%", "--measure beside it, or --latency MODEL with --latency-budget-ms"),
        ("--latency 70% --latency-budget-ms 3 --measure", "two budgets of latency"),
        ("--latency a.csv --params 50% --measure", "latencies twice"),
        ("--measure", "options that do not go together"),
        ("--params 50% --dry-run --save a.safetensors", "options that do not go together"),
        ("--block DW+PW --dry-run", "options that do not go together"),
        (
            "--widths --params 50% --dry-run",
            "--blocks-only or --widths-only: a plan names the layers that are there",
        ),
        ("--params 50% --warm-start no.npy --part nowhere", "got no.npy (nothing there)"),
        ("--params 50% --include mlp.* --exclude mlp.*", "--exclude leaves none of 10 layers"),
        ("--params 60% --include stem", "got stem: 3 input channels, fewer than 16; 9 left out by"),
        ("--params 60% --include stem", "reorganize the stages alone with --stages-only"),
        ("--params 60% --include classifier", "fully connected layers too with --classifier"),
        ("--params 50% --classifier --cheapest", "options that do not go together"),
        ("--plan plan.json --exclude stem", "options that do not go together"),
        ("--plan plan.json", "--plan is no plan"),
    ],
)
def test_wrong_options_are_one_line(run: Callable, options: str, what: str) -> None:
    run(*COMMAND, *options.split()).fails_with(what)


@pytest.mark.slow
def test_layers_are_timed_here_and_times_are_kept(
    run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "ifspace.models.measuring.CANDIDATES", Limits(budget_s=0.01, min_rounds=2, max_rounds=2)
    )
    command = (*COMMAND, "--params", "80%", "--measure", *JSON)
    first = run(*command).json
    times = first["measured"]
    assert all(ms > 0 for name in ("predicted_ms", "measured_ms") for ms in times[name])
    (file,) = (tmp_path / "cache" / "ifspace").iterdir()
    kept = json.loads(file.read_text())
    assert (times["timed"], times["kept"]) == (len(kept), 0)
    change = sum(after - before for before, after in (x["latency_ms"] for x in first["replaced"]))
    before, after = times["predicted_ms"]
    assert after == pytest.approx(before + change)
    # None that is slower than its layer is taken.
    assert all(after <= before for before, after in (x["latency_ms"] for x in first["replaced"]))
    # What is known is not timed again, and what is missing is.
    file.write_text(json.dumps(dict(list(kept.items())[:-7])))
    again = run(*command).json["measured"]
    assert again["timed"] == 7
    # With times that are given the budget of the whole network decides.
    fixed = {key: 4.0 if key.startswith(("conv", "linear")) else 1.0 for key in kept}
    file.write_text(json.dumps(fixed))
    monkeypatch.setattr(
        "ifspace.models.measuring.Measurer.network_times",
        lambda *_: NetworkTimes(Fraction(40), Fraction(30), 5),
    )
    ended = run(*COMMAND, "--latency", "80%", "--measure", *JSON)
    assert len(ended.json["replaced"]) == 3  # 8 of 40 ms, 3 a layer
    assert ended.json["measured"]["predicted_ms"] == [40, 31]
    assert ended.json["measured"]["measured_ms"] == [40, 30]
    assert ended.json["budgets"] == {"latency_ms": 32}
    assert "predicted 40.000 → 31.000 ms" in run(*COMMAND, "--latency", "80%", "--measure").out
    missed = run(*COMMAND, "--latency-budget-ms", "25", "--measure")
    assert "measured at 120% of the budget of latency" in missed.err
    least = run(*COMMAND, "--latency", "1%", "--measure", "--least-fan-in", "8")
    assert least.status == 3
    assert "allowed: at least 22 milliseconds" in least.err  # 6 layers at 3 ms less


@pytest.mark.slow
def test_below_the_least_the_least_is_named(run: Callable) -> None:
    """Of a network of fully connected layers, what helps."""
    code = (
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 16, 3, 2), nn.Flatten(), nn.Linear(784, 96))\n"
    )
    Path("alex.py").write_text(code)
    command = ("optimize", "alex.py:make", "--input", "3x16x16", "--params", "60%")
    ended = run(*command, "--include", "2", "--classifier", *JSON)
    assert ended.json["replaced"][0]["name"] == "2"
    ended = run(*COMMAND, "--params", "1%")
    assert ended.status == 3
    least = int(ended.err.partition("at least ")[2].partition(" ")[0].replace(",", ""))
    assert run(*COMMAND, "--params", least, *JSON).json["after"]["params"] == least
    assert run(*COMMAND, "--params", least - 1).status == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timm:mobilenetv2_100", "timm:convnext_tiny"])
def test_networks_of_pointwise_layers_reach_three_fifths_of_their_parameters(name: str) -> None:
    image = (3, 64, 64)

    def check(network: nn.Module) -> None:
        budgets = m.Budgets(params="60%")
        plan = plan_decomposition(network, m.trace(network, image), m.Blocks("front"), budgets)
        assert plan.replaced
        assert not any(layer.sees_less for layer in plan.replaced)
        with torch.device("meta"):
            changed = m.EditedNetwork.of(network).apply(*plan.steps)
        assert params(changed.model) == plan.params[1] <= 0.6 * plan.params[0]

    on_shapes(lambda: m.network(name, image), check)


@pytest.mark.slow
def test_widths_are_timed_here(
    run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sized = Block.parse("PW").at(20, 40)
    measurer = Measurer()
    ms = LayerTimes(measurer).find(sized, 4)
    assert ms is not None
    assert ms.ms > 0
    assert (measurer.timed, LayerTimes(Measurer()).find(sized, 4)) == (4, ms)  # 16, 24 to 32, 48
    monkeypatch.setattr(
        "ifspace.models.measuring.Measurer.block_ms",
        lambda _, sized, side, *__: Fraction(sized.params * side**2, 10**4),
    )
    monkeypatch.setattr(
        "ifspace.models.measuring.Measurer.network_times",
        lambda *_: NetworkTimes(Fraction(40), Fraction(24), 5),
    )
    # What is in proportion to pairs of channels is so in between as well.
    assert LayerTimes(measurer).find(sized, 4) == Latency(Fraction(800 * 16, 10**4))
    monkeypatch.setattr("ifspace.models.measuring.Measurer.block_ms", lambda *_: Fraction(1, 8))
    for text, c_in, c_out in (("PW", 20, 40), ("PW", 100, 232), ("GPW(3)+SH(3)+GPW(3)", 51, 87)):
        latency = LayerTimes(measurer).find(Block.parse(text).at(c_in, c_out), 4)
        assert latency is not None
        assert (10**6 * latency.ms).denominator == 1  # whole nanoseconds, as solvers count
    # Time that does not depend on the channels stays what it is between those that are timed.
    block = Block.parse("GPW(4)+SH(4)+GPW(4)").at(48, 96)
    assert LayerTimes(measurer).find(block, 4) == Latency(Fraction(1, 8))
    monkeypatch.setattr(
        "ifspace.models.measuring.Measurer.block_ms",
        lambda _, sized, side, *__: Fraction(sized.params * side**2, 10**4),
    )
    for budget in (("--latency", "60%"), ("--latency-budget-ms", "24")):
        report = run(*COMMAND, "--widths-only", *budget, "--measure", *JSON).json
        before, after = (report[name]["latency_ms"] for name in ("before", "after"))
        assert after <= 0.6 * before
        assert report["measured"]["predicted_ms"] == pytest.approx([40, 40 * after / before])
        assert report["measured"]["measured_ms"] == [40, 24]
    for way in ("--widths-only", "--joint"):
        # The limit is of the layers, the budget of the network: nothing says what is left of both.
        text = run(*COMMAND, way, "--latency", "60%", "--measure").out
        left = [line for line in text.splitlines() if line.startswith("left over")]
        assert left
        assert "milliseconds" not in left[0]


def test_a_network_that_misses_its_latency_is_planned_again(
    run: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "ifspace.models.measuring.Measurer.block_ms",
        lambda _, sized, side, *__: Fraction(sized.params * side**2, 10**4),
    )
    whole = m.analyze(m.from_source("mixed.py:Mixed", IMAGE).model, IMAGE).macs
    # Half of the time does not fall with the layers; or more falls than theirs does.
    fixed, lower = (lambda share: 20 + 20 * share), (lambda share: 40 * share - 6)

    def timed_as(ms_of: Callable[[Fraction], Fraction]) -> Callable[..., NetworkTimes]:
        def network_times(
            _: Measurer, before: nn.Module, after: nn.Module | None, image: Any
        ) -> NetworkTimes:
            macs = whole if after is None else m.analyze(after, image).macs
            return NetworkTimes(Fraction(40), ms_of(Fraction(macs, whole)), 5)

        return network_times

    for ms_of, is_above in ((fixed, True), (lower, False)):
        monkeypatch.setattr("ifspace.models.measuring.Measurer.network_times", timed_as(ms_of))
        report = run(*COMMAND, "--widths-only", "--latency", "70%", "--measure", *JSON).json
        assert report["budgets"] == {"latency_ms": 28}
        after = report["measured"]["measured_ms"][1]
        assert 0.9 * 28 <= after <= 28  # the network is small, its steps are coarse
        assert (report["measured"]["planned_for"] < 1) == is_above
        # What is predicted now is as much more or less as the network before was measured at.
        before_ms, after_ms = (report[name]["latency_ms"] for name in ("before", "after"))
        predicted = report["measured"]["predicted_ms"][1]
        assert abs(predicted - after) < abs(40 * after_ms / before_ms - after)


def test_plans_are_made_again_for_what_networks_are_measured_at() -> None:
    def run(measured: Callable[[Fraction], float], **options: Any) -> tuple[list[float], Any]:
        factors: list[float] = []

        def plan_at(factor: Fraction) -> Fraction:
            factors.append(float(factor))
            return factor

        def shares_of(plan: Fraction) -> tuple[Fraction, Fraction] | None:
            return None if plan < Fraction(1, 2) else (plan, Fraction(measured(plan)))

        return factors, measuring.planned_in_time(plan_at, shares_of, **options)

    most = Fraction(3, 2)
    assert run(lambda plan: plan, most=most)[0] == [1]
    assert run(lambda plan: 0.96 * plan, most=most)[0] == [1]
    factors, timed = run(lambda plan: 1.1 * plan, most=most)
    assert factors == pytest.approx([1, 0.9])
    assert (float(timed.measured), float(timed.correction)) == pytest.approx((0.99, 1.1))
    assert timed.note == "planned for 90% of the budget of latency: measured, its network takes 99%"
    factors, timed = run(lambda plan: 0.5 * plan, most=most)
    assert (factors, float(timed.measured)) == ([1, 1.5], 0.75)  # no more than the network takes
    # A budget that other budgets leave unused is not raised.
    assert run(lambda _: 0.5, most=most, uses_all=True)[0] == [1, 1.5]
    low = run(lambda plan: 0.5 * float(plan), most=most, uses_all=False)[0]
    assert low == [1, 1.5]  # it is used as predicted
    # Time that does not fall with the plan.
    factors, timed = run(lambda plan: 0.4 + 0.8 * float(plan), most=most)
    assert factors == pytest.approx([1, 0.825, 0.7375])
    assert float(timed.measured) == pytest.approx(0.99)
    # Where no plan is within the budget the nearest is taken, and what has no network is not.
    factors, timed = run(lambda plan: 1.3 + 0.01 * float(plan), most=most)
    assert factors == pytest.approx([1, 0.7557, 0.3779], rel=1e-3)
    assert float(timed.measured) == pytest.approx(1.3 + 0.01 * factors[1])
    factors, timed = run(lambda _: 2.5, most=most)
    assert (factors, timed.factor) == ([1, 0.5, 0.25], 1)


def test_layers_are_timed_as_the_network_runs_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed: list[nn.Module] = []
    call_of = measuring._call
    monkeypatch.setattr(
        measuring, "_call", lambda module, x: timed.append(module) or call_of(module, x)
    )
    measurer = Measurer(folder=tmp_path)
    style = Style(activation=None, batch_norm_where="between")
    for text in ("CONV(3)", "PW", "DW"):
        measurer.block_ms(Block.parse(text).at(8, 8), 4, 1)
        assert type(timed[-1]) is nn.Conv2d
    block = Block.parse("GPW(2)+SH(2)+GPW(2)").at(8, 8)
    plain = measurer.block_ms(block, 4)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in timed[-1].modules())
    LayerTimes(measurer, style).find(block, 4)
    assert any(isinstance(part, nn.BatchNorm2d) for part in timed[-1].modules())
    # Times with norms are kept beside those without.
    assert (measurer.timed, Measurer(folder=tmp_path).block_ms(block, 4)) == (5, plain)


def test_blocks_for_wide_linear_layers_are_saved(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 64, 1), nn.Flatten(), nn.Linear(64 * 256, 32))
    layers = m.Layers(classifier=True)
    budgets = m.Budgets(params="50%")
    final = m.decompose(network, IMAGE, m.Blocks("front"), budgets, layers)
    assert [layer.name for layer in final.plan.replaced] == ["2"]
    path = tmp_path / "wide.safetensors"
    m.save(final, path)
    loaded = m.load(path, into=network).eval()
    x = torch.rand(1, *IMAGE)
    with torch.no_grad():
        assert torch.equal(loaded(x), final.model.eval()(x))


@pytest.mark.slow
def test_choices_without_a_latency_are_counted(run: Callable) -> None:
    rows = ["block,C,F,side,stride,batch,device,dtype,latency_ms"]
    rows += [f"{block},16,32,8,2,1,cpu,fp32,{ms}" for block, ms in (("CONV", 3), ("DW+PW", 1))]
    Path("table.csv").write_text("\n".join(rows) + "\n")
    blocks = ("--blocks", "DW+PW,DW+RPW(4,0)+GPW(4)", "--blocks-only", "--names", "down")
    command = (*COMMAND, *blocks, "--latency", "table.csv", "--latency-budget-ms", "40%")
    out = run(*command).out
    (line,) = [text for text in out.splitlines() if text.startswith("left out")]
    assert line == "left out   1 of 3 choices has no latency, such as DW+RPW(4,0)+GPW(4) at down"
    assert "proven the best of the choices that have a latency" in out
    assert "nothing is better" not in out
    report = run(*command, *JSON).json
    assert (report["shares"], report["budgets"]) == ({"latency_ms": 0.4}, {"latency_ms": 1.2})
    assert [layer["block"] for layer in report["replaced"]] == ["DW+PW"]
    least = run(*command[:-1], "10%")
    assert "allowed: at least 1 millisecond;" in least.err


def test_a_latency_table_without_the_layers_says_what_to_measure(run: Callable) -> None:
    Path("table.csv").write_text(
        "block,C,F,side,stride,batch,device,dtype,latency_ms\nDW+PW,16,32,8,2,1,cpu,fp32,1\n"
    )
    command = (*COMMAND, "--include", "down,wide", "--latency", "table.csv")
    for budget in ("60%", "3"):
        run(*command, "--latency-budget-ms", budget).fails_with(
            "got 2 layers: no known latency; ",
            "; measure them (`ifspace bench --predict 16x32x8x2,32x32x8x1`)",
        )


@pytest.mark.slow
def test_fresh_weights_are_counted_in_every_layer(run: Callable) -> None:
    command = ("optimize", "vgg11", "--input", "3x32x32", "--names", "stages.stage5.unit1.layer0")
    command = (*command, "--blocks-only", "--block", "DW+PW")
    values = run(*command, *JSON).json["fresh"]
    layers = values["of"]
    assert values == {"layers": layers, "of": layers, "new": 2, "start": "fresh"}
    text = run(*command).out
    assert f"hold fresh weights; 2 of {layers} are new (trained ones: --weights)" in text


@pytest.mark.slow
def test_what_a_budget_above_the_network_and_a_plan_with_less_field_say(run: Callable) -> None:
    loose = run(*COMMAND, "--params", "160%", "--dry-run").out
    assert loose.startswith("Plan: 0 layers change\n\nkept ")
    assert "budget        not below the network as it is, which has " in loose
    Path("plan.json").write_text('{"replaced": [{"name": "down", "block": "GC(2)"}]}')
    planned = run(*COMMAND, "--plan", "plan.json").out
    assert "sees less  down: " in planned
    assert "--cheapest" not in planned
    listed = run(*COMMAND, "--names", "down", "--block", "GC(2)", "--blocks-only").out
    assert "--cheapest takes blocks with the full field" in listed


def test_a_strided_pointwise_layer_is_timed_with_its_stride(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    timed = []

    def interleaved(_: Measurer, calls: Mapping[str, Callable[[], Any]], *__: Any) -> Any:
        timed.extend(tuple(call().shape) for call in calls.values())
        return {name: [0.001] for name in calls}

    monkeypatch.setattr(Measurer, "_interleaved", interleaved)
    network = nn.Sequential(nn.Conv2d(8, 16, 1, stride=2, bias=False))
    trace = m.trace(network, (8, 12, 12))
    source = LayerTimes(Measurer(folder=tmp_path))
    assert layer_latency(trace.all_layers[0], source) == Latency(Fraction(1))
    assert timed == [(1, 16, 6, 6)]
    (key,) = json.loads(source.measurer.path.read_text())
    assert key == "PW, 8 to 16, writes 6x6, stride 2"
