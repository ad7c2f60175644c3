import warnings

import pytest
import vl_convert

from ifspace.report.page import (
    STEPS,
    charts,
)
from ifspace.report.read import Results


def test_every_part_with_a_chart_has_one(results: Results) -> None:
    charts_of = charts(results)
    assert {part: len(drawings) for part, drawings in charts_of.items()} == {
        "funnel": 2,
        "layouts": 1,
        "energy": 1,
        "kernels": 1,
    }
    names = [name for drawings in charts_of.values() for name, _, _ in drawings]
    assert len(set(names)) == len(names)


@pytest.mark.slow
def test_vega_lite_draws_every_chart(results: Results) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for every in charts(results).values():
            for name, text, spec in every:
                drawn = vl_convert.vegalite_to_svg(spec | {"width": 600})
                assert drawn.startswith("<svg"), name
                assert text


def test_the_numbers_are_those_of_the_files(results: Results) -> None:
    charts_of = charts(results)
    values = charts_of["funnel"][0][2]["data"]["values"]
    counts = {(point["step"], point["layers"]): point["count"] for point in values}
    assert counts[STEPS[0], 3] == 216
    assert counts[STEPS[2], 2] == 2
    assert (STEPS[2], 1) not in counts, "no logarithm of nothing"
    depths = [point for point in charts_of["layouts"][0][2]["data"]["values"] if point["step"] == 1]
    assert [(stage["stage"], stage["depth"]) for stage in depths] == [
        ("stage 1: 32 pixels", 2),
        ("stage 2: 16 pixels", 3),
    ]
    shares = {e["candidate"]: e["share"] for e in charts_of["kernels"][0][2]["data"]["values"][:3]}
    assert shares == {"ours": 0.3125, "dense": 0.25, "grouped": 0.5}
    assert charts_of["energy"][0][2]["data"]["values"][0]["energy"] == 100
