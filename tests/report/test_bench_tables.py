from dataclasses import replace

from report_samples import kernel_rows

from ifspace.report.read import (
    BlockTimes,
    Measured,
    Results,
)
from ifspace.report.tables import (
    MOST_TIMED,
    block_tables,
    kernel_tables,
)


def test_ratios_are_medians_with_their_spread(results: Results, snapshot: object) -> None:
    (table,) = kernel_tables(results)
    assert (table.title, table.notes) == snapshot
    assert table.names == ("candidate", "fp32, nchw, forward")
    assert dict(table.rows) == {
        "ours": "0.85 (0.80–0.90)",
        "dense": "1.00 (1.00–1.00)",
        "grouped": "0.50 (0.50–0.50)",
    }


def test_a_way_that_a_candidate_did_not_run_is_a_dash(results: Results) -> None:
    (bench,) = results.kernels
    more = {**next(r for r in bench.rows if r["metric"] == "ratio"), "mode": "forward+backward"}
    (table,) = kernel_tables(replace(results, kernels=(Measured("d", (*bench.rows, more)),)))
    assert table.rows[0][1:] == ("0.85 (0.80–0.90)", "0.80")
    assert table.rows[1][2] == "–"
    assert len(kernel_rows()) == len(bench.rows)


def test_a_batch_without_a_time_has_no_table(results: Results) -> None:
    (bench,) = results.kernels
    rest = ({**row, "N": 99, "metric": "not run: no time left"} for row in bench.rows)
    more = replace(results, kernels=(Measured("d", (*bench.rows, *rest)),))
    assert [table.rows for table in kernel_tables(more)] == [
        table.rows for table in kernel_tables(results)
    ]


def test_blocks_are_sorted_by_time_with_their_baselines(results: Results, snapshot: object) -> None:
    table, _ = block_tables(results)
    assert (table.title, table.notes) == snapshot
    times = [float(row[2]) for row in table.rows]
    assert times == sorted(times)
    rows = {row[0]: row for row in table.rows}
    assert "PW" not in rows, "a row of the calibration"
    conv = rows["CONV"]
    assert (conv[1], conv[-1]) == ("2,304", "CONV(3)")
    # The least is a half of the median; with backward it is 2.8 times as much.
    assert (conv[2], conv[3], conv[5]) == ("0.851", "1.70", "2.38")
    assert rows["DW+PW"][-1] == ""


def in_form(bench: BlockTimes, block: str, ms: float, form: str) -> BlockTimes:
    """Return the times with those of a block in another form."""
    rows = [
        {**row, "form": form, **({"median": ms} if row["metric"] == "least time" else {})}
        for row in bench.rows
        if row["candidate"] == block and row["mode"] == "forward"
    ]
    return replace(bench, rows=(*bench.rows, *rows))


def test_blocks_stand_in_the_order_of_their_fastest_form(results: Results) -> None:
    (bench,) = results.blocks
    before, _ = block_tables(results)
    slowest = before.rows[-1]
    one = in_form(bench, slowest[0], 0.001, "fused")
    both = in_form(one, before.rows[0][0], 7.5, "collapsed")
    after, _ = block_tables(replace(results, blocks=(both,)))
    assert after.columns[3:5] == (">fused, ms", ">collapsed, ms")
    first, second = after.rows[:2]
    assert (first[0], first[3:5]) == (slowest[0], ("0.00100", ""))
    assert (second[0], second[3:5]) == (before.rows[0][0], ("", "7.50"))
    # All else is that of the block as it is.
    assert (*first[:3], *first[5:]) == slowest
    assert ", of the fastest form, " in after.notes[0]


def test_a_disturbed_median_changes_no_order(results: Results) -> None:
    (bench,) = results.blocks
    before, _ = block_tables(results)
    fastest = before.rows[0][0]
    rows = tuple(
        {**row, "median": 99.0} if (row["candidate"], row["metric"]) == (fastest, "time") else row
        for row in bench.rows
    )
    after, _ = block_tables(replace(results, blocks=(replace(bench, rows=rows),)))
    assert [row[0] for row in after.rows] == [row[0] for row in before.rows]
    assert after.rows[0][3] == "99.0"


def test_slow_blocks_are_counted_and_slow_baselines_stay(results: Results) -> None:
    (bench,) = results.blocks
    rows = list(bench.rows)
    for number in range(MOST_TIMED + 3):
        rows += [
            {**row, "candidate": f"PW{number}"} for row in bench.rows if row["candidate"] == "DW+PW"
        ]
    table, _ = block_tables(replace(results, blocks=(replace(bench, rows=tuple(rows)),)))
    assert len(table.rows) == MOST_TIMED + 1
    assert table.rows[-1][0] == "CONV"
    assert table.notes[0].endswith("7 more are slower.")


def test_predictors_have_columns_of_one_table(results: Results) -> None:
    _, table = block_tables(results)
    assert table.rows == (
        ("forward", "model", "12", "0.93", "17%"),
        ("forward", "MACs alone", "12", "–", "125%"),
    )
