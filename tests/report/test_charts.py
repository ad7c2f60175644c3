import warnings

import vl_convert

from ifspace.report.page import (
    STEPS,
    charts,
)
from ifspace.report.read import Results


def test_every_part_with_a_chart_has_one(results: Results) -> None:
    found = charts(results)
    assert {part: len(each) for part, each in found.items()} == {
        "funnel": 2,
        "layouts": 1,
        "energy": 1,
        "kernels": 1,
    }
    names = [name for each in found.values() for name, _, _ in each]
    assert len(set(names)) == len(names)


def test_every_chart_is_one_that_vega_lite_draws(results: Results) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for every in charts(results).values():
            for name, said, spec in every:
                drawn = vl_convert.vegalite_to_svg(spec | {"width": 600})
                assert drawn.startswith("<svg"), name
                assert said


def test_the_numbers_are_those_of_the_files(results: Results) -> None:
    found = charts(results)
    values = found["funnel"][0][2]["data"]["values"]
    counts = {(each["step"], each["layers"]): each["count"] for each in values}
    assert counts[STEPS[0], 3] == 216
    assert counts[STEPS[2], 2] == 2
    assert (STEPS[2], 1) not in counts, "no logarithm of nothing"
    depths = [each for each in found["layouts"][0][2]["data"]["values"] if each["step"] == 1]
    assert [(each["stage"], each["depth"]) for each in depths] == [
        ("stage 1: 32 pixels", 2),
        ("stage 2: 16 pixels", 3),
    ]
    shares = {e["candidate"]: e["share"] for e in found["kernels"][0][2]["data"]["values"][:3]}
    assert shares == {"ours": 0.3125, "dense": 0.25, "grouped": 0.5}
    assert found["energy"][0][2]["data"]["values"][0]["energy"] == 100
