"""The best layouts: against every layout of small problems, and on the networks of the papers."""

import random
import threading
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import brute_groups
import brute_stages
import pytest
from joblib import parallel_config
from random_stages import CLOSE, Q, all_have_a_block, drawn, same_answer

from ifspace import cpsat
from ifspace.answer import Status
from ifspace.block import Block, Composition
from ifspace.cpsat import Outcome
from ifspace.errors import SettingError, SolverError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.latency import LatencyTable
from ifspace.stages import allocate, best_few
from ifspace.stages.allocate import SizedChoices, best_stages
from ifspace.stages.best_few import RESOLUTION
from ifspace.stages.layout import (
    Stage,
    StemAndHead,
)
from ifspace.stages.networks import (
    make_layout,
    mobilenet,
    network,
)
from ifspace.stages.objectives import OBJECTIVES
from ifspace.stages.organizer import organize
from ifspace.stages.problem import (
    BlockChoice,
    Blocks,
    Budgets,
    StagesProblem,
)
from ifspace.values import block_list


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_best_layout_by_brute_force(seed: int) -> None:
    ended = [same_answer(problem, rows) for problem, rows in drawn(seed, 60)]
    assert ended.count("OPTIMAL") > 10
    assert ended.count("INFEASIBLE") > 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", [10, 11])
def test_the_best_few_layouts_by_brute_force(seed: int) -> None:
    ended = [same_answer(problem, rows, top=7) for problem, rows in drawn(seed, 40)]
    assert ended.count("OPTIMAL") > 10


