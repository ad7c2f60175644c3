import pytest
import torch
import torch_networks

from ifspace.stages.networks import (
    PUBLISHED,
    PublishedLayout,
    network,
    published_layouts,
)
from ifspace.stages.organizer import organize

CLASSES = {"CIFAR-10": 10, "CIFAR-100": 100, "ImageNet": 1000}
# 27.3736M printed as 27.38, 1.2233M as 1.23: the others round to what is printed.
OFF = {("vgg19", 4): "27.37", ("mobilenet", 4): "1.22"}
# The step of the trajectory after which each row is reached, of how many; None where it is not.
STEPS = {
    ("vgg16", 3): (5, 5),
    ("vgg16", 4): (5, 5),
    ("vgg16", 5): (2, 2),
    ("vgg19", 3): (6, 7),
    ("vgg19", 4): (6, 7),
    ("vgg19", 5): (1, 3),
    ("mobilenet", 3): (5, 6),
    ("mobilenet", 4): (5, 6),
    ("mobilenet", 5): (3, 3),
    ("resnet50", 3): (None, 5),
    ("resnet50", 4): (None, 5),
    ("resnet50", 5): (None, 4),
}


def test_every_row_of_the_three_tables_is_there_once() -> None:
    assert {(row.network, row.table) for row in PUBLISHED} == STEPS.keys()
    assert len(PUBLISHED) == len(STEPS)
    assert all((row.table == 5) == (row.side == 224) for row in PUBLISHED)
    assert [row.table for row in published_layouts("VGG16", 32)] == [3, 4]
    assert published_layouts("vgg11", 32) == ()


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.network}-{row.table}")
def test_the_counts_beside_those_printed(row: PublishedLayout) -> None:
    classes = CLASSES[row.data]
    with torch.device("meta"):
        if row.network.startswith("vgg"):
            hidden = () if row.data == "CIFAR-10" else (4096, 4096)
            model = torch_networks.vgg(row.depths, row.side, classes, hidden)
        elif row.network == "resnet50":
            model = torch_networks.resnet(row.depths, row.side, classes)
        else:
            model = torch_networks.mobilenet(row.depths, row.side, classes)
    assert row.layout.params == torch_networks.params(model)
    counted = f"{torch_networks.params(model) / 1e6:.2f}"
    assert counted == OFF.get((row.network, row.table), row.params)
    assert row.has_printed_params is ((row.network, row.table) not in OFF)
    # Printed to three digits at best; the two MobileNets on ImageNet seem to have been swapped.
    assert row.layout.macs / 1e6 == pytest.approx(row.macs, rel=0.04)


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: f"{row.network}-{row.table}")
def test_where_the_organizer_comes_by(row: PublishedLayout) -> None:
    found = organize(network(row.network, row.side))
    states = [layout.depths for layout in found.layouts]
    step = states.index(row.depths) if row.depths in states else None
    assert (step, len(found.moves)) == STEPS[row.network, row.table]
