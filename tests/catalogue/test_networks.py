"""One network once: classes and representatives of a catalogue, and the counts in its funnel."""

import json
from dataclasses import replace
from pathlib import Path

import networkx as nx
import pyarrow.parquet
import pytest
from layered_graphs import isomorphic, layered_graph
from samples import DW_PW, GC_PW, SMALL, WIDER

from ifspace.block import Block
from ifspace.canonical import network_class
from ifspace.catalogue import Catalogue, Design, best, load, one_a_network, save
from ifspace.catalogue.dataset import METADATA_KEY, _checksum, remarked
from ifspace.catalogue.design import COLUMNS, mark_networks
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs

RESULTS = Path(__file__).parents[2] / "results"


def enumerated(channels: int, **arguments: object) -> Catalogue:
    return enumerate_designs([EnumerationSetting(channels=channels, **arguments)], jobs=1)


def short() -> tuple[Design, ...]:
    return enumerated(16, max_len=3).designs


@pytest.mark.parametrize(
    ("channels", "networks"),
    [
        (8, (0, 5, 10, 29, 60, 136)),
        (16, (0, 5, 10, 31, 74, 185)),
        pytest.param(64, (0, 5, 10, 31, 75, 204), marks=pytest.mark.slow),
        pytest.param(256, (0, 5, 10, 31, 76, 216), marks=pytest.mark.slow),
    ],
)
def test_the_numbers_of_distinct_networks(channels: int, networks: tuple[int, ...]) -> None:
    """Those of docs/concepts.md."""
    catalogue = enumerated(channels)
    (funnel,) = catalogue.funnels
    assert funnel.distinct_networks_by_length == networks
    assert funnel.distinct_networks == sum(networks)
    assert len({design.network for design in catalogue.designs}) == sum(networks)
    assert funnel.steps[-1] == ("distinct networks", networks, sum(networks))


@pytest.mark.slow
def test_networks_of_a_catalogue_are_those_of_isomorphism() -> None:
    classes: dict[str | None, list[nx.DiGraph]] = {}
    for design in enumerated(8, max_len=4).designs:
        classes.setdefault(design.network, []).append(layered_graph(design.sized))
    firsts: list[nx.DiGraph] = []
    for first, *others in classes.values():
        assert all(isomorphic(first, other) for other in others)
        assert not any(isomorphic(first, other) for other in firsts)
        firsts.append(first)
    assert len(firsts) == 44


def test_the_representative_has_the_fewest_layers_then_the_fewest_rolling_ones() -> None:
    designs = short()
    for design in designs:
        members = [other for other in designs if other.network == design.network]
        assert design.network == network_class(design.sized)
        first = min(
            members,
            key=lambda other: (
                len(other.block),
                other.composition.split("+").count("RPW"),
                designs.index(other),
            ),
        )
        assert design.representative == str(first.block)
    # GPW(8)+SH(8) is RPW(8,0): two layers stand for three.
    of = {design.composition: design.representative for design in designs}
    assert of["GPW+SH+GC"] == of["RPW+GC"] == "RPW(2,0)+GC(8)"
    assert of["DW+RPW+RPW"] == of["DW+RPW+GPW"] == "DW+RPW(4,0)+GPW(4)"


def test_one_row_a_network_and_what_it_stands_for() -> None:
    designs = short()
    rows = dict(one_a_network(designs))
    assert len(rows) == 15
    assert sum(1 + len(others) for others in rows.values()) == len(designs) == 22
    for design, others in rows.items():
        assert {other.network for other in others} <= {design.network}
        assert {design.representative} == {str(design.block)}
    # Of some of the designs the representative is one of them.
    shuffled = [design for design in designs if "SH" in design.kinds]
    assert all("SH" in design.kinds for design, _ in one_a_network(shuffled))
    # Designs for other widths, and those whose network is not known, are their own.
    network = replace(DW_PW, network="a"), replace(WIDER, network="a"), DW_PW, GC_PW
    assert len(one_a_network(network)) == 4


def test_best_gives_a_network_once() -> None:
    catalogue = enumerated(16, max_len=3)
    once, every = best(catalogue), best(catalogue, every_row=True)
    assert (len(once), len(every)) == (15, 22)
    assert len({design.network for design, _ in once}) == 15
    (why,) = [why for design, why in once if str(design.block) == "RPW(2,0)+GC(8)"]
    assert why.endswith("; 1 more way to write it")
    assert not any("to write it" in why for _, why in every)


def test_names_of_other_ways_stand_beside_the_network() -> None:
    rows = dict(one_a_network(enumerated(16, max_len=4).designs))
    (remark,) = [
        remarked(design, others)
        for design, others in rows.items()
        if any(other.composition == "GPW+SH+DW+GPW" for other in others)
    ]
    assert "to write it (GPW+SH+DW+GPW: Fog 3.2)" in remark


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_a_catalogue_of_an_older_schema_is_completed(schema: int, tmp_path: Path) -> None:
    catalogue = enumerated(8, max_len=3)
    save(catalogue, tmp_path / "new.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "new.parquet")
    about = json.loads(table.schema.metadata[METADATA_KEY]) | {"schema": schema}
    del about["checksum"]
    for setting in about["settings"]:
        del setting["floors"]
    if schema == 1:
        for funnel in about["funnels"]:
            del funnel["distinct_networks"], funnel["distinct_networks_by_length"]
    else:
        about["checksum"] = _checksum(about)
    old = table.drop_columns([name for name, column in COLUMNS.items() if column.since > schema])
    old = old.replace_schema_metadata({METADATA_KEY: json.dumps(about)})
    pyarrow.parquet.write_table(old, tmp_path / "old.parquet")
    assert load(tmp_path / "old.parquet") == catalogue


def test_networks_are_marked_again_the_same() -> None:
    designs = short()
    assert mark_networks(designs) == designs
    assert mark_networks(()) == ()
    assert SMALL.designs[0].network is None


def test_the_file_of_record_has_its_networks() -> None:
    catalogue = load(RESULTS / "catalogue-64.parquet")
    sizes = {design.network: 0 for design in catalogue.designs}
    assert len(sizes) == catalogue.funnels[0].distinct_networks
    texts = {design.representative for design in catalogue.designs}
    assert len(texts) == len(sizes)
    for text in sorted(filter(None, texts))[::40]:
        (network,) = {d.network for d in catalogue.designs if d.representative == text}
        assert network_class(Block.parse(text).at(64)) == network
