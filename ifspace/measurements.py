"""The file of measurements: its columns, and the names that stand in them.

`ifspace bench` and the benchmarks of kernels write it, `ifspace report` reads it: one number a row,
one device a file.
"""

from collections.abc import Mapping
from typing import Any, Final

# What a cell holds; a cell of a number may be empty.
CELLS: Final[Mapping[str, type[Any]]] = {
    "case": str,
    "candidate": str,
    "provider": str,
    "mode": str,
    "dtype": str,
    "layout": str,
    "N": int,
    "C": int,
    "F": int,
    "H": int,
    "W": int,
    "metric": str,
    "unit": str,
    "median": float,
    "p20": float,
    "p80": float,
    "bound": float,
    "device": str,
    "torch": str,
    "triton": str,
    "date": str,
    "form": str,
}
COLUMNS: Final = tuple(CELLS)
# Forms: a block as it is, or as other modules that compute the same.
AS_IS: Final = "as is"
COLLAPSED: Final = "collapsed"
ONE_PASS: Final = "fused"
# Columns that files of older versions lack, and what all of their rows are.
ADDED: Final = {"form": AS_IS}
FORWARD: Final = "forward"
BOTH_WAYS: Final = "forward+backward"
MODES: Final = (FORWARD, BOTH_WAYS)
LAYOUTS: Final = ("channels_last", "nchw")

# Providers: what a candidate is among the blocks; a baseline's is followed by its title.
CATALOGUE: Final = "catalogue"
BASELINE: Final = "baseline"
# How cases begin that were measured for the latency model alone.
CALIBRATION: Final = "calibration: "

# Metrics.
TIME: Final = "time"
LEAST: Final = "least time"
ROUNDS: Final = "rounds"
OF_BOUND: Final = "share of bound"
RATIO: Final = "ratio"
LEAST_RATIO: Final = "ratio of least times"
PEAK: Final = "peak memory"
PREDICTED: Final = "predicted time"
# What a block sees; the bound is what the convolution sees that it replaces.
PIXELS_SEEN: Final = "spatial field"
CHANNELS_SEEN: Final = "channel field"
# Starts of metrics that say why there are no times: not run, or failed the gate.
NOT_RUN: Final = "not run: "
FAILED: Final = "red: "
# End of the metrics of a block that torch.compile compiled.
COMPILED: Final = " +compile"
