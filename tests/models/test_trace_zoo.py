"""Every network that must work: counts, stages and receptive fields against other counters."""

import copy
from collections import Counter
from importlib import import_module
from itertools import pairwise

import pytest
import torch
from models.zoo import NOT_ON_META, ZOO, Entry, build, on_meta, traced
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ifspace.models.analysis import Report, report_on
from ifspace.models.tracing import trace
from ifspace.nn import RollingPointwiseConv2d

pytestmark = pytest.mark.usefixtures("one_thread")
LAYERS = (nn.Conv2d, nn.Linear, RollingPointwiseConv2d)
# Modules outside the longest path through a unit.
BESIDE = {"downsample", "proj", "branch1", "shortcut"}
# [Araujo, Norris and Sim, table 1], where torchvision's and TF-Slim's networks are the same; the
# issue; for EfficientNet-B0 its authors' code.
KNOWN = {
    "torchvision:vgg16": 196,
    "vgg16": 196,
    "torchvision:resnet18": 435,
    "torchvision:resnet50": 427,
    "timm:resnet50": 427,
    "timm:mobilenetv1_100": 315,
    "torchvision:inception_v3": 1311,
    "torchvision:efficientnet_b0": 851,
    "timm:efficientnet_b0": 851,
}


def without_values(entry: Entry) -> nn.Module:
    """Return the network on the meta device in evaluation mode; copy one that has weights."""
    if entry.model in NOT_ON_META:
        return copy.deepcopy(build(entry)).to("meta").eval()
    return on_meta(entry).eval()


class Run:
    """One call of a network: how often each layer ran, and the receptive field of the last one.

    That is a recursion over modules, in the order in which they run, branches left out.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.called: Counter[str] = Counter()
        self.receptive, self._side, self._jump = 1, 1, 1
        # The name of the layers between stages in ConvNeXt.
        self._beside = set() if type(model).__name__ == "ConvNeXt" else BESIDE
        hooks = [
            module.register_forward_hook(
                lambda module, inputs, _, name=name: self._see(name, module, inputs[0])
            )
            for name, module in model.named_modules()
            if isinstance(module, (*LAYERS, nn.MaxPool2d, nn.AvgPool2d))
        ]
        with torch.no_grad():
            model(x)
        for hook in hooks:
            hook.remove()

    def _see(self, name: str, module: nn.Module, x: Tensor) -> None:
        if isinstance(module, LAYERS):
            self.called[name] += 1
        pixels = x.shape[2:] if x.dim() == 4 else ()
        if pixels in ((), (1, 1)) or self._beside & set(name.split(".")):
            return
        (size, stride, dilation) = (
            next(iter(value)) if isinstance(value, tuple) else value
            for value in (
                getattr(module, "kernel_size", 1),
                getattr(module, "stride", 1),
                getattr(module, "dilation", 1),
            )
        )
        self._side += dilation * (size - 1) * self._jump
        self._jump *= stride
        if isinstance(module, LAYERS):
            self.receptive = self._side


def held(report: Report) -> Counter[str]:
    """Count the layers of stages, gates and head by name."""
    layers = [entry.layer for entry in report.layers if entry.layer.kind != "SH"]
    return Counter(layer.name for layer in (*layers, *report.gates, *report.head))


@pytest.mark.slow
@pytest.mark.parametrize("entry", ZOO, ids=str)
def test_every_network_is_traced(entry: Entry, capfd: pytest.CaptureFixture[str]) -> None:
    model, x = without_values(entry), torch.empty(1, *entry.image, device="meta")
    capfd.readouterr()
    _, graph = traced(entry)
    assert tuple(capfd.readouterr()) == ("", "")
    assert (graph.how, graph.notes, graph.image) == ("export", (), entry.image)

    report, run = report_on(graph, model), Run(model, x)
    assert report.params == entry.params
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    assert 2 * report.macs == counter.get_total_flops()
    assert held(report) == run.called
    other = {
        parameter
        for name, module in model.named_modules()
        if name not in run.called
        for parameter in module.parameters(recurse=False)
    }
    assert report.other_params == sum(parameter.numel() for parameter in other)
    layers = [*(entry.layer for entry in report.layers), *report.gates, *report.head]
    assert sum(layer.params for layer in layers) + report.other_params == report.params

    assert all(a.side_out > b.side_out for a, b in pairwise(report.stages))
    assert all(a.side >= a.side_out >= b.side for a, b in pairwise(report.stages))
    assert report.stages[0].channels == 3
    assert sum(len(stage.layers) for stage in report.stages) == len(graph.layers)
    for stage in report.stages:
        assert {entry.unit for entry in stage.layers} == set(range(len(stage.units)))
        assert stage.elements == stage.side[0] * stage.side[1] * stage.channels
        assert all(0 < unit.field.volume <= stage.elements for unit in stage.units)
        assert stage.units[0].gain is None
        assert all(unit.gain is not None and unit.gain >= 0 for unit in stage.units[1:])

    widest = [max(entry.receptive[axis] for entry in report.layers) for axis in (0, 1)]
    receptive = KNOWN.get(entry.model, widest[0])
    assert widest == [receptive, receptive] or entry.image[1] == 32
    if entry.model != "torchvision:inception_v3":  # its branches are of many depths
        assert widest == [run.receptive, run.receptive]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["torchvision:resnet18", "torchvision:vgg11_bn", "mobilenet"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # fvcore compiles losses of its own
def test_macs_are_those_of_fvcore_but_for_norms_and_pools(model: str) -> None:
    analysis = import_module("fvcore.nn").FlopCountAnalysis
    entry = next(entry for entry in ZOO if entry.model == model)
    net = copy.deepcopy(build(entry)).eval()
    counts = analysis(net, torch.zeros(1, *entry.small))
    counts.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = counts.by_operator()
    assert set(by_operator) <= {"conv", "linear", "batch_norm", "adaptive_avg_pool2d"}
    assert by_operator["conv"] + by_operator["linear"] == trace(net, entry.small).macs
