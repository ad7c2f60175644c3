"""The runs of a tournament: a network for each block and seed, a file in a folder for each run.

The network has a 3x3 stem, up to three stages of `DEPTH` residual blocks, and an average and a
dense layer behind them. It has one width everywhere, and stages end in a max pooling: every block
is the catalogue's own at its width, all shortcuts are identities, and no layer but the blocks mixes
channels between stem and head, which would give a field to blocks that lack it. Batch norm and ReLU
are behind every layer, the last ReLU of a block behind the sum.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from time import perf_counter, process_time
from typing import Any, Final
from zlib import crc32

import torch

from experiments.training.check import train_check
from experiments.training.data import Data, cifar_binary, digits
from experiments.training.schedules import Schedule
from experiments.training.tournament.pairs import DEPTH, Contestant, Pair
from ifspace.errors import IfspaceError, OutputError
from ifspace.folder import LocalFolder
from ifspace.models.listing import layer_list
from ifspace.models.tracing import trace
from ifspace.nn.network import NetworkStyle, build_network
from ifspace.parallel import Progress, as_completed, workers
from ifspace.scores.layers import LayerList
from ifspace.serialize import from_plain, json_text, to_plain
from ifspace.stages.layout import Layout
from ifspace.stages.networks import halved, make_layout, styled

STAGES: Final = 3
# "variance": blocks begin with their shortcut alone, without which some do not train at all.
STYLE: Final = NetworkStyle(residual=1, start="variance")
# Of the digits: 1,438 images to test on tell smaller differences than 360 would, and 359 to train
# on leave more to be told.
DIGITS_TEST_SHARE: Final = 0.8
_SUFFIX: Final = ".json"
# Torch's generators are the whole process's: where a backend has threads, they take turns.
_ONE_AT_A_TIME: Final = Lock()


@dataclass(frozen=True)
class Tournament:
    """Who meets, and how they are trained; `folder`: of CIFAR, None for the digits."""

    pairs: tuple[Pair, ...]
    schedule: Schedule
    seeds: int
    folder: Path | None = None

    @property
    def contestants(self) -> tuple[Contestant, ...]:
        """All blocks, pair by pair."""
        return tuple(one for pair in self.pairs for one in (pair.passes, pair.fails))

    @property
    def data(self) -> Data:
        """The images.

        Raises: as `cifar_binary` and `digits` do.
        """
        return images_in(self.folder)

    @property
    def setting(self) -> dict[str, Any]:
        """What decides a run beside its block and its seed."""
        layout = network_of(self.contestants[0], self.data)
        schedule = to_plain(self.schedule)
        return {
            "data": f"{self.data.name}, checksum {_checksum_of(self.data):08x}",
            "sides": "/".join(str(stage.side) for stage in layout.stages),
            "depth": DEPTH,
            "width": self.contestants[0].channels,
            "torch": torch.__version__,
            **{key: value for key, value in schedule.items() if key not in ("name", "reference")},
        }


@dataclass(frozen=True)
class Row:
    """A trained network: `processor_s` and `wall_s` are the seconds that the run took."""

    block: str
    seed: int
    accuracy_percent: float
    train_loss: float
    params: int
    macs: int
    processor_s: float
    wall_s: float


def network_of(contestant: Contestant, data: Data) -> Layout:
    """Return the network of a block.

    Raises: SettingError for images that are not square.
    """
    inputs, side, _ = data.shape
    data.enlarged(side, inputs)  # raises for images that are not square
    sides = halved(side, min(STAGES, max(1, side.bit_length() - 1)))
    ends = styled("plain", inputs, contestant.channels, side, data.classes)
    widths, depths = [contestant.channels] * len(sides), [DEPTH] * len(sides)
    return make_layout([contestant.block] * len(sides), sides, widths, depths, stem_and_head=ends)


def layers_of(contestant: Contestant, data: Data) -> LayerList:
    """Return the convolutions of the network of a block."""
    model = build_network(network_of(contestant, data), STYLE, seed=0)
    return layer_list(trace(model, data.shape))


def run_tournament(
    tournament: Tournament,
    folder: LocalFolder,
    jobs: int | None = None,
    progress: Progress | None = None,
) -> tuple[Row, ...]:
    """Train what has no row in the folder yet, and return all rows, contestant by contestant.

    A row is written when its network is trained; where the work is done is the caller's to say, as
    `ifspace.parallel` does. The rows but for their seconds depend on neither that nor the order.

    Raises: OutputError for a file that is damaged, of another tournament, or none of one.
    """
    setting = tournament.setting
    runs = [(one, seed) for seed in range(tournament.seeds) for one in tournament.contestants]
    with folder.locked():
        rows = _rows_in(folder, setting, runs)
        shards = [
            _Shard(tournament, *run) for run in runs if _name(str(run[0]), run[1]) not in rows
        ]
        done = len(runs) - len(shards)
        for _, row in as_completed(_train, shards, workers(jobs)):
            folder.write(_name(row.block, row.seed), _text(setting, row).encode())
            rows[_name(row.block, row.seed)] = row
            done += 1
            if progress is not None:
                progress(done, len(runs))
    return tuple(
        rows[_name(str(one), seed)]
        for one in tournament.contestants
        for seed in range(tournament.seeds)
    )


@dataclass(frozen=True)
class _Shard:
    tournament: Tournament
    contestant: Contestant
    seed: int


def _train(shard: _Shard) -> Row:
    with _ONE_AT_A_TIME:
        return _trained(shard)


def _trained(shard: _Shard) -> Row:
    started, processor = perf_counter(), process_time()
    data = shard.tournament.data
    layout = network_of(shard.contestant, data)
    name = str(shard.contestant)
    with _deterministic():
        (run,) = train_check(
            {name: lambda seed: build_network(layout, STYLE, seed=seed)},
            data,
            shard.tournament.schedule,
            (shard.seed,),
            threads=1,
        )
    return Row(
        name,
        shard.seed,
        run.accuracy_percent,
        run.train_loss,
        run.params,
        run.macs,
        round(process_time() - processor, 2),
        round(perf_counter() - started, 2),
    )


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@cache  # a worker trains many networks on the same images
def images_in(folder: Path | None) -> Data:
    """Return CIFAR from a folder, or the digits.

    Raises: as `cifar_binary` and `digits` do.
    """
    return digits(DIGITS_TEST_SHARE) if folder is None else cifar_binary(folder)


@cache
def _checksum_of(data: Data) -> int:
    checksum = 0
    for part in (data.train_images, data.train_labels, data.test_images, data.test_labels):
        checksum = crc32(part.contiguous().numpy().tobytes(), checksum)
    return checksum


def _name(block: str, seed: int) -> str:
    """Return the name of the file of a run."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', block).strip('-')}.seed{seed}{_SUFFIX}"


