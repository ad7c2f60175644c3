from itertools import pairwise

import pytest
import torch
from cifar_files import accept, write_cifar10

from experiments.training.check import macs_of
from experiments.training.data import (
    cifar10,
    digits,
)
from experiments.training.versions import (
    NAMES,
    layout_for,
    versions,
)
from ifspace.errors import BlockError, SettingError
from ifspace.nn.block import BlockModule
from ifspace.nn.network import style_of
from ifspace.stages.allocate import best_stages
from ifspace.stages.networks import (
    NETWORKS,
    network,
)
from ifspace.stages.organizer import organize
from ifspace.stages.problem import (
    Budgets,
    StagesProblem,
)


def counted(model: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.slow
def test_the_small_network_fits_the_images() -> None:
    data = digits()
    layout, style, fitted = layout_for("SMALL", data)
    assert fitted is data
    assert ([stage.side for stage in layout.stages], layout.widths) == ([8, 4, 2], (16, 32, 64))
    models = {version.name: version.build(0) for version in versions(layout, style)}
    assert tuple(models) == NAMES
    for model in models.values():
        assert model(torch.zeros(2, *data.shape)).shape == (2, 10)
    assert counted(models["original"]) == layout.params == 72_666
    assert counted(models["reorganized"]) == organize(layout).end.params == 38_010
    assert counted(models["decomposed"]) < counted(models["reorganized"]) / 8
    assert macs_of(models["original"], data.shape) == layout.macs


@pytest.mark.slow
def test_it_fits_other_images_too(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    accept(monkeypatch)
    layout, style, fitted = layout_for("small", cifar10(write_cifar10(tmp_path)))
    assert ([stage.side for stage in layout.stages], layout.stem_and_head.inputs) == (
        [32, 16, 8, 4, 2],
        3,
    )
    assert (layout.widths, layout.depths, fitted.padding) == ((16, 32, 64, 64, 64), (2,) * 5, 4)
    assert [version.name for version in versions(layout, style)] == list(NAMES)


@pytest.mark.parametrize("name", ["vgg11", "mobilenet", "resnet50"])
def test_a_network_of_the_papers_gets_larger_images(name: str) -> None:
    layout, style, fitted = layout_for(name, digits())
    assert fitted.shape == (3, 32, 32)
    assert layout == network(name, 32)
    assert style == style_of(name)


@pytest.mark.slow
def test_every_3x3_convolution_but_the_first_becomes_the_block() -> None:
    layout, style = network("vgg11", 32), style_of("vgg11")
    compared = versions(layout, style)
    assert [version.description for version in compared][1:] == [
        "depths 2,2,2,1,1",
        "DW+RPW(2,1/2) for 7 of 8 convolutions",
    ]
    blocks = [
        module for module in compared[2].build(0).modules() if isinstance(module, BlockModule)
    ]
    inner = [str(module.sized.block) for module in blocks if str(module.sized.block) != "CONV"]
    assert inner == ["DW+RPW(2,1/2)"] * 7
    # Half of the channels, and 9 weights a channel: RPW C F / 2, DW 9 C; batch norm after both.
    widths = [64, 64, 128, 128, 256, 256, 512, 512]
    expected = 9 * 3 * 64 + 2 * 64 + 512 * 10 + 10
    expected += sum(9 * c + c * f // 2 + 2 * (c + f) for c, f in pairwise(widths))
    assert counted(compared[2].build(0)) == expected


@pytest.mark.slow
def test_a_convolution_inside_a_bottleneck_is_replaced_there() -> None:
    layout, style = network("resnet50", 32), style_of("resnet50")
    final = versions(layout, style)[-1]
    assert final.description == "DW+RPW(2,1/2) for 16 of 17 convolutions"
    blocks = [
        str(module.sized.block)
        for module in final.build(0).modules()
        if isinstance(module, BlockModule)
    ]
    assert blocks.count("DW+RPW(2,1/2)") == 16


@pytest.mark.slow
def test_a_version_that_changes_nothing_is_left_out() -> None:
    layout, style, _ = layout_for("small", digits())
    flat = layout.at_depths((1, 1, 1))
    assert [version.name for version in versions(flat, style)] == ["original", "decomposed"]
    # Five does not divide the widths.
    assert [version.name for version in versions(flat, style, "DW+GPW(5)")] == ["original"]
    mobile = versions(network("mobilenet", 32), style_of("mobilenet"))
    assert [version.name for version in mobile] == ["original", "reorganized"]


@pytest.mark.slow
def test_a_budget_is_kept_by_the_depths_of_greatest_gain() -> None:
    layout, style = network("vgg16", 32), style_of("vgg16")
    (_, reorganized, _) = versions(layout, style, params=5_100_000)
    within = best_stages(StagesProblem(layout, Budgets(params=5_100_000, macs=layout.macs)))
    depths = ",".join(map(str, within.plans[0].layout.depths))
    assert reorganized.description == f"depths {depths}"
    assert counted(reorganized.build(0)) == within.plans[0].layout.params
    with pytest.raises(SettingError, match=r"^proven: no .* keeps the budgets: got 1,000 p"):
        versions(layout, style, params=1000)


@pytest.mark.slow
def test_seeds_draw_other_weights() -> None:
    layout, style, _ = layout_for("small", digits())
    for version in versions(layout, style):
        one, again, other = (version.build(n).state_dict() for n in (0, 0, 1))
        assert all(torch.equal(one[key], again[key]) for key in one)
        assert any(not torch.equal(one[key], other[key]) for key in one)


def test_unknown_blocks_and_networks_raise() -> None:
    layout, style, data = layout_for("small", digits())
    with pytest.raises(BlockError, match="XY"):
        versions(layout, style, "XY")
    with pytest.raises(
        SettingError, match=f"^unknown network: got 'vgg12'; allowed: {', '.join(NETWORKS)}"
    ):
        layout_for("vgg12", data)
