"""Networks that `save` does not write, and files that `load` does not read."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ifspace.errors import DeviceError, IfspaceError, OutputError, SettingError
from ifspace.nn.files import (
    NetworkFileError,
    load,
    save,
)
from ifspace.nn.network import (
    Network,
    build_network,
)
from ifspace.stages.layout import StemAndHead
from ifspace.stages.networks import make_layout

SENSELESS = r"a description that makes no sense( \(.*\))?"
pytestmark = pytest.mark.usefixtures("one_thread")


def small() -> Network:
    frame = StemAndHead(batch_norm=True, classifier=(6, 4))
    return build_network(make_layout("DW+PW", (8, 4), (8, 16), (1, 1), stem_and_head=frame), seed=0)


def changed_head(net: Network) -> None:
    net.head.logits = nn.Linear(6, 100)


def more_parts(net: Network) -> None:
    net.more = nn.Linear(2, 2)


def other_layout(net: Network) -> None:
    net.layout = net.layout.at_depths((2, 1))


def no_style(net: Network) -> None:
    net.style = replace(net.style)
    object.__setattr__(net.style, "head", "none")


def too_deep(net: Network) -> None:
    stage = net.layout.stages[0]
    net.layout = replace(net.layout, stages=(stage.at_depth(1001), *net.layout.stages[1:]))


def of_integers(net: Network) -> None:
    net.head.logits.bias = nn.Parameter(torch.zeros(4, dtype=torch.int64), requires_grad=False)


def of_eight_bits(net: Network) -> None:
    narrow = torch.zeros(4).to(torch.float8_e4m3fn)
    net.head.logits.bias = nn.Parameter(narrow, requires_grad=False)


def sparse(net: Network) -> None:
    net.head.logits.weight = nn.Parameter(net.head.logits.weight.detach().to_sparse())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            changed_head,
            "got weights that are not those of its description: head.logits.bias and 1 more",
        ),
        (more_parts, "got weights that are not those of its description: more.bias and 1 more"),
        (
            other_layout,
            "got weights that are not those of its description: stages.stage1.unit2.layer0",
        ),
        (no_style, "got a description that no file can hold"),
        (too_deep, "got a description that no file can hold"),
        (
            of_integers,
            "got weights that are not those of its description: head.logits.bias; allowed",
        ),
        (
            of_eight_bits,
            "got weights that are not those of its description: head.logits.bias; allowed",
        ),
        (sparse, "got weights that are not those of its description: head.logits.weight; allowed"),
    ],
)
def test_a_network_that_load_cannot_read_is_not_written(
    tmp_path: Path, change: Callable[[Network], None], message: str
) -> None:
    net = small()
    change(net)
    with pytest.raises(
        OutputError, match=f"^a network that could not be read back: {message}"
    ) as error:
        save(net, tmp_path / "net.safetensors")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["all", "stages", "in place"])
def test_a_compiled_network_is_saved_as_the_network(tmp_path: Path, part: str) -> None:
    net: Any = small()
    if part == "all":
        net = torch.compile(net, backend="eager")
    elif part == "stages":
        net.stages = torch.compile(net.stages, backend="eager")
    else:
        net.compile(backend="eager")
    save(net, tmp_path / "net.safetensors")
    back, plain = load(tmp_path / "net.safetensors").state_dict(), small().state_dict()
    assert list(back) == list(plain)
    assert all(torch.equal(back[name], plain[name]) for name in plain)


def test_weights_that_share_memory_are_each_written(tmp_path: Path) -> None:
    net = small()
    norm = net.stages.stage1.unit1.layer0_bn
    norm.weight = nn.Parameter(torch.arange(3.0))
    norm.bias = norm.weight
    save(net, tmp_path / "net.safetensors")
    back = load(tmp_path / "net.safetensors").stages.stage1.unit1.layer0_bn
    assert torch.equal(back.weight, torch.arange(3.0))
    assert torch.equal(back.bias, back.weight)


@pytest.mark.parametrize("wrong", [nn.Linear(2, 2), None, "vgg16", Network])
def test_a_value_that_is_not_a_network_raises(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(
        SettingError, match=r"^wrong network: got .*; allowed: a Network, of build_"
    ):
        save(wrong, tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [None, 0, b"net.safetensors", "a\0.safetensors"])
def test_a_value_that_is_not_a_path_raises(path: Any) -> None:
    for call in (lambda: save(small(), path), lambda: load(path)):
        with pytest.raises(SettingError, match=r"^wrong path: got "):
            call()


@pytest.mark.parametrize("device", ["gpu", 3, "cuda:99", "meta", "", 1.5, True])
def test_a_device_that_cannot_be_used_raises(tmp_path: Path, device: Any) -> None:
    save(small(), tmp_path / "net.safetensors")
    with pytest.raises(
        DeviceError, match=r"^device cannot be used: got .*; allowed: cpu, cuda wh"
    ) as error:
        load(tmp_path / "net.safetensors", device)
    assert "\n" not in str(error.value)
    assert "net.safetensors" not in str(error.value)


def crafted(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite a saved file with its description changed, or with the text that `change` returns."""
    save(small(), file)
    with safe_open(file, "pt") as opened:
        about = json.loads(opened.metadata()["ifspace"])
        tensors = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
    text = change(about)
    save_file(tensors, file, {"ifspace": text if isinstance(text, str) else json.dumps(about)})


