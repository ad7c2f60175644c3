"""Which points none beats, by the definition."""

from hypothesis import given
from hypothesis import strategies as st

from ifspace.bench.blocks import front

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


@given(points)
def test_those_that_stay_are_those_that_none_beats(given_points) -> None:
    def beaten(point) -> bool:
        return any(
            other[0] <= point[0] and other[1] <= point[1] and other != point
            for other in given_points
        )

    found = front(given_points)
    assert sorted(found) == [n for n, each in enumerate(given_points) if not beaten(each)]
    assert [given_points[n] for n in found] == sorted(given_points[n] for n in found)
