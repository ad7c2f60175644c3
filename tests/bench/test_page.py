"""Targets and page of fixed rows."""

from typing import Any

import pytest

from ifspace.bench.case import RPW, LayerCase, Trial
from ifspace.bench.clock import Limits
from ifspace.bench.kernels import case_rows, list_candidates, of_kind, rate_rows
from ifspace.bench.machine import Machine, Rates
from ifspace.bench.page import ON_CPU, ON_CUDA, Target, TargetResult, judge, page
from ifspace.bench.rows import Row
from ifspace.measurements import COLUMNS


def row(candidate: str, metric: str, value: float | str, **other: Any) -> Row:
    start: Row = dict.fromkeys(COLUMNS, "") | {
        "case": "RPW(4,1/2)",
        "mode": "forward",
        "dtype": "fp32",
        "layout": "channels_last",
        "N": 128,
        "C": 512,
        "H": 14,
    }
    return start | {"candidate": candidate, "metric": metric, "median": value} | other


def verdict_on(targets: tuple[Target, ...], words: str, *rows: Row) -> TargetResult:
    (verdict,) = (x for x in judge(rows, targets) if words in x.text)
    return verdict


@pytest.mark.parametrize(
    ("ours", "grouped", "word"),
    [(0.60, 0.3, "met"), (0.61, 0.3, "missed"), (0.68, 0.6, "met"), (0.70, 0.6, "missed")],
)
def test_at_512_the_limit_follows_the_grouped_convolution(
    ours: float, grouped: float, word: str
) -> None:
    rows = row("ours", "ratio", ours), row("grouped", "ratio", grouped)
    verdict = verdict_on(ON_CPU, "C = 512", *rows)
    assert (verdict.word, verdict.cases) == (word, 1)


def test_a_missed_goal_has_its_distance() -> None:
    verdict = verdict_on(ON_CPU, "C = 256", row("ours", "ratio", 0.90, C=256, H=28))
    assert verdict.missed == ("RPW(4,1/2) 128x256x28 channels_last: 0.9 for 0.75, 20% off",)
    assert verdict.worst == (0.90, 0.75, "RPW(4,1/2) 128x256x28 channels_last")


def test_every_layout_counts_where_either_is_asked_for() -> None:
    rows = [
        row("ours", "ratio", 1.00),
        row("ours", "ratio", 1.20, layout="nchw"),
        row("ours", "ratio", 1.04, mode="forward+backward"),
        row("ours", "ratio", 0.9, dtype="bf16"),
    ]
    forward = verdict_on(ON_CPU, "forward, either", *rows)
    assert (forward.cases, len(forward.missed)) == (2, 1)
    assert "nchw" in forward.missed[0]
    assert verdict_on(ON_CPU, "forward + backward", *rows).word == "met"


@pytest.mark.parametrize(("published", "word"), [(15.0, "met"), (14.9, "missed")])
def test_thirty_times_the_published_composition(published: float, word: str) -> None:
    rows = [
        row("ours", "ratio", 0.5, case="RPW(4,0.33)"),
        row("published", "ratio", published, case="RPW(4,0.33)"),
        row("published", "ratio", 1.0),
    ]
    verdict = verdict_on(ON_CPU, "published", *rows)
    assert (verdict.word, verdict.cases) == (word, 1)


def test_goals_without_measurements_are_not_met() -> None:
    not_run = row("published", "not run: it needs 13 GiB", "", case="RPW(4,0.33)")
    ours = row("ours", "ratio", 0.5, case="RPW(4,0.33)")
    verdict = verdict_on(ON_CPU, "published", not_run, ours)
    assert (verdict.word, verdict.cases, len(verdict.unmeasured)) == ("not measured", 1, 1)
    more = [row("ours", "ratio", 0.5, case="RPW(4,0.33)", H=7)]
    more.append(row("published", "ratio", 40.0, case="RPW(4,0.33)", H=7))
    assert verdict_on(ON_CPU, "published", not_run, ours, *more).word == "met where measured"
    assert verdict_on(ON_CPU, "C = 256").word == "not measured"


def on_card(candidate: str, metric: str, value: float, **other: Any) -> Row:
    return row(candidate, metric, value, **({"dtype": "bf16"} | other))


