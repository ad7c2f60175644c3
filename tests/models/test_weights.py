"""Trained weights: read, kept through a change under other names, and begun anew in new units."""

import logging
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from socket import gaierror, socket
from typing import Any

import pytest
import torch
from small_networks import BasicBlock
from torch import nn

import ifspace.models as m
from ifspace.errors import SettingError
from ifspace.models.reorganization import at_layout
from ifspace.models.surgery import Append
from ifspace.models.weights import (
    Growth,
    draw_as_built,
    load_weights,
    make_blocks_identities,
    make_identities,
    names_after,
    read_names,
    read_weights,
    save_names,
)
from ifspace.nn import named_network

pytestmark = pytest.mark.usefixtures("one_thread")
IMAGE = (3, 16, 16)
DRAWN = """
from torch import nn

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
    def forward(self, x):
        return x + self.norm(self.conv(x))

def make():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Block(), Block(), nn.MaxPool2d(4), *(Block() for _ in "1234")
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 5, 6)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    return model
"""


def rows() -> nn.Sequential:
    """Two stages of layers in one nn.Sequential, whose keys are numbers."""
    layers = [nn.Conv2d(8, 8, 3, padding=1) for _ in range(6)]
    return nn.Sequential(nn.Conv2d(3, 8, 1), *layers[:2], nn.MaxPool2d(4), *layers[2:])


@pytest.mark.slow
def test_an_old_checkpoint_is_loaded_through_the_names(tmp_path: Path) -> None:
    trained = rows()
    changed = m.reorganize(trained, IMAGE)
    names = names_after(trained, changed)
    assert names["4.weight"] != "4.weight"
    assert len(names) < len(trained.state_dict())
    torch.save({"state_dict": trained.state_dict(), "epoch": 3}, tmp_path / "old.pth")
    file = save_names(names, tmp_path / "new.safetensors")
    assert (file.name, read_names(file)) == ("new.names.json", names)
    anew = m.reorganize(rows(), IMAGE).model
    fresh = load_weights(anew, tmp_path / "old.pth", file)
    assert set(fresh) == anew.state_dict().keys() - set(names.values())
    assert fresh
    for old, new in names.items():
        assert torch.equal(anew.state_dict()[new], trained.state_dict()[old])


@pytest.mark.slow
def test_a_network_built_anew_from_its_layout_has_names_too() -> None:
    trained = named_network("vgg11", 32)
    changed = m.decompose(
        m.reorganize(trained, (3, 32, 32), moves=2), (3, 32, 32), m.Blocks("DW+PW")
    )
    names = names_after(trained, changed)
    old, new = trained.state_dict(), changed.model.state_dict()
    assert all(torch.equal(old[key], new[name]) for key, name in names.items())
    assert len(set(names.values())) == len(names) > 4


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_weights_are_found_in_checkpoints(tmp_path: Path, prefix: str) -> None:
    model = rows()
    weights = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"model": weights}, tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt").keys() == model.state_dict().keys()


def test_weights_of_another_network_are_an_error(tmp_path: Path) -> None:
    torch.save(rows().state_dict(), tmp_path / "w.pt")
    with pytest.raises(SettingError, match=r"^weights of another network: got 4 missing such as"):
        load_weights(nn.Sequential(*rows(), rows()[0], rows()[1]), tmp_path / "w.pt")
    with pytest.raises(SettingError, match=r"of another shape such as 0\.weight"):
        load_weights(nn.Sequential(nn.Conv2d(4, 8, 1), *list(rows())[1:]), tmp_path / "w.pt")
    for name, content in (("none.pt", None), ("text.pt", b"text"), ("text.safetensors", b"text")):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(SettingError, match=r"^weights cannot be read: got .*" + name):
            read_weights(tmp_path / name)


@pytest.mark.slow
def test_new_units_begin_as_the_networks_own_code_draws_them(tmp_path: Path) -> None:
    (tmp_path / "drawn.py").write_text(DRAWN)
    start = m.from_source(f"{tmp_path / 'drawn.py'}:make", IMAGE)
    changed = m.reorganize(start, IMAGE)
    kept = set(names_after(start, changed).values())
    weights = {
        name: weight for name, weight in changed.model.named_parameters() if name not in kept
    }
    assert weights
    drawn = [weight for name, weight in weights.items() if name.endswith("conv.weight")]
    assert all(5 <= weight.min() <= weight.max() <= 6 for weight in drawn)
    assert len({float(weight.detach().sum()) for weight in drawn}) == len(drawn)
    assert not any(weight.any() for name, weight in weights.items() if name.endswith("norm.weight"))


