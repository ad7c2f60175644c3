"""The exact program and CP-SAT against every layout, and the figures of the paper."""

import random
from collections.abc import Iterator
from dataclasses import replace

import brute_energy
import pytest

from ifspace.answer import Status
from ifspace.energy import cpsat, exact
from ifspace.energy.cpsat import cpsat_energy
from ifspace.energy.exact import budgets_met
from ifspace.energy.problem import (
    EnergyAnswer,
    EnergyPlan,
    EnergyProblem,
    EnergyRank,
)
from ifspace.energy.solve import Search, best_energy, exact_energy, rank
from ifspace.errors import SettingError

METHODS: tuple[Search, ...] = (exact_energy, cpsat_energy)
slow = pytest.mark.slow
RESIDUAL = EnergyProblem(51248, repeats=(1, 10, 10, 10))

# [Layout] Table 5: the six learned best layouts of each budget.
TABLE_5 = {
    4288: [
        (35, 36, 37, 43),
        (33, 35, 37, 47),
        (35, 37, 38, 39),
        (32, 36, 38, 44),
        (30, 31, 38, 55),
        (28, 29, 32, 77),
    ],
    66304: [
        (135, 136, 137, 211),
        (133, 135, 137, 215),
        (124, 125, 128, 269),
        (137, 141, 142, 187),
        (123, 125, 128, 270),
        (128, 130, 140, 222),
    ],
}


def random_problems(seed: int, count: int, most: int = 3000) -> Iterator[tuple[EnergyProblem, int]]:
    """Draw problems small enough to enumerate, and a number of plans to ask for."""
    draw = random.Random(seed)
    for _ in range(count):
        units = draw.choice([1, 2, 2, 3, 3, 3, 4, 4, 5])
        at_most = draw.random() < 0.3
        budget = draw.choice([draw.randint(1, 60), draw.randint(1, 400), draw.randint(100, most)])
        budget = min(budget, 300 if at_most else 600 if units > 4 else most)
        problem = EnergyProblem(
            budget,
            repeats=tuple(draw.choice([1, 1, 1, 2, 3, 5]) for _ in range(units)),
            inputs=draw.choice([1, 3, 3, 7]),
            at_most=at_most,
            nondecreasing=draw.random() < 0.4,
            per=draw.choice(["unit", "unit", "convolution"]),
        )
        yield problem, draw.choice([1, 1, 3, 6])


def widths(answer: EnergyAnswer) -> list[tuple[int, ...]]:
    return [plan.widths for plan in answer.plans]


def same_plans(problem: EnergyProblem, top: int, answer: EnergyAnswer) -> Status:
    """Check status, bound and plans against every layout."""
    ranking = brute_energy.ranking(problem)
    assert widths(answer) == [layout for _, layout in ranking[:top]], problem
    if not ranking:
        assert (answer.status, answer.bound) == (Status.INFEASIBLE, None)
        return answer.status
    assert answer.status is Status.OPTIMAL
    assert answer.bound == answer.plans[0].energy() == pytest.approx(ranking[0][0], rel=1e-12)
    return answer.status


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=slow) for seed in (1, 2))])
def test_the_exact_program_against_every_layout(seed: int) -> None:
    statuses = [
        same_plans(problem, top, best_energy(problem, top))
        for problem, top in random_problems(seed, 100)
    ]
    assert statuses.count(Status.OPTIMAL) > 50
    assert statuses.count(Status.INFEASIBLE) > 12


@slow
@pytest.mark.parametrize("seed", [10, 11])
def test_cpsat_against_every_layout(seed: int) -> None:
    statuses = [
        same_plans(problem, top, best_energy(problem, top, search=cpsat_energy))
        for problem, top in random_problems(seed, 50, most=800)
    ]
    assert statuses.count(Status.OPTIMAL) > 25
    assert statuses.count(Status.INFEASIBLE) > 5


