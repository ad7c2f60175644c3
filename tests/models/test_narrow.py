"""Narrower networks: the channels that hang together, and what the networks compute."""

import json
from copy import deepcopy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from models.narrow_networks import CutByNumber, Halves, every_way
from torch import nn

import ifspace.models as m
from ifspace.errors import IfspaceError, SettingError
from ifspace.kernels.windows import windows_of
from ifspace.models.edits import Edits
from ifspace.models.narrowing import Narrow
from ifspace.nn import RollingPointwiseConv2d, build

IMAGE = (3, 16, 16)


def params_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def without_removed_weights(model: nn.Module, step: Narrow) -> nn.Module:
    """Return the network with zeros for every weight that a step removes."""
    copy = deepcopy(model)
    tensors = {**dict(copy.named_parameters()), **dict(copy.named_buffers())}
    with torch.no_grad():
        for part in step.tensors:
            if not part.name.endswith("running_var"):
                gone = torch.from_numpy(np.flatnonzero(~step.kept[part.kept].mask))
                tensors[part.name].index_fill_(part.axis, gone, 0)
    return copy


@pytest.fixture(scope="module")
def narrowed() -> tuple[nn.Module, m.NarrowedNetwork]:
    model = every_way()
    budgets = m.Budgets(params=params_of(model) * 6 // 10)
    return model, m.narrow(model, IMAGE, budgets)


def test_channels_that_hang_together_in_every_way(
    narrowed: tuple[nn.Module, m.NarrowedNetwork],
) -> None:
    widths = {width.name: width for width in narrowed[1].plan.widths}
    assert {name: width.before for name, width in widths.items()} == {
        "0": 32,
        "3.body.0": 64,
        "3.body.6.squeeze": 16,
        "4.enter": 64,
        "5.enter": 64,
        "5.leave": 32,
        "6.grow": 64,
        "7": 64,
        "8": 16,
        "10": 24,
        "14": 48,
    }
    # The shortcut ties what all units write; a depthwise layer and a gate tie what they scale.
    assert widths["0"].layers == ("0", "3.body.7", "4.leave")
    assert widths["3.body.0"].layers == ("3.body.0", "3.body.3", "3.body.6.excite")
    assert [part.layers for part in narrowed[1].plan.fixed] == [("16",)]


def test_the_network_is_the_original_without_the_removed_weights() -> None:
    model = every_way()
    small = m.narrow(model, IMAGE, m.Budgets(params="15%"))
    step = small.plan.step
    assert step is not None
    same = [width.name for width in small.plan.widths if width.after == width.before]
    assert len(same) <= 2
    x = torch.randn(2, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(
            small.model(x), without_removed_weights(model, step)(x), rtol=1e-4, atol=1e-5
        )


def test_parameters_and_macs_are_those_of_the_plan(
    narrowed: tuple[nn.Module, m.NarrowedNetwork],
) -> None:
    model, small = narrowed
    plan, graph = small.plan, m.trace(small.model, IMAGE)
    assert plan.before["params"] == params_of(model)
    assert plan.after["params"] == params_of(small.model) <= params_of(model) * 6 // 10
    assert (plan.before["macs"], plan.after["macs"]) == (m.trace(model, IMAGE).macs, graph.macs)
    assert plan.after["macs"] <= plan.alike["macs"] < plan.before["macs"]
    assert all(width.after % 8 == 0 or width.after == width.before for width in plan.widths)


def test_halves_of_channels_are_multiples_too() -> None:
    model = nn.Sequential(nn.Conv2d(3, 64, 1), Halves(64))
    small = m.narrow(model, IMAGE, m.Budgets(params="50%"))
    halves = small.model.get_submodule("1.conv")
    assert isinstance(halves, nn.Conv2d)
    assert halves.out_channels in (8, 16, 24)


def test_the_strongest_channels_stay() -> None:
    model = nn.Sequential(nn.Conv2d(4, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 1))
    strengths = model[0].weight.detach().pow(2).sum((1, 2, 3))
    small = m.narrow(model, (4, 8, 8), m.Budgets(params=params_of(model) // 2 + 10))
    kept = small.plan.step.kept[0].mask  # type: ignore[union-attr]
    assert set(np.flatnonzero(kept)) == set(strengths.topk(int(kept.sum())).indices.tolist())
    assert torch.equal(small.model[0].weight, model[0].weight[torch.from_numpy(kept)])  # type: ignore[index]


def test_importance_of_the_user(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(4, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 1))
    budget = m.Budgets(params=params_of(model) // 2 + 10)
    own = m.narrow(model, (4, 8, 8), budget, importance={"0": torch.arange(32)})
    assert own.plan.step is not None
    kept = np.flatnonzero(own.plan.step.kept[0].mask)
    assert kept.tolist() == list(range(32 - len(kept), 32))
    file = tmp_path / "importance.csv"
    lines = ["layer,channel,importance", *(f"0,{n},{n}" for n in range(32))]
    file.write_text("\n".join(lines), encoding="utf-8")
    assert m.narrow(model, (4, 8, 8), budget, importance=file).plan.step == own.plan.step
    file.write_text("\n".join([*lines[:-1], "0,31,3,5"]), encoding="utf-8")  # a decimal comma
    with pytest.raises(SettingError, match="line 33 has 4 fields, the header 3"):
        m.narrow(model, (4, 8, 8), budget, importance=file)


@pytest.mark.parametrize(
    ("importance", "error"),
    [
        ({"0": torch.ones(31)}, r"got 0: \[31\]; allowed: \[32\] numbers, one for each channel"),
        ({"1": torch.ones(32)}, r"got 1: \[32\]; allowed: layers of the network, such as 0"),
        ({"0": torch.full((32,), torch.nan)}, r"got 0: \[32\] with NaN"),
        ("l3", "unknown importance: got 'l3'; allowed: l1, l2"),
        ("missing.csv", "cannot be read: got missing.csv"),
    ],
)
def test_importance_that_does_not_fit(importance: m.widths.Importance, error: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 1))
    with pytest.raises(SettingError, match=error):
        m.narrow(model, (4, 8, 8), m.Budgets(params=700), importance=importance)


def test_channels_cut_at_a_number_in_the_code_stay() -> None:
    model = CutByNumber()
    small = m.narrow(model, (3, 8, 8), m.Budgets(params=900))
    assert [width.name for width in small.plan.widths] == ["inner"]
    reasons = {part.layers[0]: part.reason for part in small.plan.fixed}
    assert reasons["enter"].startswith("without some of them: Given groups=1, weight of size")
    assert reasons["leave"] == "what the network returns"


def test_budgets_below_the_least_name_the_least() -> None:
    model = nn.Sequential(nn.Conv2d(4, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 1))
    least = 4 * 9 * 8 + 8 + 8 * 4 + 4
    with pytest.raises(SettingError, match=f"got 100 parameters; allowed: at least {least} param"):
        m.narrow(model, (4, 8, 8), m.Budgets(params=100))


def test_a_network_without_widths_of_its_own() -> None:
    with pytest.raises(SettingError, match="no width of the network can change"):
        m.narrow(nn.Sequential(nn.Conv2d(3, 4, 3)), (3, 8, 8), m.Budgets(params=10))


def test_peak_memory_is_that_of_the_network(
    narrowed: tuple[nn.Module, m.NarrowedNetwork],
) -> None:
    model = narrowed[0]
    live = m.trace(model, IMAGE).live
    assert live is not None
    budgets = m.Budgets(peak_memory=live.peak * 4 * 7 // 10, dtype="fp32")
    small = m.narrow(model, IMAGE, budgets)
    after = m.trace(small.model, IMAGE).live
    assert after is not None
    assert after.peak * 4 == small.plan.after["peak_memory"] <= live.peak * 4 * 7 // 10


@pytest.mark.slow
def test_training_saving_loading_and_onnx(
    narrowed: tuple[nn.Module, m.NarrowedNetwork], tmp_path: Path
) -> None:
    small = narrowed[1]
    assert Edits.from_json(json.loads(json.dumps(small.edits.to_json()))) == small.edits
    x = torch.randn(2, *IMAGE)
    with torch.no_grad():
        expected = small.model(x)
    m.save(small, tmp_path / "small.safetensors")
    loaded = m.load(tmp_path / "small.safetensors", into=every_way(seed=1))
    with torch.no_grad():
        assert torch.equal(loaded.eval()(x), expected)
    m.save(small, tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(output, expected.numpy(), rtol=1e-3, atol=1e-4)
    trained = deepcopy(small.model).train()
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3)
    before = trained(x).square().sum().item()
    for _ in range(3):
        optimizer.zero_grad()
        trained(x).square().sum().backward()
        assert all(parameter.grad is not None for parameter in trained.parameters())
        optimizer.step()
    assert trained(x).square().sum().item() < before
    with pytest.raises(IfspaceError, match="made from another network"):
        m.load(tmp_path / "small.safetensors", into=nn.Sequential(nn.Conv2d(3, 4, 3)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["timm:test_efficientnet", "timm:test_resnet", "timm:test_convnext"]
)
def test_a_real_network_is_made_again_trained_and_exported(name: str, tmp_path: Path) -> None:
    source = m.from_source(name, (3, 64, 64), seed=0)
    total = params_of(source.model)
    small = m.narrow(source, (3, 64, 64), m.Budgets(params="60%"), importance="l1")
    assert params_of(small.model) <= total * 6 // 10
    assert small.plan.step is not None
    x = torch.randn(2, 3, 64, 64)
    m.save(small, tmp_path / "small.safetensors")
    m.save(small, tmp_path / "small.onnx")
    loaded = m.load(tmp_path / "small.safetensors").eval()
    with torch.no_grad():
        expected = small.model.eval()(x)
        assert torch.equal(loaded(x), expected)
        if "convnext" not in name:  # layer norms see fewer channels
            whole = without_removed_weights(source.model, small.plan.step).eval()(x)
            torch.testing.assert_close(expected, whole, rtol=1e-3, atol=1e-6)
    session = onnxruntime.InferenceSession(tmp_path / "small.onnx")
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(output, expected.numpy(), rtol=1e-3, atol=1e-4)
    loaded.train()(x).square().sum().backward()
    assert all(parameter.grad is not None for parameter in loaded.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "DW+RPW(4,1/2)+GPW(4)",
        "RPW(4,0)+RPW(4,1/2)",
        "DW+RPW(4,1/3,blocked)",
        "GPW(4)+SH(4)+GPW(4)",
    ],
)
def test_windows_and_groups_of_blocks_are_narrowed(text: str, tmp_path: Path) -> None:
    torch.manual_seed(0)

    def network() -> nn.Sequential:
        parts = [build(text, 48), build(text, 48)]
        return nn.Sequential(nn.Conv2d(3, 48, 1), *parts, nn.Conv2d(48, 4, 1)).eval()

    model, image = network(), torch.randn(2, *IMAGE)
    small = m.narrow(model, IMAGE, m.Budgets(params="80%"), multiple=4)
    with torch.no_grad():
        expected = without_removed_weights(model, small.edits.steps[0])(image)
        torch.testing.assert_close(small.model(image), expected, rtol=1e-4, atol=1e-5)
    block = small.model[1]
    assert str(block.sized.block) == text  # as many groups, which overlap by as much
    assert block.sized.channels < 48
    for module in block.modules():
        if isinstance(module, RollingPointwiseConv2d):
            sizes = module.in_channels, module.out_channels, module.groups, module.overlap
            windows = windows_of(*sizes, module.order)
            assert (windows.width, windows.step) == (module.weight.shape[1], module.step)
    # What is saved is made again, and its source in plain torch computes the same (else it raises).
    m.save(small, tmp_path / "small.safetensors")
    loaded = m.load(tmp_path / "small.safetensors", into=network())
    torch.testing.assert_close(loaded(image), small.model(image))
    m.save(small, tmp_path / "small.py")
