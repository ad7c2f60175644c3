"""The best depths of tables against all of them, and against the stages that tables are made of."""

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import brute_depths
import pytest

from ifspace.answer import Status
from ifspace.cpsat import (
    Outcome,
    solve,
)
from ifspace.errors import SettingError, SolverError
from ifspace.stages import best_few as search
from ifspace.stages.allocate import best_depths, best_stages
from ifspace.stages.layout import Layout
from ifspace.stages.networks import network
from ifspace.stages.problem import (
    Budgets,
    DepthsProblem,
    StagesProblem,
    StageTable,
)

CLOSE = 1e-8


def table(draw: random.Random, name: str) -> StageTable:
    """Draw a stage: arbitrary gains, some of them equal, and costs that grow or not."""
    least, count = draw.randint(0, 3), draw.randint(1, 6)
    gains = [draw.choice([0.0, 0.5, round(draw.uniform(-1, 3), 3)]) for _ in range(count)]
    params = [draw.randint(0, 1000) for _ in range(count)]
    macs = [draw.randint(0, 10**9) for _ in range(count)]
    if draw.random() < 0.7:
        gains, params, macs = sorted(gains), sorted(params), sorted(macs)
    return StageTable(name, least, tuple(gains), tuple(params), tuple(macs), least + count - 1)


def drawn(seed: int, count: int) -> Iterator[tuple[DepthsProblem, list[brute_depths.Row]]]:
    draw = random.Random(seed)
    for _ in range(count):
        tables = tuple(table(draw, f"stage {n}") for n in range(draw.randint(1, 4)))
        rest = draw.choice([(0, 0), (draw.randint(1, 500), draw.randint(1, 10**8))])
        start = draw.choice([None, tuple(draw.choice(table.depths) for table in tables)])
        problem = DepthsProblem(tables, Budgets(), *rest, start)
        rows = brute_depths.choices(problem)
        bounds = {}
        for name in draw.choice([[], ["params"], ["macs"], ["params", "macs"]]):
            least = min(getattr(row, name) for row in rows)
            values = [getattr(draw.choice(rows), name)] * 4 + [least - 1]
            bounds[name] = max(1, draw.choice(values))
        yield replace(problem, budgets=Budgets(**bounds)), rows


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "top"), [(0, 1), (1, 1), (2, 6), (3, 20)])
def test_the_best_depths_by_brute_force(seed: int, top: int) -> None:
    ended = []
    for problem, rows in drawn(seed, 60):
        ranked = brute_depths.ranking(problem, rows)
        answer = best_depths(problem, top)
        ended.append(answer.status)
        if not ranked:
            assert (answer.status, answer.bound, answer.plans) == (Status.INFEASIBLE, None, ())
            names = problem.budgets.limits
            assert answer.least == {n: min(getattr(row, n) for row in rows) for n in names}
            continue
        assert (answer.status, answer.least) == (Status.OPTIMAL, {})
        assert answer.bound == pytest.approx(ranked[0].gain, abs=CLOSE)
        results = [(plan.objective(), plan.params) for plan in answer.plans]
        expected = [(row.gain, row.params) for row in ranked[:top]]
        assert [gain for gain, _ in results] == pytest.approx([g for g, _ in expected], abs=CLOSE)
        assert [params for _, params in results] == [params for _, params in expected]
        costs = {row.depths: (row.params, row.macs) for row in rows}
        assert [costs[p.depths] for p in answer.plans] == [(p.params, p.macs) for p in answer.plans]
        assert len({plan.depths for plan in answer.plans}) == min(top, len(ranked))
    assert ended.count(Status.OPTIMAL) > 30
    assert ended.count(Status.INFEASIBLE) > 3


