"""Networks that `optimize` brings to a budget, each beside torch-pruning at as many parameters.

`python -m benchmarks.optimize_networks` brings each network to 60% and to 50% of its parameters and
to 70% of its latency, in every way that the product has, prunes further copies with torch-pruning
to the parameters that came out, times all of them in turn, and writes `optimize-networks.md` and
`optimize-networks.csv` into `results/`. Rows that are in the CSV file already are not made again,
so that runs of `--seconds` finish the table together. torch-pruning is needed for this page alone:
`pip install torch-pruning`, into any folder on PYTHONPATH.

Outputs are checked: the network that comes out is written as source in plain torch and computes the
same there. A narrowed one computes what the original does with the weights of the removed channels
set to zero, wherever nothing normalises over channels.
"""

import argparse
import csv
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from benchmarks.measure import write_results
from ifspace.bench.machine import keep_memory
from ifspace.bench.predict import LatencyPredictor
from ifspace.bench.record import provenance
from ifspace.errors import IfspaceError
from ifspace.models import EditedNetwork, Search, from_source, save, trace
from ifspace.models.joint import Freedom
from ifspace.models.latencies import known_latency
from ifspace.models.measuring import Measurer
from ifspace.models.optimization import Optimization, OptimizationProblem, optimize
from ifspace.models.widths import Narrowing
from ifspace.nn.network import seeded
from ifspace.parallel import as_completed
from ifspace.stages.problem import FRONT, Blocks, Budgets

Row = dict[str, Any]
Key = tuple[str, str, str]
# Trials of torch-pruning, which has no budget, and the greatest ratio.
_TRIALS: Final = 5
_MOST_PRUNED: Final = 0.95
# How near its parameters come to those of ours.
_NEAR: Final = 0.015
# Rounds in which all networks are timed: the least, the most, and how many must change no time by
# more than a hundredth at the end; copies move after so many.
_ROUNDS: Final = (15, 45)
_STILL: Final = 5
_MOVED: Final = 5
# Height and width of images. Networks as deep at 224 pixels take twice as long, in each column.
_SIDE: Final = 160
_SAME: Final = 0.99
_NAME: Final = "optimize-networks"
MODEL: Final = Path("results/bench/blocks-cpu-amd-epyc-avx2.json")


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
        self.enter: nn.Sequential = ConvUnit(channels, channels)
        self.units = nn.ModuleList(
            nn.Sequential(ConvUnit(half, half, 3), ConvUnit(half, half, 3)) for _ in range(count)
        )
        self.leave = ConvUnit((2 + count) * half, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return a feature map of the same shape."""
        parts = self.halves(x)
        for unit in self.units:
            parts.append(parts[-1] + unit(parts[-1]))
        y: Tensor = self.leave(torch.cat(parts, 1))
        return y

    def halves(self, x: Tensor) -> list[Tensor]:
        """Return the two halves of what enters."""
        return list(self.enter(x).chunk(2, 1))


class PairedBlock(SplitBlock):
    """A split block that computes its halves apart: torch-pruning mixes up the parts of `chunk`.

    Reference: torch-pruning, examples/yolov8, `replace_c2f_with_c2f_v2`.
    """

    def __init__(self, block: SplitBlock) -> None:
        conv, norm, _ = block.enter
        assert isinstance(conv, nn.Conv2d)
        super().__init__(conv.out_channels, len(block.units))
        self.units, self.leave = deepcopy(block.units), deepcopy(block.leave)
        state = {**conv.state_dict(prefix="0."), **norm.state_dict(prefix="1.")}
        channels = torch.arange(conv.out_channels)
        self.enter = nn.Sequential()
        for half in channels.chunk(2):
            unit = ConvUnit(conv.in_channels, len(half))
            unit.load_state_dict({name: x[half] if x.dim() else x for name, x in state.items()})
            self.enter.append(unit)

    def halves(self, x: Tensor) -> list[Tensor]:
        """Return the two halves of what enters."""
        return [unit(x) for unit in self.enter]


class SplitBackbone(nn.Sequential):
    """A backbone as YOLO's, of strided convolutions and split blocks, with a classifier."""

    def __init__(self, widths: Sequence[int] = (32, 64, 128, 256)) -> None:
        parts: list[nn.Module] = [ConvUnit(3, 16, 3, 2)]
        for inputs, width, count in zip((16, *widths[:-1]), widths, (1, 2, 2, 1), strict=True):
            parts += [ConvUnit(inputs, width, 3, 2), SplitBlock(width, count)]
        pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 100))
        super().__init__(*parts, pooled)


