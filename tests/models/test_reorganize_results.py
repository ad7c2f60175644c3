"""Reorganized networks: what they keep, training, export and further edits."""

import copy
import io
import pickle

import pytest
import torch
from models.movable_networks import IMAGE, NETWORKS, flat
from models.predictions import check_counts, check_gains, layout_of
from small_networks import params, resnet18, vgg
from torch import nn

import ifspace.models as m
from ifspace.models.depths import TracedLayout
from ifspace.models.edits import Edits
from ifspace.models.sources import from_source, network
from ifspace.models.tracing import trace
from ifspace.nn import Network, named_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_the_users_network_is_unchanged() -> None:
    for model in (resnet18(8), named_network("mobilenet", 32, seed=0)):
        model.eval()
        modules, weights = dict(model.named_modules()), copy.deepcopy(model.state_dict())
        attributes = set(vars(model))
        changed = m.reorganize(model, IMAGE).model
        assert type(changed) is type(model)
        assert dict(model.named_modules()) == modules
        assert list(model.state_dict()) == list(weights)
        assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
        assert set(vars(model)) == set(vars(changed)) == attributes
        assert not any(module.training for module in (*model.modules(), *changed.modules()))
        shared = {id(parameter) for parameter in model.parameters()} & {
            id(parameter) for parameter in changed.parameters()
        }
        assert not shared


@pytest.mark.slow
def test_the_seed_draws_the_new_weights_and_nothing_else() -> None:
    for model in (resnet18(8), named_network("vgg11", 32, seed=0)):
        before = torch.get_rng_state()
        one, same, other = (m.reorganize(model, IMAGE, seed=seed).model for seed in (1, 1, 2))
        assert torch.equal(torch.get_rng_state(), before)
        pairs = zip(one.state_dict().values(), same.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        differ = [
            key
            for key, value in one.state_dict().items()
            if not torch.equal(value, other.state_dict()[key])
        ]
        assert differ
        assert all("weight" in key or "bias" in key for key in differ)


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        NETWORKS["residual"],
        NETWORKS["our blocks"],
        lambda: vgg(8),
        NETWORKS["written"],
        lambda: named_network("mobilenet", 32, seed=0),
    ],
)
def test_a_reorganized_network_trains_exports_and_pickles(make) -> None:
    torch.manual_seed(0)
    better = m.reorganize(make(), IMAGE)
    model = better.model
    assert better.plan.trajectory.moves
    x, classes = torch.randn(16, *IMAGE), torch.arange(16) % 10
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(8):
        loss = nn.functional.cross_entropy(model(x), classes)
        optimizer.zero_grad()
        loss.backward()
        assert all(
            parameter.grad is not None and parameter.grad.isfinite().all()
            for parameter in model.parameters()
        )
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    model.eval()
    with torch.no_grad():
        y = model(x)
        program = torch.export.export(model, (x,))
        torch.testing.assert_close(program.module()(x), y)
        for same in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            torch.testing.assert_close(same(x), y, rtol=0, atol=0)
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        torch.testing.assert_close(torch.load(file, weights_only=False)(x), y, rtol=0, atol=0)


@pytest.mark.slow
def test_a_reorganized_network_compiles() -> None:
    model = m.reorganize(NETWORKS["written"](), IMAGE).model.eval()
    x = torch.randn(2, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend="aot_eager")(x), model(x))
    again = m.reorganize(torch.compile(NETWORKS["flat"](), backend="eager"), IMAGE)
    assert type(again.model) is nn.Sequential


@pytest.mark.slow
def test_weights_of_a_network_of_the_papers_stay_by_name() -> None:
    model = named_network("vgg16", 32, seed=1)
    changed = m.reorganize(model, IMAGE, seed=2).model
    assert changed.layout.depths == (5, 4, 2, 1, 1)
    old, new = model.state_dict(), changed.state_dict()
    for key in new.keys() & old.keys():
        assert torch.equal(new[key], old[key])
    assert {key.rpartition(".layer0")[0] for key in new.keys() - old.keys()} == {
        f"stages.stage{stage}.unit{unit}"
        for stage, unit in ((1, 3), (1, 4), (1, 5), (2, 3), (2, 4))
    }


