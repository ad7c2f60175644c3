"""Small inputs that failed once, a row for each: the right value, and a second witness of it.

Fields are those of gradients in fp64 with positive weights, MACs those of torch's counter, group
counts those of brute force, and a planned gain is what `analyze` gives for the network that came
out. The networks are in models/moved_networks.py and models/tapped_networks.py.
"""

import json
import pickle
import shlex
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import brute_groups
import pytest
import torch
from models import moved_networks as moved
from models import tapped_networks as tapped
from models.autograd_field import batch_field, counted_macs, seen_pixels
from models.moved_networks import Moved
from torch import nn

import ifspace.models as m
from ifspace.block import Composition
from ifspace.catalogue import Design
from ifspace.catalogue.setting import EnumerationSetting
from ifspace.enumerate.search import enumerate_designs
from ifspace.errors import SettingError, WorkerError
from ifspace.groups.problem import GroupsProblem, judge
from ifspace.groups.solve import cheapest_groups
from ifspace.latency import read_latency
from ifspace.models.analysis import LayerReport, Report, other_params
from ifspace.models.depths import TracedLayout
from ifspace.models.edits import EditedNetwork
from ifspace.models.files import load, load_edited, save
from ifspace.models.reorganization import Reorganization
from ifspace.models.sources import from_source, network
from ifspace.nn.files import NetworkFileError
from ifspace.parallel import over_shards
from ifspace.show.describe import describe

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parents[1]
PYTHON = [sys.executable, "-m", "ifspace"]
IMAGE, FOUR = (3, 16, 16), (4, 16, 16)
BLOCKS = m.Blocks("DW+RPW(2,1/2)")


def layers_of(report: Report) -> dict[str, LayerReport]:
    """Return the layers by name, each at its last call."""
    return {entry.layer.name: entry for entry in report.layers}


# Pixels that move, branches along the batch, modules that are called several times


@dataclass(frozen=True)
class Row:
    """A network, its MACs, and what one of its layers sees (rows, columns, channels) and gains."""

    make: Callable[[], nn.Module]
    image: tuple[int, int, int]
    macs: int
    layer: str
    field: tuple[int, int, int]
    gain: float


ROWS = {
    "one module under two names": Row(moved.TwoNames, IMAGE, 1_290_240, "conv", (7, 7, 3), 0.716),
    "branches along the batch": Row(moved.Siamese, IMAGE, 1_597_440, "shared", (7, 7, 3), 0.716),
    "windows cut by slices": Row(
        lambda: Moved(moved.windows, 8, 72, kernel=1), IMAGE, 153_600, "last", (3, 3, 3), 7.907
    ),
    "two sensors, joined": Row(moved.TwoSensors, FOUR, 2_686_976, "head", (11, 11, 4), 0),
    "two sensors, stacked": Row(
        lambda: moved.TwoSensors(stacked=True), FOUR, 2_686_976, "trunk.2", (11, 11, 4), 0.191
    ),
    "rolled channels": Row(lambda: Moved(moved.rolled, 15), IMAGE, 134_400, "last", (3, 7, 3), 1.2),
    "shifted channels": Row(
        lambda: Moved(moved.shifted, 16), IMAGE, 143_360, "last", (5, 5, 3), 1.6
    ),
    # Differences along the rows see 5x3 pixels, those along the columns 3x4.
    "differences": Row(
        lambda: Moved(moved.differences, 16, 32), IMAGE, 176_128, "last", (5, 4, 3), 0.280
    ),
    "height and width exchanged": Row(
        moved.TurnedAround, IMAGE, 561_152, "columns", (7, 7, 3), 5.527
    ),
}


def check_all_run(net: nn.Module, report: Report, image: tuple[int, int, int]) -> None:
    """Check the MACs, and that no convolution is said not to run or not to reach the output."""
    assert report.macs == counted_macs(net, image)
    convs = {name for name, module in net.named_modules() if isinstance(module, nn.Conv2d)}
    assert {layer.name for layer in report.all_layers} == convs
    assert not other_params(net, report).unused
    assert not any("do not reach" in note for note in report.notes)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())
