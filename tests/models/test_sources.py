"""Networks by name: all of the zoo, seeds, classes, and what is refused."""

import gc
import subprocess
import sys
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
from ifspace.models.sources import (
    network,
    parse_image,
)
from ifspace.nn import named_network
from ifspace.stages import networks

ROOT = Path(__file__).parents[2]


def numel(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


@pytest.mark.parametrize("entry", ZOO, ids=str)
def test_every_network_is_built_and_takes_its_images(entry: Entry) -> None:
    made = on_meta(entry)
    assert numel(made) == entry.params
    assert all(each.training for each in made.modules())
    device = next(made.parameters()).device
    made = made.eval() if device.type == "meta" else made
    classes = 10 if entry.built_in and entry.image[1] == 32 else 1000
    with torch.no_grad():
        y = made(torch.empty(2, *entry.small, device=device))
    assert y.shape == (2, classes)


def test_the_parameters_are_those_that_the_libraries_state() -> None:
    models = import_module("torchvision.models")
    for entry in TORCHVISION:
        weights = models.get_model_weights(entry.model.partition(":")[2]).DEFAULT
        assert weights.meta["num_params"] == entry.params, entry
    for entry in BUILT_IN:
        assert networks.network(entry.model, entry.image[1]).params == entry.params, entry
    # timm states none: the same networks elsewhere, and 5.18 million of GhostNet's repository.
    same = {entry.model.replace("torchvision:", "timm:"): entry.params for entry in TORCHVISION}
    same["timm:mobilenetv1_100"] = networks.network("mobilenet", 224).params
    found = {entry.model: entry.params for entry in TIMM}
    assert round(found.pop("timm:ghostnet_100") / 1e4) == 518
    assert found == {name: same[name] for name in found}


def test_all_papers_networks_are_in_the_zoo() -> None:
    small = [entry.model for entry in BUILT_IN if entry.image == (3, 32, 32)]
    assert small == list(networks.NETWORKS)
    assert len({str(entry) for entry in ZOO}) == len(ZOO)


def test_the_zoo_keeps_a_network_while_it_is_held() -> None:
    entry = next(each for each in BUILT_IN if each.model == "layout-plain")
    held = build(entry)
    assert build(entry) is held
    first, alive = next(held.parameters()).detach().clone(), ref(held)
    del held
    gc.collect()
    assert alive() is None
    assert torch.equal(next(build(entry).parameters()), first)


@pytest.mark.parametrize(
    "name", ["torchvision:shufflenet_v2_x1_0", "timm:ghostnet_050", "layout-plain"]
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


def test_a_network_of_the_papers_is_that_of_its_name() -> None:
    made, same = network("Layout-PLAIN", (3, 32, 32), seed=3), named_network("layout-plain", seed=3)
    assert (made.layout, made.style) == (same.layout, same.style)
    assert all(map(torch.equal, made.state_dict().values(), same.state_dict().values()))
    assert network("fog", (3, 64, 64)).layout.image == 64
    with torch.device("meta"):
        assert network(" vgg16 ").layout.image == 224


@pytest.mark.parametrize(
    ("name", "classes"),
    [("torchvision:ResNet18", 7), ("Timm:resnet18.a1_in1k", 7), ("mobilenet", 7)],
)
def test_classes_are_passed_on(name: str, classes: int) -> None:
    with torch.device("meta"):
        made = network(name, classes=classes)
        assert made.eval()(torch.empty(1, 3, 224, 224)).shape == (1, classes)
        usual = network(name).eval()(torch.empty(1, 3, 224, 224))
    assert usual.shape == (1, 1000)


def test_timm_is_told_the_channels() -> None:
    with torch.device("meta"):
        made = network("timm:mobilenetv1_100", (1, 64, 64)).eval()
        assert made(torch.empty(1, 1, 64, 64)).shape == (1, 1000)


def test_no_weights_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
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
    ("name", "image", "said"),
    [
        (
            "vgg17",
            None,
            r"unknown network: got 'vgg17'; allowed: timm:NAME, torchvision:NAME, "
            r"FILE\.py:FACTORY, or vgg11, .*; nearest: vgg.*, or is it timm:vgg17 or .*:vgg17\?$",
        ),
        ("squeeze", None, r"unknown network: got 'squeeze'; .*; name a package, or is it timm:"),
        ("", None, "unknown network: got ''"),
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
def test_names_that_stand_for_nothing(name: str, image: sources.Image | None, said: str) -> None:
    with pytest.raises(SettingError, match=f"^{said}") as refused:
        network(name, image or (3, 224, 224))
    assert refused.value.argument == "model"
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
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
def test_arguments_out_of_range(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=f"^{said}") as refused:
        network(**{"name": "vgg16"} | arguments)  # type: ignore[arg-type]
    assert refused.value.argument in arguments


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"^timm is not installed: .*; pip install timm$") as said:
        network("timm:resnet18")
    assert said.value.argument == "model"
    assert numel(network("layout-plain", (3, 32, 32))) == 603962


@pytest.mark.parametrize(
    ("error", "said"),
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
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> ModuleType:
        raise error

    monkeypatch.setattr(sources, "import_module", fail)
    with pytest.raises(DeviceError, match=f"^{said}"):
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


def test_packages_are_imported_when_asked_for_and_refused_when_they_do_not_fit() -> None:
    out, err = in_new_python(
        "import sys\nfrom ifspace.errors import IfspaceError\n"
        "from ifspace.models.sources import network\n"
        "network('layout-plain', (3, 32, 32))\n"
        "print({'timm', 'torchvision', 'sklearn'} & sys.modules.keys())\n"
        "for _ in range(2):\n"
        "    try:\n        print(type(network('torchvision:resnet18')).__name__)\n"
        "    except IfspaceError as refused:\n        print(refused)"
    )
    first, *tries = out.splitlines()
    assert (first, err) == ("set()", "")
    assert len(tries) == 2
    fit = "this build of torchvision does not fit this torch: "
    assert all(each == "ResNet" or each.startswith(fit) for each in tries), tries


def test_imports_are_silent_and_wait_for_torchvision() -> None:
    out, err = in_new_python(
        "import sys; sys.path.insert(0, 'tests')\nimport torchvision_operators as operators\n"
        "operators.prepare()\nprint('torch' in sys.modules)\n"
        "import timm, torchvision\nprint(torchvision.models.resnet18().fc.out_features)"
    )
    assert (out.split(), err) == (["False", "1000"], "")


@pytest.mark.parametrize(
    ("text", "image"),
    [("3x224x224", (3, 224, 224)), (" 1X28×32 ", (1, 28, 32)), ("3 x 32 x 32", (3, 32, 32))],
)
def test_image_sizes_are_read(text: str, image: sources.Image) -> None:
    assert parse_image(text) == image


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("224", "image size cannot be read: got '224'; allowed: CHANNELSxHEIGHTxWIDTH"),
        ("3x224", "image size cannot be read"),
        ("3x224x224x1", "image size cannot be read"),
        ("3x-2x2", "image size cannot be read"),
        ("٣x2x2", "image size cannot be read"),
        (None, "image size cannot be read: got None"),
        ("0x224x224", "input out of range: got 0"),
        ("3x224x65537", "input out of range: got 65537"),
    ],
)
def test_image_sizes_that_cannot_be_read(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=f"^{said}") as refused:
        parse_image(text)
    assert refused.value.argument == "input"
