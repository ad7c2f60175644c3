"""Networks by name: of packages, of a user's Python file, and of the papers."""

import gc
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from weakref import ref

import pytest
import torch
from models.zoo import BUILT_IN, TIMM, TORCHVISION, ZOO, Entry, build, on_meta
from torch import nn

from ifspace.errors import DeviceError, SettingError
from ifspace.models import sources
from ifspace.models.edits import ImageSize
from ifspace.models.sources import (
    from_file,
    network,
    parse_image,
)
from ifspace.nn import named_network
from ifspace.stages import networks

ROOT = Path(__file__).parents[2]


def numel(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("entry", ZOO, ids=str)
def test_every_network_is_built_and_takes_its_images(entry: Entry) -> None:
    model = on_meta(entry)
    assert numel(model) == entry.params
    assert all(module.training for module in model.modules())
    device = next(model.parameters()).device
    model = model.eval() if device.type == "meta" else model
    classes = 10 if entry.built_in and entry.image[1] == 32 else 1000
    with torch.no_grad():
        y = model(torch.empty(2, *entry.small, device=device))
    assert y.shape == (2, classes)


def test_the_parameters_are_those_that_the_libraries_publish() -> None:
    models = import_module("torchvision.models")
    for entry in TORCHVISION:
        weights = models.get_model_weights(entry.model.partition(":")[2]).DEFAULT
        assert weights.meta["num_params"] == entry.params, entry
    for entry in BUILT_IN:
        assert networks.network(entry.model, entry.image[1]).params == entry.params, entry
    # timm states none: the same networks elsewhere, and 5.18 million of GhostNet's repository.
    same = {entry.model.replace("torchvision:", "timm:"): entry.params for entry in TORCHVISION}
    same["timm:mobilenetv1_100"] = networks.network("mobilenet", 224).params
    timm_params = {entry.model: entry.params for entry in TIMM}
    assert round(timm_params.pop("timm:ghostnet_100") / 1e4) == 518
    assert timm_params == {name: same[name] for name in timm_params}


def test_all_networks_of_the_papers_are_in_the_zoo() -> None:
    small = [entry.model for entry in BUILT_IN if entry.image == (3, 32, 32)]
    assert small == list(networks.NETWORKS)
    assert len({str(entry) for entry in ZOO}) == len(ZOO)


@pytest.mark.slow
def test_the_zoo_caches_a_network_while_it_is_referenced() -> None:
    entry = next(entry for entry in BUILT_IN if entry.model == "layout-plain")
    held = build(entry)
    assert build(entry) is held
    first, alive = next(held.parameters()).detach().clone(), ref(held)
    del held
    gc.collect()
    assert alive() is None
    assert torch.equal(next(build(entry).parameters()), first)


@pytest.mark.parametrize(
    "name",
    [
        "torchvision:shufflenet_v2_x1_0",
        pytest.param("timm:ghostnet_050", marks=pytest.mark.slow),
        "layout-plain",
    ],
)
def test_a_seed_draws_the_same_weights_and_leaves_the_generator(name: str) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again, other = (
        [*network(name, (3, 32, 32), seed=seed).parameters()] for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    network(name, (3, 32, 32))
    assert not torch.equal(torch.get_rng_state(), before)


def test_a_network_of_the_papers_is_that_of_named_network() -> None:
    model, same = (
        network("Layout-PLAIN", (3, 32, 32), seed=3),
        named_network("layout-plain", seed=3),
    )
    assert (model.layout, model.style) == (same.layout, same.style)
    assert all(map(torch.equal, model.state_dict().values(), same.state_dict().values()))
    assert network("fog", (3, 64, 64)).layout.image == 64
    with torch.device("meta"):
        assert network(" vgg16 ").layout.image == 224


@pytest.mark.parametrize(
    ("name", "classes"),
    [("torchvision:ResNet18", 7), ("Timm:resnet18.a1_in1k", 7), ("mobilenet", 7)],
)
def test_classes_are_passed_on(name: str, classes: int) -> None:
    with torch.device("meta"):
        model = network(name, classes=classes)
        assert model.eval()(torch.empty(1, 3, 224, 224)).shape == (1, classes)
        usual = network(name).eval()(torch.empty(1, 3, 224, 224))
    assert usual.shape == (1, 1000)


def test_the_image_channels_are_passed_to_timm() -> None:
    with torch.device("meta"):
        model = network("timm:mobilenetv1_100", (1, 64, 64)).eval()
        assert model(torch.empty(1, 1, 64, 64)).shape == (1, 1000)


def test_no_weights_are_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(*_: object, **__: object) -> None:
        raise AssertionError("fetched")

    for place in (
        "torchvision.models._api",
        "torch.hub",
        "timm.models._hub",
        "timm.models._builder",
    ):
        module = import_module(place)
        for name in ("load_state_dict_from_url", "load_state_dict_from_hf"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, fetch)
    with torch.device("meta"):
        network("torchvision:fcn_resnet50")  # its backbone has weights of its own
        network("timm:resnet18.a1_in1k")


@pytest.mark.parametrize(
    ("name", "image", "message"),
    [
        (
            "vgg17",
            None,
            r"unknown network: got 'vgg17'; allowed: timm:NAME, torchvision:NAME, "
            r"FILE\.py:FACTORY, or vgg11, .*; nearest: vgg.*, or is it timm:vgg17 or .*:vgg17\?$",
        ),
        ("squeeze", None, r"unknown network: got 'squeeze'; .*; name a package, or is it timm:"),
        ("", None, "unknown network: got ''"),
        ("net.pt2", None, "unknown network: got 'net.pt2'; .*; such a file has weights or a prog"),
        ("tim:resnet50", None, r"unknown source of a network: got 'tim:r.*; nearest: timm$"),
        ("hf:resnet50", None, r"unknown source of a network: .*; write a file as FILE\.py:"),
        (
            "torchvision:resnt50",
            None,
            r"torchvision has no such network: got 'resnt50'; allowed: "
            r"\d+ names of torchvision\.models\.list_models\(\); nearest: resnet50",
        ),
        ("timm:resnt50", None, r"timm has no such network: got 'resnt50'; .*; nearest: .*resnet50"),
        ("timm:hf-hub:timm/resnet18", None, "timm has no such network"),
        ("timm:", None, "timm has no such network: got ''; .*; choose one of them$"),
        (
            "timm:resnet18.nonsense",
            None,
            r"network cannot be built: got timm:resnet18\.nonsense "
            r"\(RuntimeError: .*nonsense.*\); allowed: ",
        ),
        ("net.py", None, r"no factory named: got 'net\.py'; .*; write it like net\.py:make"),
        (
            "vgg16",
            (3, 33, 33),
            "vgg16 for 3x33x33: feature maps with a fraction of a pixel: got side",
        ),
        ("vgg16", (3, 32, 64), "vgg16 does not take such images: got 3x32x64; allowed: square"),
        ("vgg16", (1, 32, 32), "vgg16 does not take such images: got 1x32x32"),
        ("torchvision:vgg16", (1, 32, 32), "torchvision:vgg16 does not take such images: got 1x"),
        (16, None, "wrong model: got int; allowed: timm:NAME"),
    ],
)
def test_unknown_names_raise(name: str, image: ImageSize | None, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}") as raised:
        network(name, image or (3, 224, 224))
    assert raised.value.argument == "model"
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("mynets.model:make", "write its file: mynets/model.py:make"),
        ("mynets:make", "write its file: mynets/__init__.py:make"),
        ("mynets.other:make", "write a file as FILE.py:FACTORY"),
    ],
)
def test_a_module_is_refused_with_the_name_of_its_file(
    name: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "__init__.py").touch()
    (tmp_path / "mynets" / "model.py").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=rf"; {remedy}$"):
        network(name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": (3, 32)}, r"wrong image: got \(3, 32\); allowed: \(channels, height, width\);"),
        ({"image": "3x32x32"}, "wrong image: got '3x32x32'"),
        ({"image": 32}, "wrong image: got 32"),
        ({"image": (3, 32, 0)}, "image out of range: got 0"),
        ({"image": (3, 32.5, 32)}, r"image out of range: got 32\.5"),
        ({"classes": 0}, "classes out of range: got 0"),
        ({"seed": -1}, "seed out of range: got -1"),
        ({"name": "net.py:make", "classes": 3}, "classes of a network in a file: got 3"),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}") as raised:
        network(**{"name": "vgg16"} | arguments)  # type: ignore[arg-type]
    assert raised.value.argument in arguments


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(
        DeviceError, match=r"^timm is not installed: .*; pip install timm$"
    ) as raised:
        network("timm:resnet18")
    assert raised.value.argument == "model"
    assert numel(network("layout-plain", (3, 32, 32))) == 603962


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("operator torchvision::nms does not exist\nmore"),
            r"this build of torchvision does not fit this torch: got torchvision \d.*, "
            r"torch \d.*"
            r"\(RuntimeError: operator torchvision::nms does not exist\); .*; install the torch",
        ),
        (
            AttributeError(
                "partially initialized module 'torchvision' has no attribute 'extension'"
            ),
            "this build of torchvision does not fit this torch",
        ),
        (
            ModuleNotFoundError("No module named 'torchvision'", name="torchvision"),
            "timm cannot be imported: got ModuleNotFoundError: .*; pip install torchvision$",
        ),
        (
            OSError("libx.so: cannot open shared object file"),
            "timm cannot be imported: got OSError: libx.*; "
            "pip install --force-reinstall --no-deps t",
        ),
    ],
)
def test_a_package_that_is_broken(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(sources, "import_module", fail)
    with pytest.raises(DeviceError, match=f"^{message}"):
        network("timm:resnet18")


def in_new_python(code: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.slow
def test_packages_are_imported_only_when_named() -> None:
    out, err = in_new_python(
        "import sys\nfrom ifspace.errors import IfspaceError\n"
        "from ifspace.models.sources import network\n"
        "network('layout-plain', (3, 32, 32))\n"
        "print({'timm', 'torchvision', 'sklearn'} & sys.modules.keys())\n"
        "for _ in range(2):\n"
        "    try:\n        print(type(network('torchvision:resnet18')).__name__)\n"
        "    except IfspaceError as raised:\n        print(raised)"
    )
    first, *tries = out.splitlines()
    assert (first, err) == ("set()", "")
    assert len(tries) == 2
    assert tries == ["ResNet", "ResNet"]


@pytest.mark.slow
def test_imports_are_silent_and_wait_for_torchvision() -> None:
    out, err = in_new_python(
        "import sys\nfrom ifspace.models import torchvision_operators as operators\n"
        "operators.declare_when_imported()\nprint('torch' in sys.modules)\n"
        "import timm, torchvision\nprint(torchvision.models.resnet18().fc.out_features)"
    )
    assert (out.split(), err) == (["False", "1000"], "")


@pytest.mark.slow
@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_file_imports_packages_as_names_of_them_do(package: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        f"import {package}\nfrom torch import nn\ndef make(): return nn.Conv2d(3, 8, 3)\n"
    )
    out, err = in_new_python(
        "from ifspace.models.options import ModelSource\n"
        f"for name in ({str(tmp_path / 'net.py:make')!r}, 'torchvision:resnet18'):\n"
        "    source = ModelSource(name, (3, 32, 32))\n"
        "    print(type(source.build()).__name__, source.notes())"
    )
    (of_file, notes), (of_package, same) = (line.split(maxsplit=1) for line in out.splitlines())
    assert (of_file, of_package, err) == ("Conv2d", "ResNet", "")
    assert notes == same  # whether the operators have names only


@pytest.mark.parametrize(
    ("text", "image"),
    [("3x224x224", (3, 224, 224)), (" 1X28×32 ", (1, 28, 32)), ("3 x 32 x 32", (3, 32, 32))],
)
def test_image_sizes_are_read(text: str, image: ImageSize) -> None:
    assert parse_image(text) == image


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("224", "image size cannot be read: got '224'; allowed: CHANNELSxHEIGHTxWIDTH"),
        ("3x224", "image size cannot be read"),
        ("3x224x224x1", "image size cannot be read: .*networks in 3-D are not read"),
        ("3x-2x2", "image size cannot be read"),
        ("٣x2x2", "image size cannot be read"),
        (None, "image size cannot be read: got None"),
        ("0x224x224", "input out of range: got 0"),
        ("3x224x65537", "input out of range: got 65537"),
    ],
)
def test_image_sizes_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}") as raised:
        parse_image(text)
    assert raised.value.argument == "input"


