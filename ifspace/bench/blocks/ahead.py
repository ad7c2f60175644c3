"""How much of a run of several parts is done, in seconds that are guessed until they are known."""

from collections.abc import Callable, Mapping

Progress = Callable[[int, int], None]
Tell = Callable[[float, float], None]


class Ahead:
    """The seconds of each part, done and in all; a teller of milliseconds is told of the sum.

    >>> ahead = Ahead(lambda done, total: print(done, total), {"check": 1.0, "time": 8.0})
    >>> ahead.part("check")(0.5, 2.0)
    500 10000
    """

    def __init__(self, progress: Progress, guesses: Mapping[str, float]) -> None:
        self._progress = progress
        self._totals = dict(guesses)
        self._done = dict.fromkeys(guesses, 0.0)

    def part(self, name: str) -> Tell:
        """Return what a part tells how many of its seconds are done, of how many."""

        def tell(done: float, total: float) -> None:
            self._totals[name] = total
            self._done[name] = min(done, total)
            self._progress(
                round(1e3 * sum(self._done.values())), round(1e3 * sum(self._totals.values()))
            )

        return tell

    def over(self, name: str) -> None:
        """Say that a part is done, or has nothing to do."""
        self.part(name)(self._done[name], self._done[name])
