import json
from collections.abc import Callable
from pathlib import Path

import pytest
from report_samples import RANKS

from ifspace.errors import SettingError
from ifspace.report.figures import (
    energy_rank,
    layout_figures,
    trajectories,
)
from ifspace.report.read import RANKS as SOURCE
from ifspace.report.read import TRAJECTORIES, Results, read


def test_a_line_for_each_stage_at_its_depths(results: Results) -> None:
    figure = trajectories(results.of(TRAJECTORIES), 32)
    axes = figure.axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert [[round(y) for y in line.get_ydata()] for line in lines] == [[1, 2, 3], [4, 3, 2]]
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["start\n14.00M", "2→1\n13.00M", "2→1\n12.00M"]
    assert [text.get_text() for text in axes.texts] == ["published for\nCIFAR-10"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1: 32²", "2: 16²"]


def test_lines_of_the_same_depth_do_not_hide_each_other(results: Results) -> None:
    rows = [dict(row, depths=(3, 3)) for row in results.of(TRAJECTORIES)]
    lines = [line for line in trajectories(rows, 32).axes[0].lines if len(line.get_xdata()) == 3]
    assert lines[0].get_ydata()[0] != lines[1].get_ydata()[0]


def test_energies_are_shares_of_the_greatest(results: Results) -> None:
    (axes,) = energy_rank(results.of(SOURCE)).axes
    every, learned = axes.lines
    assert list(every.get_xdata()) == [1, 2, 3, 4, 5]
    shares = [100 * row["energy"] / RANKS[0]["energy"] for row in RANKS]
    assert list(every.get_ydata()) == shares
    assert list(learned.get_xdata()) == [1, 2]
    assert every.get_label() == "4 convolutions, 38,592 parameters: 5 layouts"


def test_a_layout_is_drawn_by_stage(run: Callable, tmp_path: Path) -> None:
    file = tmp_path / "layout-small.json"
    run("layout", "--stages", "8,4", "--params", "30k", "--quiet", "--out", file)
    (plan,) = json.loads(file.read_text())["plans"]
    ((name, drawn),) = layout_figures(read(tmp_path))
    assert name == "layout-small"
    bars = drawn.axes[0].containers
    assert len(bars) == 2  # parameters and MACs; no latency is known
    for container, amount in zip(bars, ("params", "macs"), strict=True):
        values = [stage[amount] for stage in plan["stages"]]
        shares = [100 * value / sum(values) for value in values]
        assert [bar.get_height() for bar in container] == pytest.approx(shares)
    ticks = [label.get_text() for label in drawn.axes[0].get_xticklabels()]
    pairs = zip(plan["depths"], plan["widths"], strict=True)
    assert ticks == [f"{n}\n{d} × {w}" for n, (d, w) in enumerate(pairs, start=1)]
    # Of inverted residuals the width inside, and strides that were chosen.
    options = ("--expansions", "2,3", "--strides", "free")
    run("layout", "--stages", "8,4", "--params", "30k", *options, "--quiet", "--out", file)
    (plan,) = json.loads(file.read_text())["plans"]
    ((_, drawn),) = layout_figures(read(tmp_path))
    ticks = [label.get_text() for label in drawn.axes[0].get_xticklabels()]
    rows = zip(plan["depths"], plan["widths"], plan["expansions"], plan["strides"], strict=True)
    assert ticks == [
        f"{n}\n{d} × {w}\n×{e}\nstride {s}" for n, (d, w, e, s) in enumerate(rows, start=1)
    ]
    file.write_text("{}")
    with pytest.raises(SettingError, match=r"layout-small\.json is not a file of results"):
        read(tmp_path)


@pytest.mark.slow
def test_a_layout_of_the_most_entropy_is_drawn_too(run: Callable, tmp_path: Path) -> None:
    file = tmp_path / "layout-deep.json"
    limits = "--params 100k --macs 5M --input 32 --max-depth 2 --time-limit 0 --quiet"
    run("layout", "--objective", "entropy", *limits.split(), "--out", file)
    plan = json.loads(file.read_text())["plan"]
    ((_, drawn),) = layout_figures(read(tmp_path))
    bars, _ = drawn.axes[0].containers
    params = [stage["params"] for stage in plan["stages"]]
    stem = 29 * plan["stem"]
    assert sum(params) + stem == plan["params"]
    shares = [100 * value / sum(params) for value in params]
    assert [bar.get_height() for bar in bars] == pytest.approx(shares)
