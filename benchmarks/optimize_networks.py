"""Networks that `optimize --widths-only` narrows, against torch-pruning at as many parameters.

`python -m benchmarks.optimize_networks` narrows each network to a share of its parameters, prunes
another copy with torch-pruning to the same share, times all three in turn, and writes
`optimize-networks.md` and `optimize-networks.csv` into `results/`. Ratios are of the least times of
one run. torch-pruning is needed for this page alone: `pip install torch-pruning`, into any folder
on PYTHONPATH.

Outputs are checked: the narrowed network computes what the original does with the weights of the
removed channels set to zero, wherever nothing normalises over channels.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.measure import write_results
from benchmarks.thin_layers import least_times
from ifspace.bench.machine import keep_memory
from ifspace.bench.record import provenance
from ifspace.models import EditedNetwork, narrow, network, trace
from ifspace.models.widths import NarrowedNetwork
from ifspace.nn.network import seeded
from ifspace.stages.problem import Budgets

Row = dict[str, Any]
SHARE: Final = 0.6
# Ratios of torch-pruning that are tried: it has no budget.
_BISECTIONS: Final = 7
# How often all networks are timed again.
_PASSES: Final = 4


class DoubleConv(nn.Sequential):
    """Two 3x3 convolutions with batch norm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """U-Net with concatenated shortcuts: widths 32 to 256, 2 classes.

    Reference: Ronneberger et al., U-Net, figure 1, at half the widths and three levels.
    """

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            DoubleConv(a, b) for a, b in zip((3, *widths[:-1]), widths, strict=True)
        )
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.up = nn.ModuleList(DoubleConv(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map of 2 classes for each pixel."""
        kept = []
        for level, part in enumerate(self.down):
            x = part(x if level == 0 else nn.functional.max_pool2d(x, 2))
            kept.append(x)
        for grow, up, shortcut in zip(self.grow, self.up, kept[-2::-1], strict=True):
            x = up(torch.cat([shortcut, grow(x)], 1))
        y: Tensor = self.head(x)
        return y


class ConvUnit(nn.Sequential):
    """A convolution with batch norm and SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
            nn.SiLU(inplace=True),
        )


class SplitBlock(nn.Module):
    """The split block of YOLO's backbones: half of the channels go through residual units."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter = ConvUnit(channels, channels)
        self.units = nn.ModuleList(
            nn.Sequential(ConvUnit(half, half, 3), ConvUnit(half, half, 3)) for _ in range(count)
        )
        self.leave = ConvUnit((2 + count) * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map of the same shape."""
        parts = list(self.enter(x).chunk(2, 1))
        for unit in self.units:
            parts.append(parts[-1] + unit(parts[-1]))
        y: Tensor = self.leave(torch.cat(parts, 1))
        return y


class SplitBackbone(nn.Sequential):
    """A backbone as YOLO's, of strided convolutions and split blocks, with a classifier."""

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        parts: list[nn.Module] = [ConvUnit(3, 16, 3, 2)]
        for inputs, width, count in zip((16, *widths[:-1]), widths, (1, 2, 2, 1), strict=True):
            parts += [ConvUnit(inputs, width, 3, 2), SplitBlock(width, count)]
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 100))
        super().__init__(*parts, pooled)


@dataclass(frozen=True, slots=True)
class Case:
    """A network by its title: how it is made, the side of its images and how many at once."""

    title: str
    make: Callable[[], nn.Module]
    side: int = 224
    batch: int = 4


def _named(name: str) -> Callable[[], nn.Module]:
    return lambda: network(name, (3, 224, 224), seed=0)


CASES: Final = (
    Case("ResNet-18", _named("torchvision:resnet18")),
    Case("ResNet-50", _named("torchvision:resnet50"), batch=2),
    Case("EfficientNet-B0", _named("torchvision:efficientnet_b0")),
    Case("ConvNeXt-T", _named("torchvision:convnext_tiny"), batch=2),
    Case("LR-ASPP MobileNetV3", _named("torchvision:lraspp_mobilenet_v3_large")),
    Case("U-Net", UNet, side=128, batch=2),
    Case("MobileNetV2", _named("torchvision:mobilenet_v2")),
    Case("RegNetY-400MF", _named("torchvision:regnet_y_400mf")),
    Case("YOLO-like backbone", SplitBackbone),
    Case("SE-ResNet-18", _named("timm:seresnet18")),
)


