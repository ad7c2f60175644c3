"""Channel words solved in shards, in this process or in several."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.algebra import ExactAlgebra, FreeAlgebra
from ifspace.enumerate.alphabet import (
    Alphabet,
    LetterWord,
)
from ifspace.enumerate.compiled import is_kept
from ifspace.enumerate.forward import ForwardSearch
from ifspace.enumerate.halves import Found, HalfSearch
from ifspace.enumerate.join import cheapest_pair
from ifspace.kinds import find_kind
from ifspace.parallel import Progress, over_shards, workers

Engine = HalfSearch | ForwardSearch

# Work below this is done sooner in one process than others can be started, in seconds.
WORTH_WORKERS_S = 10.0
SHARD_S = 1.0
MOST_SHARDS = 64
# What all processes together should stay below when nobody says how many there are, in MiB.
MEMORY_MIB = 2048


def engine_for(alphabet: Alphabet) -> Engine:
    """Return the search that decides a setting: halves where a word can be cut, else forward."""
    setting = alphabet.setting
    if setting.permutation == "free":
        return ForwardSearch(alphabet, FreeAlgebra(alphabet))
    if setting.rule == "early-stop" or setting.repeats > 1:
        return ForwardSearch(alphabet, ExactAlgebra(alphabet))
    return HalfSearch(alphabet)


@dataclass(frozen=True, slots=True)
class Solved:
    """The answer for a channel word; `irreducible` says nothing where there is no block."""

    found: Found | None
    irreducible: bool


@dataclass(frozen=True, slots=True)
class _Shard:
    """Words to solve. Shards of one `run` that meet in a process share what it has learnt."""

    run: tuple[int, int]
    alphabet: Alphabet
    words: tuple[LetterWord, ...]


_engines: dict[tuple[int, int], Engine] = {}
_runs = count(1)


def _solve(shard: _Shard) -> tuple[dict[LetterWord, Solved], int]:
    """Return the answers for a shard's words and how many choices were looked at one by one."""
    engine = _engines.get(shard.run)
    if engine is None:
        _engines.clear()
        engine = _engines[shard.run] = engine_for(shard.alphabet)
    before = int(engine.tally[0])
    answers = {
        word: Solved(found, found is not None and engine.irreducible(word, found.choice))
        for word, found in engine.cheapest(shard.words).items()
    }
    return answers, int(engine.tally[0]) - before


def solve(
    alphabet: Alphabet,
    engine: Engine,
    wanted: Sequence[LetterWord],
    jobs: int | None,
    progress: Progress | None,
) -> tuple[dict[LetterWord, Solved], int]:
    """Return the answer for every word, and how many choices were looked at one by one.

    Both are the same however the words are cut and wherever they are solved. `engine` is the one
    of this process. `jobs` None: as many processes as are of use and fit into memory.
    """
    # A forward walk has the answers since it listed the words.
    halves = isinstance(engine, HalfSearch)
    seconds = expected_seconds(alphabet.setting, len(wanted)) if halves else 0.0
    run = (os.getpid(), next(_runs))
    _engines.clear()
    _engines[run] = engine
    parts = min(MOST_SHARDS, max(1, round(seconds / SHARD_S)))
    shards = [_Shard(run, alphabet, part) for part in _cut(wanted, parts)]
    solved: dict[LetterWord, Solved] = {}
    looked_at = 0
    for answers, checked in over_shards(_solve, shards, _processes(jobs, seconds), progress):
        solved |= answers
        looked_at += checked
    _engines.clear()
    return solved, looked_at


def _processes(jobs: int | None, seconds: float) -> int:
    """Return how many processes work of so many seconds is worth.

    Every one builds the upper halves for itself, and memory grows with the work as time does: by
    default there are no more than fit together.
    """
    if seconds <= WORTH_WORKERS_S:
        return 1
    if jobs is not None:
        return jobs
    each_mib = 180 + 28 * seconds
    return max(1, min(workers(None), int((MEMORY_MIB - 250) / each_mib)))


def _cut(wanted: Sequence[LetterWord], parts: int) -> list[tuple[LetterWord, ...]]:
    """Return the words in about equal parts; words of one beginning stay together."""
    groups: dict[LetterWord, list[LetterWord]] = {}
    for word in wanted:
        groups.setdefault(word[: len(word) // 2], []).append(word)
    shards: list[list[LetterWord]] = [[] for _ in range(parts)]
    for group in sorted(groups.values(), key=len, reverse=True):
        min(shards, key=len).extend(group)
    return [tuple(shard) for shard in shards if shard]


def expected_seconds(setting: EnumerationSetting, words: int) -> float:
    """Return about how long so many channel words take by halves on one core, in seconds.

    Fitted to `results/enumerate.md`; right within a factor of about three.
    """
    return float(6e-4 * words * _options(setting) ** 3 * (setting.channels / 64) ** 0.85)


def estimate_seconds(setting: EnumerationSetting) -> float:
    """Return about how many seconds a setting takes on one core: an order of magnitude.

    >>> estimate_seconds(EnumerationSetting(channels=16)) < 2
    True
    """
    # Beyond this the answer is "never" in any case, and powers of floats overflow.
    length = min(setting.max_len, 200)
    grouped = [kind for kind in setting.usable_kinds if find_kind(kind).takes_groups]
    if not grouped:
        return 1e-3 * length
    if setting.permutation == "free":
        return float(2.0 * 4.0 ** (length - 6))
    if setting.rule == "early-stop":
        return float(9.0 * 4.0 ** (length - 6) * _options(setting) ** 2 * setting.channels / 64)
    if setting.repeats > 1:
        growth = 4.0 * setting.channels**0.4
        return float(5.0 * growth ** (length - 4) * _options(setting) ** 3)
    # Channel words grow by a factor of 3.3 to 3.4 with each layer.
    return expected_seconds(setting, 1) * 800 * 3.35 ** (length - 6)


def _options(setting: EnumerationSetting) -> float:
    """Return the most choices that a kind has, against the 14 of RPW at 64 channels."""
    most = max(
        len(find_kind(kind).choices(c_in, c_out, setting.overlaps))
        for kind in setting.usable_kinds
        for c_in, c_out in setting.width_pairs
        if c_in == c_out or find_kind(kind).mixing
    )
    return most / 14


def is_compiled() -> bool:
    """Return whether the compiled search is on disk: the first run has to compile it."""
    return is_kept(cheapest_pair)
