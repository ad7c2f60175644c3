"""The greedy organizer against the trajectories of the papers and an oracle in forty digits."""

import random
from dataclasses import dataclass, replace
from math import inf, nan
from typing import Any

import brute_organizer
import pytest

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.stages.layout import Layout
from ifspace.stages.networks import (
    PUBLISHED,
    PublishedLayout,
    make_layout,
    mobilenet,
    network,
)
from ifspace.stages.organizer import (
    Move,
    Stopped,
    Trajectory,
    organize,
)

# Each move as source→target, the layout after each, and the end: MATH's first table, with the cap.
# MobileNet with its stem in stage 1 and ResNet-50 are measured by the sides that are written.
TRAJECTORIES = [
    (
        "vgg16",
        32,
        "4→1 5→2 5→1 4→1 3→2",
        [(3, 2, 3, 2, 3), (3, 3, 3, 2, 2), (4, 3, 3, 2, 1), (5, 3, 3, 1, 1), (5, 4, 2, 1, 1)],
    ),
    ("vgg16", 224, "5→1 4→2", [(3, 2, 3, 3, 2), (3, 3, 3, 2, 2)]),
    (
        "vgg19",
        32,
        "4→1 4→2 5→1 5→1 5→2 3→1 4→1",
        [
            (3, 2, 4, 3, 4),
            (3, 3, 4, 2, 4),
            (4, 3, 4, 2, 3),
            (5, 3, 4, 2, 2),
            (5, 4, 4, 2, 1),
            (6, 4, 3, 2, 1),
            (7, 4, 3, 1, 1),
        ],
    ),
    ("vgg19", 224, "5→1 4→2 3→1", [(3, 2, 4, 4, 3), (3, 3, 4, 3, 3), (4, 3, 3, 3, 3)]),
    (
        "mobilenet",
        32,
        "4→1 4→2 4→1 4→1 5→2 4→3",
        [
            (3, 2, 2, 5, 2),
            (3, 3, 2, 4, 2),
            (4, 3, 2, 3, 2),
            (5, 3, 2, 2, 2),
            (5, 4, 2, 2, 1),
            (5, 4, 3, 1, 1),
        ],
    ),
    ("resnet50", 224, "3→1 3→1 4→2 3→1", [(4, 4, 5, 3), (5, 4, 4, 3), (5, 5, 4, 2), (6, 5, 3, 2)]),
]
MOVED_GAIN = {
    ("vgg16", 32): "2.490",
    ("vgg16", 224): "0.386",
    ("vgg19", 224): "1.091",
}


def written(name: str, side: int) -> Layout:
    """Return a network as the first table has it."""
    if name == "mobilenet":
        return mobilenet(side, stem_counts=True).at_written_sides()
    return network(name, side).at_written_sides()


def route(trajectory: Trajectory) -> str:
    return " ".join(map(str, trajectory.moves))


@pytest.mark.parametrize(("name", "side", "moves", "states"), TRAJECTORIES)
def test_trajectories_with_the_cap_by_written_sides(
    name: str, side: int, moves: str, states: list[tuple[int, ...]]
) -> None:
    start = written(name, side)
    trajectory = organize(start)
    assert route(trajectory) == moves
    assert [move.depths for move in trajectory.moves] == states
    assert [layout.depths for layout in trajectory.layouts] == [start.depths, *states]
    assert (trajectory.end, trajectory.end.depths) == (start.at_depths(states[-1]), states[-1])
    assert trajectory.stopped is Stopped.NO_GAIN
    assert f"{trajectory.moved_gain:.3f}" == MOVED_GAIN.get(
        (name, side), f"{trajectory.moved_gain:.3f}"
    )
    assert trajectory.end.gain() - start.gain() == pytest.approx(trajectory.moved_gain)
    if name.startswith("vgg"):  # pooling separates the stages: what enters one is what it writes
        assert start == network(name, side)


def test_resnet_by_the_written_sides_of_cifar_never_visits_the_published_layout() -> None:
    trajectory = organize(written("resnet50", 32))
    assert trajectory.start.depths == (3, 4, 6, 3)
    assert (5, 5, 4, 2) not in [layout.depths for layout in trajectory.layouts]
    assert f"{network('resnet50', 224).at_depths((5, 5, 4, 2)).params / 1e6:.1f}" == "19.3"


@dataclass(frozen=True)
class Row:
    """A row of MATH's second table: cap none, by the sides that enter."""

    name: str
    image: int
    sides: tuple[int, ...]
    depths: tuple[int, ...]
    moves: str
    end: tuple[int, ...]
    moved_gain: str