def test_fields_are_those_of_gradients_and_macs_those_of_torch(row: Row) -> None:
    net = row.make()
    report = m.analyze(net, row.image)
    check_all_run(net, report, row.image)
    assert report.macs == row.macs
    layers = layers_of(report)
    fields = {name: (*entry.field.size, entry.field.channels) for name, entry in layers.items()}
    assert fields == {name: batch_field(net, row.image, name) for name in layers}
    last = layers[row.layer]
    assert (fields[row.layer], last.receptive) == (row.field, row.field[:2])
    assert last.gain == pytest.approx(row.gain, abs=5e-4)
    assert (last.unknown_pixels, report.notes) == (False, ())


def test_a_module_under_two_names_gains_what_two_modules_would() -> None:
    report = m.analyze(moved.TwoNames(), IMAGE)
    convs = [moved.conv(width, 16) for width in (3, 16, 16)]
    separate = m.analyze(nn.Sequential(*convs[:2], nn.ReLU(), convs[2]), IMAGE)
    assert report.gain == separate.gain == pytest.approx(2.316, abs=5e-4)
    assert [entry.gain for entry in report.layers] == [entry.gain for entry in separate.layers]
    assert [entry.layer.params for entry in report.layers] == [448, 2320, 0]
    units = [unit.name for stage in report.stages for unit in stage.units]
    assert units == ["stem", "conv", "conv"]


def test_a_shared_layer_sees_the_pixels_of_the_narrower_branch_in_both() -> None:
    """The union is 7 x 7 x 3; 5 x 5 pixels of 3 channels are seen by way of either branch."""
    first, second = (
        batch_field(moved.Siamese(), IMAGE, "shared", slice(n, n + 1)) for n in range(2)
    )
    assert (first, second) == ((5, 5, 3), (7, 7, 3))


def test_a_mirrored_feature_map_is_seen_at_two_places() -> None:
    net = Moved(moved.mirrored, 16)
    last = layers_of(m.analyze(net, (3, 16, 20)))["last"]
    assert (last.unknown_pixels, last.gain, last.adds_nothing) == (True, None, False)
    columns = seen_pixels(net, (3, 16, 20), "last").any(0).any(0)
    assert columns.nonzero().flatten().tolist() == [8, 9, 10, 11]


def test_windows_with_a_halo_run() -> None:
    net = moved.HaloAttention()
    report = m.analyze(net, IMAGE)
    check_all_run(net, report, IMAGE)
    assert report.macs == 897_024


def test_a_head_over_a_pyramid_has_fields_at_every_level() -> None:
    net, image = moved.Pyramid(), (3, 96, 160)
    report = m.analyze(net, image)
    check_all_run(net, report, image)
    assert len([entry for entry in report.layers if entry.layer.name == "head.0"]) == 3
    units = [unit for stage in report.stages for unit in stage.units]
    for entry in (*report.layers, *units):
        assert entry.field.volume > 0
        assert entry.gain is None or entry.gain >= 0
    assert sum(layer.params for layer in report.all_layers) == report.params
    plan = m.decompose(net, image, BLOCKS, layers=m.Layers(least_channels=8)).plan
    names = ["level3.2", "level4.0", "level5.0", "head.0", "head.2", "head.4"]
    assert [layer.name for layer in plan.replaced] == names


