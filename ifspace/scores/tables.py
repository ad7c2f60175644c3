"""Tables of trained networks: their layers and accuracies, in ifspace's form or as published.

A table of ifspace's form is CSV with a row for each network: `layers` (the text of a layer list, or
the path of its file from the table's folder) or `builder` (timm:NAME, FILE.py:FACTORY, …, with the
size of its image in `input`), and `accuracy` or `error` in percent. `name`, `set`, and counts such
as `params` and `macs` may be there too: a count replaces that of the layers, and networks are
compared within a set. The published tables in
`PUBLISHED` are known by their columns.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Final

from ifspace.errors import ARGUMENT, IfspaceError, SettingError
from ifspace.parallel import Progress
from ifspace.scores.layers import LAYERS_FORM, LayerList, read_layers
from ifspace.scores.measures import ALPHA, COUNTS, StageFields, score
from ifspace.scores.published import PUBLISHED, Row, TrainedNetwork
from ifspace.scores.statistics import PERCENT
from ifspace.storage import CsvRows, read_csv, reason
from ifspace.values import counted, listed

# The layers of a network, its counts, and its fields if it is traced.
Built = tuple[LayerList, Mapping[str, int], tuple[StageFields, ...] | None]
# From `builder` and the size of the image, or None.
Builder = Callable[[str, str | None], Built]
ACCURACIES: Final = ("accuracy", "error")
NETWORKS: Final = ("layers", "builder")
# Of a count: more than any network has.
MAX_COUNT_DIGITS: Final = 18
_PERCENT: Final = f"a number in percent, from 0 to {PERCENT}"


@dataclass(frozen=True)
class NetworkSet:
    """The networks of one set with their scores and counts, a number a network in each column.

    `strides` and `sweeps`: labels that networks with the same sizes of feature maps, and those
    whose layers differ in nothing but groups, have in common.
    """

    name: str
    names: tuple[str, ...]
    accuracies: tuple[float, ...]
    measures: Mapping[str, tuple[float, ...]]
    strides: tuple[str, ...]
    sweeps: tuple[str, ...]


def read_table(path: Path, build: Builder | None = None) -> list[TrainedNetwork]:
    """Read a table of trained networks.

    `build`: what to do with a `builder`; None where torch is not at hand.

    Raises: SettingError with the line of the first wrong row.
    """
    try:
        table = read_csv(path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise _malformed(f"{path}: {reason(error)}", "CSV with a line of columns first") from None
    reader = next(
        (form.read for form in PUBLISHED if set(form.columns) <= set(table.columns)), None
    )
    if reader is None:
        _check_columns(path, table)
    networks: list[TrainedNetwork] = []
    line_of: dict[tuple[str, str], int] = {}
    for line, row in table.rows:
        try:
            network = reader(row) if reader else _own(path, row, build)
        except (KeyError, ValueError) as error:
            text, allowed = str(error), "a network and its accuracy"
            if isinstance(error, IfspaceError):
                # That something cannot be read, the line's own message says.
                text = error.finding.rpartition(" cannot be read, ")[2]
                allowed = error.allowed or allowed
            raise _malformed(f"{path.name} line {line}: {text}", allowed) from None
        if reader is None and row.get("name", "").strip():
            first = line_of.setdefault((network.set, network.name), line)
            if first != line:
                raise _malformed(
                    f"{path.name} line {line}: the name {network.name!r} of line {first} again",
                    "a name once in a set",
                )
        networks.append(network)
    if len(networks) < 2:
        raise _malformed(f"{path} with {counted(len(networks), 'network')}", "two networks or more")
    return networks


def network_sets(
    networks: list[TrainedNetwork], alpha: float = ALPHA, progress: Progress | None = None
) -> list[NetworkSet]:
    """Return the networks set by set, with every score and count.

    The fields are those of the traced networks where all of a set are, otherwise those of lists.
    """
    sets: dict[str, list[TrainedNetwork]] = {}
    for network in networks:
        sets.setdefault(network.set, []).append(network)
    results, done = [], 0
    for name, members in sets.items():
        rows = []
        are_traced = all(network.fields is not None for network in members)
        for network in members:
            fields = network.fields if are_traced else None
            result = score(network.layers, alpha, counts=network.counts, fields=fields)
            rows.append(result.values)
            done += 1
            if progress is not None:
                progress(done, len(networks))
        results.append(
            NetworkSet(
                name,
                tuple(network.name for network in members),
                tuple(network.accuracy for network in members),
                {key: tuple(row[key] for row in rows) for key in rows[0]},
                tuple(str(network.layers.strides) for network in members),
                _sweeps([network.layers for network in members]),
            )
        )
    return results


def _sweeps(lists: Sequence[LayerList]) -> tuple[str, ...]:
    """Return a label of each list: one for all that differ in groups alone, its own for others."""
    groups_of: dict[str, set[tuple[int, ...]]] = {}
    keys = []
    for listed_layers in lists:
        keys.append(str(listed_layers.without_groups))
        groups = tuple(layer.groups for layer in listed_layers.layers)
        groups_of.setdefault(keys[-1], set()).add(groups)
    return tuple(key if len(groups_of[key]) > 1 else str(index) for index, key in enumerate(keys))


def _check_columns(path: Path, table: CsvRows) -> None:
    for names in (ACCURACIES, NETWORKS):
        if not set(names) & set(table.columns):
            raise _malformed(
                f"{path} without {' or '.join(names)}",
                "layers or builder, accuracy or error, or the columns of "
                + listed([form.name for form in PUBLISHED]),
            )


def _own(path: Path, row: Row, build: Builder | None) -> TrainedNetwork:
    known: Mapping[str, int] = {}
    fields = None
    if text := row.get("layers", "").strip():
        is_file = text.lower().endswith(".csv")
        layers = read_layers(path.parent / text) if is_file else LayerList.parse(text)
    elif builder := row.get("builder", "").strip():
        if build is None:
            raise ValueError("a builder, for which torch is needed")
        layers, known, fields = build(builder, row.get("input", "").strip() or None)
    else:
        raise _malformed("neither layers nor builder", LAYERS_FORM + " in layers, or a builder")
    counts = {name: _count(name, row[name]) for name in COUNTS if row.get(name, "").strip()}
    return TrainedNetwork(
        name=row.get("name", "").strip() or row.get("builder", "").strip() or text[:40],
        set=row.get("set", "").strip() or path.stem,
        layers=layers,
        accuracy=_accuracy(row),
        counts=dict(known) | counts,
        fields=fields,
    )


def _accuracy(row: Row) -> float:
    """Return the accuracy of a row: of an error, 100 less it."""
    column = next((name for name in ACCURACIES if row.get(name, "").strip()), None)
    if column is None:
        raise _malformed(f"no {' and no '.join(ACCURACIES)}", _PERCENT)
    try:
        number = float(row[column])
    except ValueError:
        number = nan
    if not 0 <= number <= PERCENT:
        raise _malformed(f"{column} {row[column].strip()!r}", _PERCENT)
    return PERCENT - number if column == "error" else number


def _count(name: str, text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_COUNT_DIGITS):
        raise _malformed(f"{name} {text!r}", "a whole number")
    return int(text)


def _malformed(got: str, allowed: str) -> SettingError:
    return SettingError.because(
        f"{ARGUMENT} cannot be read",
        got=got,
        allowed=allowed,
        remedy="correct the table",
        argument="table",
    )