def _text(setting: Mapping[str, Any], row: Row) -> str:
    content = {"setting": dict(setting), "row": to_plain(row)}
    return json_text(content | {"checksum": _checksum(content)})


def _checksum(content: Mapping[str, Any]) -> str:
    return f"{crc32(json.dumps(content, sort_keys=True).encode()):08x}"


def _rows_in(
    folder: LocalFolder, setting: Mapping[str, Any], runs: Iterable[tuple[Contestant, int]]
) -> dict[str, Row]:
    """Return the rows of these runs that are in a folder, by the names of their files."""
    runs_by_name = {_name(str(one), seed): (str(one), seed) for one, seed in runs}
    rows = {}
    for name in folder.names():
        if name.startswith("."):
            continue
        if not name.endswith(_SUFFIX):
            raise _refused(folder, name, "another file")
        try:
            content = json.loads(folder.read(name))
            checksum = content.pop("checksum")
            row = from_plain(Row, content["row"], name)
            there = content["setting"]
            if checksum != _checksum(content) or not isinstance(there, dict):
                raise ValueError(name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IfspaceError):
            raise _refused(folder, name, "damaged") from None
        if there != setting:
            differing = [key for key in {**there, **setting} if there.get(key) != setting.get(key)]
            values = f"{there.get(differing[0])}, not {setting.get(differing[0])}"
            raise _refused(folder, name, f"of another tournament: {differing[0]} {values}")
        if runs_by_name.get(name, (row.block, row.seed)) != (row.block, row.seed):
            raise _refused(folder, name, f"the row of {row.block}, seed {row.seed}")
        if name in runs_by_name:  # others are of more pairs or seeds
            rows[name] = row
    return rows


def _refused(folder: LocalFolder, name: str, got: str) -> OutputError:
    return OutputError.because(
        "folder of runs with a file that is no row of this tournament",
        got=f"{name} ({got})",
        allowed="rows that the same command wrote",
        remedy="remove the file, which trains that network again, or give another folder",
    )
