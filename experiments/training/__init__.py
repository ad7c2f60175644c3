"""Train small networks side by side: data, the papers' schedules, and the check itself.

>>> from experiments.training import PRESETS, train_check
>>> PRESETS["3drf-cifar"].milestones
(150, 250)
"""

from experiments.training.check import (
    Run,
    Summary,
    macs_of,
    summaries,
    train_check,
)
from experiments.training.data import (
    Data,
    cifar10,
    cifar100,
    cifar_binary,
    digits,
)
from experiments.training.schedules import (
    PRESETS,
    Schedule,
    preset,
)
from experiments.training.versions import (
    Version,
    layout_for,
    versions,
)

__all__ = [
    "PRESETS",
    "Data",
    "Run",
    "Schedule",
    "Summary",
    "Version",
    "cifar10",
    "cifar100",
    "cifar_binary",
    "digits",
    "layout_for",
    "macs_of",
    "preset",
    "summaries",
    "train_check",
    "versions",
]