@pytest.mark.slow
def test_coarse_rounding_in_the_solver_swaps_no_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    # In twentieths many layouts look the same to the solver: exact energies must decide.
    monkeypatch.setattr(cpsat, "SCALE", 20)
    for problem, top in random_problems(12, 12, most=200):
        if problem.least_weights() <= problem.budget:
            same_plans(problem, top, cpsat_energy(problem, top, plain=True))


@slow
def test_cpsat_without_bounds_agrees() -> None:
    for problem, top in random_problems(20, 30, most=600):
        if problem.least_weights() <= problem.budget:
            same_plans(problem, top, cpsat_energy(problem, top, plain=True))
    for problem in (EnergyProblem(4288, layers=4), RESIDUAL):
        assert cpsat_energy(problem, 1, plain=True) == best_energy(problem)


@pytest.mark.slow
@pytest.mark.parametrize("search", METHODS)
def test_all_layouts_when_more_are_asked_for(search: Search) -> None:
    for problem in (
        EnergyProblem(90, layers=3),
        EnergyProblem(60, layers=3, at_most=True),
        EnergyProblem(45, layers=4, nondecreasing=True),
    ):
        answer = best_energy(problem, 1000, search=search)
        everything = [layout for _, layout in brute_energy.ranking(problem)]
        assert widths(answer) == everything
        # Those without energy come last, in the order of their widths.
        assert answer.plans[-1].energy() == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("search", METHODS)
def test_layouts_of_equal_energy_are_in_the_order_of_their_widths(search: Search) -> None:
    # ln 2 · ln 64 = ln 4 · ln 8: floats differ in the last digit, if at all.
    problem = EnergyProblem(138, layers=2, inputs=1, at_most=True, nondecreasing=True)
    layouts = [layout for _, layout in brute_energy.ranking(problem)]
    assert layouts.index((4, 8)) == layouts.index((2, 64)) + 1
    if search is exact_energy:
        assert widths(best_energy(problem, 400, search=search)) == layouts[:400]
    small = replace(problem, budget=34)
    assert widths(best_energy(small, 40, search=search)) == [
        layout for _, layout in brute_energy.ranking(small)[:40]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("budget", TABLE_5)
def test_the_paper_lists_the_true_top_six(budget: int) -> None:
    problem = EnergyProblem(budget, layers=4)
    answer = best_energy(problem, 6)
    assert (answer.status, widths(answer)) == (Status.OPTIMAL, TABLE_5[budget])
    assert [rank(problem, layout).greater for layout in TABLE_5[budget]] == list(range(6))


@pytest.mark.slow
def test_the_top_six_of_the_lower_budget_by_every_layout() -> None:
    problem = EnergyProblem(4288, layers=4)
    assert [layout for _, layout in brute_energy.ranking(problem)[:6]] == TABLE_5[4288]
    assert widths(best_energy(problem, 6, search=cpsat_energy)) == TABLE_5[4288]


@pytest.mark.slow
def test_the_residual_nets_of_table_4_are_all_there_are() -> None:
    everything = [layout for _, layout in brute_energy.ranking(RESIDUAL)]
    assert len(everything) == 12
    assert widths(best_energy(RESIDUAL, 20)) == everything
    assert everything[:2] == [(19, 34, 41, 49), (20, 28, 42, 52)]
    assert everything[-2:] == [(1, 11, 42, 59), (1, 27, 34, 59)]
    # The baseline repeats a width, so it is not among them: it would share the sixth rank.
    assert (16, 16, 32, 64) not in everything
    assert rank(RESIDUAL, (16, 16, 32, 64)) == EnergyRank(5)
    weak = replace(RESIDUAL, nondecreasing=True)
    assert (16, 16, 32, 64) in widths(best_energy(weak, 40))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("layers", "best"),
    [
        (6, (102, 104, 106, 108, 109, 194)),
        (10, (77, 78, 81, 82, 83, 84, 85, 86, 87, 131)),
        pytest.param(
            16,
            (57, 58, 59, 60, 61, 63, 64, 65, 66, 67, 68, 69, 70, 71, 73, 99),
            marks=slow,
        ),
    ],
)
def test_deep_networks_by_both_ways(layers: int, best: tuple[int, ...]) -> None:
    problem = EnergyProblem(66304, layers=layers)
    exact = best_energy(problem)
    assert widths(exact) == [best]
    assert exact == best_energy(problem, search=cpsat_energy)