def in_pairs(model: nn.Module) -> nn.Module:
    """Return a copy of a split backbone whose blocks compute their halves apart."""
    parts = [PairedBlock(part) if isinstance(part, SplitBlock) else part for part in model]  # type: ignore[attr-defined]
    return nn.Sequential(*map(deepcopy, parts)).eval()


@dataclass(frozen=True, slots=True)
class Case:
    """A network by its title: how it is made, the side of its images.

    `for_rival`: makes of it the copy that torch-pruning prunes, which computes the same.
    """

    title: str
    make: Callable[[], EditedNetwork]
    side: int = _SIDE
    for_rival: Callable[[nn.Module], nn.Module] = deepcopy

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W) of an image."""
        return 3, self.side, self.side


def _named(name: str) -> Callable[[], EditedNetwork]:
    return lambda: from_source(name, (3, _SIDE, _SIDE), seed=0)


CASES: Final = (
    Case("ResNet-18", _named("torchvision:resnet18")),
    Case("ResNet-50", _named("torchvision:resnet50")),
    Case("MobileNetV2", _named("torchvision:mobilenet_v2")),
    Case("EfficientNet-B0", _named("torchvision:efficientnet_b0")),
    Case("ConvNeXt-T", _named("torchvision:convnext_tiny")),
    Case("U-Net", lambda: EditedNetwork.of(UNet()), side=128),
    Case("LR-ASPP MobileNetV3", _named("torchvision:lraspp_mobilenet_v3_large")),
    Case("YOLO-like backbone", lambda: EditedNetwork.of(SplitBackbone()), for_rival=in_pairs),
    Case("SE-ResNet-18", _named("timm:seresnet18")),
    Case("RegNetY-400MF", _named("torchvision:regnet_y_400mf")),
)
GOALS: Final[Mapping[str, Budgets]] = {
    "60% of the parameters": Budgets(params="60%"),
    "50% of the parameters": Budgets(params="50%"),
    "70% of the latency": Budgets(latency_ms="70%"),
}
# What `ifspace optimize` does with a budget: alone, with --widths-only and with --joint beside
# --measure, with --stages-only beside --latency MODEL.
WAYS: Final[Mapping[str, Callable[[Budgets, Search], OptimizationProblem]]] = {
    "blocks": lambda budgets, _: OptimizationProblem(
        blocks=Blocks(FRONT), budgets=budgets, keep_stages=True, measure=Measurer()
    ),
    "stages": lambda budgets, search: OptimizationProblem(budgets=budgets, search=search),
    "widths": lambda budgets, _: OptimizationProblem(
        budgets=budgets, keep_stages=True, widths=True, measure=Measurer()
    ),
    "joint": lambda budgets, _: OptimizationProblem(
        budgets=budgets, joint=Freedom(), measure=Measurer()
    ),
}


# Stages alone take no budget of latency.
LEFT_OUT: Final = (("70% of the latency", "stages"),)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a way made of a network, in `seconds`; `reason`: why nothing. `error`: of its outputs.

    `rival`: the copy that torch-pruning left as many parameters.
    """

    way: str
    optimization: Optimization | None = None
    reason: str = ""
    seconds: float = 0.0
    error: float = 0.0
    rival: nn.Module | None = None

    @property
    def model(self) -> nn.Module:
        """The network that came out."""
        assert self.optimization is not None
        assert self.optimization.network is not None
        return self.optimization.network.model

    @property
    def predicted(self) -> float | None:
        """The latency that the answer says, over the original's; None where it says none."""
        result = self.optimization
        assert result is not None
        if result.measured is not None:
            before, after = result.measured.predicted_ms
            return float(after / before)
        source = result.problem.search.latency
        if source is None or result.after is None:
            return None
        totals = [known_latency(report, source).ms for report in (result.before, result.after)]
        return float(totals[1] / totals[0]) if totals[0] else None


