from torch import nn

import ifspace.models as m
from ifspace.models.analysis import (
    OtherParams,
    other_params,
)
from ifspace.models.analyze_text import findings


def said_of(model: nn.Module, side: int) -> dict[str, str]:
    report = m.analyze(model, (8, side, side))
    return dict(findings(report, other_params(model, report)))


def test_pointwise_layers_that_add_nothing_are_counted_alone() -> None:
    flat = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 4, 1))
    assert said_of(flat, 8)["adds nothing"] == "2 of 3 layers, all of them 1×1"
    both = nn.Sequential(*flat[:2], nn.Conv2d(8, 8, 3, padding=1))
    assert said_of(both, 2)["adds nothing"] == "2 of 3 layers, 1 of them 1×1: 2"
    assert said_of(both[:1], 2)["adds nothing"] == "no layer"


def test_what_sees_no_further_than_the_image_is_said() -> None:
    row = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1))
    assert said_of(row, 5)["past the image"] == (
        "no output sees more than the 5×5 pixels of the image"
    )
    assert said_of(row, 4)["past the image"] == "from 1 on outputs see more than its 4×4 pixels"
    assert said_of(row, 4)["receptive field"] == "up to 5×5 pixels of the image"
    assert said_of(row, 5)["saturated"] == "no stage"
    assert said_of(row, 3)["saturated"] == (
        "stage 1: the last unit sees no more than the one before"
    )


def test_weights_that_are_shared_are_not_told_apart() -> None:
    norm = nn.BatchNorm2d(8)
    row = nn.Sequential(nn.Conv2d(8, 8, 1), norm, nn.Conv2d(8, 8, 3), nn.PReLU(), nn.PReLU())
    row[4].weight = row[3].weight
    report = m.analyze(row, (8, 5, 5))
    assert other_params(row, report) == OtherParams()
    assert dict(findings(report, OtherParams()))["other"] == "17 parameters outside the layers"
