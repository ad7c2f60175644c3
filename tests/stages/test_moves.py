from ifspace.stages.networks import network
from ifspace.stages.organizer import (
    Move,
    Stopped,
    Trajectory,
)

START = network("vgg11", 32)
MOVES = (
    Move(5, 1, 0.25, 1.0, (2, 1, 2, 2, 1)),
    Move(4, None, 0.125, 8.0, (2, 1, 2, 1, 1)),
    Move(3, 2, 0.5, 0.75, (2, 2, 1, 1, 1)),
)


def test_the_layouts_on_the_way() -> None:
    found = Trajectory(START, MOVES, Stopped.LIMIT)
    assert [each.depths for each in found.layouts] == [START.depths, *(m.depths for m in MOVES)]
    assert found.end.depths == (2, 2, 1, 1, 1)
    assert found.end.stem_and_head == START.stem_and_head
    assert Trajectory(START, (), Stopped.NO_GAIN).layouts == (START,)
    assert Trajectory(START, (), Stopped.NO_GAIN).end is START


def test_what_the_moves_gain_leaves_removals_out() -> None:
    assert Trajectory(START, MOVES, Stopped.LIMIT).moved_gain == 0.75 + 0.25
    assert Trajectory(START, (), Stopped.NO_GAIN).moved_gain == 0


def test_a_move_in_short() -> None:
    assert [str(move) for move in MOVES] == ["5→1", "4→", "3→2"]
