"""The rows: what came of every step of every network, in a file that is written at once."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from threading import Lock
from typing import Self

from experiments.coverage.networks import Candidate
from experiments.coverage.steps import Outcome, needs
from ifspace.models.graph import ImageSize
from ifspace.storage import read_csv, replacing
from ifspace.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """What came of a step: see `Outcome`; `seconds` of processor time; `image` as CxHxW."""

    network: str
    family: str
    params: int
    image: str
    step: str
    status: str
    seconds: float | None
    why: str
    commit: str


class Rows:
    """The rows of a file, by network and step."""

    def __init__(self, path: Path, rows: Iterable[Row]) -> None:
        self._path = path
        self._lock = Lock()
        self._rows = {(row.network, row.step): row for row in rows}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the rows of a file, none if it does not exist."""
        if not path.exists():
            return cls(path, ())
        records = [record for _, record in read_csv(path).rows]
        return cls(
            path,
            [
                Row(
                    **{
                        **record,
                        "params": int(record["params"]),
                        "seconds": float(record["seconds"]) if record["seconds"] else None,
                    }  # type: ignore[arg-type]
                )
                for record in records
            ],
        )

    def get(self, network: str, step: str) -> Row | None:
        """Return the row of a step of a network, None if there is none."""
        return self._rows.get((network, step))

    def of(self, network: str) -> list[Row]:
        """Return the rows of a network."""
        with self._lock:
            return [row for (name, _), row in self._rows.items() if name == network]

    def seconds(self, network: str, step: str) -> float:
        """Return the processor time of a step; 0 if it was not done."""
        row = self.get(network, step)
        return 0 if row is None else row.seconds or float("inf")

    def left(self, network: str, steps: Sequence[str]) -> list[str]:
        """Return which steps of a network are to be done: those without a row that can be done.

        What is to be loaded is saved again: files are kept no longer than a run.
        """
        failed = [row.step for row in self.of(network) if row.status != "yes"]

        def is_left(step: str) -> bool:
            is_known = (network, step) in self._rows
            return not is_known and not any(needs(step, earlier) for earlier in failed)

        loaded = {step.replace("load", "save") for step in steps if is_left(step)}
        return [step for step in steps if is_left(step) or step in loaded]

    def add(self, network: Candidate, image: ImageSize, outcome: Outcome, commit: str) -> None:
        """Add the outcome of a step and write the file."""
        row = Row(
            network.network,
            network.family,
            network.params,
            "x".join(map(str, image)),
            outcome.step,
            outcome.status,
            outcome.seconds,
            outcome.why,
            commit,
        )
        with self._lock:
            self._rows[row.network, row.step] = row
            self._write()

    def forget(self, names: Collection[str], networks: Collection[str]) -> None:
        """Leave out the rows of some networks with such a status or step, and of what needs it."""
        gone = {
            key
            for key, row in self._rows.items()
            if not {row.status, row.step}.isdisjoint(names) and row.network in networks
        }
        self._rows = {
            (network, step): row
            for (network, step), row in self._rows.items()
            if not any(
                network == name and (step == earlier or needs(step, earlier))
                for name, earlier in gone
            )
        }

    def commits(self) -> list[str]:
        """Return the commits at which the rows were written, in that order."""
        return list(dict.fromkeys(row.commit for row in self._rows.values()))

    def _write(self) -> None:
        columns = tuple(field.name for field in fields(Row))
        with replacing(self._path) as temporary:
            temporary.write_text(Table(columns, tuple(map(astuple, self._rows.values()))).csv())
