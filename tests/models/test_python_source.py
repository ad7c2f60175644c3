"""Networks as Python files in plain torch: the same outputs without ifspace, and they train."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_networks import resnet18
from torch import Tensor, nn

import ifspace.models as m
from ifspace.block import Block
from ifspace.errors import KernelError
from ifspace.models.python_source import network_source, save_source
from ifspace.models.surgery import Replace
from ifspace.nn import Style, named_network

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = (3, 32, 32)
ROLLING = "DW+RPW(2,1/2)+RPW(4,1/3,blocked)"
# Runs a file on images where ifspace cannot be imported, and one step of training.
USE = """
import sys
sys.modules["ifspace"] = None
import torch, net
images = torch.load("images.pt")
network = net.load()
torch.save(network(images).detach(), "outputs.pt")
network.train()
network(images).square().mean().backward()
assert all(weight.grad is not None for weight in network.parameters())
"""


class Mixed(nn.Module):
    """A network whose code asks for sizes, has weights of its own and layers on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 16, 4, 4), nn.BatchNorm2d(16)
        self.scale = nn.Parameter(torch.full((16,), 0.5))
        self.register_buffer("order", torch.arange(15, -1, -1), persistent=False)
        self.one, self.two = nn.Linear(16, 32), nn.Linear(32, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x: Tensor, masks: Tensor | None = None) -> Tensor:
        y = self.norm(self.stem(x))
        count, channels, height, width = y.shape
        if height % 2 or channels != 16 or masks is not None:
            raise ValueError("another size")
        rows = y.view(count, channels, height * width).transpose(1, 2)
        rows = rows.reshape(count * 4, height * width // 4, channels)  # windows along the batch
        rows = rows.reshape(count, height, width, channels) * self.scale
        z = self.two(nn.functional.dropout(self.one(rows).relu(), 0.5, self.training))
        y = y + z.movedim(-1, 1)[:, self.order]
        return self.head(y.mean((2, 3)))


def mixed() -> nn.Module:
    model = Mixed()
    block = Block.parse("GPW(4)+SH(4)+GPW(4)")
    style = Style(batch_norm=False, activation=None, bias=True, bias_where="last")
    for name, widths in (("one", (16, 32)), ("two", (32, 16))):
        Replace(name, block.at(*widths), style=style).apply(model)
    return model


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda: m.decompose(resnet18(), SIZE, m.Blocks(ROLLING)).model,
        lambda: m.decompose(named_network("vgg11", 32), SIZE, m.Blocks("DW+RPW(4,0)+SH(2)")).model,
        lambda: named_network("layout-residual", 32, (1, 2, 2, 2)),
        mixed,
    ],
    ids=["rolling", "vgg", "residual", "mixed"],
)
def test_a_file_computes_the_same_without_ifspace_and_trains(
    tmp_path: Path, make: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    model = make()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_()  # type: ignore[union-attr]
            norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    keys = set(vars(model))
    m.save(model, tmp_path / "net.py", SIZE)
    assert set(vars(model)) == keys
    x = torch.randn(5, *SIZE)
    torch.save(x, tmp_path / "images.pt")
    done = subprocess.run(
        [sys.executable, "-c", USE], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        expected = model.eval()(x)
    outputs = torch.load(tmp_path / "outputs.pt")
    torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)
    # Weights have the names that they have in the network.
    weights = torch.load(tmp_path / "net.pt")
    own = model.state_dict() | dict(model.named_buffers())
    assert weights.keys() <= own.keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in weights.items())
    imports = {
        alias.name.partition(".")[0] if isinstance(node, ast.Import) else str(node.module)
        for node in ast.walk(ast.parse((tmp_path / "net.py").read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imports <= {"torch", "os", "pathlib", "math", "fractions", "operator"}


def source_of(model: nn.Module) -> dict[str, Any]:
    source, weights = network_source(model, torch.randn(1, *SIZE), "a network", "net.pt")
    namespace: dict[str, Any] = {"__name__": "source", "__file__": "net.py"}
    exec(source, namespace)
    network = namespace["Network"]()
    network.load_state_dict(weights)
    return {"network": network, "source": source}


def test_what_runs_in_training_runs_in_the_file_too() -> None:
    network = source_of(Mixed())["network"]
    x = torch.randn(2, *SIZE)
    assert torch.equal(network.eval()(x), network(x))
    assert not torch.equal(network.train()(x), network(x))  # dropout
    mean = network.norm.running_mean.clone()
    network(x)
    assert not torch.equal(network.norm.running_mean, mean)


def test_a_block_is_one_class_however_often_it_is_there() -> None:
    model = m.decompose(resnet18(), SIZE, m.Blocks("DW+PW")).model
    source = source_of(model)["source"]
    blocks = [part for part in model.modules() if type(part).__name__ == "BlockModule"]
    kinds = {(str(part.sized), part.stride) for part in blocks}
    assert source.count("class Block") == len(kinds) < len(blocks)
    assert all(len(line) <= 100 for line in source.split("def forward")[0].splitlines())


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if x.sum() > 0 else x


@torch.fx.wrap
def dropped_path(x: Tensor, training: bool) -> Tensor:
    """A function of another package that hides itself from torch.fx, as stochastic depth does."""
    return 0 * x if training else x + 1


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return dropped_path(self.conv(x), self.training)


def test_functions_of_other_packages_are_looked_into() -> None:
    model, x = Wrapped().eval(), torch.randn(2, *SIZE)
    parts = source_of(model)
    assert "dropped_path" not in parts["source"]
    torch.testing.assert_close(parts["network"](x), model.conv(x) + 1)


def test_a_network_that_cannot_be_written_down_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match=r"^no Python source of this network: got ") as raised:
        save_source(Branching(), torch.randn(1, *SIZE), tmp_path / "net.py")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_writes_source_plan_and_recipe(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    start = ("optimize", "vgg11", "--input", "3x32x32", "--blocks-only")
    ended = run(*start, "--block", "DW+PW", "--params", "5M", "--save", "net.py")
    names = ("net.plan.json", "net.pt", "net.py", "net.recipe.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == list(names)
    assert "plan: net.plan.json; recipe of training: net.recipe.json" in ended.err
    # The plan makes the same network again, and the recipe is of its blocks.
    again = run(*start[:-1], "--plan", "net.plan.json", "--format", "json")
    assert again.json["after"]["params"] == sum(
        weight.numel()
        for name, weight in torch.load("net.pt").items()
        if "running" not in name and "num_batches" not in name
    )
    recipe = m.Recipe.read("net.recipe.json")
    assert list(recipe.weight_decay) == [entry["name"] for entry in again.json["replaced"]]
    run("analyze", "net.py", "--input", "3x32x32").fails_with("no factory named")
    report = run("analyze", "net.py:load", "--input", "3x32x32", "--format", "json").json
    assert report["params"] == again.json["after"]["params"]