def test_new_units_of_a_module_without_a_source_are_drawn_from_the_values_that_there_are() -> None:
    namespace: dict[str, Any] = {}
    exec(DRAWN, namespace)
    start = namespace["make"]()
    changed = m.reorganize(start, IMAGE).model
    convs = [module for module in changed.modules() if isinstance(module, nn.Conv2d)][1:]
    assert len(convs) == 6
    assert all(5 <= conv.weight.min() <= conv.weight.max() <= 6 for conv in convs)
    assert len({float(conv.weight.detach().flatten()[0]) for conv in convs}) == len(convs)
    norms = [module for module in changed.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.weight.any() or norm.running_mean.any() for norm in norms)


def test_new_units_at_another_width_are_drawn_for_as_many_inputs() -> None:
    unit = nn.Sequential(nn.Conv2d(4, 64, 3, 2, 1, bias=False))
    nn.init.trunc_normal_(unit[0].weight, std=0.5, a=-1, b=1)
    step = Append(("0",), ("0",), 64, 2)
    growths = [Growth(step, step.put_into(deepcopy(unit)))]
    draw_as_built(m.EditedNetwork.of(unit), growths, 0)
    one, other = (copy["0"].weight.detach() for copy in growths[0].copies)
    # Sixteen times the inputs: a quarter of the spread, and of the bounds.
    assert float(one.std() / unit[0].weight.detach().std()) == pytest.approx(1 / 4, rel=0.05)
    assert one.abs().max() <= 1 / 4 + 0.01
    assert not torch.equal(one, other)


def plain(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())


@pytest.mark.parametrize(
    ("unit", "zeros"),
    [(lambda: BasicBlock(8, 8, 1), ["bn2.weight"]), (lambda: plain(8), [])],
    ids=["a residual block", "a plain convolution"],
)
def test_units_that_are_identities_change_no_output(
    unit: Callable[[], nn.Module], zeros: list[str]
) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), unit(), unit(), nn.Conv2d(8, 4, 1)
    )
    grown = deepcopy(model)
    step = Append(("3",), ("3",), count=3)
    growths = [Growth(step, step.put_into(grown))]
    x = torch.rand(2, *IMAGE)
    make_identities(m.EditedNetwork.of(model), growths, IMAGE, 0)
    torch.testing.assert_close(grown.eval()(x), model.eval()(x))
    # As few weights as it takes are 0, so that what is new can be trained.
    copy = growths[0].copies[0]["3"]
    assert [
        name
        for name, weight in copy.named_parameters()
        if name.endswith("weight") and not weight.any()
    ] == zeros
    grown.train()(x).square().sum().backward()
    assert any(weight.grad.any() for weight in copy.parameters() if weight.grad is not None)


def test_a_unit_that_cannot_be_an_identity_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, 8, 1), nn.Tanh())
    step = Append(("2",), ("2",))
    growths = [Growth(step, step.put_into(deepcopy(model)))]
    with pytest.raises(SettingError, match=r"^a unit that cannot be an identity: got 2; allowed"):
        make_identities(m.EditedNetwork.of(model), growths, IMAGE, 0)


