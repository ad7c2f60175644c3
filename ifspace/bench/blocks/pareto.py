"""Which points no other one beats in both of two amounts."""

from collections.abc import Sequence


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the numbers of the points that none beats, by the first amount and then the second.

    A point beats another that is no less in either amount and more in one; equal ones all stay.

    >>> front([(3, 1.0), (1, 4.0), (2, 4.0), (2, 2.0), (3, 1.0)])
    [1, 3, 0, 4]
    """
    order = sorted(range(len(points)), key=lambda number: (*points[number], number))
    found: list[int] = []
    for number in order:
        last = points[found[-1]] if found else None
        if last is None or points[number][1] < last[1] or points[number] == last:
            found.append(number)
    return found