def params_of(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


class Rival:
    """Prunes copies of a network with torch-pruning: L2 norms of groups, widths in multiples of 8.

    The channels of the last layers stay.
    """

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model, self.x = model, x
        outputs = _tensor(model(x)).shape[1]
        last = [
            name
            for name, part in model.named_modules()
            if (isinstance(part, nn.Linear) and part.out_features == outputs)
            or (isinstance(part, nn.Conv2d) and part.out_channels == outputs)
        ]
        self.last = last[-2:]
        self.convs = [
            name
            for name, part in model.named_modules()
            if isinstance(part, nn.Conv2d | nn.Linear) and name not in self.last
        ]
        self.copies: dict[int, nn.Module] = {}

    def at(self, params: int) -> nn.Module | None:
        """Return the copy whose parameters are nearest to a number; None where pruning fails.

        Of one ratio for all layers, then, where that steps over the number, of the
        greater ratio around it for the first layers, or the last, and the smaller one for others.
        """
        whole = params_of(self.model)
        ends = 0.0, _MOST_PRUNED
        amounts = whole, round(whole * (1 - _MOST_PRUNED) ** 2)
        low, high = self._search(ends, amounts, params, lambda ratio: {None: ratio})
        for layers in (self.convs, self.convs[::-1]):

            def part(count: float, layers: Sequence[str] = layers) -> dict[str | None, float]:
                return {None: low} | dict.fromkeys(layers[: round(count)], high)

            around = round(params * 1.1), round(params * 0.9)
            self._search((0.0, float(len(layers))), around, params, part)
        if not self.copies:
            return None
        return self.copies[min(self.copies, key=lambda own: abs(own - params))]

    def _is_near(self, params: int) -> bool:
        return any(abs(own - params) <= _NEAR * params for own in self.copies)

    def _search(
        self,
        ends: tuple[float, float],
        amounts: tuple[int, int],
        params: int,
        ratios: Callable[[float], Mapping[str | None, float]],
    ) -> tuple[float, float]:
        """Prune at values between two ends, of which the greater one leaves fewer parameters.

        `amounts`: about what the ends leave; its root falls with the ratio.
        """
        (low, high), (most, least) = ends, amounts
        for _ in range(_TRIALS):
            if self._is_near(params):
                break
            share = (most**0.5 - params**0.5) / (most**0.5 - least**0.5)
            middle = low + min(0.8, max(0.2, share)) * (high - low)
            own = self._pruned(ratios(middle))
            if own is None or own <= params:
                high, least = middle, own or least
            else:
                low, most = middle, own
        return low, high

    def _pruned(self, ratios: Mapping[str | None, float]) -> int | None:
        """Return the parameters that a copy has after it is pruned, None where that fails."""
        import torch_pruning as tp  # type: ignore[import-not-found]

        copy = deepcopy(self.model).eval()
        parts = dict(copy.named_modules())
        try:
            tp.pruner.MagnitudePruner(
                copy,
                self.x,
                importance=tp.importance.GroupMagnitudeImportance(p=2),
                pruning_ratio=ratios[None],
                pruning_ratio_dict={parts[name]: ratio for name, ratio in ratios.items() if name},
                ignored_layers=[parts[name] for name in self.last],
                round_to=8,
            ).step()
            with torch.no_grad():
                copy(self.x)
        except Exception as error:
            print(f"torch-pruning: {type(error).__name__}: {error}", flush=True)
            return None
        own = params_of(copy)
        self.copies.setdefault(own, copy)
        return own


def masked(model: nn.Module, plan: Narrowing) -> nn.Module:
    """Return a copy of the original network with zeros for all weights that were removed."""
    copy, step = deepcopy(model), plan.step
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


def optimized(
    case: Case, start: EditedNetwork, goal: str, way: str, x: Tensor, search: Search
) -> Result:
    """Return what a way makes of a network, with its outputs checked."""
    begin = time.perf_counter()
    problem = WAYS[way](GOALS[goal], search)
    try:
        result = optimize(start, trace(start.model, case.size), problem)
    except IfspaceError as error:
        return Result(way, reason=str(error))
    seconds = time.perf_counter() - begin
    if result.network is None:
        return Result(way, reason="nothing keeps the budget", seconds=seconds)
    model = result.network.model.eval()
    others = [_as_source(result.network, case)]
    if result.widths is not None and result.widths.step is not None:
        others.append(masked(start.model, result.widths))
    with torch.no_grad():
        y = _tensor(model(x))
        assert y.shape == _tensor(start.model(x)).shape
        scale = float(y.abs().max()) or 1.0
        deviation = max(float((y - _tensor(other(x))).abs().max()) / scale for other in others)
    return Result(way, result, "", seconds, deviation)


def _as_source(network: EditedNetwork, case: Case) -> nn.Module:
    """Return a network as it is written as a file of plain torch."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.py"
        save(network, file, case.size)
        names: dict[str, Any] = {"__file__": str(file), "__name__": "network"}
        exec(compile(file.read_text(), str(file), "exec"), names)
        module: nn.Module = names["load"]()
        return module


def compare(case: Case, goal: str, ways: Sequence[str], search: Search) -> Iterator[Row]:
    """Yield the rows of a network and a goal: what each way leaves, and times over the original's.

    All networks are timed in one run.
    """
    with seeded(0, None):
        start = case.make()
        model = start.model.eval()
        _draw_statistics(model)
        x = torch.randn(1, *case.size)
    results = []
    rival = Rival(case.for_rival(model), x)
    for way in ways:
        result = optimized(case, start, goal, way, x, search)
        if result.optimization is not None:
            copy = rival.at(params_of(result.model))
            result = replace(result, rival=copy)
        results.append(result)
        print(case.title, goal, way, result.reason or f"{result.seconds:.1f} s", flush=True)
    networks = {"": model}
    for result in results:
        if result.optimization is not None:
            networks[result.way] = result.model
            if result.rival is not None:
                networks[f"rival of {result.way}"] = result.rival
    times = dict(zip(networks, _least_times(list(networks.values()), x), strict=True))
    macs = trace(model, case.size).macs
    for result in results:
        row: Row = {"network": case.title, "goal": goal, "way": result.way, "reason": result.reason}
        if result.optimization is not None:
            row |= {
                "params": round(params_of(result.model) / params_of(model), 3),
                "MACs": round(trace(result.model, case.size).macs / macs, 3),
                "predicted": None if result.predicted is None else round(result.predicted, 3),
                "measured": round(times[result.way] / times[""], 3),
            }
            if result.rival is not None:
                pruned_macs = trace(result.rival, case.size).macs
                rival_s = times[f"rival of {result.way}"]
                row |= {
                    "torch-pruning params": round(params_of(result.rival) / params_of(model), 3),
                    "torch-pruning MACs": round(pruned_macs / macs, 3),
                    "torch-pruning measured": round(rival_s / times[""], 3),
                    "over torch-pruning": round(times[result.way] / rival_s, 3),
                }
            row |= {"error": f"{result.error:.0e}", "seconds": round(result.seconds, 1)}
        source = provenance("python -m benchmarks.optimize_networks")
        processor = source.machine.split(", ")[0]
        row |= {"commit": source.commit, "machine": processor, "load": round(os.getloadavg()[0])}
        yield row


def _least_times(networks: Sequence[nn.Module], x: Tensor) -> list[float]:
    """Return the least seconds of each network, of rounds that go on until no time falls.

    Of one thread the seconds that the processor worked for it count, not those that other programs
    had it. Where tensors lie in memory changes times by some hundredths: every few rounds copies of
    the networks go on, elsewhere.
    """
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    for model in networks:
        model.eval()
    different = list(dict.fromkeys(networks))
    copies: list[nn.Module] = []
    times = [float("inf")] * len(different)
    still, (fewest, most) = 0, _ROUNDS
    with torch.no_grad():
        for number in range(most):
            if number % _MOVED == 0:
                earlier, copies = copies, [deepcopy(model) for model in different]
                del earlier
                for model in copies:
                    model(x)
            before = list(times)
            for index, model in enumerate(copies):
                begin = clock()
                model(x)
                times[index] = min(times[index], clock() - begin)
            falls = any(now < _SAME * old for now, old in zip(times, before, strict=True))
            still = 0 if falls else still + 1
            if number + 1 >= fewest and still >= _STILL:
                break
    seconds = dict(zip(different, times, strict=True))
    return [seconds[model] for model in networks]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the rows that are missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="titles of networks, with commas")
    parser.add_argument("--goals", help="with commas, such as '60%% of the parameters'")
    parser.add_argument("--ways", help="of them, with commas")
    parser.add_argument("--seconds", type=float, help="no network is begun after that")
    parser.add_argument("--latency", type=Path, default=MODEL, help="a model of `ifspace bench`")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="networks at once, a process for each")
    parser.add_argument("--out", type=Path, default=Path("results"))
    options = parser.parse_args(arguments)
    titles = [case.title for case in CASES]
    chosen = [
        [name for name in names if text is None or name in text.split(",")]
        for names, text in ((titles, options.only), (GOALS, options.goals), (WAYS, options.ways))
    ]
    rows = _rows_of(options.out / f"{_NAME}.csv")
    begin = time.perf_counter()
    cells = []
    for title, goal in product(*chosen[:2]):
        ways = [way for way in chosen[2] if (title, goal, way) not in rows]
        ways = [way for way in ways if (goal, way) not in LEFT_OUT]
        cells += [(title, goal, ways, options.latency, options.threads)] if ways else []
    for _, batch in as_completed(_rows_in, cells, options.jobs):
        rows |= {_key(row): row for row in batch}
        _write(options.out, rows, options.threads)
        if options.seconds is not None and time.perf_counter() - begin > options.seconds:
            break


def _rows_in(cell: tuple[str, str, Sequence[str], Path, int]) -> list[Row]:
    """Return the rows of a network and a goal, in this process."""
    title, goal, ways, latency, threads = cell
    keep_memory()
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")
    case = next(case for case in CASES if case.title == title)
    return list(compare(case, goal, ways, Search(latency=LatencyPredictor.read(latency))))


def _key(row: Mapping[str, Any]) -> Key:
    return row["network"], row["goal"], row["way"]


def _rows_of(file: Path) -> dict[Key, Row]:
    """Return the rows of a file by network, goal and way; none if there is no such file."""
    try:
        with file.open(newline="") as lines:
            return {_key(row): dict(row) for row in csv.DictReader(lines)}
    except (OSError, KeyError):
        return {}


def _write(folder: Path, rows: Mapping[Key, Row], threads: int) -> None:
    order = [key for key in product([case.title for case in CASES], GOALS, WAYS) if key in rows]
    order = [key for key in order if key[1:] not in LEFT_OUT]
    command = "python -m benchmarks.optimize_networks"
    page = [
        "# Networks brought to a budget",
        f"Written by {provenance(command)}; {threads} thread, float32, one image of "
        f"{_SIDE} pixels (U-Net: 128). Rows name the "
        "commit and the machine that they were measured at and its load then, of which other "
        "programs are the most: ratios are of networks that took turns.",
        "Each network as `ifspace optimize` brings it to a budget, by *blocks*, *stages* or "
        "*widths* alone or *joint*, beside torch-pruning (L2 norms of groups, one ratio for all "
        "layers, or two where one steps over the number, widths in multiples of 8) at as many "
        "parameters: parameters, MACs and time over the original's, the least times of runs that "
        "take turns. "
        "*predicted*: the latency that the answer says, that of the network with `--measure`; of "
        "*stages* what the model of `ifspace bench` predicts for "
        f"all convolutions ({MODEL}); stages alone take no budget of latency. *error*: how far the "
        "outputs are from those of the network written as plain torch (`--save net.py`) and, of "
        "narrowed ones, from the original's with the weights of the removed channels set to zero, "
        "over the largest of them; where layer norms see fewer channels the latter differ. "
        "*seconds*: of the search, with what it timed. No answer's predicted latency is above the "
        "network's: where nothing keeps a budget so, that is said below the table.",
    ]
    for goal in GOALS:
        kept = [rows[key] for key in order if key[1] == goal]
        done = [row for row in kept if not row["reason"]]
        columns = list(dict.fromkeys(name for row in done for name in row))
        columns = [name for name in columns if name not in ("goal", "reason")]
        cells = [["" if row.get(name) is None else row[name] for name in columns] for row in done]
        table = [tabulate(cells, columns, "github", disable_numparse=True)] if cells else []
        page += [f"## {goal}", *table] if kept else []
        failed = [
            f"- {row['network']}, {row['way']}: {row['reason']}" for row in kept if row["reason"]
        ]
        page += ["\n".join(failed)] if failed else []
    values = [rows[key] for key in order]
    write_results(folder, _NAME, page, values, command, line_end="\n")


if __name__ == "__main__":
    main()
