"""The objectives of layouts as choosers: networks as published, and picks by hand."""

from math import exp, log
from pathlib import Path

import numpy as np
import pytest

from experiments.layout_choosers import (
    GRIDS,
    means,
    percentiles,
    read,
    scores,
    stages_of,
    summary,
)
from ifspace.errors import SettingError


def test_the_layers_are_those_of_the_published_networks() -> None:
    # Published MACs less those of stem, head and classifier are 0 for each digit that is 0.
    empty, inverted = scores("00000000"), scores("01000000")
    assert empty["most MACs"] == sum(
        c_in * 2 * c_in * side**2 for c_in, side in ((32, 16), (64, 8), (128, 4))
    )
    # 1x1 from 64 to 192 channels, 3x3 depthwise, 1x1 back, at 16x16 pixels.
    more = (64 * 192 + 9 * 192 + 192 * 64) * 16**2
    assert inverted["most MACs"] - empty["most MACs"] == more
    # The digits of a stage are its layers: an identity behind the first is no layer.
    assert [len(stage) for stage in stages_of("02010200")] == [2, 2, 1]


def test_the_pick_is_the_greatest_within_the_budgets() -> None:
    table = {
        "params": np.array([1.0, 2.0, 3.0, 4.0]),
        "flops": np.array([1.0, 2.0, 3.0, 4.0]),
        "acc_mean": np.array([10.0, 40.0, 20.0, 30.0]),
    }
    # Of equal gains the next objective decides, then fewer parameters.
    names = ("gain", "log-gain", "macs-3/4", "width-field", "energy", "most MACs")
    scored = {name: np.array([1.0, 1.0, 1.0, 1.0]) for name in names}
    scored["macs-3/4"] = np.array([1.0, 2.0, 1.0, 0.0])
    scored["most MACs"] = table["flops"]
    rows = percentiles(table, scored)
    assert len(rows) == 25 * 6
    last = {row["chooser"]: row["percentile"] for row in rows if row["networks"] == 3}
    assert last["gain"] == last["macs-3/4"] == 100
    assert last["most MACs"] == pytest.approx(66.67)
    swept = [means(percentiles(table, scored, grid)) for grid in GRIDS]
    assert len(swept) == 12
    first = summary(rows, swept).records()[0]
    assert (first["chooser"], first["least"]) == ("gain", "100.0")
    assert first["over grids"] == "100.0 to 100.0"


def test_gains_are_from_convolution_to_convolution_or_from_layer_to_layer() -> None:
    # At 32 pixels two 3x3 inverted residuals: a field of 1, 3, 3, 3, 5, 5 behind each convolution,
    # 3 and 5 behind each layer. The other stages have one layer, which gains nothing.
    first, second = (9 - 1) * exp(-3 / 32**2), (25 / 9 - 1) * exp(-3 * 9 / 32**2)
    assert scores("11000000")["gain"] == pytest.approx(first + second)
    assert scores("11000000", "layer")["gain"] == pytest.approx(second)
    logarithms = log(25 / 9) * exp(-3 * 9 / 32**2)
    assert scores("11000000", "layer")["log-gain"] == pytest.approx(logarithms)


def test_another_table_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("arch,params\n0,1\n", "utf-8")
    with pytest.raises(SettingError, match="not of NAS-Bench-Macro"):
        read(path)
