"""Versions of a network trained side by side: accuracy, loss, size, and time per step.

All versions of a seed see the same batches with the same crops, and take their steps in turn, so
that a disturbance of the machine slows all of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean, median, stdev
from time import perf_counter
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from experiments.training.data import Data
from experiments.training.schedules import Schedule
from ifspace.errors import SettingError
from ifspace.nn.checks import device_of
from ifspace.parallel import Progress
from ifspace.values import whole_number

Builders = Mapping[str, Callable[[int], nn.Module]]
# The first steps of a run allocate memory and choose algorithms: they are not timed unless there
# are no others.
WARM_UP: Final = 3
TEST_BATCH: Final = 512
MAX_THREADS: Final = 1024
# The seed of a step has the number of the step in the bits above it.
MAX_SEED: Final = 2**32 - 1
FLOPS_PER_MAC: Final = 2


@dataclass(frozen=True, slots=True)
class Run:
    """One version trained from one seed.

    `accuracy_percent` of the test images; `train_loss`: mean cross entropy of the last epoch;
    `macs` of one image; `step_ms`: median time of a step (forward, backward, update) in
    milliseconds, and its 20th and 80th percentile. `threads` and `device`: where it ran.
    """

    version: str
    seed: int
    accuracy_percent: float
    train_loss: float
    params: int
    macs: int
    step_ms: float
    step_ms_p20: float
    step_ms_p80: float
    epochs: int
    threads: int
    device: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The runs of one version: means over seeds, medians of the times.

    `accuracy_std` in points, the sample's; None for one seed.
    """

    version: str
    seeds: int
    accuracy_percent: float
    accuracy_std: float | None
    train_loss: float
    params: int
    macs: int
    step_ms: float
    step_ms_p20: float
    step_ms_p80: float


def train_check(
    versions: Builders,
    data: Data,
    schedule: Schedule,
    seeds: Sequence[int] = (0, 1, 2),
    *,
    threads: int | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    finished: Callable[[Run], None] | None = None,
) -> tuple[Run, ...]:
    """Return a run for each seed and version, trained by the schedule.

    `versions`: functions that build each version from a seed. A run depends on its own version,
    seed and data alone; on a CPU with the same number of `threads` (torch's own by default) it is
    reproducible but for the times. `progress` is called with the steps done and their total,
    `finished` with each run when it ends: after an interruption the caller has those. Torch's
    generators and number of threads are restored.

    Raises: SettingError for no version, no seed or a wrong one, or a wrong number of threads;
        DeviceError for a device that is not available.
    """
    target = device_of(device, meta=False)
    _check(versions, seeds, threads)
    per_epoch = len(_batches(len(data.train_labels), schedule.batch, torch.Generator()))
    total = per_epoch * schedule.epochs * len(versions) * len(seeds)
    done = 0
    runs: list[Run] = []
    with _settings(threads, target):
        for seed in seeds:
            trainees = [
                _Trainee(name, build, seed, schedule, target, per_epoch)
                for name, build in versions.items()
            ]
            for step, images, labels in _steps(data, schedule, seed):
                for trainee in trainees:
                    trainee.step(images.to(target), labels.to(target), step)
                    done += 1
                    if progress is not None:
                        progress(done, total)
            for trainee in trainees:
                runs.append(trainee.run(data))
                if finished is not None:
                    finished(runs[-1])
    return tuple(runs)


def summaries(runs: Sequence[Run]) -> tuple[Summary, ...]:
    """Return the summary of each version over its seeds, in the order of the versions."""
    rows = []
    for version in dict.fromkeys(run.version for run in runs):
        own = [run for run in runs if run.version == version]
        accuracies = [run.accuracy_percent for run in own]
        rows.append(
            Summary(
                version,
                len(own),
                fmean(accuracies),
                stdev(accuracies) if len(own) > 1 else None,
                fmean(run.train_loss for run in own),
                own[0].params,
                own[0].macs,
                median(run.step_ms for run in own),
                median(run.step_ms_p20 for run in own),
                median(run.step_ms_p80 for run in own),
            )
        )
    return tuple(rows)