def tables(layout: Layout, most: int, alpha: float) -> tuple[StageTable, ...]:
    """The stages of a layout as tables, whose costs are the differences between whole networks."""
    bare = layout.at_depths([stage.min_depth for stage in layout.stages])
    stage_tables = []
    for place, stage in enumerate(layout.stages):
        depths = list(bare.depths)
        states = []
        for depth in range(stage.min_depth, most + 1):
            depths[place] = depth
            states.append(layout.at_depths(depths))
        stage_tables.append(
            StageTable(
                f"stage {place + 1}",
                stage.min_depth,
                tuple(sum(state.stages[place].gains(alpha)) for state in states),
                tuple(state.params - bare.params for state in states),
                tuple(state.macs - bare.macs for state in states),
                most,
            )
        )
    return tuple(stage_tables)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("vgg16", 32),
        ("vgg16", 224),
        ("resnet50", 32),
        ("resnet50", 224),
        ("mobilenet", 32),
        ("mobilenet", 224),
    ],
)
def test_tables_of_a_network_have_the_depths_of_its_stages(name: str, side: int) -> None:
    layout = network(name, side)
    bare = layout.at_depths([stage.min_depth for stage in layout.stages])
    for alpha, most in ((3, 16), (1, 9)):
        stage_tables = tables(layout, most, alpha)
        for budgets in (
            Budgets(params=layout.params),
            Budgets(macs=layout.macs * 3 // 4),
            Budgets(params=layout.params * 9 // 10, macs=layout.macs),
            Budgets(params=bare.params - 1, macs=layout.macs),
        ):
            stages = best_stages(StagesProblem(layout, budgets, max_depth=most, alpha=alpha), top=4)
            depths_answer = best_depths(
                DepthsProblem(stage_tables, budgets, bare.params, bare.macs), top=4
            )
            assert (depths_answer.status, depths_answer.least) == (stages.status, stages.least)
            # Of equal gain other depths come first: layouts spend what is left, see their ties.
            for depth_plan in depths_answer.plans:
                state = layout.at_depths(depth_plan.depths)
                assert (depth_plan.params, depth_plan.macs) == (state.params, state.macs)
                assert depth_plan.objective() == pytest.approx(state.gain(alpha), abs=CLOSE)
            gains = [plan.objective() for plan in stages.plans]
            assert [plan.objective() for plan in depths_answer.plans] == pytest.approx(
                gains, abs=CLOSE
            )
            if stages.bound is not None:
                assert depths_answer.bound == pytest.approx(stages.bound, abs=CLOSE)


VGG = network("vgg16", 32)
BARE = VGG.at_depths((1,) * 5)
PROBLEM = DepthsProblem(
    tables(VGG, 16, 3),
    Budgets(params=5_098_826, macs=VGG.at_depths((5, 4, 2, 1, 1)).macs),
    BARE.params,
    BARE.macs,
)


def test_the_published_vgg_is_the_best_by_its_tables() -> None:
    answer = best_depths(PROBLEM)
    assert answer.plans[0].depths == (5, 4, 2, 1, 1)
    assert answer.plans[0].params == 5_098_826
    assert answer.bound == pytest.approx(7.428646, abs=1e-6)


def test_what_saturates_stays_where_the_budgets_allow_it() -> None:
    # A transformer: from the first block on every pixel sees all others, and nothing gains.
    gains, params = (0.0,) + (1.5,) * 12, tuple(range(10, 140, 10))
    blocks = StageTable("blocks", 1, gains, params, params, 13)
    problem = DepthsProblem((blocks,), Budgets(params=75), start=(12,))
    assert best_depths(problem).plans[0].depths == (7,)
    assert best_depths(replace(problem, budgets=Budgets(params=500))).plans[0].depths == (12,)
    assert best_depths(replace(problem, start=None)).plans[0].depths == (2,)
    message = r"^depths of other stages: got 2 depths for 1 stages; allowed: one for each stage"
    with pytest.raises(SettingError, match=message):
        replace(problem, start=(12, 1))


@pytest.mark.slow
def test_fifty_stages_of_fifty_depths_are_solved_and_proven() -> None:
    draw = random.Random(5)
    many = []
    for number in range(50):
        rows = [sorted(draw.choices(range(1, 10**6), k=50)) for _ in range(3)]
        gains = tuple(gain / 10**6 for gain in rows[0])
        many.append(StageTable(f"{number}", 1, gains, tuple(rows[1]), tuple(rows[2]), 50))
    problem = DepthsProblem(tuple(many), Budgets(params=15 * 10**6, macs=17 * 10**6))
    answer = best_depths(problem, time_limit_s=60)
    assert answer.status is Status.OPTIMAL
    assert answer.bound == answer.plans[0].objective()
    assert 15 < answer.bound < 50


def test_the_same_plans_every_time() -> None:
    assert best_depths(PROBLEM, 5) == best_depths(PROBLEM, 5)


def test_without_time_there_is_no_plan() -> None:
    answer = best_depths(PROBLEM, time_limit_s=0)
    assert (answer.status, answer.plans) == (Status.UNKNOWN, ())
    assert answer.bound >= best_depths(PROBLEM).bound


def test_an_unproven_plan_has_its_own_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def cut_short(*arguments: Any) -> Outcome:
        outcome = solve(*arguments)
        assert outcome.bound is not None
        return replace(outcome, status=Status.FEASIBLE, bound=outcome.bound - 10**9 // 4)

    monkeypatch.setattr(search, "solve", cut_short)
    answer = best_depths(PROBLEM, top=3)
    assert (answer.status, len(answer.plans)) == (Status.FEASIBLE, 1)
    assert answer.bound == pytest.approx(answer.plans[0].objective() + 0.25, abs=CLOSE)


def test_a_solver_that_contradicts_itself_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def forgetful(*arguments: Any) -> Outcome:
        seen.append(1)
        if len(seen) == 1:
            return solve(*arguments)
        # The second says that there is a tie, the third that there is no choice with its total.
        status = Status.FEASIBLE if len(seen) == 2 else Status.INFEASIBLE
        return Outcome(status, None, ())

    monkeypatch.setattr(search, "solve", forgetful)
    with pytest.raises(SolverError, match="the solver contradicts itself"):
        best_depths(PROBLEM)
