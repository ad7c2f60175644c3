"""What `ifspace best` prints: blocks with their reasons, and what the next better would cost."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final

from ifspace.catalogue.choose import LATENCY, Trade, change_text, peak_bytes
from ifspace.catalogue.dataset import designs_table, plain_design, to_csv
from ifspace.catalogue.design import Design
from ifspace.catalogue.evidence import Evidence, evidence, evidence_table
from ifspace.cli.latency import LatencyColumns
from ifspace.latency import BlockLatency
from ifspace.serialize import json_text
from ifspace.table import Table, heading

# Of each block; all are in JSON.
MOST_PUBLISHED: Final = 3


@dataclass(frozen=True)
class BestReport:
    """The chosen designs with the reason of each, best first.

    `trades`: of each design what the next better in each amount would cost; empty where that is not
    asked for. Then the designs of each width have a table. `time_of`: where latencies are shown.
    `limit`: the most rows of the table, None for all. `peak`: whether peak memory is shown, and
    `feature_map`: its side and type where it is shown in bytes too. `widths`: whether they are said
    even where all rows have the same. `evidence`: whether published networks of such blocks are
    shown.
    """

    rows: Sequence[tuple[Design, str]]
    trades: Sequence[Sequence[Trade]] = ()
    time_of: BlockLatency | None = None
    networks: bool = False
    limit: int | None = None
    peak: bool = False
    feature_map: tuple[int, str] | None = None
    widths: bool = False
    evidence: bool = False

    @cached_property
    def published(self) -> list[list[Evidence]]:
        """The published networks of the block of each row; none where they are not asked for."""
        return [evidence(design.sized) for design, _ in self.rows] if self.evidence else []

    @cached_property
    def columns(self) -> LatencyColumns:
        """The latencies of all rows, none without a source of them."""
        time_of = self.time_of
        if time_of is None:
            return LatencyColumns(None)
        return LatencyColumns([time_of(design.sized, design.stride) for design, _ in self.rows])

    @cached_property
    def peaks(self) -> list[int]:
        """The peak memory of all rows in bytes; none where it is not asked for."""
        if self.feature_map is None:
            return []
        return [peak_bytes(design, *self.feature_map) for design, _ in self.rows]

    @property
    def plain(self) -> dict[str, list[Any]]:
        """The further columns of files, by name."""
        peaks = {"peak_memory": self.peaks} if self.peaks else {}
        evidence = {"evidence": [len(rows) for rows in self.published]} if self.evidence else {}
        return {**peaks, **self.columns.plain, **evidence}

    def text(self) -> str:
        """Return the tables: the rows, those of each width for themselves, and the trades."""
        if not self.rows:
            return ""
        if not self.trades:
            shown = range(len(self.rows))[: self.limit]
            text = self._table(shown, widths=self.widths).text(keys=2 + self.networks)
            return text + self._evidence_text(shown)
        widths: dict[Any, list[int]] = {}
        for index, (design, _) in enumerate(self.rows):
            widths.setdefault(design.replaces, []).append(index)
        texts = []
        for indices in widths.values():
            several = len(widths) > 1 or self.widths
            text = heading(_title(self.rows[indices[0]][0])) if several else ""
            text += self._table(indices, widths=False).text(keys=2 + self.networks)
            trades = self._trades_table(indices)
            if trades.rows:
                text += "\n" + heading("The next better in each amount") + trades.text(keys=2)
            texts.append(text + self._evidence_text(indices))
        return "\n".join(texts)

    def markdown(self) -> str:
        """Return the tables in Markdown."""
        indices = range(len(self.rows))
        ranks = self.evidence or bool(self.trades)
        text = self._table(indices, ranks=ranks, widths=self.widths).markdown()
        if self.trades:
            text += f"\n{self._trades_table(indices).markdown()}"
        if self.evidence:
            text += f"\n{self._evidence_table(indices).markdown()}"
        return text

    def csv(self) -> str:
        """Return the designs as CSV, with the reasons; the trades are in JSON."""
        designs, reasons = [x for x, _ in self.rows], [reason for _, reason in self.rows]
        return to_csv(designs, reasons, self.plain)

    def records(self) -> list[dict[str, Any]]:
        """Return plain values, for JSON."""
        plain = self.plain
        records = [
            plain_design(design)
            | {name: cells[index] for name, cells in plain.items()}
            | {"why": reason}
            for index, (design, reason) in enumerate(self.rows)
        ]
        for record, entries in zip(records, self.published, strict=False):
            record["evidence"] = [entry.plain for entry in entries]
        for record, trades in zip(records, self.trades, strict=False):
            record["next_better"] = [_plain(trade) for trade in trades]
        return records

    def _table(self, indices: Sequence[int], ranks: bool = True, widths: bool = False) -> Table:
        rows = [self.rows[index] for index in indices]
        columns = {">peak bytes": self.peaks} if self.peaks else {}
        shown = {
            name: [cells[index] for index in indices]
            for name, cells in {**columns, **self.columns.shown}.items()
        }
        return designs_table(
            [design for design, _ in rows],
            [reason for _, reason in rows],
            "why~",
            ranks=ranks,
            networks=self.networks,
            peak=self.peak,
            widths=widths,
            more=shown,
        )

    def _evidence_text(self, indices: Sequence[int]) -> str:
        """Return the published networks of some rows, numbered as these are in their table."""
        if not self.evidence:
            return ""
        table = self._evidence_table(indices)
        if not table.rows:
            return "\nNo published network of such blocks is in the table.\n"
        return "\n" + table.text(keys=2)

    def _evidence_table(self, indices: Sequence[int]) -> Table:
        rows = [
            (number, entry)
            for number, index in enumerate(indices, 1)
            for entry in self.published[index]
        ]
        return evidence_table(rows, MOST_PUBLISHED)

    def _trades_table(self, indices: Sequence[int]) -> Table:
        """Return the trades of some rows, numbered as these are in their table.

        Rows with the same amounts have the same trades, which are there once.
        """
        numbers: dict[tuple[str, str, str], list[int]] = {}
        for number, index in enumerate(indices, 1):
            for trade in self.trades[index]:
                better = (change_text(name, *trade.changes[name]) for name in trade.better)
                costs = ", ".join(self._costs(self.rows[index][0], trade)) or "nothing"
                cells = (", ".join(better), str(trade.design.block), costs)
                numbers.setdefault(cells, []).append(number)
        rows = tuple((_ranges(alike), *cells) for cells, alike in numbers.items())
        return Table((">#", "better~", "block~", "costs~"), rows)

    def _costs(self, design: Design, trade: Trade) -> Iterator[str]:
        """Yield what a trade costs, a latency that is no longer known included."""
        for name in trade.worse:
            yield change_text(name, *trade.changes[name])
        if self.time_of is not None and self.time_of(design.sized, design.stride) is not None:
            other = trade.design
            if self.time_of(other.sized, other.stride) is None:
                yield "a latency that is not known"


def json_pieces(reports: Iterable[BestReport]) -> Iterator[str]:
    """Yield the JSON of rows that follow each other, piece by piece: the text of `json_text`.

    >>> "".join(json_pieces([])) == json_text({"designs": []})
    True
    """
    start, end = json_text({"designs": []}).split("]")
    yield start
    comma = ""
    for record in chain.from_iterable(report.records() for report in reports):
        text = json_text({"designs": [record]}).removeprefix(start)
        yield comma + text.rpartition("\n  ]")[0]
        comma = ","
    yield "\n  " * bool(comma) + f"]{end}"


def csv_pieces(reports: Iterable[BestReport]) -> Iterator[str]:
    """Yield the CSV of rows that follow each other, piece by piece, with one header."""
    for number, report in enumerate(reports):
        text = report.csv()
        yield text.partition("\n")[2] if number else text


def _ranges(numbers: Sequence[int]) -> str:
    """Return ascending numbers, those that follow each other as a range.

    >>> _ranges([1, 2, 3, 5])
    '1-3, 5'
    """
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][-1] == number - 1:
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return ", ".join("-".join(map(str, span)) for span in spans)


def _title(design: Design) -> str:
    stride = f", stride {design.stride}" if design.stride > 1 else ""
    return f"{design.channels:,} to {design.out_channels:,} channels{stride}"


def _plain(trade: Trade) -> dict[str, Any]:
    return {
        "amounts": list(trade.amounts),
        "block": str(trade.design.block),
        "changes": {
            name: [float(value) if name == LATENCY else value for value in pair]
            for name, pair in trade.changes.items()
        },
        "better": list(trade.better),
        "worse": list(trade.worse),
    }