@pytest.mark.slow
@pytest.mark.parametrize("distance", [1, 3])
def test_the_best_few_layouts_are_the_same_for_any_number_of_workers(
    distance: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved, threads = best_few._solved, set()

    def seen(task: Any) -> Outcome:
        threads.add(threading.get_ident())
        return solved(task)

    monkeypatch.setattr(best_few, "_solved", seen)
    for problem, rows in drawn(20 + distance, 25):
        if rows and all_have_a_block(problem):
            alone = best_stages(problem, 6, distance=distance)
            with parallel_config(backend="threading", n_jobs=3):
                assert best_stages(problem, 6, distance=distance) == alone
    assert len(threads) > 3


@pytest.mark.slow
def test_the_random_problems_cover_every_case() -> None:
    problems = [problem for seed in range(4) for problem, _ in drawn(seed, 60)]
    names = {tuple(problem.budgets.limits) for problem in problems}
    assert len(names) >= 44  # of 56
    frames = [problem.start.stem_and_head for problem in problems]
    for count in (
        sum(ends.stem_counts for ends in frames),
        sum(ends.projections for ends in frames),
        sum(problem.monotone for problem in problems),
        sum(problem.blocks is None for problem in problems),
        sum(len(list(brute_stages.places(problem))) > 1 for problem in problems),
    ):
        assert count > 15


def test_every_layout_of_a_problem_is_a_plan_in_order() -> None:
    begun = make_layout("CONV", (8, 8), (4, 4), (1, 1), stem_and_head=StemAndHead(inputs=4))
    problem = StagesProblem(begun, Budgets(layers=6), blocks=(Blocks("CONV"),) * 2, max_depth=3)
    rows = list(brute_stages.layouts(problem))
    assert len(rows) == 9
    assert same_answer(problem, rows, top=20) == "OPTIMAL"
    assert len(best_stages(problem, 20).plans) == 9


def test_of_equal_gain_the_budget_is_spent_by_the_next_objectives() -> None:
    # The gain is the same for each width and, at sides of 2, for each depth from 2 on.
    begun = make_layout("CONV", (2, 2), (8, 8), (1, 1))
    problem = StagesProblem(begun, Budgets(params=2500), widths=((8, 4, 6),) * 2, max_depth=5)
    plan = best_stages(problem).plans[0]
    assert plan.objective() == 0
    assert 0.9 * 2500 <= plan.layout.params <= 2500
    assert same_answer(problem, list(brute_stages.layouts(problem)), top=30) == "OPTIMAL"


VGG = network("vgg16", 32)
FOUND = VGG.at_depths((5, 4, 2, 1, 1))


@pytest.mark.slow
def test_the_organized_vgg_is_proven_best_at_its_parameters_and_macs() -> None:
    problem = StagesProblem(VGG, Budgets(params=FOUND.params, macs=FOUND.macs))
    answer = best_stages(problem, 2)
    assert answer.status is Status.OPTIMAL
    assert answer.plans[0].layout == FOUND
    assert (FOUND.params, round(FOUND.macs, -7)) == (5_098_826, 370_000_000)
    assert answer.bound == pytest.approx(7.428646, abs=1e-6)
    first, second = (plan.objective() for plan in answer.plans)
    assert first - second > 0.05
    small = replace(problem, max_depth=6)
    ranked = brute_stages.ranking(small, list(brute_stages.layouts(small)))[:5]
    plans = best_stages(small, 5).plans
    assert [plan.layout.depths for plan in plans] == [row.depths for _, row in ranked]
    assert [plan.objective() for plan in plans] == pytest.approx([gain for gain, _ in ranked])


def test_parameters_alone_let_the_first_stage_grow() -> None:
    answer = best_stages(StagesProblem(VGG, Budgets(params=FOUND.params)))
    assert answer.plans[0].layout.depths == (8, 3, 2, 1, 1)
    assert answer.bound is not None
    assert answer.bound > FOUND.gain() + 0.1


@pytest.mark.parametrize(("name", "side"), [("vgg19", 32), ("mobilenet", 32), ("resnet50", 224)])
def test_no_state_of_the_organizer_beats_the_optimum(name: str, side: int) -> None:
    way = organize(network(name, side))
    draw = random.Random(name)
    for state in draw.sample(way.layouts, 3):
        more = draw.choice([1, Q(11, 10), Q(3, 2)])
        for budgets in (
            Budgets(params=int(state.params * more)),
            Budgets(macs=int(state.macs * more), layers=state.layers),
            Budgets(params=state.params, macs=state.macs),
        ):
            problem = StagesProblem(way.start, budgets)
            answer = best_stages(problem)
            assert answer.status is Status.OPTIMAL
            assert answer.bound is not None
            within = [layout.gain() for layout in way.layouts if problem.fits(layout)]
            assert within
            assert max(within) <= answer.bound + 1e-9


WIDE = StagesProblem(
    VGG,
    Budgets(params=4_000_000, macs=300_000_000),
    widths=((32, 48, 64, 96, 128, 192, 256, 512),) * 5,
    blocks=(Blocks("CONV", "CONV(5)", "DW+PW", "DW(5)+PW"),) * 5,
)


@pytest.mark.slow
def test_without_time_there_is_no_plan() -> None:
    answer = best_stages(WIDE, time_limit_s=0)
    assert (answer.status, answer.plans) == (Status.UNKNOWN, ())


@pytest.mark.slow
def test_a_short_time_limit_never_gives_a_wrong_answer() -> None:
    narrower = replace(WIDE, widths=((32, 64, 128),) * 5, max_depth=8)
    proven = best_stages(narrower)
    assert (proven.status, len(proven.plans)) == (Status.OPTIMAL, 1)
    assert proven.bound is not None
    for limit in (0.1, 0.3, 0.6):
        answer = best_stages(narrower, 2, time_limit_s=limit)
        assert answer.status is not Status.INFEASIBLE
        gains = [plan.objective() for plan in answer.plans]
        assert all(a >= b - CLOSE for a, b in pairwise(gains))
        if answer.plans:
            assert answer.bound is not None
            assert gains[0] - CLOSE <= proven.bound <= answer.bound + CLOSE


def test_an_unproven_plan_has_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    solves = []

    def cut_short(*arguments: Any) -> Outcome:
        solves.append(arguments)
        outcome = cpsat.solve(*arguments)
        assert outcome.bound is not None
        return replace(outcome, status=Status.FEASIBLE, bound=outcome.bound - RESOLUTION // 4)

    monkeypatch.setattr(best_few, "solve", cut_short)
    answer = best_stages(StagesProblem(VGG, Budgets(params=FOUND.params, macs=FOUND.macs)))
    assert (answer.status, len(answer.plans), len(solves)) == (Status.FEASIBLE, 1, 1)
    assert answer.bound == pytest.approx(answer.plans[0].objective() + 0.25, abs=CLOSE)


def test_no_time_for_the_fewest_parameters_leaves_the_gain_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = iter([cpsat.solve, lambda *arguments: Outcome(Status.UNKNOWN, None, ())])
    monkeypatch.setattr(best_few, "solve", lambda *arguments: next(ended)(*arguments))
    answer = best_stages(StagesProblem(VGG, Budgets(params=FOUND.params, macs=FOUND.macs)))
    assert (answer.status, answer.plans[0].layout) == (Status.OPTIMAL, FOUND)


def test_two_names_of_one_block_are_one_choice() -> None:
    begun = make_layout("CONV", (8, 4), (8, 8), (1, 1), stem_and_head=StemAndHead(inputs=8))
    names = [
        BlockChoice.of(Block.parse("DW+GPW(4)+SH(4)+GPW(2)")),
        BlockChoice(Composition.parse("DW+GPW+SH+GPW")),
    ]
    names.append(names[0])
    problem = StagesProblem(begun, Budgets(layers=10**6), blocks=(Blocks(*names),) * 2, max_depth=2)
    layouts = [plan.layout for plan in best_stages(problem, 20).plans]
    assert len(layouts) == len(set(layouts))
    widths = replace(problem, blocks=None, widths=((8, 8), (8,)))
    assert len(best_stages(widths, 20).plans) == 4


def test_the_same_plans_every_time() -> None:
    problem = StagesProblem(VGG, Budgets(params=3_000_000), widths=((16, 32, 64),) * 5)
    assert best_stages(problem, 4) == best_stages(problem, 4)


def test_a_composition_without_groups_is_a_block() -> None:
    begun = make_layout("DW+PW", (8, 4), (8, 8), (2, 2), stem_and_head=StemAndHead(inputs=4))
    budgets = Budgets(params=1200)
    open_unit = BlockChoice(Composition.parse("DW+PW"))
    problem = StagesProblem(begun, budgets, blocks=(Blocks(open_unit),) * 2)
    assert (
        best_stages(problem).plans[0].layout
        == best_stages(StagesProblem(begun, budgets)).plans[0].layout
    )


def test_a_layout_that_the_solver_once_lost_when_it_simplified_the_model() -> None:
    # OR-Tools 9.15 with its presolve called layouts of this problem optimal that were not.
    lists = (
        "GC(4)+SH(4)+GPW(2),GPW(2)+DW,DW+RPW(2,1/2)",
        "DW+GPW(2),GPW(2)+DW,DW+GPW(4)+SH(4)+GPW(4)",
        "DW(5)+RPW(4,1/2)",
    )
    blocks = tuple(Blocks(*block_list(texts)) for texts in lists)
    start = make_layout(
        "CONV(3)", (16, 8, 5), (12, 4, 8), (1, 1, 1), stem_and_head=StemAndHead(inputs=4)
    )
    problem = StagesProblem(
        start, Budgets(params=2370, layers=9), ((12, 4), (4,), (8, 4)), blocks, max_depth=3
    )
    answer = best_stages(problem, top=3)
    assert [plan.layout.params for plan in answer.plans] == [480, 476, 408]
    ranked = brute_stages.ranking(problem, list(brute_stages.layouts(problem)))
    assert [row.params for _, row in ranked[:3]] == [480, 476, 408]


def test_a_solver_that_contradicts_itself_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = StagesProblem(network("vgg16", 32), Budgets(params=6 * 10**6))
    real, seen = best_few.solve, []

    def forgetful(*arguments: Any) -> Outcome:
        seen.append(1)
        if len(seen) == 1:
            return real(*arguments)
        # The second says that there is a tie, the third that there is no choice with its total.
        status = Status.FEASIBLE if len(seen) == 2 else Status.INFEASIBLE
        return Outcome(status, None, ())

    monkeypatch.setattr(best_few, "solve", forgetful)
    with pytest.raises(SolverError, match="the solver contradicts itself"):
        best_stages(problem)


OPEN = BlockChoice(Composition.parse("DW+GPW+SH+GPW"))
NARROW = BlockChoice(Composition.parse("GPW+SH+DW+GPW"), bottleneck=Q(1, 2), kernel=5)
CONV = BlockChoice.of(Block.parse("CONV"))


def problem(
    *choices: BlockChoice, widths: tuple[tuple[int, ...], ...] = ((8,), (16,)), **more: Any
) -> StagesProblem:
    start = make_layout(
        "CONV",
        (8, 8),
        [choices_of_stage[0] for choices_of_stage in widths],
        (2, 2),
        (1, 2),
        stem_and_head=StemAndHead(inputs=8),
    )
    budgets = {"budgets": Budgets(params=10**6)}
    return StagesProblem(
        start, **budgets | {"widths": widths, "blocks": (Blocks(*choices),) * 2} | more
    )


def cheapest(unit: BlockChoice, entry: int, width: int) -> Block | None:
    """The block that the optimizer of groups says, checked against every legal choice."""
    if unit.bottleneck is not None and width % 2:
        return None
    groups_problem = GroupsProblem(
        unit.composition, entry, width, bottleneck=unit.bottleneck, kernel=unit.kernel
    )
    plans = cheapest_groups(groups_problem).plans
    least = brute_groups.least(groups_problem)
    assert [plan.objective() for plan in plans] == ([] if least is None else [least])
    return plans[0].block if plans else None


@pytest.mark.parametrize("unit", [OPEN, NARROW], ids=str)
def test_open_blocks_get_their_cheapest_groups(unit: BlockChoice) -> None:
    widths = ((8, 12, 13), (16, 24))
    sized = SizedChoices(problem(unit, CONV, widths=widths))
    legal = 0
    for entry, width in product((8, 12, 13, 16, 24), repeat=2):
        place = 0 if width < 16 else 1
        if entry not in (*sized.entries[place], width):
            continue
        sized_block = sized.at(unit, entry, width, place, opens=False)
        block = cheapest(unit, entry, width)
        assert sized_block == (None if block is None else block.at(entry, width, unit.bottleneck))
        legal += sized_block is not None
    assert legal > 5
    fault = "is not legal" if unit.bottleneck else "has the full field with no groups"
    assert any(f"13 channels {fault}" in reason for reason in sized.left_out)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_layout_with_open_blocks_by_brute_force(seed: int) -> None:
    budgets = Budgets(params=[3000, 6000, 12000][seed], macs=[10**5, 3 * 10**5, None][seed])
    widths = ((8, 12), (16, 8))
    stages_problem = problem(OPEN, NARROW, CONV, widths=widths, budgets=budgets, max_depth=5)
    ranked = brute_stages.ranking(
        stages_problem, list(brute_stages.layouts(stages_problem, cheapest))
    )
    answer = best_stages(stages_problem, 3)
    assert answer.status is Status.OPTIMAL
    results = [(plan.objective(), plan.layout.params) for plan in answer.plans]
    assert [gain for gain, _ in results] == pytest.approx([gain for gain, _ in ranked[:3]])
    assert [params for _, params in results] == [row.params for _, row in ranked[:3]]


@pytest.mark.slow
def test_two_processes_find_the_same() -> None:
    stages_problem = problem(OPEN, NARROW, CONV, widths=((8, 12, 16), (16, 24, 32)))
    assert best_stages(stages_problem, 2, jobs=2) == best_stages(stages_problem, 2)


def test_stages_are_entered_at_the_widths_of_the_stage_before() -> None:
    sized = SizedChoices(problem(CONV, widths=((8, 4), (16, 12, 6))))
    assert sized.entries == [(8,), (8, 4)]
    assert sized.left_out == {}
    for entry, width in product((8, 4), (16, 12, 6)):
        assert sized.at(CONV, entry, width, 1, opens=True) == Block.parse("CONV").at(entry, width)


def test_blocks_that_do_not_fit_are_left_out() -> None:
    grouped = BlockChoice.of(Block.parse("GC(3)"))
    sized = SizedChoices(problem(grouped, CONV, widths=((9, 8), (12,))))
    assert sized.at(grouped, 9, 12, 1, opens=True) is not None
    assert sized.at(grouped, 8, 12, 1, opens=True) is None
    assert sized.left_out == {
        "GC(3) from 8 to 9 channels is not legal": {0},
        "GC(3) from 8 to 8 channels is not legal": {0},
        "GC(3) from 8 to 12 channels is not legal": {1},
    }


def test_a_stride_needs_a_spatial_layer() -> None:
    flat = BlockChoice.of(Block.parse("PW"))
    sized = SizedChoices(problem(flat, CONV))
    assert sized.at(flat, 8, 8, 0, opens=True) is not None
    assert sized.at(flat, 16, 16, 1, opens=False) is not None
    assert sized.at(flat, 8, 16, 1, opens=True) is None
    assert list(sized.left_out) == ["PW has no spatial layer to hold stride 2"]
    with pytest.raises(SettingError, match="stage 2 has no block left: got PW has no spatial"):
        SizedChoices(problem(flat))


CASES = {
    ("CONV", 8, 8, 8, 1): Q(1),
    ("CONV", 8, 16, 4, 2): Q(1),
    ("CONV", 16, 16, 4, 1): Q(1),
    ("DW+PW", 8, 8, 8, 1): Q(1),
}


def test_blocks_without_a_latency_are_left_out() -> None:
    budgets = Budgets(latency_ms=Q(5))
    light = BlockChoice.of(Block.parse("DW+PW"))
    stages_problem = problem(light, CONV, budgets=budgets, latency=LatencyTable(CASES))
    answer = best_stages(stages_problem)
    assert answer.status is Status.OPTIMAL
    assert set(answer.left_out) == {
        "no latency for DW+PW from 8 to 16 channels, side 4, stride 2",
        "no latency for DW+PW from 16 to 16 channels, side 4, stride 1",
    }
    for gone in CASES:
        rest = LatencyTable({case: CASES[case] for case in CASES if case != gone})
        if gone[0] == "CONV" and gone[3] == 4:
            with pytest.raises(SettingError, match="stage 2 has no block left: got no latency"):
                best_stages(replace(stages_problem, latency=rest))
        else:
            assert best_stages(replace(stages_problem, latency=rest)).status is Status.OPTIMAL


def test_one_reason_may_hold_for_two_stages() -> None:
    # The same sentence explains both stages; the first has another block.
    grouped = BlockChoice.of(Block.parse("GC(3)"))
    stages_problem = problem(
        CONV, widths=((8,), (8,)), blocks=(Blocks(grouped, CONV), Blocks(grouped))
    )
    with pytest.raises(SettingError, match=r"stage 2 has no block left: got GC\(3\) from 8 to 8"):
        SizedChoices(stages_problem)


def test_open_blocks_are_solved_once_for_each_pair_of_widths(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    widths_solved: list[tuple[int, int]] = []

    def counted(groups_problem: GroupsProblem, **more: Any) -> Any:
        widths_solved.append((groups_problem.channels, groups_problem.out_width))
        return cheapest_groups(groups_problem, **more)

    monkeypatch.setattr(allocate, "cheapest_groups", counted)
    SizedChoices(problem(OPEN, CONV, widths=((8, 12), (16,))))
    assert set(widths_solved) == {(8, 8), (8, 12), (12, 12), (8, 16), (12, 16), (16, 16)}


def test_another_objective_is_a_function_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def channels(stage: Stage, alpha: float, cap: str) -> tuple[float, ...]:
        """Every block counts its output channels."""
        return tuple(float(block.out_channels) for block in stage.blocks)

    monkeypatch.setitem(OBJECTIVES, "channels", channels)
    start = make_layout("CONV", (8, 4), (8, 16), (1, 1), stem_and_head=StemAndHead(inputs=8))
    problem = StagesProblem(start, Budgets(layers=5), widths=((8, 4), (16, 12)), max_depth=4)
    by_channels = best_stages(replace(problem, objective="channels")).plans[0]
    assert by_channels.layout.depths == (1, 4)
    assert by_channels.objective() == by_channels.layout.width_sum == 8 + 4 * 16
    assert best_stages(problem).plans[0].layout.depths != (1, 4)
    allowed = ", ".join(OBJECTIVES)
    with pytest.raises(SettingError, match=f"unknown objective: got 'area'; allowed: {allowed}"):
        replace(problem, objective="area")
    # One amount for each counted layer: those of the stem too.
    stem = StagesProblem(mobilenet(32, stem_counts=True), Budgets(layers=40), objective="channels")
    with pytest.raises(SettingError, match=r"wrong number of amounts: got .*; allowed: "):
        best_stages(stem)
