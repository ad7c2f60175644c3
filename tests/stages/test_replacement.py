"""Replacement: its errors, the check of a plan, and the best plan against brute force."""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import brute_replacement
import pytest

from ifspace.answer import Status
from ifspace.block import Block
from ifspace.cpsat import (
    Outcome,
    solve,
)
from ifspace.errors import BlockError, SettingError, SolverError
from ifspace.stages import replacement as optimizer
from ifspace.stages.problem import Budgets
from ifspace.stages.replacement import (
    ORDERS,
    TOLERANCE,
    Option,
    ReplacementPlan,
    ReplacementProblem,
    Site,
    best_replacement,
)

Q = Fraction
DW = Block.parse("DW+PW").at(8, 16)
WIDE = Block.parse("DW+PW").at(16)
KEPT = Option(None, 1152, 18432, Q(3))
CHEAP = Option(DW, 200, 3200, Q(1, 3))
FIRST = Site("conv1", (KEPT, CHEAP, Option(Block.parse("CONV").at(8, 16), 1200, 18432)))
SECOND = Site("conv2", (Option(None, 2304, 9216, Q(2)), Option(WIDE, 432, 1600, Q(5, 2))))
PROBLEM = ReplacementProblem((FIRST, SECOND), Budgets(params=2600))


def test_amounts_of_an_option() -> None:
    assert (KEPT.replaced, CHEAP.replaced, CHEAP.stride) == (0, 1, 1)
    assert Option(DW, 200, 0, 2).latency_ms == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ((None, -1, 5), "params out of range"),
        ((None, 5, 1.5), "macs out of range"),
        ((None, 5, 10**12 + 1), "macs out of range"),
        ((None, 5, 5, 0.5), "latency out of range: got 0.5"),
        ((None, 5, 5, Q(-1)), "latency out of range"),
        ((None, 5, 5, None, 0), "stride out of range"),
        ((DW, 199, 3200), r"fewer parameters than the block has: got 199; allowed: 200 or more"),
    ],
)
def test_wrong_options_raise(arguments: tuple[Any, ...], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        Option(*arguments)


def test_a_stride_needs_a_layer_that_holds_it() -> None:
    with pytest.raises(BlockError, match="no layer can hold the stride"):
        Option(Block.parse("PW").at(8, 16), 128, 3200, stride=2)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ((), "options that cannot stand for x: got none"),
        ((KEPT, CHEAP, Option(WIDE, 432, 1)), "8 to 16 channels, 16 to 16 channels"),
        ((CHEAP, Option(DW, 200, 1, stride=2)), "got blocks from 8 to 16 channels, stride 1, 2"),
    ],
)
def test_wrong_sites_raise(options: tuple[Option, ...], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        Site("x", options)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"sites": ()}, "layers that cannot be chosen for: got none"),
        ({"sites": (FIRST, SECOND, FIRST)}, "got conv1 twice"),
        (
            {"objective": "layers"},
            "unknown objective: got 'layers'; allowed: keep, weights, params, macs",
        ),
        ({"budgets": Budgets(layers=3)}, "a budget of layers where they are not counted"),
        ({"budgets": Budgets(macs=10**12 + 1)}, "macs out of range"),
        (
            {"sites": (Site("y", (Option(None, 1, 1),)),), "objective": "latency_ms"},
            "no latency for any option of a layer: got y",
        ),
    ],
)
def test_wrong_problems_raise(changed: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        replace(PROBLEM, **changed)


def test_budgets_may_be_below_zero() -> None:
    for most in (0, -(10**9)):
        assert replace(PROBLEM, budgets=Budgets(params=most)).budgets.params == most


def test_latency_counts_where_it_is_asked_for() -> None:
    assert not PROBLEM.latency_counts
    assert PROBLEM.choices == ((0, 1, 2), (0, 1))
    assert PROBLEM.left_out == ()
    assert PROBLEM.totals((1, 0)) == {"replaced": 1, "params": 2504, "macs": 12416}
    for problem in (
        replace(PROBLEM, objective="latency_ms"),
        replace(PROBLEM, budgets=Budgets(latency_ms=Q(4))),
    ):
        assert problem.latency_counts
        assert problem.choices == ((0, 1), (0, 1))
        assert problem.left_out == ("no latency for CONV at conv1",)
        assert problem.totals((1, 1)) == {
            "replaced": 2,
            "params": 632,
            "macs": 4800,
            "latency_ms": Q(17, 6),
        }
        assert problem.least("latency_ms") == Q(7, 3)
    unmeasured = Site("z", (Option(None, 1, 1), CHEAP))
    problem = ReplacementProblem((unmeasured,), objective="latency_ms")
    assert problem.left_out == ("no latency for the layer at z",)


def test_the_least_of_each_amount_by_itself() -> None:
    assert (PROBLEM.least("params"), PROBLEM.least("macs"), PROBLEM.least("replaced")) == (
        632,
        4800,
        0,
    )


def test_a_plan_names_replaced_and_kept_layers() -> None:
    plan = ReplacementPlan(PROBLEM, (1, 0))
    plan.check()
    assert plan.options == (CHEAP, SECOND.options[0])
    assert plan.blocks == {"conv1": DW}
    assert plan.objective() == (1, 12416, 2504)


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        ("keep", (2, 4800, 632)),
        ("params", (632, 4800, 2)),
        ("macs", (4800, 632, 2)),
        ("latency_ms", (Q(17, 6), 632, 4800, 2)),
    ],
)
def test_each_objective_compares_its_amounts_in_order(
    objective: Any, expected: tuple[Any, ...]
) -> None:
    assert ReplacementPlan(replace(PROBLEM, objective=objective), (1, 1)).objective() == expected
    assert objective in ORDERS


