"""What a run says when there is nothing left to time, or nothing could be timed."""

from collections.abc import Iterable, Mapping, Sequence

from ifspace.bench.blocks.cases import Candidate, Key
from ifspace.bench.tidy import NOT_RUN, Row
from ifspace.errors import SettingError


def none_right(shown: Sequence[Candidate], red: Mapping[Key, str]) -> SettingError:
    """Return the refusal of candidates that are all red."""
    return SettingError.because(
        "no block is right, none is timed",
        got=f"{shown[0].name}: {red[shown[0].key]}" if shown else "none chosen",
        allowed="blocks that are what they are said to be",
        remedy="enumerate the catalogue anew",
    )


def none_timed(name: str, rows: Iterable[Row]) -> SettingError:
    """Return the refusal of candidates that could not be run; `name`: one of them."""
    said = [str(row["metric"]) for row in rows if row["candidate"] == name]
    why = next((each for each in said if each.startswith(NOT_RUN)), "it has no time")
    return SettingError.because(
        "no block could be timed",
        got=f"{name}, {why}",
        allowed="maps that fit into memory",
        remedy="ask for a smaller batch or side",
    )
