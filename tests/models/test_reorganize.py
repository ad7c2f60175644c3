"""Networks reorganized move by move: as predicted, and as the layouts of the papers."""

from functools import cache

import pytest
import torch
from models.movable_networks import IMAGE, NETWORKS, flat
from models.predictions import check_counts, check_gains, flop_macs, layout_on, with_depths
from models.zoo import ZOO, Entry, traced
from small_networks import params
from torch import nn

import ifspace.models as m
from ifspace.errors import SettingError
from ifspace.models.depths import TracedLayout
from ifspace.models.graph import Trace
from ifspace.models.reorganization import apply_reorganization, plan_reorganization
from ifspace.models.sources import network
from ifspace.models.tracing import trace
from ifspace.nn import named_network
from ifspace.stages.layout import Layout
from ifspace.stages.networks import mobilenet
from ifspace.stages.networks import network as layout_named
from ifspace.stages.organizer import Stopped, organize

pytestmark = pytest.mark.usefixtures("one_thread")

FIXED = {"torchvision:densenet121@224": 5}
# The last unit of a stage of other blocks was removed: nothing else identifies that stage.
UNSEEN = {"torchvision:inception_v3@299": 1}
# Networks of the same code as others here: only the counts of torch are compared.
COUNTED = (
    *("efficientnet_b1", "efficientnet_b2", "efficientnet_b3", "efficientnet_b4"),
    *("wide_resnet50_2", "resnet101", "resnet34", "mobilenet_v3_small"),
    *("vgg11", "vgg13", "vgg19", "vgg11_bn", "vgg13_bn", "vgg19_bn"),
)


@pytest.mark.slow
@pytest.mark.parametrize("entry", ZOO, ids=str)
def test_every_network_of_the_zoo(entry: Entry, capfd: pytest.CaptureFixture[str]) -> None:
    model, graph = traced(entry)
    structure = str(model)
    if str(entry) in FIXED:
        message = f"^no unit of the network can move: got {FIXED[str(entry)]} stages without one; "
        with pytest.raises(SettingError, match=message):
            plan_reorganization(model, graph)
        return
    plan = plan_reorganization(model, graph)
    assert (plan.start.params, plan.start.macs) == (graph.params, graph.macs)
    if moves_the_last(plan.start):
        assert plan.end.gain() - plan.start.gain() == pytest.approx(plan.trajectory.moved_gain)
    if isinstance(plan.end, Layout):
        changed = apply_reorganization(model, plan).model
        assert changed.layout == plan.end
    else:
        changed = with_depths(model, plan.end)
    if isinstance(plan.end, TracedLayout) and not entry.model.endswith(COUNTED):
        again = trace(changed, entry.image)
        fresh = layout_on(again, changed)
        seen = len(plan.end.stages) - UNSEEN.get(str(entry), 0)
        check_gains(fresh, plan.end if seen == len(plan.end.stages) else part(plan.end, seen))
        assert (again.params, again.macs) == (plan.end.params, plan.end.macs)
        assert organize(fresh).moves == ()
    check_counts(changed, plan.end, entry.image, (1, 10 if entry.image[1] == 32 else 1000))
    assert type(changed) is type(model)
    assert str(model) == structure
    assert capfd.readouterr() == ("", "")


def moves_the_last(start: TracedLayout | Layout) -> bool:
    """Return whether no unit follows those that move, as its field would change without them."""
    if isinstance(start, Layout):
        return True
    return all(stage.stage.end == len(stage.stage.units) - 1 for stage in start.stages)


def part(layout: TracedLayout, stages: int) -> TracedLayout:
    """Return the first stages of a layout; the others are counted with the rest."""
    rest = layout.stages[stages:]
    return TracedLayout(
        layout.stages[:stages],
        layout.rest_params + sum(stage.stage.params(stage.depth) for stage in rest),
        layout.rest_macs + sum(stage.stage.macs(stage.depth) for stage in rest),
    )


REFERENCES = [
    ("torchvision:vgg16", "vgg16", "5→1 4→2"),
    ("torchvision:vgg19", "vgg19", "5→1 4→2 3→1"),
    ("torchvision:resnet50", "resnet50", "3→1 3→1"),
    ("timm:mobilenetv1_100", "mobilenet", "4→1 4→2 4→3"),
]


def layout_of_reference(name: str) -> Layout:
    """Return the layout of a network as traced: MobileNet's stem stands in its first stage."""
    return mobilenet(224, stem_counts=True) if name == "mobilenet" else layout_named(name, 224)


@cache
def reference(model: str) -> tuple[nn.Module, Trace]:
    with torch.device("meta"):
        meta = network(model, (3, 224, 224))
    return meta, trace(meta, (3, 224, 224))