@pytest.mark.parametrize(
    ("chosen", "fault"),
    [
        ((0,), "1 options for 2 layers"),
        ((0, 0, 0), "3 options for 2 layers"),
        ((3, 0), "option 3 of conv1"),
        ((0, -1), "option -1 of conv2"),
        ((0, 0), "3456 params, more than 2600"),
    ],
)
def test_wrong_plans_raise(chosen: tuple[int, ...], fault: str) -> None:
    with pytest.raises(SettingError, match=f"a plan that does not hold: got {fault}"):
        ReplacementPlan(PROBLEM, chosen).check()


def test_an_option_without_its_latency_raises() -> None:
    problem = replace(PROBLEM, budgets=Budgets(latency_ms=Q(100)))
    with pytest.raises(SettingError, match="option 2 of conv1"):
        ReplacementPlan(problem, (2, 0)).check()


@pytest.mark.parametrize(
    ("name", "has"), [("params", 2504), ("macs", 12416), ("latency_ms", Q(7, 3))]
)
def test_a_plan_may_use_its_budget_and_no_more(name: str, has: Any) -> None:
    less = Q(1, 10**9) if name == "latency_ms" else 1
    for most, keeps in ((has, True), (has - less, False)):
        plan = ReplacementPlan(replace(PROBLEM, budgets=Budgets(**{name: most})), (1, 0))
        if keeps:
            plan.check()
        else:
            with pytest.raises(SettingError, match=f"got {has} {name}, more than"):
                plan.check()


BOUNDED = ("params", "macs", "latency_ms")
BLOCKS = [Block.parse(text) for text in ("DW+PW", "PW+DW", "DW+RPW(2,0)+GPW(2)", "GC(2)+PW")]
SMALLEST = Block.parse("DW+PW").at(1)


def site(draw: random.Random, name: str, options: int) -> Site:
    """Draw a layer whose options may cost more, cost the same, or lack a latency."""
    c_in, c_out, stride = draw.choice([4, 8]), draw.choice([4, 8]), draw.choice([1, 1, 2])
    time_ms, peak = Q(draw.randint(1, 99), 7), draw.randint(1, 9)
    many = [Option(None, 9 * c_in * c_out, draw.randint(1, 10**6), time_ms, peak=peak)]
    for _ in range(options - 1):
        block = draw.choice(BLOCKS).at(c_in, c_out)
        measured = None if draw.random() < 0.1 else Q(draw.randint(1, 99), draw.choice([3, 7, 64]))
        params = block.params + draw.choice([0, 2 * c_out, draw.randint(0, 200)])
        macs = draw.choice([params * draw.choice([16, 64]), draw.randint(1, 10**6)])
        many.append(Option(block, params, macs, measured, stride, draw.randint(1, 9)))
    if draw.random() < 0.3:
        many.append(draw.choice(many))
    if draw.random() < 0.2:
        many.pop(0)
    draw.shuffle(many)
    return Site(name, tuple(many))