@pytest.mark.slow
def test_the_command_starts_from_the_weights_of_a_file(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("drawn.py").write_text(DRAWN)
    trained = m.network("drawn.py:make", IMAGE)
    with torch.no_grad():
        for weight in trained.parameters():
            weight.uniform_(7, 8)
    torch.save(trained.state_dict(), "old.pth")
    command = ("optimize", "drawn.py:make", "--input", "3x16x16", "--weights", "old.pth")
    ended = run(*command, "--save", "new.safetensors")
    names = read_names("new.names.json")
    new = m.load("new.safetensors", trust_code=True).state_dict()
    assert all(torch.equal(new[name], trained.state_dict()[old]) for old, name in names.items())
    assert "names of weights: new.names.json, " in ended.err
    assert any(key not in names.values() for key in new)
    run(*command, "--grow", "identity", "--save", "same.safetensors")
    assert run(*command, "--pretrained").status == 2
    wrong = run("optimize", "drawn.py:make", "--input", "3x16x16", "--pretrained")
    assert (wrong.status, wrong.err.count("\n")) == (2, 1)
    assert "--pretrained of a network without trained weights" in wrong.err


@pytest.mark.slow
def test_pretrained_weights_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    make = timm.create_model

    def trained(name: str, pretrained: bool = False, **more: Any) -> nn.Module:
        model = make(name, pretrained=False, **more)
        if pretrained:
            nn.init.constant_(model.conv1.weight, 0.5)
        return model

    monkeypatch.setattr(timm, "create_model", trained)
    weight: Any = m.from_source("timm:resnet18", pretrained=True).model.conv1.weight
    assert bool((weight == 0.5).all())
    assert not bool((m.from_source("timm:resnet18").model.conv1.weight == 0.5).any())  # type: ignore[union-attr]

    def unreachable(*_: Any, **__: Any) -> nn.Module:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(SettingError, match=r"^pretrained cannot be had: got timm:resnet18 \(OSErr"):
        m.from_source("timm:resnet18", pretrained=True)


def test_weights_without_a_connection_are_one_line(
    run: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    import timm

    make, logger = timm.create_model, logging.getLogger("huggingface_hub")
    level, logged = logger.level, []

    def unreachable(*arguments: Any, pretrained: bool = False, **more: Any) -> nn.Module:
        if not pretrained:
            return make(*arguments, **more)
        # As huggingface_hub does: a log line for each retry, the cause two errors deep.
        logged.append(logger.isEnabledFor(logging.WARNING))
        try:
            raise gaierror(-2, "Name or service not known")
        except gaierror as error:
            try:
                raise RuntimeError("no connection") from error
            except RuntimeError:
                raise FileNotFoundError("not in the cache") from None

    monkeypatch.setattr(timm, "create_model", unreachable)
    ended = run("optimize", "timm:resnet18", "--input", "3x32x32", "--pretrained", "--cheapest")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    fact = "the weights of timm:resnet18 are not in the cache and their host cannot be reached"
    assert fact in ended.err
    assert "give a file with --weights" in ended.err
    assert (logged, logger.level) == ([False], level)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side", "depths"),
    [("vgg11", 32, (3, 1, 2, 2, 2)), ("mobilenet", 32, None), ("resnet50", 64, None)],
)
def test_new_blocks_of_networks_of_ifspace_are_identities(
    name: str, side: int, depths: tuple[int, ...] | None
) -> None:
    start = named_network(name, side, seed=0).eval()
    more = tuple(depth + 1 for depth in start.layout.depths) if depths is None else depths
    grown = at_layout(start, start.layout.at_depths(more), 1)
    before = [len(stage.blocks) for stage in start.layout.stages]
    x = torch.rand(2, 3, side, side)
    with torch.no_grad():
        assert not torch.allclose(grown(x), start(x), rtol=1e-2, atol=1e-2)
        make_blocks_identities(grown, before, 0)
        torch.testing.assert_close(grown(x), start(x), rtol=1e-3, atol=1e-3)


def test_a_shortcut_around_old_and_new_blocks_is_no_identity() -> None:
    start = named_network("layout-residual", 32, seed=0)
    depths = list(start.layout.depths)
    depths[0] += 1
    grown = at_layout(start, start.layout.at_depths(depths), 1)
    before = [len(stage.blocks) for stage in start.layout.stages]
    with pytest.raises(SettingError, match=r"^a unit that cannot be an identity: got stage1\.unit"):
        make_blocks_identities(grown, before, 0)


@pytest.mark.parametrize("answers", [True, False])
def test_a_host_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    import timm
    from huggingface_hub import constants

    make, offline = timm.create_model, []

    def noted(*arguments: Any, pretrained: bool = False, **more: Any) -> nn.Module:
        offline.append(constants.HF_HUB_OFFLINE)
        return make(*arguments, **more)

    with socket() as host:
        host.bind(("127.0.0.1", 0))
        if answers:
            host.listen()
        monkeypatch.setattr(timm, "create_model", noted)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{host.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        m.from_source("timm:resnet18", pretrained=True)
    assert (offline, constants.HF_HUB_OFFLINE) == ([not answers], False)