# At which multiple of the side that enters a stage the field stops.
CAPS = {"input": 1, "twice": 2, "none": None}
ENTERING = [
    Row("vgg16", 32, (32, 16, 8, 4, 2), (2, 2, 3, 3, 3), "", (5, 4, 2, 1, 1), "2.294"),
    Row("vgg19", 32, (32, 16, 8, 4, 2), (2, 2, 4, 4, 4), "", (6, 4, 3, 2, 1), "3.133"),
    Row("mobilenet", 32, (32, 32, 16, 8, 4), (1, 2, 2, 6, 2), "", (4, 3, 3, 2, 1), "4.093"),
    Row("resnet50", 32, (32, 32, 16, 8), (3, 4, 6, 3), "3→1 3→1 4→2", (5, 5, 4, 2), "0.760"),
    Row("vgg16", 224, (224, 112, 56, 28, 14), (2, 2, 3, 3, 3), "", (3, 3, 3, 2, 2), "0.386"),
    Row("vgg19", 224, (224, 112, 56, 28, 14), (2, 2, 4, 4, 4), "", (4, 3, 3, 3, 3), "1.091"),
    Row("mobilenet", 224, (112, 112, 56, 28, 14), (1, 2, 2, 6, 2), "", (3, 3, 3, 2, 2), "2.594"),
    Row("resnet50", 224, (56, 56, 28, 14), (3, 4, 6, 3), "3→1 3→1", (5, 4, 4, 3), "0.468"),
]


@pytest.mark.parametrize("row", ENTERING, ids=lambda row: f"{row.name}-{row.image}")
def test_trajectories_without_the_cap_by_entering_sides(row: Row) -> None:
    start = network(row.name, row.image)
    assert (tuple(stage.side for stage in start.stages), start.depths) == (row.sides, row.depths)
    trajectory = organize(start, cap="none")
    assert (trajectory.end.depths, f"{trajectory.moved_gain:.3f}") == (row.end, row.moved_gain)
    if row.moves:
        assert route(trajectory) == row.moves
    steps = brute_organizer.greedy(row.sides, row.depths, cap=CAPS["none"])
    same_steps(trajectory, steps)
    assert f"{brute_organizer.moved_gain(steps):.3f}" == row.moved_gain
    # A cap at twice the side gives the same, to 0.0015.
    twice = brute_organizer.greedy(row.sides, row.depths, cap=CAPS["twice"])
    same_steps(organize(start, cap="twice"), twice)
    assert [step[-1] for step in twice] == [step[-1] for step in steps]
    more = brute_organizer.moved_gain(twice) - brute_organizer.moved_gain(steps)
    assert 0 <= more < 0.0015
    if (row.name, row.image) == ("vgg16", 32):
        assert f"{brute_organizer.moved_gain(twice):.3f}" == "2.295"


# Rows whose printed gain is not that of the moves: MobileNet for CIFAR ends at a layout that gains
# more than the printed one, whose gain is printed.
OF_THE_LAYOUT = (("mobilenet", 3), ("mobilenet", 4))


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.network}-{row.table}")
@pytest.mark.parametrize("cap", ["none", "twice"])
def test_all_twelve_printed_gains_come_out_without_the_cap(row: PublishedLayout, cap: str) -> None:
    start = network(row.network, row.side)
    gained = organize(start, cap=cap).moved_gain
    sides = [stage.side for stage in start.stages]
    steps = brute_organizer.greedy(sides, start.depths, cap=CAPS[cap])
    by_formula = float(brute_organizer.moved_gain(steps))
    if (row.network, row.table) in OF_THE_LAYOUT:
        end = start.at_depths(row.depths)
        gained = end.gain(cap=cap) - start.gain(cap=cap)
        before, after = (
            brute_organizer.total(sides, d, cap=CAPS[cap]) for d in (start.depths, row.depths)
        )
        by_formula = float(after - before)
    assert gained == pytest.approx(by_formula)
    # Without a cap all twelve are within 0.006; at twice the side they are equal as printed.
    if cap == "twice" or not (row.network == "vgg16" and row.side == 32):
        assert f"{gained:.2f}" == row.gain
    else:
        assert (f"{gained:.3f}", row.gain) == ("2.294", "2.30")


