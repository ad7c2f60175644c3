"""The blocks in play: given ones as they are, open ones with their cheapest groups."""

from dataclasses import replace
from fractions import Fraction
from itertools import product
from typing import Any

import brute_groups
import brute_stages
import pytest

from ifspace.answer import Status
from ifspace.block import Block, Composition
from ifspace.errors import SettingError
from ifspace.groups.problem import GroupsProblem
from ifspace.groups.solve import cheapest_groups
from ifspace.stages import allocate as units
from ifspace.stages.allocate import SizedChoices, best_stages
from ifspace.stages.latency import LatencyTable
from ifspace.stages.layout import StemAndHead
from ifspace.stages.networks import stages
from ifspace.stages.problem import (
    BlockChoice,
    Blocks,
    Budgets,
    StagesProblem,
)

Q = Fraction
OPEN = BlockChoice(Composition.parse("DW+GPW+SH+GPW"))
NARROW = BlockChoice(Composition.parse("GPW+SH+DW+GPW"), bottleneck=Q(1, 2), kernel=5)
CONV = BlockChoice.of(Block.parse("CONV"))


def problem(
    *units: BlockChoice, widths: tuple[tuple[int, ...], ...] = ((8,), (16,)), **more: Any
) -> StagesProblem:
    start = stages(
        "CONV",
        (8, 4),
        [each[0] for each in widths],
        (2, 2),
        (1, 2),
        stem_and_head=StemAndHead(inputs=8),
    )
    budgets = {"budgets": Budgets(params=10**6)}
    return StagesProblem(
        start, **budgets | {"widths": widths, "blocks": (Blocks(*units),) * 2} | more
    )


def cheapest(unit: BlockChoice, entry: int, width: int) -> Block | None:
    """The block that the optimizer of groups says, checked against every legal choice."""
    if unit.bottleneck is not None and width % 2:
        return None
    asked = GroupsProblem(
        unit.composition, entry, width, bottleneck=unit.bottleneck, kernel=unit.kernel
    )
    plans = cheapest_groups(asked).plans
    least = brute_groups.least(asked)
    assert [plan.objective() for plan in plans] == ([] if least is None else [least])
    return plans[0].block if plans else None


@pytest.mark.parametrize("unit", [OPEN, NARROW], ids=str)
def test_open_units_get_their_cheapest_groups(unit: BlockChoice) -> None:
    widths = ((8, 12, 13), (16, 24))
    sized = SizedChoices(problem(unit, CONV, widths=widths))
    known = 0
    for entry, width in product((8, 12, 13, 16, 24), repeat=2):
        place = 0 if width < 16 else 1
        if entry not in (*sized.entries[place], width):
            continue
        found = sized.at(unit, entry, width, place, opens=False)
        block = cheapest(unit, entry, width)
        assert found == (None if block is None else block.at(entry, width, unit.bottleneck))
        known += found is not None
    assert known > 5
    assert any("13 channels is not legal" in why for why in sized.left_out)


@pytest.mark.parametrize("seed", range(3))
def test_the_best_layout_with_open_units_by_brute_force(seed: int) -> None:
    budgets = Budgets(params=[3000, 6000, 12000][seed], macs=[10**5, 3 * 10**5, None][seed])
    widths = ((8, 12), (16, 8))
    asked = problem(OPEN, NARROW, CONV, widths=widths, budgets=budgets, max_depth=5)
    ranked = brute_stages.ranking(asked, list(brute_stages.layouts(asked, cheapest)))
    answer = best_stages(asked, 3)
    assert answer.status is Status.OPTIMAL
    found = [(plan.objective(), plan.layout.params) for plan in answer.plans]
    assert [gain for gain, _ in found] == pytest.approx([gain for gain, _ in ranked[:3]])
    assert [params for _, params in found] == [row.params for _, row in ranked[:3]]


def test_two_processes_find_the_same() -> None:
    asked = problem(OPEN, NARROW, CONV, widths=((8, 12, 16), (16, 24, 32)))
    assert best_stages(asked, 2, jobs=2) == best_stages(asked, 2)


def test_units_enter_at_the_widths_of_the_stage_before() -> None:
    sized = SizedChoices(problem(CONV, widths=((8, 4), (16, 12, 6))))
    assert sized.entries == [(8,), (8, 4)]
    assert sized.left_out == {}
    for entry, width in product((8, 4), (16, 12, 6)):
        assert sized.at(CONV, entry, width, 1, opens=True) == Block.parse("CONV").at(entry, width)


def test_given_blocks_that_do_not_fit_are_left_out() -> None:
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


def test_what_was_not_measured_is_left_out() -> None:
    budgets = Budgets(latency_ms=Q(5))
    light = BlockChoice.of(Block.parse("DW+PW"))
    asked = problem(light, CONV, budgets=budgets, latency=LatencyTable(CASES))
    answer = best_stages(asked)
    assert answer.status is Status.OPTIMAL
    assert set(answer.left_out) == {
        "no latency for DW+PW from 8 to 16 channels, side 4, stride 2",
        "no latency for DW+PW from 16 to 16 channels, side 4, stride 1",
    }
    for gone in CASES:
        rest = LatencyTable({case: CASES[case] for case in CASES if case != gone})
        if gone[0] == "CONV" and gone[3] == 4:
            with pytest.raises(SettingError, match="stage 2 has no block left: got no latency"):
                best_stages(replace(asked, latency=rest))
        else:
            assert best_stages(replace(asked, latency=rest)).status is Status.OPTIMAL


def test_a_reason_of_the_first_stage_is_told_of_the_second_too() -> None:
    # The same sentence explains both stages; the first has another block.
    grouped = BlockChoice.of(Block.parse("GC(3)"))
    asked = problem(CONV, widths=((8,), (8,)), blocks=(Blocks(grouped, CONV), Blocks(grouped)))
    with pytest.raises(SettingError, match=r"stage 2 has no block left: got GC\(3\) from 8 to 8"):
        SizedChoices(asked)


def test_open_units_are_asked_for_once_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def counted(wanted: GroupsProblem, **more: Any) -> Any:
        asked.append((wanted.channels, wanted.out_width))
        return cheapest_groups(wanted, **more)

    monkeypatch.setattr(units, "cheapest_groups", counted)
    SizedChoices(problem(OPEN, CONV, widths=((8, 12), (16,))))
    assert set(asked) == {(8, 8), (8, 12), (12, 12), (8, 16), (12, 16), (16, 16)}
