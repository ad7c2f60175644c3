"""Training of small networks, side by side: data, the papers' schedules, and the check itself.

>>> from ifspace.training import PRESETS, train_check
>>> PRESETS["3drf-cifar"].milestones
(150, 250)
"""

from ifspace.training.check import Run, Summary, macs_of, summaries, train_check
from ifspace.training.data import Data, cifar10, cifar100, digits
from ifspace.training.schedules import PRESETS, Schedule, preset
from ifspace.training.versions import Version, layout_for, versions

__all__ = [
    "PRESETS",
    "Data",
    "Run",
    "Schedule",
    "Summary",
    "Version",
    "cifar10",
    "cifar100",
    "digits",
    "layout_for",
    "macs_of",
    "preset",
    "summaries",
    "train_check",
    "versions",
]