def test_with_the_cap_six_published_gains_are_not_met() -> None:
    gains = [f"{organize(network(row.network, row.side)).moved_gain:.2f}" for row in PUBLISHED]
    fits = [row.gain == gain for row, gain in zip(PUBLISHED, gains, strict=True)]
    assert [row.network for row, fit in zip(PUBLISHED, fits, strict=True) if not fit] == [
        "vgg16",
        "vgg16",
        "vgg19",
        "vgg19",
        "mobilenet",
        "mobilenet",
    ]


@pytest.mark.parametrize("cap", ["input", "none"])
def test_the_later_of_two_stages_that_tie(cap: str) -> None:
    start = network("resnet50", 224)
    earlier, later = (organize(start, cap=cap, tie=tie) for tie in ("earlier", "later"))
    assert (earlier.end.depths, later.end.depths) == ((5, 4, 4, 3), (4, 5, 4, 3))
    assert f"{later.end.params / 1e6:.2f}" == "23.67"
    ties = [(step, move.sources, move.targets) for step, move in earlier.ties]
    assert ties == [(2, (), (1, 2))]
    brute = brute_organizer.greedy([56, 56, 28, 14], (3, 4, 6, 3), later=True)
    same_steps(later, brute)
    # Sources tie too: where nothing is left to gain, any stage could give its last block.
    vgg = organize(network("vgg16", 32), cap=cap, tie="later")
    steps = brute_organizer.greedy([32, 16, 8, 4, 2], (2, 2, 3, 3, 3), cap=CAPS[cap], later=True)
    same_steps(vgg, steps)
    assert bool(vgg.ties) is (cap == "input")


def test_no_cap_lets_the_field_outgrow_what_enters() -> None:
    stage = network("vgg16", 32).stages[4].at_depth(3)
    assert stage.volumes() == (4 * 512, 4 * 512, 4 * 512)
    assert stage.volumes("none") == (9 * 512, 25 * 512, 49 * 512)
    assert stage.gains() == (0, 0)
    assert stage.gains(3, "none") == pytest.approx(
        [float(brute_organizer.gain(2, n, cap=None)) for n in (2, 3)]
    )


def same_steps(trajectory: Trajectory, steps: list[brute_organizer.Step]) -> None:
    assert [(m.source, m.target, m.depths) for m in trajectory.moves] == [
        (source, target, depths) for source, target, _, _, depths in steps
    ]
    gains = [gain for move in trajectory.moves for gain in (move.min, move.max)]
    assert gains == pytest.approx([float(g) for _, _, low, high, _ in steps for g in (low, high)])


@pytest.mark.parametrize("alpha", [1, 2, 3, 5, 10])
@pytest.mark.parametrize(("name", "side"), [row[:2] for row in TRAJECTORIES])
def test_moves_and_gains_by_the_formula(name: str, side: int, alpha: int) -> None:
    # One 3 x 3 convolution in each unit of these.
    start = network(name, side)
    sides = [stage.side for stage in start.stages]
    by_hand = [stage.side_out * stage.stride for stage in start.stages]
    assert sides == by_hand
    for cap, multiple in CAPS.items():
        for later in (False, True):
            steps = brute_organizer.greedy(
                sides, start.depths, alpha=alpha, cap=multiple, later=later
            )
            tie = "later" if later else "earlier"
            same_steps(organize(start, alpha=alpha, cap=cap, tie=tie), steps)


@pytest.mark.parametrize("alpha", [1, 2, 3, 5, 10])
@pytest.mark.parametrize("name", ["mobilenet", "resnet50"])
def test_moves_and_gains_by_the_formula_with_written_sides(name: str, alpha: int) -> None:
    for side in (32, 224):
        start = written(name, side)
        # The first of MobileNet is in its stem.
        min_depths = [2, 1, 1, 1, 1] if name == "mobilenet" else None
        sides = [stage.side_out for stage in start.stages]
        steps = brute_organizer.greedy(sides, start.depths, alpha=alpha, min_depths=min_depths)
        same_steps(organize(start, alpha=alpha), steps)


def drawn(seed: int) -> tuple[list[int], list[int], float, float]:
    draw = random.Random(seed)
    count = draw.randint(1, 6)
    sides = sorted(draw.choices([1, 2, 3, 4, 7, 8, 14, 16, 28, 32, 56], k=count), reverse=True)
    depths = draw.choices(range(1, 8), k=count)
    return sides, depths, draw.choice([0, 0, 0.1, 0.3, 0.7, 1, 2]), draw.choice([0, 1, 3, 10])


