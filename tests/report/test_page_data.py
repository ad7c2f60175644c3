from dataclasses import replace
from pathlib import Path

import numpy as np
from report_samples import BASELINES
from samples import DW_RPW_RPW, SMALL

from ifspace.block import Block
from ifspace.catalogue.evidence import evidence
from ifspace.kinds import KINDS
from ifspace.report.page import (
    COLUMNS,
    page_data,
)
from ifspace.report.read import (
    Results,
    read,
)


def test_every_design_is_there_with_its_numbers(results: Results) -> None:
    data = page_data(results)
    designs = data["designs"]
    assert tuple(designs) == COLUMNS
    own = [n for n, baseline in enumerate(designs["baseline"]) if not baseline]
    assert [designs["block"][n] for n in own] == [str(design.block) for design in SMALL.designs]
    assert [designs["params"][n] for n in own] == [design.params for design in SMALL.designs]
    place = designs["block"].index(str(DW_RPW_RPW.block))
    assert data["texts"][designs["formula"][place]] == DW_RPW_RPW.params_formula
    assert data["texts"][designs["condition"][place]] == DW_RPW_RPW.field_condition
    assert designs["fields"][place] == ((3, 1), (3, 4), (3, 16))
    assert designs["setting"] == sorted(designs["setting"])


def test_published_networks_are_those_of_the_evidence(results: Results) -> None:
    data = page_data(results)
    designs = data["designs"]
    for block, evidence_of, number in zip(
        designs["block"], designs["evidence"], designs["setting"], strict=True
    ):
        setting = data["settings"][number]
        name, _, ratio = block.partition(", bottleneck ")
        widths = setting["channels"], setting["out"], ratio or setting["bottleneck"]
        sized = Block.parse(name).at(*widths, setting["dims"])
        shown = [
            (data["trained"][row]["network"], data["trained"][row]["error"], same)
            for row, same in data["published"][evidence_of]
        ]
        expected = [
            (entry.trained.network, entry.trained.error, entry.same_network)
            for entry in evidence(sized)
        ]
        assert shown == expected, block
    assert any(data["published"])


def test_settings_name_what_is_replaced(results: Results) -> None:
    first, second = page_data(results)["settings"]
    assert first["reference"] == 9 * 16 * 16
    # Two convolutions from 32 to 64 and from 64 to 64 channels.
    assert second["reference"] == 9 * (32 * 64 + 64 * 64)
    assert (second["bottleneck"], second["repeats"]) == ("1/4", 2)


def test_the_layers_of_the_page_read_as_the_layers_do(results: Results) -> None:
    data = page_data(results)
    for name in ("RPW(4,0)", "GPW(4)", "SH(4)", "DW", "PW"):
        layers = [layer for layer in data["layers"] if layer["name"] == name]
        assert layers, name
        for layer in layers:
            sized = Block.parse(name).at(layer["in"], layer["out"]).layers[0]
            starts = np.array(layer["starts"])[:, None]
            reads = (starts + np.arange(layer["fan"])) % layer["in"]
            assert np.array_equal(reads, sized.reads())
            assert layer["params"] == sized.params


def test_a_layer_is_kept_once(results: Results) -> None:
    layers = [tuple(map(str, layer.values())) for layer in page_data(results)["layers"]]
    assert len(set(layers)) == len(layers)


def test_baselines_are_beside_the_designs_of_their_width(results: Results) -> None:
    designs = page_data(results)["designs"]
    names = [
        b for b, baseline in zip(designs["block"], designs["baseline"], strict=True) if baseline
    ]
    assert names == [name for name in BASELINES if name != "DW+PW"]
    place = designs["block"].index(BASELINES[-1])
    inside = Block.parse("GPW(4)+SH(4)+DW+GPW(4)").at(16, bottleneck="1/4")
    assert designs["params"][place] == inside.params
    assert designs["setting"][place] == 0


def test_times_of_feature_maps_are_not_those_of_sequences(places: Path) -> None:
    data = page_data(read(places))
    assert [setting["dims"] for setting in data["settings"]] == [2, 1, 2]
    designs = data["designs"]
    at = [n for n, setting in enumerate(designs["setting"]) if setting == 1]
    assert [designs["block"][n] for n in at] == ["DW+PW"], "a design, and nothing beside it"
    assert {0, 2} == {s for s, b in zip(designs["setting"], designs["baseline"], strict=True) if b}


def test_a_block_with_a_width_inside_is_measured_under_its_whole_name(places: Path) -> None:
    data = page_data(read(places))
    designs = data["designs"]
    own = [n for n, baseline in enumerate(designs["baseline"]) if not baseline]
    names = [(designs["block"][n], designs["candidate"][n]) for n in own]
    assert names == [("DW+PW", None), ("DW+PW", None), ("PW+DW+PW", "PW+DW+PW, bottleneck 1/4")]
    assert "time" in data["benches"][0]["rows"]["PW+DW+PW, bottleneck 1/4"]
    assert "PW+DW+PW, bottleneck 1/4" in data["sources"][0]["blocks"]


def test_measurements_have_their_shape_and_mode(results: Results) -> None:
    data = page_data(results)
    forward = data["benches"][0]
    assert (forward["channels"], forward["out"], forward["stride"]) == (16, 16, 1)
    assert forward["mode"] == "forward"
    median, low, high, unit = forward["rows"]["CONV"]["time"]
    assert (low < median < high, unit) == (True, "ms")
    (sources,) = data["sources"]
    assert (sources["channels"], sources["stride"]) == (16, 1)
    assert sources["blocks"]["DW+PW"].startswith("class Unit")


def test_forms_are_shapes_of_their_own_with_what_depends_on_them(results: Results) -> None:
    (bench,) = results.blocks
    fused = tuple({**row, "form": "fused"} for row in bench.rows if row["candidate"] == "DW+PW")
    data = page_data(replace(results, blocks=(replace(bench, rows=(*bench.rows, *fused)),)))
    plain, *_, last = data["benches"]
    assert last["what"] == f"{plain['what']}, fused"
    assert last["rows"].keys() == {"DW+PW"}
    assert {"params", "time"} <= plain["rows"]["DW+PW"].keys()
    assert last["rows"]["DW+PW"].keys() <= {"time", "least time", "predicted time", "peak memory"}


def test_kinds_are_those_a_block_is_made_of(results: Results) -> None:
    assert page_data(results)["kinds"] == [k for k in KINDS if k != "CONV"]
