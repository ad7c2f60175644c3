"""The greedy organizer against the trajectories of the papers and an oracle in forty digits."""

import random
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import brute_organizer
import pytest

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.stages.layout import Layout
from ifspace.stages.networks import (
    make_layout,
    network,
)
from ifspace.stages.organizer import (
    Move,
    Stopped,
    Trajectory,
    organize,
)

# Each move as source→target, the layout after each, and the end.
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


def route(trajectory: Trajectory) -> str:
    return " ".join(map(str, trajectory.moves))


@pytest.mark.parametrize(("name", "side", "moves", "states"), TRAJECTORIES)
def test_trajectories_of_the_papers(
    name: str, side: int, moves: str, states: list[tuple[int, ...]]
) -> None:
    start = network(name, side)
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


def test_resnet_at_the_sides_of_cifar_never_visits_the_published_layout() -> None:
    trajectory = organize(network("resnet50", 32))
    assert trajectory.start.depths == (3, 4, 6, 3)
    assert (5, 5, 4, 2) not in [layout.depths for layout in trajectory.layouts]


def same_steps(trajectory: Trajectory, steps: list[brute_organizer.Step]) -> None:
    assert [(m.source, m.target, m.depths) for m in trajectory.moves] == [
        (source, target, depths) for source, target, _, _, depths in steps
    ]
    gains = [gain for move in trajectory.moves for gain in (move.min, move.max)]
    assert gains == pytest.approx([float(g) for _, _, low, high, _ in steps for g in (low, high)])


@pytest.mark.parametrize("alpha", [1, 2, 3, 5, 10])
@pytest.mark.parametrize(("name", "side"), [row[:2] for row in TRAJECTORIES])
def test_moves_and_gains_by_the_formula(name: str, side: int, alpha: int) -> None:
    # One 3 x 3 convolution in each unit of these, the first of MobileNet in its stem.
    start = network(name, side)
    sides = [stage.side for stage in start.stages]
    min_depths = [2, 1, 1, 1, 1] if name == "mobilenet" else None
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
        trajectory = organize(make_layout("CONV", sides, [4] * len(sides), depths), theta, alpha)
        same_steps(trajectory, brute_organizer.greedy(sides, depths, theta, alpha))
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

    def last_gain(self, alpha: float) -> float:
        return self.gains[self.depth - 1]

    def next_gain(self, alpha: float) -> float:
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
    start = network("mobilenet", 32).at_depths((2, 1, 1, 1, 1))
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
    assert organize(start, moves=0).untaken == Move(4, 1, 0, whole.moves[0].max, start.depths)


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