def widest_extent(net: nn.Module, side: int) -> int:
    """Return how many rows an output near the middle sees, at the place where they are most."""
    for parameter in net.parameters():
        nn.init.constant_(parameter, 1)
    x = torch.rand(1, 3, side, side, requires_grad=True)
    y, sizes = net(x), set()
    for place in range(side // 2 - 8, side // 2 + 8):
        (gradient,) = torch.autograd.grad(y[0, :, place, place].sum(), x, retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero()
        sizes.add(int(rows.max() - rows.min()) + 1)
    return max(sizes)


@pytest.mark.parametrize(
    "net",
    [
        *(moved.Upsampled(scale, mode) for scale in (2, 4, 8) for mode in ("nearest", "bilinear")),
        moved.TwoResolutions(),
    ],
)
def test_receptive_fields_through_an_upsampling_are_those_of_gradients(net: nn.Module) -> None:
    receptive = layers_of(m.analyze(net, (3, 64, 64)))["conv"].receptive
    assert receptive == (widest_extent(net, 64),) * 2


# Features that are read in the middle, branches and heads, in reorganized networks

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
    (tapped.Tap, (3, 16, 16), {}),
    (tapped.Range, (3, 16, 16), {}),
    (tapped.SideBySide, (3, 32, 32), {}),
    (tapped.TwoInputs, (3, 32, 32), {"params": "25k"}),
    (tapped.TwoInputs, (3, 32, 32), {"params": "12k"}),
    (tapped.TwoTowers, (3, 32, 32), {"params": "30k"}),
    (lambda: tapped.TwoTowers(wide_first=True), (3, 32, 32), {"params": "30k"}),
    (tapped.output_layer, (3, 64, 64), {"params": "150k"}),
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
    result = m.reorganize(tapped.Taps(), (3, 16, 16))
    assert result.plan.steps == ()
    assert result.plan.notes == (f"{NUMBERED}features.0 … features.2; features.12 … features.16",)


def test_a_head_reads_behind_the_same_layers_after_a_reorganization() -> None:
    result = m.reorganize(tapped.Range(), (3, 16, 16))
    assert result.plan.end.depths == (4, 4, 2)
    for model in (tapped.Range(), result.model):
        assert layers_before(model, lambda model: model.low, 8) == 3
    result = m.reorganize(tapped.Tap(), (3, 16, 16))
    assert result.plan.end.depths == (4, 6, 3)
    for model in (tapped.Tap(), result.model):
        assert layers_before(model, lambda model: model.aux, 8) == 4


def test_removed_blocks_never_make_the_head_gain() -> None:
    plan = m.reorganize(tapped.TwoInputs(), (3, 32, 32), m.Budgets(params="12k")).plan
    assert (plan.start.depths, plan.end.depths) == ((10,), (6,))
    *_, before = plan.start.stages[0].gains(3)
    *_, after = plan.end.stages[0].gains(3)
    assert before == after == 0


def test_a_bare_output_layer_stays() -> None:
    plan = m.reorganize(tapped.output_layer(), (3, 64, 64), m.Budgets(params="80k")).plan
    assert [step.names for step in plan.steps] == [("2",)]


def weights_of_convolutions(model: nn.Module) -> dict[bytes, str]:
    """Names of the convolutions by their drawn weights: those that stay keep them."""
    return {
        part.weight.detach().numpy().tobytes(): name
        for name, part in model.named_modules()
        if isinstance(part, nn.Conv2d)
    }


@pytest.mark.slow
@pytest.mark.parametrize("params", ["60k", "120k"])
def test_every_removed_and_added_unit_is_named_and_output_layers_stay(params: str) -> None:
    model = tapped.Detector()
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
    network = m.EditedNetwork.of(tapped.TwoTowers(wide_first))
    image = (3, 32, 32)
    problem = m.OptimizationProblem(blocks=m.Blocks("DW+PW"), budgets=m.Budgets(params="40k"))
    answer = m.optimize(network, m.trace(network.model, image), problem)
    assert answer.after is not None
    assert answer.after.params <= 40_000
    assert answer.after.gain == pytest.approx(m.analyze(answer.network.model, image).gain)


# A network as it is trained and as it is run, and ties of gain


@pytest.mark.slow
@pytest.mark.parametrize(("name", "gain"), [("mobileone_s0", 6.252), ("fastvit_t8", 15.5754)])
def test_a_trained_network_gains_what_its_reparametrized_form_does(name: str, gain: float) -> None:
    from timm.utils.model import reparameterize_model

    trained = network(f"timm:{name}").eval()
    reports = [m.analyze(net, (3, 64, 64)) for net in (trained, reparameterize_model(trained))]
    units = [[unit.field for stage in report.stages for unit in stage.units] for report in reports]
    assert units[0] == units[1]
    assert [report.gain for report in reports] == pytest.approx([gain] * 2, abs=5e-4)


@pytest.mark.slow
def test_of_depths_with_equal_gain_those_closest_to_the_budget_are_taken() -> None:
    # Attention sees all pixels at once: no block gains, whatever their number.
    from timm.models.vision_transformer import VisionTransformer

    net = VisionTransformer(32, 8, embed_dim=32, depth=8, num_heads=2, num_classes=10)
    block = sum(parameter.numel() for parameter in net.blocks[0].parameters())
    whole = sum(parameter.numel() for parameter in net.parameters())
    plan = m.reorganize(net, (3, 32, 32), m.Budgets(params=round(0.6 * whole))).plan
    assert 0.6 * whole - block < plan.end.params <= 0.6 * whole
    assert len(plan.removed) == (whole - plan.end.params) / block


# Layers that hold more than weights


def weight_normed() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(16, 16, 3, padding=1)),
        nn.ReLU(),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(16, 16, 3, padding=1)),
    )


