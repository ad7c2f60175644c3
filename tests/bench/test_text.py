"""What `ifspace bench` prints, of fixed rows."""

from dataclasses import replace
from pathlib import Path

import pytest
from samples import DW_PW, SMALL

from ifspace.bench.blocks import BlockShape, Calibration, baselines_at, find_baselines, select
from ifspace.bench.case import BlockCandidate
from ifspace.bench.latency import ALONE, MODEL, Errors, FittedModel, LatencyModel, features
from ifspace.bench.results import ResultFiles
from ifspace.bench.rows import Measurements, time_rows, with_numbers
from ifspace.bench.session import BenchSettings, BlockBench
from ifspace.bench.text import forms, notes
from ifspace.measurements import (
    AS_IS,
    BOTH_WAYS,
    COLLAPSED,
    COMPILED,
    FAILED,
    FORWARD,
    NOT_RUN,
    PEAK,
    PREDICTED,
)

FILES = ResultFiles(Path("results"), "cpu-test", "fp32", 2)
SHAPE = BlockShape(16, 16, 4, 2)
SECONDS = {"DW+RPW(4,0)+RPW(4,0)": 0.004, "DW+PW": 0.001, "CONV": 0.0025}


def fixed_bench(settings: BenchSettings, machine, catalogue=SMALL) -> BlockBench:
    """A bench as it is after a run: its blocks are timed, all but the last passed the gate."""
    bench = BlockBench(
        catalogue, settings, machine, Measurements(machine), lambda: None, lambda done, total: None
    )
    bench.designs = select(catalogue, settings.top, settings.by, settings.shape).candidates
    bench.baselines = baselines_at(find_baselines(settings.baselines), settings.shape).candidates
    *right, wrong = bench.shown
    bench.passed = {block.key for block in right}
    bench.failed = {wrong.key: "output is wrong: a relative error of 1.0e-03, over 1.2e-06"}
    for mode in settings.conditions.modes:
        for block in right:
            put_times(bench, block, mode)
        failure = FAILED + bench.failed[wrong.key]
        bench.measurements.put([with_numbers(bench.start(wrong, mode), failure, "")])
    return bench


def put_times(
    bench: BlockBench, block: BlockCandidate, mode: str, base_s: float | None = None
) -> None:
    start = bench.start(block, mode)
    base_s = base_s or SECONDS.get(block.name, 0.1) * (3 if mode == BOTH_WAYS else 1)
    seconds = [base_s, 1.25 * base_s, 1.5 * base_s]
    bench.measurements.put(time_rows(start, seconds, base_s / 4))
    bench.measurements.put([with_numbers(start, PEAK, "MiB", [12.5])])


def model_of(bench: BlockBench) -> FittedModel:
    counts = [features(block, bench.settings.conditions) for block in bench.shown]
    coefficients = {name: 1e-6 for block_counts in counts for name in block_counts}
    errors = {MODEL: Errors(40, 0.97, 0.08)} | {name: Errors(40, 0.6, 0.5) for name in ALONE}
    return FittedModel(FORWARD, LatencyModel(coefficients), 50, errors)


@pytest.fixture
def settings(here) -> BenchSettings:
    return BenchSettings(SHAPE, here, top=2, baselines=("conv", "shufflenet"), calibrate=False)


def test_the_tables_of_both_modes(settings: BenchSettings, machine, snapshot) -> None:
    answer = forms(fixed_bench(settings, machine), FILES)
    assert answer["table"]() == snapshot
    assert answer["markdown"]() == snapshot


def test_a_model_its_errors_and_its_predictions(settings: BenchSettings, machine, snapshot) -> None:
    forward = replace(settings.conditions, modes=(FORWARD,))
    bench = fixed_bench(replace(settings, conditions=forward, calibrate=True), machine)
    bench.models = {FORWARD: model_of(bench)}
    bench.calibration = Calibration(bench.baselines, bench.designs)
    for block in bench.designs:
        row = with_numbers(bench.start(block, FORWARD), PREDICTED, "ms", [bench.predict(block)])
        bench.measurements.put([row])
    assert forms(bench, FILES)["table"]() == snapshot


def test_goals_that_are_missed(settings: BenchSettings, machine, snapshot) -> None:
    bench = fixed_bench(settings, machine)
    model = model_of(bench)
    missed = {MODEL: Errors(40, 0.85, 0.25), "MACs alone": Errors(3, None, None)}
    bench.models = {FORWARD: replace(model, errors=missed)}
    assert forms(bench, FILES)["table"]() == snapshot


def test_compiled_times_and_a_block_that_did_not_run(
    settings: BenchSettings, machine, snapshot
) -> None:
    compiled = replace(settings.conditions, modes=(FORWARD,), compiled=True, threads=2)
    shape = replace(SHAPE, stride=2)
    bench = fixed_bench(replace(settings, conditions=compiled, shape=shape), machine)
    first, second, *_ = bench.shown
    bench.measurements.put(time_rows(bench.start(first, FORWARD), [0.0015], 0.001, COMPILED))
    reason = f"{NOT_RUN}RuntimeError: no such engine{COMPILED}"
    bench.measurements.put([with_numbers(bench.start(second, FORWARD), reason, "")])
    assert forms(bench, FILES)["table"]() == snapshot


def test_notes_on_what_was_left_out_reused_and_disturbed(
    settings: BenchSettings, machine, snapshot
) -> None:
    bench = fixed_bench(replace(settings, calibrate=True), machine)
    bench.left_out = tuple((f"GC+PW{n}", "no groups with the full field") for n in range(7))
    bench.solved, bench.reused = 2, 8
    bench.unfit = {BlockShape(16, 7, 4): 3, BlockShape(16, 32, 4): 0}
    bench.measurements.put(
        time_rows(bench.start(bench.shown[0], FORWARD), [0.001, 0.02, 0.02], 0.001)
    )
    assert "\n".join(notes(bench)) == snapshot
    first_line = forms(bench, FILES)["table"]().splitlines()[0]
    assert first_line.startswith("Noisy: medians up to 20 times the least")


def test_each_form_is_compared_with_the_convolution(settings: BenchSettings, machine) -> None:
    bench = fixed_bench(replace(settings, forms=(AS_IS, COLLAPSED)), machine)
    deep = next(block for block in bench.shown if block.form == COLLAPSED)
    put_times(bench, deep, FORWARD, base_s=0.0005)
    table = " ".join(forms(bench, FILES)["table"]().split())
    assert "beside CONV as is: 1 of 2 designs faster; the quickest takes 0.40 of its time" in table
    assert "collapsed: 1 of 1 design faster; the quickest takes 0.20 of its time" in table


def test_the_pareto_front_and_the_rows_are_numbers(settings: BenchSettings, machine) -> None:
    answer = forms(fixed_bench(settings, machine), FILES)
    assert '"latency_ms": 1.0' in answer["json"]()
    assert answer["csv"]().count(f",{DW_PW.block},") == 2 * 4
