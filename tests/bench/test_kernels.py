"""The kernel benchmark: cases, candidates, measurement, rows and command."""

import csv
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rpw_exact import channels_of
from torch import Tensor

from ifspace.bench import kernels
from ifspace.bench.case import (
    COMPILED_PREFIX,
    FUSED,
    OURS,
    RPW,
    Implementation,
    LayerCandidate,
    LayerCase,
    Trial,
)
from ifspace.bench.clock import Limits
from ifspace.bench.gate import LayerCall, WrongCandidateError, layer_inputs
from ifspace.bench.kernels import (
    SHAPES,
    WINDOWS,
    KernelBench,
    case_rows,
    compiled_cases,
    dense_with_zeros,
    group_and_shuffle,
    list_candidates,
    list_cases,
    main,
    of_kind,
    parse_layer_shape,
    parse_window,
    rate_rows,
)
from ifspace.bench.machine import Machine, Rates
from ifspace.bench.rows import Row, percentiles
from ifspace.errors import SettingError
from ifspace.kernels.tensors import is_channels_last
from ifspace.kernels.windows import ORDERS
from ifspace.measurements import BOTH_WAYS, COLUMNS, FORWARD, LAYOUTS, MODES


def test_every_case_is_listed_once() -> None:
    cases = list(list_cases(SHAPES, WINDOWS, LAYOUTS, MODES, ["fp32"]))
    assert len(cases) == len(set(cases)) == 8 * 4 * 2 * 2
    # Both modes of a layer follow candidate other, forward first: it says what the other will take.
    assert [case.mode for case in cases[:4]] == [FORWARD, BOTH_WAYS] * 2
    assert all(a.shape == b.shape for a, b in zip(cases[::2], cases[1::2], strict=True))


def test_a_fused_block_is_timed_forward_only() -> None:
    cases = list(list_cases(SHAPES[:1], WINDOWS[:1], LAYOUTS[:1], MODES, ["bf16"], (RPW, FUSED)))
    assert [(case.kind, case.mode) for case in cases] == [
        (RPW, FORWARD),
        (RPW, BOTH_WAYS),
        (FUSED, FORWARD),
    ]


def test_the_numbers_of_a_case() -> None:
    case = LayerCase(128, 512, 14, 4, "0.33")
    assert (case.shape, case.pixels) == ("128x512x14", 25_088)
    assert (case.windows.width, case.windows.step, case.windows.distinct) == (128, 86, 256)
    small = case.at_most(2, 7)
    assert (small.shape, small.windows) == ("2x512x7", case.windows)
    assert case.at_most(1000, 1000) == case
    blocked = LayerCase(128, 512, 14, 4, "0.33", order="blocked")
    assert blocked.at_most(2, 7).windows == blocked.windows != case.windows
    assert LayerCase(1, 8, 1, 2, "0", dtype="tf32").rounding > LayerCase(1, 8, 1, 2, "0").rounding


@pytest.mark.parametrize("text", ["128x512", "0x1x1", "axbxc", ""])
def test_a_malformed_shape_raises(text: str) -> None:
    with pytest.raises(SettingError, match="no such shape: got"):
        parse_layer_shape(text)


@pytest.mark.parametrize("text", ["4", "g,1/2", "-1,0", "", "4,1/2,sorted", "4,1/2,blocked,8"])
def test_malformed_windows_raise(text: str) -> None:
    with pytest.raises(SettingError, match="no such windows: got"):
        parse_window(text)


CPU = torch.device("cpu")
EXACT = [
    candidate
    for candidate in of_kind(list_candidates("reference", False), RPW)
    if candidate.exact and not candidate.cuda_only and candidate.name != OURS
]
# One filter a window, two a window, windows that wrap, no overlap.
WIDTHS_AND_WINDOWS = [(12, 4, "0.33"), (16, 4, "1/2"), (16, 8, "1/2"), (8, 2, "0"), (10, 2, "0.9")]


def by_filter(case: LayerCase, x: Tensor, weight: Tensor) -> Tensor:
    planes = []
    for j, read in enumerate(channels_of(case.windows).tolist()):
        planes.append(sum(weight[j, t] * x[:, c] for t, c in enumerate(read)))
    return torch.stack(planes, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("width", "groups", "overlap"), WIDTHS_AND_WINDOWS)