@pytest.mark.slow
def test_random_stages_by_the_formula() -> None:
    removals = moves = both = 0
    for seed in range(400):
        sides, depths, theta, alpha = drawn(seed)
        layout = make_layout("CONV", sides, [4] * len(sides), depths)
        for cap, multiple in CAPS.items():
            later = seed % 2 == 1
            trajectory = organize(
                layout, theta, alpha, cap=cap, tie="later" if later else "earlier"
            )
            steps = brute_organizer.greedy(sides, depths, theta, alpha, cap=multiple, later=later)
            same_steps(trajectory, steps)
        removed = sum(move.target is None for move in trajectory.moves)
        removals += bool(removed)
        moves += len(trajectory.moves) > removed
        both += 0 < removed < len(trajectory.moves)
    assert min(removals, moves) > 40


@dataclass(frozen=True)
class Table:
    """A stage with the gains passed in: `gains[k]` is that of the unit after k others."""

    gains: tuple[float, ...]
    depth: int
    min_depth: int = 1

    def last_gain(self, alpha: float, cap: str) -> float:
        return self.gains[self.depth - 1]

    def next_gain(self, alpha: float, cap: str) -> float:
        return self.gains[self.depth]


@dataclass(frozen=True)
class Tables:
    """A layout of such stages."""

    stages: tuple[Table, ...]

    @property
    def depths(self) -> tuple[int, ...]:
        return tuple(stage.depth for stage in self.stages)

    def at_depths(self, depths: tuple[int, ...]) -> "Tables":
        pairs = zip(self.stages, depths, strict=True)
        return Tables(tuple(Table(s.gains, d, s.min_depth) for s, d in pairs))


def tables(*rows: tuple[list[float], int]) -> Any:
    return Tables(tuple(Table((nan, *gains), depth) for gains, depth in rows))


# Two stages of two units each: last gains 5 and 1, next gains 4 and 0.5.
TWO = (([5, 4, 3, 2], 2), ([1, 0.5, 0.2], 2))


def test_above_the_threshold_a_block_moves() -> None:
    trajectory = organize(tables(*TWO), theta=3.5)
    assert trajectory.moves[0] == Move(2, 1, 1, 4, (3, 1))
    # Then nothing but stage 1 has a block to give, and 3 is no more than its last 4.
    assert (len(trajectory.moves), trajectory.stopped) == (1, Stopped.NO_GAIN)
    assert trajectory.untaken == Move(1, 1, 4, 3, (3, 1))
    assert trajectory.moved_gain == 3


def test_below_the_threshold_a_block_is_removed() -> None:
    trajectory = organize(tables(*TWO), theta=4.5)
    assert trajectory.moves == (Move(2, None, 1, 4, (2, 1)),)
    assert str(trajectory.moves[0]) == "2→"
    assert (trajectory.moved_gain, trajectory.end.depths) == (0, (2, 1))


def test_at_the_threshold_nothing_happens() -> None:
    trajectory = organize(tables(*TWO), theta=4)
    assert (trajectory.moves, trajectory.stopped) == ((), Stopped.THRESHOLD)
    assert trajectory.untaken == Move(2, 1, 1, 4, (2, 2))
    assert trajectory.end is trajectory.start


def test_it_stops_where_one_more_gains_no_more_than_the_last() -> None:
    # Both gains are below the threshold, and yet nothing is removed.
    trajectory = organize(tables(([2, 1], 2), ([2, 1], 2)), theta=9)
    assert (trajectory.moves, trajectory.stopped) == ((), Stopped.NO_GAIN)


def test_it_stops_where_source_and_target_are_one_stage() -> None:
    trajectory = organize(tables(([1, 3, 2], 2), ([2, 1], 2)))
    assert (trajectory.moves, trajectory.stopped) == ((), Stopped.SAME_STAGE)
    assert trajectory.untaken == Move(1, 1, 1, 3, (2, 2))


def test_a_stage_keeps_a_block() -> None:
    # Stage 1 gains nothing, and is not asked to give its only block.
    trajectory = organize(tables(([0, 0], 1), ([3, 2, 1], 3), ([9, 8], 1)), moves=1)
    assert trajectory.moves[0] == Move(2, 3, 2, 9, (1, 2, 2))
    alone = organize(tables(([9, 8], 1), ([3, 2], 1)))
    assert (alone.moves, alone.stopped, alone.untaken) == ((), Stopped.NOTHING_TO_MOVE, None)


def test_the_stem_is_never_moved() -> None:
    start = mobilenet(32, stem_counts=True).at_depths((2, 1, 1, 1, 1))
    assert organize(start).stopped is Stopped.NOTHING_TO_MOVE