def params_of(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def pruned(model: nn.Module, x: Tensor, share: float) -> nn.Module | None:
    """Return a copy that torch-pruning left about a share of the parameters, uniformly narrower.

    The ratio is found by bisection; the channels of the last layer stay. None where it fails.
    """
    import torch_pruning as tp  # type: ignore[import-not-found]

    target = share * params_of(model)
    low, high = 0.0, 0.9
    best: tuple[float, nn.Module] | None = None
    for _ in range(_BISECTIONS):
        ratio = (low + high) / 2
        copy = deepcopy(model).eval()
        last = _last_layers(copy, x)
        try:
            tp.pruner.MagnitudePruner(
                copy,
                x[:1],
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratio,
                ignored_layers=last,
                round_to=8,
            ).step()
            with torch.no_grad():
                copy(x[:1])
        except Exception as error:
            print(f"torch-pruning at {ratio:.2f}: {error}", flush=True)
            return None if best is None else best[1]
        params = params_of(copy)
        far = abs(params - target)
        if best is None or far < best[0]:
            best = far, copy
        low, high = (ratio, high) if params > target else (low, ratio)
    return None if best is None else best[1]


def _last_layers(model: nn.Module, x: Tensor) -> list[nn.Module]:
    """Return the layers whose channels are returned."""
    outputs = _tensor(model(x[:1])).shape[1]
    layers: list[nn.Module] = [
        part
        for part in model.modules()
        if (isinstance(part, nn.Linear) and part.out_features == outputs)
        or (isinstance(part, nn.Conv2d) and part.out_channels == outputs)
    ]
    return layers[-2:]


def masked(model: nn.Module, result: NarrowedNetwork) -> nn.Module:
    """Return a copy of the original network with zeros for all weights that were removed."""
    copy, step = deepcopy(model), result.plan.step
    assert step is not None
    tensors = {**dict(copy.named_parameters()), **dict(copy.named_buffers())}
    with torch.no_grad():
        for part in step.tensors:
            if not part.name.endswith("running_var"):
                gone = torch.from_numpy(np.flatnonzero(~step.kept[part.kept].mask))
                tensors[part.name].index_fill_(part.axis, gone, 0)
    return copy


def _tensor(output: Any) -> Tensor:
    value = output if isinstance(output, Tensor) else output["out"]
    assert isinstance(value, Tensor)
    return value


def _draw_statistics(model: nn.Module) -> None:
    """Give batch norms the statistics of a trained network: none of them 0 or 1."""
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_(0, 0.1)
                part.running_var.uniform_(0.5, 2)
                part.weight.normal_(1, 0.1)
                part.bias.normal_(0, 0.1)


def compare(case: Case, share: float) -> Row:
    """Return the row of a network: what is left of it, and times over the original's."""
    with seeded(0, None):
        model = case.make().eval()
        _draw_statistics(model)
        x = torch.randn(case.batch, 3, case.side, case.side)
    size = (3, case.side, case.side)
    start = time.perf_counter()
    own = narrow(EditedNetwork.of(model), size, Budgets(params=int(share * params_of(model))))
    seconds = time.perf_counter() - start
    rival = pruned(model, x, share)
    networks: Mapping[str, nn.Module] = {
        "original": model,
        "ifspace": own.model,
        **({} if rival is None else {"torch-pruning": rival}),
    }
    with torch.no_grad():
        for part in networks.values():
            part.eval()
        outputs = [_tensor(part(x)) for part in (model, own.model, masked(model, own))]
        assert outputs[0].shape == outputs[1].shape
        scale = float(outputs[2].abs().max()) or 1.0
        error = float((outputs[1] - outputs[2]).abs().max()) / scale
        calls = [partial(part, x) for part in networks.values()]
        times = [float("inf")] * len(calls)
        for _ in range(_PASSES):
            times = [min(pair) for pair in zip(times, least_times(calls), strict=True)]
    row: Row = {"network": case.title, "original params": params_of(model)}
    macs = trace(model, size).macs
    for (name, part), seconds_of in zip(networks.items(), times, strict=True):
        if name != "original":
            row[f"{name} params"] = round(params_of(part) / params_of(model), 3)
            row[f"{name} MACs"] = round(trace(part, size).macs / macs, 3)
            row[f"{name} time"] = round(seconds_of / times[0], 3)
    if rival is not None:
        row["over torch-pruning"] = round(times[1] / times[2], 3)
    row["error"] = f"{error:.0e}"
    row["seconds"] = round(seconds, 1)
    return row


def main(arguments: Sequence[str] | None = None) -> None:
    """Narrow, prune and time the networks, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="titles of networks, with commas")
    parser.add_argument("--share", type=float, default=SHARE)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    keep_memory()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore")
    rows = []
    for case in CASES:
        if options.only is None or case.title in options.only.split(","):
            rows.append(compare(case, options.share))
            print(rows[-1], flush=True)
    if options.only is None:
        _write(options.out, rows, options.share, options.threads)


def _write(folder: Path, rows: Sequence[Row], share: float, threads: int) -> None:
    command = "python -m benchmarks.optimize_networks"
    columns = list(rows[0])
    page = [
        f"# Networks narrowed to {share:.0%} of their parameters",
        f"Written by {provenance(command)}; {threads} thread, float32. Other programs ran too: a "
        f"load of {os.getloadavg()[2]:.0f} on {os.cpu_count()} cores.",
        "`narrow` with a budget of parameters alone, and torch-pruning (uniform ratio, L2 norms of "
        "groups, widths in multiples of 8) at the nearest number of parameters: parameters, MACs "
        "and time over the original's, the least times of runs that take turns. *error*: how far "
        "the outputs are from the original's with the weights of the removed channels set to zero, "
        "over the largest of them; where layer norms see fewer channels they differ. *seconds*: of "
        "the whole search and surgery.",
        tabulate([[row.get(name, "") for name in columns] for row in rows], columns, "github"),
    ]
    write_results(folder, "optimize-networks", page, rows, command, line_end="\n")


if __name__ == "__main__":
    main()
