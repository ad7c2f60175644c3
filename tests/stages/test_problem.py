"""Problems of stages and of depths: their errors, and what the check of a plan finds."""

from dataclasses import replace
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest

from ifspace.block import Block, Composition
from ifspace.errors import BlockError, SettingError
from ifspace.latency import LatencyTable
from ifspace.stages.layout import (
    Layout,
    StemAndHead,
    StemLayer,
)
from ifspace.stages.networks import (
    make_layout,
    mobilenet,
    network,
)
from ifspace.stages.problem import (
    BlockChoice,
    Blocks,
    Budgets,
    DepthPlan,
    DepthsProblem,
    StagePlan,
    StagesProblem,
    StageTable,
)

Q = Fraction
BLOCK = Block.parse("DW+PW")
CONV = BlockChoice.of(Block.parse("CONV"))
FRAME = StemAndHead(inputs=4)
START = make_layout("DW+PW", (8, 8), (8, 16), (2, 3), (1, 2), FRAME)
# First stage: 36 + 32, then 72 + 64. Second: 72 + 128, then twice 144 + 256.
PARAMS = 68 + 136 + 200 + 2 * 400
MACS = 64 * 204 + 16 * (200 + 2 * 400)
TABLE = LatencyTable(
    {
        ("DW+PW", 4, 8, 8, 1): Q(1),
        ("DW+PW", 8, 8, 8, 1): Q(2),
        ("DW+PW", 8, 16, 4, 2): Q(4),
        ("DW+PW", 16, 16, 4, 1): Q(8),
    }
)


def problem(**more: Any) -> StagesProblem:
    return StagesProblem(START, **{"budgets": Budgets(params=PARAMS)} | more)


def timed(most: Any) -> StagesProblem:
    return problem(budgets=Budgets(latency_ms=Q(most)), latency=TABLE)


def test_blocks_are_parsed_once_and_kept_once() -> None:
    blocks = Blocks("dw+pw", Block.parse("CONV(3)"), "DW+PW", CONV)
    assert repr(blocks) == "Blocks('DW+PW', 'CONV')"
    assert blocks == eval(repr(blocks))
    assert blocks.fixed == (BLOCK, Block.parse("CONV"))
    assert hash(blocks) == hash(Blocks("DW+PW", "CONV"))
    assert Blocks("Cheapest").fixed is None
    assert Blocks("cheapest").choices is None


@pytest.mark.parametrize(
    ("blocks", "fault"),
    [
        ((), "wrong block: got None"),
        ((3,), "wrong block: got int; allowed: a block such as"),
        (("cheapest", "PW"), "unknown kind"),
        (("DW+GPW",), "GPW needs groups"),
    ],
)
def test_wrong_blocks_raise(blocks: tuple[Any, ...], fault: str) -> None:
    with pytest.raises((SettingError, BlockError), match=fault):
        Blocks(*blocks)


def test_open_blocks_are_not_fixed() -> None:
    for choice in (BlockChoice.parse("DW+GPW"), BlockChoice.of(BLOCK, Q(1, 2))):
        with pytest.raises(SettingError, match=r"blocks that are not fixed: got DW\+"):
            _ = Blocks(choice).fixed


def test_budgets_are_numbers_or_text() -> None:
    assert Budgets("5.1M", "16k", 30, 2) == Budgets(5_100_000, 16_000, 30, Q(2))
    for name in ("params", "macs", "layers"):
        for value in ("much", 1.5, True):
            with pytest.raises(SettingError, match=f"^{name} "):
                Budgets(**{name: value})  # type: ignore[arg-type]
    for time in (1.5, "2.5", True):
        with pytest.raises(SettingError, match="latency budget is not exact"):
            Budgets(latency_ms=time)  # type: ignore[arg-type]


def test_budgets_say_what_exceeds_them() -> None:
    budgets = Budgets(params=10, layers=2)
    assert budgets.exceeded({"params": 11, "macs": 99, "layers": 2}) == ["11 params, more than 10"]


def test_a_choice_is_written_in_the_notation() -> None:
    ratio = BlockChoice.of(Block.parse("pw+dw+pw"), Q(1, 4))
    assert (str(ratio), str(CONV)) == ("PW+DW+PW with bottleneck 1/4", "CONV")
    open_unit = BlockChoice(Composition.parse("dw+gpw"))
    assert (str(open_unit), open_unit.is_open, CONV.is_open) == ("DW+GPW", True, False)


