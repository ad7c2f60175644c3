"""What holds of every design, by witnesses of its own: torch, plain comparison, other processes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from witness import autograd_field

from ifspace.block import Block
from ifspace.catalogue import Catalogue, Design, save
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate import search
from ifspace.enumerate.search import enumerate_designs
from ifspace.reach import compact, irreducible, quality, removable_layers

WITNESSED = [
    {"channels": 8, "max_len": 4},
    {"channels": 12, "max_len": 3},
    {"channels": 8, "max_len": 3, "dims": 1, "kernel": 5, "repeats": 2},
    {"channels": 8, "out_channels": 12, "max_len": 3},
    {"channels": 8, "out_channels": 16, "max_len": 3, "bottleneck": "1/2", "repeats": 2},
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    # The blocks are tiny: handing them to several threads takes longer than computing them.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def enumerated(**arguments: object) -> Catalogue:
    return enumerate_designs([EnumerationSetting(**arguments)], jobs=1)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", WITNESSED, ids=str)
def test_the_field_of_every_design_is_confirmed_by_differentiation(
    arguments: dict[str, object],
) -> None:
    catalogue = enumerated(**arguments)
    (setting,) = catalogue.settings
    assert catalogue.designs
    for design in catalogue.designs:
        seen, side = autograd_field(design.sized)
        assert len(seen) == design.out_channels
        assert all(channels == set(range(design.channels)) for channels in seen), design.block
        assert side == setting.reference_field.side == design.field[0], design.block


@pytest.mark.slow
@pytest.mark.parametrize(("channels", "length"), [(8, 4), (12, 3)])
def test_no_design_keeps_its_field_without_a_layer(channels: int, length: int) -> None:
    for design in enumerated(channels=channels, max_len=length).designs:
        layers = design.block.layers
        for index in range(len(layers)):
            rest = Block(layers[:index] + layers[index + 1 :]).at(channels)
            seen, side = autograd_field(rest)
            assert side < 3 or min(map(len, seen)) < channels, (design.block, index)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 8, "max_len": 5},
        {"channels": 12, "max_len": 4, "patterns": "keep"},
        {"channels": 12, "max_len": 3, "repeats": 2},
        {"channels": 8, "out_channels": 16, "max_len": 4, "bottleneck": "1/2"},
        {"channels": 12, "max_len": 4, "rule": "early-stop"},
    ],
    ids=str,
)
def test_quality_compactness_and_irreducibility_are_those_of_reach(
    arguments: dict[str, object],
) -> None:
    catalogue = enumerated(**arguments)
    (setting,) = catalogue.settings
    assert catalogue.designs
    for design in catalogue.designs:
        block = design.sized
        assert quality(block, setting.reference_field), design.block
        assert design.irreducible == irreducible(block, setting.reference_field), design.block
        if setting.rule == "compact":
            assert compact(block, setting.reference_field), design.block
            assert removable_layers(block, setting.reference_field) == ()
        assert design.params == block.params
        assert design.macs_per_pixel == block.macs_per_pixel(design.stride)
        assert design.activations_per_pixel == block.activations_per_pixel(design.stride)


@pytest.mark.parametrize(
    "arguments", [{"channels": 16, "max_len": 5}, {"channels": 24, "max_len": 4, "stride": 2}]
)
def test_dominated_agrees_with_a_comparison_of_all_pairs(
    arguments: dict[str, object],
) -> None:
    designs = enumerated(**arguments).designs

    def costs(design: Design) -> tuple[int, ...]:
        return (design.params, design.macs_per_pixel, design.activations_per_pixel, design.layers)

    for design in designs:
        mine = costs(design)
        better = (
            other.composition
            for other in designs
            if costs(other) != mine and all(map(int.__le__, costs(other), mine))
        )
        assert design.dominated_by == next(better, None)
    assert {design.dominated_by is None for design in designs} == {True, False}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"channels": 16, "max_len": 5},
        {"channels": 12, "max_len": 4, "repeats": 2},
        {"channels": 12, "max_len": 4, "rule": "early-stop", "permutation": "free"},
    ],
    ids=str,
)
def test_the_catalogue_is_the_same_bytes_for_any_number_of_workers(
    arguments: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [EnumerationSetting(**arguments), EnumerationSetting(channels=8, max_len=3)]
    files = []

    def enumerate_and_save(jobs: int) -> list[tuple[int, int]]:
        progress: list[tuple[int, int]] = []
        catalogue = enumerate_designs(
            settings, jobs=jobs, progress=lambda *call: progress.append(call)
        )
        files.append(tmp_path / f"{len(files)}.parquet")
        save(catalogue, files[-1])
        return progress

    enumerate_and_save(1)
    # Every bit of work is worth a worker, and is split into small shards.
    monkeypatch.setattr(search, "WORTH_WORKERS_S", 0)
    monkeypatch.setattr(search, "SHARD_S", 1e-6)
    for jobs in (1, 2):
        progress = enumerate_and_save(jobs)
        assert len(progress) > 4, "the work was not split"
    assert len({file.read_bytes() for file in files}) == 1


@pytest.mark.slow
def test_worker_processes_are_really_used(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    over_shards = search.over_shards

    def recording(function: object, shards: list[object], jobs: int, progress: object) -> object:
        calls.append((len(shards), jobs))
        return over_shards(function, shards, jobs, progress)

    monkeypatch.setattr(search, "over_shards", recording)
    setting = EnumerationSetting(channels=8, max_len=3)
    small = enumerate_designs([setting], jobs=2)
    assert {jobs for _, jobs in calls} == {1}, "so little work is done sooner in one process"
    monkeypatch.setattr(search, "WORTH_WORKERS_S", 0)
    monkeypatch.setattr(search, "SHARD_S", 1e-6)
    calls.clear()
    assert enumerate_designs([setting], jobs=2) == small
    assert any(shards > 1 and jobs == 2 for shards, jobs in calls)


def test_settings_are_kept_apart_and_in_order() -> None:
    settings = [EnumerationSetting(channels=c, max_len=3) for c in (16, 12, 16)]
    together = enumerate_designs(settings, jobs=1)
    alone = [enumerate_designs([setting], jobs=1) for setting in settings]
    assert together.settings == tuple(settings)
    assert together.designs == tuple(design for catalogue in alone for design in catalogue.designs)
    assert together.funnels == tuple(catalogue.funnels[0] for catalogue in alone)
