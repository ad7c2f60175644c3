"""A whole run on small blocks: what is measured, kept, predicted, and never timed."""

from dataclasses import replace

import pytest
import torch
from samples import DW_PW, GC_PW, SMALL

from ifspace.bench import session as module
from ifspace.bench.blocks import Place
from ifspace.bench.rows import (
    COLUMNS,
    FORWARD,
    TIME,
    Book,
    Machine,
)
from ifspace.bench.session import (
    Asked,
    Run,
    filled,
)
from ifspace.block import Block
from ifspace.catalogue import Catalogue
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError
from ifspace.reach import channel_field

MACHINE = Machine("cpu-test", "2.13.0", "3.7.1", "2026-11-21")
PLACE = Place(16, 16, 4, 2)
CATALOGUE = enumerate_designs([EnumerationSetting(channels=16, max_len=3)])
pytestmark = pytest.mark.usefixtures("quick")


def made(asked: Asked, catalogue: Catalogue = SMALL, book: Book | None = None, save=None) -> Run:
    progress: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        assert 0 <= done <= total
        progress.append((done, total))

    book = Book(MACHINE) if book is None else book
    return Run(catalogue, asked, MACHINE, book, save or (lambda: None), tell)


@pytest.fixture
def asked(here) -> Asked:
    return Asked(PLACE, here, 2, baselines=("conv", "shufflenet"), repeats=3, calibrate=False)


def metrics(run: Run, name: str, mode: str = FORWARD) -> set[str]:
    return {r["metric"] for r in run.book if (r["candidate"], r["mode"]) == (name, mode)}


def test_designs_and_baselines_are_timed_and_weighed(asked: Asked) -> None:
    run = made(asked)
    run.execute()
    names = ["DW+RPW(4,0)+RPW(4,0)", "DW+PW", "CONV"]
    assert [each.name for each in run.shown][:3] == names
    assert run.shown[3].provider == "baseline: ShuffleNet unit"
    for name in names:
        assert metrics(run, name) == {
            "time",
            "least time",
            "rounds",
            "params",
            "macs",
            "peak memory",
        }
        assert metrics(run, name, "forward+backward") == {
            "time",
            "least time",
            "rounds",
            "peak memory",
        }
    assert all(tuple(row) == COLUMNS for row in run.book)
    assert [len(run.least_ms(run.shown, mode)) for mode in asked.conditions.modes] == [4, 4]
    assert run.checked == run.shown
    assert run.timed


