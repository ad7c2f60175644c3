"""Peak memory as a budget and an objective of `optimize`: exact for the network that is rebuilt."""

from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from live_memory import Sum, peak_by_hooks
from models.odd_networks import IMAGE
from torch import Tensor, nn

from ifspace.answer import Status
from ifspace.errors import SettingError
from ifspace.models.decomposition import Blocks, Budgets, Search, decompose
from ifspace.models.edits import EditedNetwork
from ifspace.models.optimization import OptimizationProblem, optimize
from ifspace.models.tracing import trace
from ifspace.nn import Style, build

pytestmark = pytest.mark.usefixtures("one_thread")
BLOCKS = ("DW+PW", "PW+DW", "GC(8)+PW")
SIZE = (16, 9, 9)


class Small(nn.Module):
    """Three convolutions, one of stride 2, one beside a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(16, 32, 3, padding=1)
        self.down = nn.Conv2d(32, 64, 3, 2, 1)
        self.inside = nn.Conv2d(64, 64, 3, padding=1)
        self.sum, self.last = Sum(), nn.Conv2d(64, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(self.wide(x))
        return self.last(self.sum(self.inside(x), x))


STYLE = Style(batch_norm=False, activation=None, bias=True, bias_where="last")


def with_blocks(chosen: dict[str, str]) -> nn.Module:
    """The network with blocks, put in one by one."""
    network = Small()
    for name, block in chosen.items():
        conv = network.get_submodule(name)
        widths = conv.in_channels, conv.out_channels
        setattr(network, name, build(block, *widths, stride=conv.stride[0], style=STYLE))
    return network.eval()


@pytest.mark.slow
def test_a_budget_is_that_of_hooks_on_every_network_that_could_be_built() -> None:
    names = ("wide", "down", "inside")
    every = {}
    for blocks in product((None, *BLOCKS), repeat=3):
        network = with_blocks({n: b for n, b in zip(names, blocks, strict=True) if b})
        params = sum(parameter.numel() for parameter in network.parameters())
        every[blocks] = (4 * peak_by_hooks(network, torch.ones(1, *SIZE)), params)
    peaks = sorted({peak for peak, _ in every.values()})
    assert len(peaks) > 3
    for limit in peaks:
        plan = decompose(
            Small(),
            SIZE,
            Blocks(*BLOCKS),
            Budgets(peak_memory=limit, dtype="fp32"),
            search=Search("params"),
        ).plan
        best = min(params for peak, params in every.values() if peak <= limit)
        assert plan.params[1] == best
        blocks = {x.name: str(x.sized.block) for x in plan.replaced}
        peak, _ = every[tuple(blocks.get(name) for name in names)]
        assert plan.peaks is not None
        assert (4 * plan.peaks[0], 4 * plan.peaks[1]) == (every[None, None, None][0], peak)
    least = decompose(Small(), SIZE, Blocks(*BLOCKS), search=Search("peak_memory")).plan
    assert least.peaks is not None
    assert 4 * least.peaks[1] == peaks[0]
    assert least.params[1] == min(params for peak, params in every.values() if peak == peaks[0])
    with pytest.raises(SettingError, match=rf"at least {peaks[0]:,} bytes of peak memory;"):
        decompose(Small(), SIZE, Blocks(*BLOCKS), Budgets(peak_memory=peaks[0] - 1, dtype="fp32"))


def test_the_rebuilt_network_needs_what_was_planned() -> None:
    problem = OptimizationProblem(
        blocks=Blocks(*BLOCKS),
        budgets=Budgets(params=9000, peak_memory="30k", dtype="fp16"),
        keep_stages=True,
    )
    network = EditedNetwork.of(Small())
    optimization = optimize(network, trace(network.model, SIZE), problem)
    after, blocks = optimization.after, optimization.blocks
    assert after is not None
    assert after.live is not None
    assert blocks is not None
    assert blocks.peaks is not None
    assert after.live.peak == blocks.peaks[1] <= 15_000
    assert after.params <= 9000


def test_an_objective_of_the_least_peak_names_it_as_its_bound() -> None:
    plan = decompose(
        Small(), SIZE, Blocks("PW+DW"), Budgets(params=30_000), search=Search("peak_memory")
    ).plan
    answer = plan.answer
    assert answer is not None
    assert answer.best is not None
    assert answer.status is Status.OPTIMAL
    assert answer.best.objective() == answer.bound
    assert plan.peaks is not None
    assert answer.best.totals["peak_memory"] == 4 * plan.peaks[1]


@pytest.mark.slow
def test_the_command_says_what_is_needed_and_where(run: Callable) -> None:
    command = ("optimize", "vgg11", "--input", "3x32x32", "--blocks-only", "--dtype", "int8")
    ended = run(*command, "--block", "DW+PW", "--peak-memory", "80k", "--format", "json")
    assert ended.status == 3
    assert "got 80,000 bytes of peak memory; allowed: at least 81,920 bytes" in ended.err
    answer = run(*command, "--block", "DW+PW", "--peak-memory", "80KiB", "--format", "json").json
    assert answer["after"]["peak_memory"] == {
        "elements": 81_920,
        "bytes": 81_920,
        "dtype": "int8",
        "at": "stages.stage2.pool",
        "operator": "max_pool2d",
    }
    # The objective has the name of the bound, and that of older versions.
    chosen = [
        run(*command[:-2], "--blocks", "DW+PW,PW+DW", "--objective", name, "--format", "json").json
        for name in ("peak-memory", "peak_memory")
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0]["replaced"]
    stages = ("optimize", "vgg11", "--input", "3x32x32", "--stages-only")
    ended = run(*stages, "--dtype", "int8", "--peak-memory", "9k")
    assert ended.status == 3
    assert "these stages needs more peak memory than it may: got 131,072 bytes of int8" in ended.err
    ended = run("optimize", "vgg11", "--input", "3x32x32", "--peak-memory", "9k")
    assert (ended.status, ended.err.count("\n")) == (2, 1)
    assert "peak memory without the type of the feature maps" in ended.err


def test_a_network_whose_branches_are_not_seen_has_no_budget() -> None:
    class ThroughNumpy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Conv2d(3, 16, 3, padding=1)
            self.two = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(torch.from_numpy(self.one(x).numpy()))

    network = ThroughNumpy()
    assert trace(network, IMAGE).live is None
    with pytest.raises(SettingError, match="peak memory of a network whose branches are not seen"):
        decompose(network, IMAGE, Blocks("DW+PW"), Budgets(peak_memory="1M", dtype="fp32"))


def test_a_peak_that_no_block_changes_is_named(
    run: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pool.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(16, 64, 1), nn.MaxPool2d(3, 1, 1),\n"
        "                         nn.MaxPool2d(2), nn.Conv2d(64, 64, 3, padding=1))\n",
        "utf-8",
    )
    # The pool reads and writes 64 x 16 x 16: 32,768 bytes.
    command = ("optimize", "pool.py:make", "--input", "16x16x16", "--dtype", "int8", "--cheapest")
    command += ("--blocks-only", "--peak-memory")
    ended = run(*command, 32_767)
    assert ended.status == 3
    assert ended.err.splitlines()[-1] == (
        "ifspace: proven: no choice of blocks keeps the budgets: got 32,767 bytes of peak memory; "
        "allowed: at least 32,768 bytes of peak memory; the peak is at 1 (max_pool2d), which no "
        "block changes; use a smaller --input or raise --peak-memory"
    )
    assert run(*command, 32_768).status == 0
    # Other budgets are what is too small.
    assert "which no block changes" not in run(*command, 32_768, "--params", 1).err