NET = """
from __future__ import annotations
from dataclasses import dataclass, field
import torch
from torch import nn

@dataclass
class Size:
    width: int = field(default=4)

def double(x):
    return x * FACTOR

FACTOR = 2

class Net(nn.Module):
    def __init__(self, width=Size().width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3)

    def forward(self, x):
        return double(self.conv(x))

def make():
    return Net(8).eval()

made = Net(5)
number = 7

def of_blocks():
    from blocks import Block
    return Block()

def wants(width):
    return Net(width)

def fails():
    raise ValueError("no width\\nand more")

def leaves():
    raise SystemExit

def stops():
    raise KeyboardInterrupt

if __name__ == "__main__":
    raise RuntimeError("run as a program")
"""


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that sys.path is unchanged after a test and that sys.modules keeps its modules."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    path, modules = list(sys.path), dict(sys.modules)
    yield
    assert sys.path == path
    assert all(sys.modules.get(name) is module for name, module in modules.items())
    for name in sys.modules.keys() - modules.keys():
        if name.startswith(("_ifspace_", "outer")) or name in ("blocks", "inner", "inner.deep"):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Return a function that writes a file in `tmp_path` and returns its path."""

    def write(text: str, name: str = "net.py") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("factory", "width", "training"), [("make", 8, False), ("Net", 4, True), ("made", 5, True)]
)
def test_functions_classes_and_modules_are_accepted(
    factory: str, width: int, training: bool, write: Callable[..., str]
) -> None:
    file = write(NET)
    model = network(f"{file}:{factory}", seed=0)
    assert model(torch.zeros(1, 3, 4, 4)).shape == (1, width, 2, 2)
    assert model.training is training
    again, other = network(f"{file}:{factory}", seed=0), network(f"{file}:{factory}", seed=1)
    assert again is not model
    assert torch.equal(again.conv.weight, model.conv.weight)
    assert not torch.equal(other.conv.weight, model.conv.weight)
    assert not (Path(file).parent / "__pycache__").exists()


def test_a_relative_path_is_that_of_the_working_folder(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(write(NET, "some nets/net.py")).parent.parent)
    assert network("some nets/net.py:make").conv.out_channels == 8


@pytest.mark.slow
def test_a_network_of_a_file_can_be_pickled_and_compiled(write: Callable[..., str]) -> None:
    model = network(f"{write(NET)}:make")
    write(NET.replace("FACTOR = 2", "FACTOR = 3"))
    tripled = network(f"{write(NET.replace('FACTOR = 2', 'FACTOR = 3'))}:make")
    x = torch.randn(1, 3, 4, 4)
    assert torch.equal(pickle.loads(pickle.dumps(model))(x), model(x))
    for net, factor in ((model, 2), (tripled, 3)):
        compiled = torch.compile(nn.Sequential(net), backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(x), factor * net.conv(x))


def test_files_in_the_same_folder_can_be_imported(write: Callable[..., str]) -> None:
    file = write(
        "from inner.deep import Net\n\ndef of_blocks():\n    import blocks\n"
        "    return blocks.Block()",
        "my-net.v2.py",
    )
    write(
        "from torch import nn\nclass Net(nn.Conv2d):\n    def __init__(self): "
        "super().__init__(3, 6, 1)",
        "inner/deep.py",
    )
    write(
        "from torch import nn\nclass Block(nn.Linear):\n    def __init__(self): "
        "super().__init__(2, 9)",
        "blocks.py",
    )
    assert network(f"{file}:Net").out_channels == 6
    assert network(f"{file}:of_blocks").out_features == 9
    assert {"blocks", "inner.deep"} <= sys.modules.keys()


def test_folders_with_files_of_one_name_are_kept_apart(write: Callable[..., str]) -> None:
    text = "from torch import nn\nclass Block(nn.Linear):\n    def __init__(self): "
    for folder, width in (("first", 1), ("second", 2)):
        write(f"{text}super().__init__(2, {width})", f"{folder}/blocks.py")
        write("from blocks import Block", f"{folder}/net.py")
    folder = Path(write(""))
    for name, width in (("first", 1), ("second", 2), ("first", 1)):
        model = network(f"{folder.parent / name / 'net.py'}:Block")
        assert model.out_features == width


def test_a_changed_file_is_read_again(write: Callable[..., str]) -> None:
    file = write("import blocks\nmake = blocks.make")
    write("from torch import nn\nraise OSError('not yet')", "blocks.py")
    with pytest.raises(SettingError, match=r"net\.py \(OSError: not yet\); .*; see line 1 of net"):
        network(f"{file}:make")
    write("from torch import nn\nmake = 3", "blocks.py")
    with pytest.raises(SettingError, match=r"^factory returns no network: got int of "):
        network(f"{file}:make")
    assert "blocks" not in sys.modules
    write("from torch import nn\nmake = nn.Identity     ", "blocks.py")
    assert isinstance(network(f"{file}:make"), nn.Identity)


def test_a_module_that_is_already_imported_is_kept(
    write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    write("number = 1", "json.py")  # it is imported already: as under python FILE.py that one is
    file = write("import json\nfrom torch import nn\nmake = nn.Identity\njson.dumps(1)")
    network(f"{file}:make")
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            "mak",
            r"no such factory in the file: got .*net\.py:mak; allowed: Size, double, Net, make"
            r".*, …; nearest: make",
        ),
        ("", "no such factory in the file: got .*; name one of the file$"),
        ("number", r"factory returns no network: got int of .*net\.py:number; allowed: a function"),
        (
            "Size",
            r"factory returns no network: got Size of .*:Size; .*; let it return the network$",
        ),
        (
            "fails",
            r"the network's own code failed: got .*net\.py:fails \(ValueError: no width\); "
            r"allowed: a function .*; see line 38 of net\.py$",
        ),
        (
            "wants",
            r"the network's own code failed: .*\(TypeError: wants\(\) missing 1 .*'width'\); "
            r".*; fix net\.py$",
        ),
        ("leaves", r"the network's own code failed: got .*:leaves \(SystemExit\); .*; see line 41"),
        ("of_blocks", r".*\(ModuleNotFoundError: No module named 'blocks'\); .*; see line 31 of"),
    ],
)
def test_factories_that_fail(factory: str, message: str, write: Callable[..., str]) -> None:
    with pytest.raises(SettingError, match=f"^{message}") as raised:
        network(f"{write(NET)}:{factory}")
    assert raised.value.argument == "model"
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def make(:\n", r"\(SyntaxError: invalid syntax\); allowed: a Python file .*; see line 1"),
        ("x = 1\n\ny = x / 0", r"\(ZeroDivisionError: division by zero\); .*; see line 3 of net"),
        ("from .blocks import x", r"\(ImportError: attempted relative import .*; see line 1 of"),
        ("import sys\nsys.exit(0)", r"\(SystemExit: 0\); .*; see line 2 of net\.py$"),
        ("\0", r"\((SyntaxError|ValueError): source code .* null bytes\)"),
        ("", r"no such factory in the file: .*; allowed: a function or class that returns an nn"),
    ],
)
def test_files_that_fail(text: str, message: str, write: Callable[..., str]) -> None:
    before = set(sys.modules)
    with pytest.raises(SettingError, match=message) as raised:
        network(f"{write(text)}:make")
    assert raised.value.argument == "model"
    assert "\n" not in str(raised.value)
    assert not any(name.startswith("_ifspace_") for name in sys.modules.keys() - before)


def test_missing_files_are_an_error(write: Callable[..., str], tmp_path: Path) -> None:
    near = write(NET).replace("net.py", "nets.py")
    (tmp_path / "folder.py").mkdir()
    for file, message in (
        (near, r"nets\.py' \(No such file or directory\); .*; nearest: net\.py$"),
        (str(tmp_path / "no" / "net.py"), r"\(No such file or directory\); .*; check its path$"),
        (str(tmp_path / "folder.py"), r"folder\.py' \(Is a directory\)"),
        ("\0.py", r"'\\x00\.py' \(embedded null"),
    ):
        with pytest.raises(
            SettingError, match=f"^file of a network cannot be read: got .*{message}"
        ):
            from_file(file, "make")


def test_an_interruption_is_raised(write: Callable[..., str]) -> None:
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        network(f"{write(NET)}:stops")
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        network(f"{write('raise KeyboardInterrupt')}:stops")
