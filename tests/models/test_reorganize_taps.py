"""Networks with taps and branches: no tap moves, and the planned gain is what analyze finds."""

from collections.abc import Callable

import pytest
import torch
from models import tapped_networks as nets
from torch import nn

import ifspace.models as m
from ifspace.errors import SettingError
from ifspace.models.depths import TracedLayout
from ifspace.models.reorganization import Reorganization

pytestmark = pytest.mark.usefixtures("one_thread")
NUMBERED = "unchanged, as a part whose features are read by number, or whose units are counted: "


def planned_gain(plan: Reorganization) -> float:
    assert isinstance(plan.end, TracedLayout)
    return plan.end.gain_of_all()


def layers_before(model: nn.Module, tap: Callable[[nn.Module], nn.Module], side: int) -> int:
    """The number of 3 x 3 convolutions on a side that run before a module is called."""
    ran, before = [], []
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.register_forward_hook(lambda _m, _x, y: ran.append(y.shape[-1]))
    tap(model).register_forward_pre_hook(lambda _m, _x: before.append(ran.count(side)))
    with torch.no_grad():
        model(torch.zeros(1, 3, 16, 16))
    return before[0]


CASES = [
    (nets.Tap, (3, 16, 16), {}),
    (nets.Range, (3, 16, 16), {}),
    (nets.SideBySide, (3, 32, 32), {}),
    (nets.TwoInputs, (3, 32, 32), {"params": "25k"}),
    (nets.TwoInputs, (3, 32, 32), {"params": "12k"}),
    (nets.TwoTowers, (3, 32, 32), {}),
    (nets.TwoTowers, (3, 32, 32), {"params": "30k"}),
    (lambda: nets.TwoTowers(wide_first=True), (3, 32, 32), {"params": "30k"}),
    (nets.output_layer, (3, 64, 64), {"params": "150k"}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("make", "image", "budgets"), CASES)
def test_the_planned_gain_is_what_analyze_finds(
    make: Callable[[], nn.Module], image: tuple[int, int, int], budgets: dict[str, str]
) -> None:
    result = m.reorganize(make(), image, m.Budgets(**budgets))
    report = m.analyze(result.model, image)
    assert planned_gain(result.plan) == pytest.approx(report.gain)
    assert (result.plan.end.params, result.plan.end.macs) == (report.params, report.macs)
    start = m.analyze(make(), image)
    assert result.plan.start.gain_of_all() == pytest.approx(start.gain)


def test_features_read_by_number_keep_their_stages() -> None:
    result = m.reorganize(nets.Taps(), (3, 16, 16))
    assert result.plan.steps == ()
    assert result.plan.notes == (f"{NUMBERED}features.0 … features.2; features.12 … features.16",)


def test_a_head_reads_behind_the_same_layers_after_a_reorganization() -> None:
    result = m.reorganize(nets.Range(), (3, 16, 16))
    assert result.plan.end.depths == (4, 4, 2)
    for model in (nets.Range(), result.model):
        assert layers_before(model, lambda model: model.low, 8) == 3
    result = m.reorganize(nets.Tap(), (3, 16, 16))
    assert result.plan.end.depths == (4, 6, 3)
    for model in (nets.Tap(), result.model):
        assert layers_before(model, lambda model: model.aux, 8) == 4


def test_blocks_whose_outputs_are_all_read_stay() -> None:
    with pytest.raises(SettingError, match="no unit of the network can move"):
        m.reorganize(nets.AllOutputs(), (3, 16, 16), m.Budgets(params="10k"))


def test_removed_blocks_never_make_the_head_gain() -> None:
    plan = m.reorganize(nets.TwoInputs(), (3, 32, 32), m.Budgets(params="12k")).plan
    assert (plan.start.depths, plan.end.depths) == ((10,), (6,))
    *_, before = plan.start.stages[0].gains(3)
    *_, after = plan.end.stages[0].gains(3)
    assert before == after == 0


def test_a_bare_output_layer_stays() -> None:
    plan = m.reorganize(nets.output_layer(), (3, 64, 64), m.Budgets(params="80k")).plan
    assert [step.names for step in plan.steps] == [("2",)]


def weights_of_convolutions(model: nn.Module) -> dict[bytes, str]:
    """Names of the convolutions by their drawn weights: those that stay keep them."""
    return {
        part.weight.detach().numpy().tobytes(): name
        for name, part in model.named_modules()
        if isinstance(part, nn.Conv2d)
    }


@pytest.mark.slow
@pytest.mark.parametrize("params", ["60k", "85k", "120k"])
def test_every_removed_and_added_unit_is_named_and_output_layers_stay(params: str) -> None:
    model = nets.Detector()
    result = m.reorganize(model, (3, 64, 64), m.Budgets(params=params))
    before, after = (weights_of_convolutions(net) for net in (model, result.model))
    gone = {name for weights, name in before.items() if weights not in after}
    assert {f"{name}.0" for name in result.plan.removed} == gone != set()
    added = sum(units.count for units in result.plan.added)
    assert added == len(after.keys() - before.keys())
    assert not any(name.endswith(".2") for name in gone)  # the bare output layers


@pytest.mark.slow
@pytest.mark.parametrize("wide_first", [False, True])
def test_branches_of_other_widths_are_optimized(wide_first: bool) -> None:
    network = m.EditedNetwork.of(nets.TwoTowers(wide_first))
    image = (3, 32, 32)
    problem = m.OptimizationProblem(blocks=m.Blocks("DW+PW"), budgets=m.Budgets(params="40k"))
    answer = m.optimize(network, m.trace(network.model, image), problem)
    assert answer.after is not None
    assert answer.after.params <= 40_000
    assert answer.after.gain == pytest.approx(m.analyze(answer.network.model, image).gain)


class Branches(nn.Module):
    """Sums of convolutions, as MobileOne is trained; one branch each, as it is run."""

    def __init__(self, *convs: nn.Module) -> None:
        super().__init__()
        self.convs = nn.ModuleList(convs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(sum(conv(x) for conv in self.convs))


def mobile(branches: int) -> nn.Module:
    def block() -> list[nn.Module]:
        depthwise = (nn.Conv2d(16, 16, 3, padding=1, groups=16) for _ in range(branches))
        return [Branches(*depthwise), Branches(*(nn.Conv2d(16, 16, 1) for _ in range(branches)))]

    return nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), *(part for _ in range(3) for part in block()))


def test_summed_branches_gain_as_much_as_the_convolution_they_become() -> None:
    trained, run = (m.analyze(mobile(branches), (3, 32, 32)) for branches in (3, 1))
    assert trained.gain == pytest.approx(run.gain)
    assert [unit.layers for stage in trained.stages for unit in stage.units] == [1, 6, 6, 6]