def macs_of(model: nn.Module, image: tuple[int, int, int]) -> int:
    """Return the multiply-accumulates of one image [C, H, W], as torch counts its operators.

    >>> macs_of(nn.Conv2d(3, 8, 3, padding=1), (3, 4, 4)) == 9 * 3 * 8 * 4 * 4
    True
    """
    weight = next(model.parameters())
    x = torch.zeros(1, *image, device=weight.device, dtype=weight.dtype)
    training = model.training
    with torch.no_grad(), FlopCounterMode(display=False) as counted:
        model.eval()(x)
    model.train(training)
    return int(counted.get_total_flops()) // FLOPS_PER_MAC


@dataclass(slots=True)
class _Trainee:
    """A version that is being trained."""

    version: str
    build: Callable[[int], nn.Module]
    seed: int
    schedule: Schedule
    device: torch.device
    steps_per_epoch: int
    model: nn.Module = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    scheduler: torch.optim.lr_scheduler.LRScheduler = field(init=False)
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        _draw_from(self.seed, self.device)
        self.model = self.build(self.seed).to(self.device).train()
        self.optimizer = torch.optim.SGD(
            self.model.parameters(),
            self.schedule.lr,
            self.schedule.momentum,
            weight_decay=self.schedule.weight_decay,
            nesterov=self.schedule.nesterov,
        )
        self.scheduler = self.schedule.scheduler(self.optimizer, self.steps_per_epoch)

    def step(self, images: Tensor, labels: Tensor, step: int) -> None:
        """Train on a batch; dropout draws the same numbers whatever was trained in between."""
        _draw_from(self.seed + (step << 32), self.device)
        self._wait()
        started = perf_counter()
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(images), labels)
        torch.autograd.backward(loss)
        self.optimizer.step()
        self._wait()
        self.seconds.append(perf_counter() - started)
        self.losses.append(loss.item())
        self.scheduler.step()

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def run(self, data: Data) -> Run:
        """Test the version and return its row."""
        warm = self.seconds[WARM_UP:] or self.seconds
        low, middle, high = (1000 * float(value) for value in np.quantile(warm, (0.2, 0.5, 0.8)))
        return Run(
            self.version,
            self.seed,
            self._accuracy(data),
            fmean(self.losses[-self.steps_per_epoch :]),
            sum(weight.numel() for weight in self.model.parameters()),
            macs_of(self.model, data.shape),
            middle,
            low,
            high,
            self.schedule.epochs,
            torch.get_num_threads(),
            str(self.device),
        )

    @torch.no_grad()
    def _accuracy(self, data: Data) -> float:
        self.model.eval()
        right = 0
        for indices in torch.split(torch.arange(len(data.test_labels)), TEST_BATCH):
            images, labels = data.test_images[indices], data.test_labels[indices]
            predicted = self.model(data.normalised(images).to(self.device)).argmax(1).cpu()
            right += int((predicted == labels).sum())
        return 100 * right / len(data.test_labels)


def _check(versions: Builders, seeds: Sequence[int], threads: int | None) -> None:
    for name, values in (("versions", versions), ("seeds", seeds)):
        if not len(values):
            raise SettingError.because(
                f"no {name}",
                got="none",
                allowed="one or more",
                remedy="give at least one",
                argument=name,
            )
    for seed in seeds:
        whole_number(seed, "seeds", 0, MAX_SEED)
    if threads is not None:
        whole_number(threads, "threads", 1, MAX_THREADS)


@contextmanager
def _settings(threads: int | None, device: torch.device) -> Iterator[None]:
    """Set the number of threads; restore it and the generators at the end."""
    before = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.set_num_threads(before if threads is None else threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _draw_from(seed: int, device: torch.device) -> None:
    # Not torch.manual_seed: it would seed devices whose generators are not restored.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def _steps(data: Data, schedule: Schedule, seed: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield for every step its number from 0, images [B, C, H, W] and labels [B]."""
    draws = torch.Generator().manual_seed(seed)
    step = 0
    for _ in range(schedule.epochs):
        for indices in _batches(len(data.train_labels), schedule.batch, draws):
            yield step, *data.train_batch(indices, draws)
            step += 1


def _batches(count: int, size: int, draws: torch.Generator) -> list[Tensor]:
    """Return the indices of all images in a random order, in batches; the last may be smaller."""
    batches = list(torch.split(torch.randperm(count, generator=draws), size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        # Batch norm has no variance of a single image: it joins the batch before.
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches
