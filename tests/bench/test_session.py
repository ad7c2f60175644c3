"""A whole run on small blocks: what is measured, kept, predicted, and never timed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from samples import DW_PW, GC_PW, SMALL

from ifspace.bench import session
from ifspace.bench.blocks import BlockShape, select
from ifspace.bench.entry import run_bench
from ifspace.bench.machine import Machine
from ifspace.bench.rows import Measurements, with_numbers
from ifspace.bench.session import BenchSettings, BlockBench, ProgressEstimate, front
from ifspace.block import Block
from ifspace.catalogue import Catalogue
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError
from ifspace.measurements import COLUMNS, FORWARD, TIME
from ifspace.reach import channel_field

MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")
SHAPE = BlockShape(16, 16, 4, 2)
CATALOGUE = enumerate_designs([EnumerationSetting(channels=16, max_len=3)])
pytestmark = pytest.mark.usefixtures("quick")


def new_bench(
    settings: BenchSettings,
    catalogue: Catalogue = SMALL,
    measurements: Measurements | None = None,
    save=None,
) -> BlockBench:
    def on_progress(done: int, total: int) -> None:
        assert 0 <= done <= total

    rows = Measurements(MACHINE) if measurements is None else measurements
    return BlockBench(catalogue, settings, MACHINE, rows, save or (lambda: None), on_progress)


@pytest.fixture
def settings(here) -> BenchSettings:
    return BenchSettings(
        SHAPE, here, 2, baselines=("conv", "shufflenet"), repeats=3, calibrate=False
    )


def metrics(bench: BlockBench, name: str, mode: str = FORWARD) -> set[str]:
    return {r["metric"] for r in bench.measurements if (r["candidate"], r["mode"]) == (name, mode)}


def test_designs_and_baselines_are_timed_and_their_memory_measured(settings: BenchSettings) -> None:
    bench = new_bench(settings)
    bench.execute()
    names = ["DW+RPW(4,0)+RPW(4,0)", "DW+PW", "CONV"]
    assert [candidate.name for candidate in bench.shown][:3] == names
    assert bench.shown[3].provider == "baseline: ShuffleNet unit"
    for name in names:
        assert metrics(bench, name) == {
            "time",
            "least time",
            "rounds",
            "params",
            "macs",
            "spatial field",
            "channel field",
            "peak memory",
        }
        assert metrics(bench, name, "forward+backward") == {
            "time",
            "least time",
            "rounds",
            "peak memory",
        }
    assert all(tuple(row) == COLUMNS for row in bench.measurements)
    assert [len(bench.least_ms(bench.shown, mode)) for mode in settings.conditions.modes] == [4, 4]
    assert bench.passed_here == bench.shown
    assert bench.has_times


def test_a_block_that_fails_the_gate_is_never_timed(
    monkeypatch: pytest.MonkeyPatch, settings: BenchSettings
) -> None:
    wrong = replace(SMALL, designs=(replace(DW_PW, params=401), GC_PW))
    timed_names: list[str] = []
    time_blocks = session.time_blocks
    monkeypatch.setattr(
        session,
        "time_blocks",
        lambda every, *more: (
            timed_names.extend(x.candidate.name for x in every) or time_blocks(every, *more)
        ),
    )
    bench = new_bench(settings, wrong)
    bench.execute()
    assert "DW+PW" not in timed_names
    assert "GC(8)+PW" in timed_names
    (why,) = bench.failed.values()
    assert why == ("400 and 400, the catalogue says 401 parameters and 400 MACs a pixel")
    for mode in settings.conditions.modes:
        assert metrics(bench, "DW+PW", mode) == {f"red: {why}"}
    assert "DW+PW" not in [candidate.name for candidate in bench.passed_here]


def test_a_block_that_fails_is_not_timed_for_the_model_either(settings: BenchSettings) -> None:
    # DW+PW is also what every model is fitted to, there without the claims of a catalogue.
    wrong = replace(SMALL, designs=(replace(DW_PW, params=401), GC_PW))
    measurements = Measurements(MACHINE)
    new_bench(settings, replace(SMALL, designs=(DW_PW, GC_PW)), measurements).execute()
    bench = new_bench(replace(settings, calibrate=True, baselines=("conv",)), wrong, measurements)
    bench.execute()
    left = {
        (r["case"][:11], r["metric"][:5])
        for r in measurements
        if (r["candidate"], r["C"], r["H"]) == ("DW+PW", 16, 4)
    }
    assert left == {("16 to 16 ch", "red: ")}
    assert "DW+PW" not in [candidate.name for candidate in bench.predictable()]


def test_a_run_without_times_raises(
    monkeypatch: pytest.MonkeyPatch, settings: BenchSettings
) -> None:
    monkeypatch.setattr("ifspace.bench.machine.MEMORY_SHARE", 0.0)
    bench = new_bench(settings)
    with pytest.raises(SettingError, match=r"no block could be timed: got DW.*, not run: it needs"):
        bench.execute()


def test_much_work_is_said_before_it_starts(
    monkeypatch: pytest.MonkeyPatch, settings: BenchSettings
) -> None:
    seconds_of = {}
    monkeypatch.setattr(session, "block_fault", lambda *arguments: "stopped here")
    for name, changes in {
        "few": {},
        "many rounds": {"repeats": 100_000},
        "large": {"repeats": 25, "shape": replace(SHAPE, side=256, batch=16)},
    }.items():
        bench = new_bench(replace(settings, baselines=("conv",), **changes))
        bench.on_start = lambda shown, sampled, s, name=name: seconds_of.__setitem__(name, s)
        with pytest.raises(SettingError, match="no block is right"):
            bench.execute()
    # A call takes a millisecond at least: three blocks, forward and both ways.
    assert seconds_of["many rounds"] - seconds_of["few"] == pytest.approx(6 * (100 - 2))
    # CONV alone: 2,304 multiply-accumulates of 2^20 pixels, three passes, in 25 rounds.
    conv_s = 25 * 3 * 3 * 2 * 2_304 * 2**20 / 1e10
    assert seconds_of["large"] > conv_s


@pytest.mark.parametrize(("name", "number"), [("repeats", 10**9), ("repeats", 2), ("top", 0)])
def test_counts_have_bounds(settings: BenchSettings, name: str, number: int) -> None:
    with pytest.raises(SettingError, match=f"{name} out of range: got {number}"):
        replace(settings, **{name: number})


def test_with_nothing_right_nothing_is_timed(settings: BenchSettings) -> None:
    wrong = Catalogue(SMALL.settings, SMALL.funnels, (replace(DW_PW, params=401),))
    bench = new_bench(replace(settings, baselines=()), wrong)
    with pytest.raises(SettingError, match=r"no block is right, none is timed: got DW\+PW: 400 an"):
        bench.execute()
    assert not bench.has_times
    bench = new_bench(
        replace(settings, baselines=(), shape=BlockShape(7, 11, 4, 2)),
        replace(
            SMALL, designs=(replace(DW_PW, composition="GPW+DW", block=Block.parse("GPW(2)+DW")),)
        ),
    )
    with pytest.raises(SettingError, match="no block is right, none is timed: got none chosen"):
        bench.execute()


@pytest.mark.slow
def test_a_run_goes_on_where_it_was_left(
    monkeypatch: pytest.MonkeyPatch, settings: BenchSettings
) -> None:
    first = new_bench(settings)
    first.execute()
    before = [dict(row) for row in first.measurements]
    timed: list[tuple[str, str]] = []
    time_blocks = session.time_blocks
    monkeypatch.setattr(
        session,
        "time_blocks",
        lambda every, *more: (
            timed.extend((x.candidate.name, x.mode) for x in every) or time_blocks(every, *more)
        ),
    )
    settings = replace(settings, resume=True)
    again = new_bench(settings, measurements=first.measurements)
    again.execute()
    assert timed == []
    assert (again.reused, [dict(row) for row in again.measurements]) == (8, before)
    # One design more, another baseline: only these are new.
    more = new_bench(
        replace(settings, top=3, baselines=("conv", "dw+pw")), measurements=first.measurements
    )
    more.execute()
    assert timed == [("GC(8)+PW", "forward"), ("GC(8)+PW", "forward+backward")]
    assert more.designs[1].provider == "catalogue, baseline: MobileNet"
    assert [candidate.name for candidate in more.baselines] == ["CONV"]
    # Half of the rounds are enough, fewer are not, and none are without `resume`.
    new_bench(replace(settings, repeats=6), measurements=first.measurements).execute()
    assert len(timed) == 2
    for other in (replace(settings, repeats=7), replace(settings, resume=False)):
        timed.clear()
        new_bench(other, measurements=first.measurements).execute()
        assert len(timed) == 8


def test_measurements_before_an_interruption_are_kept(settings: BenchSettings) -> None:
    saved: list[int] = []

    def save() -> None:
        saved.append(sum(row["metric"] == TIME for row in bench.measurements))
        if len(saved) == 2:
            raise KeyboardInterrupt("now")

    bench = new_bench(replace(settings, repeats=9), save=save)
    with pytest.raises(KeyboardInterrupt, match="now"):
        bench.execute()
    assert saved == [8, 8]
    (rounds,) = {float(r["median"]) for r in bench.measurements if r["metric"] == "rounds"}
    assert rounds == 2
    again = new_bench(replace(settings, repeats=9, resume=True), measurements=bench.measurements)
    again.execute()
    assert again.reused == 0


def test_a_block_that_became_right_loses_its_failure(settings: BenchSettings) -> None:
    measurements = Measurements(MACHINE)
    first = new_bench(settings, measurements=measurements)
    candidate = select(SMALL, 1, "params", SHAPE).candidates[0]
    start = first.start(candidate, FORWARD)
    measurements.put(
        [
            with_numbers(start, "red: it was wrong", "", ()),
            with_numbers(start, "not bench: no room", "", ()),
        ]
    )
    first.execute()
    starts = {metric.partition(":")[0] for metric in metrics(first, candidate.name)}
    assert "time" in starts
    assert not starts & {"red", "not run"}


@pytest.mark.slow
def test_the_number_of_threads_is_restored(settings: BenchSettings, here) -> None:
    bench = new_bench(replace(settings, conditions=replace(here, threads=2)))
    counts: list[int] = []
    bench.save = lambda: counts.append(torch.get_num_threads())
    bench.execute()
    assert set(counts) == {2}
    assert torch.get_num_threads() == 1


@pytest.mark.slow
def test_the_model_predicts_the_whole_catalogue(settings: BenchSettings) -> None:
    bench = new_bench(replace(settings, calibrate=True, top=3), CATALOGUE)
    bench.execute()
    assert set(bench.models) == set(settings.conditions.modes)
    kinds = {
        kind for candidate in bench.measured for kind in candidate.sized.block.composition.kinds
    }
    assert kinds >= {"CONV", "PW", "DW", "GC", "RPW", "GPW", "SH"}
    predicted = {
        row["candidate"]: float(row["median"])
        for row in bench.measurements
        if row["metric"] == "predicted time" and row["mode"] == FORWARD
    }
    assert {str(candidate.block) for candidate in CATALOGUE.designs} <= predicted.keys()
    assert min(predicted.values()) > 0
    errors = bench.models[FORWARD].errors["model"]
    # The whole sample tests the model, and the best blocks are not part of it.
    assert errors.count == len(bench.calibration.sample) >= 5
    assert not {x.key for x in bench.designs} & {x.key for x in bench.calibration.sample}
    again = new_bench(
        replace(settings, calibrate=True, top=3, resume=True), CATALOGUE, bench.measurements
    )
    again.execute()
    assert again.reused == 2 * (
        len(bench.shown) + len(bench.calibration.sample) + len(bench.calibration.fit)
    )
    assert again.models[FORWARD].model == bench.models[FORWARD].model


@pytest.mark.slow
def test_other_shapes_are_predicted_with_groups_of_their_own(settings: BenchSettings) -> None:
    there = BlockShape(16, 32, 2, 2, 2)
    bench = new_bench(replace(settings, calibrate=True, predict=(there,)), CATALOGUE)
    bench.execute()
    elsewhere = list(bench.elsewhere())
    assert [candidate.shapes for candidate in elsewhere] == [there.shapes] * 4
    assert None not in [bench.predict(candidate) for candidate in elsewhere]
    for candidate, chosen in zip(elsewhere[2:], bench.designs, strict=True):
        assert candidate.sized.block.composition == chosen.sized.block.composition
        assert channel_field(candidate.sized.layers) == 16


@pytest.mark.slow
def test_compiled_blocks_are_timed_beside(
    monkeypatch: pytest.MonkeyPatch, settings: BenchSettings, here
) -> None:
    monkeypatch.setattr(torch, "compile", lambda net, **options: net)
    bench = new_bench(
        replace(settings, calibrate=True, conditions=replace(here, compiled=True)), CATALOGUE
    )
    bench.execute()
    assert {"time", "time +compile", "rounds +compile"} <= metrics(bench, "CONV")
    sampled = {r["metric"] for r in bench.measurements if r["case"].startswith("calibration")}
    assert not any("compile" in metric for metric in sampled)


def test_parts_of_the_progress_add_up() -> None:
    counts: list[tuple[int, int]] = []
    estimate = ProgressEstimate(
        lambda done, total: counts.append((done, total)), {"a": 1.0, "b": 4.0, "c": 5.0}
    )
    estimate.part("a")(1.0, 1.0)
    estimate.part("b")(1.0, 2.0)
    estimate.part("b")(2.5, 2.0)
    estimate.end("c")
    assert counts == [(1000, 10000), (2000, 8000), (3000, 8000), (3000, 3000)]


points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


@pytest.mark.slow
@given(points)
def test_the_front_is_the_undominated_points(pairs) -> None:
    def beaten(point) -> bool:
        return any(
            other[0] <= point[0] and other[1] <= point[1] and other != point for other in pairs
        )

    indices = front(pairs)
    assert sorted(indices) == [n for n, point in enumerate(pairs) if not beaten(point)]
    assert [pairs[n] for n in indices] == sorted(pairs[n] for n in indices)


def test_a_benchmark_from_python_writes_only_into_a_folder_of_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"side": 4, "batch": 1, "repeats": 3, "threads": 1, "top": 1, "backward": False}
    options["forms"] = ["collapsed"]
    bench = run_bench(SMALL, baselines=["conv"], calibrate=False, **options)
    assert [block.label for block, _ in bench.least_ms(bench.shown)] == [
        "DW+RPW(4,0)+RPW(4,0)",
        "DW+RPW(4,0)+RPW(4,0), collapsed",
        "CONV",
    ]
    assert list(tmp_path.iterdir()) == []
    run_bench(SMALL, baselines=["conv"], calibrate=False, results=Path("own"), **options)
    assert len(list((tmp_path / "own" / "bench").iterdir())) == 4
