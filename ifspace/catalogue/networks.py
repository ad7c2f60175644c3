"""Which design represents each network of a catalogue that is longer than memory.

Of the designs of one network the first by `Design.representative_key` represents it. Which one that
is is known when all have been seen: of a long catalogue, names, keys and blocks are shared out by
network among temporary files, one of which at a time is in memory, and the answers are put in the
order in which the designs were seen, which is that in which they are read again. The files have no
names: nothing is left of them whatever ends the process.
"""

import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from tempfile import TemporaryFile
from typing import Any, Final
from weakref import finalize
from zlib import crc32

from ifspace.block import Block
from ifspace.catalogue.design import Design
from ifspace.errors import OutputError

# Designs that are held in memory, and files among which those of more are shared.
HELD: Final = 1 << 16
FILES: Final = 128
# Answers that are read at a time from each file.
_READ: Final = 1 << 8
# Of a design: its number, its network, its key but for the parameters of layers, and its block.
_Row = tuple[int, str | None, tuple[int, int, bytes], str]


class Representatives:
    """The representative of the network of each design, in the order in which they are added.

    They are added in canonical order. The answers are kept in a file, which several may share.
    """

    def __init__(self, answers: "RowsFile | None" = None) -> None:
        """Begin without designs."""
        self._rows: list[_Row] = []
        self._shared: list[RowsFile] = []
        self._file = answers or RowsFile()
        self._answers: list[Iterable[tuple[int, str]]] | None = None
        self._count = 0
        self._layers: Counter[int] = Counter()

    def add(self, design: Design) -> None:
        """Add a design; all are added before the first answer.

        Raises: OutputError where a temporary file cannot be written.
        """
        layers, overlapping, _ = design.representative_key
        key = layers, overlapping, bytes(design.kinds_key)
        self._rows.append((self._count, design.network, key, str(design.block)))
        self._count += 1
        if len(self._rows) == HELD:
            self._share_out()

    def layers(self) -> Counter[int]:
        """Return how many networks have how many layers."""
        self._find()
        return self._layers

    def __iter__(self) -> Iterator[str]:
        """Yield the block of the representative of each design."""
        for _, block in merge(*self._find()):
            yield block

    def _share_out(self) -> None:
        shares: list[list[_Row]] = [[] for _ in range(FILES)]
        for row in self._rows:
            shares[crc32((row[1] or "").encode()) % FILES].append(row)
        self._shared = self._shared or [RowsFile() for _ in shares]
        for file, rows in zip(self._shared, shares, strict=True):
            file.write(rows)
        self._rows = []

    def _find(self) -> "list[Iterable[tuple[int, str]]]":
        """Return numbers of designs, ascending, with their representatives."""
        if self._answers is None:
            if self._shared:
                self._share_out()
            shares: list[Iterable[_Row]] = [*self._shared] or [self._rows]
            self._rows, self._shared = [], []
            self._answers = []
            while shares:
                self._answers.append(self._file.write(self._represented(list(shares.pop()))))
        return self._answers

    def _represented(self, rows: Sequence[_Row]) -> list[tuple[int, str]]:
        """Return the numbers of all designs of some networks, with their representatives."""
        firsts: dict[str | None, _Row] = {}
        for row in rows:
            first = firsts.setdefault(row[1], row)
            if row is not first and _precedes(row, first):
                firsts[row[1]] = row
        self._layers.update(first[2][0] for first in firsts.values())
        return [(row[0], firsts[row[1]][3]) for row in rows]


def _precedes(one: _Row, other: _Row) -> bool:
    """Return whether a design represents the network of both; it was added after the other."""
    if one[2] != other[2]:
        return one[2] < other[2]
    return Block.parse(one[3]).sort_key < Block.parse(other[3]).sort_key


class RowsFile:
    """Rows in a temporary file without a name."""

    def __init__(self) -> None:
        """Begin without rows."""
        self._file = TemporaryFile()  # noqa: SIM115 - closed with the last reference to the rows
        finalize(self, self._file.close)
        self._end = 0

    def write(self, rows: Sequence[Any], read: int = _READ) -> "StoredRows":
        """Write rows behind those that are there; return them, to be read `read` at a time.

        Raises: OutputError where they cannot be written.
        """
        start = self._end
        try:
            self._file.seek(start)
            for first in range(0, len(rows), read):
                pickle.dump(rows[first : first + read], self._file)
            self._file.flush()
            self._end = self._file.tell()
        except OSError as error:
            raise OutputError.because(
                "temporary files cannot be written",
                got=error.strerror or type(error).__name__,
                allowed="a temporary folder with room for about 700 bytes of each block",
                remedy="set TMPDIR to another one",
            ) from None
        return StoredRows(self, start, self._end)

    def read(self, place: int) -> tuple[list[Any], int]:
        """Return the rows that were written together at a place, and the place behind them."""
        self._file.seek(place)
        rows: list[Any] = pickle.load(self._file)
        return rows, self._file.tell()

    def __iter__(self) -> Iterator[Any]:
        """Yield all rows in the order in which they were written."""
        return iter(StoredRows(self, 0, self._end))


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows of a file, from a place to another."""

    file: RowsFile
    start: int
    end: int

    def __iter__(self) -> Iterator[Any]:
        place = self.start
        while place < self.end:
            rows, place = self.file.read(place)
            yield from rows
