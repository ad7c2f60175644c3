"""Compositions as words over an alphabet of kinds: listing, counting, repeated patterns.

A composition is repeated as a whole when it is a shorter one written two or more times; it holds a
repeat when some part of it stands twice in a row. [Fog] section 3.1 drops such patterns before
anything else is asked of them.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from math import perm
from typing import Literal, get_args

from ifspace.errors import SettingError

Word = tuple[str, ...]
Patterns = Literal["whole", "any", "keep"]


def of_length(kinds: Sequence[str], length: int) -> Iterator[Word]:
    """Yield every composition of one length, in canonical order.

    >>> ["+".join(word) for word in of_length(("PW", "DW"), 2)]
    ['PW+PW', 'PW+DW', 'DW+PW', 'DW+DW']
    """
    return product(kinds, repeat=length)


def up_to_length(kinds: Sequence[str], length: int) -> Iterator[Word]:
    """Yield every composition of lengths 1 to `length`, in canonical order."""
    for n in range(1, length + 1):
        yield from of_length(kinds, n)


def is_repeated(word: Sequence[str]) -> bool:
    """Return whether the word is a shorter one written two or more times.

    >>> is_repeated(("DW", "PW", "DW", "PW")), is_repeated(("DW", "DW", "PW"))
    (True, False)
    """
    n = len(word)
    return any(
        n % period == 0 and all(word[i] == word[i - period] for i in range(period, n))
        for period in range(1, n // 2 + 1)
    )


def has_square(word: Sequence[str]) -> bool:
    """Return whether some part of the word stands twice in a row.

    >>> has_square(("DW", "RPW", "RPW")), has_square(("DW", "RPW", "PW"))
    (True, False)
    """
    return any(
        word[start : start + size] == word[start + size : start + 2 * size]
        for size in range(1, len(word) // 2 + 1)
        for start in range(len(word) - 2 * size + 1)
    )


def rejects(word: Sequence[str], patterns: Patterns) -> bool:
    """Return whether a mode of repeated-pattern pruning drops the composition.

    Raises: SettingError for an unknown mode.

    Reference: [Fog] section 3.1.
    """
    if patterns == "keep":
        return False
    if patterns == "whole":
        return is_repeated(word)
    if patterns == "any":
        return has_square(word)
    raise SettingError.because(
        "unknown mode of repeated patterns",
        got=repr(patterns),
        allowed=", ".join(get_args(Patterns)),
        remedy="choose one",
    )


def count(alphabet: int, length: int, patterns: Patterns = "keep") -> int:
    """Return how many compositions of one length over so many kinds a mode keeps.

    >>> [count(6, n, "whole") for n in range(1, 7)]
    [6, 30, 210, 1260, 7770, 46410]
    >>> [count(4, n, "any") for n in range(1, 7)]
    [4, 12, 36, 96, 264, 696]
    """
    if patterns == "keep":
        return int(alphabet**length)
    if patterns == "whole":
        # Every word is one primitive word written length / d times: subtract the shorter ones.
        shorter = (count(alphabet, d, "whole") for d in range(1, length) if length % d == 0)
        return int(alphabet**length) - sum(shorter)
    return sum(perm(alphabet, letters) for letters in _square_free_shapes(alphabet, length))


def _square_free_shapes(alphabet: int, length: int) -> Iterator[int]:
    """Yield the number of letters of each square-free word, up to renaming its letters.

    Letters are numbered in the order of their first appearance, so that one shape stands for
    perm(alphabet, letters) words.
    """

    def grow(word: tuple[int, ...], used: int) -> Iterator[int]:
        if len(word) == length:
            yield used
            return
        for letter in range(min(used + 1, alphabet)):
            longer = (*word, letter)
            # Every part but those that end here has been looked at before.
            n = len(longer)
            if not any(longer[n - s :] == longer[n - 2 * s : n - s] for s in range(1, n // 2 + 1)):
                yield from grow(longer, max(used, letter + 1))

    return grow((), 0)