def formerly_normed() -> nn.Module:
    """Norms by hooks, whose weights are attributes with a history."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1),
            nn.utils.weight_norm(nn.Conv2d(16, 16, 3, padding=1)),
            nn.ReLU(),
            nn.utils.spectral_norm(nn.Conv2d(16, 16, 3, padding=1)),
        )


@pytest.mark.parametrize("make", [weight_normed, formerly_normed])
def test_convolutions_with_norms_of_weights_are_replaced_and_run(make) -> None:
    model = make()
    result = m.decompose(model, (3, 8, 8), m.Blocks("DW+PW"))
    assert [layer.name for layer in result.plan.replaced] == ["1", "3"]
    assert result.model(torch.randn(2, 3, 8, 8)).shape == (2, 16, 8, 8)
    assert result.plan.notes == tuple(
        f"{norm} of {name} goes with what is replaced: blocks have plain weights"
        for norm, name in (("weight norm", "1"), ("spectral norm", "3"))
    )
    moved = m.reorganize(model, (3, 8, 8), moves=0).model
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(moved.eval()(x), model.eval()(x))


def test_hooks_of_a_replaced_convolution_are_those_of_the_block() -> None:
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1))
    model[1].register_forward_hook(lambda _module, _args, y: y + 100)
    model[1].register_forward_pre_hook(lambda _m, args, kwargs: (args, kwargs), with_kwargs=True)
    y = m.decompose(model, (3, 8, 8), m.Blocks("DW+PW")).model(torch.zeros(1, 3, 8, 8))
    assert bool((y > 90).all())


def test_an_attribute_that_cannot_be_copied_is_named() -> None:
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 16, 3, padding=1)), moved.conv(16, 16), moved.conv(16, 16)
    )
    model[0].lock = threading.Lock()
    for change in (m.reorganize, m.decompose):
        with pytest.raises(SettingError, match=r"cannot be copied: got 0\.lock \(lock\); allow"):
            change(model, (3, 8, 8))


# Group counts and tables


@pytest.mark.parametrize(
    ("composition", "widths", "params"),
    [("PW+SH+DW", (15, 116), 2784), ("PW+GPW+SH", (58, 87), 3538)],
)
def test_groups_of_a_last_shuffle_need_not_divide_the_width_that_enters(
    composition: str, widths: tuple[int, int], params: int
) -> None:
    problem = GroupsProblem(Composition.parse(composition), *widths)
    best = cheapest_groups(problem).best
    assert best is not None
    assert best.sized.params == params == brute_groups.full_choices(problem)[0].cost
    assert judge(best).field[1] == widths[0]


@pytest.mark.parametrize(
    ("block", "widths"), [("DW+PW+SH(3)", (8, 12)), ("PW+DW+PW+SH(29)", (24, 58))]
)
def test_a_shuffle_behind_the_change_of_width_needs_no_groups_at_the_width_before(
    block: str, widths: tuple[int, int]
) -> None:
    about = describe(block, *widths)
    assert about.quality
    assert about.removable[-1] == len(about.layers) - 1


def test_a_depthwise_convolution_with_a_multiplier_is_a_group_count_like_others() -> None:
    def blocks(**arguments: object) -> dict[str, Design]:
        designs = enumerate_designs([EnumerationSetting(**arguments)], jobs=1).designs
        return {design.composition: design for design in designs}

    design = blocks(channels=64, out_channels=128, max_len=2)["PW+GC"]
    assert (str(design.block), design.params) == ("PW+GC(64)", 64 * 64 + 9 * 128)
    (plan,) = cheapest_groups(GroupsProblem(Composition.parse("PW+GC"), 64, 128)).plans
    assert (plan.block, plan.objective()) == (design.block, 5248)
    # At width C it copies channels, so a pointwise layer of such groups is never needed.
    two = blocks(channels=2, out_channels=24, max_len=3)
    assert [str(design.block) for design in two.values()] == ["PW+GC(2)", "PW+DW", "DW+PW"]


def test_decimal_commas_are_an_error_and_no_latency(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    head = "block,C,F,side,stride,batch,device,dtype,latency_ms"
    table.write_text(f"{head}\nCONV,3,64,32,1,1,cpu,float32,1,25\n", "utf-8")
    with pytest.raises(SettingError, match=r"line 2 has 10 fields, the header 9.*with a point"):
        read_latency(table)


# Files and processes


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Yield a function that writes a file in a new folder and returns its path."""

    def write(text: str, name: str = "net.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return str(path)

    yield write
    for name in [name for name in sys.modules if name.partition(".")[0] == "outer"]:
        del sys.modules[name]


def test_a_file_of_a_package_is_run_as_a_module_of_it(write: Callable[..., str]) -> None:
    file = write(
        "from . import widths\nfrom ..layers import Layer\nfrom outer.layers import Layer as same\n"
        "assert Layer is same\ndef make():\n    from .widths import OUT\n    return Layer(OUT)",
        "outer/nets/net.py",
    )
    write("OUT = 7", "outer/nets/widths.py")
    write(
        "from torch import nn\nclass Layer(nn.Linear):\n    def __init__(self, out): "
        "super().__init__(2, out)",
        "outer/layers.py",
    )
    for folder in ("outer", "outer/nets"):
        write("", f"{folder}/__init__.py")
    model = network(f"{file}:make")
    assert model.out_features == 7
    assert torch.equal(pickle.loads(pickle.dumps(model)).weight, model.weight)
    write("raise OSError('not yet')", "outer/nets/__init__.py")
    for name in [name for name in sys.modules if name.startswith("outer")]:
        del sys.modules[name]
    with pytest.raises(SettingError, match=r"own code failed: got .*net\.py \(OSError: not yet\)"):
        network(f"{file}:make")


def test_a_file_sees_no_arguments_of_the_program(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["ifspace", "optimize", "--params", "3k"]
    monkeypatch.setattr(sys, "argv", arguments)
    file = write(
        "import argparse, sys\nfrom torch import nn\n"
        "width = argparse.ArgumentParser().parse_args() and len(sys.argv)\n"
        "def make():\n    return nn.Linear(2, width + len(sys.argv))"
    )
    assert network(f"{file}:make").out_features == 2
    assert sys.argv is arguments


def test_a_network_of_a_file_is_read_beside_the_file_it_was_saved_to(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = Path(write("from torch import nn\nmake = lambda: nn.Conv2d(3, 4, 3)", "code/mine.py"))
    monkeypatch.chdir(tmp_path)
    saved = from_source("code/mine.py:make", IMAGE)
    x = torch.randn(1, *IMAGE)

    def check_same(path: Path, where: Path | None = None) -> EditedNetwork:
        loaded = load_edited(path, trust_code=True, code=where)
        torch.testing.assert_close(loaded.model(x), saved.model(x), rtol=0, atol=0)
        return loaded

    save(saved, "net.safetensors")
    path = tmp_path / "net.safetensors"
    monkeypatch.chdir(code.parent)
    with pytest.raises(
        NetworkFileError, match=r"no file .*; when it was saved it was code/mine\.py, .*: move that"
    ):
        load(path, trust_code=True)
    check_same(path, code)
    check_same(path.rename(code.parent / "moved.safetensors"))
    save(saved, code.parent / "net.safetensors")
    monkeypatch.chdir("/")
    # What was loaded can be saved and loaded again.
    save(check_same(code.parent / "net.safetensors"), code.parent / "again.safetensors")
    check_same(code.parent / "again.safetensors")


def test_a_network_that_is_saved_away_from_its_code_says_where_it_is_loaded(
    run: Callable, write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        "from torch import nn\ndef make():\n"
        "    return nn.Sequential(*(nn.Conv2d(c, 16, 3, padding=1) for c in (3, 16)))",
        "code/mine.py",
    )
    monkeypatch.chdir(tmp_path)
    block = ("--input", "3x8x8", "--block", "DW+PW", "--blocks-only", "--save")
    note = f"move it beside {tmp_path}/code/mine.py: that file is run, with --trust-code"
    ended = run("optimize", "code/mine.py:make", *block, "net.safetensors")
    assert (ended.status, ended.err.count(note)) == (0, 1)
    assert run("optimize", "code/mine.py:make", *block, "code/net.safetensors").err.count(note) == 0


@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-"])
def test_a_closed_stdout_is_one_line(tmp_path: Path, closed: str) -> None:
    def status(*options: str) -> tuple[int, str]:
        command = shlex.join([*PYTHON, "show", "DW+PW", "-C", "16", *options])
        done = subprocess.run(
            f"exec {command} {closed}", shell=True, stderr=subprocess.PIPE, cwd=ROOT, text=True
        )
        return done.returncode, done.stderr

    line = "ifspace: cannot write the output: stdout is closed; write it to a file with --out\n"
    assert status() == (2, "" if "2>" in closed else line)
    # Then the answer is in the file, and nothing else was wanted.
    file = tmp_path / "block.json"
    assert status("--out", str(file)) == (0, "")
    assert json.loads(file.read_text())["channels"] == 16


def test_a_loop_of_links_is_one_line(run: Callable, tmp_path: Path) -> None:
    (tmp_path / "a.csv").symlink_to(tmp_path / "b.csv")
    (tmp_path / "b.csv").symlink_to(tmp_path / "a.csv")
    ended = run("kinds", "--out", str(tmp_path / "a.csv"))
    assert ended.status == 2
    assert "cannot be written: got" in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.slow
def test_a_killed_worker_is_one_line_that_says_what_to_try() -> None:
    def dies(shard: int) -> int:
        import os
        import signal

        if shard == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return shard

    with pytest.raises(
        WorkerError, match=r"^a worker was ended from .* not done: .*; use fewer jobs"
    ):
        over_shards(dies, range(4), 2)
    # The next run has new workers.
    assert over_shards(lambda shard: shard * shard, [1, 2], 2) == [1, 4]


@pytest.mark.parametrize("repeats", [10**6, 10**9, "9" * 20])
def test_rounds_without_end_are_an_error(run: Callable, repeats: object) -> None:
    run("bench", "--repeats", repeats).fails_with("'--repeats'", "to 100000")
