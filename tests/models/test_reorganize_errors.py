"""Networks that cannot be reorganized and contradicting arguments: errors of one line."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from models.movable_networks import IMAGE, conv, flat, rows
from models.tapped_networks import AllOutputs
from small_networks import params
from torch import Tensor, nn

import ifspace.models as m
from ifspace.errors import IfspaceError, SettingError
from ifspace.models.reorganization import apply_reorganization, plan_reorganization
from ifspace.models.tracing import trace
from ifspace.nn import named_network

pytestmark = pytest.mark.usefixtures("one_thread")


class Counts(nn.Module):
    """Its forward() reads attributes of its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(3, 8), *(conv(8, 8) for _ in range(5))])

    def forward(self, x: Tensor) -> Tensor:
        for place, module in enumerate(self.layers):
            x = nn.functional.conv2d(x, module.weight, module.bias, padding=1)
            if place == 0:
                x = nn.functional.max_pool2d(x, 4)
        return x


class Indexed(nn.Module):
    """Its forward() depends on the number of layers in an nn.Sequential."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Sequential(*rows(lambda c_in, c_out: [conv(c_in, c_out), nn.ReLU()]))

    def forward(self, x: Tensor) -> Tensor:
        for place in range(13):
            x = self.row[place](x)
        return x


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(conv(3, 3), nn.MaxPool2d(2)), "^no unit of the network can move: got 1 sta"),
        (conv(3, 3), "^no unit of the network can move: got 1 stage without one; allowed: units "),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)), "^a network without convolutions: got 1"),
        (3, "^wrong model: got int"),
        (Counts(), "got 2 .*; unchanged, as a part whose forward fails at other depths: layers.0"),
    ],
)
def test_networks_that_cannot_be_reorganized_are_an_error(
    model: object, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(IfspaceError, match=message) as raised:
        m.reorganize(model, IMAGE)
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_blocks_whose_outputs_are_all_read_stay() -> None:
    with pytest.raises(SettingError, match="no unit of the network can move"):
        m.reorganize(AllOutputs(), (3, 16, 16), m.Budgets(params="10k"))


def test_code_that_counts_layers_keeps_its_stages() -> None:
    with pytest.raises(SettingError, match=r"forward fails at other depths: row.5 … row.11$") as e:
        m.reorganize(Indexed(), IMAGE, m.Budgets(params=8000))
    assert "\n" not in str(e.value)
    plan = m.reorganize(Indexed(), IMAGE, m.Budgets(params="1M", macs="1G")).plan
    reason = "whose features are read by number, or whose units are counted"
    assert plan.notes == (f"unchanged, as a part {reason}: row.0 … row.2",)


def reorganize_flat(params: object = None, macs: object = None, **options: object) -> None:
    m.reorganize(flat(), IMAGE, m.Budgets(params, macs), **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message", "argument"),
    [
        ({"params": "17Q"}, "^params is no amount: got '17Q'; allowed: whole numbers", "params"),
        ({"params": 1.5}, "^params out of range: got 1.5; allowed: whole numbers", "params"),
        ({"macs": -1}, "^macs out of range: got -1; allowed: more than 0", "macs"),
        ({"macs": "3T"}, "^macs is no amount: got '3T'", "macs"),
        (
            {"params": 10**13},
            r"^params out of range: got 10000000000000; allowed: more t",
            "params",
        ),
        (
            {"params": 100, "macs": "1G"},
            "^proven: no choice of depths keeps the budgets: got 100 parameters, 1,000,000,000 "
            "MACs; allowed: at least 1,610 parameters",
            "params",
        ),
        (
            {"macs": 100},
            "^proven: no .* keeps the budgets: got 100 MACs without more parameters than now; "
            r"allowed: at least 295,072 MACs;",
            None,
        ),
        ({"params": "1M", "moves": 0}, "^two ways at once: got 0 moves and a budget", "moves"),
        ({"macs": "1M", "moves": 3}, "^two ways at once: got 3 moves and a budget", "moves"),
        ({"params": "1M", "theta": 1}, "^two ways at once: got theta 1 and a budget", "theta"),
        ({"moves": -1}, "^moves out of range: got -1", "moves"),
        ({"moves": 1.0}, "^moves out of range: got 1.0", "moves"),
        ({"theta": -0.1}, "^theta out of range: got -0.1; allowed: numbers from 0", "theta"),
        ({"theta": float("inf")}, "^theta out of range: got inf", "theta"),
        ({"theta": "high"}, "^theta out of range: got 'high'; allowed: numbers from 0", "theta"),
        ({"alpha": -3}, "^alpha out of range: got -3", "alpha"),
        ({"alpha": float("nan")}, "^alpha out of range: got nan", "alpha"),
        ({"alpha": None}, "^alpha out of range: got None", "alpha"),
        ({"alpha": True}, "^alpha out of range: got True", "alpha"),
        ({"seed": -1}, "^seed out of range: got -1", "seed"),
        ({"params": "1M", "max_depth": 0}, "^max_depth out of range: got 0", "max_depth"),
        ({"params": "1M", "time_limit_s": -1}, "^time_limit out of range: got -1", "time_limit"),
        (
            {"params": "1M", "time_limit_s": 0},
            "^time ran out before a choice of depths",
            "time_limit_s",
        ),
    ],
)
def test_arguments_out_of_range_are_an_error(
    arguments: dict, message: str, argument: str | None
) -> None:
    with pytest.raises(SettingError, match=message) as raised:
        reorganize_flat(**arguments)
    assert "\n" not in str(raised.value)
    assert argument is None or raised.value.argument == argument


@pytest.mark.slow
def test_the_least_amounts_that_are_named_can_be_met() -> None:
    model = flat()
    with pytest.raises(SettingError, match=r"allowed: at least 1,610 parameters, ") as raised:
        m.reorganize(model, IMAGE, m.Budgets(params=1, macs="1G"))
    assert raised.value.argument == "params"
    least = 1610
    better = m.reorganize(model, IMAGE, m.Budgets(params=least, macs="1G"))
    assert params(better.model) == least
    with pytest.raises(SettingError, match="no choice of depths keeps"):
        m.reorganize(model, IMAGE, m.Budgets(params=least - 1, macs="1G"))


@pytest.mark.slow
def test_a_plan_of_another_network_is_an_error() -> None:
    one, other = named_network("vgg11", 32, device="meta"), flat()
    plan = plan_reorganization(one, trace(one, IMAGE))
    with pytest.raises(SettingError, match=r"^a plan of another network: got Sequential; "):
        apply_reorganization(other, plan)
    with pytest.raises(SettingError, match=r"^a plan of another network: got Network; "):
        apply_reorganization(named_network("vgg16", 32, device="meta"), plan)
    with pytest.raises(SettingError, match=r"^a unit that is not in the network: "):
        apply_reorganization(one, plan_reorganization(other, trace(other, IMAGE)))


QUIET = """
import torch
import ifspace.models as m
from ifspace.errors import SettingError
from models.movable_networks import IMAGE, NETWORKS
from models.test_reorganize_errors import Counts
for name in ("gated", "residual", "hourglass", "our blocks"):
    m.reorganize(NETWORKS[name](), IMAGE)
try:
    m.reorganize(Counts(), IMAGE)
except SettingError as error:
    print(error)
"""


@pytest.mark.slow
def test_nothing_is_printed_beside_the_answer() -> None:
    tests = Path(__file__).parent.parent
    paths = os.pathsep.join([str(tests.parent), str(tests)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", QUIET],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.stderr == ""
    assert done.stdout.startswith("no unit of the network can move: got 2 ")
    assert done.stdout.count("\n") == 1
