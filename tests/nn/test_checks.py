"""Mistakes of a first user: each raises an error of one line that says what to write instead."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ifspace.block import Block, Composition
from ifspace.errors import IfspaceError, SettingError
from ifspace.nn import (
    FOG,
    MOBILENET,
    PLAIN,
    BlockModule,
    NetworkStyle,
    Style,
    build,
    build_network,
    export_onnx,
    named_network,
    style_of,
    to_source,
)
from ifspace.nn.checks import device_of
from ifspace.stages.networks import (
    NETWORKS,
    make_layout,
    network,
)

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("one_thread")


def layout() -> Any:
    return make_layout("DW+PW", (8,), (4,), (1,))


def block() -> BlockModule:
    return build("DW+PW", 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        # Styles: the two types, a class, nothing, another name.
        (
            lambda: build("DW", 8, style=NetworkStyle()),
            "wrong style: got NetworkStyle; allowed: a "
            "Style of ifspace.nn, or a name: plain, mobilenet, fog; a block takes a Style, "
            "build_net",
        ),
        (lambda: build("DW", 8, style=Style), "wrong style: got the class Style;"),
        (lambda: build("DW", 8, style=None), "wrong style: got None;"),
        (lambda: build("DW", 8, style="vgg16"), "wrong style: got 'vgg16'; allowed: a Style"),
        (lambda: BlockModule(Block.parse("DW").at(8), 1, 3), "wrong style: got int;"),
        (
            lambda: build_network(layout(), Style()),
            "wrong style: got Style; allowed: a "
            "NetworkStyle of ifspace.nn, or a name: plain, vgg11, ",
        ),
        (lambda: build_network(layout(), NetworkStyle), "wrong style: got the class NetworkStyle;"),
        (lambda: build_network(layout(), "none"), "wrong style: got 'none';"),
        (lambda: build_network(layout(), 3), ".*; a network takes a NetworkStyle, build takes a"),
        (lambda: style_of(None), "unknown network: got None; allowed: vgg11, "),
        (lambda: style_of(["fog"]), "unknown network: got list; allowed: vgg11, "),
        # Blocks and layouts.
        (lambda: build(None, 64), "wrong block: got None; allowed: a block such as .DW.PW., a Bl"),
        (lambda: build(64), "wrong block: got int;"),
        (lambda: build(Composition.parse("DW+PW"), 64), "wrong block: got Composition;"),
        (lambda: build("DW", 8, dtype=torch.int32), "wrong dtype: got torch.int32; allowed: torch"),
        (lambda: build("DW", 8, dtype="float32"), "wrong dtype: got 'float32';"),
        (
            lambda: build_network("vgg16"),
            "wrong layout: got 'vgg16'; allowed: a Layout such as "
            "ifspace.stages.networks.make_layout returns; named_network takes a name",
        ),
        (lambda: build_network(None), "wrong layout: got None;"),
        (lambda: build_network(layout(), seed="a"), "seed out of range: got 'a'; allowed: whole"),
        (lambda: build_network(layout(), seed=-1), "seed out of range: got -1;"),
        (lambda: build_network(layout(), seed=1.0), "seed out of range: got 1.0;"),
        (lambda: build_network(layout(), device="gpu"), "device cannot be used: got 'gpu' ."),
        (lambda: build_network(layout(), dtype=torch.int8), "wrong dtype: got torch.int8;"),
        (lambda: named_network(None), "unknown network: got None;"),
        (lambda: named_network("vgg17"), "unknown network: got 'vgg17';"),
        (
            lambda: named_network("vgg16", 72),
            "feature maps with a fraction of a pixel: got side 72; allowed: multiples of 16",
        ),
        (lambda: named_network("resnet50", 225), ".*: got side 225; allowed: multiples of 32;"),
        (lambda: named_network("vgg16", 0), "side out of range: got 0;"),
        (lambda: named_network("vgg16", "32"), "side out of range: got '32';"),
        (lambda: named_network("vgg16", 32.0), "side out of range: got 32.0;"),
        (
            lambda: named_network("vgg16", depths="5,4,2,1,1"),
            "wrong depths: got '5,4,2,1,1'; "
            "allowed: a whole number for each stage; write them like .5, 4, 2, 1, 1.$",
        ),
        (lambda: named_network("vgg16", depths=5), "wrong depths: got int;"),
        (lambda: named_network("vgg16", depths=(1.0, 1, 1, 1, 1)), "depths out of range: got 1.0;"),
        (lambda: named_network("vgg16", depths=(1.0,)), "depths out of range: got 1.0;"),
        (lambda: named_network("vgg16", depths=(1,)), "wrong number of depths: got 1; allowed: 5"),
        (lambda: named_network("vgg16", classes=0), "classes out of range: got 0;"),
        (lambda: named_network("vgg16", classes="10"), "classes out of range: got '10';"),
        (lambda: named_network("vgg16", seed="a"), "seed out of range: got 'a';"),
        # Source: what it uses itself, in any spelling that Python reads so.
        *[
            (lambda name=name: to_source(block(), name), "not the name of a class: got ")
            for name in (
                "nn",
                "super",
                "Tensor",
                "RollingPointwiseConv2d",
                "RollingPointwiseConv1d",
                "None",
                "class",
                "",
                "a b",
                None,
                3,
                Block,
                "\uff4e\uff4e",
            )
        ],
    ],
)
def test_mistakes_raise_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(IfspaceError, match=f"^{message}") as error:
        make()
    assert "\n" not in str(error.value)


def conv() -> nn.Module:
    return nn.Conv2d(8, 8, 3)


@pytest.mark.parametrize(
    ("module", "example", "message"),
    [
        (None, torch.ones(1, 8, 4, 4), "wrong module: got None; allowed: a torch.nn.Module;"),
        (conv, torch.ones(1, 8, 4, 4), "wrong module: got function;"),
        (BlockModule, torch.ones(1, 8, 4, 4), "wrong module: got the class BlockModule;"),
        (conv(), None, "wrong example: got None; allowed: a torch.Tensor"),
        (conv(), (1, 8, 4, 4), "wrong example: got tuple;"),
        (conv(), torch.ones(0, 8, 4, 4), r"example without an image: got \[0, 8, 4, 4\]"),
        (conv(), torch.tensor(1.0), r"example without an image: got \[\]"),
        (conv(), torch.ones(1, 8, 4, 4, device="meta"), "nothing to write: got an example or wei"),
        (conv().to("meta"), torch.ones(1, 8, 4, 4), "nothing to write: got an example or weigh"),
        (
            conv(),
            torch.ones(1, 4, 4, 4),
            r"module cannot be exported with this example: got "
            r"\[1, 4, 4, 4\] of torch.float32 \(Given groups=1, weight",
        ),
        (block(), torch.ones(1, 4, 4, 4), r"input does not fit the block: got \[2, 4, 4, 4\]"),
        (block(), torch.ones(1, 8, 4, 4).long(), "module cannot be exported with this example"),
        (block(), torch.ones(1, 8, 4, 4).double(), "module cannot be exported with this example"),
    ],
)
def test_a_module_that_cannot_be_exported_raises_one_line(
    tmp_path: Path, module: Any, example: Any, message: str
) -> None:
    with pytest.raises(IfspaceError, match=f"^{message}") as error:
        export_onnx(module, example, tmp_path / "x.onnx")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_wrong_path_of_an_export_raises() -> None:
    with pytest.raises(SettingError, match=r"^wrong path: got None; allowed: a str or a Path"):
        export_onnx(conv(), torch.ones(1, 8, 4, 4), None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "style"), [("plain", PLAIN), ("MobileNet", MOBILENET), ("fog", FOG)]
)
def test_a_block_takes_the_name_of_a_style(name: str, style: Style) -> None:
    assert build("DW+PW", 8, style=name).style == style
    assert BlockModule(Block.parse("DW+PW").at(8), 1, name).style == style


@pytest.mark.parametrize("name", ["mobilenet", "fog", "VGG16", "resnet50", "layout-residual"])
def test_a_network_takes_the_name_of_a_style(name: str) -> None:
    assert build_network(layout(), name, device="meta").style == style_of(name)


def test_a_plain_network_has_no_activation() -> None:
    net = build_network(layout(), "plain", device="meta")
    assert {type(module) for module in net.modules()}.isdisjoint({nn.ReLU, nn.Identity})
    assert build_network(layout(), device="meta").style == NetworkStyle()


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("vgg16", (4096, 4096)),
        ("resnet50", ()),
        ("mobilenet", ()),
        ("fog", ()),
        ("layout-plain", ()),
        ("layout-residual", ()),
        ("3drf", ()),
    ],
)
def test_a_named_network_has_as_many_classes_as_asked(name: str, hidden: tuple[int, ...]) -> None:
    net = named_network(name, 224, classes=37, device="meta")
    assert net(torch.empty(2, 3, 224, 224, device="meta")).shape == (2, 37)
    assert net.layout.stem_and_head.classifier == (*hidden, 37)
    assert net.layout.params == sum(parameter.numel() for parameter in net.parameters())
    assert named_network(name, 224, device="meta").layout == network(name, 224)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("side", [48, 128])
def test_a_named_network_has_the_side_that_is_asked(name: str, side: int) -> None:
    net = named_network(name, side, device="meta").eval()
    with FlopCounterMode(display=False) as counted:
        assert net(torch.empty(1, 3, side, side, device="meta")).dim() == 2
    assert counted.get_total_flops() == 2 * net.layout.macs
    assert net.layout.params == sum(parameter.numel() for parameter in net.parameters())
    like = network(name, 32 if side < 112 else 224)
    assert net.layout.params == like.params
    assert (net.layout.depths, net.layout.image) == (like.depths, side)


def test_available_devices() -> None:
    assert (device_of(None), device_of("meta").type) == (torch.device("cpu"), "meta")


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        (["torch"], "torch is not installed"),
        (["safetensors"], "safetensors is not installed"),
        (["torch", "safetensors"], "torch and safetensors are not installed"),
    ],
)
@pytest.mark.parametrize("module", ["ifspace.nn", "ifspace.nn.files"])
def test_a_package_that_is_not_installed_is_named(
    absent: list[str], message: str, module: str
) -> None:
    code = f"import sys\nfor each in {absent}: sys.modules[each] = None\nimport {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {message}: ")
    assert last.endswith("; pip install 'ifspace[torch]'")
