import json

from samples import EMPTY, SMALL

from ifspace.catalogue import to_json_dict
from ifspace.catalogue.export import notes, ratio_text, to_csv, to_json, to_markdown


def test_the_json_keeps_its_contract() -> None:
    values = json.loads(to_json(SMALL))
    assert values == to_json_dict(SMALL)
    assert {"arguments", "funnel", "designs"} <= set(values)
    assert values["arguments"]["channels"] == 16
    funnel = values["funnel"]
    assert {"compositions", "after_patterns", "survivors", "by_length"} <= set(funnel)
    assert funnel["by_length"] == [0, 2, 1]
    types = {
        "composition": str,
        "block": str,
        "params": int,
        "macs_per_pixel": int,
        "activations_per_pixel": int,
        "field": list,
        "layers": int,
        "irreducible": bool,
    }
    for design in values["designs"]:
        for key, kind in types.items():
            assert type(design[key]) is kind
        for key in ("dominated_by", "same_as", "published_as"):
            assert design[key] is None or type(design[key]) is str
        assert [type(part) for part in design["field"]] == [int, int]


def test_every_setting_has_its_arguments_and_funnel() -> None:
    settings = to_json_dict(SMALL)["settings"]
    assert [each["arguments"]["channels"] for each in settings] == [16, 32]
    assert [each["funnel"]["survivors"] for each in settings] == [3, 1]


def test_one_design_is_one_line_of_json() -> None:
    lines = to_json(SMALL).splitlines()
    assert sum('"composition":' in line for line in lines) == len(SMALL.designs)
    assert json.loads(to_json(EMPTY))["designs"] == []


def test_an_empty_catalogue_has_headers_only() -> None:
    assert to_csv(EMPTY).count("\n") == 1
    assert to_markdown(EMPTY).count("\n") == 2


def test_markdown_has_the_funnel() -> None:
    assert "| survivors | 0 | 2 | 1 | 3 |" in to_markdown(SMALL)
    assert "C = 32, F = 64" in to_markdown(SMALL)


def test_ratios_read_as_fractions_of_the_convolution() -> None:
    texts = [ratio_text(ratio) for ratio in (1344 / 36864, 272 / 2304, 1 / 4, 1, 0.999, 2.5)]
    assert texts == ["1/27", "1/8.5", "1/4", "1.00", "1.00", "2.50"]


def test_notes_say_what_is_known() -> None:
    assert [notes(design) for design in SMALL.designs] == [
        "= DW+PW; dominated by DW+PW",
        "MobileNet",
        "",
        "",
    ]