@pytest.mark.parametrize("candidate", EXACT, ids=lambda candidate: candidate.name)
def test_an_exact_candidate_computes_the_layer(
    candidate: LayerCandidate, width: int, groups: int, overlap: str, order: str, layout: str
) -> None:
    case = LayerCase(2, width, 3, groups, overlap, layout, BOTH_WAYS, order=order)
    inputs = layer_inputs(case, CPU).to(torch.float64)
    x, weight = inputs.x.clone().requires_grad_(), inputs.weights[0].clone().requires_grad_()
    y = by_filter(case, x, weight)
    expected = (y, *torch.autograd.grad(y, (x, weight), inputs.grad))

    implementation = candidate.build(case, CPU)
    call = LayerCall.of(implementation, inputs, both_ways=True)
    actual = call.unpacked(call())
    # No graph lives on, which would keep later calls out of a CUDA graph.
    assert not any(tensor.requires_grad for tensor in actual)
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    forward = LayerCall.of(implementation, inputs, both_ways=False)
    torch.testing.assert_close(forward()[0], expected[0])
    assert is_channels_last(actual[0]) == (layout == "channels_last")


def test_dense_and_grouped_have_their_own_weights() -> None:
    case = LayerCase(2, 16, 3, 4, "1/2")
    inputs = layer_inputs(case, CPU)
    by_name = {
        candidate.name: candidate for candidate in of_kind(list_candidates("reference", False), RPW)
    }
    weights = {}
    for name in ("dense", "grouped"):
        call = LayerCall.of(by_name[name].build(case, CPU), inputs, both_ways=False)
        weights[name] = call.packed[0].numel()
        assert call()[0].shape == inputs.x.shape
    assert weights == {"dense": 16 * 16, "grouped": 16 * 4}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_grouped_and_shuffled_is_the_layer_without_overlap(layout: str) -> None:
    case = LayerCase(2, 12, 3, 4, "0", layout, BOTH_WAYS)
    inputs = layer_inputs(case, CPU).to(torch.float64)
    x, weight = inputs.x.clone().requires_grad_(), inputs.weights[0].clone().requires_grad_()
    y = by_filter(case, x, weight)
    call = LayerCall.of(group_and_shuffle(case, CPU), inputs, both_ways=True)
    actual = call.unpacked(call())
    for ours, theirs in zip(
        actual, (y, *torch.autograd.grad(y, (x, weight), inputs.grad)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    assert is_channels_last(actual[0]) == (layout == "channels_last")


def test_weights_in_the_wrong_order_give_another_output() -> None:
    case = LayerCase(2, 16, 3, 4, "1/2", mode=BOTH_WAYS)
    inputs = layer_inputs(case, CPU)
    published = next(candidate for candidate in EXACT if candidate.name == "published").build(
        case, CPU
    )
    unordered = replace(published, pack=lambda weights: weights)
    (y,) = LayerCall.of(unordered, inputs, both_ways=False)()
    assert not torch.allclose(y, by_filter(case, inputs.x, inputs.weights[0]))


CASE = LayerCase(2, 16, 5, 4, "1/2")
LIMITS = Limits(budget_s=0.0, min_rounds=3, max_rounds=5)
EVERY = list_candidates("reference", True)


def test_every_candidate_has_times_or_a_reason() -> None:
    trials = KernelBench(EVERY, CPU, 1e12, LIMITS).measure(CASE)
    assert [trial.candidate.name for trial in trials] == [
        "ours",
        "dense",
        "dense with zeros",
        "dense with zeros, packed",
        "grouped",
        "grouped + shuffle",
        "batched product",
        "per window",
        "published",
        "gather + einsum",
        "direct",
        "compiled dense with zeros",
        "compiled dense with zeros, packed",
        "compiled batched product",
        "compiled per window",
        "compiled published",
        "compiled gather + einsum",
    ]
    for trial in trials:
        assert bool(trial.seconds) != bool(trial.reason)
        assert not trial.seconds or len(trial.seconds) == 3
        if trial.candidate.name.startswith(COMPILED_PREFIX):
            assert trial.reason == "compiled in some cases only, for time"
    direct = next(trial for trial in trials if trial.candidate.name == "direct")
    assert direct.reason == "a Triton kernel, for CUDA only"


def test_a_case_that_does_not_fit_into_memory_is_not_run() -> None:
    case = LayerCase(2, 64, 5, 4, "0.33")
    trials = KernelBench(EVERY, CPU, 200_000, LIMITS).measure(case)
    reasons = {trial.candidate.name: trial.reason for trial in trials}
    assert reasons["published"].startswith("it needs 0 GiB of ")
    assert not reasons["dense"]


def test_memory_is_counted_with_every_window_and_its_copy() -> None:
    published = next(candidate for candidate in EVERY if candidate.name == "published")
    case = LayerCase(128, 256, 28, 4, "0.33")
    layer, spread = 128 * 256 * 28 * 28, 128 * 28 * 28 * 256 * 64
    assert published.bytes_needed(case) == 4 * (2 * layer + 2 * spread)
    both_ways = replace(case, mode=BOTH_WAYS, dtype="bf16")
    assert published.bytes_needed(both_ways) == 2 * (5 * layer + 3 * spread)


@pytest.mark.parametrize(
    ("name", "timed_case", "seconds", "case", "expected"),
    [
        ("per window", CASE, 2.0, replace(CASE, mode=BOTH_WAYS), 6),
        ("per window", replace(CASE, batch=1), 2.5, CASE, 5),
        ("published", replace(CASE, batch=1), 2.5, CASE, 0),
        ("published", CASE, 2.5, replace(CASE, mode=BOTH_WAYS), 8),
        ("ours", CASE, 2.5, replace(CASE, mode=BOTH_WAYS), 0),
        ("published", replace(CASE, batch=1), 35.0, CASE, 70),
    ],
)
def test_a_candidate_that_would_take_too_long_is_not_called(
    name: str, timed_case: LayerCase, seconds: float, case: LayerCase, expected: int
) -> None:
    bench = KernelBench(of_kind(EVERY, RPW), CPU, 1e12, LIMITS)
    bench.least_s[name, timed_case] = seconds
    reasons = {trial.candidate.name: trial.reason for trial in bench.measure(case)}
    limit_s = 60 if case.mode == FORWARD and name == "published" else 4
    reason = f"about {expected} s a call, over the limit of {limit_s} s" if expected else ""
    assert reasons[name] == reason
    assert not reasons["grouped"]


def test_the_least_times_are_kept() -> None:
    bench = KernelBench(EVERY, CPU, 1e12, LIMITS)
    timed = {trial.candidate.name: trial for trial in bench.measure(CASE)}
    assert bench.least_s["dense", CASE] == min(timed["dense"].seconds)


def test_an_error_of_a_candidate_becomes_its_reason() -> None:
    def build(case: LayerCase, device: torch.device) -> Implementation:
        raise RuntimeError("no such engine\nand more")

    failing = LayerCandidate("failing", "test", build, exact=False)
    *_, last = KernelBench([*EVERY[:3], failing], CPU, 1e12, LIMITS).measure(CASE)
    assert (last.reason, last.seconds) == ("RuntimeError: no such engine", [])


@pytest.mark.parametrize("mode", [FORWARD, BOTH_WAYS])
def test_our_kernel_is_checked_at_full_size_too(mode: str) -> None:
    def build(case: LayerCase, device: torch.device) -> Implementation:
        way = dense_with_zeros(case, device)
        return Implementation(
            lambda x, weight: way.forward(x, weight) * (1 + (case.batch > 2) * 1e-3)
        )

    wrong_when_large = LayerCandidate(OURS, "test", build)
    bench = KernelBench([wrong_when_large, *EVERY[1:3]], CPU, 1e12, LIMITS)
    bench.measure(replace(CASE, mode=mode))
    with pytest.raises(WrongCandidateError, match=r"^ours fails the check in .* 3x16x5"):
        bench.measure(replace(CASE, mode=mode, batch=3))


def test_torch_compile_unrolls_few_windows_only() -> None:
    unrolled = next(candidate for candidate in EVERY if candidate.name == "compiled published")
    many = LayerCase(1, 512, 14, 4, "0.33")
    assert unrolled.refusal(many, CPU, 1e12) == "more than 32 windows to unroll"
    assert unrolled.refusal(replace(many, mode=BOTH_WAYS), CPU, 1.0)


CONTRACT = (
    "case, candidate, provider, mode, dtype, layout, N, C, F, H, W, metric, unit, median, p20, "
    "p80, bound, device, torch, triton, date, form"
)
MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")
ROW_CASE = LayerCase(2, 16, 5, 4, "0.33")
OUR_CANDIDATE, DENSE, ZEROS = of_kind(list_candidates("reference", False), RPW)[:3]


def rows(*trials: Trial) -> list[Row]:
    return list(case_rows(ROW_CASE, trials, 1e-3, MACHINE))


def of(all_rows: list[Row], candidate: LayerCandidate, metric: str) -> Row:
    (row,) = (r for r in all_rows if (r["candidate"], r["metric"]) == (candidate.name, metric))
    return row


def test_rows_have_exactly_the_columns_of_the_contract() -> None:
    assert ", ".join(COLUMNS) == CONTRACT
    trials = (
        Trial(OUR_CANDIDATE, note="way", seconds=[1.0]),
        Trial(DENSE, seconds=[1.0]),
        Trial(ZEROS, reason="no"),
    )
    for row in [*rows(*trials), *rate_rows(Rates(1e9, {"fp32": 2e9}), MACHINE)]:
        assert tuple(row) == COLUMNS


def test_the_numbers_of_a_candidate() -> None:
    ours = Trial(OUR_CANDIDATE, note="dense", seconds=[0.002, 0.004, 0.003])
    all_rows = rows(ours, Trial(DENSE, seconds=[0.001, 0.002, 0.006]))
    time = of(all_rows, OUR_CANDIDATE, "time")
    assert (time["unit"], time["median"], time["bound"]) == ("ms", 3.0, 1.0)
    assert (time["p20"], time["p80"]) == (2.4, 3.6)
    assert of(all_rows, OUR_CANDIDATE, "least time")["median"] == 2.0
    assert of(all_rows, OUR_CANDIDATE, "share of bound")["median"] == pytest.approx(1 / 3, rel=1e-5)
    assert of(all_rows, OUR_CANDIDATE, "rounds")["median"] == 3
    # Round by round: 2, 2 and a half.
    ratio = of(all_rows, OUR_CANDIDATE, "ratio")
    assert (ratio["median"], ratio["unit"]) == (2.0, "x dense")
    assert of(all_rows, OUR_CANDIDATE, "ratio of least times")["median"] == 2.0
    assert time["provider"] == "ifspace reference: dense"
    keys = ("case", "mode", "dtype", "layout", "N", "C", "F", "H", "W", "device", "date")
    assert [time[key] for key in keys] == [
        "RPW(4,0.33)",
        "forward",
        "fp32",
        "channels_last",
        2,
        16,
        16,
        5,
        5,
        "cpu-test",
        "2026-11-21",
    ]


def test_a_single_call_is_compared_with_the_median() -> None:
    all_rows = rows(
        Trial(OUR_CANDIDATE, seconds=[0.03]), Trial(DENSE, seconds=[0.001, 0.002, 0.009])
    )
    assert of(all_rows, OUR_CANDIDATE, "ratio")["median"] == 15.0


def test_a_candidate_that_did_not_run_has_a_row_with_the_reason() -> None:
    all_rows = rows(
        Trial(OUR_CANDIDATE, reason="it needs 13 GiB of 12"), Trial(DENSE, seconds=[0.001])
    )
    row = of(all_rows, OUR_CANDIDATE, "not run: it needs 13 GiB of 12")
    assert (row["median"], row["bound"]) == ("", "")


def test_without_the_baseline_there_is_no_ratio() -> None:
    all_rows = rows(Trial(OUR_CANDIDATE, seconds=[0.03]), Trial(DENSE, reason="no"))
    assert {row["metric"] for row in all_rows if row["candidate"] == "ours"} == {
        "time",
        "least time",
        "share of bound",
        "rounds",
    }


def test_the_rates_are_rows_too() -> None:
    copy, product = rate_rows(Rates(4.3e12, {"bf16": 7.9e14}), MACHINE)
    assert (copy["case"], copy["median"], copy["unit"]) == ("copy", 4300.0, "GB/s")
    assert (product["dtype"], product["median"], product["unit"]) == ("bf16", 790000.0, "GFLOP/s")


def test_the_percentiles_of_one_number_are_that_number() -> None:
    assert percentiles([2.0]) == (2.0, 2.0, 2.0)


QUICK = ["--quick", "--device", "cpu", "--impl", "reference", "--cases", "2x16x4", "--threads", "1"]


@pytest.mark.slow
def test_a_quick_run_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        *QUICK,
        "--windows",
        "4,0.33 8,1/2",
        "--kinds",
        "RPW,DW+RPW",
        "--out",
        str(tmp_path / "bench"),
    ]
    main(arguments)
    (table,), (page,) = ((tmp_path / "bench").glob(f"*.{end}") for end in ("csv", "md"))
    assert table.stem == page.stem
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert {row["device"] for row in rows} == {table.stem}
    assert {row["case"] for row in rows} == {
        "copy",
        "matrix product",
        "RPW(4,0.33)",
        "RPW(8,1/2)",
        "DW+RPW(4,0.33)",
        "DW+RPW(8,1/2)",
    }
    assert {(row["mode"], row["layout"]) for row in rows if row["case"] == "RPW(8,1/2)"} == {
        (mode, layout)
        for mode in ("forward", "forward+backward")
        for layout in ("channels_last", "nchw")
    }
    text = page.read_text()
    for title in ("## Targets", "## RPW, forward+backward, fp32, nchw", "## Not run", "## DW+RPW"):
        assert title in text
    assert "a Triton kernel, for CUDA only" in text
    entry = (tmp_path / "README.md").read_text()
    assert f"[bench/{table.name}](bench/{table.name})" in entry
    assert "--quick --device cpu --cases 2x16x4 --windows '4,0.33 8,1/2'" in entry
    assert f"written: {page}" in capsys.readouterr().out


def test_a_wrong_candidate_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "rolling_pointwise_conv2d", lambda x, weight, *_: x * weight.sum())
    with pytest.raises(SystemExit, match=r"^2$"):
        main([*QUICK, "--windows", "4,1/2", "--out", str(tmp_path / "bench")])
    stderr = capsys.readouterr().err
    assert re.match(r"ours fails the check in RPW\(4,1/2\) .* nothing wrong is", stderr)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--device", "tpu"], "no such device here: got 'tpu'"),
        (["--dtypes", "fp32,fp7"], "no such dtypes here: got 'fp7'"),
        (["--layouts", "NCHW"], "no such layouts here: got 'NCHW'"),
        (["--kinds", "GPW"], "no such kinds here: got 'GPW'"),
        (["--cases", "12"], "no such shape"),
        (["--windows", "x"], "no such windows"),
        (["--windows", "3,0"], "groups do not divide the input channels: got 3 groups of 16"),
    ],
)
def test_bad_arguments_are_an_error_of_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        main([*QUICK, *arguments])
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1


def test_cases_after_the_time_limit_have_a_reason(tmp_path: Path) -> None:
    main([*QUICK, "--layouts", "nchw", "--time-limit", "-1", "--out", str(tmp_path / "b")])
    (page,) = (tmp_path / "b").glob("*.md")
    assert "the time limit of the run was over" in page.read_text()
    assert "| not measured |" in page.read_text()


def test_torch_compile_is_timed_in_the_chosen_cases() -> None:
    chosen = compiled_cases("some", torch.device("cpu"))
    case = LayerCase(128, 512, 14, 4, "1/2")
    assert chosen(case)
    assert not chosen(LayerCase(1, 512, 14, 4, "1/2"))
    assert not chosen(LayerCase(128, 512, 14, 4, "1/2", layout="nchw"))
