"""Measurement rows, tidy: one number a row, with what it was measured on."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from statistics import quantiles
from typing import Any, Final

import torch

from ifspace.bench.process import provenance

COLUMNS: Final = (
    "case",
    "candidate",
    "provider",
    "mode",
    "dtype",
    "layout",
    "N",
    "C",
    "F",
    "H",
    "W",
    "metric",
    "unit",
    "median",
    "p20",
    "p80",
    "bound",
    "device",
    "torch",
    "triton",
    "date",
)
TIME: Final = "time"
LEAST: Final = "least time"
OF_BOUND: Final = "share of bound"
ROUNDS: Final = "rounds"
NOT_RUN: Final = "not run: "
FORWARD: Final = "forward"
BOTH_WAYS: Final = "forward+backward"
MODES: Final = (FORWARD, BOTH_WAYS)
LAYOUTS: Final = ("channels_last", "nchw")
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Machine:
    """What rows were measured on: a name fit for a file, the versions, the day."""

    device: str
    torch: str
    triton: str
    date: str


def this_machine(device: torch.device) -> Machine:
    """Return this machine, as it is with a device."""
    name = "cpu " + provenance("").machine.rsplit(", ", 2)[0]
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    return Machine(file_safe(name), torch.__version__, _version("triton"), date)


def file_safe(name: str) -> str:
    """Return a name in lower-case letters, digits and hyphens.

    >>> file_safe("NVIDIA H200"), file_safe("cpu AMD EPYC 9B14 (2)")
    ('nvidia-h200', 'cpu-amd-epyc-9b14-2')
    """
    return "-".join(re.findall(r"[a-z0-9]+", name.lower()))


def spread(numbers: Sequence[float]) -> tuple[float, float, float]:
    """Return p20, median and p80.

    >>> spread([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    (2.0, 3.5, 5.0)
    """
    if len(numbers) == 1:
        return numbers[0], numbers[0], numbers[0]
    tenths = quantiles(numbers, n=10, method="inclusive")
    return tenths[1], tenths[4], tenths[7]


def rounded(value: Any) -> Any:
    """Return a number as it is written: six digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
