"""Training schedules: the papers' settings as frozen values.

Two settings of the papers are missing, because what is printed does not define them: the plain
networks of [Layout] (40,000 steps; when the rate falls is not stated), and training from weights
that others published.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil
from types import MappingProxyType
from typing import Any, Final

import torch

from ifspace.errors import SettingError
from ifspace.values import whole_number

MAX_EPOCHS: Final = 100_000
MAX_BATCH: Final = 2**20
DECAYS: Final = ("steps", "cosine")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Stochastic gradient descent for a number of epochs, with a decaying learning rate.

    `decay`: "steps" multiplies the rate by `factor` at each of the `milestones` (in epochs,
    ascending, not necessarily whole); "cosine" anneals it to 0. `batch`: images per step.
    `reference` says where each number comes from, and which are not from a paper.

    >>> print(Schedule("mine", 4, 0.1, 64, milestones=(2,)))
    4 epochs in batches of 64; SGD, no momentum, weight decay 0; rate 0.1, × 0.1 after epoch 2

    Raises: SettingError for a number out of range.
    """

    name: str
    epochs: int
    lr: float
    batch: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    decay: str = "steps"
    milestones: tuple[Fraction | int, ...] = ()
    factor: float = 0.1
    reference: str = ""

    def __post_init__(self) -> None:
        """Check that every number is in its range."""
        whole_number(self.epochs, "epochs", 1, MAX_EPOCHS)
        whole_number(self.batch, "batch", 1, MAX_BATCH)
        for name, valid, allowed in (
            ("lr", self.lr > 0, "numbers above 0"),
            ("momentum", 0 <= self.momentum < 1, "0 <= momentum < 1"),
            ("nesterov", not self.nesterov or self.momentum > 0, "only with a momentum above 0"),
            ("weight_decay", self.weight_decay >= 0, "numbers from 0"),
            ("factor", 0 < self.factor <= 1, "0 < factor <= 1"),
            ("decay", self.decay in DECAYS, ", ".join(DECAYS)),
            ("milestones", list(self.milestones) == sorted(self.milestones), "ascending epochs"),
        ):
            if not valid:
                raise SettingError.because(
                    f"{name} out of range",
                    got=repr(getattr(self, name)),
                    allowed=allowed,
                    remedy="a preset of PRESETS is a working example",
                    argument=name,
                )

    def scheduler(
        self, optimizer: torch.optim.Optimizer, steps_per_epoch: int
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return torch's scheduler of the learning rate; it is stepped after every batch."""
        if self.decay == "cosine":
            steps = self.epochs * steps_per_epoch
            return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        milestones = [ceil(epoch * steps_per_epoch) for epoch in self.milestones]
        return torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, self.factor)

    def for_epochs(self, epochs: int) -> "Schedule":
        """Return the schedule with another number of epochs; milestones keep their share of it.

        >>> PRESETS["3drf-cifar"].for_epochs(14).milestones
        (Fraction(6, 1), Fraction(10, 1))

        Raises: SettingError for a number out of range.
        """
        whole_number(epochs, "epochs", 1, MAX_EPOCHS)
        share = Fraction(epochs, self.epochs)
        return replace(self, epochs=epochs, milestones=tuple(x * share for x in self.milestones))

    def __str__(self) -> str:
        """Return the schedule in a sentence."""
        kind = "SGD" + (f", momentum {self.momentum:g}" if self.momentum else ", no momentum")
        kind += " (Nesterov)" if self.nesterov else ""
        falls = "falling to 0 along a cosine" if self.decay == "cosine" else "constant"
        if self.decay == "steps" and self.milestones:
            after = ", ".join(f"{float(epoch):.4g}" for epoch in self.milestones)
            falls = f"× {self.factor:g} after epoch {after}"
        return (
            f"{self.epochs} epochs in batches of {self.batch}; {kind}, weight decay "
            f"{self.weight_decay:g}; rate {self.lr:g}, {falls}"
        )


_PRESETS: Final = (
    Schedule(
        "3drf-cifar",
        350,
        0.1,
        128,
        momentum=0.9,
        weight_decay=5e-4,
        milestones=(150, 250),
        reference="[3DRF] section 5, Training Settings, and [IF] Evaluation, CIFAR-10 and "
        "CIFAR-100; the batch is not printed: 128 is that of the implementations they name",
    ),
    Schedule(
        "3drf-imagenet",
        120,
        0.1,
        256,
        momentum=0.9,
        weight_decay=1e-4,
        milestones=(30, 60, 90),
        reference="[3DRF] section 5, Training Settings, and [IF] Evaluation, ImageNet; batch and "
        "decay are not printed: 256 and × 0.1 every 30 epochs are those of PyTorch's official "
        "example, which they name",
    ),
    Schedule(
        "fog-imagenet",
        100,
        0.1,
        256,
        momentum=0.9,
        weight_decay=1e-4,
        nesterov=True,
        milestones=(30, 60, 90),
        reference="[Fog] section 4.1, ImageNet",
    ),
    Schedule(
        "layout-residual",
        205,
        0.1,
        128,
        milestones=(Fraction(205 * 3, 4),),
        reference="[Layout] section 4.1, Residual Nets: 80,000 steps of 128 of 50,000 images are "
        "204.8 epochs; × 0.1 after 60,000; neither momentum nor weight decay is printed",
    ),
    Schedule(
        "quick",
        8,
        0.1,
        64,
        momentum=0.9,
        weight_decay=5e-4,
        nesterov=True,
        decay="cosine",
        reference="no paper's: enough for a small network on the digits",
    ),
    Schedule(
        "few-images",
        30,
        0.02,
        32,
        momentum=0.9,
        weight_decay=5e-4,
        nesterov=True,
        decay="cosine",
        reference="no paper's: for a few hundred images; the rate is one of two that were tried on "
        "four blocks before a tournament was run (at 0.1 they did not train evenly)",
    ),
)
PRESETS: Final[Mapping[str, Schedule]] = MappingProxyType(
    {schedule.name: schedule for schedule in _PRESETS}
)


def preset(name: Any) -> Schedule:
    """Return the schedule of a name; case does not matter.

    >>> print(preset("fog-imagenet"))
    100 epochs in batches of 256; SGD, momentum 0.9 (Nesterov), weight decay 0.0001; rate 0.1, ...

    Raises: SettingError for an unknown one.
    """
    schedule = PRESETS.get(name.lower()) if isinstance(name, str) else None
    if schedule is None:
        raise SettingError.because(
            "unknown preset",
            got=repr(name),
            allowed=", ".join(PRESETS),
            remedy="choose one of them",
            argument="preset",
        )
    return schedule
