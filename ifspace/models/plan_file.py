"""A plan as a file that a person edits: which layer becomes which block, and how wide layers are.

It is the JSON that `ifspace optimize` prints, with `--dry-run` or without: of the entries of
`replaced` the `name` and the `block` count. An entry that is deleted, or whose block is null, keeps
its layer. A plan of widths, or of widths, depths and blocks together, has `groups` instead, of
whose entries the first of the `layers` and `after` count, the units that are `removed`, and
`blocks`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from os import fspath
from pathlib import Path
from typing import Any, Final

from ifspace.block import Block
from ifspace.errors import ARGUMENT, IfspaceError, SettingError
from ifspace.stages.problem import amounts_text
from ifspace.storage import read_bytes, reason

_KEY: Final = '"replaced"'
_ENTRY: Final = '{"name": "layer1.0.conv1", "block": "DW+PW"}'


@dataclass(frozen=True, slots=True)
class PlannedBlock:
    """The block that a layer becomes, and where the plan says so: `place`, a file and its line."""

    name: str
    block: Block
    place: str


@dataclass(frozen=True, slots=True)
class PlannedWidth:
    """How many channels the layers of a group write `after`, and where the plan says so."""

    layers: tuple[str, ...]
    before: int
    after: int
    place: str


@dataclass(frozen=True, slots=True)
class PlannedDesign:
    """Widths, depths and blocks of a plan: `removed` are names of units with their places."""

    widths: tuple[PlannedWidth, ...]
    removed: tuple[tuple[str, str], ...] = ()
    blocks: tuple[PlannedBlock, ...] = ()


def read_plan(path: Path) -> tuple[PlannedBlock, ...] | PlannedDesign:
    """Return the entries of a plan file, or its design where widths change.

    Raises: SettingError for a file that cannot be read, one without entries, and an entry that is
        no block, has none, or is of a layer that another one is of, with its line.
    """
    try:
        text = read_bytes(path).decode()
        values = json.loads(text)
    except json.JSONDecodeError as error:
        allowed = "the JSON that `ifspace optimize --dry-run --out FILE.json` writes"
        raise plan_error(
            f"{path.name}, line {error.lineno}", "no JSON", error.msg, allowed
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, reason(error)) from None
    if isinstance(values, dict) and (values.get("design") or values.get("widths")):
        return _design(path, text, values)
    entries = values.get("replaced") if isinstance(values, dict) else None
    if not isinstance(entries, list):
        raise _unreadable(path, "no list `replaced`")
    planned = _blocks(path, text, entries, text.index(_KEY))
    if not planned:
        raise _unreadable(path, "no entry with a block")
    return planned


def above_its_budgets(path: Path, amounts: Mapping[str, int]) -> str:
    """Return by how much a network exceeds what its plan was made for, empty if it does not.

    `amounts`: those that a plan may have been edited to exceed, "params" and "macs".
    """
    budgets = json.loads(read_bytes(path)).get("budgets")
    limits = {
        name: limit
        for name, limit in (budgets.items() if isinstance(budgets, dict) else ())
        if type(limit) is int and amounts.get(name, 0) > limit
    }
    if not limits:
        return ""
    has = amounts_text({name: amounts[name] for name in limits})
    return f"{has}, and {path.name} was made for at most {amounts_text(limits)}"


def _design(path: Path, text: str, values: dict[str, Any]) -> PlannedDesign:
    """Return the design of a plan."""
    name = "design" if values.get("design") else "widths"
    begin = re.search(rf'"{name}"\s*:\s*{{', text)
    design = values[name]
    if begin is None or not isinstance(design, dict):
        raise _unreadable(path, f"no object `{name}`")
    parts = {}
    for key in ("groups", "removed", "blocks"):
        entries = design.get(key, [])
        if not isinstance(entries, list):
            raise _unreadable(path, f"no list `{key}` in `{name}`")
        start = text.find(f'"{key}"', begin.end())
        lines = _lines(text, start + len(key) + 2) if entries else iter(())
        parts[key] = entries, [f"{path.name}, line {line}" for line in lines], start
    widths = tuple(_width(entry, place) for entry, place in zip(*parts["groups"][:2], strict=True))
    removed = []
    for entry, place in zip(*parts["removed"][:2], strict=True):
        if not isinstance(entry, str):
            raise plan_error(place, "no name of a unit", json.dumps(entry)[:80], '"layer1.1"')
        removed.append((entry, place))
    entries, _, start = parts["blocks"]
    blocks = _blocks(path, text, entries, start) if entries else ()
    return PlannedDesign(widths, tuple(removed), blocks)


def _width(entry: Any, place: str) -> PlannedWidth:
    allowed = 'layers and two whole numbers: {"layers": ["conv1"], "before": 64, "after": 48}'
    if not isinstance(entry, dict):
        raise plan_error(place, "an entry without layers", json.dumps(entry)[:80], allowed)
    layers = entry.get("layers")
    names = [name for name in layers if isinstance(name, str)] if isinstance(layers, list) else []
    if not names or names != layers:
        got = f'"layers": {json.dumps(layers)}'[:80]
        raise plan_error(place, "no width of layers", got, allowed)
    for key in ("before", "after"):
        count = entry.get(key)
        if type(count) is not int or count < 1:
            got = f'"{key}": {json.dumps(count)[:80]} for {names[0]}'
            raise plan_error(place, "no width of layers", got, allowed)
    return PlannedWidth(tuple(names), entry["before"], entry["after"], place)


def _blocks(path: Path, text: str, entries: list[Any], start: int) -> tuple[PlannedBlock, ...]:
    """Return the blocks of a list of entries, whose key begins at `start` of the text."""
    planned: dict[str, PlannedBlock] = {}
    opening = text.index(":", start)
    for entry, line in zip(entries, _lines(text, opening), strict=True):
        place = f"{path.name}, line {line}"
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise plan_error(place, "an entry without a layer", json.dumps(entry)[:80], _ENTRY)
        if "block" not in entry:
            allowed = f"{_ENTRY}; null, or no entry, keeps the layer"
            raise plan_error(place, "an entry without a block", json.dumps(entry)[:80], allowed)
        name, block = entry["name"], entry["block"]
        place = f"{path.name}, line {line + _lines_before_block(text, line)}"
        if block is None:
            continue
        if name in planned:
            raise plan_error(place, "a layer twice", repr(name), "one entry for each layer")
        try:
            planned[name] = PlannedBlock(name, Block.parse(str(block)), place)
        except IfspaceError as error:
            allowed = "blocks with their groups, such as DW+GPW(4)+SH(4)+GPW(4)"
            raise plan_error(place, "no block", f"{block!r} ({error.finding})", allowed) from None
    return tuple(planned.values())


def _lines(text: str, start: int) -> Iterator[int]:
    """Yield the line on which each entry of the list behind a place begins."""
    decoder = json.JSONDecoder()
    position = text.index("[", start) + 1
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


def over_budgets(
    amounts: Mapping[str, int | Fraction], limits: Mapping[str, int | Fraction]
) -> SettingError | None:
    """Return the error of a plan with these amounts; None where it keeps its budgets."""
    over = {name: x for name, x in amounts.items() if name in limits and x > limits[name]}
    if not over:
        return None
    return SettingError.because(
        "a plan over its budgets",
        got=amounts_text(over),
        allowed=amounts_text({name: limits[name] for name in over}),
        remedy="take cheaper blocks or fewer channels in the plan, or raise the budget",
        argument=next(iter(over)),
    )


def plan_error(place: str, fact: str, got: Any, allowed: str) -> SettingError:
    """Return the error of what a plan says at a place, a file and its line."""
    return SettingError.because(
        f"{place}: {fact}", got=got, allowed=allowed, remedy="correct that line of the plan"
    )


def misfit_error(
    entry: PlannedBlock, error: IfspaceError, c_in: int, c_out: int, stride: int
) -> SettingError:
    """Return the error of a block that does not fit its layer, from so many channels to so many."""
    return plan_error(
        entry.place,
        "a block that does not fit the layer",
        got=f"{entry.block} for {entry.name}: {error.finding}",
        allowed=f"blocks from {c_in} to {c_out} channels at stride {stride}",
    )