def wide(about: dict[str, Any]) -> None:
    about["layout"]["frame"]["classifier"] = [10**18, 4]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "[" * 100_000 + "]" * 100_000, SENSELESS),
        (lambda _: '{"format": 1, "layout": {"frame": ' + "[" * 100_000, SENSELESS),
        (lambda _: "[1]", SENSELESS),
        (lambda _: "3", SENSELESS),
        (lambda _: "9" * 5000, SENSELESS),
        (lambda about: about.update(format="1"), "format version '1', not 1"),
        (lambda about: about.update(format=True), "format version True, not 1"),
        (lambda about: about.update(format=1.0), r"format version 1\.0, not 1"),
        (lambda about: about.update(format="x" * 9999), r"format version 'x{2,40}\.\.\.x+', not 1"),
        (lambda about: about.update(more=1), SENSELESS),
        (lambda about: about["layout"].update(more=1), r".*unknown field, 'more'\)"),
        (lambda about: about["layout"]["frame"].update(more=1), SENSELESS),
        (lambda about: about["layout"]["stages"][0].update(more2=1), SENSELESS),
        (lambda about: about.update(style=[]), SENSELESS),
        (lambda about: about["style"].update(activation={}), r".*of style\.activation, {}\)"),
        (lambda about: about.update(layout=None), SENSELESS),
        (wide, SENSELESS),
    ],
)
def test_crafted_descriptions_raise_one_line(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    file = tmp_path / "net.safetensors"
    crafted(file, change)
    with pytest.raises(
        NetworkFileError, match=f"is not a network that can be read: got {message};"
    ) as error:
        load(file)
    assert str(error.value).startswith(str(file))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize("dtype", [torch.int32, torch.bool, torch.complex64])
def test_weights_that_are_not_floats_raise(tmp_path: Path, dtype: torch.dtype) -> None:
    file = tmp_path / "net.safetensors"
    save(small(), file)
    with safe_open(file, "pt") as opened:
        about = opened.metadata()
        tensors = {key: opened.get_tensor(key).clone() for key in opened.keys()}  # noqa: SIM118
    tensors["head.logits.bias"] = torch.zeros(4, dtype=dtype)
    save_file(tensors, file, about)
    with pytest.raises(NetworkFileError, match=r"got weights that are not .*: head.logits.bias;"):
        load(file)


def test_every_error_is_of_ifspace() -> None:
    assert issubclass(NetworkFileError, IfspaceError)
    with pytest.raises(
        NetworkFileError, match=r"^network cannot be read: got none/x.safetensors \("
    ):
        load("none/x.safetensors")
