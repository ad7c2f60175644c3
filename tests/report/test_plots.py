from pathlib import Path

import pytest
from matplotlib.figure import Figure
from samples import DW_PW, DW_RPW_RPW, GC_PW, SMALL

from ifspace.catalogue import Design
from ifspace.report import figures as plots
from ifspace.report.read import PARTS, Results


def named(results: Results, part: str) -> dict[str, Figure]:
    return dict(plots.figures(results, part))


@pytest.mark.slow
def test_every_figure_has_named_axes_and_a_title(results: Results) -> None:
    figures = {name: drawn for part in PARTS for name, drawn in named(results, part.name).items()}
    assert {
        "funnel-16",
        "params-layers-16",
        "trajectories-32",
        "energy-rank",
        "params-latency-cpu-test",
        "predicted-latency-cpu-test",
        "speed-bound-cpu-test",
        "block-dw-pw-16",
    } <= figures.keys()
    for name, figure in figures.items():
        assert figure.axes, name
        for axes in figure.axes:
            if axes.axison:
                assert axes.get_xlabel(), name
                titles = axes.get_title(loc="left") + axes.get_title() + figure.get_suptitle()
                assert titles, name


def test_the_funnel_has_a_bar_and_a_number_for_every_count() -> None:
    (axes,) = plots.funnel(SMALL.funnels[0], SMALL.settings[0]).axes
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    assert heights[0] == [6, 36, 216]
    assert heights[2][1:] == [2, 1]
    assert [text.get_text() for text in axes.texts][-3:] == ["0", "2", "1"]


def test_published_blocks_are_marked_and_the_best_are_joined() -> None:
    (axes,) = plots.params_layers(SMALL.designs[:3], SMALL.settings[0]).axes
    best, published = axes.lines
    assert list(zip(*best.get_data(), strict=True)) == [(2, 400), (3, 272)]
    assert list(zip(*published.get_data(), strict=True)) == [(2, 400)]
    assert [text.get_text() for text in axes.texts] == ["MobileNet: DW+PW"]


def test_blocks_are_drawn_once_the_published_among_them() -> None:
    designs: list[Design] = [GC_PW, DW_RPW_RPW, DW_PW]
    assert plots.to_draw(designs) == (DW_PW, DW_RPW_RPW, GC_PW)


def test_a_part_without_figures_has_none(results: Results) -> None:
    assert named(results, "reproduction") == {}


@pytest.mark.slow
def test_figures_are_written_in_both_forms(results: Results, tmp_path: Path) -> None:
    written = list(plots.write(results, ["funnel"], tmp_path))
    assert [path.name for path in written][:2] == ["funnel-16.svg", "funnel-16.png"]
    assert sorted(written) == sorted(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("part", ["funnel", "energy"])
def test_the_same_results_are_the_same_bytes(results: Results, tmp_path: Path, part: str) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        files.append([p.read_bytes() for p in plots.write(results, [part], tmp_path / name)])
    assert files[0] == files[1]