def test_what_is_red_is_never_timed_and_says_why(
    monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    wrong = replace(SMALL, designs=(replace(DW_PW, params=401), GC_PW))
    seen: list[str] = []
    measure = module.measure
    monkeypatch.setattr(
        module,
        "measure",
        lambda every, *more: seen.extend(x.candidate.name for x in every) or measure(every, *more),
    )
    run = made(asked, wrong)
    run.execute()
    assert "DW+PW" not in seen
    assert "GC(8)+PW" in seen
    (why,) = run.red.values()
    assert why == ("400 and 400, the catalogue says 401 parameters and 400 MACs a pixel")
    for mode in asked.conditions.modes:
        assert metrics(run, "DW+PW", mode) == {f"red: {why}"}
    assert "DW+PW" not in [each.name for each in run.checked]


def test_what_is_red_is_not_timed_under_another_name_either(asked: Asked) -> None:
    # DW+PW is also what every model is fitted to, there without the claims of a catalogue.
    wrong = replace(SMALL, designs=(replace(DW_PW, params=401), GC_PW))
    book = Book(MACHINE)
    made(asked, replace(SMALL, designs=(DW_PW, GC_PW)), book).execute()
    run = made(replace(asked, calibrate=True, baselines=("conv",)), wrong, book)
    run.execute()
    left = {
        (r["case"][:11], r["metric"][:5])
        for r in book
        if (r["candidate"], r["C"], r["H"]) == ("DW+PW", 16, 4)
    }
    assert left == {("16 to 16 ch", "red: ")}
    assert "DW+PW" not in [each.name for each in run.others()]


def test_what_cannot_be_run_is_no_answer(monkeypatch: pytest.MonkeyPatch, asked: Asked) -> None:
    monkeypatch.setattr("ifspace.bench.run.SHARE", 0.0)
    run = made(asked)
    with pytest.raises(SettingError, match=r"no block could be timed: got DW.*, not run: it needs"):
        run.execute()


def test_with_nothing_right_nothing_is_timed(asked: Asked) -> None:
    wrong = Catalogue(SMALL.settings, SMALL.funnels, (replace(DW_PW, params=401),))
    run = made(replace(asked, baselines=()), wrong)
    with pytest.raises(SettingError, match=r"no block is right, none is timed: got DW\+PW: 400 an"):
        run.execute()
    assert not run.timed
    run = made(
        replace(asked, baselines=(), place=Place(7, 11, 4, 2)),
        replace(
            SMALL, designs=(replace(DW_PW, composition="GPW+DW", block=Block.parse("GPW(2)+DW")),)
        ),
    )
    with pytest.raises(SettingError, match="no block is right, none is timed: got none chosen"):
        run.execute()


def test_a_run_goes_on_where_it_was_left(monkeypatch: pytest.MonkeyPatch, asked: Asked) -> None:
    first = made(asked)
    first.execute()
    before = [dict(row) for row in first.book]
    timed: list[tuple[str, str]] = []
    measure = module.measure
    monkeypatch.setattr(
        module,
        "measure",
        lambda every, *more: (
            timed.extend((x.candidate.name, x.mode) for x in every) or measure(every, *more)
        ),
    )
    asked = replace(asked, resume=True)
    again = made(asked, book=first.book)
    again.execute()
    assert timed == []
    assert (again.reused, [dict(row) for row in again.book]) == (8, before)
    # One design more, another baseline: only these are new.
    more = made(replace(asked, top=3, baselines=("conv", "dw+pw")), book=first.book)
    more.execute()
    assert timed == [("GC(8)+PW", "forward"), ("GC(8)+PW", "forward+backward")]
    assert more.chosen[1].provider == "catalogue, baseline: MobileNet"
    assert [each.name for each in more.beside] == ["CONV"]
    # Half of the rounds asked for are enough, less are not; nor is anything unless it is resumed.
    made(replace(asked, repeats=6), book=first.book).execute()
    assert len(timed) == 2
    for other in (replace(asked, repeats=7), replace(asked, resume=False)):
        timed.clear()
        made(other, book=first.book).execute()
        assert len(timed) == 8


def test_what_was_measured_before_an_interruption_is_kept(asked: Asked) -> None:
    saved: list[int] = []

    def save() -> None:
        saved.append(sum(row["metric"] == TIME for row in run.book))
        if len(saved) == 2:
            raise KeyboardInterrupt("now")

    run = made(replace(asked, repeats=9), save=save)
    with pytest.raises(KeyboardInterrupt, match="now"):
        run.execute()
    assert saved == [8, 8]
    (rounds,) = {float(r["median"]) for r in run.book if r["metric"] == "rounds"}
    assert rounds == 2
    again = made(replace(asked, repeats=9, resume=True), book=run.book)
    again.execute()
    assert again.reused == 0


def test_what_became_right_is_no_longer_called_wrong(asked: Asked) -> None:
    book = Book(MACHINE)
    first = made(asked, book=book)
    first._choose()
    start = first.chosen[0].row(asked.conditions, FORWARD, MACHINE)
    book.put(
        [filled(start, "red: it was wrong", "", ()), filled(start, "not run: no room", "", ())]
    )
    first.execute()
    said = {metric.partition(":")[0] for metric in metrics(first, first.chosen[0].name)}
    assert "time" in said
    assert not said & {"red", "not run"}


def test_threads_are_given_back(asked: Asked, here) -> None:
    run = made(replace(asked, conditions=replace(here, threads=2)))
    told: list[int] = []
    run.save = lambda: told.append(torch.get_num_threads())
    run.execute()
    assert set(told) == {2}
    assert torch.get_num_threads() == 1


def test_the_model_predicts_the_whole_catalogue(asked: Asked) -> None:
    run = made(replace(asked, calibrate=True, top=3), CATALOGUE)
    run.execute()
    assert set(run.models) == set(asked.conditions.modes)
    kinds = {kind for each in run.measured for kind in each.sized.block.composition.kinds}
    assert kinds >= {"CONV", "PW", "DW", "GC", "RPW", "GPW", "SH"}
    predicted = {
        row["candidate"]: float(row["median"])
        for row in run.book
        if row["metric"] == "predicted time" and row["mode"] == FORWARD
    }
    assert {str(each.block) for each in CATALOGUE.designs} <= predicted.keys()
    assert min(predicted.values()) > 0
    errors = run.models[FORWARD].errors["model"]
    # All of the sample judges, and the best are none of it.
    assert errors.count == len(run.calibration.sample) >= 5
    assert not {x.key for x in run.chosen} & {x.key for x in run.calibration.sample}
    again = made(replace(asked, calibrate=True, top=3, resume=True), CATALOGUE, run.book)
    again.execute()
    assert again.reused == 2 * (
        len(run.shown) + len(run.calibration.sample) + len(run.calibration.fit)
    )
    assert again.models[FORWARD].model == run.models[FORWARD].model


def test_other_places_are_predicted_with_groups_of_their_own(asked: Asked) -> None:
    there = Place(16, 32, 2, 2, 2)
    run = made(replace(asked, calibrate=True, predict=(there,)), CATALOGUE)
    run.execute()
    elsewhere = list(run.elsewhere())
    assert [each.shapes for each in elsewhere] == [there.shapes] * 4
    assert None not in [run.predict(each) for each in elsewhere]
    for each, chosen in zip(elsewhere[2:], run.chosen, strict=True):
        assert each.sized.block.composition == chosen.sized.block.composition
        assert channel_field(each.sized.layers) == 16


def test_compiled_blocks_are_timed_beside(
    monkeypatch: pytest.MonkeyPatch, asked: Asked, here
) -> None:
    monkeypatch.setattr(torch, "compile", lambda net, **options: net)
    run = made(replace(asked, calibrate=True, conditions=replace(here, compiled=True)), CATALOGUE)
    run.execute()
    assert {"time", "time +compile", "rounds +compile"} <= metrics(run, "CONV")
    sampled = {r["metric"] for r in run.book if r["case"].startswith("calibration")}
    assert not any("compile" in metric for metric in sampled)