def test_budgets_without_amounts_bound_nothing() -> None:
    assert Budgets().limits == {}
    assert Budgets(layers=3, latency_ms=Q(1, 2)).limits == {"layers": 3, "latency_ms": Q(1, 2)}


def test_the_choices_are_those_of_the_layout_unless_others_are_listed() -> None:
    stages_problem = problem()
    assert stages_problem.width_choices == ((8,), (16,))
    assert [[str(unit) for unit in units] for units in stages_problem.block_choices] == [
        ["DW+PW"]
    ] * 2
    stages_problem = problem(widths=((8, 4), (12,)), blocks=(Blocks(CONV), Blocks(CONV, "DW+PW")))
    assert stages_problem.width_choices == ((8, 4), (12,))
    assert stages_problem.block_choices == ((CONV,), (CONV, BlockChoice.of(BLOCK)))
    assert network("resnet50", 32).stages[0].repeated.bottleneck == Q(1, 4)
    resnet = StagesProblem(network("resnet50", 32), Budgets(params=1))
    assert str(resnet.block_choices[3][0]) == "PW+CONV+PW with bottleneck 1/4"


def test_amounts_of_a_layout() -> None:
    assert problem().amounts(START) == {"params": PARAMS, "macs": MACS, "layers": 10}
    assert timed(1).amounts(START)["latency_ms"] == 1 + 2 + 4 + 8 + 8
    # A stage of one unit pays for its opening alone.
    assert timed(1).amounts(START.at_depths((1, 1)))["latency_ms"] == 5


@pytest.mark.parametrize(
    ("name", "has"), [("params", PARAMS), ("macs", MACS), ("layers", 10), ("latency_ms", 23)]
)
def test_a_layout_fits_up_to_its_own_amount(name: str, has: int) -> None:
    for most, fits in ((has + 1, True), (has, True), (has - 1, False)):
        stages_problem = (
            timed(most) if name == "latency_ms" else problem(budgets=Budgets(**{name: most}))
        )
        assert stages_problem.fits(START) is fits
        plan = StagePlan(stages_problem, START)
        if fits:
            plan.check()
        else:
            with pytest.raises(SettingError, match=f"got {has} {name}, more than {most}"):
                plan.check()


def test_the_objective_is_the_gain_at_the_alpha_of_the_problem() -> None:
    for alpha in (0, 3, 10):
        plan = StagePlan(problem(alpha=alpha), START)
        assert plan.objective() == START.gain(alpha)
    assert StagePlan(problem(), START).objective() != START.gain(1)


def with_stage(place: int, **changed: Any) -> Layout:
    changed_stages = list(START.stages)
    changed_stages[place] = replace(changed_stages[place], **changed)
    return replace(START, stages=tuple(changed_stages))


STEM = (StemLayer(Block.parse("CONV").at(3, 4).layers[0], 8),)
TAMPERED: list[tuple[Layout, str]] = [
    (with_stage(0, depth=5), "stage 1 is 5 deep"),
    (with_stage(1, first=BLOCK.at(8, 12), repeated=BLOCK.at(12)), "stage 2 has 12 channels"),
    (with_stage(1, first=BLOCK.at(16)), "stage 2 does not join the one before"),
    (with_stage(0, repeated=BLOCK.at(16)), "stage 1 does not join the one before"),
    (with_stage(0, repeated=BLOCK.at(8, 16)), "stage 1 does not join the one before"),
    (with_stage(1, repeated=Block.parse("CONV").at(16)), "stage 2 repeats CONV"),
    (with_stage(0, first=Block.parse("PW").at(4, 8)), "stage 1 repeats DW"),
    (with_stage(1, repeated=Block.parse("DW(5)+PW").at(16)), r"stage 2 repeats DW\(5\)\+PW"),
    (with_stage(0, side=4), "sides, strides, stem or head are not those"),
    (with_stage(1, stride=1), "sides, strides, stem or head are not those"),
    (with_stage(0, stem=tuple(layer.layer for layer in STEM)), "sides, strides, stem or head"),
    (replace(START, stem_and_head=replace(FRAME, batch_norm=True)), "sides, strides, stem or head"),
    (
        replace(START, stem_and_head=StemAndHead(inputs=4, stem=STEM)),
        "sides, strides, stem or head",
    ),
    (replace(START, stages=START.stages[:1]), "sides, strides, stem or head"),
    (replace(START, stages=(*START.stages, START.stages[1])), "sides, strides, stem or head"),
]


