"""What is known of the papers' networks, the organizer beside the optimum, and short times."""

import random
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import brute_stages
import pytest

from ifspace import cpsat
from ifspace.answer import Status
from ifspace.block import Block, Composition
from ifspace.cpsat import Outcome
from ifspace.errors import SolverError
from ifspace.stages import allocate as optimizer
from ifspace.stages.allocate import RESOLUTION, best_stages
from ifspace.stages.command import block_list
from ifspace.stages.layout import StemAndHead
from ifspace.stages.networks import (
    network,
    stages,
)
from ifspace.stages.organizer import organize
from ifspace.stages.problem import (
    BlockChoice,
    Blocks,
    Budgets,
    StagesProblem,
)

Q = Fraction
CLOSE = 1e-8
VGG = network("vgg16", 32)
FOUND = VGG.at_depths((5, 4, 2, 1, 1))


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
def test_no_state_of_the_organizer_is_above_the_optimum(name: str, side: int) -> None:
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
            within = [each.gain() for each in way.layouts if problem.fits(each)]
            assert within
            assert max(within) <= answer.bound + 1e-9


WIDE = StagesProblem(
    VGG,
    Budgets(params=4_000_000, macs=300_000_000),
    widths=((32, 48, 64, 96, 128, 192, 256, 512),) * 5,
    blocks=(Blocks("CONV", "CONV(5)", "DW+PW", "DW(5)+PW"),) * 5,
)


def test_no_time_is_an_answer_without_a_plan() -> None:
    answer = best_stages(WIDE, time_limit_s=0)
    assert (answer.status, answer.bound, answer.plans) == (Status.UNKNOWN, None, ())


def test_a_short_time_never_ends_with_what_is_wrong() -> None:
    proven = best_stages(WIDE)
    assert (proven.status, len(proven.plans)) == (Status.OPTIMAL, 1)
    assert proven.bound is not None
    for limit in (0.2, 1.0):
        answer = best_stages(WIDE, 2, time_limit_s=limit)
        assert answer.status is not Status.INFEASIBLE
        gains = [plan.objective() for plan in answer.plans]
        assert all(a >= b - CLOSE for a, b in pairwise(gains))
        if answer.plans:
            assert answer.bound is not None
            assert gains[0] - CLOSE <= proven.bound <= answer.bound + CLOSE


def test_what_is_not_proven_has_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    solves = []

    def cut_short(*asked: Any) -> Outcome:
        solves.append(asked)
        outcome = cpsat.solve(*asked)
        assert outcome.bound is not None
        return replace(outcome, status=Status.FEASIBLE, bound=outcome.bound - RESOLUTION // 4)

    monkeypatch.setattr(optimizer, "solve", cut_short)
    answer = best_stages(StagesProblem(VGG, Budgets(params=FOUND.params, macs=FOUND.macs)))
    assert (answer.status, len(answer.plans), len(solves)) == (Status.FEASIBLE, 1, 1)
    assert answer.bound == pytest.approx(answer.plans[0].objective() + 0.25, abs=CLOSE)


def test_no_time_for_the_fewest_parameters_leaves_the_gain_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = iter([cpsat.solve, lambda *asked: Outcome(Status.UNKNOWN, None, ())])
    monkeypatch.setattr(optimizer, "solve", lambda *asked: next(ended)(*asked))
    answer = best_stages(StagesProblem(VGG, Budgets(params=FOUND.params, macs=FOUND.macs)))
    assert (answer.status, answer.plans[0].layout) == (Status.OPTIMAL, FOUND)


def test_two_names_of_one_block_are_one_choice() -> None:
    begun = stages("CONV", (8, 4), (8, 8), (1, 1), stem_and_head=StemAndHead(inputs=8))
    names = [
        BlockChoice.of(Block.parse("DW+GPW(4)+SH(4)+GPW(2)")),
        BlockChoice(Composition.parse("DW+GPW+SH+GPW")),
    ]
    names.append(names[0])
    asked = StagesProblem(begun, Budgets(layers=10**6), blocks=(Blocks(*names),) * 2, max_depth=2)
    layouts = [plan.layout for plan in best_stages(asked, 20).plans]
    assert len(layouts) == len(set(layouts))
    widths = replace(asked, blocks=None, widths=((8, 8), (8,)))
    assert len(best_stages(widths, 20).plans) == 4


def test_the_same_plans_every_time() -> None:
    problem = StagesProblem(VGG, Budgets(params=3_000_000), widths=((16, 32, 64),) * 5)
    assert best_stages(problem, 4) == best_stages(problem, 4)


def test_a_composition_without_groups_is_a_block() -> None:
    begun = stages("DW+PW", (8, 4), (8, 8), (2, 2), stem_and_head=StemAndHead(inputs=4))
    budgets = Budgets(params=1200)
    open_unit = BlockChoice(Composition.parse("DW+PW"))
    asked = StagesProblem(begun, budgets, blocks=(Blocks(open_unit),) * 2)
    assert (
        best_stages(asked).plans[0].layout
        == best_stages(StagesProblem(begun, budgets)).plans[0].layout
    )


def test_a_layout_that_the_solver_once_lost_when_it_simplified_the_model() -> None:
    # OR-Tools 9.15 with its presolve found no layout of this gain with fewer parameters than 476.
    lists = (
        "GC(4)+SH(4)+GPW(2),GPW(2)+DW,DW+RPW(2,1/2)",
        "DW+GPW(2),GPW(2)+DW,DW+GPW(4)+SH(4)+GPW(4)",
        "DW(5)+RPW(4,1/2)",
    )
    blocks = tuple(Blocks(*block_list(texts)) for texts in lists)
    start = stages(
        "CONV(3)", (16, 8, 5), (12, 4, 8), (1, 1, 1), stem_and_head=StemAndHead(inputs=4)
    )
    asked = StagesProblem(
        start, Budgets(params=2370, layers=9), ((12, 4), (4,), (8, 4)), blocks, max_depth=3
    )
    found = best_stages(asked, top=3)
    assert [plan.layout.params for plan in found.plans] == [404, 408, 476]
    ranked = brute_stages.ranking(asked, list(brute_stages.layouts(asked)))
    assert [row.params for _, row in ranked[:3]] == [404, 408, 476]


def test_a_solver_that_contradicts_itself_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = StagesProblem(network("vgg16", 32), Budgets(params=6 * 10**6))
    real, seen = optimizer.solve, []

    def forgetful(*given: Any) -> Outcome:
        seen.append(1)
        return real(*given) if len(seen) == 1 else Outcome(Status.INFEASIBLE, None, ())

    monkeypatch.setattr(optimizer, "solve", forgetful)
    with pytest.raises(SolverError, match="the solver contradicts itself"):
        best_stages(asked)
