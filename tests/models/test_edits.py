"""The record of a network: its edits, which can be repeated on another network."""

import copy
import json
import pickle

import pytest
import torch
from small_networks import resnet18
from torch import nn

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.models.edits import STEPS, EditedNetwork, Edits
from ifspace.models.sources import from_source, network
from ifspace.models.surgery import Replace
from ifspace.nn import named_network

pytestmark = pytest.mark.usefixtures("one_thread")
FIRST = Replace("3.conv1", Block.parse("DW+RPW(2,1/2)").at(8))
SECOND = Replace("5.conv1", Block.parse("DW+PW").at(8, 16), 2)


def test_steps_have_their_names():
    assert STEPS["replace"] is Replace
    assert all(name == step.step for name, step in STEPS.items())


def test_steps_are_recorded_beside_the_module():
    model = resnet18(8)
    attributes = set(vars(model))
    network = EditedNetwork(model, Edits("timm:resnet18", (3, 32, 32))).apply(FIRST, SECOND)
    edits = Edits("timm:resnet18", (3, 32, 32), (FIRST, SECOND))
    assert network.model is model
    for same in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert same.edits == edits
    assert set(vars(model)) == attributes
    assert EditedNetwork.of(torch.compile(model, backend="eager")).model is model


def test_the_same_steps_make_the_same_structure():
    other = resnet18(8)
    edited = EditedNetwork.of(resnet18(8)).apply(FIRST, SECOND)
    model = edited.model
    for step in Edits.from_json(json.loads(json.dumps(edited.edits.to_json()))).steps:
        step.apply(other)
    assert list(other.state_dict()) == list(model.state_dict())
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(other.eval()(x), model.eval()(x), rtol=0, atol=0)


@pytest.mark.slow
def test_a_network_records_its_source():
    assert EditedNetwork.of(nn.Linear(2, 2)).edits == Edits()
    of_papers = Edits(image=(3, 32, 32))
    assert EditedNetwork.of(named_network("vgg11", 32)).edits == of_papers
    assert EditedNetwork.of(network("vgg11", (3, 32, 32))).edits == of_papers
    assert from_source("vgg11", (3, 32, 32)).edits == of_papers
    resnet = from_source("torchvision:resnet18", (3, 64, 96), classes=7)
    assert resnet.edits == Edits("torchvision:resnet18", (3, 64, 96), (), 7)
    assert EditedNetwork.of(resnet.model).edits == Edits()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("source"), "got missing field, 'source'"),
        (lambda v: v.update(source=3), "got wrong value of source, 3"),
        (lambda v: v.update(image=[3, 0, 8]), r"got image\[1\] out of range, 0"),
        (lambda v: v.update(image=[3, 8]), r"got wrong value of image, \[3, 8\]"),
        (lambda v: v.update(classes=0), "got classes out of range"),
        (lambda v: v["steps"][0].update(step="paint"), r"got unknown steps\[0\]\.step, 'paint'"),
        (
            lambda v: v["steps"][0]["block"].update(block="XY"),
            r"got .*0\]\.block\.block: unknown kind",
        ),
    ],
)
def test_malformed_json_is_an_error(change, message):
    values = Edits("vgg16", (3, 32, 32), (FIRST,), 10).to_json()
    change(values)
    with pytest.raises(SettingError, match=f"^steps that cannot be read: .*{message}") as raised:
        Edits.from_json(values)
    assert "\n" not in str(raised.value)