@pytest.mark.parametrize(("layout", "fault"), TAMPERED)
def test_a_changed_plan_raises(layout: Layout, fault: str) -> None:
    stages_problem = problem(budgets=Budgets(params=10**9), max_depth=4)
    StagePlan(stages_problem, START).check()
    with pytest.raises(SettingError, match=f"a plan that does not hold: got .*{fault}"):
        StagePlan(stages_problem, layout).check()


def test_a_plan_that_is_not_monotone_raises() -> None:
    narrows = make_layout("DW+PW", (8, 8), (16, 8), (2, 3), (1, 2), FRAME)
    stages_problem = StagesProblem(narrows, Budgets(params=10**9))
    StagePlan(stages_problem, narrows).check()
    with pytest.raises(SettingError, match="a stage is narrower than the one before"):
        StagePlan(replace(stages_problem, monotone=True), narrows).check()
    StagePlan(problem(monotone=True), START).check()


def test_a_plan_with_another_bottleneck_raises() -> None:
    begun = make_layout("PW+DW+PW", (8,), (8,), (2,), stem_and_head=FRAME, bottleneck=Q(1, 2))
    stages_problem = StagesProblem(begun, Budgets(params=10**9))
    StagePlan(stages_problem, begun).check()
    other = make_layout("PW+DW+PW", (8,), (8,), (2,), stem_and_head=FRAME, bottleneck=Q(1, 4))
    with pytest.raises(SettingError, match=r"stage 1 repeats PW\+DW\+PW"):
        StagePlan(stages_problem, other).check()


def test_an_open_block_may_have_any_groups_and_its_own_kernel() -> None:
    def layout(text: str) -> Layout:
        return make_layout(text, (8,), (8,), (2,), stem_and_head=StemAndHead(inputs=8))

    stages_problem = StagesProblem(
        layout("DW+PW"),
        Budgets(params=10**9),
        blocks=(Blocks(BlockChoice(Composition.parse("DW+GPW"), kernel=5)),),
    )
    for text in ("DW(5)+GPW(2)", "DW(5)+GPW(4)"):
        StagePlan(stages_problem, layout(text)).check()
    for text in ("DW+GPW(2)", "DW(5)+PW", "GPW(2)+DW(5)", "(DW(5)+GPW(2))x2"):
        with pytest.raises(SettingError, match="stage 1 repeats"):
            StagePlan(stages_problem, layout(text)).check()


def test_every_fault_of_a_plan_is_named() -> None:
    layout = with_stage(0, depth=9, side=4)
    with pytest.raises(SettingError, match=r"more than .*; sides.*; stage 1 is 9 deep; allowed"):
        StagePlan(problem(max_depth=4), layout).check()