@slow
def test_a_larger_budget_never_has_less_energy_at_most() -> None:
    problems = [EnergyProblem(budget, layers=5, at_most=True) for budget in range(200, 2000, 97)]
    bounds = [best_energy(problem).bound or 0.0 for problem in problems]
    assert bounds == sorted(bounds)
    for problem, bound in zip(problems, bounds, strict=True):
        exactly = best_energy(replace(problem, at_most=False))
        assert exactly.bound is None or exactly.bound <= bound


@pytest.mark.slow
@pytest.mark.parametrize("seed", [30, 31])
def test_ranks_against_every_layout(seed: int) -> None:
    ranked = 0
    for problem, _ in random_problems(seed, 60):
        ranking = [EnergyPlan(problem, layout) for _, layout in brute_energy.ranking(problem)]
        for plan in random.Random(seed).sample(ranking, min(2, len(ranking))):
            energy = plan.exact_energy()
            greater = sum(other.exact_energy() > energy for other in ranking)
            assert rank(problem, plan.widths) == EnergyRank(greater), (problem, plan.widths)
            ranked += 1
    assert ranked > 40


def test_a_rank_that_takes_too_long_says_what_there_is_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = EnergyProblem(66304, layers=4)
    assert rank(problem, (10, 34, 66, 965), time_limit_s=0) == EnergyRank(0, exact=False)
    monkeypatch.setattr(exact, "MOST_CELLS", 200_000)
    capped = rank(problem, (30, 50, 110, 539))
    assert not capped.exact
    assert capped.greater > 0


@pytest.mark.parametrize(
    ("problem", "below", "above"),
    [
        (EnergyProblem(1000, layers=1), 999, 1002),
        (EnergyProblem(1, layers=1), None, 3),
        (EnergyProblem(4, layers=2), None, 5),
        (EnergyProblem(4, layers=2, at_most=True), None, 5),
        (EnergyProblem(66304, layers=64), None, 87363),
    ],
)
def test_budgets_that_no_layout_meets(
    problem: EnergyProblem, below: int | None, above: int | None
) -> None:
    for search in METHODS:
        answer = best_energy(problem, search=search)
        assert answer == EnergyAnswer(Status.INFEASIBLE, None, (), below=below, above=above)


def test_the_nearest_budgets_are_met_and_none_between() -> None:
    problem = EnergyProblem(1000, repeats=(10, 10))
    answer = best_energy(problem)
    met = [b for b in range(900, 1100) if any(brute_energy.layouts(replace(problem, budget=b)))]
    assert answer.below == max(b for b in met if b < 1000)
    assert answer.above == min(b for b in met if b > 1000)
    assert 1000 not in met


def test_the_budgets_met_against_every_layout() -> None:
    for problem, _ in random_problems(40, 40):
        limit = 120
        met = budgets_met(problem, limit)
        for budget in range(1, limit + 1):
            exactly = replace(problem, budget=budget, at_most=False)
            assert bool(met >> budget & 1) == any(True for _ in brute_energy.layouts(exactly))


@pytest.mark.slow
@pytest.mark.parametrize("search", METHODS)
def test_the_same_plans_every_time(search: Search) -> None:
    problem = EnergyProblem(4288, layers=5)
    assert best_energy(problem, 3, search=search) == best_energy(problem, 3, search=search)


def test_wrong_arguments_are_an_error() -> None:
    problem = EnergyProblem(100, layers=3)
    with pytest.raises(SettingError, match="top out of range: got 0"):
        best_energy(problem, 0)
    with pytest.raises(SettingError, match="wrong number of widths: got 2; allowed: 3"):
        rank(problem, (2, 3))
    with pytest.raises(SettingError, match="width out of range: got 0"):
        rank(problem, (0, 2, 3))
