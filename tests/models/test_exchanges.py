"""Grouped layers of networks that exchange no channels, against gradients."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from ifspace.models import analyze, trace
from ifspace.models.exchanges import layer_exchanges

pytestmark = pytest.mark.usefixtures("one_thread")
WIDTH, GROUPS, IMAGE = 64, 4, (64, 8, 8)


class Pair(nn.Module):
    """Two grouped layers, and what happens to the feature map between them."""

    def __init__(self, between: Callable[[Tensor, Tensor], Tensor], groups: int = GROUPS) -> None:
        super().__init__()
        self.first = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=groups)
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.second = nn.Conv2d(WIDTH, WIDTH, 1, groups=GROUPS)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        """Run them."""
        y: Tensor = self.second(self.depthwise(self.between(self.first(x).relu(), x)))
        return y


def shuffled(y: Tensor, x: Tensor) -> Tensor:
    """Return a feature map with its channels shuffled by views."""
    batch, _, height, width = y.shape
    parts = y.view(batch, GROUPS, WIDTH // GROUPS, height, width)
    return parts.transpose(1, 2).reshape(y.shape)


CASES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int, bool]] = {
    "plain": (lambda y, x: y, GROUPS, True),
    "two groups": (lambda y, x: y, 2, True),
    "a sum": (lambda y, x: y + x, GROUPS, True),
    "channels in reverse": (lambda y, x: y.flip(1), GROUPS, True),
    "views": (shuffled, GROUPS, False),
    "rolled": (lambda y, x: y.roll(8, 1), GROUPS, False),
    "a sum with shuffled ones": (lambda y, x: y + shuffled(x, x), GROUPS, False),
    "halves swapped": (lambda y, x: torch.cat(y.chunk(2, 1)[::-1], 1), GROUPS, True),
}


def smallest_field(net: Pair) -> int:
    """Return the fewest channels that an output sees, by gradients with positive weights."""
    for parameter in net.parameters():
        nn.init.constant_(parameter, 1.0)
    x = torch.rand(1, *IMAGE, requires_grad=True)
    outputs = net(x)[0, :, 4, 4]
    fields = [
        torch.autograd.grad(output, x, retain_graph=True)[0][0].abs().sum((1, 2)).count_nonzero()
        for output in outputs
    ]
    return int(min(fields))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_pairs_of_a_network(case: str) -> None:
    between, groups, missing = CASES[case]
    net = Pair(between, groups)
    pairs = analyze(net, IMAGE).exchanges
    assert [(pair.first, pair.second) for pair in pairs] == [("first", "second")] * missing
    field = smallest_field(net)
    for pair in pairs:
        assert (pair.exchange.field, pair.exchange.shuffled) == (field, WIDTH)
        assert pair.stage_field == (field, WIDTH)
        mended = Pair(lambda y, x: nn.ChannelShuffle(groups)(between(y, x)), groups)
        assert smallest_field(mended) == WIDTH
        assert sum(p.numel() for p in mended.parameters()) == sum(
            p.numel() for p in net.parameters()
        )
    if not missing:
        assert field > WIDTH // GROUPS


@pytest.mark.slow
def test_a_dense_layer_between_and_a_trace_by_hooks_have_no_pair() -> None:
    dense = nn.Sequential(*(nn.Conv2d(64, 64, 1, groups=groups) for groups in (4, 1, 4)))
    assert analyze(dense, IMAGE).exchanges == ()
    # Hooks do not see what lies between layers, such as a shuffle.
    graph = trace(Pair(lambda y, x: y), IMAGE)
    assert layer_exchanges(graph, ())
    assert layer_exchanges(replace(graph, how="hooks"), ()) == ()
