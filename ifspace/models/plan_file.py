"""A plan of blocks as a file that a person edits: which layer becomes which block.

It is the JSON that `ifspace optimize` prints, with `--dry-run` or without: of the entries of
`replaced` the `name` and the `block` count. An entry that is deleted, or whose block is null, keeps
its layer.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from os import fspath
from pathlib import Path
from typing import Any, Final

from ifspace.block import Block
from ifspace.errors import ARGUMENT, IfspaceError, SettingError
from ifspace.storage import read_bytes

_KEY: Final = '"replaced"'


@dataclass(frozen=True, slots=True)
class PlannedBlock:
    """The block that a layer becomes, and where the plan says so: `place`, a file and its line."""

    name: str
    block: Block
    place: str

    def error(self, fact: str, got: str, allowed: str) -> SettingError:
        """Return the error of an entry that the network does not take."""
        return _error(self.place, fact, got, allowed)


def read_plan(path: Path) -> tuple[PlannedBlock, ...]:
    """Return the entries of a plan file.

    Raises: SettingError for a file that cannot be read, one without entries, and an entry that is
        no block, or of a layer that another one is of, with its line.
    """
    try:
        text = read_bytes(path).decode()
        values = json.loads(text)
    except json.JSONDecodeError as error:
        allowed = "the JSON that `ifspace optimize --dry-run --out FILE.json` writes"
        raise _error(f"{path.name}, line {error.lineno}", "no JSON", error.msg, allowed) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from None
    entries = values.get("replaced") if isinstance(values, dict) else None
    if not isinstance(entries, list):
        raise _unreadable(path, "no list `replaced`")
    planned: dict[str, PlannedBlock] = {}
    for entry, line in zip(entries, _lines(text), strict=True):
        place = f"{path.name}, line {line}"
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            allowed = '{"name": "layer1.0.conv1", "block": "DW+PW"}'
            raise _error(place, "an entry without a layer", json.dumps(entry)[:80], allowed)
        name, block = entry["name"], entry.get("block")
        place = f"{path.name}, line {line + _lines_before_block(text, line)}"
        if block is None:
            continue
        if name in planned:
            raise _error(place, "a layer twice", repr(name), "one entry for each layer")
        try:
            planned[name] = PlannedBlock(name, Block.parse(str(block)), place)
        except IfspaceError as error:
            allowed = "blocks with their groups, such as DW+GPW(4)+SH(4)+GPW(4)"
            raise _error(place, "no block", f"{block!r} ({error.finding})", allowed) from None
    if not planned:
        raise _unreadable(path, "no entry with a block")
    return tuple(planned.values())


def _lines(text: str) -> Iterator[int]:
    """Yield the line on which each entry of `replaced` begins."""
    decoder = json.JSONDecoder()
    position = text.index("[", text.index(_KEY) + len(_KEY)) + 1
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        if text[position] == "]":
            return
        yield text.count("\n", 0, position) + 1
        _, position = decoder.raw_decode(text, position)


def _lines_before_block(text: str, line: int) -> int:
    """Return how many lines behind that of an entry its block stands."""
    for number, content in enumerate(text.split("\n")[line - 1 :]):
        if '"block"' in content:
            return number
        if "}" in content:
            break
    return 0


def _unreadable(path: Path, got: str) -> SettingError:
    return SettingError.because(
        f"{ARGUMENT} is no plan",
        got=f"{fspath(path)}: {got}",
        allowed="the JSON that `ifspace optimize --dry-run --out FILE.json` writes",
        remedy="write it with --dry-run",
        argument="plan",
    )


def _error(place: str, fact: str, got: Any, allowed: str) -> SettingError:
    return SettingError.because(
        f"{place}: {fact}", got=got, allowed=allowed, remedy="correct that line of the plan"
    )