def test_on_cuda_the_share_of_the_bound_counts_at_the_large_sizes() -> None:
    rows = [
        on_card("ours", "share of bound", 0.76, H=56, C=128),
        on_card("ours", "share of bound", 0.50, H=14),
        on_card("ours", "share of bound", 0.50, H=56, C=128, N=1),
        on_card("ours", "share of bound", 0.50, H=56, C=128, layout="nchw"),
    ]
    assert verdict_on(ON_CUDA, "75%", *rows).word == "met"
    rows.append(on_card("ours", "share of bound", 0.60, H=28, C=256))
    verdict = verdict_on(ON_CUDA, "75%", *rows)
    assert verdict.missed == ("RPW(4,1/2) 128x256x28 channels_last: 0.6 for 0.75, 20% off",)


def test_faster_than_dense_is_strict_and_no_slower_is_not() -> None:
    rows = [
        on_card("ours", "ratio", 1.0),
        on_card("ours", "ratio", 1.0, mode="forward+backward"),
    ]
    assert verdict_on(ON_CUDA, "forward: faster", *rows).word == "missed"
    assert verdict_on(ON_CUDA, "no slower", *rows).word == "met"


def test_on_cuda_ours_is_compared_with_a_grouped_layer_and_its_shuffle() -> None:
    rows = [
        on_card("ours", "ratio", 0.5),
        on_card("grouped + shuffle", "ratio", 0.7),
    ]
    assert verdict_on(ON_CUDA, "1.4 times", *rows).word == "met"
    rows[1] = on_card("grouped + shuffle", "ratio", 0.69)
    assert verdict_on(ON_CUDA, "1.4 times", *rows).word == "missed"


def test_the_fused_block_has_targets_of_its_own() -> None:
    case = "DW+RPW(4,1/2)"
    rows = [
        on_card("ours", "ratio", 0.5, case=case),
        on_card("DW, then dense", "ratio", 1.0, case=case),
        on_card("ours", "share of bound", 0.55, case=case),
        on_card("ours", "ratio", 2.0),
    ]
    assert verdict_on(ON_CUDA, "1.8 times", *rows).word == "met"
    assert verdict_on(ON_CUDA, "60%", *rows).word == "missed"
    assert verdict_on(ON_CUDA, "faster than dense", *rows).cases == 1


def test_rows_read_back_from_a_file_are_judged_alike() -> None:
    rows = [row("ours", "ratio", 0.61), row("grouped", "ratio", 0.3)]
    texts = [{name: str(value) for name, value in record.items()} for record in rows]
    assert judge(texts, ON_CPU) == judge(rows, ON_CPU)


MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")


def fixed_rows() -> list[Row]:
    rows = list(rate_rows(Rates(37e9, {"fp32": 420e9}), MACHINE))
    seconds = {"ours": 0.02, "dense": 0.04, "grouped": 0.03, "compiled published": 0.12}
    for side in (14, 7):
        trials = [
            Trial(
                candidate,
                note="4 super-windows" * (candidate.name == "ours"),
                seconds=[seconds[candidate.name]] * 3,
            )
            if candidate.name in seconds
            else Trial(candidate, reason=f"because {side}")
            for candidate in of_kind(list_candidates("cpu", True), RPW)
        ]
        rows += case_rows(LayerCase(128, 512, side, 4, "1/2"), trials, 0.01, MACHINE)
    return rows


def page_of(rows: list[Row]) -> str:
    return page("cpu-test", "a test", rows, judge(rows, ON_CPU), Limits())


def test_the_page_has_targets_ratios_ways_and_reasons(snapshot) -> None:
    assert page_of(fixed_rows()) == snapshot


def test_the_page_has_the_numbers_of_the_rows() -> None:
    text = page_of(fixed_rows())
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    numbers = ["40.000", "0.50", "0.75", "0.50", "50%", "3"]
    assert ["128x512x14", "RPW(4,1/2)", *numbers, "4 super-windows"] in lines
    assert ["128x512x7", "RPW(4,1/2)", "0.50", "3.00"] in lines
    target = next(line for line in lines if line and line[0].startswith("forward at C = 512"))
    assert target[1:4] == ["met", "2 of 2", "0"]


def test_a_missed_target_is_listed_case_by_case(snapshot) -> None:
    rows = [
        row | {"median": 1.2} if (row["candidate"], row["metric"]) == ("ours", "ratio") else row
        for row in fixed_rows()
    ]
    text = page_of(rows)
    assert "128x512x7 channels_last: 1.2 for 1.05, 14% off" in text
    assert text[text.index("## Targets") : text.index("## RPW")] == snapshot


def test_a_page_where_all_ran_says_so(snapshot) -> None:
    rows = [row for row in fixed_rows() if not row["metric"].startswith("not run")]
    text = page_of(rows)
    assert text[text.index("## Not run") :] == snapshot
