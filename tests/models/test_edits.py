"""What was done to a network goes with it, and can be done again."""

import copy
import json
import pickle

import pytest
import torch
from small_networks import resnet18
from torch import nn

from ifspace.block import Block
from ifspace.errors import SettingError
from ifspace.models.edits import STEPS, Edits, applied, attach, edits_of
from ifspace.models.sources import network
from ifspace.models.surgery import Replace
from ifspace.nn import named_network

pytestmark = pytest.mark.usefixtures("one_thread")
FIRST = Replace("3.conv1", Block.parse("DW+RPW(2,1/2)").at(8))
SECOND = Replace("5.conv1", Block.parse("DW+PW").at(8, 16), 2)


def test_steps_are_known_by_their_names():
    assert STEPS["replace"] is Replace
    assert all(name == each.step for name, each in STEPS.items())


def test_edits_go_with_copies_and_what_is_compiled():
    model = resnet18(8)
    attach(model, Edits("timm:resnet18", (3, 32, 32)))
    applied(model, FIRST, SECOND)
    wanted = Edits("timm:resnet18", (3, 32, 32), (FIRST, SECOND))
    for same in (
        model,
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.compile(model, backend="eager"),
    ):
        assert edits_of(same) == wanted
    assert "_ifspace_edits" not in model.state_dict()


def test_the_same_steps_make_the_same_structure():
    model, other = resnet18(8), resnet18(8)
    applied(model, FIRST, SECOND)
    for step in Edits.from_json(json.loads(json.dumps(edits_of(model).to_json()))).steps:
        step.apply(other)
    assert list(other.state_dict()) == list(model.state_dict())
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(other.eval()(x), model.eval()(x), rtol=0, atol=0)


def test_a_network_says_what_it_knows():
    assert edits_of(nn.Linear(2, 2)) == Edits()
    assert edits_of(named_network("vgg11", 32)) == Edits(image=(3, 32, 32))
    assert edits_of(network("vgg11", (3, 32, 32))) == Edits(image=(3, 32, 32))
    made = network("torchvision:resnet18", (3, 64, 96), classes=7)
    assert edits_of(made) == Edits("torchvision:resnet18", (3, 64, 96), (), 7)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("source"), "got no 'source'"),
        (lambda v: v.update(source=3), "got source 3"),
        (lambda v: v.update(image=[3, 0, 8]), "got image out of range"),
        (lambda v: v.update(image=[3, 8]), "not enough values"),
        (lambda v: v.update(classes=0), "got classes out of range"),
        (lambda v: v["steps"][0].update(step="paint"), "got no 'paint'"),
        (lambda v: v["steps"][0]["block"].update(block="XY"), "got unknown kind of convolution"),
    ],
)
def test_json_that_nobody_wrote_is_refused(change, said):
    values = Edits("vgg16", (3, 32, 32), (FIRST,), 10).to_json()
    change(values)
    with pytest.raises(SettingError, match=f"^steps that cannot be read: .*{said}") as refused:
        Edits.from_json(values)
    assert "\n" not in str(refused.value)
