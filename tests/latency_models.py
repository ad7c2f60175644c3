"""A latency model as `ifspace bench` writes it, with milliseconds by hand."""

from typing import Any

# Milliseconds by hand: each launch of a kind costs what it says, and nothing else costs anything.
LAUNCHES = {"DW": 1.0, "PW": 0.5, "GPW": 0.7, "RPW dense": 2.0, "RPW tiled": 2.0, "fused": 1.25}
LAUNCHES |= {"GC": 1.0, "CONV": 3.0, "SH": 0.25}
TIMES = {f"{kind} launches": ms for kind, ms in LAUNCHES.items()}
ZEROS = {
    f"{kind} {what}": 0.0
    for kind in LAUNCHES
    for what in ("bytes", "operations", "padded operations")
}


def model(rank: float | None = 0.95, **changes: Any) -> dict[str, Any]:
    """Return what is read of a file of `ifspace bench`."""
    about = {"dtype": "fp32", "layout": "nchw", "threads": 1, "style": "plain", "batch": 2}
    record = {
        "coefficients": TIMES | ZEROS,
        "shapes": [[16, 16, 8, 1]],
        "conditions": about | {"side": 8},
        "errors": {"model": {"rank_correlation": rank}},
    }
    return {"model": {"forward": record | changes}, "provenance": {"device": "cpu-test"}}