def drawn(
    seed: int, count: int
) -> Iterator[tuple[ReplacementProblem, list[brute_replacement.Row]]]:
    """Draw problems with all their choices, few enough to enumerate."""
    draw = random.Random(seed)
    while count:
        kinds = [site(draw, f"kind {n}", draw.randint(2, 4)) for n in range(draw.randint(1, 4))]
        sites = [replace(draw.choice(kinds), name=f"layer {n}") for n in range(draw.randint(1, 6))]
        names = draw.sample([*BOUNDED, "peak_memory"], draw.randint(0, 3))
        try:
            problem = ReplacementProblem(
                tuple(sites),
                Budgets(latency_ms=Q(1) if "latency_ms" in names else None),
                draw.choice(list(ORDERS)),
                draw.randint(0, 4),
            )
        except SettingError:
            continue
        rows = list(brute_replacement.choices(problem))
        one = draw.choice(rows)
        bounds: dict[str, Any] = {}
        for name in names:
            least = min(getattr(row, name) for row in rows)
            has = getattr(one, name)
            bounds[name] = draw.choice([has, has, has, has + 1, (has + least) // 2, least - 1])
        count -= 1
        dtype = "fp32" if "peak_memory" in names else None
        yield replace(problem, budgets=Budgets(**bounds, dtype=dtype)), rows


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_best_replacement_by_brute_force(seed: int) -> None:
    ended = []
    for problem, rows in drawn(seed, 100):
        expected = brute_replacement.best(problem, rows)
        answer = best_replacement(problem)
        ended.append((problem.objective, answer.status))
        assert answer.left_out == problem.left_out
        if expected is None:
            assert (answer.status, answer.bound, answer.best) == (Status.INFEASIBLE, None, None)
            assert answer.least == {
                name: min(getattr(row, name) for row in rows) for name in problem.budgets.limits
            }
            continue
        assert answer.best is not None
        answer.best.check()
        assert (answer.status, answer.least) == (Status.OPTIMAL, {})
        assert answer.best.objective() == answer.bound == expected
        totals = answer.best.totals
        assert any(all(getattr(row, n) == total for n, total in totals.items()) for row in rows)
    for objective in ORDERS:
        assert ended.count((objective, Status.OPTIMAL)) > 4
        assert ended.count((objective, Status.INFEASIBLE)) > 0


def small(draw: random.Random, sites: int, options: int, most: int) -> tuple[Site, ...]:
    """Draw many layers of small amounts, so that many sums are equal."""
    return tuple(
        Site(
            f"{number}",
            (
                Option(None, 10 + most, 2 * most, Q(most)),
                *(
                    Option(
                        SMALLEST,
                        10 + draw.randint(0, most),
                        draw.randint(0, 2 * most),
                        Q(draw.randint(0, most), 2),
                    )
                    for _ in range(options - 1)
                ),
            ),
        )
        for number in range(sites)
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "names", "most"),
    [
        ("keep", ["params"], 8),
        ("macs", ["params"], 8),
        ("params", ["macs"], 4),
        ("latency_ms", ["macs"], 4),
        ("params", ["latency_ms"], 4),
        ("keep", [], 30),
        ("keep", ["params", "macs"], 2),
        ("macs", ["params", "latency_ms"], 2),
    ],
)
def test_large_problems_against_all_sums(objective: Any, names: list[str], most: int) -> None:
    draw = random.Random(f"{objective} {names}")
    sites = small(draw, *((100, 12) if len(names) < 2 else (30, 5)), most)
    free = ReplacementProblem(sites, objective="latency_ms")
    bounds: dict[str, Any] = {}
    for name in names:
        kept, least = free.totals((0,) * len(sites))[name], free.least(name)
        bounds[name] = least + (kept - least) // draw.choice([3, 5])
    problem = ReplacementProblem(sites, Budgets(**bounds), objective)
    answer = best_replacement(problem)
    assert answer.status is Status.OPTIMAL
    assert answer.best is not None
    assert answer.best.objective() == answer.bound == brute_replacement.best_by_sums(problem)


def large(seed: int) -> tuple[Site, ...]:
    """Two hundred layers of twenty options, no two alike."""
    draw = random.Random(seed)
    return tuple(
        Site(
            f"{number}",
            (
                Option(None, 10**6, 10**9, Q(9)),
                *(
                    Option(
                        SMALLEST,
                        draw.randint(10**3, 10**6),
                        draw.randint(10**6, 10**9),
                        Q(draw.randint(1000, 12000), 1000),
                    )
                    for _ in range(19)
                ),
            ),
        )
        for number in range(200)
    )


@pytest.mark.slow
@pytest.mark.parametrize("objective", ORDERS)
def test_two_hundred_layers_take_seconds(objective: Any) -> None:
    sites = large(3)
    free = ReplacementProblem(sites, objective="latency_ms")
    kept = free.totals((0,) * 200)
    bounds: dict[str, Any] = {
        name: free.least(name) + (kept[name] - free.least(name)) * 2 // 3
        for name in BOUNDED
        if name != objective
    }
    problem = ReplacementProblem(sites, Budgets(**bounds), objective)
    begun = time.process_time()
    answer = best_replacement(problem)
    # Two seconds where nothing else runs; weights, a sum of subsets without a proof, take five.
    assert time.process_time() - begun < 20
    assert answer.best is not None
    replaced, *others = answer.best.objective()
    if objective == "weights":
        assert answer.status is Status.FEASIBLE
        assert answer.bound is not None
        assert answer.bound[0] == replaced
        assert 0 < others[0] - answer.bound[1] <= TOLERANCE * -others[0]
        assert -others[0] <= problem.budgets.params  # type: ignore[operator]
        return
    assert answer.status is Status.OPTIMAL
    assert answer.best.objective() == answer.bound
    if objective == "macs":
        assert answer == best_replacement(problem)


ALIKE = tuple(Site(f"conv{n}", (KEPT, CHEAP)) for n in range(6))


def test_of_equal_layers_the_first_take_the_first_options() -> None:
    problem = ReplacementProblem(ALIKE, Budgets(params=4 * 1152 + 2 * 200))
    plan = best_replacement(problem).best
    assert plan is not None
    assert plan.chosen == (0, 0, 0, 0, 1, 1)
    turned = tuple(Site(site.name, (CHEAP, KEPT)) for site in ALIKE)
    plan = best_replacement(replace(problem, sites=turned)).best
    assert plan is not None
    assert plan.chosen == (0, 0, 1, 1, 1, 1)


def test_of_equal_options_the_first_is_taken() -> None:
    site = Site("conv", (KEPT, CHEAP, CHEAP, replace(CHEAP, macs=3201)))
    plan = best_replacement(ReplacementProblem((site,), objective="params")).best
    assert plan is not None
    assert plan.chosen == (1,)


def test_without_a_need_nothing_is_replaced() -> None:
    answer = best_replacement(ReplacementProblem(ALIKE, Budgets(params=6 * 1152)))
    assert answer.best is not None
    assert (answer.bound, answer.best.blocks) == ((0, 6 * 18432, 6 * 1152), {})


def test_a_budget_below_zero_is_answered_with_the_least() -> None:
    answer = best_replacement(ReplacementProblem(ALIKE, Budgets(params=-5, latency_ms=Q(1))))
    assert (answer.status, answer.best) == (Status.INFEASIBLE, None)
    assert answer.least == {"params": 1200, "latency_ms": 2}


def test_fractions_of_a_millisecond_are_exact() -> None:
    thirds = tuple(Site(f"{n}", (replace(KEPT, latency_ms=Q(1, 3)), CHEAP)) for n in range(3))
    for most, replaced in ((Q(1), 0), (Q(1) - Q(1, 10**12), None)):
        answer = best_replacement(ReplacementProblem(thirds, Budgets(latency_ms=most)))
        assert (None if answer.bound is None else answer.bound[0]) == replaced


def test_without_time_there_is_no_plan() -> None:
    answer = best_replacement(ReplacementProblem(ALIKE, Budgets(params=5000)), time_limit_s=0)
    assert (answer.status, answer.bound, answer.best) == (Status.UNKNOWN, None, None)


@pytest.mark.parametrize("proven", [0, 1, 2])
def test_an_unproven_plan_has_a_bound_below_it(
    proven: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def cut_short(*arguments: Any) -> Outcome:
        seen.append(1)
        outcome = solve(*arguments)
        if len(seen) <= proven:
            return outcome
        assert outcome.bound is not None
        return replace(outcome, status=Status.FEASIBLE, bound=outcome.bound - 10**6)

    monkeypatch.setattr(optimizer, "solve", cut_short)
    answer = best_replacement(ReplacementProblem(ALIKE, Budgets(params=5000)))
    assert answer.status is Status.FEASIBLE
    assert answer.best is not None
    assert answer.bound is not None
    # Twice where it is not proven: with some work, and until it is near.
    assert len(answer.bound) == len(seen) - 1 == proven + 1
    assert answer.bound < answer.best.objective()
    assert answer.bound[:-1] == answer.best.objective()[:proven]


def test_time_that_ends_between_two_amounts_leaves_the_first_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unknown = Outcome(Status.UNKNOWN, None, ())
    ended = iter([solve, *[lambda *arguments: unknown] * 2])
    monkeypatch.setattr(optimizer, "solve", lambda *arguments: next(ended)(*arguments))
    answer = best_replacement(ReplacementProblem(ALIKE, Budgets(params=5000)))
    assert (answer.status, answer.bound) == (Status.FEASIBLE, (3,))
    assert answer.best is not None
    assert answer.best.objective()[0] == 3


@pytest.mark.parametrize("lie", ["none", "bound"])
def test_a_solver_that_contradicts_itself_raises(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def false(*arguments: Any) -> Outcome:
        seen.append(1)
        outcome = solve(*arguments)
        assert outcome.bound is not None
        if lie == "bound":
            return replace(outcome, bound=outcome.bound + 1)
        return outcome if len(seen) == 1 else Outcome(Status.INFEASIBLE, None, ())

    monkeypatch.setattr(optimizer, "solve", false)
    with pytest.raises(SolverError, match="the solver contradicts itself"):
        best_replacement(ReplacementProblem(ALIKE, Budgets(params=5000)))