@pytest.mark.slow
@pytest.mark.parametrize("alpha", [1, 3, 10])
@pytest.mark.parametrize(("model", "name", "moves"), REFERENCES)
def test_trajectories_are_those_of_the_layouts(
    model: str, name: str, moves: str, alpha: float
) -> None:
    trajectory = plan_reorganization(*reference(model), alpha=alpha).trajectory
    expected = organize(layout_of_reference(name), alpha=alpha)
    assert alpha != 3 or " ".join(map(str, trajectory.moves)) == moves
    assert trajectory.stopped is expected.stopped
    for mine, theirs in zip(trajectory.moves, expected.moves, strict=True):
        assert (mine.source, mine.target, mine.depths) == (
            theirs.source,
            theirs.target,
            theirs.depths,
        )
        assert mine.min == pytest.approx(theirs.min, abs=1e-9, rel=0)
        assert mine.max == pytest.approx(theirs.max, abs=1e-9, rel=0)
    for here, there in zip(trajectory.layouts, expected.layouts, strict=True):
        assert (here.depths, here.params, here.macs) == (there.depths, there.params, there.macs)
        assert here.gain(alpha) == pytest.approx(there.gain(alpha), abs=1e-9, rel=0)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "name", "moves"), REFERENCES)
def test_every_state_can_be_built(model: str, name: str, moves: str) -> None:
    start, graph = reference(model)
    states = organize(layout_of_reference(name)).layouts
    assert len(states) == len(moves.split()) + 1
    for number, state in enumerate(states):
        plan = plan_reorganization(start, graph, moves=number)
        changed = with_depths(start, plan.end)
        assert params(changed) == state.params
        assert flop_macs(changed, (3, 224, 224)) == state.macs
        assert plan.end.depths == state.depths
        assert [layout.depths for layout in plan.states] == [
            layout.depths for layout in states[: number + 1]
        ]
        last = number == len(states) - 1
        assert plan.trajectory.stopped is (Stopped.NO_GAIN if last else Stopped.LIMIT)
    whole = m.reorganize(start, (3, 224, 224), moves=1)
    assert params(whole.model) == states[1].params
    assert whole.plan.end.macs == states[1].macs


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flat", "listed", "residual", "our blocks"])
def test_single_moves_give_the_same_trajectory(name: str) -> None:
    network = m.EditedNetwork.of(NETWORKS[name]().to("meta"))
    trajectory = m.reorganize(network, IMAGE).plan.trajectory
    assert len(trajectory.moves) > (name != "our blocks")
    for move in trajectory.moves:
        network = m.reorganize(network, IMAGE, moves=1)
        (taken_now,) = network.plan.trajectory.moves
        assert (taken_now.source, taken_now.target) == (move.source, move.target)
        assert (taken_now.min, taken_now.max) == pytest.approx((move.min, move.max))
        assert taken_now.depths == move.depths
    assert m.reorganize(network, IMAGE).plan.trajectory.moves == ()


@pytest.mark.slow
def test_without_moves_nothing_changes() -> None:
    for model in (flat(), named_network("vgg11", 32, seed=0)):
        better = m.reorganize(model, IMAGE, moves=0)
        same = better.model
        assert same is not model
        assert str(same) == str(model)
        for key, value in same.state_dict().items():
            assert torch.equal(value, model.state_dict()[key])
        assert better.edits.steps == ()
        assert better.plan.end.depths == better.plan.start.depths


@pytest.mark.slow
def test_units_below_a_threshold_are_removed() -> None:
    model = flat()
    better = m.reorganize(model, IMAGE, theta=10)
    smaller, plan = better.model, better.plan
    assert plan.trajectory.moves
    assert all(move.target is None for move in plan.trajectory.moves)
    assert sum(plan.end.depths) == sum(plan.start.depths) - len(plan.trajectory.moves)
    assert params(smaller) == plan.end.params < params(model)
    assert smaller(torch.zeros(2, *IMAGE)).shape == (2, 10)


@pytest.mark.slow
@pytest.mark.parametrize("cap", ["input", "twice", "none"])
@pytest.mark.parametrize("tie", ["earlier", "later"])
def test_caps_and_ties_are_those_of_the_organizer(cap: str, tie: str) -> None:
    plan = plan_reorganization(*reference("torchvision:resnet50"), cap=cap, tie=tie)
    expected = organize(layout_named("resnet50", 224), cap=cap, tie=tie)
    assert [(m.source, m.target) for m in plan.trajectory.moves] == [
        (m.source, m.target) for m in expected.moves
    ]
    ends = {"earlier": (5, 4, 4, 3), "later": (4, 5, 4, 3)}
    assert plan.other is not None
    assert (plan.end.depths, plan.other.end.depths) == (ends.pop(tie), *ends.values())
    assert (plan.sizes[0], plan.cap) == ((56, 56), cap)
