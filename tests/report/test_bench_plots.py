from dataclasses import replace

from samples import SMALL

from ifspace.report.figures import (
    MeasuredBlock,
    block_figures,
    front,
    kernel_figures,
    measured_blocks,
    predicted,
    speed_bound,
)
from ifspace.report.measured import by_condition, shortfall
from ifspace.report.read import Results


def brute_front(blocks: list[MeasuredBlock]) -> list[MeasuredBlock]:
    """What no other one is no worse than in both, and better in one."""
    return [
        b
        for b in blocks
        if not any(
            o.params <= b.params and o.time <= b.time and (o.params, o.time) != (b.params, b.time)
            for o in blocks
        )
    ]


def test_the_front_is_the_undominated_blocks() -> None:
    blocks = [MeasuredBlock(f"{p}{t}", p, t) for p in (1, 2, 3, 5) for t in (9, 4, 7)][::-1]
    blocks += [MeasuredBlock("a", 4, 1, "A"), MeasuredBlock("b", 9, 0.5)]
    best = front(blocks)
    assert set(best) == set(brute_front(blocks))
    assert [block.params for block in best] == sorted(block.params for block in best)


def test_a_block_short_of_the_field_beats_none() -> None:
    short = MeasuredBlock("GC(12)+GPW(8)", 1, 1.0, "GC(12)+GPW(8)", is_short=True)
    whole = MeasuredBlock("DW+PW", 2, 2.0)
    assert front([short, whole]) == [whole]


def test_the_field_of_a_row_is_compared_with_that_of_the_convolution(results: Results) -> None:
    row = dict(
        next(iter(next(iter(by_condition(results.blocks[0].rows).values()))["CONV"].values()))
    )
    seen = row | {"metric": "channel field", "median": 16.0, "bound": 96.0}
    rows = {"A": {"channel field": seen}, "B": {"channel field": seen | {"median": 96.0}}, "C": {}}
    assert [shortfall(rows, name) for name in rows] == ["sees 16 of 96 channels", "", ""]


def test_measured_blocks_are_in_their_fastest_form(results: Results) -> None:
    rows = next(iter(by_condition(results.blocks[0].rows).values()))
    quicker = {"CONV": {"least time": rows["CONV"]["least time"] | {"median": 0.5}}}
    slower = {"CONV": {"least time": rows["CONV"]["least time"] | {"median": 0.9}}}
    for others in (
        {"fused": quicker, "collapsed": slower},
        {"collapsed": slower, "fused": quicker},
    ):
        measured = {block.name: block for block in measured_blocks(rows, others)}
        assert (measured["CONV"].time, measured["CONV"].form) == (0.5, "fused")
        assert measured["DW+PW"].form == "as is"
    (conv,) = (x for x in measured_blocks(rows, {"fused": slower}) if x.name == "CONV")
    assert (conv.time, conv.form) == (0.851, "as is")


def test_measured_blocks_have_their_baseline(results: Results) -> None:
    rows = next(iter(by_condition(results.blocks[0].rows).values()))
    measured = {block.name: block for block in measured_blocks(rows)}
    assert measured["CONV"].baseline == "CONV(3)"
    assert measured["DW+PW"].baseline is None
    assert (measured["CONV"].params, measured["CONV"].time) == (2304, 0.851)


def test_undominated_blocks_and_baselines_are_named(results: Results) -> None:
    name, figure = next(block_figures(results))
    assert name == "params-latency-cpu-test"
    (axes,) = figure.axes
    beside = axes.texts[-1].get_text().splitlines()
    blocks = measured_blocks(next(iter(by_condition(results.blocks[0].rows).values())))
    best = [block.name for block in front(blocks)]
    numbered = [line.split("  ")[1] for line in beside if line[0] != " "]
    assert numbered[: len(best)] == best
    assert "    CONV(3)" in beside


def test_prediction_is_drawn_where_there_is_one(results: Results) -> None:
    (bench,) = results.blocks
    forward = {c: r for c, r in by_condition(bench.rows).items() if c.mode == "forward"}
    figure = predicted(bench, forward)
    assert figure is not None
    points = figure.axes[0].lines[-1]
    assert all(abs(y / x - 1.1) < 1e-3 for x, y in zip(*points.get_data(), strict=True))
    none = tuple(row for row in bench.rows if row["metric"] != "predicted time")
    bare = replace(bench, rows=none)
    forward = by_condition(none)
    assert predicted(bare, forward) is None


def test_the_share_of_the_bound_is_bound_over_time(results: Results) -> None:
    (bench,) = results.kernels
    (axes,) = speed_bound(bench, by_condition(bench.rows)).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["ours", "dense", "grouped"]
    cases = [line for line in axes.lines if line.get_marker() == "o"]
    # 0.5 ms of bound; ours takes 1.6 and, twice as large, 3.6 ms.
    assert [round(x, 2) for x in cases[0].get_xdata()] == [31.25, 27.78]


def test_blocks_are_held_against_the_bound_by_their_least_time(results: Results) -> None:
    figure = dict(block_figures(results))["speed-bound-blocks-cpu-test"]
    forward, both = figure.axes
    assert (forward.get_title(), both.get_title()) == ("forward", "forward + backward")
    names = [label.get_text() for label in forward.get_yticklabels()]
    assert names[:3] == [str(design.block) for design in SMALL.designs[:3]]
    assert names[3:] == ["CONV(3): CONV", "ShuffleNet unit: GPW(4)+SH(4)+DW+GPW(4), bottleneck 1/4"]
    cases = [line for line in forward.lines if line.get_marker() == "o"]
    filled = [line.get_markerfacecolor() != "white" for line in cases]
    assert filled == [True, True, True, False, False]
    # The bound is a third of the median, and the least time a half of it.
    assert all(abs(x / (200 / 3) - 1) < 1e-3 for line in cases for x in line.get_xdata())


def test_without_a_bound_there_is_no_figure(results: Results) -> None:
    for drawn in (kernel_figures(results), block_figures(results)):
        assert any(name.startswith("speed-bound") for name, _ in drawn)
    (bench,) = results.kernels
    rows = tuple({**row, "bound": None} for row in bench.rows)
    assert list(kernel_figures(replace(results, kernels=(replace(bench, rows=rows),)))) == []
