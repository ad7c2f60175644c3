"""All entries of catalogues that are longer than memory, best first, each with its reason.

What `choose.best` says of all rows, with few of them in memory. Rows within the bounds are shared
out by network among temporary files. Of one of these at a time the entries are found, sorted and
written as a run; of all of them a few values are kept, which say why each is where it is. The runs
are then merged. The files have no names: nothing is left of them whatever ends the process.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from heapq import merge
from itertools import islice
from math import inf
from operator import itemgetter
from typing import Any, Final
from zlib import crc32

from ifspace.catalogue.choose import Reasons, rank, usable, within_bounds
from ifspace.catalogue.design import Design, one_a_network, other_ways
from ifspace.catalogue.lazily import LongCatalogue, Question
from ifspace.catalogue.networks import RowsFile, StoredRows

# Rows that are held until they are shared out, and files among which they are.
HELD: Final = 1 << 13
FILES: Final = 128
# Entries that are read at a time from each run.
_READ: Final = 1 << 5
# Of a row: its place in all catalogues together, the number of its catalogue, and the design.
_Row = tuple[int, int, Design]
# Of an entry: its key, what there is to say of its network, its latency, and the design.
_Entry = tuple[tuple[Any, ...], str, Fraction | float, Design]


class LongRanking:
    """The designs of long catalogues within the bounds of a question, best first, with reasons.

    They can be read several times.
    """

    def __init__(self, catalogues: Sequence[LongCatalogue], question: Question) -> None:
        """Read the catalogues and rank the designs.

        Raises: CatalogueError where one is damaged; OutputError where temporary files cannot be
            written.
        """
        self._question = question
        self._is_narrowed = False
        self._count = 0
        self._reasons = Reasons(
            question.by, question.floors, question.peak_memory, question.latency
        )
        shares = self._shared_out(catalogues)
        self._runs, compositions = RowsFile(), RowsFile()
        self._sorted: list[StoredRows] = []
        while shares:
            entries = self._entries(list(shares.pop()))
            self._count += len(entries)
            self._sorted.append(self._runs.write(entries, _READ))
            designs = (entry[-1] for entry in entries)
            compositions.write([(x.replaces, x.composition) for x in designs])
        several = self._reasons.compositions
        self._reasons.name(Counter(pair for pair in compositions if pair in several))

    def __len__(self) -> int:
        """Return how many designs there are."""
        return self._count

    @property
    def replaces(self) -> tuple[tuple[Any, ...], ...]:
        """What the designs replace."""
        return self._reasons.replaces

    def __iter__(self) -> Iterator[tuple[Design, str]]:
        """Yield each design with its reason."""
        for _, others, ms, design in merge(*self._sorted, key=itemgetter(0)):
            yield design, self._reasons.text(design, ms, self._is_narrowed, others)

    def _shared_out(self, catalogues: Sequence[LongCatalogue]) -> list[RowsFile]:
        """Return the rows within the bounds, all of a network in one file, in their order."""
        question = self._question
        files = [RowsFile() for _ in range(FILES)]
        place = 0
        for source, catalogue in enumerate(catalogues):
            designs = catalogue.designs()
            while some := list(islice(designs, HELD)):
                at_width = [x for x in some if question.channels in (None, x.channels)]
                places = {id(design): place + index for index, design in enumerate(some)}
                within = within_bounds(
                    usable(at_width, question.kinds),
                    question.bounds,
                    question.floors,
                    question.peak_memory,
                    question.latency,
                    question.latency_ms,
                )
                self._is_narrowed |= len(within) < len(at_width)
                place += len(some)
                shares: list[list[_Row]] = [[] for _ in files]
                for design in within:
                    key = (design.network or str(design.block)).encode()
                    shares[crc32(key) % FILES].append((places[id(design)], source, design))
                for file, rows in zip(files, shares, strict=True):
                    file.write(rows)
        return files

    def _entries(self, rows: Sequence[_Row]) -> list[_Entry]:
        """Return the entries of some networks, sorted, of which all rows are there."""
        if len({source for _, source, _ in rows}) > 1:
            # A row that an earlier catalogue has too counts once.
            sources: dict[Design, int] = {}
            rows = [row for row in rows if sources.setdefault(row[2], row[1]) == row[1]]
        places = {id(design): place for place, _, design in rows}
        designs = [design for *_, design in rows]
        question = self._question
        networks: Iterable[tuple[Design, Sequence[Design]]] = (
            ((design, ()) for design in designs) if question.every_row else one_a_network(designs)
        )
        entries: list[_Entry] = []
        for design, others in networks:
            time = question.latency and question.latency(design.sized, design.stride)
            ms: Fraction | float = inf if time is None else time.ms
            self._reasons.add(design, ms)
            key = *rank(design, question.by, ms), places[id(design)]
            entries.append((key, other_ways(others), ms, design))
        return sorted(entries, key=itemgetter(0))