def test_a_case_that_was_not_measured_raises() -> None:
    with pytest.raises(SettingError, match=r"in play: got DW\+PW from 4 to"):
        timed(9).fits(with_stage(0, side_out=16))


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ({"max_depth": 0}, "max_depth out of range: got 0"),
        ({"max_depth": 1001}, "max_depth out of range: got 1001"),
        ({"widths": ((8,),)}, "a stage without a choice: got width_choices for 1 of 2 stages"),
        ({"widths": ((8,), ())}, "a stage without a choice: got width_choices for 1 of 2"),
        ({"widths": ((8,), (0,))}, "width_choices out of range: got 0"),
        ({"widths": ((8,), (4097,))}, "width_choices out of range: got 4097"),
        ({"blocks": ()}, "a stage without a choice: got blocks for 0 of 2 stages"),
        (
            {"blocks": (Blocks("cheapest"), Blocks(CONV))},
            "a stage without a choice: got blocks for 1 of 2 stages",
        ),
        ({"budgets": Budgets(params=0)}, "params out of range: got 0; allowed: more than"),
        ({"budgets": Budgets(macs=-1)}, "macs out of range: got -1"),
        ({"budgets": Budgets(layers=0)}, "layers out of range: got 0"),
        ({"budgets": Budgets(latency_ms=Q(0)), "latency": TABLE}, "latency_ms out of range: got 0"),
        (
            {"budgets": Budgets(latency_ms=Q(1))},
            "nothing says how long the blocks take: got a latency budget without",
        ),
        ({"alpha": float("nan")}, "alpha out of range: got nan; allowed: numbers from 0"),
        ({"alpha": float("inf")}, "alpha out of range: got inf"),
        ({"alpha": -1}, "alpha out of range: got -1"),
    ],
)
def test_impossible_problems_raise(more: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        problem(**more)


def test_the_greatest_depth_leaves_room_for_the_stem_that_counts() -> None:
    begun = mobilenet(32, stem_counts=True)
    assert StagesProblem(begun, Budgets(params=1), max_depth=2).max_depth == 2
    with pytest.raises(SettingError, match=r"max_depth .* got 1; .* from 2 to 1000"):
        StagesProblem(begun, Budgets(params=1), max_depth=1)


def test_half_a_millisecond_is_a_budget() -> None:
    assert timed(Q(1, 2)).budgets.limits == {"latency_ms": Q(1, 2)}


A = StageTable("a", 1, (0.0, 1.0, 1.5), (10, 30, 60), (7, 8, 9), 3)
B = StageTable("b", 2, (0.25, 0.75), (100, 200), (40, 50), 3)
PROBLEM = DepthsProblem((A, B), Budgets(params=300, macs=100), rest_params=5, rest_macs=3)


def test_a_table_knows_its_depths() -> None:
    assert (list(A.depths), list(B.depths)) == ([1, 2, 3], [2, 3])
    assert [B.at(depth) for depth in B.depths] == [(0.25, 100, 40), (0.75, 200, 50)]
    assert StageTable("c", 0, [0.0], [0], [0], 0).gains == (0.0,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"min_depth": -1}, "min_depth out of range"),
        ({"max_depth": 0}, "max_depth out of range"),
        (
            {"max_depth": 4},
            "length than its depths in a: got 3 gains for depths 1 to 4; allowed: 4",
        ),
        ({"gains": (0.0,)}, "got 1 gains for depths 1 to 3"),
        ({"params": (1, 2)}, "got 2 params for depths 1 to 3"),
        ({"macs": (1, 2, 3, 4)}, "got 4 macs for depths 1 to 3"),
        ({"gains": (0.0, nan, 1.0)}, "gain out of range in a: got nan"),
        ({"gains": (0.0, inf, 1.0)}, "gain out of range in a: got inf"),
        ({"gains": (0.0, -2e6, 1.0)}, "gain out of range in a"),
        ({"params": (1, 2.5, 3)}, "params out of range"),
        ({"macs": (1, -2, 3)}, "macs out of range"),
    ],
)
def test_wrong_tables_raise(changed: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        replace(A, **changed)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"tables": ()}, "no stage to choose a depth for"),
        ({"budgets": Budgets(params=0)}, "params out of range: got 0; allowed: more than 0"),
        ({"budgets": Budgets(macs=10**12 + 1)}, "macs out of range"),
        ({"budgets": Budgets(layers=3)}, "a budget of layers where they are not counted"),
        ({"budgets": Budgets(latency_ms=Fraction(1))}, "allowed: budgets of params and macs"),
        ({"rest_params": -1}, "rest_params out of range"),
        ({"rest_macs": 0.5}, "rest_macs out of range"),
    ],
)
def test_wrong_problems_raise(changed: dict[str, Any], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        replace(PROBLEM, **changed)


def test_a_plan_sums_its_tables() -> None:
    plan = DepthPlan(PROBLEM, (3, 2))
    plan.check()
    assert (plan.objective(), plan.params, plan.macs) == (1.75, 165, 52)
    assert DepthPlan(replace(PROBLEM, rest_params=0, rest_macs=0), (1, 3)).params == 210


@pytest.mark.parametrize(
    ("depths", "fault"),
    [
        ((3,), "1 depths for 2 stages"),
        ((3, 2, 2), "3 depths for 2 stages"),
        ((0, 2), "a is 0 deep"),
        ((1, 4), "b is 4 deep"),
    ],
)
def test_a_plan_that_does_not_fit_its_tables_raises(depths: tuple[int, ...], fault: str) -> None:
    with pytest.raises(SettingError, match=fault):
        DepthPlan(PROBLEM, depths).check()


@pytest.mark.parametrize(("name", "has"), [("params", 215), ("macs", 60)])
def test_a_plan_may_use_its_budget_and_no_more(name: str, has: int) -> None:
    for most, fits in ((has + 1, True), (has, True), (has - 1, False)):
        plan = DepthPlan(replace(PROBLEM, budgets=Budgets(**{name: most})), (1, 3))
        if fits:
            plan.check()
        else:
            with pytest.raises(SettingError, match=f"got {has} {name}, more than {most}"):
                plan.check()