@pytest.mark.parametrize("off", [0, 1e-13, -1e-13])
def test_ties_go_to_the_earlier_stage(off: float) -> None:
    rows = ([1, 0.5], 2), ([1 + off, 0.5], 2), ([8, 7, 4], 2), ([8, 7 + off, 4], 2)
    trajectory = organize(tables(*rows), moves=1)
    assert (trajectory.moves[0].source, trajectory.moves[0].target) == (1, 3)
    level = organize(tables(([2, 1], 2), ([3, 2 * (1 + off)], 2)))
    assert (level.moves, level.stopped) == ((), Stopped.NO_GAIN)


def test_a_difference_of_more_than_rounding_is_not_a_tie() -> None:
    trajectory = organize(tables(([1, 0], 2), ([1 - 1e-11, 0], 2), ([8, 7, 4], 2)), moves=1)
    assert trajectory.moves[0].source == 2


def test_the_number_of_moves_is_a_limit() -> None:
    start = network("vgg16", 32)
    whole = organize(start)
    for count in range(6):
        part = organize(start, moves=count)
        assert part.moves == whole.moves[:count]
        assert part.stopped is (Stopped.LIMIT if count < 5 else Stopped.NO_GAIN)
    assert organize(start, moves=0).untaken == replace(whole.moves[0], depths=start.depths)
    assert (whole.moves[0].min, whole.moves[0].sources) == (0, (4, 5))


def test_blocks_short_of_the_full_field_move_by_their_exact_gains() -> None:
    units = [Block.parse(text) for text in ("DW+RPW(4,0)", "GPW(4)+DW", "CONV")]
    start = make_layout(units, (16, 8, 8), (16, 16, 16), (2, 3, 3), stem_and_head=opened(16))
    trajectory = organize(start)
    assert trajectory.moves
    for before, move in zip(trajectory.layouts, trajectory.moves, strict=False):
        last = [stage.gains()[-1] for stage in before.stages if stage.depth > 1]
        more = [stage.at_depth(stage.depth + 1).gains()[-1] for stage in before.stages]
        assert (move.min, move.max) == (min(last), max(more))
        assert move.max > move.min


def opened(channels: int) -> Any:
    return network("vgg16", 32).stem_and_head.__class__(inputs=channels)


@pytest.mark.parametrize("wrong", [-1, inf, nan])
def test_thresholds_and_alphas_out_of_range_raise(wrong: float) -> None:
    start: Layout = network("vgg11", 32)
    with pytest.raises(SettingError, match=r"^theta out of range: .*; allowed: numbers from 0; "):
        organize(start, theta=wrong)
    with pytest.raises(SettingError, match=r"^alpha out of range: .*; allowed: numbers from 0; "):
        organize(start, alpha=wrong)
    with pytest.raises(SettingError, match="moves out of range: got -1"):
        organize(start, moves=-1)


def test_unknown_caps_and_ties_raise() -> None:
    start = network("vgg11", 32)
    with pytest.raises(
        SettingError, match=r"^unknown cap: got 'both'; allowed: input, twice, none"
    ):
        organize(start, cap="both")
    with pytest.raises(SettingError, match=r"^unknown tie: got 'first'; allowed: earlier, later"):
        organize(start, tie="first")


START = network("vgg11", 32)
MOVES = (
    Move(5, 1, 0.25, 1.0, (2, 1, 2, 2, 1)),
    Move(4, None, 0.125, 8.0, (2, 1, 2, 1, 1)),
    Move(3, 2, 0.5, 0.75, (2, 2, 1, 1, 1)),
)


def test_the_layouts_of_a_trajectory() -> None:
    trajectory = Trajectory(START, MOVES, Stopped.LIMIT)
    assert [layout.depths for layout in trajectory.layouts] == [
        START.depths,
        *(m.depths for m in MOVES),
    ]
    assert trajectory.end.depths == (2, 2, 1, 1, 1)
    assert trajectory.end.stem_and_head == START.stem_and_head
    assert Trajectory(START, (), Stopped.NO_GAIN).layouts == (START,)
    assert Trajectory(START, (), Stopped.NO_GAIN).end is START


def test_removals_do_not_count_in_the_gain_of_the_moves() -> None:
    assert Trajectory(START, MOVES, Stopped.LIMIT).moved_gain == 0.75 + 0.25
    assert Trajectory(START, (), Stopped.NO_GAIN).moved_gain == 0


def test_moves_as_text() -> None:
    assert [str(move) for move in MOVES] == ["5→1", "4→", "3→2"]