@pytest.mark.slow
def test_depths_at_224_pixels() -> None:
    model = named_network("resnet50", 224, device="meta")
    better = m.reorganize(model, (3, 224, 224), moves=3)
    changed = better.model
    assert type(changed) is Network
    assert changed.layout.depths == (5, 4, 4, 3)
    assert better.edits.image == (3, 224, 224)
    check_counts(changed, changed.layout, (3, 224, 224))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg16", "fog"])
def test_decomposed_networks_reorganize_and_reorganized_ones_decompose(name: str) -> None:
    model = named_network(name, 32, device="meta")
    blocks = m.Blocks("DW+PW")
    first = m.decompose(model, IMAGE, blocks)
    better = m.reorganize(first, IMAGE)
    changed, plan = better.model, better.plan
    assert plan.trajectory.moves
    assert isinstance(plan.end, TracedLayout)
    check_counts(changed, plan.end)
    check_gains(layout_of(changed), plan.end)
    assert better.edits.steps == (*first.edits.steps, *plan.steps)
    # A module alone does not say that blocks were put in, but it shows.
    alone = m.reorganize(first.model, IMAGE)
    assert str(alone.model) == str(changed)
    assert alone.edits.steps == plan.steps
    other = m.decompose(m.reorganize(model, IMAGE), IMAGE, blocks).model
    assert params(other) < params(model)
    assert other(torch.empty(2, *IMAGE, device="meta")).shape == (2, 10)


@pytest.mark.slow
def test_steps_of_both_kinds_can_be_repeated() -> None:
    source = "torchvision:resnet18"
    image = (3, 64, 64)
    model = from_source(source, image, classes=5, seed=0)
    decomposed = m.decompose(m.reorganize(model, image), image, m.Blocks("DW+PW"))
    last = m.reorganize(decomposed, image, m.Budgets(params="2M", macs="1G"))
    changed, edits = last.model, Edits.from_json(last.edits.to_json())
    assert (edits.source, edits.image, edits.classes) == (source, (3, 64, 64), 5)
    assert {step.step for step in edits.steps} == {"replace", "append", "remove"}
    fresh = network(source, edits.image, edits.classes, seed=3)
    for step in edits.steps:
        step.apply(fresh)
    fresh.load_state_dict(changed.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(fresh.eval()(x), changed.eval()(x), rtol=0, atol=0)


@pytest.mark.slow
def test_the_image_size_is_recorded() -> None:
    assert m.reorganize(flat(), torch.zeros(4, *IMAGE), moves=0).edits.image == IMAGE
    lines = nn.Sequential(
        nn.Conv1d(3, 8, 3, padding=1), nn.MaxPool1d(8), *(nn.Conv1d(8, 8, 3, 1, 1) for _ in "abcd")
    )
    better = m.reorganize(lines, (3, 256), m.Budgets(params=params(lines) - 1))
    changed = better.model
    assert params(changed) < params(lines)
    assert changed(torch.zeros(2, 3, 256)).shape == (2, 8, 32)
    assert better.edits.image is None


@pytest.mark.slow
def test_a_network_traced_by_hooks() -> None:
    class Looks(nn.Module):
        """It reads values, which torch.export cannot trace: its layers are traced by hooks."""

        def __init__(self) -> None:
            super().__init__()
            self.body = flat()
            self.largest = 0.0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.body(x)
            self.largest = float(y.detach().numpy().max())
            return y

    model = Looks()
    assert trace(model, IMAGE).how == "hooks"
    better = m.reorganize(model, IMAGE)
    changed = better.model
    assert better.plan.trajectory.moves
    assert params(changed) == better.plan.end.params
    assert str(changed.body) == str(m.reorganize(flat(), IMAGE).model)
    assert changed(torch.zeros(2, *IMAGE)).shape == (2, 10)
