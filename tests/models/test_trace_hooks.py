"""Networks that cannot be exported are traced by hooks in their layers."""

from typing import Any

import pytest
import torch
from models.odd_networks import IMAGE, Two, conv
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ifspace.models.analysis import analyze
from ifspace.models.graph import Op
from ifspace.models.tracing import hooked, trace
from ifspace.nn import RollingPointwiseConv2d

pytestmark = pytest.mark.usefixtures("one_thread")
NOTE = "branches are not seen, layers are taken to follow one another: "


def through_numpy(x: Tensor) -> Tensor:
    """Pass through NumPy, which no tracer follows."""
    return torch.from_numpy(x.detach().numpy())


class Clipped(torch.autograd.Function):
    """A torch.autograd.Function that leaves torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy().clip(0))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class OwnFunction(Two):
    def forward(self, x: Tensor) -> Tensor:
        return self.b(Clipped.apply(self.a(x)))


class Leaves(nn.Module):
    """Passes through NumPy, then pools and slices; one linear layer runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = conv(3, 12, bias=False), conv(12, 16, stride=2, groups=4)
        self.roll = RollingPointwiseConv2d(16, 8, groups=4)
        self.part, self.up = conv(4, 6), nn.ConvTranspose2d(6, 6, 2, 2)
        self.head = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.roll(self.down(input=through_numpy(self.first(x)).relu()))
        x = self.up(self.part(nn.functional.max_pool2d(x[:, ::2], 2)))
        last = self.head[2]
        return last(last(self.head[:2](x.mean((2, 3)))))


@pytest.mark.parametrize("factory", [OwnFunction, Leaves])
def test_counts_are_those_of_torch(factory: type[nn.Module]) -> None:
    model = factory().eval()
    graph = trace(model, IMAGE)
    assert graph.how == "hooks"
    assert graph.notes == (f"{NOTE}.numpy() is not supported for tensor subclasses.",)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, *IMAGE))
    assert 2 * graph.macs == counter.get_total_flops()
    params = sum(parameter.numel() for parameter in model.parameters())
    assert graph.params == params == sum(layer.params for layer in graph.all_layers)


def test_layers_follow_one_another() -> None:
    graph = trace(Leaves(), (3, 16, 12))
    assert [(layer.name, layer.kind) for layer in graph.all_layers] == [
        ("first", "CONV"),
        ("down", "GC"),
        ("roll", "RPW"),
        ("part", "CONV"),
        ("up", "CONV"),
        ("head.0", "LINEAR"),
        ("head.2", "LINEAR"),
        ("head.2", "LINEAR"),
    ]
    assert [layer.params for layer in graph.head] == [35, 30, 0]
    assert graph.image == (3, 16, 12)
    assert [node.op for node in graph.nodes] == [
        Op.INPUT,
        *[Op.LAYER] * 3,
        Op.POOL,
        Op.MOVE,
        *[Op.LAYER] * 2,
    ]
    assert all(node.parents == (node.index - 1,) for node in graph.nodes[1:])
    pool, move = graph.nodes[4:6]
    assert (pool.size, pool.stride, pool.channels) == ((4, 3), (2, 2), 8)
    assert move.sources.tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]


def test_layers_found_by_hooks_are_analysed() -> None:
    report = analyze(Leaves(), IMAGE)
    assert [(stage.side, stage.side_out, stage.channels) for stage in report.stages] == [
        ((16, 16), (16, 16), 3),
        ((16, 16), (8, 8), 12),
        ((4, 4), (4, 4), 8),
        ((8, 8), (8, 8), 6),
    ]
    assert [entry.field.size for entry in report.layers] == [(3, 3)] * 4 + [(2, 2)]
    assert [layer.name for layer in report.head] == ["head.0", "head.2", "head.2"]
    assert report.notes[0].startswith(NOTE)


def test_a_network_of_sequences_is_traced_by_hooks() -> None:
    class Row(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(3, 8, 3, padding=1), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(through_numpy(self.a(x)).transpose(1, 2))

    graph = trace(Row(), (3, 9))
    assert (graph.how, graph.image) == ("hooks", (3, 1, 9))
    assert [(layer.kind, layer.kernel, layer.macs) for layer in graph.layers] == [
        ("CONV", (1, 3), 9 * 24 * 3),
        ("PW", (1, 1), 9 * 32),
    ]


def test_scripted_modules_are_named() -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        scripted = torch.jit.script(conv(3, 8))
    graph = trace(nn.Sequential(scripted, conv(8, 8)), IMAGE)
    assert [layer.name for layer in graph.layers] == ["1"]
    assert graph.notes[0].startswith(NOTE)
    assert graph.notes[1:] == ("layers in TorchScript are not seen: 0",)


def test_hooks_are_removed_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    model = Leaves()
    trace(model, IMAGE)
    assert tuple(capfd.readouterr()) == ("", "")
    assert not any(module._forward_hooks for module in model.modules())
    assert all(module.training for module in model.modules())


class Breaks(Two):
    def forward(self, x: Tensor) -> Tensor:
        self.a(x)
        raise RuntimeError("no more")


def test_hooks_are_removed_after_an_error() -> None:
    model = Breaks()
    with pytest.raises(RuntimeError, match="no more"):
        hooked(model, torch.zeros(1, *IMAGE), 0)
    assert not any(module._forward_hooks for module in model.modules())
